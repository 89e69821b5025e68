//! What the tasks of an image have for themselves, and wait for.
//!
//! On the image's loop, no lock of the kind that threads have. Whoever waits holds nothing that
//! those waited for need; each user says why.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::Poll;

use crate::node::Op;
use crate::wait::Waiters;

/// Ranges of the guest's clusters whose mapping is being changed.
#[derive(Default)]
pub(super) struct Flights {
    list: RefCell<Vec<(u64, Range<u64>)>>,
    next: Cell<u64>,
    waiters: Waiters,
}

/// A range is one's own while this lives.
#[must_use = "the range is free again when this is dropped"]
pub(super) struct Flight<'a> {
    flights: &'a Flights,
    id: u64,
}

impl Flights {
    /// The first cluster of `range` that is another one's.
    pub(super) fn clash(&self, range: &Range<u64>) -> Option<u64> {
        let list = self.list.borrow();
        let clashing =
            list.iter().filter(|(_, other)| other.start < range.end && range.start < other.end);
        clashing.map(|(_, other)| other.start.max(range.start)).min()
    }

    /// Waits until nobody else has a cluster of `range`. The caller has none meanwhile.
    pub(super) async fn free(&self, range: Range<u64>) {
        if self.clash(&range).is_some() {
            self.waiters.until(|| self.clash(&range).is_none()).await;
        }
    }

    /// Takes a range that is free.
    pub(super) fn take(&self, range: Range<u64>) -> Flight<'_> {
        let id = self.next.get();
        self.next.set(id + 1);
        self.list.borrow_mut().push((id, range));
        Flight { flights: self, id }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.flights.list.borrow_mut().retain(|(id, _)| *id != self.id);
        self.flights.waiters.wake();
    }
}

/// Who still uses what has been given up: operations on data, counted by the epoch they began in.
pub(super) struct Epochs {
    /// The number of the oldest epoch that is not over.
    first: Cell<u64>,
    /// Operations of the epochs from `first` on; the last one goes on.
    active: RefCell<VecDeque<usize>>,
}

/// An operation that uses places in the file.
#[must_use = "the places may be given away when this is dropped"]
pub(super) struct InUse<'a> {
    epochs: &'a Epochs,
    epoch: u64,
}

impl Default for Epochs {
    fn default() -> Epochs {
        Epochs { first: Cell::new(0), active: RefCell::new(VecDeque::from([0])) }
    }
}

impl Epochs {
    fn current(&self) -> u64 {
        self.first.get() + self.active.borrow().len() as u64 - 1
    }

    /// An operation begins.
    pub(super) fn enter(&self) -> InUse<'_> {
        let epoch = self.current();
        if let Some(count) = self.active.borrow_mut().back_mut() {
            *count += 1;
        }
        InUse { epochs: self, epoch }
    }

    /// Begins an epoch; the number of the one before.
    pub(super) fn turn(&self) -> u64 {
        let before = self.current();
        self.active.borrow_mut().push_back(0);
        self.tidy();
        before
    }

    /// No operation that began in `epoch` or before goes on.
    pub(super) fn is_over(&self, epoch: u64) -> bool {
        self.first.get() > epoch
    }

    fn tidy(&self) {
        let mut active = self.active.borrow_mut();
        while active.len() > 1 && active.front() == Some(&0) {
            active.pop_front();
            self.first.set(self.first.get() + 1);
        }
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        let at = (self.epoch - self.epochs.first.get()) as usize;
        if let Some(count) = self.epochs.active.borrow_mut().get_mut(at) {
            *count -= 1;
        }
        if at == 0 {
            self.epochs.tidy();
        }
    }
}

/// Runs operations at the same time, all of them to their end; the first error.
pub(super) async fn join(mut ops: Vec<Op<'_>>) -> io::Result<()> {
    if ops.len() == 1
        && let Some(op) = ops.pop()
    {
        return op.await;
    }
    let mut result = Ok(());
    poll_fn(|cx| {
        ops.retain_mut(|op| match Pin::new(op).poll(cx) {
            Poll::Ready(Ok(())) => false,
            Poll::Ready(Err(error)) => {
                if result.is_ok() {
                    result = Err(error);
                }
                false
            }
            Poll::Pending => true,
        });
        if ops.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    result
}
