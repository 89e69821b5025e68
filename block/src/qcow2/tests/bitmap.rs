use std::rc::Rc;

use resources::iol::{IoBuf, Local, Loop};

use super::*;
use crate::image::{Image, Repair};
use crate::memory::Memory;
use crate::node::Node;
use crate::qcow2::{CreateOptions, Options, check_file, create, open};

const LIMIT: u64 = 64 << 20;

fn run<F: Future>(task: impl FnOnce(Local) -> F) -> F::Output {
    let mut the_loop = Loop::new("test").unwrap();
    let local = the_loop.local().clone();
    the_loop.run(task(local))
}

async fn made(options: &CreateOptions) -> Rc<Memory> {
    let file = Memory::new(Vec::new(), LIMIT);
    create(&*file, options).await.unwrap();
    file
}

async fn opened(local: &Local, file: &Rc<Memory>, keeps_bitmaps: bool) -> Rc<Qcow2> {
    let options = Options { keeps_bitmaps, ..Options::default() };
    open(local, file.clone(), options).await.unwrap()
}

async fn assert_clean(file: &Memory) {
    let check = check_file(file, Repair::No).await.unwrap();
    let counts = (check.corruptions, check.leaks, check.check_errors);
    assert_eq!(counts, (0, 0, 0), "{:?}", check.lines);
}

#[test]
fn bits_are_set_and_merged() {
    let mut bits = Bits::new(1 << 20, 16).unwrap();
    bits.set(65_535, 2);
    bits.set((1 << 20) - 1, 100);
    assert_eq!((bits.bytes(), bits.count()), (&[3, 128][..], 3 << 16));
    let mut fine = Bits::new(1 << 20, 9).unwrap();
    fine.merge(&bits);
    assert_eq!(fine.count(), 3 << 16);
    assert!(fine.get(0) && fine.get(131_071) && !fine.get(131_072));
    let mut coarse = Bits::new(1 << 20, 19).unwrap();
    coarse.merge(&fine);
    assert_eq!(coarse.bytes(), [3]);
    assert!(Bits::new(u64::MAX, 9).is_none() && Bits::new(1 << 62, 9).is_none());
}

#[test]
fn bitmaps_are_kept() {
    for cluster_bits in [9, 12, 16, 21] {
        run(|local| async move {
            let options = CreateOptions {
                size: (8 << 20) + 512,
                cluster_size: 1 << cluster_bits,
                ..CreateOptions::default()
            };
            let file = made(&options).await;
            let image = opened(&local, &file, true).await;
            image.add_bitmap("fine", Some(512), true).await.unwrap();
            image.add_bitmap("plain", None, false).await.unwrap();
            let error = image.add_bitmap("fine", None, true).await.unwrap_err();
            assert_eq!(error.to_string(), "Bitmap already exists: fine");
            for bad in [0, 256, 1000, 1 << 32] {
                image.add_bitmap("bad", Some(bad), true).await.unwrap_err();
            }
            let mut bits = image.bitmap("fine").await.unwrap();
            assert_eq!(bits.count(), 0);
            bits.set(0, 5 << 20);
            bits.set((7 << 20) + 512, 512);
            bits.set(8 << 20, 512);
            image.store_bitmap("fine", &bits).await.unwrap();
            image.merge_bitmap("plain", &bits).await.unwrap();
            image.enable_bitmap("plain", true).await.unwrap();
            image.close().await.unwrap();
            assert_clean(&file).await;

            let image = opened(&local, &file, true).await;
            assert!(image.bitmap("fine").await.unwrap() == bits);
            let plain = image.bitmap("plain").await.unwrap();
            assert!(plain.get(0) && plain.get(8 << 20));
            let told = image.bitmaps().await.unwrap();
            assert_eq!((&*told[0].name, told[0].granularity, told[0].enabled), ("fine", 512, true));
            assert_eq!(
                (told[1].granularity, told[1].enabled),
                ((1 << cluster_bits).max(4096), true)
            );
            image.write(0, IoBuf::zeroed(100), false).await.unwrap();
            let error = image.apply_snapshot("1").await.unwrap_err();
            assert_eq!(error.to_string(), "Can't find the snapshot");
            let one = crate::Snapshot {
                id: String::new(),
                name: "one".into(),
                vm_state_size: 0,
                date: (0, 0),
                vm_clock: 0,
                disk_size: 0,
            };
            image.create_snapshot(one).await.unwrap();
            let error = image.apply_snapshot("1").await.unwrap_err();
            assert_eq!(error.to_string(), "Device has active dirty bitmaps");
            image.delete_snapshot("1").await.unwrap();
            image.clear_bitmap("fine").await.unwrap();
            assert_eq!(image.bitmap("fine").await.unwrap().count(), 0);
            assert!(image.check(Repair::All).await.unwrap().lines.is_empty());
            image.remove_bitmap("plain").await.unwrap();
            let error = image.remove_bitmap("plain").await.unwrap_err();
            assert_eq!(error.to_string(), "Dirty bitmap 'plain' not found");
            image.remove_bitmap("fine").await.unwrap();
            assert_eq!(image.bitmaps().await.unwrap(), []);
            image.close().await.unwrap();
            assert_clean(&file).await;
        });
    }
}

#[test]
fn bitmaps_that_nobody_keeps_are_dropped() {
    run(|local| async move {
        let file = made(&CreateOptions { size: 8 << 20, ..CreateOptions::default() }).await;
        let image = opened(&local, &file, true).await;
        image.add_bitmap("one", None, true).await.unwrap();
        image.close().await.unwrap();
        let image = opened(&local, &file, false).await;
        assert_eq!(image.bitmaps().await.unwrap(), []);
        image.close().await.unwrap();
        // Their room is what a check finds.
        let check = check_file(&*file, Repair::Leaks).await.unwrap();
        assert_eq!((check.corruptions, check.leaks_fixed), (0, 2));
        assert_clean(&file).await;
        let old = made(&CreateOptions { version: 2, ..CreateOptions::default() }).await;
        let image = opened(&local, &old, true).await;
        image.add_bitmap("one", None, true).await.unwrap_err();
    });
}
