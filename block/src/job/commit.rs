//! Draws images of a chain into one below them, which then does without them. The topmost image
//! stays; to commit that one is a mirror.
//!
//! On the loop of the disk. Nobody else writes to the images concerned: what the guest writes goes
//! to the topmost one.

use std::io;
use std::rc::Rc;

use resources::iol::{IoBuf, Local};

use super::run::{Done, Run};
use super::{Job, Kind, Shared, Start};
use crate::chain;
use crate::disk::Disk;
use crate::image::BackingFile;
use crate::node::{Node, State, Zero};

/// Bytes of a step.
const STEP: u64 = 512 << 10;

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
        let mut at = 0;
        while at < size {
            if !self.run.breathe().await {
                return Ok(Done::Cancelled);
            }
            let len = self.step(at, STEP.min(size - at)).await?;
            self.run.advance(len);
            at += len;
        }
        base.flush().await?;
        self.cut().await?;
        Ok(Done::All)
    }

    /// Copies what lies at `at`, if it lies above the base; returns how far that goes.
    async fn step(&self, at: u64, want: u64) -> io::Result<u64> {
        let CommitOptions { top, base, .. } = &self.options;
        let (state, len) = chain::state_above(top, Some(base), at, want).await?;
        match state {
            State::Absent => {}
            State::Zero => {
                self.run.pace(len).await;
                base.zero(at, len, Zero::MayUnmap).await?;
            }
            State::Data => {
                self.run.pace(len).await;
                let room = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
                let buf = IoBuf::zeroed(room);
                top.read(at, buf.clone()).await?;
                base.write(at, buf, false).await?;
            }
        }
        Ok(len)
    }

    /// The overlay stands on the base now.
    async fn cut(&self) -> io::Result<()> {
        let CommitOptions { overlay, top, base, backing_file, .. } = &self.options;
        let _held = self.disk.drain().await;
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
