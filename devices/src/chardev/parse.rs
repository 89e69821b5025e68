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
use resources::value::{parse_bool, parse_number};

use super::{Address, Backend, CharError, File, Inet, Null, Pty, Socket, Stdio};

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
    Kind { name: "stdio", keys: &["signal"], make: stdio },
    Kind { name: "pty", keys: &["path"], make: |_| Ok(Backend::Pty(Pty)) },
    Kind { name: "socket", keys: SOCKET_KEYS, make: socket },
];

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
        return Err(unknown(words, kind, KINDS.iter().map(|k| k.name)));
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

fn file(keys: &Keys<'_>) -> Result<Backend, CharError> {
    let path = keys
        .get("path")
        .filter(|path| !path.is_empty())
        .ok_or_else(|| error("chardev: file: no filename given"))?;
    Ok(Backend::File(File {
        path: PathBuf::from(path),
        append: keys.switch("append")?.unwrap_or(false),
        input: keys.get("input-path").map(PathBuf::from),
    }))
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
const DEVICES: &[&str] =
    &["none", "null", "stdio", "pty", "file:", "unix:", "tcp:", "telnet:", "mon:", "chardev:"];

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
        ("null" | "pty", None) => kind,
        ("stdio", None) => {
            // Ctrl-C is for the guest when a monitor offers a way out.
            pairs.push(pair("signal", if monitor { "off" } else { "on" }));
            kind
        }
        ("file", Some(path)) => {
            pairs.push(pair("path", path));
            kind
        }
        ("unix" | "tcp" | "telnet", Some(rest)) => {
            let mut parts = split_commas(rest).into_iter();
            let address = parts.next().unwrap_or_default();
            if kind == "unix" {
                pairs.push(pair("path", &address));
            } else {
                let (host, port) = address
                    .rsplit_once(':')
                    .ok_or_else(|| wrong(&format!("'{address}' is not [HOST]:PORT")))?;
                let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
                pairs.push(pair("host", host));
                pairs.push(pair("port", port));
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn device(text: &str) -> Device {
        parse_device("-serial", text, false).unwrap()
    }

    fn backend(text: &str) -> Backend {
        match device(text) {
            Device::New { backend, monitor: false } => backend,
            other => panic!("{other:?}"),
        }
    }

    fn unix(path: &str) -> Address {
        Address::Unix(PathBuf::from(path))
    }

    fn inet(host: &str, port: u16) -> Address {
        Address::Inet(Inet { host: host.to_owned(), port, ..Inet::default() })
    }

    fn options(text: &str) -> Result<Options, CharError> {
        let pairs: Vec<_> = split_commas(text)
            .iter()
            .enumerate()
            .map(|(i, part)| match part.split_once('=') {
                Some((key, value)) => pair(key, value),
                None if i == 0 => pair("backend", part),
                None => pair(part, "on"),
            })
            .collect();
        parse_options(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())))
    }

    #[test]
    fn device_strings() {
        assert_eq!(device("none"), Device::None);
        assert_eq!(device("chardev:x"), Device::Chardev("x".to_owned()));
        assert_eq!(backend("null"), Backend::Null(Null));
        assert_eq!(backend("pty"), Backend::Pty(Pty));
        assert_eq!(backend("stdio"), Backend::Stdio(Stdio { signal: true }));
        assert_eq!(
            device("mon:stdio"),
            Device::New { backend: Backend::Stdio(Stdio { signal: false }), monitor: true }
        );
        let file = File { path: PathBuf::from("/tmp/a,b"), append: false, input: None };
        assert_eq!(backend("file:/tmp/a,b"), Backend::File(file));
        assert_eq!(backend("unix:/x"), Backend::Socket(Socket::to(unix("/x"))));
        let server = Socket { server: true, ..Socket::to(unix("/x,y")) };
        assert_eq!(backend("unix:/x,,y,server"), Backend::Socket(server.clone()));
        assert_eq!(backend("unix:/x,,y,server=on,wait=on"), Backend::Socket(server.clone()));
        let nowait = Backend::Socket(Socket { wait: false, ..server });
        assert_eq!(backend("unix:/x,,y,server,nowait"), nowait);
        assert_eq!(backend("unix:/x,,y,server=on,wait=off"), nowait);
        assert_eq!(backend("tcp::44"), Backend::Socket(Socket::to(inet("", 44))));
        let tcp = Socket { nodelay: true, ..Socket::to(inet("::1", 5)) };
        assert_eq!(backend("tcp:[::1]:5,nodelay"), Backend::Socket(tcp.clone()));
        assert_eq!(backend("tcp:::1:5,delay=off"), Backend::Socket(tcp));
        let telnet = Socket { telnet: true, ..Socket::at(inet("h", 5)) };
        assert_eq!(backend("telnet:h:5,server,nowait"), Backend::Socket(telnet));
    }

    #[test]
    fn monitors_listen_without_waiting() {
        let parse = |text| parse_device("-qmp", text, true).unwrap();
        let new = |s| Device::New { backend: Backend::Socket(s), monitor: false };
        assert_eq!(parse("unix:/x"), new(Socket::at(unix("/x"))));
        assert_eq!(parse("tcp:localhost:1"), new(Socket::at(inet("localhost", 1))));
        assert_eq!(parse("unix:/x,server=off"), new(Socket::to(unix("/x"))));
        assert_eq!(parse("unix:/x,server,nowait"), new(Socket::at(unix("/x"))));
        let waits = Socket { wait: true, ..Socket::at(unix("/x")) };
        assert_eq!(parse("unix:/x,wait=on"), new(waits));
    }

    #[test]
    fn chardev_options() {
        let parsed = options("socket,id=a,host=h,port=1,to=3,ipv4,server=on,wait=off,mux=on");
        let address = Address::Inet(Inet {
            host: "h".to_owned(),
            port: 1,
            to: Some(3),
            ipv4: Some(true),
            ipv6: None,
        });
        let backend = Backend::Socket(Socket::at(address));
        assert_eq!(parsed.unwrap(), Options { id: "a".to_owned(), backend, mux: true });
        let parsed = options("socket,id=a,path=/x,reconnect=2").unwrap();
        let socket = Socket { reconnect: Duration::from_secs(2), ..Socket::to(unix("/x")) };
        assert_eq!(parsed.backend, Backend::Socket(socket));
        let parsed = options("file,id=a,path=p,append=on,input-path=q").unwrap();
        let file = File { path: PathBuf::from("p"), append: true, input: Some(PathBuf::from("q")) };
        assert_eq!(parsed.backend, Backend::File(file));
        let parsed = options("stdio,id=a,signal=off").unwrap();
        assert_eq!(parsed.backend, Backend::Stdio(Stdio { signal: false }));
    }

    #[test]
    fn errors_name_the_option_and_the_nearest() {
        for (text, says) in [
            ("socket,path=/x", "chardev: no id specified"),
            ("null,id=1x", "chardev: Parameter 'id' expects an identifier, not '1x'"),
            ("id=a,mux=on", "chardev: \"a\" missing backend"),
            ("sockt,id=a", "chardev: backend \"sockt\" not found; did you mean 'socket'?"),
            (
                "socket,id=a,pth=/x",
                "chardev 'a': socket has no option 'pth' (given '/x'); did you mean 'path'?",
            ),
            (
                "socket,id=a,path=/x,server=maybe",
                "chardev 'a': Parameter 'server' expects 'on' or 'off', not 'maybe'",
            ),
            ("socket,id=a,host=h", "chardev 'a': host and/or port not specified"),
            ("socket,id=a,path=/x,port=1", "chardev 'a': 'path' and 'port' do not go together"),
            (
                "socket,id=a,port=65536",
                "chardev 'a': 'port' expects a port up to 65535, not '65536'",
            ),
            (
                "socket,id=a,path=/x,reconnect=1,server",
                "chardev 'a': 'reconnect' is for a client: it needs 'server=off'",
            ),
            ("file,id=a", "chardev: file: no filename given"),
        ] {
            assert_eq!(options(text).unwrap_err().to_string(), says, "{text}");
        }
        for (text, says) in [
            ("stdoi", "-serial: 'stdoi' is not a device; did you mean 'stdio'?"),
            ("tcp:80", "-serial tcp:80: '80' is not [HOST]:PORT"),
            ("unix:", "-serial unix:: 'path' expects the path of a socket, not ''"),
        ] {
            assert_eq!(parse_device("-serial", text, false).unwrap_err().to_string(), says);
        }
        let far = parse_device("-serial", "qqqqqqqq", false).unwrap_err().to_string();
        assert!(far.contains("there is none, null, stdio"), "{far}");
    }

    proptest! {
        #[test]
        fn any_device_string_is_survived(text in "(mon:)?(unix|tcp|telnet|file)?:?[ -~]{0,40}") {
            let _ = parse_device("-serial", &text, true);
            let _ = options(&text);
        }
    }
}
