//! Where a guest test runs: on this machine, or in a nested host with a KVM of its own.

pub mod image;
pub mod native;
pub mod nested;
pub mod probe;

use crate::rig::Result;
use crate::rig::registry::Test;

/// How one run of a test ended.
pub struct Verdict {
    /// Whether the test function returned without a failure.
    pub passed: bool,
    /// What the test printed, and the reason when it did not pass.
    pub output: String,
    /// Whether a nested host died under the test, which then was run again in a fresh one.
    pub restarted: bool,
}

/// A place that runs tests; several at a time.
pub trait Host: Sync {
    /// Runs one test to its end or its limit.
    fn run(&self, test: &Test) -> Result<Verdict>;
}
