//! The way out.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::exec::{End, Exec};
use super::{Canceller, Channel, reason, seek};
use crate::Error;
use crate::uri::Uri;

/// How often it is seen whether a listener on a full socket has room.
const FULL: Duration = Duration::from_millis(50);

/// A connection that is on its way.
#[derive(Debug)]
pub struct Connecting {
    canceller: Canceller,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// It is there.
    There(Channel),
    /// The host must be looked up, which may take long.
    LookUp(String, u16),
    /// The peer must answer.
    Answer(OwnedFd),
    /// The peer's queue is full.
    Full(PathBuf),
}

fn connect_failed(error: &io::Error) -> Error {
    Error(format!("Failed to connect to socket: {}", reason(error)))
}

impl Connecting {
    /// Begins, and never waits. `resolve` gives the file descriptor of `fd:`, or says why there
    /// is none.
    ///
    /// A file is created, and cut off at the stream's beginning.
    ///
    /// # Errors
    /// There is no way, in the words that `migrate` answers.
    pub fn start(
        uri: &Uri,
        canceller: &Canceller,
        resolve: impl FnOnce(&str) -> Result<OwnedFd, Error>,
    ) -> Result<Self, Error> {
        let way = match uri {
            Uri::Tcp { host, port } => match host.parse::<IpAddr>() {
                Ok(address) => match begin(SocketAddr::new(address, *port)) {
                    Ok(socket) => Way::Answer(socket),
                    Err(error) => return Err(connect_failed(&error)),
                },
                Err(_) => Way::LookUp(host.clone(), *port),
            },
            Uri::Unix(path) => match unix(path) {
                Ok(socket) => Way::Answer(socket),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Way::Full(path.clone()),
                Err(error) => return Err(connect_failed(&error)),
            },
            Uri::Fd(name) => Way::There(open(Ok(resolve(name)?), None, canceller, name)?),
            Uri::Exec(command) => {
                let (pipe, exec) = Exec::start(command, End::Input).map_err(|error| {
                    Error(format!("failed to popen the migration target: {}", reason(&error)))
                })?;
                Way::There(open(Ok(pipe), Some(exec), canceller, command)?)
            }
            Uri::File { path, offset } => {
                let mut options = OpenOptions::new();
                // Guest memory is in it, so it is for the owner alone.
                options.write(true).create(true).mode(0o600);
                // A FIFO that nobody reads is an error, and no reason to wait.
                options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
                let file = options.open(path).and_then(|file| {
                    if file.metadata()?.is_file() {
                        file.set_len(*offset)?;
                    }
                    seek(&file, *offset)?;
                    Ok(file.into())
                });
                Way::There(open(file, None, canceller, &path.to_string_lossy())?)
            }
        };
        Ok(Self { canceller: canceller.clone(), way })
    }

    /// Whether the listener's queue is full.
    #[cfg(test)]
    pub(super) fn waits(&self) -> bool {
        matches!(self.way, Way::Full(_))
    }

    /// Waits until the other side is there; for a migration thread.
    ///
    /// # Errors
    /// It is not reached, or it was cancelled.
    pub fn finish(self) -> Result<Channel, Error> {
        let Self { canceller, way } = self;
        let socket = match way {
            Way::There(channel) => return Ok(channel),
            Way::Answer(socket) => answered(socket, &canceller),
            Way::Full(path) => loop {
                match unix(&path) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    result => break result,
                }
                if let Err(error) = canceller.sleep(FULL) {
                    break Err(error);
                }
            },
            Way::LookUp(host, port) => {
                let mut last = Err(ErrorKind::NotFound.into());
                for address in look_up(&host, port)? {
                    last = begin(address).and_then(|socket| answered(socket, &canceller));
                    if last.is_ok() || canceller.is_cancelled() {
                        break;
                    }
                }
                last
            }
        };
        let channel = socket.and_then(|socket| Channel::new(socket, &canceller));
        channel.map_err(|error| connect_failed(&error))
    }
}

/// A channel of what was opened.
pub(super) fn open(
    fd: io::Result<OwnedFd>,
    exec: Option<Exec>,
    canceller: &Canceller,
    name: &str,
) -> Result<Channel, Error> {
    let channel = fd.and_then(|fd| Channel::with(fd, exec, canceller));
    channel.map_err(|error| Error(format!("Could not open '{name}': {}", reason(&error))))
}

/// The addresses of a host.
pub(super) fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    let found = (host, port).to_socket_addrs().map_err(|error| {
        let text = reason(&error);
        let text = text.strip_prefix("failed to lookup address information: ").unwrap_or(&text);
        Error(format!("address resolution failed for {host}:{port}: {text}"))
    })?;
    Ok(found.collect())
}

fn begin(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = new_socket(family)?;
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

fn unix(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let socket = new_socket(AddressFamily::UNIX)?;
    connect(&socket, &address)?;
    Ok(socket)
}

fn new_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, SocketType::STREAM, flags, None)?)
}

/// Waits for the peer's answer.
fn answered(socket: OwnedFd, canceller: &Canceller) -> io::Result<OwnedFd> {
    canceller.wait(socket.as_fd(), PollFlags::OUT, None)?;
    socket_error(&socket)??;
    Ok(socket)
}
