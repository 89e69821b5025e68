//! The tables below an L1 table and what they refer to, as a whole: their refcounts raised or
//! lowered, and the copied flags of the active ones set right.
//!
//! Tables are read from the file and written to it; the caller has written what is in caches, and
//! nothing else is under way. On the image's loop. Entries are whoever made the image's: what is
//! no cluster's ends the operation.

use std::io;

use super::super::Qcow2;
use super::super::access::{load, store};
use super::super::bytes::errno;
use super::super::geometry::{COMPRESSED, COPIED, Geometry, OFFSET};
use super::super::options::Freed;

/// What is done to refcounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Change {
    /// One more reference.
    Raise,
    /// One less, durably.
    Lower(Freed),
}

/// Places in the file that an L2 table refers to: offset and length.
fn places(geometry: &Geometry, table: &[u8]) -> io::Result<Vec<(u64, u64)>> {
    let mut places: Vec<(u64, u64)> = Vec::new();
    let cluster = geometry.cluster();
    // Whether the last place may be continued: compressed ones are counted one by one.
    let mut open = false;
    for index in 0..1usize << geometry.l2_bits {
        let entry = geometry.entry(table, index);
        if entry.word & COMPRESSED != 0 {
            places.push(geometry.compressed(entry));
            open = false;
            continue;
        }
        let Some(host) = geometry.host(entry).filter(|_| !geometry.external) else { continue };
        if geometry.within(host) != 0 {
            return Err(errno(libc::EIO));
        }
        match places.last_mut() {
            Some((offset, len)) if open && *offset + *len == host => *len += cluster,
            _ => places.push((host, cluster)),
        }
        open = true;
    }
    Ok(places)
}

impl Qcow2 {
    /// The L2 tables of an L1 table, each with its index.
    ///
    /// # Errors
    /// `EIO` when they cannot be: not clusters, or more than the file has.
    pub(super) fn tables_of(&self, l1: &[u64]) -> io::Result<Vec<(usize, u64)>> {
        let geometry = self.geometry();
        let entries = l1.iter().enumerate();
        let tables: Vec<_> = entries
            .map(|(index, entry)| (index, entry & OFFSET))
            .filter(|(_, table)| *table != 0)
            .collect();
        let wrong = tables.iter().any(|(_, table)| geometry.within(*table) != 0);
        let size = self.file.info().size.div_ceil(geometry.cluster());
        if wrong || tables.len() as u64 > size {
            return Err(errno(libc::EIO));
        }
        Ok(tables)
    }

    /// Changes the refcounts of everything below an L1 table, but for the table itself.
    ///
    /// # Errors
    /// Those of the file and of the refcounts. When they were to be raised, they are as before.
    pub(in super::super) async fn change_tree(&self, l1: &[u64], change: Change) -> io::Result<()> {
        let mut done = 0;
        let result = self.change_places(l1, change, &mut done, usize::MAX).await;
        if result.is_err() && change == Change::Raise {
            let back = Change::Lower(Freed::Unused);
            // What cannot be lowered either is lost room.
            let _ = self.change_places(l1, back, &mut 0, done).await;
        }
        result
    }

    /// The first `most` places of a tree, in the order of their tables; `done` counts them.
    async fn change_places(
        &self,
        l1: &[u64],
        change: Change,
        done: &mut usize,
        most: usize,
    ) -> io::Result<()> {
        let geometry = self.geometry();
        for (_, table) in self.tables_of(l1)? {
            let data = load(&*self.file, table, geometry.cluster()).await?;
            let mut places = places(&geometry, &data)?;
            // The table is the last to go.
            places.push((table, geometry.cluster()));
            for (offset, len) in places {
                if *done == most {
                    return Ok(());
                }
                match change {
                    Change::Raise => self.raise(offset, len).await?,
                    Change::Lower(why) => self.lower(offset, len, why).await?,
                }
                *done += 1;
            }
        }
        Ok(())
    }

    /// Sets the copied flags of the active tables as the refcounts say, which are durable. With
    /// `none` they all go: everything is about to be referred to twice.
    ///
    /// # Errors
    /// Those of the file.
    pub(in super::super) async fn set_flags(&self, none: bool) -> io::Result<()> {
        let geometry = self.geometry();
        let l1 = self.l1.to_vec();
        let flag = |word: u64, copied: bool| if copied { word | COPIED } else { word & !COPIED };
        for (index, table) in self.tables_of(&l1)? {
            let alone = !none && self.refcount(table >> geometry.cluster_bits).await? == 1;
            let mut data = load(&*self.file, table, geometry.cluster()).await?;
            let mut changed = false;
            for number in 0..1usize << geometry.l2_bits {
                let mut entry = geometry.entry(&data, number);
                let Some(host) = geometry.host(entry).filter(|_| !geometry.external) else {
                    continue;
                };
                let copied = alone && self.refcount(host >> geometry.cluster_bits).await? == 1;
                let word = flag(entry.word, copied);
                if word != entry.word {
                    entry.word = word;
                    geometry.put_entry(&mut data, number, entry);
                    changed = true;
                }
            }
            if changed {
                self.check_overlap_except(table, geometry.cluster(), true).await?;
                store(&*self.file, table, &data).await?;
                self.l2.forget(table, geometry.cluster());
            }
            if let Some(entry) = l1.get(index)
                && flag(*entry, alone) != *entry
            {
                self.l1.set(index as u64, flag(*entry, alone));
            }
        }
        self.flush_metadata().await
    }

    /// Everything that was done to refcounts is durable.
    pub(in super::super) async fn counts_durable(&self) -> io::Result<()> {
        self.write_refcounts().await?;
        self.file.flush().await
    }
}
