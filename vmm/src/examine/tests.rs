//! Texts, letter for letter.

use resources::hv::SpaceKind;
use resources::hv::fake::Fake;
use resources::ram::RamBlock;
use resources::space::Mapping;

use super::*;
use crate::cmd::testing::{self, RAM, fake};
use crate::cpu::paging::{CR0_PE, CR0_PG, EFER_LMA};

fn format(count: u64, letter: u8, size: u8) -> Format {
    Format { count, letter, size: (letter != b'i').then_some(size) }
}

fn show(vm: &mut Vm, at: u64, count: u64, letter: u8, size: u8) -> String {
    memory(vm, Place::Physical(at), format(count, letter, size)).unwrap()
}

#[test]
fn numbers_are_laid_out_by_size_and_letter() {
    let mut vm = fake();
    let bytes: Vec<u8> = (0..32u8).map(|at| at.wrapping_mul(9)).collect();
    vm.board.memory.write(0x1000, &bytes);
    vm.board.memory.write(0x1100, b"A'\\\n\r\x07");
    vm.board.memory.write(0x1200, &[0xff; 8]);
    for (at, count, letter, size, text) in [
        (0x1000, 1, b'x', 4, "0000000000001000: 0x1b120900\n"),
        (0x1000, 2, b'x', 8, "0000000000001000: 0x3f362d241b120900 0x877e756c635a5148\n"),
        (
            0x1000,
            5,
            b'x',
            4,
            "0000000000001000: 0x1b120900 0x3f362d24 0x635a5148 0x877e756c\n\
             0000000000001010: 0xaba29990\n",
        ),
        (
            0x1000,
            9,
            b'x',
            1,
            "0000000000001000: 0x00 0x09 0x12 0x1b 0x24 0x2d 0x36 0x3f\n0000000000001008: 0x48\n",
        ),
        (0x1001, 2, b'd', 1, "0000000000001001:   9  18\n"),
        (0x1200, 1, b'd', 2, "0000000000001200: 65535\n"),
        (0x1200, 1, b'd', 8, "0000000000001200:                   -1\n"),
        (0x1200, 1, b'u', 8, "0000000000001200: 18446744073709551615\n"),
        (0x1001, 1, b'u', 4, "0000000000001001:  605753865\n"),
        (0x1000, 2, b'o', 1, "0000000000001000:   0 011\n"),
        (0x1100, 6, b'c', 1, "0000000000001100: 'A' '\\'' '\\\\' '\\n' '\\r' '\\x07'\n"),
        (0x1100, 1, b'c', 4, "0000000000001100: 'A' '\\'' '\\\\' '\\n'\n"),
        (RAM - 2, 1, b'x', 4, "00000000001ffffe: 0x00000000\n"),
        (u64::MAX, 1, b'x', 4, "ffffffffffffffff: 0x00000000\n"),
        (0x1000, 0, b'x', 4, ""),
    ] {
        assert_eq!(show(&mut vm, at, count, letter, size), text);
    }
    let much = show(&mut vm, 0, u64::MAX, b'x', 8);
    assert!((MAX_OUTPUT..MAX_OUTPUT + 100).contains(&much.len()));
}

#[test]
fn code_is_disassembled() {
    let mut vm = fake();
    vm.board.memory.write(0x1000, &[0x90, 0xb8, 0x78, 0x56, 0x34, 0x12, 0x0f, 0x0b, 0xff, 0xff]);
    let text = show(&mut vm, 0x1000, 3, b'i', 0);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "0x0000000000001000:  nop");
    assert_eq!(lines[1], "0x0000000000001001:  mov $0x12345678,%eax");
    assert_eq!(lines[2], "0x0000000000001006:  ud2");
    // What is no instruction is passed over too.
    assert_eq!(show(&mut vm, 0x1008, 4, b'i', 0).lines().count(), 4);
    let much = show(&mut vm, 0, u64::MAX, b'i', 0);
    assert!(much.len() >= MAX_OUTPUT && much.len() < MAX_OUTPUT + 1000);
}

/// Memory with tables at 0x1000 that map the first two pages, writable by user code and the
/// kernel, a large page after them that may only be read, and the last page of all.
fn tables() -> (std::sync::Arc<Space>, kvm_bindings::kvm_sregs) {
    let ram = RamBlock::anonymous(1 << 20).unwrap();
    let entries: [(u64, u64); 9] = [
        (0x1000, 0x2007),
        (0x2000, 0x3007),
        (0x3000, 0x4007),
        (0x3008, 0x20_0181),
        (0x4000, 0x5067),
        (0x4008, 0x8000_0000_0000_601f),
        (0x1ff8, 0x7003),
        (0x7ff8, 0x8003),
        (0x8ff8, 0xffff_c000_0083),
    ];
    entries.iter().for_each(|(at, entry)| ram.write(*at, &entry.to_le_bytes()));
    let space = Space::new(SpaceKind::Memory, Fake::unrecorded());
    space.map(Mapping::ram(0, ram)).unwrap();
    let sregs = kvm_bindings::kvm_sregs {
        cr0: CR0_PE | CR0_PG,
        cr3: 0x1000,
        cr4: 0x20,
        efer: EFER_LMA,
        ..Default::default()
    };
    (space, sregs)
}

#[test]
fn page_tables_are_listed_by_page_and_by_range() {
    let (space, sregs) = tables();
    let paging = Paging::of(&sregs);
    assert_eq!(
        super::paging::tlb_text(&space, paging),
        "0000000000000000: 0000000000005000 ---DA--UW\n\
         0000000000001000: 0000000000006000 X----CTUW\n\
         0000000000200000: 0000000000200000 -GP------\n\
         ffffffffffe00000: 0000ffffc0000000 --P-----W\n"
    );
    assert_eq!(
        super::paging::mappings_text(&space, paging),
        "0000000000000000-0000000000002000 0000000000002000 urw\n\
         0000000000200000-0000000000400000 0000000000200000 -r-\n\
         ffffffffffe00000-0000000000000000 0000000000200000 -rw\n"
    );
    let off = Paging::of(&Default::default());
    assert_eq!(super::paging::tlb_text(&space, off), "PG disabled\n");
    assert_eq!(super::paging::mappings_text(&space, off), "PG disabled\n");
}

#[test]
fn a_guest_that_maps_everything_is_cut_short() {
    let ram = RamBlock::anonymous(1 << 20).unwrap();
    // Every other entry, so that nothing joins.
    (0..256u64).for_each(|index| ram.write(index * 16, &0x27u64.to_le_bytes()));
    let space = Space::new(SpaceKind::Memory, Fake::unrecorded());
    space.map(Mapping::ram(0, ram)).unwrap();
    let (_, mut sregs) = tables();
    sregs.cr3 = 0;
    let paging = Paging::of(&sregs);
    for text in
        [super::paging::tlb_text(&space, paging), super::paging::mappings_text(&space, paging)]
    {
        assert!((MAX_OUTPUT..MAX_OUTPUT + 100).contains(&text.len()));
    }
}

#[test]
fn addresses_are_told_from_each_other() {
    let mut vm = fake();
    assert!(gva2gpa(&mut vm, 0, 0).is_err());
    assert!(memory(&mut vm, Place::Virtual(0, 0), format(1, b'x', 4)).is_err());
    let base = vm.board.memory.view().memory().next().unwrap().block.region().as_ptr() as u64;
    assert_eq!(
        gpa2hva(&vm.board, 0x1234),
        format!("Host virtual address for 0x1234 (ram) is {:#x}\n", base + 0x1234)
    );
    let text = gpa2hva(&vm.board, 1 << 40);
    assert_eq!(text, "No memory is mapped at address 0x10000000000\n");
    let Some(mut vm) = testing::kvm() else { return };
    assert_eq!(gva2gpa(&mut vm, 0, 0x1234).unwrap(), "gpa: 0x1234\n");
    assert_eq!(tlb(&mut vm, 1).unwrap(), "PG disabled\n");
    assert_eq!(mappings(&mut vm, 1).unwrap(), "PG disabled\n");
    vm.vcpus[0]
        .call(|vcpu| {
            let mut sregs = vcpu.fd.get_sregs().unwrap();
            (sregs.cr0, sregs.cr3) = (sregs.cr0 | CR0_PE | CR0_PG, 0x1000);
            sregs.cr4 |= 0x20;
            sregs.efer |= EFER_LMA | 0x100;
            sregs.cs.l = 1;
            vcpu.fd.set_sregs(&sregs).unwrap();
        })
        .unwrap();
    assert_eq!(gva2gpa(&mut vm, 0, 0x1234).unwrap(), "Unmapped\n");
    let text = memory(&mut vm, Place::Virtual(0, 0x1234), format(4, b'x', 4)).unwrap();
    assert_eq!(text, "0000000000001234: Cannot access memory\n");
    let text = memory(&mut vm, Place::Virtual(0, 0x1234), format(4, b'i', 4)).unwrap();
    assert_eq!(text, "0x0000000000001234:  Cannot access memory\n");
}

#[test]
fn address_spaces_are_trees() {
    let vm = fake();
    let text = mtree(&vm.board);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "memory");
    assert_eq!(lines[1], "  0000000000000000-ffffffffffffffff (prio 0, RW): system");
    assert_eq!(lines[2], "    0000000000000000-00000000000bffff (prio 0, RW): ram");
    assert!(lines.contains(&"    0000000000100000-00000000001fffff (prio 0, RW): ram"), "{text}");
    assert!(lines.contains(&"    00000000000f0000-00000000000fffff (prio 2, RW): ram"), "{text}");
    assert!(lines.contains(&"I/O"));
    let keyboard = "    0000000000000060-0000000000000060 (prio 1, RW): /machine/i8042";
    assert!(lines.contains(&keyboard), "{text}");
    assert!(roms(&vm.board).starts_with("addr=0000"), "{}", roms(&vm.board));
    assert!(roms(&vm.board).contains("mem=ram name=\"acpi/tables\""));
    assert_eq!(numa(&vm), "0 nodes\n");
    assert_eq!(mtree(&testing::nothing().board).lines().count(), 6);
}
