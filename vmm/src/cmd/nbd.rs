//! The NBD server: drives that other programs use over a socket.
//!
//! Main thread. Clients are accepted on the common I/O loop, and served on the loop of the drive
//! they have chosen. Names, addresses and descriptors are a client's of the monitor; what comes
//! over the sockets is handled in [`block::nbd`].

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use block::Drive;
use block::nbd::address::Address;
use block::nbd::server::{Export, Server};
use qmp::{
    Handle, InetSocketAddress, NbdServerAdd, NbdServerStart, NbdServerStop, QmpError, SocketAddress,
};
use resources::iol;

use crate::vm::Vm;

/// Clients at once; others wait to be accepted.
const CLIENTS: usize = 100;

/// The server while there is one.
pub struct NbdServer {
    server: Server,
    /// The socket that listens, if it is nobody else's.
    listener: Option<OwnedFd>,
    /// A path that was made up for it.
    path: Option<String>,
}

impl NbdServer {
    /// Accepts clients on the loop `io`; `own`: the socket was made for this.
    fn listen(io: &iol::Handle, listener: OwnedFd, own: bool) -> std::io::Result<NbdServer> {
        let server = Server::new(CLIENTS);
        let (accepts, socket) = (server.clone(), listener.try_clone()?);
        io.spawn(move |local| async move {
            if let Err(error) = accepts.listen(&local, socket, || {}).await {
                tracing::error!("the NBD server accepts no clients: {error}");
            }
        });
        Ok(NbdServer { server, listener: own.then_some(listener), path: None })
    }

    /// Exports a drive for as long as it has its medium.
    fn add(&self, drive: &Arc<Drive>, writable: bool) -> Result<(), QmpError> {
        let id = drive.id().to_owned();
        let place = drive.clone();
        let export = Export::new(&id, drive.size(), move || place.place())
            .writable(writable && !drive.read_only())
            .multi_conn(true);
        let exists = |_| QmpError::generic(format!("NBD server already exporting device '{id}'"));
        self.server.add(export).map_err(exists)?;
        let (server, name) = (self.server.clone(), id.clone());
        drive.when_emptied(move || {
            server.remove(&name);
        });
        Ok(())
    }
}

impl Drop for NbdServer {
    /// The loop closes its socket a little later, but nobody gets in any more, and the address is
    /// free.
    fn drop(&mut self) {
        self.server.stop();
        if let Some(listener) = &self.listener {
            let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
        }
        if let Some(path) = &self.path {
            let _ = rustix::fs::unlink(path);
        }
    }
}

impl Vm {
    fn nbd(&self) -> Result<&NbdServer, QmpError> {
        self.nbd.as_ref().ok_or_else(|| QmpError::generic("NBD server not running"))
    }

    /// The socket that an address means, listening.
    fn nbd_listener(&mut self, address: SocketAddress) -> Result<OwnedFd, QmpError> {
        let refuse = |text: String| Err(QmpError::generic(text));
        let (address, to, kinds) = match address {
            SocketAddress::Fd(name) => {
                let fd = self.take_named_fd(&name.str).map_err(|_| {
                    let name = &name.str;
                    QmpError::generic(format!("File descriptor named '{name}' not found"))
                })?;
                return match rustix::net::sockopt::socket_acceptconn(&fd) {
                    Ok(true) => Ok(fd),
                    _ => refuse(format!(
                        "File descriptor named '{}' is not a listening socket",
                        name.str
                    )),
                };
            }
            SocketAddress::Unix(unix) => (Address::Unix(unix.path), None, (true, true)),
            SocketAddress::Inet(InetSocketAddress { host, port, to, ipv4, ipv6 }) => {
                let number = if port.is_empty() { Ok(0) } else { port.parse() };
                let Ok(number) = number else {
                    return refuse(format!(
                        "address resolution failed for {host}:{port}: \
                         Servname not supported for ai_socktype"
                    ));
                };
                let kinds = match (ipv4, ipv6) {
                    (Some(true), Some(true)) | (None, None) => (true, true),
                    (four, six) => {
                        (four.unwrap_or(six == Some(false)), six.unwrap_or(four == Some(false)))
                    }
                };
                (Address::Inet { host, port: number }, to, kinds)
            }
        };
        let allowed = |at: &SocketAddr| if at.is_ipv4() { kinds.0 } else { kinds.1 };
        let listener = address.listen(to, allowed);
        listener.map(|listener| listener.fd).map_err(|error| QmpError::generic(error.to_string()))
    }
}

/// A path that nobody uses yet, for a socket whose place the client leaves to us.
fn temporary_path() -> String {
    let directory = std::env::temp_dir();
    let mut random = [0; 8];
    // What is missing of it is zero, and the path then perhaps one that somebody has.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    let random = u64::from_ne_bytes(random);
    directory.join(format!("qemu-socket-{random:016x}")).display().to_string()
}

impl Handle<NbdServerStart> for Vm {
    fn handle(&mut self, NbdServerStart { mut addr }: NbdServerStart) -> Result<(), QmpError> {
        if self.nbd.is_some() {
            return Err(QmpError::generic("NBD server already running"));
        }
        let io = self.chardevs.io().map_err(|error| QmpError::generic(error.to_string()))?;
        let own = !matches!(addr, SocketAddress::Fd(_));
        let mut path = None;
        if let SocketAddress::Unix(unix) = &mut addr
            && unix.path.is_empty()
        {
            unix.path = temporary_path();
            path = Some(unix.path.clone());
        }
        let listener = self.nbd_listener(addr)?;
        let server = NbdServer::listen(&io, listener, own);
        let mut server = server.map_err(|error| QmpError::generic(error.to_string()))?;
        server.path = path;
        self.nbd = Some(server);
        Ok(())
    }
}

impl Handle<NbdServerAdd> for Vm {
    fn handle(&mut self, command: NbdServerAdd) -> Result<(), QmpError> {
        let NbdServerAdd { device, writable } = command;
        let nbd = self.nbd()?;
        if nbd.server.has(&device) {
            let text = format!("NBD server already exporting device '{device}'");
            return Err(QmpError::generic(text));
        }
        let Some(drive) = self.drives.find(&device) else {
            return Err(QmpError::device_not_found(&device));
        };
        if !drive.has_medium() {
            return Err(QmpError::generic(format!("Device '{device}' has no medium")));
        }
        nbd.add(drive, writable.unwrap_or(false))
    }
}

impl Handle<NbdServerStop> for Vm {
    fn handle(&mut self, _: NbdServerStop) -> Result<(), QmpError> {
        self.nbd = None;
        Ok(())
    }
}
