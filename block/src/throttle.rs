//! Limits of what a disk does: leaky buckets on the machine's virtual clock.
//!
//! Six buckets, for bytes and operations, of all requests, of reads and of writes. A request waits
//! until no bucket that it goes into is above its burst, in the order of the requests of its
//! direction; then it is charged. A machine that stands still makes no progress, but whoever
//! drains a disk lets everything through.
//!
//! [`Limits`] and [`Buckets`] are data. A `Throttle` is on the loop of its disk; the clock's
//! timers, on the I/O thread, only wake it. Limits are a client's.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;
use resources::clock::{Clock, Timer};

/// Which requests a limit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Those that read.
    Read,
    /// Those that write, zeros too.
    Write,
}

/// The limit of one bucket, in units (bytes or operations).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limit {
    /// Units a second; 0 is no limit.
    pub average: f64,
    /// Units that may come at once.
    pub burst: f64,
}

/// Limits for bytes or for operations.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Group {
    /// Of all requests.
    pub total: Limit,
    /// Of reads.
    pub read: Limit,
    /// Of writes.
    pub write: Limit,
}

/// The limits of a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limits {
    /// Of bytes.
    pub bytes: Group,
    /// Of operations.
    pub operations: Group,
    /// A request of more bytes counts as several operations; 0 if not.
    pub operation_size: u64,
}

/// Limits as they are given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Given {
    /// Bytes a second: in all, read, written.
    pub bps: [i64; 3],
    /// Their bursts.
    pub bps_max: [i64; 3],
    /// Operations a second: in all, reads, writes.
    pub iops: [i64; 3],
    /// Their bursts.
    pub iops_max: [i64; 3],
    /// See [`Limits::operation_size`].
    pub iops_size: i64,
}

/// Limits that make no sense; the texts are those that clients know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// One for all requests besides one for a direction.
    #[error("bps/iops/max total values and read/write values cannot be used at the same time")]
    Conflict,
    /// One below zero.
    #[error("bps/iops/maxs values must be 0 or greater")]
    Negative,
}

impl Given {
    /// The limits.
    ///
    /// # Errors
    /// See [`LimitError`].
    pub fn limits(&self) -> Result<Limits, LimitError> {
        let all = [self.bps, self.iops, self.bps_max, self.iops_max];
        let conflicts =
            |[total, read, write]: &[i64; 3]| *total != 0 && (*read != 0 || *write != 0);
        if all.iter().any(conflicts) {
            return Err(LimitError::Conflict);
        }
        if all.as_flattened().iter().any(|value| *value < 0) {
            return Err(LimitError::Negative);
        }
        let limit = |average: i64, burst: i64| {
            let (average, burst) = (average as f64, burst as f64);
            let derived = average != 0.0 && burst == 0.0;
            Limit { average, burst: if derived { average / 10.0 } else { burst } }
        };
        let group =
            |[total, read, write]: [i64; 3], [most, most_read, most_written]: [i64; 3]| Group {
                total: limit(total, most),
                read: limit(read, most_read),
                write: limit(write, most_written),
            };
        Ok(Limits {
            bytes: group(self.bps, self.bps_max),
            operations: group(self.iops, self.iops_max),
            operation_size: u64::try_from(self.iops_size).unwrap_or(0),
        })
    }
}

impl Limits {
    /// Whether anything is limited.
    pub fn any(&self) -> bool {
        [self.bytes, self.operations].iter().any(|group| {
            [group.total, group.read, group.write].iter().any(|limit| limit.average > 0.0)
        })
    }
}

/// How full the buckets are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Buckets {
    limits: Limits,
    /// Bytes and operations: in all, read, written.
    levels: [[f64; 3]; 2],
    /// When they were last looked at, in nanoseconds.
    at: u64,
}

impl Buckets {
    /// Empty ones at time `now`.
    pub fn new(limits: Limits, now: u64) -> Buckets {
        Buckets { limits, levels: Default::default(), at: now }
    }

    fn each(&mut self) -> impl Iterator<Item = (Limit, &mut f64)> {
        let groups = [self.limits.bytes, self.limits.operations];
        let limits = groups.map(|group| [group.total, group.read, group.write]);
        limits.into_iter().flatten().zip(self.levels.as_flattened_mut())
    }

    fn concerned(&self, direction: Direction) -> impl Iterator<Item = (Limit, f64)> {
        let Limits { bytes, operations, .. } = self.limits;
        [bytes, operations].into_iter().zip(self.levels).flat_map(move |(group, levels)| {
            let [total, read, write] = levels;
            let own = match direction {
                Direction::Read => (group.read, read),
                Direction::Write => (group.write, write),
            };
            [(group.total, total), own]
        })
    }

    /// Lets flow out what does until `now`.
    pub fn leak(&mut self, now: u64) {
        let passed = now.saturating_sub(self.at) as f64 / 1e9;
        self.at = now;
        for (limit, level) in self.each() {
            *level = (*level - limit.average * passed).max(0.0);
        }
    }

    /// How long a request has to wait, in nanoseconds.
    pub fn wait(&self, direction: Direction) -> u64 {
        let waits = self.concerned(direction).map(|(limit, level)| {
            let over = level - limit.burst;
            if limit.average > 0.0 && over > 0.0 { over / limit.average } else { 0.0 }
        });
        (waits.fold(0.0, f64::max) * 1e9).ceil() as u64
    }

    /// A request of so many bytes begins.
    pub fn charge(&mut self, direction: Direction, bytes: u64) {
        let size = self.limits.operation_size;
        let operations = if size > 0 && bytes > size { bytes as f64 / size as f64 } else { 1.0 };
        for ([total, read, write], units) in self.levels.iter_mut().zip([bytes as f64, operations])
        {
            *total += units;
            *(if direction == Direction::Read { read } else { write }) += units;
        }
    }
}

/// What holds the requests of a disk back.
#[derive(Default)]
pub(crate) struct Throttle {
    on: Cell<bool>,
    buckets: RefCell<Buckets>,
    clock: RefCell<Option<Arc<Clock>>>,
    /// How many let everything through.
    open: Cell<usize>,
    sides: [Side; 2],
}

/// The requests of one direction that wait, and what wakes the first of them.
#[derive(Default)]
struct Side {
    queue: RefCell<VecDeque<Rc<Waiter>>>,
    timer: RefCell<Option<Timer>>,
    alarm: Arc<Mutex<Option<Waker>>>,
}

#[derive(Default)]
struct Waiter(RefCell<Option<Waker>>);

impl Waiter {
    fn wake(&self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }
}

/// A place in the queue, which is given up with this.
struct Place<'a> {
    side: &'a Side,
    waiter: Rc<Waiter>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queue = self.side.queue.borrow_mut();
        queue.retain(|waiter| !Rc::ptr_eq(waiter, &self.waiter));
        if let Some(first) = queue.front() {
            first.wake();
        }
    }
}

impl Throttle {
    /// New limits, in place of all before; none, if nothing is limited or there is no clock.
    pub(crate) fn set(&self, limits: Limits, clock: Option<Arc<Clock>>) {
        let now = clock.as_ref().map_or(0, |clock| clock.now());
        self.on.set(clock.is_some() && limits.any());
        self.buckets.replace(Buckets::new(limits, now));
        for side in &self.sides {
            let alarm = side.alarm.clone();
            let timer = clock.as_ref().map(|clock| {
                clock.timer(move || {
                    if let Some(waker) = alarm.lock().take() {
                        waker.wake();
                    }
                })
            });
            side.timer.replace(timer);
        }
        self.clock.replace(clock);
        self.wake();
    }

    /// Lets everything through, now and until it is [closed](Self::close).
    pub(crate) fn open(&self) {
        self.open.set(self.open.get() + 1);
        self.wake();
    }

    /// The limits are kept again.
    pub(crate) fn close(&self) {
        self.open.set(self.open.get().saturating_sub(1));
    }

    fn wake(&self) {
        for side in &self.sides {
            side.queue.borrow().iter().for_each(|waiter| waiter.wake());
        }
    }

    /// Waits until a request may begin, and counts it.
    pub(crate) async fn pass(&self, direction: Direction, bytes: u64) {
        if !self.on.get() {
            return;
        }
        let [read, write] = &self.sides;
        let side = if direction == Direction::Read { read } else { write };
        let waiter = Rc::new(Waiter::default());
        side.queue.borrow_mut().push_back(waiter.clone());
        let place = Place { side, waiter };
        poll_fn(|cx| {
            if !self.on.get() || self.open.get() > 0 {
                return Poll::Ready(());
            }
            place.waiter.0.replace(Some(cx.waker().clone()));
            let first = side.queue.borrow().front().is_some_and(|it| Rc::ptr_eq(it, &place.waiter));
            if !first {
                return Poll::Pending;
            }
            let now = self.clock.borrow().as_ref().map_or(0, |clock| clock.now());
            let mut buckets = self.buckets.borrow_mut();
            buckets.leak(now);
            match buckets.wait(direction) {
                0 => Poll::Ready(()),
                wait => {
                    *side.alarm.lock() = Some(cx.waker().clone());
                    if let Some(timer) = &mut *side.timer.borrow_mut() {
                        timer.arm(now.saturating_add(wait));
                    }
                    Poll::Pending
                }
            }
        })
        .await;
        self.buckets.borrow_mut().charge(direction, bytes);
        drop(place);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use super::Direction::{Read, Write};
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn iops(average: i64) -> Given {
        Given { iops: [average, 0, 0], ..Given::default() }
    }

    #[test]
    fn buckets_leak_and_are_never_below_empty() {
        let limits = Given { bps: [0, 1000, 0], bps_max: [0, 2000, 0], ..Given::default() };
        let mut buckets = Buckets::new(limits.limits().unwrap(), 5 * SECOND);
        buckets.charge(Read, 2500);
        assert_eq!((buckets.wait(Read), buckets.wait(Write)), (SECOND / 2, 0));
        buckets.leak(5 * SECOND + SECOND / 4);
        assert_eq!(buckets.wait(Read), SECOND / 4);
        buckets.leak(100 * SECOND);
        buckets.charge(Read, 2000);
        assert_eq!(buckets.wait(Read), 0);
        // Time never goes back.
        buckets.leak(0);
        assert_eq!(buckets.levels[0][1], 2000.0);
    }

    #[test]
    fn half_an_operation_takes_its_time() {
        let given = Given { iops_max: [15, 0, 0], ..iops(150) };
        let mut buckets = Buckets::new(given.limits().unwrap(), 0);
        buckets.levels[1][0] = 15.5;
        assert_eq!(buckets.wait(Write), SECOND.div_ceil(300));
    }

    #[test]
    fn bursts_are_derived() {
        let limits = iops(153).limits().unwrap();
        assert_eq!(limits.operations.total, Limit { average: 153.0, burst: 15.3 });
        let unused = Given { iops_max: [20, 0, 0], ..Given::default() };
        assert!(!unused.limits().unwrap().any());
        assert!(limits.any());
    }

    #[test]
    fn large_requests_count_more() {
        let given = Given { iops_size: 13 * 512, ..iops(150) };
        let mut buckets = Buckets::new(given.limits().unwrap(), 0);
        buckets.charge(Write, 64 * 512);
        assert_eq!(buckets.levels[1], [64.0 / 13.0, 0.0, 64.0 / 13.0]);
        buckets.charge(Write, 512);
        assert_eq!(buckets.levels[1][0], 64.0 / 13.0 + 1.0);
        assert_eq!(buckets.levels[0], [65.0 * 512.0, 0.0, 65.0 * 512.0]);
    }

    #[test]
    fn limits_conflict_or_are_negative() {
        let check = |given: Given| given.limits().unwrap_err();
        for both in [[1, 1, 0], [1, 0, 1], [1, 1, 1], [-1, 1, 0]] {
            assert_eq!(check(Given { bps: both, ..Given::default() }), LimitError::Conflict);
            assert_eq!(check(Given { iops: both, ..Given::default() }), LimitError::Conflict);
            assert_eq!(check(Given { bps_max: both, ..Given::default() }), LimitError::Conflict);
            assert_eq!(check(Given { iops_max: both, ..Given::default() }), LimitError::Conflict);
        }
        let given = Given { bps: [0, 1, 1], iops: [1, 0, 0], ..Given::default() };
        given.limits().unwrap();
        assert_eq!(check(iops(-1)), LimitError::Negative);
        let unused = Given { bps_max: [0, 0, -1], ..Given::default() };
        assert_eq!(check(unused), LimitError::Negative);
    }

    fn poll<F: Future>(future: &mut std::pin::Pin<Box<F>>) -> bool {
        future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn requests_wait_in_their_order() {
        let clock = Clock::stepped();
        let throttle = Throttle::default();
        let given = Given { iops: [0, 10, 0], iops_max: [0, 1, 0], ..Given::default() };
        throttle.set(given.limits().unwrap(), Some(clock.clone()));
        let read = || Box::pin(throttle.pass(Read, 512));
        assert!(poll(&mut read()) && poll(&mut read()));
        let (mut one, mut two, mut three) = (read(), read(), read());
        assert!(!poll(&mut one) && !poll(&mut two) && !poll(&mut three));
        assert!(poll(&mut Box::pin(throttle.pass(Write, 512))));
        assert_eq!(clock.next_deadline(), Some(SECOND / 10));
        clock.step_to(SECOND / 10);
        // The first one goes, and nobody before it.
        assert!(!poll(&mut two) && poll(&mut one) && !poll(&mut two));
        drop(two);
        clock.step_to(SECOND / 5);
        assert!(poll(&mut three));
        let mut four = read();
        assert!(!poll(&mut four));
        throttle.open();
        assert!(poll(&mut four));
        throttle.close();
        let mut five = read();
        assert!(!poll(&mut five));
        throttle.set(Limits::default(), Some(clock));
        assert!(poll(&mut five));
    }
}
