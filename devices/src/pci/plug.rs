//! From a description to a function in its place.
//!
//! Main thread. Addresses are a user's or a client's; on an error nothing is left.

use std::sync::Arc;

use resources::class::CreateError;
use resources::device::{DeviceCell, DeviceRef};
use resources::hv::HvError;
use resources::irq::Routes;
use resources::props::{Kind, Prop, Props, Value};
use resources::space::Space;

use super::bar::{Bar, Decoder};
use super::bus::{Address, Bus, Place};
use super::config::{ConfigSpace, reg};
use super::function::{Core, Function, PciDevice};
use super::interrupt::Interrupt;
use super::msi::Msi;
use super::msix::Msix;
use crate::class::{Ctx, Seat};

/// The properties of every device on a PCI bus.
pub const PROPS: &[Prop] = &[
    Prop {
        name: "addr",
        kind: Kind::Devfn,
        default: None,
        help: "slot and function, for instance 05.0; by default the first slot that is free",
    },
    Prop {
        name: "multifunction",
        kind: Kind::Bool,
        default: Some("off"),
        help: "other functions may be in the same slot",
    },
    Prop {
        name: "romfile",
        kind: Kind::Str,
        default: None,
        help: "the file of its option ROM; it can have none, which is an empty name",
    },
    Prop {
        name: "rombar",
        kind: Kind::U32(0, u32::MAX),
        default: Some("1"),
        help: "0: an option ROM is not shown to the guest",
    },
];

/// What a function is, as its read-only registers tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Identity {
    /// Vendor and device.
    pub vendor: u16,
    /// See [`vendor`](Self::vendor).
    pub device: u16,
    /// Class and sub-class: 0x0200 is an Ethernet controller.
    pub class: u16,
    /// Programming interface.
    pub interface: u8,
    /// Revision.
    pub revision: u8,
    /// Vendor and id of the subsystem; a bridge has none.
    pub subsystem: (u16, u16),
    /// It is a bridge to another bus: header type 1.
    pub bridge: bool,
}

/// A capability of the function's own.
#[derive(Debug, Clone, Default)]
pub struct Capability {
    /// Its id.
    pub id: u8,
    /// What comes after id and link.
    pub body: Vec<u8>,
    /// Which bits of that a guest can write; none where it ends.
    pub writable: Vec<u8>,
}

/// How a function interrupts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Interrupts {
    /// Its pin, 0 to 3 for A to D.
    pub pin: Option<u8>,
    /// Messages by MSI-X, in a region of their own: how many, 1 to 2048, and which base address
    /// register.
    pub msix: Option<(u16, u8)>,
    /// Messages by MSI, if not by MSI-X: how many, a power of two up to 32.
    pub msi: Option<u16>,
}

/// Everything a function is made of.
#[derive(Clone, Default)]
pub struct Spec {
    /// What it is.
    pub identity: Identity,
    /// Its regions, but for that of MSI-X.
    pub bars: Vec<Bar>,
    /// How it interrupts.
    pub interrupts: Interrupts,
    /// What capabilities it has besides.
    pub capabilities: Vec<Capability>,
}

/// What the maker of a device is given.
pub struct Parts<'a> {
    /// Signals from any thread.
    pub interrupt: Arc<Interrupt>,
    /// Where the capabilities of [`Spec::capabilities`] are, in order.
    pub capabilities: Vec<usize>,
    /// The registers, for what no [`Spec`] says.
    pub config: &'a mut ConfigSpace,
    /// The device's stable path.
    pub path: &'a str,
    /// The bus, and the address on it.
    pub bus: &'a Arc<Bus>,
    /// See [`bus`](Self::bus).
    pub address: Address,
}

/// Where a function goes, and what it needs of the machine.
pub struct Site<'a> {
    /// The device's stable path.
    pub path: String,
    /// The name of its class, for messages.
    pub class: &'static str,
    /// The id that its user gave it.
    pub id: Option<String>,
    /// The bus, and the address on it.
    pub bus: Arc<Bus>,
    /// See [`bus`](Self::bus).
    pub address: Address,
    /// Other functions may be in the same slot.
    pub multifunction: bool,
    /// Guest-physical memory.
    pub memory: &'a Arc<Space>,
    /// I/O ports.
    pub ports: &'a Arc<Space>,
    /// Where messages come from.
    pub routes: &'a Arc<Routes>,
}

/// Makes a device with the properties [`PROPS`] on the bus that was chosen.
///
/// # Errors
/// The address is taken or cannot be had; `make`'s own; what the hypervisor refuses.
pub fn plug<D: PciDevice + 'static>(
    ctx: &mut Ctx,
    props: &mut Props,
    spec: Spec,
    make: impl FnOnce(Parts) -> Result<D, CreateError>,
) -> Result<Arc<DeviceCell<Function<D>>>, CreateError> {
    let Seat::Pci(bus) = ctx.seat.clone() else {
        return Err(CreateError::Other("there is no PCI bus".to_owned()));
    };
    let class = props.class();
    if props.get::<Option<&str>>("romfile")?.is_some_and(|file| !file.is_empty()) {
        let why = format!("{class} cannot have an option ROM: romfile must be empty");
        return Err(CreateError::Other(why));
    }
    let address = match props.get::<Option<u8>>("addr")? {
        Some(devfn) => Address::from_devfn(devfn),
        None => bus.free_slot(0).ok_or_else(|| {
            let all = "all in use or reserved";
            CreateError::Place(format!("PCI: no slot/function available for {class}, {all}"))
        })?,
    };
    let site = Site {
        path: ctx.path(props),
        class,
        id: props.id().map(str::to_owned),
        bus,
        address,
        multifunction: props.get("multifunction")?,
        memory: &ctx.memory,
        ports: &ctx.ports,
        routes: &ctx.routes,
    };
    let function = site.add(spec, make)?;
    props.fill("addr", Value::Uint(address.devfn().into()));
    Ok(function)
}

fn wrong(what: &str) -> CreateError {
    CreateError::Other(format!("PCI: {what}"))
}

fn refused(error: HvError) -> CreateError {
    CreateError::Other(error.to_string())
}

impl Site<'_> {
    /// Makes a function here.
    ///
    /// # Errors
    /// As [`plug`].
    pub fn add<D: PciDevice + 'static>(
        self,
        spec: Spec,
        make: impl FnOnce(Parts) -> Result<D, CreateError>,
    ) -> Result<Arc<DeviceCell<Function<D>>>, CreateError> {
        let Spec { identity, mut bars, interrupts, capabilities } = spec;
        self.bus.check(self.address, self.class, self.multifunction).map_err(CreateError::Place)?;
        let mut config = header(&identity, self.multifunction);
        let pin = interrupts.pin.map(|pin| {
            config.set_power_on(reg::INTERRUPT_PIN, &[(pin & 3).wrapping_add(1)]);
            config.set_writable(reg::INTERRUPT_LINE, &[0xff]);
            self.bus.pin(self.address, pin)
        });
        let messages = match interrupts {
            Interrupts { msix: Some((vectors, bar)), .. } => {
                bars.push(Msix::bar(bar, vectors).0);
                vectors
            }
            Interrupts { msi, .. } => msi.unwrap_or(0),
        };
        let interrupt = Interrupt::new(self.routes, messages, pin).map_err(refused)?;
        let full = || wrong("the capabilities do not fit");
        let msix = match interrupts.msix {
            Some((vectors, bar)) => {
                Some(Msix::new(&mut config, (bar, vectors), &interrupt).ok_or_else(full)?)
            }
            None => None,
        };
        let msi = match interrupts.msi.filter(|_| msix.is_none()) {
            Some(vectors) => Some(Msi::new(&mut config, vectors, &interrupt).ok_or_else(full)?),
            None => None,
        };
        if !bars.iter().all(|bar| bar.declare(&mut config)) {
            return Err(wrong("a base address register cannot be so"));
        }
        let mut offsets = Vec::new();
        for Capability { id, body, writable } in &capabilities {
            offsets.push(config.add_capability(*id, body, writable).ok_or_else(full)?);
        }
        let device = make(Parts {
            interrupt: interrupt.clone(),
            capabilities: offsets,
            config: &mut config,
            path: &self.path,
            bus: &self.bus,
            address: self.address,
        })?;
        let decoder = Decoder::new(self.memory, self.ports, &self.bus);
        let (bus, address) = (self.bus.clone(), self.address);
        let core = Core {
            config,
            bars: bars.clone(),
            decoder: decoder.clone(),
            interrupt,
            msix,
            msi,
            bus,
            address,
        };
        let cell = DeviceCell::new(&self.path, Function { core, device });
        let device: DeviceRef = cell.clone();
        decoder.map(&device, &bars)?;
        let weak = Arc::downgrade(&cell);
        let inspect = move || Some(weak.upgrade()?.lock().core.inspect());
        let place = Place {
            device: Arc::downgrade(&device),
            decoder,
            class: self.class,
            id: self.id,
            multifunction: self.multifunction,
            inspect: Arc::new(inspect),
        };
        self.bus.insert(self.address, &place);
        cell.lock().device_mut().placed(&Arc::downgrade(&cell));
        Ok(cell)
    }
}

/// The standard registers.
fn header(identity: &Identity, multifunction: bool) -> ConfigSpace {
    let mut config = ConfigSpace::default();
    config.set_power_on(reg::VENDOR, &identity.vendor.to_le_bytes());
    config.set_power_on(reg::DEVICE, &identity.device.to_le_bytes());
    config.set_power_on(reg::REVISION, &[identity.revision, identity.interface]);
    config.set_power_on(reg::CLASS, &identity.class.to_le_bytes());
    let shared = if multifunction { reg::MULTIFUNCTION } else { 0 };
    config.set_power_on(reg::HEADER_TYPE, &[u8::from(identity.bridge) | shared]);
    if !identity.bridge {
        let (vendor, id) = identity.subsystem;
        config.set_power_on(reg::SUBSYSTEM_VENDOR, &vendor.to_le_bytes());
        config.set_power_on(reg::SUBSYSTEM, &id.to_le_bytes());
    }
    let command = reg::COMMAND_IO
        | reg::COMMAND_MEMORY
        | reg::COMMAND_MASTER
        | reg::COMMAND_PARITY
        | reg::COMMAND_SERR
        | reg::COMMAND_INTX_OFF;
    config.set_writable(reg::COMMAND, &command.to_le_bytes());
    config.set_clearable(reg::STATUS, &reg::STATUS_ERRORS.to_le_bytes());
    config.set_writable(reg::CACHE_LINE, &[0xff]);
    config
}
