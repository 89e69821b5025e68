use std::rc::Rc;

use proptest::prelude::*;
use resources::iol::{IoBuf, Local, Loop};

use super::*;
use crate::image::{BackingFile, Image, Repair};
use crate::memory::Memory;
use crate::node::{Node, Zero};
use crate::qcow2::{CreateOptions, Options, check_file, create, open};

const LIMIT: u64 = 256 << 20;

fn run<F: Future>(task: impl FnOnce(Local) -> F) -> F::Output {
    let mut the_loop = Loop::new("test").unwrap();
    let local = the_loop.local().clone();
    the_loop.run(task(local))
}

async fn made(local: &Local, options: &CreateOptions) -> (Rc<Memory>, Rc<Qcow2>) {
    let file = Memory::new(Vec::new(), LIMIT);
    create(&*file, options).await.unwrap();
    let image = opened(local, &file).await;
    (file, image)
}

async fn opened(local: &Local, file: &Rc<Memory>) -> Rc<Qcow2> {
    open(local, file.clone(), Options { discard: true, ..Options::default() }).await.unwrap()
}

async fn fill(image: &Qcow2, offset: u64, len: usize, byte: u8) {
    let buf = IoBuf::zeroed(len);
    buf.fill(byte);
    image.write(offset, buf, false).await.unwrap();
}

async fn bytes(node: &dyn Node, offset: u64, len: usize) -> Vec<u8> {
    let buf = IoBuf::zeroed(len);
    buf.fill(0xee);
    node.read(offset, buf.clone()).await.unwrap();
    buf.to_vec()
}

async fn assert_clean(file: &Memory) {
    let check = check_file(file, Repair::No).await.unwrap();
    let counts = (check.corruptions, check.leaks, check.check_errors);
    assert_eq!(counts, (0, 0, 0), "{:?}", check.lines);
}

fn named(name: &str) -> Snapshot {
    Snapshot {
        id: String::new(),
        name: name.into(),
        vm_state_size: 0,
        date: (1, 2),
        vm_clock: 3,
        disk_size: 0,
    }
}

#[test]
fn every_cluster_size_and_width() {
    for cluster_bits in (9..=21).step_by(2) {
        for order in 2..=6 {
            run(|local| async move {
                let options = CreateOptions {
                    size: 4 << 20,
                    cluster_size: 1 << cluster_bits,
                    refcount_bits: 1 << order,
                    extended_l2: cluster_bits >= 15,
                    lazy_refcounts: order == 5,
                    ..CreateOptions::default()
                };
                let (file, image) = made(&local, &options).await;
                fill(&image, 0, 3 << 20, 1).await;
                let one = image.create_snapshot(named("one")).await.unwrap();
                assert_eq!((&*one.id, one.disk_size), ("1", 4 << 20));
                fill(&image, 1 << 20, 1 << 20, 2).await;
                image.zero(100, 70_000, Zero::MayUnmap).await.unwrap();
                image.discard(2 << 20, 1 << 20).await.unwrap();
                let now = bytes(&*image, 0, 4 << 20).await;
                image.create_snapshot(named("two")).await.unwrap();
                fill(&image, 0, 4 << 20, 3).await;
                image.close().await.unwrap();
                assert_clean(&file).await;

                let image = opened(&local, &file).await;
                let names: Vec<_> =
                    image.snapshots().unwrap().into_iter().map(|one| (one.id, one.name)).collect();
                assert_eq!(names, [("1".into(), "one".into()), ("2".into(), "two".into())]);
                image.apply_snapshot("2").await.unwrap();
                assert!(bytes(&*image, 0, 4 << 20).await == now);
                fill(&image, 0, 5, 4).await;
                image.apply_snapshot("1").await.unwrap();
                assert!(bytes(&*image, 0, 3 << 20).await == vec![1; 3 << 20]);
                image.delete_snapshot("1").await.unwrap();
                assert!(bytes(&*image, 0, 3 << 20).await == vec![1; 3 << 20]);
                image.flush().await.unwrap();
                image.apply_snapshot("2").await.unwrap();
                assert!(bytes(&*image, 0, 4 << 20).await == now);
                image.delete_snapshot("2").await.unwrap();
                let error = image.delete_snapshot("2").await.unwrap_err();
                assert_eq!(error.to_string(), "Can't find the snapshot");
                fill(&image, 0, 100, 9).await;
                image.close().await.unwrap();
                assert_clean(&file).await;
            });
        }
    }
}

#[test]
fn a_width_that_cannot_count_leaves_the_image_as_it_was() {
    run(|local| async move {
        let options = CreateOptions { size: 1 << 20, refcount_bits: 1, ..CreateOptions::default() };
        let (file, image) = made(&local, &options).await;
        fill(&image, 0, 300_000, 1).await;
        image.create_snapshot(named("one")).await.unwrap_err();
        assert_eq!(image.snapshots().unwrap(), []);
        fill(&image, 0, 300_000, 2).await;
        assert!(bytes(&*image, 0, 300_000).await == vec![2; 300_000]);
        image.close().await.unwrap();
        assert_clean(&file).await;
    });
}

#[test]
fn snapshots_are_shown_read_only_and_keep_the_machines_state() {
    run(|local| async move {
        let options =
            CreateOptions { size: 1 << 20, cluster_size: 4096, ..CreateOptions::default() };
        let (file, image) = made(&local, &options).await;
        fill(&image, 0, 1 << 20, 1).await;
        image.write_vmstate(5, IoBuf::copy_of(b"machine")).await.unwrap();
        let wanted = Snapshot { vm_state_size: 12, ..named("one") };
        image.create_snapshot(wanted).await.unwrap();
        // The disk goes on without it.
        assert_eq!(bytes(&*image, 0, 1 << 20).await, vec![1; 1 << 20]);
        let state = IoBuf::zeroed(7);
        image.read_vmstate(5, state.clone()).await.unwrap();
        assert_eq!(state.to_vec(), [0; 7]);
        fill(&image, 0, 1 << 20, 2).await;
        assert_eq!(
            image.show_snapshot(Some("1"), None).await.unwrap_err().raw_os_error(),
            Some(libc::EINVAL)
        );
        image.close().await.unwrap();
        assert_clean(&file).await;

        let options = Options { read_only: true, ..Options::default() };
        let image = open(&local, file.clone(), options).await.unwrap();
        assert!(image.show_snapshot(None, Some("two")).await.is_err());
        image.show_snapshot(None, Some("one")).await.unwrap();
        assert_eq!(bytes(&*image, 0, 1 << 20).await, vec![1; 1 << 20]);
        image.read_vmstate(5, state.clone()).await.unwrap();
        assert_eq!(state.to_vec(), b"machine");

        let image = opened(&local, &file).await;
        image.apply_snapshot("1").await.unwrap();
        image.read_vmstate(5, state.clone()).await.unwrap();
        assert_eq!(state.to_vec(), b"machine");
        image.delete_snapshot("1").await.unwrap();
        image.close().await.unwrap();
        assert_clean(&file).await;
    });
}

#[test]
fn identities_go_on_from_the_largest() {
    run(|local| async move {
        let (file, image) = made(&local, &CreateOptions::default()).await;
        for id in 1..=300 {
            let made = image.create_snapshot(named("same")).await.unwrap();
            assert_eq!(made.id, id.to_string());
        }
        image.delete_snapshot("7").await.unwrap();
        assert_eq!(image.create_snapshot(named("1")).await.unwrap().id, "301");
        image.delete_snapshot("301").await.unwrap();
        assert_eq!(image.create_snapshot(named("1")).await.unwrap().id, "301");
        image.close().await.unwrap();
        assert_clean(&file).await;
    });
}

#[test]
fn an_empty_image_shows_what_is_below() {
    run(|local| async move {
        for cluster_bits in [9, 16] {
            let options = CreateOptions {
                size: 1 << 20,
                cluster_size: 1 << cluster_bits,
                backing: Some(BackingFile { name: "below".into(), format: Some("raw".into()) }),
                ..CreateOptions::default()
            };
            let (file, image) = made(&local, &options).await;
            image.set_backing(Some(Memory::new(vec![0; 1 << 20], LIMIT)));
            fill(&image, 0, 1 << 20, 1).await;
            image.zero(0, 300_000, Zero::MayUnmap).await.unwrap();
            image.make_empty().await.unwrap();
            assert!(bytes(&*image, 0, 1 << 20).await == vec![0; 1 << 20]);
            let extent = image.map(0, 1 << 20).await.unwrap();
            assert_eq!((extent.len, extent.state), (1 << 20, crate::State::Absent));
            fill(&image, 5, 10, 1).await;
            let other = BackingFile { name: "other".into(), format: None };
            image.change_backing_file(Some(other.clone())).await.unwrap();
            assert_eq!(image.backing_file(), Some(other));
            let long = BackingFile { name: "x".repeat(1024), format: None };
            let error = image.change_backing_file(Some(long)).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
            image.change_backing_file(None).await.unwrap();
            image.close().await.unwrap();
            assert_clean(&file).await;
        }
    });
}

#[test]
fn an_open_image_is_checked_and_mended() {
    run(|local| async move {
        let (file, image) =
            made(&local, &CreateOptions { size: 9 << 20, ..CreateOptions::default() }).await;
        fill(&image, 0, 5 << 20, 1).await;
        let check = image.check(Repair::No).await.unwrap();
        assert_eq!((check.corruptions, check.leaks, check.allocated_clusters), (0, 0, 80));
        let lost = image.allocate(3).await.unwrap();
        file.zero(lost.offset, 3 << 16, Zero::Keep).await.unwrap();
        let check = image.check(Repair::All).await.unwrap();
        assert_eq!((check.leaks, check.leaks_fixed), (0, 3));
        fill(&image, 5 << 20, 1 << 20, 2).await;
        assert!(bytes(&*image, 0, 5 << 20).await == vec![1; 5 << 20]);
        image.close().await.unwrap();
        assert_clean(&file).await;
    });
}

#[derive(Debug, Clone)]
enum Step {
    Write(u64, u64, u8),
    Discard(u64, u64),
    Take,
    Remove(usize),
    Apply(usize),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = || 0u64..100_000;
    let step = prop_oneof![
        6 => (at(), 1u64..30_000, any::<u8>()).prop_map(|(at, len, byte)| Step::Write(at, len, byte)),
        2 => (at(), 1u64..60_000).prop_map(|(at, len)| Step::Discard(at, len)),
        2 => Just(Step::Take),
        1 => any::<usize>().prop_map(Step::Remove),
        1 => any::<usize>().prop_map(Step::Apply),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever is done, each snapshot stays what it was, and the image is clean.
    #[test]
    fn against_a_model(cluster_bits in 9u32..=13, order in 3u32..=6, steps in steps()) {
        const SIZE: u64 = 100_352;
        run(|local| async move {
            let options = CreateOptions {
                size: SIZE,
                cluster_size: 1 << cluster_bits,
                refcount_bits: 1 << order,
                ..CreateOptions::default()
            };
            let (file, mut image) = made(&local, &options).await;
            let mut disk = vec![0; SIZE as usize];
            let mut kept: Vec<(String, Vec<u8>)> = Vec::new();
            for step in steps {
                match step {
                    Step::Write(at, len, byte) => {
                        let len = len.min(SIZE - at);
                        disk[at as usize..(at + len) as usize].fill(byte);
                        fill(&image, at, len as usize, byte).await;
                    }
                    Step::Discard(at, len) => {
                        image.discard(at, len.min(SIZE - at)).await.unwrap();
                        disk = bytes(&*image, 0, SIZE as usize).await;
                    }
                    Step::Take => {
                        let made = image.create_snapshot(named("one")).await.unwrap();
                        kept.push((made.id, disk.clone()));
                    }
                    Step::Remove(which) if !kept.is_empty() => {
                        let (id, _) = kept.remove(which % kept.len());
                        image.delete_snapshot(&id).await.unwrap();
                    }
                    Step::Apply(which) if !kept.is_empty() => {
                        let (id, then) = &kept[which % kept.len()];
                        image.apply_snapshot(id).await.unwrap();
                        disk.clone_from(then);
                    }
                    Step::Remove(_) | Step::Apply(_) => {}
                    Step::Reopen => {
                        image.close().await.unwrap();
                        assert_clean(&file).await;
                        image = opened(&local, &file).await;
                    }
                }
                assert!(bytes(&*image, 0, SIZE as usize).await == disk);
            }
            image.close().await.unwrap();
            assert_clean(&file).await;
            for (id, then) in kept {
                let options = Options { read_only: true, ..Options::default() };
                let image = open(&local, file.clone(), options).await.unwrap();
                image.show_snapshot(Some(&id), None).await.unwrap();
                assert!(bytes(&*image, 0, SIZE as usize).await == then);
            }
        });
    }
}

/// The new one of two that have one name takes over the identity of the other.
#[test]
fn a_snapshot_gets_another_identity() {
    run(|local| async move {
        let options = CreateOptions { size: 1 << 20, ..CreateOptions::default() };
        let (file, image) = made(&local, &options).await;
        fill(&image, 0, 300_000, 1).await;
        image.create_snapshot(named("one")).await.unwrap();
        fill(&image, 0, 300_000, 2).await;
        image.create_snapshot(named("one")).await.unwrap();
        image.identify_snapshot("2", "1").await.unwrap_err();
        image.delete_snapshot("1").await.unwrap();
        image.identify_snapshot("1", "3").await.unwrap_err();
        image.identify_snapshot("2", "1").await.unwrap();
        fill(&image, 0, 300_000, 3).await;
        image.close().await.unwrap();
        assert_clean(&file).await;
        let image = opened(&local, &file).await;
        let all = image.snapshots().unwrap();
        assert_eq!((all.len(), &*all[0].id, &*all[0].name), (1, "1", "one"));
        image.apply_snapshot("1").await.unwrap();
        assert!(bytes(&*image, 0, 300_000).await == vec![2; 300_000]);
        image.close().await.unwrap();
        assert_clean(&file).await;
    });
}
