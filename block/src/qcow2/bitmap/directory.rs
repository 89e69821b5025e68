//! The directory of persistent bitmaps, and their tables.
//!
//! On the loop of the graph, no lock. Sizes and offsets come from whoever made the image and are
//! bounded before anything is read or allocated by them.

use std::collections::BTreeSet;
use std::io;

use super::super::access::load;
use super::super::bytes::{be16, be32, be64, get};
use super::super::header::{BitmapDirectory, Header, MAX_BITMAP_DIRECTORY, MAX_BITMAPS};
use crate::node::Node;

/// Flag of a bitmap: it was being changed and may be wrong.
pub(in super::super) const IN_USE: u32 = 1;
/// Flag: it is to be kept up to date by whoever writes the image.
pub(in super::super) const AUTO: u32 = 1 << 1;
/// Flag: extra data that are not understood do no harm.
pub(in super::super) const EXTRA_COMPATIBLE: u32 = 1 << 2;
const KNOWN_FLAGS: u32 = IN_USE | AUTO | EXTRA_COMPATIBLE;
/// The type of dirty bitmaps.
const DIRTY_TRACKING: u8 = 1;
/// Binary logarithms of the bytes that a bit stands for.
pub(in super::super) const GRANULARITY_BITS: std::ops::RangeInclusive<u8> = 9..=31;
/// Entries of a bitmap's table, at most.
const MAX_TABLE_ENTRIES: u32 = 0x800_0000;
/// Bytes of a bitmap's bits, at most.
pub(in super::super) const MAX_BITMAP_BYTES: u64 = 512 << 20;
/// Bytes of a bitmap's name, at most.
pub(in super::super) const MAX_NAME: usize = 1023;
/// Bytes of an entry before its extra data.
const FIXED: usize = 24;

/// Entry of a bitmap's table: where a cluster of bits is.
pub(in super::super) const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// Entry of a bitmap's table without offset: all bits are set.
pub(in super::super) const ALL_ONES: u64 = 1;
/// Bits of an entry that must be zero.
const RESERVED: u64 = !(OFFSET_MASK | ALL_ONES);

/// A bitmap as the directory has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Entry {
    /// Where its table is, in bytes.
    pub(in super::super) table_offset: u64,
    /// Entries of its table.
    pub(in super::super) table_entries: u32,
    /// [`IN_USE`], [`AUTO`], [`EXTRA_COMPATIBLE`].
    pub(in super::super) flags: u32,
    /// Binary logarithm of the bytes that a bit stands for.
    pub(in super::super) granularity_bits: u8,
    /// Its name.
    pub(in super::super) name: Vec<u8>,
    /// Extra data, which are not understood.
    pub(in super::super) extra: Vec<u8>,
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl Entry {
    /// The entry at the beginning of `data`, and how many bytes it takes.
    fn parse(data: &[u8], header: &Header) -> io::Result<(Entry, usize)> {
        let short = || invalid("the directory of bitmaps ends within an entry");
        if data.len() < FIXED {
            return Err(short());
        }
        let (name_len, extra_len) = (usize::from(be16(data, 18)), be32(data, 20) as usize);
        let extra = get(data, FIXED, extra_len).ok_or_else(short)?;
        let name = get(data, FIXED.saturating_add(extra_len), name_len).ok_or_else(short)?;
        let entry = Entry {
            table_offset: be64(data, 0),
            table_entries: be32(data, 8),
            flags: be32(data, 12),
            granularity_bits: data.get(17).copied().unwrap_or_default(),
            name: name.to_vec(),
            extra: extra.to_vec(),
        };
        let end = entry
            .table_offset
            .checked_add(u64::from(entry.table_entries) * 8)
            .filter(|end| *end <= i64::MAX as u64);
        let valid = data.get(16) == Some(&DIRTY_TRACKING)
            && entry.flags & !KNOWN_FLAGS == 0
            && (extra_len == 0 || entry.flags & EXTRA_COMPATIBLE != 0)
            && GRANULARITY_BITS.contains(&entry.granularity_bits)
            && (1..=MAX_NAME).contains(&name_len)
            && entry.table_entries <= MAX_TABLE_ENTRIES
            && u64::from(entry.table_entries) << header.cluster_bits <= MAX_BITMAP_BYTES
            && entry.table_offset != 0
            && header.is_aligned(entry.table_offset)
            && end.is_some();
        if !valid {
            return Err(invalid("a bitmap in the directory makes no sense"));
        }
        Ok((entry, (FIXED + extra_len + name_len).next_multiple_of(8)))
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.table_offset.to_be_bytes());
        out.extend_from_slice(&self.table_entries.to_be_bytes());
        out.extend_from_slice(&self.flags.to_be_bytes());
        out.extend_from_slice(&[DIRTY_TRACKING, self.granularity_bits]);
        // Both are as short as when they were read or checked.
        out.extend_from_slice(&(self.name.len() as u16).to_be_bytes());
        out.extend_from_slice(&(self.extra.len() as u32).to_be_bytes());
        out.extend_from_slice(&self.extra);
        out.extend_from_slice(&self.name);
        out.resize(out.len().next_multiple_of(8), 0);
    }

    /// Reads its table.
    ///
    /// # Errors
    /// When that fails, or an entry makes no sense.
    pub(in super::super) async fn load_table(
        &self,
        file: &dyn Node,
        header: &Header,
    ) -> io::Result<Vec<u64>> {
        let bytes = u64::from(self.table_entries) * 8;
        if self.table_offset.saturating_add(bytes) > file.info().size {
            return Err(invalid("the table of a bitmap lies behind the end of the file"));
        }
        let data = load(file, self.table_offset, bytes).await?;
        let table: Vec<u64> = data.chunks_exact(8).map(|bytes| be64(bytes, 0)).collect();
        let valid = |entry: &u64| {
            let offset = entry & OFFSET_MASK;
            entry & RESERVED == 0
                && header.is_aligned(offset)
                && (offset == 0 || entry & ALL_ONES == 0)
        };
        if !table.iter().all(valid) {
            return Err(invalid("an entry in the table of a bitmap makes no sense"));
        }
        Ok(table)
    }
}

/// Reads the directory.
///
/// # Errors
/// When it cannot be read, or makes no sense.
pub(in super::super) async fn load_directory(
    file: &dyn Node,
    header: &Header,
    place: &BitmapDirectory,
) -> io::Result<Vec<Entry>> {
    let end = place.offset.checked_add(place.size);
    if place.size > MAX_BITMAP_DIRECTORY
        || place.count > MAX_BITMAPS
        || !header.is_aligned(place.offset)
        || end.is_none_or(|end| end > file.info().size)
    {
        return Err(invalid("the directory of bitmaps is not in the file"));
    }
    let data = load(file, place.offset, place.size).await?;
    let mut entries = Vec::new();
    let mut names = BTreeSet::new();
    let mut at = 0;
    while at < data.len() {
        let (entry, len) = Entry::parse(data.get(at..).unwrap_or_default(), header)?;
        if !names.insert(entry.name.clone()) {
            return Err(invalid("two bitmaps have the same name"));
        }
        entries.push(entry);
        at += len;
        if entries.len() as u64 > u64::from(place.count) || at > data.len() {
            return Err(invalid("the directory of bitmaps has another size"));
        }
    }
    if entries.len() as u64 != u64::from(place.count) {
        return Err(invalid("the directory of bitmaps has another size"));
    }
    Ok(entries)
}

/// The directory of these bitmaps, as it is written.
///
/// # Errors
/// When it would be larger than can be read again.
pub(in super::super) fn serialise_directory(entries: &[Entry]) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    entries.iter().for_each(|entry| entry.put(&mut data));
    if data.len() as u64 > MAX_BITMAP_DIRECTORY || entries.len() as u64 > u64::from(MAX_BITMAPS) {
        return Err(invalid("there would be too many bitmaps"));
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    fn read(data: Vec<u8>, count: u32) -> io::Result<Vec<Entry>> {
        let place = BitmapDirectory { count, size: data.len() as u64, offset: 0 };
        let file = Memory::new(data, u64::MAX);
        let header = Header::default();
        resources::iol::Loop::new("test").unwrap().run(load_directory(&*file, &header, &place))
    }

    fn entry(name: &str) -> Entry {
        Entry {
            table_offset: 5 << 16,
            table_entries: 3,
            flags: AUTO,
            granularity_bits: 16,
            name: name.into(),
            extra: Vec::new(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let with_extra =
            Entry { flags: EXTRA_COMPATIBLE, extra: vec![1, 2, 3], ..entry("other bitmap") };
        let entries = vec![entry("a"), with_extra, entry("c")];
        let data = serialise_directory(&entries).unwrap();
        assert_eq!(read(data.clone(), 3).unwrap(), entries);
        read(data.clone(), 2).unwrap_err();
        read(data.clone(), 4).unwrap_err();
        read(data[..data.len() - 8].to_vec(), 3).unwrap_err();
        let twice = serialise_directory(&[entry("a"), entry("b"), entry("a")]).unwrap();
        assert_eq!(read(twice, 3).unwrap_err().to_string(), "two bitmaps have the same name");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let changes: [fn(&mut Entry); 7] = [
            |entry| entry.flags = 8,
            |entry| entry.granularity_bits = 8,
            |entry| entry.granularity_bits = 32,
            |entry| entry.table_offset += 512,
            |entry| entry.table_entries = u32::MAX,
            |entry| entry.name.clear(),
            |entry| entry.extra = vec![1],
        ];
        for change in changes {
            let mut bad = entry("a");
            change(&mut bad);
            read(serialise_directory(&[bad]).unwrap(), 1).unwrap_err();
        }
        read(vec![0xff; 64], 1).unwrap_err();
    }
}
