//! A graph in use: what devices, and later jobs and exports, read and write on its loop.
//!
//! It checks every range against the size once, counts what is under way, and can hold back new
//! requests while the graph is changed ([`Disk::drain`]). The topmost node can be exchanged then.
//!
//! On its loop, no lock. Offsets and lengths are a guest's or a client's.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use resources::iol::IoBuf;

use crate::drive::Shared;
use crate::node::{Extent, Info, Node, Zero};
use crate::null::Null;

/// A graph on its loop.
pub struct Disk {
    node: RefCell<Rc<dyn Node>>,
    shared: Arc<Shared>,
    /// Requests under way.
    busy: Cell<usize>,
    /// How many want no new ones to begin.
    held: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
}

impl Disk {
    pub(crate) fn new(node: Rc<dyn Node>, shared: Arc<Shared>) -> Rc<Disk> {
        let disk = Disk {
            node: RefCell::new(node),
            shared,
            busy: Cell::new(0),
            held: Cell::new(0),
            waiting: RefCell::default(),
        };
        disk.tell_size();
        Rc::new(disk)
    }

    /// A graph without a drive: of a tool.
    pub fn alone(node: Rc<dyn Node>) -> Rc<Disk> {
        let shared = Shared::default();
        shared.set_read_only(node.info().read_only);
        Disk::new(node, Arc::new(shared))
    }

    /// The topmost node.
    pub fn node(&self) -> Rc<dyn Node> {
        self.node.borrow().clone()
    }

    /// Puts another node on top. Only while [drained](Self::drain).
    pub fn replace(&self, node: Rc<dyn Node>) {
        *self.node.borrow_mut() = node;
        self.tell_size();
    }

    /// Takes all nodes away for good, whoever still has the disk: every request fails then.
    pub(crate) fn retire(&self) {
        *self.node.borrow_mut() = Rc::new(Null::new(0));
    }

    /// What it is now.
    pub fn info(&self) -> Info {
        self.node.borrow().info()
    }

    /// Fills `buf` from `offset` on.
    ///
    /// # Errors
    /// `InvalidInput` beyond the end; what the host reports.
    pub async fn read(&self, offset: u64, buf: IoBuf) -> io::Result<()> {
        let request = self.begin(offset, buf.len() as u64).await?;
        request.node.read(offset, buf).await
    }

    /// Writes `buf` at `offset`; durably if asked for, or if the drive has no write cache.
    ///
    /// # Errors
    /// `InvalidInput` beyond the end, `PermissionDenied` if nothing can be written; what the host
    /// reports, such as `StorageFull`.
    pub async fn write(&self, offset: u64, buf: IoBuf, durable: bool) -> io::Result<()> {
        let len = buf.len() as u64;
        let request = self.begin_write(offset, len).await?;
        self.shared.stats.wrote_to(offset.saturating_add(len));
        request.node.write(offset, buf, durable || !self.shared.write_cache()).await
    }

    /// Makes a range read as zeros; durably as for [`write`](Self::write).
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn zero(&self, offset: u64, len: u64, how: Zero) -> io::Result<()> {
        let request = self.begin_write(offset, len).await?;
        self.shared.stats.wrote_to(offset.saturating_add(len));
        let how = if self.shared.discards() { how } else { Zero::Keep };
        request.node.zero(offset, len, how).await?;
        if self.shared.write_cache() { Ok(()) } else { request.node.flush().await }
    }

    /// As [`zero`](Self::zero), if that is quicker than writing zeros would be.
    ///
    /// # Errors
    /// As [`write`](Self::write); `Unsupported` when it is not quicker.
    pub async fn zero_fast(&self, offset: u64, len: u64, how: Zero) -> io::Result<()> {
        let request = self.begin_write(offset, len).await?;
        request.node.zero_fast(offset, len, how).await?;
        self.shared.stats.wrote_to(offset.saturating_add(len));
        if self.shared.write_cache() { Ok(()) } else { request.node.flush().await }
    }

    /// The contents of a range are of no use any more.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let request = self.begin_write(offset, len).await?;
        if self.shared.discards() { request.node.discard(offset, len).await } else { Ok(()) }
    }

    /// What was written before is on stable storage when this is done.
    ///
    /// # Errors
    /// What the host reports: then what was written since the last flush may be lost.
    pub async fn flush(&self) -> io::Result<()> {
        self.begin(0, 0).await?.node.flush().await
    }

    /// What lies at `offset`, looking at no more than `len` bytes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn map(&self, offset: u64, len: u64) -> io::Result<Extent> {
        self.begin(offset, len).await?.node.map(offset, len).await
    }

    /// Makes it of this many bytes, while nothing else is under way.
    ///
    /// # Errors
    /// `Unsupported` when the image cannot; what the host reports.
    pub async fn resize(&self, size: u64) -> io::Result<()> {
        let _held = self.drain().await;
        let node = self.node();
        let done = node.resize(size).await;
        self.tell_size();
        done
    }

    /// Lets no new request begin and waits for those under way; they go on when the result is
    /// dropped.
    pub async fn drain(&self) -> Held<'_> {
        self.held.set(self.held.get() + 1);
        let held = Held(self);
        self.until(|| self.busy.get() == 0).await;
        held
    }

    fn tell_size(&self) {
        self.shared.set_size(self.info().size);
    }

    async fn begin(&self, offset: u64, len: u64) -> io::Result<Request<'_>> {
        if self.held.get() > 0 {
            self.until(|| self.held.get() == 0).await;
        }
        let node = self.node();
        match offset.checked_add(len) {
            Some(end) if end <= node.info().size => {}
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
        self.busy.set(self.busy.get() + 1);
        Ok(Request { disk: self, node })
    }

    async fn begin_write(&self, offset: u64, len: u64) -> io::Result<Request<'_>> {
        if self.shared.read_only() {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        self.begin(offset, len).await
    }

    async fn until(&self, done: impl Fn() -> bool) {
        poll_fn(|cx| {
            if done() {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn wake(&self) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// A request under way, with the node that was on top when it began.
struct Request<'a> {
    disk: &'a Disk,
    node: Rc<dyn Node>,
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        self.disk.busy.set(self.disk.busy.get() - 1);
        if self.disk.busy.get() == 0 && self.disk.held.get() > 0 {
            self.disk.wake();
        }
    }
}

/// Nothing is under way and nothing begins while this lives.
#[must_use = "requests go on when this is dropped"]
pub struct Held<'a>(&'a Disk);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.set(self.0.held.get() - 1);
        if self.0.held.get() == 0 {
            self.0.wake();
        }
    }
}
