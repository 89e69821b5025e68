//! The zero page (`struct boot_params`), by which Linux is told its memory map, command line and
//! initrd (Linux, Documentation/arch/x86/boot.rst and zero-page.rst).
//!
//! Main thread, machine stopped. The setup header in it may come from an untrusted image: it is
//! only handed back to the guest, its fields are judged in `bzimage`.

use linux_loader::loader::bootparam::{
    E820_MAX_ENTRIES_ZEROPAGE, LOADED_HIGH, boot_e820_entry, boot_params, setup_header,
};
use vm_memory::{ByteValued, GuestMemory};

use super::image::Image;
use super::layout::{CMDLINE, CMDLINE_SPACE, ZERO_PAGE};
use super::place::Placer;
use super::{Error, Part};

/// `setup_header.header`: "HdrS".
pub(super) const HEADER_MAGIC: u32 = 0x5372_6448;
/// `setup_header.type_of_loader` for a loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;
/// `setup_header.boot_flag`.
const BOOT_FLAG: u16 = 0xaa55;
/// Highest initrd end (exclusive) for a kernel that does not say: what every x86-64 Linux accepts.
pub(super) const INITRD_LIMIT: u64 = 0x8000_0000;
/// What an x86 Linux that does not say copies of its command line (COMMAND_LINE_SIZE less NUL).
pub(super) const CMDLINE_MAX: u64 = 2047;

/// Reads the initrd as high as possible below `limit`.
pub(super) fn load_initrd<M: GuestMemory>(
    initrd: &Image,
    limit: u64,
    placer: &mut Placer<'_, M>,
) -> Result<Part, Error> {
    let len = initrd.len()?;
    if len == 0 {
        return Err(initrd.refused("it is empty"));
    }
    let start = placer.claim_high(len, limit, "the initrd").map_err(|r| initrd.refused(r))?;
    placer.copy(initrd, 0, len, start)?;
    Ok(Part { start, len })
}

/// Writes the command line and its NUL; `max` is the most the kernel takes, without the NUL.
pub(super) fn write_cmdline<M: GuestMemory>(
    cmdline: &str,
    max: u64,
    placer: &Placer<'_, M>,
) -> Result<(), String> {
    let max = max.min(CMDLINE_SPACE - 1);
    if cmdline.len() as u64 > max {
        return Err(format!(
            "the command line has {} bytes and this kernel takes at most {max}",
            cmdline.len()
        ));
    }
    let mut bytes = cmdline.as_bytes().to_vec();
    bytes.push(0);
    placer.write(CMDLINE, &bytes)
}

/// The setup header for a kernel without one (an ELF vmlinux).
pub(super) fn plain_header() -> setup_header {
    setup_header {
        boot_flag: BOOT_FLAG,
        header: HEADER_MAGIC,
        version: 0x20f,
        loadflags: LOADED_HIGH,
        cmdline_size: CMDLINE_MAX as u32,
        ..Default::default()
    }
}

/// Writes the zero page: `header` with the loader's fields filled in, the memory map, the initrd
/// and the command line that [`write_cmdline`] wrote.
pub(super) fn write_zero_page<M: GuestMemory>(
    mut header: setup_header,
    initrd: Option<Part>,
    placer: &Placer<'_, M>,
) -> Result<(), String> {
    let target = placer.target();
    let initrd = initrd.unwrap_or_default();
    header.type_of_loader = LOADER_UNDEFINED;
    (header.cmd_line_ptr, _) = split(CMDLINE);

    let mut page = boot_params {
        acpi_rsdp_addr: target.rsdp.unwrap_or(0),
        ext_cmd_line_ptr: split(CMDLINE).1,
        ..Default::default()
    };
    (header.ramdisk_image, page.ext_ramdisk_image) = split(initrd.start);
    (header.ramdisk_size, page.ext_ramdisk_size) = split(initrd.len);
    page.hdr = header;

    let map = target.layout.memory_map();
    let mut table = [boot_e820_entry::default(); E820_MAX_ENTRIES_ZEROPAGE];
    for (entry, range) in table.iter_mut().zip(&map) {
        *entry = boot_e820_entry { addr: range.start, size: range.len, r#type: range.kind as u32 };
    }
    page.e820_table = table;
    page.e820_entries = map.len().min(table.len()) as u8;
    placer.write(ZERO_PAGE, page.as_slice())
}

/// The low half of a 64-bit value and the high half, which goes to an `ext_` field.
fn split(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}
