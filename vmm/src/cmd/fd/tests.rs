//! Each command on a machine whose monitors are driven as their clients would.

use std::time::Instant;

use qmp::RunState;
use qmp::monitors::Monitors;
use resources::fdset::FdSets;
use resources::hv::fake::Fake;
use resources::iol::Notify;
use rustix::fs::{Mode, OFlags};

use super::*;
use crate::machine::{Accel, Board};
use crate::mailbox::Mailbox;
use crate::vm::Policy;

struct Rig {
    vm: Vm,
    monitors: Monitors,
}

impl Rig {
    fn new() -> Rig {
        let board = Board::new(Accel::Qtest(Fake::unrecorded()));
        let mut vm = Vm::new(board, Vec::new(), Mailbox::new(Notify::new()), Policy::default());
        vm.fdsets = FdSets::new();
        Rig { vm, monitors: Monitors::new() }
    }

    fn monitor(&mut self) -> MonitorId {
        let id = self.monitors.add(false);
        self.connect(id);
        id
    }

    fn connect(&mut self, id: MonitorId) {
        self.vm.fdsets.client_came();
        self.monitors.connect(id, &crate::version());
        self.ask(id, "{'execute': 'qmp_capabilities'}");
    }

    /// Says `text` with a descriptor, and gives the last answer.
    fn pass(&mut self, id: MonitorId, text: &str, fd: Option<OwnedFd>) -> String {
        self.monitors.sent(id, usize::MAX);
        self.monitors.feed(id, text.as_bytes(), fd);
        while self.monitors.serve_one(id, &mut self.vm, Instant::now()) {}
        let answer = String::from_utf8(self.monitors.output(id).to_vec()).unwrap();
        answer.lines().last().unwrap_or_default().to_owned()
    }

    fn ask(&mut self, id: MonitorId, text: &str) -> String {
        self.pass(id, text, None)
    }

    fn query(&mut self, id: MonitorId) -> String {
        self.ask(id, "{'execute': 'query-fdsets'}")
    }
}

fn null() -> Option<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    Some(rustix::fs::open("/dev/null", flags, Mode::empty()).unwrap())
}

/// A descriptor, and another that tells when it and all its duplicates are closed.
fn watched() -> (Option<OwnedFd>, OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::io::ioctl_fionbio(&reader, true).unwrap();
    (Some(writer), reader)
}

fn is_closed(reader: &OwnedFd) -> bool {
    rustix::io::read(reader, &mut [0; 1]) == Ok(0)
}

fn generic(desc: &str) -> String {
    format!(r#"{{"error": {{"class": "GenericError", "desc": "{desc}"}}}}"#)
}

const OK: &str = r#"{"return": {}}"#;

#[test]
fn arguments_are_checked() {
    let mut rig = Rig::new();
    let id = rig.monitor();
    for (text, desc) in [
        ("'getfd'", "Parameter 'fdname' is missing"),
        (
            "'getfd', 'arguments': {'fdname': 1}",
            "Invalid parameter type for 'fdname', expected: string",
        ),
        ("'getfd', 'arguments': {'fdname': 'a', 'x': 1}", "Invalid parameter 'x'"),
        ("'closefd'", "Parameter 'fdname' is missing"),
        (
            "'closefd', 'arguments': {'fdname': []}",
            "Invalid parameter type for 'fdname', expected: string",
        ),
        ("'closefd', 'arguments': {'fdname': 'a', 'x': 1}", "Invalid parameter 'x'"),
        (
            "'add-fd', 'arguments': {'fdset-id': '1'}",
            "Invalid parameter type for 'fdset-id', expected: int",
        ),
        (
            "'add-fd', 'arguments': {'opaque': 1}",
            "Invalid parameter type for 'opaque', expected: string",
        ),
        ("'add-fd', 'arguments': {'x': 1}", "Invalid parameter 'x'"),
        ("'remove-fd'", "Parameter 'fdset-id' is missing"),
        (
            "'remove-fd', 'arguments': {'fdset-id': 1, 'fd': 1.5}",
            "Invalid parameter type for 'fd', expected: int",
        ),
        ("'remove-fd', 'arguments': {'fdset-id': 1, 'x': 1}", "Invalid parameter 'x'"),
        ("'query-fdsets', 'arguments': {'x': 1}", "Invalid parameter 'x'"),
    ] {
        assert_eq!(rig.ask(id, &format!("{{'execute': {text}}}")), generic(desc), "{text}");
    }
}

#[test]
fn named_descriptors_are_the_monitors_own_and_outlive_its_clients() {
    let mut rig = Rig::new();
    let (one, two) = (rig.monitor(), rig.monitor());
    let getfd = "{'execute': 'getfd', 'arguments': {'fdname': 'a'}}";
    let closefd = "{'execute': 'closefd', 'arguments': {'fdname': 'a'}}";
    let nothing = generic("No file descriptor supplied via SCM_RIGHTS");
    assert_eq!(rig.ask(one, getfd), nothing);
    let (fd, end) = watched();
    assert_eq!(rig.pass(one, getfd, fd), OK);
    assert_eq!(rig.ask(two, closefd), generic("File descriptor named 'a' not found"));
    rig.monitors.disconnect(one);
    rig.connect(one);
    assert!(!is_closed(&end));
    // A second of the name takes the place of the first.
    assert_eq!(rig.pass(one, getfd, null()), OK);
    assert!(is_closed(&end));
    assert_eq!(rig.ask(one, closefd), OK);
    assert_eq!(rig.ask(one, closefd), generic("File descriptor named 'a' not found"));

    let (fd, end) = watched();
    let digit = "{'execute': 'getfd', 'arguments': {'fdname': '1a'}}";
    let desc = generic("Parameter 'fdname' expects a name not starting with a digit");
    assert_eq!(rig.pass(one, digit, fd), desc);
    assert!(is_closed(&end));
    assert_eq!(rig.ask(one, digit), nothing);
}

#[test]
fn a_command_takes_a_named_descriptor_away() {
    let mut rig = Rig::new();
    let id = rig.monitor();
    rig.pass(id, "{'execute': 'getfd', 'arguments': {'fdname': 'a'}}", null());
    let gone = "File descriptor named 'a' has not been found";
    assert_eq!(rig.vm.take_named_fd("a").unwrap_err().desc, gone);
    rig.vm.context.monitor = Some(id);
    assert!(rig.vm.take_named_fd("a").is_ok());
    assert_eq!(rig.vm.take_named_fd("a").unwrap_err().desc, gone);
}

#[test]
fn a_descriptor_waits_for_the_request_that_wants_it() {
    let mut rig = Rig::new();
    let id = rig.monitor();
    let (first, end) = watched();
    rig.pass(id, "{'execute': 'query-name'}", first);
    assert!(!is_closed(&end));
    // A later one takes its place.
    rig.pass(id, "", null());
    assert!(is_closed(&end));
    let (last, end) = watched();
    rig.pass(id, "{", last);
    rig.monitors.disconnect(id);
    assert!(is_closed(&end));
}

#[test]
fn sets_are_made_listed_and_removed() {
    let mut rig = Rig::new();
    let id = rig.monitor();
    assert_eq!(rig.query(id), r#"{"return": []}"#);
    let add = |set: &str| format!("{{'execute': 'add-fd', 'arguments': {{{set}}}}}");
    assert_eq!(rig.ask(id, &add("")), generic("No file descriptor supplied via SCM_RIGHTS"));
    let (fd, end) = watched();
    let negative = generic("Parameter 'fdset-id' expects a non-negative value");
    assert_eq!(rig.pass(id, &add("'fdset-id': -1"), fd), negative);
    assert!(is_closed(&end));

    let mut added = Vec::new();
    for (set, number) in [("'fdset-id': 1, 'opaque': 'é'", 1), ("", 0), ("'fdset-id': 1", 1)] {
        let fd = null().unwrap();
        let raw = std::os::fd::AsRawFd::as_raw_fd(&fd);
        let answer = rig.pass(id, &add(set), Some(fd));
        assert_eq!(answer, format!(r#"{{"return": {{"fd": {raw}, "fdset-id": {number}}}}}"#));
        added.push(raw);
    }
    let [a, b, c] = added[..] else { panic!() };
    assert_eq!(
        rig.query(id),
        format!(
            r#"{{"return": [{{"fds": [{{"fd": {a}, "opaque": "\u00E9"}}, {{"fd": {c}}}], "fdset-id": 1}}, {{"fds": [{{"fd": {b}}}], "fdset-id": 0}}]}}"#
        )
    );

    let remove = |rest: &str| format!("{{'execute': 'remove-fd', 'arguments': {{{rest}}}}}");
    for (rest, name) in [
        ("'fdset-id': 7", "fdset-id:7"),
        ("'fdset-id': 7, 'fd': -3", "fdset-id:7, fd:-3"),
        ("'fdset-id': 1, 'fd': 0", "fdset-id:1, fd:0"),
    ] {
        let desc = format!("File descriptor named '{name}' not found");
        assert_eq!(rig.ask(id, &remove(rest)), generic(&desc));
    }
    // Nothing is closed while the machine does not run.
    let before = rig.query(id);
    assert_eq!(rig.ask(id, &remove("'fdset-id': 0")), OK);
    assert_eq!(rig.query(id), before);
    rig.vm.start();
    assert_eq!(rig.ask(id, &remove(&format!("'fdset-id': 1, 'fd': {a}"))), OK);
    let left = format!(r#"{{"return": [{{"fds": [{{"fd": {c}}}], "fdset-id": 1}}]}}"#);
    assert_eq!(rig.query(id), left);
    rig.vm.stop(RunState::Paused);
    assert_eq!(rig.ask(id, &remove("'fdset-id': 1")), OK);
    assert_eq!(rig.query(id), left);
}
