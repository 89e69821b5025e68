//! The copied flags of the active tables: set where the refcount is exactly 1, and only there.
//!
//! A flag too many lets a write go to what a snapshot has, too; one too few costs a copy.

use std::io;

use super::super::access::{load, store};
use super::super::bytes::{be64, put};
use super::compare::Refcounts;
use super::walk::{COMPRESSED, COPIED, OFFSET, Walk};

/// Checks all flags, and mends them. The refcounts are those of the image, durable.
pub(super) async fn check(walk: &mut Walk<'_>, refcounts: &mut Refcounts<'_>) -> io::Result<()> {
    let (offset, entries) = (walk.header.l1_offset, walk.header.l1_entries);
    // What cannot be read was reported before.
    if let Ok(mut table) = load(walk.file, offset, u64::from(entries) * 8).await
        && flags(walk, refcounts, &mut table, Level::L1).await?
    {
        store(walk.file, offset, &table).await?;
    }
    if walk.header.external_data() {
        // Nobody counts clusters there.
        return Ok(());
    }
    let mut from = 0;
    while let Some(cluster) = walk.active.next(from) {
        from = cluster + 1;
        let offset = cluster << walk.header.cluster_bits;
        if let Ok(mut table) = load(walk.file, offset, walk.header.cluster_size()).await
            && flags(walk, refcounts, &mut table, Level::L2).await?
        {
            store(walk.file, offset, &table).await?;
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Level {
    L1,
    L2,
}

/// The flags of one table; true when some were mended.
async fn flags(
    walk: &mut Walk<'_>,
    refcounts: &mut Refcounts<'_>,
    table: &mut [u8],
    level: Level,
) -> io::Result<bool> {
    let bits = match level {
        Level::L1 => 3,
        Level::L2 => walk.header.l2_entry_bits(),
    };
    let mut mended = false;
    for (index, bytes) in table.chunks_exact_mut(1 << bits).enumerate() {
        let entry = be64(bytes, 0);
        let offset = entry & OFFSET;
        let cluster = offset >> walk.header.cluster_bits;
        let compressed = level == Level::L2 && entry & COMPRESSED != 0;
        let damaged = !walk.header.is_aligned(offset) || cluster >= walk.clusters;
        if offset == 0 || compressed || damaged {
            continue;
        }
        let refcount = match refcounts.get(cluster).await {
            Ok(refcount) => refcount,
            Err(error) => {
                walk.report
                    .failure(|| format!("Can't get refcount for cluster {cluster}: {error}"));
                continue;
            }
        };
        if (refcount == 1) == (entry & COPIED != 0) {
            continue;
        }
        let mends = walk.report.repair_damage;
        let check = &mut walk.report.check;
        let counter = if mends { &mut check.corruptions_fixed } else { &mut check.corruptions };
        *counter += 1;
        let word = if mends { "Repairing" } else { "ERROR" };
        walk.report.line(|| match level {
            Level::L1 => format!(
                "{word} OFLAG_COPIED L2 cluster: l1_index={index} l1_entry={entry:x} \
                 refcount={refcount}"
            ),
            Level::L2 => {
                format!("{word} OFLAG_COPIED data cluster: l2_entry={entry:x} refcount={refcount}")
            }
        });
        if mends {
            put(bytes, 0, &(entry ^ COPIED).to_be_bytes());
            mended = true;
        }
    }
    Ok(mended)
}
