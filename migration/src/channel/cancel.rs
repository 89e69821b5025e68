//! Stopping a migration thread that waits for the other side.

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// Ends what is done on the channels it was given to, from any thread and for ever: whoever
/// waits there returns at once with an error that [`is_cancelled`] knows.
#[derive(Clone, Debug)]
pub struct Canceller(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cancelled: AtomicBool,
    /// Readable once it is cancelled, so that a poll ends.
    event: OwnedFd,
}

/// What an error of a cancelled channel is made of.
#[derive(Debug)]
struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the migration was cancelled")
    }
}

impl std::error::Error for Cancelled {}

/// Whether an error comes from [`Canceller::cancel`], and not from the other side.
#[must_use]
pub fn is_cancelled(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Cancelled>())
}

impl Canceller {
    /// One that is not cancelled.
    ///
    /// # Errors
    /// There are no file descriptors left.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Inner { cancelled: AtomicBool::new(false), event })))
    }

    /// Cancels. Waits for nobody.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Release);
        // Full means that it is readable already.
        let _ = rustix::io::write(&self.0.event, &1_u64.to_ne_bytes());
    }

    /// Whether it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    /// # Errors
    /// It was cancelled.
    pub fn check(&self) -> io::Result<()> {
        if self.is_cancelled() {
            return Err(io::Error::new(ErrorKind::ConnectionAborted, Cancelled));
        }
        Ok(())
    }

    /// Sleeps.
    ///
    /// # Errors
    /// It was cancelled.
    pub fn sleep(&self, time: Duration) -> io::Result<()> {
        self.poll(&mut [self.event()], Some(time)).map(drop)
    }

    /// Waits until `fd` has one of `events`, an error or an end; false if it does not within
    /// `time`.
    pub(super) fn wait(
        &self,
        fd: BorrowedFd<'_>,
        events: PollFlags,
        time: Option<Duration>,
    ) -> io::Result<bool> {
        self.poll(&mut [self.event(), PollFd::from_borrowed_fd(fd, events)], time)
    }

    /// Waits until `fd` can be read, which gives `true`, or one of the others can, or for so long.
    pub(super) fn wait_any(
        &self,
        fd: BorrowedFd<'_>,
        others: &[BorrowedFd<'_>],
        time: Option<Duration>,
    ) -> io::Result<bool> {
        let all = std::iter::once(fd).chain(others.iter().copied());
        let all = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let mut fds: Vec<_> = std::iter::once(self.event()).chain(all).collect();
        self.poll(&mut fds, time)?;
        Ok(fds.get(1).is_some_and(|fd| !fd.revents().is_empty()))
    }

    fn event(&self) -> PollFd<'_> {
        PollFd::from_borrowed_fd(self.0.event.as_fd(), PollFlags::IN)
    }

    /// Waits until one of them is ready; false if none is within `time`. The event is among them.
    fn poll(&self, fds: &mut [PollFd<'_>], time: Option<Duration>) -> io::Result<bool> {
        let deadline = time.and_then(|time| Instant::now().checked_add(time));
        loop {
            self.check()?;
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(fds, left.as_ref()) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(ready) => {
                    self.check()?;
                    return Ok(ready > 0);
                }
            }
        }
    }
}
