//! The network card virtio-net (virtio 1.x, section 5.1).
//!
//! | piece | file |
//! |---|---|
//! | properties and what is offered | `settings.rs`, `features.rs` |
//! | what device, queues and commands share | `card.rs` |
//! | the task that serves it, and its control queue | `serve.rs`, `control.rs` |
//! | pairs of queues that the kernel serves, for a tap with vhost | `lent.rs` |
//! | frames from the guest | `transmit.rs`, `outgoing.rs` |
//! | frames to the guest, and which it wants | `receive.rs`, `filter.rs` |
//! | the header of a frame | `header.rs` |
//! | checksums and segmentation for back ends that know neither | `offload.rs` |
//!
//! Back ends that take a header, a tap, checksum and cut frames themselves; for the others the
//! guest is offered the same and the device does it. Neither direction queues more than one frame:
//! a back end that takes no more keeps the guest's frames in its ring, a guest without buffers
//! keeps the others in the back end. Stopping and saving lose none.
//!
//! Threads: the device on vCPU threads and the main thread behind its transport's mutex; all
//! queues on one I/O loop, without it. Lock: the card's, a leaf. A hostile guest reaches the
//! control queue, whose commands are bounded, the headers of its frames, and both kinds of ring;
//! a peer reaches the guest through the filter with frames of checked length.

mod card;
pub mod control;
pub mod features;
pub mod filter;
pub mod header;
mod lent;
pub mod offload;
pub mod outgoing;
mod receive;
mod serve;
mod settings;
mod transmit;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use resources::class::{Class, CreateError};
use resources::iol::Handle;
use resources::props::{Props, Value};
use resources::space::DirtyLog;
use resources::state::{Blob, StateError, invalid};

use crate::class::Ctx;
use crate::net::{Cable, MAX_FRAME, Mac, NicSpec};
use crate::virtio::vhost::{self, Record};
use crate::virtio::{self, Activation, Port, Running, Spec, VirtioDevice};
use card::{ANNOUNCEMENTS, Card, State};
use features::Features;
use header::HEADER_LEN;
use serve::Serve;
use settings::{MAX_PAIRS, Settings};

pub use settings::PROPS;

/// The virtio device id.
const ID: u16 = 1;
/// The PCI class code of an Ethernet controller.
const PCI_CLASS: u16 = 0x200;
/// Bytes of configuration: address, status, pairs of queues, MTU; and where they are told, speed
/// and duplex mode.
const CONFIG_LEN: u32 = 12;
const CONFIG_LEN_SPEED: u32 = 17;
/// Entries of the control queue.
const CONTROL_SIZE: u16 = 64;
const VERSION: u16 = 1;

/// The configuration's status bit for a link that is up.
const LINK_UP: u16 = 1;
/// The configuration's status bit that asks for an announcement.
const ANNOUNCE: u16 = 2;

/// The device. Its transport owns it.
pub struct VirtioNet {
    card: Arc<Card>,
    cable: Option<Arc<Cable>>,
    /// The address that it was made with.
    mac: Mac,
    settings: Settings,
    offered: Features,
    pairs: u16,
    /// What the rings can have: less, where the kernel is to serve them.
    ring_features: u64,
    io: Handle,
    running: Option<Running>,
    /// Of what the kernel writes to guest RAM.
    record: Option<Arc<dyn DirtyLog>>,
    /// What the driver accepted, of effect.
    accepted: Features,
    /// The driver is to announce its addresses when it goes on.
    moved: bool,
}

impl VirtioNet {
    /// `-device virtio-net-pci`.
    pub const CLASS: Class<Ctx> = Class {
        name: "virtio-net-pci",
        aliases: &["virtio-net"],
        bus: "PCI",
        description: "Network card",
        props: PROPS,
        base: virtio::pci::PROPS,
        create: Some(|props, ctx| {
            let path = ctx.next_path(props);
            let device = VirtioNet::new(props, ctx, path)?;
            virtio::pci::plug(ctx, props, Box::new(device))
        }),
    };

    /// Plugs a card in, as its properties say. `path`: its place in the tree of objects.
    ///
    /// # Errors
    /// A property is wrong; the back end has another card.
    pub fn new(props: &mut Props, ctx: &mut Ctx, path: String) -> Result<VirtioNet, CreateError> {
        let settings = Settings::new(props)?;
        let mac = settings::mac(props)?;
        let netdev = ctx.netdev(props, "netdev")?;
        let card = Card::new(path, ctx.host.requests.clone());
        let spec =
            NicSpec { id: props.id(), model: props.class(), mac, netdev, front: card.clone() };
        let cable = ctx.host.network.plug(spec);
        let cable = cable.map_err(|error| CreateError::Other(error.to_string()))?;
        let mac = cable.nic().mac();
        props.fill("mac", Value::Text(mac.to_string()));
        let record = Record::new(cable.vhosts(), ctx.ram.clone());
        let mut device = VirtioNet::on(card, cable, mac, settings, ctx.host.io.clone());
        let record: Arc<dyn DirtyLog> = Arc::new(record);
        ctx.memory.add_log(&record)?;
        device.record = Some(record);
        Ok(device)
    }

    fn on(card: Arc<Card>, cable: Cable, mac: Mac, settings: Settings, io: Handle) -> VirtioNet {
        let mut offered = settings.offered(&cable);
        let queues = cable.queues().unwrap_or(1).clamp(1, MAX_PAIRS);
        let pairs = if offered.contains(Features::MQ) { queues } else { 1 };
        offered.set(Features::MQ, pairs > 1);
        let vhost = cable.vhost().and_then(|vhost| vhost::ring_features(&vhost).ok());
        card.with(|state| *state = State::new(mac));
        VirtioNet {
            card,
            cable: Some(Arc::new(cable)),
            mac,
            settings,
            offered,
            pairs,
            ring_features: vhost.unwrap_or(u64::MAX),
            io,
            running: None,
            record: None,
            accepted: Features::empty(),
            moved: false,
        }
    }

    fn config(&self) -> [u8; 17] {
        let [m0, m1, m2, m3, m4, m5] = self.card.with(|state| state.filter.mac);
        let up = self.cable.as_ref().is_some_and(|cable| cable.link_up());
        let announce = self.accepted.contains(Features::GUEST_ANNOUNCE)
            && self.card.with(|state| state.announcements > 0);
        let status = if up { LINK_UP } else { 0 } | if announce { ANNOUNCE } else { 0 };
        let [s0, s1] = status.to_le_bytes();
        let [p0, p1] = self.pairs.to_le_bytes();
        let [t0, t1] = self.settings.mtu.to_le_bytes();
        let [v0, v1, v2, v3] = self.settings.speed.to_le_bytes();
        let duplex = self.settings.duplex;
        [m0, m1, m2, m3, m4, m5, s0, s1, p0, p1, t0, t1, v0, v1, v2, v3, duplex]
    }
}

impl VirtioDevice for VirtioNet {
    fn spec(&self) -> Spec {
        let pair = [self.settings.rx_size, self.settings.tx_size];
        let mut queues = pair.repeat(self.pairs.into());
        if self.offered.contains(Features::CTRL_VQ) {
            queues.push(CONTROL_SIZE);
        }
        let speed = self.offered.contains(Features::SPEED_DUPLEX);
        Spec {
            id: ID,
            features: self.offered.bits(),
            queues,
            config_len: if speed { CONFIG_LEN_SPEED } else { CONFIG_LEN },
            pci_class: PCI_CLASS,
        }
    }

    fn ring_features(&self) -> u64 {
        self.ring_features
    }

    fn pinned(&self) -> Option<String> {
        let vhosts = self.cable.as_ref().map(|cable| cable.vhosts()).unwrap_or_default();
        let why = "virtio-net: the kernel does not record its writes to guest RAM; use vhost=off";
        (!vhosts.iter().all(|vhost| vhost::can_log(vhost))).then(|| why.to_owned())
    }

    fn read_config(&mut self, offset: u32, data: &mut [u8]) {
        virtio::copy_config(&self.config(), offset, data);
    }

    fn accepted(&mut self, features: u64) {
        self.accepted = Features::from_bits_truncate(features).effective();
    }

    fn start(&mut self, run: Activation) -> Result<(), String> {
        let Some(cable) = self.cable.clone() else { return Err("it is unplugged".to_owned()) };
        self.accepted(run.features);
        let features = self.accepted;
        let moved = std::mem::take(&mut self.moved);
        if moved {
            self.card.has_come();
        }
        self.card.with(|state| {
            let filters = features.contains(Features::CTRL_VLAN);
            if filters == state.filter.vlans.is_empty() {
                state.filter.filter_vlans(filters);
            }
            if moved && features.contains(Features::GUEST_ANNOUNCE) {
                state.announcements = ANNOUNCEMENTS;
            }
        });
        self.card.set_driver(Some((features, run.config.clone())));
        let (card, config) = (self.card.clone(), run.config);
        let serve = Serve { card, cable, features, pairs: self.pairs, config };
        self.running = Some(Running::start(&self.io, run.ports, |workers| serve.run(workers)));
        Ok(())
    }

    fn stop(&mut self) -> Vec<Port> {
        self.running.take().map(Running::stop).unwrap_or_default()
    }

    fn reset(&mut self) {
        self.card.set_driver(None);
        self.accepted = Features::empty();
        self.moved = false;
        self.card.with(|state| *state = State::new(self.mac));
        if let Some(cable) = &self.cable {
            cable.nic().set_mac(self.mac);
        }
    }

    fn save(&self) -> Result<Blob, StateError> {
        let link = self.cable.as_ref().map(|cable| cable.link_up());
        Blob::new(VERSION, &self.card.with(|state| State { link, ..state.clone() }))
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        let mut state: State = blob.parse(VERSION, &[])?;
        state.filter.check()?;
        if !(1..=self.pairs).contains(&state.pairs) {
            return Err(invalid(format!("{} of {} pairs of queues", state.pairs, self.pairs)));
        }
        if state.waiting.len() > usize::from(self.pairs) {
            return Err(invalid("frames wait at queues that there are not"));
        }
        for waiting in &state.waiting {
            if waiting.received.len() > HEADER_LEN.saturating_add(MAX_FRAME) {
                return Err(invalid("a received frame is too long"));
            }
            waiting.outgoing.as_ref().map_or(Ok(()), |outgoing| outgoing.check())?;
        }
        if let Some(cable) = &self.cable {
            cable.nic().set_mac(Mac(state.filter.mac));
            if let Some(up) = state.link.take() {
                cable.nic().load_link(up);
            }
        }
        self.card.with(|now| *now = state);
        self.moved = true;
        Ok(())
    }

    fn unplug(&mut self) {
        self.card.set_driver(None);
        (self.cable, self.record) = (None, None);
    }
}
