//! Servers that stall, or never stay: who has to go on does.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use resources::iol::Thread;
use vmm_sys_util::tempdir::TempDir;

use super::hostile::agreeing;
use super::*;
use crate::nbd::address::{Address, Target};
use crate::{Drive, Spec};

const SIZE: u64 = 1 << 20;
/// A test does not wait for this.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// A server that agrees with every client, and then leaves it to `then`.
fn listening(then: impl Fn(UnixStream) + Send + Sync + 'static) -> (TempDir, String) {
    let dir = TempDir::new().unwrap();
    let path = dir.as_path().join("socket").to_str().unwrap().to_owned();
    let listener = UnixListener::bind(&path).unwrap();
    let then = Arc::new(then);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, then) = (stream.unwrap(), then.clone());
            std::thread::spawn(move || {
                stream.write_all(&agreeing(SIZE)).unwrap();
                then(stream);
            });
        }
    });
    (dir, path)
}

/// One that says no more, until the client goes.
fn stalling() -> (TempDir, String) {
    listening(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    })
}

fn drive(path: &str) -> (Thread, Arc<Drive>) {
    let (thread, on) = Thread::spawn("stalled").unwrap();
    let mut spec = Spec::file(&format!("nbd:unix:{path}"), Some("raw"));
    spec.read_only = true;
    (thread, Drive::with("d", on, spec).unwrap())
}

/// Begins a read of a guest's, which nobody waits for; tells how it ended.
fn read(drive: &Drive) -> std::sync::mpsc::Receiver<io::Result<()>> {
    let (tell, told) = channel();
    let begun = drive.on_loop(move |local, disk| async move {
        let read = async move {
            let _ = tell.send(disk.read(0, IoBuf::zeroed(512)).await);
        };
        local.spawn(read).detach();
        local.yield_now().await;
    });
    begun.unwrap();
    told
}

#[test]
fn a_drive_whose_server_stalls_can_be_closed() {
    let (_dir, path) = stalling();
    let (_thread, drive) = drive(&path);
    let told = read(&drive);
    drive.remove();
    assert!(told.recv().unwrap().is_err());
}

#[test]
fn a_drive_whose_server_stalls_can_be_waited_for() {
    let (_dir, path) = stalling();
    let (_thread, drive) = drive(&path);
    let told = read(&drive);
    // A guest waits as long as it takes.
    let patient = Duration::from_millis(600);
    assert!(told.recv_timeout(patient).is_err());
    let hurry = drive.hurry();
    assert!(told.recv().unwrap().is_err());
    drop(hurry);
    // So does what is done on its loop, though not for ever.
    let held = drive.hold();
    assert!(held.is_some());
    drop(held);
    let done = drive.on_disk(|disk| async move { disk.read(0, IoBuf::zeroed(512)).await });
    assert!(done.unwrap().is_err());
}

/// Neither what is in it nor whether that is an image can be found out.
#[test]
fn an_image_whose_server_stalls_is_not_opened() {
    let (_dir, path) = stalling();
    let (_thread, on) = Thread::spawn("stalled").unwrap();
    for format in [None, Some("qcow2")] {
        let mut spec = Spec::file(&format!("nbd:unix:{path}"), format);
        spec.read_only = true;
        assert!(Drive::with("d", on.clone(), spec).is_err(), "{format:?}");
    }
}

/// Each connection is lost when the first request comes.
#[test]
fn requests_are_not_sent_for_ever() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let (_dir, path) = listening(move |mut stream| {
        count.fetch_add(1, SeqCst);
        let mut said = Vec::new();
        while said.windows(4).all(|magic| magic != [0x25, 0x60, 0x95, 0x13]) {
            let mut some = [0; 512];
            match stream.read(&mut some) {
                Ok(len) if len > 0 => said.extend_from_slice(&some[..len]),
                _ => return,
            }
        }
    });
    run(|local| async move {
        let target = Target { address: Address::Unix(path), export: String::new() };
        let options = Options { reconnect_delay: Duration::from_millis(300), ..Options::default() };
        let client = client::open(&local, target, options).await.unwrap();
        let began = Instant::now();
        bytes(&*client, 0, 512).await.unwrap_err();
        assert!(began.elapsed() < FOR_EVER / 100);
        assert!(connections.load(SeqCst) <= 3, "{}", connections.load(SeqCst));
    });
}
