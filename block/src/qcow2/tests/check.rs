use std::rc::Rc;

use super::super::bytes::{be64, put};
use super::super::header::{Extension, LAZY_REFCOUNTS};
use super::super::refcount;
use super::super::snapshot::{Record, serialise_table};
use super::*;
use crate::memory::Memory;
use crate::qcow2::{CreateOptions, Preallocation, create};
use proptest::prelude::*;

const LIMIT: u64 = 64 << 20;

fn now<F: Future>(task: F) -> F::Output {
    resources::iol::Loop::new("test").unwrap().run(task)
}

/// An image with all its data allocated.
fn image(options: CreateOptions) -> Rc<Memory> {
    let file = Memory::new(Vec::new(), LIMIT);
    let options = CreateOptions { preallocation: Preallocation::Metadata, ..options };
    now(create(&*file, &options)).unwrap();
    file
}

fn small() -> CreateOptions {
    CreateOptions { size: 1 << 20, cluster_size: 4096, ..CreateOptions::default() }
}

fn header(file: &Memory) -> Header {
    Header::parse(&file.bytes()).unwrap()
}

/// The image with some bytes changed.
fn poked(file: &Memory, change: impl FnOnce(&mut Vec<u8>)) -> Rc<Memory> {
    let mut bytes = file.bytes();
    change(&mut bytes);
    Memory::new(bytes, LIMIT)
}

fn check(file: &Memory, repair: Repair) -> Check {
    now(check_file(file, repair)).unwrap()
}

fn counts(check: &Check) -> (u64, u64, u64) {
    (check.corruptions, check.leaks, check.check_errors)
}

/// Where the refcount of a cluster is: its block and its index there.
fn refcount_place(bytes: &[u8], cluster: u64) -> (usize, u64) {
    let header = Header::parse(bytes).unwrap();
    let each = 1 << header.refcounts_per_block_bits();
    let entry = header.refcount_table_offset + cluster / each * 8;
    (be64(bytes, entry as usize) as usize, cluster % each)
}

fn set_refcount(bytes: &mut [u8], cluster: u64, count: u64) {
    let order = Header::parse(bytes).unwrap().refcount_order;
    let (block, index) = refcount_place(bytes, cluster);
    refcount::set(&mut bytes[block..], order, index, count);
}

/// Where the L2 entry of a cluster of the guest is.
fn l2_place(bytes: &[u8], cluster: u64) -> usize {
    let header = Header::parse(bytes).unwrap();
    let each = 1 << header.l2_bits();
    let l1 = be64(bytes, (header.l1_offset + cluster / each * 8) as usize);
    let entry = (cluster % each) << header.l2_entry_bits();
    ((l1 & walk::OFFSET) + entry) as usize
}

#[test]
fn new_images_are_clean() {
    for cluster_bits in 9..=21 {
        for refcount_bits in [1, 2, 4, 8, 16, 32, 64] {
            for version in [2, 3] {
                if version == 2 && refcount_bits != 16 {
                    continue;
                }
                let options = CreateOptions {
                    size: 5 << 20,
                    version,
                    cluster_size: 1 << cluster_bits,
                    refcount_bits,
                    extended_l2: version == 3 && cluster_bits >= 14,
                    ..CreateOptions::default()
                };
                let file = image(options.clone());
                let all = (5u64 << 20).div_ceil(1 << cluster_bits);
                let expected = Check {
                    total_clusters: all,
                    allocated_clusters: all,
                    image_end_offset: file.info().size,
                    ..Check::default()
                };
                assert_eq!(check(&file, Repair::No), expected);
                assert_eq!(check(&file, Repair::All), expected);
                let empty = Memory::new(Vec::new(), LIMIT);
                now(create(&*empty, &options)).unwrap();
                assert_eq!(counts(&check(&empty, Repair::No)), (0, 0, 0));
            }
        }
    }
}

#[test]
fn leaks_are_found_and_mended() {
    for order in 0..=6 {
        let file = image(CreateOptions { refcount_bits: 1 << order, ..small() });
        let end = file.info().size;
        let file = poked(&file, |bytes| {
            bytes.resize(bytes.len() + 8192, 0);
            set_refcount(bytes, end >> 12, 1);
        });
        let found = check(&file, Repair::No);
        assert_eq!(counts(&found), (0, 1, 0), "{found:?}");
        assert_eq!(found.lines, [format!("Leaked cluster {} refcount=1 reference=0", end >> 12)]);
        let mended = check(&file, Repair::Leaks);
        assert_eq!((counts(&mended), mended.leaks_fixed), ((0, 0, 0), 1));
        assert_eq!(
            mended.lines,
            [format!("Repairing cluster {} refcount=1 reference=0", end >> 12)]
        );
        assert_eq!(check(&file, Repair::No).lines, [""; 0]);
    }
}

#[test]
fn what_is_used_and_not_counted_is_damage() {
    let file = image(CreateOptions { lazy_refcounts: true, ..small() });
    let used = be64(&file.bytes(), l2_place(&file.bytes(), 3)) >> 12 & 0xffff;
    let file = poked(&file, |bytes| {
        set_refcount(bytes, used, 0);
        put(bytes, 72, &(DIRTY | CORRUPT).to_be_bytes());
    });
    let found = check(&file, Repair::No);
    // The flag says the refcount is 1.
    assert_eq!(counts(&found), (2, 0, 0));
    assert_eq!(found.lines[0], format!("ERROR cluster {used} refcount=0 reference=1"));
    assert!(found.lines[1].starts_with("ERROR OFLAG_COPIED data cluster: l2_entry=80000000"));
    let leaks = check(&file, Repair::Leaks);
    assert_eq!((counts(&leaks), leaks.corruptions_fixed), ((2, 0, 0), 0));
    assert_eq!(header(&file).incompatible, DIRTY | CORRUPT);
    let mended = check(&file, Repair::All);
    assert_eq!((counts(&mended), mended.corruptions_fixed), ((0, 0, 0), 1));
    assert_eq!(header(&file).incompatible, 0);
    assert_eq!(header(&file).compatible, LAZY_REFCOUNTS);
    assert_eq!(check(&file, Repair::No).lines, [""; 0]);
}

#[test]
fn a_cluster_that_is_shared_loses_its_flags() {
    for order in 0..=6 {
        let file = image(CreateOptions { refcount_bits: 1 << order, ..small() });
        let file = poked(&file, |bytes| {
            let (from, to) = (l2_place(bytes, 3), l2_place(bytes, 4));
            let entry = be64(bytes, from);
            put(bytes, to, &entry.to_be_bytes());
        });
        assert_eq!(counts(&check(&file, Repair::No)), (1, 1, 0));
        let mended = check(&file, Repair::All);
        if order == 0 {
            // One bit cannot tell.
            assert_eq!((counts(&mended), mended.leaks_fixed), ((1, 0, 0), 1));
            continue;
        }
        assert_eq!((counts(&mended), mended.corruptions_fixed), ((0, 0, 0), 3), "{mended:?}");
        assert_eq!(counts(&check(&file, Repair::No)), (0, 0, 0));
        let bytes = file.bytes();
        assert_eq!(be64(&bytes, l2_place(&bytes, 3)) & walk::COPIED, 0);
    }
}

#[test]
fn flags_are_mended() {
    let file = image(small());
    let file = poked(&file, |bytes| {
        let l1 = header(&file).l1_offset as usize;
        for at in [l1, l2_place(bytes, 7)] {
            let entry = be64(bytes, at);
            put(bytes, at, &(entry ^ walk::COPIED).to_be_bytes());
        }
    });
    let found = check(&file, Repair::No);
    assert_eq!(counts(&found), (2, 0, 0));
    assert!(found.lines[0].starts_with("ERROR OFLAG_COPIED L2 cluster: l1_index=0 l1_entry="));
    let mended = check(&file, Repair::All);
    assert_eq!((counts(&mended), mended.corruptions_fixed), ((0, 0, 0), 2));
    assert_eq!(counts(&check(&file, Repair::No)), (0, 0, 0));
}

#[test]
fn refcounts_are_made_anew() {
    let changes: [fn(&mut Vec<u8>); 6] = [
        // No block, one that is not aligned, one that is not there, one that is the header.
        |bytes| put(bytes, 4096, &0u64.to_be_bytes()),
        |bytes| put(bytes, 4096, &8704u64.to_be_bytes()),
        |bytes| put(bytes, 4096, &(1u64 << 40).to_be_bytes()),
        |bytes| put(bytes, 4096 + 64, &(3u64 << 12).to_be_bytes()),
        // No table, and one that is elsewhere.
        |bytes| put(bytes, 48, &[0; 12]),
        |bytes| put(bytes, 48, &(1u64 << 20).to_be_bytes()),
    ];
    for order in 0..=6 {
        for (number, change) in changes.iter().enumerate() {
            let file = image(CreateOptions { refcount_bits: 1 << order, ..small() });
            let data = file.bytes();
            let file = poked(&file, change);
            let found = check(&file, Repair::No);
            assert!(found.corruptions > 0, "{number}");
            let mended = check(&file, Repair::All);
            assert_eq!(mended.corruptions, 0, "{order} {number} {mended:?}");
            assert!(mended.corruptions_fixed > 0);
            let again = check(&file, Repair::No);
            assert_eq!(counts(&again), (0, 0, 0), "{order} {number} {again:?}");
            assert_eq!(again.image_end_offset, file.info().size);
            // The guest's data are where they were.
            let bytes = file.bytes();
            assert_eq!(bytes[l2_place(&bytes, 0)..][..2048], data[l2_place(&data, 0)..][..2048]);
        }
    }
}

#[test]
fn nothing_is_freed_where_something_cannot_be_followed() {
    let file = image(small());
    // An L2 table that nobody can find, and all its clusters seem unused.
    let file = poked(&file, |bytes| {
        let l1 = header(&file).l1_offset as usize;
        let entry = be64(bytes, l1);
        put(bytes, l1, &(entry | 512).to_be_bytes());
    });
    let before = file.bytes();
    let mended = check(&file, Repair::All);
    assert_eq!((mended.corruptions, mended.corruptions_fixed, mended.leaks_fixed), (1, 0, 0));
    assert!(mended.leaks > 200);
    assert_eq!(file.bytes(), before);
    // Snapshots that cannot be read.
    let file = image(small());
    let file = poked(&file, |bytes| {
        let place = l2_place(bytes, 0) as u64;
        put(bytes, 60, &9u32.to_be_bytes());
        put(bytes, 64, &place.to_be_bytes());
    });
    let mended = check(&file, Repair::All);
    assert!(mended.corruptions > 0 && mended.leaks_fixed == 0, "{mended:?}");
}

#[test]
fn metadata_that_are_data_too_are_damage() {
    let file = image(small());
    let file = poked(&file, |bytes| {
        let (at, l1) = (l2_place(bytes, 9), header(&file).l1_offset);
        put(bytes, at, &l1.to_be_bytes());
        set_refcount(bytes, l1 >> 12, 2);
    });
    let found = check(&file, Repair::No);
    assert_eq!(counts(&found), (1, 1, 0));
    let line = &found.lines[0];
    assert!(line.contains("the active L1 table and something else"), "{line}");
}

#[test]
fn clusters_behind_the_end_are_told() {
    let file = image(small());
    let end = file.info().size;
    let file = poked(&file, |bytes| bytes.truncate(end as usize - 4096));
    let found = check(&file, Repair::No);
    assert_eq!(counts(&found), (0, 0, 1));
    assert_eq!(
        found.lines,
        [format!(
            "Warning: cluster offset=0x{:x} is after the end of the image file, can't properly \
             check refcounts.",
            end - 4096
        )]
    );
}

#[test]
fn snapshots_count() {
    let file = image(small());
    let file = poked(&file, |bytes| {
        let head = header(&file);
        let (table, l1) = (bytes.len() as u64, bytes.len() as u64 + 4096);
        let record = Record {
            l1_offset: l1,
            l1_entries: head.l1_entries,
            id: b"1".to_vec(),
            name: b"one".to_vec(),
            disk_size: head.size,
            ..Record::default()
        };
        let old = bytes[head.l1_offset as usize..][..4096].to_vec();
        bytes.extend(serialise_table(&[record]).unwrap());
        bytes.resize(l1 as usize, 0);
        bytes.extend(old);
        put(bytes, 60, &1u32.to_be_bytes());
        put(bytes, 64, &table.to_be_bytes());
    });
    // The tables, 257 clusters shared, and the L2 tables with them.
    let found = check(&file, Repair::No);
    assert_eq!(counts(&found), (2 + 256 + 1, 0, 0));
    let mended = check(&file, Repair::All);
    assert_eq!(mended.corruptions, 0);
    let again = check(&file, Repair::No);
    assert_eq!((counts(&again), again.allocated_clusters), ((0, 0, 0), 256));
    // And without them their clusters are free.
    let file = poked(&file, |bytes| put(bytes, 60, &0u32.to_be_bytes()));
    assert_eq!(check(&file, Repair::All).leaks_fixed, 2 + 256 + 1);
    assert_eq!(counts(&check(&file, Repair::No)), (0, 0, 0));
}

#[test]
fn bitmaps_that_are_not_true_any_more_are_let_go() {
    let file = image(small());
    let file = poked(&file, |bytes| {
        let mut head = header(&file);
        let place = bytes.len() as u64;
        head.bitmaps =
            Some(super::super::header::BitmapDirectory { count: 1, size: 32, offset: place });
        head.extensions = vec![Extension { kind: 77, data: vec![1, 2, 3] }];
        bytes.resize(bytes.len() + 4096, 0);
        set_refcount(bytes, place >> 12, 1);
        let first = head.serialise().unwrap();
        put(bytes, 0, &first);
    });
    assert_eq!(counts(&check(&file, Repair::No)), (0, 1, 0));
    assert_eq!(check(&file, Repair::Leaks).leaks_fixed, 1);
    assert!(header(&file).bitmaps.is_none());
    assert_eq!(header(&file).extensions.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any bytes may be wrong: the check ends, and what it calls mended is clean.
    #[test]
    fn damage_of_any_kind(
        order in 0u32..=6,
        cluster_bits in 9u32..=12,
        changes in prop::collection::vec((0usize..20_000, any::<u64>(), 0u32..64), 1..6),
    ) {
        let file = image(CreateOptions {
            size: 1 << 18,
            cluster_size: 1 << cluster_bits,
            refcount_bits: 1 << order,
            ..CreateOptions::default()
        });
        let file = poked(&file, |bytes| {
            for (at, value, shift) in changes {
                let at = (at % bytes.len()) & !7;
                let value = be64(bytes, at) ^ (value >> shift);
                put(bytes, at, &value.to_be_bytes());
            }
        });
        let Ok(found) = now(check_file(&*file, Repair::No)) else { return Ok(()) };
        let Ok(mended) = now(check_file(&*file, Repair::All)) else { return Ok(()) };
        prop_assert!(mended.corruptions <= found.corruptions, "{:?} {:?}", found, mended);
        let again = check(&file, Repair::No);
        if counts(&mended) == (0, 0, 0) {
            prop_assert_eq!(counts(&again), (0, 0, 0), "{:?} {:?}", mended, again);
        }
    }
}
