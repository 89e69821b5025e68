//! Ranges of a disk that somebody has for himself for a while.
//!
//! On one loop, no lock. Whoever waits is polled again at every release: there are few at a time.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// The ranges taken.
#[derive(Default)]
pub(crate) struct Ranges {
    taken: RefCell<Vec<Taken>>,
    next: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

struct Taken {
    number: u64,
    start: u64,
    end: u64,
}

impl Ranges {
    /// Waits until nobody has any part of the range, and takes it. Whoever has one range must not
    /// wait for another.
    pub(crate) async fn take(&self, offset: u64, len: u64) -> Range<'_> {
        let end = offset.saturating_add(len);
        poll_fn(|cx| match self.try_take(offset, end) {
            Some(range) => Poll::Ready(range),
            None => {
                self.waiting.borrow_mut().push(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    fn try_take(&self, start: u64, end: u64) -> Option<Range<'_>> {
        let mut taken = self.taken.borrow_mut();
        if taken.iter().any(|other| other.start < end && start < other.end) {
            return None;
        }
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        taken.push(Taken { number, start, end });
        Some(Range { ranges: self, number })
    }
}

/// A range taken; others may have it when this is dropped.
#[must_use = "the range is given back when this is dropped"]
pub(crate) struct Range<'a> {
    ranges: &'a Ranges,
    number: u64,
}

impl Drop for Range<'_> {
    fn drop(&mut self) {
        self.ranges.taken.borrow_mut().retain(|taken| taken.number != self.number);
        let waiting = std::mem::take(&mut *self.ranges.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }
}
