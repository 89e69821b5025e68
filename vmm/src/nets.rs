//! The networks of a machine: what `-netdev`, `-net` and netdev_add make.
//!
//! Main thread. The options are the user's or a client's; what comes over a network is its back
//! end's matter.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use devices::net::{self, NetError, Network, OpenError, TakeFd};
use qmp::{ErrorClass, QmpError};
use resources::iol::Handle;

use crate::cli::add_fd::inherit;
use crate::cli::keyval::Pairs;

/// Network back ends and NICs by name; by default none.
#[derive(Default)]
pub struct Nets {
    network: Arc<Network>,
    /// The loop that back ends work on; none without devices.
    io: Option<Handle>,
}

/// Why there is no such network.
#[derive(Debug, thiserror::Error)]
pub enum NetsError {
    /// A name is taken or unknown.
    #[error(transparent)]
    Net(#[from] NetError),
    /// An option is wrong.
    #[error(transparent)]
    Options(#[from] OpenError),
    /// The host refuses it.
    #[error("{source}")]
    Open {
        /// The word for the type.
        kind: &'static str,
        /// Why.
        source: OpenError,
    },
}

/// What clients are told: of what the host refuses, often no more than that.
impl From<NetsError> for QmpError {
    fn from(error: NetsError) -> QmpError {
        match error {
            NetsError::Net(NetError::NotFound(id)) => {
                let desc = format!("Device '{id}' not found");
                QmpError::new(ErrorClass::DeviceNotFound, desc)
            }
            NetsError::Open { kind, source: OpenError::Failed(why) } => {
                tracing::warn!("netdev {kind}: {why}");
                QmpError::generic(format!("Device '{kind}' could not be initialized"))
            }
            error => QmpError::generic(error.to_string()),
        }
    }
}

/// The back ends there are, as `-netdev help` prints them.
pub fn help_text() -> String {
    let names: String = net::NETDEVS.iter().map(|name| format!("{name}\n")).collect();
    format!("Available netdev backend types:\n{names}")
}

/// Gives the descriptor of an inherited number; names are for clients.
///
/// # Errors
/// When there is none.
pub fn numbered_fd(name: &str) -> Result<OwnedFd, OpenError> {
    if !name.starts_with(|c: char| c.is_ascii_digit()) {
        let text = format!("File descriptor named '{name}' has not been found");
        return Err(OpenError::Host(text));
    }
    inherit(name).ok_or_else(|| OpenError::Host(format!("Invalid file descriptor number '{name}'")))
}

impl Nets {
    /// None yet; they work on the loop `io`.
    pub fn new(io: Handle) -> Nets {
        Nets { network: Network::new(), io: Some(io) }
    }

    /// Where NICs are plugged in.
    pub fn network(&self) -> &Arc<Network> {
        &self.network
    }

    /// Makes what `-netdev` asks for.
    ///
    /// # Errors
    /// An option is wrong, the id is taken, or the host refuses what is needed.
    pub fn add_option(&mut self, pairs: &Pairs) -> Result<(), NetsError> {
        let given: Vec<_> = pairs.iter().collect();
        self.add(&given, &mut numbered_fd)
    }

    /// Makes a netdev from its id, its type and its options; descriptors come from `take_fd`.
    ///
    /// # Errors
    /// As [`add_option`](Self::add_option).
    pub fn add(&mut self, given: &[(&str, &str)], take_fd: TakeFd<'_>) -> Result<(), NetsError> {
        if let Some((_, id)) = given.iter().rev().find(|(key, _)| *key == "id")
            && self.network.find(id).is_some_and(|netdev| !netdev.is_legacy())
        {
            return Err(NetError::Duplicate((*id).to_owned()).into());
        }
        let (id, options) = net::parse_netdev(given)?;
        let kind = options.kind();
        let io = self.io.clone().ok_or(NetError::TooMany)?;
        let netdev =
            options.open(&id, &io, take_fd).map_err(|source| NetsError::Open { kind, source })?;
        Ok(self.network.add(netdev)?)
    }

    /// Removes a netdev. A NIC that is plugged into it stays, without a link.
    ///
    /// # Errors
    /// There is none of that id, or `-net` made it.
    pub fn remove(&mut self, id: &str) -> Result<(), NetsError> {
        match self.network.find(id) {
            Some(netdev) if netdev.is_legacy() => Err(NetError::NotNetdev(id.to_owned()).into()),
            Some(_) => Ok(self.network.remove(id)?),
            None => Err(NetError::NotFound(id.to_owned()).into()),
        }
    }

    /// What `info network` shows.
    pub fn listing(&self) -> String {
        let mut text = String::new();
        let mut line = |prefix: &str, name: &str, queue: u16, kind: &str, info: &str| {
            text.push_str(&format!("{prefix}{name}: index={queue},type={kind},{info}\n"));
        };
        for nic in self.network.nics() {
            let info = format!("model={},macaddr={}", nic.model(), nic.mac());
            let queues = nic.netdev().map_or(1, |netdev| netdev.backend().queues().max(1));
            for queue in 0..queues {
                line("", nic.name(), queue, "nic", &info);
                if let Some(netdev) = nic.netdev() {
                    let info = netdev.backend().info(queue);
                    line(" \\ ", netdev.id(), queue, netdev.kind(), &info);
                }
            }
        }
        for netdev in self.network.netdevs().iter().filter(|netdev| !netdev.is_used()) {
            for queue in 0..netdev.backend().queues().max(1) {
                let info = netdev.backend().info(queue);
                line("", netdev.id(), queue, netdev.kind(), &info);
            }
        }
        text
    }

    /// Ends them all.
    pub fn close(&self) {
        for netdev in self.network.netdevs().iter().rev() {
            netdev.close();
        }
    }
}
