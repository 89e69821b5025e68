//! Clients of a live machine on the fake hypervisor, for the fuzzers: one says any bytes, one runs
//! every command with arguments made from the schema, right and wrong.
//!
//! Both reach the real handlers, and with them the host. What could do harm there is made harmless
//! first (`tame`): names of files, sizes that would be allocated, hosts that would be looked up.

mod arguments;

use std::path::PathBuf;

use qmp::QmpError;
use qmp::monitors::{Context, MonitorId};
use qmp::session::Session;
use resources::fdset::FdSets;
use resources::iol::Thread;
use rustix::fs::{Mode, OFlags};
use serde_json::{Map, Value};

use crate::chardevs::Chardevs;
use crate::vm::{Vm, fuzz_machine};
use arguments::Source;

/// The most commands that one input runs.
const MOST: usize = 32;
/// What is made of larger sizes that the host might grant.
const SIZE_MAX: u64 = 16 << 20;

/// A client says `data`, cut where its first byte says.
///
/// # Panics
/// If a handler does, or says what is not to be said.
pub fn session(data: &[u8]) {
    let (cut, text) = data.split_first().map_or((1, data), |(cut, text)| (*cut, text));
    let mut rig = Rig::new();
    let mut session = Session::new(&crate::version(), cut >= 128);
    session.feed(br#"{"execute": "qmp_capabilities"}"#);
    for piece in text.chunks(usize::from(cut).max(1)) {
        session.feed(piece);
        while let Some(request) = session.next_request() {
            let result = rig.run(&request.name, request.arguments);
            session.reply(request.id, result);
            for raised in rig.vm.context.events.drain(..) {
                session.event(&raised);
            }
            session.sent(session.output().len());
            if rig.over() {
                return;
            }
        }
        session.sent(session.output().len());
    }
}

/// `data` chooses commands and their arguments.
///
/// # Panics
/// As [`session`].
pub fn commands(data: &[u8]) {
    let mut rig = Rig::new();
    let mut source = Source::new(data);
    while let Some((name, arguments)) = source.command() {
        if let Value::Object(arguments) = arguments {
            let _ = rig.run(&name, arguments);
        }
        rig.vm.context.events.clear();
        if rig.over() {
            return;
        }
    }
}

/// Does what was asked for, to the end.
fn settle(vm: &mut Vm) {
    vm.service();
    while vm.has_snapshot_running() && vm.exit_status().is_none() {
        std::thread::yield_now();
        vm.service();
    }
}

/// A machine with a loop for its character devices and disks.
struct Rig {
    vm: Vm,
    // Dropped last: what the machine has there is closed there.
    _io: Thread,
    monitor: MonitorId,
    commands: usize,
}

impl Rig {
    fn new() -> Rig {
        let (thread, io) = Thread::spawn("fuzz").expect("a thread");
        let mut vm = fuzz_machine();
        vm.fdsets = FdSets::new();
        vm.chardevs = Chardevs::new(io, vm.mailbox(), None);
        vm.chardevs.no_stdio = true;
        Rig { vm, _io: thread, monitor: MonitorId::unique(), commands: 0 }
    }

    /// Runs a command as a monitor would, with a descriptor at hand.
    fn run(&mut self, name: &str, mut arguments: Map<String, Value>) -> Result<Value, QmpError> {
        self.commands += 1;
        tame(name, &mut arguments);
        let context = &mut self.vm.context;
        context.monitor = Some(self.monitor);
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        context.fd = rustix::fs::open("/dev/null", flags, Mode::empty()).ok();
        let result = qmp::dispatch(&mut self.vm, name, arguments);
        let Context { events, .. } = std::mem::take(&mut self.vm.context);
        self.vm.context.events = events;
        settle(&mut self.vm);
        self.check(name, &result);
        result
    }

    /// What clients are told is text they can read.
    fn check(&self, name: &str, result: &Result<Value, QmpError>) {
        let mut text = Vec::new();
        if let Ok(value) = result {
            qmp::json::write(&mut text, value, false);
            let (used, read) = qmp::json::Parser::new().parse(&text);
            // Words and numbers end with the next byte only.
            assert!(matches!(read, Some(Ok(_))) || used == text.len(), "{name} gives no JSON");
        }
        assert_eq!(self.vm.is_running(), self.vm.state() == qmp::RunState::Running);
    }

    /// Whether the machine has ended, or has done enough.
    fn over(&self) -> bool {
        self.vm.exit_status().is_some() || self.commands >= MOST
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.vm.chardevs.close();
    }
}

/// Members that name files of the host.
const FILES: [&str; 17] = [
    "filename",
    "path",
    "in",
    "out",
    "file",
    "mem-path",
    "device",
    "tty",
    "dir",
    "logfile",
    "pidfile",
    "script",
    "target",
    "snapshot-file",
    "base",
    "top",
    "backing",
];

/// Takes out of arguments what could do harm to the host.
fn tame(command: &str, arguments: &mut Map<String, Value>) {
    // Their paths are of objects.
    let objects = command.starts_with("qom-");
    if command == "human-monitor-command"
        && let Some(Value::String(line)) = arguments.get_mut("command-line")
        && crate::hmp::fuzz_reaches_out(line)
    {
        "info status".clone_into(line);
    }
    // Its back ends run programs and talk to the network.
    if command == "netdev_add" && arguments.get("type").is_some_and(|kind| kind != "none") {
        arguments.insert("type".to_owned(), "hubport".into());
    }
    tame_members(arguments, objects);
}

fn tame_members(members: &mut Map<String, Value>, objects: bool) {
    for (key, value) in members {
        match (key.as_str(), value) {
            (_, Value::Object(inner)) => tame_members(inner, objects),
            (_, Value::Array(items)) => {
                let inner = items.iter_mut().filter_map(Value::as_object_mut);
                inner.for_each(|inner| tame_members(inner, objects));
            }
            ("protocol", Value::String(text)) if text.starts_with("file:") => {
                *text = format!("file:{}", file(text));
            }
            // Commands would be run, and hosts called.
            ("uri", Value::String(text)) if text.contains(':') => "fd:fuzz".clone_into(text),
            // Names of devices have no slash.
            ("device", Value::String(text)) if !text.contains('/') => {}
            (key, Value::String(text)) if FILES.contains(&key) && !objects => *text = file(text),
            ("host" | "localaddr", value) => *value = "127.0.0.1".into(),
            ("prealloc", value) => *value = false.into(),
            ("size", Value::String(text)) => "64k".clone_into(text),
            ("size", value) => {
                if let Some(size) = value.as_u64().filter(|size| *size < 1 << 40) {
                    *value = (size % SIZE_MAX).into();
                }
            }
            _ => {}
        }
    }
}

/// One of a few files that may come to harm.
fn file(name: &str) -> String {
    let ours = |name: &str| directory().join(name).to_string_lossy().into_owned();
    match name.bytes().fold(0, |sum: u8, byte| sum.wrapping_add(byte)) % 7 {
        0 => "/dev/null".to_owned(),
        1 => "/nonexistent/file".to_owned(),
        2 => "/dev/fdset/0".to_owned(),
        3 => "/dev/fdset/1".to_owned(),
        4 => String::new(),
        5 => ours("a"),
        _ => ours("b"),
    }
}

fn directory() -> PathBuf {
    let path = std::env::temp_dir().join("vmm-fuzz");
    let _ = std::fs::create_dir_all(&path);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_made_up_reaches_the_host() {
        let mut arguments: Map<String, Value> = serde_json::from_value(serde_json::json!({
            "backend": {"type": "file", "data": {"out": "/etc/passwd", "addr": {"host": "x.org"}}},
            "protocol": "file:/etc/passwd",
            "size": 1_u64 << 35,
            "list": [{"mem-path": "etc"}],
        }))
        .expect("an object");
        tame("x", &mut arguments);
        let text = Value::Object(arguments).to_string();
        assert!(!text.contains("etc") && !text.contains("x.org"), "{text}");
        let mut arguments = Map::new();
        arguments.insert("command-line".into(), "pmemsave 0 1 /etc/passwd".into());
        tame("human-monitor-command", &mut arguments);
        assert_eq!(arguments["command-line"], "info status");
    }
}
