//! The refcounts of the image against those counted, and their repair in place.

use std::collections::HashMap;
use std::io;

use super::super::access::{load, store};
use super::super::bytes::be64;
use super::super::header::Header;
use super::super::refcount;
use super::walk::{Kind, Walk};
use crate::node::Node;

/// Bits of an entry of the refcount table with the offset.
const BLOCK: u64 = !511;
/// Bytes of refcount blocks that are kept at hand.
const KEPT: u64 = 8 << 20;

/// The refcount table as far as it can be used, and what is wrong with it.
pub(super) struct Table {
    /// Where the blocks are; 0 for none.
    pub(super) blocks: Vec<u64>,
    /// What the table and its blocks take: first cluster and how many.
    pub(super) places: Vec<(u64, u64)>,
    /// It has to be made anew.
    pub(super) rebuild: bool,
}

/// Counts the refcounts' own clusters, and checks that nobody else uses them.
pub(super) async fn structure(walk: &mut Walk<'_>) -> io::Result<Table> {
    let header = walk.header;
    let (bits, size) = (header.cluster_bits, header.cluster_size());
    let bytes = u64::from(header.refcount_table_clusters) << bits;
    let offset = header.refcount_table_offset;
    let mut table = Table { blocks: Vec::new(), places: Vec::new(), rebuild: false };
    if offset == 0 || bytes == 0 {
        walk.report.error(|| "ERROR: the image has no refcount table".into());
        table.rebuild = true;
        return Ok(table);
    }
    walk.structure(Kind::REFCOUNT_TABLE, offset, bytes)?;
    table.places.push((offset >> bits, bytes >> bits));
    for cluster in offset >> bits..(offset + bytes) >> bits {
        // In somebody else's cluster nothing may be written.
        table.rebuild |= walk.counts.get(cluster) != 1;
    }
    let data = match load(walk.file, offset, bytes).await {
        Ok(data) => data,
        Err(error) => {
            walk.report.failure(|| format!("ERROR: cannot read the refcount table: {error}"));
            return Ok(table);
        }
    };
    for (index, bytes) in data.chunks_exact(8).enumerate() {
        let entry = be64(bytes, 0);
        let block = entry & BLOCK;
        table.blocks.push(0);
        if entry & !BLOCK != 0 {
            walk.report.error(|| {
                format!("ERROR refcount table entry {index} has reserved bits set: {entry:x}")
            });
            table.rebuild = true;
        }
        if block == 0 {
            continue;
        }
        if !header.is_aligned(block) {
            walk.report.error(|| {
                format!(
                    "ERROR refcount block {index} is not cluster aligned; refcount table entry \
                     corrupted"
                )
            });
            table.rebuild = true;
            continue;
        }
        let cluster = block >> bits;
        if cluster >= walk.clusters {
            walk.report.error(|| format!("ERROR refcount block {index} is outside image"));
            table.rebuild = true;
            continue;
        }
        walk.structure(Kind::REFCOUNT_BLOCK, block, size)?;
        table.places.push((cluster, 1));
        let count = walk.counts.get(cluster);
        if count != 1 {
            walk.report.error(|| format!("ERROR refcount block {index} refcount={count}"));
            table.rebuild = true;
        }
        if let Some(last) = table.blocks.last_mut() {
            *last = block;
        }
    }
    Ok(table)
}

/// Compares every refcount, and mends what may be and can be mended in place.
pub(super) async fn compare(walk: &mut Walk<'_>, table: &mut Table) -> io::Result<()> {
    let header = walk.header;
    let each = 1u64 << header.refcounts_per_block_bits();
    let in_place = !table.rebuild;
    let mut highest = walk.counts.last();
    let mut index = 0;
    while let Some(offset) = table.blocks.get(index as usize).copied() {
        let first = index * each;
        if first >= walk.clusters {
            break;
        }
        index += 1;
        if offset == 0 {
            missing(walk, table, first, first + each);
            continue;
        }
        let mut block = match load(walk.file, offset, header.cluster_size()).await {
            Ok(block) => block,
            Err(error) => {
                walk.report.failure(|| format!("Can't get refcount for cluster {first}: {error}"));
                continue;
            }
        };
        let mut changed = false;
        for number in 0..each.min(walk.clusters - first) {
            let cluster = first + number;
            let found = refcount::get(&block, header.refcount_order, number);
            if found > 0 {
                highest = highest.max(Some(cluster));
            }
            let Some(count) = differs(walk, cluster, found, in_place) else { continue };
            refcount::set(&mut block, header.refcount_order, number, count);
            changed = true;
        }
        if changed {
            store(walk.file, offset, &block).await?;
        }
    }
    missing(walk, table, index * each, u64::MAX);
    walk.report.check.image_end_offset = highest.map_or(0, |last| last + 1) * header.cluster_size();
    Ok(())
}

/// The clusters in use of a range without refcount block.
fn missing(walk: &mut Walk<'_>, table: &mut Table, mut from: u64, end: u64) {
    while let Some(cluster) = walk.counts.next(from).filter(|cluster| *cluster < end) {
        differs(walk, cluster, 0, false);
        table.rebuild = true;
        from = cluster + 1;
    }
}

/// Reports what is wrong with a cluster; the refcount to write if it is to be mended.
fn differs(walk: &mut Walk<'_>, cluster: u64, found: u64, in_place: bool) -> Option<u64> {
    let count = u64::from(walk.counts.get(cluster));
    if found == count {
        overlap(walk, cluster, count);
        return None;
    }
    let report = &mut *walk.report;
    let fits = count <= refcount::most(walk.header.refcount_order);
    let (counter, fixed, mends, word) = if found < count {
        let check = &mut report.check;
        let mends = in_place && fits && report.repair_damage;
        (&mut check.corruptions, &mut check.corruptions_fixed, mends, "ERROR")
    } else {
        let mends = in_place && report.repair_leaks && !report.blind;
        let check = &mut report.check;
        (&mut check.leaks, &mut check.leaks_fixed, mends, "Leaked")
    };
    let (counter, word) = if mends { (fixed, "Repairing") } else { (counter, word) };
    *counter += 1;
    report.line(|| format!("{word} cluster {cluster} refcount={found} reference={count}"));
    if !mends {
        return None;
    }
    // The count is right then, and what it counts may still be wrong.
    overlap(walk, cluster, count);
    Some(count)
}

/// A cluster that is used more than once, and says so: wrong if it is one of metadata.
pub(super) fn overlap(walk: &mut Walk<'_>, cluster: u64, count: u64) {
    if count < 2 {
        return;
    }
    let kinds = Kind(walk.kinds.get(cluster));
    let tables = u64::from(walk.active.get(cluster)) + u64::from(walk.inactive.get(cluster));
    let right = match kinds {
        Kind(0) => return,
        Kind::L2 => tables,
        _ => 1,
    };
    if count == right {
        return;
    }
    let mut names = kinds.names();
    if names.len() < 2 {
        names.push("something else");
    }
    walk.report.error(|| {
        format!("ERROR cluster {cluster} is used at the same time by {}", names.join(" and "))
    });
}

/// Single refcounts of the image.
pub(super) struct Refcounts<'a> {
    file: &'a dyn Node,
    header: Header,
    blocks: Vec<u64>,
    kept: HashMap<u64, Vec<u8>>,
}

impl<'a> Refcounts<'a> {
    pub(super) fn new(file: &'a dyn Node, header: &Header, blocks: Vec<u64>) -> Refcounts<'a> {
        Refcounts { file, header: header.clone(), blocks, kept: HashMap::new() }
    }

    /// The refcount of a cluster; 0 where there is no block.
    pub(super) async fn get(&mut self, cluster: u64) -> io::Result<u64> {
        let bits = self.header.refcounts_per_block_bits();
        let index = cluster >> bits;
        let number = cluster & ((1 << bits) - 1);
        let offset = self.blocks.get(index as usize).copied().unwrap_or_default();
        if offset == 0 {
            return Ok(0);
        }
        if !self.kept.contains_key(&index) {
            let size = self.header.cluster_size();
            if self.kept.len() as u64 * size >= KEPT {
                self.kept.clear();
            }
            self.kept.insert(index, load(self.file, offset, size).await?);
        }
        let block = self.kept.get(&index).map(|block| &**block).unwrap_or_default();
        Ok(refcount::get(block, self.header.refcount_order, number))
    }
}
