//! The host bridge's function 00.0, an Intel 82441FX (i440FX): what the memory from 768 KiB to
//! 1 MiB shows.
//!
//! Registers PAM0 to PAM6 (0x59 to 0x5f) have four bits for each of 13 segments, of which bit 0
//! says that reads come from RAM and bit 1 that writes go there. Written only while not read, a
//! segment shows what is behind RAM, as with QEMU.
//!
//! Configuration writes on vCPU threads, under the function's mutex. A hostile guest can show and
//! hide its own RAM.

use std::ops::Range;
use std::sync::Arc;

use resources::class::{Class, CreateError};
use resources::device::DeviceCell;
use resources::ram::RamBlock;
use resources::space::{MapId, Mapping, Space, SpaceError, Target};

use super::INTEL;
use super::bus::Address;
use super::config::ConfigSpace;
use super::function::{Function, PciDevice};
use super::plug::{Identity, Site, Spec};
use crate::class::Ctx;

/// Where it is.
pub const ADDRESS: Address = Address::new(0, 0);
/// The memory whose segments it shows or hides, which is to show no RAM but for it.
pub const SEGMENTS: Range<u64> = 0xc_0000..0x10_0000;

const PAM0: usize = 0x59;
const PAM_REGISTERS: usize = 7;
/// Above firmware.
const PRIORITY: i8 = 2;
/// Attributes of a segment: reads come from RAM, and writes go there.
const READ: u8 = 1;
const WRITE: u8 = 2;

/// The device.
pub struct I440fx {
    memory: Arc<Space>,
    segments: Vec<Segment>,
}

struct Segment {
    base: u64,
    register: usize,
    /// The attributes are in the upper half of the register.
    upper: bool,
    writable: MapId,
    readonly: MapId,
}

/// Base, size, register and half of each segment.
fn segments() -> impl Iterator<Item = (u64, u64, usize, bool)> {
    let small = (0usize..12).map(|index| {
        let base = 0xc_0000u64.wrapping_add((index as u64) << 14);
        (base, 0x4000, PAM0.wrapping_add(1).wrapping_add(index >> 1), index & 1 != 0)
    });
    std::iter::once((0xf_0000, 0x1_0000, PAM0, true)).chain(small)
}

impl I440fx {
    /// What it is among the devices of a machine.
    pub const CLASS: Class<Ctx> = Class::part("i440FX", "PCI", "Host bridge");

    /// The bridge, with RAM that begins at address 0. `shown`: all segments show RAM from the
    /// start, as firmware would have it.
    ///
    /// # Errors
    /// When the hypervisor refuses a mapping.
    pub fn add(
        site: Site,
        ram: &Arc<RamBlock>,
        shown: bool,
    ) -> Result<Arc<DeviceCell<Function<I440fx>>>, CreateError> {
        let memory = site.memory.clone();
        let identity = Identity {
            vendor: INTEL,
            device: 0x1237,
            class: 0x0600,
            revision: 2,
            ..Identity::default()
        };
        site.add(Spec { identity, ..Spec::default() }, |parts| {
            let attributes = if shown { (READ | WRITE) << 4 | READ | WRITE } else { 0 };
            let mut power_on = [attributes; PAM_REGISTERS];
            let mut writable = [0x33; PAM_REGISTERS];
            // The lower half of the first register has no segment.
            let ([power_on_0, ..], [writable_0, ..]) = (&mut power_on, &mut writable);
            *power_on_0 &= 0xf0;
            *writable_0 &= 0xf0;
            parts.config.set_power_on(PAM0, &power_on);
            parts.config.set_writable(PAM0, &writable);
            let map = |base, size, readonly| {
                memory.map(Mapping {
                    base,
                    size,
                    priority: PRIORITY,
                    target: Target::Ram { block: ram.clone(), offset: base, readonly },
                    bells: Vec::new(),
                    enabled: false,
                })
            };
            let inside = |base: u64, size: u64| base.saturating_add(size) <= ram.size();
            let segments = segments().filter(|(base, size, ..)| inside(*base, *size)).map(
                |(base, size, register, upper)| {
                    let (writable, readonly) = (map(base, size, false)?, map(base, size, true)?);
                    Ok(Segment { base, register, upper, writable, readonly })
                },
            );
            let segments = segments.collect::<Result<_, SpaceError>>()?;
            let bridge = I440fx { memory: memory.clone(), segments };
            bridge.show(parts.config);
            Ok(bridge)
        })
    }

    fn show(&self, config: &ConfigSpace) {
        let done = self.memory.together(|| {
            self.segments.iter().try_for_each(|segment| {
                let register = config.u8(segment.register);
                let attributes = if segment.upper { register >> 4 } else { register };
                let (writable, readonly) = match attributes & (READ | WRITE) {
                    READ => (false, true),
                    attributes => (attributes == READ | WRITE, false),
                };
                self.memory.place(segment.writable, segment.base, writable)?;
                self.memory.place(segment.readonly, segment.base, readonly)
            })
        });
        if let Err(error) = done.flatten() {
            resources::guest_error!("i440fx", "the memory from 768 KiB to 1 MiB: {error}");
        }
    }
}

config_only!(I440fx);

impl PciDevice for I440fx {
    fn config_written(&mut self, config: &mut ConfigSpace, at: Range<usize>) {
        if at.start < PAM0.wrapping_add(PAM_REGISTERS) && PAM0 < at.end {
            self.show(config);
        }
    }

    fn config_replaced(&mut self, config: &ConfigSpace, _: bool) {
        self.show(config);
    }
}
