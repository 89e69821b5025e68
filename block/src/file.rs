//! Files and block devices of the host.
//!
//! Reads and writes go to the kernel as they come. With direct I/O, what is not aligned as the
//! kernel wants it takes a detour over memory of our own; a write that does not fill whole blocks
//! reads them first, while nothing else is written.
//!
//! On its loop, no lock. Ranges past the end of the file read as zeros and can be written: whoever
//! stands above bounds them.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use resources::iol::{FallocateFlags, IoBuf, Local};
use rustix::fs::{SeekFrom, seek};

use crate::host::{HostError, HostFile};
use crate::node::{Extent, Info, Node, Op, State, Zero};
use crate::wait::Waiters;

/// Zeros are written in pieces of this many bytes where the file system has no other way.
const ZEROS: u64 = 1 << 20;

/// Reads of so many bytes are done at once, if the host has them in memory: whoever wants them finds
/// them in the processor's cache then, which many such reads under way together would drive out of
/// it.
const LARGE: usize = 64 << 10;

/// A file on a loop.
pub struct File {
    local: Local,
    host: RefCell<Arc<HostFile>>,
    gate: Gate,
    highest: Cell<u64>,
    /// What the file system has turned out not to do.
    cannot_zero: Cell<bool>,
    cannot_punch: Cell<bool>,
    cannot_tell: Cell<bool>,
}

impl File {
    /// A file on the loop that the caller runs on.
    pub fn new(local: &Local, host: Arc<HostFile>) -> Rc<File> {
        Rc::new(File {
            local: local.clone(),
            host: RefCell::new(host),
            gate: Gate::default(),
            highest: Cell::new(0),
            cannot_zero: Cell::new(false),
            cannot_punch: Cell::new(false),
            cannot_tell: Cell::new(false),
        })
    }

    /// The open file; another one after a [reopening](Node::reopen).
    fn now(&self) -> Arc<HostFile> {
        self.host.borrow().clone()
    }

    fn is_aligned(&self, offset: u64, len: u64) -> bool {
        (offset | len) & u64::from(self.now().align() - 1) == 0
    }

    /// Reads until `buf` is full; zeros past the end of the file.
    async fn read_all(&self, offset: u64, buf: &IoBuf) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let at = add(offset, done)?;
            let count = match self.readv(buf.skip(done), at).await {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                count => count?,
            };
            done += count;
            // A piece of a block comes only from the end of the file.
            if count == 0 || !self.is_aligned(0, count as u64) {
                buf.skip(done).fill(0);
                break;
            }
        }
        Ok(())
    }

    async fn readv(&self, buf: IoBuf, offset: u64) -> io::Result<usize> {
        if buf.len() >= LARGE && self.now().align() == 1 && !self.cannot_tell.get() {
            match buf.readv_now(self.now().fd(), offset) {
                Ok(count) if count > 0 => return Ok(count),
                // The end, or not in memory.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // What is wrong comes up again.
                Err(error) => self.cannot_tell.set(cannot(&error)),
            }
        }
        if !self.now().options().threads {
            return self.local.readv_at(self.now().fd(), buf, offset).await;
        }
        let fd = self.now().fd().clone();
        self.local.pool(move || buf.readv(&fd, Some(offset))).await?
    }

    async fn writev(&self, buf: IoBuf, offset: u64, durable: bool) -> io::Result<usize> {
        if !self.now().options().threads {
            return self.local.writev_at(self.now().fd(), buf, offset, durable).await;
        }
        let fd = self.now().fd().clone();
        self.local.pool(move || buf.writev(&fd, Some(offset), durable)).await?
    }

    /// A range up to `end` is being written.
    fn writes_to(&self, end: u64) {
        self.highest.set(self.highest.get().max(end.saturating_sub(1) & !511));
    }

    async fn write_all(&self, offset: u64, buf: &IoBuf, durable: bool) -> io::Result<()> {
        let durable = durable && !self.now().options().cache.no_flush;
        let mut done = 0;
        while done < buf.len() {
            let at = add(offset, done)?;
            match self.writev(buf.skip(done), at, durable).await {
                Ok(0) => return Err(io::Error::from_raw_os_error(libc::ENOSPC)),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.now().reaches(add(offset, done)?);
        Ok(())
    }

    /// A write that takes the detour over whole blocks.
    async fn write_unaligned(&self, offset: u64, buf: &IoBuf, durable: bool) -> io::Result<()> {
        let align = u64::from(self.now().align());
        let len = buf.len() as u64;
        let end = offset.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
        let start = offset & !(align - 1);
        let stop = end.checked_next_multiple_of(align).ok_or(io::ErrorKind::InvalidInput)?;
        let room = usize::try_from(stop - start).map_err(|_| io::ErrorKind::InvalidInput)?;
        let block = IoBuf::zeroed(room);
        let size = self.now().size();
        let (align, head) = (align as usize, (offset - start) as usize);
        if head > 0 {
            self.read_all(start, &block.slice(0..align)).await?;
        }
        // The last block, unless it is the first one too and was read already.
        if stop > end && (head == 0 || room > align) {
            self.read_all(stop - align as u64, &block.skip(room - align)).await?;
        }
        block.skip(head).slice(0..buf.len()).copy_from_buf(buf);
        self.write_all(start, &block, durable).await?;
        // The file must not grow by more than what was asked for.
        if !self.now().is_block_device() && stop > end.max(size) {
            self.set_size(end.max(size)).await?;
        }
        Ok(())
    }

    async fn set_size(&self, size: u64) -> io::Result<()> {
        let host = self.now();
        self.local.pool(move || host.set_size(size)).await?
    }

    /// Has the file system do it; false when it cannot.
    async fn fallocate(&self, how: FallocateFlags, offset: u64, len: u64) -> io::Result<bool> {
        match self.local.fallocate(self.now().fd(), how, offset, len).await {
            Ok(()) => Ok(true),
            Err(error) if cannot(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn punch(&self, offset: u64, len: u64) -> io::Result<bool> {
        if self.cannot_punch.get() {
            return Ok(false);
        }
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let done = self.fallocate(how, offset, len).await?;
        self.cannot_punch.set(!done);
        Ok(done)
    }

    /// Zeroes by the file system; false where it cannot.
    async fn zero_by_host(&self, offset: u64, len: u64, how: Zero) -> io::Result<bool> {
        let end = offset.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
        let unmap = how == Zero::MayUnmap && self.now().options().discard;
        if len == 0 || !self.is_aligned(offset, len) {
            return Ok(len == 0);
        }
        if unmap && end <= self.now().size() && self.punch(offset, len).await? {
            return Ok(true);
        }
        if self.cannot_zero.get() {
            return Ok(false);
        }
        let done = self.fallocate(FallocateFlags::ZERO_RANGE, offset, len).await?;
        self.cannot_zero.set(!done);
        if done {
            self.now().reaches(end);
        }
        Ok(done)
    }

    async fn zero_range(&self, offset: u64, len: u64, how: Zero) -> io::Result<()> {
        if self.zero_by_host(offset, len, how).await? {
            return Ok(());
        }
        let end = offset.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
        let zeros = IoBuf::zeroed(len.min(ZEROS) as usize);
        let mut at = offset;
        while at < end {
            let part = zeros.slice(0..(end - at).min(ZEROS) as usize);
            let next = at + part.len() as u64;
            self.put(at, part, false).await?;
            at = next;
        }
        Ok(())
    }

    /// Writes, by a detour if need be. The gate is passed already.
    async fn put(&self, offset: u64, buf: IoBuf, durable: bool) -> io::Result<()> {
        if !self.is_aligned(offset, buf.len() as u64) {
            return self.write_unaligned(offset, &buf, durable).await;
        }
        if !buf.is_aligned(self.now().memory_align() as usize) {
            let copy = IoBuf::zeroed(buf.len());
            copy.copy_from_buf(&buf);
            return self.write_all(offset, &copy, durable).await;
        }
        self.write_all(offset, &buf, durable).await
    }

    async fn pass(&self, offset: u64, len: u64) -> Option<Pass<'_>> {
        // Without direct I/O nothing is ever read to be written back.
        if self.now().align() == 1 {
            return None;
        }
        Some(self.gate.pass(!self.is_aligned(offset, len)).await)
    }
}

fn add(offset: u64, len: usize) -> io::Result<u64> {
    offset.checked_add(len as u64).ok_or(io::ErrorKind::InvalidInput.into())
}

/// Whether an error says that the file system does not do such a thing.
fn cannot(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::ENODEV)
    )
}

impl Node for File {
    fn info(&self) -> Info {
        let host = self.now();
        let options = host.options();
        Info {
            size: host.size(),
            align: host.align(),
            sectors: host.sectors(),
            discards: options.discard,
            read_only: options.read_only,
        }
    }

    fn read(&self, offset: u64, buf: IoBuf) -> Op<'_> {
        Box::pin(async move {
            let len = buf.len() as u64;
            if self.is_aligned(offset, len) && buf.is_aligned(self.now().memory_align() as usize) {
                return self.read_all(offset, &buf).await;
            }
            let align = u64::from(self.now().align());
            let start = offset & !(align - 1);
            let end = add(offset, buf.len())?
                .checked_next_multiple_of(align)
                .ok_or(io::ErrorKind::InvalidInput)?;
            let room = usize::try_from(end - start).map_err(|_| io::ErrorKind::InvalidInput)?;
            let block = IoBuf::zeroed(room);
            self.read_all(start, &block).await?;
            buf.copy_from_buf(&block.skip((offset - start) as usize));
            Ok(())
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, durable: bool) -> Op<'_> {
        Box::pin(async move {
            let _pass = self.pass(offset, buf.len() as u64).await;
            self.writes_to(offset.saturating_add(buf.len() as u64));
            self.put(offset, buf, durable).await
        })
    }

    fn zero(&self, offset: u64, len: u64, how: Zero) -> Op<'_> {
        Box::pin(async move {
            let _pass = self.pass(offset, len).await;
            self.writes_to(offset.saturating_add(len));
            self.zero_range(offset, len, how).await
        })
    }

    fn zero_fast(&self, offset: u64, len: u64, how: Zero) -> Op<'_> {
        Box::pin(async move {
            let _pass = self.pass(offset, len).await;
            match self.zero_by_host(offset, len, how).await? {
                true => Ok(()),
                false => Err(io::ErrorKind::Unsupported.into()),
            }
        })
    }

    fn discard(&self, offset: u64, len: u64) -> Op<'_> {
        Box::pin(async move {
            if len == 0 || !self.now().options().discard || !self.is_aligned(offset, len) {
                return Ok(());
            }
            let _pass = self.pass(offset, len).await;
            self.punch(offset, len).await.map(drop)
        })
    }

    fn flush(&self) -> Op<'_> {
        Box::pin(async move {
            if self.now().options().cache.no_flush || self.now().options().read_only {
                return Ok(());
            }
            self.local.fdatasync(self.now().fd()).await
        })
    }

    fn map(&self, offset: u64, len: u64) -> Op<'_, Extent> {
        Box::pin(async move {
            let host = self.now();
            self.local.pool(move || extent(&host, offset, len)).await?
        })
    }

    fn reopen(&self, read_only: bool) -> Op<'_> {
        Box::pin(async move {
            let host = self.now();
            if host.options().read_only == read_only {
                return Ok(());
            }
            if read_only {
                self.flush().await?;
            }
            let reopened = self.local.pool(move || host.reopen(read_only)).await?;
            let host = reopened.map_err(|error| match error {
                HostError::Open { error, .. } | HostError::Size(error) => error,
                other => io::Error::new(io::ErrorKind::ResourceBusy, other.to_string()),
            })?;
            self.host.replace(host);
            Ok(())
        })
    }

    fn driver(&self) -> &'static str {
        self.now().driver()
    }

    fn filename(&self) -> Option<String> {
        Some(self.now().name().to_owned())
    }

    fn host(&self) -> Option<Arc<HostFile>> {
        Some(self.now())
    }

    fn highest_offset(&self) -> u64 {
        self.highest.get()
    }

    fn resize(&self, size: u64) -> Op<'_> {
        Box::pin(async move {
            if self.now().options().read_only {
                return Err(io::ErrorKind::ReadOnlyFilesystem.into());
            }
            self.set_size(size).await
        })
    }
}

/// What the file system knows of a range.
fn extent(host: &HostFile, offset: u64, len: u64) -> io::Result<Extent> {
    let len = len.min(host.size().saturating_sub(offset));
    let answer = |state, end: u64| {
        let len = end.saturating_sub(offset).min(len);
        Ok(Extent { len, state, offset: Some(offset) })
    };
    let end = offset.saturating_add(len);
    match seek(&**host.fd(), SeekFrom::Data(offset)) {
        Ok(data) if data > offset => answer(State::Zero, data),
        Ok(_) => match seek(&**host.fd(), SeekFrom::Hole(offset)) {
            Ok(hole) if hole > offset => answer(State::Data, hole),
            _ => answer(State::Data, end),
        },
        // No data up to the end.
        Err(rustix::io::Errno::NXIO) => answer(State::Zero, end),
        // A file system, or a block device, that does not tell.
        Err(_) => answer(State::Data, end),
    }
}

/// Lets writes through together, and those that read blocks to write them back one by one.
#[derive(Default)]
pub(crate) struct Gate {
    together: Cell<usize>,
    alone: Cell<bool>,
    waiters: Waiters,
}

pub(crate) struct Pass<'a> {
    gate: &'a Gate,
    alone: bool,
}

impl Gate {
    pub(crate) async fn pass(&self, alone: bool) -> Pass<'_> {
        let blocked = || self.alone.get() || alone && self.together.get() > 0;
        self.waiters.until(|| !blocked()).await;
        if alone {
            self.alone.set(true);
        } else {
            self.together.set(self.together.get() + 1);
        }
        Pass { gate: self, alone }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.alone {
            self.gate.alone.set(false);
        } else {
            self.gate.together.set(self.gate.together.get() - 1);
        }
        if self.gate.together.get() == 0 {
            self.gate.waiters.wake();
        }
    }
}
