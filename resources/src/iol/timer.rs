//! Deadlines of a loop, and the timerfd that ends its wait at the earliest.
//!
//! On the loop's thread, no lock. Nothing hostile reaches it: virtual-time timers of devices are
//! [`crate::clock`]'s.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::reactor::Reactor;

/// The sleeping tasks by deadline; the number tells equal deadlines apart.
type Deadlines = BTreeMap<(Instant, u64), Waker>;

pub(super) struct Timers {
    deadlines: RefCell<Deadlines>,
    next: Cell<u64>,
    /// Made with the first sleep.
    fd: RefCell<Option<OwnedFd>>,
    /// The deadline the timerfd is set to.
    armed: Cell<Option<Instant>>,
}

impl Timers {
    pub(super) fn new() -> Timers {
        Timers {
            deadlines: RefCell::default(),
            next: Cell::new(0),
            fd: RefCell::new(None),
            armed: Cell::new(None),
        }
    }

    fn number(&self) -> u64 {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        number
    }

    /// Sets the timerfd to the earliest deadline. A timer that is set too early
    /// is left alone: it ends one wait for nothing, which costs less.
    pub(super) fn arm(&self, reactor: &Reactor) {
        let Some(earliest) = self.deadlines.borrow().keys().next().map(|(at, _)| *at) else {
            return;
        };
        if self.armed.get().is_some_and(|armed| armed <= earliest) {
            return;
        }
        match self.set(earliest, reactor) {
            Ok(()) => self.armed.set(Some(earliest)),
            Err(error) => tracing::error!("cannot set a timer: {error}"),
        }
    }

    fn set(&self, deadline: Instant, reactor: &Reactor) -> std::io::Result<()> {
        let mut fd = self.fd.borrow_mut();
        let fd = match &*fd {
            Some(fd) => fd,
            None => {
                let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
                let new = timerfd_create(TimerfdClockId::Monotonic, flags)?;
                reactor.add_internal(&new)?;
                fd.insert(new)
            }
        };
        // Zero would stop the timer.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            },
        };
        timerfd_settime(fd, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// Wakes the tasks whose deadline has come.
    pub(super) fn fire(&self) {
        let Some(armed) = self.armed.get() else { return };
        let now = Instant::now();
        if armed > now {
            return;
        }
        self.armed.set(None);
        while let Some(waker) = self.pop(now) {
            waker.wake();
        }
    }

    fn pop(&self, now: Instant) -> Option<Waker> {
        let mut deadlines = self.deadlines.borrow_mut();
        let first = deadlines.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

/// The future of [`Local::sleep`](super::Local::sleep).
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    timers: Rc<Timers>,
    /// `None`: never.
    deadline: Option<Instant>,
    key: Option<(Instant, u64)>,
}

impl Sleep {
    pub(super) fn new(timers: Rc<Timers>, deadline: Instant) -> Sleep {
        Sleep { timers, deadline: Some(deadline), key: None }
    }

    pub(super) fn after(timers: Rc<Timers>, duration: Duration) -> Sleep {
        Sleep { timers, deadline: Instant::now().checked_add(duration), key: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        if Instant::now() >= deadline {
            return Poll::Ready(());
        }
        let timers = self.timers.clone();
        let key = *self.key.get_or_insert_with(|| (deadline, timers.number()));
        timers.deadlines.borrow_mut().insert(key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.timers.deadlines.borrow_mut().remove(&key);
        }
    }
}
