//! A bus: what is at which address, and how its interrupt pins reach the interrupt controller.
//!
//! Devices are added and taken away by the main thread. Looking up an address takes no lock. The
//! [`Links`], which combine the pins of all functions and lead each to the input that the guest
//! chose, are behind one lock, after every function's and before the interrupt controller's.
//!
//! A hostile guest chooses bus numbers, windows and inputs as it likes: a bus number that two
//! bridges claim leads to the first.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use resources::device::{DeviceCell, DeviceRef};
use resources::irq::{Irq, Wire};

use super::bar::{BarKind, Decoder, Windows};
use super::inspect::FunctionInfo;

/// A function's place on its bus: 32 slots of 8 functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address(u8);

impl Address {
    /// Of a slot, 0 to 31, and a function, 0 to 7; higher bits are cut.
    pub const fn new(slot: u8, function: u8) -> Address {
        Address((slot & 0x1f) << 3 | function & 7)
    }

    /// Of the number that registers hold.
    pub const fn from_devfn(devfn: u8) -> Address {
        Address(devfn)
    }

    /// The number that registers hold.
    pub const fn devfn(self) -> u8 {
        self.0
    }

    /// The slot.
    pub const fn slot(self) -> u8 {
        self.0 >> 3
    }

    /// The function in it.
    pub const fn function(self) -> u8 {
        self.0 & 7
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}.{:x}", self.slot(), self.function())
    }
}

/// What is at an address.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) device: Weak<DeviceCell>,
    pub(super) decoder: Arc<Decoder>,
    /// The name of its class, and its id, for messages.
    pub(super) class: &'static str,
    pub(super) id: Option<String>,
    /// Other functions may be in the same slot.
    pub(super) multifunction: bool,
    /// Its registers as commands show them; nothing once it is gone.
    pub(super) inspect: Arc<dyn Fn() -> Option<FunctionInfo> + Send + Sync>,
}

/// A bus.
pub struct Bus {
    name: String,
    /// The bus above and the bridge's address on it.
    parent: Option<(Arc<Bus>, Address)>,
    links: Arc<Links>,
    places: ArcSwap<BTreeMap<Address, Place>>,
    /// The buses behind bridges on this one.
    children: ArcSwap<Vec<Weak<Bus>>>,
    /// Its number in the low byte, the highest number behind it in the high one.
    numbers: AtomicU16,
    windows: Mutex<Windows>,
}

impl Bus {
    /// The bus behind a host bridge: number 0, everything gets through.
    pub fn root(name: &str, links: &Arc<Links>) -> Arc<Bus> {
        Arc::new(Bus::new(name, None, links, 0xff00))
    }

    /// The bus behind the bridge at `address` of `parent`: nothing gets through, and it has no
    /// number that it answers to.
    pub fn behind(name: &str, parent: &Arc<Bus>, address: Address) -> Arc<Bus> {
        let above = Some((parent.clone(), address));
        let bus = Arc::new(Bus::new(name, above, &parent.links, 0));
        parent.children.rcu(|children| {
            let mut children: Vec<_> = children.iter().cloned().collect();
            children.retain(|child: &Weak<Bus>| child.strong_count() > 0);
            children.push(Arc::downgrade(&bus));
            children
        });
        bus
    }

    fn new(
        name: &str,
        parent: Option<(Arc<Bus>, Address)>,
        links: &Arc<Links>,
        numbers: u16,
    ) -> Bus {
        Bus {
            name: name.to_owned(),
            parent,
            links: links.clone(),
            places: ArcSwap::default(),
            children: ArcSwap::default(),
            numbers: AtomicU16::new(numbers),
            windows: Mutex::default(),
        }
    }

    /// Its name: `pci.0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bridges on the way to it from the root bus.
    pub fn path(&self) -> Vec<Address> {
        let Some((parent, address)) = &self.parent else { return Vec::new() };
        let mut path = parent.path();
        path.push(*address);
        path
    }

    /// Its number.
    pub fn number(&self) -> u8 {
        let [number, _] = self.numbers.load(Ordering::Relaxed).to_le_bytes();
        number
    }

    /// What a bridge's registers say of the bus behind it: its number, the highest number behind
    /// it, and what the bridge lets through.
    pub fn configure(&self, number: u8, subordinate: u8, windows: Windows) {
        self.numbers.store(u16::from_le_bytes([number, subordinate]), Ordering::Relaxed);
        let mut now = self.windows.lock();
        if *now != windows {
            *now = windows;
            drop(now);
            self.refresh();
        }
    }

    /// Maps everything behind a bridge anew.
    fn refresh(&self) {
        self.places.load().values().for_each(|place| place.decoder.refresh());
        self.children.load().iter().filter_map(Weak::upgrade).for_each(|bus| bus.refresh());
    }

    /// Whether the bridges above let a region of this bus through.
    pub(super) fn passes(&self, kind: BarKind, first: u64, last: u64) -> bool {
        match &self.parent {
            None => true,
            Some((parent, _)) => {
                let windows = *self.windows.lock();
                windows.pass(kind, first, last) && parent.passes(kind, first, last)
            }
        }
    }

    /// The bus of this number: this one or one behind it.
    pub(super) fn find(self: &Arc<Self>, number: u8) -> Option<Arc<Bus>> {
        let [own, subordinate] = self.numbers.load(Ordering::Relaxed).to_le_bytes();
        if own == number && (self.parent.is_none() || own != 0) {
            return Some(self.clone());
        }
        if !(own..=subordinate).contains(&number) {
            return None;
        }
        self.children.load().iter().filter_map(Weak::upgrade).find_map(|bus| bus.find(number))
    }

    /// The function at an address.
    pub fn function(&self, address: Address) -> Option<DeviceRef> {
        self.places.load().get(&address)?.device.upgrade()
    }

    /// The bus behind the bridge at an address.
    pub fn child(&self, address: Address) -> Option<Arc<Bus>> {
        let children = self.children.load();
        let behind = |bus: &Arc<Bus>| bus.parent.as_ref().is_some_and(|(_, at)| *at == address);
        children.iter().filter_map(Weak::upgrade).find(behind)
    }

    /// Where a device is, and the name of its class.
    pub fn find_device(&self, device: &DeviceRef) -> Option<(Address, &'static str)> {
        let device = Arc::downgrade(device);
        let places = self.places.load();
        let found = places.iter().find(|(_, place)| place.device.ptr_eq(&device));
        found.map(|(address, place)| (*address, place.class))
    }

    pub(super) fn places(&self) -> Arc<BTreeMap<Address, Place>> {
        self.places.load_full()
    }

    /// The functions on it, by address.
    pub fn functions(&self) -> Vec<(Address, DeviceRef)> {
        let places = self.places.load();
        places.iter().filter_map(|(at, place)| Some((*at, place.device.upgrade()?))).collect()
    }

    /// A pin, 0 to 3 for A to D, of the function at `address`. Each slot turns the pins by one, so
    /// that they are spread over the inputs.
    pub(super) fn pin(&self, address: Address, pin: u8) -> Pin {
        let turned = pin.wrapping_add(address.slot()) & 3;
        match &self.parent {
            Some((parent, bridge)) => parent.pin(*bridge, turned),
            // The first slot begins with the last link.
            None => {
                Pin { links: self.links.clone(), link: turned.wrapping_sub(1) & 3, high: false }
            }
        }
    }

    /// The first slot from `first` on without a function 0.
    pub(super) fn free_slot(&self, first: u8) -> Option<Address> {
        let places = self.places.load();
        (first..32).map(|slot| Address::new(slot, 0)).find(|at| !places.contains_key(at))
    }

    /// Whether a function can go there.
    ///
    /// # Errors
    /// Why not, in QEMU's words.
    pub(super) fn check(
        &self,
        address: Address,
        class: &str,
        multifunction: bool,
    ) -> Result<(), String> {
        let places = self.places.load();
        let (slot, function) = (address.slot(), address.function());
        if let Some(place) = places.get(&address) {
            let user = place.class;
            let id = place.id.as_ref().map(|id| format!(",id={id}")).unwrap_or_default();
            return Err(format!(
                "PCI: slot {slot} function {function} not available for {class}, in use by {user}{id}"
            ));
        }
        if function != 0 {
            return match places.get(&Address::new(slot, 0)) {
                Some(first) if !first.multifunction => Err(format!(
                    "PCI: single function device can't be populated in function {slot:x}.{function:x}"
                )),
                _ => Ok(()),
            };
        }
        let others = (1..8).find(|other| places.contains_key(&Address::new(slot, *other)));
        match others {
            Some(other) if !multifunction => Err(format!(
                "PCI: {slot:x}.0 indicates single function, but {slot:x}.{other:x} is already populated."
            )),
            _ => Ok(()),
        }
    }

    /// Puts a function at its address.
    pub(super) fn insert(&self, address: Address, place: &Place) {
        self.places.rcu(|places| {
            let mut places = BTreeMap::clone(places);
            places.insert(address, place.clone());
            places
        });
    }

    /// Takes a function away.
    pub(super) fn remove(&self, address: Address) {
        self.places.rcu(|places| {
            let mut places = BTreeMap::clone(places);
            places.remove(&address);
            places
        });
    }
}

/// The four interrupt links of a chipset: each combines pins, and leads to the input of the
/// interrupt controller that the guest chose.
pub struct Links {
    wires: Vec<Arc<Wire>>,
    links: Mutex<[Link; 4]>,
}

#[derive(Default)]
struct Link {
    /// How many pins are high.
    high: usize,
    /// Where the link leads.
    input: Irq,
    route: Option<u8>,
}

impl Links {
    /// Links that lead nowhere yet, to any of `wires`.
    pub fn new(wires: &[Arc<Wire>]) -> Arc<Links> {
        Arc::new(Links { wires: wires.to_vec(), links: Mutex::default() })
    }

    /// Leads link `link`, 0 to 3, to the input of this number, or nowhere. `edge`: not while a
    /// state is loaded.
    pub fn route(&self, link: u8, input: Option<u8>, edge: bool) {
        let mut links = self.links.lock();
        if let Some(link) = links.get_mut(usize::from(link))
            && link.route != input
        {
            drive(&link.input, false, edge);
            let wire = input.and_then(|input| self.wires.get(usize::from(input)));
            (link.route, link.input) = (input, wire.map(Wire::line).unwrap_or_default());
            drive(&link.input, link.high > 0, edge);
        }
    }

    fn set(&self, link: u8, high: bool, edge: bool) {
        let mut links = self.links.lock();
        if let Some(link) = links.get_mut(usize::from(link)) {
            let before = link.high > 0;
            // One call for each change of one pin: the count is right.
            link.high =
                if high { link.high.saturating_add(1) } else { link.high.saturating_sub(1) };
            if before != (link.high > 0) {
                drive(&link.input, link.high > 0, edge);
            }
        }
    }
}

fn drive(input: &Irq, high: bool, edge: bool) {
    if edge { input.set(high) } else { input.import(high) }
}

/// A function's connection to its link. Dropping it lets go.
pub struct Pin {
    links: Arc<Links>,
    link: u8,
    high: bool,
}

impl Pin {
    /// Which link it leads to, 0 to 3.
    pub(super) fn link(&self) -> u8 {
        self.link
    }

    pub(super) fn set(&mut self, high: bool, edge: bool) {
        if self.high != high {
            self.high = high;
            self.links.set(self.link, high, edge);
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.set(false, true);
    }
}
