//! bzImage by the 64-bit boot protocol (Linux, Documentation/arch/x86/boot.rst).
//!
//! Main thread, machine stopped. Every field of the setup header is the image's word: sizes and
//! addresses are claimed in guest RAM before anything is read.

use linux_loader::loader::bootparam::{LOADED_HIGH, XLF_KERNEL_64, setup_header};
use vm_memory::{ByteValued, GuestAddress, GuestMemory};

use super::image::Image;
use super::layout::{HIGH_MEMORY, ZERO_PAGE};
use super::linux::{HEADER_MAGIC, load_initrd, write_cmdline, write_zero_page};
use super::place::Placer;
use super::{Error, Part};
use crate::cpu::setup::Entry;

/// Where the setup header starts, in the file and in the zero page.
const HEADER_AT: usize = 0x1f1;
/// The magic within it.
const MAGIC_AT: usize = 0x202;
/// First version with a 64-bit entry (`xloadflags`).
const VERSION_64: u16 = 0x20c;
/// The 64-bit entry is this far into the protected-mode kernel.
const ENTRY_64: u64 = 0x200;
const SECTOR: u64 = 512;
/// The unit of `syssize`.
const PARAGRAPH: u64 = 16;

/// Whether the file's first bytes are a Linux setup sector.
pub(super) fn recognise(head: &[u8]) -> bool {
    head.get(MAGIC_AT..MAGIC_AT + 4) == Some(HEADER_MAGIC.to_le_bytes().as_slice())
}

/// The setup header of a file that begins with `head`.
///
/// The header grew with the protocol; its length follows from the jump over it, and what lies
/// behind is code and not copied.
fn header(head: &[u8]) -> Result<setup_header, String> {
    let end = head.get(MAGIC_AT - 1).map(|jump| MAGIC_AT + usize::from(*jump));
    let size = size_of::<setup_header>();
    let given = end
        .map(|end| end.clamp(MAGIC_AT, HEADER_AT + size))
        .and_then(|end| head.get(HEADER_AT..end))
        .ok_or("it ends within the setup header")?;
    let mut header = setup_header::default();
    if let Some(fields) = header.as_mut_slice().get_mut(..given.len()) {
        fields.copy_from_slice(given);
    }
    Ok(header)
}

/// Where and how big the protected-mode kernel is.
struct Kernel {
    header: setup_header,
    /// Its part of the file.
    offset: u64,
    len: u64,
    /// Where it goes, and the memory it needs there to unpack itself.
    load: u64,
    memory: u64,
}

fn parse(head: &[u8], file_len: u64) -> Result<Kernel, String> {
    let header = header(head)?;
    let version = header.version;
    let (major, minor) = (version >> 8, version & 0xff);
    if version < VERSION_64 {
        return Err(format!(
            "its boot protocol {major}.{minor:02} has no 64-bit entry, which came with 2.12"
        ));
    }
    let xloadflags = header.xloadflags;
    if xloadflags & XLF_KERNEL_64 == 0 {
        return Err("it has no 64-bit entry: a 32-bit kernel?".into());
    }
    if header.loadflags & LOADED_HIGH == 0 {
        return Err("it is a zImage, which loads below 1 MiB".into());
    }

    let sectors = if header.setup_sects == 0 { 4 } else { u64::from(header.setup_sects) };
    let offset = (sectors + 1) * SECTOR;
    let len = u64::from(header.syssize) * PARAGRAPH;
    let available = file_len.saturating_sub(offset);
    if len == 0 || available < len {
        return Err(format!(
            "it is truncated: its header gives {len} bytes of kernel and {available} are there"
        ));
    }

    // A relocatable kernel loaded lower still runs at its preferred address, and one loaded
    // higher gains nothing: the preferred address it is.
    let mut load = header.pref_address;
    if header.relocatable_kernel != 0 {
        let align = u64::from(header.kernel_alignment);
        if !align.is_power_of_two() {
            return Err(format!("its alignment {align:#x} is not a power of two"));
        }
        load = load.checked_next_multiple_of(align).ok_or("its load address is beyond 2^64")?;
    }
    if load < HIGH_MEMORY {
        return Err(format!("its load address {load:#x} is below 1 MiB"));
    }
    let memory = u64::from(header.init_size).max(len);
    if ENTRY_64 >= len {
        return Err(format!("its {len} bytes of kernel end before the 64-bit entry"));
    }
    Ok(Kernel { header, offset, len, load, memory })
}

/// Loads kernel, initrd and command line.
pub(super) fn load<M: GuestMemory>(
    kernel: &Image,
    head: &[u8],
    initrd: Option<&Image>,
    cmdline: &str,
    placer: &mut Placer<'_, M>,
) -> Result<Entry, Error> {
    let refused = |reason| kernel.refused(reason);
    let Kernel { header, offset, len, load, memory } =
        parse(head, kernel.len()?).map_err(refused)?;
    placer.claim(load, memory, "the kernel").map_err(refused)?;
    write_cmdline(cmdline, header.cmdline_size.into(), placer).map_err(refused)?;
    let limit = u64::from(header.initrd_addr_max) + 1;
    let initrd: Option<Part> = initrd.map(|i| load_initrd(i, limit, placer)).transpose()?;
    placer.copy(kernel, offset, len, load)?;
    write_zero_page(header, initrd, placer).map_err(refused)?;
    Ok(Entry::Long { rip: GuestAddress(load + ENTRY_64), rsi: GuestAddress(ZERO_PAGE) })
}
