//! Threads for work that blocks: started when needed, ended when idle.
//!
//! Lock: a leaf mutex around the queue of jobs, not held while one runs. At most [`MAX_THREADS`]
//! for each loop, however much is asked.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::sync::oneshot;

/// Threads of one loop's pool at most.
const MAX_THREADS: usize = 4;
/// How long a thread without work stays.
const LINGER: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;

pub(super) struct Pool {
    name: String,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    /// The loop is gone: end when the jobs are done.
    closed: bool,
}

impl Pool {
    pub(super) fn new(name: &str) -> Pool {
        let shared = Shared { state: Mutex::default(), work: Condvar::new() };
        Pool { name: format!("{name}-pool"), shared: Arc::new(shared) }
    }

    /// Runs `work` on a thread of the pool. Begins when this is called, not
    /// when the future is first polled.
    pub(super) fn run<R, F>(&self, work: F) -> impl Future<Output = io::Result<R>> + use<R, F>
    where
        R: Send + 'static,
        F: FnOnce() -> R + Send + 'static,
    {
        let (sender, receiver) = oneshot();
        let started = self.push(Box::new(move || sender.send(work())));
        async move {
            started?;
            receiver.await
        }
    }

    fn push(&self, job: Job) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        state.jobs.push_back(job);
        if state.jobs.len() <= state.idle {
            self.shared.work.notify_one();
        } else if state.threads < MAX_THREADS {
            let shared = self.shared.clone();
            let thread = std::thread::Builder::new().name(self.name.clone());
            match thread.spawn(move || shared.serve()) {
                Ok(_) => state.threads += 1,
                // Those there are will come to it.
                Err(_) if state.threads > 0 => {}
                Err(error) => {
                    let job = state.jobs.pop_back();
                    drop(state);
                    drop(job);
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.work.notify_all();
    }
}

impl Shared {
    fn serve(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                parking_lot::MutexGuard::unlocked(&mut state, || {
                    // Where panics unwind, one must not take the thread along:
                    // the count of threads would be wrong from then on.
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                });
                continue;
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let timed_out = self.work.wait_for(&mut state, LINGER).timed_out();
            state.idle -= 1;
            if timed_out && state.jobs.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }
}
