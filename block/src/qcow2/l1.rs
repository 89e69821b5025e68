//! The active L1 table: all of it in memory.
//!
//! On the image's loop. Its size is bounded by the header's checks, and it is written by
//! [`flush`](super::flush) alone, sector by sector.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;

use resources::iol::IoBuf;

use super::Qcow2;
use super::bytes::errno;
use super::geometry::{COPIED, OFFSET};
use super::header::{Header, MAX_L1_BYTES};
use super::options::Freed;

/// Entries in a sector of 512 bytes.
const SECTOR: usize = 64;

/// The active L1 table.
pub(super) struct L1 {
    entries: RefCell<Vec<u64>>,
    /// Sectors that the file does not have yet.
    dirty: RefCell<BTreeSet<usize>>,
}

impl L1 {
    pub(super) fn new(entries: Vec<u64>) -> L1 {
        L1 { entries: RefCell::new(entries), dirty: RefCell::default() }
    }

    /// The entry at `index`; zero behind the end.
    pub(super) fn get(&self, index: u64) -> u64 {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        self.entries.borrow().get(index).copied().unwrap_or(0)
    }

    pub(super) fn len(&self) -> u64 {
        self.entries.borrow().len() as u64
    }

    /// All entries.
    pub(super) fn to_vec(&self) -> Vec<u64> {
        self.entries.borrow().clone()
    }

    /// The first entry from `index` on that names a table. Flags alone do not.
    pub(super) fn next_used(&self, index: u64) -> Option<u64> {
        let index = usize::try_from(index).ok()?;
        let entries = self.entries.borrow();
        let found = entries.get(index..)?.iter().position(|entry| entry & OFFSET != 0)?;
        Some((index + found) as u64)
    }

    /// Changes an entry that is there; it is written with the next flush.
    pub(super) fn set(&self, index: u64, entry: u64) {
        let Ok(index) = usize::try_from(index) else { return };
        if let Some(place) = self.entries.borrow_mut().get_mut(index) {
            *place = entry;
            self.dirty.borrow_mut().insert(index / SECTOR);
        }
    }

    /// Takes another table, which the file has already.
    pub(super) fn replace(&self, entries: Vec<u64>) {
        *self.entries.borrow_mut() = entries;
        self.dirty.borrow_mut().clear();
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.borrow().is_empty()
    }

    /// Takes the sectors that were changed: their numbers and contents.
    pub(super) fn take_dirty(&self) -> Vec<(usize, IoBuf)> {
        let dirty = std::mem::take(&mut *self.dirty.borrow_mut());
        let entries = self.entries.borrow();
        let contents = |sector: usize| {
            let part = entries.iter().skip(sector * SECTOR).take(SECTOR);
            let bytes: Vec<u8> = part.flat_map(|entry| entry.to_be_bytes()).collect();
            IoBuf::copy_of(&bytes)
        };
        dirty.into_iter().map(|sector| (sector, contents(sector))).collect()
    }

    /// A write of these sectors did not succeed.
    pub(super) fn not_written(&self, sectors: impl IntoIterator<Item = usize>) {
        self.dirty.borrow_mut().extend(sectors);
    }
}

impl Qcow2 {
    /// The L2 table that maps `guest`; `None` where there is none.
    ///
    /// # Errors
    /// When the entry is no table's.
    pub(super) fn table_of(&self, guest: u64) -> io::Result<Option<u64>> {
        let geometry = self.geometry();
        let entry = self.l1.get(geometry.l1_index(guest));
        let table = entry & OFFSET;
        if geometry.within(table) != 0 {
            self.corrupt(format!("L2 table offset {table:#x} unaligned"), Some(table), None, false);
            return Err(errno(libc::EIO));
        }
        Ok((table != 0).then_some(table))
    }

    /// The L2 table that maps `guest`, as one that nobody else refers to and that may be changed.
    ///
    /// A new one is written before anything can refer to it; the reference itself, and giving up
    /// the old one, wait for the next flush. Nobody who waits for a turn here is waited for.
    pub(super) async fn own_table(&self, guest: u64) -> io::Result<u64> {
        let geometry = self.geometry();
        let index = geometry.l1_index(guest);
        if self.l1.get(index) & COPIED != 0
            && let Some(table) = self.table_of(guest)?
        {
            return Ok(table);
        }
        let _turn = self.tables.enter().await;
        if self.l1.get(index) & COPIED != 0
            && let Some(table) = self.table_of(guest)?
        {
            return Ok(table);
        }
        if index >= self.l1.len() {
            return Err(errno(libc::EIO));
        }
        let old = self.table_of(guest)?;
        let contents = match old {
            Some(old) => self.whole_table(old).await?,
            None => IoBuf::zeroed(geometry.cluster() as usize),
        };
        let new = self.allocate(1).await?.offset;
        let written = self.write_table(new, contents).await;
        if let Err(error) = written {
            self.give_up(new, geometry.cluster(), Freed::Unused);
            return Err(error);
        }
        self.step("l1_update").await?;
        self.l1.set(index, new | COPIED);
        self.metadata.add(new, true);
        if let Some(old) = old {
            self.give_up(old, geometry.cluster(), Freed::Other);
        }
        Ok(new)
    }

    async fn write_table(&self, at: u64, contents: IoBuf) -> io::Result<()> {
        self.check_overlap(at, contents.len() as u64).await?;
        self.step("l2_alloc.write").await?;
        self.l2.forget(at, contents.len() as u64);
        self.file.write(at, contents, false).await
    }

    /// A table as it is, with what the file does not have yet.
    async fn whole_table(&self, at: u64) -> io::Result<IoBuf> {
        self.step("l2_alloc.cow_read").await?;
        let buf = IoBuf::zeroed(self.geometry().cluster() as usize);
        self.file.read(at, buf.clone()).await?;
        let slice = self.geometry().slice();
        for part in (0..buf.len()).step_by(slice) {
            self.l2.look(at + part as u64, |data| buf.copy_from(part, data));
        }
        // Nobody else's table any more: what it refers to is referred to twice.
        Ok(self.without_copied(&buf))
    }

    /// A table whose entries do not claim to be the only ones.
    fn without_copied(&self, table: &IoBuf) -> IoBuf {
        let geometry = self.geometry();
        let mut bytes = table.to_vec();
        for index in 0..1usize << geometry.l2_bits {
            let mut entry = geometry.entry(&bytes, index);
            if entry.word & COPIED != 0 && !geometry.external {
                entry.word &= !COPIED;
                geometry.put_entry(&mut bytes, index, entry);
            }
        }
        IoBuf::copy_of(&bytes)
    }

    /// Makes the L1 table of at least `entries` entries.
    pub(super) async fn grow_l1(&self, entries: u64) -> io::Result<()> {
        let before = self.l1.len();
        if entries <= before {
            return Ok(());
        }
        if entries * 8 > MAX_L1_BYTES {
            return Err(errno(libc::EFBIG));
        }
        // A table that grows step by step is not copied each time.
        let entries = entries.max(before + before / 2).min(MAX_L1_BYTES / 8);
        let geometry = self.geometry();
        // What the new table says is durable, and so is all that it refers to.
        self.flush_metadata().await?;
        self.step("l1_grow.alloc_table").await?;
        let mut table = self.l1.to_vec();
        table.resize(entries as usize, 0);
        let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        let len = geometry.ceil(bytes.len() as u64);
        let offset = self.allocate_whole(len).await?;
        let written = async {
            self.check_overlap(offset, len).await?;
            self.step("l1_grow.write_table").await?;
            let mut padded = bytes;
            padded.resize(len as usize, 0);
            self.file.write(offset, IoBuf::copy_of(&padded), false).await?;
            self.write_refcounts().await?;
            self.file.flush().await?;
            self.step("l1_grow.activate_table").await
        };
        if let Err(error) = written.await {
            self.give_up(offset, len, Freed::Unused);
            return Err(error);
        }
        let old = {
            let header = self.header.borrow();
            (header.l1_offset, header.l1_entries)
        };
        let change = |header: &mut Header| {
            (header.l1_offset, header.l1_entries) = (offset, entries as u32);
        };
        if let Err(error) = self.change_header(change).await {
            if self.alive().is_ok() {
                self.give_up(offset, len, Freed::Unused);
            }
            return Err(error);
        }
        self.l1.replace(table);
        if old.1 > 0 {
            self.give_up(old.0, geometry.ceil(u64::from(old.1) * 8), Freed::Other);
        }
        Ok(())
    }
}
