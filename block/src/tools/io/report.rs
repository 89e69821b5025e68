//! How much was done, and how fast. Plain functions.

use std::time::Duration;

use crate::tools::console::Console;
use crate::tools::size;

/// What one command did.
pub(super) struct Report {
    pub(super) verb: &'static str,
    pub(super) offset: u64,
    pub(super) asked: u64,
    pub(super) done: u64,
    /// Requests.
    pub(super) ops: u64,
    pub(super) took: Duration,
    /// For programs.
    pub(super) terse: bool,
}

impl Report {
    pub(super) fn print(&self, console: &Console) {
        let Report { verb, offset, asked, done, ops, took, terse } = self;
        let seconds = took.as_secs_f64();
        let bytes_rate = rate(*done, seconds);
        let rate_of_one = rate(*ops, seconds);
        let time = time(*took, *terse);
        if *terse {
            console.line(format_args!("{done},{ops},{time},{bytes_rate:.3},{rate_of_one:.3}"));
            return;
        }
        console.line(format_args!("{verb} {done}/{asked} bytes at offset {offset}"));
        let (bytes, fast) = (size::long_bytes(*done), size::long(bytes_rate));
        console.line(format_args!(
            "{bytes}, {ops} ops; {time} ({fast}/sec and {rate_of_one:.4} ops/sec)"
        ));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate is no exact number")]
fn rate(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

/// `SS.hh sec`, or hours and all if it took that long, or if all of it is wanted.
fn time(took: Duration, all: bool) -> String {
    let (seconds, hundredths) = (took.as_secs(), took.subsec_millis() / 10);
    if seconds < 60 && !all {
        return format!("{seconds:02}.{hundredths:02} sec");
    }
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours}:{minutes:02}:{:02}.{hundredths:02}", seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(time(Duration::from_millis(1239), false), "01.23 sec");
        assert_eq!(time(Duration::from_millis(1239), true), "0:00:01.23");
        assert_eq!(time(Duration::from_secs(3725), false), "1:02:05.00");
    }
}
