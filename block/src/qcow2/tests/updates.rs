//! Power cuts under every update of metadata, with any part of what was not flushed on the disk.
//!
//! The same operations are done to an image in memory first: what it shows after each of them is
//! what an image may show whose power went: all of the operation or nothing of it, and everything
//! that was acknowledged before. It is whole, or lacks no more than room and flags that cost a copy;
//! it can be written without harm to its snapshots; and it can be mended.

use proptest::prelude::*;

use super::power::Power;
use super::*;
use crate::dirty::Bitmap;
use crate::image::{BackingFile, BitmapChange, Image, Snapshot};
use crate::node::Zero;
use crate::qcow2::amend::AmendOptions;
use crate::qcow2::header::{DIRTY, Header};
use crate::qcow2::options::PassDiscard;

/// Cuts of one operation, at most.
const MOST_CUTS: usize = 24;
/// Of one that is looked at closely.
const ALL_CUTS: usize = 150;

#[derive(Debug, Clone)]
struct Kind {
    version: u32,
    cluster_bits: u32,
    refcount_bits: u32,
    extended: bool,
    lazy: bool,
    backing: bool,
    size: u64,
    /// Clusters that are lost to begin with, so that the refcounts have to grow.
    lost: u64,
    seed: u64,
}

#[derive(Debug, Clone)]
enum Do {
    Write { at: u64, len: u64, byte: u8 },
    Packed { at: u64, byte: u8 },
    Zero { at: u64, len: u64, unmap: bool },
    Discard { at: u64, len: u64 },
    Take,
    Apply(usize),
    Delete(usize),
    AddBitmap(u8),
    StoreBitmap(u8, u64),
    RemoveBitmap(u8),
    Version(u32),
    Width(u32),
    Lazy(bool),
    Name(Option<usize>),
    Resize(u64),
    Empty,
    Mend,
    Reopen,
}

/// Bitmaps by their names; the bits of those that are valid.
type Bitmaps = Vec<(String, Option<Vec<u8>>)>;

/// What an image shows.
#[derive(Debug, Clone, PartialEq)]
struct View {
    disk: Vec<u8>,
    snapshots: Vec<(String, Vec<u8>)>,
    bitmaps: Bitmaps,
    /// What those bitmaps say that are in use.
    live: Bitmaps,
    /// The name of the backing file.
    name: Option<String>,
    version: u32,
    width: u32,
}

fn options(kind: &Kind, below: &Option<Rc<Memory>>, read_only: bool) -> Options {
    Options {
        read_only,
        backing: below.clone().map(|below| below as Rc<dyn Node>),
        discard: true,
        pass_discard: PassDiscard { request: true, snapshot: true, other: true },
        l2_cache_size: Some(kind.seed % 8 * 1024),
        refcount_cache_size: Some(kind.seed % 8 * 1024),
        ..Options::default()
    }
}

async fn bitmaps_of(image: &Qcow2) -> Bitmaps {
    let mut bitmaps = Vec::new();
    for bitmap in image.bitmaps() {
        let bits = image.bitmap(&bitmap.name).await.ok();
        let bits = bits.map(|bits| bits.bits(0, bits.bit_bytes()).unwrap_or_default());
        bitmaps.push((bitmap.name, bits));
    }
    bitmaps
}

async fn view(local: &Local, kind: &Kind, below: &Option<Rc<Memory>>, file: &Rc<Memory>) -> View {
    let image = opened(local, file, options(kind, below, true)).await;
    let disk = bytes(&*image, 0, image.info().size as usize).await;
    let bitmaps = bitmaps_of(&image).await;
    let mut snapshots = Vec::new();
    for snapshot in image.snapshots().unwrap() {
        let image = opened(local, file, options(kind, below, true)).await;
        image.show_snapshot(Some(&*snapshot.id), None).await.unwrap();
        snapshots.push((snapshot.id, bytes(&*image, 0, snapshot.disk_size as usize).await));
    }
    let header = Header::parse(&file.bytes()).unwrap();
    let (version, width) = (header.version, header.refcount_bits());
    View { disk, snapshots, bitmaps, live: Vec::new(), name: header.backing, version, width }
}

/// With a name of so many bytes; there need not be room for two of them.
fn backing_file(length: usize, cluster_bits: u32) -> BackingFile {
    let room = if cluster_bits == 9 { 1000 } else { 1 << cluster_bits };
    BackingFile { name: "b".repeat(length.clamp(1, room)), format: Some("raw".into()) }
}

/// Does one thing, durably; whether that was accepted.
async fn act(image: &Rc<Qcow2>, what: &Do, kind: &Kind) -> bool {
    let size = image.info().size;
    let cluster = 1 << kind.cluster_bits;
    let range = |at: u64, len: u64| (at % size, len.min(size - at % size));
    let id = |index: usize| {
        let ids: Vec<_> = image.snapshots().unwrap().into_iter().map(|one| one.id).collect();
        ids.get(index % ids.len().max(1)).cloned().unwrap_or_default()
    };
    let amend = async |change: AmendOptions| image.amend(&change).await;
    let done = match what.clone() {
        Do::Write { at, len, byte } => {
            let (at, len) = range(at, len);
            let data: Vec<u8> = (at..at + len).map(|at| byte ^ (at >> 8) as u8).collect();
            image.write(at, IoBuf::copy_of(&data), false).await
        }
        Do::Packed { at, byte } => {
            let at = at % size / cluster * cluster;
            let data = IoBuf::zeroed(cluster.min(size - at) as usize);
            data.fill(byte);
            image.write_compressed(at, data).await
        }
        Do::Zero { at, len, unmap } => {
            let (at, len) = range(at, len);
            image.zero(at, len, if unmap { Zero::MayUnmap } else { Zero::Keep }).await
        }
        Do::Discard { at, len } => {
            let (at, len) = range(at, len);
            image.discard(at, len).await
        }
        Do::Take => {
            let name = "a name".to_owned();
            let (date, vm_clock, vm_state_size, disk_size) = ((0, 0), 0, 0, 0);
            let id = String::new();
            let one = Snapshot { id, name, vm_state_size, date, vm_clock, disk_size };
            image.create_snapshot(one).await.map(drop)
        }
        Do::Apply(index) => image.apply_snapshot(&id(index)).await,
        Do::Delete(index) => image.delete_snapshot(&id(index)).await,
        Do::AddBitmap(name) => {
            let add = BitmapChange::Add { granularity: Some(512), enabled: name % 2 == 0 };
            image.change_bitmap(&format!("map{name}"), add).await
        }
        Do::StoreBitmap(name, seed) => {
            let mut bits = Bitmap::new(size, 512);
            (0..seed % 20).for_each(|turn| bits.set(seed.rotate_left(turn as u32) % size, 600));
            image.change_bitmap(&format!("map{name}"), BitmapChange::Merge(&bits)).await
        }
        Do::RemoveBitmap(name) => {
            image.change_bitmap(&format!("map{name}"), BitmapChange::Remove).await
        }
        Do::Version(version) => {
            amend(AmendOptions { version: Some(version), ..Default::default() }).await
        }
        Do::Width(bits) => {
            amend(AmendOptions { refcount_bits: Some(bits), ..Default::default() }).await
        }
        Do::Lazy(lazy) => {
            amend(AmendOptions { lazy_refcounts: Some(lazy), ..Default::default() }).await
        }
        Do::Name(length) => {
            image
                .change_backing_file(length.map(|length| backing_file(length, kind.cluster_bits)))
                .await
        }
        Do::Resize(size) => image.resize(size * 512).await,
        Do::Empty => image.make_empty().await,
        Do::Mend => image.check(Repair::All).await.map(drop),
        Do::Reopen => unreachable!(),
    };
    image.flush().await.unwrap();
    done.is_ok()
}

/// An operation that may be seen half done, byte by byte.
fn is_piecewise(what: &Do) -> bool {
    use Do::*;
    matches!(what, Write { .. } | Packed { .. } | Zero { .. } | Discard { .. } | Empty)
}

async fn prepare(local: &Local, kind: &Kind) -> (Rc<Memory>, Option<Rc<Memory>>) {
    let below = kind.backing.then(|| {
        let bytes = (0..kind.size as usize * 2 / 3).map(|at| (at / 100) as u8 | 1).collect();
        Memory::new(bytes, LIMIT)
    });
    let file = made(&CreateOptions {
        size: kind.size,
        version: kind.version,
        cluster_size: 1 << kind.cluster_bits,
        refcount_bits: kind.refcount_bits,
        lazy_refcounts: kind.lazy,
        extended_l2: kind.extended,
        backing: kind.backing.then(|| backing_file(1, kind.cluster_bits)),
        ..CreateOptions::default()
    })
    .await;
    lose(local, &file, kind.lost).await;
    (file, below)
}

async fn go(local: Local, kind: Kind, steps: Vec<Do>, most: usize) {
    let (file, below) = prepare(&local, &kind).await;
    let start = file.bytes();
    let mut views = vec![view(&local, &kind, &below, &file).await];
    let mut accepted = Vec::new();
    let mut image = opened(&local, &file, options(&kind, &below, false)).await;
    for step in &steps {
        accepted.push(match step {
            Do::Reopen => {
                image.close().await.unwrap();
                image = opened(&local, &file, options(&kind, &below, false)).await;
                true
            }
            _ => act(&image, step, &kind).await,
        });
        let live = bitmaps_of(&image).await;
        views.push(View { live, ..view(&local, &kind, &below, &file).await });
    }
    image.close().await.unwrap();

    let power = Power::new(&local, start, kind.seed, ());
    let open = async || open(&local, power.clone(), options(&kind, &below, false)).await.unwrap();
    let mut image = open().await;
    for (index, step) in steps.iter().enumerate() {
        let well = match step {
            Do::Reopen => {
                image.close().await.unwrap();
                image = open().await;
                true
            }
            _ => act(&image, step, &kind).await,
        };
        assert_eq!(well, accepted[index], "{step:?}");
        let cuts = power.cuts(most);
        let last = cuts.len() - 1;
        for (number, (cut, (), how)) in cuts.into_iter().enumerate() {
            // What was acknowledged stays.
            let first = if number == last { index + 1 } else { index };
            let how = format!("{number} at {index} {step:?}: lost {how}");
            let states = &views[first..index + 2];
            let mends = (kind.seed ^ number as u64) & 1 == 0;
            after(&local, &kind, &below, cut, (states, step), mends, &how).await;
        }
    }
}

fn assert_shows(seen: &View, states: &[View], step: &Do, how: &str) {
    let piecewise = is_piecewise(step);
    let any = |fits: &dyn Fn(&View) -> bool, what: &str| {
        assert!(states.iter().any(fits), "{what} of neither before nor after; {how}");
    };
    if piecewise {
        for (at, byte) in seen.disk.iter().enumerate() {
            any(&|state| state.disk.get(at) == Some(byte), &format!("byte {at:#x}"));
        }
    }
    any(&|state| piecewise || state.disk == seen.disk, "the disk is that");
    any(&|state| state.snapshots == seen.snapshots, "the snapshots are those");
    any(&|state| state.name == seen.name, "the backing file is that");
    any(&|state| (state.version, state.width) == (seen.version, seen.width), "the version is that");
    for bitmap in &seen.bitmaps {
        let is_live = |state: &View| bitmap.1.is_some() && state.live.contains(bitmap);
        // None is valid while the size changes.
        let is_aside = bitmap.1.is_none() && matches!(step, Do::Resize(_));
        let fits = |state: &View| state.bitmaps.contains(bitmap) || is_live(state) || is_aside;
        any(&fits, "a bitmap is that");
    }
    let kept = states[0].bitmaps.iter();
    for (name, _) in kept.filter(|(name, _)| states.iter().all(|state| state.has_bitmap(name))) {
        assert!(seen.has_bitmap(name), "bitmap {name} is gone; {how}");
    }
}

impl View {
    fn has_bitmap(&self, name: &str) -> bool {
        self.bitmaps.iter().any(|(other, _)| other == name)
    }
}

/// Looks at what is left after a cut, and goes on with it.
async fn after(
    local: &Local,
    kind: &Kind,
    below: &Option<Rc<Memory>>,
    cut: Vec<u8>,
    (states, step): (&[View], &Do),
    mends: bool,
    how: &str,
) {
    let file = Memory::new(cut, LIMIT);
    let dirty = Header::parse(&file.bytes()).unwrap().incompatible & DIRTY != 0;
    let found = check_file(&*file, Repair::No).await.unwrap();
    if !dirty {
        assert_harmless(&found.lines, kind.cluster_bits, how);
    }
    let mend = async || {
        let mended = check_file(&*file, Repair::All).await.unwrap();
        let left = (mended.corruptions, mended.leaks, mended.check_errors);
        assert_eq!(left, (0, 0, 0), "{:?}; {how}", mended.lines);
    };
    if mends {
        mend().await;
    }
    let mut seen = view(local, kind, below, &file).await;
    assert_shows(&seen, states, step, how);
    // What was not lost is not lost by what is written next.
    let image = opened(local, &file, options(kind, below, false)).await;
    let size = seen.disk.len();
    for at in (0..size).step_by((size / 7).max(1)) {
        let data = vec![0x77; (size / 14).min(size - at).max(1)];
        image.write(at as u64, IoBuf::copy_of(&data), false).await.unwrap();
        seen.disk[at..at + data.len()].copy_from_slice(&data);
    }
    image.close().await.unwrap();
    let found = check_file(&*file, Repair::No).await.unwrap();
    assert_harmless(&found.lines, kind.cluster_bits, how);
    // Those that are enabled know of the writes.
    let now = view(local, kind, below, &file).await;
    assert!(View { bitmaps: seen.bitmaps.clone(), ..now.clone() } == seen, "written over; {how}");
    assert!(now.bitmaps.iter().all(|(name, _)| seen.has_bitmap(name)), "{how}");
    seen = now;
    if !mends {
        mend().await;
        assert!(view(local, kind, below, &file).await == seen, "mended for the worse; {how}");
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    let first = (any::<(bool, bool, bool, bool)>(), 1u32..=6, 0u32..4, any::<bool>());
    (first, 8u64..80, any::<u64>()).prop_map(|((flags, order, bits, many), sectors, seed)| {
        let (v3, extended, lazy, backing) = flags;
        let extended = v3 && extended && bits == 0;
        let refcount_bits = if v3 { 1 << order } else { 16 };
        let cluster_bits = if extended { 14 } else { 9 + bits };
        Kind {
            version: if v3 { 3 } else { 2 },
            cluster_bits,
            refcount_bits,
            extended,
            lazy: v3 && lazy && seed % 4 == 0,
            backing,
            size: sectors * if extended { 2048 } else { 512 },
            lost: if many { nearly_full(cluster_bits, refcount_bits, seed) } else { 0 },
            seed,
        }
    })
}

fn steps() -> impl Strategy<Value = Vec<Do>> {
    let at = || 0u64..160_000;
    let len = || 1u64..12_000;
    let step = prop_oneof![
        6 => (at(), len(), any::<u8>()).prop_map(|(at, len, byte)| Do::Write { at, len, byte }),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Do::Packed { at, byte }),
        2 => (at(), len(), any::<bool>()).prop_map(|(at, len, unmap)| Do::Zero { at, len, unmap }),
        1 => (at(), len()).prop_map(|(at, len)| Do::Discard { at, len }),
        4 => Just(Do::Take),
        2 => (0usize..8).prop_map(Do::Apply),
        2 => (0usize..8).prop_map(Do::Delete),
        2 => (0u8..3).prop_map(Do::AddBitmap),
        2 => (0u8..3, any::<u64>()).prop_map(|(name, seed)| Do::StoreBitmap(name, seed)),
        1 => (0u8..3).prop_map(Do::RemoveBitmap),
        1 => (2u32..=3).prop_map(Do::Version),
        1 => (0u32..=6).prop_map(|order| Do::Width(1 << order)),
        1 => any::<bool>().prop_map(Do::Lazy),
        1 => prop::option::of(1usize..600).prop_map(Do::Name),
        2 => (1u64..300).prop_map(Do::Resize),
        1 => Just(Do::Empty),
        1 => Just(Do::Mend),
        1 => Just(Do::Reopen),
    ];
    prop::collection::vec(step, 1..12)
}

/// One after the other, on images whose refcounts have to grow for them, and others.
fn look_closely(change: impl FnOnce(&mut Kind)) {
    use Do::*;
    let mut kind = Kind {
        version: 3,
        cluster_bits: 9,
        refcount_bits: 64,
        extended: false,
        lazy: false,
        backing: true,
        size: 20_480,
        lost: 0,
        seed: 0x1234_5678_9abc_def1,
    };
    change(&mut kind);
    let lost = nearly_full(kind.cluster_bits, kind.refcount_bits, kind.lost);
    kind.lost = if kind.lost > 0 { lost } else { 0 };
    let steps = vec![
        Write { at: 700, len: 9000, byte: 1 },
        Packed { at: 3000, byte: 2 },
        Take,
        Write { at: 900, len: 4000, byte: 3 },
        Zero { at: 5000, len: 3000, unmap: true },
        AddBitmap(1),
        StoreBitmap(1, 0x1235_9837_0102_0304),
        AddBitmap(2),
        RemoveBitmap(1),
        RemoveBitmap(2),
        Take,
        Discard { at: 0, len: 6000 },
        Apply(0),
        Write { at: 0, len: 9000, byte: 4 },
        Apply(1),
        // The L1 table grows, and shrinks again.
        Resize(400),
        Write { at: 100_000, len: 3000, byte: 5 },
        Delete(0),
        Resize(13),
        Resize(60),
        Name(Some(300)),
        Name(Some(10)),
        Name(None),
        Width(16),
        Width(8),
        Lazy(true),
        Write { at: 2000, len: 2000, byte: 6 },
        Lazy(false),
        Mend,
        Empty,
        Delete(0),
        Width(16),
        Write { at: 2000, len: 2000, byte: 7 },
        Zero { at: 3000, len: 2000, unmap: false },
        Take,
        Zero { at: 2500, len: 4000, unmap: true },
        Take,
        Resize(70),
        AddBitmap(0),
        Version(2),
        Write { at: 4000, len: 2000, byte: 8 },
        Apply(0),
        Apply(1),
        Empty,
        Version(3),
        Resize(3),
        Reopen,
    ];
    run(|local| go(local, kind, steps, ALL_CUTS));
}

#[test]
fn updates_where_there_is_room() {
    look_closely(|_| {});
}

#[test]
fn updates_where_refcount_blocks_are_added() {
    look_closely(|kind| kind.lost = 1);
}

#[test]
fn updates_where_the_refcount_table_grows() {
    look_closely(|kind| kind.lost = 2);
}

#[test]
fn updates_of_larger_clusters() {
    look_closely(|kind| (kind.cluster_bits, kind.refcount_bits) = (11, 4));
}

#[test]
fn updates_of_subclusters() {
    look_closely(|kind| {
        (kind.cluster_bits, kind.extended, kind.size) = (14, true, 100 << 10);
    });
}

#[test]
fn updates_of_the_old_version() {
    look_closely(|kind| (kind.version, kind.refcount_bits, kind.lost) = (2, 16, 1));
}

/// Whatever is mended, and however far it came: what the disk shows stays, and it can be mended.
#[test]
fn mending_may_end_at_any_time() {
    for seed in 1..40u64 {
        run(|local| async move {
            let order = seed % 7;
            let kind = Kind {
                version: 3,
                cluster_bits: 9 + (seed % 3) as u32,
                refcount_bits: 1 << order,
                extended: false,
                lazy: false,
                backing: false,
                size: 32 << 10,
                lost: 0,
                seed,
            };
            let (file, below) = prepare(&local, &kind).await;
            let image = opened(&local, &file, options(&kind, &below, false)).await;
            act(&image, &Do::Write { at: 0, len: 12_000, byte: 1 }, &kind).await;
            act(&image, &Do::Take, &kind).await;
            act(&image, &Do::Write { at: 3000, len: 5000, byte: 2 }, &kind).await;
            image.close().await.unwrap();
            let before = view(&local, &kind, &below, &file).await;
            let mut bytes = file.bytes();
            damage(&mut bytes, seed);
            let power = Power::new(&local, bytes, seed, ());
            let mended = check_file(&*power, Repair::All).await.unwrap();
            assert_eq!((mended.corruptions, mended.leaks), (0, 0), "{:?}", mended.lines);
            for (cut, (), how) in power.cuts(ALL_CUTS) {
                let file = Memory::new(cut, LIMIT);
                let how = format!("{seed}: {how}");
                assert!(view(&local, &kind, &below, &file).await == before, "{how}");
                let mended = check_file(&*file, Repair::All).await.unwrap();
                let left = (mended.corruptions, mended.leaks, mended.check_errors);
                assert_eq!(left, (0, 0, 0), "{:?}; {how}", mended.lines);
                assert!(view(&local, &kind, &below, &file).await == before, "{how}");
            }
        });
    }
}

/// Makes refcounts and flags wrong.
fn damage(bytes: &mut [u8], seed: u64) {
    let header = Header::parse(bytes).unwrap();
    let word = |bytes: &[u8], at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let table = header.refcount_table_offset as usize;
    let block = word(bytes, table) as usize;
    match seed % 4 {
        // Some counted too often, others not at all.
        0 => bytes[block + 4..block + 64].fill((seed >> 2) as u8),
        1 => bytes[block..block + 200].fill(0),
        // A block in the middle of nowhere.
        2 => bytes[table..table + 8].copy_from_slice(&(block as u64 + 0x3000).to_be_bytes()),
        _ => {
            let l2 = (word(bytes, header.l1_offset as usize) << 8 >> 8) as usize;
            bytes[header.l1_offset as usize] ^= 0x80;
            (l2..l2 + 200).step_by(8).for_each(|entry| bytes[entry] ^= 0x80);
        }
    }
}

proptest! {
    #![proptest_config(config(24))]
    #[test]
    fn updates_are_done_or_not(kind in kinds(), steps in steps()) {
        run(|local| go(local, kind, steps, MOST_CUTS));
    }
}
