//! How addresses of the guest lead through the tables, and what an L2 entry says.
//!
//! Pure functions. Entries come from the image: an offset is checked where it is used.

use std::io;

use super::bytes::{be64, errno, put};
use super::header::Header;

/// In an entry of an L1 or L2 table: the refcount of what it refers to is exactly 1.
pub(super) const COPIED: u64 = 1 << 63;
/// In an L2 entry: the cluster is compressed.
pub(super) const COMPRESSED: u64 = 1 << 62;
/// In an L2 entry of version 3 without subclusters: reads as zeros.
pub(super) const ZERO: u64 = 1;
/// The offset in an entry.
pub(super) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// Bits of the bitmap of subclusters: all allocated.
pub(super) const ALL_DATA: u64 = 0xffff_ffff;
/// Bits of the bitmap of subclusters: all zero.
pub(super) const ALL_ZERO: u64 = ALL_DATA << 32;

/// What does not change while an image is open.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    /// Binary logarithm of the bytes of a cluster.
    pub(super) cluster_bits: u32,
    /// Of the entries of an L2 table.
    pub(super) l2_bits: u32,
    /// Of the bytes of an L2 entry.
    pub(super) entry_bits: u32,
    /// Of the bytes of the piece of a table that is read and written at once.
    pub(super) slice_bits: u32,
    /// Of the bytes of a subcluster; of a cluster where there are none.
    pub(super) sub_bits: u32,
    /// Of the bits of a refcount.
    pub(super) refcount_order: u32,
    /// Data are in a file of their own, at the guest's offsets.
    pub(super) external: bool,
    /// Entries can say that they are zeros: from version 3 on.
    pub(super) zeros: bool,
}

/// An L2 entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Entry {
    /// Offset and flags.
    pub(super) word: u64,
    /// The bitmap of subclusters; zero where there are none.
    pub(super) subs: u64,
}

/// What a subcluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sub {
    /// What lies below shows.
    Absent,
    /// Zeros.
    Zero,
    /// Data at its place in the cluster of the entry.
    Data,
    /// A part of a compressed cluster.
    Compressed,
}

/// What a run of the guest's bytes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// What lies below shows.
    Absent,
    /// Zeros.
    Zero,
    /// Data, from this offset of the data file on.
    Data(u64),
    /// In a compressed cluster.
    Compressed(Entry),
}

/// A run of the guest's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// What it is.
    pub(super) what: What,
    /// Bytes; at least 1.
    pub(super) len: u64,
    /// Its clusters are referred to once only: data may be written where they are.
    pub(super) copied: bool,
}

impl Geometry {
    /// With tables read and written in pieces of so many bytes, a power of two.
    pub(super) fn of(header: &Header, piece: Option<u64>) -> Geometry {
        let piece = piece.map_or(12, u64::ilog2);
        Geometry {
            cluster_bits: header.cluster_bits,
            l2_bits: header.l2_bits(),
            entry_bits: header.l2_entry_bits(),
            slice_bits: piece.clamp(9, header.cluster_bits),
            sub_bits: header.subcluster_size().ilog2(),
            refcount_order: header.refcount_order,
            external: header.external_data(),
            zeros: header.version >= 3,
        }
    }

    pub(super) fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    pub(super) fn sub(&self) -> u64 {
        1 << self.sub_bits
    }

    pub(super) fn slice(&self) -> usize {
        1 << self.slice_bits
    }

    pub(super) fn has_subs(&self) -> bool {
        self.sub_bits != self.cluster_bits
    }

    /// Entries in a slice of an L2 table.
    pub(super) fn slice_entries(&self) -> u64 {
        1 << (self.slice_bits - self.entry_bits)
    }

    /// An offset in its cluster.
    pub(super) fn within(&self, offset: u64) -> u64 {
        offset & (self.cluster() - 1)
    }

    /// The beginning of an offset's cluster.
    pub(super) fn floor(&self, offset: u64) -> u64 {
        offset & !(self.cluster() - 1)
    }

    /// The first beginning of a cluster that is not before `offset`.
    pub(super) fn ceil(&self, offset: u64) -> u64 {
        self.floor(offset.saturating_add(self.cluster() - 1))
    }

    /// The index in the L1 table.
    pub(super) fn l1_index(&self, guest: u64) -> u64 {
        guest >> (self.cluster_bits + self.l2_bits)
    }

    /// The index in the L2 table.
    pub(super) fn l2_index(&self, guest: u64) -> u64 {
        guest >> self.cluster_bits & ((1 << self.l2_bits) - 1)
    }

    /// Where in its L2 table the slice with the entry begins, and the entry's index in the slice.
    pub(super) fn in_slice(&self, guest: u64) -> (u64, usize) {
        let at = self.l2_index(guest) << self.entry_bits;
        let slice = at & !(self.slice() as u64 - 1);
        (slice, ((at - slice) >> self.entry_bits) as usize)
    }

    /// Bytes of the guest from `guest` to the end of what its slice maps.
    pub(super) fn left_in_slice(&self, guest: u64) -> u64 {
        let span = self.slice_entries() << self.cluster_bits;
        span - (guest & (span - 1))
    }

    /// Bytes of the guest from `guest` to the end of what its L2 table maps.
    pub(super) fn left_in_table(&self, guest: u64) -> u64 {
        let span = 1u64 << (self.cluster_bits + self.l2_bits);
        span - (guest & (span - 1))
    }

    pub(super) fn entry(&self, slice: &[u8], index: usize) -> Entry {
        let at = index << self.entry_bits;
        let subs = if self.has_subs() { be64(slice, at + 8) } else { 0 };
        Entry { word: be64(slice, at), subs }
    }

    pub(super) fn put_entry(&self, slice: &mut [u8], index: usize, entry: Entry) {
        let at = index << self.entry_bits;
        put(slice, at, &entry.word.to_be_bytes());
        if self.has_subs() {
            put(slice, at + 8, &entry.subs.to_be_bytes());
        }
    }

    /// The cluster that an entry refers to and that is not compressed: with data, or only kept.
    pub(super) fn host(&self, entry: Entry) -> Option<u64> {
        if entry.word & COMPRESSED != 0 {
            return None;
        }
        let host = entry.word & OFFSET;
        // The first cluster of a data file is one like others.
        (host != 0 || self.external && entry.word & COPIED != 0).then_some(host)
    }

    /// What the subcluster with this index is.
    ///
    /// # Errors
    /// When the entry contradicts itself.
    pub(super) fn state(&self, entry: Entry, index: u64) -> io::Result<Sub> {
        if entry.word & COMPRESSED != 0 {
            return if self.external { Err(errno(libc::EIO)) } else { Ok(Sub::Compressed) };
        }
        let host = self.host(entry);
        if !self.has_subs() {
            return Ok(match host {
                _ if entry.word & ZERO != 0 && !self.zeros => return Err(errno(libc::EIO)),
                _ if entry.word & ZERO != 0 => Sub::Zero,
                Some(_) => Sub::Data,
                None => Sub::Absent,
            });
        }
        let (data, zero) = (entry.subs >> index & 1, entry.subs >> (32 + index) & 1);
        match (data, zero, host) {
            (0, 0, _) => Ok(Sub::Absent),
            (0, _, _) => Ok(Sub::Zero),
            (_, 0, Some(_)) => Ok(Sub::Data),
            _ => Err(errno(libc::EIO)),
        }
    }

    /// What lies at `guest`, whose slice this is, up to `len` bytes and the end of the slice.
    ///
    /// # Errors
    /// The image's mistakes: an entry that contradicts itself, an offset that is no cluster's.
    pub(super) fn scan(&self, slice: &[u8], guest: u64, len: u64) -> io::Result<Run> {
        let len = len.min(self.left_in_slice(guest)).max(1);
        let (_, mut index) = self.in_slice(guest);
        let mut entry = self.entry(slice, index);
        let within = self.within(guest);
        let mut sub = within >> self.sub_bits;
        let first = self.state(entry, sub)?;
        let own = |entry: Entry| self.external || entry.word & COPIED != 0;
        let copied = own(entry);
        let host = self.host(entry).unwrap_or(0);
        let misplaced = self.external && first == Sub::Data && host != self.floor(guest);
        if self.within(host) != 0 || misplaced {
            return Err(errno(libc::EIO));
        }
        let what = match first {
            Sub::Absent => What::Absent,
            Sub::Zero => What::Zero,
            Sub::Data => What::Data(host + within),
            Sub::Compressed => What::Compressed(entry),
        };
        let subs = 1 << (self.cluster_bits - self.sub_bits);
        let mut done = self.sub() - (guest & (self.sub() - 1));
        if let What::Compressed(_) = what {
            return Ok(Run { what, len: (self.cluster() - within).min(len), copied });
        }
        while done < len {
            sub += 1;
            if sub == subs {
                (sub, index) = (0, index + 1);
                let before = entry;
                entry = self.entry(slice, index);
                let follows = match (first, self.host(entry)) {
                    (Sub::Data, Some(next)) => {
                        self.host(before) == next.checked_sub(self.cluster())
                    }
                    _ => true,
                };
                if !follows || first == Sub::Data && copied != own(entry) {
                    break;
                }
            }
            if self.state(entry, sub).ok() != Some(first) {
                break;
            }
            done += self.sub();
        }
        Ok(Run { what, len: done.min(len), copied })
    }

    /// Where the bytes of a compressed cluster are, and how many they may be at most.
    pub(super) fn compressed(&self, entry: Entry) -> (u64, u64) {
        let bits = 62 - (self.cluster_bits - 8);
        let host = entry.word & ((1 << bits) - 1);
        let more = entry.word >> bits & ((1 << (self.cluster_bits - 8)) - 1);
        (host, (more + 1) * 512 - (host & 511))
    }

    /// The entry of a compressed cluster; `None` when it would lie too far behind.
    pub(super) fn compressed_entry(&self, host: u64, len: u64) -> Option<Entry> {
        let bits = 62 - (self.cluster_bits - 8);
        let last = host.checked_add(len.checked_sub(1)?)?;
        if last >> bits != 0 {
            return None;
        }
        let more = (last >> 9) - (host >> 9);
        Some(Entry { word: COMPRESSED | more << bits | host, subs: 0 })
    }

    /// Refcounts in a slice of a refcount block.
    pub(super) fn slice_counts(&self) -> u64 {
        1 << (self.slice_bits + 3 - self.refcount_order)
    }

    /// Binary logarithm of the refcounts in a refcount block.
    pub(super) fn block_bits(&self) -> u32 {
        self.cluster_bits + 3 - self.refcount_order
    }
}
