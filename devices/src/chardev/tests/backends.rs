//! The back ends that are neither sockets nor terminals of the process.

use std::net::UdpSocket;
use std::os::unix::net::{UnixListener, UnixStream};

use resources::fdset::FdSets;
use rustix::fs::{CWD, mkfifoat};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
use rustix::termios::{ControlModes, InputModes, LocalModes, tcgetattr};

use super::*;

fn open(backend: Backend) -> (iol::Thread, Arc<Chardev>, Arc<Recorder>) {
    let (thread, on) = iol::Thread::spawn("io-test").unwrap();
    let chardev = Chardev::open("c", backend, &on).unwrap();
    let recorder = Recorder::with_room(usize::MAX / 2);
    chardev.attach(recorder.clone()).unwrap();
    recorder.until_log(&["Opened"]);
    (thread, chardev, recorder)
}

fn fifo(path: &Path) -> std::fs::File {
    mkfifoat(CWD, path, Mode::from_raw_mode(0o600)).unwrap();
    // Both ends, as the chardev has them: nobody waits for a peer.
    std::fs::File::options().read(true).write(true).open(path).unwrap()
}

#[test]
fn two_pipes_go_one_way_each() {
    let dir = TempDir::new().unwrap();
    let mut input = fifo(&dir.as_path().join("p.in"));
    let mut output = fifo(&dir.as_path().join("p.out"));
    let pipe = Backend::Pipe(Pipe { path: dir.as_path().join("p") });
    let (_thread, chardev, recorder) = open(pipe);
    assert_eq!(chardev.filename(), "pipe");
    input.write_all(b"typed").unwrap();
    recorder.until_data(b"typed");
    // More than a pipe holds: it waits for the reader and none is lost.
    let data = numbers(300_000);
    let reader = std::thread::spawn({
        let count = data.len();
        move || read_exactly(&mut output, count)
    });
    write_all(&chardev, &recorder, &data);
    assert!(reader.join().unwrap() == data);
}

#[test]
fn one_pipe_serves_both_ways() {
    let dir = TempDir::new().unwrap();
    let path = dir.as_path().join("p");
    let mut file = fifo(&path);
    let (_thread, chardev, recorder) = open(Backend::Pipe(Pipe { path: path.clone() }));
    file.write_all(b"in").unwrap();
    recorder.until_data(b"in");
    recorder.change(|state| state.room = 0);
    assert_eq!(chardev.write(b"out"), 3);
    assert_eq!(read_exactly(&mut file, 3), b"out");
    let (_thread, on) = iol::Thread::spawn("io-test").unwrap();
    let missing = Backend::Pipe(Pipe { path: dir.as_path().join("none") });
    let error = Chardev::open("n", missing, &on).err().unwrap();
    assert!(matches!(error, CharError::Create(_)), "{error:?}");
}

#[test]
fn each_write_is_a_datagram_and_datagrams_are_one_stream() {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(LONG)).unwrap();
    let port = peer.local_addr().unwrap().port();
    let inet = |port| Inet { host: "127.0.0.1".to_owned(), port, ..Inet::default() };
    let udp = Udp { remote: inet(port), local: Some(inet(0)) };
    let (_thread, chardev, recorder) = open(Backend::Udp(udp.clone()));
    assert_eq!(chardev.filename(), "udp");
    assert_eq!((chardev.write(b"one"), chardev.write(b"three")), (3, 5));
    let mut buf = [0; 100];
    let (count, from) = peer.recv_from(&mut buf).unwrap();
    assert_eq!(&buf[..count], b"one");
    let (count, _) = peer.recv_from(&mut buf).unwrap();
    assert_eq!(&buf[..count], b"three");
    // A datagram that finds less room is not cut; an empty one is no end.
    recorder.change(|state| state.room = 3);
    for datagram in [&b"abcd"[..], b"", b"ef"] {
        peer.send_to(datagram, from).unwrap();
    }
    recorder.until_data(b"abc");
    recorder.change(|state| state.room = 100);
    chardev.accept_input();
    recorder.until_data(b"abcdef");
    // What a stranger sends is not heard.
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(b"no", from).unwrap();
    peer.send_to(b"g", from).unwrap();
    recorder.until_data(b"abcdefg");
    // Nobody there is no error, and somebody later is heard.
    drop(peer);
    assert_eq!((chardev.write(b"lost"), chardev.write(b"lost")), (4, 4));
    let peer = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    peer.send_to(b"h", from).unwrap();
    recorder.until_data(b"abcdefgh");
    recorder.until_log(&["Opened"]);
    // Too much for one datagram goes in several.
    assert_eq!(chardev.write(&[7; 100_000]), 100_000);
}

#[test]
fn a_serial_line_is_raw_and_set_as_asked() {
    let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
    let master = rustix::pty::openpt(flags).unwrap();
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
    let before = tcgetattr(&master).unwrap();
    assert!(before.local_modes.contains(LocalModes::ECHO));
    let tty = Tty { device: name.to_str().unwrap().into() };
    let (_thread, chardev, recorder) = open(Backend::Serial(tty));
    assert_eq!(chardev.filename(), "serial");
    let during = tcgetattr(&master).unwrap();
    assert_eq!(during.output_speed(), 115_200);
    assert!(!during.local_modes.intersects(LocalModes::ECHO | LocalModes::ICANON));
    assert!(during.input_modes.contains(InputModes::PARMRK));
    let mut master = std::fs::File::from(master);
    let all: Vec<u8> = (0..=255).collect();
    master.write_all(&all).unwrap();
    recorder.until_data(&all);
    write_all(&chardev, &recorder, &all);
    assert_eq!(read_exactly(&mut master, 256), all);

    let line = Line { speed: 9600, parity: Parity::Odd, data_bits: 7, two_stop_bits: true };
    chardev.control(Control::Line(line));
    let now = tcgetattr(&master).unwrap();
    // A pseudo-terminal has eight bits and no parity whatever it is told.
    assert_eq!(now.output_speed(), 9600);
    assert!(now.control_modes.contains(ControlModes::CSTOPB));
    // Nor has it a modem, and no breaks.
    assert_eq!(chardev.modem_lines(), None);
    chardev.control(Control::Break(true));
    chardev.control(Control::Modem { dtr: true, rts: true });
    chardev.close();
    let after = tcgetattr(&master).unwrap();
    assert_eq!(
        (after.local_modes, after.input_modes, after.output_modes, after.control_modes),
        (before.local_modes, before.input_modes, before.output_modes, before.control_modes),
    );
}

#[test]
fn a_serial_line_that_hangs_up_is_closed() {
    let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
    let master = rustix::pty::openpt(flags).unwrap();
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
    let tty = Tty { device: name.to_str().unwrap().into() };
    let (_thread, chardev, recorder) = open(Backend::Serial(tty));
    drop(master);
    recorder.until_log(&["Opened", "Closed"]);
    assert_eq!(chardev.write(b"gone"), 4);
}

#[test]
fn a_serial_mouse_says_who_it_is_and_moves() {
    let (_thread, chardev, recorder) = open(Backend::Msmouse(Msmouse));
    recorder.change(|state| state.room = 3);
    chardev.accept_input();
    chardev.control(Control::Modem { dtr: true, rts: true });
    recorder.until_data(b"M3");
    let mouse = chardev.mouse().unwrap();
    mouse.move_by(MouseMove { dx: 1, dy: 2, left: true, ..MouseMove::default() });
    recorder.until_data(b"M3\x60");
    // While a movement is being read, others add up.
    mouse.move_by(MouseMove { dx: 3, ..MouseMove::default() });
    mouse.move_by(MouseMove { dx: -1, dy: 1, ..MouseMove::default() });
    recorder.change(|state| state.room = 100);
    chardev.accept_input();
    recorder.until_data(b"M3\x60\x01\x02\0\x40\x02\x01\0");
    assert_eq!(chardev.write(b"ignored"), 7);
}

#[test]
fn rings_and_screens_keep_what_was_written() {
    let (_thread, ring, _) = open(Backend::Ringbuf(Ringbuf { size: 16, memory: true }));
    assert_eq!(ring.filename(), "memory");
    assert_eq!(ring.write(b"0123456789abcdefXY"), 18);
    assert_eq!(ring.ring().unwrap().read(100), b"23456789abcdefXY");
    assert!(ring.screen().is_none());

    let vc = Vc { width: Some(80), rows: Some(2), ..Vc::default() };
    let (_thread, vc, _) = open(Backend::Vc(vc));
    assert_eq!(vc.screen().unwrap().size(), (10, 2));
    vc.write(b"hello\r\nworld\r\n!");
    assert_eq!(vc.screen().unwrap().lines(), ["world", "!"]);

    let (_thread, on) = iol::Thread::spawn("io-test").unwrap();
    for size in [0, 100, 1 << 40] {
        let ring = Backend::Ringbuf(Ringbuf { size, memory: false });
        assert!(Chardev::open("r", ring, &on).is_err(), "{size}");
    }
}

#[test]
fn files_may_be_of_a_set_of_descriptors() {
    let dir = TempDir::new().unwrap();
    let path = dir.as_path().join("out");
    let file = std::fs::File::create(&path).unwrap();
    let (id, _) = FdSets::global().add(None, file.into(), None);
    let file = File { path: format!("/dev/fdset/{id}").into(), ..File::default() };
    let (_thread, chardev, _) = open(Backend::File(file));
    chardev.write(b"through");
    chardev.close();
    assert_eq!(std::fs::read(&path).unwrap(), b"through");
    assert!(FdSets::global().remove(id, None));
}

#[test]
fn what_is_kept_is_sent_before_the_end() {
    let (_thread, on) = iol::Thread::spawn("io-test").unwrap();
    let dir = TempDir::new().unwrap();
    let path = dir.as_path().join("sock");
    let server = Backend::Socket(Socket::at(Address::Unix(path.clone())));
    let chardev = Chardev::open("s", server, &on).unwrap();
    let recorder = Recorder::with_room(0);
    chardev.attach(recorder.clone()).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    recorder.until_log(&["Opened"]);
    let mut sent = Vec::new();
    let mut chunk = (0..).map(|i| (i % 251) as u8);
    loop {
        let part: Vec<u8> = chunk.by_ref().take(5000).collect();
        let taken = chardev.push(&part);
        sent.extend_from_slice(&part[..taken]);
        if taken < part.len() {
            break;
        }
    }
    // All is full now, for others too; and nobody who waits can be made to wait for ever.
    assert_eq!(chardev.write(b"x"), 0);
    let begin = Instant::now();
    chardev.flush(begin + Duration::from_millis(20));
    assert!(begin.elapsed() >= Duration::from_millis(20) && begin.elapsed() < LONG);
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        got
    });
    chardev.flush(Instant::now() + LONG);
    chardev.close();
    assert!(reader.join().unwrap() == sent);
}

#[test]
fn a_peer_that_takes_its_time_is_not_waited_for() {
    let (_thread, on) = iol::Thread::spawn("io-test").unwrap();
    let dir = TempDir::new().unwrap();
    let path = dir.as_path().join("sock");
    let slow = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    bind(&slow, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    listen(&slow, 0).unwrap();
    let slow = UnixListener::from(slow);
    // The queue takes one; the next one has to wait for that.
    let first = UnixStream::connect(&path).unwrap();
    let backend = Backend::Socket(Socket::to(Address::Unix(path.clone())));
    let begin = Instant::now();
    let chardev = Chardev::open_with("s", backend, &on, Patience::Brief).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let recorder = Recorder::with_room(100);
    chardev.attach(recorder.clone()).unwrap();
    assert_eq!(chardev.write(b"to nobody"), 9);
    drop((slow.accept().unwrap(), first));
    recorder.until_log(&["Opened"]);
    let (mut peer, _) = slow.accept().unwrap();
    chardev.write(b"hello");
    assert_eq!(read_exactly(&mut peer, 5), b"hello");

    // A server that is to wait does not either, once all runs.
    let path = dir.as_path().join("other");
    let server = Socket { wait: true, ..Socket::at(Address::Unix(path.clone())) };
    let chardev = Chardev::open_with("w", Backend::Socket(server), &on, Patience::Brief).unwrap();
    let recorder = Recorder::with_room(100);
    chardev.attach(recorder.clone()).unwrap();
    UnixStream::connect(&path).unwrap().write_all(b"late").unwrap();
    recorder.until_data(b"late");
}

#[test]
fn chardevs_come_and_go_under_traffic() {
    let (_thread, on) = iol::Thread::spawn("io-test").unwrap();
    let dir = TempDir::new().unwrap();
    let path = dir.as_path().join("sock");
    let going = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let (going, path) = (going.clone(), path.clone());
            std::thread::spawn(move || {
                while going.load(std::sync::atomic::Ordering::Relaxed) {
                    let Ok(mut client) = UnixStream::connect(&path) else {
                        std::thread::yield_now();
                        continue;
                    };
                    client.set_read_timeout(Some(LONG)).unwrap();
                    let mut buf = [0; 4096];
                    while client.write_all(&[1; 3000]).is_ok()
                        && matches!(client.read(&mut buf), Ok(1..))
                    {}
                }
            })
        })
        .collect();
    for round in 0..50 {
        let server = Backend::Socket(Socket::at(Address::Unix(path.clone())));
        let chardev = Chardev::open_with("s", server, &on, Patience::Brief).unwrap();
        let recorder = Recorder::with_room(usize::MAX / 2);
        chardev.attach(recorder.clone()).unwrap();
        recorder.until("input", |state| state.data.len() >= 1000 * (round % 4));
        let mut written = 0;
        while written < 20_000 * (round % 3) {
            written += chardev.write(&[2; 5000]);
            recorder.until("a peer", |state| !state.log.is_empty());
        }
        if round % 2 == 0 {
            chardev.detach();
            let next = Recorder::with_room(10);
            chardev.attach(next.clone()).unwrap();
            next.until("a peer", |state| !state.log.is_empty());
        }
        chardev.close();
        assert_eq!(chardev.write(b"late"), 4);
    }
    going.store(false, std::sync::atomic::Ordering::Relaxed);
    drop(on);
    std::fs::remove_file(&path).unwrap();
    clients.into_iter().for_each(|client| client.join().unwrap());
}

#[test]
fn another_back_end_takes_over() {
    let (_thread, on) = iol::Thread::spawn("io-test").unwrap();
    let dir = TempDir::new().unwrap();
    let path = dir.as_path().join("sock");
    let server = Backend::Socket(Socket::at(Address::Unix(path.clone())));
    let chardev = Chardev::open("s", server, &on).unwrap();
    let recorder = Recorder::with_room(100);
    chardev.attach(recorder.clone()).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    recorder.until_log(&["Opened"]);
    while chardev.write(&[0; 4096]) == 4096 {}
    let waiting = recorder.state.lock().writable;

    let missing = Backend::Pipe(Pipe { path: dir.as_path().join("none") });
    assert!(chardev.change(missing, Patience::Brief).is_err());
    client.write_all(b"still").unwrap();
    recorder.until_data(b"still");

    let ring = Backend::Ringbuf(Ringbuf::default());
    chardev.change(ring, Patience::Brief).unwrap();
    assert_eq!((chardev.label(), chardev.filename().as_str()), ("s", "ringbuf"));
    recorder.until_log(&["Opened", "Closed", "Opened"]);
    // Who waited for the old peer goes on with the new one.
    recorder.until("writable", |state| state.writable > waiting);
    assert_eq!(chardev.write(b"new"), 3);
    assert_eq!(chardev.ring().unwrap().read(9), b"new");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert!(rest.iter().all(|byte| *byte == 0));
    assert!(chardev.is_used());
    chardev.close();
    assert!(!chardev.is_used());
}
