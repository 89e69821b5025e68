//! What block status tells: holes and zeros of a disk, or what a bitmap says.
//!
//! On the disk's loop, no lock. The client chooses the range, which lies inside the export; how
//! many extents it gets is bounded here.

use std::io;
use std::rc::Rc;

use crate::disk::Disk;
use crate::nbd::wire::state;
use crate::node::{Node, State};

/// Most extents of one reply.
const MOST: usize = 4096;
/// Most times that a node is asked for one reply.
const LOOKS: usize = 2 * MOST;
/// Most images below each other that are looked at.
const DEPTH: usize = 1024;

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
    let mut list = List::new(offset, len, one);
    while let Some((offset, len)) = list.next() {
        let top = disk.map(offset, len).await?;
        let (len, zero) = match top.state {
            State::Data => (top.len, false),
            State::Zero => (top.len, true),
            State::Absent => below(disk.node(), offset, top.len.min(len)).await?,
        };
        list.add(len, if zero { state::HOLE | state::ZERO } else { 0 });
    }
    Ok(list.finish())
}

/// Looks into the backing images of a node that has nothing there: how far it is the same, and
/// whether that is zeros.
async fn below(node: Rc<dyn Node>, offset: u64, len: u64) -> io::Result<(u64, bool)> {
    let (mut node, mut len) = (node, len);
    for _ in 0..DEPTH {
        let Some(backing) = node.image().and_then(|image| image.backing()) else {
            return Ok((len, true));
        };
        let left = backing.info().size.saturating_sub(offset);
        if left == 0 {
            return Ok((len, true));
        }
        let extent = backing.map(offset, len.min(left)).await?;
        len = extent.len.min(len.min(left)).max(1);
        match extent.state {
            State::Data => return Ok((len, false)),
            State::Zero => return Ok((len, true)),
            State::Absent => node = backing,
        }
    }
    Ok((len, false))
}
