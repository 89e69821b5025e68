use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

struct Rig {
    mux: Arc<Mux>,
    user: UnixStream,
    quits: Arc<AtomicUsize>,
    slots: [(Arc<Chardev>, Arc<Recorder>); 2],
    _dir: TempDir,
    _thread: iol::Thread,
}

/// Two front ends with `room` on one socket, and the user at its other end.
fn rig(room: usize) -> Rig {
    let (_thread, on) = iol::Thread::spawn("io-test").unwrap();
    let _dir = TempDir::new().unwrap();
    let path = _dir.as_path().join("sock");
    let base = Backend::Socket(Socket::at(Address::Unix(path.clone())));
    let base = Chardev::open("m", base, &on).unwrap();
    let quits = Arc::new(AtomicUsize::new(0));
    let q = quits.clone();
    let quit = move || {
        q.fetch_add(1, Ordering::SeqCst);
    };
    let mux = Mux::new(("m", "mux"), base, &on, Some(ESCAPE), quit).unwrap();
    let slots = [(); 2].map(|()| {
        let (slot, recorder) = (mux.slot().unwrap(), Recorder::with_room(room));
        slot.attach(recorder.clone()).unwrap();
        (slot, recorder)
    });
    let user = UnixStream::connect(path).unwrap();
    user.set_read_timeout(Some(LONG)).unwrap();
    slots[0].1.until_log(&["Opened"]);
    slots[1].1.until_log(&["Opened", "MuxOut"]);
    Rig { mux, user, quits, slots, _dir, _thread }
}

#[test]
fn the_keyboard_goes_to_one_and_output_comes_from_all() {
    let mut rig = rig(100);
    let [(a, from_a), (b, from_b)] = &rig.slots;
    rig.user.write_all(b"one\x01ctwo\x01cthree\x01\x01.\x01zfour\x01b").unwrap();
    from_a.until_data(b"onethree\x01.four");
    from_b.until_data(b"two");
    from_a.until_log(&["Opened", "MuxOut", "MuxIn", "Break"]);
    from_b.until_log(&["Opened", "MuxOut", "MuxIn", "MuxOut"]);
    a.write(b"<a>");
    b.write(b"<b>");
    assert_eq!(read_exactly(&mut rig.user, 6), b"<a><b>");
    assert_eq!((a.label(), a.filename().as_str()), ("m", "mux"));
    assert!(a.attach(Recorder::with_room(0)).is_err());
    let others = [rig.mux.slot().unwrap(), rig.mux.slot().unwrap()];
    assert!(rig.mux.slot().is_err());
    assert_eq!(rig.mux.users(), 2);
    // One that goes makes room.
    drop(others);
    drop(rig.mux.slot().unwrap());
}

#[test]
fn help_and_quit_work_although_the_front_end_is_stuck() {
    let mut rig = rig(0);
    rig.user.write_all(b"nobody takes this\x01h\x01").unwrap();
    let mut help = Vec::new();
    while !help.ends_with(b"escape key itself\r\n") {
        help.extend(read_exactly(&mut rig.user, 1));
    }
    let help = String::from_utf8(help).unwrap();
    assert!(help.contains("\r\nC-a x    end the virtual machine\r\n"), "{help}");
    assert!(help.contains("\r\nC-a C-a  send the escape key itself\r\n"), "{help}");
    assert_eq!(rig.quits.load(Ordering::SeqCst), 0);
    rig.user.write_all(b"x").unwrap();
    let end = b"vmm: terminated\r\n";
    assert_eq!(read_exactly(&mut rig.user, end.len()), end);
    let late = Instant::now() + LONG;
    while rig.quits.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < late);
        std::thread::yield_now();
    }
    // The input is there when it can be taken, here and after a switch.
    rig.user.write_all(b"\x01cother").unwrap();
    let [(a, from_a), (b, from_b)] = &rig.slots;
    from_a.change(|state| state.room = 6);
    a.accept_input();
    from_a.until_data(b"nobody");
    from_b.change(|state| state.room = 100);
    b.accept_input();
    from_b.until_data(b"other");
    from_a.change(|state| state.room = 100);
    a.accept_input();
    from_a.until_data(b"nobody takes this");
}

#[test]
fn more_input_than_is_kept_is_not_lost() {
    let mut rig = rig(0);
    let data: Vec<u8> = numbers(100_000).into_iter().filter(|b| *b != ESCAPE).collect();
    let to = data.clone();
    let mut user = rig.user.try_clone().unwrap();
    let writer = std::thread::spawn(move || user.write_all(&to).unwrap());
    let (a, from_a) = &rig.slots[0];
    while from_a.state.lock().data.len() < data.len() {
        let before = from_a.state.lock().data.len();
        from_a.change(|state| state.room = 777);
        a.accept_input();
        let full = data.len().min(before + 777);
        from_a.until("input", |state| state.data.len() >= full);
    }
    writer.join().unwrap();
    from_a.until_data(&data);
    rig.user.write_all(b"end").unwrap();
}

#[test]
fn output_of_both_has_back_pressure() {
    let mut rig = rig(0);
    let data = vec![b'.'; 1_000_000];
    let writers = rig.slots.clone().map(|(slot, recorder)| {
        let data = data.clone();
        std::thread::spawn(move || write_all(&slot, &recorder, &data))
    });
    let got = read_exactly(&mut rig.user, 2 * data.len());
    assert!(got.iter().all(|b| *b == b'.'));
    for writer in writers {
        writer.join().unwrap();
    }
}

#[test]
fn a_peer_that_comes_again_is_announced() {
    let rig = rig(100);
    let path = rig._dir.as_path().join("sock");
    drop(rig.user);
    let (slot, recorder) = &rig.slots[1];
    recorder.until_log(&["Opened", "MuxOut", "Closed"]);
    assert_eq!(slot.write(&[0; 100_000]), 100_000);
    let mut user = UnixStream::connect(path).unwrap();
    recorder.until_log(&["Opened", "MuxOut", "Closed", "Opened", "MuxOut"]);
    slot.write(b"banner");
    assert_eq!(read_exactly(&mut user, 6), b"banner");
    // Without the mux the slots are dead, and harmless.
    drop(rig.mux);
    assert_eq!(slot.write(b"x"), 1);
}

#[test]
fn lines_are_stamped_from_the_next_one_on() {
    let mut rig = rig(100);
    let [(a, _), (b, _)] = &rig.slots;
    rig.user.write_all(b"\x01t\x01h").unwrap();
    // The help comes after the command before it.
    let mut help = Vec::new();
    while !help.ends_with(b"escape key itself\r\n") {
        help.extend(read_exactly(&mut rig.user, 1));
    }
    assert_eq!(a.write(b"end of a line\none\ntw"), 20);
    assert_eq!(b.write(b"o\n"), 2);
    let mut got = Vec::new();
    while !got.ends_with(b"two\n") {
        got.extend(read_exactly(&mut rig.user, 1));
    }
    let text = String::from_utf8(got).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let stamp = |line: &str, rest: &str| {
        let (stamp, end) = line.split_once("] ").unwrap();
        assert_eq!(end, rest);
        let digits: String =
            stamp.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(digits, "[00:00:00.000");
    };
    assert_eq!(lines[0], "end of a line");
    stamp(lines[1], "one");
    stamp(lines[2], "two");
    rig.user.write_all(b"\x01tx").unwrap();
    rig.slots[0].1.until_data(b"x");
    a.write(b"plain\nagain");
    assert_eq!(read_exactly(&mut rig.user, 11), b"plain\nagain");
}

#[test]
fn stamps_and_lines_stay_whole_on_a_slow_reader() {
    let mut rig = rig(100);
    rig.user.write_all(b"\x01tx").unwrap();
    let (a, from_a) = rig.slots[0].clone();
    from_a.until_data(b"x");
    let lines: String = (0..50_000).map(|i| format!("{i}\n")).collect();
    let data = lines.clone();
    let writer = std::thread::spawn(move || write_all(&a, &from_a, data.as_bytes()));
    let size = lines.len() + 49_999 * "[00:00:00.000] ".len();
    let got = String::from_utf8(read_exactly(&mut rig.user, size)).unwrap();
    let plain: String =
        got.lines().map(|line| format!("{}\n", line.rsplit(' ').next().unwrap())).collect();
    assert!(plain == lines);
    writer.join().unwrap();
}

#[test]
fn a_slot_that_goes_gives_up_the_focus() {
    let mut rig = rig(100);
    let [(a, _), (_b, from_b)] = rig.slots;
    drop(a);
    from_b.until_log(&["Opened", "MuxOut", "MuxIn"]);
    rig.user.write_all(b"here").unwrap();
    from_b.until_data(b"here");
    let (slot, recorder) = (rig.mux.slot().unwrap(), Recorder::with_room(10));
    slot.attach(recorder.clone()).unwrap();
    recorder.until_log(&["Opened", "MuxOut"]);
    rig.user.write_all(b"\x01cthere").unwrap();
    recorder.until_data(b"there");
}
