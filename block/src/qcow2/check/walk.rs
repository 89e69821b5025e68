//! Counting who uses which cluster: every table of the image is read once.
//!
//! An L2 table is read once however often it is referred to, and its entries count as often, so the
//! work is bounded by the size of the file.

use std::io;

use super::super::access::{load, store};
use super::super::bitmap::{OFFSET_MASK as BITMAP_OFFSET, load_directory};
use super::super::bytes::{be64, put};
use super::super::header::{BITMAPS, Header};
use super::super::snapshot::load_table;
use super::pages::{Budget, Pages};
use super::report::Report;
use crate::node::Node;

/// Bit of an L1 or L2 entry: the refcount of what it points to is exactly 1.
pub(super) const COPIED: u64 = 1 << 63;
/// Bit of an L2 entry: the cluster is compressed.
pub(super) const COMPRESSED: u64 = 1 << 62;
/// Bit of an L2 entry without subclusters: it reads as zeros.
const ZERO: u64 = 1;
/// Bits of an L1 or L2 entry with the offset.
pub(super) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Bits of an L1 entry that must be zero.
const L1_RESERVED: u64 = !(OFFSET | COPIED);
/// Bits of an L2 entry, not compressed, that must be zero.
const L2_RESERVED: u64 = !(OFFSET | COPIED | ZERO);
/// Memory for all counts: it is enough for some 8 TiB of data in clusters of 64 KiB.
const BUDGET: usize = 512 << 20;

/// What a cluster of metadata is used for: bits, because it may wrongly be several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind(pub(super) u8);

impl Kind {
    pub(super) const HEADER: Kind = Kind(1);
    pub(super) const ACTIVE_L1: Kind = Kind(1 << 1);
    pub(super) const L2: Kind = Kind(1 << 2);
    pub(super) const REFCOUNT_TABLE: Kind = Kind(1 << 3);
    pub(super) const REFCOUNT_BLOCK: Kind = Kind(1 << 4);
    pub(super) const SNAPSHOTS: Kind = Kind(1 << 5);
    pub(super) const INACTIVE_L1: Kind = Kind(1 << 6);
    pub(super) const BITMAPS: Kind = Kind(1 << 7);

    /// The names of its bits.
    pub(super) fn names(self) -> Vec<&'static str> {
        const NAMES: [&str; 8] = [
            "the header",
            "the active L1 table",
            "an L2 table",
            "the refcount table",
            "a refcount block",
            "the snapshot table",
            "the L1 table of a snapshot",
            "a bitmap",
        ];
        let set = |bit: &usize| self.0 & (1 << bit) != 0;
        (0..8).filter(set).filter_map(|bit| NAMES.get(bit).copied()).collect()
    }
}

/// A count of everything.
pub(super) struct Walk<'a> {
    pub(super) file: &'a dyn Node,
    pub(super) header: &'a Header,
    pub(super) report: &'a mut Report,
    /// Clusters of the file, the last of which may be in part.
    pub(super) clusters: u64,
    /// How often each cluster is used.
    pub(super) counts: Pages<u32>,
    /// What the clusters of metadata are used for.
    pub(super) kinds: Pages<u8>,
    /// How often the active L1 table refers to an L2 table.
    pub(super) active: Pages<u32>,
    /// How often those of the snapshots do.
    pub(super) inactive: Pages<u32>,
    /// Bytes of snapshots' L1 tables that may still be read: together they are not larger than the
    /// file.
    l1_left: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(file: &'a dyn Node, header: &'a Header, report: &'a mut Report) -> Walk<'a> {
        let size = file.info().size;
        let budget = Budget::new(BUDGET);
        Walk {
            file,
            header,
            report,
            clusters: size.div_ceil(header.cluster_size()),
            counts: Pages::new(&budget),
            kinds: Pages::new(&budget),
            active: Pages::new(&budget),
            inactive: Pages::new(&budget),
            l1_left: size,
        }
    }

    /// Counts everything.
    ///
    /// # Errors
    /// When memory does not suffice or the file cannot be written. What cannot be read is reported.
    pub(super) async fn run(&mut self) -> io::Result<()> {
        self.structure(Kind::HEADER, 0, self.header.cluster_size())?;
        let (offset, entries) = (self.header.l1_offset, self.header.l1_entries);
        self.l1(offset, entries, true).await?;
        self.snapshots().await?;
        self.bitmaps().await?;
        self.l2_tables().await
    }

    /// Counts `times` uses of a range of the file.
    fn count(&mut self, offset: u64, len: u64, times: u32) -> io::Result<()> {
        let Some(last) = len.checked_sub(1) else { return Ok(()) };
        let bits = self.header.cluster_bits;
        let first = offset >> bits;
        let end = (offset.saturating_add(last) >> bits) + 1;
        if end > self.clusters {
            let outside = first.max(self.clusters) << bits;
            self.report.check.check_errors += 1;
            self.report.line(|| {
                format!(
                    "Warning: cluster offset=0x{outside:x} is after the end of the image file, \
                     can't properly check refcounts."
                )
            });
        }
        let inside = end.min(self.clusters).saturating_sub(first);
        self.counts.change(first, inside, |count| *count = count.saturating_add(times))
    }

    /// Counts a range of metadata.
    pub(super) fn structure(&mut self, kind: Kind, offset: u64, len: u64) -> io::Result<()> {
        self.count(offset, len, 1)?;
        self.mark(kind, offset, len)
    }

    fn mark(&mut self, kind: Kind, offset: u64, len: u64) -> io::Result<()> {
        let bits = self.header.cluster_bits;
        let first = offset >> bits;
        let end = offset.saturating_add(len).div_ceil(self.header.cluster_size());
        let inside = end.min(self.clusters).saturating_sub(first);
        self.kinds.change(first, inside, |kinds| *kinds |= kind.0)
    }

    /// Reads a table, or reports that it cannot.
    async fn table(&mut self, what: &str, offset: u64, len: u64) -> Option<Vec<u8>> {
        match load(self.file, offset, len).await {
            Ok(data) => Some(data),
            Err(error) => {
                self.report
                    .failure(|| format!("ERROR: cannot read {what} at {offset:#x}: {error}"));
                None
            }
        }
    }

    /// An L1 table and what it refers to.
    async fn l1(&mut self, offset: u64, entries: u32, active: bool) -> io::Result<()> {
        let bytes = u64::from(entries) * 8;
        self.structure(if active { Kind::ACTIVE_L1 } else { Kind::INACTIVE_L1 }, offset, bytes)?;
        let Some(table) = self.table("an L1 table", offset, bytes).await else { return Ok(()) };
        for entry in table.chunks_exact(8).map(|bytes| be64(bytes, 0)) {
            let l2 = entry & OFFSET;
            if l2 == 0 {
                continue;
            }
            if entry & L1_RESERVED != 0 {
                self.report
                    .error(|| format!("ERROR found L1 entry with reserved bits set: {entry:x}"));
            }
            if !self.header.is_aligned(l2) {
                self.report.error(|| {
                    format!(
                        "ERROR l2_offset={l2:x}: Table is not cluster aligned; L1 entry corrupted"
                    )
                });
                // What it meant cannot be known.
                self.report.blind = true;
                continue;
            }
            let cluster = l2 >> self.header.cluster_bits;
            if cluster >= self.clusters {
                self.count(l2, self.header.cluster_size(), 1)?;
                continue;
            }
            let tables = if active { &mut self.active } else { &mut self.inactive };
            tables.change(cluster, 1, |count| *count = count.saturating_add(1))?;
        }
        Ok(())
    }

    /// The snapshot table and the L1 tables in it.
    async fn snapshots(&mut self) -> io::Result<()> {
        if self.header.snapshots == 0 {
            return Ok(());
        }
        let (records, bytes) = match load_table(self.file, self.header).await {
            Ok(table) => table,
            Err(error) => {
                self.report.error(|| format!("ERROR: cannot read the snapshot table: {error}"));
                self.report.blind = true;
                return Ok(());
            }
        };
        self.structure(Kind::SNAPSHOTS, self.header.snapshots_offset, bytes)?;
        for record in records {
            let l1_bytes = u64::from(record.l1_entries) * 8;
            let fits = self.l1_left.checked_sub(l1_bytes);
            let Some(left) = fits.filter(|_| record.l1_is_valid(self.header)) else {
                let id = String::from_utf8_lossy(&record.id).into_owned();
                self.report
                    .error(|| format!("ERROR snapshot {id}: L1 table offset or size invalid"));
                self.report.blind = true;
                continue;
            };
            self.l1_left = left;
            self.l1(record.l1_offset, record.l1_entries, false).await?;
        }
        Ok(())
    }

    /// Directory, tables and bits of the persistent bitmaps, if they are still what they say: else
    /// their clusters belong to nobody.
    async fn bitmaps(&mut self) -> io::Result<()> {
        let Some(place) = self.header.bitmaps else { return Ok(()) };
        if self.header.autoclear & BITMAPS == 0 {
            return Ok(());
        }
        let entries = match load_directory(self.file, self.header, &place).await {
            Ok(entries) => entries,
            Err(error) => {
                self.report.error(|| format!("ERROR: cannot read the bitmap directory: {error}"));
                self.report.blind = true;
                return Ok(());
            }
        };
        self.structure(Kind::BITMAPS, place.offset, place.size)?;
        for entry in entries {
            let bytes = u64::from(entry.table_entries) * 8;
            self.structure(Kind::BITMAPS, entry.table_offset, bytes)?;
            let table = match entry.load_table(self.file, self.header).await {
                Ok(table) => table,
                Err(error) => {
                    let name = String::from_utf8_lossy(&entry.name).into_owned();
                    self.report.error(|| format!("ERROR: bitmap '{name}': {error}"));
                    self.report.blind = true;
                    continue;
                }
            };
            for offset in table.iter().map(|entry| entry & BITMAP_OFFSET).filter(|at| *at != 0) {
                self.structure(Kind::BITMAPS, offset, self.header.cluster_size())?;
            }
        }
        Ok(())
    }

    /// The L2 tables, in the order of the file.
    async fn l2_tables(&mut self) -> io::Result<()> {
        let size = self.header.cluster_size();
        let mut from = 0;
        loop {
            let next = self.active.next(from).into_iter().chain(self.inactive.next(from)).min();
            let Some(cluster) = next else { return Ok(()) };
            from = cluster + 1;
            let active = self.active.get(cluster);
            let times = active.saturating_add(self.inactive.get(cluster));
            let offset = cluster << self.header.cluster_bits;
            self.count(offset, size, times)?;
            self.mark(Kind::L2, offset, size)?;
            let Some(mut table) = self.table("an L2 table", offset, size).await else { continue };
            if self.l2(&mut table, times, active > 0)? {
                store(self.file, offset, &table).await?;
            }
        }
    }

    /// What an L2 table refers to; true when an entry of it was mended.
    fn l2(&mut self, table: &mut [u8], times: u32, active: bool) -> io::Result<bool> {
        let wide = self.header.extended_l2();
        let size = self.header.cluster_size();
        let (mut mended, mut run) = (false, Run::default());
        let mut follows = 0;
        for bytes in table.chunks_exact_mut(1 << self.header.l2_entry_bits()) {
            let (entry, subclusters) = (be64(bytes, 0), be64(bytes, 8));
            if entry & COMPRESSED != 0 {
                self.compressed(entry, subclusters, times)?;
                if active {
                    self.report.check.allocated_clusters += 1;
                    self.report.check.compressed_clusters += 1;
                    // By nature.
                    self.report.check.fragmented_clusters += 1;
                }
                continue;
            }
            let offset = entry & OFFSET;
            if entry & L2_RESERVED != 0 || wide && entry & ZERO != 0 {
                self.report
                    .error(|| format!("ERROR found l2 entry with reserved bits set: {entry:x}"));
            }
            if wide && (subclusters >> 32) & subclusters & u64::from(u32::MAX) != 0 {
                self.report.error(|| {
                    format!(
                        "ERROR offset={offset:x}: subclusters both allocated and zero; L2 entry \
                         corrupted."
                    )
                });
            }
            let external = self.header.external_data();
            // In a data file the first cluster is at 0.
            if offset == 0 && !(external && entry & COPIED != 0) {
                if wide && subclusters & u64::from(u32::MAX) != 0 {
                    self.report.error(|| {
                        format!(
                            "ERROR: unallocated cluster has allocated subclusters (entry=\
                             0x{subclusters:x})"
                        )
                    });
                }
                continue;
            }
            if !self.header.is_aligned(offset) {
                let zero = !wide && entry & ZERO != 0;
                if zero && self.report.repair_damage {
                    // Nothing was in the cluster that anybody can see.
                    put(bytes, 0, &ZERO.to_be_bytes());
                    self.report.check.corruptions_fixed += 1;
                    self.report.line(|| {
                        format!(
                            "Repairing offset={offset:x}: Preallocated cluster is not properly \
                             aligned; L2 entry corrupted."
                        )
                    });
                    mended = true;
                    continue;
                }
                self.report.error(|| {
                    format!(
                        "ERROR offset={offset:x}: Cluster is not properly aligned; L2 entry \
                         corrupted."
                    )
                });
            }
            if active {
                self.report.check.allocated_clusters += 1;
                let apart = follows != 0 && offset != follows;
                self.report.check.fragmented_clusters += u64::from(apart);
                follows = offset + size;
            }
            if !external && !run.take(offset, size) {
                self.count(run.offset, run.len, times)?;
                run = Run { offset, len: size };
            }
        }
        self.count(run.offset, run.len, times)?;
        Ok(mended)
    }

    fn compressed(&mut self, entry: u64, subclusters: u64, times: u32) -> io::Result<()> {
        let cluster = (entry & OFFSET) >> self.header.cluster_bits;
        if entry & COPIED != 0 {
            self.report.error(|| {
                format!(
                    "ERROR: cluster {cluster}: copied flag must never be set for compressed \
                     clusters"
                )
            });
        }
        if self.header.external_data() {
            self.report.error(|| {
                format!("ERROR compressed cluster {cluster} with data file, entry=0x{entry:x}")
            });
            return Ok(());
        }
        if self.header.extended_l2() && subclusters != 0 {
            self.report.error(|| {
                format!(
                    "ERROR compressed cluster {cluster} with non-zero subcluster allocation \
                     bitmap, entry=0x{entry:x}"
                )
            });
        }
        let (offset, len) = compressed_range(self.header, entry);
        self.count(offset, len, times)
    }
}

/// Where the bytes of a compressed cluster are.
pub(super) fn compressed_range(header: &Header, entry: u64) -> (u64, u64) {
    let bits = 62 - (header.cluster_bits - 8);
    let offset = entry & ((1 << bits) - 1);
    let sectors = ((entry & (COMPRESSED - 1)) >> bits) + 1;
    (offset, sectors * 512 - (offset & 511))
}

/// Clusters one behind the other.
#[derive(Default)]
struct Run {
    offset: u64,
    len: u64,
}

impl Run {
    /// Takes a cluster if it follows.
    fn take(&mut self, offset: u64, len: u64) -> bool {
        let follows = self.len > 0 && self.offset + self.len == offset;
        if follows {
            self.len += len;
        }
        follows
    }
}
