//! Power cuts: under any update of an image, with any part of what was not flushed on the disk.
//!
//! A disk that loses power keeps, of what was written since the last flush, any subset of sectors.
//! After each cut the image must be free of damage (or mend itself, with lazy refcounts), and each
//! byte must be what it was at the last flush or what was written to it since.

use std::cell::{Cell, RefCell};

use proptest::prelude::*;

use super::*;
use crate::image::BackingFile;
use crate::node::{Extent, Info, Op, State, Zero};
use crate::qcow2::options::PassDiscard;
use crate::qcow2::sync::join;

const SECTOR: usize = 512;
/// Cuts of one run, at most.
const MOST_CUTS: usize = 12;

/// A disk that takes its time and forgets what was not flushed.
struct Power {
    local: Local,
    state: RefCell<Disk>,
    random: Cell<u64>,
    guest: Rc<RefCell<Guest>>,
    cuts: RefCell<Vec<Cut>>,
}

#[derive(Default)]
struct Disk {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Written since it was last durable: number, where, what, and whether that has ended.
    pending: Vec<(u64, usize, Vec<u8>, bool)>,
    next: u64,
}

/// What the guest may see after a cut.
#[derive(Default, Clone)]
struct Guest {
    flushed: Vec<u8>,
    /// Written since, or to be anything.
    since: Vec<(usize, usize, Option<Vec<u8>>)>,
}

struct Cut {
    image: Vec<u8>,
    guest: Guest,
}

fn lay(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

impl Power {
    fn new(local: &Local, image: Vec<u8>, seed: u64, guest: Rc<RefCell<Guest>>) -> Rc<Power> {
        let state = Disk { now: image.clone(), durable: image, ..Disk::default() };
        Rc::new(Power {
            local: local.clone(),
            state: RefCell::new(state),
            random: Cell::new(seed | 1),
            guest,
            cuts: RefCell::default(),
        })
    }

    fn random(&self, below: u64) -> u64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        (x >> 11) % below
    }

    async fn wait(&self) {
        self.maybe_cut();
        for _ in 0..self.random(4) {
            self.local.yield_now().await;
        }
        self.maybe_cut();
    }

    /// Now and then, what would be there if the power went now.
    fn maybe_cut(&self) {
        if self.random(6) != 0 {
            return;
        }
        let state = self.state.borrow();
        let mut image = state.durable.clone();
        // Everything, nothing, or some of it.
        let odds = [0, 1, 2, 4][self.random(4) as usize];
        for (_, at, data, _) in &state.pending {
            for (index, sector) in data.chunks(SECTOR).enumerate() {
                if odds == 0 || odds != 4 && self.random(odds + 1) == 0 {
                    lay(&mut image, at + index * SECTOR, sector);
                }
            }
        }
        let cut = Cut { image, guest: self.guest.borrow().clone() };
        let mut cuts = self.cuts.borrow_mut();
        if cuts.len() < MOST_CUTS {
            cuts.push(cut);
        } else {
            let place = self.random(MOST_CUTS as u64) as usize;
            cuts[place] = cut;
        }
    }

    async fn put(&self, offset: u64, data: Vec<u8>) {
        let number = {
            let mut state = self.state.borrow_mut();
            lay(&mut state.now, offset as usize, &data);
            let number = state.next;
            state.next += 1;
            state.pending.push((number, offset as usize, data, false));
            number
        };
        self.wait().await;
        let mut state = self.state.borrow_mut();
        if let Some(write) = state.pending.iter_mut().find(|write| write.0 == number) {
            write.3 = true;
        }
    }
}

impl Node for Power {
    fn info(&self) -> Info {
        let size = self.state.borrow().now.len() as u64;
        Info { size, align: 1, sectors: None, discards: true, read_only: false }
    }

    fn read(&self, offset: u64, buf: IoBuf) -> Op<'_> {
        Box::pin(async move {
            self.wait().await;
            let state = self.state.borrow();
            let data = state.now.get(offset as usize..).unwrap_or_default();
            let count = buf.copy_from(0, data);
            buf.skip(count).fill(0);
            Ok(())
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, durable: bool) -> Op<'_> {
        assert!(!durable || offset > 0);
        Box::pin(async move {
            self.put(offset, buf.to_vec()).await;
            if durable { self.flush().await } else { Ok(()) }
        })
    }

    fn zero(&self, offset: u64, len: u64, _: Zero) -> Op<'_> {
        self.write(offset, IoBuf::zeroed(len as usize), false)
    }

    /// What is given up is overwritten, so that it is seen if somebody still needs it.
    fn discard(&self, offset: u64, len: u64) -> Op<'_> {
        Box::pin(async move {
            self.put(offset, vec![0xdd; len as usize]).await;
            Ok(())
        })
    }

    fn flush(&self) -> Op<'_> {
        Box::pin(async move {
            let done: Vec<u64> = {
                let state = self.state.borrow();
                state.pending.iter().filter(|write| write.3).map(|write| write.0).collect()
            };
            self.wait().await;
            let state = &mut *self.state.borrow_mut();
            for (number, at, data, _) in &state.pending {
                if done.contains(number) {
                    lay(&mut state.durable, *at, data);
                }
            }
            state.pending.retain(|write| !done.contains(&write.0));
            Ok(())
        })
    }

    fn map(&self, offset: u64, len: u64) -> Op<'_, Extent> {
        Box::pin(async move { Ok(Extent { len, state: State::Data, offset: Some(offset) }) })
    }
}

#[derive(Debug, Clone)]
struct Kind {
    version: u32,
    cluster_bits: u32,
    refcount_bits: u32,
    extended: bool,
    lazy: bool,
    clusters: u64,
    backing: bool,
    caches: u64,
    seed: u64,
}

#[derive(Debug, Clone)]
enum Act {
    Write { at: u64, len: u64, byte: u8 },
    Zero { at: u64, len: u64, unmap: bool },
    Discard { at: u64, len: u64 },
    Packed { at: u64, byte: u8 },
}

#[derive(Debug, Clone)]
enum Step {
    Together(Vec<Act>),
    Flush,
}

fn kinds() -> impl Strategy<Value = Kind> {
    let first = (any::<(bool, bool, bool, bool)>(), 0u32..=6, 0u32..4, 0u64..8);
    (first, 4u64..200, any::<u64>()).prop_map(|((flags, order, bits, caches), clusters, seed)| {
        let (v3, extended, lazy, backing) = flags;
        let extended = v3 && extended && bits == 0;
        Kind {
            version: if v3 { 3 } else { 2 },
            cluster_bits: if extended { 14 } else { 9 + bits },
            refcount_bits: if v3 { 1 << order } else { 16 },
            extended,
            lazy: v3 && lazy && seed % 4 == 0,
            clusters: if extended { clusters.min(8) } else { clusters },
            backing,
            caches: caches * 1024,
            seed,
        }
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = || 0u64..200_000;
    let len = || prop_oneof![1u64..600, 1u64..10_000];
    let act = prop_oneof![
        5 => (at(), len(), any::<u8>()).prop_map(|(at, len, byte)| Act::Write { at, len, byte }),
        1 => (at(), len(), any::<bool>()).prop_map(|(at, len, unmap)| Act::Zero { at, len, unmap }),
        2 => (at(), len()).prop_map(|(at, len)| Act::Discard { at, len }),
        1 => (at(), any::<u8>()).prop_map(|(at, byte)| Act::Packed { at, byte }),
    ];
    let step = prop_oneof![
        3 => prop::collection::vec(act, 1..12).prop_map(Step::Together),
        1 => Just(Step::Flush),
    ];
    prop::collection::vec(step, 1..14)
}

fn options(kind: &Kind, below: &Option<Rc<Memory>>) -> Options {
    Options {
        backing: below.clone().map(|below| below as Rc<dyn Node>),
        l2_cache_size: Some(kind.caches),
        refcount_cache_size: Some(kind.caches),
        discard: true,
        pass_discard: PassDiscard { request: true, snapshot: true, other: true },
        ..Options::default()
    }
}

async fn go(local: Local, kind: Kind, steps: Vec<Step>) {
    let size = kind.clusters << kind.cluster_bits;
    let mut guest = vec![0; size as usize];
    let below = kind.backing.then(|| {
        let bytes: Vec<u8> = (0..size as usize * 2 / 3).map(|at| (at / 100) as u8 | 1).collect();
        guest[..bytes.len()].copy_from_slice(&bytes);
        Memory::new(bytes, LIMIT)
    });
    let file = made(&CreateOptions {
        size,
        version: kind.version,
        cluster_size: 1 << kind.cluster_bits,
        refcount_bits: kind.refcount_bits,
        lazy_refcounts: kind.lazy,
        extended_l2: kind.extended,
        backing: kind.backing.then(|| BackingFile { name: "b".into(), format: Some("raw".into()) }),
        ..CreateOptions::default()
    })
    .await;
    let guest = Rc::new(RefCell::new(Guest { flushed: guest, since: Vec::new() }));
    let power = Power::new(&local, file.bytes(), kind.seed, guest.clone());
    let image = open(&local, power.clone(), options(&kind, &below)).await.unwrap();
    for step in &steps {
        match step {
            Step::Flush => {
                image.flush().await.unwrap();
                let now = bytes(&*image, 0, size as usize).await;
                *guest.borrow_mut() = Guest { flushed: now, since: Vec::new() };
            }
            Step::Together(acts) => together(&image, &guest, acts, &kind).await,
        }
    }
    image.close().await.unwrap();
    let flushed = bytes(&*image, 0, size as usize).await;
    let last = power.state.borrow().durable.clone();
    let cuts = std::mem::take(&mut *power.cuts.borrow_mut());
    let end = Cut { image: last, guest: Guest { flushed, since: Vec::new() } };
    for cut in cuts.into_iter().chain([end]) {
        after(&local, &kind, &below, cut).await;
    }
}

async fn together(image: &Rc<Qcow2>, guest: &Rc<RefCell<Guest>>, acts: &[Act], kind: &Kind) {
    let size = image.info().size;
    let cluster = 1u64 << kind.cluster_bits;
    let mut ops: Vec<Op<'_>> = Vec::new();
    let mut taken: Vec<(u64, u64)> = Vec::new();
    for act in acts {
        let (at, len) = match act {
            Act::Write { at, len, .. } | Act::Zero { at, len, .. } | Act::Discard { at, len } => {
                let at = at % size;
                (at, (*len).min(size - at))
            }
            Act::Packed { at, .. } => (at % size / cluster * cluster, cluster),
        };
        if taken.iter().any(|(other, count)| at < other + count && *other < at + len) {
            continue;
        }
        taken.push((at, len));
        let since = |data: Option<Vec<u8>>| {
            guest.borrow_mut().since.push((at as usize, len as usize, data));
        };
        match act {
            Act::Write { byte, .. } | Act::Packed { byte, .. } => {
                let data: Vec<u8> = (at..at + len).map(|at| byte ^ (at >> 8) as u8).collect();
                since(Some(data.clone()));
                let buf = IoBuf::copy_of(&data);
                ops.push(match act {
                    Act::Packed { .. } => image.write_compressed(at, buf),
                    _ => image.write(at, buf, false),
                });
            }
            Act::Zero { unmap, .. } => {
                since(Some(vec![0; len as usize]));
                ops.push(image.zero(at, len, if *unmap { Zero::MayUnmap } else { Zero::Keep }));
            }
            Act::Discard { .. } => {
                since(None);
                ops.push(image.discard(at, len));
            }
        }
    }
    if kind.seed & 8 != 0 {
        ops.push(image.flush());
    }
    join(ops).await.unwrap();
}

/// Looks at what is left after a cut, and goes on with it.
async fn after(local: &Local, kind: &Kind, below: &Option<Rc<Memory>>, cut: Cut) {
    let file = Memory::new(cut.image, LIMIT);
    if !kind.lazy {
        assert_clean(&*file, true).await;
    }
    let image = opened(local, &file, options(kind, below)).await;
    let size = image.info().size as usize;
    let seen = bytes(&*image, 0, size).await;
    for (at, byte) in seen.iter().enumerate() {
        let written = |(from, len, data): &(usize, usize, Option<Vec<u8>>)| {
            (*from..from + len).contains(&at)
                && data.as_ref().is_none_or(|data| data[at - from] == *byte)
        };
        assert!(
            cut.guest.flushed[at] == *byte || cut.guest.since.iter().any(written),
            "byte {at:#x} is {byte:#x}, was {:#x} when it was flushed",
            cut.guest.flushed[at]
        );
    }
    // What was not lost is not lost by what is written next.
    let step = (size / 7).max(1);
    let mut model = seen;
    for at in (0..size).step_by(step) {
        let len = (step / 2).min(size - at).max(1);
        let data = vec![0x77; len];
        image.write(at as u64, IoBuf::copy_of(&data), false).await.unwrap();
        model[at..at + len].copy_from_slice(&data);
    }
    assert!(bytes(&*image, 0, size).await == model);
    image.close().await.unwrap();
    assert_clean(&*file, true).await;
}

proptest! {
    #![proptest_config(config(48))]
    #[test]
    fn power_may_go_at_any_time(kind in kinds(), steps in steps()) {
        run(|local| go(local, kind, steps));
    }
}
