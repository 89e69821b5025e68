//! The contract of a guest-visible device.
//!
//! A device is one thing the guest sees, behind one mutex. Register accesses come on the vCPU
//! thread that made them, timers and back ends call from the I/O thread, and start, stop, reset,
//! save, load and unplug come from the main thread. Never are two device mutexes held at once.
//!
//! What a hostile guest can reach: [`Device::read`] and [`Device::write`] with any offset inside
//! the region and any length from 1 to 8, in any order and from all vCPUs at once. Mistakes of
//! the guest are not errors: nothing is returned; log them with [`crate::guest_error!`].
//! What a hostile migration peer can reach: [`Device::load`].

use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::props::Value;
use crate::state::{Blob, StateError};

/// Where an access hits a device: never an absolute address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Which of the device's own regions (a number the device chose when it was mapped).
    pub region: u16,
    /// Byte offset inside that region.
    pub offset: u64,
}

/// A guest-visible device.
///
/// The life cycle, and who guarantees it (the machine, on the main thread):
///
/// - `start` comes before any vCPU runs; `stop` after all vCPUs are parked.
/// - Between `stop` and the next `start` a device writes no guest RAM, raises no interrupt and
///   takes no request from a queue. Register accesses may still come (from the debug port).
/// - `reset`, `save`, `load` and `unplug` come only while stopped.
pub trait Device: Send {
    /// A guest read. `data` arrives filled with ones, so that what is not answered reads as ones.
    fn read(&mut self, at: At, data: &mut [u8]);
    /// A guest write.
    fn write(&mut self, at: At, data: &[u8]);
    /// Back to power-on state. Idempotent.
    fn reset(&mut self);
    /// The machine is about to run.
    fn start(&mut self) {}
    /// The machine has stopped.
    fn stop(&mut self) {}
    /// The device's state; saving changes nothing.
    fn save(&self) -> Result<Blob, StateError>;
    /// Takes over a saved state. The input is untrusted: on an error the device may be in any
    /// valid state, never in an invalid one.
    fn load(&mut self, blob: &Blob) -> Result<(), StateError>;
    /// The device is gone for the guest: release back ends.
    fn unplug(&mut self) {}
    /// Why the machine cannot be moved to another while it runs, if this device prevents that:
    /// somebody else writes guest RAM for it, without a record of what. Whoever is to move the
    /// machine asks all devices first.
    fn pinned(&self) -> Option<String> {
        None
    }
    /// The properties that [`live_value`](Self::live_value) answers.
    fn live_props(&self) -> &'static [LiveProp] {
        &[]
    }
    /// The value now of a property of [`live_props`](Self::live_props).
    fn live_value(&self, _: &str) -> Option<Value> {
        None
    }
    /// Changes a settable property of [`live_props`](Self::live_props). The value is a client's.
    fn set_live(&mut self, name: &str, _: &Value) -> Result<(), String> {
        Err(format!("'{name}' cannot be changed"))
    }
}

/// A property of a device that changes at run time, rather than being fixed when it was made:
/// the time that a clock shows. Clients read and set it by qom-get and qom-set.
#[derive(Debug, Clone, Copy)]
pub struct LiveProp {
    /// Its name; not that of a property of the class.
    pub name: &'static str,
    /// The name of its type: `struct tm`, `int`.
    pub type_name: &'static str,
    /// Whether it can be set.
    pub settable: bool,
}

/// A device behind its mutex, with the name it goes by.
///
/// `Arc<DeviceCell<Serial>>` is the typed handle that the creator keeps; it coerces to
/// [`DeviceRef`], which address spaces and the list of devices hold.
pub struct DeviceCell<D: ?Sized = dyn Device> {
    name: Box<str>,
    dead: AtomicBool,
    device: Mutex<D>,
}

/// Any device, shared.
pub type DeviceRef = Arc<DeviceCell>;

impl<D: Device> DeviceCell<D> {
    /// Wraps a device. `name` is its stable path in saved state and logs.
    pub fn new(name: &str, device: D) -> Arc<Self> {
        Arc::new(DeviceCell {
            name: name.into(),
            dead: AtomicBool::new(false),
            device: Mutex::new(device),
        })
    }

    /// Wraps a device that needs a way back to itself, for timers and back-end callbacks.
    pub fn new_cyclic(name: &str, make: impl FnOnce(&Weak<Self>) -> D) -> Arc<Self> {
        Arc::new_cyclic(|weak| DeviceCell {
            name: name.into(),
            dead: AtomicBool::new(false),
            device: Mutex::new(make(weak)),
        })
    }
}

impl<D: ?Sized> DeviceCell<D> {
    /// The device's stable path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Locks the device. Hold it briefly, and never with another device locked.
    pub fn lock(&self) -> MutexGuard<'_, D> {
        self.device.lock()
    }

    /// Marks the device as unplugged: accesses through views that still name it read as ones.
    pub fn mark_dead(&self) {
        self.dead.store(true, Ordering::Release);
    }

    /// Whether the device was unplugged.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }
}

/// Translates an offset into a device access without being a device itself, such as the PCI
/// configuration ports. Lock-free, so that no two device mutexes are ever held.
pub trait Router: Send + Sync {
    /// The device and place behind `offset`; `None` reads as ones.
    fn route(&self, offset: u64) -> Option<(DeviceRef, At)>;
}

/// Answers a read of any width from a device with byte-wide registers: byte `i` comes from
/// register `offset + i`, as an ISA bus splits a wide access.
pub fn read_bytes(at: At, data: &mut [u8], mut register: impl FnMut(u64) -> u8) {
    for (offset, byte) in (at.offset..).zip(data) {
        *byte = register(offset);
    }
}

/// Splits a write of any width into byte-wide register writes, lowest offset first.
pub fn write_bytes(at: At, data: &[u8], mut register: impl FnMut(u64, u8)) {
    for (offset, byte) in (at.offset..).zip(data) {
        register(offset, *byte);
    }
}

/// The little-endian value of an access of 1 to 8 bytes; longer accesses are cut.
pub fn value_of(data: &[u8]) -> u64 {
    data.iter().take(8).rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Puts the low bytes of `value` into `data`, little-endian; bytes past the eighth are zero.
pub fn put_value(data: &mut [u8], value: u64) {
    let bytes = value.to_le_bytes();
    for (i, byte) in data.iter_mut().enumerate() {
        *byte = bytes.get(i).copied().unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_little_endian_and_bounded() {
        assert_eq!(value_of(&[0x34, 0x12]), 0x1234);
        assert_eq!(value_of(&[1, 0, 0, 0, 0, 0, 0, 0, 9]), 1);
        let mut data = [0xff; 4];
        put_value(&mut data, 0x1_2345_6789);
        assert_eq!(data, [0x89, 0x67, 0x45, 0x23]);
    }

    #[test]
    fn wide_accesses_split_into_bytes_in_order() {
        let at = At { region: 0, offset: 3 };
        let mut seen = Vec::new();
        write_bytes(at, &[7, 8], |offset, byte| seen.push((offset, byte)));
        assert_eq!(seen, [(3, 7), (4, 8)]);
        let mut data = [0; 2];
        read_bytes(at, &mut data, |offset| offset as u8);
        assert_eq!(data, [3, 4]);
    }
}
