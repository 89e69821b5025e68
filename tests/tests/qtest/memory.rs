//! Guest memory as the bus shows it.

use super::*;

const GIB: u64 = 1 << 30;
const ONES: u64 = u64::MAX;

#[test]
fn ram_keeps_what_is_written() {
    let mut m = Machine::new([]);
    let data: Vec<u8> = (0..=255).collect();
    m.q.write(0x12_3457, &data).unwrap();
    assert_eq!(m.q.read(0x12_3457, 256).unwrap(), data);
    // RAM is zero at first, also where a PC has its video memory: there is none.
    assert_eq!(m.q.readq(0xa0000).unwrap(), 0);
    assert_eq!(m.q.command("b64read 0x123458 3").unwrap(), "AQID");
    m.q.command("memset 0x123458 0x20000 0xa5").unwrap();
    assert_eq!(m.q.readq(0x14_3450).unwrap(), 0xa5a5_a5a5_a5a5_a5a5);
}

#[test]
fn ram_ends_where_it_should() {
    let mut m = Machine::new([]);
    let end = 64 << 20;
    m.q.writeq(end - 8, 1).unwrap();
    m.q.writeq(end, 2).unwrap();
    assert_eq!(m.q.readq(end - 8).unwrap(), 1);
    assert_eq!(m.q.readq(end).unwrap(), ONES);
    // Across the end: the part that is there.
    assert_eq!(m.q.readq(end - 4).unwrap(), 0xffff_ffff_0000_0000);
    assert_eq!(m.q.readq(4 * GIB).unwrap(), ONES);
    assert_eq!(m.q.readq(u64::MAX - 7).unwrap(), ONES);
}

#[test]
fn what_does_not_fit_below_the_pci_hole_is_above_4_gib() {
    let mut m = Machine::of_size("6G", []);
    for (address, value) in [(3 * GIB - 8, 1), (4 * GIB, 2), (7 * GIB - 8, 3)] {
        m.q.writeq(address, value).unwrap();
        assert_eq!(m.q.readq(address).unwrap(), value);
    }
    for hole in [3 * GIB, 4 * GIB - 8, 7 * GIB] {
        m.q.writeq(hole, 4).unwrap();
        assert_eq!(m.q.readq(hole).unwrap(), ONES, "{hole:#x}");
    }
}

#[test]
fn the_acpi_tables_are_there_and_come_back_at_reset() {
    let mut m = Machine::new([]);
    let root = |m: &mut Machine| {
        let area = m.q.read(0xe_0000, 0x2_0000).unwrap();
        let at = area.chunks(16).position(|chunk| chunk.starts_with(b"RSD PTR ")).unwrap() * 16;
        let rsdp = area[at..at + 36].to_vec();
        assert_eq!(rsdp.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        rsdp
    };
    let before = root(&mut m);
    m.q.command("memset 0xe0000 0x20000 0").unwrap();
    m.qmp("system_reset");
    m.event("RESET");
    assert_eq!(root(&mut m), before);
}
