//! What a job does between its steps: it keeps its pace, pauses, asks what to do about an error,
//! and says at last how it ended.
//!
//! On the loop of the job.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use resources::iol::{Local, race};

use super::{Event, Info, Shared, State};
use crate::drive::patience::with_patience;
use crate::drive::{Action, IoStatus, OnError, is_no_space};
use crate::node::Node;

/// The pace is kept over slices of this length: the first step of each passes always, the others
/// only as far as they fit.
const SLICE: Duration = Duration::from_millis(100);

/// The job's side of what it shares with its clients.
pub(super) struct Run {
    pub(super) local: Local,
    shared: Arc<Shared>,
    /// When the slice ends, and the bytes it has had.
    slice: Cell<Option<(Instant, u64)>>,
}

/// How a job ended that was not stopped by an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// It did what it was to do.
    All,
    /// So, and its target is in the place of its source.
    Pivoted,
    /// Somebody wanted it to end before.
    Cancelled,
}

/// What a job does after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// It ends.
    End,
    /// It goes on, as it does with errors that are ignored.
    Ignore,
    /// It is paused, and tries again.
    Again,
}

impl Run {
    pub(super) fn new(local: &Local, shared: &Arc<Shared>) -> Rc<Run> {
        Rc::new(Run { local: local.clone(), shared: shared.clone(), slice: Cell::new(None) })
    }

    /// Does what writes to `target`, and does not wait for that for ever once the job is to end at
    /// any price.
    pub(super) async fn with_patience<T>(
        &self,
        target: &Rc<dyn Node>,
        work: impl Future<Output = T>,
    ) -> T {
        with_patience(&self.local, || self.is_forced().then(|| target.clone()), work).await
    }

    fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        change(&mut self.shared.state.lock())
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.with(|state| state.cancelled)
    }

    pub(super) fn is_forced(&self) -> bool {
        self.with(|state| state.forced)
    }

    pub(super) fn is_completing(&self) -> bool {
        self.with(|state| state.completing)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.with(|state| state.info.paused)
    }

    pub(super) fn info(&self) -> Info {
        self.with(|state| state.info.clone())
    }

    /// So many more bytes are done.
    pub(super) fn advance(&self, bytes: u64) {
        self.with(|state| state.info.offset = state.info.offset.saturating_add(bytes));
    }

    pub(super) fn set_offset(&self, offset: u64) {
        self.with(|state| state.info.offset = offset);
    }

    pub(super) fn set_bitmap(&self, granularity: u64, count: u64) {
        self.with(|state| state.bitmap = Some((granularity, count)));
    }

    /// Source and target are the same, or not any more.
    pub(super) fn set_ready(&self, ready: bool) {
        let news = self.with(|state| std::mem::replace(&mut state.ready, ready)) != ready;
        if ready && news {
            self.shared.raise(Event::Ready(self.info()));
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.with(|state| state.ready)
    }

    /// Wakes the job's task, for one that waits in [`wait`](Self::wait).
    pub(super) fn wake(&self) {
        self.shared.wake.notify();
    }

    /// Waits for news: from clients, or from whoever calls [`wake`](Self::wake).
    pub(super) async fn wait(&self) {
        self.shared.wake.notified().await;
    }

    /// As [`wait`](Self::wait), with nothing of the job's under way, and no longer than given.
    async fn idle(&self, until: Option<Instant>) {
        self.with(|state| state.info.busy = false);
        match until {
            Some(until) => {
                race(self.local.sleep_until(until), self.wait()).await;
            }
            None => self.wait().await,
        }
        self.with(|state| state.info.busy = true);
    }

    /// Waits for news with nothing under way.
    pub(super) async fn sleep(&self) {
        self.idle(None).await;
    }

    /// Between two steps: lets others run and waits while the job is paused. False when it is to
    /// end.
    pub(super) async fn breathe(&self) -> bool {
        self.local.yield_now().await;
        while self.is_paused() && !self.is_cancelled() {
            self.idle(None).await;
        }
        !self.is_cancelled()
    }

    /// Waits until a step of so many bytes is within the speed, as it is told by then. Comes back
    /// early when the job is to end or to pause.
    pub(super) async fn pace(&self, bytes: u64) {
        loop {
            let (speed, stop) =
                self.with(|state| (state.info.speed, state.cancelled || state.info.paused));
            if speed == 0 || stop {
                return;
            }
            let quota = speed / 512 / 10 * 512;
            let now = Instant::now();
            let (end, spent) = match self.slice.get() {
                Some((end, spent)) if now < end => (end, spent),
                _ => (now + SLICE, 0),
            };
            let sum = spent.saturating_add(bytes);
            if spent == 0 || sum <= quota {
                self.slice.set(Some((end, sum)));
                return;
            }
            self.slice.set(Some((end, spent)));
            self.idle(Some(end)).await;
        }
    }

    /// A request has failed: tells it and says what to do.
    pub(super) fn failed(&self, policy: OnError, write: bool, error: &io::Error) -> After {
        let action = policy.action(error);
        let after = match action {
            Action::Ignore => After::Ignore,
            Action::Stop => After::Again,
            Action::Report => After::End,
        };
        if after == After::Again {
            self.with(|state| {
                state.info.paused = !state.cancelled;
                if state.info.io_status == IoStatus::Ok {
                    state.info.io_status =
                        if is_no_space(error) { IoStatus::NoSpace } else { IoStatus::Failed };
                }
            });
        }
        self.shared.raise(Event::Error { write, action });
        after
    }

    /// The job has ended; called once its graph and its target are what they stay.
    pub(super) fn end(&self, done: io::Result<Done>) {
        self.shared.end(done);
    }
}

impl Drop for Run {
    /// A loop that ends takes its jobs with it.
    fn drop(&mut self) {
        self.end(Err(io::Error::other("the I/O loop has ended")));
    }
}
