//! Random operations on images of all kinds, against a flat model.

use proptest::prelude::*;

use super::*;
use crate::image::BackingFile;
use crate::node::{State, Zero};
use crate::qcow2::header::Compression;
use crate::qcow2::options::PassDiscard;

#[derive(Debug, Clone)]
enum Step {
    Write { at: u64, len: u64, byte: u8, durable: bool },
    Many(Vec<(u64, u64, u8)>),
    Packed { cluster: u64, byte: u8 },
    Zero { at: u64, len: u64, unmap: bool },
    Discard { at: u64, len: u64 },
    Flush,
    Reopen,
    Resize { size: u64 },
}

#[derive(Debug, Clone)]
struct Kind {
    version: u32,
    cluster_bits: u32,
    refcount_bits: u32,
    extended: bool,
    zstd: bool,
    encrypted: bool,
    lazy: bool,
    size: u64,
    backing: Option<u64>,
    caches: u64,
    discard: bool,
}

fn kinds() -> impl Strategy<Value = Kind> {
    let first = (9u32..=17, 0u32..=6, any::<(bool, bool, bool, bool)>(), 0u8..8);
    let second = (1u64..4000, prop::option::of(1u64..5000), 1u64..64, any::<bool>());
    (first, second).prop_map(|((bits, order, (v3, extended, zstd, lazy), rare), second)| {
        let (sectors, backing, caches, discard) = second;
        let extended = v3 && extended && bits >= 14;
        Kind {
            version: if v3 { 3 } else { 2 },
            cluster_bits: bits,
            refcount_bits: if v3 { 1 << order } else { 16 },
            extended,
            zstd: v3 && zstd,
            encrypted: rare == 0,
            lazy: v3 && lazy,
            size: sectors * 512,
            backing: backing.map(|sectors| sectors * 512),
            caches: caches * 512,
            discard,
        }
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = || 0u64..2_100_000;
    let len = || prop_oneof![1u64..2000, 1u64..200_000];
    let write = (at(), len(), any::<u8>(), prop::bool::weighted(0.1));
    let step = prop_oneof![
        6 => write.prop_map(|(at, len, byte, durable)| Step::Write { at, len, byte, durable }),
        3 => prop::collection::vec((at(), len(), any::<u8>()), 2..12).prop_map(Step::Many),
        2 => (0u64..4000, any::<u8>()).prop_map(|(cluster, byte)| Step::Packed { cluster, byte }),
        2 => (at(), len(), any::<bool>())
            .prop_map(|(at, len, unmap)| Step::Zero { at, len, unmap }),
        2 => (at(), len()).prop_map(|(at, len)| Step::Discard { at, len }),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        1 => (1u64..4100).prop_map(|sectors| Step::Resize { size: sectors * 512 }),
    ];
    prop::collection::vec(step, 1..25)
}

/// What is not the same everywhere, so that bytes in the wrong place are seen.
fn pattern(at: u64, len: u64, byte: u8) -> Vec<u8> {
    (at..at + len).map(|at| byte ^ (at >> 9) as u8 ^ at as u8).collect()
}

/// A part of the range that is on the disk.
fn clip(at: u64, len: u64, size: u64) -> (u64, u64) {
    let at = at % size;
    (at, len.min(size - at))
}

struct Run {
    local: Local,
    file: Rc<Memory>,
    kind: Kind,
    below: Option<Rc<Memory>>,
    image: Rc<Qcow2>,
    model: Vec<u8>,
}

impl Run {
    fn options(kind: &Kind, below: &Option<Rc<Memory>>) -> Options {
        Options {
            backing: below.clone().map(|below| below as Rc<dyn Node>),
            l2_cache_size: Some(kind.caches),
            refcount_cache_size: Some(kind.caches),
            cache_entry_size: kind.caches.is_multiple_of(3).then_some(512),
            discard: kind.discard,
            pass_discard: PassDiscard { request: true, snapshot: true, other: true },
            ..Options::default()
        }
    }

    async fn start(local: Local, kind: Kind) -> Run {
        let below = kind.backing.map(|size| Memory::new(pattern(0, size, 0x55), LIMIT));
        let options = CreateOptions {
            size: kind.size,
            version: kind.version,
            cluster_size: 1 << kind.cluster_bits,
            refcount_bits: kind.refcount_bits,
            lazy_refcounts: kind.lazy,
            extended_l2: kind.extended,
            encrypted: kind.encrypted,
            compression: if kind.zstd { Compression::Zstd } else { Compression::Zlib },
            backing: below
                .is_some()
                .then(|| BackingFile { name: "below".into(), format: Some("raw".into()) }),
            ..CreateOptions::default()
        };
        let file = made(&options).await;
        let image = opened(&local, &file, Run::options(&kind, &below)).await;
        let mut model = below.as_ref().map_or(Vec::new(), |below| below.bytes());
        model.resize(kind.size as usize, 0);
        let run = Run { local, file, kind, below, image, model };
        run.give_key();
        run
    }

    fn give_key(&self) {
        if self.kind.encrypted {
            self.image.image().unwrap().set_key("secret").unwrap();
        }
    }

    fn size(&self) -> u64 {
        self.model.len() as u64
    }

    fn keep(&mut self, at: u64, data: &[u8]) {
        self.model[at as usize..at as usize + data.len()].copy_from_slice(data);
    }

    async fn step(&mut self, step: &Step) {
        let image = self.image.clone();
        match step {
            Step::Write { at, len, byte, durable } => {
                let (at, len) = clip(*at, *len, self.size());
                let data = pattern(at, len, *byte);
                image.write(at, IoBuf::copy_of(&data), *durable).await.unwrap();
                self.keep(at, &data);
            }
            Step::Many(writes) => {
                let mut ops = Vec::new();
                let mut taken: Vec<(u64, u64)> = Vec::new();
                for (at, len, byte) in writes {
                    let (at, len) = clip(*at, *len, self.size());
                    // Those that overlap have no order.
                    if taken.iter().any(|(other, count)| at < other + count && *other < at + len) {
                        continue;
                    }
                    taken.push((at, len));
                    let data = pattern(at, len, *byte);
                    self.keep(at, &data);
                    ops.push(image.write(at, IoBuf::copy_of(&data), false));
                }
                ops.push(image.flush());
                crate::qcow2::sync::join(ops).await.unwrap();
            }
            Step::Packed { cluster, byte } => {
                let size = 1u64 << self.kind.cluster_bits;
                let at = cluster * size % self.size() / size * size;
                let len = size.min(self.size() - at);
                let data: Vec<u8> =
                    pattern(at, len, *byte).iter().map(|byte| byte & 0x11).collect();
                let done = image.write_compressed(at, IoBuf::copy_of(&data)).await;
                assert_eq!(done.is_err(), self.kind.encrypted, "{done:?}");
                if done.is_ok() {
                    self.keep(at, &data);
                }
            }
            Step::Zero { at, len, unmap } => {
                let (at, len) = clip(*at, *len, self.size());
                let how = if *unmap { Zero::MayUnmap } else { Zero::Keep };
                image.zero(at, len, how).await.unwrap();
                self.keep(at, &vec![0; len as usize]);
            }
            Step::Discard { at, len } => {
                let (at, len) = clip(*at, *len, self.size());
                image.discard(at, len).await.unwrap();
                // It reads as before or as zeros; what lies below does not come back.
                let now = bytes(&*image, at, len as usize).await;
                let before = &self.model[at as usize..(at + len) as usize];
                let given_up = |byte: &u8| self.kind.discard && *byte == 0;
                let same = now.iter().zip(before).all(|(now, old)| now == old || given_up(now));
                assert!(same);
                self.keep(at, &now);
            }
            Step::Flush => image.flush().await.unwrap(),
            Step::Reopen => {
                image.close().await.unwrap();
                assert_clean(&*self.file, false).await;
                let options = Run::options(&self.kind, &self.below);
                self.image = opened(&self.local, &self.file, options).await;
                self.give_key();
            }
            Step::Resize { size } => {
                image.resize(*size).await.unwrap();
                self.model.resize(*size as usize, 0);
                assert_eq!(image.info().size, *size);
            }
        }
    }

    async fn compare(&self) {
        let now = bytes(&*self.image, 0, self.model.len()).await;
        if let Some(at) = now.iter().zip(&self.model).position(|(one, other)| one != other) {
            panic!("byte {at:#x} is {:#x}, not {:#x}", now[at], self.model[at]);
        }
        let mut at = 0;
        while at < self.size() {
            let extent = self.image.map(at, self.size() - at).await.unwrap();
            assert!(extent.len > 0);
            let part = &self.model[at as usize..(at + extent.len) as usize];
            assert!(extent.state != State::Zero || part.iter().all(|byte| *byte == 0));
            if let Some(offset) = extent.offset {
                assert_eq!(bytes(&*self.file, offset, part.len()).await, part);
            }
            at += extent.len;
        }
    }

    async fn all(mut self, steps: Vec<Step>) {
        for step in &steps {
            self.step(step).await;
            self.compare().await;
            if !self.kind.lazy {
                self.image.flush().await.unwrap();
                assert_clean(&*self.file, true).await;
            }
        }
        self.image.close().await.unwrap();
        assert_clean(&*self.file, false).await;
    }
}

proptest! {
    #![proptest_config(config(64))]
    #[test]
    fn an_image_is_a_disk(kind in kinds(), steps in steps()) {
        run(|local| async move { Run::start(local, kind).await.all(steps).await });
    }
}
