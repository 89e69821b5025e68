//! Every device, built alone on stand-ins, for fuzzing and for the conformance tests.
//!
//! A new class adds one line to [`SPECIMENS`], without which a test fails, and with that gets: reset is idempotent, saved
//! state round-trips, hostile saved state and random register accesses never panic. Its first
//! saved state goes into a file, which must load forever: see `fuzz/golden.rs`. Devices on PCI are
//! made by their classes, without RAM; with RAM and a driver those of virtio are fuzzed by
//! [`crate::virtio::fuzz`].
//!
//! Used by fuzz targets and tests only, on one thread.

use std::sync::Arc;

use resources::clock::Clock;
use resources::device::{At, DeviceRef};
use resources::irq::Irq;
use resources::request::{Nobody, Requests};
use resources::state::Blob;

use crate::acpi::cpu::{self, CpuHotplug};
use crate::acpi::gpe::Gpe;
use crate::acpi::pci_hotplug::{self, PciHotplug};
use crate::acpi::pm::{self, Pm, Sleeps};
use crate::acpi::tables::Processor;
use crate::acpi::vmgenid::GenerationId;
use crate::class::Ctx;
use crate::isa::NullBackend;
use crate::isa::debug::{DebugCon, DebugExit, PostCode};
use crate::isa::i8042::I8042;
use crate::isa::ib700::Ib700;
use crate::isa::port92::Port92;
use crate::isa::pvpanic::PvPanic;
use crate::isa::reset_control::ResetControl;
use crate::isa::rtc::{self, Rtc};
use crate::isa::serial::{self, Serial};
use crate::pci::CONFIG;
use crate::pci::host::Host;
use crate::pci::i440fx::I440fx;
use crate::pci::piix::{Piix3, Piix4Pm};
use crate::virtio;
use crate::virtio::vsock::Vsock;
use resources::props::Props;
use resources::ram::RamBlock;
use resources::space::Mapping;

pub(crate) mod board;
#[cfg(test)]
mod golden;

/// A device without a machine around it.
pub struct Specimen {
    /// The device.
    pub device: DeviceRef,
    /// The clock it lives by; stopped, so that only [`Clock::step_to`] moves it.
    pub clock: Arc<Clock>,
    /// Its regions and their sizes in bytes.
    pub regions: &'static [(u16, u64)],
}

/// The regions of functions: their configuration, and what else they have.
const FUNCTION: &[(u16, u64)] = &[(CONFIG, 0x100)];
const WATCHDOG: &[(u16, u64)] = &[(0, 0x10), (CONFIG, 0x100)];
const VIRTIO: &[(u16, u64)] = &[(4, 0x4000), (CONFIG, 0x100), (1, 0x1000)];

/// A device of a class, or if that cannot be made, none.
fn named(
    given: (&str, &[(&str, &str)]),
    clock: &Arc<Clock>,
    requests: Requests,
    regions: &'static [(u16, u64)],
) -> (DeviceRef, &'static [(u16, u64)]) {
    or_none(board::by_name(given, clock, requests), regions)
}

fn or_none(
    made: Result<DeviceRef, String>,
    regions: &'static [(u16, u64)],
) -> (DeviceRef, &'static [(u16, u64)]) {
    match made {
        Ok(device) => (device, regions),
        Err(error) => {
            tracing::error!("a specimen cannot be made: {error}");
            (PostCode::new("none"), &[])
        }
    }
}

type Make = fn(&Arc<Clock>, Requests) -> (DeviceRef, &'static [(u16, u64)]);

/// One of each class: its name here, its class, and what makes it.
pub const SPECIMENS: &[(&str, &str, Make)] = &[
    ("serial", "isa-serial", |clock, _| {
        (Serial::new("serial", Irq::None, clock, Box::new(NullBackend)), &[(0, serial::SIZE)])
    }),
    ("i8042", "i8042", |_, requests| {
        (I8042::new("i8042", Irq::None, Irq::None, requests), &[(0, 1), (1, 1)])
    }),
    ("pm", "acpi-pm", |clock, requests| {
        let sci = (Irq::None, Gpe::new(Irq::None));
        (Pm::new("pm", sci, clock, requests, (true, Sleeps::default())), &[(0, 16), (1, 2), (2, 4)])
    }),
    ("cpu-hotplug", "acpi-cpu-hotplug", |_, _| {
        let processors = (0..7).map(|n| Processor { apic_id: n * 3, present: n < 2 });
        let cpus = CpuHotplug::new("cpus", &processors.collect::<Vec<_>>());
        cpus.lock().add(4);
        cpus.lock().add(5);
        (cpus, &[(0, cpu::SIZE)])
    }),
    ("vmgenid", "vmgenid", |_, _| (GenerationId::new("id", Default::default(), None), &[])),
    ("rtc", "mc146818rtc", |clock, requests| {
        // Not the host's clock: what happens must depend on the input alone.
        let config = rtc::Config {
            source: rtc::Source::Virtual,
            base: 1_000_000_000,
            ram_low: 3 << 30,
            ram_high: 1 << 30,
            processors: 2,
        };
        (Rtc::new("rtc", Irq::None, clock, requests, &config), &[(0, rtc::SIZE)])
    }),
    ("ib700", "ib700", |clock, requests| (Ib700::new("ib700", clock, requests), &[(0, 1), (1, 1)])),
    ("pvpanic", "pvpanic", |_, requests| (PvPanic::new("pvpanic", requests, 3), &[(0, 1)])),
    ("port92", "port92", |_, requests| (Port92::new("port92", requests), &[(0, 1)])),
    ("reset-control", "reset-control", |_, requests| {
        (ResetControl::new("reset-control", requests), &[(0, 1)])
    }),
    ("post-code", "post-code", |_, _| (PostCode::new("post-code"), &[(0, 1)])),
    ("debugcon", "isa-debugcon", |_, _| {
        (DebugCon::new("debugcon", Box::new(NullBackend)), &[(0, 1)])
    }),
    ("debug-exit", "isa-debug-exit", |_, requests| {
        (DebugExit::new("debug-exit", requests), &[(0, DebugExit::SIZE)])
    }),
    ("pci-hotplug", "acpi-pci-hotplug", |_, requests| {
        let registers = PciHotplug::new("hotplug", requests);
        registers.lock().add_bus();
        (registers, &[(0, pci_hotplug::SIZE)])
    }),
    ("i440fx", "i440FX", |clock, requests| {
        let made = board::part(clock, requests, |board| {
            let ram = RamBlock::anonymous(1 << 20);
            let ram =
                ram.map_err(|error| resources::class::CreateError::Other(error.to_string()))?;
            I440fx::add(board.site(), &ram, false)
        });
        or_none(made, FUNCTION)
    }),
    ("piix3", "PIIX3", |clock, requests| {
        let add = |board: &board::Board| Piix3::add(board.site(), &board.links, None);
        or_none(board::part(clock, requests, add), FUNCTION)
    }),
    ("pci-bridge", "pci-bridge", |clock, requests| {
        named(("pci-bridge", &[("chassis_nr", "1")]), clock, requests, FUNCTION)
    }),
    ("i6300esb", "i6300esb", |clock, requests| named(("i6300esb", &[]), clock, requests, WATCHDOG)),
    ("virtio-rng", "virtio-rng-pci", |clock, requests| {
        named(("virtio-rng-pci", &[]), clock, requests, VIRTIO)
    }),
    ("virtio-balloon", "virtio-balloon-pci", |clock, requests| {
        named(("virtio-balloon-pci", &[]), clock, requests, VIRTIO)
    }),
    ("virtio-serial", "virtio-serial-pci", |clock, requests| {
        named(("virtio-serial-pci", &[]), clock, requests, VIRTIO)
    }),
    ("virtio-scsi", "virtio-scsi-pci", |clock, requests| {
        named(("virtio-scsi-pci", &[]), clock, requests, VIRTIO)
    }),
    ("virtio-net", "virtio-net-pci", |clock, requests| {
        named(("virtio-net-pci", &[]), clock, requests, VIRTIO)
    }),
    ("virtio-blk", "virtio-blk-pci", |clock, requests| {
        named(("virtio-blk-pci", &[("drive", "d0")]), clock, requests, VIRTIO)
    }),
    // Not every host has the kernel's part.
    ("virtio-vsock", "vhost-vsock-pci", |clock, requests| {
        let create = |props: &mut Props, ctx: &mut Ctx| {
            let device = Vsock::alone(ctx.host.io.clone());
            virtio::pci::plug(ctx, props, Box::new(device))
        };
        or_none(board::instead(Vsock::CLASS, create, clock, requests), VIRTIO)
    }),
    ("virtconsole", "virtconsole", |clock, requests| {
        let port = ("virtio-serial-pci", ("virtconsole", &[][..]));
        or_none(board::behind(port, clock, requests), &[])
    }),
    ("virtserialport", "virtserialport", |clock, requests| {
        let port = ("virtio-serial-pci", ("virtserialport", &[][..]));
        or_none(board::behind(port, clock, requests), &[])
    }),
    ("scsi-hd", "scsi-hd", |clock, requests| {
        let unit = ("virtio-scsi-pci", ("scsi-hd", &[("drive", "d0")][..]));
        or_none(board::behind(unit, clock, requests), &[])
    }),
    ("scsi-cd", "scsi-cd", |clock, requests| {
        let unit = ("virtio-scsi-pci", ("scsi-cd", &[][..]));
        or_none(board::behind(unit, clock, requests), &[])
    }),
    ("pci-host", "i440FX-pcihost", |clock, requests| {
        let made = board::Board::new(clock, requests, Default::default())
            .map(|board| Host::new("host", &board.bus, PostCode::new("reset")).0 as DeviceRef);
        or_none(made, &[(0, 4)])
    }),
    ("piix4-pm", "PIIX4_PM", |clock, requests| {
        let made = board::part(clock, requests.clone(), |board| {
            let sci = (Irq::None, Gpe::new(Irq::None));
            let block = Pm::new("pm", sci, clock, requests, (true, Sleeps::default()));
            let ports = Mapping::device(pm::BLOCK_PORT, pm::BLOCK_SIZE, block, pm::BLOCK);
            let ports = board.ctx.ports.map(Mapping { enabled: false, ..ports })?;
            Piix4Pm::add(board.site(), ports, Some(0x600))
        });
        or_none(made, FUNCTION)
    }),
];

impl Drop for Specimen {
    fn drop(&mut self) {
        let mut device = self.device.lock();
        device.stop();
        device.unplug();
    }
}

impl Specimen {
    /// The device chosen by `index`, modulo their number, started.
    pub fn new(index: u8) -> Specimen {
        let clock = Clock::new();
        // Anything but zero, so that a forgotten subtraction shows.
        clock.set(1_000_000_007);
        let index = usize::from(index).checked_rem(SPECIMENS.len()).unwrap_or(0);
        let make = SPECIMENS.iter().map(|(_, _, make)| make).nth(index);
        let (device, regions) = match make {
            Some(make) => make(&clock, Arc::new(Nobody)),
            None => (PostCode::new("none") as DeviceRef, &[][..]),
        };
        device.lock().start();
        Specimen { device, clock, regions }
    }

    /// Does what `data` says: reads and writes of any size anywhere in the regions, time passing,
    /// stop and start, reset.
    pub fn drive(&self, data: &[u8]) {
        let mut rest = data;
        while let [op, region, offset, a, b, c, d, tail @ ..] = rest {
            rest = tail;
            let count = self.regions.len();
            let page = usize::from(*region).checked_div(count).unwrap_or(0);
            let region = usize::from(*region).checked_rem(count).unwrap_or(0);
            let Some((region, size)) = self.regions.get(region) else { return };
            let page = if *size > 0x100 { u64::try_from(page).unwrap_or(0) << 8 } else { 0 };
            let offset = u64::from(*offset) | page;
            let offset = offset.checked_rem(*size).unwrap_or(0);
            let at = At { region: *region, offset };
            let mut bytes = [*a, *b, *c, *d, !*a, !*b, !*c, !*d];
            // An access never leaves its region.
            let most = usize::try_from(size.saturating_sub(offset)).unwrap_or(1).min(8);
            let len = usize::from(op >> 4).clamp(1, most);
            let bytes = bytes.get_mut(..len).unwrap_or_default();
            match op & 0x0f {
                0..=6 => self.device.lock().write(at, bytes),
                7..=11 => self.device.lock().read(at, bytes),
                12 | 13 => {
                    let step = u64::from(u32::from_le_bytes([*a, *b, *c, *d]));
                    self.clock.step_to(self.clock.now().saturating_add(step << (op >> 4)));
                }
                14 => {
                    self.device.lock().stop();
                    self.device.lock().start();
                }
                _ => self.device.lock().reset(),
            }
        }
    }
}

/// A fuzz entry: the first byte chooses the device, the rest drives it.
pub fn fuzz_registers(data: &[u8]) {
    if let [index, data @ ..] = data {
        Specimen::new(*index).drive(data);
    }
}

/// A fuzz entry: the first byte chooses the device and whether the rest is an encoded blob or
/// only its body. What loads must work on and save again.
pub fn fuzz_state(data: &[u8]) {
    let [index, data @ ..] = data else { return };
    let encoded = if index & 0x80 == 0 { data.to_vec() } else { blob_around(data) };
    let Ok(blob) = Blob::from_bytes(&encoded) else { return };
    let specimen = Specimen::new(index & 0x7f);
    specimen.device.lock().stop();
    if specimen.device.lock().load(&blob).is_ok() {
        specimen.device.lock().start();
        specimen.drive(data);
        specimen.clock.step_to(specimen.clock.now().saturating_add(10_000_000_000));
        let _ = specimen.device.lock().save();
    }
}

/// The encoding (CBOR) of a version 1 blob with this body.
fn blob_around(body: &[u8]) -> Vec<u8> {
    let mut out = b"\xa2\x67version\x01\x64body\x5a".to_vec();
    out.extend(u32::try_from(body.len()).unwrap_or(0).to_be_bytes());
    out.extend(body);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::CLASSES;
    use proptest::prelude::*;

    fn all() -> impl Iterator<Item = (&'static str, Specimen)> {
        (0..).zip(SPECIMENS).map(|(index, (name, ..))| (name as &str, Specimen::new(index)))
    }

    fn saved(specimen: &Specimen) -> Blob {
        specimen.device.lock().save().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn reset_is_idempotent(data in prop::collection::vec(any::<u8>(), 0..700)) {
            for (name, specimen) in all() {
                specimen.drive(&data);
                specimen.device.lock().stop();
                specimen.device.lock().reset();
                let once = saved(&specimen);
                specimen.device.lock().reset();
                prop_assert_eq!(once, saved(&specimen), "{}", name);
            }
        }

        #[test]
        fn saved_state_round_trips(data in prop::collection::vec(any::<u8>(), 0..700)) {
            for ((name, old), (_, new)) in all().zip(all()) {
                old.drive(&data);
                old.device.lock().stop();
                new.device.lock().stop();
                new.clock.set(old.clock.now());
                let blob = saved(&old);
                new.device.lock().load(&blob).unwrap();
                prop_assert_eq!(&blob, &saved(&new), "{}", name);
                // And both go on alike.
                for specimen in [&old, &new] {
                    specimen.device.lock().start();
                    specimen.drive(&data);
                    specimen.device.lock().stop();
                }
                prop_assert_eq!(saved(&old), saved(&new), "{}", name);
            }
        }

        #[test]
        fn mutated_state_never_panics(
            data in prop::collection::vec(any::<u8>(), 0..200),
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            for (index, (_, specimen)) in (0..).zip(all()) {
                specimen.drive(&data);
                let mut bytes = saved(&specimen).to_bytes().unwrap();
                fuzz_state(&[&[index], &bytes[..cut.index(bytes.len())]].concat());
                for (at, value) in &edits {
                    let at = at.index(bytes.len());
                    bytes[at] = *value;
                }
                fuzz_state(&[&[index], &bytes[..]].concat());
            }
        }

        #[test]
        fn arbitrary_input_never_panics(data in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz_registers(&data);
            fuzz_state(&data);
        }
    }

    #[test]
    fn every_specimen_can_be_made() {
        for (name, specimen) in all() {
            assert_ne!(specimen.device.name(), "none", "{name}");
        }
    }

    #[test]
    fn every_class_has_a_specimen() {
        for class in CLASSES {
            let has = SPECIMENS.iter().any(|(_, name, _)| *name == class.name);
            assert!(has, "{} has no line in SPECIMENS", class.name);
        }
        for (name, of, _) in SPECIMENS {
            assert!(CLASSES.iter().any(|class| class.name == *of), "{name} is of no class");
        }
    }

    #[test]
    fn the_hand_made_envelope_is_a_blob() {
        let blob = saved(&Specimen::new(0));
        // A CBOR map has its body after these headers, whatever the length encoding.
        let body = b"\xa1\x64code\x07";
        let made = Blob::from_bytes(&blob_around(body)).unwrap();
        assert_eq!(made.version(), blob.version());
        let post: DeviceRef = PostCode::new("post");
        assert!(post.lock().load(&made).is_ok());
        assert_eq!(post.lock().save().unwrap().to_bytes().unwrap(), made.to_bytes().unwrap());
    }
}
