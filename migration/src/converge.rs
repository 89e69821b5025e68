//! Auto-converge: a guest that writes faster than it can be sent is slowed down, more and more,
//! until the migration gets ahead of it.
//!
//! On the thread that sends, without locks. The guest chooses how fast it writes; by that it can
//! only slow itself down.

use std::time::{Duration, Instant};

/// Over this time at least is measured how fast the guest writes.
const PERIOD: Duration = Duration::from_secs(1);

/// The guest is too fast if in a period it writes more than this part of the pages that were sent.
const TOO_MUCH: (u64, u64) = (1, 2);

/// It is slowed down when it was too fast in so many periods, one after the other.
const PATIENCE: u32 = 2;

/// The percentage of time that is taken from it first, by how much that grows, and how far.
const FIRST: u8 = 20;
const STEP: u8 = 10;
const MOST: u8 = 99;

/// What the guest writes and what is sent meanwhile.
#[derive(Debug)]
pub(crate) struct Converge {
    on: bool,
    /// When the present period began, and pages written and sent in it.
    began: Instant,
    written: u64,
    sent: u64,
    /// Periods in which the guest was too fast since it was slowed down last.
    fast: u32,
    percent: u8,
}

impl Converge {
    /// Measures from `now`; slows the guest down if that is to be.
    pub(crate) fn new(on: bool, now: Instant) -> Converge {
        Converge { on, began: now, written: 0, sent: 0, fast: 0, percent: 0 }
    }

    /// So many pages were sent.
    pub(crate) fn sent(&mut self, pages: u64) {
        self.sent += pages;
    }

    /// It was found that the guest has written so many pages. Gives how many it writes a second, if
    /// that has been measured for long enough.
    pub(crate) fn written(&mut self, pages: u64, now: Instant) -> Option<u64> {
        self.written += pages;
        let elapsed = now.saturating_duration_since(self.began);
        if elapsed < PERIOD {
            return None;
        }
        let rate = self.written as f64 / elapsed.as_secs_f64();
        let too_fast =
            self.written.saturating_mul(TOO_MUCH.1) > self.sent.saturating_mul(TOO_MUCH.0);
        self.fast = if too_fast { self.fast + 1 } else { 0 };
        if self.on && self.fast >= PATIENCE {
            self.fast = 0;
            self.percent = match self.percent {
                0 => FIRST,
                percent => percent.saturating_add(STEP).min(MOST),
            };
        }
        (self.began, self.written, self.sent) = (now, 0, 0);
        Some(rate as u64)
    }

    /// The percentage of its time that is to be taken from the guest.
    pub(crate) fn percent(&self) -> u8 {
        self.percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The throttle after each period of a second, in which so many pages are written and sent.
    fn run(on: bool, periods: &[(u64, u64)]) -> Vec<u8> {
        let mut now = Instant::now();
        let mut converge = Converge::new(on, now);
        let throttle = |&(written, sent): &(u64, u64)| {
            converge.sent(sent);
            now += PERIOD / 2;
            assert_eq!(converge.written(written / 2, now), None);
            now += PERIOD / 2;
            assert_eq!(converge.written(written - written / 2, now), Some(written));
            converge.percent()
        };
        periods.iter().map(throttle).collect()
    }

    #[test]
    fn a_guest_that_is_too_fast_twice_is_slowed_down_and_ever_more() {
        let all = run(true, &[(51, 100); 24]);
        assert_eq!(all[..6], [0, 20, 20, 30, 30, 40]);
        assert_eq!(all[16..20], [90, 99, 99, 99]);
        // What is sent shrinks.
        assert_eq!(run(true, &[(50, 100); 8]), [0; 8]);
        // Once is nothing, even if it happens again; what was taken is not given back.
        assert_eq!(run(true, &[(99, 100), (1, 100), (99, 100), (1, 100)]), [0; 4]);
        assert_eq!(run(true, &[(99, 100), (99, 100), (0, 0), (99, 100)]), [0, 20, 20, 20]);
        assert_eq!(run(false, &[(99, 100); 9]), [0; 9]);
    }
}
