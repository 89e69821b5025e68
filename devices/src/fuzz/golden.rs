//! What devices have saved once must load forever: a file for each in `devices/golden/`.
//!
//! A file is written when its device is new and never again: `cargo test -p devices golden --
//! --ignored` writes those that are missing.

use std::path::PathBuf;

use resources::state::Blob;

use super::{SPECIMENS, Specimen};
use crate::virtio::fuzz::{Rig, usable};

fn file(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/golden")).join(format!("{name}.cbor"))
}

/// Accesses that leave hardly a register as it was: always the same.
fn accesses() -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..7 * 400).map(|_| next()).collect()
}

/// A virtio device with a driver that uses it is another one than without.
fn driven(name: &str) -> String {
    format!("{name}-driven")
}

fn rig(name: &str, driver: u64) -> Rig {
    let class = usable().iter().find(|class| class.name == name).unwrap();
    let mut rig = Rig::new(class).unwrap();
    rig.driver(driver);
    for queue in 0..rig.queues {
        rig.request(queue, b"golden", 64);
    }
    rig
}

fn save(device: &resources::device::DeviceRef) -> Vec<u8> {
    let mut device = device.lock();
    device.stop();
    device.save().unwrap().to_bytes().unwrap()
}

/// Loads, saves, and loads what was saved.
fn loads(name: &str, device: &resources::device::DeviceRef) {
    let bytes = std::fs::read(file(name))
        .unwrap_or_else(|error| panic!("{name}: {error}; see the head of this file"));
    let mut device = device.lock();
    device.stop();
    let load = |device: &mut dyn resources::device::Device, bytes: &[u8]| {
        let blob = Blob::from_bytes(bytes).unwrap();
        device.load(&blob).unwrap_or_else(|error| panic!("{name}: {error}"));
    };
    load(&mut *device, &bytes);
    let again = device.save().unwrap().to_bytes().unwrap();
    load(&mut *device, &again);
    device.start();
    device.stop();
}

#[test]
fn golden_states_load() {
    for (index, (name, ..)) in (0..).zip(SPECIMENS) {
        loads(name, &Specimen::new(index).device);
    }
    for class in usable() {
        loads(&driven(class.name), &rig(class.name, 0).device);
    }
}

#[test]
#[ignore = "writes into the source tree"]
fn golden_states_are_written() {
    std::fs::create_dir_all(file("x").parent().unwrap()).unwrap();
    let write = |name: &str, bytes: &dyn Fn() -> Vec<u8>| {
        if !file(name).exists() {
            std::fs::write(file(name), bytes()).unwrap();
        }
    };
    for (index, (name, ..)) in (0..).zip(SPECIMENS) {
        write(name, &|| {
            let specimen = Specimen::new(index);
            specimen.drive(&accesses());
            save(&specimen.device)
        });
    }
    for class in usable() {
        write(&driven(class.name), &|| save(&rig(class.name, u64::MAX).device));
    }
}
