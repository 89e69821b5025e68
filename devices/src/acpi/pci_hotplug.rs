//! Devices that come to PCI buses and leave them while the machine runs: the register block by which
//! the guest's ACPI methods ([`super::pci_aml`]) and other firmware's find out. The block is that
//! of QEMU's `pc` (its `docs/specs/acpi_pci_hotplug`).
//!
//! Region 0: 20 bytes at port 0xae00, 32-bit registers with a bit for each slot:
//!
//! | offset | read | write |
//! |---|---|---|
//! | 0 | something came to the slot; forgotten by the read | - |
//! | 4 | what is in the slot is to go | - |
//! | 8 | 0 | what is in the slot is gone |
//! | 12 | what is in the slot can go | - |
//! | 16 | number of the bus that the others are about | the same |
//!
//! Bus 0 is the root; buses behind bridges that were there when the guest was last reset have the
//! numbers that follow, in the order in which they were made. These are not the numbers that the
//! guest gives buses. A bridge that comes later is not in the tables that the guest has read:
//! nothing can be plugged behind it before the guest is reset. There is no SHPC, which would do the
//! same by registers of the bridge.
//!
//! Runs on vCPU threads, and on the main thread when devices come and go, under the device's
//! mutex. A guest that lets slots go posts to the machine's mailbox, and the main thread takes
//! their devices away; it can let go of any slot but the chipset's, also unasked.

use std::sync::Arc;

use resources::class::Class;
use resources::device::{At, Device, DeviceCell, DeviceRef, value_of};
use resources::request::{Request, Requests};
use resources::state::{Blob, StateError, invalid};

use self::state::{News, Registers};
use super::gpe::{Gpe, PCI_HOTPLUG};
use crate::class::{Ctx, Hotplug, Unplug};
use crate::pci::Bus;

/// The port of the block.
pub const PORT: u64 = 0xae00;
/// Size of the block in bytes.
pub const SIZE: u64 = 20;
/// The slots before this one are the chipset's.
pub const FIRST_SLOT: u8 = 2;

/// The slots of a bus whose devices can go.
fn removable(bus: usize) -> u32 {
    if bus == 0 { u32::MAX << FIRST_SLOT } else { u32::MAX }
}

/// The most buses: what the tables have room for.
const MOST_BUSES: usize = 17;

const UP: u64 = 0;
const DOWN: u64 = 4;
const EJECT: u64 = 8;
const REMOVE: u64 = 12;
const SELECT: u64 = 16;

/// The device.
pub struct PciHotplug {
    requests: Requests,
    selected: u32,
    /// What is new on each bus.
    buses: Vec<News>,
    /// Slots of each bus that the guest has let go and the main thread has not dealt with.
    ejected: Vec<u32>,
}

impl PciHotplug {
    /// What it is among the devices of a machine.
    pub const CLASS: Class<Ctx> =
        Class::part("acpi-pci-hotplug", "System", "Registers for adding and removing PCI devices");

    /// The registers, with no news of the root bus.
    pub fn new(name: &str, requests: Requests) -> Arc<DeviceCell<PciHotplug>> {
        let buses = vec![News::default()];
        DeviceCell::new(name, PciHotplug { requests, selected: 0, buses, ejected: vec![0] })
    }

    /// Gives one more bus its number, if there is one left.
    pub fn add_bus(&mut self) -> Option<u8> {
        let number =
            u8::try_from(self.buses.len()).ok().filter(|_| self.buses.len() < MOST_BUSES)?;
        self.buses.push(News::default());
        self.ejected.push(0);
        Some(number)
    }

    /// The slots that the guest has let go since the last call: for each bus a bit for each.
    pub fn take_ejected(&mut self) -> Vec<u32> {
        self.ejected.iter_mut().map(std::mem::take).collect()
    }

    /// The slots that are to go, which the guest can no longer be asked for: it is reset. They
    /// are to go at once.
    pub fn take_pending(&mut self) -> Vec<u32> {
        let pending = self.buses.iter_mut().zip(&mut self.ejected).map(|(news, ejected)| {
            news.up = 0;
            std::mem::take(&mut news.down) | std::mem::take(ejected)
        });
        pending.collect()
    }

    fn register(&mut self, register: u64) -> u32 {
        if register == SELECT {
            return self.selected;
        }
        // Buses that are not there have no slots.
        let index = usize::try_from(self.selected).unwrap_or(usize::MAX);
        let Some(news) = self.buses.get_mut(index) else { return 0 };
        match register {
            UP => std::mem::take(&mut news.up),
            DOWN => news.down,
            REMOVE => removable(index),
            _ => 0,
        }
    }

    fn eject(&mut self, slots: u32) {
        let index = usize::try_from(self.selected).unwrap_or(usize::MAX);
        let gone = slots & removable(index);
        let (news, ejected) = (self.buses.get_mut(index), self.ejected.get_mut(index));
        if let (Some(news), Some(ejected)) = (news, ejected) {
            news.down &= !gone;
            news.up &= !gone;
            *ejected |= gone;
            if gone != 0 {
                self.requests.request(Request::Eject);
            }
        }
    }
}

impl Device for PciHotplug {
    fn read(&mut self, at: At, data: &mut [u8]) {
        let value = self.register(at.offset & !3).to_le_bytes();
        let skipped = usize::try_from(at.offset & 3).unwrap_or(0);
        let rest = value.iter().skip(skipped).copied().chain(std::iter::repeat(0));
        data.iter_mut().zip(rest).for_each(|(byte, value)| *byte = value);
    }

    fn write(&mut self, at: At, data: &[u8]) {
        let value = u32::try_from(value_of(data) & u64::from(u32::MAX)).unwrap_or(0);
        match at.offset {
            EJECT => self.eject(value),
            SELECT => self.selected = value,
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.selected = 0;
        self.buses.fill(News::default());
    }

    fn save(&self) -> Result<Blob, StateError> {
        let mut all = self.buses.clone();
        let News { up, down } = if all.is_empty() { News::default() } else { all.remove(0) };
        let (selected, mut gone) = (self.selected, self.ejected.clone());
        // Where it is loaded there may be fewer buses, if there is nothing to say of the last ones.
        while all.pop_if(|news| *news == News::default()).is_some() {}
        while gone.pop_if(|slots| *slots == 0).is_some() {}
        Blob::new(1, &Registers { up, down, selected, behind: all, gone })
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        let Registers { up, down, selected, behind, gone } = blob.parse(1, &[])?;
        let count = behind.len().saturating_add(1).max(gone.len());
        if count > self.buses.len() {
            let there = self.buses.len();
            return Err(invalid(format!("{count} buses, where there are {there}")));
        }
        self.reset();
        self.selected = selected;
        let all = [News { up, down }].into_iter().chain(behind).enumerate();
        for ((index, news), now) in all.zip(&mut self.buses) {
            let slots = removable(index);
            *now = News { up: news.up & slots, down: news.down & slots };
        }
        let gone = gone.into_iter().chain(std::iter::repeat(0)).enumerate();
        for ((index, gone), now) in gone.zip(&mut self.ejected) {
            *now = gone & removable(index);
        }
        if self.ejected.iter().any(|slots| *slots != 0) {
            self.requests.request(Request::Eject);
        }
        Ok(())
    }
}

/// How devices come to a bus and leave it.
pub struct Slots {
    /// The registers.
    pub registers: Arc<DeviceCell<PciHotplug>>,
    /// The bus.
    pub bus: Arc<Bus>,
    /// Its number in the registers.
    pub number: u8,
    /// The events.
    pub gpe: Arc<Gpe>,
}

impl Slots {
    fn tell(&self, slot: u8, change: impl FnOnce(&mut News, u32)) {
        let bit = 1u32.checked_shl(slot.into()).unwrap_or(0);
        if let Some(news) = self.registers.lock().buses.get_mut(usize::from(self.number)) {
            change(news, bit);
        }
        self.gpe.raise(PCI_HOTPLUG);
    }
}

impl Hotplug for Slots {
    fn plugged(&mut self, device: &DeviceRef) {
        // The other functions of a slot are seen with its first, which is to come last.
        if let Some((address, _)) =
            self.bus.find_device(device).filter(|(at, _)| at.function() == 0)
        {
            self.tell(address.slot(), |regs, bit| {
                regs.up |= bit;
                regs.down &= !bit;
            });
        }
    }

    fn unplug(&mut self, device: &DeviceRef) -> Result<Unplug, String> {
        match self.bus.find_device(device) {
            Some((address, _)) if self.number != 0 || address.slot() >= FIRST_SLOT => {
                self.tell(address.slot(), |regs, bit| regs.down |= bit);
                Ok(Unplug::Asked)
            }
            Some((_, class)) => Err(format!("Device '{class}' does not support hotplugging")),
            None => Ok(Unplug::Now),
        }
    }
}

mod state {
    use serde::{Deserialize, Serialize};

    /// What is new on a bus: a bit for each slot.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default)]
    pub(super) struct News {
        pub(super) up: u32,
        pub(super) down: u32,
    }

    #[derive(Debug, Clone, Default, Serialize, Deserialize)]
    #[serde(default)]
    pub(super) struct Registers {
        /// Of the root bus.
        pub(super) up: u32,
        pub(super) down: u32,
        pub(super) selected: u32,
        /// Of the others.
        pub(super) behind: Vec<News>,
        /// Slots of each bus that the guest has let go and whose devices are still there.
        pub(super) gone: Vec<u32>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Requested;

    fn read(device: &mut PciHotplug, offset: u64) -> u64 {
        let mut data = [0xff; 4];
        device.read(At { region: 0, offset }, &mut data);
        value_of(&data)
    }

    fn write(device: &mut PciHotplug, offset: u64, value: u32) {
        device.write(At { region: 0, offset }, &value.to_le_bytes());
    }

    #[test]
    fn slots_are_told_of_asked_for_and_let_go() {
        let requests = Arc::new(Requested::default());
        let cell = PciHotplug::new("hotplug", requests.clone());
        let mut device = cell.lock();
        device.buses = vec![News { up: 1 << 5, down: 1 << 4 | 1 << 6 }];
        assert_eq!((read(&mut device, UP), read(&mut device, UP)), (1 << 5, 0));
        assert_eq!(read(&mut device, DOWN), 1 << 4 | 1 << 6);
        assert_eq!(read(&mut device, REMOVE), 0xffff_fffc);
        assert_eq!(read(&mut device, EJECT), 0);
        // The chipset stays.
        write(&mut device, EJECT, 0b11);
        assert_eq!((requests.take(), device.take_ejected()), (vec![], vec![0]));
        write(&mut device, EJECT, 1 << 4);
        assert_eq!(requests.take(), [Request::Eject]);
        assert_eq!((device.take_ejected(), read(&mut device, DOWN)), (vec![1 << 4], 1 << 6));
        // A bus that is not there has no slots.
        write(&mut device, SELECT, 1);
        write(&mut device, EJECT, 1 << 6);
        assert_eq!((read(&mut device, DOWN), read(&mut device, SELECT)), (0, 1));
        assert_eq!(device.take_pending(), [1 << 6]);
        assert_eq!(device.take_pending(), [0]);
    }

    #[test]
    fn each_bus_has_slots_of_its_own() {
        let requests = Arc::new(Requested::default());
        let cell = PciHotplug::new("hotplug", requests.clone());
        let mut device = cell.lock();
        assert_eq!((device.add_bus(), device.add_bus()), (Some(1), Some(2)));
        device.buses = [0, 1 << 3, 1].map(|down| News { up: down << 1, down }).to_vec();
        for (bus, down) in [(0, 0), (1, 1 << 3), (2, 1), (3, 0), (u32::MAX, 0)] {
            write(&mut device, SELECT, bus);
            assert_eq!(read(&mut device, DOWN), down, "bus {bus}");
        }
        write(&mut device, SELECT, 2);
        assert_eq!(read(&mut device, REMOVE), 0xffff_ffff);
        write(&mut device, EJECT, 1);
        assert_eq!(device.take_ejected(), [0, 0, 1]);
        let saved = device.save().unwrap();
        device.reset();
        device.load(&saved).unwrap();
        assert_eq!(device.save().unwrap(), saved);
        assert_eq!(device.take_pending(), [0, 1 << 3, 0]);
        // One from before there were bridges; one with more than there are.
        device
            .load(&Blob::new(1, &Registers { down: 1 << 7, ..Registers::default() }).unwrap())
            .unwrap();
        assert_eq!(device.take_pending(), [1 << 7, 0, 0]);
        let more = Registers { behind: vec![News::default(); 3], ..Registers::default() };
        assert!(device.load(&Blob::new(1, &more).unwrap()).is_err());
        // Buses of which there is nothing to say need not be there.
        device.reset();
        let saved = device.save().unwrap();
        PciHotplug::new("hotplug", requests.clone()).lock().load(&saved).unwrap();
        while device.add_bus().is_some() {}
        assert_eq!(device.buses.len(), MOST_BUSES);
    }
}
