//! What a kernel finds when it is entered: registers, memory map, command line and initrd, by each
//! boot protocol, and again after a reset.

use std::ops::Range;

use iced_x86::code_asm::*;

use super::asm::{DATA, Guest, PAGE_TABLES};
use super::entry::Entry;
use super::image::Kernel;
use super::{SOON, expect_equal, expect_shown, shown};
use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::TestVm;

const COMMAND_LINE: &str = "root=/dev/nothing  two blanks, a comma and a \"quote\"";
/// Where the guest counts its lives; the kernel's own memory is loaded anew at each.
const LIFE: u32 = DATA + 0x8000;

pub(super) fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    let kernels = [
        ("multiboot", Kernel::Multiboot),
        ("raw_multiboot", Kernel::RawMultiboot),
        ("pvh", Kernel::Pvh),
        ("elf", Kernel::Elf),
        ("bzimage", Kernel::BzImage),
    ];
    for (word, kernel) in kernels {
        for memory in ["16", "3584", "6G"] {
            let name = format!("entry::{word}_{memory}");
            tests.push(Test::tiny(&name, 60, move |ctx| enters(ctx, kernel, memory)));
        }
    }
    tests.push(Test::tiny("entry::memory_above_4g", 60, memory_above_4g));
    tests
}

/// The registers at the entry as the guest shows them.
struct Registers {
    rax: u64,
    rbx: u64,
    cr0: u64,
    cr4: u64,
    flags: u64,
    efer: u64,
    segments: [u64; 4],
}

const SHOWN: [(&str, Entry); 10] = [
    ("rax", Entry::Rax),
    ("rbx", Entry::Rbx),
    ("cr0", Entry::Cr0),
    ("cr4", Entry::Cr4),
    ("flags", Entry::Flags),
    ("efer", Entry::Efer),
    ("cs", Entry::Cs),
    ("ds", Entry::Ds),
    ("es", Entry::Es),
    ("ss", Entry::Ss),
];

impl Registers {
    fn read(vm: &mut TestVm) -> Result<Self> {
        let mut values = [0; SHOWN.len()];
        for ((name, _), value) in SHOWN.iter().zip(&mut values) {
            *value = shown(vm, name)?;
        }
        let [a, b, control0, control4, flags, efer, segments @ ..] = values;
        Ok(Self { rax: a, rbx: b, cr0: control0, cr4: control4, flags, efer, segments })
    }
}

/// What the boot protocol told the guest besides.
#[derive(Default)]
struct Told {
    map: Vec<(Range<u64>, u64)>,
}

/// The guest shows what it was given, spoils it, and resets; what it is given then is the same.
fn enters(ctx: &Ctx, kernel: Kernel, memory: &str) -> Result {
    let mut g = Guest::new()?;
    for (name, slot) in SHOWN {
        g.show_memory(name, slot.at())?;
    }
    match kernel {
        Kernel::Multiboot | Kernel::RawMultiboot => show_multiboot(&mut g)?,
        Kernel::Pvh => show_start_info(&mut g)?,
        Kernel::Elf | Kernel::BzImage => show_zero_page(&mut g)?,
    }
    // The sum of the initrd's bytes: RSI is where it is, RCX its length.
    let mut sum = g.create_label();
    g.show("initrd_length", rcx)?;
    g.xor(eax, eax)?;
    g.xor(ebx, ebx)?;
    g.set_label(&mut sum)?;
    g.mov(al, byte_ptr(rsi))?;
    g.add(rbx, rax)?;
    g.inc(rsi)?;
    g.dec(rcx)?;
    g.jnz(sum)?;
    g.show("initrd_sum", rbx)?;
    g.inc(dword_ptr(LIFE))?;
    g.cmp(dword_ptr(LIFE), 3)?;
    let mut last = g.create_label();
    g.je(last)?;
    // The loader's structures in low memory, and the very start of the kernel.
    g.mov(edi, 0x500)?;
    g.mov(ecx, (0x4_0000 - 0x500) / 8)?;
    g.mov(rax, 0xdead_beef_dead_beef_u64)?;
    g.cld()?;
    if matches!(kernel, Kernel::Elf | Kernel::BzImage) {
        // The page tables are there as well, so: all but them.
        g.mov(ecx, (0x9000 - 0x500) / 8)?;
        g.rep().stosq()?;
        g.mov(edi, 0x1_0000)?;
        g.mov(ecx, 0x3_0000 / 8)?;
    }
    g.rep().stosq()?;
    g.mov(edi, super::asm::ORIGIN as u32)?;
    g.mov(ecx, 0x40)?;
    g.rep().stosq()?;
    g.outb(0xcf9, 6)?;
    g.set_label(&mut last)?;
    g.nop()?;

    let image = kernel.image(g)?;
    let path = |name: &str| ctx.dir.join(name).to_string_lossy().into_owned();
    let initrd: Vec<u8> = (0..3001u32).map(|i| ((i * i) >> 3) as u8).collect();
    std::fs::write(path("kernel"), image)?;
    std::fs::write(path("initrd"), &initrd)?;
    let sum = initrd.iter().map(|byte| u64::from(*byte)).sum();
    let vm = ctx.vm().memory(memory).args(["-kernel", &path("kernel"), "-append", COMMAND_LINE]);
    let mut vm = vm.args(["-initrd", &path("initrd")]).start()?;
    let size = match memory {
        "6G" => 6 << 30,
        mib => mib.parse::<u64>()? << 20,
    };
    for _life in 0..3 {
        let registers = Registers::read(&mut vm)?;
        let told = match kernel {
            Kernel::Multiboot | Kernel::RawMultiboot => multiboot(&mut vm, &registers, size)?,
            Kernel::Pvh => start_info(&mut vm, &registers)?,
            Kernel::Elf | Kernel::BzImage => zero_page(&mut vm, &registers)?,
        };
        check_map(&told.map, size)?;
        expect_shown(&mut vm, "initrd_length", initrd.len() as u64)?;
        expect_shown(&mut vm, "initrd_sum", sum)?;
    }
    Ok(())
}

/// Both 32-bit protocols: protected mode without paging, flat segments, interrupts off.
fn check_32_bit(registers: &Registers) -> Result {
    expect_equal("cr0 (PE, PG)", registers.cr0 & 0x8000_0001, 1)?;
    expect_equal("cr4", registers.cr4, 0)?;
    expect_equal("flags (IF, VM)", registers.flags & 0x2_0200, 0)?;
    let [code, data @ ..] = registers.segments;
    expect_equal("a code segment", code != 0, true)?;
    expect_equal("data segments are one", data.iter().all(|segment| *segment == data[0]), true)
}

/// The memory map is in order and tells of all RAM but what a PC hides below 1 MiB.
fn check_map(map: &[(Range<u64>, u64)], size: u64) -> Result {
    let mut end = 0;
    for (range, _) in map {
        if range.start < end || range.is_empty() {
            return Err(format!("the memory map is out of order: {map:x?}").into());
        }
        end = range.end;
    }
    let ram = |kind: &u64| *kind == 1;
    let total: u64 = map.iter().filter(|(_, kind)| ram(kind)).map(|(r, _)| r.end - r.start).sum();
    let hidden = size.checked_sub(total).ok_or("the memory map has more RAM than there is")?;
    // From the extended BIOS data area to 1 MiB.
    if !(0x6_0000..=0x8_0000).contains(&hidden) {
        return Err(format!("{hidden:#x} bytes of RAM are not in the memory map {map:x?}").into());
    }
    let last = map.iter().rfind(|(_, kind)| ram(kind)).ok_or("no RAM in the memory map")?;
    let expected = if size > 3 << 30 { size + (1 << 30) } else { size };
    expect_equal("the end of RAM", last.0.end, expected)
}

/// Reads `count` words of 8 bytes that the guest dumps as `name`, as bytes.
fn dumped(vm: &mut TestVm, name: &str, count: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for _ in 0..count {
        bytes.extend_from_slice(&shown(vm, name)?.to_le_bytes());
    }
    Ok(bytes)
}

/// The text that the guest shows next as `name`.
fn text(vm: &mut TestVm, name: &str) -> Result<String> {
    let line = vm.console.expect_line(&format!("{name}="), SOON)?;
    Ok(line.split_once('=').unwrap_or_default().1.to_owned())
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..at + 4).and_then(|field| field.try_into().ok());
    u32::from_le_bytes(field.unwrap_or_default()).into()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u32_at(bytes, at) | u32_at(bytes, at + 4) << 32
}

/// Words of the memory map that guests dump: room for what any protocol has.
const MAP_WORDS: usize = 24;

fn show_multiboot(g: &mut Guest) -> Result {
    g.mov(ebx, dword_ptr(Entry::Rbx.at()))?;
    g.mov(esi, ebx)?;
    g.mov(ecx, 15)?;
    g.dump("info")?;
    g.mov(esi, dword_ptr(rbx + 48))?;
    g.mov(ecx, MAP_WORDS as u32)?;
    g.dump("map")?;
    g.mov(esi, dword_ptr(rbx + 16))?;
    g.show_text("command_line")?;
    g.mov(esi, dword_ptr(rbx + 64))?;
    g.show_text("loader")?;
    // The one module: its string, then its bytes.
    g.mov(ebx, dword_ptr(rbx + 24))?;
    g.mov(esi, dword_ptr(rbx + 8))?;
    g.show_text("module")?;
    g.mov(esi, dword_ptr(rbx))?;
    g.mov(ecx, dword_ptr(rbx + 4))?;
    g.sub(ecx, esi)?;
    Ok(())
}

fn multiboot(vm: &mut TestVm, registers: &Registers, size: u64) -> Result<Told> {
    check_32_bit(registers)?;
    expect_equal("the magic in EAX", registers.rax & 0xffff_ffff, 0x2bad_b002)?;
    let info = dumped(vm, "info", 15)?;
    let flags = u32_at(&info, 0);
    // Memory, command line, modules, map, loader's name.
    expect_equal("flags", flags & 0x24d, 0x24d)?;
    expect_equal("conventional KiB", u32_at(&info, 4), 639)?;
    let upper = size.min(3 << 30) / 1024 - 1024;
    expect_equal("extended KiB", u32_at(&info, 8), upper)?;
    expect_equal("modules", u32_at(&info, 20), 1)?;
    let map = dumped(vm, "map", MAP_WORDS)?;
    let (mut at, mut ranges) = (0, Vec::new());
    while (at as u64) < u32_at(&info, 44) {
        let (start, len) = (u64_at(&map, at + 4), u64_at(&map, at + 12));
        ranges.push((start..start + len, u32_at(&map, at + 20)));
        at += 4 + usize::try_from(u32_at(&map, at))?;
    }
    let line = text(vm, "command_line")?;
    // The kernel's name comes first.
    let (kernel, words) = line.split_once(' ').unwrap_or_default();
    expect_equal("the kernel's name", kernel.ends_with("/kernel"), true)?;
    expect_equal("the command line", words, COMMAND_LINE)?;
    expect_equal("the loader", text(vm, "loader")?.is_empty(), false)?;
    let module = text(vm, "module")?;
    expect_equal("the module's string", module.ends_with("/initrd"), true)?;
    Ok(Told { map: ranges })
}

fn show_start_info(g: &mut Guest) -> Result {
    g.mov(ebx, dword_ptr(Entry::Rbx.at()))?;
    g.mov(esi, ebx)?;
    g.mov(ecx, 7)?;
    g.dump("info")?;
    g.mov(rsi, qword_ptr(rbx + 40))?;
    g.mov(ecx, MAP_WORDS as u32)?;
    g.dump("map")?;
    g.mov(rsi, qword_ptr(rbx + 32))?;
    g.mov(ecx, 1)?;
    g.dump("rsdp")?;
    g.mov(rsi, qword_ptr(rbx + 24))?;
    g.show_text("command_line")?;
    g.mov(rbx, qword_ptr(rbx + 16))?;
    g.mov(rsi, qword_ptr(rbx))?;
    g.mov(rcx, qword_ptr(rbx + 8))?;
    Ok(())
}

fn start_info(vm: &mut TestVm, registers: &Registers) -> Result<Told> {
    check_32_bit(registers)?;
    expect_equal("a start info below 4 GiB", registers.rbx >> 32, 0)?;
    let info = dumped(vm, "info", 7)?;
    expect_equal("the magic", u32_at(&info, 0), 0x336e_c578)?;
    expect_equal("the version", u32_at(&info, 4), 1)?;
    expect_equal("flags", u32_at(&info, 8), 0)?;
    expect_equal("modules", u32_at(&info, 12), 1)?;
    let map = dumped(vm, "map", MAP_WORDS)?;
    let entries = usize::try_from(u32_at(&info, 48))?;
    let ranges = (0..entries.min(8)).map(|index| {
        let (start, len) = (u64_at(&map, index * 24), u64_at(&map, index * 24 + 8));
        (start..start + len, u32_at(&map, index * 24 + 16))
    });
    let ranges = ranges.collect();
    expect_shown(vm, "rsdp", u64::from_le_bytes(*b"RSD PTR "))?;
    expect_equal("the command line", text(vm, "command_line")?.as_str(), COMMAND_LINE)?;
    Ok(Told { map: ranges })
}

fn show_zero_page(g: &mut Guest) -> Result {
    g.mov(rbx, qword_ptr(Entry::Rsi.at()))?;
    for at in [0x70, 0x1e8, 0x1f0, 0x1f8, 0x200, 0x208, 0x210, 0x218, 0x220, 0x228] {
        g.mov(rax, qword_ptr(rbx + at))?;
        g.show("page", rax)?;
    }
    g.lea(rsi, ptr(rbx + 0x2d0))?;
    g.mov(ecx, MAP_WORDS as u32)?;
    g.dump("map")?;
    g.mov(rsi, qword_ptr(rbx + 0x70))?;
    g.mov(ecx, 1)?;
    g.dump("rsdp")?;
    g.mov(esi, dword_ptr(rbx + 0x228))?;
    g.show_text("command_line")?;
    g.mov(esi, dword_ptr(rbx + 0x218))?;
    g.mov(ecx, dword_ptr(rbx + 0x21c))?;
    Ok(())
}

fn zero_page(vm: &mut TestVm, registers: &Registers) -> Result<Told> {
    expect_equal("cr0 (PE, PG)", registers.cr0 & 0x8000_0001, 0x8000_0001)?;
    expect_equal("cr4 (PAE)", registers.cr4 & 0x20, 0x20)?;
    expect_equal("efer (LME, LMA)", registers.efer & 0x500, 0x500)?;
    expect_equal("flags (IF)", registers.flags & 0x200, 0)?;
    // __BOOT_CS and __BOOT_DS.
    expect_equal("segments", registers.segments, [0x10, 0x18, 0x18, 0x18])?;
    let page = dumped(vm, "page", 10)?;
    let entries = usize::from(page[8]);
    expect_equal("boot_flag", u32_at(&page, 16 + 14) & 0xffff, 0xaa55)?;
    expect_equal("header", u32_at(&page, 32 + 2), u32::from_le_bytes(*b"HdrS").into())?;
    expect_equal("a loader", page[48] != 0, true)?;
    let map = dumped(vm, "map", MAP_WORDS)?;
    let ranges = (0..entries.min(9)).map(|index| {
        let (start, len) = (u64_at(&map, index * 20), u64_at(&map, index * 20 + 8));
        (start..start + len, u32_at(&map, index * 20 + 16))
    });
    let ranges = ranges.collect();
    expect_shown(vm, "rsdp", u64::from_le_bytes(*b"RSD PTR "))?;
    expect_equal("the command line", text(vm, "command_line")?.as_str(), COMMAND_LINE)?;
    Ok(Told { map: ranges })
}

/// RAM above 4 GiB is RAM of its own, to its end, and behind it there is none.
fn memory_above_4g(ctx: &Ctx) -> Result {
    const WINDOW: u32 = 0xc000_0000;
    let mut g = Guest::new()?;
    let places = [0, (1u64 << 32), (1 << 32) + (510 << 20), (1 << 32) + (512 << 20)];
    // Maps the 2 MiB at RAX to the window.
    let map = |g: &mut Guest| -> Result {
        g.or(rax, 0x87)?;
        g.mov(qword_ptr(PAGE_TABLES + 0x2000 + 3 * 0x1000), rax)?;
        g.mov(ebx, WINDOW)?;
        g.invlpg(byte_ptr(rbx))?;
        g.mov(ebx, WINDOW + 0x1f_fff8)?;
        Ok(())
    };
    for place in places {
        g.mov(rax, place)?;
        map(&mut g)?;
        g.mov(rcx, place ^ 0x5555_5555_5555_5555)?;
        g.mov(qword_ptr(rbx), rcx)?;
    }
    for place in places {
        g.mov(rax, place)?;
        map(&mut g)?;
        g.mov(rcx, qword_ptr(rbx))?;
        g.show("found", rcx)?;
    }
    let mut vm = super::image::boot(ctx, "-bios", &g.firmware()?)?.memory("3584").start()?;
    for place in &places[..3] {
        expect_shown(&mut vm, "found", place ^ 0x5555_5555_5555_5555)?;
    }
    expect_shown(&mut vm, "found", u64::MAX)
}
