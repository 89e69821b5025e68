use super::*;
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// Classes that need more than a rig has.
const NEEDS: &[&str] = &["virtio-net-pci", "virtio-blk-pci", "vhost-vsock-pci"];

fn rigs() -> impl Iterator<Item = (&'static str, Rig)> {
    usable().iter().map(|class| (class.name, Rig::new(class).unwrap()))
}

#[test]
fn every_class_is_made_or_known_to_need_something() {
    let made: Vec<_> = usable().iter().map(|class| class.name).collect();
    let all: Vec<_> = classes().map(|class| class.name).collect();
    assert!(made.len() >= 2, "{made:?}");
    for name in all {
        assert!(made.contains(&name) || NEEDS.contains(&name), "{name} is not tested");
    }
}

/// Whether a device looks into a queue only when it has something for the driver.
fn is_lazy(class: &str, queue: u16) -> bool {
    match class {
        "virtio-net-pci" | "virtio-serial-pci" => queue & 1 == 0,
        "virtio-scsi-pci" => queue == 1,
        _ => false,
    }
}

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

type Attack = (&'static str, fn(&mut Rig, u16));

/// What a hostile driver does to a queue. (Packed rings: see the queue's own tests.)
const ATTACKS: &[Attack] = &[
    ("index", |rig, queue| {
        rig.put(Rig::ring(queue) + 0x1002, &9000_u16.to_le_bytes());
        rig.kick(queue);
    }),
    ("head", |rig, queue| rig.offer(queue, 500)),
    ("loop", |rig, queue| {
        rig.descriptor(queue, 0, BUFFERS, 4, NEXT, 0);
        rig.offer(queue, 0);
    }),
    ("next", |rig, queue| {
        rig.descriptor(queue, 0, BUFFERS, 4, NEXT, 0x8000);
        rig.offer(queue, 0);
    }),
    ("end of RAM", |rig, queue| {
        rig.descriptor(queue, 0, RAM - 1, 2, 0, 0);
        rig.offer(queue, 0);
    }),
    ("no RAM", |rig, queue| {
        rig.descriptor(queue, 0, u64::MAX - 1, 2, WRITE, 0);
        rig.offer(queue, 0);
    }),
    ("zero length", |rig, queue| {
        rig.descriptor(queue, 0, BUFFERS, 0, WRITE, 0);
        rig.offer(queue, 0);
    }),
    ("huge", |rig, queue| {
        rig.descriptor(queue, 0, 0, u32::MAX, 0, 0);
        rig.offer(queue, 0);
    }),
    ("writable first", |rig, queue| {
        rig.descriptor(queue, 0, BUFFERS, 4, WRITE | NEXT, 1);
        rig.descriptor(queue, 1, BUFFERS, 4, 0, 0);
        rig.offer(queue, 0);
    }),
    ("odd table", |rig, queue| {
        rig.descriptor(queue, 0, BUFFERS, 17, INDIRECT, 0);
        rig.offer(queue, 0);
    }),
    ("ring moved", |rig, queue| {
        rig.set(22, 2, queue.into());
        rig.set(32, 8, BUFFERS);
    }),
];

#[test]
fn hostile_drivers_break_their_own_device_only() {
    for (name, mut rig) in rigs() {
        for queue in 0..rig.queues {
            for (attack, act) in ATTACKS {
                assert!(rig.driver(!feature::RING_PACKED), "{name}");
                act(&mut rig, queue);
                let lazy = is_lazy(name, queue) && *attack != "ring moved";
                let deadline = Instant::now() + Duration::from_secs(20);
                while !lazy && rig.status() & 0x40 == 0 {
                    assert!(
                        Instant::now() < deadline,
                        "{name}, queue {queue}: {attack} is not seen"
                    );
                    std::thread::sleep(Duration::from_millis(1));
                }
                // It can be stopped, saved and loaded like this, and says the same.
                rig.reload();
                let expected = if lazy { 0xf } else { 0x4f };
                assert_eq!(rig.status() & expected, expected, "{name}: {attack}");
            }
        }
        assert!(rig.driver(u64::MAX), "{name}");
        assert_eq!(rig.status(), 0xf, "{name}");
    }
}

#[test]
fn configuration_is_accessed_with_every_size_and_place() {
    for (name, mut rig) in rigs() {
        assert!(rig.driver(u64::MAX));
        for offset in (0..0x60).chain(0xff0..0x1010) {
            for len in 1..=8 {
                rig.get(CONFIG + offset, len);
                rig.set(CONFIG + offset, len, u64::MAX);
                rig.set(CONFIG + offset, len, 0);
            }
        }
        assert_eq!(rig.status() & !0x40, 0xf, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn arbitrary_drivers_never_hurt(
        data in prop::collection::vec(any::<u8>(), 0..600),
        features in any::<u64>(),
    ) {
        for (name, mut rig) in rigs() {
            rig.driver(features);
            rig.drive(&data);
            let mut device = rig.device.lock();
            device.stop();
            // Saved, loaded and saved: the same.
            let saved = device.save().unwrap();
            device.reset();
            device.load(&saved).unwrap();
            prop_assert_eq!(&saved, &device.save().unwrap(), "{}", name);
            // Reset twice is reset once.
            device.reset();
            let once = device.save().unwrap();
            device.reset();
            prop_assert_eq!(once, device.save().unwrap(), "{}", name);
            drop(device);
            rig.device.lock().start();
            prop_assert!(rig.driver(u64::MAX), "{} is alive", name);
        }
    }

    #[test]
    fn mutated_states_never_hurt(
        data in prop::collection::vec(any::<u8>(), 0..200),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        for (_, mut rig) in rigs() {
            rig.driver(u64::MAX);
            rig.drive(&data);
            let mut device = rig.device.lock();
            device.stop();
            let mut bytes = device.save().unwrap().to_bytes().unwrap();
            for (at, value) in edits.clone() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Ok(blob) = resources::state::Blob::from_bytes(&bytes) {
                // Whether or not it was taken, it runs, stops and is reset.
                let _ = device.load(&blob);
            }
            device.start();
            device.stop();
            device.reset();
            device.start();
            drop(device);
            prop_assert!(rig.driver(u64::MAX));
        }
    }
}

#[test]
fn the_function_says_where_everything_is() {
    let region = crate::pci::CONFIG;
    for (name, rig) in rigs() {
        let config = |offset: u64, len: usize| {
            let mut data = [0; 8];
            rig.device.lock().read(At { region, offset }, &mut data[..len]);
            value_of(&data[..len])
        };
        assert_eq!(config(0, 2), 0x1af4, "{name}");
        assert!((0x1041..0x1080).contains(&config(2, 2)), "{name}");
        assert_eq!((config(8, 1), config(0x2c, 2), config(0x2e, 2)), (1, 0x1af4, 0x1100));
        let (mut at, mut kinds, mut window) = (config(0x34, 1), Vec::new(), 0);
        while at != 0 {
            if config(at, 1) == 9 {
                kinds.push(config(at + 3, 1));
                window = if config(at + 3, 1) == 5 { at } else { window };
            }
            if config(at, 1) == 0x11 {
                let last = if name == "virtio-serial-pci" { 1 } else { u64::from(rig.queues) };
                assert_eq!(config(at + 2, 2) & 0x7ff, last, "{name}: vectors");
            }
            at = config(at + 1, 1);
        }
        let without: Vec<_> = kinds.iter().copied().filter(|kind| *kind != 4).collect();
        assert_eq!(without, [1, 2, 3, 5], "{name}");
        // The status through the window.
        let set = |offset: u64, value: u32| {
            let at = At { region, offset: window + offset };
            rig.device.lock().write(at, &value.to_le_bytes());
        };
        set(4, u32::from_le_bytes([4, 0, 0, 0]));
        set(8, 20);
        set(12, 1);
        set(16, 3);
        assert_eq!((rig.status(), config(window + 16, 1)), (3, 3), "{name}");
        // Where nothing is, and lengths that are none.
        for (offset, len) in [(u32::MAX, 4), (0x4000, 4), (0, 3), (0, 0), (0, u32::MAX)] {
            set(8, offset);
            set(12, len);
            set(16, u32::MAX);
            config(window + 16, 4);
        }
        assert_eq!(rig.status(), 3, "{name}");
    }
}

#[test]
fn what_is_unplugged_is_silent() {
    for (_, mut rig) in rigs() {
        rig.driver(u64::MAX);
        rig.request(0, b"hello", 100);
        let mut device = rig.device.lock();
        device.stop();
        device.unplug();
        device.reset();
        device.save().unwrap();
    }
}
