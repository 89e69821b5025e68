//! A copy of a disk that stays in step with it, until it takes the disk's place or is let go.
//!
//! A bitmap tells what the target lacks: at first what is to be copied, then also what the guest
//! writes. Ranges are copied until none is left; from then on the two are in step. A commit of the
//! topmost image is the same, onto an image below it.
//!
//! On the loop of the disk. A range is copied by one request at a time: its mark is taken before
//! it is read, so that what is written meanwhile marks it anew.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use resources::iol::{IoBuf, Local};

use super::run::{After, Done, Run};
use super::{Errors, Job, Kind, Shared, Start, Sync};
use crate::chain;
use crate::dirty::Bitmap;
use crate::disk::{Disk, Tap};
use crate::node::{Node, Op, State, Zero};

/// Requests under way at most.
const IN_FLIGHT: usize = 16;
/// Bytes of one at most, unless a granule is larger.
const STEP: u64 = 1 << 20;
/// What is looked at in one step when the bitmap is filled.
const LOOK: u64 = 1 << 30;

/// Opens what the target names as its backing file and puts it below the target; says why not.
pub type AttachBacking = Box<dyn Fn(Rc<dyn Node>) -> Op<'static, Result<(), String>>>;

/// What a mirror is to do.
pub struct MirrorOptions {
    /// Mirror, or commit of the topmost image: then the target is an image below it.
    pub kind: Kind,
    /// What it copies to, open for writing.
    pub target: Rc<dyn Node>,
    /// What of the disk is copied.
    pub sync: Sync,
    /// Everything in the target that is not written reads as zeros, without a backing file.
    pub target_is_zero: bool,
    /// Bytes of a granule: a power of two.
    pub granularity: u64,
    /// Bytes under way at most.
    pub buf_size: u64,
    /// What to do about errors.
    pub errors: Errors,
    /// How the target gets its backing file before it takes the disk's place, if it lacks it.
    pub attach_backing: Option<AttachBacking>,
}

/// The granularity for a target when none is asked for: its clusters, within bounds.
pub fn granularity_for(target: &dyn Node) -> u64 {
    let cluster = target.image().and_then(|image| image.facts().cluster_size);
    cluster.map_or(65536, |cluster| cluster.clamp(4096, 65536).next_power_of_two())
}

/// A mirror under way.
pub struct Mirror {
    run: Rc<Run>,
    disk: Rc<Disk>,
    options: MirrorOptions,
    /// Bytes of the disk.
    size: u64,
    /// Copies begin and end at multiples of this.
    unit: u64,
    dirty: RefCell<Bitmap>,
    in_flight: RefCell<Vec<(u64, u64)>>,
    /// Where the search for the next range goes on.
    cursor: Cell<u64>,
    /// What ends the job.
    fatal: RefCell<Option<io::Error>>,
    /// The first marks are all there: what is not marked is copied.
    filled: Cell<bool>,
    /// The target is in the disk's place.
    pivoted: Cell<bool>,
}

impl Tap for Mirror {
    fn after(&self, offset: u64, len: u64) {
        self.mark(offset, len);
        self.run.wake();
    }
}

impl Mirror {
    /// Begins to mirror a disk, on its loop. What is written from then on is seen.
    pub async fn start(local: &Local, disk: Rc<Disk>, options: MirrorOptions, start: Start) -> Job {
        let device = start.device.clone();
        let (kind, size) = (options.kind, disk.info().size);
        let shared = Shared::new(kind, size, start);
        let granularity = options.granularity.max(512).next_power_of_two();
        let image = options.target.image();
        let lacks_backing =
            image.is_some_and(|image| image.backing().is_none() && image.backing_file().is_some());
        // A cluster that is written in part has zeros around that, not what its backing file has.
        let cluster = image.filter(|_| lacks_backing).and_then(|i| i.facts().cluster_size);
        let mirror = Rc::new(Mirror {
            run: Run::new(local, &shared),
            dirty: RefCell::new(Bitmap::new(size, granularity)),
            unit: cluster.unwrap_or(0).max(granularity),
            disk,
            options,
            size,
            in_flight: RefCell::default(),
            cursor: Cell::new(0),
            fatal: RefCell::default(),
            filled: Cell::new(false),
            pivoted: Cell::new(false),
        });
        mirror.tell_bitmap();
        let tap: Rc<dyn Tap> = mirror.clone();
        mirror.disk.add_tap(&tap).await;
        let remote = Arc::new(local.keep(mirror.clone()));
        let kept = remote.clone();
        local
            .spawn(async move {
                let done = mirror.run.with_patience(&mirror.options.target, async {
                    let done = mirror.clone().work().await;
                    mirror.disk.remove_tap(&tap).await;
                    mirror.close().await;
                    done
                });
                let done = done.await;
                mirror.run.end(done);
                kept.release(&mirror.run.local);
            })
            .detach();
        Job { device, kind, shared, mirror: Some(remote) }
    }

    /// Gives the target its backing file.
    pub(super) async fn attach_backing(&self) -> Result<(), String> {
        let target = &self.options.target;
        let lacks = target.image().is_some_and(|i| i.backing().is_none());
        match &self.options.attach_backing {
            Some(attach) if lacks => match attach(target.clone()).await {
                Ok(done) => done,
                Err(error) => Err(crate::host::errno_text(&error)),
            },
            _ => Ok(()),
        }
    }

    async fn work(self: Rc<Self>) -> io::Result<Done> {
        if self.size == 0 {
            return Ok(Done::All);
        }
        if !self.fill().await? {
            return Ok(Done::Cancelled);
        }
        self.filled.set(true);
        self.tell_bitmap();
        let done = self.clone().copy_all().await;
        while !self.in_flight.borrow().is_empty() {
            self.run.wait().await;
        }
        done
    }

    /// Marks what is to be copied at first. False when the job is to end.
    async fn fill(&self) -> io::Result<bool> {
        let top = self.disk.node();
        let base = match self.options.sync {
            Sync::None => return Ok(true),
            Sync::Top if self.options.kind == Kind::Commit => Some(self.options.target.clone()),
            Sync::Top => chain::backing(&top),
            Sync::Full => None,
        };
        let everything = base.is_none() && !self.options.target_is_zero;
        let mut at = 0;
        while at < self.size {
            if !self.run.breathe().await {
                return Ok(false);
            }
            let want = (self.size - at).min(LOOK);
            if everything {
                self.mark(at, want);
                at += want;
                continue;
            }
            let request = self.disk.begin(at, want).await?;
            let found = chain::state_above(&request.node, base.as_ref(), at, want).await;
            match found {
                Ok((state, len)) => {
                    // Zeros above a backing file hide what it has.
                    if state == State::Data || state == State::Zero && base.is_some() {
                        self.mark(at, len);
                    }
                    at = at.saturating_add(len);
                }
                Err(error) => {
                    drop(request);
                    if self.run.failed(self.options.errors.source, false, &error) == After::End {
                        return Err(error);
                    }
                }
            }
        }
        Ok(true)
    }

    async fn copy_all(self: Rc<Self>) -> io::Result<Done> {
        loop {
            if let Some(error) = self.fatal.borrow_mut().take() {
                return Err(error);
            }
            let idle = self.in_flight.borrow().is_empty();
            let cancelled = self.run.is_cancelled();
            if cancelled && (!self.run.is_ready() || self.run.is_forced()) {
                let clean = self.run.is_ready() && idle && self.dirty.borrow().is_clean();
                return Ok(if clean { Done::All } else { Done::Cancelled });
            }
            if self.run.is_paused() && !cancelled {
                if idle {
                    self.run.breathe().await;
                } else {
                    self.run.wait().await;
                }
                continue;
            }
            if self.dirty.borrow().is_clean() {
                if !idle {
                    self.run.wait().await;
                } else if let Some(done) = self.in_step().await? {
                    return Ok(done);
                }
                continue;
            }
            let Some((offset, len)) = self.next() else {
                self.run.wait().await;
                continue;
            };
            self.run.pace(len).await;
            if self.run.is_paused() || self.run.is_cancelled() && !self.run.is_ready() {
                continue;
            }
            self.begin_copy(offset, len);
            self.run.local.yield_now().await;
        }
    }

    /// Nothing is left to copy. Says how it ended, if it did; otherwise waits for news.
    async fn in_step(&self) -> io::Result<Option<Done>> {
        if !self.run.is_ready() {
            if let Err(error) = self.options.target.flush().await {
                self.target_failed(error)?;
                return Ok(None);
            }
            // Written since: not in step.
            if !self.dirty.borrow().is_clean() {
                return Ok(None);
            }
            self.run.set_offset(self.size);
            self.run.set_ready(true);
        }
        let (ends, completing) = (self.run.is_cancelled(), self.run.is_completing());
        if !ends && !completing {
            self.run.sleep().await;
            return Ok(None);
        }
        let _held = self.disk.drain_unheld().await;
        if !self.dirty.borrow().is_clean() {
            return Ok(None);
        }
        if let Err(error) = self.options.target.flush().await {
            self.target_failed(error)?;
            return Ok(None);
        }
        if ends {
            return Ok(Some(Done::All));
        }
        let old = self.disk.node();
        if self.disk.read_only() {
            self.options.target.reopen(true).await?;
        }
        self.disk.replace(self.options.target.clone());
        self.pivoted.set(true);
        self.give_up(old).await;
        Ok(Some(Done::Pivoted))
    }

    /// The old chain is not the disk's any more: what the new one does not stand on is closed, and
    /// what it stands on is not written to again.
    async fn give_up(&self, old: Rc<dyn Node>) {
        chain::close_rest(&old, &self.options.target).await;
        let stays = chain::layers(&self.options.target).iter().any(|node| chain::same(node, &old));
        if stays && let Err(error) = old.reopen(true).await {
            tracing::warn!("the old image stays open for writing: {error}");
        }
    }

    /// What becomes of the target when the job has ended without putting it in place.
    async fn close(&self) {
        if self.pivoted.get() {
            return;
        }
        if self.options.kind == Kind::Commit {
            if let Err(error) = self.options.target.reopen(true).await {
                tracing::warn!("the base of a commit stays open for writing: {error}");
            }
            return;
        }
        chain::close_rest(&self.options.target, &self.disk.node()).await;
    }

    fn target_failed(&self, error: io::Error) -> io::Result<()> {
        self.run.set_ready(false);
        match self.run.failed(self.options.errors.target, true, &error) {
            After::End => Err(error),
            After::Ignore | After::Again => Ok(()),
        }
    }

    /// The next range to copy: dirty, and not under way.
    fn next(&self) -> Option<(u64, u64)> {
        let in_flight = self.in_flight.borrow();
        let bytes: u64 = in_flight.iter().map(|(_, len)| len).sum();
        let room = self.options.buf_size.max(self.unit).saturating_sub(bytes);
        if in_flight.len() >= IN_FLIGHT || room < self.unit {
            return None;
        }
        let limit = room.min(STEP).max(self.unit);
        let dirty = self.dirty.borrow();
        let mut from = self.cursor.get();
        let mut wrapped = false;
        loop {
            let Some((offset, len)) = dirty.next(from, limit) else {
                if wrapped {
                    return None;
                }
                (from, wrapped) = (0, true);
                continue;
            };
            let start = offset - offset % self.unit;
            let end = (offset + len).next_multiple_of(self.unit);
            let end = end.min(start + limit.next_multiple_of(self.unit)).min(self.size);
            match in_flight.iter().find(|(at, len)| *at < end && start < at + len) {
                Some((at, len)) => from = (at + len).max(offset + 1),
                None => {
                    self.cursor.set(end);
                    return Some((start, end - start));
                }
            }
        }
    }

    fn begin_copy(self: &Rc<Self>, offset: u64, len: u64) {
        self.dirty.borrow_mut().clear(offset, len);
        self.in_flight.borrow_mut().push((offset, len));
        self.tell_bitmap();
        let mirror = self.clone();
        let copy = async move {
            if let Err((write, error)) = mirror.copy(offset, len).await {
                mirror.mark(offset, len);
                mirror.run.set_ready(false);
                let errors = mirror.options.errors;
                let policy = if write { errors.target } else { errors.source };
                if mirror.run.failed(policy, write, &error) == After::End {
                    mirror.fatal.borrow_mut().get_or_insert(error);
                }
            }
            mirror.in_flight.borrow_mut().retain(|range| *range != (offset, len));
            mirror.run.wake();
        };
        self.run.local.spawn(copy).detach();
    }

    /// Copies a range. With an error comes whether it was the target's.
    async fn copy(&self, offset: u64, len: u64) -> Result<(), (bool, io::Error)> {
        let source = |error| (false, error);
        let target = |error| (true, error);
        let buf = {
            let request = self.disk.begin(offset, len).await.map_err(source)?;
            if self.is_zero(&request.node, offset, len).await.map_err(source)? {
                None
            } else {
                let room = usize::try_from(len)
                    .map_err(|_| source(io::Error::from_raw_os_error(libc::ENOMEM)))?;
                let buf = IoBuf::zeroed(room);
                request.node.read(offset, buf.clone()).await.map_err(source)?;
                Some(buf)
            }
        };
        match buf {
            Some(buf) if !buf.is_zero() => {
                self.options.target.write(offset, buf, false).await.map_err(target)
            }
            _ => self.options.target.zero(offset, len, Zero::MayUnmap).await.map_err(target),
        }
    }

    async fn is_zero(&self, node: &Rc<dyn Node>, offset: u64, len: u64) -> io::Result<bool> {
        let mut at = offset;
        while at < offset + len {
            let (state, part) = chain::state_above(node, None, at, offset + len - at).await?;
            if state == State::Data {
                return Ok(false);
            }
            at = at.saturating_add(part);
        }
        Ok(true)
    }

    fn mark(&self, offset: u64, len: u64) {
        self.dirty.borrow_mut().set(offset, len);
        self.tell_bitmap();
    }

    fn tell_bitmap(&self) {
        let (granularity, count, bytes) = {
            let dirty = self.dirty.borrow();
            (dirty.granularity(), dirty.count(), dirty.bytes())
        };
        self.run.set_bitmap(granularity, count);
        if self.filled.get() && !self.run.is_ready() {
            self.run.set_offset(self.size.saturating_sub(bytes));
        }
    }
}
