//! Standard output alone: for what a guest or a monitor says, with no input and no claim to the
//! terminal.
//!
//! Opened by the main thread, served on the chardev's loop. Who reads standard output may stop
//! reading: output then waits.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::{SendFlags, send};

use super::port::{Port, Sink};
use super::stream::{self, FdSink};
use super::{CharError, winsize};

/// Options of the console back end: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Console;

impl Console {
    pub(super) fn open(self, port: &Arc<Port>) -> Result<(), CharError> {
        let sink =
            output().map_err(|error| CharError::create("Could not open standard output", error))?;
        let fd = sink.fd();
        port.opened(sink);
        winsize::follow(port);
        port.spawn(move |local, port| async move {
            if let Some(fd) = fd
                && let Ok(output) = local.watch(fd)
            {
                match stream::send(&port, &output).await {}
            }
        });
        Ok(())
    }
}

/// Standard output, without blocking and without changing its flags, which other processes share.
fn output() -> io::Result<Box<dyn Sink>> {
    let stdout = rustix::stdio::stdout();
    let dup = || fcntl_dupfd_cloexec(stdout, 3).map(Arc::new);
    match FileType::from_raw_mode(fstat(stdout)?.st_mode) {
        FileType::Socket => Ok(Box::new(SendSink(dup()?))),
        FileType::Fifo | FileType::CharacterDevice => {
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let own = open("/proc/self/fd/1", flags, Mode::empty())?;
            Ok(Box::new(FdSink(Arc::new(own))))
        }
        // A regular file never makes one wait.
        _ => Ok(Box::new(FdSink(dup()?))),
    }
}

/// Output to a socket whose own mode may be blocking.
struct SendSink(Arc<OwnedFd>);

impl Sink for SendSink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(send(&self.0, data, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
    }

    fn fd(&self) -> Option<Arc<OwnedFd>> {
        Some(self.0.clone())
    }
}
