//! What a check has found so far.

use crate::image::{Check, Repair};

/// Lines that are kept; the counters count everything.
const MAX_LINES: usize = 1000;

/// The findings, and what may be mended.
pub(super) struct Report {
    pub(super) check: Check,
    /// Damage may be mended.
    pub(super) repair_damage: bool,
    /// Clusters that nobody uses may be freed, unless `blind`.
    pub(super) repair_leaks: bool,
    /// Something could not be followed, so a cluster that seems unused may be in use.
    pub(super) blind: bool,
}

impl Report {
    pub(super) fn new(repair: Repair) -> Report {
        Report {
            check: Check::default(),
            repair_damage: repair == Repair::All,
            repair_leaks: repair != Repair::No,
            blind: false,
        }
    }

    /// Damage that stays.
    pub(super) fn error(&mut self, line: impl FnOnce() -> String) {
        self.check.corruptions += 1;
        self.line(line);
    }

    /// What could not be looked at.
    pub(super) fn failure(&mut self, line: impl FnOnce() -> String) {
        self.check.check_errors += 1;
        self.blind = true;
        self.line(line);
    }

    pub(super) fn line(&mut self, line: impl FnOnce() -> String) {
        if self.check.lines.len() < MAX_LINES {
            self.check.lines.push(line());
        }
    }
}
