//! The split ring (section 2.7): a table of descriptors, the driver's ring of available chains and
//! the device's ring of used ones.
//!
//! Called by [`Queue`](super::Queue) only. The indices are running counts modulo 2^16.

use std::sync::atomic::{Ordering, fence};

use resources::ram::GuestMemory;
use vm_memory::{AtomicAccess, Bytes, GuestAddress};

use super::chain::{Chain, Walk};
use super::{Broken, Layout, Position, Taken};

/// VIRTQ_AVAIL_F_NO_INTERRUPT.
const NO_INTERRUPT: u16 = 1;
/// VIRTQ_USED_F_NO_NOTIFY.
const NO_NOTIFY: u16 = 1;

/// Bytes of `flags` and `idx` before the entries of a ring.
const HEADER: u64 = 4;

pub(super) struct Split {
    layout: Layout,
    event_idx: bool,
    next_avail: u16,
    next_used: u16,
    /// `next_used` as the driver sees it.
    shown: u16,
    /// `shown` when the driver was last asked whether it wants an interrupt; `None`: never, so
    /// that after a restart one is sent in doubt.
    asked: Option<u16>,
}

impl Split {
    pub(super) fn new(layout: Layout, event_idx: bool, at: &Position) -> Split {
        let Position { next_avail, next_used, .. } = *at;
        Split { layout, event_idx, next_avail, next_used, shown: next_used, asked: None }
    }

    /// Address, size and alignment of each part.
    pub(super) fn areas(layout: &Layout) -> [(u64, usize, u64); 3] {
        let size = usize::from(layout.size);
        // With the event index at the end, which is there in any case (section 2.7.6).
        let ring = |entry: usize| size.saturating_mul(entry).saturating_add(6);
        [
            (layout.desc, size.saturating_mul(16), 16),
            (layout.driver, ring(2), 2),
            (layout.device, ring(8), 4),
        ]
    }

    pub(super) fn position(&self) -> Position {
        let Split { next_avail, next_used, .. } = *self;
        Position { next_avail, next_used, ..Position::default() }
    }

    /// Where entry `index` of a ring is whose entries have `entry` bytes.
    fn entry(&self, base: u64, index: u16, entry: u64) -> GuestAddress {
        let index = u64::from(index & self.layout.size.wrapping_sub(1));
        GuestAddress(base.wrapping_add(HEADER).wrapping_add(index.wrapping_mul(entry)))
    }

    /// The event index behind the entries of a ring.
    fn event(&self, base: u64, entry: u64) -> GuestAddress {
        let entries = u64::from(self.layout.size).wrapping_mul(entry);
        GuestAddress(base.wrapping_add(HEADER).wrapping_add(entries))
    }

    fn available(&self, memory: &GuestMemory) -> Result<u16, Broken> {
        let index: u16 = load(memory, GuestAddress(self.layout.driver.wrapping_add(2)))?;
        let ahead = index.wrapping_sub(self.next_avail);
        if ahead > self.layout.size {
            return Err(Broken::Index { available: index, taken: self.next_avail });
        }
        Ok(ahead)
    }

    pub(super) fn pop(&mut self, walk: &mut Walk, in_flight: u16) -> Result<Option<Taken>, Broken> {
        let memory = walk.memory();
        if self.available(memory)? == 0 {
            return Ok(None);
        }
        if in_flight >= self.layout.size {
            return Err(Broken::Overrun);
        }
        let head: u16 = load(memory, self.entry(self.layout.driver, self.next_avail, 2))?;
        walk.chain(self.layout.desc, u32::from(self.layout.size), head)?;
        self.next_avail = self.next_avail.wrapping_add(1);
        Ok(Some(Taken { id: head, slots: 1 }))
    }

    pub(super) fn add(
        &mut self,
        memory: &GuestMemory,
        chain: &Chain,
        written: u32,
    ) -> Result<(), Broken> {
        let address = self.entry(self.layout.device, self.next_used, 8);
        let element = u64::from(written) << 32 | u64::from(chain.id());
        self.next_used = self.next_used.wrapping_add(1);
        memory.write_slice(&element.to_le_bytes(), address).map_err(|_| Broken::Ring(address.0))
    }

    pub(super) fn publish(&mut self, memory: &GuestMemory) -> Result<(), Broken> {
        self.shown = self.next_used;
        store(memory, GuestAddress(self.layout.device.wrapping_add(2)), self.shown)
    }

    pub(super) fn needs_interrupt(&mut self, memory: &GuestMemory) -> Result<bool, Broken> {
        // The driver enables interrupts, then looks for used buffers; here it is the other way
        // round. Without a full barrier both could miss the other's step.
        fence(Ordering::SeqCst);
        let before = self.asked.replace(self.shown);
        if before == Some(self.shown) {
            return Ok(false);
        }
        if !self.event_idx {
            let flags: u16 = load(memory, GuestAddress(self.layout.driver))?;
            return Ok(flags & NO_INTERRUPT == 0);
        }
        let Some(before) = before else { return Ok(true) };
        let event: u16 = load(memory, self.event(self.layout.driver, 2))?;
        Ok(passed(event, before, self.shown))
    }

    /// Says whether kicks are wanted; if so, whether chains are there already.
    pub(super) fn notify_me(&mut self, memory: &GuestMemory, wanted: bool) -> Result<bool, Broken> {
        if !self.event_idx {
            let flags = if wanted { 0 } else { NO_NOTIFY };
            store(memory, GuestAddress(self.layout.device), flags)?;
        } else if wanted {
            store(memory, self.event(self.layout.device, 8), self.next_avail)?;
        }
        if !wanted {
            return Ok(false);
        }
        fence(Ordering::SeqCst);
        Ok(self.available(memory)? != 0)
    }
}

/// Whether the step from `before` to `now` went past `event` (section 2.7.7.2).
pub(super) fn passed(event: u16, before: u16, now: u16) -> bool {
    now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before)
}

/// Reads a field of a ring that the driver may be writing.
pub(super) fn load<T: AtomicAccess>(
    memory: &GuestMemory,
    address: GuestAddress,
) -> Result<T, Broken> {
    memory.load(address, Ordering::Acquire).map_err(|_| Broken::Ring(address.0))
}

/// Writes a field of a ring after everything that was written before.
pub(super) fn store<T: AtomicAccess>(
    memory: &GuestMemory,
    address: GuestAddress,
    value: T,
) -> Result<(), Broken> {
    memory.store(value, address, Ordering::Release).map_err(|_| Broken::Ring(address.0))
}
