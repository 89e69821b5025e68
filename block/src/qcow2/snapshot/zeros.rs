//! Zeros that entries only tell of, in the tables of snapshots: version 2 does not know them.
//!
//! A table is changed where it is, for all who refer to it: it shows the same before and after, and
//! at every moment between. On the image's loop, with nothing else under way. Entries are whoever
//! made the image's.

use std::collections::BTreeSet;
use std::io;

use resources::iol::IoBuf;

use super::super::Qcow2;
use super::super::access::{load, store};
use super::super::geometry::{COMPRESSED, Entry, ZERO};
use super::super::options::Freed;

impl Qcow2 {
    /// Writes zeros where tables tell of them and something lies below, and gives them up where
    /// nothing does. Entries have no subclusters.
    ///
    /// # Errors
    /// Those of the file. What was done stays, and shows the same.
    pub(in super::super) async fn write_zeros_of_snapshots(&self) -> io::Result<()> {
        self.begin_change().await?;
        let mut tables = BTreeSet::new();
        tables.extend(self.tables_of(&self.l1.to_vec())?.into_iter().map(|(_, table)| table));
        for record in self.records() {
            let l1 = self.l1_of(&record).await?;
            tables.extend(self.tables_of(&l1)?.into_iter().map(|(_, table)| table));
        }
        for table in tables {
            self.write_zeros_of(table).await?;
        }
        self.set_flags(false).await
    }

    async fn write_zeros_of(&self, table: u64) -> io::Result<()> {
        let geometry = self.geometry();
        let mut data = load(&*self.file, table, geometry.cluster()).await?;
        // Whatever an entry refers to is counted once for each reference to the table.
        let times = self.refcount(table >> geometry.cluster_bits).await?;
        let mut gone = Vec::new();
        let mut changed = false;
        for index in 0..1usize << geometry.l2_bits {
            let entry = geometry.entry(&data, index);
            if entry.word & COMPRESSED != 0 || entry.word & ZERO == 0 {
                continue;
            }
            let word = if self.may_show() { self.zeros_for(times).await? } else { 0 };
            geometry.put_entry(&mut data, index, Entry { word, subs: 0 });
            gone.extend(geometry.host(entry));
            changed = true;
        }
        if !changed {
            return Ok(());
        }
        self.counts_durable().await?;
        self.check_overlap_except(table, geometry.cluster(), true).await?;
        store(&*self.file, table, &data).await?;
        self.file.flush().await?;
        self.l2.forget(table, geometry.cluster());
        for host in gone {
            for _ in 0..times {
                self.lower(host, geometry.cluster(), Freed::Other).await?;
            }
        }
        Ok(())
    }

    /// A cluster of zeros that is referred to so often.
    async fn zeros_for(&self, times: u64) -> io::Result<u64> {
        let cluster = self.geometry().cluster();
        let offset = self.allocate_whole(cluster).await?;
        for _ in 1..times {
            self.raise(offset, cluster).await?;
        }
        self.check_overlap(offset, cluster).await?;
        self.file.write(offset, IoBuf::zeroed(cluster as usize), false).await?;
        Ok(offset)
    }
}
