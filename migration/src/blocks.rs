//! Disks in the stream: the section `block` with its records of chunks, where the contents of
//! disks move too.
//!
//! A record is eight bytes, where the chunk begins with flags below, then the disk's name, then
//! [`CHUNK`] bytes, of which only those count that the disk has. Everything that is to be moved
//! goes first (the bulk), then, beside the pages of memory, what the guest has written meanwhile.
//! Sizes are compared before ([`Inventory`](crate::inventory::Inventory)).
//!
//! Each side belongs to its thread. What the receiver reads comes from anybody: names and offsets
//! are checked against the disks that it was given, and it takes one chunk of memory.

use std::io::{self, Read, Write};

use crate::stream::{Error, Reader, Writer};

/// The version of the section.
pub const VERSION: u32 = 1;
/// The name of the section.
pub const NAME: &str = "block";
/// Bytes of a chunk.
pub const CHUNK: u64 = 1 << 20;

const CHUNK_LEN: usize = CHUNK as usize;

/// Flags of a record.
mod flag {
    pub(super) const DEVICE_BLOCK: u64 = 0x01;
    pub(super) const EOS: u64 = 0x02;
    pub(super) const PROGRESS: u64 = 0x04;
    pub(super) const ZERO_BLOCK: u64 = 0x08;
    pub(super) const ALL: u64 = 0x1ff;
}

/// A part of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk<'a> {
    /// From this offset on there are these bytes.
    Data(u64, &'a [u8]),
    /// From this offset on there are so many zeros.
    Zeros(u64, u64),
}

/// A disk on the sending side, which tells what is still to be sent.
pub trait Source: Send {
    /// Its name, at most 255 bytes.
    fn name(&self) -> &str;
    /// Bytes of it.
    fn size(&self) -> u64;
    /// Bytes that are to be sent.
    fn left(&self) -> u64;
    /// Reads the next chunk, of at most [`CHUNK`] bytes and from a multiple of it on, into
    /// `buffer`. `None` if there is none now.
    ///
    /// # Errors
    /// What the host reports.
    fn next<'a>(&mut self, buffer: &'a mut Vec<u8>) -> io::Result<Option<Chunk<'a>>>;
}

/// A disk on the receiving side.
pub trait Sink: Send {
    /// Its name.
    fn name(&self) -> &str;
    /// Bytes of it.
    fn size(&self) -> u64;
    /// Takes a chunk, which is within it.
    ///
    /// # Errors
    /// What the host reports.
    fn write(&mut self, chunk: &Chunk<'_>) -> io::Result<()>;
    /// Makes it durable.
    ///
    /// # Errors
    /// What the host reports.
    fn flush(&mut self) -> io::Result<()>;
}

/// How it stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bytes of all disks.
    pub total: u64,
    /// Bytes of them that were sent, some more than once.
    pub transferred: u64,
    /// Bytes that are still to be sent.
    pub remaining: u64,
}

/// Disks on the sending side.
pub struct Sender {
    disks: Vec<Box<dyn Source>>,
    /// The disk that is looked at.
    at: usize,
    /// Chunks of zeros are sent as such.
    zeros: bool,
    /// Bytes that were to be sent at first, and those that were sent.
    bulk: u64,
    sent: u64,
    /// Per cent of the bulk, as they were told.
    percent: u64,
    buffer: Vec<u8>,
}

impl Sender {
    /// These disks are to be sent; `zeros`: chunks of zeros as such.
    pub fn new(disks: Vec<Box<dyn Source>>, zeros: bool) -> Sender {
        let bulk = disks.iter().map(|disk| disk.left()).fold(0, u64::saturating_add);
        Sender { disks, at: 0, zeros, bulk, sent: 0, percent: 0, buffer: Vec::new() }
    }

    /// Bytes that are to be sent.
    pub fn left(&self) -> u64 {
        self.disks.iter().map(|disk| disk.left()).fold(0, u64::saturating_add)
    }

    /// Whether not everything was sent once yet.
    pub fn is_bulk(&self) -> bool {
        self.sent < self.bulk
    }

    /// How it stands.
    pub fn figures(&self) -> Figures {
        let total = self.disks.iter().map(|disk| disk.size()).fold(0, u64::saturating_add);
        Figures { total, transferred: self.sent, remaining: self.left() }
    }

    /// Sends the next chunk; `false` if there is none now.
    ///
    /// # Errors
    /// The connection has broken, or a disk cannot be read.
    pub fn send(&mut self, to: &mut Writer<impl Write>) -> Result<bool, Error> {
        for _ in 0..self.disks.len() {
            let Some(disk) = self.disks.get_mut(self.at) else { break };
            let mut buffer = std::mem::take(&mut self.buffer);
            let len = match disk.next(&mut buffer) {
                Ok(Some(chunk)) => Some(record(to, self.zeros, disk.name(), &chunk)?),
                Ok(None) => None,
                Err(error) => {
                    return Err(Error::Here(format!("disk '{}': {error}", disk.name())));
                }
            };
            self.buffer = buffer;
            if let Some(len) = len {
                self.sent = self.sent.saturating_add(len);
                self.tell_progress(to)?;
                return Ok(true);
            }
            self.at = (self.at + 1) % self.disks.len();
        }
        // Nothing is left that was there at first.
        self.sent = self.sent.max(self.bulk);
        Ok(false)
    }

    /// Per cent, whenever they are others.
    fn tell_progress(&mut self, to: &mut Writer<impl Write>) -> Result<(), Error> {
        let of = u128::from(self.bulk.max(1));
        let percent = u128::from(self.sent.min(self.bulk)) * 100 / of;
        let percent = u64::try_from(percent).unwrap_or(100);
        if percent == self.percent {
            return Ok(());
        }
        self.percent = percent;
        to.u64(percent << 9 | flag::PROGRESS)
    }

    /// Ends the part.
    ///
    /// # Errors
    /// The connection has broken.
    pub fn end_part(&mut self, to: &mut Writer<impl Write>) -> Result<(), Error> {
        to.u64(flag::EOS)
    }
}

/// Writes a record; gives the bytes of the disk that it has.
fn record(
    to: &mut Writer<impl Write>,
    zeros: bool,
    name: &str,
    chunk: &Chunk<'_>,
) -> Result<u64, Error> {
    let (offset, data, len) = match *chunk {
        Chunk::Data(offset, data) => (offset, data, data.len() as u64),
        Chunk::Zeros(offset, len) => (offset, [].as_slice(), len),
    };
    if zeros && matches!(chunk, Chunk::Zeros(..)) {
        to.u64(offset | flag::DEVICE_BLOCK | flag::ZERO_BLOCK)?;
        to.name(name)?;
        return Ok(len);
    }
    to.u64(offset | flag::DEVICE_BLOCK)?;
    to.name(name)?;
    to.bytes(data)?;
    // The last chunk of a disk is filled up.
    let rest = CHUNK_LEN.saturating_sub(data.len());
    to.bytes(&vec![0; rest])?;
    Ok(len)
}

/// Disks on the receiving side.
pub struct Receiver {
    disks: Vec<Box<dyn Sink>>,
    buffer: Vec<u8>,
}

impl Receiver {
    /// These disks are to be written.
    pub fn new(disks: Vec<Box<dyn Sink>>) -> Receiver {
        Receiver { disks, buffer: vec![0; CHUNK_LEN] }
    }

    /// Reads a part of the section.
    ///
    /// # Errors
    /// It is not one that these disks can take, a disk cannot be written, or the stream ends.
    pub fn part(&mut self, from: &mut Reader<impl Read>) -> Result<(), Error> {
        loop {
            let head = from.u64()?;
            let (offset, flags) = (head & !flag::ALL, head & flag::ALL);
            match flags {
                flag::EOS => return Ok(()),
                flag::PROGRESS => tracing::debug!("disks: {} %", offset >> 9),
                flag::DEVICE_BLOCK => self.chunk(from, offset, false)?,
                flags if flags == flag::DEVICE_BLOCK | flag::ZERO_BLOCK => {
                    self.chunk(from, offset, true)?;
                }
                _ => {
                    return Err(Error::bad(format!("Unknown block migration flags: {flags:#x}")));
                }
            }
        }
    }

    fn chunk(
        &mut self,
        from: &mut Reader<impl Read>,
        offset: u64,
        zeros: bool,
    ) -> Result<(), Error> {
        let name = from.name()?;
        let found = self.disks.iter_mut().find(|disk| disk.name() == name);
        let disk = found.ok_or_else(|| Error::bad(format!("Error unknown block device {name}")))?;
        let len = CHUNK.min(disk.size().saturating_sub(offset));
        if len == 0 {
            return Err(Error::bad(format!("a chunk at {offset:#x} is past the end of '{name}'")));
        }
        let done = if zeros {
            disk.write(&Chunk::Zeros(offset, len))
        } else {
            from.bytes(&mut self.buffer)?;
            let data = self.buffer.get(..usize::try_from(len).unwrap_or(CHUNK_LEN));
            let data = data.unwrap_or_default();
            match data.iter().all(|byte| *byte == 0) {
                true => disk.write(&Chunk::Zeros(offset, len)),
                false => disk.write(&Chunk::Data(offset, data)),
            }
        };
        done.map_err(|error| Error::Here(format!("disk '{name}': {error}")))
    }

    /// Makes everything durable.
    ///
    /// # Errors
    /// What the host reports.
    pub fn flush(&mut self) -> Result<(), Error> {
        for disk in &mut self.disks {
            let done = disk.flush();
            done.map_err(|error| Error::Here(format!("disk '{}': {error}", disk.name())))?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
