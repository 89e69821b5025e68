#![expect(unsafe_code, reason = "rustix has no addresses of this family")]
//! Sockets between a guest and the machine it runs on (AF_VSOCK, linux/vm_sockets.h).

use std::fs::File;
use std::time::Duration;

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, accept, bind, connect, listen};
use rustix::net::{RecvFlags, socket_with};

use super::Result;

/// Any address of one's own.
const ANY: u32 = u32::MAX;

/// `struct sockaddr_vm`.
#[repr(C)]
struct Address {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    rest: [u8; 4],
}

// SAFETY: the pointer is to a whole `struct sockaddr_vm`, which lives longer than the call.
unsafe impl SocketAddrArg for Address {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        f(std::ptr::from_ref(self).cast(), size_of::<Self>() as SocketAddrLen)
    }
}

fn address(cid: u32, port: u32) -> Address {
    Address { family: AddressFamily::VSOCK.as_raw(), reserved: 0, port, cid, rest: [0; 4] }
}

fn socket() -> Result<rustix::fd::OwnedFd> {
    Ok(socket_with(AddressFamily::VSOCK, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// A stream; nothing that is done to it takes longer than a minute.
fn stream(fd: rustix::fd::OwnedFd) -> Result<File> {
    for what in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(&fd, what, Some(Duration::from_secs(60)))?;
    }
    Ok(fd.into())
}

/// Connects to a port of a guest.
pub fn dial(cid: u32, port: u32) -> Result<File> {
    let fd = socket()?;
    connect(&fd, &address(cid, port))?;
    stream(fd)
}

/// Listens for guests.
pub fn serve(port: u32) -> Result<Listener> {
    let fd = socket()?;
    bind(&fd, &address(ANY, port))?;
    listen(&fd, 8)?;
    Ok(Listener(stream(fd)?))
}

/// A port that guests connect to.
pub struct Listener(File);

impl Listener {
    /// The next connection.
    pub fn accept(&self) -> Result<File> {
        stream(accept(&self.0)?)
    }
}

/// Whether nothing more comes from the other side of a stream: it is closed or broken.
pub fn ended(stream: &File) -> bool {
    let mut byte = [0];
    !matches!(rustix::net::recv(stream, &mut byte, RecvFlags::empty()), Ok((1.., _)))
}
