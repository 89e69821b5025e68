//! The machine's virtual clock and its timers.
//!
//! Virtual time counts nanoseconds while the machine runs and stands still while it is stopped.
//! Under the debug port it moves only when told to. Devices read it and arm [`Timer`]s; an I/O
//! thread asks for the [next deadline](Clock::next_wake) and runs what is due.
//!
//! Reading and arming may happen on any thread, with a device locked: the clock's lock is a leaf.
//! [`Clock::stop`] also waits for the callback that is running, so it must be called without a
//! device locked, and not from a callback.
//! Timer callbacks run without it, on the thread that called [`Clock::run_due`], and lock their
//! device themselves. A hostile guest can arm a timer for any time, also in the past: it fires
//! once for each arming. Periods must be bounded below by the device.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A machine's clock; shared by reference count.
pub struct Clock {
    state: Mutex<State>,
    /// Held while timers are called, so that stopping can wait for them.
    calling: Mutex<()>,
}

type Callback = Arc<dyn Fn() + Send + Sync>;

struct State {
    /// Virtual time when last stopped, started or set.
    base: u64,
    /// Since when the clock runs; `None` while stopped or stepped by hand.
    since: Option<Instant>,
    /// Only ever stepped by hand.
    stepped: bool,
    /// By deadline, then by timer.
    armed: BTreeMap<(u64, u64), Callback>,
    next_id: u64,
    /// Called when the earliest deadline may have become earlier, or the clock started.
    on_change: Option<Callback>,
}

impl State {
    fn now(&self) -> u64 {
        let passed = self.since.map_or(0, |since| nanos(since.elapsed()));
        self.base.saturating_add(passed)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Clock {
    /// A stopped clock at zero.
    pub fn new() -> Arc<Clock> {
        Clock::make(false)
    }

    /// A clock at zero that [`start`](Self::start) does not start: it moves only when it is
    /// stepped or set.
    pub fn stepped() -> Arc<Clock> {
        Clock::make(true)
    }

    fn make(stepped: bool) -> Arc<Clock> {
        Arc::new(Clock {
            state: Mutex::new(State {
                base: 0,
                since: None,
                stepped,
                armed: BTreeMap::new(),
                next_id: 0,
                on_change: None,
            }),
            calling: Mutex::new(()),
        })
    }

    /// Virtual time in nanoseconds.
    pub fn now(&self) -> u64 {
        self.state.lock().now()
    }

    /// Lets time run.
    pub fn start(&self) {
        let mut state = self.state.lock();
        if state.since.is_none() && !state.stepped {
            state.since = Some(Instant::now());
            changed(state);
        }
    }

    /// Stops time. When this returns no timer is being called, and none will be until the clock
    /// is started or stepped.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        state.base = state.now();
        state.since = None;
        drop(state);
        drop(self.calling.lock());
    }

    /// Sets the time, running or not: on load, and by the debug port.
    pub fn set(&self, now: u64) {
        let mut state = self.state.lock();
        state.base = now;
        if state.since.is_some() {
            state.since = Some(Instant::now());
        }
        changed(state);
    }

    /// Who is to be told that [`next_wake`](Self::next_wake) may have become earlier.
    pub fn on_change(&self, callback: impl Fn() + Send + Sync + 'static) {
        self.state.lock().on_change = Some(Arc::new(callback));
    }

    /// A timer that calls `callback` when it is due.
    pub fn timer(self: &Arc<Self>, callback: impl Fn() + Send + Sync + 'static) -> Timer {
        let mut state = self.state.lock();
        state.next_id += 1;
        Timer { clock: self.clone(), id: state.next_id, callback: Arc::new(callback), armed: None }
    }

    /// The earliest armed deadline in virtual nanoseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        self.state.lock().armed.keys().next().map(|(deadline, _)| *deadline)
    }

    /// When the host must call [`run_due`](Self::run_due) next; `None` while stopped or idle.
    pub fn next_wake(&self) -> Option<Instant> {
        let state = self.state.lock();
        let since = state.since?;
        let (deadline, _) = state.armed.keys().next()?;
        since.checked_add(Duration::from_nanos(deadline.saturating_sub(state.base)))
    }

    /// Calls the timers that are due, earliest first, unless the clock is stopped; returns how
    /// many.
    pub fn run_due(&self) -> usize {
        // A timer that re-arms itself for the past must not keep us here.
        (0..MAX_BATCH).take_while(|_| self.call_first(|state| state.since.is_some())).count()
    }

    /// Calls the first timer if it is due and `allowed`.
    fn call_first(&self, allowed: impl Fn(&State) -> bool) -> bool {
        let _calling = self.calling.lock();
        let mut state = self.state.lock();
        let now = state.now();
        if !allowed(&state) {
            return false;
        }
        let callback = match state.armed.first_entry() {
            Some(entry) if entry.key().0 <= now => entry.remove(),
            _ => return false,
        };
        drop(state);
        callback();
        true
    }

    /// Steps a stopped clock to `target`, running each timer at its own time.
    pub fn step_to(&self, target: u64) {
        while self.step_timer(target) {}
        if target > self.now() {
            self.set(target);
        }
    }

    /// Steps a stopped clock to its first deadline and calls that timer; false, and nothing
    /// happens, if there is none up to `target`.
    pub fn step_timer(&self, target: u64) -> bool {
        let Some(deadline) = self.next_deadline().filter(|deadline| *deadline <= target) else {
            return false;
        };
        if deadline > self.now() {
            self.set(deadline);
        }
        self.call_first(|_| true);
        true
    }
}

/// Timers run in one go before the I/O thread looks at its other work again.
const MAX_BATCH: usize = 64;

fn changed(state: parking_lot::MutexGuard<'_, State>) {
    let callback = state.on_change.clone();
    drop(state);
    if let Some(callback) = callback {
        callback();
    }
}

/// A timer of a device. Dropping it disarms it.
pub struct Timer {
    clock: Arc<Clock>,
    id: u64,
    callback: Callback,
    armed: Option<u64>,
}

impl Timer {
    /// Fires once at `deadline` (virtual nanoseconds), instead of any earlier arming.
    pub fn arm(&mut self, deadline: u64) {
        let mut state = self.clock.state.lock();
        if let Some(old) = self.armed.replace(deadline) {
            state.armed.remove(&(old, self.id));
        }
        let earliest = state.armed.keys().next().is_none_or(|(first, _)| deadline < *first);
        state.armed.insert((deadline, self.id), self.callback.clone());
        if earliest {
            changed(state);
        }
    }

    /// Does not fire any more, unless it is being called right now.
    pub fn cancel(&mut self) {
        if let Some(old) = self.armed.take() {
            self.clock.state.lock().armed.remove(&(old, self.id));
        }
    }

    /// The virtual time on this timer's clock.
    pub fn now(&self) -> u64 {
        self.clock.now()
    }

    /// The clock this timer belongs to.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn stepping_runs_each_timer_at_its_own_time() {
        let clock = Clock::new();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let make = |name: &'static str| {
            let (seen, weak) = (seen.clone(), Arc::downgrade(&clock));
            clock.timer(move || seen.lock().push((name, weak.upgrade().unwrap().now())))
        };
        let (mut a, mut b, mut c) = (make("a"), make("b"), make("c"));
        a.arm(50);
        b.arm(20);
        c.arm(30);
        c.cancel();
        a.arm(40);
        clock.step_to(100);
        assert_eq!(*seen.lock(), [("b", 20), ("a", 40)]);
        assert_eq!(clock.now(), 100);
        assert_eq!(clock.next_deadline(), None);
    }

    #[test]
    fn a_stepped_clock_does_not_run() {
        let clock = Clock::stepped();
        let mut timer = clock.timer(|| ());
        timer.arm(0);
        clock.start();
        assert_eq!((clock.next_wake(), clock.run_due()), (None, 0));
        assert!(clock.step_timer(0));
        assert!(!clock.step_timer(u64::MAX));
        assert_eq!(clock.now(), 0);
    }

    #[test]
    fn time_stands_still_while_stopped() {
        let clock = Clock::new();
        clock.set(5);
        assert_eq!(clock.now(), 5);
        clock.start();
        while clock.now() == 5 {
            std::hint::spin_loop();
        }
        clock.stop();
        let stopped = clock.now();
        assert_eq!(clock.now(), stopped);
        assert_eq!(clock.next_wake(), None);
    }

    #[test]
    fn an_earlier_deadline_wakes_the_io_thread() {
        let clock = Clock::new();
        let wakes = Arc::new(AtomicU64::new(0));
        let count = wakes.clone();
        clock.on_change(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        clock.start();
        let (mut a, mut b) = (clock.timer(|| ()), clock.timer(|| ()));
        a.arm(1 << 40);
        b.arm(1 << 41);
        b.arm(1 << 39);
        assert_eq!(wakes.load(Ordering::Relaxed), 3);
        assert!(clock.next_wake().is_some());
    }

    #[test]
    fn a_timer_that_arms_itself_for_the_past_does_not_hang() {
        let clock = Clock::new();
        clock.start();
        let cell: Arc<Mutex<Option<Timer>>> = Arc::default();
        let own = cell.clone();
        let timer = clock.timer(move || {
            if let Some(timer) = own.lock().as_mut() {
                timer.arm(0);
            }
        });
        *cell.lock() = Some(timer);
        cell.lock().as_mut().unwrap().arm(0);
        assert_eq!(clock.run_due(), MAX_BATCH);
        clock.stop();
        assert_eq!(clock.run_due(), 0);
        *cell.lock() = None;
    }
}
