//! Another machine's network, over a socket: each frame is a message, in a stream with its length
//! in front, or a datagram of its own.
//!
//! Opened on the main thread. A stream is moved by tasks on the devices' loop, a frame at a time,
//! with a bounded lane to the NIC on either side; datagrams go straight between the socket and the
//! NIC's loop. A peer can send anything: a length that no frame has ends the connection, and what
//! is longer in a datagram is cut off and dropped.

mod dgram;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};

use resources::iol::Handle;
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

use super::backend::Backend;
use super::options::{Keys, OpenError, TakeFd};
use dgram::Dgram;
use stream::Stream;

/// Options of the socket back end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Socket {
    /// A socket that is there already.
    pub fd: Option<String>,
    /// Where to wait for a peer.
    pub listen: Option<String>,
    /// Where a peer waits.
    pub connect: Option<String>,
    /// A multicast group and port.
    pub mcast: Option<String>,
    /// Our own address.
    pub localaddr: Option<String>,
    /// Where to send datagrams.
    pub udp: Option<String>,
}

impl Socket {
    pub(super) fn parse(keys: &mut Keys<'_>) -> Socket {
        Socket {
            fd: keys.owned("fd"),
            listen: keys.owned("listen"),
            connect: keys.owned("connect"),
            mcast: keys.owned("mcast"),
            localaddr: keys.owned("localaddr"),
            udp: keys.owned("udp"),
        }
    }

    /// Opens it, and serves it on the loop `on`.
    pub(super) fn open(
        &self,
        on: &Handle,
        take_fd: TakeFd<'_>,
    ) -> Result<Box<dyn Backend>, OpenError> {
        let Socket { fd, listen, connect, mcast, localaddr, udp } = self;
        let ways = [fd, listen, connect, mcast, udp];
        if ways.iter().filter(|way| way.is_some()).count() != 1 {
            return Err(OpenError::failed(
                "exactly one of fd=, listen=, connect=, mcast= or udp= is required",
            ));
        }
        if localaddr.is_some() && mcast.is_none() && udp.is_none() {
            return Err(OpenError::failed("localaddr= is only valid with mcast= or udp="));
        }
        if let Some(name) = fd {
            return given(take_fd(name)?, on);
        }
        if let Some(text) = listen {
            let at = address(text, Ipv4Addr::UNSPECIFIED)?;
            return Ok(Box::new(Stream::listen(at, on)?));
        }
        if let Some(text) = connect {
            let at = address(text, Ipv4Addr::LOCALHOST)?;
            return Ok(Box::new(Stream::connect(at, on)?));
        }
        if let Some(text) = mcast {
            let group = address(text, Ipv4Addr::UNSPECIFIED)?;
            let local = match localaddr {
                Some(text) => Some(host(text)?),
                None => None,
            };
            return Ok(Box::new(Dgram::multicast(group, local)?));
        }
        let Some(text) = udp else { return Err(OpenError::failed("no address")) };
        let Some(local) = localaddr else {
            return Err(OpenError::failed("localaddr= is mandatory with udp="));
        };
        let remote = address(text, Ipv4Addr::LOCALHOST)?;
        let local = address(local, Ipv4Addr::UNSPECIFIED)?;
        Ok(Box::new(Dgram::udp(remote, local)?))
    }
}

/// A socket that was handed over.
fn given(fd: OwnedFd, on: &Handle) -> Result<Box<dyn Backend>, OpenError> {
    let number = fd.as_raw_fd();
    let failed = |error: io::Error| OpenError::Failed(format!("fd={number}: {error}"));
    let kind = socket_type(&fd).map_err(|error| failed(error.into()))?;
    rustix::io::ioctl_fionbio(&fd, true).map_err(|error| failed(error.into()))?;
    match kind {
        SocketType::STREAM => Ok(Box::new(Stream::given(fd, on))),
        SocketType::DGRAM => Ok(Box::new(Dgram::given(fd)?)),
        other => Err(OpenError::Failed(format!(
            "socket type={} for fd={number} is not SOCK_DGRAM or SOCK_STREAM",
            other.as_raw()
        ))),
    }
}

/// Why the host refuses, in words that clients are told.
fn refused(what: &str, error: impl Into<io::Error>) -> OpenError {
    OpenError::Host(format!("{what}: {}", error.into()))
}

/// Parses `[HOST]:PORT`; the host's name is looked up.
fn address(text: &str, any: Ipv4Addr) -> Result<SocketAddrV4, OpenError> {
    let wrong = || OpenError::Failed(format!("'{text}' is not HOST:PORT"));
    let (name, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let host = if name.is_empty() { any } else { host(name)? };
    Ok(SocketAddrV4::new(host, port))
}

fn host(name: &str) -> Result<Ipv4Addr, OpenError> {
    let failed =
        |why: &str| OpenError::Failed(format!("address resolution failed for {name}: {why}"));
    let found = (name, 0).to_socket_addrs().map_err(|error| failed(&error.to_string()))?;
    let mut found = found.filter_map(|address| match address {
        SocketAddr::V4(address) => Some(*address.ip()),
        SocketAddr::V6(_) => None,
    });
    found.next().ok_or_else(|| failed("it has no IPv4 address"))
}
