//! Slowing the guest down, so that a migration can catch up with what it writes.
//!
//! While a [`Throttle`] is set, the thread of each vCPU stays out of the guest for that share of
//! every 10 ms. It waits for messages meanwhile, as when it is parked, so it can be stopped, saved
//! and asked as quickly as ever. A timer of its own brings it out of the guest when its turn is
//! over.
//!
//! The throttle is an atomic that any thread sets; a `Pace` belongs to its vCPU's thread. The
//! guest reaches none of this.
#![expect(unsafe_code, reason = "timers that signal one thread are in the C library alone")]

use std::io;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use vmm_sys_util::signal::SIGRTMIN;

/// In each the guest runs once, and waits once.
const PERIOD: Duration = Duration::from_millis(10);

/// The timer's signal does nothing if it comes outside the guest: it is repeated so often.
const AGAIN: Duration = Duration::from_micros(500);

/// How much of its time is taken from the guest.
#[derive(Debug, Default)]
pub struct Throttle {
    percent: AtomicU8,
}

impl Throttle {
    /// Takes so many percent, up to 99; 0 gives the guest all its time. Returns whether vCPUs must
    /// be kicked so that they see it.
    pub fn set(&self, percent: u8) -> bool {
        let percent = percent.min(99);
        self.percent.swap(percent, Ordering::SeqCst) == 0 && percent != 0
    }

    /// What is taken.
    pub fn percent(&self) -> u8 {
        self.percent.load(Ordering::SeqCst)
    }
}

/// When one vCPU runs and when it waits.
pub(super) struct Pace {
    throttle: Arc<Throttle>,
    timer: Option<Timer>,
    turn: Turn,
}

enum Turn {
    /// The guest runs as long as it likes.
    Free,
    /// It waits until then.
    Rest(Instant),
    /// It runs until then.
    Run(Instant),
}

impl Pace {
    /// On the vCPU's thread.
    pub(super) fn new(throttle: &Arc<Throttle>) -> Pace {
        Pace { throttle: throttle.clone(), timer: None, turn: Turn::Free }
    }

    /// The vCPU waits for something else than its turn: nothing has to bring it out of the guest.
    pub(super) fn pause(&mut self) {
        (self.timer, self.turn) = (None, Turn::Free);
    }

    /// How long the vCPU has to stay out of the guest; `None`: it may go in now, and is brought out
    /// again when it has to.
    pub(super) fn rest(&mut self) -> Option<Duration> {
        let percent = u32::from(self.throttle.percent());
        if percent == 0 {
            self.pause();
            return None;
        }
        let now = Instant::now();
        match self.turn {
            Turn::Run(until) if now < until => None,
            Turn::Rest(until) if now < until => Some(until - now),
            Turn::Rest(_) => {
                let turn = PERIOD * (100 - percent) / 100;
                self.turn = Turn::Run(now + turn);
                self.ring_after(turn);
                None
            }
            Turn::Free | Turn::Run(_) => {
                let rest = PERIOD * percent / 100;
                self.turn = Turn::Rest(now + rest);
                Some(rest)
            }
        }
    }

    fn ring_after(&mut self, turn: Duration) {
        let done = match &self.timer {
            Some(timer) => timer.set(turn),
            None => Timer::new().and_then(|timer| {
                timer.set(turn)?;
                self.timer = Some(timer);
                Ok(())
            }),
        };
        if let Err(error) = done {
            resources::guest_error!("cpu", "the guest cannot be slowed down: {error}");
        }
    }
}

/// A timer that signals the thread that made it.
struct Timer(libc::timer_t);

impl Timer {
    fn new() -> io::Result<Timer> {
        // SAFETY: all zeros is a value of this struct of integers.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = SIGRTMIN();
        event.sigev_notify_thread_id = rustix::thread::gettid().as_raw_nonzero().get();
        let mut id = null_mut();
        // SAFETY: both point to what they are to, for as long as the call takes.
        match unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut id) } {
            0 => Ok(Timer(id)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn set(&self, after: Duration) -> io::Result<()> {
        let time = |it: Duration| libc::timespec {
            tv_sec: it.as_secs() as libc::time_t,
            tv_nsec: it.subsec_nanos().into(),
        };
        let when = libc::itimerspec { it_value: time(after), it_interval: time(AGAIN) };
        // SAFETY: the timer lives, and `when` does for as long as the call takes.
        match unsafe { libc::timer_settime(self.0, 0, &when, null_mut()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: the timer lives until here.
        unsafe { libc::timer_delete(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vcpu_waits_for_its_share_and_is_brought_out_after_its_turn() {
        crate::cpu::run_page::install_signal_handler().unwrap();
        let throttle = Arc::new(Throttle::default());
        let mut pace = Pace::new(&throttle);
        assert_eq!(pace.rest(), None);
        assert!(throttle.set(20) && !throttle.set(80));
        assert_eq!(pace.rest(), Some(PERIOD * 80 / 100));
        // A message does not end the waiting.
        let left = pace.rest().unwrap();
        assert!(left <= PERIOD * 80 / 100);
        let began = Instant::now();
        std::thread::sleep(left);
        assert_eq!(pace.rest(), None);
        // As the guest does, this takes until a signal comes.
        let time = libc::timespec { tv_sec: 10, tv_nsec: 0 };
        // SAFETY: the time lives for as long as the call takes.
        assert_eq!(unsafe { libc::nanosleep(&time, null_mut()) }, -1);
        assert!(began.elapsed() < Duration::from_secs(5));
        assert!(pace.rest().is_some() && pace.timer.is_some());
        // A vCPU that is parked is left alone, whatever becomes of the throttle.
        pace.pause();
        assert!(pace.timer.is_none());
        assert_eq!(pace.rest(), Some(PERIOD * 80 / 100));
        throttle.set(0);
        assert_eq!(pace.rest(), None);
    }
}
