//! Tasks, and the queue through which they and posted closures get to run.
//!
//! Tasks run on the loop's thread; any thread may wake and post. Lock: a leaf mutex around the
//! queue, not held while anything runs. A task that is woken often is queued once; how many
//! closures are posted is for the posters to bound.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::Local;

type Work = Box<dyn FnOnce(&Local) + Send>;

/// One entry of a loop's queue.
pub(super) enum Message {
    /// Run a posted closure.
    Run(Work),
    /// Poll a task.
    Wake(Arc<Wake>),
}

/// The part of a loop that other threads reach.
pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// Written to when something is queued while the loop sleeps. The loop
    /// watches it edge-triggered and never reads it.
    wake: EventFd,
}

struct Queue {
    messages: Vec<Message>,
    /// The loop is in, or about to enter, its wait.
    sleeping: bool,
    /// The loop is gone.
    closed: bool,
}

impl Shared {
    pub(super) fn new() -> io::Result<Shared> {
        let queue = Queue { messages: Vec::new(), sleeping: false, closed: false };
        Ok(Shared { queue: Mutex::new(queue), wake: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)? })
    }

    pub(super) fn eventfd(&self) -> &EventFd {
        &self.wake
    }

    pub(super) fn push(&self, message: Message) {
        let refused;
        let wake = {
            let mut queue = self.queue.lock();
            if queue.closed {
                refused = Some(message);
                false
            } else {
                refused = None;
                queue.messages.push(message);
                std::mem::take(&mut queue.sleeping)
            }
        };
        // A closure's captures may do anything when dropped: not under the lock.
        drop(refused);
        if wake {
            // Fails only on a full counter, which has woken the loop as well.
            let _ = self.wake.write(1);
        }
    }

    /// Moves everything queued into `batch`, which is empty.
    pub(super) fn take(&self, batch: &mut Vec<Message>) {
        std::mem::swap(&mut self.queue.lock().messages, batch);
    }

    /// Puts messages that were taken back in front of the queue.
    pub(super) fn put_back(&self, messages: impl Iterator<Item = Message>) {
        self.queue.lock().messages.splice(0..0, messages);
    }

    /// Whether there is nothing to do; if so, whoever queues next wakes us.
    pub(super) fn may_sleep(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.sleeping = queue.messages.is_empty();
        queue.sleeping
    }

    pub(super) fn awake(&self) {
        self.queue.lock().sleeping = false;
    }

    pub(super) fn close(&self) {
        let messages = {
            let mut queue = self.queue.lock();
            queue.closed = true;
            std::mem::take(&mut queue.messages)
        };
        drop(messages);
    }
}

/// What a task's `Waker` holds: where to find the task again.
pub(super) struct Wake {
    shared: Arc<Shared>,
    slot: usize,
    /// In the queue already.
    queued: AtomicBool,
}

const ROOT: usize = usize::MAX;

impl Wake {
    fn new(shared: Arc<Shared>, slot: usize) -> Arc<Wake> {
        Arc::new(Wake { shared, slot, queued: AtomicBool::new(false) })
    }

    pub(super) fn root(shared: Arc<Shared>) -> Arc<Wake> {
        Wake::new(shared, ROOT)
    }

    pub(super) fn is_root(&self) -> bool {
        self.slot == ROOT
    }

    /// A wake from here on asks for another poll.
    pub(super) fn begin_poll(&self) {
        // Acquire: sees what the waking thread did before its wake.
        self.queued.swap(false, Ordering::AcqRel);
    }

    pub(super) fn wake_now(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.shared.push(Message::Wake(self.clone()));
        }
    }
}

impl std::task::Wake for Wake {
    fn wake(self: Arc<Self>) {
        self.wake_now();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_now();
    }
}

type Boxed = Pin<Box<dyn Future<Output = ()>>>;

struct Entry {
    wake: Arc<Wake>,
    waker: Waker,
    /// Absent while it is being polled.
    future: Option<Boxed>,
}

/// The tasks of one loop, in slots that are used again.
pub(super) struct Tasks {
    shared: Arc<Shared>,
    slots: RefCell<Slots>,
}

#[derive(Default)]
struct Slots {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    closed: bool,
}

impl Tasks {
    pub(super) fn new(shared: Arc<Shared>) -> Tasks {
        Tasks { shared, slots: RefCell::default() }
    }

    /// Puts `future` into a slot; `None` when the loop is being torn down.
    fn add(&self, future: Boxed) -> Option<Arc<Wake>> {
        let mut slots = self.slots.borrow_mut();
        if slots.closed {
            drop(slots);
            drop(future);
            return None;
        }
        let slot = slots.free.pop().unwrap_or_else(|| {
            slots.entries.push(None);
            slots.entries.len() - 1
        });
        let wake = Wake::new(self.shared.clone(), slot);
        let entry = Entry { waker: wake.clone().into(), wake: wake.clone(), future: Some(future) };
        slots.entries[slot] = Some(entry);
        Some(wake)
    }

    /// The entry of a task, unless it has ended (its slot may have a new one).
    fn entry<'a>(slots: &'a mut Slots, wake: &Arc<Wake>) -> Option<&'a mut Entry> {
        slots.entries.get_mut(wake.slot)?.as_mut().filter(|e| Arc::ptr_eq(&e.wake, wake))
    }

    pub(super) fn poll(&self, wake: &Arc<Wake>) {
        wake.begin_poll();
        let taken = Self::entry(&mut self.slots.borrow_mut(), wake)
            .and_then(|e| Some((e.future.take()?, e.waker.clone())));
        let Some((mut future, waker)) = taken else { return };
        // No borrow is held here: the task may spawn, cancel and finish others.
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            drop(future);
            self.remove(wake);
            return;
        }
        let mut slots = self.slots.borrow_mut();
        match Self::entry(&mut slots, wake) {
            Some(entry) => entry.future = Some(future),
            None => {
                // Cancelled by itself.
                drop(slots);
                drop(future);
            }
        }
    }

    fn remove(&self, wake: &Arc<Wake>) {
        let entry = {
            let mut slots = self.slots.borrow_mut();
            if Self::entry(&mut slots, wake).is_none() {
                return;
            }
            slots.free.push(wake.slot);
            slots.entries[wake.slot].take()
        };
        drop(entry);
    }

    /// Drops every task; from now on new ones are dropped at once.
    pub(super) fn clear(&self) {
        let entries = {
            let mut slots = self.slots.borrow_mut();
            slots.closed = true;
            std::mem::take(&mut slots.entries)
        };
        drop(entries);
    }
}

/// A task of a loop, itself a future of the task's result.
///
/// Dropping it cancels the task: its future is dropped at its next `await`.
#[must_use = "dropping a task cancels it"]
pub struct Task<T> {
    local: Local,
    wake: Option<Arc<Wake>>,
    join: Rc<Join<T>>,
}

struct Join<T> {
    result: RefCell<Option<T>>,
    waiting: Cell<Option<Waker>>,
}

impl<T: 'static> Task<T> {
    pub(super) fn spawn(local: &Local, future: impl Future<Output = T> + 'static) -> Task<T> {
        let join = Rc::new(Join { result: RefCell::new(None), waiting: Cell::new(None) });
        let body = {
            let join = join.clone();
            async move {
                let result = future.await;
                *join.result.borrow_mut() = Some(result);
                if let Some(waker) = join.waiting.take() {
                    waker.wake();
                }
            }
        };
        let wake = local.inner().tasks.add(Box::pin(body));
        if let Some(wake) = &wake {
            wake.wake_now();
        }
        Task { local: local.clone(), wake, join }
    }
}

impl<T> Task<T> {
    /// Lets the task run to its end, its result unseen.
    pub fn detach(mut self) {
        self.wake = None;
    }

    /// Whether the task has ended and its result not been taken.
    pub fn is_finished(&self) -> bool {
        self.join.result.borrow().is_some()
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if let Some(result) = self.join.result.borrow_mut().take() {
            return Poll::Ready(result);
        }
        self.join.waiting.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if let Some(wake) = self.wake.take() {
            self.local.inner().tasks.remove(&wake);
        }
    }
}
