//! Virtio 1.x: one transport, one queue engine, many devices.
//!
//! | piece | file |
//! |---|---|
//! | what a device is to its transport | this one |
//! | taking requests from a ring and giving them back | `queue/` |
//! | a queue on its way to an I/O loop: kick, interrupt | `port.rs` |
//! | rings that the host's kernel serves | `vhost/` |
//! | disks | `blk/` |
//! | a task that serves queues on an I/O loop | `worker.rs` |
//! | status, features, queue registers, interrupts | `transport.rs` |
//! | virtio over PCI | `pci.rs` |
//!
//! A queue has one owner at a time. While the device runs, that is a task on an I/O loop, which
//! never locks the device; while it is stopped, the transport keeps the queue's position. Section
//! numbers in this module are those of "Virtual I/O Device (VIRTIO) Version 1.2".
//!
//! Thread: [`VirtioDevice`] is called by its transport, on a vCPU thread or the main thread,
//! behind the mutex of the function it is part of. What a hostile guest can reach: configuration
//! accesses of any offset and size, status changes at any time, and everything in the rings.

use std::sync::Arc;

use resources::device::LiveProp;
use resources::props::Value;
use resources::ram::GuestMemory;
use resources::state::{Blob, StateError};

pub mod balloon;
pub mod blk;
pub mod fuzz;
pub mod net;
pub mod pci;
pub mod port;
pub mod queue;
pub mod rng;
pub mod scsi;
pub mod serial;
#[cfg(test)]
#[expect(dead_code, reason = "the devices to be tested come one after the other")]
pub(crate) mod testing;
pub mod transport;
pub mod vhost;
pub mod vsock;
pub mod worker;

pub use port::{ConfigIrq, Interrupts, Port, QueueIrq};
pub use queue::{Broken, Chain, Queue, Reader, Short, Writer};
pub use worker::{Running, Worker};

/// Reads registers that are these bytes, from an offset on; what is past their end stays as it is.
fn copy_config(all: &[u8], offset: u32, data: &mut [u8]) {
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    data.iter_mut().zip(all.iter().skip(from)).for_each(|(to, from)| *to = *from);
}

/// Feature bits that belong to transport and rings rather than to a kind of device (section 6).
pub mod feature {
    /// VIRTIO_F_INDIRECT_DESC: descriptors may refer to tables of descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// VIRTIO_F_EVENT_IDX: each side names the index at which it wants to be told.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// VIRTIO_F_VERSION_1: the driver speaks virtio 1.0 or later.
    pub const VERSION_1: u64 = 1 << 32;
    /// VIRTIO_F_ACCESS_PLATFORM: DMA addresses are those of the platform.
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
    /// VIRTIO_F_RING_PACKED: the packed ring layout.
    pub const RING_PACKED: u64 = 1 << 34;
    /// VIRTIO_F_ORDER_PLATFORM: barriers are those of a real device.
    pub const ORDER_PLATFORM: u64 = 1 << 36;
}

/// What a device is, for its transport. The same for the whole life of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The virtio device id (section 5): 2 for a disk.
    pub id: u16,
    /// The features of this kind of device that are offered; those of [`feature`] are added by
    /// the transport.
    pub features: u64,
    /// The largest size of each queue, which is also what a driver finds there: a power of two
    /// up to 32768 each.
    pub queues: Vec<u16>,
    /// Bytes of the device's configuration that a driver can see.
    pub config_len: u32,
    /// The PCI class code (class and subclass), where the device is a PCI function.
    pub pci_class: u16,
}

/// What a device is given to run.
pub struct Activation {
    /// What the driver has accepted; a subset of what was offered.
    pub features: u64,
    /// Guest RAM, for devices that reach it by other ways than their queues.
    pub memory: Arc<GuestMemory>,
    /// The queues that the driver enabled, lowest index first. Queues may be missing.
    pub ports: Vec<Port>,
    /// To tell the driver of changed configuration.
    pub config: ConfigIrq,
}

/// A kind of virtio device. It knows neither PCI nor any other transport.
///
/// The transport guarantees: `start` and `stop` alternate, `start` comes first; `reset`, `save`,
/// `load` and `unplug` come while stopped. The configuration may be accessed at any time.
pub trait VirtioDevice: Send {
    /// What it is. Constant.
    fn spec(&self) -> Spec;
    /// Reads configuration; inside [`Spec::config_len`], of any alignment and size. `data`
    /// arrives zeroed.
    fn read_config(&mut self, _offset: u32, _data: &mut [u8]) {}
    /// Writes configuration; inside [`Spec::config_len`], of any alignment and size.
    fn write_config(&mut self, _offset: u32, _data: &[u8]) {}
    /// The driver has accepted these features (FEATURES_OK): the view of the configuration may
    /// depend on them.
    fn accepted(&mut self, _features: u64) {}
    /// The driver is ready, or the machine goes on with a driver that is. Hands the ports to
    /// tasks on I/O loops. Must not wait for a loop.
    ///
    /// # Errors
    /// When it cannot serve; the driver then sees a device that needs a reset.
    fn start(&mut self, run: Activation) -> Result<(), String>;
    /// Ends what `start` began: completes, or [puts back](Queue::put_back), what was taken from
    /// the queues, and returns all ports. May wait for the loops that serve them.
    fn stop(&mut self) -> Vec<Port>;
    /// Back to what it was before any driver. Only while stopped.
    fn reset(&mut self);
    /// The state that is the device's own, without queues and transport.
    ///
    /// # Errors
    /// When it cannot be encoded.
    fn save(&self) -> Result<Blob, StateError>;
    /// Takes over a saved state, which is not trusted.
    ///
    /// # Errors
    /// When the device can never be in that state.
    fn load(&mut self, blob: &Blob) -> Result<(), StateError>;
    /// The device is gone for the guest: release back ends.
    fn unplug(&mut self) {}
    /// Features of [`feature`] that the rings can have.
    fn ring_features(&self) -> u64 {
        u64::MAX
    }
    /// See [`Device::pinned`](resources::device::Device::pinned).
    fn pinned(&self) -> Option<String> {
        None
    }
    /// See [`Device::live_props`](resources::device::Device::live_props).
    fn live_props(&self) -> &'static [LiveProp] {
        &[]
    }
    /// See [`Device::live_value`](resources::device::Device::live_value).
    fn live_value(&self, _name: &str) -> Option<Value> {
        None
    }
    /// See [`Device::set_live`](resources::device::Device::set_live).
    ///
    /// # Errors
    /// Why the value is not taken.
    fn set_live(&mut self, name: &str, _value: &Value) -> Result<(), String> {
        Err(format!("'{name}' cannot be changed"))
    }
}
