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
            let next = {
                let mut window = self.0.window.lock();
                let now = Instant::now();
                let age = now.saturating_duration_since(window.start);
                if age >= WINDOW {
                    // Windows follow each other without gaps, however late somebody wakes.
                    let into = Duration::from_nanos((age.as_nanos() % WINDOW.as_nanos()) as u64);
                    *window = Window { start: now - into, used: 0 };
                }
                let left = quota.saturating_sub(window.used);
                if left > 0 {
                    let granted = usize::try_from(left).map_or(wanted, |left| wanted.min(left));
                    window.used += granted as u64;
                    return Ok(granted);
                }
                (window.start + WINDOW).saturating_duration_since(now)
            };
            canceller.sleep(next.min(GLANCE))?;
        }
    }
}
