use super::super::bytes::put;
use super::super::names::FEATURE_RECORD;
use super::parse::unknown_features;
use super::*;
use proptest::prelude::*;

fn sample() -> Header {
    Header {
        size: 1 << 30,
        l1_entries: 2,
        l1_offset: 3 << 16,
        refcount_table_offset: 1 << 16,
        refcount_table_clusters: 1,
        backing: Some("base.img".into()),
        backing_format: Some("raw".into()),
        extensions: vec![Extension { kind: 0x1234_5678, data: b"hello".to_vec() }],
        unknown: vec![1, 2, 3, 4, 5, 6, 7, 8],
        ..Header::default()
    }
}

/// What is read of these bytes, wherever the name is.
fn read(bytes: &[u8]) -> Header {
    Header { named_at: None, ..Header::parse(bytes).unwrap() }
}

fn refused(header: &Header, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = header.serialise().unwrap();
    bytes.resize(1 << 16, 0);
    change(&mut bytes);
    Header::parse(&bytes).unwrap_err().text("drive0")
}

#[test]
fn what_is_written_is_read() {
    let header = sample();
    assert_eq!(read(&header.serialise().unwrap()), header);
    let old = Header { version: 2, unknown: Vec::new(), ..header.clone() };
    assert_eq!(read(&old.serialise().unwrap()), old);
    let zstd = Header {
        l1_entries: 4,
        compression: Compression::Zstd,
        incompatible: COMPRESSION_TYPE | EXTENDED_L2 | EXTERNAL_DATA,
        autoclear: BITMAPS,
        data_file: Some("data".into()),
        bitmaps: Some(BitmapDirectory { count: 1, size: 32, offset: 5 << 16 }),
        ..header
    };
    assert_eq!(read(&zstd.serialise().unwrap()), zstd);
}

#[test]
fn small_clusters_do_without_names() {
    let header = Header { cluster_bits: 9, size: 0, ..sample() };
    let bytes = header.serialise().unwrap();
    assert!(bytes.len() <= 512);
    assert_eq!(read(&bytes), header);
    let long = Header { backing: Some("x".repeat(400)), ..header };
    assert_eq!(long.serialise().unwrap_err(), HeaderError::NoSpace);
}

#[test]
fn refusals_have_their_texts() {
    let uses = "'drive0' uses a qcow2 feature which is not supported by this qemu version: ";
    let header = sample();
    let set =
        |at: usize, value: u32| refused(&header, move |bytes| put(bytes, at, &value.to_be_bytes()));
    assert_eq!(set(0, 1), "Image is not in qcow2 format");
    assert_eq!(set(4, 4), format!("{uses}QCOW version 4"));
    assert_eq!(set(20, 8), "Unsupported cluster size: 2^8");
    assert_eq!(set(20, 22), "Unsupported cluster size: 2^22");
    assert_eq!(set(76, 1 << 31), format!("{uses}Unknown incompatible feature: 80000000"));
    assert_eq!(set(96, 7), "Reference count entry width too large; may not exceed 64 bits");
    assert_eq!(set(100, 103), "qcow2 header too short");
    assert_eq!(set(100, 1 << 20), "Could not read unknown qcow2 header fields: Invalid argument");
    assert_eq!(set(32, 2), "Unsupported encryption method: 2");
    assert_eq!(set(36, 1), "L1 table is too small");
    assert_eq!(set(36, 1 << 23), "Active L1 table too large");
    assert_eq!(set(44, 5), "Active L1 table offset invalid");
    assert_eq!(set(40, 1 << 31), "Active L1 table offset invalid");
    assert_eq!(set(56, 129), "Reference count table too large");
    assert_eq!(set(52, 5), "Reference count table offset invalid");
    assert_eq!(set(60, 65_537), "Snapshot table too large");
    assert_eq!(set(68, 5), "Snapshot table offset invalid");
    assert_eq!(set(24, 1 << 31), "Image is too big");
    assert_eq!(set(12, 70_000), "Invalid backing file offset");
    assert_eq!(set(16, 1024), "Backing file name too long");
    assert_eq!(set(104, 1 << 24), "qcow2: Compression type incompatible feature bit must be set");
    assert_eq!(set(104, 2 << 24), "qcow2: unknown compression type: 2");
    assert_eq!(set(76, 8), "qcow2: Compression type incompatible feature bit must not be set");
    let first = V3_LENGTH + header.unknown.len();
    assert_eq!(set(first + 4, 1 << 30), "Header extension too large");
    assert_eq!(set(first + 4, 16), "ERROR: ext_backing_format: len=16 too large (>=16)");
    let extended = Header { incompatible: EXTENDED_L2, cluster_bits: 13, ..header.clone() };
    let text = Header::parse(&extended.serialise().unwrap()).unwrap_err().to_string();
    assert_eq!(text, "Unsupported subcluster size: 256");
}

#[test]
fn unknown_features_are_named_by_the_image() {
    let mut record = vec![0, 40];
    record.extend_from_slice(b"time travel");
    record.resize(FEATURE_RECORD, 0);
    let mut other = vec![0, 41];
    other.extend_from_slice(b"magic");
    other.resize(FEATURE_RECORD, 0);
    let both: Vec<u8> = [record, other].concat();
    let bits = (1 << 40) | (1 << 41);
    assert_eq!(unknown_features(Some(&both), bits), "time travel, magic");
    assert_eq!(
        unknown_features(Some(&both), bits | 1 << 63),
        "time travel, magic, Unknown incompatible feature: 8000000000000000"
    );
}

/// Whatever is written of a change, the header is the old one or the new one.
#[test]
fn names_change_at_once() {
    let mut file = vec![0; 4096];
    let names = [3, 600, 900, 5, 900, 901, 0, 40, 1000].map(|len| "n".repeat(len));
    let mut header = Header { cluster_bits: 12, size: 0, ..sample() };
    let bytes = header.serialise().unwrap();
    file[..bytes.len()].copy_from_slice(&bytes);
    header.named_at = Header::parse(&file).unwrap().named_at;
    for (turn, name) in names.iter().enumerate() {
        let old = read(&file);
        header.backing = Some(name.clone()).filter(|name| !name.is_empty());
        header.backing_format = Some("raw".to_owned()).filter(|_| turn % 2 == 0);
        let (writes, named_at) = header.writes().unwrap();
        for (index, (at, data)) in writes.iter().enumerate() {
            let last = index + 1 == writes.len();
            assert!(!last || data.len() <= 512);
            file[*at as usize..*at as usize + data.len()].copy_from_slice(data);
            assert!(last || read(&file) == old, "{turn}");
        }
        header.named_at = named_at;
        assert_eq!(Header::parse(&file).unwrap(), header);
    }
}

/// Where two names do not fit, one is not written over the other.
#[test]
fn a_name_is_not_written_over_the_one_that_is_there() {
    let mut header = Header { cluster_bits: 10, size: 0, ..sample() };
    header.backing = Some("o".repeat(500));
    let bytes = header.serialise().unwrap();
    header.named_at = Header::parse(&bytes).unwrap().named_at;
    for (name, fits) in [(450, false), (490, false), (200, true), (0, true), (500, false)] {
        header.backing = Some("n".repeat(name)).filter(|name| !name.is_empty());
        match header.writes() {
            Ok((writes, _)) => {
                assert!(fits && writes.iter().all(|(_, data)| data.len() <= 512), "{name}");
            }
            Err(error) => assert!(!fits && error != HeaderError::NoSpace, "{name}: {error}"),
        }
    }
}

proptest! {
    #[test]
    fn bytes_of_anybody(
        base in any::<bool>(),
        changes in prop::collection::vec((0usize..700, any::<u8>()), 0..6),
        cut in 0usize..1000,
    ) {
        let mut bytes = Header { version: 2 + u32::from(base), ..sample() }.serialise().unwrap();
        for (at, byte) in changes {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        bytes.truncate(cut);
        let _ = Header::wanted(&bytes);
        if let Ok(header) = Header::parse(&bytes)
            && let Ok(again) = header.serialise()
        {
            prop_assert_eq!(read(&again), Header { named_at: None, ..header });
        }
    }
}
