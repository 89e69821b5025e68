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
            let mut datagram = VecDeque::new();
            let mut space = vec![0; 1 << 16];
            let read = |fd: &OwnedFd, buf: &mut [u8]| {
                while datagram.is_empty() {
                    match recv(fd, &mut space[..], RecvFlags::DONTWAIT) {
                        Ok((_, count)) => datagram.extend(space.get(..count).unwrap_or_default()),
                        // Of an earlier datagram of ours: nobody listens there, so far.
                        Err(Errno::CONNREFUSED | Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                let count = buf.len().min(datagram.len());
                for (to, byte) in buf.iter_mut().zip(datagram.drain(..count)) {
                    *to = byte;
                }
                Ok(count)
            };
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
