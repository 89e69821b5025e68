//! Internal snapshots: taking, removing and applying them.
//!
//! | piece | file |
//! |---|---|
//! | the table of snapshots | `table.rs` |
//! | the tables below an L1 table, as a whole | `tree.rs` |
//! | zeros as version 2 has them | `zeros.rs` |
//!
//! Everything new is written to places of its own and durable before the header is switched to it,
//! and what was there before is given up only after that. A crash in between loses room, never
//! data. On the image's loop, with nothing else under way; names are a client's, and what the
//! image says of its snapshots is checked where it is used.

mod table;
mod tree;
mod zeros;

use std::io;
use std::rc::Rc;

use super::access::{load, store};
use super::bytes::{be64, errno};
use super::header::{Header, MAX_L1_BYTES, MAX_SNAPSHOTS, RAW_DATA};
use super::options::Freed;
use super::{Options, Qcow2};
use crate::image::Snapshot;

pub(super) use table::{Record, load_table, serialise_table};
pub(super) use tree::Change;

/// Bytes of each kind of tables in memory for a snapshot that is open beside its image.
const VIEW_CACHE: u64 = 1 << 20;

/// The error when there is no such snapshot.
fn missing() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "Can't find the snapshot")
}

/// An error with the text that clients know for the step that failed.
fn failed(step: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| {
        tracing::warn!(%error, "{step}");
        io::Error::new(error.kind(), step)
    }
}

impl Qcow2 {
    /// Nothing is in memory that the file does not have, and the image may be changed.
    pub(super) async fn begin_change(&self) -> io::Result<()> {
        self.alive()?;
        if self.read_only.get() {
            return Err(errno(libc::EACCES));
        }
        self.flush_metadata().await?;
        self.release().await
    }

    fn records(&self) -> Vec<Record> {
        self.snapshots.borrow().clone()
    }

    /// Takes a snapshot; its identity is the largest one plus 1 if it has none.
    pub(super) async fn take_snapshot(&self, wanted: Snapshot) -> io::Result<Snapshot> {
        self.begin_change().await?;
        let geometry = self.geometry();
        if geometry.external {
            return Err(errno(libc::ENOTSUP));
        }
        let mut records = self.records();
        if records.len() as u64 >= u64::from(MAX_SNAPSHOTS) {
            return Err(errno(libc::EFBIG));
        }
        if records.iter().any(|record| record.id == wanted.id.as_bytes()) {
            return Err(errno(libc::EEXIST));
        }
        let mut id = wanted.id;
        if id.is_empty() {
            let numbers = records.iter().filter_map(|record| number(&record.id));
            let next = numbers.max().unwrap_or(0).checked_add(1).ok_or(errno(libc::EFBIG))?;
            id = next.to_string();
        }
        let l1 = self.l1.to_vec();
        self.change_tree(&l1, Change::Raise).await?;
        let mut record = Record {
            l1_offset: 0,
            l1_entries: u32::try_from(l1.len()).map_err(|_| errno(libc::EFBIG))?,
            id: id.into_bytes(),
            name: wanted.name.into_bytes(),
            date: wanted.date,
            vm_clock: wanted.vm_clock,
            vm_state_size: wanted.vm_state_size,
            disk_size: self.size.get(),
            extra: Vec::new(),
        };
        let taken = async {
            // From here on a crash leaves clusters that are counted twice and not marked as one's
            // own: no harm.
            self.counts_durable().await?;
            self.set_flags(true).await?;
            record.l1_offset = self.write_l1_copy(&self.l1.to_vec()).await?;
            records.push(record.clone());
            let table = self.write_records(&records).await?;
            self.switch_records(records, table).await
        };
        if let Err(error) = taken.await {
            if self.alive().is_err() {
                // The file may have the snapshot: nothing of it is given up.
                return Err(error);
            }
            if record.l1_offset != 0 {
                let _ = self.lower(record.l1_offset, l1.len() as u64 * 8, Freed::Unused).await;
            }
            let _ = self.change_tree(&l1, Change::Lower(Freed::Unused)).await;
            // The flags come back; without them the clusters are copied at the next write.
            if self.counts_durable().await.is_ok() {
                let _ = self.set_flags(false).await;
            }
            return Err(error);
        }
        // The state of the machine is in the snapshot now. It is taken; at worst room is lost.
        let used = self.header.borrow().l1_entries_for(self.size.get());
        let dropped = self.drop_behind(used).await;
        dropped.unwrap_or_else(|error| tracing::warn!(%error, "an old state still takes room"));
        Ok(record.snapshot())
    }

    /// Removes the entries of the L1 table from `first` on.
    async fn drop_behind(&self, first: u64) -> io::Result<()> {
        let l1 = self.l1.to_vec();
        let rest = l1.get(first as usize..).unwrap_or_default();
        if rest.iter().all(|entry| *entry == 0) {
            return Ok(());
        }
        for index in first..l1.len() as u64 {
            self.l1.set(index, 0);
        }
        self.flush_metadata().await?;
        self.metadata.forget();
        self.change_tree(rest, Change::Lower(Freed::Other)).await?;
        self.counts_durable().await
    }

    /// Writes an L1 table to a new place, padded to whole clusters.
    async fn write_l1_copy(&self, l1: &[u64]) -> io::Result<u64> {
        if l1.is_empty() {
            return Ok(0);
        }
        let mut bytes: Vec<u8> = l1.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        bytes.resize(bytes.len().max(1).next_multiple_of(self.geometry().cluster() as usize), 0);
        let offset = self.allocate_whole(bytes.len() as u64).await?;
        let written = async {
            self.check_overlap(offset, bytes.len() as u64).await?;
            store(&*self.file, offset, &bytes).await
        };
        if let Err(error) = written.await {
            let _ = self.lower(offset, bytes.len() as u64, Freed::Unused).await;
            return Err(error);
        }
        Ok(offset)
    }

    /// Writes the table of snapshots anew, each record with all that is known of it.
    pub(super) async fn rewrite_records(&self) -> io::Result<()> {
        let records = self.records();
        let table = self.write_records(&records).await?;
        self.switch_records(records, table).await
    }

    /// Writes a table of snapshots to a new place, durably: where it is, and its length; zeros
    /// when there is none.
    async fn write_records(&self, records: &[Record]) -> io::Result<(u64, u64)> {
        if records.is_empty() {
            return Ok((0, 0));
        }
        let bytes = serialise_table(records)?;
        let len = bytes.len() as u64;
        let offset = self.allocate_whole(len).await?;
        let written = async {
            self.check_overlap(offset, len).await?;
            store(&*self.file, offset, &bytes).await?;
            self.counts_durable().await
        };
        if let Err(error) = written.await {
            let _ = self.lower(offset, len, Freed::Unused).await;
            return Err(error);
        }
        Ok((offset, len))
    }

    /// Switches the header to a table that is durable, and gives the old one up; the new one if
    /// it cannot.
    async fn switch_records(&self, records: Vec<Record>, table: (u64, u64)) -> io::Result<()> {
        // There are no more than `MAX_SNAPSHOTS`.
        let count = u32::try_from(records.len()).unwrap_or(u32::MAX);
        let old = {
            let header = self.header.borrow();
            (header.snapshots, header.snapshots_offset)
        };
        let change = |header: &mut Header| {
            (header.snapshots, header.snapshots_offset) = (count, table.0);
        };
        if let Err(error) = self.change_header(change).await {
            if self.alive().is_ok() {
                let _ = self.lower(table.0, table.1, Freed::Unused).await;
            }
            return Err(error);
        }
        let len = self.metadata.snapshot_table.get();
        self.set_snapshots(records, table.1);
        if old.0 > 0 {
            let free = async {
                self.lower(old.1, len, Freed::Other).await?;
                self.counts_durable().await
            };
            // It is done all the same; at worst room is lost.
            free.await.unwrap_or_else(|error| tracing::warn!(%error, "an old table takes room"));
        }
        Ok(())
    }

    /// The L1 table of a snapshot.
    async fn l1_of(&self, record: &Record) -> io::Result<Vec<u64>> {
        if !record.l1_is_valid(&self.header.borrow()) {
            return Err(errno(libc::EIO));
        }
        let bytes = u64::from(record.l1_entries) * 8;
        let data = load(&*self.file, record.l1_offset, bytes).await?;
        Ok(data.chunks_exact(8).map(|entry| be64(entry, 0)).collect())
    }

    /// Removes a snapshot by its identity.
    pub(super) async fn remove_snapshot(&self, id: &str) -> io::Result<()> {
        self.begin_change().await?;
        let mut records = self.records();
        let at = records.iter().position(|record| record.id == id.as_bytes());
        let record = records.remove(at.ok_or_else(missing)?);
        let l1 =
            self.l1_of(&record).await.map_err(failed("Failed to free the cluster and L1 table"))?;
        let remove = async {
            let table = self.write_records(&records).await?;
            self.switch_records(records, table).await
        };
        remove.await.map_err(failed("Failed to remove snapshot from snapshot list"))?;
        let free = async {
            self.change_tree(&l1, Change::Lower(Freed::Snapshot)).await?;
            self.lower(record.l1_offset, l1.len() as u64 * 8, Freed::Snapshot).await?;
            self.counts_durable().await
        };
        free.await.map_err(failed("Failed to free the cluster and L1 table"))?;
        self.set_flags(false).await.map_err(failed("Failed to update snapshot status in disk"))
    }

    /// Gives a snapshot another identity.
    pub(super) async fn identify_snapshot(&self, id: &str, to: &str) -> io::Result<()> {
        self.begin_change().await?;
        let mut records = self.records();
        if records.iter().any(|record| record.id == to.as_bytes()) {
            return Err(errno(libc::EEXIST));
        }
        let record = records.iter_mut().find(|record| record.id == id.as_bytes());
        record.ok_or_else(missing)?.id = to.as_bytes().to_vec();
        let table = self.write_records(&records).await?;
        self.switch_records(records, table).await
    }

    /// Makes the disk what it was at a snapshot.
    pub(super) async fn go_to_snapshot(&self, id: &str) -> io::Result<()> {
        self.begin_change().await?;
        let record = self.records().into_iter().find(|record| record.id == id.as_bytes());
        let record = record.ok_or_else(missing)?;
        if self.geometry().external {
            return Err(errno(libc::ENOTSUP));
        }
        if !self.bitmaps().is_empty() {
            // They tell of changes to the disk that there is.
            return Err(io::Error::other("Device has active dirty bitmaps"));
        }
        if record.disk_size != self.size.get() && self.header.borrow().version < 3 {
            // In version 2 a record may lack the size of its disk, which is the image's then: it
            // is written down before that is another one.
            let records = self.records();
            let table = self.write_records(&records).await?;
            self.switch_records(records, table).await?;
        }
        let theirs = self.l1_of(&record).await?;
        let entries = self.header.borrow().l1_entries_for(record.disk_size);
        if record.disk_size > i64::MAX as u64 || entries * 8 > MAX_L1_BYTES {
            return Err(errno(libc::EIO));
        }
        // Nobody's own: what the snapshot refers to is copied when it is written.
        let mut l1: Vec<u64> =
            theirs.iter().map(|entry| entry & !super::geometry::COPIED).collect();
        l1.resize(l1.len().max(entries as usize).max(1), 0);
        self.change_tree(&theirs, Change::Raise).await?;
        let prepared = async {
            let offset = self.write_l1_copy(&l1).await?;
            self.counts_durable().await?;
            Ok(offset)
        };
        let offset = match prepared.await {
            Ok(offset) => offset,
            Err(error) => {
                let _ = self.change_tree(&theirs, Change::Lower(Freed::Unused)).await;
                return Err(error);
            }
        };
        let old = self.header.borrow().clone();
        let change = |header: &mut Header| {
            (header.l1_offset, header.l1_entries) = (offset, l1.len() as u32);
            header.size = record.disk_size;
        };
        if let Err(error) = self.change_header(change).await {
            if self.alive().is_ok() {
                let _ = self.lower(offset, l1.len() as u64 * 8, Freed::Unused).await;
                let _ = self.change_tree(&theirs, Change::Lower(Freed::Unused)).await;
            }
            return Err(error);
        }
        let before = self.l1.to_vec();
        self.l1.replace(l1);
        self.size.set(record.disk_size);
        self.l2.clear();
        self.metadata.forget();
        *self.unpacked.borrow_mut() = None;
        self.change_tree(&before, Change::Lower(Freed::Other)).await?;
        self.lower(old.l1_offset, u64::from(old.l1_entries) * 8, Freed::Other).await?;
        self.counts_durable().await?;
        self.set_flags(false).await
    }

    /// Shows a snapshot, by its identity or else its name, instead of the disk. The image was
    /// opened to be read only.
    ///
    /// # Errors
    /// Those of the file; `NotFound` when there is no such snapshot.
    pub async fn show_snapshot(&self, id: Option<&str>, name: Option<&str>) -> io::Result<()> {
        self.alive()?;
        if !self.read_only.get() {
            return Err(errno(libc::EINVAL));
        }
        let fits = |record: &&Record| {
            id.is_none_or(|id| record.id == id.as_bytes())
                && name.is_none_or(|name| record.name == name.as_bytes())
        };
        let record = self.records().iter().find(fits).cloned().ok_or_else(missing)?;
        let mut l1 = self.l1_of(&record).await?;
        let entries = self.header.borrow().l1_entries_for(record.disk_size);
        if record.disk_size > i64::MAX as u64 || entries * 8 > MAX_L1_BYTES {
            return Err(errno(libc::EIO));
        }
        l1.resize(l1.len().max(entries as usize), 0);
        self.l1.replace(l1);
        self.size.set(record.disk_size);
        self.l2.clear();
        *self.unpacked.borrow_mut() = None;
        Ok(())
    }

    /// The disk and the machine's state of a snapshot, open to be read beside this image, which
    /// keeps them as they are while it has the snapshot.
    pub(super) async fn view(&self, id: &str) -> io::Result<Rc<Qcow2>> {
        self.begin_change().await?;
        let options = Options {
            read_only: true,
            device: self.options.device.clone(),
            backing: self.backing.borrow().clone(),
            data_file: self.options.data_file.clone(),
            l2_cache_size: Some(VIEW_CACHE),
            refcount_cache_size: Some(VIEW_CACHE),
            cache_clean_interval: Some(0),
            ..Options::default()
        };
        let view = super::open(&self.local, self.file.clone(), options).await;
        let view = view.map_err(io::Error::other)?;
        *view.key.borrow_mut() = *self.key.borrow();
        view.show_snapshot(Some(id), None).await?;
        Ok(view)
    }

    /// Gives up what was written behind the end of the disk.
    pub(super) async fn forget_vmstate(&self) -> io::Result<()> {
        self.begin_change().await?;
        let used = self.header.borrow().l1_entries_for(self.size.get());
        self.drop_behind(used).await?;
        self.l2.clear();
        *self.unpacked.borrow_mut() = None;
        Ok(())
    }

    /// Gives everything up, so that what lies below shows everywhere.
    pub(super) async fn forget_contents(&self) -> io::Result<()> {
        self.begin_change().await?;
        if self.header.borrow().autoclear & RAW_DATA != 0 {
            return Err(errno(libc::ENOTSUP));
        }
        self.drop_behind(0).await?;
        self.l2.clear();
        *self.unpacked.borrow_mut() = None;
        Ok(())
    }
}

/// The number that an identity begins with.
fn number(id: &[u8]) -> Option<u64> {
    let digits = id.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(id.len());
    std::str::from_utf8(id.get(..digits)?).ok()?.parse().ok()
}

#[cfg(test)]
#[path = "../tests/snapshot.rs"]
mod tests;
