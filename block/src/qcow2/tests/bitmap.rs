use std::rc::Rc;

use resources::iol::{IoBuf, Local, Loop};

use super::*;
use crate::image::{Image, Repair};
use crate::memory::Memory;
use crate::node::Node;
use crate::node::{Extent, Info, Op, Zero};
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

async fn opened(local: &Local, file: &Rc<Memory>) -> Rc<Qcow2> {
    open(local, file.clone(), Options::default()).await.unwrap()
}

async fn read_only(local: &Local, file: &Rc<Memory>) -> Rc<Qcow2> {
    let options = Options { read_only: true, ..Options::default() };
    open(local, file.clone(), options).await.unwrap()
}

async fn assert_clean(file: &Memory) {
    let check = check_file(file, Repair::No).await.unwrap();
    let counts = (check.corruptions, check.leaks, check.check_errors);
    assert_eq!(counts, (0, 0, 0), "{:?}", check.lines);
}

fn add(granularity: impl Into<Option<u64>>, enabled: bool) -> BitmapChange<'static> {
    BitmapChange::Add { granularity: granularity.into(), enabled }
}

async fn refusal(image: &Qcow2, name: &str, change: BitmapChange<'_>) -> String {
    image.change_bitmap(name, change).await.unwrap_err().to_string()
}

#[test]
fn bitmaps_follow_writes_and_are_kept() {
    for cluster_bits in [9, 12, 16, 21] {
        run(|local| async move {
            let options = CreateOptions {
                size: (8 << 20) + 512,
                cluster_size: 1 << cluster_bits,
                ..CreateOptions::default()
            };
            let file = made(&options).await;
            let image = opened(&local, &file).await;
            image.change_bitmap("fine", add(512, true)).await.unwrap();
            image.change_bitmap("plain", add(None, false)).await.unwrap();
            let said = refusal(&image, "fine", add(None, true)).await;
            assert_eq!(said, "Bitmap already exists: fine");
            for bad in [0, 256, 1000, 1 << 32] {
                image.change_bitmap("bad", add(bad, true)).await.unwrap_err();
            }
            let mut model = Bitmap::new(options.size, 512);
            image.write(1000, IoBuf::zeroed(100), false).await.unwrap();
            model.set(1000, 100);
            image.zero(3 << 20, 70_000, Zero::Keep).await.unwrap();
            model.set(3 << 20, 70_000);
            image.discard(5 << 20, 1 << 20).await.unwrap();
            model.set(5 << 20, 1 << 20);
            image.write(8 << 20, IoBuf::zeroed(512), true).await.unwrap();
            model.set(8 << 20, 512);
            assert!(image.bitmap("fine").await.unwrap() == model);
            assert!(image.bitmap("plain").await.unwrap().is_clean());
            image.change_bitmap("plain", BitmapChange::Merge(&model)).await.unwrap();
            image.close().await.unwrap();
            assert_clean(&file).await;

            let image = read_only(&local, &file).await;
            assert!(image.bitmap("fine").await.unwrap() == model);
            let plain = image.bitmap("plain").await.unwrap();
            assert!(plain.is_dirty(0) && plain.is_dirty(8 << 20) && !plain.is_dirty(7 << 20));
            let told = image.bitmaps();
            let one = |name: &str, granularity, enabled| PersistentBitmap {
                name: name.into(),
                granularity,
                inconsistent: false,
                enabled,
            };
            let usual = (1u64 << cluster_bits).clamp(4096, 65536);
            assert_eq!(told, [one("fine", 512, true), one("plain", usual, false)]);

            // Nothing is written: nothing but the flags.
            let before = file.bytes();
            let image = opened(&local, &file).await;
            assert!(file.bytes() != before);
            assert!(read_only(&local, &file).await.bitmaps()[0].inconsistent);
            assert!(!image.bitmaps()[0].inconsistent);
            image.close().await.unwrap();
            assert!(file.bytes() == before);

            let image = opened(&local, &file).await;
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
            image.change_bitmap("fine", BitmapChange::Clear).await.unwrap();
            image.change_bitmap("plain", BitmapChange::Enable).await.unwrap();
            image.change_bitmap("plain", BitmapChange::Clear).await.unwrap();
            image.write(0, IoBuf::zeroed(512), false).await.unwrap();
            image.change_bitmap("fine", BitmapChange::Disable).await.unwrap();
            image.write(4 << 20, IoBuf::zeroed(512), false).await.unwrap();
            let fine = image.bitmap("fine").await.unwrap();
            assert_eq!((fine.count(), fine.is_dirty(0)), (1, true));
            assert_eq!(image.bitmap("plain").await.unwrap().count(), 2);
            image.reopen(true).await.unwrap();
            assert_clean(&file).await;
            assert_eq!(image.bitmap("plain").await.unwrap().count(), 2);
            image.reopen(false).await.unwrap();
            image.write(6 << 20, IoBuf::zeroed(512), false).await.unwrap();
            assert!(image.check(Repair::All).await.unwrap().lines.is_empty());
            image.close().await.unwrap();
            let image = opened(&local, &file).await;
            assert_eq!(image.bitmap("plain").await.unwrap().count(), 3);
            image.change_bitmap("plain", BitmapChange::Remove).await.unwrap();
            let said = refusal(&image, "plain", BitmapChange::Remove).await;
            assert_eq!(said, "Dirty bitmap 'plain' not found");
            image.change_bitmap("fine", BitmapChange::Remove).await.unwrap();
            assert_eq!(image.bitmaps(), []);
            image.close().await.unwrap();
            assert_clean(&file).await;
        });
    }
}

#[test]
fn after_a_crash_nobody_trusts_what_followed_writes() {
    run(|local| async move {
        let file = made(&CreateOptions { size: 8 << 20, ..CreateOptions::default() }).await;
        let image = opened(&local, &file).await;
        image.change_bitmap("on", add(None, true)).await.unwrap();
        image.change_bitmap("off", add(None, false)).await.unwrap();
        image.close().await.unwrap();
        let image = opened(&local, &file).await;
        image.write(0, IoBuf::zeroed(100), true).await.unwrap();
        drop(image);
        let image = opened(&local, &file).await;
        let told: Vec<_> = image.bitmaps().iter().map(|b| (b.inconsistent, b.enabled)).collect();
        assert_eq!(told, [(true, true), (false, false)]);
        let text = "Bitmap 'on' is inconsistent and cannot be used";
        assert_eq!(image.bitmap("on").await.unwrap_err().to_string(), text);
        assert_eq!(refusal(&image, "on", BitmapChange::Disable).await, text);
        image.bitmap("off").await.unwrap();
        image.resize(9 << 20).await.unwrap();
        image.close().await.unwrap();
        assert_clean(&file).await;
        let image = opened(&local, &file).await;
        assert!(image.bitmaps()[0].inconsistent);
        image.change_bitmap("on", BitmapChange::Remove).await.unwrap();
        image.close().await.unwrap();
        assert_clean(&file).await;
        let old = made(&CreateOptions { version: 2, ..CreateOptions::default() }).await;
        opened(&local, &old).await.change_bitmap("one", add(None, true)).await.unwrap_err();
    });
}

#[test]
fn bitmaps_have_the_size_of_the_disk() {
    run(|local| async move {
        let options = CreateOptions { size: 4 << 20, cluster_size: 512, ..Default::default() };
        let file = made(&options).await;
        let image = opened(&local, &file).await;
        image.change_bitmap("on", add(512, true)).await.unwrap();
        image.change_bitmap("off", add(512, false)).await.unwrap();
        let mut some = Bitmap::new(4 << 20, 512);
        some.set(1 << 20, 3 << 20);
        for name in ["on", "off"] {
            image.change_bitmap(name, BitmapChange::Merge(&some)).await.unwrap();
        }
        for size in [2 << 20, 6 << 20, (6 << 20) + 512] {
            image.resize(size).await.unwrap();
        }
        let size = (6 << 20) + 512;
        for image in [&image, &opened(&local, &file).await] {
            let off = image.bitmap("off").await.unwrap();
            assert_eq!((off.size(), off.bytes()), (size, 1 << 20));
        }
        let on = image.bitmap("on").await.unwrap();
        assert_eq!((on.size(), on.bytes()), (size, size - (1 << 20)));
        image.close().await.unwrap();
        assert_clean(&file).await;
        assert!(read_only(&local, &file).await.bitmap("on").await.unwrap() == on);
    });
}

#[test]
fn a_directory_without_sense_is_let_go() {
    run(|local| async move {
        let file = made(&CreateOptions { size: 8 << 20, ..CreateOptions::default() }).await;
        let image = opened(&local, &file).await;
        image.change_bitmap("one", add(None, true)).await.unwrap();
        image.close().await.unwrap();
        let place = image.header.borrow().bitmaps.unwrap().offset;
        store(&*file, place + 17, &[99]).await.unwrap();
        assert_eq!(read_only(&local, &file).await.bitmaps(), []);
        let image = opened(&local, &file).await;
        assert_eq!(image.bitmaps(), []);
        image.change_bitmap("one", add(None, true)).await.unwrap();
        image.close().await.unwrap();
        // The room of the old one is what a check finds.
        let check = check_file(&*file, Repair::Leaks).await.unwrap();
        assert_eq!((check.corruptions, check.leaks_fixed), (0, 2));
        assert_clean(&file).await;
    });
}

/// A write, or a flush.
type Step = Option<(u64, Vec<u8>)>;

/// A file that remembers what was written to it, and where it was flushed.
struct Tape {
    file: Rc<Memory>,
    writes: std::cell::RefCell<Vec<Step>>,
}

impl Node for Tape {
    fn info(&self) -> Info {
        self.file.info()
    }

    fn read(&self, offset: u64, buf: IoBuf) -> Op<'_> {
        self.file.read(offset, buf)
    }

    fn write(&self, offset: u64, buf: IoBuf, durable: bool) -> Op<'_> {
        self.writes.borrow_mut().push(Some((offset, buf.to_vec())));
        self.file.write(offset, buf, durable)
    }

    fn zero(&self, offset: u64, len: u64, _: Zero) -> Op<'_> {
        self.write(offset, IoBuf::zeroed(len as usize), false)
    }

    fn discard(&self, _: u64, _: u64) -> Op<'_> {
        Box::pin(async { Ok(()) })
    }

    fn flush(&self) -> Op<'_> {
        self.writes.borrow_mut().push(None);
        Box::pin(async { Ok(()) })
    }

    fn map(&self, offset: u64, len: u64) -> Op<'_, Extent> {
        self.file.map(offset, len)
    }

    fn reopen(&self, read_only: bool) -> Op<'_> {
        self.file.reopen(read_only)
    }

    fn resize(&self, size: u64) -> Op<'_> {
        self.file.resize(size)
    }
}

#[test]
fn no_power_cut_leaves_a_valid_bitmap_that_misses_a_change() {
    run(|local| async move {
        let size = 64 << 10;
        let options = CreateOptions { size, cluster_size: 512, ..CreateOptions::default() };
        let file = made(&options).await;
        let before = file.bytes();
        let tape = Rc::new(Tape { file, writes: Default::default() });
        let image = open(&local, tape.clone(), Options::default()).await.unwrap();
        let byte = |at: u64| IoBuf::copy_of(&[at as u8 | 1; 700]);
        image.change_bitmap("one", add(512, true)).await.unwrap();
        let start = tape.writes.borrow().len();
        for round in 0..3u64 {
            for at in [3000, 9000, 20_000] {
                let at = at + round * 11_111;
                image.write(at, byte(at), false).await.unwrap();
            }
            image.flush().await.unwrap();
            image.reopen(true).await.unwrap();
            image.reopen(false).await.unwrap();
            image.change_bitmap("other", add(512, round == 1)).await.unwrap();
            image.write(55_000 + round, byte(9), false).await.unwrap();
            image.change_bitmap("other", BitmapChange::Remove).await.unwrap();
        }
        image.close().await.unwrap();
        let writes = tape.writes.borrow().clone();
        let mut random = 88_172_645_463_325_252u64;
        let mut valid = 0;
        for cut in start..=writes.len() {
            let flushed = writes[..cut].iter().rposition(Option::is_none).unwrap_or(0);
            let left = Memory::new(before.clone(), LIMIT);
            for (number, write) in writes[..cut].iter().enumerate() {
                let Some((at, data)) = write else { continue };
                for (index, sector) in data.chunks(512).enumerate() {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    if number < flushed || random & 64 == 0 {
                        let sector = IoBuf::copy_of(sector);
                        left.write(at + index as u64 * 512, sector, false).await.unwrap();
                    }
                }
            }
            let check = check_file(&*left, Repair::No).await.unwrap();
            assert_eq!((check.corruptions, check.check_errors), (0, 0), "{:?}", check.lines);
            let image = read_only(&local, &left).await;
            let Ok(bits) = image.bitmap("one").await else { continue };
            valid += 1;
            for at in (0..size).step_by(512) {
                let buf = IoBuf::zeroed(512);
                image.read(at, buf.clone()).await.unwrap();
                assert!(buf.is_zero() || bits.is_dirty(at), "{cut}: {at:#x} is not dirty");
            }
        }
        assert!(valid > 3, "{valid}");
    });
}
