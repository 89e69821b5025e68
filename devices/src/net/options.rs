//! What `-netdev`, `-net` and netdev_add ask for, from keys and values.
//!
//! Pure functions: any thread, no lock. The text comes from the command line or a monitor's client;
//! what is wrong is refused in the words that management software knows. Descriptors are named, and
//! are fetched by the caller's means.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use resources::iol::Handle;
use resources::value::{check_identifier, parse_number, parse_signed, parse_size};

use super::backend::Backend;
use super::bridge::Bridge;
use super::dump::{Dump, DumpOptions, LateClock};
use super::hub::Hubs;
use super::network::Netdev;
use super::socket::Socket;
use super::tap::Tap;
use super::user::User;
use crate::class::FindChardev;

/// Why there is no such back end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// An option is wrong.
    #[error("{0}")]
    Option(String),
    /// The host refused what is needed, in words that clients are told.
    #[error("{0}")]
    Host(String),
    /// Options do not go together, or the host refused what is needed; clients are only told that
    /// the device could not be initialized.
    #[error("{0}")]
    Failed(String),
}

impl OpenError {
    pub(super) fn option(text: impl Into<String>) -> OpenError {
        OpenError::Option(text.into())
    }

    pub(super) fn failed(text: impl Into<String>) -> OpenError {
        OpenError::Failed(text.into())
    }
}

/// Gives the descriptor of a name, or of a number that was inherited, which is then nobody else's.
pub type TakeFd<'a> = &'a mut dyn FnMut(&str) -> Result<OwnedFd, OpenError>;

/// What a back end is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Options {
    /// A TAP interface of the host.
    Tap(Tap),
    /// A TAP interface on a bridge of the host.
    Bridge(Bridge),
    /// A network inside the process.
    User(Box<User>),
    /// Another machine's network.
    Socket(Socket),
    /// A port of the hub of this number.
    Hubport(i32),
}

/// The types there are words for, in the schema's order.
const TYPES: [&str; 10] =
    ["none", "nic", "user", "tap", "socket", "vde", "dump", "bridge", "hubport", "netmap"];

/// The types of netdevs that can be made, sorted.
pub const NETDEVS: [&str; 5] = ["bridge", "hubport", "socket", "tap", "user"];

/// The keys that are not the back end's.
const RESERVED: [&str; 2] = ["type", "id"];

impl Options {
    /// The word for the type.
    pub fn kind(&self) -> &'static str {
        match self {
            Options::Tap(_) => "tap",
            Options::Bridge(_) => "bridge",
            Options::User(_) => "user",
            Options::Socket(_) => "socket",
            Options::Hubport(_) => "hubport",
        }
    }
}

/// What back ends are made with.
pub struct Means<'a> {
    /// The loop on which they do what they do by themselves.
    pub on: &'a Handle,
    /// The hubs.
    pub hubs: &'a Hubs,
    /// Where descriptors come from.
    pub take_fd: TakeFd<'a>,
    /// Finds character devices.
    pub chardevs: Option<&'a FindChardev>,
}

impl Options {
    /// Makes the back end; `legacy`: for `-net`.
    ///
    /// # Errors
    /// Options do not go together, or the host refuses what is needed.
    pub fn open(&self, id: &str, legacy: bool, means: Means<'_>) -> Result<Arc<Netdev>, OpenError> {
        let make = if legacy { Netdev::legacy } else { Netdev::new };
        let backend: Box<dyn Backend> = match self {
            Options::Tap(tap) => Box::new(tap.open(means.take_fd)?),
            Options::Bridge(bridge) => Box::new(bridge.open()?),
            Options::User(user) => Box::new(user.open(means.on, means.chardevs)?),
            Options::Socket(socket) => socket.open(means.on, means.take_fd)?,
            Options::Hubport(hub) => {
                let (_, end) = means.hubs.port(*hub, Some(id), means.on);
                let tell = end.naming();
                let netdev = make(id, self.kind(), Box::new(end));
                tell(&netdev);
                return Ok(netdev);
            }
        };
        Ok(make(id, self.kind(), backend))
    }
}

/// What `-net` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyNet {
    /// The hub to join.
    pub hub: i32,
    /// Its name.
    pub name: Option<String>,
    /// What it is.
    pub what: What,
}

/// What joins a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A back end.
    Netdev(Options),
    /// A record.
    Dump(DumpOptions),
    /// A NIC.
    Nic(LegacyNic),
}

/// A NIC of `-net nic`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LegacyNic {
    /// The netdev to plug it into, instead of the hub.
    pub netdev: Option<String>,
    /// Its address.
    pub macaddr: Option<String>,
    /// What it is.
    pub model: Option<String>,
    /// Its place on the PCI bus.
    pub addr: Option<String>,
    /// Its MSI-X vectors.
    pub vectors: Option<String>,
}

impl DumpOptions {
    /// Begins the record, on a hub.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open(
        &self,
        (name, hub): (&str, i32),
        clock: &LateClock,
        hubs: &Hubs,
        on: &Handle,
    ) -> Result<(), OpenError> {
        let dump = Dump::open(self, name, hub, clock.clone())?;
        hubs.record(hub, Arc::new(dump), on);
        Ok(())
    }
}

/// Makes a port of a hub for a NIC, as a netdev that `-net` made.
pub fn port_for_nic(hub: i32, hubs: &Hubs, on: &Handle) -> Arc<Netdev> {
    let (name, end) = hubs.port(hub, None, on);
    let tell = end.naming();
    let netdev = Netdev::legacy(&name, "hubport", Box::new(end));
    tell(&netdev);
    netdev
}

/// Parses what `-net` is given.
///
/// # Errors
/// [`OpenError::Option`] for the first thing that is wrong.
pub fn parse_net(pairs: &[(&str, &str)]) -> Result<LegacyNet, OpenError> {
    let mut keys = Keys::new(pairs);
    let id = keys.text("id");
    if let Some(id) = id {
        check_identifier("id", id).map_err(|error| OpenError::option(error.to_string()))?;
    }
    let name = keys.text("name").or(id).map(str::to_owned);
    let hub = keys.signed("vlan")?.unwrap_or(0);
    let kind = keys.text("type").ok_or_else(|| missing("type"))?;
    let no_net = || OpenError::option("Parameter 'type' expects a net type");
    let what = match kind {
        "nic" => What::Nic(LegacyNic {
            netdev: keys.owned("netdev"),
            macaddr: keys.owned("macaddr"),
            model: keys.owned("model"),
            addr: keys.owned("addr"),
            vectors: keys.number("vectors", u32::MAX.into(), "uint32_t")?.map(|n| n.to_string()),
        }),
        "dump" => What::Dump(DumpOptions::parse(&mut keys)?),
        "hubport" | "none" => return Err(no_net()),
        kind if !TYPES.contains(&kind) => return Err(unknown(kind)),
        kind => What::Netdev(keys.options(kind)?.ok_or_else(no_net)?),
    };
    keys.finish()?;
    if let What::Netdev(Options::Tap(Tap { queues, fds, vhostfds, .. })) = &what
        && (queues.is_some() || fds.is_some() || vhostfds.is_some())
    {
        return Err(OpenError::failed(
            "a tap with several queues is no part of a hub: use -netdev",
        ));
    }
    Ok(LegacyNet { hub, name, what })
}

/// Parses what `-netdev` and netdev_add are given: the id and the rest.
///
/// # Errors
/// [`OpenError::Option`] for the first thing that is wrong.
pub fn parse_netdev(pairs: &[(&str, &str)]) -> Result<(String, Options), OpenError> {
    let mut keys = Keys::new(pairs);
    let id = keys.text("id");
    if let Some(id) = id {
        check_identifier("id", id).map_err(|error| OpenError::option(error.to_string()))?;
    }
    let id = id.ok_or_else(|| missing("id"))?.to_owned();
    let kind = keys.text("type").ok_or_else(|| missing("type"))?;
    if !TYPES.contains(&kind) {
        return Err(unknown(kind));
    }
    let options = keys.options(kind)?;
    keys.finish()?;
    let no_netdev = || OpenError::option("Parameter 'type' expects a netdev backend type");
    Ok((id, options.ok_or_else(no_netdev)?))
}

fn missing(key: &str) -> OpenError {
    OpenError::Option(format!("Parameter '{key}' is missing"))
}

fn unknown(word: &str) -> OpenError {
    OpenError::Option(format!("Invalid parameter '{word}'"))
}

/// What was given, and which of it was asked for.
pub(super) struct Keys<'a> {
    pairs: &'a [(&'a str, &'a str)],
    used: Vec<&'static str>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(pairs: &'a [(&'a str, &'a str)]) -> Keys<'a> {
        Keys { pairs, used: RESERVED.to_vec() }
    }

    fn options(&mut self, kind: &str) -> Result<Option<Options>, OpenError> {
        Ok(match kind {
            "tap" => Some(Options::Tap(Tap::parse(self)?)),
            "bridge" => Some(Options::Bridge(Bridge::parse(self))),
            "user" => Some(Options::User(Box::new(User::parse(self)?))),
            "socket" => Some(Options::Socket(Socket::parse(self))),
            "hubport" => {
                let id = self.signed("hubid")?.ok_or_else(|| missing("hubid"))?;
                Some(Options::Hubport(id))
            }
            "vde" => {
                for key in ["sock", "group"] {
                    self.text(key);
                }
                for key in ["port", "mode"] {
                    self.number(key, u16::MAX.into(), "uint16_t")?;
                }
                None
            }
            "netmap" => {
                self.text("ifname").ok_or_else(|| missing("ifname"))?;
                self.text("devname");
                None
            }
            _ => None,
        })
    }

    /// The value of a key; the last one given counts.
    pub(super) fn text(&mut self, key: &'static str) -> Option<&'a str> {
        self.used.push(key);
        self.pairs.iter().rev().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }

    /// All values of a key that may come several times.
    pub(super) fn texts(&mut self, key: &'static str) -> Vec<String> {
        self.used.push(key);
        let all = self.pairs.iter().filter(|(name, _)| *name == key);
        all.map(|(_, value)| (*value).to_owned()).collect()
    }

    pub(super) fn owned(&mut self, key: &'static str) -> Option<String> {
        self.text(key).map(str::to_owned)
    }

    pub(super) fn switch(&mut self, key: &'static str) -> Result<Option<bool>, OpenError> {
        match self.text(key) {
            None => Ok(None),
            Some("on" | "yes" | "y") => Ok(Some(true)),
            Some("off" | "no" | "n") => Ok(Some(false)),
            Some(_) => {
                Err(OpenError::Option(format!("Parameter '{key}' expects on|yes|y|off|no|n")))
            }
        }
    }

    pub(super) fn size(&mut self, key: &'static str) -> Result<Option<u64>, OpenError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let size = parse_size(key, text).ok().filter(|size| i64::try_from(*size).is_ok());
        size.map(Some).ok_or_else(|| {
            // Misspelt as ever.
            let what = "a size value representible as a non-negative int64";
            OpenError::Option(format!("Parameter '{key}' expects {what}"))
        })
    }

    pub(super) fn number(
        &mut self,
        key: &'static str,
        most: u64,
        width: &str,
    ) -> Result<Option<u64>, OpenError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let expects = |what: &str| OpenError::Option(format!("Parameter '{key}' expects {what}"));
        let number = parse_number(key, text).map_err(|_| expects("a uint64 value"))?;
        if number > most { Err(expects(width)) } else { Ok(Some(number)) }
    }

    fn signed(&mut self, key: &'static str) -> Result<Option<i32>, OpenError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let expects = |what: &str| OpenError::Option(format!("Parameter '{key}' expects {what}"));
        let number = parse_signed(key, text).map_err(|_| expects("an int64 value"))?;
        i32::try_from(number).map(Some).map_err(|_| expects("int32_t"))
    }

    /// Refuses what nobody asked for.
    fn finish(self) -> Result<(), OpenError> {
        match self.pairs.iter().find(|(key, _)| !self.used.contains(key)) {
            Some((key, _)) => Err(unknown(key)),
            None => Ok(()),
        }
    }
}
