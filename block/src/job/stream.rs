//! Draws backing files into the topmost image, which then does without them.
//!
//! On the loop of the disk. What is read is copied as by copy-on-read, which also has what the
//! guest reads meanwhile.

use std::io;
use std::rc::Rc;

use resources::iol::Local;

use super::run::{After, Done, Run};
use super::{Job, Kind, Shared, Start};
use crate::chain;
use crate::disk::Disk;
use crate::drive::OnError;
use crate::image::BackingFile;
use crate::node::{Node, State};

/// Bytes of a step.
const STEP: u64 = 512 << 10;

/// What a stream is to do.
pub struct StreamOptions {
    /// The layer that stays below the topmost image; all go when there is none.
    pub base: Option<Rc<dyn Node>>,
    /// What the image is to call it.
    pub backing_file: Option<BackingFile>,
    /// What to do about errors. `Ignore` goes on without what cannot be read.
    pub on_error: OnError,
}

struct Stream {
    run: Rc<Run>,
    disk: Rc<Disk>,
    options: StreamOptions,
}

impl StreamOptions {
    /// Begins to stream, on the loop of the disk.
    pub async fn start(self, local: &Local, disk: Rc<Disk>, start: Start) -> Job {
        let device = start.device.clone();
        let has_backing = chain::backing(&disk.node()).is_some();
        let size = if has_backing { disk.info().size } else { 0 };
        let shared = Shared::new(Kind::Stream, size, start);
        let run = Run::new(local, &shared);
        let stream = Stream { run, disk, options: self };
        if !has_backing {
            // Nothing to do: it has ended before anybody hears of it.
            stream.run.end(Ok(Done::All));
        } else {
            local
                .spawn(async move {
                    let done = stream.work(size).await;
                    stream.run.end(done);
                })
                .detach();
        }
        Job { device, kind: Kind::Stream, shared, mirror: None }
    }
}

impl Stream {
    async fn work(&self, size: u64) -> io::Result<Done> {
        self.disk.set_copying(true).await;
        // What the guest reads need not be read again, unless it lies in the base.
        let all = self.options.base.is_none();
        if all {
            self.disk.set_copy_on_read(true).await;
        }
        let copied = self.copy_all(size).await;
        if all {
            self.disk.set_copy_on_read(false).await;
        }
        self.disk.set_copying(false).await;
        match copied? {
            Done::All => self.cut().await.map(|()| Done::All),
            done => Ok(done),
        }
    }

    async fn copy_all(&self, size: u64) -> io::Result<Done> {
        let mut at = 0;
        let mut first = None;
        while at < size {
            if !self.run.breathe().await {
                return Ok(Done::Cancelled);
            }
            let want = STEP.min(size - at);
            let len = match self.step(at, want).await {
                Ok(len) => len,
                Err(error) => match self.run.failed(self.options.on_error, false, &error) {
                    After::End => return Err(error),
                    After::Again => continue,
                    After::Ignore => {
                        first.get_or_insert(error);
                        want
                    }
                },
            };
            self.run.advance(len);
            at += len;
        }
        // What was left out is still below.
        first.map_or(Ok(Done::All), Err)
    }

    /// Copies what lies at `at`, if it is to be; returns how far that goes.
    async fn step(&self, at: u64, want: u64) -> io::Result<u64> {
        let (copy, len) = {
            let request = self.disk.begin(at, want).await?;
            let top = &request.node;
            let own = top.map(at, want).await?;
            let len = own.len.min(want).max(1);
            match chain::backing(top) {
                Some(below) if own.state == State::Absent => {
                    let base = self.options.base.as_ref();
                    let rest = |node: &Rc<dyn Node>| node.info().size.saturating_sub(at);
                    if rest(&below) == 0 {
                        // Zeros, past the end of a shorter backing file: they stay so by
                        // themselves where the base that stays has ended too.
                        match base.map_or(0, rest) {
                            0 => (false, len),
                            hidden => (true, len.min(hidden)),
                        }
                    } else {
                        let (state, part) = chain::state_above(&below, base, at, len).await?;
                        (state != State::Absent, part.min(len))
                    }
                }
                _ => (false, len),
            }
        };
        if copy {
            self.run.pace(len).await;
            self.disk.copy_up(at, len).await?;
        }
        Ok(len)
    }

    /// The image does without what it has now.
    async fn cut(&self) -> io::Result<()> {
        let _held = self.disk.drain_unheld().await;
        let top = self.disk.node();
        let Some(image) = top.image() else { return Err(io::ErrorKind::Unsupported.into()) };
        top.flush().await?;
        image.change_backing_file(self.options.backing_file.clone()).await?;
        let old = image.backing();
        image.set_backing(self.options.base.clone());
        if let Some(old) = old {
            chain::close_rest(&old, &top).await;
        }
        Ok(())
    }
}
