//! Unix and TCP sockets: one connection at a time, made or accepted.
//!
//! Opened by the main thread, which waits for a first client or a connection only while nothing
//! runs yet; then served on the chardev's loop. A hostile peer can connect, send anything, pass
//! descriptors and vanish: one peer is served at a time, and descriptors beyond those of one
//! message are closed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use resources::iol::{Direction, Either, Local, Notify, race};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, Shutdown, SocketFlags,
    accept_with, recv, recvmsg, send, shutdown,
};

use super::address::{Address, Later, is_unix, name, within};
use super::inband;
use super::port::{Patience, Port, Sink};
use super::telnet::{self, TelnetSink};
use super::{CharError, Extra, stream};

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

/// A connection that is being made.
type Connecting = Later<Result<Arc<OwnedFd>, CharError>>;

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

    pub(super) fn open(self, port: &Arc<Port>, patience: Patience) -> Result<(), CharError> {
        if self.server {
            self.open_server(port, patience)
        } else {
            self.open_client(port, patience)
        }
    }

    fn open_server(self, port: &Arc<Port>, patience: Patience) -> Result<(), CharError> {
        let listener = self.address.listen(patience)?;
        let name = name(&listener, self.telnet).ok_or_else(not_a_socket)?;
        port.set_filename(format!("{name},server"));
        let listen = |error| CharError::open("Failed to set socket to listening mode", error);
        let clients = Arc::new(Clients::default());
        let _ = port.extra.set(Extra::Clients(clients.clone()));
        // A listener that was given to us may be in either mode.
        rustix::io::ioctl_fionbio(&listener, false).map_err(|e| listen(e.into()))?;
        let first = if self.wait && patience == Patience::Endless {
            notice(&format!("vmm: waiting for connection on: {name},server"));
            let fd = Arc::new(accept_blocking(&listener).map_err(listen)?);
            clients.busy(true);
            self.begin(port, &fd);
            Some(fd)
        } else {
            None
        };
        rustix::io::ioctl_fionbio(&listener, true).map_err(|e| listen(e.into()))?;
        port.spawn(move |local, port| self.serve(local, port, listener, clients, first));
        Ok(())
    }

    fn open_client(self, port: &Arc<Port>, patience: Patience) -> Result<(), CharError> {
        port.set_filename(self.unconnected());
        if !self.reconnect.is_zero() {
            if matches!(self.address, Address::Fd(_)) {
                let text = "a socket that was passed cannot be connected anew";
                return Err(CharError::Open(text.to_owned()));
            }
            port.spawn(move |local, port| self.keep_connected(local, port));
            return Ok(());
        }
        let address = self.address.clone();
        let failed = |error| CharError::open("Failed to connect to socket", error);
        match within(patience, move || address.connect()).map_err(failed)? {
            Ok(connected) => {
                let fd = connected?;
                let name = name(&fd, self.telnet).ok_or_else(not_a_socket)?;
                port.set_filename(name);
                self.begin(port, &fd);
                port.spawn(move |local, port| async move { self.once(&local, &port, fd).await });
            }
            Err(connecting) => {
                port.spawn(move |local, port| self.finish_connecting(local, port, connecting));
            }
        }
        Ok(())
    }

    /// What a client is called that has no connection.
    fn unconnected(&self) -> String {
        match (&self.address, self.telnet) {
            (Address::Unix(_), _) => "unix:".to_owned(),
            (_, true) => "telnet:0.0.0.0:0".to_owned(),
            (_, false) => "tcp:0.0.0.0:0".to_owned(),
        }
    }

    /// A server's task: one client after another.
    async fn serve(
        self,
        local: Local,
        port: Arc<Port>,
        listener: Arc<OwnedFd>,
        clients: Arc<Clients>,
        mut first: Option<Arc<OwnedFd>>,
    ) {
        let Ok(listener) = local.watch(listener) else { return };
        loop {
            let fd = match first.take() {
                Some(fd) => fd,
                None => {
                    let accepted = listener.io(Direction::Read, |fd| accept(fd));
                    let fd = match race(clients.handed(), accepted).await {
                        Either::Left(fd) | Either::Right(Ok(fd)) => Arc::new(fd),
                        Either::Right(Err(error)) => {
                            // Out of descriptors perhaps: later there may be some.
                            tracing::warn!(label = port.label, "accept: {}", super::reason(&error));
                            local.sleep(Duration::from_secs(1)).await;
                            continue;
                        }
                    };
                    clients.busy(true);
                    self.begin(&port, &fd);
                    fd
                }
            };
            // What a client left unread goes when the next one wants in.
            self.connection(&local, &port, fd, async || listener.readable().await).await;
            clients.busy(false);
        }
    }

    /// The task of a client whose connection was not there at once.
    async fn finish_connecting(self, local: Local, port: Arc<Port>, connecting: Connecting) {
        match connecting.done().await {
            Ok(fd) => {
                self.connected(&port, &fd);
                self.once(&local, &port, fd).await;
            }
            Err(error) => tracing::warn!("chardev '{}': {error}", port.label),
        }
    }

    /// A connection was made, not at once.
    fn connected(&self, port: &Port, fd: &Arc<OwnedFd>) {
        if let Some(name) = name(fd, self.telnet) {
            port.set_filename(name);
        }
        self.begin(port, fd);
    }

    /// A client's one connection.
    async fn once(self, local: &Local, port: &Port, fd: Arc<OwnedFd>) {
        self.connection(local, port, fd, async || std::future::pending().await).await;
    }

    /// A reconnecting client's task.
    async fn keep_connected(self, local: Local, port: Arc<Port>) {
        loop {
            let address = self.address.clone();
            match Later::start(move || address.connect()) {
                Ok(connecting) => match connecting.done().await {
                    Ok(fd) => {
                        self.connected(&port, &fd);
                        // What a server left goes when it is time to connect anew.
                        let reconnect = async || local.sleep(self.reconnect).await;
                        self.connection(&local, &port, fd, reconnect).await;
                    }
                    Err(error) => tracing::debug!(label = port.label, "{error}"),
                },
                Err(error) => tracing::warn!(label = port.label, "cannot connect: {error}"),
            }
            local.sleep(self.reconnect).await;
        }
    }

    /// Makes a connected socket the port's peer. At once, not with the loop's
    /// next turn, so that nothing written meanwhile is discarded.
    fn begin(&self, port: &Port, fd: &Arc<OwnedFd>) {
        if self.nodelay && !is_unix(fd) {
            let _ = rustix::net::sockopt::set_tcp_nodelay(fd, true);
        }
        let sink = SocketSink(fd.clone());
        if self.telnet {
            // Fits: nothing was sent on this socket before.
            let _ = send(fd, &telnet::GREETING, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
            port.opened(Box::new(TelnetSink::new(sink)));
        } else {
            port.opened(Box::new(sink));
        }
    }

    /// Serves one connection to its end.
    async fn connection(
        &self,
        local: &Local,
        port: &Port,
        fd: Arc<OwnedFd>,
        give_up: impl AsyncFn(),
    ) {
        let unix = is_unix(&fd);
        let Ok(stream) = local.watch(fd) else { return port.closed() };
        let mut telnet = self.telnet.then(telnet::Filter::default);
        let read = |fd: &OwnedFd, buf: &mut [u8]| {
            let on_break = || port.deliver_break();
            inband::read(telnet.as_mut(), buf, on_break, |buf| {
                if unix { read_with_fds(fd, buf, port) } else { stream::read(fd, buf) }
            })
        };
        let end = stream::pump(local, port, &stream, &stream, read, give_up).await;
        tracing::debug!(label = port.label, ?end, "chardev connection ended");
        port.closed();
    }
}

fn not_a_socket() -> CharError {
    CharError::open("Failed to set up the descriptor", rustix::io::Errno::NOTSOCK)
}

/// The way to hand a connected client to a server.
#[derive(Default)]
pub(super) struct Clients {
    state: Mutex<Handed>,
    came: Notify,
}

#[derive(Default)]
struct Handed {
    /// A client is being served.
    busy: bool,
    fd: Option<OwnedFd>,
}

impl Clients {
    pub(super) fn offer(&self, fd: OwnedFd) -> bool {
        if name(&fd, false).is_none() || rustix::io::ioctl_fionbio(&fd, true).is_err() {
            return false;
        }
        let mut state = self.state.lock();
        if state.busy || state.fd.is_some() {
            return false;
        }
        state.fd = Some(fd);
        drop(state);
        self.came.notify();
        true
    }

    fn busy(&self, busy: bool) {
        self.state.lock().busy = busy;
    }

    async fn handed(&self) -> OwnedFd {
        loop {
            if let Some(fd) = self.state.lock().fd.take() {
                return fd;
            }
            self.came.notified().await;
        }
    }
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

    fn fd(&self) -> Option<Arc<OwnedFd>> {
        Some(self.0.clone())
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
