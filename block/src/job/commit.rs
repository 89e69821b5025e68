//! Draws images of a chain into one below them, which then does without them. The topmost image
//! stays; to commit that one is a mirror.
//!
//! On the loop of the disk. Nobody else writes to the images concerned: what the guest writes goes
//! to the topmost one.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;

use resources::iol::{IoBuf, Local, Task};

use super::run::{Done, Run};
use super::{Job, Kind, Shared, Start};
use crate::chain;
use crate::disk::Disk;
use crate::image::BackingFile;
use crate::node::{Node, Op, State, Zero};

/// Bytes of a step.
const STEP: u64 = 512 << 10;
/// Steps under way at most.
const IN_FLIGHT: usize = 8;

/// What a commit is to do. Both images that are written to, the overlay's metadata and the base,
/// are open for writing, and are closed for writing at the end as they were.
pub struct CommitOptions {
    /// The image right above `top`.
    pub overlay: Rc<dyn Node>,
    /// The uppermost image whose data are drawn down.
    pub top: Rc<dyn Node>,
    /// Where they are drawn to.
    pub base: Rc<dyn Node>,
    /// What the overlay is to call the base.
    pub backing_file: BackingFile,
    /// The overlay was open for reading only.
    pub overlay_read_only: bool,
    /// So was the base.
    pub base_read_only: bool,
}

struct Commit {
    run: Rc<Run>,
    disk: Rc<Disk>,
    options: CommitOptions,
}

impl CommitOptions {
    /// Begins to commit, on the loop of the disk whose chain it is.
    pub async fn start(self, local: &Local, disk: Rc<Disk>, start: Start) -> Job {
        let device = start.device.clone();
        let size = self.top.info().size;
        let shared = Shared::new(Kind::Commit, size, start);
        let commit = Commit { run: Run::new(local, &shared), disk, options: self };
        local
            .spawn(async move {
                let done = commit.work(size).await;
                commit.restore().await;
                commit.run.end(done);
            })
            .detach();
        Job { device, kind: Kind::Commit, shared, mirror: None }
    }
}

impl Commit {
    async fn work(&self, size: u64) -> io::Result<Done> {
        let base = &self.options.base;
        if base.info().size < size {
            base.resize(size).await?;
        }
        if !self.draw(size).await? {
            return Ok(Done::Cancelled);
        }
        // Where the top has ended the overlay shows zeros, whatever a longer base has.
        let seen = base.info().size.min(self.options.overlay.info().size);
        if seen > size {
            base.zero(size, seen - size, Zero::MayUnmap).await?;
        }
        base.flush().await?;
        self.cut().await?;
        Ok(Done::All)
    }

    /// Copies everything; false when the job is to end before. Nothing is under way afterwards.
    async fn draw(&self, size: u64) -> io::Result<bool> {
        let CommitOptions { top, base, .. } = &self.options;
        let mut steps: VecDeque<Task<io::Result<()>>> = VecDeque::new();
        let mut at = 0;
        let mut result = Ok(true);
        while at < size && matches!(result, Ok(true)) {
            if (steps.len() >= IN_FLIGHT || self.run.is_paused())
                && let Some(oldest) = steps.pop_front()
            {
                result = oldest.await.map(|()| true);
                continue;
            }
            if !self.run.breathe().await {
                result = Ok(false);
                break;
            }
            let want = STEP.min(size - at);
            self.run.pace(want).await;
            match chain::state_above(top, Some(base), at, want).await {
                Ok((state, len)) => {
                    let (run, top, base) = (self.run.clone(), top.clone(), base.clone());
                    steps.push_back(self.run.local.spawn(async move {
                        copy(&top, &base, at, (state, len)).await?;
                        run.advance(len);
                        Ok(())
                    }));
                    at += len;
                }
                Err(error) => result = Err(error),
            }
        }
        while let Some(oldest) = steps.pop_front() {
            let done = oldest.await;
            if let (Ok(_), Err(error)) = (&result, done) {
                result = Err(error);
            }
        }
        result
    }

    /// The overlay stands on the base now.
    async fn cut(&self) -> io::Result<()> {
        let CommitOptions { overlay, top, base, backing_file, .. } = &self.options;
        let _held = self.disk.drain_unheld().await;
        let Some(image) = overlay.image() else { return Err(io::ErrorKind::Unsupported.into()) };
        image.change_backing_file(Some(backing_file.clone())).await?;
        image.set_backing(Some(base.clone()));
        chain::close_rest(top, base).await;
        Ok(())
    }

    async fn restore(&self) {
        let CommitOptions { overlay, base, overlay_read_only, base_read_only, .. } = &self.options;
        for (node, read_only) in [(overlay, *overlay_read_only), (base, *base_read_only)] {
            if read_only && let Err(error) = node.reopen(true).await {
                tracing::warn!("an image stays open for writing after a commit: {error}");
            }
        }
    }
}

/// Draws the topmost image of a disk into the one below it and empties it, at once. Nothing else
/// is done on the disk meanwhile.
///
/// # Errors
/// There is none below it, or they cannot be written to; what the host reports.
pub async fn commit_top(disk: &Disk) -> io::Result<()> {
    let _held = disk.drain().await;
    let top = disk.node();
    let base = chain::backing(&top).ok_or(io::ErrorKind::Unsupported)?;
    if disk.read_only() {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    let read_only = base.info().read_only;
    base.reopen(false).await?;
    let done = draw_down(&top, &base).await;
    if read_only {
        base.reopen(true).await?;
    }
    done?;
    match top.image() {
        Some(image) => match image.make_empty().await {
            Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(error),
            _ => top.flush().await,
        },
        None => Ok(()),
    }
}

async fn draw_down(top: &Rc<dyn Node>, base: &Rc<dyn Node>) -> io::Result<()> {
    let size = top.info().size;
    if base.info().size < size {
        base.resize(size).await?;
    }
    let mut steps: Vec<Op<'_>> = Vec::new();
    let mut at = 0;
    let mut result = Ok(());
    while at < size && result.is_ok() {
        match chain::state_above(top, Some(base), at, STEP.min(size - at)).await {
            Ok((state, len)) => {
                steps.push(Box::pin(copy(top, base, at, (state, len))));
                at += len;
            }
            Err(error) => result = Err(error),
        }
        if steps.len() >= IN_FLIGHT {
            result = result.and(one_of(&mut steps).await);
        }
    }
    // All of them end, whatever has failed.
    while !steps.is_empty() {
        let done = one_of(&mut steps).await;
        result = result.and(done);
    }
    result?;
    base.flush().await
}

/// Goes on with all steps until one or more of them have ended, which leave; the first error.
async fn one_of(steps: &mut Vec<Op<'_>>) -> io::Result<()> {
    poll_fn(|cx| {
        let (before, mut result) = (steps.len(), Ok(()));
        steps.retain_mut(|step| match step.as_mut().poll(cx) {
            Poll::Ready(done) => {
                result = std::mem::replace(&mut result, Ok(())).and(done);
                false
            }
            Poll::Pending => true,
        });
        if steps.len() < before { Poll::Ready(result) } else { Poll::Pending }
    })
    .await
}

/// Copies what lies at `at` above `base` into that.
async fn copy(
    top: &Rc<dyn Node>,
    base: &Rc<dyn Node>,
    at: u64,
    (state, len): (State, u64),
) -> io::Result<()> {
    match state {
        State::Absent => {}
        State::Zero => base.zero(at, len, Zero::MayUnmap).await?,
        State::Data => {
            let room = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
            let buf = IoBuf::zeroed(room);
            top.read(at, buf.clone()).await?;
            base.write(at, buf, false).await?;
        }
    }
    Ok(())
}
