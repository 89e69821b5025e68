//! TLS around a connection: whoever speaks NBD does so on one end of a socket pair, and what stands
//! behind the other end speaks TLS with the peer.
//!
//! Two tasks on the loop that negotiated, one for each direction, each with a small buffer; they
//! end when either end does. No lock. The peer is believed nothing before its handshake is done,
//! whose time the caller bounds; one that takes nothing stops its own connection, and holds it for
//! [`LINGER`] when the other end has gone.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use resources::iol::{Direction, Local, Notify, race};
use resources::tls::{self, Credentials, TlsError};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
use rustls::Connection;

use super::stream::{self, Socket};
use crate::open::Objects;

/// Bytes of plaintext that are moved at once: a record of TLS.
const PIECE: usize = 16 << 10;
/// How long a peer may take the last of what was sent to it.
const LINGER: Duration = Duration::from_secs(5);

/// What a client with these credentials is, to a server of this name.
///
/// # Errors
/// There are none of that name, or they are of no use.
pub(crate) fn client(objects: &Objects, id: &str, name: &str) -> Result<tls::Client, TlsError> {
    let credentials = find(objects, id, false)?;
    if name.is_empty() {
        return Err(TlsError("the host name that the TLS server has to show is missing".into()));
    }
    tls::Client::new(&credentials.directory, name)
}

/// What a server with these credentials is.
///
/// # Errors
/// As [`client`].
pub(crate) fn server(objects: &Objects, id: &str) -> Result<tls::Server, TlsError> {
    let credentials = find(objects, id, true)?;
    tls::Server::new(&credentials.directory, credentials.verify_peer)
}

fn find<'a>(objects: &'a Objects, id: &str, server: bool) -> Result<&'a Credentials, TlsError> {
    let found = objects.tls.get(id);
    let found = found.ok_or_else(|| TlsError(format!("No TLS credentials with id '{id}'")))?;
    if found.server != server {
        let end = if server { "server" } else { "client" };
        return Err(TlsError(format!("Expecting TLS credentials with a {end} endpoint")));
    }
    Ok(found)
}

/// A descriptor, read and written as it is.
struct Raw<'a>(&'a OwnedFd);

impl Read for Raw<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(self.0, to)?)
    }
}

impl Write for Raw<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(self.0, from)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The two ends that are pumped between.
struct Pump {
    tls: RefCell<Connection>,
    /// To the peer.
    outer: Socket,
    /// To whoever speaks NBD.
    inner: Socket,
    /// Everything for the peer is written, or never will be.
    done: Notify,
}

/// Does the handshake on a socket; the socket to speak on from then on.
///
/// # Errors
/// The peer is not who it should be, does not speak TLS, or has gone.
pub(super) async fn wrap(
    local: &Local,
    outer: Socket,
    connection: Result<Connection, rustls::Error>,
) -> io::Result<OwnedFd> {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let inner = stream::watch(local, Arc::new(theirs))?;
    let tls = RefCell::new(connection.map_err(io::Error::other)?);
    let pump = Rc::new(Pump { tls, outer, inner, done: Notify::new() });
    let shaken = pump.handshake().await;
    if let Err(error) = shaken {
        // What is wrong is said to the peer, too, if it is there.
        let _ = pump.tls.borrow_mut().write_tls(&mut Raw(pump.outer.get()));
        return Err(error);
    }
    let (up, down, last) = (pump.clone(), pump.clone(), pump);
    local
        .spawn(async move {
            if let Err(error) = up.up().await {
                tracing::debug!("to a peer of NBD by TLS: {error}");
                stream::cut(up.inner.get());
            }
            stream::cut(up.outer.get());
            up.done.notify();
        })
        .detach();
    local
        .spawn(async move {
            if let Err(error) = down.down().await {
                tracing::debug!("from a peer of NBD by TLS: {error}");
            }
            // Replies may still be on their way to the peer.
            let _ = shutdown(&**down.inner.get(), Shutdown::Write);
        })
        .detach();
    let timer = local.clone();
    local
        .spawn(async move {
            last.inner.hung_up().await;
            race(last.done.notified(), timer.sleep(LINGER)).await;
            stream::cut(last.outer.get());
        })
        .detach();
    Ok(ours)
}

impl Pump {
    async fn handshake(&self) -> io::Result<()> {
        loop {
            self.send().await?;
            if !self.tls.borrow().is_handshaking() {
                return Ok(());
            }
            if !self.receive().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Writes what there is for the peer.
    async fn send(&self) -> io::Result<()> {
        while self.tls.borrow().wants_write() {
            let write = |fd: &Arc<OwnedFd>| self.tls.borrow_mut().write_tls(&mut Raw(fd));
            if self.outer.io(Direction::Write, write).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    /// Reads something of the peer; false when there is nothing more.
    async fn receive(&self) -> io::Result<bool> {
        let read = |fd: &Arc<OwnedFd>| self.tls.borrow_mut().read_tls(&mut Raw(fd));
        let count = self.outer.io(Direction::Read, read).await?;
        let done = self.tls.borrow_mut().process_new_packets();
        done.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(count > 0)
    }

    /// From whoever speaks NBD to the peer.
    async fn up(&self) -> io::Result<()> {
        let mut buf = vec![0; PIECE];
        loop {
            let read = |fd: &Arc<OwnedFd>| Raw(fd).read(&mut buf);
            let count = self.inner.io(Direction::Read, read).await?;
            if count == 0 {
                self.tls.borrow_mut().send_close_notify();
                return self.send().await;
            }
            let mut left = buf.get(..count).unwrap_or_default();
            while !left.is_empty() {
                let taken = self.tls.borrow_mut().writer().write(left)?;
                left = left.get(taken..).unwrap_or_default();
                self.send().await?;
            }
        }
    }

    /// From the peer to whoever speaks NBD, until the peer says that this is all. What is cut off,
    /// which anybody on the way can do, is an error.
    async fn down(&self) -> io::Result<()> {
        let mut buf = vec![0; PIECE];
        loop {
            let count = match self.tls.borrow_mut().reader().read(&mut buf) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            if count == 0 {
                // After the end of the socket the reader says what kind of end it was.
                self.receive().await?;
                continue;
            }
            let mut left = buf.get(..count).unwrap_or_default();
            while !left.is_empty() {
                let write = |fd: &Arc<OwnedFd>| Raw(fd).write(left);
                let taken = self.inner.io(Direction::Write, write).await?;
                left = left.get(taken..).unwrap_or_default();
            }
        }
    }
}
