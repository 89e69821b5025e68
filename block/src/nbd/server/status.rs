//! What block status tells: holes and zeros of a disk, or what a bitmap says.
//!
//! On the disk's loop, no lock. The client chooses the range, which lies inside the export; how
//! many extents it gets is bounded here.

use std::io;

use crate::chain::{self, Content, Place};
use crate::disk::Disk;
use crate::nbd::wire::state;

/// Most extents of one reply.
const MOST: usize = 4096;
/// Most times that a node is asked for one reply.
const LOOKS: usize = 2 * MOST;

/// A dirty bitmap as a client sees it.
pub trait Bitmap {
    /// Whether what lies at `offset` is dirty, and for how many bytes that is so: at least 1, at
    /// most `len`.
    fn extent(&self, offset: u64, len: u64) -> (bool, u64);
}

/// Extents: length in bytes, and flags.
pub(super) type Extents = Vec<(u32, u32)>;

/// Collects extents of a range, joining those that are equal.
struct List {
    offset: u64,
    end: u64,
    most: usize,
    looks: usize,
    extents: Extents,
}

impl List {
    fn new(offset: u64, len: u64, one: bool) -> List {
        let most = if one { 1 } else { MOST };
        List { offset, end: offset.saturating_add(len), most, looks: 0, extents: Vec::new() }
    }

    /// Where the next extent is to be looked for; `None` when there are enough.
    fn next(&self) -> Option<(u64, u64)> {
        // One more is not looked for: it could be equal to the last one, but need not be.
        let left = self.end.saturating_sub(self.offset);
        let enough = self.extents.len() > self.most || self.looks >= LOOKS;
        (left > 0 && !enough).then_some((self.offset, left))
    }

    fn add(&mut self, len: u64, flags: u32) {
        self.looks += 1;
        let len = u32::try_from(len.max(1)).unwrap_or(u32::MAX);
        self.offset = self.offset.saturating_add(u64::from(len));
        match self.extents.last_mut() {
            Some((last, same)) if *same == flags && last.checked_add(len).is_some() => *last += len,
            _ => self.extents.push((len, flags)),
        }
    }

    fn finish(mut self) -> Extents {
        self.extents.truncate(self.most);
        self.extents
    }
}

/// The extents of a dirty bitmap.
pub(super) fn dirty(bitmap: &dyn Bitmap, offset: u64, len: u64, one: bool) -> Extents {
    let mut list = List::new(offset, len, one);
    while let Some((offset, len)) = list.next() {
        let (dirty, count) = bitmap.extent(offset, len);
        list.add(count.min(len), if dirty { state::DIRTY } else { 0 });
    }
    list.finish()
}

/// The extents of `base:allocation`.
pub(super) async fn allocation(
    disk: &Disk,
    offset: u64,
    len: u64,
    one: bool,
) -> io::Result<Extents> {
    extents(disk, List::new(offset, len, one), |place| match place.content {
        Content::Data => 0,
        _ => state::HOLE | state::ZERO,
    })
    .await
}

/// The extents of `qemu:allocation-depth`: 1 for what the topmost image has, 0 for what none has.
pub(super) async fn depth(disk: &Disk, offset: u64, len: u64, one: bool) -> io::Result<Extents> {
    extents(disk, List::new(offset, len, one), |place| match place.content {
        Content::Data | Content::Zero => place.depth.saturating_add(1),
        // Its end is what the shorter layer has there, as others' servers tell.
        Content::Beyond => place.depth.saturating_add(2),
        Content::Nothing => 0,
    })
    .await
}

async fn extents(disk: &Disk, mut list: List, tell: impl Fn(&Place) -> u32) -> io::Result<Extents> {
    while let Some((offset, len)) = list.next() {
        let request = disk.begin(offset, len).await?;
        let place = chain::look(&request.node, offset, len, None).await?;
        list.add(place.len, tell(&place));
    }
    Ok(list.finish())
}
