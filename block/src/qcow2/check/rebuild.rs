//! New refcounts for an image whose own cannot be mended in place.
//!
//! They are written behind the end of the file, and the header is switched to them when they are
//! durable: until then the image is what it was.

use std::collections::BTreeSet;
use std::io;

use super::super::access::store;
use super::super::bytes::{errno, put};
use super::super::header::{Header, MAX_REFCOUNT_TABLE_BYTES};
use super::super::refcount;
use super::compare::Table;
use super::walk::{Kind, Walk};

/// The new table, and whether every count could be written.
pub(super) struct Rebuilt {
    /// Where the blocks are.
    pub(super) blocks: Vec<u64>,
    /// Clusters that are used more often than a refcount can tell.
    pub(super) beyond: u64,
}

/// Writes new refcounts, of the width that `header` says, and switches the image, and `header`, to
/// them. `strict`: only if each of them can tell.
pub(super) async fn rebuild(
    walk: &mut Walk<'_>,
    old: &Table,
    header: &mut Header,
    strict: bool,
) -> io::Result<Rebuilt> {
    for (first, count) in &old.places {
        let inside = walk.clusters.saturating_sub(*first).min(*count);
        walk.counts.change(*first, inside, |count| *count = count.saturating_sub(1))?;
        let old = Kind::REFCOUNT_TABLE.0 | Kind::REFCOUNT_BLOCK.0;
        walk.kinds.change(*first, inside, |kinds| *kinds &= !old)?;
    }
    let (bits, size) = (header.cluster_bits, header.cluster_size());
    let per_block_bits = header.refcounts_per_block_bits();
    let each = 1u64 << per_block_bits;
    let mut needed = BTreeSet::new();
    let mut from = 0;
    while let Some(cluster) = walk.counts.next(from) {
        needed.insert(cluster >> per_block_bits);
        from = ((cluster >> per_block_bits) + 1) << per_block_bits;
    }
    // Where they go needs refcounts, too.
    let start = walk.clusters;
    let mut end = start;
    let table_clusters = loop {
        let table = (end.div_ceil(each) * 8).div_ceil(size).max(1);
        let all = start.checked_add(table + needed.len() as u64).ok_or(errno(libc::EFBIG))?;
        needed.extend(start >> per_block_bits..=(all - 1) >> per_block_bits);
        let done = all == end && start + table + needed.len() as u64 == all;
        end = all;
        if done {
            break table;
        }
    };
    let table_bytes = table_clusters << bits;
    if table_bytes > MAX_REFCOUNT_TABLE_BYTES.max(size) || end > i64::MAX as u64 >> bits {
        return Err(errno(libc::EFBIG));
    }
    let mut table = vec![0; table_bytes as usize];
    let mut blocks = vec![0; (table_bytes / 8) as usize];
    let mut beyond = 0;
    let most = refcount::most(header.refcount_order);
    for (place, index) in (start + table_clusters..).zip(&needed) {
        let mut block = vec![0; size as usize];
        for number in 0..each {
            let cluster = index * each + number;
            let own = (start..end).contains(&cluster);
            let count = if own { 1 } else { u64::from(walk.counts.get(cluster)) };
            beyond += u64::from(count > most);
            refcount::set(&mut block, header.refcount_order, number, count.min(most));
        }
        store(walk.file, place << bits, &block).await?;
        put(&mut table, *index as usize * 8, &(place << bits).to_be_bytes());
        if let Some(slot) = blocks.get_mut(*index as usize) {
            *slot = place << bits;
        }
    }
    if strict && beyond > 0 {
        return Err(errno(libc::EINVAL));
    }
    store(walk.file, start << bits, &table).await?;
    walk.file.flush().await?;
    header.refcount_table_offset = start << bits;
    header.refcount_table_clusters =
        u32::try_from(table_clusters).map_err(|_| errno(libc::EFBIG))?;
    // Place, length and width lie in one sector: either all are new or none.
    let first = header.serialise()?;
    let fields = first.get(48..first.len().min(104)).unwrap_or_default();
    store(walk.file, 48, fields).await?;
    walk.file.flush().await?;
    walk.report.check.image_end_offset = end << bits;
    Ok(Rebuilt { blocks, beyond })
}
