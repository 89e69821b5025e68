//! Power cuts under the guest's requests, with any part of what was not flushed on the disk.
//!
//! After each cut the image must be free of damage (or mend itself, with lazy refcounts), and each
//! byte must be what it was at the last flush or what was written to it since.

use std::cell::RefCell;

use proptest::prelude::*;

use super::power::Power;
use super::*;
use crate::image::BackingFile;
use crate::node::{Op, Zero};
use crate::qcow2::options::PassDiscard;
use crate::qcow2::sync::join;

/// Cuts of one run, at most.
const MOST_CUTS: usize = 40;

/// What the guest may see after a cut.
#[derive(Default, Clone)]
struct Guest {
    flushed: Rc<Vec<u8>>,
    /// Written since, or to be anything.
    since: Vec<Since>,
}

/// Where, how much, and what.
type Since = (usize, usize, Option<Rc<Vec<u8>>>);

#[derive(Debug, Clone)]
struct Kind {
    version: u32,
    cluster_bits: u32,
    refcount_bits: u32,
    extended: bool,
    lazy: bool,
    clusters: u64,
    /// Clusters that are lost to begin with, so that the refcounts have to grow.
    lost: u64,
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
        let cluster_bits = if extended { 14 } else { 9 + bits };
        let refcount_bits = if v3 { 1 << order } else { 16 };
        Kind {
            version: if v3 { 3 } else { 2 },
            cluster_bits,
            refcount_bits,
            extended,
            lazy: v3 && lazy && seed % 4 == 0,
            lost: if seed % 3 == 0 { nearly_full(cluster_bits, refcount_bits, seed) } else { 0 },
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
    lose(&local, &file, kind.lost).await;
    let guest = Guest { flushed: Rc::new(guest), since: Vec::new() };
    let power = Power::new(&local, file.bytes(), kind.seed, guest);
    let guest = &power.now;
    let image = open(&local, power.clone(), options(&kind, &below)).await.unwrap();
    for step in &steps {
        match step {
            Step::Flush => {
                image.flush().await.unwrap();
                let now = bytes(&*image, 0, size as usize).await;
                *guest.borrow_mut() = Guest { flushed: Rc::new(now), since: Vec::new() };
            }
            Step::Together(acts) => together(&image, guest, acts, &kind).await,
        }
    }
    image.close().await.unwrap();
    let flushed = Rc::new(bytes(&*image, 0, size as usize).await);
    *guest.borrow_mut() = Guest { flushed, since: Vec::new() };
    for (cut, guest, how) in power.cuts(MOST_CUTS) {
        after(&local, &kind, &below, cut, guest, &how).await;
    }
}

async fn together(image: &Rc<Qcow2>, guest: &RefCell<Guest>, acts: &[Act], kind: &Kind) {
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
            let data = data.map(Rc::new);
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
async fn after(
    local: &Local,
    kind: &Kind,
    below: &Option<Rc<Memory>>,
    cut: Vec<u8>,
    guest: Guest,
    how: &str,
) {
    let file = Memory::new(cut, LIMIT);
    if !kind.lazy {
        assert_clean(&*file, true).await;
    }
    let image = opened(local, &file, options(kind, below)).await;
    let size = image.info().size as usize;
    let seen = bytes(&*image, 0, size).await;
    for (at, byte) in seen.iter().enumerate() {
        let written = |(from, len, data): &Since| {
            (*from..from + len).contains(&at)
                && data.as_ref().is_none_or(|data| data[at - from] == *byte)
        };
        assert!(
            guest.flushed[at] == *byte || guest.since.iter().any(written),
            "byte {at:#x} is {byte:#x}, was {:#x} when it was flushed; lost {how}",
            guest.flushed[at]
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
