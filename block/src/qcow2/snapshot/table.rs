//! The snapshot table: records of different lengths, one behind the other.
//!
//! On the loop of the graph, no lock. Every length comes from whoever made the image and is bounded
//! before it is used; what a record says of its L1 table is checked when that is read. What later
//! versions put into a record, and this one does not know, is kept.

use std::io;

use super::super::access::load;
use super::super::bytes::{be16, be32, be64, get};
use super::super::header::{Header, MAX_L1_BYTES};
use crate::image::Snapshot;
use crate::node::Node;

/// Bytes of the table, at most.
const MAX_TABLE: u64 = 64 << 20;
/// Bytes of the extra data of a record, at most.
const MAX_EXTRA: usize = 1024;
/// Bytes of a record before its extra data.
const FIXED: usize = 40;
/// No record is longer.
const LONGEST: u64 = (FIXED + MAX_EXTRA + 2 * u16::MAX as usize + 8) as u64;

/// A snapshot as the table has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct Record {
    /// Where its L1 table is, in bytes.
    pub(in super::super) l1_offset: u64,
    /// Entries of its L1 table.
    pub(in super::super) l1_entries: u32,
    /// Its identity, unique: a decimal number.
    pub(in super::super) id: Vec<u8>,
    /// Its name.
    pub(in super::super) name: Vec<u8>,
    /// Seconds and nanoseconds since 1970.
    pub(in super::super) date: (u32, u32),
    /// The guest's clock, in nanoseconds.
    pub(in super::super) vm_clock: u64,
    /// Bytes of the machine's state.
    pub(in super::super) vm_state_size: u64,
    /// Bytes of the disk; the image's when the record does not tell.
    pub(in super::super) disk_size: u64,
    /// Extra data behind those understood.
    pub(in super::super) extra: Vec<u8>,
}

impl Record {
    /// What is told about it.
    pub(in super::super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            id: String::from_utf8_lossy(&self.id).into_owned(),
            name: String::from_utf8_lossy(&self.name).into_owned(),
            vm_state_size: self.vm_state_size,
            date: self.date,
            vm_clock: self.vm_clock,
            disk_size: self.disk_size,
        }
    }

    /// Whether its L1 table can be read.
    pub(in super::super) fn l1_is_valid(&self, header: &Header) -> bool {
        let bytes = u64::from(self.l1_entries) * 8;
        bytes <= MAX_L1_BYTES
            && header.is_aligned(self.l1_offset)
            && self.l1_offset.checked_add(bytes).is_some_and(|end| end <= i64::MAX as u64)
    }

    /// Appends the record to a table.
    fn put(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let len = |bytes: &[u8]| {
            u16::try_from(bytes.len()).map_err(|_| invalid("a snapshot's name is too long"))
        };
        out.extend_from_slice(&self.l1_offset.to_be_bytes());
        out.extend_from_slice(&self.l1_entries.to_be_bytes());
        out.extend_from_slice(&len(&self.id)?.to_be_bytes());
        out.extend_from_slice(&len(&self.name)?.to_be_bytes());
        out.extend_from_slice(&self.date.0.to_be_bytes());
        out.extend_from_slice(&self.date.1.to_be_bytes());
        out.extend_from_slice(&self.vm_clock.to_be_bytes());
        // Superseded by the extra data.
        let small = u32::try_from(self.vm_state_size).unwrap_or(0);
        out.extend_from_slice(&small.to_be_bytes());
        out.extend_from_slice(&(16 + self.extra.len() as u32).to_be_bytes());
        out.extend_from_slice(&self.vm_state_size.to_be_bytes());
        out.extend_from_slice(&self.disk_size.to_be_bytes());
        out.extend_from_slice(&self.extra);
        out.extend_from_slice(&self.id);
        out.extend_from_slice(&self.name);
        out.resize(out.len().next_multiple_of(8), 0);
        Ok(())
    }

    /// The record at the beginning of `data`, and how many bytes it takes.
    fn parse(data: &[u8], header: &Header) -> io::Result<(Record, usize)> {
        let short = || invalid("the snapshot table ends within a record");
        if data.len() < FIXED {
            return Err(short());
        }
        let (id_len, name_len) = (usize::from(be16(data, 12)), usize::from(be16(data, 14)));
        let extra_len = be32(data, 36) as usize;
        if extra_len > MAX_EXTRA {
            return Err(invalid("a snapshot has too much extra data"));
        }
        let extra = get(data, FIXED, extra_len).ok_or_else(short)?;
        let id = get(data, FIXED + extra_len, id_len).ok_or_else(short)?;
        let name = get(data, FIXED + extra_len + id_len, name_len).ok_or_else(short)?;
        let record = Record {
            l1_offset: be64(data, 0),
            l1_entries: be32(data, 8),
            id: id.to_vec(),
            name: name.to_vec(),
            date: (be32(data, 16), be32(data, 20)),
            vm_clock: be64(data, 24),
            vm_state_size: match extra_len {
                0..8 => u64::from(be32(data, 32)),
                _ => be64(extra, 0),
            },
            disk_size: if extra_len < 16 { header.size } else { be64(extra, 8) },
            extra: extra.get(16..).unwrap_or_default().to_vec(),
        };
        let len = FIXED + extra_len + id_len + name_len;
        Ok((record, len.next_multiple_of(8)))
    }
}

/// An error for a table that makes no sense.
fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Reads the snapshot table; also tells how many bytes it takes.
///
/// # Errors
/// When it cannot be read, or makes no sense.
pub(in super::super) async fn load_table(
    file: &dyn Node,
    header: &Header,
) -> io::Result<(Vec<Record>, u64)> {
    let mut records = Vec::new();
    let (mut window, mut start, mut at) = (Vec::new(), 0u64, 0usize);
    for _ in 0..header.snapshots {
        if (window.len().saturating_sub(at) as u64) < LONGEST {
            // The rest of what was read, and what follows it.
            start += at as u64;
            at = 0;
            let offset = header.snapshots_offset.saturating_add(start);
            let rest = file.info().size.saturating_sub(offset);
            window = load(file, offset, rest.min(2 * LONGEST)).await?;
        }
        let (record, len) = Record::parse(window.get(at..).unwrap_or_default(), header)?;
        at += len;
        if start + at as u64 > MAX_TABLE {
            return Err(invalid("the snapshot table is too large"));
        }
        records.push(record);
    }
    Ok((records, start + at as u64))
}

/// The table of these snapshots, as it is written.
///
/// # Errors
/// When it would be larger than can be read again.
pub(in super::super) fn serialise_table(records: &[Record]) -> io::Result<Vec<u8>> {
    let mut table = Vec::new();
    for record in records {
        record.put(&mut table)?;
    }
    if table.len() as u64 > MAX_TABLE {
        return Err(invalid("the snapshot table would be too large"));
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    fn records() -> Vec<Record> {
        let mut records: Vec<_> = (0..2000u32)
            .map(|number| Record {
                l1_offset: u64::from(number) << 16,
                l1_entries: number,
                id: number.to_string().into_bytes(),
                name: vec![b'n'; number as usize % 300],
                date: (number, 5),
                vm_clock: 7,
                vm_state_size: u64::from(number) << 30,
                disk_size: 512,
                extra: vec![9; number as usize % 9],
            })
            .collect();
        records[3].name = vec![b'x'; usize::from(u16::MAX)];
        records
    }

    fn read(data: Vec<u8>, snapshots: u32) -> io::Result<(Vec<Record>, u64)> {
        let header = Header { snapshots, snapshots_offset: 0, ..Header::default() };
        let file = Memory::new(data, u64::MAX);
        resources::iol::Loop::new("test").unwrap().run(load_table(&*file, &header))
    }

    #[test]
    fn what_is_written_is_read() {
        let records = records();
        let table = serialise_table(&records).unwrap();
        let len = table.len() as u64;
        assert_eq!(read(table.clone(), 2000).unwrap(), (records.clone(), len));
        assert_eq!(read(table.clone(), 100).unwrap().0, records[..100]);
        read(table, 2001).unwrap_err();
    }

    #[test]
    fn short_records_are_completed() {
        let mut old = vec![0; 48];
        old[12..16].copy_from_slice(&[0, 1, 0, 2]);
        old[35] = 17;
        old[40..43].copy_from_slice(b"1ab");
        let (records, len) = read(old, 1).unwrap();
        assert_eq!(
            (records[0].snapshot().id, records[0].snapshot().name, len),
            ("1".into(), "ab".into(), 48)
        );
        assert_eq!((records[0].vm_state_size, records[0].disk_size), (17, 0));
    }

    #[test]
    fn lengths_are_bounded() {
        let mut bad = vec![0; 4096];
        bad[36..40].copy_from_slice(&1025u32.to_be_bytes());
        read(bad, 1).unwrap_err();
        read(vec![0xff; 40], 1).unwrap_err();
        read(Vec::new(), u32::MAX).unwrap_err();
    }
}
