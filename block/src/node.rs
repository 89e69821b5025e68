//! What every layer of a disk can do.
//!
//! A node lives on one loop and is used there only. Its operations may run at the same time in any
//! number; those whose ranges overlap have no order among each other, as on any disk. The future
//! of an operation is polled to its end: whoever drops one half way leaves the range undefined, and
//! formats may not survive it, so [`Disk`](crate::Disk) waits for all of them.
//!
//! Offsets and lengths come from guests and clients: a node answers a range it does not have with
//! an error and never panics.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use resources::iol::IoBuf;

use crate::blkdebug::Blkdebug;
use crate::host::HostFile;
use crate::image::Image;

/// An operation under way.
pub type Op<'a, T = ()> = Pin<Box<dyn Future<Output = io::Result<T>> + 'a>>;

/// What a node is at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Bytes.
    pub size: u64,
    /// Requests whose offset and length are multiples of this need no detour; a power of two, at
    /// least 1. Others work too.
    pub align: u32,
    /// The sectors of a host's disk: logical and physical size in bytes, where it is one.
    pub sectors: Option<(u32, u32)>,
    /// A discard may give room back to the host.
    pub discards: bool,
    /// Nothing can be written.
    pub read_only: bool,
}

/// What lies in a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Data of this node.
    Data,
    /// Zeros that take no room.
    Zero,
    /// Nothing of this node: what lies below it shows, zeros if nothing does.
    Absent,
}

/// A range of equal state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes from the offset asked for; at least 1 inside the node.
    pub len: u64,
    /// What is there.
    pub state: State,
    /// Where it begins in the node's file, where that is known.
    pub offset: Option<u64>,
}

/// How to zero a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zero {
    /// It keeps its room.
    Keep,
    /// Its room may be given back to the host.
    MayUnmap,
}

/// A layer of a disk.
pub trait Node {
    /// What it is now.
    fn info(&self) -> Info;

    /// Reads from `offset` on until `buf` is full.
    fn read(&self, offset: u64, buf: IoBuf) -> Op<'_>;

    /// Writes all of `buf` at `offset`. `durable`: it is on stable storage when this is done.
    fn write(&self, offset: u64, buf: IoBuf, durable: bool) -> Op<'_>;

    /// Makes a range read as zeros.
    fn zero(&self, offset: u64, len: u64, how: Zero) -> Op<'_>;

    /// As [`zero`](Self::zero), if that is quicker than writing zeros would be; otherwise it
    /// fails with `Unsupported` and changes nothing.
    fn zero_fast(&self, _offset: u64, _len: u64, _how: Zero) -> Op<'_> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    /// The contents of a range are of no use any more; what it reads as is open. A node that
    /// cannot give room back does nothing.
    fn discard(&self, offset: u64, len: u64) -> Op<'_>;

    /// What was written before is on stable storage when this is done.
    fn flush(&self) -> Op<'_>;

    /// What lies at `offset`, looking at no more than `len` bytes.
    fn map(&self, offset: u64, len: u64) -> Op<'_, Extent>;

    /// As [`write`](Self::write), compressed: one whole cluster of the format, or the last one up
    /// to the end.
    fn write_compressed(&self, _offset: u64, _buf: IoBuf) -> Op<'_> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    /// Lets it be written, or forbids it, and so with what it writes to itself. What was written
    /// is durable before it is forbidden. On failure everything is as before.
    fn reopen(&self, read_only: bool) -> Op<'_> {
        Box::pin(async move {
            if read_only == self.info().read_only {
                return Ok(());
            }
            Err(io::ErrorKind::Unsupported.into())
        })
    }

    /// Ends its use: what it kept in memory is written and durable. Nothing but dropping it
    /// comes after.
    fn close(&self) -> Op<'_> {
        self.flush()
    }

    /// Somebody waits for its requests who cannot go on before: if it waits for a server that has
    /// not answered for so long, it waits no more.
    fn leave_silent(&self, _silence: Duration) {}

    /// A step of a format's algorithm is about to be taken, of those that fault injection knows by
    /// name (`l2_load`, `cluster_alloc`): a node that injects faults may hold it up. `None` when
    /// nobody listens, which costs nothing.
    fn step(&self, _name: &'static str) -> Option<Op<'_, ()>> {
        None
    }

    /// The node as what injects faults, if it is that.
    fn blkdebug(&self) -> Option<&Blkdebug> {
        None
    }

    /// What a format knows about itself; `None` for what has no metadata.
    fn image(&self) -> Option<&dyn Image> {
        None
    }

    /// Makes it of this many bytes. New ones are zero.
    fn resize(&self, _size: u64) -> Op<'_> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    /// The name of its driver.
    fn driver(&self) -> &'static str {
        self.image().map_or("", |image| image.format())
    }

    /// The name that it was opened by, for what has one of its own.
    fn filename(&self) -> Option<String> {
        None
    }

    /// The open file of the host that it is.
    fn host(&self) -> Option<Arc<HostFile>> {
        None
    }

    /// Where the last sector begins that was written to, in bytes; of protocols.
    fn highest_offset(&self) -> u64 {
        0
    }

    /// The nodes it stands on, by what they are to it: `file`, `backing`, `data-file`.
    fn children(&self) -> Vec<(&'static str, Rc<dyn Node>)> {
        Vec::new()
    }
}
