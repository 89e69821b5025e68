//! The fuzz targets' functions over their seeds and over deterministic mutations of them.
//!
//! `FUZZ_SECONDS` is the time for each target, 2 if unset.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

type Fuzz = fn(&[u8]);

/// Every target, named as in `fuzz/fuzz_targets/` and `fuzz/seeds/`.
const TARGETS: &[(&str, Fuzz)] = &[
    ("kernel_image", vmm::boot::fuzz),
    ("option_string", vmm::cli::fuzz),
    ("qmp_input", qmp::fuzz::fuzz),
];

/// An input that takes this long hangs.
const HANG: Duration = Duration::from_secs(60);
/// No mutation makes an input longer than this.
const LONGEST: usize = 1 << 16;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

#[test]
fn every_target_is_complete() {
    let listed: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).into()).collect();
    let names = |sub: &str| -> BTreeSet<String> {
        std::fs::read_dir(directory().join(sub))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names("fuzz_targets"), listed);
    assert_eq!(names("seeds"), listed);
    let manifest = std::fs::read_to_string(directory().join("Cargo.toml")).unwrap();
    for name in &listed {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}

#[test]
fn seeds_and_their_mutations_do_no_harm() {
    let seconds = std::env::var("FUZZ_SECONDS").map_or(2, |s| s.parse().expect("FUZZ_SECONDS"));
    for (name, fuzz) in TARGETS {
        run(name, *fuzz, Duration::from_secs(seconds));
    }
}

/// Runs one target on a thread of its own, so that an input that hangs is found and named.
fn run(name: &str, fuzz: Fuzz, time: Duration) {
    let seeds = seeds(name);
    assert!(!seeds.is_empty(), "{name} has no seeds");
    let current = Arc::new(Mutex::new(Vec::new()));
    let (alive, beats) = mpsc::channel();
    let worker = std::thread::spawn({
        let current = current.clone();
        move || {
            let mut count = 0u64;
            let mut one = |input: Vec<u8>| {
                let mut slot = current.lock();
                *slot = input.clone();
                drop(slot);
                fuzz(&input);
                count += 1;
                alive.send(()).expect("the test is waiting");
            };
            for seed in &seeds {
                one(seed.clone());
            }
            let mut random = Random(0x9e37_79b9_7f4a_7c15);
            let end = Instant::now() + time;
            while Instant::now() < end {
                one(mutate(&seeds, &mut random));
            }
            count
        }
    });
    loop {
        match beats.recv_timeout(HANG) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => panic!("{name} hangs on {}", keep(name, &current)),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    match worker.join() {
        Ok(count) => println!("{name}: {count} inputs"),
        Err(_) => panic!("{name} panicked on {}", keep(name, &current)),
    }
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = std::fs::read_dir(directory().join("seeds").join(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort(); // The same mutations on every machine.
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Keeps the input that failed, to make a seed of.
fn keep(name: &str, input: &Mutex<Vec<u8>>) -> String {
    let dir = directory().join("../target/fuzz-failures");
    let path = dir.join(format!("{name}-{}", std::process::id()));
    let kept = std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&path, &*input.lock()));
    match kept {
        Ok(()) => path.display().to_string(),
        Err(e) => format!("an input that cannot be kept: {e}"),
    }
}

/// xorshift64*: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`; 0 when that is 0.
    fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next() >> 33) as usize % bound }
    }
}

/// Numbers at which code goes wrong.
const EDGES: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x1000,
    0x7fff,
    0xffff,
    0x10_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// One of the seeds with one to eight changes.
fn mutate(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut data = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(8) {
        // Formats keep what matters in front: half of the changes are made there.
        let reach = if random.below(2) == 0 { data.len().min(0x300) } else { data.len() };
        let at = random.below(reach);
        let len = random.below(64).min(data.len() - at);
        match random.below(8) {
            0 if !data.is_empty() => data[at] ^= 1 << random.below(8),
            1 if !data.is_empty() => data[at] = random.next() as u8,
            2 | 3 => {
                let value = EDGES[random.below(EDGES.len())].to_le_bytes();
                let size = (1 << random.below(4)).min(data.len() - at);
                data[at..at + size].copy_from_slice(&value[..size]);
            }
            4 => drop(data.drain(at..at + len)),
            5 => {
                let copy = data[at..at + len].to_vec();
                let to = random.below(data.len() + 1);
                data.splice(to..to, copy);
            }
            6 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                let end = (from + random.below(64)).min(other.len());
                data.splice(at..at + len, other[from..end].iter().copied());
            }
            _ if random.below(4) == 0 => data.truncate(at),
            _ => {}
        }
    }
    data.truncate(LONGEST);
    data
}
