//! The PCI bus of machine `pc`: the host bridge, the chipset's functions, and what firmware does
//! for them where there is none.
//!
//! Main thread, before the guest runs.

use std::sync::{Arc, Weak};

use devices::acpi::pci_aml;
use devices::acpi::pci_hotplug::{self, PciHotplug, Slots};
use devices::acpi::pm::{self, Pm};
use devices::class::{Ctx, Hotplug, Seat};
use devices::pci::host::{self, Host};
use devices::pci::i440fx::{self, I440fx};
use devices::pci::piix::{self, Piix3, Piix4Pm};
use devices::pci::setup::{self, Apertures};
use devices::pci::{Address, Links, Site};
use resources::class::Class;
use resources::device::{DeviceCell, DeviceRef};
use resources::props::Props;
use resources::ram::{ABOVE_4G, LOW_LIMIT, LOW_MAX};
use resources::request::Requests;
use resources::space::{Mapping, Target};

use super::Board;
use super::bus::Bus;
use super::pc::{BuildError, ISA_BUS, PcConfig, add as plug};
use crate::boot::layout::{IOAPIC, RamLayout};
use crate::vm::Vm;

/// The bus behind the host bridge.
pub const PCI_BUS: &str = "pci.0";

/// Ports that no device of the board has.
const IO: (u64, u64) = (0xc000, 0xffff);
/// What memory above 4 GiB for functions begins at a multiple of, and how much there is.
const HIGH_STEP: u64 = 1 << 30;
const HIGH_SIZE: u64 = 32 << 30;

/// The PCI bus of a machine.
pub struct Pci {
    /// Its root.
    pub bus: Arc<devices::pci::Bus>,
    /// Without firmware: where functions are placed at each reset.
    pub apertures: Option<Apertures>,
    /// The registers by which devices come and go.
    pub hotplug: Option<Arc<DeviceCell<PciHotplug>>>,
    /// The buses behind bridges that they know, from their number 1 on.
    pub behind: Vec<Weak<devices::pci::Bus>>,
    /// The bridges to them, for the ACPI tables.
    pub bridges: Vec<pci_aml::Bridge>,
}

/// What is free for functions in a machine with this RAM.
pub fn apertures(ram: RamLayout) -> Apertures {
    let low = if ram.low > LOW_MAX { LOW_LIMIT } else { LOW_MAX };
    let high = (ABOVE_4G + ram.high).next_multiple_of(HIGH_STEP);
    Apertures { io: IO, memory: (low, IOAPIC - 1), high: (high, high + (HIGH_SIZE - 1)) }
}

/// AML of the bus, for scope `\_SB`.
pub fn aml(ram: RamLayout) -> Vec<u8> {
    pci_aml::bus(&apertures(ram))
}

/// Adds the bus and the chipset's functions on it, of which one leads to the ISA bus.
pub fn add(board: &mut Board, config: &PcConfig, reset: DeviceRef) -> Result<(), BuildError> {
    let ready = config.without_firmware();
    let links = Links::new(&board.wires);
    let bus = devices::pci::Bus::root(PCI_BUS, &links);
    let ram = RamLayout::of_size(config.ram.size());
    board.pci = Some(Pci {
        bus: bus.clone(),
        apertures: ready.then(|| apertures(ram)),
        hotplug: None,
        behind: Vec::new(),
        bridges: Vec::new(),
    });
    let path = "/machine/i440fx";
    let (host, ports) = Host::new(path, &bus, reset);
    plug(board, (host, &Host::CLASS), &[])?;
    board.ports.map(Mapping {
        base: host::PORT,
        size: host::PORTS,
        priority: 1,
        target: Target::Router(ports),
        bells: Vec::new(),
        enabled: true,
    })?;
    let seat = Seat::Pci(bus.clone());
    board.buses.push(Bus { seat, ..Bus::new(PCI_BUS, "PCI", Some(path)) });
    if let Some(range) = config.ram.ranges().first() {
        let site = site(board, &bus, &I440fx::CLASS, "/machine/i440fx/bridge", i440fx::ADDRESS);
        let bridge = I440fx::add(site, &range.block, ready)?;
        plug(board, (bridge, &I440fx::CLASS), &[])?;
    }
    let path = "/machine/piix3";
    let site = site(board, &bus, &Piix3::CLASS, path, piix::ISA_ADDRESS);
    let bridge = Piix3::add(site, &links, ready.then_some(piix::USUAL_ROUTES))?;
    plug(board, (bridge, &Piix3::CLASS), &[])?;
    board.buses.push(Bus::new(ISA_BUS, "ISA", Some(path)));
    Ok(())
}

/// Adds the function that places the registers of `block`, with these properties.
pub fn add_power_management(
    board: &mut Board,
    block: Arc<DeviceCell<Pm>>,
    props: Props,
) -> Result<(), BuildError> {
    let Some(Pci { bus, .. }) = &board.pci else { return Ok(()) };
    let registers = Mapping::device(pm::BLOCK_PORT, pm::BLOCK_SIZE, block, pm::BLOCK);
    let registers = board.ports.map(Mapping { enabled: false, ..registers })?;
    // Also for firmware, which may be too small to place it.
    let base = Some(pm::BLOCK_PORT as u16);
    let site = site(board, bus, &Piix4Pm::CLASS, "/machine/piix4-pm", piix::PM_ADDRESS);
    let function = Piix4Pm::add(site, registers, base)?;
    plug(board, (function, &Piix4Pm::CLASS), &[])?;
    if let Some(last) = board.devices.last_mut() {
        last.props = props;
    }
    Ok(())
}

/// Lets devices come to the bus and leave it while the machine runs.
pub fn add_hotplug(board: &mut Board, requests: &Requests) -> Result<(), BuildError> {
    let (Some(pci), Some(gpe)) = (&mut board.pci, &board.gpe) else { return Ok(()) };
    let registers = PciHotplug::new("/machine/pci-hotplug", requests.clone());
    pci.hotplug = Some(registers.clone());
    let (bus, gpe) = (pci.bus.clone(), gpe.clone());
    let slots = Slots { registers: registers.clone(), bus, number: 0, gpe };
    if let Some(bus) = board.buses.iter_mut().find(|bus| bus.name == PCI_BUS) {
        bus.hotplug = Some(Box::new(slots));
    }
    let ports = [(pci_hotplug::PORT, pci_hotplug::SIZE, 0)];
    plug(board, (registers, &PciHotplug::CLASS), &ports)
}

/// Where a function of the chipset goes.
fn site<'a>(
    board: &'a Board,
    bus: &Arc<devices::pci::Bus>,
    class: &'static Class<Ctx>,
    path: &str,
    address: Address,
) -> Site<'a> {
    Site {
        path: path.to_owned(),
        class: class.name,
        id: None,
        bus: bus.clone(),
        address,
        multifunction: address.slot() == piix::ISA_ADDRESS.slot(),
        memory: &board.memory,
        ports: &board.ports,
        routes: &board.routes,
    }
}

impl Vm {
    /// Takes the devices away that the guest has let go.
    pub(crate) fn take_ejected(&mut self) {
        self.remove_slots(PciHotplug::take_ejected);
    }

    /// The guest is reset: the devices that it was asked to let go are gone.
    pub(crate) fn complete_removals(&mut self) {
        self.remove_slots(PciHotplug::take_pending);
    }

    fn remove_slots(&mut self, take: impl FnOnce(&mut PciHotplug) -> Vec<u32>) {
        let Some(Pci { bus, hotplug: Some(hotplug), behind, .. }) = &self.board.pci else { return };
        let all = take(&mut hotplug.lock());
        let buses = [Some(bus.clone())].into_iter().chain(behind.iter().map(Weak::upgrade));
        let mut paths = Vec::new();
        for (bus, slots) in buses.zip(all) {
            let functions = bus.map(|bus| bus.functions()).unwrap_or_default();
            let gone = functions.iter().filter(|(at, _)| slots >> at.slot() & 1 != 0);
            paths.extend(gone.map(|(_, device)| device.name().to_owned()));
        }
        paths.iter().for_each(|path| self.unplugged(path));
    }
}

impl Board {
    /// Lets devices come to a bus behind a bridge, and leave it, while the machine runs: if it is a
    /// PCI bus, and there are registers left for it. The guest has to be told of it by the tables.
    pub fn hotplug_behind(&mut self, seat: &Seat) -> Option<Box<dyn Hotplug>> {
        let (Seat::Pci(bus), Some(pci), Some(gpe)) = (seat, &mut self.pci, &self.gpe) else {
            return None;
        };
        let registers = pci.hotplug.clone()?;
        // The number of a bus that is gone, and that the tables no longer speak of, is free.
        let known = |number| pci.bridges.iter().any(|bridge| bridge.number == number);
        let mut numbers = (1..).zip(&mut pci.behind);
        let number = match numbers.find(|(n, bus)| bus.strong_count() == 0 && !known(*n)) {
            Some((number, place)) => {
                *place = Arc::downgrade(bus);
                number
            }
            None => {
                let number = registers.lock().add_bus()?;
                pci.behind.push(Arc::downgrade(bus));
                number
            }
        };
        pci.bridges.push(pci_aml::Bridge { path: bus.path(), number });
        Some(Box::new(Slots { registers, bus: bus.clone(), number, gpe: gpe.clone() }))
    }

    /// The guest is about to read the tables: they are to tell of the bridges that came since it
    /// read them last, behind which devices come and go from now on, and not of those that went.
    pub fn renew_hotplug(&mut self) {
        let Some(pci) = &mut self.pci else { return };
        let behind = &pci.behind;
        let there = |number: u8| {
            let place = usize::from(number).checked_sub(1).and_then(|index| behind.get(index));
            place.is_some_and(|bus| bus.strong_count() > 0)
        };
        pci.bridges.retain(|bridge| there(bridge.number));
        for index in 0..self.buses.len() {
            let Some(bus) = self.buses.get(index).filter(|bus| bus.hotplug.is_none()) else {
                continue;
            };
            let hotplug = self.hotplug_behind(&bus.seat.clone());
            if let (Some(hotplug), Some(bus)) = (hotplug, self.buses.get_mut(index)) {
                bus.hotplug = Some(hotplug);
            }
        }
    }

    /// Places all PCI functions, if there is no firmware that does.
    pub fn place_functions(&self) {
        if let Some(Pci { bus, apertures: Some(apertures), .. }) = &self.pci {
            setup::assign(bus, apertures, piix::USUAL_ROUTES);
        }
    }
}
