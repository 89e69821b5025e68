//! A queue on its way between its transport and the task that serves it, and the ways to
//! interrupt the driver.
//!
//! Thread: any. No lock here; the interrupts are signalled without the device's mutex. A hostile
//! guest can make a device signal as often as it completes requests, nothing accumulates.

use std::fmt;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::queue::Queue;

/// What a transport offers for signalling. Any thread may call; never blocks.
pub trait Interrupts: Send + Sync {
    /// Buffers of queue `index` were used.
    fn queue(&self, index: u16);
    /// What interrupts the driver for queue `index` when it is written to, if there is such a
    /// descriptor; then the device is stopped and started when another one takes its place.
    fn queue_fd(&self, index: u16) -> Option<EventFd> {
        let _ = index;
        None
    }
    /// The device's configuration has changed.
    fn config_changed(&self);
    /// The device cannot go on: sets DEVICE_NEEDS_RESET and says so to the driver and, once, to
    /// the log.
    fn needs_reset(&self, reason: &dyn fmt::Display);
}

/// The interrupt of one queue.
#[derive(Clone)]
pub struct QueueIrq {
    to: Arc<dyn Interrupts>,
    index: u16,
}

impl QueueIrq {
    /// The interrupt of queue `index`.
    pub fn new(to: Arc<dyn Interrupts>, index: u16) -> QueueIrq {
        QueueIrq { to, index }
    }

    /// Tells the driver that buffers were used. Ask [`Queue::needs_interrupt`] first.
    pub fn signal(&self) {
        self.to.queue(self.index);
    }

    /// The descriptor that does what [`signal`](Self::signal) does, if there is one, for others to
    /// write to until the device stops.
    pub fn fd(&self) -> Option<EventFd> {
        self.to.queue_fd(self.index)
    }
}

/// The interrupt for what concerns the device as a whole.
#[derive(Clone)]
pub struct ConfigIrq(Arc<dyn Interrupts>);

impl ConfigIrq {
    /// The one of this transport.
    pub fn new(to: Arc<dyn Interrupts>) -> ConfigIrq {
        ConfigIrq(to)
    }

    /// Tells the driver that the configuration has changed. While the machine is stopped it is
    /// told when that goes on.
    pub fn changed(&self) {
        self.0.config_changed();
    }

    /// Tells the driver that the device cannot go on before it is reset.
    pub fn needs_reset(&self, reason: &dyn fmt::Display) {
        self.0.needs_reset(reason);
    }
}

/// A queue with all that serving it takes. It goes to a task on an I/O loop when the device
/// starts and comes back when it stops.
pub struct Port {
    /// The queue's number.
    pub index: u16,
    /// The queue itself.
    pub queue: Queue,
    /// Signalled when the driver has made buffers available. Non-blocking.
    pub kick: Arc<EventFd>,
    /// To tell the driver that buffers were used.
    pub irq: QueueIrq,
}

impl Port {
    /// Interrupts the driver if it wants to know of what was pushed.
    pub fn signal(&mut self) {
        // A queue that has just broken has told the driver so.
        if self.queue.needs_interrupt().unwrap_or(false) {
            self.irq.signal();
        }
    }
}
