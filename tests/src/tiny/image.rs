//! A [`Guest`]'s program as what the machine boots: firmware, or a kernel of each kind.

use iced_x86::code_asm::*;

use super::asm::{self, Guest, ORIGIN};
use super::entry::{self, Blob, ENTRY_64, HEADER, words};
use crate::rig::Result;
use crate::rig::registry::Ctx;
use crate::rig::vm::VmBuilder;

/// Size of the firmware image, which ends at 1 MiB and at 4 GiB.
const FIRMWARE: u64 = 0x1_0000;
const FIRMWARE_LOW: u64 = 0xf_0000;
/// Where in it, and in its segment, the first code is.
pub const START: u64 = 0xe000;
/// Offsets in it: the way out of real mode, and the reset vector.
const PROTECTED: u64 = 0xe100;
const GDT: u64 = 0xe200;
const RESET: u64 = 0xfff0;

impl Guest {
    /// The program as firmware: it starts at the reset vector.
    pub fn firmware(self) -> Result<Vec<u8>> {
        let program = self.assemble()?;
        let mut image = Blob::default();
        image.put(FIRMWARE - 1, &[0])?;
        image.put(0, &program)?;
        let to = FIRMWARE_LOW + PROTECTED;
        image.put(START, &entry::real_to_protected(START, FIRMWARE_LOW + GDT, to)?)?;
        image.put(PROTECTED, &copy_up(program.len())?)?;
        image.put(GDT, &words(&entry::DESCRIPTORS))?;
        image.put(RESET, &reset_vector())?;
        Ok(image.bytes)
    }

    /// A machine of 16 MiB with the program as its firmware.
    pub fn vm(self, ctx: &Ctx) -> Result<VmBuilder> {
        boot(ctx, "-bios", &self.firmware()?)
    }
}

/// The forms of a kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kernel {
    /// ELF with a multiboot 1 header.
    Multiboot,
    /// No ELF: the multiboot header tells all.
    RawMultiboot,
    /// ELF with the note that names a PVH entry.
    Pvh,
    /// ELF with a 64-bit entry.
    Elf,
    /// Linux's bzImage with a 64-bit entry.
    BzImage,
}

impl Kernel {
    /// `guest` as a kernel of this form. From [`DATA`](asm::DATA) on, memory is not its own.
    pub fn image(self, guest: Guest) -> Result<Vec<u8>> {
        let mut program = Blob { bytes: guest.assemble()? };
        match self {
            Self::Multiboot => {
                program.put(HEADER, &multiboot_header(&[]))?;
                elf_32(&program.bytes)
            }
            Self::RawMultiboot => {
                let start = ORIGIN as u32;
                let load_end = start + u32::try_from(program.bytes.len())?;
                let header = start + HEADER as u32;
                let fields = [header, start, load_end, asm::DATA, start];
                program.put(HEADER, &multiboot_header(&fields))?;
                Ok(program.bytes)
            }
            Self::Pvh => {
                let mut note = Vec::new();
                for word in [4, 4, 18] {
                    note.extend_from_slice(&u32::to_le_bytes(word));
                }
                note.extend_from_slice(b"Xen\0");
                note.extend_from_slice(&(ORIGIN as u32).to_le_bytes());
                elf_64(&program.bytes, &note)
            }
            Self::Elf => elf_64(&program.bytes, &[]),
            Self::BzImage => bz_image(&program.bytes),
        }
    }
}

/// The header, with its address fields if there are any.
fn multiboot_header(addresses: &[u32]) -> Vec<u8> {
    const MAGIC: u32 = 0x1bad_b002;
    // Modules on pages, and memory information; addresses.
    let flags = if addresses.is_empty() { 3 } else { 0x1_0003 };
    let checksum = 0u32.wrapping_sub(MAGIC).wrapping_sub(flags);
    let words = [MAGIC, flags, checksum];
    words.iter().chain(addresses).flat_map(|word| word.to_le_bytes()).collect()
}

/// Where in an ELF file the program is.
const SEGMENT: u64 = 0x1000;
/// What the program takes in memory.
const MEMORY_SIZE: u64 = asm::DATA as u64 - ORIGIN;

fn elf_ident(class: u8) -> [u8; 16] {
    let mut ident = *b"\x7fELF\0\x01\x01\0\0\0\0\0\0\0\0\0";
    ident[4] = class;
    ident
}

fn elf_32(program: &[u8]) -> Result<Vec<u8>> {
    let half = |value: u16| value.to_le_bytes().to_vec();
    let word = |value: u64| (value as u32).to_le_bytes().to_vec();
    let mut file = Blob::default();
    // Executable, 80386, version 1.
    let header = [half(2), half(3), word(1), word(ORIGIN), word(52), word(0), word(0)];
    let sizes = [52, 32, 1, 40, 0, 0].map(half);
    file.put(0, &elf_ident(1))?;
    file.put(16, &[header.concat(), sizes.concat()].concat())?;
    let len = program.len() as u64;
    let segment = [1, SEGMENT, ORIGIN, ORIGIN, len, MEMORY_SIZE, 7, 0x1000].map(word);
    file.put(52, &segment.concat())?;
    file.put(SEGMENT, program)?;
    Ok(file.bytes)
}

fn elf_64(program: &[u8], note: &[u8]) -> Result<Vec<u8>> {
    const NOTE: u64 = 0x200;
    let half = |value: u16| value.to_le_bytes().to_vec();
    let word = |value: u32| value.to_le_bytes().to_vec();
    let mut file = Blob::default();
    let segments = if note.is_empty() { 1 } else { 2 };
    // Executable, x86-64, version 1.
    let header = [
        half(2),
        half(62),
        word(1),
        words(&[ORIGIN + ENTRY_64, 64, 0]),
        word(0),
        half(64),
        half(56),
        half(segments),
        half(64),
        half(0),
        half(0),
    ];
    file.put(0, &elf_ident(2))?;
    file.put(16, &header.concat())?;
    let mut segment = |at: u64, kind: u32, fields: [u64; 6]| {
        file.put(at, &[word(kind), word(7), words(&fields)].concat())
    };
    let len = program.len() as u64;
    segment(64, 1, [SEGMENT, ORIGIN, ORIGIN, len, MEMORY_SIZE, 0x1000])?;
    if !note.is_empty() {
        let len = note.len() as u64;
        segment(64 + 56, 4, [NOTE, 0, 0, len, len, 4])?;
        file.put(NOTE, note)?;
    }
    file.put(SEGMENT, program)?;
    Ok(file.bytes)
}

/// A bzImage of the boot protocol 2.15: one sector of set-up code, which nobody runs, with the
/// header in it, and the program.
fn bz_image(program: &[u8]) -> Result<Vec<u8>> {
    let mut file = Blob::default();
    file.put(0x1f1, &[1])?;
    file.put(0x1fe, &[0x55, 0xaa])?;
    // A jump over the header.
    file.put(0x200, &[0xeb, 0x66])?;
    file.put(0x202, b"HdrS\x0f\x02")?;
    // Loaded high, at 1 MiB.
    file.put(0x211, &[1])?;
    file.put(0x214, &(ORIGIN as u32).to_le_bytes())?;
    file.put(0x22c, &0x7fff_ffffu32.to_le_bytes())?;
    // Not relocatable; a 64-bit entry; what command line it takes.
    file.put(0x230, &0x20_0000u32.to_le_bytes())?;
    file.put(0x236, &[1, 0])?;
    file.put(0x238, &2047u32.to_le_bytes())?;
    file.put(0x258, &ORIGIN.to_le_bytes())?;
    file.put(0x260, &(MEMORY_SIZE as u32).to_le_bytes())?;
    let sectors = program.len().div_ceil(16) as u32;
    file.put(0x1f4, &sectors.to_le_bytes())?;
    file.put(0x400, program)?;
    file.bytes.resize(0x400 + program.len().next_multiple_of(16), 0);
    Ok(file.bytes)
}

/// Firmware that is nothing but 16-bit code: it starts at F000:E000 in real mode.
pub fn real_mode(mut code: CodeAssembler) -> Result<Vec<u8>> {
    let mut image = Blob::default();
    image.put(FIRMWARE - 1, &[0])?;
    image.put(START, &code.assemble(START)?)?;
    image.put(RESET, &reset_vector())?;
    Ok(image.bytes)
}

/// A machine of 16 MiB that boots `image` by `option`.
pub fn boot(ctx: &Ctx, option: &str, image: &[u8]) -> Result<VmBuilder> {
    let path = ctx.dir.join("image");
    std::fs::write(&path, image)?;
    let path = path.to_str().ok_or("a path that is no text")?;
    Ok(ctx.vm().memory("16").args([option, path]))
}

/// `jmp F000:START`.
fn reset_vector() -> [u8; 5] {
    let [low, high] = (START as u16).to_le_bytes();
    [0xea, low, high, 0x00, 0xf0]
}

/// Copies the program from the firmware to its place and goes there.
fn copy_up(len: usize) -> Result<Vec<u8>> {
    let mut a = CodeAssembler::new(32)?;
    a.mov(eax, 0x10)?;
    for segment in [ds, es, ss] {
        a.mov(segment, ax)?;
    }
    a.mov(esi, FIRMWARE_LOW as u32)?;
    a.mov(edi, ORIGIN as u32)?;
    a.mov(ecx, u32::try_from(len.div_ceil(4))?)?;
    a.rep().movsd()?;
    a.mov(eax, ORIGIN as u32)?;
    a.jmp(eax)?;
    Ok(a.assemble(FIRMWARE_LOW + PROTECTED)?)
}
