//! Looking at an address space from outside the guest: for commands that save, dump or show
//! memory, and for reading page tables.
//!
//! Main thread, mostly; the view is loaded, no lock is taken but those of devices read. Addresses
//! come from clients and from the guest's page tables: all are answered, none is logged or counted.

use std::sync::Arc;

use super::{Mapping, Range, Space, Target, View};
use crate::ram::RamBlock;

/// The widest access to a device that every device is used to, in bytes.
const WIDTH: u64 = 4;

/// Memory (RAM or ROM) in a view.
#[derive(Debug, Clone)]
pub struct MemoryRange {
    /// The first address.
    pub first: u64,
    /// The last address.
    pub last: u64,
    /// The memory there.
    pub block: Arc<RamBlock>,
    /// Where in `block` the range begins.
    pub offset: u64,
    /// The guest cannot write it.
    pub readonly: bool,
}

impl View {
    /// The memory in the view, lowest address first.
    pub fn memory(&self) -> impl Iterator<Item = MemoryRange> {
        self.ranges.iter().filter_map(Range::memory)
    }
}

impl Range {
    fn memory(&self) -> Option<MemoryRange> {
        let Target::Ram { block, offset, readonly } = &self.target else { return None };
        Some(MemoryRange {
            first: self.first,
            last: self.last,
            block: block.clone(),
            offset: offset.saturating_add(self.offset),
            readonly: *readonly,
        })
    }
}

impl Space {
    /// Reads as a debugger: where nothing answers there are zeros. Devices are read in words of at
    /// most 4 bytes, with whatever that does to them.
    pub fn inspect(&self, address: u64, data: &mut [u8]) {
        data.fill(0);
        self.parts(address, data.len(), |range, address, part| {
            let (Some(range), Some(data)) = (range, data.get_mut(part)) else { return };
            if matches!(range.target, Target::Ram { .. }) {
                return range.read(address, data);
            }
            let (mut address, mut rest) = (address, data);
            while !rest.is_empty() {
                let mut width = WIDTH;
                while address % width != 0 || width > rest.len() as u64 {
                    width /= 2;
                }
                let (word, tail) = rest.split_at_mut(width as usize);
                range.read(address, word);
                (address, rest) = (address.saturating_add(width), tail);
            }
        });
    }

    /// Reads memory alone, without side effects; `false`, and zeros in its place, where any of it
    /// is something else.
    pub fn peek(&self, address: u64, data: &mut [u8]) -> bool {
        data.fill(0);
        let mut done = 0;
        self.parts(address, data.len(), |range, address, part| {
            if let (Some(range), Some(data)) = (range, data.get_mut(part))
                && matches!(range.target, Target::Ram { .. })
            {
                range.read(address, data);
                done += data.len();
            }
        });
        done == data.len()
    }

    /// For how many bytes from `address` on nothing answers: 0 where something does; up to the end
    /// of the space where nothing follows.
    pub fn gap(&self, address: u64) -> u64 {
        match self.view.load().find(address) {
            Ok(_) => 0,
            Err(Some(next)) => next.saturating_sub(address),
            Err(None) => self.limit().saturating_sub(address).saturating_add(1),
        }
    }

    /// The enabled mappings, also those that others cover, lowest address first, and of one
    /// address the lowest priority first.
    pub fn mappings(&self) -> Vec<Mapping> {
        let writer = self.writer.lock();
        let enabled = writer.mappings.iter().map(|(_, mapping)| mapping).filter(|m| m.enabled);
        let mut all: Vec<Mapping> = enabled.cloned().collect();
        all.sort_by_key(|mapping| (mapping.base, mapping.priority));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{At, Device, DeviceCell};
    use crate::hv::SpaceKind;
    use crate::hv::fake::Fake;
    use crate::state::{Blob, StateError};

    /// Remembers the accesses it sees and reads as 0x11.
    struct Witness(Vec<(u64, usize)>);

    impl Device for Witness {
        fn read(&mut self, at: At, data: &mut [u8]) {
            self.0.push((at.offset, data.len()));
            data.fill(0x11);
        }
        fn write(&mut self, _: At, _: &[u8]) {}
        fn reset(&mut self) {}
        fn save(&self) -> Result<Blob, StateError> {
            Blob::new(1, &())
        }
        fn load(&mut self, _: &Blob) -> Result<(), StateError> {
            Ok(())
        }
    }

    #[test]
    fn memory_devices_and_gaps_are_told_apart() {
        let space = Space::new(SpaceKind::Memory, Fake::new());
        let ram = RamBlock::anonymous(0x2000).unwrap();
        ram.write(0, &[0x22; 0x2000]);
        let rom = RamBlock::anonymous(0x1000).unwrap();
        let witness = DeviceCell::new("witness", Witness(Vec::new()));
        space.map(Mapping::ram(0x1000, ram)).unwrap();
        space.map(Mapping::device(0x2004, 7, witness.clone(), 0)).unwrap();
        let target = Target::Ram { block: rom, offset: 0x800, readonly: true };
        let base = Mapping::ram(0x8000, RamBlock::anonymous(0x1000).unwrap());
        space.map(Mapping { target, size: 0x800, ..base }).unwrap();

        let mut data = [0xee; 16];
        space.inspect(0x1ffe, &mut data);
        assert_eq!(&data[..6], [0x22; 6]);
        assert_eq!(&data[6..13], [0x11; 7]);
        assert_eq!(&data[13..], [0x22; 3]);
        assert_eq!(std::mem::take(&mut witness.lock().0), [(0, 4), (4, 2), (6, 1)]);
        space.inspect(u64::MAX - 1, &mut data);
        assert_eq!((data, space.misses()), ([0; 16], 0));

        let mut data = [0xee; 8];
        assert!(space.peek(0x1ffc, &mut data));
        assert!(!space.peek(0x1fff, &mut data));
        assert_eq!(&data[..6], [0x22, 0x22, 0x22, 0x22, 0x22, 0]);
        assert!(!space.peek(0xffe, &mut data) && !space.peek(u64::MAX, &mut data));
        assert!(witness.lock().0.is_empty());

        assert_eq!(space.gap(0), 0x1000);
        assert_eq!((space.gap(0x1000), space.gap(0x87ff)), (0, 0));
        assert_eq!(space.gap(0x8800), u64::MAX - 0x8800 + 1);
        assert_eq!(space.gap(u64::MAX), 1);

        let view = space.view();
        let memory: Vec<_> =
            view.memory().map(|range| (range.first, range.offset, range.readonly)).collect();
        assert_eq!(memory, [(0x1000, 0, false), (0x200b, 0x100b, false), (0x8000, 0x800, true)]);
        let bases: Vec<_> = space.mappings().iter().map(|mapping| mapping.base).collect();
        assert_eq!(bases, [0x1000, 0x2004, 0x8000]);
    }
}
