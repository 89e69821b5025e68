//! A copy of a disk as it is when the job begins.
//!
//! Before the guest changes a cluster that is not copied yet, the old one is copied: the guest's
//! write waits for that, and fails if it fails. The job copies the others. No cluster is copied
//! twice.
//!
//! On the loop of the disk. A cluster is copied by whoever has its range.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use resources::iol::{IoBuf, Local, Task};

use super::run::{After, Done, Run};
use super::{Errors, Job, Kind, Shared, Start, Sync};
use crate::chain;
use crate::dirty::Bitmap;
use crate::disk::{Disk, Tap};
use crate::node::{Node, Op, State, Zero};
use crate::ranges::Ranges;

/// Bytes that are copied at once.
const CLUSTER: u64 = 65536;
/// Clusters that the job copies at the same time, at most.
const IN_FLIGHT: usize = 16;

/// With an error comes whether it was the target's.
type Copied = Result<(), (bool, io::Error)>;

/// What a backup is to do.
pub struct BackupOptions {
    /// What it copies to, open for writing.
    pub target: Rc<dyn Node>,
    /// What of the disk is copied; with `None` only what is overwritten.
    pub sync: Sync,
    /// What to do about errors of the job's own copying.
    pub errors: Errors,
}

struct Backup {
    run: Rc<Run>,
    disk: Rc<Disk>,
    options: BackupOptions,
    /// Bytes of the disk.
    size: u64,
    /// Clusters that are copied.
    copied: RefCell<Bitmap>,
    /// Those that somebody copies.
    busy: Ranges,
}

impl BackupOptions {
    /// Begins to copy a disk, on its loop, as it is then.
    pub async fn start(self, local: &Local, disk: Rc<Disk>, start: Start) -> Job {
        let device = start.device.clone();
        let size = disk.info().size;
        let shared = Shared::new(Kind::Backup, size, start);
        let backup = Rc::new(Backup {
            run: Run::new(local, &shared),
            copied: RefCell::new(Bitmap::new(size, CLUSTER)),
            disk,
            options: self,
            size,
            busy: Ranges::default(),
        });
        let tap: Rc<dyn Tap> = backup.clone();
        backup.disk.add_tap(&tap).await;
        local
            .spawn(async move {
                let done = backup.run.with_patience(&backup.options.target, async {
                    let done = backup.work().await;
                    // Whoever copies before a write has ended then.
                    backup.disk.remove_tap(&tap).await;
                    let done = match (done, backup.options.target.flush().await) {
                        (Ok(Done::All), Err(error)) => Err(error),
                        (done, _) => done,
                    };
                    chain::close_rest(&backup.options.target, &backup.disk.node()).await;
                    done
                });
                let done = done.await;
                backup.run.end(done);
            })
            .detach();
        Job { device, kind: Kind::Backup, shared, mirror: None }
    }
}

impl Tap for Backup {
    fn before<'a>(&'a self, node: &'a Rc<dyn Node>, offset: u64, len: u64) -> Option<Op<'a>> {
        let start = offset - offset % CLUSTER;
        let end = offset.saturating_add(len).min(self.size);
        Some(Box::pin(async move {
            let mut at = start;
            while at < end {
                self.copy(node, at).await.map_err(|(_, error)| error)?;
                at += CLUSTER;
            }
            Ok(())
        }))
    }
}

impl Backup {
    async fn work(self: &Rc<Self>) -> io::Result<Done> {
        if self.options.sync == Sync::None {
            while !self.run.is_cancelled() {
                self.run.sleep().await;
            }
            return Ok(Done::Cancelled);
        }
        let mut steps: VecDeque<(u64, Task<Copied>)> = VecDeque::new();
        let done = self.copy_all(&mut steps).await;
        for (_, step) in steps {
            // How the job ends is known.
            let _ = step.await;
        }
        done
    }

    async fn copy_all(
        self: &Rc<Self>,
        steps: &mut VecDeque<(u64, Task<Copied>)>,
    ) -> io::Result<Done> {
        let mut at = 0;
        // Clusters that could not be copied, and are tried again.
        let mut again = Vec::new();
        loop {
            let holds = self.run.is_paused() || self.run.is_cancelled();
            if !holds && steps.len() < IN_FLIGHT {
                let next = again.pop().or_else(|| (at < self.size).then_some(at));
                if let Some(next) = next {
                    if next == at {
                        at += CLUSTER;
                    }
                    self.begin_step(next, steps).await;
                    continue;
                }
            }
            let Some((cluster, step)) = steps.pop_front() else {
                if !self.run.breathe().await {
                    return Ok(Done::Cancelled);
                }
                if at >= self.size && again.is_empty() {
                    return Ok(Done::All);
                }
                continue;
            };
            let Err((write, error)) = step.await else { continue };
            again.push(cluster);
            if self.run.is_cancelled() {
                continue;
            }
            let errors = self.options.errors;
            let policy = if write { errors.target } else { errors.source };
            // An error that is ignored is met again at once: there is no copy without a cluster.
            if self.run.failed(policy, write, &error) == After::End {
                return Err(error);
            }
        }
    }

    async fn begin_step(self: &Rc<Self>, at: u64, steps: &mut VecDeque<(u64, Task<Copied>)>) {
        if self.copied.borrow().is_dirty(at) {
            return;
        }
        self.run.pace(CLUSTER.min(self.size - at)).await;
        let backup = self.clone();
        steps.push_back((at, self.run.local.spawn(async move { backup.step(at).await })));
        self.run.local.yield_now().await;
    }

    /// Copies the cluster at `at`, if it is to be.
    async fn step(&self, at: u64) -> Copied {
        let len = CLUSTER.min(self.size - at);
        let source = |error| (false, error);
        let request = self.disk.begin(at, len).await.map_err(source)?;
        if self.options.sync == Sync::Top
            && let Some(base) = chain::backing(&request.node)
            && !has_data(&request.node, &base, at, len).await.map_err(source)?
        {
            return Ok(());
        }
        self.copy(&request.node, at).await
    }

    /// Copies the cluster at `at`, unless it is copied.
    async fn copy(&self, node: &Rc<dyn Node>, at: u64) -> Copied {
        let len = CLUSTER.min(self.size - at);
        let _range = self.busy.take(at, len).await;
        if self.copied.borrow().is_dirty(at) {
            return Ok(());
        }
        let buf = IoBuf::zeroed(len as usize);
        node.read(at, buf.clone()).await.map_err(|error| (false, error))?;
        let target = &self.options.target;
        let written = if buf.is_zero() {
            target.zero(at, len, Zero::MayUnmap).await
        } else {
            target.write(at, buf, false).await
        };
        written.map_err(|error| (true, error))?;
        self.copied.borrow_mut().set(at, len);
        self.run.advance(len);
        Ok(())
    }
}

/// Whether any of a range lies above `base`.
async fn has_data(
    top: &Rc<dyn Node>,
    base: &Rc<dyn Node>,
    offset: u64,
    len: u64,
) -> io::Result<bool> {
    let mut at = offset;
    while at < offset + len {
        let (state, part) = chain::state_above(top, Some(base), at, offset + len - at).await?;
        if state != State::Absent {
            return Ok(true);
        }
        at = at.saturating_add(part);
    }
    Ok(false)
}
