//! The packed ring (section 2.8): one ring of descriptors, in which the device overwrites what it
//! has taken by what it gives back, and an area for each side's wishes.
//!
//! Called by [`Queue`](super::Queue) only. Positions are slots and a wrap counter, which turns
//! over with each lap.

use std::sync::atomic::{Ordering, fence};

use resources::ram::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use super::chain::{Chain, DESCRIPTOR, Descriptor, INDIRECT, NEXT, WRITE, Walk};
use super::split::{load, passed, store};
use super::{Broken, Layout, Position, Taken};

/// VIRTQ_DESC_F_AVAIL and VIRTQ_DESC_F_USED.
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// What a side wishes (section 2.8.14): to be told of everything, of nothing, of one descriptor.
const ENABLE: u16 = 0;
const DISABLE: u16 = 1;
const DESC: u16 = 2;

/// In a wish: the lap of the descriptor.
const WRAP: u16 = 1 << 15;

/// A slot in a lap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    slot: u16,
    wrap: bool,
}

impl Place {
    fn advance(&mut self, by: u16, size: u16) {
        let next = u32::from(self.slot).saturating_add(by.into());
        let next = match next.checked_sub(size.into()) {
            Some(next) => {
                self.wrap = !self.wrap;
                next
            }
            None => next,
        };
        self.slot = u16::try_from(next).unwrap_or(0);
    }
}

pub(super) struct Packed {
    layout: Layout,
    event_idx: bool,
    avail: Place,
    used: Place,
    /// The flags of the first descriptor that was added and is not yet published. The driver looks
    /// at no later one before it has seen this one.
    first: Option<(u16, u16)>,
    /// `used` when the driver was last asked whether it wants an interrupt; `None`: never.
    asked: Option<Place>,
}

impl Packed {
    pub(super) fn new(layout: Layout, event_idx: bool, at: &Position) -> Packed {
        let avail = Place { slot: at.next_avail, wrap: !at.avail_flipped };
        let used = Place { slot: at.next_used, wrap: !at.used_flipped };
        Packed { layout, event_idx, avail, used, first: None, asked: None }
    }

    /// Address, size and alignment of each part.
    pub(super) fn areas(layout: &Layout) -> [(u64, usize, u64); 3] {
        let ring = usize::from(layout.size).saturating_mul(16);
        [(layout.desc, ring, 16), (layout.driver, 4, 4), (layout.device, 4, 4)]
    }

    pub(super) fn position(&self) -> Position {
        Position {
            next_avail: self.avail.slot,
            next_used: self.used.slot,
            avail_flipped: !self.avail.wrap,
            used_flipped: !self.used.wrap,
            pending: Vec::new(),
        }
    }

    /// The address of a byte of a descriptor.
    fn at(&self, slot: u16, byte: u64) -> GuestAddress {
        let offset = u64::from(slot).wrapping_mul(DESCRIPTOR).wrapping_add(byte);
        GuestAddress(self.layout.desc.wrapping_add(offset))
    }

    fn available(&self, memory: &GuestMemory) -> Result<bool, Broken> {
        let flags: u16 = load(memory, self.at(self.avail.slot, 14))?;
        let (avail, used) = (flags & AVAIL != 0, flags & USED != 0);
        Ok(avail == self.avail.wrap && used != self.avail.wrap)
    }

    pub(super) fn pop(&mut self, walk: &mut Walk, in_flight: u16) -> Result<Option<Taken>, Broken> {
        let memory = walk.memory();
        if !self.available(memory)? {
            return Ok(None);
        }
        let size = self.layout.size;
        let most = size.checked_sub(in_flight).filter(|most| *most > 0).ok_or(Broken::Overrun)?;
        let (mut slots, mut place) = (0_u16, self.avail);
        let id = loop {
            slots = slots.saturating_add(1);
            if slots > most {
                return Err(Broken::Loop);
            }
            let one = Descriptor::read(memory, self.layout.desc, place.slot.into())?;
            let (id, flags) = (one.third, one.fourth);
            place.advance(1, size);
            if flags & INDIRECT != 0 {
                if slots > 1 || flags & NEXT != 0 {
                    return Err(Broken::Indirect);
                }
                for index in 0..walk.table(one.address, one.len)? {
                    let inner = Descriptor::read(memory, one.address, index)?;
                    if inner.fourth & INDIRECT != 0 {
                        return Err(Broken::Indirect);
                    }
                    walk.add(inner.address, inner.len, inner.fourth & WRITE != 0)?;
                }
                break id;
            }
            walk.add(one.address, one.len, flags & WRITE != 0)?;
            if flags & NEXT == 0 {
                break id;
            }
        };
        self.avail = place;
        Ok(Some(Taken { id, slots }))
    }

    pub(super) fn add(
        &mut self,
        memory: &GuestMemory,
        chain: &Chain,
        written: u32,
    ) -> Result<(), Broken> {
        let Place { slot, wrap } = self.used;
        self.used.advance(chain.slots(), self.layout.size);
        let address = self.at(slot, 8);
        let [l0, l1, l2, l3] = written.to_le_bytes();
        let [i0, i1] = chain.id().to_le_bytes();
        memory
            .write_slice(&[l0, l1, l2, l3, i0, i1], address)
            .map_err(|_| Broken::Ring(address.0))?;
        let lap = if wrap { AVAIL | USED } else { 0 };
        let flags = lap | if written > 0 { WRITE } else { 0 };
        if self.first.is_none() {
            self.first = Some((slot, flags));
            return Ok(());
        }
        store(memory, self.at(slot, 14), flags)
    }

    pub(super) fn publish(&mut self, memory: &GuestMemory) -> Result<(), Broken> {
        match self.first.take() {
            Some((slot, flags)) => store(memory, self.at(slot, 14), flags),
            None => Ok(()),
        }
    }

    pub(super) fn needs_interrupt(&mut self, memory: &GuestMemory) -> Result<bool, Broken> {
        // As for the split ring: what was published must be seen before the wish is read.
        fence(Ordering::SeqCst);
        let before = self.asked.replace(self.used);
        if before == Some(self.used) {
            return Ok(false);
        }
        let wish: u32 = load(memory, GuestAddress(self.layout.driver))?;
        let [o0, o1, f0, f1] = wish.to_le_bytes();
        let (place, flags) = (u16::from_le_bytes([o0, o1]), u16::from_le_bytes([f0, f1]));
        match (flags & 3, before) {
            (DISABLE, _) => Ok(false),
            (DESC, Some(before)) if self.event_idx => {
                // All as distances from the beginning of this lap.
                let size = self.layout.size;
                let from_here = |slot: u16, wrap: bool| {
                    if wrap == self.used.wrap { slot } else { slot.wrapping_sub(size) }
                };
                let event = from_here(place & !WRAP, place & WRAP != 0);
                let before = from_here(before.slot, before.wrap);
                Ok(passed(event, before, self.used.slot))
            }
            _ => Ok(true),
        }
    }

    /// Says whether kicks are wanted; if so, whether chains are there already.
    pub(super) fn notify_me(&mut self, memory: &GuestMemory, wanted: bool) -> Result<bool, Broken> {
        let flags = match (wanted, self.event_idx) {
            (false, _) => DISABLE,
            (true, false) => ENABLE,
            (true, true) => {
                let lap = if self.avail.wrap { WRAP } else { 0 };
                store(memory, GuestAddress(self.layout.device), self.avail.slot | lap)?;
                DESC
            }
        };
        store(memory, GuestAddress(self.layout.device.wrapping_add(2)), flags)?;
        if !wanted {
            return Ok(false);
        }
        fence(Ordering::SeqCst);
        self.available(memory)
    }
}
