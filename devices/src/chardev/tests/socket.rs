use std::io::IoSlice;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::*;

struct Rig {
    dir: TempDir,
    on: iol::Handle,
    _thread: iol::Thread,
}

impl Rig {
    fn new() -> Rig {
        let (_thread, on) = iol::Thread::spawn("io-test").unwrap();
        Rig { dir: TempDir::new().unwrap(), on, _thread }
    }

    fn path(&self) -> PathBuf {
        self.dir.as_path().join("sock")
    }

    fn open(&self, socket: Socket) -> Result<Arc<Chardev>, CharError> {
        Chardev::open("s", Backend::Socket(socket), &self.on)
    }

    /// A server with a front end.
    fn server(&self, room: usize) -> (Arc<Chardev>, Arc<Recorder>) {
        let chardev = self.open(Socket::at(Address::Unix(self.path()))).unwrap();
        let recorder = Recorder::with_room(room);
        chardev.attach(recorder.clone()).unwrap();
        (chardev, recorder)
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }
}

fn localhost(port: u16) -> Address {
    Address::Inet(Inet { host: "127.0.0.1".to_owned(), port, ..Inet::default() })
}

fn connect_to(filename: &str) -> TcpStream {
    let at = filename.strip_suffix(",server").unwrap().split_once(':').unwrap().1;
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

#[test]
fn one_client_after_another() {
    let rig = Rig::new();
    let (chardev, recorder) = rig.server(100);
    assert_eq!(chardev.filename(), format!("unix:{},server", rig.path().display()));
    assert_eq!(chardev.write(b"to nobody"), 9);

    let mut first = rig.connect();
    first.write_all(b"one").unwrap();
    recorder.until_data(b"one");
    recorder.until_log(&["Opened"]);
    // The second one waits for the first one's end.
    let mut second = rig.connect();
    second.write_all(b"two").unwrap();
    assert_eq!(chardev.write(b"hello"), 5);
    assert_eq!(read_exactly(&mut first, 5), b"hello");
    recorder.until_data(b"one");
    drop(first);
    recorder.until_data(b"onetwo");
    recorder.until_log(&["Opened", "Closed", "Opened"]);
    assert_eq!(chardev.write(b"again"), 5);
    assert_eq!(read_exactly(&mut second, 5), b"again");

    // Closing ends the connection and keeps the path.
    chardev.close();
    assert_eq!(second.read(&mut [0]).unwrap(), 0);
    assert!(rig.path().exists());
    assert!(!chardev.is_used());
}

#[test]
fn a_socket_left_behind_is_replaced_and_nothing_else() {
    let rig = Rig::new();
    drop(UnixListener::bind(rig.path()).unwrap());
    drop(rig.open(Socket::at(Address::Unix(rig.path()))).unwrap());

    let file = rig.dir.as_path().join("file");
    std::fs::write(&file, b"precious").unwrap();
    let error = rig.open(Socket::at(Address::Unix(file.clone()))).err().unwrap();
    assert_eq!(error.to_string(), "Failed to bind socket: Address already in use");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");

    let long = Address::Unix(Path::new("/tmp").join("x".repeat(200)));
    for socket in [Socket::at(long.clone()), Socket::to(long)] {
        assert!(rig.open(socket).err().unwrap().to_string().contains("is too long"));
    }
    let error = rig.open(Socket::to(Address::Unix(rig.dir.as_path().join("none")))).err().unwrap();
    assert_eq!(error.to_string(), "Failed to connect to socket: No such file or directory");
}

#[test]
fn output_is_not_lost_on_a_slow_reader() {
    let rig = Rig::new();
    let (chardev, recorder) = rig.server(0);
    let mut client = rig.connect();
    recorder.until_log(&["Opened"]);
    let data = numbers(3_000_000);
    let reader = std::thread::spawn({
        let count = data.len();
        move || {
            std::thread::sleep(Duration::from_millis(20));
            read_exactly(&mut client, count)
        }
    });
    write_all(&chardev, &recorder, &data);
    assert!(reader.join().unwrap() == data);
}

#[test]
fn a_full_socket_takes_nothing_and_its_end_frees_the_writer() {
    let rig = Rig::new();
    let (chardev, recorder) = rig.server(0);
    let client = rig.connect();
    recorder.until_log(&["Opened"]);
    while chardev.write(&[0; 4096]) == 4096 {}
    assert_eq!(chardev.write(b"x"), 0);
    assert_eq!(recorder.state.lock().writable, 0);
    // Whoever waits for room is told when there will be no reader.
    drop(client);
    recorder.until("writable", |state| state.writable > 0);
    assert_eq!(chardev.write(&[0; 100_000]), 100_000);
}

#[test]
fn input_waits_for_room_without_spinning() {
    let rig = Rig::new();
    let (chardev, recorder) = rig.server(16);
    let mut client = rig.connect();
    let data = numbers(1000);
    client.write_all(&data).unwrap();
    recorder.until_data(&data[..16]);
    let asked = recorder.state.lock().asked;
    std::thread::sleep(Duration::from_millis(20));
    assert!(recorder.state.lock().asked <= asked + 2, "asked for room again and again");
    for got in (32..1000).step_by(16).chain([1000]) {
        recorder.change(|state| state.room = 16);
        chardev.accept_input();
        recorder.until_data(&data[..got]);
    }
    // What comes before there is a front end is kept for it.
    chardev.detach();
    client.write_all(b"kept").unwrap();
    let next = Recorder::with_room(100);
    chardev.attach(next.clone()).unwrap();
    next.until_data(b"kept");
    next.until_log(&["Opened"]);
}

#[test]
fn the_last_words_of_a_client_are_kept_until_another_wants_in() {
    let rig = Rig::new();
    let (chardev, recorder) = rig.server(2);
    let mut client = rig.connect();
    client.write_all(b"abcdef").unwrap();
    drop(client);
    recorder.until_data(b"ab");
    recorder.change(|state| state.room = 2);
    chardev.accept_input();
    recorder.until_data(b"abcd");
    recorder.until_log(&["Opened"]);
    // The front end stays full; the next client is served all the same.
    let mut next = rig.connect();
    recorder.until_log(&["Opened", "Closed", "Opened"]);
    assert_eq!(chardev.write(b"hi"), 2);
    assert_eq!(read_exactly(&mut next, 2), b"hi");
    recorder.change(|state| state.room = 9);
    chardev.accept_input();
    next.write_all(b"new").unwrap();
    recorder.until_data(b"abcdnew");
}

#[test]
fn descriptors_come_before_their_bytes() {
    let rig = Rig::new();
    let (_chardev, recorder) = rig.server(10);
    let client = rig.connect();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let fds = [writer.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(&client, &[IoSlice::new(b"take")], &mut control, SendFlags::empty()).unwrap();
    drop(writer);
    recorder.until_data(b"take");
    let fd = recorder.change(|state| state.fds.pop()).unwrap();
    std::fs::File::from(fd).write_all(b"it").unwrap();
    assert_eq!(read_exactly(&mut reader, 2), b"it");
}

#[test]
fn tcp_server_and_client() {
    let rig = Rig::new();
    let server = rig.open(Socket { nodelay: true, ..Socket::at(localhost(0)) }).unwrap();
    let theirs = Recorder::with_room(100);
    server.attach(theirs.clone()).unwrap();
    let name = server.filename();
    let port: u16 = name
        .strip_prefix("tcp:127.0.0.1:")
        .unwrap()
        .strip_suffix(",server")
        .unwrap()
        .parse()
        .unwrap();
    let client = rig.open(Socket::to(localhost(port))).unwrap();
    assert!(client.filename().starts_with("tcp:127.0.0.1:"), "{}", client.filename());
    let ours = Recorder::with_room(100);
    client.attach(ours.clone()).unwrap();
    client.write(b"ping");
    theirs.until_data(b"ping");
    server.write(b"pong");
    ours.until_data(b"pong");
    client.close();
    theirs.until_log(&["Opened", "Closed"]);

    // The next port is tried where one is taken.
    let Address::Inet(inet) = localhost(port) else { unreachable!() };
    let error = rig.open(Socket::at(Address::Inet(inet.clone()))).err().unwrap();
    assert_eq!(error.to_string(), "Failed to bind socket: Address already in use");
    let to = Some(port.saturating_add(50));
    let next = rig.open(Socket::at(Address::Inet(Inet { to, ..inet }))).unwrap();
    assert_ne!(next.filename(), name);

    // Nobody listens there: a client that does not try again fails at once.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = rig.open(Socket::to(localhost(free))).err().unwrap();
    assert_eq!(error.to_string(), "Failed to connect to socket: Connection refused");
}

#[test]
fn what_was_written_arrives_although_the_chardev_closes() {
    let rig = Rig::new();
    for _ in 0..10 {
        let server = rig.open(Socket::at(localhost(0))).unwrap();
        let recorder = Recorder::with_room(0);
        server.attach(recorder.clone()).unwrap();
        let mut client = connect_to(&server.filename());
        // Unread input at close must not make the kernel throw output away.
        client.write_all(&[1; 1000]).unwrap();
        recorder.until_log(&["Opened"]);
        let data = numbers(50_000);
        write_all(&server, &recorder, &data);
        server.close();
        drop(server);
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert!(got == data, "{} of {} bytes", got.len(), data.len());
    }
}

#[test]
fn a_half_closed_client_has_its_input_read_to_the_end() {
    let rig = Rig::new();
    let (_chardev, recorder) = rig.server(1000);
    let mut client = rig.connect();
    client.write_all(b"all of it").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    recorder.until_data(b"all of it");
    recorder.until_log(&["Opened", "Closed"]);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_half_closed_client_has_its_answer() {
    let rig = Rig::new();
    let (chardev, recorder) = rig.server(1000);
    recorder.change(|state| state.owes = true);
    let mut client = rig.connect();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    recorder.until_data(b"question");
    let answer = numbers(1_000_000);
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        got
    });
    write_all(&chardev, &recorder, &answer);
    recorder.until_log(&["Opened"]);
    recorder.change(|state| state.owes = false);
    chardev.accept_input();
    assert!(reader.join().unwrap() == answer);
    recorder.until_log(&["Opened", "Closed"]);
}

#[test]
fn clients_may_be_handed_over() {
    let rig = Rig::new();
    let (chardev, recorder) = rig.server(1000);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    assert!(chardev.add_client(theirs.into()));
    recorder.until_log(&["Opened"]);
    let (_, another) = UnixStream::pair().unwrap();
    assert!(!chardev.add_client(another.into()));
    ours.write_all(b"in").unwrap();
    recorder.until_data(b"in");
    drop(ours);
    recorder.until_log(&["Opened", "Closed"]);
    // The next one may come either way.
    let mut client = rig.connect();
    client.write_all(b"side").unwrap();
    recorder.until_data(b"inside");
    assert!(!chardev.add_client(std::fs::File::open("/dev/null").unwrap().into()));
}

#[test]
fn telnet_offers_and_strips() {
    let rig = Rig::new();
    let server = rig.open(Socket { telnet: true, ..Socket::at(localhost(0)) }).unwrap();
    assert!(server.filename().starts_with("telnet:127.0.0.1:"));
    let recorder = Recorder::with_room(100);
    server.attach(recorder.clone()).unwrap();
    let mut client = connect_to(&server.filename());
    let greeting = [0xff, 0xfb, 1, 0xff, 0xfb, 3, 0xff, 0xfb, 0, 0xff, 0xfd, 0];
    assert_eq!(read_exactly(&mut client, 12), greeting);
    client.write_all(&[0xff, 0xfd, 1]).unwrap();
    client.write_all(&[b'a', 0xff, 0xff, 0xff, 0xf3, b'b']).unwrap();
    recorder.until_data(b"a\xffb");
    recorder.until_log(&["Opened", "Break"]);
    server.write(&[1, 0xff, 2]);
    assert_eq!(read_exactly(&mut client, 4), [1, 0xff, 0xff, 2]);
}

#[test]
fn a_server_that_waits_opens_with_its_client() {
    let rig = Rig::new();
    let path = rig.path();
    let client = std::thread::spawn(move || {
        loop {
            if let Ok(mut stream) = UnixStream::connect(&path) {
                stream.write_all(b"here").unwrap();
                return stream;
            }
            std::thread::yield_now();
        }
    });
    let server = rig.open(Socket { wait: true, ..Socket::at(Address::Unix(rig.path())) }).unwrap();
    let recorder = Recorder::with_room(100);
    server.attach(recorder.clone()).unwrap();
    recorder.until_data(b"here");
    drop(client.join().unwrap());
    recorder.until_log(&["Opened", "Closed"]);
}

#[test]
fn a_reconnecting_client_comes_again() {
    let rig = Rig::new();
    let reconnect = Duration::from_millis(5);
    let socket = Socket { reconnect, ..Socket::to(Address::Unix(rig.path())) };
    let client = rig.open(socket).unwrap();
    let recorder = Recorder::with_room(100);
    client.attach(recorder.clone()).unwrap();
    let listener = UnixListener::bind(rig.path()).unwrap();
    for round in 0..3usize {
        let (mut peer, _) = listener.accept().unwrap();
        recorder.until("opened", |state| state.log.len() == round * 2 + 1);
        client.write(b"hey");
        assert_eq!(read_exactly(&mut peer, 3), b"hey");
        drop(peer);
        recorder.until("closed", |state| state.log.len() >= round * 2 + 2);
    }
}

#[test]
fn a_flooding_peer_leaves_the_loop_to_others() {
    let rig = Rig::new();
    let (chardev, recorder) = rig.server(usize::MAX / 2);
    let mut client = rig.connect();
    let flood = std::thread::spawn(move || {
        for _ in 0..200 {
            if client.write_all(&[9; 65536]).is_err() {
                break;
            }
        }
    });
    recorder.until("flood", |state| state.data.len() > 100_000);
    for _ in 0..10 {
        assert_eq!(rig.on.call(|_| 1), Some(1));
    }
    chardev.close();
    flood.join().unwrap();
}
