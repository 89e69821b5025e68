use super::*;
use crate::isa::serial::COM;

const AT: u32 = 0xe0000;

fn config() -> Config {
    let serial = COM
        .iter()
        .zip(1..)
        .map(|((port, irq), number)| SerialPort { number, port: *port, irq: *irq })
        .collect();
    Config {
        processors: (0..4).map(|id| Processor { apic_id: id, present: id < 2 }).collect(),
        ioapic: (0, 0xfec0_0000),
        serial,
        i8042: true,
        sleeps: Sleeps { s3: false, s4: None },
        ..Config::default()
    }
}

fn word(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

/// The table at a guest address, after checking its header.
fn at(tables: &Tables, address: u32) -> &[u8] {
    let bytes = &tables.bytes[(address - AT) as usize..];
    let table = &bytes[..word(bytes, 4) as usize];
    if &table[..4] != b"FACS" {
        assert_eq!(checksum(table), 0, "{:?}", std::str::from_utf8(&table[..4]));
        assert_eq!(&table[10..16], b"VMM   ");
    }
    table
}

/// All tables that the root pointer leads to, through the XSDT.
fn find<'a>(tables: &'a Tables, signature: &[u8; 4]) -> &'a [u8] {
    let xsdt = at(tables, word(&tables.bytes, 24));
    let mut all: Vec<_> =
        xsdt[36..].chunks(8).map(|address| at(tables, word(address, 0))).collect();
    let fadt = all[0];
    all.push(at(tables, word(fadt, 36)));
    all.push(at(tables, word(fadt, 40)));
    all.into_iter().find(|table| table.starts_with(signature)).unwrap()
}

#[test]
fn the_root_pointer_leads_to_sound_tables() {
    let tables = build(&config(), AT);
    let rsdp = &tables.bytes[..36];
    assert_eq!(&rsdp[..8], b"RSD PTR ");
    assert_eq!((checksum(&rsdp[..20]), checksum(rsdp)), (0, 0));
    assert_eq!((rsdp[15], word(rsdp, 20), word(rsdp, 28)), (2, 36, 0));
    let (rsdt, xsdt) = (at(&tables, word(rsdp, 16)), at(&tables, word(rsdp, 24)));
    assert_eq!((&rsdt[..4], &xsdt[..4]), (&b"RSDT"[..], &b"XSDT"[..]));
    assert_eq!(word(rsdt, 36), word(xsdt, 36));
    assert_eq!(word(rsdt, 40), word(xsdt, 44));
    assert_eq!(find(&tables, b"FACS").len(), 64);
    assert!(tables.bytes.len() < 0x1800);
}

#[test]
fn the_fadt_names_the_fixed_hardware() {
    let tables = build(&config(), AT);
    let fadt = find(&tables, b"FACP");
    assert_eq!(fadt.len(), 276);
    assert_eq!((word(fadt, 46) as u16, word(fadt, 48)), (9, 0xb2));
    assert_eq!(&fadt[52..54], [0xf1, 0xf0]);
    assert_eq!([56, 64, 76, 80].map(|offset| word(fadt, offset)), [0x600, 0x604, 0x608, 0xafe0]);
    assert_eq!(&fadt[88..93], [4, 2, 0, 4, 4]);
    assert_eq!((fadt[108], fadt[109]), (0x32, 7));
    assert_eq!(word(fadt, 112), 1 | 1 << 2 | 1 << 10);
    assert_eq!(&fadt[116..129], [1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0, 6]);
    assert_eq!(&fadt[148..154], [1, 32, 0, 2, 0, 6]);
}

#[test]
fn the_madt_lists_processors_and_interrupts() {
    let tables = build(&config(), AT);
    let madt = find(&tables, b"APIC");
    assert_eq!((word(madt, 36), word(madt, 40)), (0xfee0_0000, 1));
    let mut entries = Vec::new();
    let mut rest = &madt[44..];
    while let [_, len, ..] = rest {
        let (entry, tail) = rest.split_at(*len as usize);
        entries.push(entry.to_vec());
        rest = tail;
    }
    assert_eq!(
        entries,
        [
            vec![0, 8, 0, 0, 1, 0, 0, 0],
            vec![0, 8, 1, 1, 1, 0, 0, 0],
            vec![0, 8, 2, 2, 2, 0, 0, 0],
            vec![0, 8, 3, 3, 2, 0, 0, 0],
            vec![1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
            vec![2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
            vec![2, 10, 0, 9, 9, 0, 0, 0, 0xd, 0],
            vec![4, 6, 0xff, 0, 0, 1],
        ]
    );
}

#[test]
fn a_processor_beyond_the_8_bit_ids_gets_the_long_entry() {
    let mut config = config();
    config.processors = vec![
        Processor { apic_id: 254, present: true },
        Processor { apic_id: 255, present: true },
        Processor { apic_id: 1000, present: false },
    ];
    let tables = build(&config, AT);
    let madt = find(&tables, b"APIC");
    assert_eq!(&madt[44..48], [0, 8, 0, 254]);
    assert_eq!(&madt[52..68], [9, 16, 0, 0, 255, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(&madt[68..84], [9, 16, 0, 0, 0xe8, 3, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(madt[madt.len() - 12..][..8], [0xa, 12, 0, 0, 0xff, 0xff, 0xff, 0xff]);
}

#[test]
fn the_dsdt_has_what_is_configured() {
    let has = |config: &Config, name: &[u8]| {
        let tables = build(config, AT);
        find(&tables, b"DSDT").windows(name.len()).any(|window| window == name)
    };
    let mut config = config();
    for name in ["_S5_", "COM1", "COM4", "KBD_", "MOU_", "RTC_", "C000", "C003", "_E02"] {
        assert!(has(&config, name.as_bytes()), "{name}");
    }
    for name in ["_S3_", "_S4_", "C004"] {
        assert!(!has(&config, name.as_bytes()), "{name}");
    }
    config.i8042 = false;
    config.sleeps.s3 = true;
    config.devices = b"MARK".to_vec();
    config.events = b"_E05".to_vec();
    assert!(has(&config, b"_S3_") && has(&config, b"MARK") && !has(&config, b"KBD_"));
    assert!(has(&config, b"_E05"));
}

/// Writes the tables where `iasl -d` can check them; run by hand.
#[test]
#[ignore = "writes files for a look by hand"]
fn dump() {
    let tables = build(&config(), AT);
    for name in [b"FACP", b"APIC", b"DSDT", b"FACS"] {
        let path = std::env::temp_dir().join(std::str::from_utf8(name).unwrap());
        std::fs::write(path.with_extension("dat"), find(&tables, name)).unwrap();
    }
}
