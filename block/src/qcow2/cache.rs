//! Pieces of tables in memory: of L2 tables, and of refcount blocks.
//!
//! A bounded number of slices, the least recently used ones leaving first. A slice that was changed
//! stays until it has been written; [`flush`](super::flush) says when that may be. Taking slices
//! for writing copies them, so that they can be changed on; until the write has ended they stay, so
//! that nobody reads from the file what is on its way there.
//!
//! On the image's loop; nothing is held across a wait.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use resources::iol::IoBuf;

use crate::wait::Waiters;

/// Bytes written at once, where slices follow one another.
const RUN: usize = 1 << 20;

/// Slices of tables.
pub(super) struct Cache {
    slice: usize,
    most: Cell<usize>,
    inner: RefCell<Inner>,
    /// Slices being read.
    loading: RefCell<Vec<u64>>,
    pub(super) waiters: Waiters,
}

#[derive(Default)]
struct Inner {
    places: HashMap<u64, usize>,
    slots: Vec<Slot>,
    hand: usize,
    dirty: usize,
}

struct Slot {
    at: u64,
    data: Box<[u8]>,
    dirty: bool,
    writing: bool,
    used: bool,
    /// Used since the last cleaning.
    fresh: bool,
}

/// Slices that follow one another, for a write.
pub(super) struct Batch {
    /// Where the first one is in the file.
    pub(super) at: u64,
    /// Their contents at the time of taking.
    pub(super) data: IoBuf,
    count: usize,
}

impl Cache {
    /// Of `bytes` in slices of `slice`, at least four of them.
    pub(super) fn new(slice: usize, bytes: u64) -> Cache {
        let cache = Cache {
            slice,
            most: Cell::new(0),
            inner: RefCell::default(),
            loading: RefCell::default(),
            waiters: Waiters::default(),
        };
        cache.most.set(usize::try_from(bytes / slice as u64).unwrap_or(usize::MAX).max(4));
        cache
    }

    /// What `look` sees in the slice at `at`, if it is here.
    pub(super) fn look<R>(&self, at: u64, look: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let inner = &mut *self.inner.borrow_mut();
        let slot = inner.slots.get_mut(*inner.places.get(&at)?)?;
        (slot.used, slot.fresh) = (true, true);
        Some(look(&slot.data))
    }

    /// Changes the slice at `at`, if it is here.
    pub(super) fn change<R>(&self, at: u64, change: impl FnOnce(&mut [u8]) -> R) -> Option<R> {
        let inner = &mut *self.inner.borrow_mut();
        let slot = inner.slots.get_mut(*inner.places.get(&at)?)?;
        (slot.used, slot.fresh) = (true, true);
        if !slot.dirty {
            slot.dirty = true;
            inner.dirty += 1;
        }
        Some(change(&mut slot.data))
    }

    /// Something was changed and not taken for writing.
    pub(super) fn is_dirty(&self) -> bool {
        self.inner.borrow().dirty > 0
    }

    pub(super) fn has(&self, at: u64) -> bool {
        self.inner.borrow().places.contains_key(&at)
    }

    /// Says that the slice at `at` is being read; false when it already is.
    pub(super) fn begin_load(&self, at: u64) -> bool {
        let mut loading = self.loading.borrow_mut();
        if loading.contains(&at) {
            return false;
        }
        loading.push(at);
        true
    }

    pub(super) fn is_loading(&self, at: u64) -> bool {
        self.loading.borrow().contains(&at)
    }

    /// The read that [`begin_load`](Self::begin_load) spoke of has ended.
    pub(super) fn end_load(&self, at: u64) {
        self.loading.borrow_mut().retain(|other| *other != at);
        self.waiters.wake();
    }

    /// Makes room for one more slice; false when everything is changed or being written.
    pub(super) fn make_room(&self) -> bool {
        let inner = &mut *self.inner.borrow_mut();
        if inner.slots.len() < self.most.get() {
            return true;
        }
        for _ in 0..inner.slots.len() * 2 {
            inner.hand = (inner.hand + 1) % inner.slots.len().max(1);
            let Some(slot) = inner.slots.get_mut(inner.hand) else { return true };
            if slot.dirty || slot.writing {
                continue;
            }
            if std::mem::take(&mut slot.used) {
                continue;
            }
            let at = slot.at;
            inner.remove(at);
            return true;
        }
        false
    }

    /// Puts a slice in that was read.
    pub(super) fn insert(&self, at: u64, data: Box<[u8]>) {
        let inner = &mut *self.inner.borrow_mut();
        if inner.places.contains_key(&at) {
            return;
        }
        inner.places.insert(at, inner.slots.len());
        inner.slots.push(Slot { at, data, dirty: false, writing: false, used: true, fresh: true });
    }

    /// Takes what was changed, in the order of the file.
    pub(super) fn take_dirty(&self) -> Vec<Batch> {
        let inner = &mut *self.inner.borrow_mut();
        if inner.dirty == 0 {
            return Vec::new();
        }
        inner.dirty = 0;
        let mut dirty: Vec<_> = inner.slots.iter_mut().filter(|slot| slot.dirty).collect();
        dirty.sort_unstable_by_key(|slot| slot.at);
        let mut batches = Vec::new();
        for run in dirty.chunk_by_mut(|one, next| one.at + self.slice as u64 == next.at) {
            for part in run.chunks_mut((RUN / self.slice).max(1)) {
                let Some(first) = part.first() else { continue };
                let (at, count) = (first.at, part.len());
                let data = IoBuf::zeroed(count * self.slice);
                for (index, slot) in part.iter_mut().enumerate() {
                    data.copy_from(index * self.slice, &slot.data);
                    (slot.dirty, slot.writing) = (false, true);
                }
                batches.push(Batch { at, data, count });
            }
        }
        batches
    }

    /// The write of a batch has ended; what was not written counts as changed again.
    pub(super) fn written(&self, batch: &Batch, well: bool) {
        let inner = &mut *self.inner.borrow_mut();
        for index in 0..batch.count {
            let at = batch.at + (index * self.slice) as u64;
            let Some(slot) = inner.places.get(&at).and_then(|place| inner.slots.get_mut(*place))
            else {
                continue;
            };
            slot.writing = false;
            if !well && !slot.dirty {
                slot.dirty = true;
                inner.dirty += 1;
            }
        }
        self.waiters.wake();
    }

    /// Forgets the slices in a range of the file, changed or not. None is being written.
    pub(super) fn forget(&self, from: u64, len: u64) {
        let inner = &mut *self.inner.borrow_mut();
        let end = from.saturating_add(len);
        let here: Vec<u64> = if len / self.slice as u64 > inner.slots.len() as u64 {
            inner.places.keys().copied().filter(|at| (from..end).contains(at)).collect()
        } else {
            (from..end).step_by(self.slice).filter(|at| inner.places.contains_key(at)).collect()
        };
        for at in here {
            inner.remove(at);
        }
    }

    /// Forgets what was not used since this was last called.
    pub(super) fn clean(&self) {
        let inner = &mut *self.inner.borrow_mut();
        let mut idle = Vec::new();
        for slot in &mut inner.slots {
            if !std::mem::take(&mut slot.fresh) && !slot.dirty && !slot.writing {
                idle.push(slot.at);
            }
        }
        idle.into_iter().for_each(|at| inner.remove(at));
        inner.slots.shrink_to_fit();
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        *self.inner.borrow_mut() = Inner::default();
    }
}

impl Inner {
    fn remove(&mut self, at: u64) {
        let Some(place) = self.places.remove(&at) else { return };
        if place >= self.slots.len() {
            return;
        }
        let gone = self.slots.swap_remove(place);
        self.dirty -= usize::from(gone.dirty);
        if let Some(moved) = self.slots.get(place) {
            self.places.insert(moved.at, place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_used_leaves_unless_it_is_changed() {
        let cache = Cache::new(512, 8 * 512);
        for at in [0, 512, 1024] {
            cache.insert(at, vec![1; 512].into());
        }
        cache.change(1024, |data| data[0] = 2);
        cache.clean();
        assert!(cache.has(0) && cache.has(512) && cache.has(1024));
        cache.look(512, |_| ());
        cache.clean();
        assert!(!cache.has(0) && cache.has(512) && cache.has(1024));
        let batch = cache.take_dirty().pop().unwrap();
        cache.clean();
        assert!(!cache.has(512) && cache.has(1024));
        cache.written(&batch, true);
        cache.clean();
        assert!(!cache.has(1024) && !cache.is_dirty());
    }
}
