//! The interrupts of a device, and what its tasks can make its driver see.
//!
//! Any thread: the transport behind its function's mutex, and the tasks that serve queues without
//! it, by atomics and one leaf lock around the interrupt pin.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering};

use parking_lot::Mutex;
use resources::guest_error;
use vmm_sys_util::eventfd::EventFd;

use crate::virtio::port::Interrupts;

/// No message is sent (section 4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xffff;

/// The interrupt status (section 4.1.4.5): buffers were used; the configuration has changed.
pub(super) const ISR_QUEUE: u8 = 1;
pub(super) const ISR_CONFIG: u8 = 2;

/// How the bus under a transport interrupts. Any thread.
pub trait Wires: Send + Sync {
    /// Whether messages are used; the pin is not then.
    fn messages_on(&self) -> bool;
    /// How many messages there are.
    fn messages(&self) -> u16;
    /// Sends one.
    fn send(&self, vector: u16);
    /// The descriptor that sends one, if there is such a thing.
    fn fd(&self, vector: u16) -> Option<EventFd> {
        let _ = vector;
        None
    }
    /// Drives the pin.
    fn set_pin(&self, high: bool);
}

/// The interrupts of a device, and what its tasks can make its driver see.
pub struct Lines {
    pub(super) name: String,
    pub(super) wires: Arc<dyn Wires>,
    pub(super) config_vector: AtomicU16,
    pub(super) queue_vectors: Vec<AtomicU16>,
    /// The interrupt status register; the pin is driven under its lock.
    pub(super) isr: Mutex<u8>,
    pub(super) generation: AtomicU8,
    pub(super) needs_reset: AtomicBool,
    /// A driver is there to be told: DRIVER_OK.
    pub(super) ready: AtomicBool,
    /// The machine runs. What is to be told otherwise waits in `pending`.
    pub(super) running: AtomicBool,
    pub(super) pending: AtomicBool,
    /// Somebody has asked for the descriptors of interrupts.
    pub(super) lent: AtomicBool,
    /// How often the device had to ask for a reset.
    pub(super) errors: AtomicU64,
}

impl Lines {
    pub(super) fn new(name: &str, wires: Arc<dyn Wires>, queues: usize) -> Lines {
        Lines {
            name: name.to_owned(),
            wires,
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            isr: Mutex::new(0),
            generation: AtomicU8::new(0),
            needs_reset: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            running: AtomicBool::new(false),
            pending: AtomicBool::new(false),
            lent: AtomicBool::new(false),
            errors: AtomicU64::new(0),
        }
    }

    fn signal(&self, vector: &AtomicU16, bits: u8) {
        if self.wires.messages_on() {
            let vector = vector.load(Ordering::Relaxed);
            if vector != NO_VECTOR {
                self.wires.send(vector);
            }
            return;
        }
        let mut isr = self.isr.lock();
        *isr |= bits;
        self.wires.set_pin(true);
    }

    /// Reads the interrupt status, which lets go of the pin.
    pub fn take_isr(&self) -> u8 {
        let mut isr = self.isr.lock();
        self.wires.set_pin(false);
        std::mem::take(&mut *isr)
    }

    pub(super) fn config_interrupt(&self) {
        if !self.ready.load(Ordering::Acquire) {
            return;
        }
        // In this order either side sees what the other one did: whoever starts the machine looks
        // for what is pending after saying that it runs.
        self.pending.store(true, Ordering::SeqCst);
        self.tell_pending();
    }

    /// Tells of a change of the configuration that waits, if the machine runs.
    pub(super) fn tell_pending(&self) {
        if self.running.load(Ordering::SeqCst) && self.pending.swap(false, Ordering::SeqCst) {
            // The pin says for queues too, because some drivers look at these only then.
            self.signal(&self.config_vector, ISR_CONFIG | ISR_QUEUE);
        }
    }

    pub(super) fn reset(&self) {
        for vector in self.queue_vectors.iter().chain([&self.config_vector]) {
            vector.store(NO_VECTOR, Ordering::Relaxed);
        }
        self.ready.store(false, Ordering::Release);
        self.needs_reset.store(false, Ordering::Release);
        self.pending.store(false, Ordering::Release);
        self.take_isr();
    }

    /// How often the device had to ask its driver for a reset.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }
}

impl Interrupts for Lines {
    fn queue(&self, index: u16) {
        if let Some(vector) = self.queue_vectors.get(usize::from(index)) {
            self.signal(vector, ISR_QUEUE);
        }
    }

    fn queue_fd(&self, index: u16) -> Option<EventFd> {
        // First, so that a change of the vector after it was looked at is seen to matter.
        self.lent.store(true, Ordering::SeqCst);
        let vector = self.queue_vectors.get(usize::from(index))?.load(Ordering::SeqCst);
        self.wires.messages_on().then(|| self.wires.fd(vector)).flatten()
    }

    fn config_changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.config_interrupt();
    }

    fn needs_reset(&self, reason: &dyn fmt::Display) {
        if self.needs_reset.swap(true, Ordering::AcqRel) {
            return;
        }
        let number = self.errors.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        guest_error!(self.name, "the device needs a reset, for the {number}. time: {reason}");
        self.config_interrupt();
    }
}
