//! Every change of the header, with a file that fails at each of its writes and flushes.
//!
//! Whatever fails, and whether or not it was written all the same: what is in memory is what the
//! file has, or the image is out of service; the image is what it was, or what it was to become;
//! nobody's clusters are somebody else's, then and after more was written.

use std::io;
use std::rc::Rc;

use super::super::tests::failing::Failing;
use super::super::tests::{assert_harmless, bytes, made, run};
use super::super::{CreateOptions, Options, Qcow2, check_file, open};
use crate::image::{BackingFile, BitmapChange, Image, Repair, Snapshot};
use crate::memory::Memory;
use crate::node::Node;
use crate::qcow2::amend::AmendOptions;
use crate::qcow2::header::{DIRTY, Header};
use resources::iol::{IoBuf, Local};

const LIMIT: u64 = 64 << 20;
const SIZE: u64 = 64 << 10;
/// What is written at once.
const PIECE: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Do {
    Take,
    Apply,
    Delete,
    Enlarge,
    Shrink,
    State,
    Upgrade,
    Downgrade,
    Lazy,
    Width,
    Name,
    NoName,
    AddBitmap,
    RemoveBitmap,
    /// Writes to new places, where refcounts have to grow or be marked as behind.
    Fill,
    /// What closing does.
    ReadOnly,
}

/// How the image is made.
#[derive(Debug, Clone, Copy)]
struct Kind {
    version: u32,
    cluster: u64,
    lazy: bool,
    bitmap: bool,
    /// The refcount table is nearly full.
    full: bool,
}

const USUAL: Kind = Kind { version: 3, cluster: 4096, lazy: false, bitmap: false, full: false };

/// What an image shows.
#[derive(Debug, Clone, PartialEq)]
struct View {
    disk: Vec<u8>,
    snapshots: Vec<(String, u64)>,
    bitmaps: Vec<String>,
    backing: Option<String>,
    version: u32,
    width: u32,
    lazy: u64,
}

async fn view(image: &Qcow2) -> View {
    let snapshots = image.snapshots().unwrap().into_iter().map(|one| (one.id, one.disk_size));
    let (backing, version, width, lazy) = {
        let header = image.header.borrow();
        let backing = header.backing.clone();
        (backing, header.version, header.refcount_bits(), header.compatible)
    };
    View {
        disk: bytes(image, 0, image.info().size as usize).await,
        snapshots: snapshots.collect(),
        bitmaps: image.bitmaps().into_iter().map(|bitmap| bitmap.name).collect(),
        backing,
        version,
        width,
        lazy,
    }
}

fn snapshot(name: &str) -> Snapshot {
    let (date, vm_clock, vm_state_size, disk_size) = ((0, 0), 0, 0, 0);
    Snapshot { id: String::new(), name: name.into(), vm_state_size, date, vm_clock, disk_size }
}

fn data(len: u64, byte: u8) -> IoBuf {
    let buf = IoBuf::zeroed(len as usize);
    buf.fill(byte);
    buf
}

async fn act(image: &Qcow2, what: Do) -> io::Result<()> {
    let amend = async |change: AmendOptions| image.amend(&change).await;
    match what {
        Do::Take => image.create_snapshot(snapshot("new")).await.map(drop),
        Do::Apply => image.apply_snapshot("1").await,
        Do::Delete => image.delete_snapshot("1").await,
        Do::Enlarge => image.resize(6 << 20).await,
        Do::Shrink => image.resize(SIZE / 2).await,
        Do::State => image.write_vmstate(64 << 20, data(4096, 9)).await,
        Do::Upgrade => amend(AmendOptions { version: Some(3), ..Default::default() }).await,
        Do::Downgrade => amend(AmendOptions { version: Some(2), ..Default::default() }).await,
        Do::Lazy => amend(AmendOptions { lazy_refcounts: Some(true), ..Default::default() }).await,
        Do::Width => amend(AmendOptions { refcount_bits: Some(32), ..Default::default() }).await,
        Do::Name => {
            let (name, format) = ("n".repeat(700), Some("raw".into()));
            image.change_backing_file(Some(BackingFile { name, format })).await
        }
        Do::NoName => image.change_backing_file(None).await,
        Do::AddBitmap => {
            let add = BitmapChange::Add { granularity: Some(512), enabled: false };
            image.change_bitmap("new", add).await
        }
        Do::RemoveBitmap => image.change_bitmap("old", BitmapChange::Remove).await,
        Do::Fill => {
            // One by one: each is whole or not there.
            for at in (SIZE / 2..SIZE / 2 + 32 * PIECE as u64).step_by(PIECE) {
                image.write(at, data(PIECE as u64, 7), false).await?;
            }
            image.flush().await
        }
        Do::ReadOnly => image.reopen(true).await,
    }
}

/// An image with a snapshot, and more written since.
async fn prepare(local: &Local, kind: Kind) -> Rc<Memory> {
    let backing = (kind.cluster > 512)
        .then(|| BackingFile { name: "b".repeat(600), format: Some("raw".into()) });
    let options = CreateOptions {
        size: SIZE,
        version: kind.version,
        cluster_size: kind.cluster,
        refcount_bits: if kind.full { 64 } else { 16 },
        lazy_refcounts: kind.lazy,
        backing,
        ..CreateOptions::default()
    };
    let file = made(&options).await;
    let image = open(local, file.clone(), Options::default()).await.unwrap();
    image.write(0, data(SIZE / 2, 1), false).await.unwrap();
    image.create_snapshot(snapshot("first")).await.unwrap();
    image.write(4096, data(4096, 2), false).await.unwrap();
    if kind.bitmap {
        let add = BitmapChange::Add { granularity: Some(512), enabled: false };
        image.change_bitmap("old", add).await.unwrap();
    }
    if kind.full {
        // A table of one cluster with blocks of so many refcounts.
        let all = (kind.cluster / 8).pow(2);
        while image.allocate(1).await.unwrap().offset / kind.cluster < all - 20 {}
    }
    image.close().await.unwrap();
    file
}

/// A copy of the file as another program would take it over.
async fn mended(file: &Memory, told: &str) -> Rc<Memory> {
    let bytes = file.bytes();
    let dirty = Header::parse(&bytes).unwrap().incompatible & DIRTY != 0;
    let copy = Memory::new(bytes, LIMIT);
    if dirty {
        check_file(&*copy, Repair::All).await.unwrap();
    }
    assert_whole(&copy, told).await;
    copy
}

/// At most room is lost, and flags whose lack costs a copy.
async fn assert_whole(file: &Memory, told: &str) {
    let bits = Header::parse(&file.bytes()).unwrap().cluster_bits;
    let found = check_file(file, Repair::No).await.unwrap();
    assert_harmless(&found.lines, bits, told);
    assert_eq!(found.check_errors, 0, "{told}");
}

async fn look(local: &Local, file: &Rc<Memory>, snapshot: Option<&str>) -> View {
    let options = Options { read_only: true, ..Options::default() };
    let image = open(local, file.clone(), options).await.unwrap();
    if snapshot.is_some() {
        image.show_snapshot(snapshot, None).await.unwrap();
    }
    view(&image).await
}

/// What there was before something was done, and after it.
struct Case {
    what: Do,
    file: Rc<Memory>,
    before: View,
    after: View,
}

impl Case {
    async fn new(local: &Local, kind: Kind, what: Do) -> Case {
        let file = prepare(local, kind).await;
        let before = look(local, &file, None).await;
        let other = Memory::new(file.bytes(), LIMIT);
        let image = open(local, other.clone(), Options::default()).await.unwrap();
        act(&image, what).await.unwrap();
        image.close().await.unwrap();
        let after = look(local, &other, None).await;
        Case { what, file, before, after }
    }

    /// Whether an image may show this.
    fn fits(&self, seen: &View, done: bool) -> bool {
        let same_size = seen.disk.len() == self.before.disk.len();
        let piecewise = self.what == Do::Fill && same_size && {
            let pieces = seen.disk.chunks(PIECE).zip(self.before.disk.chunks(PIECE));
            let mut pieces = pieces.zip(self.after.disk.chunks(PIECE));
            pieces.all(|((seen, before), after)| seen == before || seen == after)
        };
        *seen == self.after || !done && (*seen == self.before || piecewise)
    }

    /// Does it with failures; whether there were any.
    async fn fail_at(&self, local: &Local, well: u64, ill: u64, loses: bool) -> bool {
        let told = format!("{:?} {well} {ill} {loses}", self.what);
        let memory = Memory::new(self.file.bytes(), LIMIT);
        let file = Failing::new(&memory);
        let image = open(local, file.clone(), Options::default()).await.unwrap();
        if self.what == Do::ReadOnly {
            // There is something to be done.
            image.write(0, data(512, 1), false).await.unwrap();
        }
        file.loses.set(loses);
        file.fail(well, ill);
        let done = act(&image, self.what).await.is_ok();
        file.fail(u64::MAX, 0);
        let alive = image.alive().is_ok();
        assert!(alive || !done, "{told}");
        if alive {
            image.flush().await.unwrap();
            let (here, copy) = (view(&image).await, mended(&memory, &told).await);
            assert!(here == look(local, &copy, None).await, "{told}: memory is not the file");
            assert!(self.fits(&here, done), "{told}: neither what it was nor what it should be");
            let header = image.header.borrow().clone();
            assert_eq!(Header::parse(&memory.bytes()).unwrap(), header, "{told}");
        } else {
            let _ = image.flush().await;
            image.write(0, data(512, 8), false).await.unwrap_err();
            let _ = image.close().await;
            let seen = look(local, &mended(&memory, &told).await, None).await;
            assert!(self.fits(&seen, false), "{told}: lost");
        }
        self.go_on(local, &told, image.clone(), &memory).await;
        file.failures.get() > 0
    }

    /// More is written, by this image, or by the next one.
    async fn go_on(&self, local: &Local, told: &str, image: Rc<Qcow2>, file: &Rc<Memory>) {
        let (mut image, mut file) = (image, file.clone());
        if image.alive().is_err() || self.what == Do::ReadOnly {
            let _ = image.close().await;
            file = mended(&file, told).await;
            image = open(local, file.clone(), Options::default()).await.unwrap();
        }
        let size = image.info().size.min(SIZE);
        image.write(0, data(size, 5), false).await.unwrap();
        let last = image.create_snapshot(snapshot("last")).await.unwrap().id;
        image.write(0, data(size, 6), false).await.unwrap();
        image.close().await.unwrap();
        assert_whole(&file, told).await;
        let shown = look(local, &file, None).await;
        assert!(shown.disk[..size as usize].iter().all(|byte| *byte == 6), "{told}");
        for (id, _) in &shown.snapshots {
            let byte = if *id == last { 5 } else { 1 };
            if *id == last || id == "1" {
                let disk = look(local, &file, Some(id)).await.disk;
                assert!(disk[..SIZE as usize / 2].iter().all(|one| *one == byte), "{told}: {id}");
            }
        }
    }
}

fn fails_well(kind: Kind, what: Do) {
    let least = if what == Do::ReadOnly { 1 } else { 2 };
    for (ill, loses) in [(1, false), (1, true), (2, false), (u64::MAX, false), (u64::MAX, true)] {
        run(|local| async move {
            let case = Case::new(&local, kind, what).await;
            let mut well = 0;
            while case.fail_at(&local, well, ill, loses).await {
                well += 1;
            }
            assert!(well >= least, "{what:?} needs {well} writes and flushes");
        });
    }
}

#[test]
fn snapshots_are_there_or_not() {
    fails_well(USUAL, Do::Take);
    fails_well(USUAL, Do::Apply);
    fails_well(USUAL, Do::Delete);
    fails_well(Kind { version: 2, ..USUAL }, Do::Take);
}

#[test]
fn sizes_are_old_or_new() {
    fails_well(USUAL, Do::Enlarge);
    fails_well(USUAL, Do::Shrink);
    fails_well(USUAL, Do::State);
}

#[test]
fn options_are_old_or_new() {
    fails_well(Kind { version: 2, ..USUAL }, Do::Upgrade);
    fails_well(USUAL, Do::Downgrade);
    fails_well(USUAL, Do::Lazy);
    fails_well(USUAL, Do::Width);
}

#[test]
fn names_are_old_or_new() {
    fails_well(USUAL, Do::Name);
    fails_well(USUAL, Do::NoName);
}

#[test]
fn bitmaps_are_there_or_not() {
    fails_well(Kind { bitmap: true, ..USUAL }, Do::AddBitmap);
    fails_well(Kind { bitmap: true, ..USUAL }, Do::RemoveBitmap);
}

#[test]
fn a_refcount_table_moves_or_stays() {
    fails_well(Kind { full: true, cluster: 512, ..USUAL }, Do::Fill);
}

#[test]
fn an_image_is_dirty_before_it_is() {
    fails_well(Kind { lazy: true, ..USUAL }, Do::Fill);
    fails_well(Kind { lazy: true, ..USUAL }, Do::ReadOnly);
}
