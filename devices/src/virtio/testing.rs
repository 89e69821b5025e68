//! The driver's side of a queue, and what else unit tests of virtio devices need.
//!
//! ```ignore
//! let mut driver = Driver::new(8, 0);            // ring of 8 in a RAM of its own, features
//! let running = Running::each(&handle, driver.port(0), ...);
//! let id = driver.send(&[b"request"], &[512]);   // one chain: readable bytes, room to write
//! let used = driver.wait_used();                 // kicked, served, given back
//! assert_eq!(used.data, b"reply");
//! ```

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use resources::ram::{GuestMemory, Ram, RamConfig};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::port::{ConfigIrq, Interrupts, Port, QueueIrq};
use super::queue::{Layout, Position, Queue};
use super::{Activation, VirtioDevice, feature};

mod machine;

pub(crate) use machine::{Machine, common};

/// VIRTQ_DESC_F_NEXT.
pub(crate) const NEXT: u16 = 1;
/// VIRTQ_DESC_F_WRITE.
pub(crate) const WRITE: u16 = 2;
/// VIRTQ_DESC_F_INDIRECT.
pub(crate) const INDIRECT: u16 = 4;

/// RAM of a test, in bytes. Nothing is behind it.
pub(crate) const RAM: u64 = 16 << 20;

/// Where the first ring of a RAM lies; the buffers are from [`BUFFERS`] on.
const RINGS: u64 = 0x10000;
const BUFFERS: u64 = 0x40_0000;

/// Interrupts that were signalled.
#[derive(Default)]
pub(crate) struct Signals {
    /// Of queues.
    pub(crate) queue: AtomicU32,
    /// Of the configuration.
    pub(crate) config: AtomicU32,
    pub(crate) needs_reset: AtomicBool,
    /// What was said with it.
    pub(crate) reason: Mutex<String>,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Signals {
    /// Queue interrupts since the last call.
    pub(crate) fn take(&self) -> u32 {
        self.queue.swap(0, Ordering::SeqCst)
    }

    fn tell(&self) {
        let _lock = self.lock.lock();
        self.changed.notify_all();
    }

    /// Waits until `done` says so, looked at after each signal and now and then.
    pub(crate) fn wait<R>(&self, mut done: impl FnMut() -> Option<R>) -> R {
        wait(&self.lock, &self.changed, &mut done)
    }
}

/// Waits until `done` says so, looked at after each change and now and then.
fn wait<R>(lock: &Mutex<()>, changed: &Condvar, done: &mut dyn FnMut() -> Option<R>) -> R {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(result) = done() {
            return result;
        }
        assert!(Instant::now() < deadline, "nothing came for 20 seconds");
        changed.wait_for(&mut lock.lock(), Duration::from_millis(2));
    }
}

impl Interrupts for Signals {
    fn queue(&self, _: u16) {
        self.queue.fetch_add(1, Ordering::SeqCst);
        self.tell();
    }

    fn config_changed(&self) {
        self.config.fetch_add(1, Ordering::SeqCst);
        self.tell();
    }

    fn needs_reset(&self, reason: &dyn fmt::Display) {
        *self.reason.lock() = reason.to_string();
        self.needs_reset.store(true, Ordering::SeqCst);
        self.tell();
    }
}

/// RAM that the queues of a device share.
pub(crate) fn memory() -> Arc<GuestMemory> {
    let config = RamConfig { size: RAM, ..RamConfig::default() };
    Arc::new(Ram::new(&config).unwrap().memory().clone())
}

/// A chain that came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Used {
    /// As returned by [`Driver::send`].
    pub(crate) id: u16,
    /// Bytes the device says it has written.
    pub(crate) written: u32,
    /// Those bytes.
    pub(crate) data: Vec<u8>,
}

/// A chain that is available: its descriptors, and address and length of its writable buffers.
type Offered = (Vec<u16>, Vec<(u64, u32)>);

/// The driver's side of one queue.
pub(crate) struct Driver {
    pub(crate) memory: Arc<GuestMemory>,
    pub(crate) layout: Layout,
    pub(crate) features: u64,
    pub(crate) kick: Arc<EventFd>,
    pub(crate) signals: Arc<Signals>,
    index: u16,
    /// Free descriptors.
    free: Vec<u16>,
    /// By head.
    chains: Vec<Option<Offered>>,
    next_avail: u16,
    next_used: u16,
    next_buffer: u64,
    /// Packed: the wrap counters of both.
    avail_wrap: bool,
    used_wrap: bool,
    /// Packed: where the last chain begins.
    last: (u16, bool),
}

/// VIRTQ_DESC_F_AVAIL and VIRTQ_DESC_F_USED.
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

impl Driver {
    /// A split ring of `size` entries in a RAM of its own, for one queue.
    pub(crate) fn new(size: u16, features: u64) -> Driver {
        Driver::beside(memory(), Arc::default(), 0, size, features)
    }

    /// The driver's side of queue `index`, in RAM and with interrupts shared with other queues.
    pub(crate) fn beside(
        memory: Arc<GuestMemory>,
        signals: Arc<Signals>,
        index: u16,
        size: u16,
        features: u64,
    ) -> Driver {
        let base = RINGS + u64::from(index) * 0x10000;
        let layout = Layout { size, desc: base, driver: base + 0x8000, device: base + 0xa000 };
        Driver {
            memory,
            layout,
            features,
            kick: Arc::new(EventFd::new(EFD_NONBLOCK).unwrap()),
            signals,
            index,
            free: (0..size).rev().collect(),
            chains: vec![None; usize::from(size)],
            next_avail: 0,
            next_used: 0,
            next_buffer: BUFFERS + u64::from(index) * 0x10_0000,
            avail_wrap: true,
            used_wrap: true,
            last: (0, true),
        }
    }

    fn packed(&self) -> bool {
        self.features & feature::RING_PACKED != 0
    }

    /// A new ring in the same place, for a driver that starts anew.
    pub(crate) fn restart(&mut self, features: u64) {
        let zeros = vec![0; 0x10000];
        self.memory.write_slice(&zeros, GuestAddress(self.layout.desc)).unwrap();
        let size = self.layout.size;
        self.features = features;
        self.free = (0..size).rev().collect();
        self.chains = vec![None; usize::from(size)];
        (self.next_avail, self.next_used) = (0, 0);
        (self.avail_wrap, self.used_wrap) = (true, true);
    }

    /// A device's queue on this ring that goes on at `position`.
    pub(crate) fn queue_at(&self, position: Position) -> Queue {
        let alarm = Some(ConfigIrq::new(self.signals.clone()));
        Queue::new(self.memory.clone(), self.layout, self.features, position, alarm)
    }

    /// A device's queue on this ring.
    pub(crate) fn queue(&self) -> Queue {
        self.queue_at(Position::default())
    }

    /// The queue with its kick and interrupt.
    pub(crate) fn port(&self) -> Port {
        self.port_at(Position::default())
    }

    /// As [`port`](Self::port), going on at `position`.
    pub(crate) fn port_at(&self, position: Position) -> Port {
        Port {
            index: self.index,
            queue: self.queue_at(position),
            kick: self.kick.clone(),
            irq: QueueIrq::new(self.signals.clone(), self.index),
        }
    }

    /// Puts bytes somewhere in RAM; returns where.
    pub(crate) fn place(&mut self, data: &[u8]) -> u64 {
        let at = self.room(data.len() as u32);
        self.memory.write_slice(data, GuestAddress(at)).unwrap();
        at
    }

    /// Room in RAM.
    pub(crate) fn room(&mut self, len: u32) -> u64 {
        let at = self.next_buffer;
        self.next_buffer += u64::from(len).next_multiple_of(64);
        if self.next_buffer > BUFFERS + (u64::from(self.index) + 1) * 0x10_0000 {
            // Buffers of long ago are used again.
            self.next_buffer = BUFFERS + u64::from(self.index) * 0x10_0000;
            return self.room(len);
        }
        at
    }

    /// Writes a descriptor of the ring's table.
    pub(crate) fn descriptor(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let at = self.layout.desc + u64::from(index) * 16;
        put_descriptor(&self.memory, at, address, len, flags, next);
    }

    /// Makes the chain at `head` available, whatever it is.
    pub(crate) fn offer(&mut self, head: u16) {
        let slot = u64::from(self.next_avail % self.layout.size);
        self.write16(self.layout.driver + 4 + 2 * slot, head);
        self.next_avail = self.next_avail.wrapping_add(1);
        self.set_avail(self.next_avail);
    }

    /// Writes the available index.
    pub(crate) fn set_avail(&self, index: u16) {
        self.memory.store(index, GuestAddress(self.layout.driver + 2), Ordering::Release).unwrap();
    }

    /// Makes a chain of these bytes and that much room available and kicks if the device wants
    /// it. Returns the chain's id.
    pub(crate) fn send(&mut self, readable: &[&[u8]], writable: &[u32]) -> u16 {
        let id = self.add(readable, writable);
        self.kick();
        id
    }

    /// Sends one writable buffer that is at this place.
    pub(crate) fn send_raw(&mut self, address: u64, len: u32) {
        let parts = [(address, len, WRITE)];
        if self.packed() {
            self.add_packed(&parts, Vec::new());
        } else {
            let id = self.free.pop().expect("ring full");
            self.descriptor(id, address, len, WRITE, 0);
            self.chains[usize::from(id)] = Some((vec![id], Vec::new()));
            self.offer(id);
        }
        self.kick();
    }

    /// As [`send`](Self::send), without the kick.
    pub(crate) fn add(&mut self, readable: &[&[u8]], writable: &[u32]) -> u16 {
        let mut parts: Vec<_> =
            readable.iter().map(|data| (self.place(data), data.len() as u32, 0)).collect();
        parts.extend(writable.iter().map(|len| (self.room(*len), *len, WRITE)));
        let room = parts.iter().filter(|part| part.2 == WRITE).map(|part| (part.0, part.1));
        let room = room.collect();
        if self.packed() {
            return self.add_packed(&parts, room);
        }
        let taken: Vec<u16> = parts.iter().map(|_| self.free.pop().expect("ring full")).collect();
        for (i, (address, len, flags)) in parts.iter().enumerate() {
            let next = taken.get(i + 1).copied();
            let link = if next.is_some() { NEXT } else { 0 };
            self.descriptor(taken[i], *address, *len, flags | link, next.unwrap_or(0));
        }
        self.chains[usize::from(taken[0])] = Some((taken.clone(), room));
        self.offer(taken[0]);
        taken[0]
    }

    /// Writes a descriptor of a packed ring at the next place; its flags say that it is
    /// available.
    pub(crate) fn put_packed(&mut self, address: u64, len: u32, id: u16, flags: u16) {
        self.put_next(address, len, id, flags | self.lap());
    }

    /// The flags of what is available in this lap.
    fn lap(&self) -> u16 {
        if self.avail_wrap { AVAIL } else { USED }
    }

    fn put_next(&mut self, address: u64, len: u32, id: u16, flags: u16) {
        let at = self.layout.desc + u64::from(self.next_avail) * 16;
        put_descriptor(&self.memory, at, address, len, id, flags);
        self.next_avail += 1;
        if self.next_avail == self.layout.size {
            self.next_avail = 0;
            self.avail_wrap = !self.avail_wrap;
        }
    }

    fn add_packed(&mut self, parts: &[(u64, u32, u16)], room: Vec<(u64, u32)>) -> u16 {
        let taken: Vec<u16> = parts.iter().map(|_| self.free.pop().expect("ring full")).collect();
        let id = taken[0];
        self.last = (self.next_avail, self.avail_wrap);
        let first = self.layout.desc + u64::from(self.next_avail) * 16 + 14;
        let lap = self.lap();
        // Not yet: the first one's flags show the chain as a whole.
        let hidden = if self.avail_wrap { 0 } else { AVAIL | USED };
        for (i, (address, len, flags)) in parts.iter().enumerate() {
            let link = if i + 1 < parts.len() { NEXT } else { 0 };
            let lap = if i == 0 { hidden } else { self.lap() };
            self.put_next(*address, *len, id, flags | link | lap);
        }
        let link = if parts.len() > 1 { NEXT } else { 0 };
        self.memory.store(parts[0].2 | link | lap, GuestAddress(first), Ordering::Release).unwrap();
        self.chains[usize::from(id)] = Some((taken, room));
        id
    }

    fn used_packed(&mut self) -> Option<Used> {
        let at = self.layout.desc + u64::from(self.next_used) * 16;
        let flags: u16 = self.memory.load(GuestAddress(at + 14), Ordering::Acquire).unwrap();
        let (avail, used) = (flags & AVAIL != 0, flags & USED != 0);
        if avail != used || used != self.used_wrap {
            return None;
        }
        let written: u32 = self.memory.read_obj(GuestAddress(at + 8)).unwrap();
        let id = self.read16(at + 12);
        let slots = self.chains[usize::from(id)].as_ref().expect("not available").0.len() as u16;
        self.next_used += slots;
        if self.next_used >= self.layout.size {
            self.next_used -= self.layout.size;
            self.used_wrap = !self.used_wrap;
        }
        Some(self.finish(id, written))
    }

    /// Descriptors that are free.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Kicks unless the device has said that it need not.
    pub(crate) fn kick(&self) {
        if self.wants_kick() {
            self.kick.write(1).unwrap();
        }
    }

    /// Whether the device wants to know of what was made available last.
    pub(crate) fn wants_kick(&self) -> bool {
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.packed() {
            let (off, flags) =
                (self.read16(self.layout.device), self.read16(self.layout.device + 2));
            let last = self.last.0 | u16::from(self.last.1) << 15;
            return flags == 0 || flags == 2 && off == last;
        }
        if self.features & feature::EVENT_IDX != 0 {
            let event = self.read16(self.layout.device + 4 + 8 * u64::from(self.layout.size));
            // As if told of each one: no batches here.
            return event == self.next_avail.wrapping_sub(1);
        }
        self.read16(self.layout.device) & 1 == 0
    }

    /// Asks for an interrupt with the next used chain, or for none.
    pub(crate) fn want_interrupt(&self, wanted: bool) {
        if self.packed() {
            let event_idx = self.features & feature::EVENT_IDX != 0;
            self.write16(self.layout.driver, self.next_used | u16::from(self.used_wrap) << 15);
            let flags = if !wanted {
                1
            } else if event_idx {
                2
            } else {
                0
            };
            self.write16(self.layout.driver + 2, flags);
            return;
        }
        if self.features & feature::EVENT_IDX != 0 {
            let event = if wanted { self.next_used } else { self.next_used.wrapping_sub(1) };
            self.write16(self.layout.driver + 4 + 2 * u64::from(self.layout.size), event);
        } else {
            self.write16(self.layout.driver, u16::from(!wanted));
        }
    }

    /// The next chain that the device has given back.
    pub(crate) fn used(&mut self) -> Option<Used> {
        if self.packed() {
            return self.used_packed();
        }
        if self.read16(self.layout.device + 2) == self.next_used {
            return None;
        }
        let slot = u64::from(self.next_used % self.layout.size);
        let element: u64 =
            self.memory.read_obj(GuestAddress(self.layout.device + 4 + 8 * slot)).unwrap();
        self.next_used = self.next_used.wrapping_add(1);
        let (id, written) = (element as u16, (element >> 32) as u32);
        Some(self.finish(id, written))
    }

    /// Takes a chain back.
    fn finish(&mut self, id: u16, written: u32) -> Used {
        let (taken, room) = self.chains[usize::from(id)].take().expect("not available");
        self.free.extend(taken);
        let mut data = Vec::new();
        for (address, len) in room {
            let mut part = vec![0; len.min(written - data.len() as u32) as usize];
            self.memory.read_slice(&mut part, GuestAddress(address)).unwrap();
            data.extend(part);
        }
        Used { id, written, data }
    }

    /// Waits for the device to give a chain back.
    pub(crate) fn wait_used(&mut self) -> Used {
        let signals = self.signals.clone();
        signals.wait(|| self.used())
    }

    /// The next two bytes of RAM at an address.
    pub(crate) fn read16(&self, address: u64) -> u16 {
        self.memory.read_obj(GuestAddress(address)).unwrap()
    }

    /// Writes two bytes of RAM.
    pub(crate) fn write16(&self, address: u64, value: u16) {
        self.memory.write_obj(value, GuestAddress(address)).unwrap();
    }
}

/// Writes a descriptor of the split layout anywhere.
pub(crate) fn put_descriptor(
    memory: &GuestMemory,
    at: u64,
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
) {
    let value = u128::from(address)
        | u128::from(len) << 64
        | u128::from(flags) << 96
        | u128::from(next) << 112;
    memory.write_slice(&value.to_le_bytes(), GuestAddress(at)).unwrap();
}

/// Starts a device on the queues of these drivers, as its transport would. The drivers share
/// memory and interrupts.
pub(crate) fn start(device: &mut dyn VirtioDevice, drivers: &[Driver], features: u64) {
    device.accepted(features);
    restart(device, drivers, features, drivers.iter().map(Driver::port).collect());
}

/// As [`start`], with ports that [`VirtioDevice::stop`] has given back.
pub(crate) fn restart(
    device: &mut dyn VirtioDevice,
    drivers: &[Driver],
    features: u64,
    ports: Vec<Port>,
) {
    let run = Activation {
        features,
        memory: drivers[0].memory.clone(),
        ports,
        config: ConfigIrq::new(drivers[0].signals.clone()),
    };
    device.start(run).unwrap();
}

/// The ports as after save and load, or stop and start: with queues made anew from their
/// positions.
pub(crate) fn renew(ports: Vec<Port>, drivers: &[Driver]) -> Vec<Port> {
    ports
        .into_iter()
        .map(|port| {
            let driver = drivers.iter().find(|driver| driver.index == port.index).unwrap();
            driver.port_at(port.queue.position())
        })
        .collect()
}
