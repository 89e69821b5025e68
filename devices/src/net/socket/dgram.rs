//! Frames as datagrams: to one peer, or to a group.
//!
//! On the loop of the NIC that opened it; no lock but what the standard library has. Anyone who
//! can send to the socket's address is heard, as on a network.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;

use resources::iol::{Direction, Local, Watch};
use rustix::io::Errno;
use rustix::net::sockopt::{
    set_ip_add_membership, set_ip_multicast_if, set_ip_multicast_loop, set_socket_reuseaddr,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, getsockname,
    recvfrom, send, sendto, socket_with,
};

use super::super::backend::{Backend, Endpoint};
use super::super::frame::{Segment, gather};
use super::super::options::OpenError;
use super::refused;
use crate::datagram::is_passing;

/// A socket of datagrams.
pub(super) struct Dgram {
    ends: Ends,
    info: String,
}

#[derive(Clone)]
struct Ends {
    /// Hears.
    recv: Arc<OwnedFd>,
    /// Speaks, if it is another one: then it is connected, and what comes from its address is our
    /// own.
    send: Option<(Arc<OwnedFd>, Option<SocketAddrV4>)>,
    /// Where to; the address it is connected to, if there is none.
    to: Option<SocketAddrV4>,
}

fn socket() -> Result<OwnedFd, OpenError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)
        .map_err(|error| refused("Failed to create socket", error))?;
    set_socket_reuseaddr(&fd, true).map_err(|error| refused("Failed to create socket", error))?;
    Ok(fd)
}

fn name(fd: &OwnedFd) -> Option<SocketAddrV4> {
    SocketAddrV4::try_from(getsockname(fd).ok()?).ok()
}

impl Dgram {
    pub(super) fn udp(remote: SocketAddrV4, local: SocketAddrV4) -> Result<Dgram, OpenError> {
        let fd = socket()?;
        bind(&fd, &local).map_err(|error| refused("Failed to bind socket", error))?;
        let ends = Ends { recv: Arc::new(fd), send: None, to: Some(remote) };
        Ok(Dgram { ends, info: format!("socket: udp={remote}") })
    }

    pub(super) fn multicast(
        group: SocketAddrV4,
        local: Option<Ipv4Addr>,
    ) -> Result<Dgram, OpenError> {
        if !group.ip().is_multicast() {
            let text = format!(
                "specified mcastaddr {} (0x{:08x}) does not contain a multicast address",
                group.ip(),
                u32::from(*group.ip())
            );
            return Err(OpenError::Failed(text));
        }
        let failed = |error: Errno| refused("can't join the multicast group", error);
        let recv = socket()?;
        bind(&recv, &group).map_err(|error| refused("Failed to bind socket", error))?;
        let interface = local.unwrap_or(Ipv4Addr::UNSPECIFIED);
        set_ip_add_membership(&recv, group.ip(), &interface).map_err(failed)?;
        // A socket of its own, so that what we said ourselves is known by its address.
        let speaker = socket()?;
        set_ip_multicast_loop(&speaker, true).map_err(failed)?;
        if let Some(local) = local {
            set_ip_multicast_if(&speaker, &local).map_err(failed)?;
        }
        connect(&speaker, &group).map_err(failed)?;
        let own = name(&speaker);
        let send = Some((Arc::new(speaker), own));
        let ends = Ends { recv: Arc::new(recv), send, to: None };
        Ok(Dgram { ends, info: format!("socket: mcast={group}") })
    }

    /// A socket that is connected, or hears a group.
    pub(super) fn given(fd: OwnedFd) -> Result<Dgram, OpenError> {
        let number = fd.as_raw_fd();
        let own = name(&fd);
        let to = own.filter(|own| own.ip().is_multicast());
        let info = match to {
            Some(group) => format!("socket: fd={number} ( mcast={group})"),
            None => format!("socket: fd={number}"),
        };
        Ok(Dgram { ends: Ends { recv: Arc::new(fd), send: None, to }, info })
    }
}

impl Backend for Dgram {
    fn open(&self, _: u16, on: &Local) -> io::Result<Box<dyn Endpoint>> {
        let watch = on.watch(self.ends.recv.clone())?;
        let speaker = match &self.ends.send {
            Some((fd, _)) => Some(on.watch(fd.clone())?),
            None => None,
        };
        Ok(Box::new(DgramEnd { ends: self.ends.clone(), watch, speaker }))
    }

    fn info(&self, _: u16) -> String {
        self.info.clone()
    }
}

struct DgramEnd {
    ends: Ends,
    watch: Watch<Arc<OwnedFd>>,
    speaker: Option<Watch<Arc<OwnedFd>>>,
}

impl Endpoint for DgramEnd {
    fn send(&self, frame: &[Segment<'_>]) -> io::Result<()> {
        let whole = gather(frame);
        let flags = SendFlags::NOSIGNAL;
        match (&self.ends.send, &self.ends.to) {
            (Some((fd, _)), _) => send(fd, &whole, flags)?,
            (None, Some(to)) => sendto(&self.ends.recv, &whole, flags, to)?,
            (None, None) => send(&self.ends.recv, &whole, flags)?,
        };
        Ok(())
    }

    fn recv(&self, frame: &mut [u8]) -> io::Result<usize> {
        let fd = &self.ends.recv;
        // The true length, so that what was cut off is known for it.
        match recvfrom(fd, &mut *frame, RecvFlags::TRUNC | RecvFlags::DONTWAIT) {
            Ok((_, len, from)) => {
                let from = from.and_then(|from| SocketAddrV4::try_from(from).ok());
                let own = self.ends.send.as_ref().and_then(|(_, own)| *own);
                let ours = own.is_some() && own == from;
                let whole = len <= frame.len();
                Ok(if ours || !whole { 0 } else { len })
            }
            Err(error @ Errno::WOULDBLOCK) => Err(error.into()),
            Err(error) if is_passing(error) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    fn ready(&self, direction: Direction) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        let watch = match (&self.speaker, direction) {
            (Some(speaker), Direction::Write) => speaker,
            _ => &self.watch,
        };
        Box::pin(watch.ready(direction))
    }
}
