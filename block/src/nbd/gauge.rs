//! What one client may have under way: requests by number, payload by bytes.
//!
//! On its loop, no lock. The lengths are the client's; the limits are ours.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use resources::iol::IoBuf;

use crate::wait::Waiters;

/// An amount that is taken and given back, with a limit.
pub(super) struct Gauge {
    used: Cell<usize>,
    limit: usize,
    waiters: Waiters,
}

impl Gauge {
    pub(super) fn new(limit: usize) -> Rc<Gauge> {
        Rc::new(Gauge { used: Cell::new(0), limit, waiters: Waiters::default() })
    }

    /// Takes some when there is room; more than the limit only when nothing else is taken.
    pub(super) async fn take(self: &Rc<Self>, amount: usize) -> Taken {
        let fits = |used: usize| used == 0 || used.saturating_add(amount) <= self.limit;
        self.waiters.until(|| fits(self.used.get())).await;
        self.used.set(self.used.get().saturating_add(amount));
        Taken { gauge: self.clone(), amount }
    }

    /// Waits until nothing is taken.
    pub(super) async fn idle(&self) {
        self.waiters.until(|| self.used.get() == 0).await;
    }
}

/// Is given back when this is dropped.
pub(super) struct Taken {
    gauge: Rc<Gauge>,
    amount: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let gauge = &self.gauge;
        gauge.used.set(gauge.used.get().saturating_sub(self.amount));
        gauge.waiters.wake();
    }
}

/// Buffers that are used again: the kernel would have to zero new ones.
pub(super) struct Buffers {
    gauge: Rc<Gauge>,
    free: RefCell<Vec<IoBuf>>,
}

/// A buffer larger than this is not kept.
const KEPT: usize = 512 << 10;

impl Buffers {
    /// Buffers of so many bytes together.
    pub(super) fn new(limit: usize) -> Rc<Buffers> {
        Rc::new(Buffers { gauge: Gauge::new(limit), free: RefCell::default() })
    }

    /// A buffer of any content, when there is room for it.
    pub(super) async fn get(self: &Rc<Self>, len: usize) -> Buffer {
        let taken = self.gauge.take(len).await;
        let room = len.next_power_of_two().max(4096);
        let kept = {
            let mut free = self.free.borrow_mut();
            let at = free.iter().rposition(|buf| buf.len() == room);
            // That which was used last.
            at.map(|at| free.remove(at))
        };
        let whole = kept.unwrap_or_else(|| IoBuf::zeroed(room.min(len.max(KEPT))));
        Buffer { buf: whole.slice(0..len), whole, buffers: self.clone(), _taken: taken }
    }
}

/// A buffer of one request.
pub(super) struct Buffer {
    pub(super) buf: IoBuf,
    whole: IoBuf,
    buffers: Rc<Buffers>,
    _taken: Taken,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self.buffers.free.borrow_mut();
        if self.whole.len() <= KEPT {
            if free.len() >= super::server::IN_FLIGHT {
                free.remove(0);
            }
            free.push(self.whole.clone());
        }
    }
}
