//! The card between the driver's side of its queues and the far end of its back end.

mod commands;
mod frames;
mod hostile;
mod life;
mod moved;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use resources::iol::Thread;
use resources::props::{Overrides, Props};
use resources::request::Request;

use super::header::Header;
use super::*;
use crate::net::testing::{Far, pair};
use crate::net::{Caps, Network, Offloads};
use crate::testing::Requested;
use crate::virtio::testing::{self, Driver, Signals, Used};

/// Everything that a tap does.
const TAP: Caps = Caps { header: true, offloads: Offloads::all() };
/// A back end of plain frames.
const PLAIN: Caps = Caps { header: false, offloads: Offloads::empty() };

/// A card and what is around it.
struct Card {
    device: VirtioNet,
    network: Arc<Network>,
    far: Far,
    requests: Arc<Requested>,
    thread: Thread,
}

fn card(caps: Caps, given: &[(&str, &str)]) -> Card {
    let given = given.iter().copied();
    let props = Props::parse("virtio-net-pci", PROPS.iter(), &Overrides::default(), given);
    let settings = Settings::new(&props.unwrap()).unwrap();
    let (thread, on) = Thread::spawn("io-test").unwrap();
    let network = Network::new();
    let (netdev, far) = pair("net0", 2, caps);
    network.add(netdev.clone()).unwrap();
    let requests = Arc::new(Requested::default());
    let front = super::Card::new("/machine/n".to_owned(), requests.clone());
    let spec = NicSpec {
        id: Some("n"),
        model: "virtio-net-pci",
        mac: None,
        netdev: Some(netdev),
        front: front.clone(),
    };
    let cable = network.plug(spec).unwrap();
    let mac = cable.nic().mac();
    let device = VirtioNet::on(front, cable, mac, settings, on);
    Card { device, network, far, requests, thread }
}

struct Rig {
    device: VirtioNet,
    network: Arc<Network>,
    far: Far,
    requests: Arc<Requested>,
    signals: Arc<Signals>,
    features: Features,
    /// By index: receive, transmit, ..., control.
    drivers: Vec<Driver>,
    _thread: Thread,
}

impl Rig {
    /// A card with an address of its own on a back end of two queues, of which no driver knows.
    fn new(caps: Caps, given: &[(&str, &str)]) -> Rig {
        let Card { device, network, far, requests, thread } = card(caps, given);
        let (signals, features) = (Arc::default(), Features::empty());
        let drivers = Vec::new();
        Rig { device, network, far, requests, signals, features, drivers, _thread: thread }
    }

    /// As [`new`](Self::new), used by a driver that accepts everything but `without`.
    fn started(caps: Caps, given: &[(&str, &str)], without: Features) -> Rig {
        let mut rig = Rig::new(caps, given);
        rig.features = Features::from_bits_retain(rig.device.spec().features).difference(without);
        let memory = testing::memory();
        let queues = rig.device.spec().queues;
        rig.drivers = (0..)
            .zip(queues)
            .map(|(index, size)| {
                Driver::beside(memory.clone(), rig.signals.clone(), index, size, rig.bits())
            })
            .collect();
        let bits = rig.bits();
        testing::start(&mut rig.device, &rig.drivers, bits);
        rig
    }

    fn bits(&self) -> u64 {
        self.features.bits() | crate::virtio::feature::VERSION_1
    }

    fn restart(&mut self, ports: Vec<Port>) {
        let (ports, bits) = (testing::renew(ports, &self.drivers), self.bits());
        testing::restart(&mut self.device, &self.drivers, bits, ports);
    }

    fn rx(&mut self) -> &mut Driver {
        &mut self.drivers[0]
    }

    fn tx(&mut self) -> &mut Driver {
        &mut self.drivers[1]
    }

    /// Sends a frame as the driver.
    fn send(&mut self, header: Header, frame: &[u8]) {
        self.tx().send(&[&header.to_bytes(), frame], &[]);
    }

    /// Takes the frame that came to the far end.
    fn far_recv(&self) -> Vec<u8> {
        self.signals.wait(|| self.far.recv(0))
    }

    /// Waits for the next received frame, in one buffer: its header and itself.
    fn receive(&mut self) -> (Header, Vec<u8>) {
        let Used { data, .. } = self.rx().wait_used();
        let (header, frame) = data.split_first_chunk().unwrap();
        (Header::parse(header), frame.to_vec())
    }

    /// Has the device obey a command.
    fn command(&mut self, bytes: &[u8]) -> u8 {
        let control = self.drivers.last_mut().unwrap();
        match bytes.split_at(2) {
            (bytes, []) => control.send(&[bytes], &[1]),
            (head, data) => control.send(&[head, data], &[1]),
        };
        control.wait_used().data[0]
    }

    fn config(&mut self) -> [u8; 12] {
        let mut config = [0; 12];
        self.device.read_config(0, &mut config);
        config
    }

    /// Waits until the device has looked at everything that came before.
    fn settle(&mut self) {
        let answer = self.command(&[0, 0, 1]);
        assert_eq!(answer, control::OK);
    }
}

/// A frame to a station.
fn frame(to: [u8; 6], length: usize) -> Vec<u8> {
    let mut frame = to.to_vec();
    frame.extend([2, 0, 0, 0, 0, 9, 0x88, 0xb5]);
    frame.extend((frame.len()..length).map(|n| n as u8));
    frame
}

const OWN: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn plain() -> Header {
    Header::default()
}
