//! The outer form of the stream: sections with footers, one after the other.
//!
//! It is the form that QEMU gives its streams (all integers big-endian), so that tools which look
//! into those read ours: a header, the section CONFIGURATION with the machine's name, RAM in parts,
//! one FULL section for each device, the end, and a description of the sections in JSON. What is
//! in a device's section is our own: its length and an encoded blob.
//!
//! A [`Writer`] and a [`Reader`] belong to one thread each. The bytes that are read come from
//! anybody: lengths are bounded before memory is taken for them, and nothing panics.

use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;

use resources::iol::IoBuf;
use resources::ram::RamBlock;

use crate::link::Link;

/// "QEVM".
pub const MAGIC: u32 = 0x5145_564d;
/// The version of the outer form.
pub const VERSION: u32 = 3;

/// The kinds of sections.
pub mod kind {
    /// The last one.
    pub const EOF: u8 = 0;
    /// The first part of one that is sent in parts.
    pub const START: u8 = 1;
    /// A further part.
    pub const PART: u8 = 2;
    /// The last part.
    pub const END: u8 = 3;
    /// One that is sent at once.
    pub const FULL: u8 = 4;
    /// The description of all that was sent, in JSON, after the end.
    pub const DESCRIPTION: u8 = 6;
    /// The name of the machine.
    pub const CONFIGURATION: u8 = 7;
    /// What the other side is to do.
    pub const COMMAND: u8 = 8;
    /// A page that comes after the guest: no section. Ours.
    pub const LATE: u8 = 0x81;
    /// The end of a section.
    pub const FOOTER: u8 = 0x7e;
}

/// What the other side can be told to do.
pub mod command {
    /// Answer from now on: the connection goes both ways.
    pub const OPEN_RETURN_PATH: u16 = 1;
    /// Answer this, when everything before it was read.
    pub const PING: u16 = 2;
    /// Memory may come after the guest: say which, or refuse.
    pub const POSTCOPY_ADVISE: u16 = 3;
    /// The disks are free: take them. Ours.
    pub const TAKE: u16 = 0x8001;
    /// Run the guest: it is yours. Ours.
    pub const GO: u16 = 0x8002;
    /// All memory was sent that comes after the guest. Ours.
    pub const ALL_SENT: u16 = 0x8003;
}

/// What the destination answers.
pub mod answer {
    /// To a PING, with its number.
    pub const PONG: u16 = 2;
    /// Everything was loaded. Ours.
    pub const LOADED: u16 = 0x8001;
    /// It has the disks and could run. Ours.
    pub const READY: u16 = 0x8002;
    /// It is about to run the guest. Ours.
    pub const RUNNING: u16 = 0x8003;
    /// This memory may come after the guest. Ours.
    pub const LATE: u16 = 0x8004;
    /// Somebody waits for this page. Ours.
    pub const REQUEST: u16 = 0x8005;
    /// All memory is here. Ours.
    pub const FULL: u16 = 0x8006;
    /// It will not run the guest; the reason as text. Ours.
    pub const FAILED: u16 = 0x80ff;
}

/// Why a migration has failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection broke, or the stream ended before its end.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The stream is not one that can be taken; the text is for the user.
    #[error("{0}")]
    Bad(String),
    /// This side cannot go on.
    #[error("{0}")]
    Here(String),
    /// The other side does not take the guest.
    #[error("the destination refused: {0}")]
    Refused(String),
    /// It was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// A stream that cannot be taken.
    pub fn bad(text: impl Into<String>) -> Error {
        Error::Bad(text.into())
    }
}

/// Bytes that are collected before they are written.
const CHUNK: usize = 256 << 10;
/// Memory is copied in pieces of so many bytes, where it must be.
const COPY: usize = 64 << 10;
/// Memory of fewer bytes is collected too.
const FEW: usize = 32 << 10;

/// What memory can be written to, too.
pub trait MemoryWrite: Write {
    /// Writes all of `memory`, as it is at some time before this returns. It may change meanwhile.
    ///
    /// # Errors
    /// Not all of it was written.
    fn write_memory(&mut self, memory: &IoBuf) -> io::Result<()>;
}

impl MemoryWrite for Vec<u8> {
    fn write_memory(&mut self, memory: &IoBuf) -> io::Result<()> {
        copy(memory, self)
    }
}

impl<L: Link> MemoryWrite for L {
    fn write_memory(&mut self, memory: &IoBuf) -> io::Result<()> {
        self.send_memory(memory)
    }
}

/// A name of at most 255 bytes, as it stands in the stream.
pub(crate) fn name(name: &str) -> Result<Vec<u8>, Error> {
    let len = u8::try_from(name.len())
        .map_err(|_| Error::Here(format!("the name '{name}' is too long for the stream")))?;
    Ok([&[len], name.as_bytes()].concat())
}

/// Writes a copy of `memory`.
pub(crate) fn copy(memory: &IoBuf, to: &mut (impl Write + ?Sized)) -> io::Result<()> {
    let mut at = 0;
    let mut bytes = vec![0; memory.len().min(COPY)];
    loop {
        let count = memory.copy_to(at, &mut bytes);
        if count == 0 {
            return Ok(());
        }
        to.write_all(bytes.get(..count).unwrap_or_default())?;
        at += count;
    }
}

/// Writes a stream.
pub struct Writer<W> {
    to: W,
    buffer: Vec<u8>,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// A stream on `to`.
    pub fn new(to: W) -> Writer<W> {
        Writer { to, buffer: Vec::with_capacity(CHUNK + (8 << 10)), written: 0 }
    }

    /// What it writes to.
    pub fn channel(&mut self) -> &mut W {
        &mut self.to
    }

    /// Bytes so far.
    pub fn written(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Sends what was collected.
    ///
    /// # Errors
    /// The connection has broken.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.send()?;
        Ok(self.to.flush()?)
    }

    fn send(&mut self) -> Result<(), Error> {
        self.to.write_all(&self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// The connection has broken.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.buffer.len() >= CHUNK {
            self.send()?;
        }
        if bytes.len() > CHUNK {
            self.send()?;
            self.to.write_all(bytes)?;
            self.written += bytes.len() as u64;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Adds memory as it is when it is sent, which much of it is at once.
    ///
    /// # Errors
    /// The connection has broken.
    pub fn memory(&mut self, memory: &IoBuf) -> Result<(), Error>
    where
        W: MemoryWrite,
    {
        if memory.len() <= FEW {
            if self.buffer.len() >= CHUNK {
                self.send()?;
            }
            let start = self.buffer.len();
            self.buffer.resize(start + memory.len(), 0);
            memory.copy_to(0, self.buffer.get_mut(start..).unwrap_or_default());
            return Ok(());
        }
        self.send()?;
        self.to.write_memory(memory)?;
        self.written += memory.len() as u64;
        Ok(())
    }

    /// Adds a byte.
    ///
    /// # Errors
    /// The connection has broken.
    pub fn u8(&mut self, value: u8) -> Result<(), Error> {
        self.bytes(&[value])
    }

    /// Adds two bytes.
    ///
    /// # Errors
    /// The connection has broken.
    pub fn u16(&mut self, value: u16) -> Result<(), Error> {
        self.bytes(&value.to_be_bytes())
    }

    /// Adds four bytes.
    ///
    /// # Errors
    /// The connection has broken.
    pub fn u32(&mut self, value: u32) -> Result<(), Error> {
        self.bytes(&value.to_be_bytes())
    }

    /// Adds eight bytes.
    ///
    /// # Errors
    /// The connection has broken.
    pub fn u64(&mut self, value: u64) -> Result<(), Error> {
        self.bytes(&value.to_be_bytes())
    }

    /// Adds a name of at most 255 bytes.
    ///
    /// # Errors
    /// It is longer, or the connection has broken.
    pub fn name(&mut self, name: &str) -> Result<(), Error> {
        self.bytes(&self::name(name)?)
    }

    /// Begins the stream of a machine of this name.
    ///
    /// # Errors
    /// The connection has broken.
    pub fn begin(&mut self, machine: &str) -> Result<(), Error> {
        self.u32(MAGIC)?;
        self.u32(VERSION)?;
        self.u8(kind::CONFIGURATION)?;
        self.blob(machine.as_bytes())
    }

    /// Begins a section, that of [`kind::START`] or [`kind::FULL`].
    ///
    /// # Errors
    /// The connection has broken.
    pub fn section(&mut self, kind: u8, id: u32, name: &str, version: u32) -> Result<(), Error> {
        self.u8(kind)?;
        self.u32(id)?;
        self.name(name)?;
        self.u32(0)?;
        self.u32(version)
    }

    /// Begins a further part of a section.
    ///
    /// # Errors
    /// The connection has broken.
    pub fn part(&mut self, kind: u8, id: u32) -> Result<(), Error> {
        self.u8(kind)?;
        self.u32(id)
    }

    /// Ends a section, or a part of it.
    ///
    /// # Errors
    /// The connection has broken.
    pub fn footer(&mut self, id: u32) -> Result<(), Error> {
        self.u8(kind::FOOTER)?;
        self.u32(id)
    }

    /// Adds bytes with their number before them.
    ///
    /// # Errors
    /// There are too many, or the connection has broken.
    pub fn blob(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let len = u32::try_from(bytes.len())
            .map_err(|_| Error::Here("a section is too long for the stream".to_owned()))?;
        self.u32(len)?;
        self.bytes(bytes)
    }

    /// Tells the other side to do something, now.
    ///
    /// # Errors
    /// The connection has broken.
    pub fn command(&mut self, command: u16, data: &[u8]) -> Result<(), Error> {
        self.u8(kind::COMMAND)?;
        self.u16(command)?;
        self.u16(u16::try_from(data.len()).unwrap_or(0))?;
        self.bytes(data)?;
        self.flush()
    }
}

/// Reads a stream.
pub struct Reader<R> {
    from: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl<R: Read> Reader<R> {
    /// The stream on `from`.
    pub fn new(from: R) -> Reader<R> {
        Reader { from, buffer: vec![0; CHUNK].into_boxed_slice(), start: 0, end: 0 }
    }

    /// What it reads from.
    pub fn channel(&mut self) -> &mut R {
        &mut self.from
    }

    /// Whether bytes were read that nobody has had yet.
    pub fn has_input(&self) -> bool {
        self.start < self.end
    }

    /// Fills `bytes`.
    ///
    /// # Errors
    /// The connection has broken, or the stream has ended.
    pub fn bytes(&mut self, mut bytes: &mut [u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            if self.start == self.end {
                self.fill()?;
            }
            let have = self.buffer.get(self.start..self.end).unwrap_or_default();
            let take = have.len().min(bytes.len());
            let (now, later) = bytes.split_at_mut(take);
            now.copy_from_slice(have.get(..take).unwrap_or_default());
            self.start += take;
            bytes = later;
        }
        Ok(())
    }

    /// Fills a range of `block`, up to its end.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes); a part of it may be filled then.
    pub fn memory(&mut self, block: &RamBlock, range: Range<u64>) -> Result<(), Error> {
        let mut at = range.start;
        while at < range.end {
            if self.start == self.end {
                self.fill()?;
            }
            let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
            let end = self.end.min(self.start.saturating_add(left));
            let have = self.buffer.get(self.start..end).unwrap_or_default();
            block.write(at, have);
            at += have.len() as u64;
            self.start = end;
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<(), Error> {
        loop {
            match self.from.read(&mut self.buffer) {
                Ok(0) => {
                    let text = "the stream ended before its end";
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, text).into());
                }
                Ok(count) => {
                    (self.start, self.end) = (0, count);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.bytes(&mut bytes)?;
        Ok(bytes)
    }

    /// A byte.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes); all that follow too.
    pub fn u8(&mut self) -> Result<u8, Error> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// Two bytes.
    ///
    /// # Errors
    /// The stream ends.
    pub fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes.
    ///
    /// # Errors
    /// The stream ends.
    pub fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// The stream ends.
    pub fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_be_bytes)
    }

    /// A name.
    ///
    /// # Errors
    /// It is not text, or the stream ends.
    pub fn name(&mut self) -> Result<String, Error> {
        let mut bytes = vec![0; self.u8()?.into()];
        self.bytes(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| Error::bad("a name in the stream is not text"))
    }

    /// Bytes with their number before them, of which there may be `most`.
    ///
    /// # Errors
    /// There are more, or the stream ends.
    pub fn blob(&mut self, what: &str, most: usize) -> Result<Vec<u8>, Error> {
        let len = self.u32()? as usize;
        if len > most {
            return Err(Error::bad(format!("{what} of {len} bytes is longer than {most}")));
        }
        // Memory is taken as the bytes come: a length alone costs nothing.
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let from = bytes.len();
            bytes.resize(len.min(from + CHUNK), 0);
            self.bytes(bytes.get_mut(from..).unwrap_or_default())?;
        }
        Ok(bytes)
    }

    /// The beginning of a stream; returns the name of its machine.
    ///
    /// # Errors
    /// It is not one, or not of this version.
    pub fn begin(&mut self) -> Result<String, Error> {
        if self.u32()? != MAGIC {
            return Err(Error::bad("Not a migration stream"));
        }
        match self.u32()? {
            VERSION => {}
            2 => return Err(Error::bad("SaveVM v2 format is obsolete and don't work anymore")),
            other => {
                return Err(Error::bad(format!("Unsupported migration stream version {other}")));
            }
        }
        if self.u8()? != kind::CONFIGURATION {
            return Err(Error::bad("Configuration section missing"));
        }
        let name = self.blob("the name of the machine", 255)?;
        String::from_utf8(name).map_err(|_| Error::bad("the name of the machine is not text"))
    }

    /// The end of a section.
    ///
    /// # Errors
    /// There is something else.
    pub fn footer(&mut self, id: u32, name: &str) -> Result<(), Error> {
        if self.u8()? != kind::FOOTER {
            return Err(Error::bad(format!("Missing section footer for {name}")));
        }
        let found = self.u32()?;
        if found != id {
            return Err(Error::bad(format!(
                "Mismatched section id in footer for {name} - read {found:#x} expected {id:#x}"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::new(Vec::new());
        writer.begin("pc").unwrap();
        writer.section(kind::FULL, 7, "/machine/rtc", 1).unwrap();
        writer.blob(&[9; 300_000]).unwrap();
        writer.footer(7).unwrap();
        writer.u8(kind::EOF).unwrap();
        writer.flush().unwrap();
        let bytes = std::mem::take(writer.channel());
        assert_eq!(writer.written(), bytes.len() as u64);
        assert_eq!(bytes[..17], *b"QEVM\0\0\0\x03\x07\0\0\0\x02pc\x04\0");
        let mut reader = Reader::new(&bytes[..]);
        assert_eq!(reader.begin().unwrap(), "pc");
        assert_eq!((reader.u8().unwrap(), reader.u32().unwrap()), (kind::FULL, 7));
        assert_eq!(reader.name().unwrap(), "/machine/rtc");
        assert_eq!((reader.u32().unwrap(), reader.u32().unwrap()), (0, 1));
        assert_eq!(reader.blob("it", 1 << 20).unwrap(), [9; 300_000]);
        reader.footer(7, "it").unwrap();
        assert_eq!(reader.u8().unwrap(), kind::EOF);
        assert!(matches!(reader.u8(), Err(Error::Io(_))));
    }

    #[test]
    fn other_streams_are_refused_with_the_reason() {
        let refused = |bytes: &[u8]| Reader::new(bytes).begin().unwrap_err().to_string();
        assert_eq!(refused(b"QEVX\0\0\0\x03"), "Not a migration stream");
        assert!(refused(b"QEVM\0\0\0\x02").contains("obsolete"));
        assert!(refused(b"QEVM\0\0\0\x04").contains("version 4"));
        assert!(refused(b"QEVM\0\0\0\x03\x07\xff\xff\xff\xff").contains("longer than 255"));
        assert!(refused(b"QEV").contains("ended"));
    }

    proptest! {
        #[test]
        fn lengths_take_no_memory_before_their_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::new(&bytes[..]);
            let _ = reader.blob("it", usize::MAX);
            let _ = Reader::new(&bytes[..]).name();
            let _ = Reader::new(&bytes[..]).begin();
        }
    }
}
