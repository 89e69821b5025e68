//! ELF kernels: reading the headers, loading the segments, and the 64-bit entry of a Linux
//! vmlinux (System V ABI, chapters 4 and 5; Linux, Documentation/arch/x86/boot.rst).
//!
//! Main thread, machine stopped. All fields are untrusted: tables are bounded before they are
//! read, and segments are claimed in guest RAM before they are loaded.

use vm_memory::{GuestAddress, GuestMemory};

use super::bytes::{u16_at, u32_at, u64_at};
use super::image::Image;
use super::layout::ZERO_PAGE;
use super::linux::{
    CMDLINE_MAX, INITRD_LIMIT, load_initrd, plain_header, write_cmdline, write_zero_page,
};
use super::place::Placer;
use super::{Error, Part};
use crate::cpu::setup::Entry;

const MAGIC: &[u8] = b"\x7fELF";
const CLASS_32: u8 = 1;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const TYPE_EXEC: u16 = 2;
const TYPE_DYN: u16 = 3;
const MACHINE_386: u16 = 3;
const MACHINE_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// No kernel comes near this many program headers.
const SEGMENTS_MAX: u16 = 128;
/// The notes of a kernel are a few hundred bytes; of longer ones the rest is not looked at.
const NOTES_MAX: u64 = 65536;

/// Whether the file's first bytes are an ELF header.
pub(super) fn recognise(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// What a loader needs to know of an ELF file.
#[derive(Debug)]
pub(super) struct Elf {
    /// 64-bit code at the entry.
    pub(super) is_64: bool,
    entry: u64,
    segments: Vec<Segment>,
    notes: Vec<Segment>,
}

/// One program header.
#[derive(Debug, Clone, Copy)]
struct Segment {
    offset: u64,
    file_size: u64,
    virt: u64,
    phys: u64,
    memory_size: u64,
}

impl Segment {
    fn parse(header: &[u8], is_64: bool) -> Option<(u32, Self)> {
        let kind = u32_at(header, 0)?;
        let word = |at| u32_at(header, at).map(u64::from);
        let segment = if is_64 {
            Self {
                offset: u64_at(header, 8)?,
                virt: u64_at(header, 16)?,
                phys: u64_at(header, 24)?,
                file_size: u64_at(header, 32)?,
                memory_size: u64_at(header, 40)?,
            }
        } else {
            Self {
                offset: word(4)?,
                virt: word(8)?,
                phys: word(12)?,
                file_size: word(16)?,
                memory_size: word(20)?,
            }
        };
        Some((kind, segment))
    }
}

impl Elf {
    /// Reads the headers of a file that begins with `head`.
    pub(super) fn parse(image: &Image, head: &[u8]) -> Result<Self, Error> {
        let refused = |reason: String| image.refused(reason);
        let short = || image.refused("it ends within the ELF header");
        let class = *head.get(4).ok_or_else(short)?;
        let is_64 = match class {
            CLASS_32 => false,
            CLASS_64 => true,
            _ => return Err(refused(format!("its ELF class is {class}"))),
        };
        if head.get(5) != Some(&LITTLE_ENDIAN) {
            return Err(refused("it is not a little-endian ELF file".into()));
        }
        let half = |at| u16_at(head, at).ok_or_else(short);
        let (kind, machine) = (half(16)?, half(18)?);
        if ![TYPE_EXEC, TYPE_DYN].contains(&kind) {
            return Err(refused(format!("it is not an executable (ELF type {kind})")));
        }
        if machine != if is_64 { MACHINE_X86_64 } else { MACHINE_386 } {
            return Err(refused(format!("it is not for x86 (ELF machine {machine})")));
        }
        let (entry, table, size, count, size_wanted) = if is_64 {
            let word = |at| u64_at(head, at).ok_or_else(short);
            (word(24)?, word(32)?, half(54)?, half(56)?, 56)
        } else {
            let word = |at| u32_at(head, at).map(u64::from).ok_or_else(short);
            (word(24)?, word(28)?, half(42)?, half(44)?, 32)
        };
        if count > SEGMENTS_MAX || (count > 0 && size != size_wanted) {
            return Err(refused(format!("it has {count} program headers of {size} bytes")));
        }

        let file_len = image.len()?;
        let bytes = image.read_at(table, usize::from(size) * usize::from(count))?;
        let headers = bytes.chunks_exact(usize::from(size_wanted));
        if headers.len() != usize::from(count) {
            return Err(refused(format!("its program headers at {table:#x} are beyond its end")));
        }
        let mut elf = Self { is_64, entry, segments: Vec::new(), notes: Vec::new() };
        for (index, header) in headers.enumerate() {
            let Some((kind, segment)) = Segment::parse(header, is_64) else { continue };
            let list = match kind {
                PT_LOAD if segment.memory_size > 0 || segment.file_size > 0 => &mut elf.segments,
                PT_NOTE => &mut elf.notes,
                _ => continue,
            };
            let end = segment.offset.checked_add(segment.file_size);
            if end.is_none_or(|end| end > file_len) {
                return Err(refused(format!(
                    "segment {index} ({:#x} bytes at {:#x}) is beyond its end",
                    segment.file_size, segment.offset
                )));
            }
            if kind == PT_LOAD && segment.file_size > segment.memory_size {
                return Err(refused(format!("segment {index} is larger in it than in memory")));
            }
            list.push(segment);
        }
        Ok(elf)
    }

    /// The value of the first note of `kind` that `owner` (with its NUL) left, at most 8 bytes.
    pub(super) fn note(
        &self,
        image: &Image,
        owner: &[u8],
        kind: u32,
    ) -> Result<Option<u64>, Error> {
        for segment in &self.notes {
            let bytes = image.read_at(segment.offset, segment.file_size.min(NOTES_MAX) as usize)?;
            if let Some(value) = find_note(&bytes, owner, kind) {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Loads the segments to their physical addresses.
    pub(super) fn load_segments<M: GuestMemory>(
        &self,
        image: &Image,
        placer: &mut Placer<'_, M>,
    ) -> Result<(), Error> {
        if self.segments.is_empty() {
            return Err(image.refused("it has nothing to load"));
        }
        // All are claimed before one is read: a bad image costs no reading.
        for (index, s) in self.segments.iter().enumerate() {
            placer
                .claim(s.phys, s.memory_size, &format!("loaded segment {index}"))
                .map_err(|reason| image.refused(reason))?;
        }
        for s in &self.segments {
            placer.copy(image, s.offset, s.file_size, s.phys)?;
            placer
                .zero(s.phys.saturating_add(s.file_size), s.memory_size - s.file_size)
                .map_err(|reason| image.refused(reason))?;
        }
        Ok(())
    }

    /// The physical address of the entry. Most kernels give that; an entry that lies in no
    /// segment's physical range but in a virtual one is taken as virtual.
    pub(super) fn entry<M: GuestMemory>(
        &self,
        image: &Image,
        placer: &Placer<'_, M>,
    ) -> Result<u64, Error> {
        if placer.holds(self.entry) {
            return Ok(self.entry);
        }
        self.segments
            .iter()
            .find_map(|s| {
                let offset = self.entry.checked_sub(s.virt)?;
                (offset < s.memory_size).then(|| s.phys.checked_add(offset))?
            })
            .ok_or_else(|| {
                image.refused(format!("its entry {:#x} is in none of its segments", self.entry))
            })
    }
}

/// Walks ELF notes: three words (name size, value size, kind), then name and value, each padded to
/// a multiple of four.
fn find_note(mut notes: &[u8], owner: &[u8], kind: u32) -> Option<u64> {
    let padded = |size: u32| (size as usize).checked_next_multiple_of(4);
    loop {
        let (name_size, value_size, this) =
            (u32_at(notes, 0)?, u32_at(notes, 4)?, u32_at(notes, 8)?);
        let name_end = padded(name_size)?.checked_add(12)?;
        let next = name_end.checked_add(padded(value_size)?)?;
        let name = notes.get(12..)?.get(..name_size as usize)?;
        if this == kind && name == owner {
            let value = notes.get(name_end..)?;
            return match value_size {
                4 => u32_at(value, 0).map(u64::from),
                8 => u64_at(value, 0),
                _ => None,
            };
        }
        notes = notes.get(next..)?;
    }
}

/// Loads a 64-bit vmlinux for its ELF entry, which is the 64-bit entry of the boot protocol.
pub(super) fn load<M: GuestMemory>(
    kernel: &Image,
    elf: &Elf,
    initrd: Option<&Image>,
    cmdline: &str,
    placer: &mut Placer<'_, M>,
) -> Result<Entry, Error> {
    if !elf.is_64 {
        return Err(kernel.refused(
            "it is a 32-bit ELF file with neither a PVH entry note nor a multiboot header",
        ));
    }
    let refused = |reason| kernel.refused(reason);
    elf.load_segments(kernel, placer)?;
    let entry = elf.entry(kernel, placer)?;
    write_cmdline(cmdline, CMDLINE_MAX, placer).map_err(refused)?;
    let initrd: Option<Part> = initrd.map(|i| load_initrd(i, INITRD_LIMIT, placer)).transpose()?;
    write_zero_page(plain_header(), initrd, placer).map_err(refused)?;
    Ok(Entry::Long { rip: GuestAddress(entry), rsi: GuestAddress(ZERO_PAGE) })
}
