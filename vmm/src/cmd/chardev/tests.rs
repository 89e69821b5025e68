//! Each command on a machine whose monitor is driven as a client would.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Instant;

use devices::chardev::{CharFrontend, Chardev};
use qmp::monitors::{MonitorId, Monitors};
use resources::fdset::FdSets;
use resources::hv::fake::Fake;
use resources::iol::{self, Notify};
use vmm_sys_util::tempdir::TempDir;

use super::*;
use crate::chardevs::Chardevs;
use crate::machine::{Accel, Board};
use crate::mailbox::Mailbox;
use crate::vm::Policy;

struct Rig {
    vm: Vm,
    monitors: Monitors,
    id: MonitorId,
    dir: TempDir,
    _thread: iol::Thread,
}

impl Rig {
    fn new() -> Rig {
        let (_thread, io) = iol::Thread::spawn("io-test").unwrap();
        let board = Board::new(Accel::Qtest(Fake::unrecorded()));
        let mailbox = Mailbox::new(Notify::new());
        let mut vm = Vm::new(board, Vec::new(), mailbox.clone(), Policy::default());
        vm.fdsets = FdSets::new();
        vm.chardevs = Chardevs::new(io, &mailbox, None);
        let mut monitors = Monitors::new();
        let id = monitors.add(false);
        monitors.connect(id, &crate::version());
        let mut rig = Rig { vm, monitors, id, dir: TempDir::new().unwrap(), _thread };
        rig.ask("'qmp_capabilities'");
        rig
    }

    fn pass(&mut self, text: &str, fd: Option<OwnedFd>) -> String {
        let text = format!("{{'execute': {text}}}");
        self.monitors.sent(self.id, usize::MAX);
        self.monitors.feed(self.id, text.as_bytes(), fd);
        while self.monitors.serve_one(self.id, &mut self.vm, Instant::now()) {}
        let answer = String::from_utf8(self.monitors.output(self.id).to_vec()).unwrap();
        answer.lines().last().unwrap_or_default().to_owned()
    }

    /// Says `text`, and gives the last answer.
    fn ask(&mut self, text: &str) -> String {
        self.pass(text, None)
    }

    fn add(&mut self, id: &str, backend: &str) -> String {
        self.ask(&format!("'chardev-add', 'arguments': {{'id': '{id}', 'backend': {backend}}}"))
    }

    fn remove(&mut self, id: &str) -> String {
        self.ask(&format!("'chardev-remove', 'arguments': {{'id': '{id}'}}"))
    }

    fn filename(&self, id: &str) -> String {
        let mut list = self.vm.chardevs.list();
        list.find(|(other, _)| *other == id).map(|(_, name)| name).unwrap()
    }

    fn path(&self, name: &str) -> String {
        self.dir.as_path().join(name).to_str().unwrap().to_owned()
    }
}

fn generic(desc: &str) -> String {
    format!(r#"{{"error": {{"class": "GenericError", "desc": "{desc}"}}}}"#)
}

const OK: &str = r#"{"return": {}}"#;
const NULL: &str = "{'type': 'null', 'data': {}}";

/// A front end with room for everything.
struct User;

impl CharFrontend for User {
    fn can_receive(&self) -> usize {
        100
    }

    fn receive(&self, _: &[u8]) {}
}

fn attach(chardev: &Chardev) {
    chardev.attach(Arc::new(User)).unwrap();
}

#[test]
fn arguments_are_checked() {
    let mut rig = Rig::new();
    rig.add("r", "{'type': 'ringbuf', 'data': {}}");
    for (text, desc) in [
        ("'query-chardev', 'arguments': {'x': 1}", "Invalid parameter 'x'"),
        ("'chardev-add'", "Parameter 'backend' is missing"),
        (
            "'chardev-add', 'arguments': {'backend': {'type': 'null', 'data': {}}}",
            "Parameter 'id' is missing",
        ),
        (
            "'chardev-add', 'arguments': {'id': 1, 'backend': {'type': 'null', 'data': {}}}",
            "Invalid parameter type for 'id', expected: string",
        ),
        (
            "'chardev-add', 'arguments': {'id': 'a', 'backend': {}}",
            "Invalid parameter type for 'type', expected: string",
        ),
        (
            "'chardev-add', 'arguments': {'id': 'a', 'backend': {'type': 'nul', 'data': {}}}",
            "Invalid parameter 'nul'",
        ),
        (
            "'chardev-add', 'arguments': {'id': 'a', 'backend': {'type': 'file', 'data': {'out': 1}}}",
            "Invalid parameter type for 'out', expected: string",
        ),
        (
            "'chardev-add', 'arguments': {'id': 'a', 'backend': {'type': 'file'}}",
            "Invalid parameter type for 'data', expected: QDict",
        ),
        (
            "'chardev-add', 'arguments': {'id': 'a', 'backend': {'type': 'null', 'data': {'x': 1}}}",
            "QMP input object member 'x' is unexpected",
        ),
        (
            "'chardev-add', 'arguments': {'id': 'a', 'backend': {'type': 'null', 'data': {}}, 'x': 1}",
            "Invalid parameter 'x'",
        ),
        ("'chardev-remove'", "Parameter 'id' is missing"),
        (
            "'chardev-remove', 'arguments': {'id': []}",
            "Invalid parameter type for 'id', expected: string",
        ),
        ("'chardev-remove', 'arguments': {'id': 'r', 'x': 1}", "Invalid parameter 'x'"),
        ("'chardev-send-break'", "Parameter 'id' is missing"),
        ("'chardev-send-break', 'arguments': {'id': 'no'}", "Chardev 'no' not found"),
        ("'ringbuf-write'", "Parameter 'device' is missing"),
        ("'ringbuf-write', 'arguments': {'device': 'r'}", "Parameter 'data' is missing"),
        (
            "'ringbuf-write', 'arguments': {'device': 'r', 'data': 1}",
            "Invalid parameter type for 'data', expected: string",
        ),
        (
            "'ringbuf-write', 'arguments': {'device': 'r', 'data': '', 'format': 'hex'}",
            "Invalid parameter 'hex'",
        ),
        (
            "'ringbuf-write', 'arguments': {'device': 'r', 'data': '', 'x': 1}",
            "Invalid parameter 'x'",
        ),
        ("'ringbuf-read', 'arguments': {'device': 'r'}", "Parameter 'size' is missing"),
        (
            "'ringbuf-read', 'arguments': {'device': 'r', 'size': '1'}",
            "Invalid parameter type for 'size', expected: int",
        ),
        (
            "'ringbuf-read', 'arguments': {'device': 'r', 'size': 0}",
            "size must be greater than zero",
        ),
        (
            "'ringbuf-read', 'arguments': {'device': 'r', 'size': -1}",
            "size must be greater than zero",
        ),
        (
            "'ringbuf-read', 'arguments': {'device': 'r', 'size': 1, 'x': 1}",
            "Invalid parameter 'x'",
        ),
        ("'add_client', 'arguments': {'fdname': 'f'}", "Parameter 'protocol' is missing"),
        ("'add_client', 'arguments': {'protocol': 'r'}", "Parameter 'fdname' is missing"),
        (
            "'add_client', 'arguments': {'protocol': 'r', 'fdname': 'f', 'tls': 1}",
            "Invalid parameter type for 'tls', expected: bool",
        ),
        (
            "'add_client', 'arguments': {'protocol': 'r', 'fdname': 'f', 'x': 1}",
            "Invalid parameter 'x'",
        ),
        (
            "'add_client', 'arguments': {'protocol': 'r', 'fdname': 'f'}",
            "File descriptor named 'f' has not been found",
        ),
    ] {
        assert_eq!(rig.ask(text), generic(desc), "{text}");
    }
    assert_eq!(rig.vm.chardevs.list().count(), 1);
}

#[test]
fn each_kind_has_its_name_and_the_newest_is_first() {
    let mut rig = Rig::new();
    let (out, sock, fifo) = (rig.path("out"), rig.path("sock"), rig.path("fifo"));
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, mode).unwrap();
    let listener = UnixListener::bind(rig.path("other")).unwrap();
    let (other, unix) = (rig.path("other"), format!("unix:{sock},server"));
    let kinds = [
        ("null", "{}".to_owned(), "null"),
        ("file", format!("{{'out': '{out}'}}"), "file"),
        ("serial", "{'device': '/dev/null'}".to_owned(), "serial"),
        ("pipe", format!("{{'device': '{fifo}'}}"), "pipe"),
        ("socket", format!("{{'addr': {{'type': 'unix', 'data': {{'path': '{sock}'}}}}}}"), &unix),
        (
            "socket",
            format!(
                "{{'addr': {{'type': 'unix', 'data': {{'path': '{other}'}}}}, 'server': false}}"
            ),
            "unix:",
        ),
        (
            "udp",
            "{'remote': {'type': 'inet', 'data': {'host': '127.0.0.1', 'port': '9'}}, \
             'local': {'type': 'inet', 'data': {'host': '127.0.0.1', 'port': '0'}}}"
                .to_owned(),
            "udp",
        ),
        ("msmouse", "{}".to_owned(), "msmouse"),
        ("console", "{}".to_owned(), "console"),
        ("vc", "{'cols': 10}".to_owned(), "vc"),
        ("ringbuf", "{'size': 8}".to_owned(), "ringbuf"),
        ("memory", "{}".to_owned(), "memory"),
        ("mux", "{'chardev': 'c0'}".to_owned(), "mux"),
    ];
    let mut expected = Vec::new();
    for (index, (kind, data, name)) in kinds.iter().enumerate() {
        let id = format!("c{index}");
        let made = rig.add(&id, &format!("{{'type': '{kind}', 'data': {data}}}"));
        assert_eq!(made, OK, "{kind} {data}");
        expected.insert(0, format!(r#"{{"filename": "{name}", "label": "{id}"}}"#));
    }
    let expected = format!(r#"{{"return": [{}]}}"#, expected.join(", "));
    assert_eq!(rig.ask("'query-chardev'"), expected);
    drop(listener);

    let pty = rig.add("p", "{'type': 'pty', 'data': {}}");
    let path = pty.strip_prefix(r#"{"return": {"pty": ""#).unwrap().strip_suffix(r#""}}"#).unwrap();
    assert!(path.starts_with("/dev/pts/") && Path::new(path).exists(), "{pty}");
    assert_eq!(rig.filename("p"), format!("pty:{path}"));

    let inet = "{'type': 'inet', 'data': {'host': '127.0.0.1', 'port': '0'}}";
    let tcp = format!("{{'type': 'socket', 'data': {{'addr': {inet}, 'telnet': true}}}}");
    assert_eq!(rig.add("t", &tcp), OK);
    assert!(rig.filename("t").starts_with("telnet:127.0.0.1:"), "{}", rig.filename("t"));
    assert!(rig.filename("t").ends_with(",server"));

    for id in (0..kinds.len()).rev().map(|index| format!("c{index}")) {
        assert_eq!(rig.remove(&id), OK, "{id}");
    }
    assert_eq!(rig.vm.chardevs.list().count(), 2);
}

#[test]
fn what_cannot_be_made_is_refused() {
    let mut rig = Rig::new();
    assert_eq!(rig.add("a", NULL), OK);
    let none = rig.path("none");
    let file = rig.path("file");
    std::fs::write(&file, "").unwrap();
    let inet =
        |port: &str| format!("{{'type': 'inet', 'data': {{'host': 'h', 'port': '{port}'}}}}");
    for (backend, desc) in [
        ("'braille', 'data': {}".to_owned(), "unknown chardev backend (10)".to_owned()),
        ("'spicevmc', 'data': {'type': 'x'}".to_owned(), "unknown chardev backend (13)".to_owned()),
        (
            "'spiceport', 'data': {'fqdn': 'x'}".to_owned(),
            "unknown chardev backend (14)".to_owned(),
        ),
        (
            format!("'file', 'data': {{'out': '{none}/x'}}"),
            format!("Could not open '{none}/x': No such file or directory"),
        ),
        (
            format!("'file', 'data': {{'out': '{file}', 'in': '{none}'}}"),
            format!("Could not open '{none}': No such file or directory"),
        ),
        (
            format!("'serial', 'data': {{'device': '{none}'}}"),
            format!("Could not open '{none}': No such file or directory"),
        ),
        (format!("'pipe', 'data': {{'device': '{none}'}}"), "Failed to create chardev".to_owned()),
        (
            "'parallel', 'data': {'device': '/dev/null'}".to_owned(),
            "Failed to create chardev".to_owned(),
        ),
        (
            "'ringbuf', 'data': {'size': 100}".to_owned(),
            "size of ringbuf chardev must be power of two".to_owned(),
        ),
        (
            "'memory', 'data': {'size': -8}".to_owned(),
            "size of ringbuf chardev must be power of two".to_owned(),
        ),
        ("'mux', 'data': {'chardev': 'b'}".to_owned(), "mux: base chardev b not found".to_owned()),
        (
            format!("'udp', 'data': {{'remote': {}}}", inet("")),
            "remote port not specified".to_owned(),
        ),
        (
            "'udp', 'data': {'remote': {'type': 'unix', 'data': {'path': '/x'}}}".to_owned(),
            "socket type unsupported for datagram".to_owned(),
        ),
        (
            format!("'socket', 'data': {{'addr': {}}}", inet("http!")),
            "address resolution failed for h:http!: Servname not supported for ai_socktype"
                .to_owned(),
        ),
        (
            "'socket', 'data': {'addr': {'type': 'fd', 'data': {'str': 'f'}}}".to_owned(),
            "File descriptor named 'f' has not been found".to_owned(),
        ),
        (
            format!("'socket', 'data': {{'addr': {}, 'reconnect': 1}}", inet("1")),
            "'reconnect' option is incompatible with socket in server listen mode".to_owned(),
        ),
        (
            format!(
                "'socket', 'data': {{'addr': {{'type': 'unix', 'data': {{'path': '{none}'}}}}, \
                 'server': false}}"
            ),
            "Failed to connect to socket: No such file or directory".to_owned(),
        ),
        (
            format!(
                "'socket', 'data': {{'addr': {{'type': 'unix', 'data': {{'path': '{file}'}}}}}}"
            ),
            "Failed to bind socket: Address already in use".to_owned(),
        ),
    ] {
        assert_eq!(rig.add("n", &format!("{{'type': {backend}}}")), generic(&desc), "{backend}");
    }
    assert_eq!(rig.add("a", NULL), generic("Chardev 'a' already exists"));
    rig.vm.chardevs.no_stdio = true;
    let stdio = rig.add("n", "{'type': 'stdio', 'data': {}}");
    assert_eq!(stdio, generic("Failed to create chardev"));
    assert_eq!(rig.vm.chardevs.list().count(), 1);
    // What would be no identifier elsewhere.
    assert_eq!(rig.add("0 x", NULL), OK);
}

#[test]
fn one_in_use_stays() {
    let mut rig = Rig::new();
    assert_eq!(rig.remove("a"), generic("Chardev 'a' not found"));
    rig.add("a", NULL);
    let front = rig.vm.chardevs.front("a").unwrap();
    attach(&front);
    assert_eq!(rig.remove("a"), generic("Chardev 'a' is busy"));
    assert_eq!(rig.ask("'chardev-send-break', 'arguments': {'id': 'a'}"), OK);
    front.detach();

    rig.add("m", "{'type': 'mux', 'data': {'chardev': 'a'}}");
    assert_eq!(rig.remove("a"), generic("Chardev 'a' is busy"));
    assert_eq!(
        rig.add("mm", "{'type': 'mux', 'data': {'chardev': 'm'}}"),
        generic("mux: base chardev m not found")
    );
    let slots: Vec<_> = (0..4).map(|_| rig.vm.chardevs.front("m").unwrap()).collect();
    assert!(rig.vm.chardevs.front("m").is_err());
    attach(&slots[3]);
    assert_eq!(rig.remove("m"), generic("Chardev 'm' is busy"));
    drop(slots);
    assert_eq!(rig.remove("m"), OK);
    assert_eq!(rig.remove("a"), OK);
    assert_eq!(rig.ask("'query-chardev'"), r#"{"return": []}"#);
}

#[test]
fn one_in_use_may_be_changed() {
    let mut rig = Rig::new();
    let change = |rig: &mut Rig, id: &str, backend: &str| {
        let text = format!("'chardev-change', 'arguments': {{'id': '{id}', 'backend': {backend}}}");
        rig.ask(&text)
    };
    assert_eq!(rig.ask("'chardev-change'"), generic("Parameter 'backend' is missing"));
    assert_eq!(change(&mut rig, "a", NULL), generic("Chardev 'a' does not exist"));
    rig.add("a", NULL);
    let front = rig.vm.chardevs.front("a").unwrap();
    attach(&front);
    assert_eq!(change(&mut rig, "a", "{'type': 'ringbuf', 'data': {}}"), OK);
    assert_eq!(rig.filename("a"), "ringbuf");
    assert_eq!(front.write(b"x"), 1);
    let read = "'ringbuf-read', 'arguments': {'device': 'a', 'size': 1}";
    assert_eq!(rig.ask(read), r#"{"return": "x"}"#);
    assert_eq!(rig.remove("a"), generic("Chardev 'a' is busy"));
    let wrong = "{'type': 'ringbuf', 'data': {'size': 3}}";
    let text = "size of ringbuf chardev must be power of two";
    assert_eq!(change(&mut rig, "a", wrong), generic(text));
    assert_eq!(rig.filename("a"), "ringbuf");
    assert!(change(&mut rig, "a", "{'type': 'pty', 'data': {}}").contains("/dev/pts/"));

    rig.add("b", NULL);
    rig.add("m", "{'type': 'mux', 'data': {'chardev': 'b'}}");
    let mux = generic("Mux device hotswap not supported yet");
    assert_eq!(change(&mut rig, "m", NULL), mux);
    assert_eq!(change(&mut rig, "a", "{'type': 'mux', 'data': {'chardev': 'b'}}"), mux);
}

#[test]
fn ring_buffers_are_written_and_read() {
    let mut rig = Rig::new();
    rig.add("n", NULL);
    rig.add("r", "{'type': 'ringbuf', 'data': {}}");
    let write = |rig: &mut Rig, rest: &str| {
        rig.ask(&format!("'ringbuf-write', 'arguments': {{'device': 'r', {rest}}}"))
    };
    let read = |rig: &mut Rig, rest: &str| {
        rig.ask(&format!("'ringbuf-read', 'arguments': {{'device': 'r', {rest}}}"))
    };
    assert_eq!(write(&mut rig, "'data': 'abc'"), OK);
    assert_eq!(read(&mut rig, "'size': 2"), r#"{"return": "ab"}"#);
    assert_eq!(write(&mut rig, "'data': '/wDD YQ==', 'format': 'base64'"), OK);
    assert_eq!(read(&mut rig, "'size': 3, 'format': 'base64'"), r#"{"return": "Y/8A"}"#);
    assert_eq!(read(&mut rig, "'size': 3"), r#"{"return": "\uFFFDa"}"#);
    assert_eq!(read(&mut rig, "'size': 3"), r#"{"return": ""}"#);

    // The oldest bytes of more than there is room for go.
    let data: String = ('a'..='z').cycle().take(70000).collect();
    assert_eq!(write(&mut rig, &format!("'data': '{data}'")), OK);
    let kept = format!(r#"{{"return": "{}"}}"#, &data[70000 - 65536..]);
    assert_eq!(read(&mut rig, "'size': 100000"), kept);

    // What a front end writes is there too.
    rig.vm.chardevs.front("r").unwrap().write(b"hi");
    assert_eq!(read(&mut rig, "'size': 9, 'format': 'utf8'"), r#"{"return": "hi"}"#);

    for command in
        ["'ringbuf-read', 'arguments': {'size': 1, ", "'ringbuf-write', 'arguments': {'data': '', "]
    {
        let text = format!("{command} 'device': 'x'}}");
        assert_eq!(rig.ask(&text), generic("Device 'x' not found"));
        let text = format!("{command} 'device': 'n'}}");
        assert_eq!(rig.ask(&text), generic("n is not a ringbuf device"));
    }
}

#[test]
fn sockets_and_clients_are_handed_over() {
    let mut rig = Rig::new();
    let getfd = |rig: &mut Rig, fd: OwnedFd| {
        let text = "'getfd', 'arguments': {'fdname': 'f'}";
        assert_eq!(rig.pass(text, Some(fd)), OK);
    };
    let add_client = |rig: &mut Rig, protocol: &str| {
        rig.ask(&format!("'add_client', 'arguments': {{'protocol': '{protocol}', 'fdname': 'f'}}"))
    };
    let path = rig.path("sock");
    let listener = UnixListener::bind(&path).unwrap();
    getfd(&mut rig, listener.into());
    let socket = "{'type': 'socket', 'data': {'addr': {'type': 'fd', 'data': {'str': 'f'}}}}";
    assert_eq!(rig.add("s", socket), OK);
    assert_eq!(rig.filename("s"), format!("unix:{path},server"));

    let (mut ours, theirs) = UnixStream::pair().unwrap();
    getfd(&mut rig, theirs.into());
    assert_eq!(add_client(&mut rig, "s"), OK);
    let (_, theirs) = UnixStream::pair().unwrap();
    getfd(&mut rig, theirs.into());
    assert_eq!(add_client(&mut rig, "s"), generic("failed to add client"));
    // The chardev is served on another thread: it is open when it says so.
    let front = rig.vm.chardevs.front("s").unwrap();
    let (sender, opened) = std::sync::mpsc::channel();
    front.attach(Arc::new(Tells(sender))).unwrap();
    opened.recv().unwrap();
    assert_eq!(front.write(b"hello"), 5);
    let mut got = [0; 5];
    ours.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
    ours.write_all(b"x").unwrap();

    rig.add("n", NULL);
    for (protocol, error) in [
        ("n", generic("failed to add client")),
        ("x", generic("protocol 'x' is invalid")),
        (
            "spice",
            r#"{"error": {"class": "DeviceNotActive", "desc": "Device 'spice' has not been activated"}}"#
                .to_owned(),
        ),
        (
            "vnc",
            r#"{"error": {"class": "DeviceNotActive", "desc": "Device 'vnc' has not been activated"}}"#
                .to_owned(),
        ),
    ] {
        let (_, theirs) = UnixStream::pair().unwrap();
        getfd(&mut rig, theirs.into());
        assert_eq!(add_client(&mut rig, protocol), error);
        // Whatever came of it, the descriptor is used up.
        let gone = generic("File descriptor named 'f' has not been found");
        assert_eq!(add_client(&mut rig, protocol), gone);
    }
    let file = std::fs::File::open("/dev/null").unwrap();
    getfd(&mut rig, file.into());
    let not_a_socket = "Failed to set up the descriptor: Socket operation on non-socket";
    assert_eq!(rig.add("f", socket), generic(not_a_socket));
}

struct Tells(std::sync::mpsc::Sender<()>);

impl CharFrontend for Tells {
    fn can_receive(&self) -> usize {
        100
    }

    fn receive(&self, _: &[u8]) {}

    fn event(&self, _: devices::chardev::CharEvent) {
        let _ = self.0.send(());
    }
}
