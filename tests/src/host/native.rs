//! Tests on this machine's own KVM: each in a child process.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Host, Verdict};
use crate::rig::Result;
use crate::rig::console::Transcript;
use crate::rig::process::{die_with_parent, wait_for_exit};
use crate::rig::registry::Test;
use crate::rig::vm::{Peer, SOON};
use crate::workspace::THIS_PROGRAM;

/// This machine.
pub struct Native {
    /// The program under test.
    pub peer: Peer,
    /// The guests' files.
    pub guests: PathBuf,
    /// The Debian system's image, for tests that use it.
    pub debian: Option<PathBuf>,
}

impl Host for Native {
    fn run(&self, test: &Test) -> Result<Verdict> {
        let peer = &self.peer;
        let mut command = Command::new(THIS_PROGRAM);
        command.args(["run-one", &test.name, peer.word()]).arg(peer.path());
        command.arg(&self.guests).args(self.debian.as_ref().filter(|_| test.debian));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = die_with_parent(&mut command).spawn()?;
        let stdout = Transcript::collect(child.stdout.take().ok_or("no stdout")?);
        let stderr = Transcript::collect(child.stderr.take().ok_or("no stderr")?);
        let status = wait_for_exit(&mut child, test.limit + SOON)?;
        if status.is_none() {
            child.kill()?;
            child.wait()?;
        }
        // What it said last may still be on its way. A process that it left behind could keep the
        // streams open: that is not waited for long.
        let mut output = String::new();
        for stream in [stdout, stderr] {
            let _ = stream.wait_for_end(Duration::from_secs(1));
            output.push_str(&stream.text());
        }
        if status.is_none() {
            output.push_str(&format!("not done within {} s\n", test.limit.as_secs()));
        }
        let passed = status.is_some_and(|status| status.success());
        Ok(Verdict { passed, output, restarted: false })
    }
}
