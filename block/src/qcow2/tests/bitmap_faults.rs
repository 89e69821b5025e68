//! Bitmaps of images whose file fails, or is hostile.

use std::rc::Rc;

use resources::iol::{IoBuf, Local, Loop};

use super::super::super::access::store;
use super::*;
use crate::image::BitmapChange;
use crate::memory::Memory;
use crate::node::Node;
use crate::qcow2::tests::failing::Failing;
use crate::qcow2::{CreateOptions, Options, create, open};

const LIMIT: u64 = 64 << 20;
const MIB: u64 = 1 << 20;

fn run<F: Future>(task: impl FnOnce(Local) -> F) -> F::Output {
    let mut the_loop = Loop::new("test").unwrap();
    let local = the_loop.local().clone();
    the_loop.run(task(local))
}

async fn made(size: u64) -> Rc<Memory> {
    let file = Memory::new(Vec::new(), LIMIT);
    create(&*file, &CreateOptions { size, ..CreateOptions::default() }).await.unwrap();
    file
}

async fn opened(local: &Local, file: &Rc<Memory>) -> Rc<Qcow2> {
    open(local, file.clone(), Options::default()).await.unwrap()
}

async fn add(image: &Qcow2, name: &str, granularity: u64, enabled: bool) {
    let granularity = Some(granularity);
    image.change_bitmap(name, BitmapChange::Add { granularity, enabled }).await.unwrap();
}

/// What follows the writes is never valid in the file, whatever fails.
#[test]
fn a_failing_file_has_no_valid_bitmap_that_misses_a_write() {
    for ill in [1, 2, u64::MAX] {
        for action in 0..5 {
            let mut well = 0;
            while run(|local| fail_at(local, action, well, ill)) {
                well += 1;
            }
            assert!(well > 2, "{action} needs {well} writes and flushes");
        }
    }
}

/// Whether the action failed.
async fn fail_at(local: Local, action: u32, well: u64, ill: u64) -> bool {
    let memory = made(4 * MIB).await;
    let file = Failing::new(&memory);
    let image = open(&local, file.clone(), Options::default()).await.unwrap();
    for (name, enabled) in [("a", true), ("b", true), ("off", false)] {
        add(&image, name, 65536, enabled).await;
    }
    image.close().await.unwrap();
    let image = open(&local, file.clone(), Options::default()).await.unwrap();
    if action > 0 {
        // One of them has changed.
        let some = Bitmap::new(4 * MIB, 65536);
        image.change_bitmap("b", BitmapChange::Merge(&some)).await.unwrap();
    }
    file.fail(well, ill);
    let done = match action {
        0 | 1 => image.reopen(true).await,
        2 => image.change_bitmap("b", BitmapChange::Disable).await,
        3 => image.change_bitmap("off", BitmapChange::Enable).await,
        _ => image.change_bitmap("a", BitmapChange::Remove).await,
    };
    file.fail(u64::MAX, 0);
    let written = image.write(MIB, IoBuf::zeroed(512), false).await.is_ok();
    assert!(done.is_err() || written != (action < 2));
    let read_only = Options { read_only: true, ..Options::default() };
    let seen = open(&local, memory.clone(), read_only).await.unwrap();
    let followed: Vec<_> = image.bitmaps.live().keys().cloned().collect();
    for told in seen.bitmaps().iter().filter(|told| written && !told.inconsistent) {
        let follows = followed.contains(&told.name.as_bytes().to_vec());
        assert!(!follows && !told.enabled, "{action} {well} {ill}: {told:?}");
    }
    // What follows still does, to the end.
    if written && image.close().await.is_ok() {
        let seen = opened(&local, &memory).await;
        for name in followed.iter().map(|name| std::str::from_utf8(name).unwrap()) {
            assert!(seen.bitmap(name).await.unwrap().is_dirty(MIB), "{action} {well} {ill}");
        }
    }
    done.is_err()
}

#[test]
fn a_directory_that_cannot_be_read_is_not_let_go() {
    run(|local| async move {
        let memory = made(MIB).await;
        let image = opened(&local, &memory).await;
        add(&image, "one", 65536, true).await;
        image.close().await.unwrap();
        let before = memory.bytes();
        let file = Failing::new(&memory);
        file.unreadable.set(Some(image.header.borrow().bitmaps.unwrap().offset));
        let error = open(&local, file.clone(), Options::default()).await.err().unwrap();
        assert!(error.to_string().starts_with("Could not read bitmaps"), "{error}");
        assert!(memory.bytes() == before);
        assert_eq!(opened(&local, &memory).await.bitmaps().len(), 1);
    });
}

#[test]
fn bits_behind_the_end_are_not_clean() {
    run(|local| async move {
        let file = made(MIB).await;
        let image = opened(&local, &file).await;
        add(&image, "one", 65536, true).await;
        image.close().await.unwrap();
        let table = image.bitmaps.entries()[0].table_offset;
        store(&*file, table, &(1u64 << 40).to_be_bytes()).await.unwrap();
        let read_only = Options { read_only: true, ..Options::default() };
        let image = open(&local, file.clone(), read_only).await.unwrap();
        image.bitmap("one").await.unwrap_err();
        assert!(opened(&local, &file).await.bitmaps()[0].inconsistent);
    });
}

#[test]
fn bits_in_memory_are_bounded() {
    run(|local| async move {
        // The bits of two bitmaps are as many as may be in memory.
        let file = made(1 << 40).await;
        let image = opened(&local, &file).await;
        for name in ["a", "b", "c"] {
            add(&image, name, 512, false).await;
        }
        for name in ["a", "b"] {
            image.change_bitmap(name, BitmapChange::Enable).await.unwrap();
        }
        let error = image.change_bitmap("c", BitmapChange::Enable).await.unwrap_err();
        assert_eq!(error.to_string(), "Too many bitmaps are enabled");
        let error = image.resize((1 << 40) + MIB).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFBIG));
        for name in ["a", "b"] {
            image.change_bitmap(name, BitmapChange::Disable).await.unwrap();
        }
        image.resize(1 << 39).await.unwrap();
        let lost: Vec<_> = image.bitmaps().iter().map(|bitmap| bitmap.inconsistent).collect();
        assert_eq!(lost, [false, false, true]);
        image.close().await.unwrap();
    });
}
