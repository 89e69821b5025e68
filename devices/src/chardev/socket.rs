//! Unix and TCP sockets: one connection at a time, made or accepted.
//!
//! Opened by the main thread, which waits for a first client or connection only where the options
//! say so; then served on the chardev's loop. A hostile peer can connect, send anything, pass
//! descriptors and vanish: one peer is served at a time, and descriptors beyond those of one
//! message are closed.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use resources::iol::{Direction, Local};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, Shutdown, SocketFlags,
    accept_with, recv, recvmsg, send, shutdown,
};

use super::CharError;
use super::port::{Port, Sink};
use super::stream;
use super::telnet::{self, TelnetSink};

/// Connecting over TCP gives up after this long, so that a host that does not
/// answer cannot hold up the caller for minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest path a Unix socket's address holds, without its final 0.
const LONGEST_PATH: usize = 107;

/// Descriptors taken from one message; the kernel closes further ones.
const MAX_FDS: usize = 16;

/// Options of the socket back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Where to listen or to connect to.
    pub address: Address,
    /// Listen for clients, one at a time; otherwise connect.
    pub server: bool,
    /// A server waits for its first client before anything else goes on.
    pub wait: bool,
    /// Send without delay (TCP).
    pub nodelay: bool,
    /// Speak telnet to the client.
    pub telnet: bool,
    /// A client connects again after this long when it failed to, or lost its
    /// peer; zero: never, and a first failure is an error.
    pub reconnect: Duration,
}

/// A socket's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A path on the file system.
    Unix(PathBuf),
    /// A host and a port.
    Inet(Inet),
}

/// An Internet address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inet {
    /// Name or number. Empty: any (listening), this host (connecting).
    pub host: String,
    /// The port; 0 lets the system choose one to listen on.
    pub port: u16,
    /// Listen on the first free port from `port` to this one.
    pub to: Option<u16>,
    /// Whether to use IPv4; `None`: unless `ipv6` asks for that alone.
    pub ipv4: Option<bool>,
    /// Whether to use IPv6; `None`: unless `ipv4` asks for that alone.
    pub ipv6: Option<bool>,
}

impl Socket {
    /// A client of the socket at `address`, other options as QEMU's defaults.
    pub fn to(address: Address) -> Socket {
        Socket {
            address,
            server: false,
            wait: true,
            nodelay: false,
            telnet: false,
            reconnect: Duration::ZERO,
        }
    }

    /// A server at `address` that does not wait for its first client.
    pub fn at(address: Address) -> Socket {
        Socket { server: true, wait: false, ..Socket::to(address) }
    }

    pub(super) fn open(self, port: &Arc<Port>) -> Result<(), CharError> {
        if self.server { self.open_server(port) } else { self.open_client(port) }
    }

    fn open_server(self, port: &Arc<Port>) -> Result<(), CharError> {
        let (listener, name) = match &self.address {
            Address::Unix(path) => {
                let listener = listen_unix(path)?;
                (OwnedFd::from(listener), format!("unix:{}", path.display()))
            }
            Address::Inet(inet) => {
                let listener = listen_inet(inet)?;
                let name = listener.local_addr().map(|at| self.name(at)).unwrap_or_default();
                (OwnedFd::from(listener), name)
            }
        };
        port.set_filename(format!("{name},server"));
        let listen = |error| CharError::open("Failed to set socket to listening mode", error);
        let first = if self.wait {
            notice(&format!("vmm: waiting for connection on: {name},server"));
            let fd = accept_blocking(&listener).map_err(listen)?;
            Some(self.begin(port, fd))
        } else {
            None
        };
        rustix::io::ioctl_fionbio(&listener, true).map_err(|e| listen(e.into()))?;
        port.spawn(move |local, port| self.serve(local, port, listener, first));
        Ok(())
    }

    fn open_client(self, port: &Arc<Port>) -> Result<(), CharError> {
        if !self.reconnect.is_zero() {
            port.set_filename(self.client_name(None));
            port.spawn(move |local, port| self.keep_connected(local, port));
            return Ok(());
        }
        let connection = self.address.connect()?;
        port.set_filename(self.client_name(Some(&connection)));
        let fd = self.begin(port, connection.fd);
        port.spawn(move |local, port| async move {
            self.connection(&local, &port, fd, async || std::future::pending().await).await;
        });
        Ok(())
    }

    fn name(&self, at: SocketAddr) -> String {
        // An IPv6 address prints in brackets.
        format!("{}:{at}", if self.telnet { "telnet" } else { "tcp" })
    }

    fn client_name(&self, connection: Option<&Connection>) -> String {
        match (&self.address, connection) {
            (Address::Unix(_), _) => "unix:".to_owned(),
            (_, Some(Connection { local: Some(local), .. })) => self.name(*local),
            _ => self.name(SocketAddr::from(([0, 0, 0, 0], 0))),
        }
    }

    /// A server's task: one client after another.
    async fn serve(
        self,
        local: Local,
        port: Arc<Port>,
        listener: OwnedFd,
        mut first: Option<Arc<OwnedFd>>,
    ) {
        let Ok(listener) = local.watch(listener) else { return };
        loop {
            let fd = match first.take() {
                Some(fd) => fd,
                None => match listener.io(Direction::Read, accept).await {
                    Ok(fd) => self.begin(&port, fd),
                    Err(error) => {
                        // Out of descriptors perhaps: later there may be some.
                        tracing::warn!(label = port.label, "accept: {}", super::reason(&error));
                        local.sleep(Duration::from_secs(1)).await;
                        continue;
                    }
                },
            };
            // What a client left unread goes when the next one wants in.
            self.connection(&local, &port, fd, async || listener.readable().await).await;
        }
    }

    /// A reconnecting client's task.
    async fn keep_connected(self, local: Local, port: Arc<Port>) {
        loop {
            let address = self.address.clone();
            match local.pool(move || address.connect()).await {
                Ok(Ok(connection)) => {
                    port.set_filename(self.client_name(Some(&connection)));
                    let fd = self.begin(&port, connection.fd);
                    // What a server left goes when it is time to connect anew.
                    let reconnect = async || local.sleep(self.reconnect).await;
                    self.connection(&local, &port, fd, reconnect).await;
                }
                Ok(Err(error)) => tracing::debug!(label = port.label, "{error}"),
                Err(error) => tracing::warn!(label = port.label, "cannot connect: {error}"),
            }
            local.sleep(self.reconnect).await;
        }
    }

    /// Makes a connected socket the port's peer. At once, not with the loop's
    /// next turn, so that nothing written meanwhile is discarded.
    fn begin(&self, port: &Port, fd: OwnedFd) -> Arc<OwnedFd> {
        let fd = Arc::new(fd);
        if self.nodelay && matches!(self.address, Address::Inet(_)) {
            let _ = rustix::net::sockopt::set_tcp_nodelay(&fd, true);
        }
        let sink = SocketSink(fd.clone());
        if self.telnet {
            // Fits: nothing was sent on this socket before.
            let _ = send(&fd, &telnet::GREETING, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
            port.opened(Box::new(TelnetSink::new(sink)));
        } else {
            port.opened(Box::new(sink));
        }
        fd
    }

    /// Serves one connection to its end.
    async fn connection(
        &self,
        local: &Local,
        port: &Port,
        fd: Arc<OwnedFd>,
        give_up: impl AsyncFn(),
    ) {
        let Ok(stream) = local.watch(fd) else { return port.closed() };
        let mut telnet = self.telnet.then(telnet::Filter::default);
        let unix = matches!(self.address, Address::Unix(_));
        let read = |fd: &OwnedFd, buf: &mut [u8]| loop {
            let count = if unix { read_with_fds(fd, buf, port)? } else { stream::read(fd, buf)? };
            let Some(filter) = &mut telnet else { return Ok(count) };
            let data = buf.get_mut(..count).unwrap_or_default();
            let kept = filter.strip(data, || port.deliver_break());
            // Nothing but commands is not the end.
            if kept > 0 || count == 0 {
                return Ok(kept);
            }
        };
        let end = stream::pump(local, port, &stream, &stream, read, give_up).await;
        tracing::debug!(label = port.label, ?end, "chardev connection ended");
        port.closed();
    }
}

/// A connected socket in non-blocking mode.
struct Connection {
    fd: OwnedFd,
    /// Our own address, of a TCP connection we made.
    local: Option<SocketAddr>,
}

impl Address {
    /// Connects; TCP within [`CONNECT_TIMEOUT`] for each address of the host.
    fn connect(&self) -> Result<Connection, CharError> {
        let failed = |error| CharError::open("Failed to connect to socket", error);
        match self {
            Address::Unix(path) => {
                check_path(path)?;
                let stream = UnixStream::connect(path).map_err(failed)?;
                stream.set_nonblocking(true).map_err(failed)?;
                Ok(Connection { fd: stream.into(), local: None })
            }
            Address::Inet(inet) => {
                let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
                for address in inet.resolve("localhost", inet.port)? {
                    match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                        Ok(stream) => {
                            stream.set_nonblocking(true).map_err(failed)?;
                            let local = stream.local_addr().ok();
                            return Ok(Connection { fd: stream.into(), local });
                        }
                        Err(error) => last = error,
                    }
                }
                Err(failed(last))
            }
        }
    }
}

impl Inet {
    /// The addresses of the host that the options allow, at least one.
    fn resolve(&self, default_host: &str, port: u16) -> Result<Vec<SocketAddr>, CharError> {
        let host = if self.host.is_empty() { default_host } else { &self.host };
        let failed = |why: &str| {
            CharError::Open(format!("address resolution failed for {host}:{port}: {why}"))
        };
        let all = (host, port).to_socket_addrs().map_err(|e| failed(&super::reason(&e)))?;
        let v4 = self.ipv4.unwrap_or(self.ipv6 != Some(true));
        let v6 = self.ipv6.unwrap_or(self.ipv4 != Some(true));
        let found: Vec<_> = all.filter(|at| if at.is_ipv4() { v4 } else { v6 }).collect();
        if found.is_empty() {
            return Err(failed("it has no address of the wanted family"));
        }
        Ok(found)
    }
}

fn check_path(path: &Path) -> Result<(), CharError> {
    match path.as_os_str().len() {
        0 => Err(CharError::Open("UNIX socket path is empty".to_owned())),
        1..=LONGEST_PATH => Ok(()),
        _ => Err(CharError::Open(format!(
            "UNIX socket path '{}' is too long: it must be less than 108 bytes",
            path.display()
        ))),
    }
}

fn listen_unix(path: &Path) -> Result<UnixListener, CharError> {
    check_path(path)?;
    // A socket left by an earlier run; never a file of another kind.
    if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        let _ = std::fs::remove_file(path);
    }
    UnixListener::bind(path).map_err(|error| CharError::open("Failed to bind socket", error))
}

fn listen_inet(inet: &Inet) -> Result<TcpListener, CharError> {
    let any = if inet.ipv6 == Some(true) { "::" } else { "0.0.0.0" };
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for port in inet.port..=inet.to.unwrap_or(inet.port).max(inet.port) {
        for address in inet.resolve(any, port)? {
            match TcpListener::bind(address) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = error,
            }
        }
    }
    Err(CharError::open("Failed to bind socket", last))
}

fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)
}

fn accept_blocking(listener: &OwnedFd) -> io::Result<OwnedFd> {
    loop {
        match accept(listener) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            result => return result,
        }
    }
}

/// Tells the user what start-up is waiting for.
fn notice(text: &str) {
    use std::io::Write;
    let _ = writeln!(io::stderr(), "{text}");
}

/// Reads bytes, and first hands over the descriptors that came with them.
fn read_with_fds(fd: &OwnedFd, buf: &mut [u8], port: &Port) -> io::Result<usize> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut iov = [io::IoSliceMut::new(buf)];
    let message = recvmsg(fd, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = part {
            fds.for_each(|fd| port.deliver_fd(fd));
        }
    }
    Ok(message.bytes)
}

/// Output to a socket.
struct SocketSink(Arc<OwnedFd>);

impl Sink for SocketSink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(send(self.0.as_fd(), data, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
    }

    fn hang_up(&mut self) {
        let _ = shutdown(&self.0, Shutdown::Both);
    }

    fn finish(&mut self) {
        let _ = shutdown(&self.0, Shutdown::Write);
        // Closing a TCP socket with input unread resets the connection, and the
        // peer may lose output it has not read. A peer that sends and sends is
        // not waited for.
        let mut buf = [0; 4096];
        for _ in 0..16 {
            match recv(&self.0, &mut buf[..], RecvFlags::DONTWAIT) {
                Ok((1.., _)) => {}
                _ => break,
            }
        }
    }
}
