//! Going to the background: `-daemonize`.
//!
//! The process that was started waits until the one in the background is ready or has failed, so
//! that its exit code tells which, its sockets exist when it returns, and messages of a failed
//! start are seen. A fork takes only the thread that calls it along, and KVM belongs to the process
//! that opened it; so [`Daemon::fork`] comes right after the command line is checked, before
//! anything is opened or any thread started.
#![expect(unsafe_code, reason = "fork has no safe wrapper")]

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io::{self, Read, Write};

/// Which process [`Daemon::fork`] returned in.
#[derive(Debug)]
pub enum Forked {
    /// One that has nothing more to do and must return this exit code from `main`.
    Parent(u8),
    /// The one in the background, which goes on.
    Daemon(Daemon),
}

/// What the process in the background owes the one that waits for it. If this is dropped, or the
/// process ends, before it is [ready](Daemon::ready), the one that waits exits with 1.
#[derive(Debug)]
pub struct Daemon {
    status: File,
}

impl Daemon {
    /// Forks twice, so that the process in the background has a session of its own that it does not
    /// lead: no terminal can become its controlling one. The first process comes back when the
    /// last is ready (exit code 0) or gone (1).
    ///
    /// # Errors
    /// What the kernel refuses; also that there are other threads already.
    pub fn fork() -> io::Result<Forked> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        if fork()? {
            drop(writer);
            return Ok(Forked::Parent(wait(File::from(reader))));
        }
        drop(reader);
        rustix::process::setsid()?;
        if fork()? {
            return Ok(Forked::Parent(0));
        }
        // Nobody else's business: files that the machine makes are for its owner and group.
        rustix::process::umask(Mode::WGRP | Mode::RWXO);
        Ok(Forked::Daemon(Daemon { status: writer.into() }))
    }

    /// Leaves the terminal and the directory behind and lets the process that waits exit with 0.
    /// To be called when everything is set up, just before the main loop: from then on messages on
    /// standard error are lost and relative paths begin at the root.
    ///
    /// `last` is done before, while its error is still seen, and may take the whole file system
    /// away.
    ///
    /// # Errors
    /// What the kernel refuses, or what `last` says.
    pub fn ready(mut self, last: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let null = retry_on_intr(|| {
            rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        })?;
        last()?;
        rustix::process::chdir("/")?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        match self.status.write_all(&[0]) {
            // Who waited was killed, but the machine was asked for all the same.
            Err(e) if e.raw_os_error() == Some(Errno::PIPE.raw_os_error()) => Ok(()),
            result => result,
        }
    }
}

/// Waits for the byte that says ready; the exit code.
fn wait(mut status: File) -> u8 {
    let mut byte = [1];
    match status.read_exact(&mut byte) {
        Ok(()) => byte[0],
        Err(_) => 1,
    }
}

/// Forks; true in the parent.
fn fork() -> io::Result<bool> {
    // Without /proc nobody can tell; the rule in the module's description holds all the same.
    if std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() > 1) {
        return Err(io::Error::other("cannot daemonize: other threads run already"));
    }
    // SAFETY: this thread is the only one, so no lock is held by a thread that the child lacks, and
    // the child may go on as any process does.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid != 0),
    }
}
