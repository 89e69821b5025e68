//! Disks whose contents move with the guest, into disks that the destination has already.
//!
//! The thread of the migration reads and writes them on their loops. While they move they are in
//! use: nobody else can change what they are. What comes from a peer is written to the disks that
//! it has announced, whose sizes were compared, and to no others.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use block::drive::Drive;
use block::transfer::{self, Content, Receiving, Sending};
use migration::blocks::{self, Chunk, Sink, Source};

use super::writable;
use crate::vm::Vm;

/// What of the disks is to move.
#[derive(Clone)]
pub(super) struct Copies {
    drives: Vec<Arc<Drive>>,
    /// Only what the topmost images have.
    top_only: bool,
    /// Chunks of zeros are sent as such.
    zeros: bool,
}

impl Copies {
    /// Begins to look at what is written, and has everything sent.
    pub(super) fn sender(&self) -> Result<blocks::Sender, String> {
        let mut disks: Vec<Box<dyn Source>> = Vec::new();
        for drive in &self.drives {
            let sending = Sending::start(drive, self.top_only);
            let sending = sending.map_err(|error| format!("disk '{}': {error}", drive.id()))?;
            disks.push(Box::new(Leaving(sending)));
        }
        Ok(blocks::Sender::new(disks, self.zeros))
    }
}

/// A disk that is read.
struct Leaving(Sending);

impl Source for Leaving {
    fn name(&self) -> &str {
        self.0.drive().id()
    }

    fn size(&self) -> u64 {
        self.0.size()
    }

    fn left(&self) -> u64 {
        self.0.left()
    }

    fn next<'a>(&mut self, buffer: &'a mut Vec<u8>) -> io::Result<Option<Chunk<'a>>> {
        let Some(transfer::Chunk { offset, content }) = self.0.next()? else { return Ok(None) };
        Ok(Some(match content {
            Content::Zeros(len) => Chunk::Zeros(offset, len),
            Content::Data(bytes) => {
                *buffer = bytes;
                Chunk::Data(offset, buffer)
            }
        }))
    }
}

/// A disk that is written.
struct Coming(Receiving);

impl Sink for Coming {
    fn name(&self) -> &str {
        self.0.drive().id()
    }

    fn size(&self) -> u64 {
        self.0.size()
    }

    fn write(&mut self, chunk: &Chunk<'_>) -> io::Result<()> {
        let (offset, content) = match *chunk {
            Chunk::Data(offset, bytes) => (offset, Content::Data(bytes.to_vec())),
            Chunk::Zeros(offset, len) => (offset, Content::Zeros(len)),
        };
        self.0.write(transfer::Chunk { offset, content })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// These drives, to be written.
pub(super) fn sinks(drives: &[Arc<Drive>]) -> Vec<Box<dyn Sink>> {
    let disks = drives.iter().map(|drive| Box::new(Coming(Receiving::new(drive))) as Box<dyn Sink>);
    disks.collect()
}

impl Vm {
    /// Has the next migration take the contents of all disks that can be written to, which are in
    /// use until [`keep_disks`](Self::keep_disks); `top_only`: what their topmost images have.
    pub(crate) fn copy_disks(&mut self, top_only: bool) {
        let drives: Vec<_> = writable(self.drives.iter()).cloned().collect();
        drives.iter().for_each(|drive| drive.set_in_use(true));
        let zeros = self.migration.has(qmp::MigrationCapability::ZeroBlocks);
        self.migration.copies = Some(Copies { drives, top_only, zeros });
    }

    /// The disks do not move, or have moved.
    pub(crate) fn keep_disks(&mut self) {
        let copies = self.migration.copies.take();
        let drives = copies.map_or(Vec::new(), |copies| copies.drives);
        drives.iter().for_each(|drive| drive.set_in_use(false));
    }

    /// The bytes of each disk that can be written to.
    pub(super) fn disk_sizes(&self) -> BTreeMap<String, u64> {
        writable(self.drives.iter()).map(|drive| (drive.id().to_owned(), drive.size())).collect()
    }

    /// Takes the disks, which are this process's own, so that they can be written.
    pub(super) fn disks_to_fill(&mut self) -> Result<Vec<Arc<Drive>>, String> {
        self.drives.activate().map_err(|error| error.to_string())?;
        Ok(writable(self.drives.iter()).cloned().collect())
    }
}
