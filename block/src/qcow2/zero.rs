//! Making ranges zero, and giving them up.
//!
//! Whole clusters change in their tables only. A place that is given up is free for others when
//! that is durable and nobody uses it any more. On the image's loop; ranges are the guest's.

use std::io;

use resources::iol::IoBuf;

use super::Qcow2;
use super::bytes::errno;
use super::geometry::{ALL_DATA, ALL_ZERO, COMPRESSED, Entry, Sub, ZERO};
use super::header::RAW_DATA;
use super::options::Freed;
use crate::node::Zero;

/// Zeros are written in pieces of this many bytes.
const ZEROS: u64 = 1 << 20;

/// What becomes of clusters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// They are zeros and keep their places.
    Zero,
    /// They are zeros and lose their places.
    Unmap,
    /// They are nothing of this image, or zeros where something may show from below.
    Discard,
    /// They are nothing of this image.
    Drop,
}

impl Qcow2 {
    pub(super) async fn zero_range(&self, offset: u64, len: u64, how: Zero) -> io::Result<()> {
        let geometry = self.geometry();
        let fate = match how {
            Zero::MayUnmap if self.options.discard => Fate::Unmap,
            Zero::MayUnmap | Zero::Keep => Fate::Zero,
        };
        if self.is_raw() {
            self.data.zero(offset, len, how).await?;
        }
        let mut end = offset.checked_add(len).ok_or(errno(libc::EINVAL))?;
        // Nobody sees what is behind the end of the disk.
        if end == self.size.get() {
            end = geometry.ceil(end);
        }
        let unit = geometry.sub();
        let first = offset.checked_next_multiple_of(unit).ok_or(errno(libc::EINVAL))?;
        let last = end & !(unit - 1);
        if first >= last {
            return self.zero_part(offset, end.min(self.end_of(offset, end))).await;
        }
        self.zero_part(offset, first).await?;
        self.zero_units(first, last, fate).await?;
        self.zero_part(last, end).await
    }

    /// The end of the disk, if it is in a range; the end of the range otherwise.
    fn end_of(&self, offset: u64, end: u64) -> u64 {
        let size = self.size.get();
        if size > offset && size < end { size } else { end }
    }

    /// The guest's data are a raw image by themselves.
    fn is_raw(&self) -> bool {
        self.geometry().external && self.header.borrow().autoclear & RAW_DATA != 0
    }

    /// Writes zeros where there are none yet, or none that stay.
    async fn zero_part(&self, mut at: u64, end: u64) -> io::Result<()> {
        while at < end {
            let len = (end - at).min(ZEROS);
            if !self.stays_zero(at, len).await? {
                self.write_anywhere(at, IoBuf::zeroed(len as usize)).await?;
            }
            at += len;
        }
        Ok(())
    }

    /// Makes whole subclusters zero.
    async fn zero_units(&self, mut at: u64, end: u64, fate: Fate) -> io::Result<()> {
        let geometry = self.geometry();
        while at < end {
            let len = (end - at).min(geometry.left_in_slice(at));
            let table = self.table_of(at)?;
            if table.is_none() && !self.may_show() {
                // The whole table, if nothing is there; the disk may be large and empty.
                at += (end - at).min(geometry.left_in_table(at));
                continue;
            }
            if !geometry.zeros {
                self.zero_old(at, len, fate).await?;
            } else if let Some(partial) = self.change_slice(at, len, fate).await? {
                // Compressed in part: it is unpacked.
                self.zero_part(partial.start, partial.end).await?;
                at = partial.end;
                continue;
            }
            at += len;
        }
        Ok(())
    }

    /// Version 2 has no entry for zeros: nothing at all will do where nothing can show.
    async fn zero_old(&self, at: u64, len: u64, fate: Fate) -> io::Result<()> {
        if fate == Fate::Unmap && !self.may_show() {
            return self.change_slice(at, len, Fate::Drop).await.map(drop);
        }
        self.zero_part(at, at + len).await
    }

    pub(super) async fn discard_range(&self, offset: u64, len: u64) -> io::Result<()> {
        let geometry = self.geometry();
        let end = geometry.floor(offset.checked_add(len).ok_or(errno(libc::EINVAL))?);
        let start = geometry.ceil(offset);
        if !self.options.discard || start >= end {
            return Ok(());
        }
        if geometry.external {
            self.data.discard(start, end - start).await?;
            if self.is_raw() {
                return Ok(());
            }
        }
        self.forget_range(start, end, Fate::Discard).await
    }

    /// Forgets the contents of whole clusters; what lies below shows.
    pub(super) async fn drop_range_of_guest(&self, start: u64, end: u64) -> io::Result<()> {
        self.forget_range(start, end, Fate::Drop).await
    }

    async fn forget_range(&self, start: u64, end: u64, fate: Fate) -> io::Result<()> {
        let geometry = self.geometry();
        let mut at = start;
        while at < end {
            let span = geometry.cluster_bits + geometry.l2_bits;
            if self.table_of(at)?.is_none() {
                match self.l1.next_used(geometry.l1_index(at)) {
                    Some(index) => at = at.max(index << span),
                    None => return Ok(()),
                }
                continue;
            }
            let len = (end - at).min(geometry.left_in_slice(at));
            self.change_slice(at, len, fate).await?;
            at += len;
        }
        Ok(())
    }

    /// Changes the entries of whole subclusters in one slice. A part of a compressed cluster stays:
    /// where the first one of those is.
    async fn change_slice(
        &self,
        at: u64,
        len: u64,
        fate: Fate,
    ) -> io::Result<Option<std::ops::Range<u64>>> {
        let geometry = self.geometry();
        let clusters = self.cluster_range(at, len);
        self.flights.free(clusters.clone()).await;
        let flight = self.flights.take(clusters.clone());
        let forgets = matches!(fate, Fate::Discard | Fate::Drop);
        if forgets && self.is_gone(at, len, fate).await? {
            return Ok(None);
        }
        let table = self.own_table(at).await?;
        let below = self.may_show();
        let start = clusters.start << geometry.cluster_bits;
        let mut freed = Vec::new();
        let mut partial = None;
        loop {
            let change = |data: &mut [u8]| {
                let (_, index) = geometry.in_slice(start);
                for more in 0..(clusters.end - clusters.start) as usize {
                    let from = start + ((more as u64) << geometry.cluster_bits);
                    let first = at.max(from) - from;
                    let last = (at + len).min(from + geometry.cluster()) - from;
                    let old = geometry.entry(data, index + more);
                    let whole = last - first == geometry.cluster();
                    if old.word & COMPRESSED != 0 && !whole {
                        partial = Some(from + first..from + last);
                        break;
                    }
                    let subs = (first >> geometry.sub_bits, last >> geometry.sub_bits);
                    let new = self.changed(old, subs, fate, below);
                    if new == old {
                        continue;
                    }
                    geometry.put_entry(data, index + more, new);
                    if geometry.host(new).is_none() {
                        freed.push(old);
                    }
                }
            };
            if self.l2.change(table + slice_of(&geometry, at), change).is_some() {
                break;
            }
            self.load_l2(table + slice_of(&geometry, at)).await?;
        }
        freed.into_iter().for_each(|old| self.give_up_entry(old, Freed::Request));
        drop(flight);
        if self.has_much_freed() {
            self.flush_metadata().await?;
        }
        Ok(partial)
    }

    /// A discard would change nothing.
    async fn is_gone(&self, at: u64, len: u64, fate: Fate) -> io::Result<bool> {
        let Some(table) = self.table_of(at)? else { return Ok(true) };
        let geometry = self.geometry();
        let below = self.may_show();
        let (slice, index) = geometry.in_slice(at);
        let count = (len >> geometry.cluster_bits) as usize;
        loop {
            let all = (0, 1 << (geometry.cluster_bits - geometry.sub_bits));
            let same = |data: &[u8]| {
                (0..count).all(|more| {
                    let entry = geometry.entry(data, index + more);
                    self.changed(entry, all, fate, below) == entry
                })
            };
            match self.l2.look(table + slice, same) {
                Some(same) => return Ok(same),
                None => self.load_l2(table + slice).await?,
            }
        }
    }

    /// The new entry of a cluster of which some subclusters are changed: all of them, unless it
    /// has subclusters and is not compressed. `below`: something else may show where it has
    /// nothing.
    fn changed(&self, old: Entry, subs: (u64, u64), fate: Fate, below: bool) -> Entry {
        let geometry = self.geometry();
        let nothing = Entry::default();
        let host = geometry.host(old).is_some();
        let kept = host && (fate == Fate::Zero || geometry.external && fate == Fate::Unmap);
        let mask = (1u64 << subs.1) - (1u64 << subs.0);
        let whole = mask == ALL_DATA || !geometry.has_subs();
        if fate == Fate::Discard && below {
            // What was there before the image had it is not to come back.
            return match host || old.word & COMPRESSED != 0 {
                true if geometry.has_subs() => Entry { word: 0, subs: ALL_ZERO },
                true if geometry.zeros => Entry { word: ZERO, subs: 0 },
                _ => old,
            };
        }
        if matches!(fate, Fate::Discard | Fate::Drop) {
            // What is zero without a place hides what is below: that stays.
            let hides = if geometry.has_subs() {
                old.subs & ALL_ZERO != 0
            } else {
                matches!(geometry.state(old, 0), Ok(Sub::Zero))
            };
            let stays = below && hides && !host && old.word & COMPRESSED == 0;
            return if stays { old } else { nothing };
        }
        let is_absent = !host
            && old.word & COMPRESSED == 0
            && old.subs & (mask | mask << 32) == 0
            && (geometry.has_subs() || old.word & ZERO == 0);
        if is_absent && !below {
            return old;
        }
        if !geometry.has_subs() {
            return Entry { word: if kept { old.word | ZERO } else { ZERO }, subs: 0 };
        }
        if whole {
            return Entry { word: if kept { old.word } else { 0 }, subs: ALL_ZERO };
        }
        Entry { word: old.word, subs: (old.subs & !mask) | mask << 32 }
    }
}

fn slice_of(geometry: &super::geometry::Geometry, at: u64) -> u64 {
    geometry.in_slice(at).0
}
