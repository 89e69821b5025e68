//! The guest's own address translation, as its registers and page tables say.
//!
//! Main thread, with a snapshot of a vCPU's registers; tables are read from guest memory
//! ([`Space::peek`]), which the guest may be changing. KVM's own translation (KVM_TRANSLATE) needs
//! the vCPU's thread and cannot list mappings.
//!
//! Tables are the guest's: they may point at themselves, at devices or at nothing. A translation
//! reads at most five entries. A list of mappings is made one at a time, and ends after as many
//! tables as its reader allows ([`MAX_TABLES`]). Permissions are told, not enforced: whoever looks from outside sees what
//! the guest's kernel could.
//!
//! Source: Intel SDM volume 3, chapter 4.

use kvm_bindings::kvm_sregs;
use resources::ram::PAGE;
use resources::space::Space;

/// Bits of control registers and EFER (SDM volume 3, 2.2.1 and 2.5).
pub const CR0_PE: u64 = 1;
/// Paging.
pub const CR0_PG: u64 = 1 << 31;
/// 4 MiB pages with 32-bit tables.
const CR4_PSE: u64 = 1 << 4;
/// 64-bit entries.
const CR4_PAE: u64 = 1 << 5;
/// Five levels.
const CR4_LA57: u64 = 1 << 12;
/// Long mode is active.
pub const EFER_LMA: u64 = 1 << 10;

/// Bits of an entry.
pub const PRESENT: u64 = 1;
/// May be written.
pub const WRITABLE: u64 = 1 << 1;
/// May be accessed by user code.
pub const USER: u64 = 1 << 2;
/// Writes go through the cache.
pub const WRITE_THROUGH: u64 = 1 << 3;
/// Not cached.
pub const CACHE_DISABLE: u64 = 1 << 4;
/// Was used.
pub const ACCESSED: u64 = 1 << 5;
/// Was written.
pub const DIRTY: u64 = 1 << 6;
/// In a table above the last: this is a large page.
pub const LARGE: u64 = 1 << 7;
/// Stays in the TLB when CR3 changes.
pub const GLOBAL: u64 = 1 << 8;
/// May not be executed.
pub const NO_EXECUTE: u64 = 1 << 63;

/// Where an entry of 64 bits has its address.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// How many tables are enough for a list of mappings: as many as 512 GiB in pages of 4 KiB need.
pub const MAX_TABLES: usize = 1 << 18;

/// One level of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Level {
    /// How many bits of the address an entry leaves to the levels below.
    shift: u8,
    /// How many bits of the address choose the entry.
    bits: u8,
    leaf: Leaf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaf {
    Never,
    IfLarge,
    Always,
}

const fn level(shift: u8, bits: u8, leaf: Leaf) -> Level {
    Level { shift, bits, leaf }
}

/// The levels of each mode, from the top.
const LONG: [Level; 5] = [
    level(48, 9, Leaf::Never),
    level(39, 9, Leaf::Never),
    level(30, 9, Leaf::IfLarge),
    level(21, 9, Leaf::IfLarge),
    level(12, 9, Leaf::Always),
];
const PAE: [Level; 3] =
    [level(30, 2, Leaf::Never), level(21, 9, Leaf::IfLarge), level(12, 9, Leaf::Always)];
const LEGACY: [Level; 2] = [level(22, 10, Leaf::Never), level(12, 10, Leaf::Always)];
const LEGACY_PSE: [Level; 2] = [level(22, 10, Leaf::IfLarge), level(12, 10, Leaf::Always)];

/// How a vCPU translates linear addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paging {
    /// None: linear addresses are physical.
    levels: &'static [Level],
    /// Of the top table.
    root: u64,
    /// 4 or 8.
    entry_size: u64,
    /// Linear addresses have 48 or 57 bits, the upper ones copies of the last; otherwise they have
    /// 32.
    long: bool,
}

/// A page of the guest, or a large page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Linear address of its first byte.
    pub virt: u64,
    /// Guest-physical address of its first byte.
    pub phys: u64,
    /// Size in bytes, a power of 2.
    pub size: u64,
    /// The entry that maps it; without an entry of its own (no paging), 0.
    pub entry: u64,
    /// All levels let user code in.
    pub user: bool,
    /// All levels let it be written.
    pub writable: bool,
}

impl Paging {
    /// What the registers say.
    pub fn of(sregs: &kvm_sregs) -> Paging {
        let has = |bit| sregs.cr4 & bit != 0;
        let (levels, root, entry_size): (&[Level], _, _) = if sregs.cr0 & CR0_PG == 0 {
            (&[], 0, 8)
        } else if sregs.efer & EFER_LMA != 0 {
            let top = usize::from(!has(CR4_LA57));
            (LONG.get(top..).unwrap_or_default(), sregs.cr3 & ADDRESS, 8)
        } else if has(CR4_PAE) {
            (&PAE, sregs.cr3 & 0xffff_ffe0, 8)
        } else if has(CR4_PSE) {
            (&LEGACY_PSE, sregs.cr3 & 0xffff_f000, 4)
        } else {
            (&LEGACY, sregs.cr3 & 0xffff_f000, 4)
        };
        Paging { levels, root, entry_size, long: levels.len() > PAE.len() }
    }

    /// Whether there are tables at all.
    pub fn is_on(&self) -> bool {
        !self.levels.is_empty()
    }

    /// Where the linear address leads in guest-physical space. Without paging, where it stands.
    /// `None`: nowhere, or it is not canonical.
    pub fn translate(&self, memory: &Space, address: u64) -> Option<u64> {
        let page = self.page(memory, address)?;
        Some(page.phys.wrapping_add(address & (page.size - 1)))
    }

    /// Reads by linear addresses as a debugger ([`Space::inspect`]). `false`, and nothing of use in
    /// `data`, where any of it leads nowhere.
    pub fn read(&self, memory: &Space, mut address: u64, mut data: &mut [u8]) -> bool {
        while !data.is_empty() {
            let Some(page) = self.page(memory, address) else { return false };
            let offset = address & (page.size - 1);
            let len = usize::try_from(page.size - offset).unwrap_or(usize::MAX).min(data.len());
            let (part, rest) = data.split_at_mut(len);
            memory.inspect(page.phys.wrapping_add(offset), part);
            (address, data) = (address.wrapping_add(len as u64), rest);
        }
        true
    }

    /// The page that holds the linear address. Without paging, of 4 KiB.
    pub fn page(&self, memory: &Space, address: u64) -> Option<Page> {
        let address = if self.is_on() && !self.long { address & 0xffff_ffff } else { address };
        let mut page = Page {
            virt: address & !(PAGE - 1),
            phys: address & !(PAGE - 1),
            size: PAGE,
            entry: 0,
            user: true,
            writable: true,
        };
        if !self.is_on() {
            return Some(page);
        }
        if self.canonical(address) != address {
            return None;
        }
        let mut table = self.root;
        for level in self.levels {
            let index = (address >> level.shift) & ((1 << level.bits) - 1);
            let entry = self.entry(memory, table.wrapping_add(index * self.entry_size))?;
            page = self.below(&page, *level, entry)?;
            if page.size != 0 {
                page.virt = address & !(page.size - 1);
                return Some(page);
            }
            table = page.phys;
        }
        None
    }

    /// The address with its upper bits as they must be.
    fn canonical(&self, address: u64) -> u64 {
        match self.levels.first() {
            Some(top) if self.long => {
                let unused = 64 - u32::from(top.shift + top.bits);
                ((address << unused).cast_signed() >> unused).cast_unsigned()
            }
            _ => address & 0xffff_ffff,
        }
    }

    fn entry(&self, memory: &Space, at: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        let read = usize::try_from(self.entry_size).ok().and_then(|size| bytes.get_mut(..size))?;
        memory.peek(at, read).then(|| u64::from_le_bytes(bytes))
    }

    /// What a present entry of a table means, given what the levels above allow: a page with its
    /// size, or the next table, with size 0, at `phys`. `virt` is left to the caller.
    fn below(&self, above: &Page, level: Level, entry: u64) -> Option<Page> {
        if entry & PRESENT == 0 {
            return None;
        }
        let large = level.leaf == Leaf::IfLarge && entry & LARGE != 0;
        let leaf = level.leaf == Leaf::Always || large;
        let size = if leaf { 1 << level.shift } else { 0 };
        let phys = match (self.entry_size, large) {
            // Bits 32 to 39 of the address stand in bits 13 to 20 (SDM, PSE-36).
            (4, true) => entry & 0xffc0_0000 | (entry >> 13 & 0xff) << 32,
            (4, false) => entry & 0xffff_f000,
            (_, true) => entry & ADDRESS & !(size - 1),
            _ => entry & ADDRESS,
        };
        // Entries of PAE's top table have no such bits.
        let free = self.entry_size == 8 && level.bits == 2;
        Some(Page {
            virt: above.virt,
            phys,
            size,
            entry,
            user: above.user && (free || entry & USER != 0),
            writable: above.writable && (free || entry & WRITABLE != 0),
        })
    }

    /// All pages in the order of their linear addresses as the processor counts them: in long mode
    /// the lower half, then the upper. None without paging. At most `tables` tables are read.
    pub fn pages<'a>(&self, memory: &'a Space, tables: usize) -> Pages<'a> {
        let mut pages = Pages { paging: *self, memory, open: Vec::new(), tables, complete: true };
        if self.is_on() {
            let top =
                Page { virt: 0, phys: self.root, size: 0, entry: 0, user: true, writable: true };
            pages.enter(top);
        }
        pages
    }
}

/// An iterator over the pages of an address space.
pub struct Pages<'a> {
    paging: Paging,
    memory: &'a Space,
    /// The tables on the way down, topmost first.
    open: Vec<Table>,
    /// How many more may be read.
    tables: usize,
    complete: bool,
}

struct Table {
    /// What leads here; `virt` is where its first entry begins.
    from: Page,
    bytes: Vec<u8>,
    next: usize,
}

impl Pages<'_> {
    /// Whether everything was listed, up to now: no table was left out to bound the work.
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// How many more tables may be read.
    pub fn tables_left(&self) -> usize {
        self.tables
    }

    fn enter(&mut self, from: Page) {
        let Some(level) = self.paging.levels.get(self.open.len()) else { return };
        if self.tables == 0 {
            self.complete = false;
            return;
        }
        self.tables -= 1;
        let mut bytes = vec![0; (1 << level.bits) * self.paging.entry_size as usize];
        // Entries that are not in memory read as zero, which is not present.
        self.memory.peek(from.phys, &mut bytes);
        self.open.push(Table { from, bytes, next: 0 });
    }
}

impl Iterator for Pages<'_> {
    type Item = Page;

    fn next(&mut self) -> Option<Page> {
        loop {
            let level = *self.paging.levels.get(self.open.len().checked_sub(1)?)?;
            let table = self.open.last_mut()?;
            let index = table.next;
            table.next += 1;
            let size = self.paging.entry_size as usize;
            let Some(bytes) = table.bytes.get(index * size..(index + 1) * size) else {
                self.open.pop();
                continue;
            };
            let mut entry = [0; 8];
            entry.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            let Some(mut page) = self.paging.below(&table.from, level, u64::from_le_bytes(entry))
            else {
                continue;
            };
            page.virt = self.paging.canonical(table.from.virt | (index as u64) << level.shift);
            if page.size != 0 {
                return Some(page);
            }
            self.enter(page);
        }
    }
}

/// A range of linear addresses that lies in one piece in guest-physical space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Linear address.
    pub virt: u64,
    /// Guest-physical address.
    pub phys: u64,
    /// Length in bytes, at least 1.
    pub len: u64,
}

impl Span {
    /// Whether `next` goes on where this ends, in both spaces.
    pub fn joins(&self, next: &Span) -> bool {
        self.virt.checked_add(self.len) == Some(next.virt)
            && self.phys.checked_add(self.len) == Some(next.phys)
    }
}

#[cfg(test)]
mod tests;
