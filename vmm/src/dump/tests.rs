//! Dumps read back by another crate's ELF reader.

use object::Endianness::Little;
use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use proptest::prelude::*;
use resources::hv::SpaceKind;
use resources::hv::fake::Fake;
use resources::space::{Mapping, Target};
use rustix::fs::MemfdFlags;

use super::elf::MANY;
use super::*;
use crate::cpu::paging::{CR0_PE, CR0_PG, EFER_LMA};

const LOW: u64 = 1 << 20;
const HIGH: u64 = 64 << 10;

/// 1 MiB of RAM, 64 KiB above 4 GiB, and a ROM below 4 GiB; every page begins with its address.
fn memory() -> Arc<Space> {
    let space = Space::new(SpaceKind::Memory, Fake::unrecorded());
    let rom_at = ABOVE_4G - 0x2000;
    for (base, size) in [(0, LOW), (ABOVE_4G, HIGH), (rom_at, 0x1000)] {
        let block = RamBlock::anonymous(size).unwrap();
        for page in (0..size).step_by(4096) {
            block.write(page, &(base + page).to_le_bytes());
        }
        let mut mapping = Mapping::ram(base, block.clone());
        if base == rom_at {
            mapping.target = Target::Ram { block, offset: 0, readonly: true };
        }
        space.map(mapping).unwrap();
    }
    space
}

/// A processor in long mode whose tables, written at 64 KiB, map: 0x40_0000 to 0x3000 and on for 3
/// pages, the last page of the lower half to a page above 4 GiB, the upper half's first page to
/// something that is no memory, and its last to the ROM.
fn long_mode(memory: &Space) -> Registers {
    let rom = ABOVE_4G - 0x2000;
    for (at, entry) in [
        (0x1_0000, 0x1_1007),
        (0x1_1000, 0x1_2007),
        (0x1_2010, 0x1_3007),
        (0x1_3000, 0x3007),
        (0x1_3008, 0x4007),
        (0x1_3010, 0x5007),
        (0x1_07f8, 0x1_4007),
        (0x1_4ff8, 0x1_5007),
        (0x1_5ff8, 0x1_6007),
        (0x1_6ff8, ABOVE_4G + 0x1007),
        (0x1_0800, 0x1_7007),
        (0x1_7000, 0x1_8007),
        (0x1_8000, 0x8000_0087),
        (0x1_0ff8, 0x1_9007),
        (0x1_9ff8, 0x1_a007),
        (0x1_aff8, 0x1_b007),
        (0x1_bff8, rom + 7),
    ] {
        memory.write(at, &u64::to_le_bytes(entry));
    }
    let mut registers = Registers::default();
    registers.regs.rip = 0x40_0123;
    registers.regs.r15 = 15;
    registers.sregs.cr0 = CR0_PE | CR0_PG;
    registers.sregs.cr3 = 0x1_0000;
    registers.sregs.cr4 = 0x20;
    registers.sregs.efer = EFER_LMA;
    registers.sregs.fs.base = 0xf5;
    registers
}

fn bytes(dump: &Dump) -> Vec<u8> {
    let file = std::fs::File::from(rustix::fs::memfd_create("dump", MemfdFlags::CLOEXEC).unwrap());
    let mut told = 0;
    dump.write(Output::new(file.try_clone().unwrap().into()).unwrap(), |count| told += count)
        .unwrap();
    let mut bytes = Vec::new();
    use std::io::{Read, Seek};
    (&file).rewind().unwrap();
    (&file).read_to_end(&mut bytes).unwrap();
    assert_eq!((bytes.len() as u64, told), (dump.size(), dump.size()));
    bytes
}

/// What [`object`] makes of a core: its loads as virtual and physical address with the bytes, and
/// the notes as name, kind and content.
type Core = (Vec<(u64, u64, Vec<u8>)>, Vec<(Vec<u8>, u32, Vec<u8>)>);

fn parse<H: FileHeader<Endian = object::Endianness>>(data: &[u8]) -> Core {
    let header = H::parse(data).unwrap();
    assert_eq!(header.e_type(Little), elf::ET_CORE);
    let (mut loads, mut notes) = (Vec::new(), Vec::new());
    for segment in header.program_headers(Little, data).unwrap() {
        if let Some(mut found) = segment.notes(Little, data).unwrap() {
            while let Some(note) = found.next().unwrap() {
                notes.push((note.name().to_vec(), note.n_type(Little), note.desc().to_vec()));
            }
        } else {
            let content = segment.data(Little, data).unwrap();
            assert_eq!(segment.p_memsz(Little).into(), content.len() as u64);
            loads.push((
                segment.p_vaddr(Little).into(),
                segment.p_paddr(Little).into(),
                content.to_vec(),
            ));
        }
    }
    (loads, notes)
}

type Elf64 = FileHeader64<object::Endianness>;
type Elf32 = FileHeader32<object::Endianness>;

/// The address that stands at the beginning of each page.
fn first_page(content: &[u8]) -> u64 {
    u64::from_le_bytes(content[..8].try_into().unwrap())
}

#[test]
fn a_core_by_physical_addresses_has_a_segment_for_each_range() {
    let memory = memory();
    let mut vcpu = long_mode(&memory);
    vcpu.sregs.cs.selector = 0x10;
    let dump = Dump::new(&memory, &[vcpu, Registers::default()], Wanted::default()).unwrap();
    let data = bytes(&dump);
    assert_eq!(u16::from_le_bytes(data[18..20].try_into().unwrap()), elf::EM_X86_64);
    let (loads, notes) = parse::<Elf64>(&data);
    let rom = ABOVE_4G - 0x2000;
    let shape: Vec<_> =
        loads.iter().map(|(virt, phys, content)| (*virt, *phys, content.len() as u64)).collect();
    assert_eq!(shape, [(0, 0, LOW), (0, rom, 0x1000), (0, ABOVE_4G, HIGH)]);
    assert!(loads.iter().all(|(_, phys, content)| first_page(content) == *phys));

    let kinds: Vec<_> = notes.iter().map(|(name, kind, _)| (&name[..], *kind)).collect();
    assert_eq!(kinds, [(&b"CORE"[..], 1), (b"CORE", 1), (b"QEMU", 0), (b"QEMU", 0)]);
    let word =
        |content: &[u8], at: usize| u64::from_le_bytes(content[at..at + 8].try_into().unwrap());
    let status = &notes[0].2;
    assert_eq!((status.len(), status[32], notes[1].2[32]), (336, 1, 2));
    // r15 first, rip the 17th, cs after it, fs base the 22nd.
    assert_eq!((word(status, 112), word(status, 112 + 16 * 8)), (15, 0x40_0123));
    assert_eq!((word(status, 112 + 17 * 8), word(status, 112 + 21 * 8)), (0x10, 0xf5));
    let state = &notes[2].2;
    assert_eq!((word(state, 0), state.len()), (1 | 432 << 32, 432));
    assert_eq!((word(state, 8 + 15 * 8), word(state, 8 + 16 * 8)), (15, 0x40_0123));
    assert_eq!((word(state, 432 - 40), word(state, 432 - 16)), (vcpu.sregs.cr0, vcpu.sregs.cr3));
}

#[test]
fn a_core_by_virtual_addresses_lists_mappings_then_the_rest() {
    let memory = memory();
    let vcpu = long_mode(&memory);
    let wanted = Wanted { paging: true, range: None };
    // A second processor with the same tables adds nothing.
    let dump = Dump::new(&memory, &[vcpu, vcpu], wanted).unwrap();
    let (loads, _) = parse::<Elf64>(&bytes(&dump));
    let rom = ABOVE_4G - 0x2000;
    let shape: Vec<_> =
        loads.iter().map(|(virt, phys, content)| (*virt, *phys, content.len() as u64)).collect();
    assert_eq!(
        shape,
        [
            (0x40_0000, 0x3000, 0x3000),
            (0x7fff_ffff_f000, ABOVE_4G + 0x1000, 0x1000),
            (0xffff_ffff_ffff_f000, rom, 0x1000),
            (0, 0, 0x3000),
            (0, 0x6000, LOW - 0x6000),
            (0, ABOVE_4G, 0x1000),
            (0, ABOVE_4G + 0x2000, HIGH - 0x2000),
        ]
    );
    assert!(loads.iter().all(|(_, phys, content)| first_page(content) == *phys));

    // Without page tables they stand for themselves.
    let off = Dump::new(&memory, &[Registers::default()], wanted).unwrap();
    let (loads, _) = parse::<Elf64>(&bytes(&off));
    assert!(loads.iter().all(|(virt, phys, _)| virt == phys) && loads.len() == 3);
}

#[test]
fn a_range_cuts_what_is_in_the_file() {
    let memory = memory();
    let vcpu = long_mode(&memory);
    let new = |paging, range| Dump::new(&memory, &[vcpu], Wanted { paging, range: Some(range) });
    let (loads, _) = parse::<Elf64>(&bytes(&new(true, (0x4000, 0x1800)).unwrap()));
    let shape: Vec<_> =
        loads.iter().map(|(virt, phys, content)| (*virt, *phys, content.len())).collect();
    assert_eq!(shape, [(0x40_1000, 0x4000, 0x1800)]);
    let (loads, _) = parse::<Elf64>(&bytes(&new(false, (LOW - 1, u64::MAX)).unwrap()));
    assert_eq!(loads.len(), 3);
    assert_eq!(loads[0].2.len(), 1);
    for nothing in [(LOW, 0x1000), (0, 0), (1 << 62, u64::MAX), (ABOVE_4G + HIGH, 1)] {
        assert_eq!(new(false, nothing).unwrap_err(), Refused::NothingThere);
    }
    let refused = Dump::new(&memory, &[], Wanted::default()).unwrap_err();
    assert_eq!(refused, Refused::NoProcessor);
}

#[test]
fn a_processor_outside_long_mode_makes_an_i386_core() {
    let mut vcpu = Registers::default();
    vcpu.regs.rip = 0xfff0;
    vcpu.regs.rax = 0x1_0000_0007;
    let machine = |data: &[u8]| u16::from_le_bytes(data[18..20].try_into().unwrap());
    let data = bytes(&Dump::new(&memory(), &[vcpu], Wanted::default()).unwrap());
    assert_eq!((data[4], machine(&data)), (elf::ELFCLASS64, elf::EM_386));
    let (_, notes) = parse::<Elf64>(&data);
    assert_eq!(notes[0].2.len(), 144);

    let space = Space::new(SpaceKind::Memory, Fake::unrecorded());
    space.map(Mapping::ram(0x1000, RamBlock::anonymous(0x3000).unwrap())).unwrap();
    let data = bytes(&Dump::new(&space, &[vcpu], Wanted::default()).unwrap());
    assert_eq!((data[4], machine(&data)), (elf::ELFCLASS32, elf::EM_386));
    let (loads, notes) = parse::<Elf32>(&data);
    assert_eq!(loads, [(0, 0x1000, vec![0; 0x3000])]);
    let word = |at: usize| u32::from_le_bytes(notes[0].2[at..at + 4].try_into().unwrap());
    assert_eq!((word(24), word(72 + 6 * 4), word(72 + 12 * 4)), (1, 7, 0xfff0));
}

#[test]
fn very_many_segments_are_counted_in_a_section_header() {
    for wide in [false, true] {
        let form = Form { wide, x86_64: false };
        for count in [MANY - 1, MANY, MANY + 5] {
            let loads = vec![Load { virt: 1, phys: 2, len: 0, at: 0 }; count];
            let notes = form.notes(&[Registers::default()]);
            let mut data = form.head(&loads, &notes);
            assert_eq!(data.len() as u64, form.head_size(count, notes.len()));
            data.push(0);
            let (found, found_notes) =
                if wide { parse::<Elf64>(&data) } else { parse::<Elf32>(&data) };
            assert_eq!((found.len(), found_notes.len()), (count, 2));
            let at = if wide { 56 } else { 44 };
            let phnum = u16::from_le_bytes(data[at..at + 2].try_into().unwrap());
            assert_eq!(phnum == 0xffff, count >= MANY);
        }
    }
}

#[test]
fn a_guest_that_maps_everything_endlessly_is_dumped_all_the_same() {
    let memory = memory();
    let mut vcpu = long_mode(&memory);
    // The top table leads to itself by every entry, so that it is also the pages.
    for index in 0..512 {
        memory.write(0x1_0000 + index * 8, &0x1_0007u64.to_le_bytes());
    }
    vcpu.sregs.cr4 |= 1 << 12;
    let spans = spans(&memory, &[vcpu], &[Extent { phys: 0, len: LOW, at: 0 }]);
    assert_eq!(spans.len(), MAX_SPANS);
}

#[test]
fn a_file_that_takes_nothing_is_an_error() {
    let memory = memory();
    let dump = Dump::new(&memory, &[long_mode(&memory)], Wanted::default()).unwrap();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    dump.write(Output::new(full.into()).unwrap(), |_| {}).unwrap_err();
}

proptest! {
    #[test]
    fn every_byte_is_in_a_segment_and_every_segment_in_the_file(
        gaps in prop::collection::vec((0..4u64, 1..6u64), 1..6),
        pages in prop::collection::vec((0..40u64, 0..40u64), 0..60),
    ) {
        let mut extents: Vec<Extent> = Vec::new();
        let (mut phys, mut at) = (0, 0);
        for (gap, len) in gaps {
            phys += (gap + 1) * 4096;
            extents.push(Extent { phys, len: len * 4096, at });
            (phys, at) = (phys + len * 4096, at + len * 4096);
        }
        let mut list = Spans::default();
        for (virt, phys) in &pages {
            let page = Span { virt: virt * 4096, phys: phys * 4096, len: 4096 };
            within(&extents, &page).for_each(|part| assert!(list.push(part)));
        }
        list.last_view();
        let spans = without_overlap(list.done);
        let all = loads(&extents, &spans);
        let (mapped, rest) = all.split_at(spans.len());
        for pair in mapped.windows(2) {
            prop_assert!(pair[0].virt + pair[0].len <= pair[1].virt);
        }
        // Where it stands in the file says the same as the physical address.
        for load in &all {
            let extent = extents.iter().find(|e| e.phys <= load.phys && load.phys < e.phys + e.len);
            let extent = extent.unwrap();
            prop_assert!(load.len > 0 && load.phys + load.len <= extent.phys + extent.len);
            prop_assert_eq!(load.at, extent.at + (load.phys - extent.phys));
        }
        for extent in &extents {
            for phys in (extent.phys..extent.phys + extent.len).step_by(4096) {
                let holds = |load: &&Load| load.phys <= phys && phys < load.phys + load.len;
                let by_address = mapped.iter().filter(holds).count();
                let without = rest.iter().filter(holds).count();
                prop_assert_eq!(without, usize::from(by_address == 0));
            }
        }
        // A virtual page is in the dump if any of its mappings leads to memory in the file.
        for virt in 0..40 {
            let leads = |(v, p): &&(u64, u64)| {
                *v == virt && extents.iter().any(|e| e.phys <= p * 4096 && p * 4096 < e.phys + e.len)
            };
            let shown = mapped.iter().find(|l| l.virt <= virt * 4096 && virt * 4096 < l.virt + l.len);
            let physical: Vec<_> = pages.iter().filter(leads).map(|(_, p)| p * 4096).collect();
            prop_assert_eq!(shown.is_some(), !physical.is_empty());
            if let Some(load) = shown {
                prop_assert!(physical.contains(&(load.phys + (virt * 4096 - load.virt))));
            }
        }
    }
}
