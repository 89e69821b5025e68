//! A graph in use: what devices, jobs and exports read and write on its loop.
//!
//! It checks every range against the size once, counts what is under way, and can hold back new
//! requests while the graph is changed ([`Disk::drain`]). The topmost node can be exchanged then.
//! Jobs see what is written ([`Tap`]), and what is read can be kept in the topmost image
//! (copy-on-read): both belong to the disk and survive an exchange of its nodes.
//!
//! On its loop, no lock. Offsets and lengths are a guest's or a client's.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use resources::iol::IoBuf;

use crate::chain;
use crate::drive::Shared;
use crate::node::{Extent, Info, Node, Op, State, Zero};
use crate::null::Null;
use crate::ranges::{Range, Ranges};
use crate::throttle::{Direction, Throttle};
use crate::wait::{Turn, Turnstile, Waiters};

/// Copy-on-read copies in pieces of at most so many bytes, and of at least so many where the image
/// has no clusters.
const COPY: u64 = 1 << 20;
const UNIT: u64 = 65536;

/// What looks at the writes of a disk. Discards and writes of zeros are writes too.
pub trait Tap {
    /// A range is about to be changed, which waits for this, and fails with it. `node` has what is
    /// there until then.
    fn before<'a>(&'a self, _node: &'a Rc<dyn Node>, _offset: u64, _len: u64) -> Option<Op<'a>> {
        None
    }

    /// A range has been changed, or the attempt has failed.
    fn after(&self, _offset: u64, _len: u64) {}
}

/// A graph on its loop.
pub struct Disk {
    node: RefCell<Rc<dyn Node>>,
    shared: Arc<Shared>,
    /// Requests that have come and may not begin yet.
    coming: Cell<usize>,
    /// Requests under way.
    busy: Cell<usize>,
    /// How many want no new ones to begin.
    held: Cell<usize>,
    /// How many of those may change it meanwhile, one step after the other.
    holders: Cell<usize>,
    waiters: Waiters,
    /// Held by whoever changes it while nothing is under way.
    turn: Turnstile,
    /// Whoever ends without taking his away is not asked any more.
    taps: RefCell<Vec<Weak<dyn Tap>>>,
    /// How many want what is read to be kept in the topmost image.
    copy_on_read: Cell<usize>,
    /// How many copy into it at all: then writes take their ranges.
    copying: Cell<usize>,
    /// What is copied or written meanwhile.
    copied: Ranges,
    throttle: Throttle,
    /// What becomes of written zeros, if they are looked for.
    detect_zeroes: Cell<Option<Zero>>,
}

impl Disk {
    pub(crate) fn new(node: Rc<dyn Node>, shared: Arc<Shared>) -> Rc<Disk> {
        let disk = Disk {
            node: RefCell::new(node),
            shared,
            coming: Cell::new(0),
            busy: Cell::new(0),
            held: Cell::new(0),
            holders: Cell::new(0),
            waiters: Waiters::default(),
            turn: Turnstile::default(),
            taps: RefCell::default(),
            copy_on_read: Cell::new(0),
            copying: Cell::new(0),
            copied: Ranges::default(),
            throttle: Throttle::default(),
            detect_zeroes: Cell::new(None),
        };
        disk.tell_size();
        disk.set_limits();
        Rc::new(disk)
    }

    /// A graph without a drive: of a tool.
    pub fn alone(node: Rc<dyn Node>) -> Rc<Disk> {
        Disk::of_tool(node, true, true)
    }

    /// As [`alone`](Self::alone); without a write cache every write is durable, and discards may
    /// go no further.
    pub(crate) fn of_tool(node: Rc<dyn Node>, write_cache: bool, discards: bool) -> Rc<Disk> {
        let shared = Shared::default();
        shared.set_read_only(node.info().read_only);
        shared.set_caching(write_cache, discards);
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

    /// Requests that wait to begin.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.waiters.count()
    }

    /// Takes all nodes away for good, whoever still has the disk: every request fails then.
    pub(crate) fn retire(&self) {
        *self.node.borrow_mut() = Rc::new(Null::new(0));
    }

    /// What it is now.
    pub fn info(&self) -> Info {
        self.node.borrow().info()
    }

    /// Whether nothing can be written.
    pub fn read_only(&self) -> bool {
        self.shared.read_only()
    }

    /// Waits until the limits let a request of so many bytes begin, counts it, and lets it through.
    /// Whoever waits may give up: nothing has begun.
    pub async fn admit(&self, direction: Direction, len: u64) -> Admitted<'_> {
        let _coming = self.come();
        self.throttle.pass(direction, len).await;
        self.until_free().await;
        Admitted(self)
    }

    /// A request has come that may have to wait, and does not any more when the result is dropped.
    fn come(&self) -> Coming<'_> {
        self.coming.set(self.coming.get() + 1);
        Coming(self)
    }

    async fn until_free(&self) {
        if self.held.get() > 0 {
            self.waiters.until(|| self.held.get() == 0).await;
        }
    }

    /// Lets through what no limit is for.
    pub fn unlimited(&self) -> Admitted<'_> {
        Admitted(self)
    }

    /// Fills `buf` from `offset` on.
    ///
    /// # Errors
    /// `InvalidInput` beyond the end; what the host reports.
    pub async fn read(&self, offset: u64, buf: IoBuf) -> io::Result<()> {
        self.admit(Direction::Read, buf.len() as u64).await.read(offset, buf).await
    }

    /// Puts into the topmost image what it does not have of a range, in whole clusters. Only
    /// while [`set_copying`](Self::set_copying) is on.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(crate) async fn copy_up(&self, offset: u64, len: u64) -> io::Result<()> {
        let request = self.begin(offset, len).await?;
        self.copy(&request.node, offset, len).await.1
    }

    async fn copy(
        &self,
        node: &Rc<dyn Node>,
        offset: u64,
        len: u64,
    ) -> (Range<'_>, io::Result<()>) {
        let unit = node.image().and_then(|image| image.facts().cluster_size);
        let unit = unit.unwrap_or(UNIT).max(1);
        let start = offset - offset % unit;
        let end = offset.saturating_add(len).checked_next_multiple_of(unit).unwrap_or(u64::MAX);
        let end = end.min(node.info().size).max(start);
        let range = self.copied.take(start, end - start).await;
        let done = copy_range(node, start, end).await;
        (range, done)
    }

    /// Has what is read kept in the topmost image, or ends that. Waits for what is under way.
    pub async fn set_copy_on_read(&self, on: bool) {
        let count = self.copy_on_read.get();
        self.set_copying(on).await;
        self.copy_on_read.set(if on { count + 1 } else { count.saturating_sub(1) });
    }

    /// Has writes of nothing but zeros done as writes of zeros, so; `None` ends that.
    pub fn set_detect_zeroes(&self, how: Option<Zero>) {
        self.detect_zeroes.set(how);
    }

    /// Has writes keep clear of what [`copy_up`](Self::copy_up) copies, or ends that. Waits for
    /// what is under way.
    pub(crate) async fn set_copying(&self, on: bool) {
        let _held = self.drain().await;
        let count = self.copying.get();
        self.copying.set(if on { count + 1 } else { count.saturating_sub(1) });
    }

    /// Has writes looked at. Waits for those under way.
    pub(crate) async fn add_tap(&self, tap: &Rc<dyn Tap>) {
        let _held = self.drain().await;
        self.taps.borrow_mut().push(Rc::downgrade(tap));
    }

    /// Ends that, when the tap has seen all writes under way.
    pub(crate) async fn remove_tap(&self, tap: &Rc<dyn Tap>) {
        let _held = self.drain().await;
        self.taps.borrow_mut().retain(|other| {
            !std::ptr::addr_eq(other.as_ptr(), Rc::as_ptr(tap)) && other.strong_count() > 0
        });
    }

    /// Writes `buf` at `offset`; durably if asked for, or if the drive has no write cache.
    ///
    /// # Errors
    /// `InvalidInput` beyond the end, `PermissionDenied` if nothing can be written; what the host
    /// reports, such as `StorageFull`.
    pub async fn write(&self, offset: u64, buf: IoBuf, durable: bool) -> io::Result<()> {
        self.admit(Direction::Write, buf.len() as u64).await.write(offset, buf, durable).await
    }

    /// Makes a range read as zeros; durably as for [`write`](Self::write).
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn zero(&self, offset: u64, len: u64, how: Zero) -> io::Result<()> {
        self.admit(Direction::Write, len).await.zero(offset, len, how).await
    }

    /// As [`zero`](Self::zero), if that is quicker than writing zeros would be.
    ///
    /// # Errors
    /// As [`write`](Self::write); `Unsupported` when it is not quicker.
    pub async fn zero_fast(&self, offset: u64, len: u64, how: Zero) -> io::Result<()> {
        let _may_begin = self.admit(Direction::Write, len).await;
        let request = self.begin_write(offset, len).await?;
        let how = if self.shared.discards() { how } else { Zero::Keep };
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
        let _held = self.drain_unheld().await;
        let node = self.node();
        let done = node.resize(size).await;
        self.tell_size();
        done
    }

    /// As [`drain`](Self::drain), for as long as the result lives, which others may keep: they
    /// change the disk in several steps, each of which drains it too.
    pub(crate) async fn hold(self: &Rc<Self>) -> Hold {
        let drained = self.drain().await;
        self.begin_hold();
        self.holders.set(self.holders.get() + 1);
        drop(drained);
        Hold(self.clone())
    }

    /// Lets no new request begin and waits for those under way; they go on when the result is
    /// dropped. One task at a time has it so, and waits for no other one meanwhile.
    pub async fn drain(&self) -> Held<'_> {
        let turn = self.turn.enter().await;
        self.drained(turn).await
    }

    async fn drained<'a>(&'a self, turn: Turn<'a>) -> Held<'a> {
        self.begin_hold();
        let held = Held { disk: self, _turn: turn };
        self.waiters.until(|| self.busy.get() == 0).await;
        held
    }

    /// As [`drain`](Self::drain), when whatever has come before has begun: for what makes requests
    /// fail that come later. Nobody [holds](Self::hold) it.
    pub(crate) async fn drain_after_all(&self) -> Held<'_> {
        let turn = self.turn.enter().await;
        self.throttle.open();
        self.waiters.until(|| self.coming.get() == 0).await;
        self.throttle.close();
        self.drained(turn).await
    }

    /// As [`drain`](Self::drain), when nobody [holds](Self::hold) it: for what comes at any time,
    /// and is no step of theirs.
    pub(crate) async fn drain_unheld(&self) -> Held<'_> {
        loop {
            self.waiters.until(|| self.holders.get() == 0).await;
            let held = self.drain().await;
            if self.holders.get() == 0 {
                return held;
            }
        }
    }

    fn begin_hold(&self) {
        self.held.set(self.held.get() + 1);
        self.throttle.open();
    }

    fn end_hold(&self) {
        self.throttle.close();
        self.held.set(self.held.get() - 1);
        if self.held.get() == 0 {
            self.waiters.wake();
        }
    }

    /// The topmost node has changed its size by itself.
    pub(crate) fn size_changed(&self) {
        self.tell_size();
    }

    /// Takes over the limits that the drive has now.
    pub(crate) fn set_limits(&self) {
        let (limits, clock) = self.shared.limits();
        self.throttle.set(limits, clock);
    }

    fn tell_size(&self) {
        self.shared.set_size(self.info().size);
    }

    /// Begins something of the caller's own with the topmost node, as a request.
    ///
    /// # Errors
    /// `InvalidInput` beyond the end.
    pub(crate) async fn begin(&self, offset: u64, len: u64) -> io::Result<Request<'_>> {
        let coming = self.come();
        self.until_free().await;
        drop(coming);
        let node = self.node();
        match offset.checked_add(len) {
            Some(end) if end <= node.info().size => {}
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
        self.busy.set(self.busy.get() + 1);
        Ok(Request { disk: self, node, changes: None, _range: None })
    }

    async fn begin_write(&self, offset: u64, len: u64) -> io::Result<Request<'_>> {
        if self.shared.read_only() {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        let mut request = self.begin(offset, len).await?;
        // Another process may have it by now: nothing changes, and nobody is told so.
        if request.node.info().read_only {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        if self.copying.get() > 0 {
            request._range = Some(self.copied.take(offset, len).await);
        }
        if !self.taps.borrow().is_empty() {
            let taps: Vec<_> = self.taps.borrow().iter().filter_map(Weak::upgrade).collect();
            for tap in &taps {
                if let Some(before) = tap.before(&request.node, offset, len) {
                    before.await?;
                }
            }
            request.changes = Some(Changes { taps, offset, len });
        }
        Ok(request)
    }
}

/// See [`Disk::come`].
struct Coming<'a>(&'a Disk);

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.0.coming.set(self.0.coming.get() - 1);
        if self.0.coming.get() == 0 {
            self.0.waiters.wake();
        }
    }
}

/// A request that may begin: see [`Disk::admit`]. What is done with it is not limited further.
pub struct Admitted<'a>(&'a Disk);

impl Admitted<'_> {
    /// As [`Disk::read`].
    ///
    /// # Errors
    /// The same.
    pub async fn read(&self, offset: u64, buf: IoBuf) -> io::Result<()> {
        let (disk, len) = (self.0, buf.len() as u64);
        let request = disk.begin(offset, len).await?;
        if disk.copy_on_read.get() == 0 || disk.shared.read_only() {
            return request.node.read(offset, buf).await;
        }
        let (_copied, done) = disk.copy(&request.node, offset, len).await;
        if let Err(error) = done {
            // It can still be read where it is.
            tracing::warn!("what was read is not kept: {error}");
        }
        request.node.read(offset, buf).await
    }

    /// As [`Disk::write`].
    ///
    /// # Errors
    /// The same.
    pub async fn write(&self, offset: u64, buf: IoBuf, durable: bool) -> io::Result<()> {
        let (disk, len) = (self.0, buf.len() as u64);
        let request = disk.begin_write(offset, len).await?;
        disk.shared.stats.wrote_to(offset.saturating_add(len));
        let durable = durable || !disk.shared.write_cache();
        match disk.detect_zeroes.get() {
            Some(how) if buf.is_zero() => {
                request.node.zero(offset, len, how).await?;
                if durable { request.node.flush().await } else { Ok(()) }
            }
            _ => request.node.write(offset, buf, durable).await,
        }
    }

    /// As [`Disk::zero`].
    ///
    /// # Errors
    /// The same.
    pub async fn zero(&self, offset: u64, len: u64, how: Zero) -> io::Result<()> {
        let disk = self.0;
        let request = disk.begin_write(offset, len).await?;
        disk.shared.stats.wrote_to(offset.saturating_add(len));
        let how = if disk.shared.discards() { how } else { Zero::Keep };
        request.node.zero(offset, len, how).await?;
        if disk.shared.write_cache() { Ok(()) } else { request.node.flush().await }
    }
}

/// Puts into an image what it does not have of a range but what shows there has.
async fn copy_range(node: &Rc<dyn Node>, start: u64, end: u64) -> io::Result<()> {
    let mut at = start;
    while at < end {
        // Nothing below: there is nothing to copy.
        if chain::backing(node).is_none() {
            return Ok(());
        }
        let extent = node.map(at, (end - at).min(COPY)).await?;
        let len = extent.len.min(end - at).min(COPY);
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if extent.state == State::Absent {
            let buf = IoBuf::zeroed(usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?);
            node.read(at, buf.clone()).await?;
            if buf.is_zero() {
                node.zero(at, len, Zero::MayUnmap).await?;
            } else {
                node.write(at, buf, false).await?;
            }
        }
        at += len;
    }
    Ok(())
}

/// A request under way, with the node that was on top when it began.
pub(crate) struct Request<'a> {
    disk: &'a Disk,
    pub(crate) node: Rc<dyn Node>,
    /// Who is told when it has ended, and the range that it changes.
    changes: Option<Changes>,
    _range: Option<Range<'a>>,
}

/// A write, and who looks at it.
struct Changes {
    taps: Vec<Rc<dyn Tap>>,
    offset: u64,
    len: u64,
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        if let Some(Changes { taps, offset, len }) = &self.changes {
            taps.iter().for_each(|tap| tap.after(*offset, *len));
        }
        self.disk.busy.set(self.disk.busy.get() - 1);
        if self.disk.busy.get() == 0 && self.disk.held.get() > 0 {
            self.disk.waiters.wake();
        }
    }
}

/// Nothing is under way and nothing begins while this lives.
#[must_use = "requests go on when this is dropped"]
pub struct Held<'a> {
    disk: &'a Disk,
    _turn: Turn<'a>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.disk.end_hold();
    }
}

/// As [`Held`], with the disk.
pub struct Hold(Rc<Disk>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.holders.set(self.0.holders.get() - 1);
        self.0.end_hold();
    }
}
