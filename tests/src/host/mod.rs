//! Where a guest test runs: on this machine, or in a nested host with a KVM of its own.

pub mod image;
pub mod native;
pub mod nested;
pub mod probe;

use std::path::PathBuf;

use crate::rig::Result;
use crate::rig::registry::Test;
use crate::rig::vm::Peer;

/// How one run of a test ended.
pub struct Verdict {
    /// Whether the test function returned without a failure.
    pub passed: bool,
    /// What the test printed, and the reason when it did not pass.
    pub output: String,
    /// Whether a nested host died under the test, which then was run again in a fresh one.
    pub restarted: bool,
}

/// The programs that take part in a run.
pub struct Programs {
    /// The program under test, by its path on this machine.
    pub peer: Peer,
    /// This very program.
    pub vmtest: PathBuf,
}

impl Programs {
    /// With the running binary as `vmtest`.
    pub fn new(peer: Peer) -> Result<Self> {
        Ok(Self { peer, vmtest: std::env::current_exe()? })
    }
}

/// A place that runs tests; several at a time.
pub trait Host: Sync {
    /// Runs one test to its end or its limit.
    fn run(&self, test: &Test) -> Result<Verdict>;
}
