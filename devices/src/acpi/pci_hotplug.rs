//! Devices that come to a PCI bus and leave it while the machine runs: the register block by which
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
//! | 16 | number of the bus that the others are about | the same; there is only bus 0 |
//!
//! Runs on vCPU threads, and on the main thread when devices come and go, under the device's
//! mutex. A guest that lets slots go posts to the machine's mailbox, and the main thread takes
//! their devices away; it can let go of any slot but the chipset's, also unasked.

use std::sync::Arc;

use resources::class::Class;
use resources::device::{At, Device, DeviceCell, DeviceRef, value_of};
use resources::request::{Request, Requests};
use resources::state::{Blob, StateError};

use self::state::Registers;
use super::gpe::{Gpe, PCI_HOTPLUG};
use crate::class::{Ctx, Hotplug, Unplug};
use crate::pci::Bus;

/// The port of the block.
pub const PORT: u64 = 0xae00;
/// Size of the block in bytes.
pub const SIZE: u64 = 20;
/// The slots before this one are the chipset's.
pub const FIRST_SLOT: u8 = 2;

/// The slots whose devices can go.
const REMOVABLE: u32 = u32::MAX << FIRST_SLOT;

const UP: u64 = 0;
const DOWN: u64 = 4;
const EJECT: u64 = 8;
const REMOVE: u64 = 12;
const SELECT: u64 = 16;

/// The device.
pub struct PciHotplug {
    requests: Requests,
    regs: Registers,
    /// Slots that the guest has let go and the main thread has not dealt with.
    ejected: u32,
}

impl PciHotplug {
    /// What it is among the devices of a machine.
    pub const CLASS: Class<Ctx> =
        Class::part("acpi-pci-hotplug", "System", "Registers for adding and removing PCI devices");

    /// The registers, with no news.
    pub fn new(name: &str, requests: Requests) -> Arc<DeviceCell<PciHotplug>> {
        DeviceCell::new(name, PciHotplug { requests, regs: Registers::default(), ejected: 0 })
    }

    /// The slots that the guest has let go since the last call, a bit for each.
    pub fn take_ejected(&mut self) -> u32 {
        std::mem::take(&mut self.ejected)
    }

    /// The slots that are to go, which the guest can no longer be asked for: it is reset. They
    /// are to go at once.
    pub fn take_pending(&mut self) -> u32 {
        self.regs.up = 0;
        std::mem::take(&mut self.regs.down) | self.take_ejected()
    }

    fn register(&mut self, register: u64) -> u32 {
        // Other buses have no slots.
        let here = |value: u32| if self.regs.selected == 0 { value } else { 0 };
        match register {
            UP => {
                let up = here(self.regs.up);
                self.regs.up &= !up;
                up
            }
            DOWN => here(self.regs.down),
            REMOVE => here(REMOVABLE),
            SELECT => self.regs.selected,
            _ => 0,
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
            EJECT if self.regs.selected == 0 => {
                let gone = value & REMOVABLE;
                self.regs.down &= !gone;
                self.regs.up &= !gone;
                self.ejected |= gone;
                if gone != 0 {
                    self.requests.request(Request::Eject);
                }
            }
            SELECT => self.regs.selected = value,
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.regs = Registers::default();
    }

    fn save(&self) -> Result<Blob, StateError> {
        // What the guest let go and is still there goes with the next reset.
        let down = self.regs.down | self.ejected;
        Blob::new(1, &Registers { down, ..self.regs })
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        let regs: Registers = blob.parse(1, &[])?;
        self.regs = Registers { up: regs.up & REMOVABLE, down: regs.down & REMOVABLE, ..regs };
        Ok(())
    }
}

/// How devices come to the root bus and leave it.
pub struct Slots {
    /// The registers.
    pub registers: Arc<DeviceCell<PciHotplug>>,
    /// The bus.
    pub bus: Arc<Bus>,
    /// The events.
    pub gpe: Arc<Gpe>,
}

impl Slots {
    fn tell(&self, slot: u8, change: impl FnOnce(&mut Registers, u32)) {
        let bit = 1u32.checked_shl(slot.into()).unwrap_or(0);
        change(&mut self.registers.lock().regs, bit);
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
            Some((address, _)) if address.slot() >= FIRST_SLOT => {
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

    #[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
    #[serde(default)]
    pub(super) struct Registers {
        pub(super) up: u32,
        pub(super) down: u32,
        pub(super) selected: u32,
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
        device.regs = Registers { up: 1 << 5, down: 1 << 4 | 1 << 6, selected: 0 };
        assert_eq!((read(&mut device, UP), read(&mut device, UP)), (1 << 5, 0));
        assert_eq!(read(&mut device, DOWN), 1 << 4 | 1 << 6);
        assert_eq!(read(&mut device, REMOVE), 0xffff_fffc);
        assert_eq!(read(&mut device, EJECT), 0);
        // The chipset stays.
        write(&mut device, EJECT, 0b11);
        assert_eq!((requests.take(), device.take_ejected()), (vec![], 0));
        write(&mut device, EJECT, 1 << 4);
        assert_eq!(requests.take(), [Request::Eject]);
        assert_eq!((device.take_ejected(), read(&mut device, DOWN)), (1 << 4, 1 << 6));
        // Another bus has no slots.
        write(&mut device, SELECT, 1);
        write(&mut device, EJECT, 1 << 6);
        assert_eq!((read(&mut device, DOWN), read(&mut device, SELECT)), (0, 1));
        assert_eq!(device.take_pending(), 1 << 6);
        assert_eq!(device.take_pending(), 0);
    }
}
