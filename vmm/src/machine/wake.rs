//! Where a guest wakes up from S3: what it wrote into the FACS (ACPI specification 6.5, section
//! 5.2.10).
//!
//! Main thread. The structure is in guest RAM: an address in it that no processor can start at is
//! as good as none.

use resources::guest_error;
use resources::ram::GuestMemory;
use vm_memory::{Address, Bytes, GuestAddress};

use crate::cpu::setup::Entry;

/// Offsets in the FACS: the address for real mode, and that for protected mode.
const WAKING_VECTOR: u64 = 12;
const X_WAKING_VECTOR: u64 = 24;
/// What the guest wants besides.
const OSPM_FLAGS: u64 = 36;

/// 64BIT_WAKE_F: the address for protected mode is one for 64-bit mode.
const WAKE_64: u32 = 1;
/// End of what the page tables for that can map.
const LONG_MODE_END: u64 = 1 << 39;

/// End of what real mode reaches.
const REAL_MODE_END: u32 = 0x10_0000;

/// The entry that the FACS at `facs` names. The address for protected mode comes first.
pub(super) fn entry(ram: &GuestMemory, facs: u64) -> Option<Entry> {
    let at = |offset| GuestAddress(facs).checked_add(offset);
    let protected: u64 = ram.read_obj(at(X_WAKING_VECTOR)?).ok()?;
    let real: u32 = ram.read_obj(at(WAKING_VECTOR)?).ok()?;
    let flags: u32 = ram.read_obj(at(OSPM_FLAGS)?).ok()?;
    match (protected, real) {
        (vector @ 1.., _) if flags & WAKE_64 != 0 => match vector {
            ..LONG_MODE_END => Some(Entry::Waking64 { rip: vector }),
            _ => wrong(vector),
        },
        (0, 0) => None,
        (0, vector) if vector < REAL_MODE_END => Some(Entry::RealMode { vector }),
        (vector @ 1.., _) => match u32::try_from(vector) {
            Ok(rip) => Some(Entry::Protected { rip }),
            Err(_) => wrong(vector),
        },
        (_, vector) => wrong(vector.into()),
    }
}

fn wrong(vector: u64) -> Option<Entry> {
    guest_error!("acpi", "cannot wake up at {vector:#x}");
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_says_where_it_wakes_up() {
        let ram = GuestMemory::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        let entry_of = |real: u32, protected: u64| {
            ram.write_obj(real, GuestAddress(0x100 + 12)).unwrap();
            ram.write_obj(protected, GuestAddress(0x100 + 24)).unwrap();
            entry(&ram, 0x100)
        };
        assert_eq!(entry_of(0, 0), None);
        assert_eq!(entry_of(0x9_f123, 0), Some(Entry::RealMode { vector: 0x9_f123 }));
        assert_eq!(entry_of(0x10_0000, 0), None);
        assert_eq!(entry_of(0x9000, 0x20_0000), Some(Entry::Protected { rip: 0x20_0000 }));
        assert_eq!(entry_of(0x9000, 1 << 32), None);
        ram.write_obj(1_u32, GuestAddress(0x100 + 36)).unwrap();
        assert_eq!(entry_of(0x9000, 1 << 32), Some(Entry::Waking64 { rip: 1 << 32 }));
        assert_eq!(entry_of(0x9000, 1 << 39), None);
        assert_eq!(entry_of(0x9000, 0), Some(Entry::RealMode { vector: 0x9000 }));
        assert_eq!(entry(&ram, 0xfff), None);
        assert_eq!(entry(&ram, u64::MAX), None);
    }
}
