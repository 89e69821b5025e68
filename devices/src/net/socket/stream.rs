//! Frames in a stream, each with its length in front: four bytes, the highest first.
//!
//! One task on the devices' loop waits for peers and serves one at a time; the main thread makes
//! it and ends it. Lock: a leaf mutex around the words for `info network` and one around the
//! sockets, so that closing can end them. A peer that sends nonsense or goes away is replaced by
//! the next one where one listens, and by silence where one does not.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use resources::iol::{Direction, Handle, Local, Notify, Watch, race};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_reuseaddr, set_tcp_nodelay, socket_error};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, accept_with, bind,
    connect, getpeername, listen, recv, send, shutdown, socket_with,
};

use super::super::backend::{Backend, Endpoint};
use super::super::frame::MAX_FRAME;
use super::super::lane::{Lane, LaneEnd};
use super::super::options::OpenError;
use super::refused;

/// The length of a length.
const PREFIX: usize = 4;

/// How much is read, and gathered to be written, at once.
const CHUNK: usize = 256 << 10;

/// A stream of frames, or the wait for one.
pub(super) struct Stream {
    shared: Arc<Shared>,
}

struct Shared {
    from_nic: Lane,
    to_nic: Lane,
    info: Mutex<String>,
    /// What there is to end when it is closed.
    sockets: Mutex<Vec<Arc<OwnedFd>>>,
    closed: Notify,
}

/// Where peers come from.
enum Source {
    /// One after another.
    Listener(Arc<OwnedFd>),
    /// One that is being connected to.
    Connecting(Arc<OwnedFd>, SocketAddrV4),
    /// One that is there.
    Given(Arc<OwnedFd>),
}

fn socket() -> Result<OwnedFd, OpenError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
        .map_err(|error| refused("Failed to create socket", error))
}

impl Stream {
    pub(super) fn listen(at: SocketAddrV4, on: &Handle) -> Result<Stream, OpenError> {
        let fd = socket()?;
        set_socket_reuseaddr(&fd, true)
            .and_then(|()| bind(&fd, &at))
            .map_err(|error| refused("Failed to bind socket", error))?;
        listen(&fd, 1).map_err(|error| refused("Failed to set socket to listening mode", error))?;
        Ok(Stream::start(Source::Listener(Arc::new(fd)), String::new(), on))
    }

    pub(super) fn connect(to: SocketAddrV4, on: &Handle) -> Result<Stream, OpenError> {
        let fd = socket()?;
        match connect(&fd, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(refused("Failed to connect to socket", error)),
        }
        let info = format!("socket: connect to {to}");
        Ok(Stream::start(Source::Connecting(Arc::new(fd), to), info, on))
    }

    pub(super) fn given(fd: OwnedFd, on: &Handle) -> Stream {
        let info = format!("socket: fd={}", fd.as_raw_fd());
        Stream::start(Source::Given(Arc::new(fd)), info, on)
    }

    fn start(source: Source, info: String, on: &Handle) -> Stream {
        let fd = match &source {
            Source::Listener(fd) | Source::Connecting(fd, _) | Source::Given(fd) => fd.clone(),
        };
        let shared = Arc::new(Shared {
            from_nic: Lane::new(),
            to_nic: Lane::new(),
            info: Mutex::new(info),
            sockets: Mutex::new(vec![fd]),
            closed: Notify::new(),
        });
        let theirs = shared.clone();
        on.spawn(move |local| async move {
            race(theirs.serve(&local, source), theirs.closed.notified()).await;
            // What the NIC sends now goes nowhere.
            theirs.from_nic.close();
        });
        Stream { shared }
    }

    /// The address that it listens at.
    #[cfg(test)]
    pub(super) fn local_address(&self) -> Option<SocketAddrV4> {
        let sockets = self.shared.sockets.lock();
        SocketAddrV4::try_from(rustix::net::getsockname(sockets.first()?).ok()?).ok()
    }
}

impl Shared {
    async fn serve(&self, local: &Local, source: Source) {
        match source {
            Source::Given(fd) => self.exchange(local, fd).await,
            Source::Connecting(fd, to) => {
                let connected = {
                    let Ok(watch) = local.watch(fd.clone()) else { return };
                    connected(&watch).await
                };
                match connected {
                    Ok(()) => self.exchange(local, fd).await,
                    Err(error) => tracing::error!("socket network: {to}: {error}"),
                }
            }
            Source::Listener(fd) => {
                let Ok(listener) = local.watch(fd) else { return };
                loop {
                    // Nobody is there to hear.
                    self.from_nic.close();
                    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                    let peer = listener.io(Direction::Read, |fd| Ok(accept_with(fd, flags)?)).await;
                    let fd = match peer {
                        Ok(fd) => Arc::new(fd),
                        Err(error) => {
                            tracing::warn!("socket network: accept: {error}");
                            // Out of descriptors, perhaps: not at once again.
                            local.sleep(std::time::Duration::from_secs(1)).await;
                            continue;
                        }
                    };
                    let from = getpeername(&fd).ok().flatten();
                    let from = from.and_then(|from| SocketAddrV4::try_from(from).ok());
                    let from = from.map(|from| from.to_string()).unwrap_or_default();
                    *self.info.lock() = format!("socket: connection from {from}");
                    self.sockets.lock().push(fd.clone());
                    self.from_nic.reopen();
                    self.exchange(local, fd).await;
                    self.sockets.lock().truncate(1);
                }
            }
        }
    }

    /// Moves frames until the peer is gone.
    async fn exchange(&self, local: &Local, fd: Arc<OwnedFd>) {
        // A socket of another kind has no such thing.
        let _ = set_tcp_nodelay(&fd, true);
        if let Ok(watch) = local.watch(fd) {
            let ends = race(self.receive(local, &watch), self.send(local, &watch)).await;
            let (resources::iol::Either::Left(end) | resources::iol::Either::Right(end)) = ends;
            match end {
                Ok(()) => tracing::info!("socket network: the peer has gone"),
                Err(error) => tracing::warn!("socket network: {error}"),
            }
            let _ = shutdown(watch.get(), Shutdown::Both);
        }
        self.info.lock().clear();
    }

    /// Reads frames for the NIC until the peer ends.
    async fn receive(&self, local: &Local, socket: &Watch<Arc<OwnedFd>>) -> io::Result<()> {
        let mut parser = Parser::default();
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = |fd: &Arc<OwnedFd>| {
                let (_, count) = recv(fd, &mut chunk[..], RecvFlags::DONTWAIT)?;
                Ok(count)
            };
            let count = socket.io(Direction::Read, read).await?;
            if count == 0 {
                return Ok(());
            }
            parser.feed(chunk.get(..count).unwrap_or_default());
            while let Some(frame) = parser.next()? {
                let mut frame = Some(frame);
                while !self.to_nic.put(|| frame.take().unwrap_or_default()) {
                    self.to_nic.drained().await;
                }
            }
            local.yield_now().await;
        }
    }

    /// Writes frames of the NIC until the peer takes no more.
    async fn send(&self, local: &Local, socket: &Watch<Arc<OwnedFd>>) -> io::Result<()> {
        let mut out = Vec::new();
        loop {
            let mut next = Some(self.from_nic.next().await);
            while let Some(frame) = next.take() {
                let Ok(len) = u32::try_from(frame.len()) else { continue };
                out.extend(len.to_be_bytes());
                out.extend(frame);
                if out.len() < CHUNK {
                    next = self.from_nic.take();
                }
            }
            let mut left = out.as_slice();
            while !left.is_empty() {
                let write = |fd: &Arc<OwnedFd>| {
                    Ok(send(fd, left, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
                };
                let count = socket.io(Direction::Write, write).await?;
                left = left.get(count..).unwrap_or_default();
            }
            out.clear();
            local.yield_now().await;
        }
    }
}

/// Waits for a connection that is under way.
async fn connected(socket: &Watch<Arc<OwnedFd>>) -> io::Result<()> {
    loop {
        if getpeername(socket.get()).is_ok_and(|peer| peer.is_some()) {
            return Ok(());
        }
        socket.writable().await;
        socket_error(socket.get())?.map_err(io::Error::from)?;
    }
}

/// Takes a stream apart.
#[derive(Default)]
pub(super) struct Parser {
    kept: Vec<u8>,
    /// How much of `kept` was given out.
    used: usize,
}

impl Parser {
    /// Adds what was read.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.kept.drain(..self.used.min(self.kept.len()));
        self.used = 0;
        self.kept.extend_from_slice(bytes);
    }

    /// The next frame, if it is whole.
    ///
    /// # Errors
    /// When the peer says a length that no frame has.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let left = self.kept.get(self.used..).unwrap_or_default();
        let Some((prefix, rest)) = left.split_first_chunk::<PREFIX>() else { return Ok(None) };
        let len = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if len > MAX_FRAME {
            return Err(io::Error::other(format!("the peer sends a frame of {len} bytes")));
        }
        let Some(frame) = rest.get(..len) else { return Ok(None) };
        let frame = frame.to_vec();
        self.used = self.used.saturating_add(PREFIX).saturating_add(len);
        Ok(Some(frame))
    }
}

impl Backend for Stream {
    fn open(&self, _: u16, _: &Local) -> io::Result<Box<dyn Endpoint>> {
        let (send, recv) = (self.shared.from_nic.clone(), self.shared.to_nic.clone());
        Ok(Box::new(LaneEnd { send, recv }))
    }

    fn plugged(&self) {
        self.shared.to_nic.clear();
    }

    fn info(&self, _: u16) -> String {
        self.shared.info.lock().clone()
    }

    fn close(&self) {
        // Peers hear of it, and the address is free, when this returns.
        for fd in self.shared.sockets.lock().drain(..) {
            let _ = shutdown(&fd, Shutdown::Both);
        }
        self.shared.closed.notify();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.close();
    }
}
