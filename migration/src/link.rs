//! The connection between the two sides, whatever it is made of.
//!
//! It belongs to a migration thread, which waits in it.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use resources::iol::IoBuf;

use crate::channel::Limiter;
use crate::stream;

/// The connection to the other side.
pub trait Link: Read + Write {
    /// Whether it can answer.
    fn two_way(&self) -> bool;
    /// Whether what is sent is only stored.
    fn is_file(&self) -> bool {
        false
    }
    /// Sends no faster from now on.
    fn set_limiter(&mut self, _limiter: &Limiter) {}
    /// Fails when for so long nothing moves.
    fn give_up_after(&mut self, _silence: Duration) {}
    /// Fails from then on, whatever moves.
    fn give_up_at(&mut self, _deadline: Option<Instant>) {}
    /// What breaks it, from any thread, so that whoever waits in it does not.
    fn breaker(&self) -> Breaker {
        Box::new(|| {})
    }
    /// Writes all of `memory`, as it is at some time before this returns; from where it is, if that
    /// can be.
    ///
    /// # Errors
    /// Not all of it was written.
    fn send_memory(&mut self, memory: &IoBuf) -> io::Result<()> {
        stream::copy(memory, self)
    }
    /// From now on little waits in the buffers of the host, so that what is asked for comes soon.
    fn hasten(&mut self) {}
    /// Waits until there is something to read, which gives `true`, or one of the others can be
    /// read, or for so long.
    ///
    /// # Errors
    /// It was cancelled, or the connection cannot tell.
    fn wait(&mut self, _others: &[BorrowedFd<'_>], _time: Option<Duration>) -> io::Result<bool> {
        Err(ErrorKind::Unsupported.into())
    }
    /// Nothing more is sent: waits until what was is where it belongs.
    ///
    /// # Errors
    /// It is not.
    fn finish(&mut self) -> io::Result<()>;
}

/// Breaks a connection.
pub type Breaker = Box<dyn Fn() + Send + Sync>;

/// What leads to a link is one.
macro_rules! leads_on {
    ($link:ty) => {
        impl<L: Link + ?Sized> Link for $link {
            fn two_way(&self) -> bool {
                (**self).two_way()
            }
            fn is_file(&self) -> bool {
                (**self).is_file()
            }
            fn set_limiter(&mut self, limiter: &Limiter) {
                (**self).set_limiter(limiter);
            }
            fn give_up_after(&mut self, silence: Duration) {
                (**self).give_up_after(silence);
            }
            fn give_up_at(&mut self, deadline: Option<Instant>) {
                (**self).give_up_at(deadline);
            }
            fn breaker(&self) -> Breaker {
                (**self).breaker()
            }
            fn send_memory(&mut self, memory: &IoBuf) -> io::Result<()> {
                (**self).send_memory(memory)
            }
            fn hasten(&mut self) {
                (**self).hasten();
            }
            fn wait(
                &mut self,
                others: &[BorrowedFd<'_>],
                time: Option<Duration>,
            ) -> io::Result<bool> {
                (**self).wait(others, time)
            }
            fn finish(&mut self) -> io::Result<()> {
                (**self).finish()
            }
        }
    };
}

leads_on!(Box<L>);
leads_on!(&mut L);

/// A stream to be read, which is all that can be done with it.
#[derive(Debug)]
pub struct Stored<R>(pub R);

impl<R: Read> Read for Stored<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

/// Nobody hears answers.
impl<R> Write for Stored<R> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::Unsupported.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<R: Read> Link for Stored<R> {
    fn two_way(&self) -> bool {
        false
    }
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}
