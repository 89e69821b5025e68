//! The way in.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::fs::OFlags;

use super::connect::{look_up, open};
use super::exec::{End, Exec};
use super::{Canceller, Channel, reason, seek};
use crate::Error;
use crate::uri::Uri;

/// Where a stream may come in. Dropped, nobody can connect any more.
#[derive(Debug)]
pub struct Listener(Place);

#[derive(Debug)]
enum Place {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
    /// What needs no peer to come; once.
    There(Option<OwnedFd>, Option<Exec>),
    /// The same, where somebody may write only later.
    Fifo(Option<OwnedFd>),
}

impl Listener {
    /// Listens, opens the file or starts the command. `resolve` gives the file descriptor of
    /// `fd:`, or says why there is none. Waits for nobody, except to look up a host by name.
    ///
    /// # Errors
    /// In the words that follow `-incoming URI: `.
    pub fn start(
        uri: &Uri,
        resolve: impl FnOnce(&str) -> Result<OwnedFd, Error>,
    ) -> Result<Self, Error> {
        let bind_failed =
            |error: io::Error| Error(format!("Failed to bind socket: {}", reason(&error)));
        Ok(Self(match uri {
            Uri::Tcp { host, port } => {
                let addresses = if host.is_empty() {
                    // The first is for both where there is IPv6.
                    vec![
                        (Ipv6Addr::UNSPECIFIED, *port).into(),
                        (Ipv4Addr::UNSPECIFIED, *port).into(),
                    ]
                } else {
                    look_up(host, *port)?
                };
                let bound = TcpListener::bind(addresses.as_slice()).map_err(bind_failed)?;
                bound.set_nonblocking(true).map_err(bind_failed)?;
                Place::Tcp(bound)
            }
            Uri::Unix(path) => {
                // What another process left there.
                if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
                    let _ = fs::remove_file(path);
                }
                let failed = |error: io::Error| {
                    Error(format!(
                        "Failed to bind socket to {}: {}",
                        path.display(),
                        reason(&error)
                    ))
                };
                let bound = UnixListener::bind(path).map_err(failed)?;
                bound.set_nonblocking(true).map_err(failed)?;
                Place::Unix(bound, path.clone())
            }
            Uri::Fd(name) => Place::There(Some(resolve(name)?), None),
            Uri::Exec(command) => {
                let (pipe, exec) = Exec::start(command, End::Output).map_err(|error| {
                    Error(format!("failed to popen the migration source: {}", reason(&error)))
                })?;
                Place::There(Some(pipe), Some(exec))
            }
            Uri::File { path, offset } => {
                let mut options = OpenOptions::new();
                // A FIFO that nobody writes is no reason to wait here.
                options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
                let file = options.open(path);
                let file = file.and_then(|file| seek(&file, *offset).map(|()| file));
                let file = file.map_err(|error| {
                    Error(format!("Could not open '{}': {}", path.display(), reason(&error)))
                })?;
                match file.metadata() {
                    Ok(about) if about.file_type().is_fifo() => Place::Fifo(Some(file.into())),
                    _ => Place::There(Some(file.into()), None),
                }
            }
        }))
    }

    /// Where it listens, if by TCP.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Place::Tcp(listener) => listener.local_addr().ok(),
            _ => None,
        }
    }

    /// Waits for a peer; for a migration thread. Drop the listener after the last that is wanted.
    ///
    /// # Errors
    /// It was cancelled, the host has no file descriptors left, or a second one of what there is
    /// only one.
    pub fn accept(&mut self, canceller: &Canceller) -> Result<Channel, Error> {
        let nobody = || Error::new("could not accept migration connection: nobody came");
        self.accept_within(canceller, None)?.ok_or_else(nobody)
    }

    /// As [`accept`](Self::accept), for so long; None if nobody has come.
    ///
    /// # Errors
    /// As there.
    pub fn accept_within(
        &mut self,
        canceller: &Canceller,
        time: Option<Duration>,
    ) -> Result<Option<Channel>, Error> {
        let failed = |error: io::Error| {
            Error(format!("could not accept migration connection: {}", reason(&error)))
        };
        match &mut self.0 {
            Place::Tcp(listener) => {
                accept(listener, canceller, time, |it| Ok(it.accept()?.0.into()))
            }
            Place::Unix(listener, _) => {
                accept(listener, canceller, time, |it| Ok(it.accept()?.0.into()))
            }
            // Before its first writer has come it looks as if it had ended.
            Place::Fifo(fd) => match fd.take() {
                Some(file) => {
                    let ready = canceller.wait(file.as_fd(), PollFlags::IN, time);
                    ready.map(|ready| {
                        *fd = Some(file);
                        fd.take_if(|_| ready)
                    })
                }
                None => Err(ErrorKind::NotConnected.into()),
            },
            Place::There(fd, exec) => {
                let fd = fd.take().ok_or_else(|| ErrorKind::NotConnected.into());
                return open(fd, exec.take(), canceller, "the incoming stream").map(Some);
            }
        }
        .and_then(|socket| socket.map(|socket| Channel::new(socket, canceller)).transpose())
        .map_err(failed)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Place::Unix(_, path) = &self.0 {
            remove(path);
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::debug!("could not remove {}: {error}", path.display());
    }
}

fn accept<L: AsFd>(
    listener: &L,
    canceller: &Canceller,
    time: Option<Duration>,
    mut one: impl FnMut(&L) -> io::Result<OwnedFd>,
) -> io::Result<Option<OwnedFd>> {
    loop {
        match one(listener) {
            // Nobody is there, or somebody was.
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            result => return result.map(Some),
        }
        if !canceller.wait(listener.as_fd(), PollFlags::IN, time)? {
            return Ok(None);
        }
    }
}
