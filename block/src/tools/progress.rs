//! How far a tool is, as a line that is written over itself.
//!
//! On the tool's thread, no lock.

use std::cell::Cell;

use super::console::Console;
use super::signals;

/// The progress of one piece of work.
pub struct Progress {
    console: Console,
    shown: bool,
    total: u64,
    done: Cell<u64>,
    /// Hundredths of a per cent at the last line.
    last: Cell<Option<u64>>,
}

impl Progress {
    /// Of so many steps; a line is shown as it goes on if `shown`, and one when SIGUSR1 asks.
    pub fn new(console: &Console, shown: bool, total: u64) -> Progress {
        let progress = Progress {
            console: console.clone(),
            shown,
            total: total.max(1),
            done: Cell::new(0),
            last: Cell::new(None),
        };
        progress.advance(0);
        progress
    }

    /// So many steps more are done.
    pub fn advance(&self, steps: u64) {
        self.set(self.done.get().saturating_add(steps));
    }

    /// So many steps are done.
    pub fn set(&self, done: u64) {
        self.done.set(done.min(self.total));
        let parts = u128::from(self.done.get()) * 10_000 / u128::from(self.total);
        let parts = u64::try_from(parts).unwrap_or(10_000);
        let asked = signals::asked();
        // A line for each tenth of a per cent is enough for anybody.
        let due = match self.last.get() {
            Some(last) => parts / 10 > last / 10 || parts == 10_000 && last < 10_000,
            None => true,
        };
        if self.shown && due || asked {
            self.last.set(Some(parts));
            let end = if self.shown { '\r' } else { '\n' };
            let (whole, rest) = (parts / 100, parts % 100);
            self.console.print(format_args!("    ({whole}.{rest:02}/100%){end}"));
        }
    }

    /// Everything is done.
    pub fn end(&self) {
        self.set(self.total);
        if self.shown {
            self.console.print("\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::testing::Heard;

    #[test]
    fn goes_from_nothing_to_all() {
        let heard = Heard::default();
        let progress = Progress::new(&heard.console(), true, 3);
        progress.advance(1);
        progress.advance(9);
        progress.end();
        assert_eq!(heard.out(), "    (0.00/100%)\r    (33.33/100%)\r    (100.00/100%)\r\n");
        let heard = Heard::default();
        let progress = Progress::new(&heard.console(), false, 0);
        progress.end();
        assert_eq!(heard.out(), "");
    }
}
