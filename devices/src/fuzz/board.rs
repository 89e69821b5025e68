//! Devices made by name on a PCI bus that has nothing else, for fuzzing and for tests.
//!
//! One thread makes and drives them; one loop serves them all.

use std::sync::{Arc, OnceLock};

use resources::class::{Class, CreateError};
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
    (name, given): (&str, &[(&str, &str)]),
    clock: &Arc<Clock>,
    requests: Requests,
) -> Result<DeviceRef, String> {
    let class = Class::find(CLASSES, name).map_err(|error| error.to_string())?;
    Board::new(clock, requests, GuestMemory::default())?.make(class, given)
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
