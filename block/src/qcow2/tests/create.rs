use super::*;
use crate::memory::Memory;
use crate::node::Node;
use crate::qcow2::bytes::be64;

const LIMIT: u64 = 64 << 20;

/// Runs what never waits.
fn now<F: Future>(task: F) -> F::Output {
    let mut the_loop = resources::iol::Loop::new("test").unwrap();
    the_loop.run(task)
}

fn make(options: &CreateOptions) -> Result<Vec<u8>, CreateError> {
    let file = Memory::new(Vec::new(), LIMIT);
    now(create(&*file, options))?;
    Ok(file.bytes())
}

fn refused(options: CreateOptions) -> String {
    make(&options).unwrap_err().to_string()
}

#[test]
fn every_cluster_size_and_width_is_consistent() {
    for cluster_bits in 9..=21 {
        for order in 0..=6 {
            for preallocation in [Preallocation::Off, Preallocation::Metadata] {
                let options = CreateOptions {
                    size: 3 << 20,
                    cluster_size: 1 << cluster_bits,
                    refcount_bits: 1 << order,
                    preallocation,
                    ..CreateOptions::default()
                };
                let bytes = make(&options).unwrap();
                let header = Header::parse(&bytes).unwrap();
                assert_eq!((header.size, header.refcount_order), (3 << 20, order));
                let clusters = bytes.len() as u64 >> cluster_bits;
                assert_eq!(bytes.len() as u64, clusters << cluster_bits);
                let each = 1 << header.refcounts_per_block_bits();
                for cluster in 0..clusters + 1 {
                    let entry = header.refcount_table_offset + cluster / each * 8;
                    let block = be64(&bytes, entry as usize) as usize;
                    let count = match block {
                        0 => 0,
                        _ => refcount::get(&bytes[block..], order, cluster % each),
                    };
                    assert_eq!(count, u64::from(cluster < clusters), "cluster {cluster}");
                }
            }
        }
    }
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let base = CreateOptions::default;
    let text = refused(CreateOptions { cluster_size: 256, ..base() });
    assert_eq!(text, "Cluster size must be a power of two between 512 and 2048k");
    refused(CreateOptions { cluster_size: 0, ..base() });
    refused(CreateOptions { cluster_size: 4 << 20, ..base() });
    let backing = Some(BackingFile { name: "base".into(), format: None });
    let text = refused(CreateOptions { backing, preallocation: Preallocation::Full, ..base() });
    assert_eq!(text, "Backing file and preallocation cannot be used at the same time");
    refused(CreateOptions { refcount_bits: 0, ..base() });
    refused(CreateOptions { refcount_bits: 128, ..base() });
    refused(CreateOptions { refcount_bits: 1, version: 2, ..base() });
    refused(CreateOptions { lazy_refcounts: true, version: 2, ..base() });
    refused(CreateOptions { compression: Compression::Zstd, version: 2, ..base() });
    refused(CreateOptions { extended_l2: true, cluster_size: 8192, ..base() });
    refused(CreateOptions { data_file_raw: true, ..base() });
    let error = Preallocation::named("1234").unwrap_err();
    assert_eq!(error, "Invalid preallocation mode: '1234'");
    assert_eq!(version_named("0.42").unwrap_err(), "Invalid compatibility level: '0.42'");
}

#[test]
fn what_is_too_large_is_refused_before_anything_is_written() {
    for size in [u64::MAX, i64::MAX as u64, 1 << 62, (128 << 30) + 512] {
        let file = Memory::new(Vec::new(), LIMIT);
        let options = CreateOptions { size, cluster_size: 512, ..CreateOptions::default() };
        assert!(matches!(now(create(&*file, &options)), Err(CreateError::TooLarge)), "{size}");
        assert_eq!(file.info().size, 0);
    }
    let name = "x".repeat(600);
    let backing = Some(BackingFile { name, format: None });
    let options = CreateOptions { cluster_size: 512, backing, ..CreateOptions::default() };
    assert!(matches!(make(&options), Err(CreateError::Io(_))));
}

#[test]
fn what_is_there_from_the_beginning_has_its_room() {
    for preallocation in [Preallocation::Falloc, Preallocation::Full] {
        let options = CreateOptions { size: 1 << 20, preallocation, ..CreateOptions::default() };
        let bytes = make(&options).unwrap();
        assert_eq!(bytes.len(), (5 << 16) + (1 << 20));
        let header = Header::parse(&bytes).unwrap();
        let l2 = be64(&bytes, header.l1_offset as usize) & !COPIED;
        assert_eq!(be64(&bytes, l2 as usize), COPIED | 5 << 16);
        assert_eq!(be64(&bytes, l2 as usize + 8 * 15), COPIED | 20 << 16);
        assert_eq!(be64(&bytes, l2 as usize + 8 * 16), 0);
    }
}

#[test]
fn a_data_file_gets_its_size() {
    let data = Memory::new(Vec::new(), LIMIT);
    let options = CreateOptions {
        size: (1 << 20) + 512,
        data_file: Some(("data.raw".into(), data.clone())),
        data_file_raw: true,
        ..CreateOptions::default()
    };
    let bytes = make(&options).unwrap();
    let header = Header::parse(&bytes).unwrap();
    assert_eq!(data.info().size, (1 << 20) + 512);
    assert_eq!(header.data_file.as_deref(), Some("data.raw"));
    assert!(header.external_data() && header.autoclear == RAW_DATA);
    let l2 = be64(&bytes, header.l1_offset as usize) & !COPIED;
    assert_eq!(be64(&bytes, l2 as usize + 8 * 16), COPIED | 1 << 20);
}

#[test]
fn a_full_disk_leaves_no_image() {
    let file = Memory::new(Vec::new(), 190_000);
    assert!(now(create(&*file, &CreateOptions::default())).is_err());
    assert!(Header::parse(&file.bytes()).is_err());
}
