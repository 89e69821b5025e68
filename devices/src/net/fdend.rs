//! An endpoint that is a descriptor on which each frame is one message.
//!
//! On the loop of whoever opened it; no lock.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;

use resources::iol::{Direction, Local, Watch};

use super::backend::Endpoint;
use super::frame::{self, HEADER_LEN, Segment};

/// A descriptor of frames.
pub(super) struct FdEnd {
    watch: Watch<Arc<OwnedFd>>,
    header: Header,
}

/// What stands in front of the frames on a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// The same as in front of the NIC's.
    Same,
    /// A header that the NIC knows nothing of: empty in frames that are sent, and taken off those
    /// that are received.
    Hidden,
}

impl FdEnd {
    /// Watches `fd`, which is in non-blocking mode.
    pub(super) fn new(fd: Arc<OwnedFd>, header: Header, on: &Local) -> io::Result<FdEnd> {
        Ok(FdEnd { watch: on.watch(fd)?, header })
    }
}

impl Endpoint for FdEnd {
    fn send(&self, frame: &[Segment<'_>]) -> io::Result<()> {
        let fd = self.watch.get().as_fd();
        match self.header {
            Header::Same => frame::write(fd, frame)?,
            Header::Hidden => {
                let mut whole = Vec::with_capacity(frame.len().saturating_add(1));
                whole.push(Segment::from(&[0; HEADER_LEN][..]));
                whole.extend_from_slice(frame);
                frame::write(fd, &whole)?
            }
        };
        Ok(())
    }

    fn recv(&self, frame: &mut [u8]) -> io::Result<usize> {
        let fd = self.watch.get();
        match self.header {
            Header::Same => Ok(rustix::io::read(fd, frame)?),
            Header::Hidden => {
                let mut header = [0; HEADER_LEN];
                let mut pieces = [IoSliceMut::new(&mut header), IoSliceMut::new(frame)];
                Ok(rustix::io::readv(fd, &mut pieces)?.saturating_sub(HEADER_LEN))
            }
        }
    }

    fn ready(&self, direction: Direction) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(self.watch.ready(direction))
    }
}
