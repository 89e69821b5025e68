//! Each virtio device of the class table, made as a PCI function of a machine that is not there,
//! with a driver that does whatever it is told to.
//!
//! A new class is found by itself; one that needs something to be made with has a row in
//! `GIVEN`. Used by fuzz targets and tests only: one thread drives, one loop for all serves.

use std::sync::{Arc, OnceLock};

use resources::class::Class;
use resources::clock::Clock;
use resources::device::{At, DeviceRef, put_value, value_of};
use resources::ram::{GuestMemory, Ram, RamConfig};
use resources::request::Nobody;
use vm_memory::{Bytes, GuestAddress};

use super::feature;
use crate::class::{CLASSES, Ctx};
use crate::fuzz::board::Board;
use crate::pci::Bus;

#[cfg(test)]
mod tests;

/// What some classes are made with besides their defaults.
const GIVEN: &[(&str, &[(&str, &str)])] = &[
    ("virtio-balloon-pci", &[("free-page-reporting", "on"), ("free-page-hint", "on")]),
    ("virtio-blk-pci", &[("drive", "d0")]),
];

/// RAM in bytes, and where in it rings and buffers are.
const RAM: u64 = 2 << 20;
const RINGS: u64 = 0x1_0000;
const RING: u64 = 0x4000;
const BUFFERS: u64 = 0x10_0000;

/// Entries of each ring, if the device has as many.
const SIZE: u16 = 16;

/// Offsets in BAR 4; see [`super::pci`].
const BAR: u16 = 4;
const CONFIG: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;

/// The virtio classes that a user can make on a PCI bus.
pub fn classes() -> impl Iterator<Item = &'static Class<Ctx>> {
    let is_virtio = |class: &&Class<Ctx>| class.base.iter().any(|prop| prop.name == "packed");
    CLASSES.iter().filter(|class| class.create.is_some()).filter(is_virtio)
}

/// A device and its driver.
pub struct Rig {
    /// The device.
    pub device: DeviceRef,
    /// The RAM it works on.
    pub memory: GuestMemory,
    /// How many queues it has.
    pub queues: u16,
    /// Whether the driver uses packed rings.
    packed: bool,
    /// Chains that were made available, for each queue.
    available: Vec<u16>,
    _bus: Arc<Bus>,
}

impl Rig {
    /// A device of a class, running, without a driver.
    ///
    /// # Errors
    /// Why it cannot be made: it needs what is not there, such as a disk.
    pub fn new(class: &Class<Ctx>) -> Result<Rig, String> {
        let config = RamConfig { size: RAM, ..RamConfig::default() };
        let memory = Ram::new(&config).map_err(|error| error.to_string())?.memory().clone();
        let given = GIVEN.iter().find(|(name, _)| *name == class.name).map(|(_, given)| *given);
        let given = [given.unwrap_or_default(), &[("packed", "on")]].concat();
        let mut board = Board::new(&Clock::new(), Arc::new(Nobody), memory.clone())?;
        let device = board.make(class, &given)?;
        let bus = board.bus;
        device.lock().start();
        let mut rig =
            Rig { device, memory, queues: 0, packed: false, available: Vec::new(), _bus: bus };
        rig.queues = u16::try_from(rig.get(18, 2)).unwrap_or(0);
        Ok(rig)
    }

    /// Reads a register of BAR 4, of at most 8 bytes.
    pub fn get(&self, offset: u64, len: usize) -> u64 {
        let mut data = [0xff; 8];
        let data = data.get_mut(..len).unwrap_or_default();
        self.device.lock().read(At { region: BAR, offset }, data);
        value_of(data)
    }

    /// Writes a register of BAR 4, of at most 8 bytes.
    pub fn set(&self, offset: u64, len: usize, value: u64) {
        let mut data = [0; 8];
        let data = data.get_mut(..len).unwrap_or_default();
        put_value(data, value);
        self.device.lock().write(At { region: BAR, offset }, data);
    }

    /// The device status.
    pub fn status(&self) -> u64 {
        self.get(20, 1)
    }

    fn ring(queue: u16) -> u64 {
        RINGS.saturating_add(RING.saturating_mul(u64::from(queue & 0x1f)))
    }

    /// A driver that takes those of `wish` that are offered, sets all queues up and is ready.
    /// Returns whether the device agreed.
    pub fn driver(&mut self, wish: u64) -> bool {
        self.set(20, 1, 0);
        self.set(20, 1, 3);
        let mut features = 0;
        for half in 0..2_u64 {
            self.set(0, 4, half);
            let offered = self.get(4, 4);
            let bits = half.saturating_mul(32);
            let wish = wish | feature::VERSION_1;
            let taken = offered & (wish >> bits);
            self.set(8, 4, half);
            self.set(12, 4, taken);
            features |= taken << bits;
        }
        self.packed = features & feature::RING_PACKED != 0;
        self.set(20, 1, 0xb);
        if self.status() != 0xb {
            return false;
        }
        for queue in 0..self.queues {
            let base = Self::ring(queue);
            let zeros = [0; 0x4000];
            let _ = self.memory.write_slice(&zeros, GuestAddress(base));
            self.set(22, 2, queue.into());
            let size = self.get(24, 2).min(SIZE.into());
            self.set(24, 2, size);
            self.set(26, 2, u64::from(queue).saturating_add(1));
            self.set(32, 8, base);
            self.set(40, 8, base.saturating_add(0x1000));
            self.set(48, 8, base.saturating_add(0x2000));
            self.set(28, 2, 1);
        }
        self.available = vec![0; usize::from(self.queues)];
        self.set(20, 1, 0xf);
        true
    }

    /// Writes RAM; what is not there is dropped.
    pub fn put(&self, address: u64, data: &[u8]) {
        let _ = self.memory.write(data, GuestAddress(address));
    }

    /// Writes a descriptor of a queue's table.
    pub fn descriptor(&self, queue: u16, slot: u16, address: u64, len: u32, flags: u16, next: u16) {
        let at = Self::ring(queue).saturating_add(u64::from(slot & (SIZE - 1)) << 4);
        self.put(at, &address.to_le_bytes());
        self.put(at.saturating_add(8), &len.to_le_bytes());
        let (third, fourth) = if self.packed { (next, flags) } else { (flags, next) };
        self.put(at.saturating_add(12), &third.to_le_bytes());
        self.put(at.saturating_add(14), &fourth.to_le_bytes());
    }

    /// Makes the chain at a slot available, and kicks. Of packed rings the slot speaks for itself.
    pub fn offer(&mut self, queue: u16, head: u16) {
        if let Some(available) = self.available.get_mut(usize::from(queue)) {
            let at = Self::ring(queue).saturating_add(0x1000);
            let slot = u64::from(*available & (SIZE - 1)) << 1;
            *available = available.wrapping_add(1);
            let index = *available;
            if !self.packed {
                self.put(at.saturating_add(4).saturating_add(slot), &head.to_le_bytes());
                self.put(at.saturating_add(2), &index.to_le_bytes());
            }
        }
        self.kick(queue);
    }

    /// Kicks a queue.
    pub fn kick(&self, queue: u16) {
        self.set(NOTIFY.saturating_add(u64::from(queue) << 2), 2, queue.into());
    }

    /// A chain of a readable part with these bytes and `room` bytes to write, both if they are not
    /// empty; a new one each time, while there are slots.
    pub fn request(&mut self, queue: u16, data: &[u8], room: u32) {
        let count = self.available.get(usize::from(queue)).copied().unwrap_or(0);
        let head = count.wrapping_mul(2) & (SIZE - 1);
        let second = head.wrapping_add(1);
        let place = BUFFERS.saturating_add(u64::from(queue & 0x1f) << 14);
        self.put(place, data);
        let len = u32::try_from(data.len()).unwrap_or(0);
        // Packed rings of this size begin anew with every eighth request.
        let lap = if count & 8 == 0 { 0x80 } else { 0x8000 };
        let lap = if self.packed { lap } else { 0 };
        let link = |next| if self.packed { head } else { next };
        let writable = place.saturating_add(0x2000);
        if room == 0 {
            self.descriptor(queue, second, writable, 1, lap | 2, link(0));
        } else {
            self.descriptor(queue, second, writable, room & 0x3fff, lap | 2, link(0));
        }
        self.descriptor(queue, head, place, len, lap | 1, link(second));
        self.offer(queue, head);
    }

    /// Does what `data` says.
    pub fn drive(&mut self, data: &[u8]) {
        let mut rest = data;
        while let [op, queue, a, b, c, d, tail @ ..] = rest {
            rest = tail;
            let queue = u16::from(*queue).checked_rem(self.queues).unwrap_or(0);
            let value = u32::from_le_bytes([*a, *b, *c, *d]);
            let (low, high) = (u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d]));
            match op & 0x0f {
                // A request made of what follows.
                0..=4 => {
                    let len = usize::from(*a & 0x7f).min(rest.len());
                    let (payload, tail) = rest.split_at_checked(len).unwrap_or_default();
                    rest = tail;
                    self.request(queue, payload, u32::from(high));
                }
                5 => self.descriptor(queue, low, u64::from(value) << (op >> 4), value, high, low),
                6 => self.offer(queue, low),
                7 => self.put(Self::ring(queue).saturating_add(low.into()), &[*c, *d]),
                8 => {
                    let len = usize::from(op >> 4 & 7).saturating_add(1);
                    self.set(CONFIG.saturating_add(u64::from(*a)), len, value.into());
                    self.get(CONFIG.saturating_add(u64::from(*b)), len);
                }
                9 => self.set(u64::from(*a & 0x3f), usize::from(*b & 7), (value >> 16).into()),
                10 => {
                    self.device.lock().stop();
                    self.device.lock().start();
                }
                11 => self.reload(),
                12 => drop(self.driver(u64::from(value) << (op & 0x10))),
                13 => drop(self.driver(u64::MAX)),
                14 => self.kick(low),
                // The interrupt status.
                _ => drop(self.get(0x1000, 1)),
            }
        }
    }

    /// Saved and loaded, as in a move to another machine.
    fn reload(&self) {
        let mut device = self.device.lock();
        device.stop();
        let saved = device.save();
        device.reset();
        if let Ok(saved) = saved {
            let _ = device.load(&saved);
        }
        device.start();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let mut device = self.device.lock();
        device.stop();
        device.unplug();
    }
}

/// The classes that can be made here.
pub fn usable() -> &'static [&'static Class<Ctx>] {
    static USABLE: OnceLock<Vec<&Class<Ctx>>> = OnceLock::new();
    USABLE.get_or_init(|| classes().filter(|class| Rig::new(class).is_ok()).collect())
}

/// A fuzz entry: the first byte chooses the class and the features that the driver takes, the rest
/// says what it does.
pub fn fuzz(data: &[u8]) {
    let [first, data @ ..] = data else { return };
    let usable = usable();
    let chosen = usize::from(first >> 1).checked_rem(usable.len()).unwrap_or(0);
    let Some(mut rig) = usable.get(chosen).and_then(|class| Rig::new(class).ok()) else { return };
    let rings = if first & 1 == 0 { !feature::RING_PACKED } else { u64::MAX };
    rig.driver(rings);
    rig.drive(data);
}
