//! Bitmaps that follow the writes, while an image is open to be written.
//!
//! Those that are enabled are taken into memory, and marked as in use in the file before the first
//! write. A range is marked before it is written, so a bitmap never misses a change; what a write
//! that failed has marked stays marked. Whatever cannot be followed stays marked as in use, which
//! is what a later reader needs to know.
//!
//! On the image's loop, no lock. How many bits are in memory is bounded, whatever the image says.

use std::cell::{Ref, RefCell};
use std::collections::BTreeMap;
use std::io;

use super::super::Qcow2;
use super::super::bytes::errno;
use super::super::header::BITMAPS;
use super::super::options::OpenError;
use super::clean;
use super::directory::{AUTO, Entry, IN_USE, MAX_BITMAP_BYTES, load_directory};
use crate::dirty::Bitmap;

/// A bitmap that follows the writes.
pub(in super::super) struct Live {
    pub(super) bits: Bitmap,
    /// The file has other bits.
    changed: bool,
}

/// The bitmaps of an open image.
#[derive(Default)]
pub(in super::super) struct Bitmaps {
    /// The directory, as the file has it.
    entries: RefCell<Vec<Entry>>,
    /// By name. Their entries are marked as in use.
    live: RefCell<BTreeMap<Vec<u8>, Live>>,
}

impl Bitmaps {
    pub(super) fn entries(&self) -> Ref<'_, Vec<Entry>> {
        self.entries.borrow()
    }

    pub(super) fn set_entries(&self, entries: Vec<Entry>) {
        *self.entries.borrow_mut() = entries;
    }

    pub(super) fn live(&self) -> Ref<'_, BTreeMap<Vec<u8>, Live>> {
        self.live.borrow()
    }

    /// From now on these bits follow the writes.
    pub(super) fn follow(&self, name: &[u8], bits: Bitmap, changed: bool) {
        self.live.borrow_mut().insert(name.to_vec(), Live { bits, changed });
    }

    pub(super) fn unfollow(&self, name: &[u8]) {
        self.live.borrow_mut().remove(name);
    }

    /// Bytes of bits that may be in memory besides those that are.
    fn room(&self) -> u64 {
        let taken: u64 = self.live.borrow().values().map(|live| live.bits.bit_bytes()).sum();
        MAX_BITMAP_BYTES.saturating_sub(taken)
    }

    /// A bitmap like this may be in memory with the others.
    pub(super) fn has_room(&self, bits: &Bitmap) -> bool {
        bits.bit_bytes() <= self.room()
    }

    /// A range of the disk is about to be changed.
    pub(in super::super) fn touch(&self, offset: u64, len: u64) {
        for live in self.live.borrow_mut().values_mut() {
            live.bits.set(offset, len);
            live.changed = true;
        }
    }
}

/// Bitmaps that do not follow writes, while the size of the disk changes.
pub(in super::super) struct Aside(Vec<(Entry, Bitmap)>);

impl Qcow2 {
    /// Reads the directory. One that makes no sense is as good as none.
    ///
    /// # Errors
    /// Those of the file: what the directory says is not known then, and may be fine.
    pub(in super::super) async fn load_bitmaps(&self) -> Result<(), OpenError> {
        let header = self.header.borrow().clone();
        let entries = match header.bitmaps.filter(|_| header.autoclear & BITMAPS != 0) {
            None => Vec::new(),
            Some(place) => match load_directory(&*self.file, &header, &place).await {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::warn!(%error, "the bitmaps of an image cannot be used");
                    Vec::new()
                }
                Err(error) => return Err(OpenError::io("Could not read bitmaps", &error)),
            },
        };
        self.bitmaps.set_entries(entries);
        Ok(())
    }

    /// The header vouches for bitmaps that cannot be found.
    pub(in super::super) fn has_lost_bitmaps(&self) -> bool {
        self.header.borrow().autoclear & BITMAPS != 0 && self.bitmaps.entries().is_empty()
    }

    /// Has the enabled bitmaps follow the writes, which begin after this.
    ///
    /// # Errors
    /// Those of the file: nothing may be written then.
    pub(in super::super) async fn follow_writes(&self) -> io::Result<()> {
        let mut entries = self.bitmaps.entries().clone();
        let mut found = Vec::new();
        let mut room = self.bitmaps.room();
        for entry in entries.iter_mut().filter(|entry| entry.flags & (AUTO | IN_USE) == AUTO) {
            match self.load_within(&mut room, entry, 0).await {
                Ok(bits) => self.bitmaps.follow(&entry.name, bits, false),
                Err(error) => lost(entry, &error),
            }
            entry.flags |= IN_USE;
            found.push(entry.name.clone());
        }
        if found.is_empty() {
            return Ok(());
        }
        let marked = self.write_flags(entries).await;
        if marked.is_err() {
            found.iter().for_each(|name| self.bitmaps.unfollow(name));
        }
        marked
    }

    /// The bits that the file has, if there is room for them, or for `least` bytes. Those that
    /// cannot be loaded take room, too: otherwise an image could have the same ones read for hours.
    async fn load_within(&self, room: &mut u64, entry: &Entry, least: u64) -> io::Result<Bitmap> {
        let bytes = clean(self.size.get(), entry.granularity_bits)?.bit_bytes().max(least);
        *room = room.checked_sub(bytes).ok_or(errno(libc::ENOMEM))?;
        self.load_bits(entry).await
    }

    /// Brings the bitmaps that follow the writes to the file, where they are valid then. No writes
    /// come any more.
    ///
    /// # Errors
    /// Those of the file: all of them are still marked as in use, and go on following.
    pub(in super::super) async fn store_bitmaps(&self) -> io::Result<()> {
        let live = std::mem::take(&mut *self.bitmaps.live.borrow_mut());
        if live.is_empty() {
            return Ok(());
        }
        let stored = self.store_live(&live).await;
        if stored.is_err() {
            *self.bitmaps.live.borrow_mut() = live;
            self.mark_live().await;
        }
        stored
    }

    /// Marks what follows the writes as in use once more: some may be valid in the file by now,
    /// whether or not that was heard of. If it cannot, nothing may be written.
    async fn mark_live(&self) {
        let mut entries = self.bitmaps.entries().clone();
        for entry in entries.iter_mut().filter(|one| self.bitmaps.live().contains_key(&one.name)) {
            entry.flags |= IN_USE;
        }
        if !self.dead.get() && self.write_flags(entries).await.is_err() {
            self.dead.set(true);
        }
    }

    async fn store_live(&self, live: &BTreeMap<Vec<u8>, Live>) -> io::Result<()> {
        self.begin_change().await?;
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        let entries = self.bitmaps.entries().clone();
        for entry in &entries {
            let Some(live) = live.get(&entry.name).filter(|live| live.changed) else { continue };
            let flags = entry.flags & !IN_USE;
            match self.write_bits(Entry { flags, ..entry.clone() }, &live.bits).await {
                Ok(entry) => new.push(entry),
                Err(error) => {
                    for entry in &new {
                        let _ = self.free_bits(entry).await;
                    }
                    return Err(error);
                }
            }
            gone.push(entry.clone());
        }
        if !new.is_empty() {
            self.switch_directory(&new, &gone).await?;
        }
        let mut entries = self.bitmaps.entries().clone();
        for entry in entries.iter_mut().filter(|entry| live.contains_key(&entry.name)) {
            entry.flags &= !IN_USE;
        }
        if entries == *self.bitmaps.entries() {
            return Ok(());
        }
        self.write_flags(entries).await
    }

    /// Prepares the bitmaps for another size of the disk: in the file none is valid any more.
    ///
    /// # Errors
    /// Those of the file; `EFBIG` when there is no place for so many bits.
    pub(in super::super) async fn set_bitmaps_aside(&self, size: u64) -> io::Result<Aside> {
        let mut entries = self.bitmaps.entries().clone();
        let mut aside = Vec::new();
        let (mut live_room, mut room) = (MAX_BITMAP_BYTES, MAX_BITMAP_BYTES);
        for entry in entries.iter_mut() {
            let live = self.bitmaps.live().contains_key(&entry.name);
            if entry.flags & IN_USE != 0 && !live {
                continue;
            }
            let bytes = clean(size, entry.granularity_bits)?.bit_bytes();
            if live {
                live_room = live_room.checked_sub(bytes).ok_or(errno(libc::EFBIG))?;
                continue;
            }
            match self.load_within(&mut room, entry, bytes).await {
                Ok(bits) => aside.push((entry.clone(), bits)),
                Err(error) => lost(entry, &error),
            }
            entry.flags |= IN_USE;
        }
        if entries != *self.bitmaps.entries() {
            self.write_flags(entries).await?;
        }
        Ok(Aside(aside))
    }

    /// Makes the bitmaps fit the size that the disk has now. What is new of the disk is dirty in
    /// those that follow the writes: something else may have been there before.
    ///
    /// # Errors
    /// Those of the file: bitmaps that could not be written stay marked as in use.
    pub(in super::super) async fn resize_bitmaps(&self, aside: Aside) -> io::Result<()> {
        let size = self.size.get();
        for live in self.bitmaps.live.borrow_mut().values_mut() {
            let old = live.bits.size();
            live.bits.resize(size);
            live.bits.set(old, size.saturating_sub(old));
            live.changed |= old != size;
        }
        // In one directory: an image may have very many.
        let (mut new, mut gone, mut done) = (Vec::new(), Vec::new(), Ok(()));
        for (entry, mut bits) in aside.0 {
            bits.resize(size);
            match self.write_bits(entry.clone(), &bits).await {
                Ok(one) => {
                    new.push(one);
                    gone.push(entry);
                }
                Err(error) => done = Err(error),
            }
            if done.is_err() {
                break;
            }
        }
        if !new.is_empty() {
            self.switch_directory(&new, &gone).await?;
        }
        done
    }
}

fn lost(entry: &Entry, error: &io::Error) {
    let name = String::from_utf8_lossy(&entry.name).into_owned();
    tracing::warn!(name, %error, "a bitmap of an image cannot be kept up to date");
}

#[cfg(test)]
#[path = "../tests/bitmap_faults.rs"]
mod tests;
