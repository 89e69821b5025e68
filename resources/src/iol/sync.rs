//! The few means of waiting for one another that tasks need.
//!
//! Any thread may notify; a leaf mutex each, not held while a waiter is woken. Nothing accumulates:
//! notifying twice is notifying once.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// A flag that one task waits for and anyone, on any thread, can raise.
///
/// Raising it twice before it is seen counts once; one raised while nobody
/// waits is kept for the next wait. Clones are the same flag.
#[derive(Clone, Default)]
pub struct Notify(Arc<Mutex<Flag>>);

#[derive(Default)]
struct Flag {
    raised: bool,
    waiter: Option<Waker>,
}

impl Notify {
    /// A flag that is down.
    pub fn new() -> Notify {
        Notify::default()
    }

    /// Raises the flag.
    pub fn notify(&self) {
        let waiter = {
            let mut flag = self.0.lock();
            flag.raised = true;
            flag.waiter.take()
        };
        if let Some(waker) = waiter {
            waker.wake();
        }
    }

    /// Completes when the flag is up, and takes it down. One task at a time may
    /// wait; a second one takes the first one's place.
    pub fn notified(&self) -> Notified {
        Notified(self.clone())
    }
}

/// The future of [`Notify::notified`].
#[must_use = "futures do nothing unless awaited"]
pub struct Notified(Notify);

impl Future for Notified {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut flag = self.0.0.lock();
        if std::mem::take(&mut flag.raised) {
            flag.waiter = None;
            return Poll::Ready(());
        }
        flag.waiter = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Which of two futures was done first, and what it gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The first one.
    Left(A),
    /// The second one.
    Right(B),
}

/// Completes with the first of two futures that does, the left one if both
/// have; the other one is dropped.
pub async fn race<A: Future, B: Future>(left: A, right: B) -> Either<A::Output, B::Output> {
    let mut left = pin!(left);
    let mut right = pin!(right);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(out) = left.as_mut().poll(cx) {
            return Poll::Ready(Either::Left(out));
        }
        right.as_mut().poll(cx).map(Either::Right)
    })
    .await
}

/// The two ends of a result that another thread, or the ring, delivers once.
pub(super) fn oneshot<T>() -> (Sender<T>, Receiver<T>) {
    let slot = Arc::new(Mutex::new(Slot { state: State::Empty, waiter: None }));
    (Sender(slot.clone()), Receiver(slot))
}

struct Slot<T> {
    state: State<T>,
    waiter: Option<Waker>,
}

enum State<T> {
    Empty,
    Full(T),
    /// The sender was dropped.
    Lost,
}

pub(super) struct Sender<T>(Arc<Mutex<Slot<T>>>);

impl<T> Sender<T> {
    pub(super) fn send(self, value: T) {
        self.0.lock().state = State::Full(value);
        // Dropping self wakes the receiver.
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waiter = {
            let mut slot = self.0.lock();
            if matches!(slot.state, State::Empty) {
                slot.state = State::Lost;
            }
            slot.waiter.take()
        };
        if let Some(waker) = waiter {
            waker.wake();
        }
    }
}

pub(super) struct Receiver<T>(Arc<Mutex<Slot<T>>>);

impl<T> Future for Receiver<T> {
    type Output = io::Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let mut slot = self.0.lock();
        match std::mem::replace(&mut slot.state, State::Empty) {
            State::Full(value) => Poll::Ready(Ok(value)),
            State::Lost => Poll::Ready(Err(io::Error::other("the operation was abandoned"))),
            State::Empty => {
                slot.waiter = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
