use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::*;

fn open_slave(filename: &str) -> std::fs::File {
    let path = filename.strip_prefix("pty:").unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    rustix::fs::open(path, flags, Mode::empty()).unwrap().into()
}

#[test]
fn pty_follows_who_has_it_open() {
    let (_thread, on) = iol::Thread::spawn("io-test").unwrap();
    let chardev = Chardev::open("p", Backend::Pty(Pty), &on).unwrap();
    let recorder = Recorder::with_room(1000);
    chardev.attach(recorder.clone()).unwrap();
    assert_eq!(chardev.write(b"dropped"), 7);

    for round in 0..3usize {
        let mut slave = open_slave(&chardev.filename());
        recorder.until("opened", |state| state.log.len() == round * 2 + 1);
        // Raw: nothing is echoed, translated or kept for a whole line.
        let modes = tcgetattr(slave.as_fd()).unwrap().local_modes;
        assert!(!modes.intersects(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG));
        slave.write_all(b"\x03x\r").unwrap();
        recorder.until_data(&b"\x03x\r".repeat(round + 1));
        assert_eq!(chardev.write(b"a\nb"), 3);
        assert_eq!(read_exactly(&mut slave, 3), b"a\nb");
        drop(slave);
        recorder.until("closed", |state| state.log.len() == round * 2 + 2);
        assert_eq!(chardev.write(&[0; 100_000]), 100_000);
    }
}

#[test]
fn a_terminal_has_a_size_that_changes() {
    let (_thread, on) = iol::Thread::spawn("io-test").unwrap();
    let chardev = Chardev::open("p", Backend::Pty(Pty), &on).unwrap();
    let recorder = Recorder::with_room(1000);
    chardev.attach(recorder.clone()).unwrap();
    let slave = open_slave(&chardev.filename());
    recorder.until_log(&["Opened"]);
    assert_eq!(chardev.size(), None);
    let size = Winsize { ws_row: 50, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&slave, size).unwrap();
    winsize::follow(&chardev.port());
    terminal_resized();
    recorder.until_log(&["Opened", "Resized"]);
    assert_eq!(chardev.size(), Some(Size { cols: 132, rows: 50 }));
    let screen = Vc { cols: Some(100), height: Some(480), ..Vc::default() };
    let screen = Chardev::open("v", Backend::Vc(screen), &on).unwrap();
    assert_eq!(screen.size(), Some(Size { cols: 100, rows: 30 }));
}

#[test]
fn pty_has_back_pressure() {
    let (_thread, on) = iol::Thread::spawn("io-test").unwrap();
    let chardev = Chardev::open("p", Backend::Pty(Pty), &on).unwrap();
    let recorder = Recorder::with_room(0);
    chardev.attach(recorder.clone()).unwrap();
    let mut slave = open_slave(&chardev.filename());
    recorder.until_log(&["Opened"]);
    let data = numbers(200_000);
    let reader = std::thread::spawn({
        let count = data.len();
        move || read_exactly(&mut slave, count)
    });
    write_all(&chardev, &recorder, &data);
    assert!(reader.join().unwrap() == data);
}

/// Standard input and output belong to the test's process, so the child of a
/// test run does what this test asks.
#[test]
fn stdio_in_a_child() {
    if std::env::var_os("CHARDEV_STDIO_CHILD").is_none() {
        return;
    }
    let (_thread, on) = iol::Thread::spawn("io-test").unwrap();
    let open = || Chardev::open("c", Backend::Stdio(Stdio { signal: false }), &on);
    let chardev = open().unwrap();
    assert_eq!(chardev.filename(), "stdio");
    assert!(open().err().unwrap().to_string().contains("in use"));
    let recorder = Recorder::with_room(6);
    chardev.attach(recorder.clone()).unwrap();
    write_all(&chardev, &recorder, b"<ready>");
    recorder.until("input", |state| state.data.len() == 6);
    let data = recorder.state.lock().data.clone();
    write_all(&chardev, &recorder, &data);
    if std::env::var_os("CHARDEV_STDIO_CHILD").unwrap() == "hook" {
        stdio::restore_terminal();
        stdio::restore_terminal();
        // What standard output then does is not for the test harness.
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
            .unwrap();
    }
    chardev.close();
    let again = open().unwrap();
    drop(again);
}

fn child(mode: &str) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "--nocapture", "chardev::tests::terminal::stdio_in_a_child"])
        .env("CHARDEV_STDIO_CHILD", mode)
        .stderr(std::process::Stdio::null());
    command
}

#[test]
fn console_in_a_child() {
    if std::env::var_os("CHARDEV_CONSOLE_CHILD").is_none() {
        return;
    }
    let (_thread, on) = iol::Thread::spawn("io-test").unwrap();
    let chardev = Chardev::open("c", Backend::Console(Console), &on).unwrap();
    let recorder = Recorder::with_room(1);
    chardev.attach(recorder.clone()).unwrap();
    write_all(&chardev, &recorder, &numbers(300_000));
    write_all(&chardev, &recorder, b"<end>");
}

#[test]
fn the_console_is_standard_output_as_it_is() {
    let run = |output: OwnedFd, input: Option<std::fs::File>| {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "chardev::tests::terminal::console_in_a_child"])
            .env("CHARDEV_CONSOLE_CHILD", "1")
            .stderr(std::process::Stdio::null())
            .stdout(output)
            .spawn()
            .unwrap();
        let got = input.map(|mut input| {
            let mut got = Vec::new();
            input.read_to_end(&mut got).unwrap();
            got
        });
        assert!(child.wait().unwrap().success());
        got.unwrap_or_default()
    };
    let check = |got: Vec<u8>| {
        let mut data = numbers(300_000);
        data.extend(b"<end>");
        assert!(got.windows(data.len()).any(|window| window == data));
    };
    let (input, output) = std::io::pipe().unwrap();
    check(run(output.into(), Some(OwnedFd::from(input).into())));
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    check(run(theirs.into(), Some(OwnedFd::from(ours).into())));
    let dir = TempDir::new().unwrap();
    let path = dir.as_path().join("out");
    run(std::fs::File::create(&path).unwrap().into(), None);
    check(std::fs::read(&path).unwrap());
}

fn read_until(from: &mut impl Read, end: &[u8]) -> Vec<u8> {
    let mut got = Vec::new();
    while !got.ends_with(end) {
        got.extend(read_exactly(from, 1));
    }
    got
}

#[test]
fn stdio_uses_the_terminal_raw_and_puts_it_back() {
    for mode in ["close", "hook"] {
        let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
        let master = rustix::pty::openpt(flags).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
        let mut master = std::fs::File::from(master);
        let before = tcgetattr(&slave).unwrap();
        assert!(before.local_modes.contains(LocalModes::ECHO | LocalModes::ICANON));
        let mut child = child(mode)
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .spawn()
            .unwrap();
        read_until(&mut master, b"<ready>");
        let during = tcgetattr(&slave).unwrap();
        let off = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        assert!(!during.local_modes.intersects(off));
        // The flags of the shared open file are not ours to change.
        let status = rustix::fs::fcntl_getfl(&slave).unwrap();
        assert!(!status.contains(OFlags::NONBLOCK));
        // No newline, and keys that mean something to a terminal.
        master.write_all(b"\x03\x04\x11\x13\x7fz").unwrap();
        read_until(&mut master, b"\x03\x04\x11\x13\x7fz");
        let status = child.wait().unwrap();
        assert_eq!(status.success(), mode == "close", "{status}");
        let after = tcgetattr(&slave).unwrap();
        assert_eq!(
            (after.local_modes, after.input_modes, after.output_modes, after.control_modes),
            (before.local_modes, before.input_modes, before.output_modes, before.control_modes),
        );
    }
}

#[test]
fn stdio_over_pipes_gives_back_their_flags() {
    let (input, mut to_child) = std::io::pipe().unwrap();
    let (mut from_child, output) = std::io::pipe().unwrap();
    let (input_kept, output_kept) = (input.try_clone().unwrap(), output.try_clone().unwrap());
    let mut child = child("close").stdin(input).stdout(output).spawn().unwrap();
    read_until(&mut from_child, b"<ready>");
    assert!(rustix::fs::fcntl_getfl(&input_kept).unwrap().contains(OFlags::NONBLOCK));
    to_child.write_all(b"abcdef").unwrap();
    read_until(&mut from_child, b"abcdef");
    assert!(child.wait().unwrap().success());
    for fd in [OwnedFd::from(input_kept), OwnedFd::from(output_kept)] {
        assert!(!rustix::fs::fcntl_getfl(&fd).unwrap().contains(OFlags::NONBLOCK));
    }
}
