//! Multiboot 1: ELF kernels, and raw ones whose header gives the addresses (the Multiboot
//! Specification, version 0.6.96).
//!
//! Main thread, machine stopped. Header fields are the image's word: the range they describe must
//! lie in the file and is claimed in guest RAM before it is read.

use vm_memory::{GuestAddress, GuestMemory};

use super::Error;
use super::bytes::u32_at;
use super::elf::Elf;
use super::image::Image;
use super::layout::{EBDA, HIGH_MEMORY, MULTIBOOT_INFO, MULTIBOOT_SPACE};
use super::place::Placer;
use crate::cpu::setup::Entry;

const MAGIC: u32 = 0x1bad_b002;
/// The header lies, 4-byte aligned, in this much of the file.
pub(super) const SEARCH: usize = 8192;

/// Header flags: video information wanted; address fields valid; all that a loader must know.
const WANTS_VIDEO: u32 = 1 << 2;
const HAS_ADDRESSES: u32 = 1 << 16;
const MUST_KNOW: u32 = 0xffff;
const KNOWN: u32 = 0b111;

/// Information flags: which fields of the structure are valid.
const INFO_MEMORY: u32 = 1 << 0;
const INFO_CMDLINE: u32 = 1 << 2;
const INFO_MODULES: u32 = 1 << 3;
const INFO_MAP: u32 = 1 << 6;
const INFO_LOADER: u32 = 1 << 9;
/// Bytes of the information structure.
const INFO_SIZE: usize = 116;

/// A module: its file and the string handed to the kernel with it.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) image: Image,
    pub(super) string: String,
}

/// Splits an initrd option into modules: `FILE ARGS,FILE ARGS`, where `,,` stands for a comma.
pub(super) fn module_strings(list: &str) -> Vec<String> {
    let mut modules = vec![String::new()];
    let mut chars = list.chars().peekable();
    while let Some(c) = chars.next() {
        if c == ',' && chars.next_if_eq(&',').is_none() {
            modules.push(String::new());
        } else if let Some(last) = modules.last_mut() {
            last.push(c);
        }
    }
    modules
}

/// A multiboot header and where in the file it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header<'a> {
    at: usize,
    fields: &'a [u8],
    flags: u32,
}

/// Finds the multiboot header in the first bytes of a file.
pub(super) fn find(head: &[u8]) -> Option<Header<'_>> {
    let head = head.get(..SEARCH).unwrap_or(head);
    (0..head.len()).step_by(4).find_map(|at| {
        let fields = head.get(at..)?;
        let (magic, flags, checksum) = (u32_at(fields, 0)?, u32_at(fields, 4)?, u32_at(fields, 8)?);
        let valid = magic == MAGIC && magic.wrapping_add(flags).wrapping_add(checksum) == 0;
        valid.then_some(Header { at, fields, flags })
    })
}

/// The part of a raw kernel to load, from the header's address fields.
struct Raw {
    offset: u64,
    file_size: u64,
    start: u64,
    memory_size: u64,
    entry: u64,
}

impl Header<'_> {
    /// Whether the header's own addresses describe the kernel, rather than an ELF header.
    fn has_addresses(&self) -> bool {
        self.flags & HAS_ADDRESSES != 0
    }

    fn raw(&self, file_len: u64) -> Result<Raw, String> {
        let field = |at| {
            u32_at(self.fields, at).map(u64::from).ok_or("it ends within its multiboot header")
        };
        let [header, start, load_end, bss_end, entry] =
            [field(12)?, field(16)?, field(20)?, field(24)?, field(28)?];
        let offset = header
            .checked_sub(start)
            .and_then(|before| (self.at as u64).checked_sub(before))
            .ok_or_else(|| format!("its multiboot load address {start:#x} is before the file"))?;
        let available = file_len.saturating_sub(offset);
        // 0 stands for the whole file, and for no bss.
        let file_size = match load_end {
            0 => available,
            end => end.checked_sub(start).ok_or("its multiboot load end is before the start")?,
        };
        if file_size == 0 || file_size > available {
            return Err(format!(
                "its multiboot header gives {file_size} bytes to load and {available} are there"
            ));
        }
        let memory_size = match bss_end {
            0 => file_size,
            end => end
                .checked_sub(start)
                .filter(|size| *size >= file_size)
                .ok_or("its multiboot bss ends before its data")?,
        };
        Ok(Raw { offset, file_size, start, memory_size, entry })
    }
}

/// Loads a multiboot kernel (`elf` if it is one) with its modules.
pub(super) fn load<M: GuestMemory>(
    kernel: &Image,
    header: Header<'_>,
    elf: Option<&Elf>,
    modules: &[Module],
    cmdline: &str,
    placer: &mut Placer<'_, M>,
) -> Result<Entry, Error> {
    let refused = |reason| kernel.refused(reason);
    let unknown = header.flags & MUST_KNOW & !KNOWN;
    if unknown != 0 {
        return Err(refused(format!("its multiboot header requires unknown flags {unknown:#x}")));
    }
    if header.flags & WANTS_VIDEO != 0 {
        tracing::warn!(
            "kernel '{}' asks for a video mode by multiboot; it gets none",
            kernel.path().display()
        );
    }
    let entry = match elf {
        _ if header.has_addresses() => load_raw(kernel, header, placer)?,
        Some(elf) => {
            elf.load_segments(kernel, placer)?;
            elf.entry(kernel, placer)?
        }
        None => {
            return Err(refused(
                "its multiboot header gives no addresses and it is not ELF".into(),
            ));
        }
    };

    let mut info = Info::new();
    info.add_memory(placer);
    let line = format!("{} {cmdline}", kernel.path().display());
    info.flags |= INFO_CMDLINE;
    info.point(16, line.trim_end());
    info.add_modules(modules, placer)?;
    info.flags |= INFO_LOADER;
    info.point(64, "vmm");
    info.write(placer).map_err(refused)?;
    Ok(Entry::Multiboot { rip: GuestAddress(entry), info: GuestAddress(MULTIBOOT_INFO) })
}

fn load_raw<M: GuestMemory>(
    kernel: &Image,
    header: Header<'_>,
    placer: &mut Placer<'_, M>,
) -> Result<u64, Error> {
    let refused = |reason| kernel.refused(reason);
    let raw = header.raw(kernel.len()?).map_err(refused)?;
    placer.claim(raw.start, raw.memory_size, "the kernel").map_err(refused)?;
    if !placer.holds(raw.entry) {
        return Err(refused(format!("its multiboot entry {:#x} is not in it", raw.entry)));
    }
    placer.copy(kernel, raw.offset, raw.file_size, raw.start)?;
    placer.zero(raw.start + raw.file_size, raw.memory_size - raw.file_size).map_err(refused)?;
    Ok(raw.entry)
}

/// The information structure with everything it points to behind it.
struct Info {
    flags: u32,
    bytes: Vec<u8>,
}

impl Info {
    fn new() -> Self {
        Self { flags: 0, bytes: vec![0; INFO_SIZE] }
    }

    /// Puts a number into the structure. Places are constants within it.
    fn set(&mut self, at: usize, value: u32) {
        if let Some(field) = self.bytes.get_mut(at..at + 4) {
            field.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Guest address of what is appended next.
    fn end(&self) -> u32 {
        (MULTIBOOT_INFO as u32).saturating_add(self.bytes.len() as u32)
    }

    /// Appends a NUL-terminated string and puts its address at `at`.
    fn point(&mut self, at: usize, string: &str) {
        self.set(at, self.end());
        self.bytes.extend_from_slice(string.as_bytes());
        self.bytes.push(0);
    }

    /// The sizes of conventional and extended memory in KiB, and the memory map.
    fn add_memory<M: GuestMemory>(&mut self, placer: &Placer<'_, M>) {
        let layout = placer.target().layout;
        self.flags |= INFO_MEMORY | INFO_MAP;
        self.set(4, (layout.low.min(EBDA) / 1024) as u32);
        self.set(8, (layout.low.saturating_sub(HIGH_MEMORY) / 1024) as u32);
        self.set(48, self.end());
        let start = self.bytes.len();
        for range in layout.memory_map() {
            // The size does not count itself.
            self.bytes.extend_from_slice(&20u32.to_le_bytes());
            self.bytes.extend_from_slice(&range.start.to_le_bytes());
            self.bytes.extend_from_slice(&range.len.to_le_bytes());
            self.bytes.extend_from_slice(&(range.kind as u32).to_le_bytes());
        }
        self.set(44, (self.bytes.len() - start) as u32);
    }

    /// Loads the modules behind the kernel, on pages of their own, and lists them.
    fn add_modules<M: GuestMemory>(
        &mut self,
        modules: &[Module],
        placer: &mut Placer<'_, M>,
    ) -> Result<(), Error> {
        if modules.is_empty() {
            return Ok(());
        }
        self.flags |= INFO_MODULES;
        self.set(20, modules.len() as u32);
        self.set(24, self.end());
        let list = self.bytes.len();
        self.bytes.resize(list + 16 * modules.len(), 0);
        for (index, Module { image, string }) in modules.iter().enumerate() {
            let len = image.len()?;
            let start =
                placer.claim_behind(len, "the module").map_err(|reason| image.refused(reason))?;
            placer.copy(image, 0, len, start)?;
            let at = list + 16 * index;
            self.set(at, start as u32);
            self.set(at + 4, (start + len) as u32);
            self.point(at + 8, string);
        }
        Ok(())
    }

    fn write<M: GuestMemory>(mut self, placer: &Placer<'_, M>) -> Result<(), String> {
        if self.bytes.len() as u64 > MULTIBOOT_SPACE {
            return Err(format!(
                "its command line and module list need {} bytes and there are {MULTIBOOT_SPACE}",
                self.bytes.len()
            ));
        }
        self.set(0, self.flags);
        placer.write(MULTIBOOT_INFO, &self.bytes)
    }
}
