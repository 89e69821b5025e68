//! `pci-bridge`: a bridge to another PCI bus (PCI-to-PCI Bridge Architecture Specification 1.2).
//!
//! What its windows do not let through is not mapped; accesses from behind to memory are not
//! held back. Devices come to the bus behind it and leave it by ACPI, if the bridge was there from
//! the start: see [`crate::acpi::pci_hotplug`].
//!
//! Configuration writes on vCPU threads, under the function's mutex; they map what is behind anew
//! without the mutexes of the functions there. A hostile guest can hide its own devices.

use std::ops::Range;
use std::sync::Arc;

use resources::class::{Class, CreateError};
use resources::device::DeviceRef;
use resources::props::{Kind, Prop, Props};

use super::config::reg::{self, bridge};
use super::inspect::BridgeInfo;
use super::{Bus, ConfigSpace, Identity, PROPS, PciDevice, Spec, Windows, plug};
use crate::class::{Ctx, NewBus, Seat};

/// Red Hat's number among vendors, and the bridge's among its devices.
const VENDOR: u16 = 0x1b36;
const DEVICE: u16 = 0x0001;

/// In the registers of the prefetchable window: addresses of 64 bits.
const WIDE: u8 = 1;

/// The device.
pub struct Bridge {
    behind: Arc<Bus>,
}

impl Bridge {
    /// How one is made by name.
    pub const CLASS: Class<Ctx> = Class {
        name: "pci-bridge",
        aliases: &[],
        bus: "PCI",
        description: "Standard PCI Bridge",
        props: &[Prop {
            name: "chassis_nr",
            kind: Kind::U8(0, u8::MAX),
            default: Some("0"),
            help: "number of the chassis, different for each bridge; not 0",
        }],
        base: PROPS,
        create: Some(create),
    };
}

fn create(props: &mut Props, ctx: &mut Ctx) -> Result<DeviceRef, CreateError> {
    if props.get::<u8>("chassis_nr")? == 0 {
        let why = "Bridge chassis not specified. Each bridge is required to be assigned a unique \
                   chassis id > 0.";
        return Err(CreateError::Other(why.to_owned()));
    }
    let name = match props.id() {
        Some(id) => id.to_owned(),
        None => format!("pci.{}", ctx.anonymous.saturating_add(1)),
    };
    let identity = Identity {
        vendor: VENDOR,
        device: DEVICE,
        class: 0x0604,
        bridge: true,
        ..Identity::default()
    };
    let mut behind = None;
    let function = plug(ctx, props, Spec { identity, ..Spec::default() }, |parts| {
        registers(parts.config);
        let bus = Bus::behind(&name, parts.bus, parts.address);
        behind = Some(bus.clone());
        Ok(Bridge { behind: bus })
    })?;
    if let Some(behind) = behind {
        ctx.new_buses.push(NewBus {
            name,
            kind: "PCI",
            seat: Seat::Pci(behind),
            room: usize::MAX,
            hotplug: None,
        });
    }
    Ok(function)
}

fn registers(config: &mut ConfigSpace) {
    for number in [bridge::PRIMARY, bridge::SECONDARY, bridge::SUBORDINATE] {
        config.set_writable(number, &[0xff]);
    }
    config.set_writable(bridge::SECONDARY_LATENCY, &[0xff]);
    config.set_writable(bridge::IO_BASE, &[0xf0, 0xf0]);
    config.set_clearable(bridge::SECONDARY_STATUS, &reg::STATUS_ERRORS.to_le_bytes());
    config.set_writable(bridge::MEMORY_BASE, &[0xf0, 0xff, 0xf0, 0xff]);
    config.set_power_on(bridge::PREFETCH_BASE, &[WIDE, 0, WIDE, 0]);
    config.set_writable(bridge::PREFETCH_BASE, &[0xf0, 0xff, 0xf0, 0xff]);
    config.set_writable(bridge::PREFETCH_BASE_UPPER, &[0xff; 8]);
    // Parity, system errors, ISA, VGA and the way of master aborts.
    config.set_writable(bridge::CONTROL, &[0x3f]);
    config.set_writable(reg::INTERRUPT_LINE, &[0xff]);
}

/// What a bridge with these registers lets through.
fn windows(config: &ConfigSpace) -> Windows {
    let info = BridgeInfo::of(config);
    let command = config.u16(reg::COMMAND);
    let open = |window: (u64, u64), on: u16| {
        Some(window).filter(|(first, last)| command & on != 0 && first <= last)
    };
    Windows {
        io: open(info.io, reg::COMMAND_IO),
        memory: open(info.memory, reg::COMMAND_MEMORY),
        prefetch: open(info.prefetch, reg::COMMAND_MEMORY),
    }
}

impl Bridge {
    fn follow(&self, config: &ConfigSpace) {
        let (secondary, subordinate) =
            (config.u8(bridge::SECONDARY), config.u8(bridge::SUBORDINATE));
        self.behind.configure(secondary, subordinate, windows(config));
    }
}

config_only!(Bridge);

impl PciDevice for Bridge {
    fn config_written(&mut self, config: &mut ConfigSpace, _: Range<usize>) {
        self.follow(config);
    }

    fn config_replaced(&mut self, config: &ConfigSpace, _: bool) {
        self.follow(config);
    }
}
