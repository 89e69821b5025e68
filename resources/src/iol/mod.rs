//! The I/O loop: a small async executor over epoll, io_uring and timers.
//!
//! A [`Loop`] belongs to one thread (`main` and each I/O thread run one) and
//! polls the tasks spawned on it. Tasks are not `Send`: what they share, they
//! share by `Rc` and `Cell`. From other threads a loop is reached by its
//! [`Handle`], which posts closures, and by the wakers of its tasks.
//!
//! | piece | file |
//! |---|---|
//! | tasks, posted closures, wake-ups | `task.rs` |
//! | readiness of file descriptors ([`Watch`]) | `reactor.rs` |
//! | [`Local::sleep_until`] | `timer.rs` |
//! | reads and writes of files, by ring or by pool | `file.rs`, `uring.rs`, `pool.rs` |
//! | [`IoBuf`]: guest RAM or memory of our own, for reads and writes | `buf.rs` |
//! | [`Remote`]: a value that stays on the loop | `remote.rs` |
//! | [`Notify`], [`race`], one-shot results | `sync.rs` |
//!
//! Thread: the one that runs the loop; `Handle`, `Waker` and `Notify` work
//! from any. Lock: one leaf mutex per loop around its queue of posted work,
//! never held while anything else runs. Nothing a guest or a peer sends is
//! interpreted here; they can only make descriptors ready, and each turn of
//! the loop handles a bounded number of events before it looks at everything
//! else again.

mod buf;
mod file;
mod pool;
mod reactor;
mod remote;
mod sync;
mod task;
mod timer;
mod uring;

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

pub use buf::{IoBuf, NotRam};
pub use file::{FallocateFlags, FileIo};
pub use reactor::{Direction, Watch};
pub use remote::Remote;
pub use sync::{Either, Notified, Notify, race};
pub use task::Task;
pub use timer::Sleep;

use task::{Message, Shared, Tasks, Wake};

/// Times that what was queued is run before the kernel is asked for what else has happened: tasks
/// that were just started begin their file operations together with those of others.
const ROUNDS: u32 = 4;

/// An executor bound to the thread that made it.
pub struct Loop {
    local: Local,
}

/// What a task or a posted closure uses to reach the loop it runs on.
///
/// A cheap clone that stays on the loop's thread. Outliving the `Loop` is
/// harmless: what is then spawned never runs.
#[derive(Clone)]
pub struct Local(Rc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    tasks: Tasks,
    reactor: Rc<reactor::Reactor>,
    timers: Rc<timer::Timers>,
    files: file::Files,
    kept: remote::Kept,
    /// Times the kernel was asked.
    turns: Cell<u64>,
}

/// The way to a loop from any thread.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Loop {
    /// Makes a loop named `name` (the prefix of its pool threads' names) for
    /// the calling thread. Costs an epoll and an eventfd; ring and pool
    /// come with their first use.
    ///
    /// # Errors
    /// When the kernel refuses the descriptors.
    pub fn new(name: &str) -> io::Result<Loop> {
        Loop::with_file_io(name, FileIo::Auto)
    }

    /// As [`Loop::new`], choosing how files are read and written.
    ///
    /// # Errors
    /// When the kernel refuses the descriptors.
    pub fn with_file_io(name: &str, file_io: FileIo) -> io::Result<Loop> {
        let shared = Arc::new(Shared::new()?);
        let reactor = Rc::new(reactor::Reactor::new(shared.eventfd())?);
        let inner = Inner {
            tasks: Tasks::new(shared.clone()),
            timers: Rc::new(timer::Timers::new()),
            files: file::Files::new(name, file_io),
            kept: remote::Kept::default(),
            turns: Cell::new(0),
            shared,
            reactor,
        };
        Ok(Loop { local: Local(Rc::new(inner)) })
    }

    /// The way to this loop from other threads.
    pub fn handle(&self) -> Handle {
        self.local.handle()
    }

    /// The way to this loop from its own thread.
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// Runs `root`, and every task of the loop beside it, until `root` is done.
    /// The other tasks stay as they are and go on with the next `run`.
    ///
    /// `&mut`: a task cannot run its own loop.
    pub fn run<F: Future>(&mut self, root: F) -> F::Output {
        let inner = &*self.local.0;
        let mut root = pin!(root);
        let wake = Wake::root(inner.shared.clone());
        let waker = wake.clone().into();
        wake.wake_now();
        let mut batch = Vec::new();
        let mut rounds = 0;
        loop {
            inner.shared.take(&mut batch);
            if batch.is_empty() || rounds == ROUNDS {
                rounds = 0;
                self.turn(batch.is_empty());
                if batch.is_empty() {
                    continue;
                }
            }
            rounds += 1;
            let mut messages = batch.drain(..);
            while let Some(message) = messages.next() {
                match message {
                    Message::Run(work) => work(&self.local),
                    Message::Wake(task) if task.is_root() => {
                        // A root of an earlier run may still be woken.
                        if !Arc::ptr_eq(&task, &wake) {
                            continue;
                        }
                        task.begin_poll();
                        if let Poll::Ready(out) =
                            root.as_mut().poll(&mut Context::from_waker(&waker))
                        {
                            inner.shared.put_back(messages);
                            return out;
                        }
                    }
                    Message::Wake(task) => inner.tasks.poll(&task),
                }
            }
            drop(messages);
        }
    }

    /// Hands over what was started, waits for something to happen if it may and
    /// there is no work already, and wakes the tasks concerned.
    fn turn(&self, may_wait: bool) {
        let inner = &*self.local.0;
        inner.turns.set(inner.turns.get().wrapping_add(1));
        let submitted = inner.files.submit();
        inner.timers.arm(&inner.reactor);
        let idle = may_wait && inner.shared.may_sleep();
        inner.reactor.wait(idle && submitted);
        inner.shared.awake();
        inner.files.complete();
        inner.timers.fire();
    }
}

impl Drop for Loop {
    /// Drops the tasks and the closures not yet run, then waits for the file
    /// operations still under way in the ring, whose buffers it owns.
    fn drop(&mut self) {
        let inner = &*self.local.0;
        inner.tasks.clear();
        inner.kept.clear();
        inner.shared.close();
        inner.files.finish();
    }
}

impl Local {
    /// The way to this loop from other threads.
    pub fn handle(&self) -> Handle {
        Handle { shared: self.0.shared.clone() }
    }

    /// Starts `future` on this loop. It is first polled on the loop's next
    /// turn. Dropping the [`Task`] cancels it; see [`Task::detach`].
    pub fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + 'static,
    {
        Task::spawn(self, future)
    }

    /// Watches a descriptor for readiness. It should be in non-blocking mode.
    /// A regular file, which cannot be watched, counts as always ready.
    ///
    /// # Errors
    /// When the descriptor is not open.
    pub fn watch<T: std::os::fd::AsRawFd>(&self, io: T) -> io::Result<Watch<T>> {
        Watch::new(self.0.reactor.clone(), io)
    }

    /// Completes at `deadline`, never before.
    pub fn sleep_until(&self, deadline: Instant) -> Sleep {
        Sleep::new(self.0.timers.clone(), deadline)
    }

    /// Completes once `duration` has passed. A duration beyond what the clock
    /// can express never passes.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        Sleep::after(self.0.timers.clone(), duration)
    }

    /// Lets everything else that is ready run once.
    pub fn yield_now(&self) -> impl Future<Output = ()> + use<> {
        let mut yielded = false;
        std::future::poll_fn(move |cx| {
            if yielded {
                return Poll::Ready(());
            }
            yielded = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    /// Completes when the loop has asked the kernel what has happened, and who was concerned has
    /// run: file operations that were started before are under way then, or over.
    pub async fn turned(&self) {
        let before = self.0.turns.get();
        while self.0.turns.get() == before {
            self.yield_now().await;
        }
        self.yield_now().await;
    }

    /// Runs `work`, which may block, on a thread of the loop's pool.
    ///
    /// Dropping the future leaves the work to finish, its result unseen.
    ///
    /// # Errors
    /// When no pool thread can be started, or `work` panicked.
    pub async fn pool<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> io::Result<R> {
        self.0.files.pool().run(work).await
    }

    fn inner(&self) -> &Inner {
        &self.0
    }
}

impl Handle {
    /// Whether it leads to this loop.
    pub fn is_of(&self, local: &Local) -> bool {
        Arc::ptr_eq(&self.shared, &local.0.shared)
    }

    /// Whether both lead to the same loop.
    pub fn is(&self, other: &Handle) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Makes a future on the loop's thread, runs it there to its end and waits for its result;
    /// `None` when the loop has ended. As [`call`](Self::call), not from the loop's own thread.
    pub fn call_async<R: Send + 'static, F: Future<Output = R> + 'static>(
        &self,
        make: impl FnOnce(Local) -> F + Send + 'static,
    ) -> Option<R> {
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        self.spawn(move |local| async move {
            let _ = send.send(make(local).await);
        });
        receive.recv().ok()
    }

    /// Runs `work` on the loop's thread, after everything posted before it.
    ///
    /// The loop is woken only when it sleeps. Once the loop is gone, `work` is
    /// dropped without being run.
    pub fn post(&self, work: impl FnOnce(&Local) + Send + 'static) {
        self.shared.push(Message::Run(Box::new(work)));
    }

    /// Runs `work` on the loop's thread and waits for its result; `None` when
    /// the loop has ended. Must not be called on the loop's own thread, nor
    /// where the loop's thread may be waiting for the caller.
    pub fn call<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Local) -> R + Send + 'static,
    ) -> Option<R> {
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        self.post(move |local| {
            let _ = send.send(work(local));
        });
        receive.recv().ok()
    }

    /// Makes a future on the loop's thread and runs it there as a detached task.
    pub fn spawn<F: Future<Output = ()> + 'static>(
        &self,
        make: impl FnOnce(Local) -> F + Send + 'static,
    ) {
        self.post(move |local| local.spawn(make(local.clone())).detach());
    }
}

/// A thread that runs a loop until this is dropped, which waits for it to end.
pub struct Thread {
    stop: Notify,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Thread {
    /// Starts a thread named `name` and a loop on it.
    ///
    /// # Errors
    /// When the kernel refuses the thread or the loop's descriptors.
    pub fn spawn(name: &str) -> io::Result<(Thread, Handle)> {
        Thread::spawn_with_file_io(name, FileIo::Auto)
    }

    /// As [`Thread::spawn`], choosing how files are read and written.
    ///
    /// # Errors
    /// When the kernel refuses the thread or the loop's descriptors.
    pub fn spawn_with_file_io(name: &str, file_io: FileIo) -> io::Result<(Thread, Handle)> {
        let stop = Notify::new();
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn({
            let (name, stop) = (name.to_owned(), stop.clone());
            move || match Loop::with_file_io(&name, file_io) {
                Ok(mut the_loop) => {
                    let _ = send.send(Ok(the_loop.handle()));
                    the_loop.run(stop.notified());
                }
                Err(error) => {
                    let _ = send.send(Err(error));
                }
            }
        })?;
        let handle =
            receive.recv().unwrap_or_else(|_| Err(io::Error::other("loop thread died")))?;
        Ok((Thread { stop, thread: Some(thread) }, handle))
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.notify();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}
