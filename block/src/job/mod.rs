//! Jobs: long operations on a drive that run beside the guest.
//!
//! | piece | file |
//! |---|---|
//! | what clients see and steer | this one |
//! | jobs as clients ask for them, with images by name | `start.rs` |
//! | what a job does between its steps: pace, pauses, errors | `run.rs` |
//! | copy of a disk that stays in step with it | `mirror.rs` |
//! | copy of a disk as it is at one moment | `backup.rs` |
//! | backing files drawn into the topmost image | `stream.rs` |
//! | images drawn into one below them | `commit.rs` |
//!
//! A job is a task of the loop of its drive's graph. Any thread may hold the [`Job`]: a leaf mutex
//! around what both sides know. Its events wait in the job until the main thread takes them, in
//! their order. Figures and names are a client's, and were checked by whoever starts the job.

mod backup;
mod commit;
mod mirror;
mod run;
mod start;
mod stream;

#[cfg(test)]
mod named;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use resources::iol::{Notify, Remote};

use crate::drive::{Action, IoStatus, OnError};

pub use backup::BackupOptions;
pub use commit::{CommitOptions, commit_top};
pub use mirror::{AttachBacking, Mirror, MirrorOptions, granularity_for};
pub(crate) use start::make;
pub use start::{
    MirrorRequest, NewFile, Request, Started, start_backup, start_commit, start_mirror,
    start_stream,
};
pub use stream::StreamOptions;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Draws images into one below them.
    Commit,
    /// Draws backing files into the topmost image.
    Stream,
    /// Copies a disk and stays in step with it.
    Mirror,
    /// Copies a disk as it is at one moment.
    Backup,
}

/// What of a disk is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// What the topmost image has.
    Top,
    /// Everything.
    Full,
    /// Only what is written from now on.
    None,
}

/// What a job does about requests that fail. `Ignore` tries again, or goes on without, as the job
/// has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errors {
    /// About those to what it reads from.
    pub source: OnError,
    /// About those to what it writes to.
    pub target: OnError,
}

impl Default for Errors {
    fn default() -> Errors {
        Errors { source: OnError::Report, target: OnError::Report }
    }
}

/// What all jobs begin with.
pub struct Start {
    /// The drive's name.
    pub device: String,
    /// Bytes per second at most; 0 is no limit.
    pub speed: u64,
    /// Told, on any thread, that there are new events. Must not wait.
    pub tell: Box<dyn Fn() + Send + std::marker::Sync>,
}

/// A job as it is seen at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// What it does.
    pub kind: Kind,
    /// How far it has to go, in bytes.
    pub len: u64,
    /// How far it is.
    pub offset: u64,
    /// Bytes per second at most; 0 is no limit.
    pub speed: u64,
    /// It is doing something: neither sleeping nor paused.
    pub busy: bool,
    /// It was asked to pause.
    pub paused: bool,
    /// Whether an error has paused it.
    pub io_status: IoStatus,
}

/// What is told about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A request failed.
    Error {
        /// On the target; otherwise on the source.
        write: bool,
        /// What is done about it.
        action: Action,
    },
    /// Source and target are the same and stay so.
    Ready(Info),
    /// It has ended.
    Ended {
        /// As it was at last.
        info: Info,
        /// Because it was asked to, before it was done.
        cancelled: bool,
        /// What went wrong.
        error: Option<String>,
        /// The drive's graph is another one now: the job's target, or the base of a commit.
        pivoted: bool,
    },
}

/// Why a job does not do what a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Only a forced end ends it.
    #[error("The block job is currently paused")]
    Paused,
    /// It has nothing to complete, or is not there yet.
    #[error("The active block job cannot be completed")]
    CannotComplete,
}

/// Why a mirror is not completed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompleteError {
    /// It cannot be.
    #[error(transparent)]
    Refused(Refused),
    /// The target's backing file cannot be opened, for this reason.
    #[error("Could not open backing file: {0}")]
    Backing(String),
}

/// A job, seen from any thread.
pub struct Job {
    device: String,
    kind: Kind,
    shared: Arc<Shared>,
    /// What completes it.
    mirror: Option<Arc<Remote<Mirror>>>,
}

/// What the job and its clients share.
struct Shared {
    state: Mutex<State>,
    ended: Condvar,
    /// Wakes the job's task.
    wake: Notify,
    tell: Box<dyn Fn() + Send + std::marker::Sync>,
}

struct State {
    info: Info,
    cancelled: bool,
    /// The end must not wait for anything but what is under way.
    forced: bool,
    ready: bool,
    completing: bool,
    ended: bool,
    events: VecDeque<Event>,
    /// Granularity and dirty granules, for a job that has a bitmap.
    bitmap: Option<(u64, u64)>,
}

/// Errors that wait to be told at most: one that is ignored comes again at once, and their number
/// means nothing then.
const MAX_ERRORS: usize = 256;

impl Shared {
    fn new(kind: Kind, len: u64, start: Start) -> Arc<Shared> {
        let info = Info {
            kind,
            len,
            offset: 0,
            speed: start.speed,
            busy: true,
            paused: false,
            io_status: IoStatus::Ok,
        };
        let state = State {
            info,
            cancelled: false,
            forced: false,
            ready: false,
            completing: false,
            ended: false,
            events: VecDeque::new(),
            bitmap: None,
        };
        Arc::new(Shared {
            state: Mutex::new(state),
            ended: Condvar::new(),
            wake: Notify::new(),
            tell: start.tell,
        })
    }

    /// Says how the job ended. Nothing is said a second time.
    fn end(&self, done: std::io::Result<run::Done>) {
        {
            let mut state = self.state.lock();
            if state.ended {
                return;
            }
            state.info.busy = false;
            let ended = Event::Ended {
                info: state.info.clone(),
                cancelled: match done {
                    Ok(done) => done == run::Done::Cancelled,
                    Err(_) => state.cancelled,
                },
                pivoted: matches!(done, Ok(run::Done::Pivoted)),
                error: done.err().map(|error| crate::host::why(&error)),
            };
            state.events.push_back(ended);
            state.ended = true;
        }
        self.ended.notify_all();
        (self.tell)();
    }

    fn raise(&self, event: Event) {
        {
            let mut state = self.state.lock();
            let too_many = state.events.len() >= MAX_ERRORS;
            if too_many && matches!(event, Event::Error { action, .. } if action != Action::Stop) {
                return;
            }
            state.events.push_back(event);
        }
        (self.tell)();
    }

    /// Changes what a client may change, and lets the job see it.
    fn steer<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.state.lock());
        self.wake.notify();
        result
    }
}

impl Job {
    /// One that has nothing to do and has ended.
    pub fn nothing(kind: Kind, start: Start) -> Job {
        let device = start.device.clone();
        let shared = Shared::new(kind, 0, start);
        shared.end(Ok(run::Done::All));
        Job { device, kind, shared, mirror: None }
    }

    /// The name of its drive.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// What it does.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// As it is now.
    pub fn info(&self) -> Info {
        self.shared.state.lock().info.clone()
    }

    /// The granularity of its dirty bitmap in bytes, and how many granules are dirty.
    pub fn bitmap(&self) -> Option<(u64, u64)> {
        self.shared.state.lock().bitmap
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.shared.state.lock().ended
    }

    /// What has happened since this was asked last.
    pub fn take_events(&self) -> Vec<Event> {
        self.shared.state.lock().events.drain(..).collect()
    }

    /// Bytes per second at most from now on; 0 is no limit.
    pub fn set_speed(&self, speed: u64) {
        self.shared.steer(|state| state.info.speed = speed);
    }

    /// Has it end soon; one that is paused only with `force`.
    ///
    /// # Errors
    /// [`Refused::Paused`].
    pub fn cancel(&self, force: bool) -> Result<(), Refused> {
        self.shared.steer(|state| {
            if state.info.paused && !force {
                return Err(Refused::Paused);
            }
            state.cancelled = true;
            state.info.paused = false;
            state.info.io_status = IoStatus::Ok;
            Ok(())
        })
    }

    /// Has it stop at its next step. What is under way ends.
    pub fn pause(&self) {
        self.shared.steer(|state| state.info.paused = true);
    }

    /// Lets it go on, if it was paused, and forgets its errors.
    pub fn resume(&self) {
        self.shared.steer(|state| {
            state.info.paused = false;
            state.info.io_status = IoStatus::Ok;
        });
    }

    /// Forgets the errors that have paused it; it stays paused.
    pub fn reset_io_status(&self) {
        self.shared.steer(|state| state.info.io_status = IoStatus::Ok);
    }

    /// Has a mirror put its target in the place of its source. Waits for the loop of its graph.
    ///
    /// # Errors
    /// [`Refused::CannotComplete`] as text, or that the target's backing file cannot be opened.
    pub fn complete(&self) -> Result<(), CompleteError> {
        let refused = CompleteError::Refused(Refused::CannotComplete);
        let Some(mirror) = &self.mirror else { return Err(refused) };
        {
            let state = self.shared.state.lock();
            if state.info.paused || state.cancelled || state.ended {
                return Err(refused);
            }
        }
        let at = mirror.clone();
        let done = mirror.handle().call_async(move |local| async move {
            match at.get(&local) {
                Some(mirror) => mirror.attach_backing().await,
                None => Ok(()),
            }
        });
        match done {
            Some(Ok(())) => {}
            Some(Err(text)) => return Err(CompleteError::Backing(text)),
            None => return Err(refused),
        }
        self.shared.steer(|state| {
            if !state.ready || state.cancelled || state.ended {
                return Err(CompleteError::Refused(Refused::CannotComplete));
            }
            state.completing = true;
            Ok(())
        })
    }

    /// Ends it, whatever it is doing, and waits for that; not on its loop.
    pub fn end(&self) {
        self.shared.steer(|state| {
            (state.cancelled, state.forced, state.info.paused) = (true, true, false);
        });
        let mut state = self.shared.state.lock();
        while !state.ended {
            self.shared.ended.wait(&mut state);
        }
    }
}
