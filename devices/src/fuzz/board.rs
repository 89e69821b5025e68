//! Devices made by name on a PCI bus that has nothing else, for fuzzing and for tests.
//!
//! One thread makes and drives them; one loop serves them all.

use std::sync::{Arc, OnceLock};

use block::{Drive, Spec};
use resources::class::{Class, Create, CreateError};
use resources::clock::Clock;
use resources::device::{DeviceCell, DeviceRef};
use resources::hv::SpaceKind;
use resources::hv::fake::Fake;
use resources::iol::{Handle, Thread};
use resources::irq::{Routes, Wire};
use resources::props::Overrides;
use resources::ram::GuestMemory;
use resources::request::Requests;
use resources::space::Space;

use crate::class::{CLASSES, Ctx, Host, Seat};
use crate::pci::{Address, Bus, Function, Links, Site};

/// Bytes of a drive.
const DRIVE: u64 = 1 << 20;

/// A class and its properties.
pub(super) type Given<'a> = (&'a str, &'a [(&'a str, &'a str)]);

/// The loop that serves all of them.
fn io() -> Option<Handle> {
    static IO: OnceLock<Option<(Thread, Handle)>> = OnceLock::new();
    let io = IO.get_or_init(|| Thread::spawn("fuzz").ok());
    io.as_ref().map(|(_, handle)| handle.clone())
}

/// What a device is made with: RAM, an empty bus.
pub(crate) struct Board {
    pub(crate) ctx: Ctx,
    pub(crate) bus: Arc<Bus>,
    pub(crate) links: Arc<Links>,
}

impl Board {
    /// One with this RAM, which lives by `clock`.
    pub(crate) fn new(
        clock: &Arc<Clock>,
        requests: Requests,
        ram: GuestMemory,
    ) -> Result<Board, String> {
        let fake = Fake::unrecorded();
        let wires: Vec<_> = (0..24).map(|gsi| Wire::new(gsi, fake.clone())).collect();
        let links = Links::new(&wires);
        let bus = Bus::root("pci.0", &links);
        let ctx = Ctx {
            memory: Space::new(SpaceKind::Memory, fake.clone()),
            ports: Space::new(SpaceKind::Ports, fake.clone()),
            ram,
            balloon: Arc::default(),
            wires,
            routes: Routes::new(fake, 24),
            clock: clock.clone(),
            host: Host::new(requests, io().ok_or("no loop")?),
            seat: Seat::Pci(bus.clone()),
            new_buses: Vec::new(),
            gpe: None,
            present: Vec::new(),
            aml: Default::default(),
            serials: 0,
            anonymous: 0,
        };
        Ok(Board { ctx, bus, links })
    }

    /// Makes a device of a class.
    pub(crate) fn make(
        &mut self,
        class: &Class<Ctx>,
        given: &[(&str, &str)],
    ) -> Result<DeviceRef, String> {
        for (_, id) in given.iter().filter(|(key, _)| *key == "drive") {
            let drive = Drive::with(id, self.ctx.host.io.clone(), Spec::null(DRIVE));
            let drive = drive.map_err(|error| error.to_string())?;
            self.ctx.host.drives.insert((*id).to_owned(), drive);
        }
        let made = class.create(&Overrides::default(), given.iter().copied(), &mut self.ctx);
        let (device, _) = made.map_err(|error| error.to_string())?;
        device.lock().reset();
        Ok(device)
    }

    /// Where a function of the chipset goes.
    pub(crate) fn site(&self) -> Site<'_> {
        Site {
            path: "/machine/function".to_owned(),
            class: "function",
            id: None,
            bus: self.bus.clone(),
            address: Address::new(1, 0),
            multifunction: false,
            memory: &self.ctx.memory,
            ports: &self.ctx.ports,
            routes: &self.ctx.routes,
        }
    }
}

/// A device of the class of this name, alone and without RAM.
pub(super) fn by_name(
    (name, given): Given<'_>,
    clock: &Arc<Clock>,
    requests: Requests,
) -> Result<DeviceRef, String> {
    let class = Class::find(CLASSES, name).map_err(|error| error.to_string())?;
    Board::new(clock, requests, GuestMemory::default())?.make(class, given)
}

/// A device on the bus that another one brings.
pub(super) fn behind(
    (bus, (name, given)): (&str, Given<'_>),
    clock: &Arc<Clock>,
    requests: Requests,
) -> Result<DeviceRef, String> {
    let find = |name| Class::find(CLASSES, name).map_err(|error| error.to_string());
    let mut board = Board::new(clock, requests, GuestMemory::default())?;
    // It goes as soon as its bus is here: it would hold on to what holds on to it.
    board.make(find(bus)?, &[])?.lock().unplug();
    board.ctx.seat = board.ctx.new_buses.pop().ok_or("it brings no bus")?.seat;
    board.make(find(name)?, given)
}

/// A device with the properties of a class, made in another way.
pub(super) fn instead(
    class: Class<Ctx>,
    create: Create<Ctx>,
    clock: &Arc<Clock>,
    requests: Requests,
) -> Result<DeviceRef, String> {
    let class = Class { create: Some(create), ..class };
    Board::new(clock, requests, GuestMemory::default())?.make(&class, &[])
}

/// A function of the chipset, alone.
pub(super) fn part<D: crate::pci::PciDevice + 'static>(
    clock: &Arc<Clock>,
    requests: Requests,
    make: impl FnOnce(&Board) -> Result<Arc<DeviceCell<Function<D>>>, CreateError>,
) -> Result<DeviceRef, String> {
    let board = Board::new(clock, requests, GuestMemory::default())?;
    let device: DeviceRef = make(&board).map_err(|error| error.to_string())?;
    device.lock().reset();
    Ok(device)
}
