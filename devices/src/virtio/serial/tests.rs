//! The device between the driver's side of its queues and sockets behind its chardevs.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use resources::iol::Thread;
use vmm_sys_util::tempdir::TempDir;

use super::bus::Control;
use super::control::{Event, Message};
use super::slot::Plug;
use super::*;
use crate::chardev::{Backend, Chardev, Device, Patience, Vc, parse_device};
use crate::testing::Requested;
use crate::virtio::testing::Machine;
use resources::request::Request;

const PORTS: usize = 4;

struct Rig {
    machine: Machine,
    bus: Arc<SerialBus>,
    requests: Arc<Requested>,
    io: Handle,
    dir: TempDir,
    _thread: Thread,
}

impl Rig {
    fn new() -> Rig {
        let (thread, io) = Thread::spawn("io-test").unwrap();
        let requests = Arc::new(Requested::default());
        let bus = SerialBus::new("serial".to_owned(), PORTS, requests.clone());
        let machine = Machine::new(Rig::device(&bus, &io));
        let dir = TempDir::new().unwrap();
        Rig { machine, bus, requests, io, dir, _thread: thread }
    }

    fn device(bus: &Arc<SerialBus>, io: &Handle) -> Box<dyn VirtioDevice> {
        Box::new(VirtioSerial::new("serial".to_owned(), bus.clone(), io.clone()))
    }

    /// A port with a socket, to which nobody is connected yet.
    fn plug(&self, number: u32, console: bool) -> Arc<Chardev> {
        let path = self.path(number);
        let device = format!("unix:{},server,nowait", path.display());
        let parsed = parse_device("-chardev", &device, true).unwrap();
        let Device::New { backend, .. } = parsed else { panic!("{device}") };
        let chardev = Chardev::open(&format!("c{number}"), backend, &self.io).unwrap();
        let plug = Plug {
            id: Some(format!("p{number}")),
            name: Some(format!("org.test.{number}")),
            console,
            chardev: Some(chardev.clone()),
        };
        self.bus.plug(number, plug).unwrap();
        chardev
    }

    /// Port 0 as a console that is a text screen.
    fn plug_screen(&self, cols: u64, rows: u64) -> Arc<Chardev> {
        let chardev = Chardev::open("c0", screen(cols, rows), &self.io).unwrap();
        let plug = Plug { id: None, name: None, console: true, chardev: Some(chardev.clone()) };
        self.bus.plug(0, plug).unwrap();
        // The loop has told it by now.
        self.io.call(|_| ()).unwrap();
        chardev
    }

    fn path(&self, number: u32) -> std::path::PathBuf {
        self.dir.as_path().join(number.to_string())
    }

    fn connect(&self, number: u32) -> UnixStream {
        let stream = UnixStream::connect(self.path(number)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// The driver with room for messages, which has said that it is ready.
    fn ready(&mut self) {
        self.ready_with(MULTIPORT);
    }

    fn ready_with(&mut self, features: u64) {
        self.machine.ready(features);
        for _ in 0..16 {
            self.machine.drivers[2].send(&[], &[64]);
        }
        self.say(0, 0, 1);
    }

    fn say(&mut self, port: u32, event: u16, value: u16) {
        let mut message = port.to_le_bytes().to_vec();
        message.extend(event.to_le_bytes());
        message.extend(value.to_le_bytes());
        self.machine.request(3, &[&message], &[]);
    }

    /// The next message of the device.
    fn hear(&mut self) -> Vec<u8> {
        self.machine.wait_used(2).data
    }

    fn expect(&mut self, port: u32, event: Event, value: u16) {
        assert_eq!(self.hear(), Message::new(port, event, value).bytes());
    }

    /// As a driver does for a port it has heard of: ready, open. Skips what it hears.
    fn open(&mut self, port: u32) {
        self.expect(port, Event::Add, 1);
        self.say(port, 3, 1);
        self.hear();
        self.say(port, 6, 1);
    }

    fn stop_and_start(&mut self) {
        self.machine.transport.stop();
        self.machine.transport.start();
    }

    fn rx(port: u32) -> usize {
        if port == 0 { 0 } else { port as usize * 2 + 2 }
    }
}

fn screen(cols: u64, rows: u64) -> Backend {
    Backend::Vc(Vc { cols: Some(cols), rows: Some(rows), ..Vc::default() })
}

#[test]
fn a_driver_that_wants_to_know_is_told_how_large_a_console_is() {
    let mut rig = Rig::new();
    let chardev = rig.plug_screen(100, 30);
    rig.plug(1, false);
    assert_eq!(rig.machine.config::<8>(0), [100, 0, 30, 0, 4, 0, 0, 0]);
    rig.ready_with(MULTIPORT | SIZE);
    rig.expect(0, Event::Add, 1);
    rig.expect(1, Event::Add, 1);
    rig.say(0, 3, 1);
    rig.expect(0, Event::Console, 1);
    rig.expect(0, Event::Open, 1);
    // Linux's order.
    assert_eq!(rig.hear(), [0, 0, 0, 0, 5, 0, 0, 0, 30, 0, 100, 0]);
    rig.machine.wires.sent.lock().clear();
    chardev.change(screen(300, 25), Patience::Brief).unwrap();
    assert_eq!(rig.hear(), [0, 0, 0, 0, 5, 0, 0, 0, 25, 0, 44, 1]);
    let wires = rig.machine.wires.clone();
    wires.wait(|| wires.sent.lock().contains(&0).then_some(()));
    assert_eq!(rig.machine.config::<4>(0), [44, 1, 25, 0]);
    // What it knows is not repeated.
    rig.stop_and_start();
    rig.plug(2, false);
    rig.expect(2, Event::Add, 1);
}

#[test]
fn a_driver_that_does_not_want_to_know_is_not_told() {
    let mut rig = Rig::new();
    rig.plug_screen(100, 30);
    rig.ready();
    rig.expect(0, Event::Add, 1);
    rig.say(0, 3, 1);
    rig.expect(0, Event::Console, 1);
    rig.expect(0, Event::Open, 1);
    rig.plug(1, false);
    rig.expect(1, Event::Add, 1);
}

#[test]
fn configuration_and_numbers() {
    let mut rig = Rig::new();
    assert_eq!(rig.machine.config::<12>(0), [0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(rig.machine.config::<2>(5), [0, 0]);
    assert_eq!(rig.bus.choose(None, false).unwrap(), 1);
    assert_eq!(rig.bus.choose(None, true).unwrap(), 0);
    rig.plug(1, false);
    assert_eq!(rig.bus.choose(None, false).unwrap(), 2);
    let error = |nr, console| rig.bus.choose(nr, console).unwrap_err().to_string();
    assert_eq!(error(Some(1), false), "virtio-serial-bus: A port already exists at id 1");
    assert_eq!(
        error(Some(4), true),
        "virtio-serial-bus: Out-of-range port id specified, max. allowed: 3"
    );
    assert!(error(Some(0), false).contains("reserved for virtconsole"));
    rig.plug(2, false);
    rig.plug(3, false);
    let full = "virtio-serial-bus: Maximum port limit for this device reached";
    assert_eq!(error(None, false), full);
}

#[test]
fn a_driver_is_told_of_ports_names_and_peers() {
    let mut rig = Rig::new();
    rig.plug(0, true);
    rig.plug(1, false);
    rig.ready();
    rig.expect(0, Event::Add, 1);
    rig.expect(1, Event::Add, 1);
    rig.say(0, 3, 1);
    rig.expect(0, Event::Console, 1);
    assert_eq!(rig.hear(), b"\0\0\0\0\x07\0\x01\0org.test.0\0");
    // A console is open though nobody is connected.
    rig.expect(0, Event::Open, 1);
    rig.say(1, 3, 1);
    assert_eq!(rig.hear()[..8], [1, 0, 0, 0, 7, 0, 1, 0]);
    let peer = rig.connect(1);
    rig.expect(1, Event::Open, 1);
    // That a peer goes is seen by reading, so somebody must.
    rig.say(1, 6, 1);
    drop(peer);
    rig.expect(1, Event::Open, 0);
    // A port that comes later, and goes.
    rig.plug(2, false);
    rig.expect(2, Event::Add, 1);
    rig.bus.unplug(2);
    rig.expect(2, Event::Remove, 1);
}

#[test]
fn clients_are_told_of_ports_that_programs_open() {
    let mut rig = Rig::new();
    rig.plug(1, false);
    rig.ready();
    rig.open(1);
    rig.machine.wires.wait(|| (!rig.requests.take().is_empty()).then_some(()));
    assert_eq!(rig.bus.take_changes().into_iter().collect::<Vec<_>>(), [("p1".to_owned(), true)]);
    rig.machine.write(crate::virtio::testing::common::STATUS, 1, 0);
    assert_eq!(rig.requests.take(), [Request::PortChanged]);
    assert_eq!(rig.bus.take_changes().into_iter().collect::<Vec<_>>(), [("p1".to_owned(), false)]);
}

#[test]
fn bytes_both_ways_across_stops() {
    let mut rig = Rig::new();
    rig.plug(1, false);
    let mut peer = rig.connect(1);
    rig.ready();
    rig.open(1);
    rig.machine.drivers[5].send(&[b"to the ", b"host"], &[]);
    let mut data = [0; 11];
    peer.read_exact(&mut data).unwrap();
    assert_eq!(&data, b"to the host");
    // Input waits for buffers, also while the machine stands.
    peer.write_all(b"to the guest").unwrap();
    rig.stop_and_start();
    rig.machine.drivers[Rig::rx(1)].send(&[], &[4]);
    assert_eq!(rig.machine.wait_used(Rig::rx(1)).data, b"to t");
    rig.stop_and_start();
    rig.machine.drivers[Rig::rx(1)].send(&[], &[100]);
    assert_eq!(rig.machine.wait_used(Rig::rx(1)).data, b"he guest");
}

#[test]
fn output_waits_for_the_peer_and_nothing_is_lost_or_repeated() {
    let mut rig = Rig::new();
    rig.plug(1, false);
    let mut peer = rig.connect(1);
    rig.ready();
    rig.open(1);
    let all: Vec<u8> = (0..900_000_u32).map(|i| (i / 3) as u8 ^ (i >> 11) as u8).collect();
    for part in all.chunks(300_000) {
        rig.machine.drivers[5].send(&[part], &[]);
    }
    let mut got = Vec::new();
    let mut piece = [0; 50_000];
    let mut round = 0;
    while got.len() < all.len() {
        // The peer takes a little, the machine is stopped and moved, and so on.
        let len = peer.read(&mut piece).unwrap();
        got.extend_from_slice(&piece[..len]);
        round += 1;
        if round % 3 == 0 {
            rig.stop_and_start();
        }
        if round % 7 == 0 {
            let state = rig.bus.slot(1).unwrap();
            rig.machine.transport.stop();
            let saved = state.save();
            state.reset();
            state.load(saved.clone()).unwrap();
            assert_eq!(state.save(), saved);
            let device = Rig::device(&rig.bus, &rig.io);
            // The same bus: what the new device does to it is what the old one has done.
            rig.machine = std::mem::replace(&mut rig.machine, Machine::stopped(device))
                .move_to(Rig::device(&rig.bus, &rig.io));
        }
    }
    assert!(got == all);
    for _ in 0..3 {
        rig.machine.wait_used(5);
    }
}

#[test]
fn without_multiport_there_is_one_port_that_is_open() {
    let mut rig = Rig::new();
    rig.plug(0, true);
    let mut peer = rig.connect(0);
    rig.machine.ready(0);
    rig.machine.drivers[1].send(&[b"hi"], &[]);
    let mut data = [0; 2];
    peer.read_exact(&mut data).unwrap();
    peer.write_all(b"ho").unwrap();
    rig.machine.drivers[0].send(&[], &[8]);
    assert_eq!(rig.machine.wait_used(0).data, b"ho");
    // An emergency needs no queue.
    rig.machine.transport.write_config(8, &[b'!', 0, 0, 0]);
    peer.read_exact(&mut data[..1]).unwrap();
    assert_eq!(data[0], b'!');
}

#[test]
fn a_port_that_goes_lets_go_of_what_waits() {
    let mut rig = Rig::new();
    let chardev = rig.plug(1, false);
    let _peer = rig.connect(1);
    rig.ready();
    rig.open(1);
    for _ in 0..3 {
        rig.machine.drivers[5].send(&[&[0x55; 400_000]], &[]);
    }
    rig.bus.unplug(1);
    for _ in 0..3 {
        rig.machine.wait_used(5);
    }
    assert!(!chardev.is_used());
}

#[test]
fn nonsense_is_survived() {
    let mut rig = Rig::new();
    rig.plug(1, false);
    rig.ready();
    rig.expect(1, Event::Add, 1);
    for event in 0..9 {
        for port in [0, 1, 3, 4, u32::MAX] {
            rig.say(port, event, 0);
            rig.say(port, event, 0xffff);
        }
    }
    rig.machine.request(3, &[b"short"], &[]);
    rig.machine.request(3, &[&[0xff; 5000]], &[8]);
    // A buffer for messages without room for one ends the queue, and the driver knows.
    rig.machine.write(crate::virtio::testing::common::STATUS, 1, 0);
    rig.machine.ready(MULTIPORT);
    rig.machine.drivers[2].send(&[], &[7]);
    rig.say(0, 0, 1);
    rig.machine.wait_needs_reset();
}

#[test]
fn hostile_state_is_refused() {
    let rig = Rig::new();
    rig.machine.transport.save().unwrap();
    let mut bad = Control::default();
    assert!(rig.bus.load(bad.clone()).is_ok());
    bad.push(Message::new(PORTS as u32, Event::Add, 1));
    assert!(rig.bus.load(bad).is_err());
}
