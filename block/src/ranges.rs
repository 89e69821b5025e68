//! Ranges of a disk that somebody has for himself for a while.
//!
//! On one loop, no lock. Whoever waits is polled again at every release: there are few at a time.

use std::cell::{Cell, RefCell};

use crate::wait::Waiters;

/// The ranges taken.
#[derive(Default)]
pub(crate) struct Ranges {
    taken: RefCell<Vec<Taken>>,
    next: Cell<u64>,
    waiters: Waiters,
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
        let is_free = || {
            let taken = self.taken.borrow();
            !taken.iter().any(|other| other.start < end && offset < other.end)
        };
        self.waiters.until(is_free).await;
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        self.taken.borrow_mut().push(Taken { number, start: offset, end });
        Range { ranges: self, number }
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
        self.ranges.waiters.wake();
    }
}
