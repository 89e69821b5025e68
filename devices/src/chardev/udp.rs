//! UDP: each write is a datagram, and the datagrams of the peer are one stream of bytes.
//!
//! Opened by the main thread, served on the chardev's loop. Only the peer it is connected to is
//! heard. Datagrams get lost: what the host refuses to send counts as sent, and while the front end
//! has no room for a datagram the kernel drops those that follow.

use std::collections::VecDeque;
use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::port::{Patience, Port, Sink};
use super::{CharError, Inet, stream};
use crate::datagram::is_passing;

/// The largest datagram over IPv4.
const LARGEST: usize = 65507;

/// Options of the udp back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Udp {
    /// The peer.
    pub remote: Inet,
    /// Our own address; any, if not given.
    pub local: Option<Inet>,
}

impl Udp {
    pub(super) fn open(self, port: &Arc<Port>, patience: Patience) -> Result<(), CharError> {
        let fd = Arc::new(OwnedFd::from(self.connect(patience)?));
        port.opened(Box::new(UdpSink(fd.clone())));
        port.spawn(move |local, port| async move {
            let Ok(stream) = local.watch(fd) else { return };
            let mut input = Input::new();
            let read = |fd: &OwnedFd, buf: &mut [u8]| input.read(fd, buf);
            let keep = async || std::future::pending().await;
            let end = stream::pump(&local, &port, &stream, &stream, read, keep).await;
            tracing::debug!(label = port.label, ?end, "udp chardev ended");
            port.closed();
        });
        Ok(())
    }

    fn connect(&self, patience: Patience) -> Result<UdpSocket, CharError> {
        let own = self.local.clone().unwrap_or_default();
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for remote in self.remote.resolve("localhost", self.remote.port, patience)? {
            let any = if remote.is_ipv4() { "0.0.0.0" } else { "::" };
            for address in own.resolve(any, own.port, patience)? {
                if address.is_ipv4() != remote.is_ipv4() {
                    continue;
                }
                match UdpSocket::bind(address) {
                    Ok(socket) => {
                        socket
                            .connect(remote)
                            .map_err(|e| CharError::open("Failed to connect to socket", e))?;
                        return Ok(socket);
                    }
                    Err(error) => last = error,
                }
            }
        }
        Err(CharError::open("Failed to bind socket", last))
    }
}

/// The peer's datagrams, as a stream of bytes.
struct Input {
    /// What is left of the last one.
    rest: VecDeque<u8>,
    space: Vec<u8>,
}

impl Input {
    fn new() -> Input {
        Input { rest: VecDeque::new(), space: vec![0; 1 << 16] }
    }

    /// Looks at one datagram at most: of one without bytes, and of an error that is not the end,
    /// there is nothing to read now.
    fn read(&mut self, fd: &OwnedFd, buf: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            match recv(fd, &mut self.space[..], RecvFlags::DONTWAIT) {
                Ok((_, count)) => self.rest.extend(self.space.get(..count).unwrap_or_default()),
                Err(error) if is_passing(error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.rest.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = buf.len().min(self.rest.len());
        for (to, byte) in buf.iter_mut().zip(self.rest.drain(..count)) {
            *to = byte;
        }
        Ok(count)
    }
}

struct UdpSink(Arc<OwnedFd>);

impl Sink for UdpSink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let data = data.get(..LARGEST).unwrap_or(data);
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        // The first refusal may be that of an earlier datagram.
        match send(&self.0, data, flags).or_else(|_| send(&self.0, data, flags)) {
            Err(Errno::WOULDBLOCK) => Err(Errno::WOULDBLOCK.into()),
            _ => Ok(data.len()),
        }
    }

    fn fd(&self) -> Option<Arc<OwnedFd>> {
        Some(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_without_bytes_are_looked_at_one_at_a_time() {
        let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        for datagram in [&b""[..], b"", b"abc"] {
            peer.send_to(datagram, ours.local_addr().unwrap()).unwrap();
        }
        let (fd, mut input, mut buf) = (OwnedFd::from(ours), Input::new(), [0; 2]);
        let mut read = || input.read(&fd, &mut buf).map_err(|error| error.kind());
        let nothing = Err(io::ErrorKind::WouldBlock);
        assert_eq!([(); 5].map(|()| read()), [nothing, nothing, Ok(2), Ok(1), nothing]);
    }
}
