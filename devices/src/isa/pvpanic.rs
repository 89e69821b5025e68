//! A port by which the guest's kernel reports that it panicked (QEMU's `docs/specs/pvpanic`).
//!
//! Region 0: 1 byte, by default port 0x505. It reads as the events that may be reported; a write
//! reports those whose bits are set: bit 0 the kernel panicked, bit 1 it did and has another kernel
//! save what is in memory.
//!
//! Runs on vCPU threads under the device's mutex. A hostile guest can stop itself.

use std::sync::Arc;

use acpi_tables::Aml;
use acpi_tables::aml;
use resources::class::Class;
use resources::device::{At, Device, DeviceCell};
use resources::guest_error;
use resources::props::{Kind, Prop};
use resources::request::{Request, Requests};
use resources::state::{Blob, Empty, StateError};

use crate::class::Ctx;

const PANICKED: u8 = 1 << 0;
const CRASH_LOADED: u8 = 1 << 1;

/// The device.
pub struct PvPanic {
    requests: Requests,
    /// What may be reported.
    events: u8,
}

impl PvPanic {
    /// How one is made by name.
    pub const CLASS: Class<Ctx> = Class {
        name: "pvpanic",
        aliases: &["isa-pvpanic"],
        bus: "ISA",
        description: "Port by which a guest reports a panic",
        props: &[
            Prop {
                name: "ioport",
                kind: Kind::U16(0, 0xffff),
                default: Some("0x505"),
                help: "I/O port",
            },
            Prop {
                name: "events",
                kind: Kind::U8(0, 3),
                default: Some("3"),
                help: "what may be reported: 1 a panic, 2 one that another kernel deals with",
            },
        ],
        base: &[],
        create: Some(|props, ctx| {
            let port: u16 = props.get("ioport")?;
            let path = ctx.path(props);
            let device = PvPanic::new(&path, ctx.host.requests.clone(), props.get("events")?);
            let device = ctx.map_ports(port.into(), 1, device)?;
            ctx.aml.devices.extend(describe(port));
            Ok(device)
        }),
    };

    /// The port, which takes these events.
    pub fn new(name: &str, requests: Requests, events: u8) -> Arc<DeviceCell<PvPanic>> {
        DeviceCell::new(name, PvPanic { requests, events })
    }
}

/// AML of the device. Firmware of QEMU has the same, with methods for the port that no driver
/// calls any more.
fn describe(port: u16) -> Vec<u8> {
    let io = aml::IO::new(port, port, 1, 1);
    let resources = aml::ResourceTemplate::new(vec![&io]);
    let hid = aml::Name::new("_HID".into(), &"QEMU0001");
    let crs = aml::Name::new("_CRS".into(), &resources);
    let status = aml::Name::new("_STA".into(), &0xfu8);
    let mut out = Vec::new();
    aml::Device::new("PEVT".into(), vec![&hid, &crs, &status]).to_aml_bytes(&mut out);
    out
}

impl Device for PvPanic {
    fn read(&mut self, _: At, data: &mut [u8]) {
        if let Some(byte) = data.first_mut() {
            *byte = self.events;
        }
    }

    fn write(&mut self, _: At, data: &[u8]) {
        let Some(value) = data.first() else { return };
        match value & self.events {
            // The panic that a second kernel deals with is reported as that alone.
            events if events & CRASH_LOADED != 0 => self.requests.request(Request::CrashLoaded),
            events if events & PANICKED != 0 => self.requests.request(Request::Panicked),
            _ => guest_error!("pvpanic", "unknown event {value:#x}"),
        }
    }

    fn reset(&mut self) {}

    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &Empty {})
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        blob.parse::<Empty>(1, &[]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Requested, inb, outb};

    #[test]
    fn reports_what_it_may() {
        let requests = Arc::new(Requested::default());
        let cell = PvPanic::new("pvpanic", requests.clone(), 3);
        let mut device = cell.lock();
        assert_eq!(inb(&mut *device, 0), 3);
        for (value, expected) in [
            (0, None),
            (1, Some(Request::Panicked)),
            (2, Some(Request::CrashLoaded)),
            (3, Some(Request::CrashLoaded)),
            (0x80, None),
        ] {
            outb(&mut *device, 0, value);
            assert_eq!(requests.take(), Vec::from_iter(expected), "{value}");
        }
        let cell = PvPanic::new("pvpanic", requests.clone(), 1);
        let mut device = cell.lock();
        assert_eq!(inb(&mut *device, 0), 1);
        outb(&mut *device, 0, 2);
        assert_eq!(requests.take(), []);
        outb(&mut *device, 0, 3);
        assert_eq!(requests.take(), [Request::Panicked]);
    }

    #[test]
    fn the_guest_is_told_of_the_port() {
        let aml = describe(0x505);
        let has = |part: &[u8]| aml.windows(part.len()).any(|window| window == part);
        assert!(has(b"PEVT") && has(b"QEMU0001\0"));
        assert!(has(&[0x47, 1, 5, 5, 5, 5, 1, 1]));
    }
}
