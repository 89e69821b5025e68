//! Adding processors while the machine runs: the register block by which the guest's ACPI methods
//! ([`super::cpu_aml`]) and other firmware's find out what came. The block is that of QEMU's `pc`
//! (its `docs/specs/acpi_cpu_hotplug`).
//!
//! Region 0: 32 bytes at port 0xaf00. After reset a bit map, read-only: bit N is set if the
//! processor with APIC id N is there. A write of zero to offset 0 turns on, until reset:
//!
//! | offset | read | write |
//! |---|---|---|
//! | 0 (4 bytes) | upper half of the data | selects a processor by its number |
//! | 4 (1) | bit 0: it is there; bit 1: it came and nobody was told | bit 1 set: told |
//! | 5 (1) | 0 | command: 0 selects the next that came, from the selected one on; 1 and 2 say what is written to offset 8; 3 reads the APIC id |
//! | 8 (4) | data: command 0: the selected number; 3: the APIC id | result of `_OST`, ignored |
//!
//! While the selected number is that of no processor, everything reads as zero and only the
//! selector can be written. Processors do not leave.
//!
//! Runs on vCPU threads and, to add a processor, on the main thread, under the device's mutex. A
//! guest costs at most a walk over 255 processors with each access.

use std::sync::Arc;

use resources::class::Class;
use resources::device::{At, Device, DeviceCell, read_bytes, value_of};
use resources::state::{Blob, StateError, invalid};

use super::tables::Processor;
use crate::class::Ctx;

/// The port of the block.
pub const PORT: u64 = 0xaf00;
/// Size of the block in bytes.
pub const SIZE: u64 = 32;

/// Status and control bits.
const PRESENT: u8 = 1 << 0;
const INSERTED: u8 = 1 << 1;

/// Commands.
const NEXT_EVENT: u8 = 0;
const APIC_ID: u8 = 3;

/// The device.
pub struct CpuHotplug {
    slots: Vec<Slot>,
    regs: state::Registers,
}

struct Slot {
    apic_id: u32,
    present: bool,
    /// It came, and the guest was not told yet.
    inserted: bool,
}

impl CpuHotplug {
    /// What it is among the devices of a machine.
    pub const CLASS: Class<Ctx> =
        Class::part("acpi-cpu-hotplug", "System", "Registers for adding processors");

    /// The block of a machine with these processors.
    pub fn new(name: &str, processors: &[Processor]) -> Arc<DeviceCell<CpuHotplug>> {
        let slot = |processor: &Processor| Slot {
            apic_id: processor.apic_id,
            present: processor.present,
            inserted: false,
        };
        let slots = processors.iter().map(slot).collect();
        DeviceCell::new(name, CpuHotplug { slots, regs: state::Registers::default() })
    }

    /// How many processors there may be.
    pub fn room(&self) -> usize {
        self.slots.len()
    }

    /// How many processors there are.
    pub fn count(&self) -> usize {
        self.slots.iter().filter(|slot| slot.present).count()
    }

    /// Whether a processor is there.
    pub fn is_present(&self, number: usize) -> bool {
        self.slots.get(number).is_some_and(|slot| slot.present)
    }

    /// A processor has come. The guest is to be told by event
    /// [`CPU_HOTPLUG`](super::gpe::CPU_HOTPLUG).
    pub fn add(&mut self, number: usize) {
        if let Some(slot) = self.slots.get_mut(number) {
            (slot.present, slot.inserted) = (true, true);
        }
    }

    /// Whether the guest was not told yet of one that came.
    pub fn has_news(&self) -> bool {
        self.slots.iter().any(|slot| slot.inserted)
    }

    /// The guest starts anew: what is there now is in the tables that it is going to read.
    pub fn forget_news(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.inserted = false);
    }

    fn selected(&mut self) -> Option<&mut Slot> {
        let number = usize::try_from(self.regs.selector).ok()?;
        self.slots.get_mut(number)
    }

    /// The block in the mode after reset.
    fn bitmap(&self) -> [u8; 32] {
        let mut map = [0u8; 32];
        for slot in self.slots.iter().filter(|slot| slot.present) {
            let byte = usize::try_from(slot.apic_id >> 3).ok().and_then(|at| map.get_mut(at));
            if let Some(byte) = byte {
                *byte |= 1 << (slot.apic_id & 7);
            }
        }
        map
    }

    /// The block in the other mode.
    fn block(&mut self) -> [u8; 32] {
        let mut block = [0u8; 32];
        let (command, selector) = (self.regs.command, self.regs.selector);
        let Some(slot) = self.selected() else { return block };
        let data = match command {
            NEXT_EVENT => selector,
            APIC_ID => slot.apic_id,
            _ => 0,
        };
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        let status = flag(slot.present, PRESENT) | flag(slot.inserted, INSERTED);
        let registers = [0, 0, 0, 0, status, 0, 0, 0].into_iter().chain(data.to_le_bytes());
        block.iter_mut().zip(registers).for_each(|(to, from)| *to = from);
        block
    }

    /// Selects the first processor that came, from the selected one on and round.
    fn select_event(&mut self) {
        let numbered = || (0u32..).zip(&self.slots).filter(|(_, slot)| slot.inserted);
        let from = self.regs.selector;
        let next = numbered().find(|(number, _)| *number >= from).or_else(|| numbered().next());
        if let Some((number, _)) = next {
            self.regs.selector = number;
        }
    }
}

impl Device for CpuHotplug {
    fn read(&mut self, at: At, data: &mut [u8]) {
        let block = if self.regs.selecting { self.block() } else { self.bitmap() };
        read_bytes(at, data, |offset| {
            let byte = usize::try_from(offset).ok().and_then(|offset| block.get(offset));
            byte.copied().unwrap_or(0xff)
        });
    }

    fn write(&mut self, at: At, data: &[u8]) {
        let value = u32::try_from(value_of(data) & 0xffff_ffff).unwrap_or(0);
        if !self.regs.selecting {
            self.regs.selecting = at.offset == 0 && value == 0;
            return;
        }
        if at.offset == 0 {
            self.regs.selector = value;
            return;
        }
        let [byte, ..] = value.to_le_bytes();
        let Some(slot) = self.selected() else { return };
        match at.offset {
            4 if byte & INSERTED != 0 => slot.inserted = false,
            5 => {
                self.regs.command = byte;
                if byte == NEXT_EVENT {
                    self.select_event();
                }
            }
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.regs = state::Registers::default();
    }

    fn save(&self) -> Result<Blob, StateError> {
        let present = self.slots.iter().map(|slot| slot.present).collect();
        let inserted = self.slots.iter().map(|slot| slot.inserted).collect();
        Blob::new(1, &state::Registers { present, inserted, ..self.regs.clone() })
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        let regs: state::Registers = blob.parse(1, &[])?;
        if !self.slots.iter().map(|slot| slot.present).eq(regs.present.iter().copied()) {
            return Err(invalid("other processors are there than in the saved state"));
        }
        if regs.inserted.len() != self.slots.len() {
            return Err(invalid("it tells of another number of processors"));
        }
        for (slot, inserted) in self.slots.iter_mut().zip(&regs.inserted) {
            slot.inserted = *inserted && slot.present;
        }
        self.regs = state::Registers { present: Vec::new(), inserted: Vec::new(), ..regs };
        Ok(())
    }
}

mod state {
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Default, Serialize, Deserialize)]
    #[serde(default)]
    pub(super) struct Registers {
        /// The second mode is on.
        pub(super) selecting: bool,
        pub(super) selector: u32,
        pub(super) command: u8,
        /// Of each processor; of use in saved state alone, as is the next.
        pub(super) present: Vec<bool>,
        pub(super) inserted: Vec<bool>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{inb, outb};

    fn cell() -> Arc<DeviceCell<CpuHotplug>> {
        let ids = [0, 1, 4, 5, 8];
        let processors = ids.map(|apic_id| Processor { apic_id, present: apic_id < 2 });
        CpuHotplug::new("cpus", &processors)
    }

    fn inl(device: &mut CpuHotplug, offset: u64) -> u32 {
        let mut data = [0xff; 4];
        device.read(At { region: 0, offset }, &mut data);
        u32::from_le_bytes(data)
    }

    fn outl(device: &mut CpuHotplug, offset: u64, value: u32) {
        device.write(At { region: 0, offset }, &value.to_le_bytes());
    }

    #[test]
    fn the_bit_map_is_by_apic_id() {
        let cell = cell();
        let mut device = cell.lock();
        device.add(2);
        device.add(4);
        device.add(77);
        assert_eq!(inl(&mut device, 0), 0x113);
        assert_eq!(inb(&mut *device, 31), 0);
        outl(&mut device, 0, 1);
        outb(&mut *device, 4, 2);
        assert_eq!(inl(&mut device, 0), 0x113, "read-only");
        assert!(device.is_present(4) && !device.is_present(3) && device.room() == 5);
    }

    #[test]
    fn events_are_found_in_turn_and_told_once() {
        let cell = cell();
        let mut device = cell.lock();
        outl(&mut device, 0, 0);
        outb(&mut *device, 5, 0);
        assert_eq!((inb(&mut *device, 4), inl(&mut device, 8)), (1, 0), "nothing came");
        device.add(3);
        device.add(2);
        let mut found = Vec::new();
        for _ in 0..3 {
            outb(&mut *device, 5, 0);
            if inb(&mut *device, 4) & 2 != 0 {
                found.push(inl(&mut device, 8));
                outb(&mut *device, 5, 3);
                found.push(inl(&mut device, 8));
                outb(&mut *device, 4, 2);
            }
        }
        assert_eq!(found, [2, 4, 3, 5]);
        // Round to a lower number.
        device.add(4);
        outl(&mut device, 0, 4);
        outb(&mut *device, 4, 2);
        device.add(1);
        outb(&mut *device, 5, 0);
        assert_eq!(inl(&mut device, 8), 1);
    }

    #[test]
    fn a_wrong_selector_leads_nowhere() {
        let cell = cell();
        let mut device = cell.lock();
        outl(&mut device, 0, 0);
        for selector in [5, u32::MAX] {
            device.add(2);
            outl(&mut device, 0, selector);
            outb(&mut *device, 4, 2);
            outb(&mut *device, 5, 0);
            let all: Vec<_> = (0..8).map(|word| inl(&mut device, word * 4)).collect();
            assert_eq!(all, [0; 8]);
        }
        outl(&mut device, 0, 2);
        assert_eq!(inb(&mut *device, 4), 3);
        outl(&mut device, 0, 3);
        assert_eq!(inb(&mut *device, 4), 0);
    }

    #[test]
    fn state_is_that_of_a_machine_with_the_same_processors() {
        let (old, new) = (cell(), cell());
        old.lock().add(3);
        outl(&mut old.lock(), 0, 0);
        outl(&mut old.lock(), 0, 3);
        let saved = old.lock().save().unwrap();
        let error = new.lock().load(&saved).unwrap_err().to_string();
        assert!(error.contains("other processors"), "{error}");
        new.lock().add(3);
        new.lock().reset();
        assert!(new.lock().has_news(), "a guest that wakes up is told");
        new.lock().forget_news();
        assert!(!new.lock().has_news());
        assert_eq!(inl(&mut new.lock(), 0), 0x23);
        new.lock().load(&saved).unwrap();
        assert_eq!(inb(&mut *new.lock(), 4), 3);
        assert_eq!(new.lock().save().unwrap(), saved);
    }
}
