//! The devices that can be made by name: by `-device`, later by device_add.
//!
//! A device's file exports its [`Class`]; a row of [`CLASSES`] makes it known. That is all that
//! adding a device takes.
//!
//! The machine makes devices on the main thread before anything runs; no lock of its own. Names
//! and properties come from the command line or a monitor's client.

use std::any::Any;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use block::Drive;
use parking_lot::Mutex;
use resources::class::{Class, CreateError};
use resources::clock::Clock;
use resources::device::{DeviceCell, DeviceRef};
use resources::iol::Handle;
use resources::irq::{Irq, Routes, Wire};
use resources::props::{PropError, Props};
use resources::ram::GuestMemory;
use resources::request::Requests;
use resources::space::{Mapping, Space};

use crate::acpi::cpu::CpuHotplug;
use crate::acpi::gpe::Gpe;
use crate::acpi::pm::Pm;
use crate::acpi::vmgenid::GenerationId;
use crate::chardev::{CharError, Chardev};
use crate::entropy::Entropy;
use crate::isa::debug::{DebugCon, DebugExit, PostCode};
use crate::isa::i8042::I8042;
use crate::isa::ib700::Ib700;
use crate::isa::port92::Port92;
use crate::isa::pvpanic::PvPanic;
use crate::isa::reset_control::ResetControl;
use crate::isa::rtc::Rtc;
use crate::isa::serial::Serial;
use crate::net::{Netdev, Network};
use crate::pci;
use crate::scsi::{ScsiBus, ScsiDevice};
use crate::virtio::balloon::{self, VirtioBalloon};
use crate::virtio::blk::Blk;
use crate::virtio::net::VirtioNet;
use crate::virtio::rng::Rng;
use crate::virtio::scsi::Scsi;
use crate::virtio::serial::{SerialBus, SerialPort, VirtioSerial};
use crate::virtio::vsock::Vsock;

/// Every class.
pub static CLASSES: &[Class<Ctx>] = &[
    Serial::CLASS,
    DebugCon::CLASS,
    DebugExit::CLASS,
    pci::host::Host::CLASS,
    pci::i440fx::I440fx::CLASS,
    pci::piix::Piix3::CLASS,
    pci::piix::Piix4Pm::CLASS,
    pci::bridge::Bridge::CLASS,
    pci::i6300esb::I6300esb::CLASS,
    I8042::CLASS,
    Rtc::CLASS,
    Port92::CLASS,
    Pm::CLASS,
    crate::acpi::pci_hotplug::PciHotplug::CLASS,
    CpuHotplug::CLASS,
    PostCode::CLASS,
    ResetControl::CLASS,
    VirtioNet::CLASS,
    VirtioSerial::CLASS,
    SerialPort::CONSOLE,
    SerialPort::STREAM,
    Scsi::CLASS,
    ScsiDevice::HD,
    ScsiDevice::CD,
    Ib700::CLASS,
    PvPanic::CLASS,
    Rng::CLASS,
    Blk::CLASS,
    GenerationId::CLASS,
    VirtioBalloon::CLASS,
    Vsock::CLASS,
];

/// What a device is given of the machine.
pub struct Ctx {
    /// Guest-physical memory, to map registers into.
    pub memory: Arc<Space>,
    /// I/O ports.
    pub ports: Arc<Space>,
    /// Guest RAM, for devices that read and write it themselves.
    pub ram: GuestMemory,
    /// The wired interrupts by number.
    pub wires: Vec<Arc<Wire>>,
    /// Where message-signalled interrupts come from.
    pub routes: Arc<Routes>,
    /// Virtual time.
    pub clock: Arc<Clock>,
    /// The place for the one balloon that a machine can have.
    pub balloon: Arc<balloon::Slot>,
    /// What else there is by name.
    pub host: Host,
    /// The bus that was chosen.
    pub seat: Seat,
    /// The buses that the new device brings: the board takes them with it.
    pub new_buses: Vec<NewBus>,
    /// The general purpose events of ACPI, where a guest knows them from tables that are ours.
    pub gpe: Option<Arc<Gpe>>,
    /// The classes of the devices that there are.
    pub present: Vec<&'static str>,
    /// What the ACPI tables are to say of the new device.
    pub aml: Described,
    /// How many serial ports there are.
    pub serials: u32,
    /// How many devices without an id were made.
    pub anonymous: u32,
}

/// What the ACPI tables say of a device. They are read when the guest starts: a device that comes
/// later is made known by the bus that it comes to.
#[derive(Clone, Debug, Default)]
pub struct Described {
    /// AML for scope `\_SB`.
    pub devices: Vec<u8>,
    /// AML for scope `\_GPE`.
    pub events: Vec<u8>,
}

/// What devices stand on: the host side of the machine.
#[derive(Clone)]
pub struct Host {
    /// The machine's mailbox.
    pub requests: Requests,
    /// The loop that serves devices, unless they are given another.
    pub io: Handle,
    /// Finds a chardev by its id; a shared one is given to each caller anew.
    pub chardevs: FindChardev,
    /// Sources of random bytes by id; in use while a device keeps one.
    pub rngs: BTreeMap<String, Arc<dyn Entropy>>,
    /// I/O threads by id.
    pub iothreads: BTreeMap<String, IoThread>,
    /// Drives by id; in use while a device has one.
    pub drives: BTreeMap<String, Arc<Drive>>,
    /// The network: back ends by id, and where NICs are plugged in.
    pub network: Arc<Network>,
    /// Descriptors by what properties call them; whose property it is takes its own out.
    pub fds: Arc<Mutex<BTreeMap<String, OwnedFd>>>,
}

impl Host {
    /// A mailbox and a loop, and nothing that has a name.
    pub fn new(requests: Requests, io: Handle) -> Host {
        Host {
            requests,
            io,
            chardevs: Arc::new(|_| None),
            rngs: BTreeMap::new(),
            iothreads: BTreeMap::new(),
            drives: BTreeMap::new(),
            network: Network::new(),
            fds: Arc::default(),
        }
    }

    /// The descriptor that a property names.
    ///
    /// # Errors
    /// When nobody has given it.
    pub fn take_fd(&self, name: &str) -> Result<OwnedFd, String> {
        let none = || format!("there is no descriptor '{name}'");
        self.fds.lock().remove(name).ok_or_else(none)
    }
}

/// A thread that a device can be served on, which is in use while this is kept.
#[derive(Clone)]
pub struct IoThread {
    /// Its loop.
    pub handle: Handle,
    /// What keeps it.
    pub hold: Arc<dyn Any + Send + Sync>,
}

/// See [`Host::chardevs`].
pub type FindChardev = Arc<dyn Fn(&str) -> Option<Result<Arc<Chardev>, CharError>> + Send + Sync>;

/// The bus that a device goes on, as its makers need it: a row for each type of bus whose devices
/// talk to it.
#[derive(Clone, Default)]
pub enum Seat {
    /// A bus that its devices need not know.
    #[default]
    None,
    /// A PCI bus.
    Pci(Arc<pci::Bus>),
    /// The ports of a virtio-serial device.
    VirtioSerial(Arc<SerialBus>),
    /// A SCSI bus.
    Scsi(Arc<ScsiBus>),
}

/// A bus that comes with a device.
pub struct NewBus {
    /// Its name, which no other bus may have; empty for one made of its type and a number.
    pub name: String,
    /// The name of its type, which classes name in [`Class::bus`].
    pub kind: &'static str,
    /// What its devices are given of it.
    pub seat: Seat,
    /// The most devices it takes.
    pub room: usize,
    /// How devices come and go while the machine exists; without it they do not.
    pub hotplug: Option<Box<dyn Hotplug>>,
}

/// How devices come to a bus and leave it while the machine exists.
pub trait Hotplug: Send {
    /// A device has been added: tells the guest, if it has to be told.
    fn plugged(&mut self, device: &DeviceRef);
    /// The user wants a device to go.
    ///
    /// # Errors
    /// Why it cannot, in QEMU's words.
    fn unplug(&mut self, device: &DeviceRef) -> Result<Unplug, String>;
}

/// On a bus that tells the guest itself when a device is made: they come and go without being asked.
pub struct AtOnce;

impl Hotplug for AtOnce {
    fn plugged(&mut self, _: &DeviceRef) {}

    fn unplug(&mut self, _: &DeviceRef) -> Result<Unplug, String> {
        Ok(Unplug::Now)
    }
}

/// What becomes of a device that is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unplug {
    /// It goes at once.
    Now,
    /// The guest was asked to let it go.
    Asked,
}

impl Ctx {
    /// The stable path of a new device: of its id, or of its number.
    pub fn path(&mut self, props: &Props) -> String {
        let path = self.next_path(props);
        if props.id().is_none() {
            self.anonymous = self.anonymous.saturating_add(1);
        }
        path
    }

    /// What [`path`](Self::path) will say.
    pub fn next_path(&self, props: &Props) -> String {
        match props.id() {
            Some(id) => format!("/machine/peripheral/{id}"),
            None => format!("/machine/peripheral-anon/device[{}]", self.anonymous),
        }
    }

    /// A line to a wired interrupt.
    ///
    /// # Errors
    /// When the machine has no such interrupt.
    pub fn irq(&self, number: u32) -> Result<Irq, CreateError> {
        let wire = usize::try_from(number).ok().and_then(|number| self.wires.get(number));
        wire.map(Wire::line).ok_or_else(|| CreateError::Other(format!("there is no IRQ {number}")))
    }

    /// The chardev that a property names, free for a front end.
    ///
    /// # Errors
    /// `missing` if the property is not given; when there is no such chardev; when it has a front
    /// end.
    pub fn chardev(
        &self,
        props: &Props,
        name: &'static str,
        missing: &str,
    ) -> Result<Arc<Chardev>, CreateError> {
        let Some(id) = props.get::<Option<&str>>(name)? else {
            return Err(CreateError::Other(missing.to_owned()));
        };
        let (class, value) = (props.class(), id.to_owned());
        match (self.host.chardevs)(id) {
            None => Err(PropError::NoSuch { class, name, value }.into()),
            Some(Ok(chardev)) if !chardev.is_used() => Ok(chardev),
            Some(Ok(_) | Err(CharError::InUse(_))) => {
                Err(PropError::InUse { class, name, value }.into())
            }
            Some(Err(error)) => Err(CreateError::Other(error.to_string())),
        }
    }

    /// The drive that a property names, free for a device: one that no device has, or one whose
    /// devices share it as this one does (`share-rw`).
    ///
    /// # Errors
    /// When it is not given; when there is no such drive; when it has a device.
    pub fn drive(&self, props: &Props, name: &'static str) -> Result<Arc<Drive>, CreateError> {
        let id: &str = props.get(name)?;
        let (class, value) = (props.class(), id.to_owned());
        let share: bool = props.get("share-rw")?;
        let taken = |drive: &Drive| drive.is_attached() && !(share && drive.is_shared());
        match self.host.drives.get(id) {
            None => Err(PropError::NoSuch { class, name, value }.into()),
            Some(drive) if taken(drive) || drive.in_use() => {
                Err(PropError::InUse { class, name, value }.into())
            }
            Some(drive) => Ok(drive.clone()),
        }
    }

    /// The I/O thread that a property names; `None` if it names none.
    ///
    /// # Errors
    /// When there is no such thread.
    pub fn iothread(
        &self,
        props: &Props,
        name: &'static str,
    ) -> Result<Option<IoThread>, CreateError> {
        let Some(id) = props.get::<Option<&str>>(name)? else { return Ok(None) };
        let (class, value) = (props.class(), id.to_owned());
        match self.host.iothreads.get(id) {
            None => Err(PropError::NoSuch { class, name, value }.into()),
            Some(thread) => Ok(Some(thread.clone())),
        }
    }

    /// The netdev that a property names, free for a NIC; `None` if it names none.
    ///
    /// # Errors
    /// When there is no such netdev; when it has a NIC.
    pub fn netdev(
        &self,
        props: &Props,
        name: &'static str,
    ) -> Result<Option<Arc<Netdev>>, CreateError> {
        let Some(id) = props.get::<Option<&str>>(name)? else { return Ok(None) };
        let (class, value) = (props.class(), id.to_owned());
        match self.host.network.find(id) {
            None => Err(PropError::NoSuch { class, name, value }.into()),
            Some(netdev) if netdev.is_used() => Err(PropError::InUse { class, name, value }.into()),
            Some(netdev) => Ok(Some(netdev)),
        }
    }

    /// Maps region 0 of a device at I/O ports, above what is there already.
    ///
    /// # Errors
    /// When they do not fit the 64 KiB of ports.
    pub fn map_ports<D>(
        &self,
        base: u64,
        size: u64,
        device: Arc<DeviceCell<D>>,
    ) -> Result<DeviceRef, CreateError>
    where
        D: resources::device::Device + 'static,
    {
        let device: DeviceRef = device;
        self.ports.map(Mapping::device(base, size, device.clone(), 0))?;
        Ok(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chardev::{Backend, Null};
    use crate::testing::Requested;
    use resources::hv::SpaceKind;
    use resources::hv::fake::Fake;
    use resources::iol::Loop;
    use resources::props::Overrides;
    use resources::request::Request;

    struct Rig {
        ctx: Ctx,
        fake: Arc<Fake>,
        requests: Arc<Requested>,
        chardev: Arc<Chardev>,
        _loop: Loop,
    }

    impl Rig {
        fn new() -> Rig {
            let fake = Fake::unrecorded();
            let requests = Arc::new(Requested::default());
            let the_loop = Loop::new("test").unwrap();
            let chardev = Chardev::open("c0", Backend::Null(Null), &the_loop.handle()).unwrap();
            let known = chardev.clone();
            let ctx = Ctx {
                memory: Space::new(SpaceKind::Memory, fake.clone()),
                ports: Space::new(SpaceKind::Ports, fake.clone()),
                ram: GuestMemory::default(),
                balloon: Arc::default(),
                wires: (0..16).map(|gsi| Wire::new(gsi, fake.clone())).collect(),
                routes: Routes::new(fake.clone(), 24),
                clock: Clock::new(),
                host: Host {
                    chardevs: Arc::new(move |id| (id == "c0").then(|| Ok(known.clone()))),
                    ..Host::new(requests.clone(), the_loop.handle())
                },
                seat: Seat::None,
                new_buses: Vec::new(),
                gpe: None,
                present: Vec::new(),
                aml: Described::default(),
                serials: 0,
                anonymous: 0,
            };
            Rig { ctx, fake, requests, chardev, _loop: the_loop }
        }

        fn make(&mut self, name: &str, given: &[(&str, &str)]) -> Result<DeviceRef, String> {
            let class = Class::find(CLASSES, name).map_err(|error| error.to_string())?;
            class
                .create(&Overrides::default(), given.iter().copied(), &mut self.ctx)
                .map(|(device, _)| device)
                .map_err(|error| error.to_string())
        }

        fn inb(&self, port: u64) -> u8 {
            let mut data = [0];
            self.ctx.ports.read(port, &mut data);
            data[0]
        }
    }

    #[test]
    fn the_table_is_right() {
        assert_eq!(Class::check(CLASSES), Ok(()));
    }

    #[test]
    fn a_serial_port_by_index() {
        let mut rig = Rig::new();
        let device = rig.make("isa-serial", &[("chardev", "c0"), ("id", "s"), ("index", "1")]);
        let device = device.unwrap();
        assert_eq!(device.name(), "/machine/peripheral/s");
        device.lock().start();
        assert!(rig.chardev.is_used());
        assert_eq!(rig.inb(0x2fd), 0x60);
        // The transmitter is empty: the interrupt comes as soon as it is enabled.
        rig.ctx.ports.write(0x2f9, &[2]);
        assert!(rig.fake.line(3));
        assert_eq!(rig.ctx.serials, 1);
    }

    #[test]
    fn a_serial_port_is_refused() {
        let mut rig = Rig::new();
        let mut error = |given: &[(&str, &str)]| rig.make("isa-serial", given).err().unwrap();
        assert_eq!(error(&[]), "Can't create serial device, empty char device");
        assert_eq!(
            error(&[("chardev", "c1")]),
            "Property 'isa-serial.chardev' can't find value 'c1'"
        );
        assert_eq!(
            error(&[("chardev", "c0"), ("index", "4")]),
            "Max. supported number of ISA serial ports is 4."
        );
        assert_eq!(
            error(&[("chardev", "c0"), ("iobase", "0xfff9")]),
            "range 0xfff9+0x8 does not fit the address space"
        );
        assert!(!rig.chardev.is_used());
        assert!(rig.make("isa-serial", &[("chardev", "c0")]).is_ok());
        let error = rig.make("isa-serial", &[("chardev", "c0")]).err().unwrap();
        assert_eq!(error, "Property 'isa-serial.chardev' can't take value 'c0', it's in use");
    }

    #[test]
    fn debug_ports() {
        let mut rig = Rig::new();
        let con = rig.make("isa-debugcon", &[("chardev", "c0"), ("readback", "0x42")]).unwrap();
        assert_eq!(con.name(), "/machine/peripheral-anon/device[0]");
        assert_eq!(rig.inb(0xe9), 0x42);
        assert!(rig.chardev.is_used());
        rig.make("isa-debug-exit", &[("iobase", "0xf4"), ("iosize", "4")]).unwrap();
        rig.ctx.ports.write(0xf4, &[3, 0, 0, 0]);
        assert_eq!(rig.requests.take(), [Request::Exit(7)]);
    }
}
