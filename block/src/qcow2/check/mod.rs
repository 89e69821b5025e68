//! Checking an image, and mending it.
//!
//! | piece | file |
//! |---|---|
//! | who uses which cluster | `walk.rs`, counted in `pages.rs` |
//! | the image's refcounts against that | `compare.rs` |
//! | new refcounts | `rebuild.rs` |
//! | the copied flags | `copied.rs` |
//! | what was found | `report.rs` |
//!
//! Everything is read from the file, past all caches. On the loop of the graph, no lock; nobody
//! else writes the image meanwhile. The image is anybody's: tables are bounded by what the header
//! may say and by the size of the file, each is read a bounded number of times, and counts have a
//! budget of memory. Where something cannot be followed, nothing is freed.

mod compare;
mod copied;
mod pages;
mod rebuild;
mod report;
mod walk;

use std::io;

use self::compare::Refcounts;
use self::report::Report;
use self::walk::Walk;
use super::access::{load, store};
use super::bytes::errno;
use super::header::{BITMAPS, CORRUPT, DIRTY, Header};
use crate::image::{Check, Repair};
use crate::node::Node;

/// Looks at all metadata of the image in `file`, and mends some. `header` is what the file says, as
/// it was read, and is changed with it. When nothing wrong is left, the marks of damage and of
/// refcounts that are behind are taken off.
///
/// The caller has written what it kept in caches, and reads it again afterwards.
///
/// # Errors
/// When the image is too large to be counted, or cannot be written. What cannot be read is told in
/// [`Check::check_errors`].
pub(super) async fn run(file: &dyn Node, header: &mut Header, repair: Repair) -> io::Result<Check> {
    if repair != Repair::No && header.bitmaps.is_some() && header.autoclear & BITMAPS == 0 {
        // They are not true any more, and their clusters are about to be freed.
        header.bitmaps = None;
        store(file, 0, &header.serialise()?).await?;
        file.flush().await?;
    }
    let mut report = Report::new(repair);
    let seen = header.clone();
    let mut walk = Walk::new(file, &seen, &mut report);
    walk.run().await?;
    let (damage, leaks) = (walk.report.check.corruptions, walk.report.check.leaks);
    let mut table = compare::structure(&mut walk).await?;
    compare::compare(&mut walk, &mut table).await?;
    file.flush().await?;
    let mut blocks = table.blocks.clone();
    if table.rebuild && walk.report.repair_damage && !walk.report.blind {
        let rebuilt = rebuild::rebuild(&mut walk, &table, header, false).await?;
        blocks = rebuilt.blocks;
        let check = &mut walk.report.check;
        let mended = (check.corruptions - damage).saturating_sub(rebuilt.beyond);
        check.corruptions -= mended;
        check.corruptions_fixed += mended;
        check.leaks_fixed += check.leaks - leaks;
        check.leaks = leaks;
        // Now that they are counted, what is used for two things is still wrong.
        let mut from = 0;
        while let Some(cluster) = walk.kinds.next(from) {
            from = cluster + 1;
            let count = u64::from(walk.counts.get(cluster));
            compare::overlap(&mut walk, cluster, count);
        }
        walk.report.line(|| "Rebuilt the refcounts".into());
    }
    let mut refcounts = Refcounts::new(file, header, blocks);
    copied::check(&mut walk, &mut refcounts).await?;
    let mut check = report.check;
    check.total_clusters = header.size.div_ceil(header.cluster_size());
    if repair != Repair::No {
        file.flush().await?;
        if check.corruptions == 0 && check.check_errors == 0 {
            mark_clean(file, header).await?;
        }
    }
    Ok(check)
}

/// Checks an image that nobody has opened, and mends some. Only its header must be in order.
///
/// # Errors
/// When the header is refused, the image is too large to be counted or cannot be written.
pub async fn check_file(file: &dyn Node, repair: Repair) -> io::Result<Check> {
    let size = file.info().size;
    let start = load(file, 0, size.min(512)).await?;
    let first = load(file, 0, size.min(Header::wanted(&start) as u64)).await?;
    let mut header = Header::parse(&first)?;
    run(file, &mut header, repair).await
}

/// Gives the image refcounts of another width, `1 << order` bits. As [`run`].
///
/// # Errors
/// Those of the file; when the image is damaged, or one of its refcounts would not fit. The image
/// is as before then.
pub(super) async fn widen(file: &dyn Node, header: &mut Header, order: u32) -> io::Result<()> {
    let seen = header.clone();
    let mut report = Report::new(Repair::No);
    let mut walk = Walk::new(file, &seen, &mut report);
    walk.run().await?;
    let mut table = compare::structure(&mut walk).await?;
    compare::compare(&mut walk, &mut table).await?;
    if walk.report.check.corruptions + walk.report.check.check_errors > 0 || walk.report.blind {
        return Err(errno(libc::EIO));
    }
    header.refcount_order = order;
    rebuild::rebuild(&mut walk, &table, header, true).await.map(drop)
}

/// Takes off the marks of damage, and of refcounts that are behind.
async fn mark_clean(file: &dyn Node, header: &mut Header) -> io::Result<()> {
    if header.incompatible & (DIRTY | CORRUPT) == 0 {
        return Ok(());
    }
    header.incompatible &= !(DIRTY | CORRUPT);
    store(file, 72, &header.incompatible.to_be_bytes()).await?;
    file.flush().await
}

#[cfg(test)]
#[path = "../tests/check.rs"]
mod tests;
