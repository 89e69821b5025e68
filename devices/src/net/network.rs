//! Who is on the network: netdevs and NICs by name, and their links.
//!
//! The main thread adds, removes and asks; a NIC's loop reads its flags. Lock: one leaf mutex
//! around the lists, not held while a NIC or a back end is called.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::backend::{Backend, Setup};
use super::mac::Mac;
use super::port::{Cable, Link};
use crate::virtio::net::filter::Filter;

/// Why a NIC is not plugged in, or a netdev not to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// There is no such netdev.
    #[error("Device '{0}' not found")]
    NotFound(String),
    /// A NIC has it.
    #[error("Device '{0}' is in use")]
    InUse(String),
    /// Two with one name.
    #[error("Duplicate ID '{0}' for netdev")]
    Duplicate(String),
    /// It came with `-net`.
    #[error("Device '{0}' is not a netdev")]
    NotNetdev(String),
    /// More than a machine can have.
    #[error("no more network devices can be made")]
    TooMany,
}

/// The most netdevs, and the most NICs.
const MOST: usize = 4096;

/// A back end with a name.
pub struct Netdev {
    id: String,
    kind: &'static str,
    legacy: bool,
    backend: Box<dyn Backend>,
    pub(super) link: Arc<Link>,
    used: AtomicBool,
}

impl fmt::Debug for Netdev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Netdev({} {})", self.kind, self.id)
    }
}

impl Netdev {
    /// Gives a back end a name; `kind` is the word for its type.
    pub fn new(id: &str, kind: &'static str, backend: Box<dyn Backend>) -> Arc<Netdev> {
        Netdev::make(id, kind, backend, false)
    }

    /// As [`new`](Self::new), for one that `-net` makes and netdev_del does not know.
    pub fn legacy(id: &str, kind: &'static str, backend: Box<dyn Backend>) -> Arc<Netdev> {
        Netdev::make(id, kind, backend, true)
    }

    fn make(id: &str, kind: &'static str, backend: Box<dyn Backend>, legacy: bool) -> Arc<Netdev> {
        let (link, used) = (Arc::new(Link::new()), AtomicBool::new(false));
        Arc::new(Netdev { id: id.to_owned(), kind, legacy, backend, link, used })
    }

    /// Whether `-net` made it.
    pub fn is_legacy(&self) -> bool {
        self.legacy
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The word for its type.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// What does its work.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Whether something is plugged into it.
    pub fn is_used(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }

    /// Its own link flag.
    pub fn link_up(&self) -> bool {
        self.link.up.load(Ordering::Acquire)
    }

    fn set_link(&self, up: bool) {
        self.link.up.store(up, Ordering::Release);
        self.link.changed();
    }

    /// Makes the caller its one user; plain frames until it says otherwise.
    pub(super) fn claim(&self) -> Result<(), NetError> {
        if self.used.swap(true, Ordering::AcqRel) {
            return Err(NetError::InUse(self.id.clone()));
        }
        if let Err(error) = self.backend.configure(Setup::default()) {
            tracing::warn!("netdev '{}': {error}", self.id);
        }
        self.backend.plugged();
        Ok(())
    }

    pub(super) fn release(&self) {
        self.backend.unplugged();
        self.used.store(false, Ordering::Release);
    }

    /// Ends it: whoever is plugged in has nobody on the other side any more.
    pub fn close(&self) {
        self.link.gone.store(true, Ordering::Release);
        self.link.changed();
        self.backend.close();
    }
}

/// What a NIC is told. Called on any thread, with no lock of the network held.
pub trait Nic: Send + Sync {
    /// The guest is to see another state of the link.
    fn link_changed(&self, up: bool);
    /// What its guest wants to receive, if it has a filter; whoever asks is told of the next
    /// change.
    fn rx_filter(&self) -> Option<Filter> {
        None
    }
    /// The NIC's place in the tree of objects, if its filter has changed and nobody was told yet.
    fn take_filter_change(&self) -> Option<String> {
        None
    }
}

/// A NIC on the network, seen from outside.
pub struct NicEntry {
    name: String,
    model: &'static str,
    mac: Mutex<Mac>,
    up: AtomicBool,
    front: Option<Arc<dyn Nic>>,
    netdev: Option<Arc<Netdev>>,
}

impl fmt::Debug for NicEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NicEntry({})", self.name)
    }
}

impl NicEntry {
    /// The name that commands know it by: its id, or `MODEL.NUMBER`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its class.
    pub fn model(&self) -> &'static str {
        self.model
    }

    /// Its address at present.
    pub fn mac(&self) -> Mac {
        *self.mac.lock()
    }

    /// The guest gave it another address.
    pub fn set_mac(&self, mac: Mac) {
        *self.mac.lock() = mac;
    }

    /// Whether the guest is to see a link.
    pub fn link_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// The link was like this when the state of its device was saved. The guest knows.
    pub fn load_link(&self, up: bool) {
        self.up.store(up, Ordering::Release);
        if let Some(netdev) = &self.netdev {
            netdev.link.changed();
        }
    }

    /// The device itself.
    pub fn front(&self) -> Option<&Arc<dyn Nic>> {
        self.front.as_ref()
    }

    /// What it is plugged into.
    pub fn netdev(&self) -> Option<&Arc<Netdev>> {
        self.netdev.as_ref()
    }

    fn set_link(&self, up: bool) {
        if self.up.swap(up, Ordering::AcqRel) == up {
            return;
        }
        if let Some(netdev) = &self.netdev {
            netdev.link.changed();
        }
        if let Some(front) = &self.front {
            front.link_changed(up);
        }
    }
}

/// A NIC that is to be plugged in.
pub struct NicSpec<'a> {
    /// Its id, if it has one.
    pub id: Option<&'a str>,
    /// The name of its class.
    pub model: &'static str,
    /// Its address; the next free one of the machine's, if it has none.
    pub mac: Option<Mac>,
    /// The netdev at the other end of its cable.
    pub netdev: Option<Arc<Netdev>>,
    /// What is told of its link.
    pub front: Arc<dyn Nic>,
}

/// Something with a name on the network.
#[derive(Clone, Debug)]
pub enum Client {
    /// A NIC.
    Nic(Arc<NicEntry>),
    /// A back end.
    Netdev(Arc<Netdev>),
}

/// Everybody on the network of a machine.
#[derive(Debug, Default)]
pub struct Network {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    netdevs: Vec<Arc<Netdev>>,
    nics: Vec<Arc<NicEntry>>,
    /// How many NICs were given an address.
    addresses: u8,
}

impl Network {
    /// Nobody yet.
    pub fn new() -> Arc<Network> {
        Arc::default()
    }

    /// Adds a netdev.
    ///
    /// # Errors
    /// There is one of that name; there are too many.
    pub fn add(&self, netdev: Arc<Netdev>) -> Result<(), NetError> {
        let mut state = self.state.lock();
        if state.netdevs.iter().any(|other| other.id == netdev.id) {
            return Err(NetError::Duplicate(netdev.id.clone()));
        }
        if state.netdevs.len() >= MOST {
            return Err(NetError::TooMany);
        }
        state.netdevs.push(netdev);
        Ok(())
    }

    /// A netdev by its name.
    pub fn find(&self, id: &str) -> Option<Arc<Netdev>> {
        self.state.lock().netdevs.iter().find(|netdev| netdev.id == id).cloned()
    }

    /// Removes a netdev. A NIC that is plugged in stays, with its link down for good.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn remove(&self, id: &str) -> Result<(), NetError> {
        let (netdev, nic) = {
            let mut state = self.state.lock();
            let at = state.netdevs.iter().position(|netdev| netdev.id == id);
            let Some(at) = at else { return Err(NetError::NotFound(id.to_owned())) };
            let netdev = state.netdevs.remove(at);
            (netdev.clone(), state.nic_of(&netdev))
        };
        netdev.close();
        if let Some(nic) = nic {
            nic.set_link(false);
        }
        Ok(())
    }

    /// All netdevs, oldest first.
    pub fn netdevs(&self) -> Vec<Arc<Netdev>> {
        self.state.lock().netdevs.clone()
    }

    /// All NICs, oldest first.
    pub fn nics(&self) -> Vec<Arc<NicEntry>> {
        self.state.lock().nics.clone()
    }

    /// Whoever has this name, a NIC first.
    pub fn client(&self, name: &str) -> Option<Client> {
        let state = self.state.lock();
        let nic = state.nics.iter().find(|nic| nic.name == name).cloned().map(Client::Nic);
        nic.or_else(|| {
            state.netdevs.iter().find(|netdev| netdev.id == name).cloned().map(Client::Netdev)
        })
    }

    /// Sets the link of a NIC, or of a netdev and the NIC plugged into it.
    ///
    /// # Errors
    /// Nobody has that name.
    pub fn set_link(&self, name: &str, up: bool) -> Result<(), NetError> {
        match self.client(name) {
            Some(Client::Nic(nic)) => nic.set_link(up),
            Some(Client::Netdev(netdev)) => {
                netdev.set_link(up);
                let nic = self.state.lock().nic_of(&netdev);
                if let Some(nic) = nic {
                    nic.set_link(up);
                }
            }
            None => return Err(NetError::NotFound(name.to_owned())),
        }
        Ok(())
    }

    /// Plugs a NIC in.
    ///
    /// # Errors
    /// Its netdev is in use; there are too many NICs.
    pub fn plug(self: &Arc<Self>, spec: NicSpec<'_>) -> Result<Cable, NetError> {
        let mut state = self.state.lock();
        if state.nics.len() >= MOST {
            return Err(NetError::TooMany);
        }
        if let Some(netdev) = &spec.netdev {
            netdev.claim()?;
        }
        let name = match spec.id {
            Some(id) => id.to_owned(),
            None => state.free_name(spec.model),
        };
        let mac = spec.mac.unwrap_or_else(|| state.next_address());
        let nic = Arc::new(NicEntry {
            name,
            model: spec.model,
            mac: Mutex::new(mac),
            up: AtomicBool::new(spec.netdev.as_ref().is_none_or(|netdev| netdev.link_up())),
            front: Some(spec.front),
            netdev: spec.netdev.clone(),
        });
        state.nics.push(nic.clone());
        drop(state);
        Ok(Cable {
            network: self.clone(),
            nic,
            netdev: spec.netdev,
            setup: Mutex::new(Setup::default()),
        })
    }

    /// Plugs a hub into a netdev.
    pub(super) fn attach(self: &Arc<Self>, netdev: &Arc<Netdev>) -> Result<Cable, NetError> {
        netdev.claim()?;
        let nic = NicEntry {
            name: netdev.id.clone(),
            model: "hub",
            mac: Mutex::default(),
            up: AtomicBool::new(true),
            front: None,
            netdev: Some(netdev.clone()),
        };
        Ok(Cable {
            network: self.clone(),
            nic: Arc::new(nic),
            netdev: Some(netdev.clone()),
            setup: Mutex::new(Setup::default()),
        })
    }

    /// The first of `KIND.0`, `KIND.1` and so on that nobody is called.
    pub fn free_netdev_name(&self, kind: &str) -> String {
        let state = self.state.lock();
        let names = (0u32..).map(|number| format!("{kind}.{number}"));
        let mut free = names.filter(|name| state.netdevs.iter().all(|netdev| netdev.id != *name));
        free.next().unwrap_or_default()
    }

    pub(super) fn unplug(&self, nic: &Arc<NicEntry>) {
        self.state.lock().nics.retain(|other| !Arc::ptr_eq(other, nic));
    }
}

impl State {
    fn nic_of(&self, netdev: &Arc<Netdev>) -> Option<Arc<NicEntry>> {
        let has =
            |nic: &&Arc<NicEntry>| nic.netdev.as_ref().is_some_and(|n| Arc::ptr_eq(n, netdev));
        self.nics.iter().find(has).cloned()
    }

    fn free_name(&self, model: &str) -> String {
        let others = self.nics.iter().filter(|nic| nic.model == model).count();
        let names = (others..).map(|number| format!("{model}.{number}"));
        let mut free = names.filter(|name| self.nics.iter().all(|nic| nic.name != *name));
        free.next().unwrap_or_else(|| model.to_owned())
    }

    fn next_address(&mut self) -> Mac {
        let last = 0x56_u8.wrapping_add(self.addresses);
        self.addresses = self.addresses.wrapping_add(1);
        Mac([0x52, 0x54, 0, 0x12, 0x34, last])
    }
}
