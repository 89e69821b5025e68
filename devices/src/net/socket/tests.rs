//! Sockets of this host, with a NIC that is this test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use proptest::prelude::*;
use resources::iol::{Local, Loop};
use resources::testing::skipped;

use super::super::frame::MAX_FRAME;
use super::super::{Cable, Network, Sent};
use super::stream::Parser;
use super::*;

const LONG: Duration = Duration::from_secs(20);
const FRAME: &[u8] = b"dstdstsrcsrcty and a payload";

fn run<T>(test: impl AsyncFnOnce(Local) -> T) -> T {
    let mut the_loop = Loop::new("test").unwrap();
    let local = the_loop.local().clone();
    the_loop.run(test(local))
}

fn cable(backend: Box<dyn Backend>) -> Cable {
    let netdev = super::super::Netdev::new("n", "socket", backend);
    super::super::tests::plug(&Network::new(), Some(netdev)).0
}

fn open(socket: Socket, on: &Handle) -> Result<Cable, String> {
    let mut take = |_: &str| Err(OpenError::Host("no descriptor".to_owned()));
    socket.open(on, &mut take).map(cable).map_err(|error| error.to_string())
}

fn info(cable: &Cable) -> String {
    cable.netdev().unwrap().backend().info(0)
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes()[..], frame].concat()
}

/// Runs what would block on a thread of its own.
async fn aside<T: Send + 'static>(local: &Local, work: impl FnOnce() -> T + Send + 'static) -> T {
    local.pool(work).await.unwrap()
}

#[test]
fn a_listener_takes_one_peer_after_another() {
    run(async |local| {
        let at = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let stream = Stream::listen(at, &local.handle()).unwrap();
        let at = stream.local_address().unwrap();
        let cable = cable(Box::new(stream));
        assert_eq!(info(&cable), "");
        let port = cable.open(0, &local).unwrap();
        let mut buf = vec![0; MAX_FRAME];
        // Nobody hears this one.
        local.yield_now().await;
        for round in 0..3_u8 {
            let mut peer = TcpStream::connect(at).unwrap();
            peer.set_read_timeout(Some(LONG)).unwrap();
            let mut bytes = framed(FRAME);
            let half = bytes.split_off(9);
            peer.write_all(&bytes).unwrap();
            peer.write_all(&half).unwrap();
            assert_eq!(port.recv(&mut buf).await, FRAME.len());
            let own = peer.local_addr().unwrap();
            assert_eq!(info(&cable), format!("socket: connection from {own}"));
            let sent = [FRAME, &[round]].concat();
            assert_eq!(port.send(&[sent.as_slice().into()]), Sent::Taken);
            let (peer, read) = aside(&local, move || {
                let mut read = vec![0; 4 + FRAME.len() + 1];
                peer.read_exact(&mut read).unwrap();
                (peer, read)
            })
            .await;
            assert_eq!(read, framed(&sent));
            let mut peer = peer;
            if round == 1 {
                // A length that no frame has ends the connection.
                peer.write_all(&(MAX_FRAME as u32 + 1).to_be_bytes()).unwrap();
                let end = aside(&local, move || peer.read(&mut [0; 9])).await;
                assert!(matches!(end, Ok(0) | Err(_)));
            }
        }
        cable.netdev().unwrap().close();
        TcpListener::bind(at).unwrap();
    });
}

#[test]
fn a_peer_is_connected_to_and_made_to_wait() {
    run(async |local| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let connect = Socket { connect: Some(at.to_string()), ..Socket::default() };
        let cable = open(connect, &local.handle()).unwrap();
        assert_eq!(info(&cable), format!("socket: connect to {at}"));
        let (mut peer, _) = listener.accept().unwrap();
        let port = cable.open(0, &local).unwrap();
        // More than the lane and the sockets hold: the peer is not read before the NIC takes some.
        let frame = vec![7; 60_000];
        let writer = aside(&local, move || {
            peer.set_nonblocking(true).unwrap();
            let bytes = framed(&frame);
            let mut left: &[u8] = &[];
            let mut count = 0;
            let end = std::time::Instant::now() + LONG;
            let mut quiet = 0;
            while quiet < 50 && std::time::Instant::now() < end {
                if left.is_empty() {
                    left = &bytes;
                    count += 1;
                }
                match peer.write(left) {
                    Ok(written) => {
                        left = &left[written..];
                        quiet = 0;
                    }
                    Err(_) => {
                        quiet += 1;
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            }
            (peer, count - 1)
        });
        let (_peer, count) = writer.await;
        let mut buf = vec![0; MAX_FRAME];
        for _ in 0..count {
            assert_eq!(port.recv(&mut buf).await, 60_000);
        }
    });
}

#[test]
fn datagrams_go_to_one_peer() {
    run(async |local| {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(LONG)).unwrap();
        let own = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let at = peer.local_addr().unwrap();
        let udp = Socket {
            udp: Some(at.to_string()),
            localaddr: Some(own.to_string()),
            ..Socket::default()
        };
        let cable = open(udp, &local.handle()).unwrap();
        assert_eq!(info(&cable), format!("socket: udp={at}"));
        let port = cable.open(0, &local).unwrap();
        assert_eq!(port.send(&[FRAME[..7].into(), FRAME[7..].into()]), Sent::Taken);
        let mut buf = vec![0; MAX_FRAME];
        assert_eq!(peer.recv(&mut buf).unwrap(), FRAME.len());
        peer.send_to(&[1; 3], own).unwrap();
        peer.send_to(FRAME, own).unwrap();
        assert_eq!(port.recv(&mut buf).await, FRAME.len());
        assert_eq!(&buf[..FRAME.len()], FRAME);
    });
}

#[test]
fn a_group_hears_everyone_but_oneself() {
    run(async |local| {
        let group = || Socket {
            mcast: Some("230.0.0.57:41237".to_owned()),
            localaddr: Some("127.0.0.1".to_owned()),
            ..Socket::default()
        };
        let (one, two) = match (open(group(), &local.handle()), open(group(), &local.handle())) {
            (Ok(one), Ok(two)) => (one, two),
            (Err(error), _) | (_, Err(error)) => return skipped(error),
        };
        assert_eq!(info(&one), "socket: mcast=230.0.0.57:41237");
        let (one, two) = (one.open(0, &local).unwrap(), two.open(0, &local).unwrap());
        let mut buf = vec![0; MAX_FRAME];
        assert_eq!(one.send(&[FRAME.into()]), Sent::Taken);
        assert_eq!(two.recv(&mut buf).await, FRAME.len());
        assert_eq!(two.send(&[b"an answer from two".as_slice().into()]), Sent::Taken);
        assert_eq!(one.recv(&mut buf).await, 18);
        assert!(buf.starts_with(b"an answer from two"));
    });
}

#[test]
fn sockets_that_were_handed_over() {
    run(async |local| {
        let (mut peer, ours) = UnixStream::pair().unwrap();
        let fd = OwnedFd::from(ours);
        let number = fd.as_raw_fd();
        let first = cable(given(fd, &local.handle()).unwrap());
        assert_eq!(info(&first), format!("socket: fd={number}"));
        peer.write_all(&framed(FRAME)).unwrap();
        let mut buf = vec![0; MAX_FRAME];
        assert_eq!(first.open(0, &local).unwrap().recv(&mut buf).await, FRAME.len());
        let (one, two) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        one.connect(two.local_addr().unwrap()).unwrap();
        let second = cable(given(one.into(), &local.handle()).unwrap());
        let port = second.open(0, &local).unwrap();
        assert_eq!(port.send(&[FRAME.into()]), Sent::Taken);
        assert_eq!(two.recv(&mut buf).unwrap(), FRAME.len());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(given(file.into(), &local.handle()).is_err());
    });
}

#[test]
fn what_does_not_go_together() {
    let the_loop = Loop::new("test").unwrap();
    let some = |text: &str| Some(text.to_owned());
    let refused = |socket: Socket| open(socket, &the_loop.handle()).unwrap_err();
    let one = "exactly one of fd=, listen=, connect=, mcast= or udp= is required";
    assert_eq!(refused(Socket::default()), one);
    assert_eq!(refused(Socket { fd: some("3"), udp: some("x:1"), ..Socket::default() }), one);
    assert_eq!(
        refused(Socket { listen: some(":1"), localaddr: some("x"), ..Socket::default() }),
        "localaddr= is only valid with mcast= or udp="
    );
    assert_eq!(
        refused(Socket { udp: some("127.0.0.1:1"), ..Socket::default() }),
        "localaddr= is mandatory with udp="
    );
    assert_eq!(refused(Socket { listen: some("x"), ..Socket::default() }), "'x' is not HOST:PORT");
    assert_eq!(
        refused(Socket { mcast: some("10.0.0.1:5"), ..Socket::default() }),
        "specified mcastaddr 10.0.0.1 (0x0a000001) does not contain a multicast address"
    );
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let taken_by = TcpListener::bind(taken).unwrap();
    let error = refused(Socket { listen: some(&taken.to_string()), ..Socket::default() });
    let words = ["Failed to bind socket: ", "Failed to set socket to listening mode: "];
    assert!(words.iter().any(|words| error.starts_with(words)), "{error}");
    drop(taken_by);
}

proptest! {
    #[test]
    fn streams_are_taken_apart_however_they_are_cut(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
        cut in 1_usize..300,
    ) {
        let stream: Vec<u8> = frames.iter().flat_map(|frame| framed(frame)).collect();
        let (mut parser, mut found) = (Parser::default(), Vec::new());
        for piece in stream.chunks(cut) {
            parser.feed(piece);
            while let Some(frame) = parser.next().unwrap() {
                found.push(frame);
            }
        }
        prop_assert_eq!(found, frames);
    }

    #[test]
    fn any_stream_is_survived(bytes: Vec<u8>) {
        let mut parser = Parser::default();
        parser.feed(&bytes);
        while let Ok(Some(_)) = parser.next() {}
    }
}
