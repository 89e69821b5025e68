use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use resources::ram::RamBlock;

use super::*;
use crate::Error;
use crate::uri::Uri;

/// A directory that goes away.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("vmm-migration-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn no_fd(name: &str) -> Result<OwnedFd, Error> {
    Err(Error(format!("File descriptor named '{name}' has not been found")))
}

fn outgoing(uri: &str, canceller: &Canceller) -> Result<Channel, Error> {
    Connecting::start(&Uri::outgoing(uri)?, canceller, no_fd)?.finish()
}

fn incoming(uri: &str) -> Result<Listener, Error> {
    Listener::start(&Uri::incoming(uri)?, no_fd)
}

/// Bytes that show it if some are lost or change places.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

/// Guest memory of these contents.
fn ram(contents: &[u8]) -> IoBuf {
    let block = RamBlock::anonymous(contents.len().next_multiple_of(4096) as u64).unwrap();
    block.write(0, contents);
    IoBuf::block(&block, 0..contents.len())
}

/// A stream and an answer go through.
fn converse(listen: &str, connect: impl FnOnce(&Listener) -> String) {
    let canceller = Canceller::new().unwrap();
    let mut listener = incoming(listen).unwrap();
    let uri = connect(&listener);
    let sent = bytes(3 << 20);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut channel = outgoing(&uri, &canceller).unwrap();
            assert!(channel.two_way());
            // Small and large pieces.
            let (head, tail) = sent.split_at(1 << 20);
            for piece in head.chunks(5000) {
                channel.write_all(piece).unwrap();
            }
            // A part of it from where memory is, in pieces.
            let (memory, tail) = tail.split_at(1 << 20);
            let (one, other) = (IoBuf::copy_of(&memory[..3000]), ram(&memory[3000..]));
            channel.send_memory(&IoBuf::concat(&[one, other])).unwrap();
            channel.write_all(tail).unwrap();
            assert!(channel.sent() > 2 << 20);
            channel.finish().unwrap();
            let mut answer = String::new();
            channel.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "it is all here");
        });
        let mut channel = listener.accept(&canceller).unwrap();
        drop(listener);
        let mut received = Vec::new();
        channel.read_to_end(&mut received).unwrap();
        assert!(received == sent);
        channel.write_all(b"it is all here").unwrap();
        channel.flush().unwrap();
    });
    // One connection is all there is.
    assert!(outgoing(&uri, &canceller).unwrap_err().0.starts_with("Failed to connect to socket: "));
}

#[test]
fn streams_go_by_tcp() {
    for (listen, host) in
        [("127.0.0.1", "127.0.0.1"), ("", "127.0.0.1"), ("localhost", "localhost")]
    {
        converse(&format!("tcp:{listen}:0"), |listener| {
            format!("tcp:{host}:{}", listener.address().unwrap().port())
        });
    }
    if TcpListener::bind("[::1]:0").is_ok() {
        converse("tcp:[::1]:0", |listener| {
            format!("tcp:[::1]:{}", listener.address().unwrap().port())
        });
    }
}

#[test]
fn streams_go_by_unix_sockets() {
    let scratch = Scratch::new("unix");
    let uri = format!("unix:{}", scratch.path("socket"));
    converse(&uri, |_| uri.clone());
    assert!(!fs::exists(scratch.path("socket")).unwrap());
    // What a process left that was killed is no obstacle; a file is.
    drop(UnixListener::bind(scratch.path("socket")).unwrap());
    converse(&uri, |_| uri.clone());
    fs::write(scratch.path("socket"), "precious").unwrap();
    assert!(incoming(&uri).unwrap_err().0.ends_with(": Address already in use"));
    assert_eq!(fs::read(scratch.path("socket")).unwrap(), b"precious");
}

#[test]
fn streams_go_through_files() {
    let scratch = Scratch::new("file");
    let canceller = Canceller::new().unwrap();
    let path = scratch.path("stream,1");
    fs::write(&path, [7; 10_000]).unwrap();
    let sent = bytes(700_000);
    for offset in [4096, 0] {
        let uri = format!("file:{path},offset={offset}");
        let mut channel = outgoing(&uri, &canceller).unwrap();
        assert!(!channel.two_way());
        assert_eq!(channel.read(&mut [0]).unwrap_err().kind(), ErrorKind::Unsupported);
        channel.write_all(&sent).unwrap();
        channel.finish().unwrap();
        let contents = fs::read(&path).unwrap();
        assert_eq!(contents.len(), offset + sent.len());
        assert_eq!(contents[..offset], vec![7; offset]);
        let mut received = Vec::new();
        let mut listener = incoming(&uri).unwrap();
        let mut channel = listener.accept(&canceller).unwrap();
        channel.read_to_end(&mut received).unwrap();
        assert!(received == sent);
        assert!(listener.accept(&canceller).is_err());
    }
    let error = outgoing("file:/nowhere/at/all", &canceller).unwrap_err();
    assert_eq!(error.0, "Could not open '/nowhere/at/all': No such file or directory");
    let error = incoming("file:/nowhere/at/all").unwrap_err();
    assert_eq!(error.0, "Could not open '/nowhere/at/all': No such file or directory");
}

#[test]
fn a_full_disk_is_noticed() {
    let canceller = Canceller::new().unwrap();
    let mut channel = outgoing("file:/dev/full", &canceller).unwrap();
    channel.write_all(b"a few bytes").unwrap();
    assert_eq!(channel.finish().unwrap_err().kind(), ErrorKind::StorageFull);
}

#[test]
fn streams_go_through_descriptors_of_any_kind() {
    let canceller = Canceller::new().unwrap();
    let sent = bytes(1 << 20);
    let (to, from): (OwnedFd, OwnedFd) =
        UnixStream::pair().map(|(a, b)| (a.into(), b.into())).unwrap();
    let (output, input) = rustix::pipe::pipe().unwrap();
    for (to, from, two_way) in [(to, from, true), (input, output, false)] {
        let uri = Uri::Fd("mine".into());
        let connecting = Connecting::start(&uri, &canceller, |name| {
            assert_eq!(name, "mine");
            Ok(to)
        });
        let mut out = connecting.unwrap().finish().unwrap();
        let mut listener = Listener::start(&uri, |_| Ok(from)).unwrap();
        let mut into = listener.accept(&canceller).unwrap();
        assert_eq!((out.two_way(), into.two_way()), (two_way, two_way));
        thread::scope(|scope| {
            scope.spawn(|| {
                out.write_all(&sent).unwrap();
                out.finish().unwrap();
            });
            let mut received = Vec::new();
            into.read_to_end(&mut received).unwrap();
            assert!(received == sent);
        });
    }
    let error = outgoing("fd:other", &canceller).unwrap_err();
    assert_eq!(error.0, "File descriptor named 'other' has not been found");
}

#[test]
fn streams_go_through_commands() {
    let scratch = Scratch::new("exec");
    let canceller = Canceller::new().unwrap();
    let path = scratch.path("stream");
    let sent = bytes(1 << 20);
    let mut channel = outgoing(&format!("exec:sleep 0.05; cat > {path}"), &canceller).unwrap();
    channel.write_all(&sent).unwrap();
    // It is awaited, so the file is complete.
    channel.finish().unwrap();
    assert!(fs::read(&path).unwrap() == sent);
    let mut received = Vec::new();
    let mut channel = incoming(&format!("exec:cat {path}")).unwrap().accept(&canceller).unwrap();
    channel.read_to_end(&mut received).unwrap();
    assert!(received == sent);
}

#[test]
fn a_command_that_fails_fails_the_migration() {
    let canceller = Canceller::new().unwrap();
    let mut channel = outgoing("exec:cat > /dev/null; exit 3", &canceller).unwrap();
    channel.write_all(b"all of it").unwrap();
    let error = channel.finish().unwrap_err();
    assert_eq!(error.to_string(), "the migration command failed: exit status: 3");
    // One that does not take everything.
    let mut channel = outgoing("exec:head -c 1000 > /dev/null", &canceller).unwrap();
    let error = channel.write_all(&bytes(1 << 20)).and_then(|()| channel.finish()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert!(outgoing("exec:a\0b", &canceller).unwrap_err().0.starts_with("failed to popen the"));
}

#[test]
fn a_command_ends_with_its_channel() {
    let scratch = Scratch::new("end");
    let canceller = Canceller::new().unwrap();
    // Its reader sees the end once no process has it open.
    let path = scratch.path("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, 0o600.into(), 0).unwrap();
    let command = format!("exec:exec 9>{path}; sleep 1000 & sleep 1000");
    type End = fn(&str, &Canceller) -> Box<dyn std::any::Any>;
    let ends: [End; 2] = [
        |uri, canceller| Box::new(outgoing(uri, canceller).unwrap()),
        |uri, _| Box::new(incoming(uri).unwrap()),
    ];
    for end in ends {
        let ours = end(&command, &canceller);
        let mut fifo = fs::File::open(&path).unwrap();
        drop(ours);
        assert_eq!(fifo.read(&mut [0]).unwrap(), 0);
    }
}

/// Cancels while `wait` waits, most likely; in any case it must end by that.
fn ends_by_cancel<T>(wait: impl FnOnce(&Canceller) -> io::Result<T> + Send) {
    let canceller = Canceller::new().unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(&canceller).map(drop).unwrap_err());
        thread::sleep(Duration::from_millis(30));
        canceller.cancel();
        let error = waiting.join().unwrap();
        assert!(is_cancelled(&error), "{error}");
        assert!(canceller.is_cancelled());
    });
}

#[test]
fn a_peer_that_never_reads_cannot_hold_a_cancel_up() {
    let endless = bytes(64 << 20);
    let (socket, _peer) = UnixStream::pair().unwrap();
    ends_by_cancel(|canceller| Channel::new(socket.into(), canceller)?.write_all(&endless));
    let (_output, input) = rustix::pipe::pipe().unwrap();
    ends_by_cancel(|canceller| Channel::new(input, canceller)?.write_all(&endless));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("tcp:{}", listener.local_addr().unwrap());
    ends_by_cancel(|canceller| outgoing(&uri, canceller).unwrap().write_all(&endless));
    ends_by_cancel(|canceller| outgoing("exec:sleep 1000", canceller).unwrap().write_all(&endless));
    // It reads, but does not end.
    ends_by_cancel(|canceller| {
        let mut channel = outgoing("exec:cat > /dev/null; sleep 1000", canceller).unwrap();
        channel.write_all(b"all of it")?;
        channel.finish()
    });
}

#[test]
fn a_peer_that_never_writes_cannot_hold_a_cancel_up() {
    let (socket, _peer) = UnixStream::pair().unwrap();
    ends_by_cancel(|canceller| Channel::new(socket.into(), canceller)?.read(&mut [0]));
    let (output, _input) = rustix::pipe::pipe().unwrap();
    ends_by_cancel(|canceller| Channel::new(output, canceller)?.read(&mut [0]));
    let mut listener = incoming("exec:sleep 1000").unwrap();
    ends_by_cancel(|canceller| listener.accept(canceller).unwrap().read(&mut [0]));
}

#[test]
fn a_peer_that_never_comes_cannot_hold_a_cancel_up() {
    let cancelled = |error: Error| {
        assert!(error.0.ends_with("the migration was cancelled"), "{error}");
        io::Error::new(ErrorKind::ConnectionAborted, error)
    };
    let scratch = Scratch::new("absent");
    for uri in ["tcp:127.0.0.1:0".into(), format!("unix:{}", scratch.path("socket"))] {
        let mut listener = incoming(&uri).unwrap();
        let canceller = Canceller::new().unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| listener.accept(&canceller).unwrap_err());
            canceller.cancel();
            cancelled(waiting.join().unwrap());
        });
    }
    // Listeners that accept nobody, once their queues are full.
    let path = scratch.path("full");
    let full = new_listener(&path);
    let canceller = Canceller::new().unwrap();
    let mut queued = Vec::new();
    let waiting = loop {
        let uri = Uri::Unix(path.clone().into());
        let connecting = Connecting::start(&uri, &canceller, no_fd).unwrap();
        if connecting.waits() {
            break connecting;
        }
        queued.push(connecting);
    };
    thread::scope(|scope| {
        let waiting = scope.spawn(|| waiting.finish().unwrap_err());
        canceller.cancel();
        cancelled(waiting.join().unwrap());
    });
    drop(full);
}

/// A listener whose queue has room for few.
fn new_listener(path: &str) -> OwnedFd {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
    let listener = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    bind(&listener, &SocketAddrUnix::new(path).unwrap()).unwrap();
    listen(&listener, 1).unwrap();
    listener
}

#[test]
fn a_peer_that_goes_away_is_noticed() {
    let canceller = Canceller::new().unwrap();
    let (socket, peer) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(socket.into(), &canceller).unwrap();
    drop(peer);
    assert_eq!(channel.read(&mut [0]).unwrap(), 0);
    let error = channel.write_all(&bytes(1 << 20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert!(!is_cancelled(&error));

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    let mut channel = Channel::new(socket.into(), &canceller).unwrap();
    drop(peer);
    let endless = bytes(1 << 20);
    let error =
        std::iter::repeat_with(|| channel.write_all(&endless)).find_map(Result::err).unwrap();
    assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset));
}

#[test]
fn patience_ends() {
    let canceller = Canceller::new().unwrap();
    let (socket, mut peer) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(socket.into(), &canceller).unwrap();
    channel.set_patience(Some(Duration::from_millis(20)));
    assert_eq!(channel.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
    let error = channel.write_all(&bytes(8 << 20)).unwrap_err();
    assert_eq!(error.to_string(), "the other side of the migration did nothing for 20 ms");
    channel.set_patience(None);
    peer.write_all(b"x").unwrap();
    assert_eq!(channel.read(&mut [0]).unwrap(), 1);
}

#[test]
fn the_host_is_as_patient_as_a_channel() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    let channel = Channel::new(socket.into(), &Canceller::new().unwrap()).unwrap();
    let allowed = || sockopt::tcp_user_timeout(&channel.line().unwrap().fd).unwrap();
    assert_eq!(allowed(), 30_000);
    for (seconds, ms) in [(1, 30_000), (100, 100_000), (u64::MAX, 86_400_000)] {
        channel.set_patience(Some(Duration::from_secs(seconds)));
        assert_eq!(allowed(), ms);
    }
    channel.set_patience(None);
    assert_eq!(allowed(), 30_000);
}

#[test]
fn immediate_failures_have_their_words() {
    let canceller = Canceller::new().unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (uri, words) in [
        (format!("tcp:{nobody}"), "Failed to connect to socket: Connection refused"),
        ("unix:/nowhere/at/all".into(), "Failed to connect to socket: No such file or directory"),
    ] {
        assert_eq!(outgoing(&uri, &canceller).unwrap_err().0, words);
    }
    let error = outgoing(&format!("unix:/{}", "x".repeat(200)), &canceller).unwrap_err();
    assert_eq!(error.0, "Failed to connect to socket: File name too long");
    let error = outgoing("tcp:no such host:1", &canceller).unwrap_err();
    assert!(error.0.starts_with("address resolution failed for no such host:1: "), "{error}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = incoming(&format!("tcp:{}", taken.local_addr().unwrap())).unwrap_err();
    assert_eq!(error.0, "Failed to bind socket: Address already in use");
}

/// The limit is never exceeded by more than a window has; whether it is reached depends on the
/// host, and is measured by the bench.
#[test]
fn a_limit_holds_and_may_be_lifted() {
    const RATE: u64 = 4 << 20;
    let canceller = Canceller::new().unwrap();
    let limiter = Limiter::new(RATE);
    let (socket, mut peer) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(socket.into(), &canceller).unwrap();
    channel.set_limiter(&limiter);
    let sent = bytes(4 << 20);
    thread::scope(|scope| {
        let reader = scope.spawn(move || io::copy(&mut peer, &mut io::sink()).unwrap());
        let start = Instant::now();
        channel.write_all(&sent[..2 << 20]).unwrap();
        channel.flush().unwrap();
        let windows = start.elapsed().as_millis() / WINDOW.as_millis() + 2;
        assert!((2 << 20) <= windows * u128::from(RATE) / 10, "{:?}", start.elapsed());
        // Nothing would end at this speed.
        limiter.set(100);
        let lifted = scope.spawn({
            let limiter = limiter.clone();
            move || {
                thread::sleep(Duration::from_millis(20));
                limiter.set(0);
            }
        });
        channel.write_all(&sent[2 << 20..]).unwrap();
        channel.finish().unwrap();
        lifted.join().unwrap();
        assert_eq!(reader.join().unwrap(), 4 << 20);
    });
    // Waiting for the next window is waiting too.
    let (socket, _peer) = UnixStream::pair().unwrap();
    limiter.set(10);
    ends_by_cancel(|canceller| {
        let mut channel = Channel::new(socket.into(), canceller)?;
        channel.set_limiter(&limiter);
        channel.write_all(&sent)
    });
}

#[test]
fn halves_go_to_threads_of_their_own() {
    let canceller = Canceller::new().unwrap();
    let (socket, mut peer) = UnixStream::pair().unwrap();
    let (reader, writer) = Channel::new(socket.into(), &canceller).unwrap().split();
    let (mut reader, mut writer) = (reader.unwrap(), writer.unwrap());
    let sent = bytes(1 << 20);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut echo = vec![0; 1 << 20];
            peer.read_exact(&mut echo).unwrap();
            peer.write_all(&echo).unwrap();
        });
        let back = scope.spawn(move || {
            let mut back = Vec::new();
            reader.read_to_end(&mut back).unwrap();
            assert_eq!(reader.received(), 1 << 20);
            back
        });
        writer.write_all(&sent).unwrap();
        assert!(writer.counter().load(Ordering::Relaxed) <= 1 << 20);
        writer.finish().unwrap();
        assert!(back.join().unwrap() == sent);
    });
}

#[test]
fn what_was_lost_is_not_forgotten() {
    let canceller = Canceller::new().unwrap();
    let (socket, peer) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(socket.into(), &canceller).unwrap();
    drop(peer);
    channel.write_all(b"buffered").unwrap();
    for _ in 0..2 {
        assert_eq!(channel.flush().unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(channel.write(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
    assert_eq!(channel.finish().unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_deadline_holds_however_much_moves() {
    let canceller = Canceller::new().unwrap();
    let (socket, mut peer) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(socket.into(), &canceller).unwrap();
    channel.set_deadline(Some(Instant::now() + Duration::from_millis(100)));
    peer.write_all(b"xyz").unwrap();
    assert_eq!(channel.read(&mut [0]).unwrap(), 1);
    let endless = thread::spawn(move || while peer.write_all(&[0; 64 << 10]).is_ok() {});
    let error = io::copy(&mut channel, &mut io::sink()).unwrap_err();
    assert_eq!(error.to_string(), "the other side of the migration took too long");
    assert_eq!(channel.wait(&[], None).unwrap_err().kind(), ErrorKind::TimedOut);
    channel.set_deadline(None);
    assert!(channel.read(&mut [0]).unwrap() > 0);
    drop(channel);
    endless.join().unwrap();
}

#[test]
fn a_fifo_without_a_writer_holds_nobody_up() {
    let scratch = Scratch::new("fifo");
    let path = scratch.path("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, mode, 0).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let uri = format!("file:{path}");
    thread::spawn({
        let uri = uri.clone();
        move || tell.send(incoming(&uri))
    });
    let mut listener = told.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
    let canceller = Canceller::new().unwrap();
    thread::scope(|scope| {
        let received = scope.spawn(|| {
            let mut received = Vec::new();
            let mut channel = listener.accept(&canceller)?;
            channel.read_to_end(&mut received).map_err(|error| Error(error.to_string()))?;
            Ok::<_, Error>(received)
        });
        // Somebody reads it already, or will.
        let mut channel = outgoing(&uri, &canceller).unwrap();
        thread::sleep(Duration::from_millis(20));
        channel.write_all(b"stream").unwrap();
        channel.finish().unwrap();
        drop(channel);
        assert_eq!(received.join().unwrap().unwrap(), b"stream");
    });
}
