//! How many bytes a second a migration may send.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::cancel::Canceller;

/// In each so much may be sent.
pub const WINDOW: Duration = Duration::from_millis(100);

/// Whoever waits for the next window sees so often whether the limit has changed.
const GLANCE: Duration = Duration::from_millis(10);

/// A limit that all channels of a migration share, and that may change at any time. The lock is a
/// leaf, held for a few instructions.
#[derive(Clone, Debug)]
pub struct Limiter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Bytes a second.
    rate: AtomicU64,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    start: Instant,
    used: u64,
}

impl Default for Limiter {
    /// No limit.
    fn default() -> Self {
        Self::new(0)
    }
}

impl Limiter {
    /// A limit of that many bytes a second; below 10 there is none.
    #[must_use]
    pub fn new(rate: u64) -> Self {
        let window = Mutex::new(Window { start: Instant::now(), used: 0 });
        Self(Arc::new(Inner { rate: AtomicU64::new(rate), window }))
    }

    /// Changes the limit, for those that wait too.
    pub fn set(&self, rate: u64) {
        self.0.rate.store(rate, Ordering::Relaxed);
    }

    /// Bytes a second, as they were set.
    #[must_use]
    pub fn rate(&self) -> u64 {
        self.0.rate.load(Ordering::Relaxed)
    }

    /// Waits until something may be sent; how much of `wanted` that is.
    pub(super) fn reserve(&self, wanted: usize, canceller: &Canceller) -> io::Result<usize> {
        loop {
            let quota = self.rate() / 10;
            if quota == 0 {
                return Ok(wanted);
            }
            let granted = self.0.window.lock().grant(quota, wanted, Instant::now());
            match granted {
                Ok(granted) => return Ok(granted),
                Err(next) => canceller.sleep(next.min(GLANCE))?,
            }
        }
    }
}

impl Window {
    /// How much of `wanted` may be sent now, or how long it is until something may.
    fn grant(&mut self, quota: u64, wanted: usize, now: Instant) -> Result<usize, Duration> {
        let age = now.saturating_duration_since(self.start);
        if age >= WINDOW {
            // Windows follow each other without gaps, however late somebody wakes.
            let into = Duration::from_nanos((age.as_nanos() % WINDOW.as_nanos()) as u64);
            *self = Window { start: now - into, used: 0 };
        }
        let left = quota.saturating_sub(self.used);
        if left == 0 {
            return Err((self.start + WINDOW).saturating_duration_since(now));
        }
        let granted = usize::try_from(left).map_or(wanted, |left| wanted.min(left));
        self.used += granted as u64;
        Ok(granted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_held_however_much_is_wanted_at_once_and_however_late_somebody_wakes() {
        for (rate, pieces) in [(1000_u64, 1), (32 << 20, 4 << 10), (10 << 30, 256 << 10)] {
            for (times, late) in [(1, 0), (3, 3), (64, 17), (1000, 60)] {
                let wanted = times * pieces;
                let begin = Instant::now();
                let (mut now, mut sent) = (begin, 0);
                let mut window = Window { start: begin, used: 0 };
                while now - begin < Duration::from_secs(4) {
                    match window.grant(rate / 10, wanted, now) {
                        Ok(granted) => sent += granted as u64,
                        Err(next) => now += next.min(GLANCE) + Duration::from_millis(late),
                    }
                }
                let seconds = (now - begin).as_secs_f64();
                let windows = seconds / WINDOW.as_secs_f64();
                let (least, most) = (windows.floor() - 1.0, windows.floor() + 1.0);
                let quota = (rate / 10) as f64;
                assert!(sent as f64 <= most * quota, "{rate} {wanted} {late}: {sent}");
                assert!(sent as f64 >= least * quota, "{rate} {wanted} {late}: {sent}");
            }
        }
    }
}
