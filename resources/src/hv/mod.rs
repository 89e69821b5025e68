//! What the board needs of a hypervisor, and the two that give it: [`kvm`] and the recording
//! [`fake`] of tests and of the debug port.
//!
//! The calls come from any thread that changes an address space or an interrupt; implementations
//! are called with the lock of a space, a wire or the route table held and call nobody back.
//! vCPUs are not part of this: the machine creates them on the KVM file itself.

use std::ops::Range;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::irq::MsiMessage;
use crate::ram::RamBlock;

pub mod fake;
pub mod kvm;

/// A request that the hypervisor refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}")]
pub struct HvError {
    what: String,
    source: std::io::Error,
}

impl HvError {
    /// An error of the request `what`, such as "register an irqfd".
    pub fn new(what: impl Into<String>, source: impl Into<std::io::Error>) -> HvError {
        HvError { what: what.into(), source: source.into() }
    }
}

/// A range of guest-physical memory that the guest accesses without an exit.
#[derive(Clone)]
pub struct Slot {
    /// The slot's number, from 0.
    pub id: u32,
    /// Guest-physical address; page-aligned.
    pub guest: u64,
    /// Size in bytes, a multiple of the page size; 0 deletes the slot.
    pub size: u64,
    /// What backs it.
    pub ram: Arc<RamBlock>,
    /// Where in `ram` the slot begins; page-aligned.
    pub offset: u64,
    /// Writes exit instead of changing memory.
    pub readonly: bool,
    /// Writes are recorded in the dirty log.
    pub log: bool,
}

/// Which of the two address spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SpaceKind {
    /// Guest-physical memory.
    Memory,
    /// The 64 KiB of I/O ports.
    Ports,
}

/// A guest write that signals an eventfd instead of exiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doorbell {
    /// The address space.
    pub space: SpaceKind,
    /// The absolute address.
    pub address: u64,
    /// Width of the write in bytes: 1, 2, 4 or 8; 0 takes any width.
    pub width: u8,
    /// Only writes of this value count; all, if `None`.
    pub value: Option<u64>,
}

/// An entry of the GSI routing table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The interrupt number.
    pub gsi: u32,
    /// The message it sends.
    pub message: MsiMessage,
}

/// What KVM does for the board.
pub trait Hypervisor: Send + Sync {
    /// Creates, changes (flags only) or deletes a memory slot.
    fn set_slot(&self, slot: &Slot) -> Result<(), HvError>;
    /// Binds or unbinds an eventfd to a guest write.
    fn doorbell(&self, at: &Doorbell, fd: &EventFd, on: bool) -> Result<(), HvError>;
    /// Binds or unbinds an eventfd to an interrupt; `resample` makes it level-triggered.
    fn irqfd(
        &self,
        gsi: u32,
        fd: &EventFd,
        resample: Option<&EventFd>,
        on: bool,
    ) -> Result<(), HvError>;
    /// Replaces all message routes; those of the wired interrupts stay.
    fn set_routes(&self, all: &[Route]) -> Result<(), HvError>;
    /// Sets the level of a wired interrupt.
    fn set_line(&self, gsi: u32, high: bool) -> Result<(), HvError>;
    /// Takes the dirty log of a slot: ORs one bit for each page written since the last time,
    /// lowest first, into `into`. What is written to these pages afterwards may be noted only
    /// after [`watch`](Self::watch).
    fn take_dirty(&self, slot: u32, into: &mut [u64]) -> Result<(), HvError>;
    /// From now on writes to these pages of a slot are noted again, whose log was taken: before
    /// one of them is read. It may be so for others too.
    fn watch(&self, _slot: u32, _pages: Range<u64>) -> Result<(), HvError> {
        Ok(())
    }
    /// A vCPU cannot go on, because its log is full: makes room.
    fn log_full(&self) -> Result<(), HvError> {
        Ok(())
    }
}

/// Adds the result of one step of several to that of all, which is the first error; returns
/// whether the step succeeded.
pub(crate) fn step<E>(all: &mut Result<(), E>, one: Result<(), E>) -> bool {
    let ok = one.is_ok();
    if all.is_ok() {
        *all = one;
    }
    ok
}
