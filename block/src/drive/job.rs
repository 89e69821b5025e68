//! A drive's job, and what is done with several drives at one moment.
//!
//! Main thread: starting and ending wait for the loop of the drive's graph.

use std::rc::Rc;
use std::sync::Arc;

use resources::iol::{Local, Remote};

use super::Drive;
use super::patience::with_patience;
use crate::disk::{Disk, Hold};
use crate::job::{Event, Job, Kind, Started};
use crate::open::{OpenError, Spec};

/// A job, and what the drive is opened from when it has exchanged the graph.
pub(super) struct Running {
    job: Arc<Job>,
    pivot: Option<Spec>,
}

impl Drive {
    /// Its job, until [`job_events`](Self::job_events) has told its end.
    pub fn job(&self) -> Option<Arc<Job>> {
        self.state.lock().job.as_ref().map(|running| running.job.clone())
    }

    /// Gives it a job, which somebody has started.
    pub fn set_job(&self, started: Started) {
        let Started { job, pivot } = started;
        self.state.lock().job = Some(Running { job: Arc::new(job), pivot });
    }

    /// Starts a job on the loop of its graph.
    ///
    /// # Errors
    /// What `start` says, or that there is no medium.
    pub fn start_job<F: Future<Output = Result<Started, OpenError>> + 'static>(
        &self,
        start: impl FnOnce(Local, Rc<Disk>) -> F + Send + 'static,
    ) -> Result<(), OpenError> {
        self.set_job(self.on_loop(start)??);
        Ok(())
    }

    /// What has happened to its job since this was asked last. With its end it is gone, and the
    /// drive is opened from what the job has made of it.
    pub fn job_events(&self) -> Vec<Event> {
        let Some(job) = self.job() else { return Vec::new() };
        let events = job.take_events();
        for event in &events {
            let Event::Ended { cancelled, error, pivoted, .. } = event else { continue };
            let Some(running) = self.state.lock().job.take() else { continue };
            let done = !cancelled && error.is_none();
            match running.pivot {
                Some(spec) if *pivoted => self.set_spec(spec),
                None if done && matches!(job.kind(), Kind::Stream | Kind::Commit) => {
                    self.forget_backing();
                }
                _ => {}
            }
        }
        events
    }

    /// What was said about its backing file is not true any more: the image knows better.
    fn forget_backing(&self) {
        if let Some(spec) = self.spec() {
            let mut spec = (*spec).clone();
            spec.options.take("backing");
            spec.options.take_under("backing");
            self.set_spec(spec);
        }
    }

    /// Ends its job, if it has one, and waits for that.
    pub fn end_job(&self) {
        if let Some(job) = self.job() {
            job.end();
        }
    }

    /// Waits for what is under way and lets nothing begin until the result is dropped; `None`
    /// without a medium. What waits for a request meanwhile waits for ever.
    pub fn hold(&self) -> Option<Held> {
        let held =
            self.on_loop(|local, disk| async move { local.keep(Rc::new(disk.hold().await)) });
        held.ok().map(|held| Held { _held: held })
    }

    /// Runs something on the graph's loop and waits for it; not from that loop.
    ///
    /// # Errors
    /// There is no medium, or the loop has ended.
    pub fn on_loop<R: Send + 'static, F: Future<Output = R> + 'static>(
        &self,
        work: impl FnOnce(Local, Rc<Disk>) -> F + Send + 'static,
    ) -> Result<R, OpenError> {
        let Some(place) = self.place() else {
            return Err(OpenError(format!("Device '{}' has no medium", self.id)));
        };
        let handle = place.handle().clone();
        let done = handle.call_async(move |local| async move {
            let disk = place.get(&local)?;
            let top = || Some(disk.node());
            Some(with_patience(&local, top, work(local.clone(), disk.clone())).await)
        });
        done.flatten().ok_or_else(|| OpenError("the I/O loop has ended".to_owned()))
    }
}

/// A drive on which nothing begins while this lives.
#[must_use = "requests go on when this is dropped"]
pub struct Held {
    _held: Remote<Hold>,
}
