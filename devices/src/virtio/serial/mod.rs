//! The serial device virtio-serial (virtio 1.x, section 5.3, "Console Device"): a bus of ports,
//! consoles and streams, each with a chardev.
//!
//! | piece | file |
//! |---|---|
//! | the device with its queues | this one |
//! | the ports' devices virtconsole and virtserialport | `port.rs` |
//! | what they share, and the conversation with the driver | `bus.rs`, `control.rs` |
//! | bytes between a chardev and the guest | `slot.rs` |
//! | the tasks that serve the queues | `serve.rs` |
//!
//! Nothing is queued without bound: a chardev that takes no more leaves the guest's bytes in the
//! guest's buffers, a guest without buffers leaves the peer's with the peer but for a few
//! kilobytes, which are saved. Stopping and saving lose none and repeat none.
//!
//! Threads: the device on vCPU threads and the main thread behind its transport's mutex; queues on
//! the I/O loop and chardevs on theirs, without it. Locks: those of `bus.rs`. A hostile guest
//! reaches the control messages, which are bounded and checked, and all rings.

mod bus;
mod control;
mod port;
mod serve;
mod slot;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use resources::class::{Class, CreateError};
use resources::iol::Handle;
use resources::props::{Kind, Prop, Value};
use resources::state::{Blob, StateError};

use crate::class::{AtOnce, Ctx, NewBus, Seat};
use crate::virtio::{self, Activation, Port, Running, Spec, VirtioDevice};

pub use bus::SerialBus;
pub use port::SerialPort;

/// The virtio device id.
const ID: u16 = 3;
/// The PCI class code of a communication controller of no particular kind.
const PCI_CLASS: u16 = 0x780;
/// Bytes of configuration: columns, rows, ports, the byte of an emergency.
const CONFIG_LEN: u32 = 12;
/// Where the configuration has the byte of an emergency.
const CONFIG_EMERGENCY: u32 = 8;
/// Entries of the queues of ports and of control.
const DATA_SIZE: u16 = 128;
const CONTROL_SIZE: u16 = 32;
/// The most ports: two queues for each, and two of control, in 1024.
const MAX_PORTS: u32 = 511;
const VERSION: u16 = 1;

/// VIRTIO_CONSOLE_F_SIZE.
const SIZE: u64 = 1 << 0;
/// VIRTIO_CONSOLE_F_MULTIPORT.
const MULTIPORT: u64 = 1 << 1;
/// VIRTIO_CONSOLE_F_EMERG_WRITE.
const EMERG_WRITE: u64 = 1 << 2;

/// The device. Its transport owns it.
pub struct VirtioSerial {
    path: String,
    bus: Arc<SerialBus>,
    io: Handle,
    /// The guest can be told how large consoles are.
    sizes: bool,
    running: Option<Running>,
}

impl VirtioSerial {
    /// `-device virtio-serial-pci`.
    pub const CLASS: Class<Ctx> = Class {
        name: "virtio-serial-pci",
        aliases: &["virtio-serial"],
        bus: "PCI",
        description: "Bus of virtio serial ports",
        props: &[
            Prop {
                name: "max_ports",
                kind: Kind::U32(1, MAX_PORTS),
                default: Some("31"),
                help: "the most ports",
            },
            Prop {
                name: "console-size",
                kind: Kind::Bool,
                default: Some("on"),
                help: "tell the guest how large the terminals of consoles are",
            },
        ],
        base: virtio::pci::PROPS,
        create: Some(|props, ctx| {
            let path = ctx.next_path(props);
            let ports = usize::try_from(props.get::<u32>("max_ports")?).unwrap_or(1);
            let bus = SerialBus::new(path.clone(), ports, ctx.host.requests.clone());
            let mut device = VirtioSerial::new(path, bus.clone(), ctx.host.io.clone());
            device.sizes = props.get("console-size")?;
            let name = props.id().map(|id| format!("{id}.0")).unwrap_or_default();
            // A message for each of 64 queues would be set up at each boot, for a few bytes a
            // second.
            props.fill("vectors", Value::Uint(2));
            let made = virtio::pci::plug(ctx, props, Box::new(device))?;
            ctx.new_buses.push(NewBus {
                name,
                kind: bus::KIND,
                seat: Seat::VirtioSerial(bus),
                room: usize::MAX,
                hotplug: Some(Box::new(AtOnce)),
            });
            Ok(made)
        }),
    };

    fn new(path: String, bus: Arc<SerialBus>, io: Handle) -> VirtioSerial {
        VirtioSerial { path, bus, io, sizes: true, running: None }
    }
}

impl VirtioDevice for VirtioSerial {
    fn spec(&self) -> Spec {
        let mut queues = vec![DATA_SIZE; 2];
        let more = self.bus.len().saturating_sub(1);
        if more > 0 {
            queues.extend([CONTROL_SIZE; 2]);
            queues.extend([DATA_SIZE; 2].repeat(more));
        }
        let multiport = if more > 0 { MULTIPORT } else { 0 };
        Spec {
            id: ID,
            features: multiport | EMERG_WRITE | if self.sizes { SIZE } else { 0 },
            queues,
            config_len: CONFIG_LEN,
            pci_class: PCI_CLASS,
        }
    }

    fn read_config(&mut self, offset: u32, data: &mut [u8]) {
        let (cols, rows) = if self.sizes { self.bus.size() } else { (0, 0) };
        let ports = u32::try_from(self.bus.len()).unwrap_or(MAX_PORTS);
        let [c0, c1] = cols.to_le_bytes();
        let [r0, r1] = rows.to_le_bytes();
        let [p0, p1, p2, p3] = ports.to_le_bytes();
        let all = [c0, c1, r0, r1, p0, p1, p2, p3];
        virtio::copy_config(&all, offset, data);
    }

    fn write_config(&mut self, offset: u32, data: &[u8]) {
        if let (CONFIG_EMERGENCY, Some(byte)) = (offset, data.first()) {
            self.bus.emergency(*byte);
        }
    }

    fn start(&mut self, run: Activation) -> Result<(), String> {
        let sizes = (run.features & SIZE != 0).then_some(run.config);
        self.bus.start(run.features & MULTIPORT != 0, sizes);
        let (bus, path) = (self.bus.clone(), self.path.clone());
        let serve = |workers| serve::serve(bus, path, workers);
        self.running = Some(Running::start(&self.io, run.ports, serve));
        Ok(())
    }

    fn stop(&mut self) -> Vec<Port> {
        // In this order no input comes after the queues have stopped.
        self.bus.stop();
        self.running.take().map(Running::stop).unwrap_or_default()
    }

    fn reset(&mut self) {
        self.bus.reset();
    }

    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(VERSION, &self.bus.save())
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        self.bus.load(blob.parse(VERSION, &[])?)
    }
}

/// Makes one of the ports: see [`SerialPort`].
fn seat(ctx: &Ctx) -> Result<Arc<SerialBus>, CreateError> {
    match &ctx.seat {
        Seat::VirtioSerial(bus) => Ok(bus.clone()),
        _ => Err(CreateError::Other("it needs a virtio-serial bus".to_owned())),
    }
}
