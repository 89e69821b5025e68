//! What the other side has: the content of pages as they were last sent.
//!
//! Direct mapped: an address has one place, and shares it with others. A page that was of use
//! lately is not driven out by another, or two pages that share a place would drive each other
//! out for ever, and never meet themselves there.

use super::{PAGE_SIZE, Page};

/// Why there is no cache of a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// Less than a page.
    #[error("an XBZRLE cache of {0} bytes has no room for a page")]
    TooSmall(u64),
    /// More than the host gives.
    #[error("there is no memory for an XBZRLE cache of {0} bytes")]
    NoMemory(u64),
}

/// The passes over memory for which a page that was of use holds its place.
const LIFETIME: u32 = 2;

/// Pages are allocated so many at a time.
const CHUNK: usize = 256;

/// The cache. Memory is taken as pages come, and given back by [`resize`](Self::resize) and on
/// drop; beside the pages there are 16 bytes for each that has room.
pub struct Cache {
    /// A power of two.
    slots: Vec<Slot>,
    pages: Pages,
}

#[derive(Clone, Copy)]
struct Slot {
    /// The address of the page by the size of pages.
    number: u64,
    /// The pass in which it was of use last.
    pass: u32,
    /// Where in `pages` it is, or [`EMPTY`].
    place: u32,
}

const EMPTY: u32 = u32::MAX;

impl Cache {
    /// A cache of up to `bytes` bytes of pages: the largest power of two that is not more.
    ///
    /// More than the guest has RAM is of no use, but costs memory for the slots.
    ///
    /// # Errors
    /// It would not have room for a page, or there is no memory for the slots.
    pub fn new(bytes: u64) -> Result<Self, CacheError> {
        Ok(Self { slots: slots(bytes)?, pages: Pages::default() })
    }

    /// The bytes of pages that have room.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.slots.len() as u64 * PAGE_SIZE as u64
    }

    /// The bytes of memory that are taken for pages now.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.pages.chunks.len() * CHUNK * PAGE_SIZE
    }

    /// Makes it as large as by [`new`](Self::new), and keeps what still has room; where two pages
    /// now share a place, the one that was of use last.
    ///
    /// # Errors
    /// As for `new`; the cache then is as before.
    pub fn resize(&mut self, bytes: u64) -> Result<(), CacheError> {
        let old = std::mem::replace(&mut self.slots, slots(bytes)?);
        for slot in old.into_iter().filter(|slot| slot.place != EMPTY) {
            if let Some(new) = self.slot(slot.number)
                && (new.place == EMPTY || new.pass < slot.pass)
            {
                *new = slot;
            }
        }
        let mut kept: Vec<&mut u32> = self
            .slots
            .iter_mut()
            .map(|slot| &mut slot.place)
            .filter(|place| **place != EMPTY)
            .collect();
        kept.sort_unstable();
        self.pages.keep(kept);
        Ok(())
    }

    /// Forgets all pages.
    pub fn clear(&mut self) {
        for slot in &mut self.slots {
            slot.place = EMPTY;
        }
        self.pages = Pages::default();
    }

    /// What was sent of the page at `address`, if that is known. It is of use in `pass`.
    pub fn get(&mut self, address: u64, pass: u32) -> Option<&mut Page> {
        let number = address / PAGE_SIZE as u64;
        let slot = self.slot(number)?;
        if slot.place == EMPTY || slot.number != number {
            return None;
        }
        slot.pass = slot.pass.max(pass);
        let place = slot.place;
        self.pages.get(place)
    }

    /// Remembers that `content` was sent for the page at `address` in `pass`; false if its place
    /// is taken by a page of more use, or if there is no memory. Then nothing is known of it.
    pub fn insert(&mut self, address: u64, content: &Page, pass: u32) -> bool {
        let number = address / PAGE_SIZE as u64;
        let next = self.pages.len;
        let Some(slot) = self.slot(number) else { return false };
        let place = if slot.place == EMPTY { next } else { slot.place };
        let taken = slot.place != EMPTY && slot.number != number;
        if taken && slot.pass.saturating_add(LIFETIME) > pass {
            return false;
        }
        if place == next && !self.pages.grow() {
            return false;
        }
        if let Some(slot) = self.slot(number) {
            *slot = Slot { number, pass, place };
        }
        if let Some(page) = self.pages.get(place) {
            *page = *content;
        }
        true
    }

    /// The only place for a page.
    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        let mask = self.slots.len() as u64 - 1;
        self.slots.get_mut((number & mask) as usize)
    }
}

/// Empty slots for a cache of that many bytes.
fn slots(bytes: u64) -> Result<Vec<Slot>, CacheError> {
    let none = CacheError::NoMemory(bytes);
    let count = bytes / PAGE_SIZE as u64;
    let count = 1 << count.checked_ilog2().ok_or(CacheError::TooSmall(bytes))?;
    if count > EMPTY as usize {
        return Err(none);
    }
    let mut slots = Vec::new();
    slots.try_reserve_exact(count).map_err(|_| none)?;
    slots.resize(count, Slot { number: 0, pass: 0, place: EMPTY });
    Ok(slots)
}

/// The pages, without gaps, in chunks that never move.
#[derive(Default)]
struct Pages {
    chunks: Vec<Vec<u8>>,
    len: u32,
}

impl Pages {
    fn get(&mut self, place: u32) -> Option<&mut Page> {
        let chunk = self.chunks.get_mut(place as usize / CHUNK)?;
        let start = place as usize % CHUNK * PAGE_SIZE;
        chunk.get_mut(start..)?.first_chunk_mut()
    }

    /// Room for one more; false: no memory.
    fn grow(&mut self) -> bool {
        if self.len as usize == self.chunks.len() * CHUNK {
            let mut chunk = Vec::new();
            if chunk.try_reserve_exact(CHUNK * PAGE_SIZE).is_err() {
                return false;
            }
            chunk.resize(CHUNK * PAGE_SIZE, 0);
            self.chunks.push(chunk);
        }
        self.len += 1;
        true
    }

    /// Keeps the pages at these places, which are in order, and tells where they are then.
    fn keep(&mut self, places: Vec<&mut u32>) {
        self.len = 0;
        for place in places {
            if *place != self.len {
                let Some(content) = self.get(*place).copied() else { continue };
                if let Some(to) = self.get(self.len) {
                    *to = content;
                }
                *place = self.len;
            }
            self.len += 1;
        }
        self.chunks.truncate((self.len as usize).div_ceil(CHUNK));
    }
}
