use std::rc::Rc;

use resources::iol::{Local, Loop};

use super::*;
use crate::image::{Repair, Snapshot};
use crate::memory::Memory;
use crate::node::Zero;
use crate::qcow2::{CreateOptions, Options, check_file, create, open};

const LIMIT: u64 = 64 << 20;
const SIZE: u64 = 2 << 20;

fn run<F: Future>(task: impl FnOnce(Local) -> F) -> F::Output {
    let mut the_loop = Loop::new("test").unwrap();
    let local = the_loop.local().clone();
    the_loop.run(task(local))
}

async fn made(local: &Local, options: &CreateOptions) -> (Rc<Memory>, Rc<Qcow2>) {
    let file = Memory::new(Vec::new(), LIMIT);
    create(&*file, options).await.unwrap();
    let options = Options { discard: true, ..Options::default() };
    let image = open(local, file.clone(), options).await.unwrap();
    (file, image)
}

async fn fill(image: &Qcow2, offset: u64, len: usize, byte: u8) {
    let buf = IoBuf::zeroed(len);
    buf.fill(byte);
    image.write(offset, buf, false).await.unwrap();
}

async fn all(image: &Qcow2) -> Vec<u8> {
    let buf = IoBuf::zeroed(SIZE as usize);
    image.read(0, buf.clone()).await.unwrap();
    buf.to_vec()
}

async fn assert_clean(file: &Memory) {
    let check = check_file(file, Repair::No).await.unwrap();
    let counts = (check.corruptions, check.leaks, check.check_errors);
    assert_eq!(counts, (0, 0, 0), "{:?}", check.lines);
}

#[test]
fn every_width_becomes_every_other() {
    run(|local| async move {
        let options = CreateOptions { size: SIZE, cluster_size: 4096, ..CreateOptions::default() };
        let (file, image) = made(&local, &options).await;
        fill(&image, 0, 1 << 20, 7).await;
        let before = all(&image).await;
        for bits in [1, 64, 2, 32, 4, 16, 8, 1] {
            let change = AmendOptions { refcount_bits: Some(bits), ..AmendOptions::default() };
            image.amend(&change).await.unwrap();
            assert!(all(&image).await == before);
            fill(&image, u64::from(bits) << 14, 100_000, 7).await;
            image.discard(1 << 20, 1 << 20).await.unwrap();
            image.flush().await.unwrap();
            let check = image.check(Repair::No).await.unwrap();
            assert_eq!(check.lines, [""; 0]);
            let header = crate::qcow2::Header::parse(&file.bytes()).unwrap();
            assert_eq!(header.refcount_bits(), bits);
        }
        // Two references do not fit into one bit.
        let wide = AmendOptions { refcount_bits: Some(16), ..AmendOptions::default() };
        image.amend(&wide).await.unwrap();
        let one = Snapshot {
            id: String::new(),
            name: "one".into(),
            vm_state_size: 0,
            date: (0, 0),
            vm_clock: 0,
            disk_size: 0,
        };
        image.create_snapshot(one).await.unwrap();
        let narrow = AmendOptions { refcount_bits: Some(1), ..AmendOptions::default() };
        image.amend(&narrow).await.unwrap_err();
        assert_eq!(image.header.borrow().refcount_bits(), 16);
        image.close().await.unwrap();
        assert_clean(&file).await;
    });
}

#[test]
fn versions_go_up_and_down() {
    run(|local| async move {
        for lazy_refcounts in [false, true] {
            let options = CreateOptions {
                size: SIZE,
                cluster_size: 4096,
                lazy_refcounts,
                ..CreateOptions::default()
            };
            let (file, image) = made(&local, &options).await;
            fill(&image, 0, 1 << 20, 7).await;
            image.zero(8192, 100_000, Zero::Keep).await.unwrap();
            image.zero(1 << 20, 100_000, Zero::MayUnmap).await.unwrap();
            let before = all(&image).await;
            let down = AmendOptions { version: Some(2), ..AmendOptions::default() };
            image.amend(&down).await.unwrap();
            assert!(all(&image).await == before);
            image.zero(300_000, 100_000, Zero::Keep).await.unwrap();
            let before = all(&image).await;
            image.close().await.unwrap();
            assert_clean(&file).await;
            let header = crate::qcow2::Header::parse(&file.bytes()).unwrap();
            assert_eq!((header.version, header.compatible), (2, 0));
            let image = open(&local, file.clone(), Options::default()).await.unwrap();
            assert!(all(&image).await == before);
            let up = AmendOptions {
                version: Some(3),
                lazy_refcounts: Some(true),
                backing: Some(Some(BackingFile { name: "b".into(), format: None })),
                ..AmendOptions::default()
            };
            image.amend(&up).await.unwrap();
            image.close().await.unwrap();
            assert_clean(&file).await;
            let header = crate::qcow2::Header::parse(&file.bytes()).unwrap();
            assert_eq!((header.version, header.compatible), (3, LAZY_REFCOUNTS));
            assert_eq!(header.backing.as_deref(), Some("b"));
        }
    });
}

#[test]
fn what_does_not_go_together_is_refused() {
    run(|local| async move {
        let (_, image) = made(&local, &CreateOptions::default()).await;
        let bad = [
            AmendOptions { refcount_bits: Some(3), ..AmendOptions::default() },
            AmendOptions { refcount_bits: Some(128), ..AmendOptions::default() },
            AmendOptions { version: Some(2), refcount_bits: Some(8), ..AmendOptions::default() },
            AmendOptions {
                version: Some(2),
                lazy_refcounts: Some(true),
                ..AmendOptions::default()
            },
        ];
        for options in bad {
            image.amend(&options).await.unwrap_err();
        }
    });
}

/// The records of the first images that had snapshots do not tell the sizes of their disks.
#[test]
fn short_records_are_completed_by_an_upgrade() {
    run(|local| async move {
        let options = CreateOptions { size: SIZE, version: 2, ..CreateOptions::default() };
        let (file, image) = made(&local, &options).await;
        fill(&image, 0, 1 << 20, 7).await;
        let wanted = Snapshot {
            id: "1".into(),
            name: "one".into(),
            vm_state_size: 0,
            date: (1, 2),
            vm_clock: 3,
            disk_size: 0,
        };
        image.take_snapshot(wanted).await.unwrap();
        let at = image.header.borrow().snapshots_offset;
        image.close().await.unwrap();
        let record = file.bytes()[at as usize..at as usize + 40 + 16 + 4].to_vec();
        let old = [&record[..36], &[0; 4], &record[56..], &[0; 16]].concat();
        file.write(at, IoBuf::copy_of(&old), false).await.unwrap();
        let opened = || open(&local, file.clone(), Options::default());
        let image = opened().await.unwrap();
        assert_eq!(image.snapshots().unwrap()[0].disk_size, SIZE);
        let change = AmendOptions { version: Some(3), ..AmendOptions::default() };
        image.amend(&change).await.unwrap();
        image.resize(2 * SIZE).await.unwrap();
        image.close().await.unwrap();
        assert_clean(&file).await;
        let image = opened().await.unwrap();
        assert_eq!(image.snapshots().unwrap()[0].disk_size, SIZE);
        image.apply_snapshot("1").await.unwrap();
        assert_eq!(image.info().size, SIZE);
    });
}
