//! What is plugged where: the devices of a board with their classes and properties, and the buses
//! they sit on.
//!
//! Main thread, no lock. A client reaches it by device_add and device_del, and by the names in it.

use std::ops::Deref;
use std::sync::Arc;

use devices::class::{Ctx, Hotplug, NewBus, Seat};
use resources::class::Class;
use resources::device::{Device, DeviceCell, DeviceRef};
use resources::props::{Overrides, Props};

use super::Board;

/// The bus that everything hangs from.
pub const SYSTEM_BUS: &str = "main-system-bus";

/// A device in its place.
#[derive(Clone)]
pub struct Plugged {
    /// The device; its name is its path among the objects.
    pub device: DeviceRef,
    /// What it is.
    pub class: &'static Class<Ctx>,
    /// What it was told when it was made, completed by what it chose.
    pub props: Props,
    /// The name of the bus it sits on.
    pub bus: String,
    /// Whether it came after the machine was made.
    pub hotplugged: bool,
}

impl Deref for Plugged {
    type Target = DeviceCell;

    fn deref(&self) -> &DeviceCell {
        &self.device
    }
}

impl Plugged {
    /// The id its user gave it.
    pub fn id(&self) -> Option<&str> {
        self.props.id()
    }
}

/// A device of which nothing is known, for tests.
impl<D: Device + 'static> From<Arc<DeviceCell<D>>> for Plugged {
    fn from(device: Arc<DeviceCell<D>>) -> Plugged {
        static PART: Class<Ctx> = Class::part("part", "System", "A part of the board");
        Plugged::part(device, &PART, SYSTEM_BUS)
    }
}

impl Plugged {
    /// A part of the board, without properties.
    pub fn part(device: DeviceRef, class: &'static Class<Ctx>, bus: &str) -> Plugged {
        // A table whose defaults are wrong fails its test; here they would be missing.
        let props =
            class.props(&Overrides::default(), []).unwrap_or_else(|_| Props::none(class.name));
        Plugged { device, class, props, bus: bus.to_owned(), hotplugged: false }
    }
}

/// Something that devices sit on.
pub struct Bus {
    /// Its name, which no other bus has: `isa.0`.
    pub name: String,
    /// The name of its type: `ISA`. A device's class says which one it needs.
    pub kind: &'static str,
    /// The path of the device it belongs to; none for [`SYSTEM_BUS`].
    pub owner: Option<String>,
    /// What its devices are given of it.
    pub seat: Seat,
    /// The most devices it takes.
    pub room: usize,
    /// How devices come and go while the machine exists; without it they do not.
    pub hotplug: Option<Box<dyn Hotplug>>,
}

impl Bus {
    /// A bus for any number of devices, that are there from the start.
    pub fn new(name: &str, kind: &'static str, owner: Option<&str>) -> Bus {
        let owner = owner.map(str::to_owned);
        Bus {
            name: name.to_owned(),
            kind,
            owner,
            seat: Seat::None,
            room: usize::MAX,
            hotplug: None,
        }
    }

    /// The bus that the device at path `owner` brought.
    pub fn of_device(new: NewBus, owner: &str) -> Bus {
        let NewBus { name, kind, seat, room, hotplug } = new;
        Bus { name, kind, owner: Some(owner.to_owned()), seat, room, hotplug }
    }

    /// Its path among the objects.
    pub fn path(&self) -> String {
        match &self.owner {
            Some(owner) => format!("{owner}/{}", self.name),
            None => "/machine/unattached/sysbus".to_owned(),
        }
    }
}

impl Board {
    /// A bus by its name.
    pub fn bus(&self, name: &str) -> Option<&Bus> {
        self.buses.iter().find(|bus| bus.name == name)
    }

    /// The devices on a bus, in plug order.
    pub fn on_bus<'a>(&'a self, bus: &'a str) -> impl DoubleEndedIterator<Item = &'a Plugged> {
        self.devices.iter().filter(move |device| device.bus == bus)
    }

    /// The buses of a device, in the order they were made.
    pub fn buses_of<'a>(&'a self, device: &'a str) -> impl DoubleEndedIterator<Item = &'a Bus> {
        self.buses.iter().filter(move |bus| bus.owner.as_deref() == Some(device))
    }

    /// Whether a bus takes no more devices.
    pub fn is_full(&self, bus: &Bus) -> bool {
        self.on_bus(&bus.name).count() >= bus.room
    }
}
