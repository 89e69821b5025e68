//! The fuzz targets' functions over their seeds and over deterministic mutations of them.
//!
//! `FUZZ_SECONDS` is the time for each target, 2 if unset.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use devices::fuzz::{SPECIMENS, Specimen};
use parking_lot::Mutex;

/// A function that is fuzzed.
struct Target {
    /// As in `fuzz/fuzz_targets/` and `fuzz/seeds/`.
    name: &'static str,
    fuzz: fn(&[u8]),
    /// Seeds besides those in files.
    more: fn() -> Vec<Seed>,
}

/// A name and the input.
type Seed = (String, Vec<u8>);

/// Lists the targets, and makes a test of each.
macro_rules! targets {
    ($($name:ident: $fuzz:path, $more:path;)*) => {
        const TARGETS: &[Target] =
            &[$(Target { name: stringify!($name), fuzz: $fuzz, more: $more }),*];

        $(#[test]
        fn $name() {
            run(&Target { name: stringify!($name), fuzz: $fuzz, more: $more });
        })*
    };
}

targets! {
    kernel_image: vmm::boot::fuzz, Vec::new;
    option_string: vmm::cli::fuzz, Vec::new;
    qmp_input: qmp::fuzz::fuzz, Vec::new;
    qmp_session: vmm::cmd::fuzz::session, Vec::new;
    qmp_commands: vmm::cmd::fuzz::commands, command_seeds;
    qtest_input: vmm::qtest::fuzz, Vec::new;
    device_registers: devices::fuzz::fuzz_registers, register_seeds;
    saved_state: devices::fuzz::fuzz_state, state_seeds;
    virtio_drivers: devices::virtio::fuzz::fuzz, driver_seeds;
    cpu_state: vmm::cpu::state::fuzz, cpu_seeds;
    human_monitor: vmm::hmp::fuzz, Vec::new;
    machine_state: vmm::vm::fuzz, machine_seeds;
    qcow2_image: block::qcow2::fuzz::fuzz, block::qcow2::fuzz::seeds;
    nbd_client: block::nbd::fuzz::client, Vec::new;
    nbd_server: block::nbd::fuzz::server, Vec::new;
    migration_answers: migration::fuzz::answers, Vec::new;
    migration_channel: migration::fuzz::channel, Vec::new;
    migration_late: migration::fuzz::late, Vec::new;
    migration_stream: migration::fuzz::stream, Vec::new;
    xbzrle_delta: migration::xbzrle::fuzz, Vec::new;
}

/// An input that takes this long hangs.
const HANG: Duration = Duration::from_secs(60);
/// No mutation makes an input longer than this.
const LONGEST: usize = 1 << 16;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

#[test]
fn every_target_is_complete() {
    let listed: BTreeSet<String> = TARGETS.iter().map(|target| target.name.into()).collect();
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

/// Writes the seeds that are made here into `fuzz/seeds/`, for libFuzzer.
#[test]
#[ignore = "writes into the source tree"]
fn write_device_seeds() {
    for target in TARGETS {
        for (name, seed) in (target.more)() {
            std::fs::write(directory().join("seeds").join(target.name).join(name), seed).unwrap();
        }
    }
}

/// Accesses of every kind to each device.
fn register_seeds() -> Vec<Seed> {
    let mut random = Random(1);
    devices(|index| {
        let accesses = (0..70).map(|_| random.next() as u8);
        std::iter::once(index).chain(accesses).collect()
    })
}

/// What each device saves after some accesses.
fn state_seeds() -> Vec<Seed> {
    let mut random = Random(2);
    devices(|index| {
        let specimen = Specimen::new(index);
        specimen.drive(&(0..700).map(|_| random.next() as u8).collect::<Vec<_>>());
        let mut device = specimen.device.lock();
        device.stop();
        let mut seed = vec![index];
        seed.extend(device.save().unwrap().to_bytes().unwrap());
        seed
    })
}

/// Drivers of each virtio device, with split rings and with packed ones.
fn driver_seeds() -> Vec<Seed> {
    let mut random = Random(4);
    let count = devices::virtio::fuzz::usable().len() as u8;
    let mut seed = |first: u8| {
        let acts = (0..300).map(|_| random.next() as u8);
        (first.to_string(), std::iter::once(first).chain(acts).collect())
    };
    (0..2 * count).map(&mut seed).collect()
}

/// Choices for some commands each, so that every one has its turn.
fn command_seeds() -> Vec<Seed> {
    let mut random = Random(3);
    let mut seed = |number: u8| {
        let choices = (0..400).map(|_| random.next() as u8);
        (number.to_string(), std::iter::once(number).chain(choices).collect())
    };
    (0..=255).map(&mut seed).collect()
}

/// A processor's state.
fn cpu_seeds() -> Vec<Seed> {
    vec![("power-on".into(), vmm::cpu::state::fuzz_seed())]
}

/// What a machine saves.
fn machine_seeds() -> Vec<Seed> {
    vec![("power-on".into(), vmm::vm::fuzz_seed())]
}

/// One seed for each device, by its number.
fn devices(mut make: impl FnMut(u8) -> Vec<u8>) -> Vec<Seed> {
    (0..).zip(SPECIMENS).map(|(index, (name, ..))| ((*name).into(), make(index))).collect()
}

/// Runs one target on a thread of its own, so that an input that hangs is found and named.
fn run(&Target { name, fuzz, more }: &Target) {
    let seconds = std::env::var("FUZZ_SECONDS").map_or(2, |s| s.parse().expect("FUZZ_SECONDS"));
    let time = Duration::from_secs(seconds);
    let mut seeds = seeds(name);
    seeds.extend(more().into_iter().map(|(_, seed)| seed));
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
