//! Keeping writes away from metadata, and giving an image up that contradicts itself.
//!
//! A damaged image may say that a guest's data are where a table is. Each write is checked against
//! what is known of the image's structure; the tables that are many are in a set, so that it costs
//! little. On the image's loop.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;

use super::Qcow2;
use super::bytes::errno;
use super::geometry::OFFSET;
use super::open::load_table;
use super::options::Corruption;

/// Where metadata are, beyond what the header says.
#[derive(Default)]
pub(super) struct Metadata {
    /// Active L2 tables (true) and refcount blocks.
    clusters: RefCell<Option<HashMap<u64, bool>>>,
    /// Bytes of the snapshot table.
    pub(super) snapshot_table: Cell<u64>,
    /// The L1 tables of snapshots: offset and entries.
    pub(super) inactive: RefCell<Vec<(u64, u64)>>,
}

impl Metadata {
    /// An L2 table was made, or else a refcount block.
    pub(super) fn add(&self, offset: u64, table: bool) {
        if let Some(clusters) = &mut *self.clusters.borrow_mut() {
            clusters.insert(offset, table);
        }
    }

    /// A cluster has become free.
    pub(super) fn remove(&self, offset: u64) {
        if let Some(clusters) = &mut *self.clusters.borrow_mut() {
            clusters.remove(&offset);
        }
    }

    /// The tables have changed by other means.
    pub(super) fn forget(&self) {
        *self.clusters.borrow_mut() = None;
    }
}

impl Qcow2 {
    /// Refuses a write to a range of the file where metadata are.
    ///
    /// # Errors
    /// `EIO`, with the image marked as corrupt and out of service.
    pub(super) async fn check_overlap(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_overlap_except(offset, len, false).await
    }

    /// As [`check_overlap`](Self::check_overlap); `table`: of a table or block, to its own place.
    pub(super) async fn check_overlap_except(
        &self,
        offset: u64,
        len: u64,
        table: bool,
    ) -> io::Result<()> {
        if let Some(name) = self.overlaps(offset, len, table) {
            return Err(self.prevented(name, offset, len).await);
        }
        if self.options.overlap_check.inactive_l2 && self.overlaps_inactive_l2(offset, len).await? {
            return Err(self.prevented("inactive L2 table", offset, len).await);
        }
        Ok(())
    }

    /// The structure that a range overlaps with, as far as memory tells.
    pub(super) fn overlaps(&self, offset: u64, len: u64, table: bool) -> Option<&'static str> {
        let check = &self.options.overlap_check;
        let geometry = self.geometry();
        let end = offset.saturating_add(len);
        let within = |from: u64, bytes: u64| {
            bytes > 0 && offset < geometry.ceil(from.saturating_add(bytes)) && from < end
        };
        {
            let header = self.header.borrow();
            if check.main_header && offset < geometry.cluster() {
                return Some("qcow2_header");
            }
            if check.active_l1 && within(header.l1_offset, u64::from(header.l1_entries) * 8) {
                return Some("active L1 table");
            }
            let bytes = u64::from(header.refcount_table_clusters) << geometry.cluster_bits;
            if check.refcount_table && within(header.refcount_table_offset, bytes) {
                return Some("refcount table");
            }
            let bytes = self.metadata.snapshot_table.get();
            if check.snapshot_table && within(header.snapshots_offset, bytes) {
                return Some("snapshot table");
            }
        }
        if check.inactive_l1 {
            let inactive = self.metadata.inactive.borrow();
            if inactive.iter().any(|(at, entries)| within(*at, entries * 8)) {
                return Some("inactive L1 table");
            }
        }
        if table || !check.active_l2 && !check.refcount_block {
            return None;
        }
        let clusters = &mut *self.metadata.clusters.borrow_mut();
        let clusters = clusters.get_or_insert_with(|| self.structure());
        let mut at = geometry.floor(offset);
        while at < end {
            match clusters.get(&at) {
                Some(true) if check.active_l2 => return Some("active L2 table"),
                Some(false) if check.refcount_block => return Some("refcount block"),
                _ => {}
            }
            at += geometry.cluster();
        }
        None
    }

    fn structure(&self) -> HashMap<u64, bool> {
        let blocks = self.alloc.table().into_iter().filter(|at| *at != 0).map(|at| (at, false));
        let tables = self.l1.to_vec().into_iter().map(|entry| entry & OFFSET);
        blocks.chain(tables.filter(|at| *at != 0).map(|at| (at, true))).collect()
    }

    async fn overlaps_inactive_l2(&self, offset: u64, len: u64) -> io::Result<bool> {
        let inactive = self.metadata.inactive.borrow().clone();
        let cluster = self.geometry().cluster();
        for (at, entries) in inactive {
            let count = usize::try_from(entries).unwrap_or(0);
            for entry in load_table(&*self.file, at, count).await? {
                let table = entry & OFFSET;
                if table != 0 && offset < table + cluster && table < offset.saturating_add(len) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    async fn prevented(&self, name: &str, offset: u64, len: u64) -> io::Error {
        tracing::error!(
            "qcow2: Preventing invalid write on metadata (overlaps with {name}); image marked as \
             corrupt."
        );
        self.corrupt(format!("Prevented {name} overwrite"), Some(offset), Some(len), true);
        if self.header.borrow().version >= 3 && !self.read_only.get() {
            // It is out of service either way.
            if let Err(error) = self.mark_corrupt().await {
                tracing::error!(%error, "qcow2_corrupt_bit");
            }
        }
        errno(libc::EIO)
    }

    /// Tells that the image contradicts itself; if that is `fatal`, nothing is done with it any
    /// more.
    pub(super) fn corrupt(
        &self,
        message: String,
        offset: Option<u64>,
        size: Option<u64>,
        fatal: bool,
    ) {
        if self.dead.get() || !fatal && self.told.replace(true) {
            return;
        }
        self.dead.set(fatal);
        tracing::error!(message, offset, size, fatal, "qcow2_corrupt");
        if let Some(tell) = &self.options.on_corruption {
            let image = crate::name::of(&*self.file);
            tell(&Corruption { image, message, offset, size, fatal });
        }
    }

    /// # Errors
    /// When the image was taken out of service.
    pub(super) fn alive(&self) -> io::Result<()> {
        if self.dead.get() { Err(errno(libc::ENOMEDIUM)) } else { Ok(()) }
    }
}
