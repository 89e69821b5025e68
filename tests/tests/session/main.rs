//! The machine protocol on real sockets, in the real `vmm` without KVM: several clients at once,
//! good, bad and indifferent ones.

mod bad;
mod clients;
mod descriptors;
mod nbd;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use tests::rig::qmp::connect;
use tests::rig::vm::{Peer, SOON, TestVm, VmBuilder};
use tests::scratch::Scratch;
use tests::workspace::debug_peer;

const CAPABILITIES: &str = r#"{"execute": "qmp_capabilities"}"#;
const OK: &str = r#"{"return": {}}"#;
const SYNTAX: &str = r#"{"error": {"class": "GenericError", "desc": "Invalid JSON syntax"}}"#;

/// A machine without processors, and its monitors.
struct Machine {
    vm: TestVm,
    dir: Scratch,
}

impl Machine {
    /// Starts one with so many monitors on unix sockets besides the rig's own.
    fn new(monitors: usize) -> Machine {
        Machine::with(monitors, [])
    }

    /// Starts one; `{dir}` in `args` is the directory of its sockets.
    fn with<const N: usize>(monitors: usize, args: [&str; N]) -> Machine {
        static PEER: OnceLock<Peer> = OnceLock::new();
        let peer = PEER.get_or_init(|| debug_peer().unwrap());
        let dir = Scratch::new().unwrap();
        let place = dir.display().to_string();
        let args = args.map(|arg| arg.replace("{dir}", &place));
        let mut builder = VmBuilder::new(peer, Path::new("/nonexistent"), &dir)
            .memory("16")
            .without_serial()
            .args(["-S", "-machine", "pc,accel=qtest"])
            .args(args.each_ref().map(String::as_str));
        for number in 0..monitors {
            let device = format!("unix:{place}/m{number},server=on,wait=off");
            builder = builder.args(["-qmp", &device]);
        }
        Machine { vm: builder.start().unwrap(), dir }
    }

    fn path(&self, number: usize) -> PathBuf {
        self.dir.join(format!("m{number}"))
    }

    /// A client of a monitor, greeted.
    fn client(&self, number: usize) -> Client<UnixStream> {
        Client::greeted(connect(&self.path(number), SOON).unwrap())
    }

    /// A client of a monitor in command mode.
    fn ready(&self, number: usize) -> Client<UnixStream> {
        let mut client = self.client(number);
        assert_eq!(client.ask(CAPABILITIES), OK);
        client
    }

    /// How many descriptors the process has open.
    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.vm.process.id())).unwrap().count()
    }

    /// A line of the process's status, in KiB.
    fn status_kib(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.vm.process.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

/// A connection, line by line.
struct Client<S> {
    stream: S,
    partial: Vec<u8>,
}

impl<S: Read + Write> Client<S> {
    fn greeted(stream: S) -> Self {
        let mut client = Client { stream, partial: Vec::new() };
        let greeting = client.line();
        assert!(greeting.starts_with(r#"{"QMP": {"version": {"qemu": {"#), "{greeting}");
        client
    }

    fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// The next line without its end; empty at the end of the stream.
    fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.partial.drain(..=end).collect();
                return String::from_utf8(line).unwrap().trim_end().to_owned();
            }
            let mut buffer = [0; 4096];
            let count = self.stream.read(&mut buffer).unwrap();
            if count == 0 {
                return String::new();
            }
            self.partial.extend_from_slice(&buffer[..count]);
        }
    }

    fn ask(&mut self, text: &str) -> String {
        self.say(text);
        self.line()
    }

    /// The next line is an event of this name.
    fn hears(&mut self, event: &str) {
        let line = self.line();
        assert!(line.contains(&format!(r#""event": "{event}""#)), "{line}");
    }
}

/// Waits until something is so.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !so() {
        assert!(start.elapsed() < SOON, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
