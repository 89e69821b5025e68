//! The networks of a machine: what `-netdev`, `-net` and netdev_add make.
//!
//! Main thread. The options are the user's or a client's; what comes over a network is its back
//! end's matter.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use devices::class::FindChardev;
use devices::net::{
    self, Forwards, HubMember, Hubs, LateClock, LegacyNic, Means, NetError, Netdev, Network,
    OpenError, TakeFd, What,
};
use qmp::{ErrorClass, QmpError};
use resources::clock::Clock;
use resources::iol::Handle;

use crate::cli::add_fd::inherit;
use crate::cli::keyval::Pairs;

/// Network back ends and NICs by name; by default none.
#[derive(Default)]
pub struct Nets {
    network: Arc<Network>,
    /// The loop that back ends work on; none without devices.
    io: Option<Handle>,
    hubs: Hubs,
    /// For records; set once there is a machine.
    clock: LateClock,
    /// Finds the character devices that back ends may lead to.
    pub chardevs: Option<FindChardev>,
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
        Nets { io: Some(io), ..Nets::default() }
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

    /// Makes the netdev that `-nic` asks for; returns the device of its NIC, which is still to be
    /// made.
    ///
    /// # Errors
    /// As [`add_option`](Self::add_option); there is no such model.
    pub fn add_nic(&mut self, pairs: &Pairs) -> Result<Pairs, NetsError> {
        let model = pairs.get("model").unwrap_or("virtio");
        if !matches!(model, "virtio" | "virtio-net" | "virtio-net-pci") {
            return Err(unsupported(model));
        }
        let id = match pairs.id() {
            Some(id) => id.to_owned(),
            None => self.network.free_netdev_name("nic"),
        };
        let is_nics = |key: &str| matches!(key, "id" | "model" | "mac" | "addr");
        let mut netdev: Vec<_> = pairs.iter().filter(|(key, _)| !is_nics(key)).collect();
        netdev.push(("id", &id));
        self.add(&netdev, &mut numbered_fd)?;
        let mut nic = Pairs::default();
        nic.push("driver", "virtio-net-pci");
        nic.push("netdev", &id);
        for key in ["mac", "addr"] {
            if let Some(value) = pairs.get(key) {
                nic.push(key, value);
            }
        }
        Ok(nic)
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
        let chardevs = self.chardevs.as_ref();
        let means = Means { on: &io, hubs: &self.hubs, take_fd, chardevs };
        let netdev =
            options.open(&id, false, means).map_err(|source| NetsError::Open { kind, source })?;
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

    /// Makes what `-net` asks for; returns the device of a NIC, which is still to be made.
    ///
    /// # Errors
    /// As [`add_option`](Self::add_option).
    pub fn add_legacy(
        &mut self,
        given: &[(&str, &str)],
        take_fd: TakeFd<'_>,
    ) -> Result<Option<Pairs>, NetsError> {
        let net = net::parse_net(given)?;
        let io = self.io.clone().ok_or(NetError::TooMany)?;
        let named = |kind: &str| match &net.name {
            Some(name) => name.clone(),
            None => self.network.free_netdev_name(kind),
        };
        match &net.what {
            What::Netdev(options) => {
                let kind = options.kind();
                let name = named(kind);
                if self.network.find(&name).is_some() {
                    return Err(NetError::Duplicate(name).into());
                }
                let chardevs = self.chardevs.as_ref();
                let means = Means { on: &io, hubs: &self.hubs, take_fd, chardevs };
                let open = |source| NetsError::Open { kind, source };
                let netdev = options.open(&name, true, means).map_err(open)?;
                self.network.add(netdev.clone())?;
                self.hubs.join(net.hub, &self.network, &netdev, &io)?;
                Ok(None)
            }
            What::Dump(options) => {
                let name = named("dump");
                options
                    .open((&name, net.hub), &self.clock, &self.hubs, &io)
                    .map_err(|source| NetsError::Open { kind: "dump", source })?;
                Ok(None)
            }
            What::Nic(nic) => self.legacy_nic(nic, net.hub, net.name.as_deref(), &io).map(Some),
        }
    }

    fn legacy_nic(
        &self,
        nic: &LegacyNic,
        hub: i32,
        name: Option<&str>,
        io: &Handle,
    ) -> Result<Pairs, NetsError> {
        let model = nic.model.as_deref().unwrap_or(DEFAULT_MODEL);
        if model != "virtio" {
            return Err(unsupported(model));
        }
        let netdev = match &nic.netdev {
            Some(id) => id.clone(),
            None => {
                let port = net::port_for_nic(hub, &self.hubs, io);
                let id = port.id().to_owned();
                self.network.add(port)?;
                id
            }
        };
        let mut pairs = Pairs::default();
        pairs.push("driver", "virtio-net-pci");
        pairs.push("netdev", netdev);
        let rest = [
            ("id", name),
            ("mac", nic.macaddr.as_deref()),
            ("addr", nic.addr.as_deref()),
            ("vectors", nic.vectors.as_deref()),
        ];
        for (key, value) in rest {
            if let Some(value) = value {
                pairs.push(key, value);
            }
        }
        Ok(pairs)
    }

    /// Takes a back end off a hub, and ends it.
    ///
    /// # Errors
    /// There is none of that name there.
    pub fn remove_legacy(&mut self, hub: i32, name: &str) -> Result<(), NetsError> {
        if !self.hubs.leave(hub, name) {
            return Err(NetError::NotFound(name.to_owned()).into());
        }
        match self.network.remove(name) {
            // A record is no netdev.
            Ok(()) | Err(NetError::NotFound(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives records the machine's time.
    pub fn set_clock(&self, clock: &Arc<Clock>) {
        let _ = self.clock.set(clock.clone());
    }

    /// The user-mode network of a hub and a name, or the first one, for rules of forwarding.
    ///
    /// # Errors
    /// There is none.
    pub fn with_forwards<R>(
        &self,
        which: Option<(i32, &str)>,
        work: impl FnOnce(&dyn Forwards) -> R,
    ) -> Result<R, String> {
        let netdev = match which {
            Some((hub, name)) => self.on_hub(hub, name),
            None => {
                let all = self.network.netdevs();
                let found = all.into_iter().find(|netdev| netdev.backend().forwards().is_some());
                return match found.as_ref().and_then(|netdev| netdev.backend().forwards()) {
                    Some(forwards) => Ok(work(forwards)),
                    None => Err("user mode network stack not in use".to_owned()),
                };
            }
        };
        match netdev.as_ref().and_then(|netdev| netdev.backend().forwards()) {
            Some(forwards) => Ok(work(forwards)),
            None => Err("unrecognized (vlan-id, stackname) pair".to_owned()),
        }
    }

    fn on_hub(&self, hub: i32, name: &str) -> Option<Arc<Netdev>> {
        let hubs = self.hubs.list();
        let (_, members) = hubs.into_iter().find(|(id, _)| *id == hub)?;
        members.into_iter().find_map(|member| match member {
            HubMember::Netdev(netdev) if netdev.id() == name => Some(netdev),
            _ => None,
        })
    }

    /// What `info usernet` shows.
    pub fn connections(&self) -> String {
        let hubs = self.hubs.list();
        let hub_of = |netdev: &Arc<Netdev>| {
            let is = |member: &HubMember| matches!(member, HubMember::Netdev(other) if Arc::ptr_eq(other, netdev));
            hubs.iter().find(|(_, members)| members.iter().any(is)).map_or(-1, |(id, _)| *id)
        };
        let mut text = String::new();
        for netdev in self.network.netdevs() {
            if let Some(forwards) = netdev.backend().forwards() {
                let table = forwards.connections();
                let _ = write!(text, "VLAN {} ({}):\n{table}", hub_of(&netdev), netdev.id());
            }
        }
        text
    }

    /// What `info network` shows.
    pub fn listing(&self) -> String {
        let text = RefCell::new(String::new());
        let line = |prefix: &str, name: &str, queue: u16, kind: &str, info: &str| {
            let mut text = text.borrow_mut();
            let _ = writeln!(text, "{prefix}{name}: index={queue},type={kind},{info}");
        };
        let nics = self.network.nics();
        let mut shown: Vec<Arc<Netdev>> = Vec::new();
        for (hub, members) in self.hubs.list() {
            let _ = writeln!(text.borrow_mut(), "hub {hub}");
            for member in members {
                match member {
                    HubMember::Nic(port) => {
                        let at = |nic: &&Arc<net::NicEntry>| {
                            nic.netdev().is_some_and(|netdev| Arc::ptr_eq(netdev, &port))
                        };
                        if let Some(nic) = nics.iter().find(at) {
                            line(" \\ ", nic.name(), 0, "nic", &nic_info(nic));
                        }
                        shown.push(port);
                    }
                    HubMember::Netdev(netdev) => {
                        let info = netdev.backend().info(0);
                        line(" \\ ", netdev.id(), 0, netdev.kind(), &info);
                        shown.push(netdev);
                    }
                    HubMember::Dump { name, info } => line(" \\ ", &name, 0, "dump", &info),
                    HubMember::Nobody(_) => {}
                }
            }
        }
        let is_shown = |netdev: &Arc<Netdev>| shown.iter().any(|other| Arc::ptr_eq(other, netdev));
        for nic in nics.iter().filter(|nic| !nic.netdev().is_some_and(&is_shown)) {
            let queues = nic.netdev().map_or(1, |netdev| netdev.backend().queues().max(1));
            for queue in 0..queues {
                line("", nic.name(), queue, "nic", &nic_info(nic));
                if let Some(netdev) = nic.netdev() {
                    let info = netdev.backend().info(queue);
                    line(" \\ ", netdev.id(), queue, netdev.kind(), &info);
                }
            }
        }
        let free = |netdev: &&Arc<Netdev>| !netdev.is_used() && !is_shown(netdev);
        for netdev in self.network.netdevs().iter().filter(free) {
            // A port of a hub to which nothing is plugged is the hub's.
            if netdev.kind() == "hubport" {
                continue;
            }
            for queue in 0..netdev.backend().queues().max(1) {
                let info = netdev.backend().info(queue);
                line("", netdev.id(), queue, netdev.kind(), &info);
            }
        }
        text.into_inner()
    }

    /// Ends them all.
    pub fn close(&self) {
        for netdev in self.network.netdevs().iter().rev() {
            netdev.close();
        }
    }
}

fn unsupported(model: &str) -> NetsError {
    let text = format!("Unsupported NIC model: {model} (supported: virtio)");
    NetsError::Open { kind: "nic", source: OpenError::Failed(text) }
}

/// What is told of a NIC.
fn nic_info(nic: &net::NicEntry) -> String {
    format!("model={},macaddr={}", nic.model(), nic.mac())
}

/// The model of a NIC of `-net nic`, unless it is said.
const DEFAULT_MODEL: &str = "e1000";
