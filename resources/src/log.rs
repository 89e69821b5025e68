//! Rate-limited logging of what a guest does wrong.
//!
//! Rule: a message that a guest can trigger goes through [`guest_error!`](crate::guest_error),
//! never through `tracing` directly. Each call site has its own limit, so one noisy device does
//! not silence another. Runs on any thread, lock-free; a hostile guest can cause at most
//! [`BURST`] lines a [`WINDOW_MS`] for each call site.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

/// Lines allowed in each window.
pub const BURST: u32 = 8;

/// Length of a window in milliseconds.
pub const WINDOW_MS: u64 = 5_000;

/// The tracing target of [`guest_error!`](crate::guest_error) lines; `-d guest_errors` shows it.
pub const GUEST_ERRORS: &str = "guest_errors";

/// The limit of one call site.
#[derive(Debug, Default)]
pub struct RateLimit {
    /// Start of the present window, in milliseconds since the first use of any limit, plus one.
    window: AtomicU64,
    used: AtomicU32,
    suppressed: AtomicU64,
}

impl RateLimit {
    /// A fresh limit.
    pub const fn new() -> Self {
        RateLimit {
            window: AtomicU64::new(0),
            used: AtomicU32::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    /// Whether a line may be written now; if so, how many were suppressed since the last one.
    pub fn allow(&self) -> Option<u64> {
        self.allow_at(now_ms())
    }

    fn allow_at(&self, now: u64) -> Option<u64> {
        let now = now.saturating_add(1);
        let window = self.window.load(Ordering::Relaxed);
        if window == 0 || now.saturating_sub(window) >= WINDOW_MS {
            // Two threads may both open the window; the second then only resets the count again.
            self.window.store(now, Ordering::Relaxed);
            self.used.store(0, Ordering::Relaxed);
        }
        if self.used.fetch_add(1, Ordering::Relaxed) < BURST {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        // Keep the count from wrapping back into the allowed range.
        self.used.store(BURST, Ordering::Relaxed);
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

fn now_ms() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Logs a mistake of the guest, at most [`BURST`](crate::log::BURST) times a
/// [window](crate::log::WINDOW_MS) for each place in the code. The first argument names the device.
///
/// ```
/// resources::guest_error!("serial0", "write of {:#x} to a read-only register", 5);
/// ```
#[macro_export]
macro_rules! guest_error {
    ($device:expr, $($arg:tt)+) => {{
        static LIMIT: $crate::log::RateLimit = $crate::log::RateLimit::new();
        if $crate::log::guest_errors_wanted()
            && let Some(suppressed) = LIMIT.allow()
        {
            $crate::log::emit($device.as_ref(), format_args!($($arg)+), suppressed);
        }
    }};
}

/// Whether anybody listens to guest errors; keeps the cost of a mistake to one load otherwise.
pub fn guest_errors_wanted() -> bool {
    tracing::enabled!(target: GUEST_ERRORS, tracing::Level::WARN)
}

/// Writes one line; use [`guest_error!`](crate::guest_error).
pub fn emit(device: &str, message: std::fmt::Arguments<'_>, suppressed: u64) {
    if suppressed > 0 {
        tracing::warn!(target: GUEST_ERRORS, "{device}: {message} ({suppressed} more suppressed)");
    } else {
        tracing::warn!(target: GUEST_ERRORS, "{device}: {message}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_a_window_later_the_count_of_the_suppressed() {
        let limit = RateLimit::new();
        for _ in 0..BURST {
            assert_eq!(limit.allow_at(10), Some(0));
        }
        for _ in 0..100 {
            assert_eq!(limit.allow_at(11), None);
        }
        assert_eq!(limit.allow_at(10 + WINDOW_MS), Some(100));
        assert_eq!(limit.allow_at(11 + WINDOW_MS), Some(0));
    }
}
