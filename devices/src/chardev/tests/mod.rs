//! Chardevs against real sockets, pseudo-terminals and files.

mod backends;
mod mux;
mod socket;
mod terminal;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use resources::iol;
use vmm_sys_util::tempdir::TempDir;

use super::*;

/// Far beyond what any test takes: reaching it is a failure.
const LONG: Duration = Duration::from_secs(20);

/// A front end that remembers.
#[derive(Default)]
struct Recorder {
    state: Mutex<Recorded>,
    changed: Condvar,
}

#[derive(Default)]
struct Recorded {
    room: usize,
    asked: usize,
    data: Vec<u8>,
    log: Vec<String>,
    fds: Vec<OwnedFd>,
    writable: usize,
    owes: bool,
}

impl Recorder {
    fn with_room(room: usize) -> Arc<Recorder> {
        let recorder = Recorder::default();
        recorder.state.lock().room = room;
        Arc::new(recorder)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Recorded) -> R) -> R {
        let out = change(&mut self.state.lock());
        self.changed.notify_all();
        out
    }

    /// Waits until `is` holds.
    #[track_caller]
    fn until(&self, what: &str, is: impl Fn(&Recorded) -> bool) {
        let end = Instant::now() + LONG;
        let mut state = self.state.lock();
        while !is(&state) {
            let late = self.changed.wait_until(&mut state, end).timed_out();
            assert!(!late, "{what}: {:?} {:?}", String::from_utf8_lossy(&state.data), state.log);
        }
    }

    #[track_caller]
    fn until_data(&self, data: &[u8]) {
        self.until("input", |state| state.data == data);
    }

    #[track_caller]
    fn until_log(&self, log: &[&str]) {
        self.until("events", |state| state.log == log);
    }
}

impl CharFrontend for Recorder {
    fn can_receive(&self) -> usize {
        self.change(|state| {
            state.asked += 1;
            state.room
        })
    }

    fn receive(&self, data: &[u8]) {
        self.change(|state| {
            assert!(data.len() <= state.room, "{} bytes for {}", data.len(), state.room);
            state.room -= data.len();
            state.data.extend_from_slice(data);
        });
    }

    fn event(&self, event: CharEvent) {
        self.change(|state| state.log.push(format!("{event:?}")));
    }

    fn owes_output(&self) -> bool {
        self.state.lock().owes
    }

    fn writable(&self) {
        self.change(|state| state.writable += 1);
    }

    fn receive_fd(&self, fd: OwnedFd) {
        self.change(|state| state.fds.push(fd));
    }
}

/// Writes all of `data` as a front end does, waiting for `writable`.
fn write_all(chardev: &Chardev, recorder: &Recorder, mut data: &[u8]) {
    while !data.is_empty() {
        let before = recorder.state.lock().writable;
        let taken = chardev.write(data);
        data = &data[taken..];
        if !data.is_empty() {
            recorder.until("room for output", |state| state.writable > before);
        }
    }
}

fn numbers(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn read_exactly(from: &mut impl Read, count: usize) -> Vec<u8> {
    let mut data = vec![0; count];
    from.read_exact(&mut data).unwrap();
    data
}

#[test]
fn null_takes_everything_and_has_one_user() {
    let (_thread, on) = iol::Thread::spawn("io-test").unwrap();
    let chardev = Chardev::open("n", Backend::Null(Null), &on).unwrap();
    assert_eq!((chardev.label(), chardev.filename().as_str()), ("n", "null"));
    let recorder = Recorder::with_room(1);
    chardev.attach(recorder.clone()).unwrap();
    recorder.until_log(&["Opened"]);
    assert!(chardev.is_used());
    assert_eq!(chardev.write(&[0; 100_000]), 100_000);
    let error = chardev.attach(recorder.clone()).unwrap_err();
    assert!(matches!(error, CharError::InUse(_)));
    assert_eq!(error.to_string(), "chardev 'n' is already in use");
    chardev.detach();
    assert!(!chardev.is_used());
    chardev.attach(recorder.clone()).unwrap();
    recorder.until_log(&["Opened", "Opened"]);
}

#[test]
fn file_takes_output_and_gives_input() {
    let (_thread, on) = iol::Thread::spawn("io-test").unwrap();
    let dir = TempDir::new().unwrap();
    let (out, input) = (dir.as_path().join("out"), dir.as_path().join("in"));
    std::fs::write(&out, b"old").unwrap();
    std::fs::write(&input, numbers(10_000)).unwrap();
    let open = |file| Chardev::open("f", Backend::File(file), &on);
    let chardev = open(File { path: out.clone(), append: true, input: None }).unwrap();
    assert_eq!(chardev.write(b" new"), 4);
    drop(chardev);
    assert_eq!(std::fs::read(&out).unwrap(), b"old new");

    let file = File { path: out.clone(), append: false, input: Some(input) };
    let chardev = open(file).unwrap();
    assert_eq!(chardev.filename(), "file");
    let recorder = Recorder::with_room(9_999);
    chardev.attach(recorder.clone()).unwrap();
    recorder.until_data(&numbers(9_999));
    recorder.change(|state| state.room = 5);
    chardev.accept_input();
    recorder.until_data(&numbers(10_000));
    chardev.write(b"x");
    chardev.close();
    assert_eq!(chardev.write(b"late"), 4);
    assert_eq!(std::fs::read(&out).unwrap(), b"x");

    let missing = dir.as_path().join("no/file");
    let error = open(File { path: missing.clone(), ..File::default() }).err().unwrap();
    let text = format!("Could not open '{}': No such file or directory", missing.display());
    assert_eq!(error.to_string(), text);
}
