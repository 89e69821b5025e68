//! Drives that other programs use: the NBD server of a machine, and a client of ours.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::rc::Rc;

use block::nbd::{Options, Target, client};
use block::{Node, Zero};
use resources::iol::{IoBuf, Local, Loop};

use super::*;

/// Runs a client's side.
fn run<F: Future>(task: impl FnOnce(Local) -> F) -> F::Output {
    let mut the_loop = Loop::new("client").unwrap();
    let local = the_loop.local().clone();
    the_loop.run(task(local))
}

async fn open(local: &Local, name: &str, read_only: bool) -> std::io::Result<Rc<client::Client>> {
    let options = Options { read_only, ..Options::default() };
    client::open(local, Target::parse(name).unwrap(), options).await
}

async fn text(node: &dyn Node, offset: u64, len: usize) -> std::io::Result<String> {
    let buf = IoBuf::zeroed(len);
    node.read(offset, buf.clone()).await?;
    Ok(String::from_utf8_lossy(&buf.to_vec()).into_owned())
}

/// A machine with a drive `d` of a mebibyte, whose image is given too.
fn machine() -> (Machine, PathBuf, Client<UnixStream>) {
    let machine = Machine::new(1);
    let image = machine.dir.join("image");
    std::fs::File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let mut client = machine.ready(0);
    let add = format!(
        "{{'execute': 'blockdev-add', 'arguments': {{'options': {{'driver': 'raw', 'id': 'd', \
         'discard': 'unmap', 'file': '{}'}}}}}}",
        image.display()
    );
    assert_eq!(client.ask(&add), OK);
    (machine, image, client)
}

fn start(client: &mut Client<UnixStream>, path: &Path) {
    let start = format!(
        "{{'execute': 'nbd-server-start', 'arguments': {{'addr': {{'type': 'unix', \
         'data': {{'path': '{}'}}}}}}}}",
        path.display()
    );
    assert_eq!(client.ask(&start), OK);
}

fn add(client: &mut Client<UnixStream>, writable: bool) {
    let add = format!(
        "{{'execute': 'nbd-server-add', 'arguments': {{'device': 'd', 'writable': {writable}}}}}"
    );
    assert_eq!(client.ask(&add), OK);
}

const STOP: &str = "{'execute': 'nbd-server-stop'}";

#[test]
fn a_drive_is_written_and_read() {
    let (machine, image, mut monitor) = machine();
    let socket = machine.dir.join("nbd");
    let name = format!("nbd+unix:///d?socket={}", socket.display());
    start(&mut monitor, &socket);
    add(&mut monitor, true);
    run(|local| async move {
        let node = open(&local, &name, false).await.unwrap();
        assert_eq!(node.info().size, 1 << 20);
        node.write(12345, IoBuf::copy_of(b"by a client"), true).await.unwrap();
        assert_eq!(text(&*node, 12345, 11).await.unwrap(), "by a client");
        assert_eq!(std::fs::read(&image).unwrap()[12345..][..11], *b"by a client");
        node.zero(12345, 3, Zero::MayUnmap).await.unwrap();
        node.flush().await.unwrap();
        node.discard(0, 1 << 20).await.unwrap();
        assert_eq!(node.map(0, 1 << 20).await.unwrap().len, 1 << 20);
        // A client on its own and one that ends are no trouble for each other.
        let other = open(&local, &name, true).await.unwrap();
        other.close().await.unwrap();
        assert_eq!(monitor.ask(STOP), OK);
        assert!(text(&*node, 0, 1).await.is_err(), "the server has ended");
        assert!(open(&local, &name, true).await.is_err());
        // Once more, and nobody may write.
        start(&mut monitor, &socket);
        add(&mut monitor, false);
        assert!(open(&local, &name, false).await.is_err());
        let node = open(&local, &name, true).await.unwrap();
        // The export goes with the medium.
        let remove = "{'execute': 'human-monitor-command', \
                      'arguments': {'command-line': 'drive_del d'}}";
        assert_eq!(monitor.ask(remove), r#"{"return": ""}"#);
        assert!(text(&*node, 0, 1).await.is_err());
        let error = open(&local, &name, true).await.err().unwrap();
        assert!(error.to_string().contains("not available"), "{error}");
    });
}

#[test]
fn a_listening_socket_can_be_passed() {
    let (machine, _, mut monitor) = machine();
    let socket = machine.dir.join("passed");
    let listener = UnixListener::bind(&socket).unwrap();
    let getfd = "{'execute': 'getfd', 'arguments': {'fdname': 'nbd'}}";
    descriptors::send(&monitor, getfd, &[listener.as_fd()]);
    assert_eq!(monitor.line(), OK);
    let start = "{'execute': 'nbd-server-start', \
                 'arguments': {'addr': {'type': 'fd', 'data': {'str': 'nbd'}}}}";
    assert_eq!(monitor.ask(start), OK);
    add(&mut monitor, false);
    let name = format!("nbd:unix:{}:exportname=d", socket.display());
    run(|local| async move {
        let node = open(&local, &name, true).await.unwrap();
        assert_eq!(text(&*node, 0, 2).await.unwrap(), "\0\0");
        node.close().await.unwrap();
    });
    assert_eq!(monitor.ask(STOP), OK);
    // It is still ours.
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn ports_are_looked_for_upwards() {
    let (_machine, _, mut monitor) = machine();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let first = taken.local_addr().unwrap().port();
    let start = |to: u16| {
        format!(
            "{{'execute': 'nbd-server-start', 'arguments': {{'addr': {{'type': 'inet', 'data': \
             {{'host': '127.0.0.1', 'port': '{first}', 'to': {to}}}}}}}}}"
        )
    };
    let used = monitor.ask(&start(first));
    assert!(used.contains("Failed to bind socket: Address already in use"), "{used}");
    assert_eq!(monitor.ask(&start(first.saturating_add(50))), OK);
    add(&mut monitor, false);
    run(|local| async move {
        let mut found = false;
        for port in first + 1..=first.saturating_add(50) {
            let name = format!("nbd://127.0.0.1:{port}/d");
            if let Ok(node) = open(&local, &name, true).await {
                found = true;
                node.close().await.unwrap();
                break;
            }
        }
        assert!(found);
    });
}
