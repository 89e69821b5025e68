//! Tables made by hand, by chance and by a hostile guest.

use proptest::prelude::*;
use resources::hv::SpaceKind;
use resources::hv::fake::Fake;
use resources::ram::RamBlock;
use resources::space::Mapping;
use std::sync::Arc;

use super::*;

const RAM: u64 = 1 << 20;

fn memory(entries: &[(u64, &[u8])]) -> Arc<Space> {
    let ram = RamBlock::anonymous(RAM).unwrap();
    entries.iter().for_each(|(at, bytes)| ram.write(*at, bytes));
    let space = Space::new(SpaceKind::Memory, Fake::unrecorded());
    space.map(Mapping::ram(0, ram)).unwrap();
    space
}

fn wide(entries: &[(u64, u64)]) -> Arc<Space> {
    let bytes: Vec<_> = entries.iter().map(|(at, entry)| (*at, entry.to_le_bytes())).collect();
    let slices: Vec<_> = bytes.iter().map(|(at, entry)| (*at, &entry[..])).collect();
    memory(&slices)
}

fn narrow(entries: &[(u64, u32)]) -> Arc<Space> {
    let bytes: Vec<_> = entries.iter().map(|(at, entry)| (*at, entry.to_le_bytes())).collect();
    let slices: Vec<_> = bytes.iter().map(|(at, entry)| (*at, &entry[..])).collect();
    memory(&slices)
}

fn sregs(cr3: u64, cr4: u64, efer: u64) -> kvm_sregs {
    kvm_sregs { cr0: CR0_PG | CR0_PE, cr3, cr4, efer, ..Default::default() }
}

fn list(paging: Paging, memory: &Space) -> Vec<(u64, u64, u64)> {
    let mut pages = paging.pages(memory, 100);
    let list = pages.by_ref().map(|page| (page.virt, page.phys, page.size)).collect();
    assert!(pages.complete());
    list
}

#[test]
fn without_paging_addresses_stand_for_themselves() {
    let paging = Paging::of(&kvm_sregs { cr0: CR0_PE, cr3: 0x1000, ..Default::default() });
    let memory = wide(&[]);
    assert!(!paging.is_on());
    assert_eq!(paging.translate(&memory, 0x1_2345_6789), Some(0x1_2345_6789));
    assert_eq!(paging.translate(&memory, u64::MAX), Some(u64::MAX));
    assert!(list(paging, &memory).is_empty());
}

#[test]
fn tables_of_32_bits_have_small_pages_and_large_ones_where_allowed() {
    let memory = narrow(&[
        (0x1000, 0x2003),
        (0x1004, 0x0040_0083 | 0x5 << 13),
        (0x1ffc, 0x2007),
        (0x2004, 0x0ab1_2007),
        (0x2008, 0x6),
    ]);
    let pse = Paging::of(&sregs(0x1fff, CR4_PSE, 0));
    assert_eq!(pse.translate(&memory, 0x1234), Some(0x0ab1_2234));
    // Linear addresses have 32 bits.
    assert_eq!(pse.translate(&memory, 0xffff_ffff_0000_1234), Some(0x0ab1_2234));
    assert_eq!(pse.translate(&memory, 0x0041_2345), Some(0x5_0041_2345));
    assert_eq!(pse.translate(&memory, 0xffc0_1fff), Some(0x0ab1_2fff));
    assert_eq!(pse.translate(&memory, 0x2000), None);
    assert_eq!(pse.translate(&memory, 0x8000_0000), None);
    let user = |address| pse.page(&memory, address).map(|page| page.user);
    assert_eq!((user(0x1000), user(0xffc0_1000)), (Some(false), Some(true)));
    assert_eq!(
        list(pse, &memory),
        [
            (0x1000, 0x0ab1_2000, 0x1000),
            (0x40_0000, 0x5_0040_0000, 0x40_0000),
            (0xffc0_1000, 0x0ab1_2000, 0x1000)
        ]
    );
    // Without PSE the second entry is a table, which is not in memory.
    let plain = Paging::of(&sregs(0x1000, 0, 0));
    assert_eq!(plain.translate(&memory, 0x0041_2345), None);
    assert_eq!(plain.translate(&memory, 0x1234), Some(0x0ab1_2234));
}

#[test]
fn pae_has_four_top_entries_without_permissions() {
    let memory = wide(&[
        (0x1020, 0x2001),
        (0x1038, 0x2001),
        (0x2000, 0x3007),
        (0x2008, 0x1_2340_0083),
        (0x3ff8, NO_EXECUTE | 0x8_0000_5007),
    ]);
    let paging = Paging::of(&sregs(0x103f, CR4_PAE, 0));
    assert_eq!(paging.translate(&memory, 0x1f_f123), Some(0x8_0000_5123));
    assert_eq!(paging.translate(&memory, 0x2a_bcde), Some(0x1_234a_bcde));
    assert_eq!(paging.translate(&memory, 0xc02a_bcde), Some(0x1_234a_bcde));
    assert_eq!(paging.translate(&memory, 0x4000_0000), None);
    let page = paging.page(&memory, 0x1f_f000).unwrap();
    assert!(page.user && page.writable && page.entry & NO_EXECUTE != 0);
    assert_eq!(list(paging, &memory).len(), 4);
}

#[test]
fn long_mode_has_4_or_5_levels_and_canonical_addresses() {
    let entries = [
        (0x1000, 0x2027),
        (0x1ff8, 0x2023),
        (0x2000, 0x3027),
        (0x2008, 0x1_4000_00e3),
        (0x3000, 0x4027),
        (0x3008, 0x20_00e1),
        (0x4000, 0x0000_0007_6543_2067),
        (0x4ff8, 0x9000 | NO_EXECUTE | 0x65),
        // For five levels: the first and the last of the top table lead to the one above.
        (0x5000, 0x1027),
        (0x5ff8, 0x1023),
    ];
    let memory = wide(&entries);
    for (cr3, cr4, high) in
        [(0x1000, 0, 0xffff_ff80_0000_0000), (0x5000, CR4_LA57, 0xffff_0000_0000_0000)]
    {
        let paging = Paging::of(&sregs(cr3 | 0xfff | 1 << 63, CR4_PAE | cr4, EFER_LMA));
        let at = |address| paging.translate(&memory, address);
        assert_eq!(at(0x123), Some(0x7_6543_2123));
        assert_eq!(at(0x1f_f001), Some(0x9001));
        assert_eq!(at(0x32_1000), Some(0x32_1000));
        assert_eq!(at(0x4123_4567), Some(0x1_4123_4567));
        assert_eq!(at(0x8000_0000), None);
        assert_eq!(at(high + 0x123), Some(0x7_6543_2123), "{high:#x}");
        // Just past the lower half, just before the upper one, and what one level more would make
        // of the address.
        let edge = if cr4 == 0 { 1 << 47 } else { 1 << 56 };
        for bad in [edge, u64::MAX - edge, high & !(1 << 63), high ^ 0x7000_0000_0000_0000] {
            assert_eq!(at(bad), None, "{bad:#x}");
        }
        let page = paging.page(&memory, 0x1f_f001).unwrap();
        assert!(page.user && !page.writable);
        let page = paging.page(&memory, high).unwrap();
        assert!(!page.user && page.writable);
        let pages = list(paging, &memory);
        // For five levels each of the four-level trees has two halves in each.
        assert_eq!(pages.len(), if cr4 == 0 { 8 } else { 16 });
        assert_eq!(pages[0], (0, 0x7_6543_2000, 0x1000));
        assert_eq!(pages[2], (0x20_0000, 0x20_0000, 0x20_0000));
        assert_eq!(pages[3], (0x4000_0000, 0x1_4000_0000, 0x4000_0000));
        assert!(pages.is_sorted());
        assert!(
            pages.iter().all(|(virt, phys, _)| paging.translate(&memory, *virt) == Some(*phys))
        );
    }
}

#[test]
fn a_table_that_holds_itself_is_listed_up_to_the_limit() {
    let memory = wide(&(0..512).map(|i| (0x1000 + i * 8, 0x1027)).collect::<Vec<_>>());
    let paging = Paging::of(&sregs(0x1000, CR4_PAE | CR4_LA57, EFER_LMA));
    let mut pages = paging.pages(&memory, 500);
    assert_eq!(pages.by_ref().count(), (500 - 4) * 512);
    assert!(!pages.complete());
    assert_eq!(pages.tables_left(), 0);
    assert_eq!(paging.translate(&memory, u64::MAX), Some(0x1fff));
}

#[test]
fn spans_join_where_both_addresses_go_on() {
    let span = |virt, phys, len| Span { virt, phys, len };
    assert!(span(0x1000, 0x5000, 0x1000).joins(&span(0x2000, 0x6000, 1)));
    assert!(!span(0x1000, 0x5000, 0x1000).joins(&span(0x2000, 0x7000, 1)));
    assert!(!span(0x1000, 0x5000, 0x1000).joins(&span(0x3000, 0x6000, 1)));
    assert!(!span(u64::MAX, 0x5000, 1).joins(&span(0, 0x5001, 1)));
}

/// Entries that mostly lead somewhere.
fn entry() -> impl Strategy<Value = u64> {
    let table = (0..RAM / PAGE, any::<u16>())
        .prop_map(|(page, bits)| page << 12 | u64::from(bits & 0xfff) | PRESENT);
    prop_oneof![2 => Just(0), 3 => table, 1 => any::<u64>()]
}

proptest! {
    #[test]
    fn any_tables_are_walked_and_listed_alike(
        pages in prop::collection::vec((0..RAM / PAGE, prop::collection::vec(entry(), 512)), 1..4),
        root in 0..RAM / PAGE,
        cr0 in prop::bool::weighted(0.9),
        cr4 in any::<u64>(),
        lma in any::<bool>(),
        addresses in prop::collection::vec(any::<u64>(), 32),
    ) {
        let mut entries = Vec::new();
        for (page, content) in &pages {
            for (i, entry) in (0..).zip(content) {
                entries.push((page * PAGE + i * 8, *entry));
                entries.push((root * PAGE + i * 8, *entry));
            }
        }
        let memory = wide(&entries);
        let mut sregs = sregs(root * PAGE, cr4, if lma { EFER_LMA } else { 0 });
        sregs.cr0 = if cr0 { CR0_PG } else { 0 };
        let paging = Paging::of(&sregs);
        for address in addresses {
            let _ = paging.translate(&memory, address);
        }
        let mut last = None;
        for page in paging.pages(&memory, 64).take(20_000) {
            prop_assert!(last < Some(page.virt));
            last = Some(page.virt);
            prop_assert_eq!(page.virt & (page.size - 1), 0);
            let found = paging.page(&memory, page.virt + (page.size - 1));
            prop_assert_eq!(found, Some(page));
        }
    }
}
