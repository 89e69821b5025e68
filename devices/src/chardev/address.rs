//! Addresses of sockets: listening there, connecting there, and what they are called.
//!
//! On the thread that opens a chardev, or one of its own where it may take long: names of hosts are
//! looked up by the system, which may ask the network. A peer holds up nobody for longer than
//! [`CONNECT_TIMEOUT`].

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use resources::iol::Notify;
use rustix::io::ioctl_fionbio;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, getsockname, socket_with,
};

use super::port::Patience;
use super::{CharError, reason};

/// Connecting gives up after this long, so that a host that does not answer cannot hold up the
/// caller for minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What brief patience is.
const BRIEF: Duration = Duration::from_millis(100);

/// The longest path a Unix socket's address holds, without its final 0.
const LONGEST_PATH: usize = 107;

/// A socket's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A path on the file system.
    Unix(PathBuf),
    /// A host and a port.
    Inet(Inet),
    /// A socket that is there already: listening, or connected.
    Fd(Given),
}

/// A descriptor that was handed to us; equal to itself only.
#[derive(Clone, Debug)]
pub struct Given(Arc<OwnedFd>);

impl Given {
    /// What to listen on or to talk to.
    pub fn new(fd: OwnedFd) -> Given {
        Given(Arc::new(fd))
    }
}

impl PartialEq for Given {
    fn eq(&self, other: &Given) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Given {}

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

/// The result of work that a thread of its own does.
pub(super) struct Later<T>(Arc<Slot<T>>);

struct Slot<T> {
    done: Mutex<Option<T>>,
    /// For a thread that waits.
    changed: Condvar,
    /// For a task that waits.
    notify: Notify,
}

impl<T: Send + 'static> Later<T> {
    /// Begins to do `work`. Not on a pool's thread: the network may hold up as many as there are.
    pub(super) fn start(work: impl FnOnce() -> T + Send + 'static) -> io::Result<Later<T>> {
        let slot = Arc::new(Slot {
            done: Mutex::new(None),
            changed: Condvar::new(),
            notify: Notify::new(),
        });
        let theirs = slot.clone();
        std::thread::Builder::new().name("connect".to_owned()).spawn(move || {
            let result = work();
            *theirs.done.lock() = Some(result);
            theirs.changed.notify_all();
            theirs.notify.notify();
        })?;
        Ok(Later(slot))
    }

    /// The result, if it is there soon.
    fn wait(self) -> Result<T, Later<T>> {
        let mut done = self.0.done.lock();
        self.0.changed.wait_while_for(&mut done, |done| done.is_none(), BRIEF);
        let result = done.take();
        drop(done);
        result.ok_or(self)
    }

    /// The result, for a task.
    pub(super) async fn done(self) -> T {
        loop {
            if let Some(result) = self.0.done.lock().take() {
                return result;
            }
            self.0.notify.notified().await;
        }
    }
}

/// Does `work`, and waits for it as long as `patience` allows; what takes longer is the error.
pub(super) fn within<T: Send + 'static>(
    patience: Patience,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Result<T, Later<T>>> {
    match patience {
        Patience::Endless => Ok(Ok(work())),
        Patience::Brief => Ok(Later::start(work)?.wait()),
    }
}

impl Address {
    /// Connects, within a limited time for each address of the host, to a socket in non-blocking
    /// mode.
    pub(super) fn connect(&self) -> Result<Arc<OwnedFd>, CharError> {
        let failed = |error: io::Error| CharError::open("Failed to connect to socket", error);
        let fd = match self {
            Address::Unix(path) => Arc::new(connect_unix(path)?),
            Address::Inet(inet) => Arc::new(inet.connect()?.into()),
            Address::Fd(given) => given.0.clone(),
        };
        ioctl_fionbio(&fd, true).map_err(|error| failed(error.into()))?;
        Ok(fd)
    }

    /// Listens, in non-blocking mode unless the first client is to be waited for.
    pub(super) fn listen(&self, patience: Patience) -> Result<Arc<OwnedFd>, CharError> {
        match self {
            Address::Unix(path) => Ok(Arc::new(listen_unix(path)?.into())),
            Address::Inet(inet) => Ok(Arc::new(inet.listen(patience)?.into())),
            Address::Fd(given) => Ok(given.0.clone()),
        }
    }
}

/// The kind of a socket and its own address, as in `tcp:127.0.0.1:80`; `None` if it is no socket of
/// a known kind.
pub(super) fn name(fd: &OwnedFd, telnet: bool) -> Option<String> {
    let any = getsockname(fd).ok()?;
    if let Ok(at) = SocketAddr::try_from(any.clone()) {
        // An IPv6 address prints in brackets.
        return Some(format!("{}:{at}", if telnet { "telnet" } else { "tcp" }));
    }
    let unix = SocketAddrUnix::try_from(any).ok()?;
    let path = unix.path_bytes().unwrap_or_default();
    Some(format!("unix:{}", String::from_utf8_lossy(path)))
}

/// Whether descriptors can come over a socket.
pub(super) fn is_unix(fd: &OwnedFd) -> bool {
    getsockname(fd).is_ok_and(|any| any.address_family() == AddressFamily::UNIX)
}

impl Inet {
    /// The addresses of the host that the options allow, at least one.
    pub(super) fn resolve(
        &self,
        default_host: &str,
        port: u16,
        patience: Patience,
    ) -> Result<Vec<SocketAddr>, CharError> {
        let host = if self.host.is_empty() { default_host } else { &self.host };
        let failed = |why: &str| {
            CharError::Open(format!("address resolution failed for {host}:{port}: {why}"))
        };
        let name = host.to_owned();
        let look = move || (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        let all = match within(patience, look) {
            Ok(Ok(Ok(found))) => found,
            Ok(Ok(Err(error))) | Err(error) => {
                let text = reason(&error);
                return Err(failed(text.rsplit_once(": ").map_or(&*text, |(_, why)| why)));
            }
            Ok(Err(_)) => return Err(failed("it takes too long")),
        };
        let v4 = self.ipv4.unwrap_or(self.ipv6 != Some(true));
        let v6 = self.ipv6.unwrap_or(self.ipv4 != Some(true));
        let found: Vec<_> =
            all.into_iter().filter(|at| if at.is_ipv4() { v4 } else { v6 }).collect();
        if found.is_empty() {
            return Err(failed("it has no address of the wanted family"));
        }
        Ok(found)
    }

    fn connect(&self) -> Result<TcpStream, CharError> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in self.resolve("localhost", self.port, Patience::Endless)? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(CharError::open("Failed to connect to socket", last))
    }

    fn listen(&self, patience: Patience) -> Result<TcpListener, CharError> {
        let any = if self.ipv6 == Some(true) { "::" } else { "0.0.0.0" };
        let addresses = self.resolve(any, self.port, patience)?;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for port in self.port..=self.to.unwrap_or(self.port).max(self.port) {
            for mut address in addresses.iter().copied() {
                address.set_port(port);
                match TcpListener::bind(address) {
                    Ok(listener) => return Ok(listener),
                    Err(error) => last = error,
                }
            }
        }
        Err(CharError::open("Failed to bind socket", last))
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

fn connect_unix(path: &Path) -> Result<OwnedFd, CharError> {
    check_path(path)?;
    let failed = |error: rustix::io::Errno| CharError::open("Failed to connect to socket", error);
    let address = SocketAddrUnix::new(path.as_os_str().as_bytes()).map_err(failed)?;
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|error| CharError::open("Failed to create socket", error))?;
    // A listener whose queue is full makes one wait.
    set_socket_timeout(&fd, Timeout::Send, Some(CONNECT_TIMEOUT)).map_err(failed)?;
    connect(&fd, &address).map_err(failed)?;
    Ok(fd)
}

fn listen_unix(path: &Path) -> Result<UnixListener, CharError> {
    check_path(path)?;
    // A socket left by an earlier run; never a file of another kind.
    if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        let _ = std::fs::remove_file(path);
    }
    UnixListener::bind(path).map_err(|error| CharError::open("Failed to bind socket", error))
}
