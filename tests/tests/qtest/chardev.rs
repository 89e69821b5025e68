//! What goes over character devices, made and removed while the machine runs.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use serde_json::{Value, json};

use super::*;

const COM2: u16 = 0x2f8;
const DEBUGCON: u16 = 0xe9;

/// A second serial port and a debug console, and who listens to them. The machine calls, before it
/// starts: what nobody is connected to yet takes everything and keeps nothing.
fn machine() -> (Machine, UnixStream, UnixStream) {
    let dir = Scratch::new().unwrap();
    let peers = ["serial", "debugcon"].map(|name| {
        let path = dir.join(name);
        (UnixListener::bind(&path).unwrap(), format!("socket,path={}", path.display()))
    });
    let [(serial, serial_arg), (debugcon, debugcon_arg)] = peers;
    let m = Machine::new([
        "-chardev",
        &format!("{serial_arg},id=s"),
        "-device",
        "isa-serial,chardev=s,index=1",
        "-chardev",
        &format!("{debugcon_arg},id=d"),
        "-device",
        "isa-debugcon,chardev=d",
    ]);
    let [serial, debugcon] =
        [serial, debugcon].map(|listener| patient(listener.accept().unwrap().0));
    (m, serial, debugcon)
}

fn patient(stream: UnixStream) -> UnixStream {
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

fn reader(mut stream: UnixStream) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        got
    })
}

/// Sends from `sent` on until the transmitter stays busy; how much was sent.
fn fill(m: &mut Machine, data: &[u8]) -> usize {
    for (at, byte) in data.iter().enumerate() {
        if m.inb(COM2 + 5) & 0x20 == 0 {
            return at;
        }
        m.outb(COM2, *byte);
    }
    panic!("the peer took {} bytes that it does not read", data.len());
}

#[test]
fn a_peer_that_does_not_read_costs_no_byte() {
    let (mut m, peer, debug_peer) = machine();
    let data: Vec<u8> = (0..2_000u32).map(|i| (i % 251) as u8).collect();
    m.outb(COM2 + 2, 0x01);
    let sent = fill(&mut m, &data);
    // The port is busy, and the machine is not.
    m.qmp("query-status");
    assert_eq!(m.inb(COM2 + 5) & 0x60, 0);
    for byte in &data {
        m.outb(DEBUGCON, *byte);
    }
    let (got, debug_got) = (reader(peer), reader(debug_peer));
    for byte in &data[sent..] {
        while m.inb(COM2 + 5) & 0x20 == 0 {
            std::thread::yield_now();
        }
        m.outb(COM2, *byte);
    }
    m.qmp("quit");
    assert_eq!(m.exit_code(), 0);
    assert!(got.join().unwrap() == data);
    assert!(debug_got.join().unwrap() == data);
}

#[test]
fn what_waits_at_the_end_is_sent() {
    let (mut m, peer, debug_peer) = machine();
    let data: Vec<u8> = (0..2_000u32).map(|i| (i % 249) as u8).collect();
    m.outb(COM2 + 2, 0x01);
    let mut sent = fill(&mut m, &data);
    // The FIFO has room for some more.
    for byte in &data[sent..sent + 8] {
        m.outb(COM2, *byte);
    }
    sent += 8;
    for byte in &data[..1500] {
        m.outb(DEBUGCON, *byte);
    }
    m.qmp("quit");
    let (got, debug_got) = (reader(peer), reader(debug_peer));
    assert_eq!(m.exit_code(), 0);
    assert_eq!(got.join().unwrap().len(), sent);
    assert!(debug_got.join().unwrap() == data[..1500]);
}

#[test]
fn a_peer_that_never_reads_does_not_keep_the_process() {
    let (mut m, _peer, _) = machine();
    fill(&mut m, &[b'x'; 2_000]);
    m.qmp("quit");
    assert_eq!(m.exit_code(), 0);
}

#[test]
fn chardevs_are_made_shared_and_removed_by_command() {
    let mut m = Machine::new([]);
    let path = m.dir.join("hot");
    let mut run = |command: &str, arguments: Value| m.vm.qmp.execute(command, arguments);
    let socket = json!({"type": "socket", "data":
        {"addr": {"type": "unix", "data": {"path": path}}, "telnet": true}});
    for round in 0..3 {
        assert_eq!(run("chardev-add", json!({"id": "h", "backend": socket})).unwrap(), json!({}));
        let list = run("query-chardev", json!({})).unwrap();
        let name = format!("unix:{},server", path.display());
        assert_eq!(list[0], json!({"label": "h", "filename": name}));
        let mut client = patient(UnixStream::connect(&path).unwrap());
        let mut offer = [0; 12];
        client.read_exact(&mut offer).unwrap();
        assert!(offer.starts_with(&[0xff, 0xfb]), "{offer:x?}");
        client.write_all(&[round; 70_000]).unwrap();
        let error = run("chardev-add", json!({"id": "h", "backend": socket})).unwrap_err();
        assert!(error.to_string().contains("Chardev 'h' already exists"), "{error}");
        let mux = json!({"type": "mux", "data": {"chardev": "h"}});
        run("chardev-add", json!({"id": "m", "backend": mux})).unwrap();
        let error = run("chardev-remove", json!({"id": "h"})).unwrap_err();
        assert!(error.to_string().contains("Chardev 'h' is busy"), "{error}");
        run("chardev-remove", json!({"id": "m"})).unwrap();
        run("chardev-remove", json!({"id": "h"})).unwrap();
        // What nobody has read is lost, and the client sees the end.
        assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    }
    // The monitor's own, and COM1's.
    let list = run("query-chardev", json!({})).unwrap();
    for chardev in list.as_array().unwrap() {
        let error = run("chardev-remove", json!({"id": chardev["label"]})).unwrap_err();
        assert!(error.to_string().contains("is busy"), "{error}");
    }
}
