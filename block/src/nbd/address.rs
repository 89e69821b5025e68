//! Where a server is, and which export of it: names and options.
//!
//! Functions over strings, and the way to a socket: on the loop that will use it, host names
//! looked up by its pool. Names come from users and clients; addresses behind a host name from
//! whoever answers for it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use resources::iol::Local;
use rustix::fs::FileType;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
    sockopt,
};

use super::wire::{MAX_STRING, PORT};

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// By TCP.
    Inet {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
    },
    /// At a path.
    Unix(String),
}

/// A server's export: what a file name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The server.
    pub address: Address,
    /// The name of the export; empty for the default one.
    pub export: String,
}

/// A name or option that means no server. The text says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadTarget(String);

fn bad(text: impl Into<String>) -> BadTarget {
    BadTarget(text.into())
}

impl Target {
    /// Whether a file name is one of this protocol.
    pub fn is_name(name: &str) -> bool {
        let prefixes = ["nbd:", "nbd+tcp:", "nbd+unix:", "nbds:", "nbds+tcp:", "nbds+unix:"];
        prefixes.iter().any(|prefix| name.starts_with(prefix))
    }

    /// What a file name means: `nbd:HOST:PORT[:exportname=NAME]`,
    /// `nbd:unix:PATH[:exportname=NAME]`, `nbd://HOST[:PORT][/NAME]` or
    /// `nbd+unix:///[NAME]?socket=PATH`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(name: &str) -> Result<Target, BadTarget> {
        let target = match name.split_once("://") {
            Some((scheme, rest)) => Target::from_uri(scheme, rest)?,
            None => Target::from_name(name)?,
        };
        target.checked()
    }

    fn from_name(name: &str) -> Result<Target, BadTarget> {
        let rest = name
            .strip_prefix("nbd:")
            .ok_or_else(|| bad("File name string for new protocols must start with 'nbd:'"))?;
        let (place, export) = match rest.split_once(":exportname=") {
            Some((place, export)) => (place, export),
            None => (rest, ""),
        };
        if rest.is_empty() {
            return Err(bad("the name of an NBD server is missing"));
        }
        let address = match place.strip_prefix("unix:") {
            Some(path) => Address::Unix(path.to_owned()),
            None => inet(place, None)?,
        };
        Ok(Target { address, export: export.to_owned() })
    }

    fn from_uri(scheme: &str, rest: &str) -> Result<Target, BadTarget> {
        let unix = match scheme {
            "nbd" | "nbd+tcp" => false,
            "nbd+unix" => true,
            "nbds" | "nbds+tcp" | "nbds+unix" => return Err(no_tls()),
            _ => return Err(bad(format!("'{scheme}' is no scheme of NBD"))),
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        let export = decode(path)?;
        let mut socket = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("socket", path)) if unix && socket.is_none() => socket = Some(decode(path)?),
                _ => return Err(bad(format!("the NBD URI has a wrong parameter '{pair}'"))),
            }
        }
        let address = match (unix, socket) {
            (true, Some(path)) if authority.is_empty() => Address::Unix(path),
            (true, _) => {
                return Err(bad("an NBD URI of a unix socket is nbd+unix:///?socket=PATH"));
            }
            (false, _) => inet(&decode(authority)?, Some(PORT))?,
        };
        Ok(Target { address, export })
    }

    /// What options mean: `host`, `port`, `path` and `export`, by a function that finds them.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_options<'a>(find: impl Fn(&str) -> Option<&'a str>) -> Result<Target, BadTarget> {
        let address = match (find("path"), find("host")) {
            (Some(_), Some(_)) => {
                return Err(bad("path and host may not be used at the same time."));
            }
            (None, None) => return Err(bad("one of path and host must be specified.")),
            (Some(path), None) => Address::Unix(path.to_owned()),
            (None, Some(host)) => {
                let port = find("port").map(port).transpose()?.unwrap_or(PORT);
                Address::Inet { host: host.to_owned(), port }
            }
        };
        let export = find("export").unwrap_or_default().to_owned();
        Target { address, export }.checked()
    }

    /// The options that mean the same.
    pub fn options(&self) -> Vec<(&'static str, String)> {
        let mut options = match &self.address {
            Address::Inet { host, port } => {
                vec![("host", host.clone()), ("port", port.to_string())]
            }
            Address::Unix(path) => vec![("path", path.clone())],
        };
        if !self.export.is_empty() {
            options.push(("export", self.export.clone()));
        }
        options
    }

    fn checked(self) -> Result<Target, BadTarget> {
        if self.export.len() > MAX_STRING {
            return Err(bad("export name too long to send to server"));
        }
        match &self.address {
            Address::Unix(path) if path.is_empty() => Err(bad("the path of the socket is empty")),
            _ => Ok(self),
        }
    }
}

/// That there is no TLS.
pub fn no_tls() -> BadTarget {
    bad("TLS is not supported for NBD")
}

/// As a URI.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Inet { host, port } => {
                f.write_str("nbd://")?;
                match host.contains(':') {
                    true => write!(f, "[{host}]:{port}")?,
                    false => write!(f, "{host}:{port}")?,
                }
                if !self.export.is_empty() {
                    write!(f, "/{}", self.export)?;
                }
                Ok(())
            }
            Address::Unix(path) => write!(f, "nbd+unix:///{}?socket={path}", self.export),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => f.write_str(path),
        }
    }
}

fn port(text: &str) -> Result<u16, BadTarget> {
    text.parse().map_err(|_| bad(format!("'{text}' is no port number")))
}

/// `HOST:PORT`, `[ADDRESS]:PORT`; without a port where there is one to fall back on.
fn inet(text: &str, fallback: Option<u16>) -> Result<Address, BadTarget> {
    let (host, rest) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => match text.split_once(':') {
            Some((host, rest)) => (host, Some(rest)),
            None => (text, None),
        },
    };
    let host = if host.is_empty() { "localhost" } else { host };
    let port = match (rest, fallback) {
        (Some(text), _) => port(text)?,
        (None, Some(fallback)) => fallback,
        (None, None) => return Err(bad(format!("the port is missing in '{text}'"))),
    };
    Ok(Address::Inet { host: host.to_owned(), port })
}

/// Takes the `%XX` out of a part of a URI.
fn decode(text: &str) -> Result<String, BadTarget> {
    let wrong = || bad(format!("'{text}' is not valid in a URI"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(wrong()) };
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| wrong())?);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

impl Address {
    /// Connects to it. Does not wait for ever only if the caller sees to it.
    ///
    /// # Errors
    /// With the text for users.
    pub async fn connect(&self, local: &Local) -> io::Result<OwnedFd> {
        let failed = |error: io::Error| {
            let text = crate::host::errno_text(&error);
            io::Error::new(error.kind(), format!("Failed to connect to '{self}': {text}"))
        };
        match self {
            Address::Unix(path) => {
                let address = SocketAddrUnix::new(path).map_err(|error| failed(error.into()))?;
                reach(local, AddressFamily::UNIX, &address).await.map_err(failed)
            }
            Address::Inet { .. } => {
                let mut last = io::ErrorKind::NotFound.into();
                for address in self.look_up(local).await? {
                    match reach(local, family(&address), &address).await {
                        Ok(socket) => return Ok(socket),
                        Err(error) => last = error,
                    }
                }
                Err(failed(last))
            }
        }
    }

    async fn look_up(&self, local: &Local) -> io::Result<Vec<SocketAddr>> {
        let Address::Inet { host, port } = self.clone() else { return Ok(Vec::new()) };
        local.pool(move || look_up(&host, port)).await?
    }
}

fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found = (host, port).to_socket_addrs().map_err(|error| {
        let text = crate::host::errno_text(&error);
        let text = text.rsplit(": ").next().unwrap_or_default().to_owned();
        io::Error::other(format!("address resolution failed for {host}:{port}: {text}"))
    })?;
    Ok(found.collect())
}

fn family(address: &SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

async fn reach(
    local: &Local,
    family: AddressFamily,
    address: &impl rustix::net::addr::SocketAddrArg,
) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    loop {
        match connect(&socket, address) {
            Ok(()) => return Ok(socket),
            Err(rustix::io::Errno::INPROGRESS) => break,
            // The queue of a listening unix socket is full.
            Err(rustix::io::Errno::AGAIN) => local.sleep(Duration::from_millis(20)).await,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let watch = local.watch(socket.as_fd())?;
    watch.writable().await;
    drop(watch);
    match sockopt::socket_error(&socket)? {
        Ok(()) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// A socket that listens, and where.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub fd: OwnedFd,
    /// Its address; with the port that was found.
    pub address: Address,
}

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 32;

impl Address {
    /// Listens there; `to` is the last port that is tried. A socket that is at the
    /// path already is unlinked. May block on the look-up of a name.
    ///
    /// # Errors
    /// With the text for users.
    pub fn listen(
        &self,
        to: Option<u16>,
        allowed: impl Fn(&SocketAddr) -> bool,
    ) -> io::Result<Listener> {
        let because = |what: &str, error: rustix::io::Errno| {
            let error = io::Error::from(error);
            let text = crate::host::errno_text(&error);
            io::Error::new(error.kind(), format!("Failed to {what}: {text}"))
        };
        let create = |family| {
            socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .map_err(|error| because("create socket", error))
        };
        let begin = |fd| match listen(&fd, BACKLOG) {
            Ok(()) => Ok(fd),
            Err(error) => Err(because("set socket to listening mode", error)),
        };
        let (host, first) = match self {
            Address::Unix(path) => {
                let fd = create(AddressFamily::UNIX)?;
                let place = SocketAddrUnix::new(path).map_err(|e| because("bind socket", e))?;
                // What a server left behind; anything else is somebody's file.
                let left =
                    rustix::fs::lstat(path).map(|stat| FileType::from_raw_mode(stat.st_mode));
                if left == Ok(FileType::Socket) {
                    let _ = rustix::fs::unlink(path);
                }
                bind(&fd, &place).map_err(|error| because("bind socket", error))?;
                return Ok(Listener { fd: begin(fd)?, address: self.clone() });
            }
            Address::Inet { host, port } => (host, *port),
        };
        let mut last = io::Error::other(format!(
            "address resolution failed for {host}:{first}: no address of the kind asked for"
        ));
        for mut place in look_up(if host.is_empty() { "::" } else { host }, first)?
            .into_iter()
            .chain(host.is_empty().then(|| SocketAddr::from(([0, 0, 0, 0], first))))
            .filter(|place| allowed(place))
        {
            for port in first..=to.unwrap_or(first).max(first) {
                place.set_port(port);
                let fd = match create(family(&place)) {
                    Ok(fd) => fd,
                    Err(error) => {
                        last = error;
                        break;
                    }
                };
                let _ = sockopt::set_socket_reuseaddr(&fd, true);
                match bind(&fd, &place) {
                    Ok(()) => {
                        let port = match rustix::net::getsockname(&fd).map(SocketAddr::try_from) {
                            Ok(Ok(bound)) => bound.port(),
                            _ => port,
                        };
                        let address = Address::Inet { host: host.clone(), port };
                        return Ok(Listener { fd: begin(fd)?, address });
                    }
                    Err(error) => last = because("bind socket", error),
                }
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(path: &str, export: &str) -> Target {
        Target { address: Address::Unix(path.into()), export: export.into() }
    }

    fn tcp(host: &str, port: u16, export: &str) -> Target {
        Target { address: Address::Inet { host: host.into(), port }, export: export.into() }
    }

    #[test]
    fn names_mean_servers() {
        let parse = |name: &str| Target::parse(name).unwrap();
        assert_eq!(parse("nbd:host:7"), tcp("host", 7, ""));
        assert_eq!(parse("nbd:[::1]:7:exportname=a:b"), tcp("::1", 7, "a:b"));
        assert_eq!(parse("nbd:unix:/a/b:exportname=x"), unix("/a/b", "x"));
        assert_eq!(parse("nbd:unix:/a/b"), unix("/a/b", ""));
        assert_eq!(parse("nbd://host"), tcp("host", 10809, ""));
        assert_eq!(parse("nbd://[::1]:9/a%20b/c"), tcp("::1", 9, "a b/c"));
        assert_eq!(parse("nbd+tcp://host/"), tcp("host", 10809, ""));
        assert_eq!(parse("nbd+unix:///x?socket=/a%2fb"), unix("/a/b", "x"));
        for name in [
            "nbd:",
            "nbd:host",
            "nbd:host:x",
            "nbd:host:70000",
            "nbd:unix:",
            "nbds://host",
            "nbd+unix:///x",
            "nbd+unix://host/x?socket=/a",
            "nbd://host?socket=/a",
            "nbd://%zz",
            "nbd+udp://host",
            "nbd://%ff",
            "other",
        ] {
            assert!(Target::parse(name).is_err(), "{name}");
        }
    }

    #[test]
    fn options_mean_servers() {
        let with = |options: &[(&'static str, &'static str)]| {
            Target::from_options(|key| options.iter().find(|(k, _)| *k == key).map(|(_, v)| *v))
        };
        let text = |options: &[_]| with(options).unwrap_err().to_string();
        assert_eq!(with(&[("host", "h"), ("port", "5")]).unwrap(), tcp("h", 5, ""));
        assert_eq!(with(&[("path", "/p"), ("export", "e")]).unwrap(), unix("/p", "e"));
        assert_eq!(text(&[]), "one of path and host must be specified.");
        let both = [("path", "/p"), ("host", "h")];
        assert_eq!(text(&both), "path and host may not be used at the same time.");
        for target in [tcp("h", 5, "e"), unix("/p", ""), tcp("::1", 1, "")] {
            let options = target.options();
            let find = |key: &str| options.iter().find(|(k, _)| *k == key).map(|(_, v)| &v[..]);
            assert_eq!(Target::from_options(find), Ok(target.clone()));
            assert_eq!(Target::parse(&target.to_string()), Ok(target));
        }
    }
}
