//! Reads and writes of files as futures, by the ring or by the pool.
//!
//! Buffers are passed by value and come back with the result: while the kernel
//! works on one, nobody else has it. Dropping the future does not cancel the
//! operation; it completes, and its buffer is freed then.
//!
//! On the loop's thread, no lock. The length of a buffer is the caller's; nobody hostile chooses it
//! here. How many operations are under way is for the callers to bound.

use std::cell::{OnceCell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

pub use rustix::fs::FallocateFlags;

use super::Local;
use super::buf::IoBuf;
use super::pool::Pool;
use super::uring::{Done, Kind, Memory, Ring};

/// How a loop reads and writes files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileIo {
    /// By io_uring, or by the thread pool where the kernel has or allows none.
    #[default]
    Auto,
    /// By the thread pool.
    Pool,
}

pub(super) struct Files {
    name: String,
    file_io: FileIo,
    ring: OnceCell<Option<Rc<RefCell<Ring>>>>,
    pool: OnceCell<Pool>,
}

impl Files {
    pub(super) fn new(name: &str, file_io: FileIo) -> Files {
        Files { name: name.to_owned(), file_io, ring: OnceCell::new(), pool: OnceCell::new() }
    }

    pub(super) fn pool(&self) -> &Pool {
        self.pool.get_or_init(|| Pool::new(&self.name))
    }

    fn ring(&self, local: &Local) -> Option<&Rc<RefCell<Ring>>> {
        let open = || {
            if self.file_io == FileIo::Pool {
                return None;
            }
            match Ring::new()
                .and_then(|ring| local.inner().reactor.add_internal(&ring).map(|()| ring))
            {
                Ok(ring) => Some(Rc::new(RefCell::new(ring))),
                Err(error) => {
                    tracing::debug!("no io_uring ({error}): files go through threads");
                    None
                }
            }
        };
        self.ring.get_or_init(open).as_ref()
    }

    pub(super) fn opened(&self) -> Option<&Rc<RefCell<Ring>>> {
        self.ring.get()?.as_ref()
    }

    /// Gives the kernel the operations started since the last turn; false when
    /// it is short of memory and has to be asked again.
    pub(super) fn submit(&self) -> bool {
        self.opened().is_none_or(|ring| ring.borrow_mut().submit())
    }

    /// Wakes the tasks whose operations are done.
    pub(super) fn complete(&self) {
        if let Some(ring) = self.opened() {
            ring.borrow_mut().complete();
        }
    }

    /// Waits for everything under way in the ring.
    pub(super) fn finish(&self) {
        if let Some(ring) = self.opened() {
            ring.borrow_mut().finish();
        }
    }
}

impl Local {
    /// Reads up to `buf.len()` bytes at `offset`. Gives back the buffer, which
    /// never changes its length, and how many bytes of it were filled: fewer
    /// at the end of the file, and possibly elsewhere.
    pub async fn read_at(
        &self,
        fd: &Arc<OwnedFd>,
        mut buf: Vec<u8>,
        offset: u64,
    ) -> (io::Result<usize>, Vec<u8>) {
        if let Some(ring) = self.ring() {
            return bytes(Ring::start(ring, Kind::Read, fd, Memory::Bytes(buf), offset).await);
        }
        let fd = fd.clone();
        let work = move || {
            let result = rustix::io::pread(&fd, &mut buf[..], offset);
            (result.map_err(io::Error::from), buf)
        };
        self.inner().files.pool().run(work).await.unwrap_or_else(lost)
    }

    /// Writes `buf` at `offset`. Gives back the buffer and how many of its
    /// bytes were written, possibly fewer than all.
    pub async fn write_at(
        &self,
        fd: &Arc<OwnedFd>,
        buf: Vec<u8>,
        offset: u64,
    ) -> (io::Result<usize>, Vec<u8>) {
        if let Some(ring) = self.ring() {
            let pending = Ring::start(ring, Kind::Write(false), fd, Memory::Bytes(buf), offset);
            return bytes(pending.await);
        }
        let fd = fd.clone();
        let work = move || {
            let result = rustix::io::pwrite(&fd, &buf, offset);
            (result.map_err(io::Error::from), buf)
        };
        self.inner().files.pool().run(work).await.unwrap_or_else(lost)
    }

    /// Reads at `offset` into `buf`, and marks the guest pages it filled as
    /// dirty. Returns how many bytes those were: fewer than there is room for
    /// at the end of the file, and possibly elsewhere.
    ///
    /// # Errors
    /// Those of `preadv`.
    pub async fn readv_at(&self, fd: &Arc<OwnedFd>, buf: IoBuf, offset: u64) -> io::Result<usize> {
        if let Some(ring) = self.ring() {
            return Ring::start(ring, Kind::Read, fd, Memory::Buf(buf), offset).await.0;
        }
        let fd = fd.clone();
        self.pool(move || buf.readv(&fd, Some(offset))).await?
    }

    /// Writes `buf` at `offset`; returns how many of its bytes were written,
    /// possibly fewer than all. `durable`: they are on stable storage then, and
    /// what is needed to find them again too.
    ///
    /// # Errors
    /// Those of `pwritev2`.
    pub async fn writev_at(
        &self,
        fd: &Arc<OwnedFd>,
        buf: IoBuf,
        offset: u64,
        durable: bool,
    ) -> io::Result<usize> {
        if let Some(ring) = self.ring() {
            return Ring::start(ring, Kind::Write(durable), fd, Memory::Buf(buf), offset).await.0;
        }
        let fd = fd.clone();
        self.pool(move || buf.writev(&fd, Some(offset), durable)).await?
    }

    /// Makes what was written to the file, and the metadata needed to find it
    /// again, durable.
    ///
    /// # Errors
    /// Those of `fdatasync`.
    pub async fn fdatasync(&self, fd: &Arc<OwnedFd>) -> io::Result<()> {
        if let Some(ring) = self.ring() {
            return Ring::start(ring, Kind::Fdatasync, fd, Memory::None, 0).await.0.map(drop);
        }
        let fd = fd.clone();
        self.pool(move || rustix::fs::fdatasync(&fd)).await?.map_err(io::Error::from)
    }

    /// Punches a hole, zeroes or allocates `len` bytes from `offset` on, as
    /// `how` says.
    ///
    /// # Errors
    /// Those of `fallocate`; that the file system cannot do it among them.
    pub async fn fallocate(
        &self,
        fd: &Arc<OwnedFd>,
        how: FallocateFlags,
        offset: u64,
        len: u64,
    ) -> io::Result<()> {
        if let Some(ring) = self.ring() {
            let kind = Kind::Fallocate(how, len);
            return Ring::start(ring, kind, fd, Memory::None, offset).await.0.map(drop);
        }
        let fd = fd.clone();
        let work = move || rustix::fs::fallocate(&fd, how, offset, len);
        self.pool(work).await?.map_err(io::Error::from)
    }

    fn ring(&self) -> Option<&Rc<RefCell<Ring>>> {
        self.inner().files.ring(self)
    }
}

fn bytes((result, memory): Done) -> (io::Result<usize>, Vec<u8>) {
    (result, memory.into_bytes())
}

fn lost(error: io::Error) -> (io::Result<usize>, Vec<u8>) {
    (Err(error), Vec::new())
}
