//! Reads and writes of files as futures, by the ring or by the pool.
//!
//! Buffers are passed by value and come back with the result: while the kernel
//! works on one, nobody else has it. Dropping the future does not cancel the
//! operation; it completes, and its buffer is freed then.
//!
//! On the loop's thread, no lock. The length of a buffer is the caller's; nobody hostile chooses it
//! here.

use std::cell::{OnceCell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::Local;
use super::pool::Pool;
use super::uring::{Kind, Ring};

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
    ring: OnceCell<Option<RefCell<Ring>>>,
    pool: OnceCell<Pool>,
}

impl Files {
    pub(super) fn new(name: &str, file_io: FileIo) -> Files {
        Files { name: name.to_owned(), file_io, ring: OnceCell::new(), pool: OnceCell::new() }
    }

    pub(super) fn pool(&self) -> &Pool {
        self.pool.get_or_init(|| Pool::new(&self.name))
    }

    fn ring(&self, local: &Local) -> Option<&RefCell<Ring>> {
        let open = || {
            if self.file_io == FileIo::Pool {
                return None;
            }
            match Ring::new()
                .and_then(|ring| local.inner().reactor.add_internal(&ring).map(|()| ring))
            {
                Ok(ring) => Some(RefCell::new(ring)),
                Err(error) => {
                    tracing::debug!("no io_uring ({error}): files go through threads");
                    None
                }
            }
        };
        self.ring.get_or_init(open).as_ref()
    }

    pub(super) fn opened(&self) -> Option<&RefCell<Ring>> {
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
        let files = &self.inner().files;
        if let Some(ring) = files.ring(self) {
            let operation = ring.borrow_mut().start(Kind::Read, fd, buf, offset);
            return operation.await;
        }
        let fd = fd.clone();
        let work = move || {
            let result = rustix::io::pread(&fd, &mut buf[..], offset);
            (result.map_err(io::Error::from), buf)
        };
        files.pool().run(work).await.unwrap_or_else(lost)
    }

    /// Writes `buf` at `offset`. Gives back the buffer and how many of its
    /// bytes were written, possibly fewer than all.
    pub async fn write_at(
        &self,
        fd: &Arc<OwnedFd>,
        buf: Vec<u8>,
        offset: u64,
    ) -> (io::Result<usize>, Vec<u8>) {
        let files = &self.inner().files;
        if let Some(ring) = files.ring(self) {
            let operation = ring.borrow_mut().start(Kind::Write, fd, buf, offset);
            return operation.await;
        }
        let fd = fd.clone();
        let work = move || {
            let result = rustix::io::pwrite(&fd, &buf, offset);
            (result.map_err(io::Error::from), buf)
        };
        files.pool().run(work).await.unwrap_or_else(lost)
    }

    /// Makes what was written to the file, and the metadata needed to find it
    /// again, durable.
    ///
    /// # Errors
    /// Those of `fdatasync`.
    pub async fn fdatasync(&self, fd: &Arc<OwnedFd>) -> io::Result<()> {
        let files = &self.inner().files;
        if let Some(ring) = files.ring(self) {
            let operation = ring.borrow_mut().start(Kind::Fdatasync, fd, Vec::new(), 0);
            return operation.await.0.map(drop);
        }
        let fd = fd.clone();
        files.pool().run(move || rustix::fs::fdatasync(&fd)).await?.map_err(io::Error::from)
    }
}

fn lost(error: io::Error) -> (io::Result<usize>, Vec<u8>) {
    (Err(error), Vec::new())
}
