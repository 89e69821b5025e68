//! A command at the other end of a pipe.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::cancel::Canceller;

/// A command that runs. Dropped, it is killed with all it started, and reaped.
#[derive(Debug)]
pub(super) struct Exec {
    /// None once it is reaped.
    child: Option<Child>,
    /// Readable once it has ended.
    ended: OwnedFd,
}

/// Which end of the command's pipe is ours.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// What we write is its input.
    Input,
    /// What we read is its output.
    Output,
}

impl Exec {
    /// Starts a command of the shell; our end of the pipe.
    pub(super) fn start(command: &str, end: End) -> io::Result<(OwnedFd, Self)> {
        let mut shell = Command::new("/bin/sh");
        // A process group of its own can be killed as one.
        shell.arg("-c").arg(command).process_group(0);
        match end {
            End::Input => shell.stdin(Stdio::piped()),
            // It must not eat what a client sends to a monitor on our standard input.
            End::Output => shell.stdin(Stdio::null()).stdout(Stdio::piped()),
        };
        let mut child = shell.spawn()?;
        let input = child.stdin.take().map(OwnedFd::from);
        let pipe = input.or_else(|| child.stdout.take().map(OwnedFd::from));
        let ended = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let ended = ended.map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        match (pipe, ended) {
            (Some(pipe), Some(Ok(ended))) => Ok((pipe, Self { child: Some(child), ended })),
            (_, ended) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(ended.and_then(Result::err).map_or(io::ErrorKind::Other.into(), Into::into))
            }
        }
    }

    /// Waits until it has ended well, for so long. Our end of the pipe must be closed.
    pub(super) fn finish(
        mut self,
        canceller: &Canceller,
        time: Option<Duration>,
    ) -> io::Result<()> {
        if !canceller.wait(self.ended.as_fd(), PollFlags::IN, time)? {
            let text = "the migration command has everything and does not end";
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let status = child.wait()?;
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("the migration command failed: {status}")))
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            // The group may not be there yet, but the child is.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
