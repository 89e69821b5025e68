//! Several requests at a time.
//!
//! On the tool's loop, no lock.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};

use resources::iol::Local;

use super::console::Fail;
use crate::node::Op;

/// Runs `count` workers to their ends. The first failure is returned, once all have ended: a
/// worker that shares a [`Queue`] with the others closes it when it fails.
///
/// # Errors
/// Whatever the workers fail with.
pub async fn crew<F: Future<Output = Result<(), Fail>> + 'static>(
    local: &Local,
    count: usize,
    worker: impl Fn() -> F,
) -> Result<(), Fail> {
    let tasks: Vec<_> = (0..count.max(1)).map(|_| local.spawn(worker())).collect();
    let mut result = Ok(());
    for task in tasks {
        let ended = task.await;
        result = result.and(ended);
    }
    result
}

/// Work that one task finds and others do: bounded, first in, first out.
pub struct Queue<T> {
    items: RefCell<VecDeque<T>>,
    room: usize,
    closed: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl<T> Queue<T> {
    /// With room for so many.
    pub fn new(room: usize) -> Rc<Queue<T>> {
        Rc::new(Queue {
            items: RefCell::default(),
            room: room.max(1),
            closed: Cell::new(false),
            waiting: RefCell::default(),
        })
    }

    /// Puts one in when there is room; false when nobody will take it.
    pub async fn put(&self, item: T) -> bool {
        let mut item = Some(item);
        poll_fn(|cx| {
            if self.closed.get() {
                return Poll::Ready(false);
            }
            if self.items.borrow().len() >= self.room {
                self.waiting.borrow_mut().push(cx.waker().clone());
                return Poll::Pending;
            }
            self.items.borrow_mut().extend(item.take());
            self.wake();
            Poll::Ready(true)
        })
        .await
    }

    /// Takes one when there is one; `None` once it is closed and empty.
    pub async fn take(&self) -> Option<T> {
        poll_fn(|cx| {
            if let Some(item) = self.items.borrow_mut().pop_front() {
                self.wake();
                return Poll::Ready(Some(item));
            }
            if self.closed.get() {
                return Poll::Ready(None);
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Nothing more comes in; what is in it is still done.
    pub fn close(&self) {
        self.closed.set(true);
        self.wake();
    }

    /// Nothing more comes in or out.
    pub fn abandon(&self) {
        self.items.borrow_mut().clear();
        self.close();
    }

    fn wake(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }
}

/// Has one task find work, by `find`, which others do: `count` of them, by `serve`, until the queue
/// is closed and empty. The first failure, when all have ended.
///
/// # Errors
/// Whatever they fail with; what fails first stops the others.
pub async fn find_and_do<T: 'static, W: Future<Output = Result<(), Fail>> + 'static>(
    local: &Local,
    queue: &Rc<Queue<T>>,
    count: usize,
    find: impl Future<Output = Result<(), Fail>> + 'static,
    serve: impl Fn() -> W,
) -> Result<(), Fail> {
    let finder = local.spawn({
        let queue = queue.clone();
        async move {
            let found = find.await;
            match found {
                Ok(()) => queue.close(),
                Err(_) => queue.abandon(),
            }
            found
        }
    });
    let done = crew(local, count, || {
        let (queue, serve) = (queue.clone(), serve());
        async move { serve.await.inspect_err(|_| queue.abandon()) }
    });
    let done = done.await;
    let found = finder.await;
    done.and(found)
}

/// Lets operations begin in the order of their numbers, which are 0, 1, 2 and so on, each once.
#[derive(Default)]
pub struct Turns {
    next: Cell<u64>,
    open: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Turns {
    /// Waits for the turn of `number`.
    pub async fn wait(&self, number: u64) {
        poll_fn(|cx| {
            if self.open.get() || self.next.get() >= number {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// The one whose turn it is has begun.
    pub fn next(&self) {
        self.next.set(self.next.get().saturating_add(1));
        self.wake();
    }

    /// The order does not count any more.
    pub fn open(&self) {
        self.open.set(true);
        self.wake();
    }

    fn wake(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }
}

/// Runs an operation, and calls `begun` when it has gone as far as it can at once.
pub async fn begin<T>(mut op: Op<'_, T>, begun: impl FnOnce()) -> io::Result<T> {
    let mut begun = Some(begun);
    poll_fn(move |cx| {
        let polled = op.as_mut().poll(cx);
        if let Some(begun) = begun.take() {
            begun();
        }
        polled
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::testing::run;

    #[test]
    fn what_is_found_is_done_once_and_in_turns() {
        run(async |local| {
            let queue = Queue::new(2);
            let (turns, seen) = (Rc::new(Turns::default()), Rc::new(RefCell::new(Vec::new())));
            let finder = {
                let queue = queue.clone();
                local.spawn(async move {
                    for number in 0..50u64 {
                        assert!(queue.put(number).await);
                    }
                    queue.close();
                })
            };
            let worker = || {
                let (queue, turns, seen) = (queue.clone(), turns.clone(), seen.clone());
                let local = local.clone();
                async move {
                    while let Some(number) = queue.take().await {
                        if number % 3 == 0 {
                            local.yield_now().await;
                        }
                        turns.wait(number).await;
                        seen.borrow_mut().push(number);
                        turns.next();
                    }
                    Ok(())
                }
            };
            assert_eq!(crew(&local, 4, worker).await, Ok(()));
            finder.await;
            assert_eq!(*seen.borrow(), (0..50).collect::<Vec<_>>());
        });
    }

    #[test]
    fn a_failure_ends_all() {
        run(async |local| {
            let queue = Queue::new(2);
            let finder = {
                let queue = queue.clone();
                local.spawn(async move { while queue.put(1).await {} })
            };
            let taken = Cell::new(0);
            let taken = Rc::new(taken);
            let worker = || {
                let (queue, taken) = (queue.clone(), taken.clone());
                async move {
                    while queue.take().await.is_some() {
                        taken.set(taken.get() + 1);
                        if taken.get() == 30 {
                            queue.abandon();
                            return Err(Fail::Code(7));
                        }
                    }
                    Ok(())
                }
            };
            assert_eq!(crew(&local, 3, worker).await, Err(Fail::Code(7)));
            finder.await;
        });
    }
}
