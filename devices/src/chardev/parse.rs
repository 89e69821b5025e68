//! Chardevs on the command line: device strings (`unix:/run/x,server=on`) and
//! the options of `-chardev`.
//!
//! Both end in the same table of back ends and keys: a device string is turned
//! into keys and values first.
//!
//! Pure functions: any thread, no lock. The text comes from the command line or a monitor's client;
//! what is wrong is refused by name.

use std::path::PathBuf;
use std::time::Duration;

use resources::nearest::nearest;
use resources::value::{parse_bool, parse_number, parse_size};

use super::{
    Address, Backend, CharError, Console, File, Inet, Msmouse, Null, Parallel, Pipe, Pty, Ringbuf,
    Socket, Stdio, Tty, Udp, Vc,
};

/// What a device string (`-serial`, `-qmp`, `-monitor`) names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// `none`: no device at all.
    None,
    /// `chardev:ID` names one made by `-chardev`.
    Chardev(String),
    /// A new chardev. With `monitor` (`mon:...`) it is shared with a human
    /// monitor through a [`Mux`](super::Mux).
    New {
        /// What it is connected to.
        backend: Backend,
        /// Shared with a human monitor.
        monitor: bool,
    },
}

/// What `-chardev` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The chardev's name.
    pub id: String,
    /// What it is connected to.
    pub backend: Backend,
    /// Whether several front ends share it (`mux=on`).
    pub mux: bool,
}

/// One kind of back end: its names and keys.
struct Kind {
    name: &'static str,
    keys: &'static [&'static str],
    make: fn(&Keys<'_>) -> Result<Backend, CharError>,
}

/// Keys every kind has.
const COMMON: &[&str] = &["backend", "id", "mux"];

const KINDS: &[Kind] = &[
    Kind { name: "null", keys: &[], make: |_| Ok(Backend::Null(Null)) },
    Kind { name: "file", keys: &["path", "append", "input-path"], make: file },
    Kind { name: "pipe", keys: &["path"], make: pipe },
    Kind { name: "stdio", keys: &["signal"], make: stdio },
    Kind { name: "console", keys: &[], make: |_| Ok(Backend::Console(Console)) },
    Kind { name: "pty", keys: &["path"], make: |_| Ok(Backend::Pty(Pty)) },
    Kind { name: "serial", keys: &["path"], make: tty },
    Kind { name: "tty", keys: &["path"], make: tty },
    Kind { name: "parallel", keys: &["path"], make: parallel },
    Kind { name: "parport", keys: &["path"], make: parallel },
    Kind { name: "socket", keys: SOCKET_KEYS, make: socket },
    Kind { name: "udp", keys: UDP_KEYS, make: udp },
    Kind { name: "mux", keys: &["chardev"], make: mux },
    Kind { name: "msmouse", keys: &[], make: |_| Ok(Backend::Msmouse(Msmouse)) },
    Kind { name: "vc", keys: &["width", "height", "cols", "rows"], make: vc },
    Kind { name: "ringbuf", keys: &["size"], make: |keys| ring(keys, false) },
    Kind { name: "memory", keys: &["size"], make: |keys| ring(keys, true) },
];

const UDP_KEYS: &[&str] = &["host", "port", "localaddr", "localport", "ipv4", "ipv6"];

/// The kinds of back ends, as `-chardev` names them.
pub fn backends() -> impl Iterator<Item = &'static str> + Clone {
    KINDS.iter().map(|kind| kind.name)
}

#[rustfmt::skip]
const SOCKET_KEYS: &[&str] = &[
    "path", "host", "port", "to", "ipv4", "ipv6", "server", "wait", "nowait", "nodelay", "delay",
    "telnet", "reconnect", "reconnect-ms",
];

fn error(text: impl Into<String>) -> CharError {
    CharError::Option(text.into())
}

/// `words; did you mean 'x'?`
fn unknown<'a>(
    words: String,
    word: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> CharError {
    match nearest(word, known.clone()) {
        Some(near) => error(format!("{words}; did you mean '{near}'?")),
        None => {
            let known: Vec<_> = known.into_iter().collect();
            error(format!("{words}; there is {}", known.join(", ")))
        }
    }
}

/// The pairs given, and whose they are, for the messages.
struct Keys<'a> {
    whose: &'a str,
    pairs: &'a [(String, String)],
}

impl<'a> Keys<'a> {
    /// The last one given counts.
    fn get(&self, key: &str) -> Option<&'a str> {
        self.pairs.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    fn wrong(&self, why: impl std::fmt::Display) -> CharError {
        error(format!("{}: {why}", self.whose))
    }

    fn switch(&self, key: &str) -> Result<Option<bool>, CharError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match parse_bool(key, value) {
            Ok(on) => Ok(Some(on)),
            Err(why) => Err(self.wrong(format!("{why}, not '{value}'"))),
        }
    }

    fn number(&self, key: &str) -> Result<Option<u64>, CharError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match parse_number(key, value) {
            Ok(number) => Ok(Some(number)),
            Err(why) => Err(self.wrong(format!("{why}, not '{value}'"))),
        }
    }

    fn tcp_port(&self, key: &str) -> Result<Option<u16>, CharError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.parse() {
            Ok(port) => Ok(Some(port)),
            Err(_) => Err(self.wrong(format!("'{key}' expects a port up to 65535, not '{value}'"))),
        }
    }
}

/// Parses the options of `-chardev`, split into keys and values: a key without
/// a value has `on`, and the first word, without a key, has the key `backend`.
///
/// # Errors
/// [`CharError::Option`], naming the option, its value and what is valid.
pub fn parse_options<'a>(
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Options, CharError> {
    let pairs: Vec<_> = pairs.into_iter().map(|(key, value)| pair(key, value)).collect();
    let find = |key: &str| pairs.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    let id = find("id").ok_or_else(|| error("chardev: no id specified"))?;
    resources::value::check_identifier("id", id)
        .map_err(|why| error(format!("chardev: {why}, not '{id}'")))?;
    let kind =
        find("backend").ok_or_else(|| error(format!("chardev: \"{id}\" missing backend")))?;
    let whose = format!("chardev '{id}'");
    let keys = Keys { whose: &whose, pairs: &pairs };
    let backend = make(kind, &keys)?;
    Ok(Options { id: id.to_owned(), mux: keys.switch("mux")?.unwrap_or(false), backend })
}

fn make(kind: &str, keys: &Keys<'_>) -> Result<Backend, CharError> {
    let Some(kind) = KINDS.iter().find(|k| k.name == kind) else {
        let words = format!("chardev: backend \"{kind}\" not found");
        return Err(unknown(words, kind, backends()));
    };
    let known = COMMON.iter().chain(kind.keys).copied();
    for (key, value) in keys.pairs {
        if !known.clone().any(|k| k == key) {
            let words = format!("{} has no option '{key}' (given '{value}')", kind.name);
            return Err(unknown(format!("{}: {words}", keys.whose), key, known));
        }
    }
    (kind.make)(keys)
}

/// The path that a kind cannot do without.
fn path(keys: &Keys<'_>, missing: &str) -> Result<PathBuf, CharError> {
    let path = keys.get("path").filter(|path| !path.is_empty());
    path.map(PathBuf::from).ok_or_else(|| error(missing))
}

fn file(keys: &Keys<'_>) -> Result<Backend, CharError> {
    Ok(Backend::File(File {
        path: path(keys, "chardev: file: no filename given")?,
        append: keys.switch("append")?.unwrap_or(false),
        input: keys.get("input-path").map(PathBuf::from),
    }))
}

fn pipe(keys: &Keys<'_>) -> Result<Backend, CharError> {
    Ok(Backend::Pipe(Pipe { path: path(keys, "chardev: pipe: no filename given")? }))
}

fn tty(keys: &Keys<'_>) -> Result<Backend, CharError> {
    let device = path(keys, "chardev: serial/tty: no device path given")?;
    Ok(Backend::Serial(Tty { device }))
}

fn parallel(keys: &Keys<'_>) -> Result<Backend, CharError> {
    let device = path(keys, "chardev: parallel: no device path given")?;
    Ok(Backend::Parallel(Parallel { device }))
}

fn mux(keys: &Keys<'_>) -> Result<Backend, CharError> {
    let base = keys.get("chardev").ok_or_else(|| error("chardev: mux: no chardev given"))?;
    Ok(Backend::Mux(base.to_owned()))
}

fn vc(keys: &Keys<'_>) -> Result<Backend, CharError> {
    Ok(Backend::Vc(Vc {
        width: keys.number("width")?,
        height: keys.number("height")?,
        cols: keys.number("cols")?,
        rows: keys.number("rows")?,
    }))
}

fn ring(keys: &Keys<'_>, memory: bool) -> Result<Backend, CharError> {
    let size = match keys.get("size") {
        Some(size) => {
            parse_size("size", size).map_err(|why| keys.wrong(format!("{why}, not '{size}'")))?
        }
        None => Ringbuf::default().size,
    };
    Ok(Backend::Ringbuf(Ringbuf { size, memory }))
}

fn udp(keys: &Keys<'_>) -> Result<Backend, CharError> {
    let (ipv4, ipv6) = (keys.switch("ipv4")?, keys.switch("ipv6")?);
    let inet = |host: Option<&str>, port| Inet {
        host: host.unwrap_or_default().to_owned(),
        port,
        to: None,
        ipv4,
        ipv6,
    };
    let port = keys.tcp_port("port")?.filter(|port| *port != 0);
    let port = port.ok_or_else(|| keys.wrong("remote port not specified"))?;
    let (addr, local) = (keys.get("localaddr"), keys.tcp_port("localport")?);
    let local = (addr.is_some() || local.is_some()).then(|| inet(addr, local.unwrap_or(0)));
    Ok(Backend::Udp(Udp { remote: inet(keys.get("host"), port), local }))
}

fn stdio(keys: &Keys<'_>) -> Result<Backend, CharError> {
    Ok(Backend::Stdio(Stdio { signal: keys.switch("signal")?.unwrap_or(true) }))
}

fn socket(keys: &Keys<'_>) -> Result<Backend, CharError> {
    let inet_key =
        ["host", "port", "to", "ipv4", "ipv6"].into_iter().find(|k| keys.get(k).is_some());
    let address = match (keys.get("path"), inet_key) {
        (Some(path), None) if !path.is_empty() => Address::Unix(PathBuf::from(path)),
        (Some(_), None) => return Err(keys.wrong("'path' expects the path of a socket, not ''")),
        (Some(_), Some(key)) => {
            return Err(keys.wrong(format!("'path' and '{key}' do not go together")));
        }
        (None, _) => Address::Inet(Inet {
            host: keys.get("host").unwrap_or_default().to_owned(),
            port: keys
                .tcp_port("port")?
                .ok_or_else(|| keys.wrong("host and/or port not specified"))?,
            to: keys.tcp_port("to")?,
            ipv4: keys.switch("ipv4")?,
            ipv6: keys.switch("ipv6")?,
        }),
    };
    let defaults = Socket::to(address);
    let server = keys.switch("server")?.unwrap_or(false);
    let wait = match (keys.switch("wait")?, keys.switch("nowait")?) {
        (Some(wait), _) => wait,
        (None, Some(nowait)) => !nowait,
        (None, None) => defaults.wait,
    };
    if !server && (keys.get("wait").is_some() && wait) {
        return Err(keys.wrong("'wait' is for a server: add 'server=on'"));
    }
    let nodelay = match (keys.switch("nodelay")?, keys.switch("delay")?) {
        (Some(nodelay), _) => nodelay,
        (None, Some(delay)) => !delay,
        (None, None) => defaults.nodelay,
    };
    let seconds = keys.number("reconnect")?.unwrap_or(0);
    let reconnect = match keys.number("reconnect-ms")? {
        Some(ms) => Duration::from_millis(ms),
        None => Duration::from_secs(seconds),
    };
    if server && !reconnect.is_zero() {
        return Err(keys.wrong("'reconnect' is for a client: it needs 'server=off'"));
    }
    let telnet = keys.switch("telnet")?.unwrap_or(defaults.telnet);
    Ok(Backend::Socket(Socket { server, wait, nodelay, telnet, reconnect, ..defaults }))
}

/// The device strings there are, for the message about others.
#[rustfmt::skip]
const DEVICES: &[&str] = &[
    "none", "null", "stdio", "pty", "file:", "pipe:", "unix:", "tcp:", "telnet:", "udp:", "vc",
    "msmouse", "/dev/", "mon:", "chardev:",
];

/// Parses a device string, given with the option `option` (such as `-serial`,
/// named in errors). With `listen`, as for monitors, a socket is a server that
/// does not wait, unless the string says otherwise.
///
/// # Errors
/// [`CharError::Option`], naming the string and what is valid.
pub fn parse_device(option: &str, text: &str, listen: bool) -> Result<Device, CharError> {
    if text == "none" {
        return Ok(Device::None);
    }
    if let Some(id) = text.strip_prefix("chardev:") {
        return Ok(Device::Chardev(id.to_owned()));
    }
    let (monitor, device) = match text.strip_prefix("mon:") {
        Some(device) => (true, device),
        None => (false, text),
    };
    let whose = format!("{option} {text}");
    let wrong = |why: &str| error(format!("{whose}: {why}"));
    let (kind, rest) = match device.split_once(':') {
        Some((kind, rest)) => (kind, Some(rest)),
        None => (device, None),
    };
    let mut pairs = Vec::new();
    let backend = match (kind, rest) {
        ("null" | "pty" | "msmouse" | "vc", None) => kind,
        ("stdio", None) => {
            // Ctrl-C is for the guest when a monitor offers a way out.
            pairs.push(pair("signal", if monitor { "off" } else { "on" }));
            kind
        }
        ("file" | "pipe", Some(path)) => {
            pairs.push(pair("path", path));
            kind
        }
        ("vc", Some(size)) => {
            let keys = vc_size(size).ok_or_else(|| wrong("expected WIDTHxHEIGHT or 80Cx24C"))?;
            pairs.extend(keys);
            kind
        }
        ("udp", Some(addresses)) => {
            let (remote, local) = match addresses.split_once('@') {
                Some((remote, local)) => (remote, Some(local)),
                None => (addresses, None),
            };
            let part = |address: &str| {
                let parts = host_and_port(address);
                parts.ok_or_else(|| wrong(&format!("'{address}' is not [HOST]:PORT")))
            };
            let (host, port) = part(remote)?;
            pairs.extend([pair("host", &host), pair("port", &port)]);
            if let Some(local) = local {
                let (host, port) = part(local)?;
                pairs.extend([pair("localaddr", &host), pair("localport", &port)]);
            }
            kind
        }
        _ if device.starts_with("/dev/") => {
            pairs.push(pair("path", device));
            if device.starts_with("/dev/parport") { "parallel" } else { "serial" }
        }
        ("unix" | "tcp" | "telnet", Some(rest)) => {
            let mut parts = split_commas(rest).into_iter();
            let address = parts.next().unwrap_or_default();
            if kind == "unix" {
                pairs.push(pair("path", &address));
            } else {
                let (host, port) = host_and_port(&address)
                    .ok_or_else(|| wrong(&format!("'{address}' is not [HOST]:PORT")))?;
                pairs.extend([pair("host", &host), pair("port", &port)]);
            }
            if kind == "telnet" {
                pairs.push(pair("telnet", "on"));
            }
            let given: Vec<_> = parts
                .map(|part| match part.split_once('=') {
                    Some((key, value)) => pair(key, value),
                    None => pair(&part, "on"),
                })
                .collect();
            let is = |k: &str, v: &str| given.iter().any(|(key, value)| key == k && value == v);
            if listen && !is("server", "off") {
                pairs.push(pair("server", "on"));
                pairs.push(pair("nowait", "on"));
            }
            pairs.extend(given);
            "socket"
        }
        _ => {
            let words = format!("{option}: '{text}' is not a device");
            return Err(unknown(words, device, DEVICES.iter().copied()));
        }
    };
    let backend = make(backend, &Keys { whose: &whose, pairs: &pairs })?;
    Ok(Device::New { backend, monitor })
}

/// Splits `[HOST]:PORT`; the brackets of an IPv6 address go.
fn host_and_port(address: &str) -> Option<(String, String)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    Some((host.to_owned(), port.to_owned()))
}

/// The keys for `640x480` (pixels) or `80Cx24C` (characters).
fn vc_size(text: &str) -> Option<[(String, String); 2]> {
    let (x, y) = text.split_once('x')?;
    let key = |text: &str, chars: &str, pixels: &str| match text.strip_suffix('C') {
        Some(number) => pair(chars, number),
        None => pair(pixels, text),
    };
    Some([key(x, "cols", "width"), key(y, "rows", "height")])
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// Splits at commas; two of them are one in the text.
fn split_commas(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == ',' && chars.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

#[cfg(test)]
mod tests;
