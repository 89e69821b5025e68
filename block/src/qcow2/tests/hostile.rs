//! Images that somebody has tampered with: used in every way, they give errors and nothing worse.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use proptest::prelude::*;

use super::*;
use crate::node::Zero;
use crate::qcow2::header::CORRUPT;

/// An image with data of every kind.
async fn template(local: &Local, version: u32, extended: bool) -> Vec<u8> {
    let file = made(&CreateOptions {
        size: 1 << 20,
        version,
        cluster_size: if extended { 16 << 10 } else { 4096 },
        extended_l2: extended,
        ..CreateOptions::default()
    })
    .await;
    let image = opened(local, &file, Options { discard: true, ..Options::default() }).await;
    for index in 0..20u64 {
        let data = IoBuf::copy_of(&vec![index as u8; 5000]);
        image.write(index * 30_000, data, false).await.unwrap();
    }
    image.zero(100_000, 100_000, Zero::Keep).await.unwrap();
    let cluster = 1usize << image.geometry().cluster_bits;
    image.write_compressed(15 << 16, IoBuf::copy_of(&vec![7; cluster])).await.unwrap();
    image.close().await.unwrap();
    file.bytes()
}

async fn used(local: &Local, bytes: Vec<u8>, discard: bool) {
    let file = Memory::new(bytes, 16 << 20);
    let options = Options { discard, l2_cache_size: Some(0), ..Options::default() };
    let Ok(image) = open(local, file.clone(), options).await else { return };
    let size = image.info().size.min(2 << 20);
    let mut at = 0;
    while at < size {
        match image.map(at, size - at).await {
            Ok(extent) => {
                assert!(extent.len > 0 && extent.len <= size - at);
                at += extent.len;
            }
            Err(_) => at += 4096,
        }
    }
    for at in (0..size).step_by(50_000) {
        let len = (size - at).min(30_000);
        let _ = image.read(at, IoBuf::zeroed(len as usize)).await;
        let _ = image.write(at, IoBuf::zeroed(len as usize / 2), false).await;
        let _ = image.zero(at, len / 3, Zero::MayUnmap).await;
        let _ = image.discard(at, len).await;
        let _ = image.write(at, IoBuf::zeroed(len as usize), at % 100_000 == 0).await;
    }
    let _ = image.flush().await;
    let _ = image.resize(size * 2 / 512 * 512).await;
    let _ = image.resize(size / 3 / 512 * 512).await;
    let _ = image.close().await;
}

proptest! {
    #![proptest_config(config(64))]
    #[test]
    fn tampering_gives_errors(
        version in 2u32..=3,
        extended in any::<bool>(),
        discard in any::<bool>(),
        changes in prop::collection::vec((0usize..1 << 17, any::<u8>(), any::<bool>()), 1..12),
    ) {
        run(|local| async move {
            let mut bytes = template(&local, version, extended && version == 3).await;
            for (at, byte, entry) in changes {
                // The places of entries that are not zero are worth more than others.
                let words: Vec<usize> = (0..bytes.len() / 8)
                    .filter(|at| bytes[at * 8] & 0xc0 != 0 || bytes[at * 8 + 1] == 0 && bytes[at * 8 + 5] != 0)
                    .collect();
                let place = match words.get(at % words.len().max(1)) {
                    Some(word) if entry => word * 8 + at % 8,
                    _ => at % bytes.len(),
                };
                bytes[place] = byte;
            }
            used(&local, bytes, discard).await;
        });
    }
}

#[test]
fn a_write_to_metadata_is_prevented() {
    run(|local| async move {
        let bytes = template(&local, 3, false).await;
        let header = super::super::Header::parse(&bytes).unwrap();
        let at = header.l1_offset as usize;
        let l2 = super::super::bytes::be64(&bytes, at) & super::super::geometry::OFFSET;
        for (target, name) in [
            (header.l1_offset, "active L1 table"),
            (l2, "active L2 table"),
            (header.refcount_table_offset, "refcount table"),
        ] {
            let mut bytes = bytes.clone();
            let entry = target | super::super::geometry::COPIED;
            bytes[l2 as usize..l2 as usize + 8].copy_from_slice(&entry.to_be_bytes());
            let file = Memory::new(bytes, LIMIT);
            let told = Arc::new(AtomicU32::new(0));
            let seen = told.clone();
            let wanted = format!("Prevented {name} overwrite");
            let on_corruption = Arc::new(move |damage: &super::super::Corruption| {
                assert!(damage.fatal && damage.message == wanted);
                assert_eq!((damage.offset, damage.size), (Some(target), Some(512)));
                seen.fetch_add(1, Relaxed);
            });
            let options = Options { on_corruption: Some(on_corruption), ..Options::default() };
            let image = opened(&local, &file, options).await;
            let error = image.write(0, IoBuf::zeroed(512), false).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO));
            assert_eq!(told.load(Relaxed), 1);
            let error = image.read(0, IoBuf::zeroed(512)).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOMEDIUM));
            image.close().await.unwrap();
            let header = super::super::Header::parse(&file.bytes()).unwrap();
            assert_ne!(header.incompatible & CORRUPT, 0);
            let again = open(&local, file.clone(), Options::default()).await.err().unwrap();
            assert_eq!(again.to_string(), "qcow2: Image is corrupt; cannot be opened read/write");
            let read_only = Options { read_only: true, ..Options::default() };
            opened(&local, &file, read_only).await;
        }
    });
}

#[test]
fn a_large_disk_costs_little_to_open() {
    run(|local| async move {
        let file = made(&CreateOptions { size: 1 << 40, ..CreateOptions::default() }).await;
        let counted = Rc::new(Counted { file: file.clone(), bytes: Cell::new(0) });
        let image = open(&local, counted.clone(), Options::default()).await.unwrap();
        // The header, the L1 table and the refcount table: memory follows what is read.
        assert!(counted.bytes.get() < 1 << 20, "{}", counted.bytes.get());
        let extent = image.map(0, 1 << 40).await.unwrap();
        assert!(extent.len >= 1 << 30);
        image.discard(0, 1 << 40).await.unwrap();
        image.zero(0, 1 << 40, Zero::MayUnmap).await.unwrap();
        assert!(counted.bytes.get() < 2 << 20, "{}", counted.bytes.get());
    });
}

/// A file of which is counted what was read.
struct Counted {
    file: Rc<Memory>,
    bytes: Cell<usize>,
}

impl Node for Counted {
    fn info(&self) -> crate::node::Info {
        self.file.info()
    }
    fn read(&self, offset: u64, buf: IoBuf) -> crate::node::Op<'_> {
        self.bytes.set(self.bytes.get() + buf.len());
        self.file.read(offset, buf)
    }
    fn write(&self, offset: u64, buf: IoBuf, durable: bool) -> crate::node::Op<'_> {
        self.file.write(offset, buf, durable)
    }
    fn zero(&self, offset: u64, len: u64, how: Zero) -> crate::node::Op<'_> {
        self.file.zero(offset, len, how)
    }
    fn discard(&self, offset: u64, len: u64) -> crate::node::Op<'_> {
        self.file.discard(offset, len)
    }
    fn flush(&self) -> crate::node::Op<'_> {
        self.file.flush()
    }
    fn map(&self, offset: u64, len: u64) -> crate::node::Op<'_, crate::node::Extent> {
        self.file.map(offset, len)
    }
}

/// An entry of the L1 table with flags and without a table is no table, and nothing is looked for
/// there for ever.
#[test]
fn entries_of_flags_alone_lead_nowhere() {
    run(|local| async move {
        let options =
            CreateOptions { size: 1 << 20, cluster_size: 512, ..CreateOptions::default() };
        let file = made(&options).await;
        let l1 = crate::qcow2::Header::parse(&file.bytes()).unwrap().l1_offset;
        for entry in 0..32 {
            file.write(l1 + entry * 8, IoBuf::copy_of(&[0x80]), false).await.unwrap();
        }
        let image = opened(&local, &file, Options { discard: true, ..Options::default() }).await;
        image.discard(0, 1 << 20).await.unwrap();
        image.zero(0, 1 << 19, Zero::MayUnmap).await.unwrap();
        image.resize(5 << 9).await.unwrap();
        image.resize(1 << 20).await.unwrap();
        image.image().unwrap().make_empty().await.unwrap();
        assert!(bytes(&*image, 0, 1 << 20).await == vec![0; 1 << 20]);
        image.close().await.unwrap();
    });
}

/// What is behind the end of the file is not asked for: not everything that an image lies on
/// answers that with zeros.
#[test]
fn a_file_may_end_within_its_last_cluster() {
    run(|local| async move {
        let file = made(&CreateOptions { size: 1 << 20, ..CreateOptions::default() }).await;
        let image = opened(&local, &file, Options::default()).await;
        image.write(0, IoBuf::copy_of(&[7; 512]), false).await.unwrap();
        image.close().await.unwrap();
        assert!(!file.info().size.is_multiple_of(65536));
        let strict = Rc::new(crate::raw::Raw::new(file.clone(), 0, None).unwrap());
        let image = open(&local, strict, Options::default()).await.unwrap();
        for (at, len) in [(0, 65536), (1024, 512), (0, 1 << 20)] {
            let seen = bytes(&*image, at, len).await;
            assert!(
                seen.iter().enumerate().all(|(index, byte)| {
                    *byte == if at as usize + index < 512 { 7 } else { 0 }
                })
            );
        }
    });
}
