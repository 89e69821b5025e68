//! How the tasks of a loop wait for one another.
//!
//! On one loop, no lock of the kind that threads have. Whoever waits holds nothing that those
//! waited for need; each user says why.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Tasks that wait for a condition.
#[derive(Default)]
pub(crate) struct Waiters(RefCell<Vec<Waker>>);

impl Waiters {
    /// Completes when `done` holds; it is looked at now and after each [`wake`](Self::wake).
    pub(crate) async fn until(&self, mut done: impl FnMut() -> bool) {
        poll_fn(|cx| {
            if done() {
                return Poll::Ready(());
            }
            self.0.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// Has everybody look again.
    pub(crate) fn wake(&self) {
        let waiting = std::mem::take(&mut *self.0.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// What one task at a time may do, in the order of their asking.
#[derive(Default)]
pub(crate) struct Turnstile {
    /// The number of whoever is in, or comes next.
    now: Cell<u64>,
    next: Cell<u64>,
    left: RefCell<Vec<u64>>,
    waiters: Waiters,
}

/// A task is in while this lives.
#[must_use = "others go on when this is dropped"]
pub(crate) struct Turn<'a> {
    turnstile: &'a Turnstile,
    number: u64,
}

impl Turnstile {
    /// Waits until everybody who asked before has gone.
    pub(crate) async fn enter(&self) -> Turn<'_> {
        let number = self.next.get();
        self.next.set(number + 1);
        // Made before the wait: whoever gives up waiting leaves, too.
        let turn = Turn { turnstile: self, number };
        self.waiters.until(|| self.now.get() == number).await;
        turn
    }

    /// Somebody is in.
    pub(crate) fn is_busy(&self) -> bool {
        self.now.get() != self.next.get()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let turnstile = self.turnstile;
        let mut left = turnstile.left.borrow_mut();
        left.push(self.number);
        while let Some(at) = left.iter().position(|number| *number == turnstile.now.get()) {
            left.swap_remove(at);
            turnstile.now.set(turnstile.now.get() + 1);
        }
        drop(left);
        turnstile.waiters.wake();
    }
}
