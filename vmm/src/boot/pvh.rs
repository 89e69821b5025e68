//! The PVH entry of an ELF kernel: 32-bit protected mode with a start info structure (Xen,
//! docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h).
//!
//! Main thread, machine stopped. The note with the entry point is the image's word: it must lie in
//! a segment that was loaded.

use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{ByteValued, GuestAddress, GuestMemory};

use super::Error;
use super::elf::Elf;
use super::image::Image;
use super::layout::{CMDLINE, CMDLINE_SPACE, START_INFO, ZERO_PAGE};
use super::linux::{INITRD_LIMIT, load_initrd, write_cmdline};
use super::place::Placer;
use crate::cpu::setup::Entry;

/// The note's owner, with its NUL.
const OWNER: &[u8] = b"Xen\0";
/// XEN_ELFNOTE_PHYS32_ENTRY.
const PHYS32_ENTRY: u32 = 18;
const MODULES: u64 = START_INFO + size_of::<hvm_start_info>() as u64;
const MEMORY_MAP: u64 = MODULES + size_of::<hvm_modlist_entry>() as u64;
/// How many memory map entries fit behind that in the page.
const MAP_MAX: usize = (ZERO_PAGE - MEMORY_MAP) as usize / size_of::<hvm_memmap_table_entry>();

/// The PVH entry point of an ELF file, if it has one.
pub(super) fn entry_note(image: &Image, elf: &Elf) -> Result<Option<u64>, Error> {
    elf.note(image, OWNER, PHYS32_ENTRY)
}

/// Loads a kernel for its PVH entry point `entry`.
pub(super) fn load<M: GuestMemory>(
    kernel: &Image,
    elf: &Elf,
    entry: u64,
    initrd: Option<&Image>,
    cmdline: &str,
    placer: &mut Placer<'_, M>,
) -> Result<Entry, Error> {
    let refused = |reason| kernel.refused(reason);
    elf.load_segments(kernel, placer)?;
    if !placer.holds(entry) {
        return Err(refused(format!("its PVH entry {entry:#x} is in none of its segments")));
    }
    write_cmdline(cmdline, CMDLINE_SPACE, placer).map_err(refused)?;

    let mut info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: 1,
        cmdline_paddr: CMDLINE,
        rsdp_paddr: placer.target().rsdp.unwrap_or(0),
        ..Default::default()
    };
    if let Some(initrd) = initrd {
        let part = load_initrd(initrd, INITRD_LIMIT, placer)?;
        let module = hvm_modlist_entry { paddr: part.start, size: part.len, ..Default::default() };
        placer.write(MODULES, module.as_slice()).map_err(refused)?;
        info.nr_modules = 1;
        info.modlist_paddr = MODULES;
    }
    let map: Vec<u8> = placer
        .target()
        .layout
        .memory_map()
        .iter()
        .take(MAP_MAX)
        .flat_map(|range| {
            let entry = hvm_memmap_table_entry {
                addr: range.start,
                size: range.len,
                type_: range.kind as u32,
                reserved: 0,
            };
            entry.as_slice().to_vec()
        })
        .collect();
    placer.write(MEMORY_MAP, &map).map_err(refused)?;
    info.memmap_paddr = MEMORY_MAP;
    info.memmap_entries = (map.len() / size_of::<hvm_memmap_table_entry>()) as u32;
    placer.write(START_INFO, info.as_slice()).map_err(refused)?;
    Ok(Entry::Pvh { rip: GuestAddress(entry), start_info: GuestAddress(START_INFO) })
}
