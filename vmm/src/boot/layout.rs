//! Where things are in guest-physical memory: the `pc` machine's RAM and the structures a direct
//! boot puts in low memory.
//!
//! Pure arithmetic on the size of RAM, used on the main thread while a machine is built or reset;
//! nothing from the guest reaches it.
//!
//! ```text
//! 0x0_0000_0500  GDT and IDT
//! 0x0_0000_6000  PVH start info, its modules and memory map          (one page)
//! 0x0_0000_7000  zero page: Linux's struct boot_params               (one page)
//! 0x0_0000_9000  page tables of the 64-bit entry, 4 GiB mapped 1:1   (seven pages at most)
//! 0x0_0002_0000  command line                                        (64 KiB at most)
//! 0x0_0003_0000  multiboot information and its strings               (64 KiB at most)
//! 0x0_0009_FC00  extended BIOS data area: reserved, so that no kernel allocates it
//! 0x0_000A_0000  VGA window and option ROMs
//! 0x0_000E_0000  RSDP and ACPI tables                                (96 KiB)
//! 0x0_000F_8000  page tables of a guest that wakes up in 64-bit mode  (seven pages)
//! 0x0_0010_0000  kernel, anything up to the end of low RAM; the initrd at the very end
//!                PCI hole
//! 0x0_FEC0_0000  IOAPIC      0x0_FEE0_0000  local APIC
//! 0x0_FEFF_C000  KVM's identity map and TSS for processors without unrestricted guests
//! 0x0_FF00_0000  firmware, up to 16 MiB, ending at 4 GiB
//! 0x1_0000_0000  the rest of RAM
//! ```

use std::ops::Range;

use resources::ram::ABOVE_4G;

/// The global descriptor table for an entry without firmware.
pub const GDT: u64 = 0x500;
/// The (empty) interrupt descriptor table for an entry without firmware.
pub const IDT: u64 = 0x580;
/// `struct hvm_start_info` of the PVH protocol; its module list and memory map share the page.
pub const START_INFO: u64 = 0x6000;
/// `struct boot_params` of the Linux boot protocol, 4096 bytes.
pub const ZERO_PAGE: u64 = 0x7000;
/// First page table page (PML4) for the 64-bit entry; PDPT and four page directories may follow.
pub const PAGE_TABLES: u64 = 0x9000;
/// End of the space for page tables.
pub const PAGE_TABLES_END: u64 = 0x1_0000;
/// The kernel command line with its terminating NUL.
pub const CMDLINE: u64 = 0x2_0000;
/// Space for the command line, NUL included.
pub const CMDLINE_SPACE: u64 = 0x1_0000;
/// The multiboot information structure, followed by everything it points to.
pub const MULTIBOOT_INFO: u64 = 0x3_0000;
/// Space for the multiboot information.
pub const MULTIBOOT_SPACE: u64 = 0x1_0000;
/// End of what the loaders use below the kernel: no image may load anything under this address.
pub const BOOT_AREA_END: u64 = MULTIBOOT_INFO + MULTIBOOT_SPACE;

/// Extended BIOS data area: the end of conventional memory.
pub const EBDA: u64 = 0x9_fc00;
/// The VGA window, end of the first 640 KiB.
pub const VGA: u64 = 0xa_0000;
/// The ACPI root pointer, where a guest without firmware or start info searches for it.
pub const ACPI_RSDP: u64 = 0xe_0000;
/// Page tables for a guest that wakes up in 64-bit mode, laid out as [`PAGE_TABLES`], with one more
/// page directory for what is above 4 GiB.
pub const WAKING_TABLES: u64 = 0xf_8000;
/// End of the space for ACPI tables, which may follow the RSDP, and for [`WAKING_TABLES`].
pub const ACPI_END: u64 = 0x10_0000;
/// One mebibyte: the start of extended memory, where kernels live.
pub const HIGH_MEMORY: u64 = 0x10_0000;

/// The I/O APIC's registers.
pub const IOAPIC: u64 = 0xfec0_0000;
/// The local APICs' registers.
pub const LAPIC: u64 = 0xfee0_0000;
/// One page KVM maps one to one for real mode on processors without unrestricted guests.
pub const KVM_IDENTITY_MAP: u64 = 0xfeff_c000;
/// Three pages KVM uses as a TSS on such processors.
pub const KVM_TSS: u64 = 0xfeff_d000;
/// The lowest address firmware can start at.
pub const FIRMWARE_MIN: u64 = 0xff00_0000;

/// How the machine's RAM lies in guest-physical space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RamLayout {
    /// Bytes of RAM starting at address 0.
    pub low: u64,
    /// Bytes of RAM starting at 4 GiB; 0 for none.
    pub high: u64,
}

impl RamLayout {
    /// RAM of `size` bytes as [`resources::ram`] lays it out.
    pub fn of_size(size: u64) -> Self {
        let mut layout = Self { low: 0, high: 0 };
        for (start, len) in resources::ram::layout(size) {
            if start == 0 {
                layout.low = len;
            } else {
                layout.high = len;
            }
        }
        layout
    }

    /// The low RAM an image may be loaded into: conventional memory and everything from 1 MiB up.
    pub fn loadable(&self) -> [Range<u64>; 2] {
        [0..self.low.min(EBDA), HIGH_MEMORY..self.low.max(HIGH_MEMORY)]
    }

    /// The memory map a kernel is given, in ascending order (the e820 map of the Linux boot
    /// protocol; PVH and multiboot use the same types).
    ///
    /// The VGA window is left out rather than reserved: it belongs to whichever PCI device claims
    /// it.
    pub fn memory_map(&self) -> Vec<MemoryRange> {
        use MemoryKind::{Ram, Reserved};
        let [conventional, extended] = self.loadable();
        [
            (conventional, Ram),
            (EBDA..VGA, Reserved),
            (ACPI_RSDP..ACPI_END, Reserved),
            (extended, Ram),
            (KVM_IDENTITY_MAP..FIRMWARE_MIN, Reserved),
            (ABOVE_4G..ABOVE_4G.saturating_add(self.high), Ram),
        ]
        .into_iter()
        .filter(|(range, _)| !range.is_empty())
        .map(|(range, kind)| MemoryRange { start: range.start, len: range.end - range.start, kind })
        .collect()
    }
}

/// One entry of the memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryRange {
    /// First guest-physical address.
    pub start: u64,
    /// Length in bytes, never 0.
    pub len: u64,
    /// What the guest may do with it.
    pub kind: MemoryKind,
}

/// The type of a memory range, numbered as in the ACPI specification, table "Address Range Types"
/// (E820, PVH and multiboot share the numbers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum MemoryKind {
    /// Usable by the operating system.
    Ram = 1,
    /// In use by the platform.
    Reserved = 2,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn memory_map_of_six_gib() {
        let map: Vec<_> = RamLayout::of_size(6 * GIB)
            .memory_map()
            .iter()
            .map(|r| (r.start, r.start + r.len, r.kind as u32))
            .collect();
        assert_eq!(
            map,
            [
                (0, 0x9_fc00, 1),
                (0x9_fc00, 0xa_0000, 2),
                (0xe_0000, 0x10_0000, 2),
                (0x10_0000, 0xc000_0000, 1),
                (0xfeff_c000, 0xff00_0000, 2),
                (0x1_0000_0000, 0x1_c000_0000, 1),
            ]
        );
    }

    #[test]
    fn low_structures_do_not_overlap() {
        let used = [
            (GDT, IDT),
            (IDT, IDT + 16),
            (START_INFO, ZERO_PAGE),
            (ZERO_PAGE, ZERO_PAGE + 4096),
            (PAGE_TABLES, PAGE_TABLES_END),
            (CMDLINE, CMDLINE + CMDLINE_SPACE),
            (MULTIBOOT_INFO, BOOT_AREA_END),
            (BOOT_AREA_END, EBDA),
            (EBDA, VGA),
        ];
        assert!(used.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    }

    proptest! {
        #[test]
        fn memory_map_is_sorted_and_covers_ram(size in 0u64..1 << 46) {
            let layout = RamLayout::of_size(size);
            prop_assert_eq!(layout.low + layout.high, size);
            let map = layout.memory_map();
            prop_assert!(map.windows(2).all(|w| w[0].start + w[0].len <= w[1].start));
            for range in map.iter().filter(|r| r.kind == MemoryKind::Ram) {
                let end = range.start + range.len;
                let inside = end <= layout.low
                    || (ABOVE_4G..=ABOVE_4G + layout.high).contains(&range.start)
                        && end <= ABOVE_4G + layout.high;
                prop_assert!(inside);
            }
        }
    }
}
