//! Functions on a bus, as a guest drives them through the configuration ports.

use std::sync::Arc;

use proptest::prelude::*;
use resources::device::{At, Device, DeviceCell, value_of};
use resources::hv::fake::{Call, Fake};
use resources::hv::{Route, SpaceKind};
use resources::irq::{MsiMessage, Routes, Wire};
use resources::space::{Bell, Mapping, Space, Target};
use resources::state::{Blob, StateError};
use vmm_sys_util::eventfd::EventFd;

use super::config::reg::{self, bridge};
use super::setup::{Apertures, assign};
use super::*;
use crate::isa::reset_control::ResetControl;
use crate::testing::Requested;

/// A device that remembers.
#[derive(Default)]
struct Thing {
    byte: u8,
    resets: u32,
    unplugged: bool,
}

impl Device for Thing {
    fn read(&mut self, At { region: bar, offset }: At, data: &mut [u8]) {
        data.fill(self.byte.wrapping_add(bar as u8).wrapping_add(offset as u8));
    }

    fn write(&mut self, _: At, data: &[u8]) {
        self.byte = data[0];
    }

    fn reset(&mut self) {
        self.resets += 1;
        self.byte = 0;
    }

    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &self.byte)
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        self.byte = blob.parse(1, &[])?;
        Ok(())
    }

    fn unplug(&mut self) {
        self.unplugged = true;
    }
}

impl PciDevice for Thing {}

struct Rig {
    fake: Arc<Fake>,
    memory: Arc<Space>,
    ports: Arc<Space>,
    routes: Arc<Routes>,
    links: Arc<Links>,
    bus: Arc<Bus>,
    _host: Arc<DeviceCell<host::Host>>,
}

type Cell = Arc<DeviceCell<Function<Thing>>>;

impl Rig {
    fn new() -> Rig {
        let fake = Fake::new();
        let (memory, ports) = (
            Space::new(SpaceKind::Memory, fake.clone()),
            Space::new(SpaceKind::Ports, fake.clone()),
        );
        let wires: Vec<_> = (0..24).map(|gsi| Wire::new(gsi, fake.clone())).collect();
        let links = Links::new(&wires);
        (0..4).zip([10, 10, 11, 11]).for_each(|(link, input)| links.route(link, Some(input), true));
        let bus = Bus::root("pci.0", &links);
        let reset = ResetControl::new("reset", Arc::new(Requested::default()));
        let (host, router) = host::Host::new("host", &bus, reset);
        let target = Target::Router(router);
        let (base, size) = (host::PORT, host::PORTS);
        let mapping = Mapping { base, size, priority: 1, target, bells: vec![], enabled: true };
        ports.map(mapping).unwrap();
        let routes = Routes::new(fake.clone(), 24);
        Rig { fake, memory, ports, routes, links, bus, _host: host }
    }

    fn site(&self, bus: &Arc<Bus>, slot: u8) -> Site<'_> {
        Site {
            path: format!("/{}/{slot}", bus.name()),
            class: "thing",
            id: None,
            bus: bus.clone(),
            address: Address::new(slot, 0),
            multifunction: false,
            memory: &self.memory,
            ports: &self.ports,
            routes: &self.routes,
        }
    }

    fn add(&self, slot: u8, spec: Spec) -> Cell {
        self.site(&self.bus, slot).add(spec, |_| Ok(Thing::default())).unwrap()
    }

    fn select(&self, bus: u8, slot: u8, at: usize) {
        let address = 1 << 31 | u32::from(bus) << 16 | u32::from(slot) << 11 | at as u32 & 0xfc;
        self.ports.write(0xcf8, &address.to_le_bytes());
    }

    fn get(&self, bus: u8, slot: u8, at: usize, width: usize) -> u64 {
        self.select(bus, slot, at);
        let mut data = [0xff; 4];
        self.ports.read(0xcfc + (at & 3) as u64, &mut data[..width]);
        value_of(&data[..width])
    }

    fn set(&self, slot: u8, at: usize, width: usize, value: u64) {
        self.select(0, slot, at);
        self.ports.write(0xcfc + (at & 3) as u64, &value.to_le_bytes()[..width]);
    }

    fn byte(&self, address: u64) -> u8 {
        let mut data = [0];
        self.memory.read(address, &mut data);
        data[0]
    }
}

fn spec(bars: Vec<Bar>, interrupts: Interrupts) -> Spec {
    let identity =
        Identity { vendor: 0x1234, device: 0x5678, class: 0x0200, ..Identity::default() };
    Spec { identity, bars, interrupts, ..Spec::default() }
}

const PIN: Interrupts = Interrupts { pin: Some(0), msix: None, msi: None };

#[test]
fn functions_are_found_by_the_configuration_ports() {
    let rig = Rig::new();
    let _thing = rig.add(3, spec(vec![], PIN));
    assert_eq!(rig.get(0, 3, 0, 4), 0x5678_1234);
    assert_eq!((rig.get(0, 3, 2, 2), rig.get(0, 3, 3, 1)), (0x5678, 0x56));
    assert_eq!((rig.get(0, 4, 0, 4), rig.get(1, 3, 0, 4)), (0xffff_ffff, 0xffff_ffff));
    // The address is one register of 32 bits; port 0xcf9 is the reset control.
    rig.select(0, 3, 0);
    rig.ports.write(0xcf8, &[0]);
    rig.ports.write(0xcf9, &[2]);
    let mut data = [0; 4];
    rig.ports.read(0xcf8, &mut data);
    assert_eq!(u32::from_le_bytes(data), 1 << 31 | 3 << 11);
    let mut byte = [0];
    rig.ports.read(0xcf9, &mut byte);
    assert_eq!(byte, [2]);
    // Switched off.
    rig.ports.write(0xcf8, &[0, 0x18, 0, 0]);
    rig.ports.read(0xcfc, &mut data);
    assert_eq!(data, [0xff; 4]);
}

#[test]
fn regions_tell_their_size_and_move_while_they_are_decoded() {
    let rig = Rig::new();
    let fd = Arc::new(EventFd::new(0).unwrap());
    let bell = Bell { offset: 0x10, width: 2, value: None, fd };
    let wide = Bar { bells: vec![bell], ..Bar::new(4, BarKind::Memory64, 0x4000) };
    let thing = rig.add(
        3,
        spec(vec![Bar::new(0, BarKind::Io, 32), Bar::new(1, BarKind::Memory32, 4096), wide], PIN),
    );
    for at in [0x10, 0x14, 0x20, 0x24] {
        rig.set(3, at, 4, 0xffff_ffff);
    }
    let sizes = [0x10, 0x14, 0x18, 0x20, 0x24].map(|at| rig.get(0, 3, at, 4));
    assert_eq!(sizes, [0xffff_ffe1, 0xffff_f000, 0, 0xffff_c00c, 0xffff_ffff]);
    rig.set(3, 0x10, 4, 0xc000);
    rig.set(3, 0x14, 4, 0xd000_0000);
    rig.set(3, 0x20, 4, 0);
    rig.set(3, 0x24, 4, 1);
    assert_eq!(rig.byte(0xd000_0000), 0xff);
    rig.set(3, reg::COMMAND, 2, 3);
    assert_eq!((rig.byte(0xd000_0002), rig.byte(0x1_0000_0002)), (3, 6));
    rig.ports.write(0xc01f, &[0x20]);
    assert_eq!(thing.lock().device().byte, 0x20);
    // Moved while decoded, the doorbell with it.
    rig.fake.take_calls();
    rig.set(3, 0x24, 4, 2);
    assert_eq!((rig.byte(0x1_0000_0002), rig.byte(0x2_0000_0000)), (0xff, 0x24));
    let bells: Vec<_> = (rig.fake.take_calls().into_iter())
        .filter_map(|call| match call {
            Call::Doorbell(bell, on) => Some((bell.address, on)),
            _ => None,
        })
        .collect();
    assert_eq!(bells, [(0x1_0000_0010, false), (0x2_0000_0010, true)]);
    // Below RAM and the board.
    rig.memory.map(Mapping::device(0xd000_0000, 1, rig.add(9, spec(vec![], PIN)), 7)).unwrap();
    assert_eq!(rig.byte(0xd000_0000), 7);
    // While asked for its size it is nowhere.
    rig.set(3, 0x14, 4, 0xffff_ffff);
    assert_eq!((rig.byte(0xd000_0002), rig.byte(0xffff_f002)), (0xff, 0xff));
    thing.lock().reset();
    assert_eq!(rig.byte(0x2_0000_0000), 0xff);
}

const TABLE: u64 = 0xe000_0000;

/// A function with two vectors whose table is mapped.
fn with_msix(rig: &Rig) -> Cell {
    let msix = Interrupts { pin: Some(0), msix: Some((2, 1)), msi: None };
    let thing = rig.add(3, spec(vec![], msix));
    rig.set(3, 0x14, 4, TABLE);
    rig.set(3, reg::COMMAND, 2, 2);
    thing
}

fn entry(rig: &Rig, vector: u64, data: u32, masked: bool) {
    let at = TABLE + 16 * vector;
    rig.memory.write(at, &0xfee0_0000u64.to_le_bytes());
    rig.memory.write(at + 8, &data.to_le_bytes());
    rig.memory.write(at + 12, &u32::from(masked).to_le_bytes());
}

fn route(gsi: u32, data: u32) -> Route {
    Route { gsi, message: MsiMessage { address: 0xfee0_0000, data } }
}

fn last_routes(rig: &Rig) -> Vec<Route> {
    let calls = rig.fake.take_calls().into_iter().rev();
    let mut routes = calls.filter_map(|call| match call {
        Call::Routes(routes) => Some(routes),
        _ => None,
    });
    routes.next().unwrap()
}

#[test]
fn msix_vectors_follow_table_masks_and_the_function_mask() {
    let rig = Rig::new();
    let thing = with_msix(&rig);
    let interrupt = thing.lock().interrupt().clone();
    let control = 0x42;
    assert_eq!(rig.get(0, 3, 0x40, 4), 0x0001_0011);
    entry(&rig, 0, 0x31, false);
    interrupt.message(0);
    assert_eq!(rig.byte(TABLE + 0x800), 0, "messages are off");
    rig.set(3, control, 2, 0x8000);
    assert!(interrupt.messages_enabled());
    assert_eq!(last_routes(&rig), [route(24, 0x31)]);
    assert_eq!(rig.fake.take_calls(), []);
    // Masked: pending, until it is unmasked.
    interrupt.message(1);
    assert_eq!(rig.byte(TABLE + 0x800), 2);
    entry(&rig, 1, 0x32, false);
    assert_eq!(
        (rig.byte(TABLE + 0x800), last_routes(&rig)),
        (0, vec![route(24, 0x31), route(25, 0x32)])
    );
    // The whole function masked.
    rig.set(3, control, 2, 0xc000);
    assert_eq!(last_routes(&rig), []);
    interrupt.message(0);
    assert_eq!(rig.byte(TABLE + 0x800), 1);
    let blob = thing.lock().save().unwrap();
    thing.lock().reset();
    assert!(!interrupt.messages_enabled());
    thing.lock().load(&blob).unwrap();
    assert_eq!(thing.lock().save().unwrap(), blob);
    assert_eq!(rig.byte(TABLE + 0x800), 1);
    rig.set(3, control, 2, 0x8000);
    assert_eq!(last_routes(&rig), [route(24, 0x31), route(25, 0x32)]);
}

#[test]
fn msi_messages_differ_in_the_low_bits() {
    let rig = Rig::new();
    let thing = rig.add(3, spec(vec![], Interrupts { pin: None, msix: None, msi: Some(4) }));
    assert_eq!(rig.get(0, 3, 0x40, 4), 0x0184_0005);
    rig.set(3, 0x44, 4, 0xfee0_0000);
    rig.set(3, 0x4c, 2, 0x41);
    rig.set(3, 0x50, 4, 2);
    rig.fake.take_calls();
    rig.set(3, 0x42, 2, 1 | 1 << 4);
    assert_eq!(last_routes(&rig), [route(24, 0x40)], "two are granted, one of them is masked");
    let interrupt = thing.lock().interrupt().clone();
    interrupt.message(3);
    assert_eq!(rig.get(0, 3, 0x54, 4), 2, "folded into those that are granted");
    let blob = thing.lock().save().unwrap();
    thing.lock().reset();
    thing.lock().load(&blob).unwrap();
    assert_eq!(rig.get(0, 3, 0x54, 4), 2);
    rig.set(3, 0x50, 4, 0);
    assert_eq!(last_routes(&rig), [route(24, 0x40), route(25, 0x41)]);
}

#[test]
fn pins_share_links_that_the_guest_leads() {
    let rig = Rig::new();
    // Slots 3 and 7 share link C, which leads to input 11.
    let (a, b) = (rig.add(3, spec(vec![], PIN)), rig.add(7, spec(vec![], PIN)));
    let irq = |cell: &Cell| cell.lock().interrupt().clone();
    irq(&a).set_intx(true);
    irq(&b).set_intx(true);
    assert!(rig.fake.line(11) && !rig.fake.line(10));
    assert_eq!(rig.get(0, 3, reg::STATUS, 2) & 8, 8);
    irq(&a).set_intx(false);
    assert!(rig.fake.line(11));
    rig.links.route(2, Some(5), true);
    assert!(rig.fake.line(5) && !rig.fake.line(11));
    // Switched off, it is still asserted.
    rig.set(7, reg::COMMAND, 2, 1 << 10);
    assert_eq!((rig.fake.line(5), rig.get(0, 7, reg::STATUS, 2) & 8), (false, 8));
    rig.set(7, reg::COMMAND, 2, 0);
    assert!(rig.fake.line(5));
    // Gone, with handles left.
    let kept = irq(&b);
    b.lock().unplug();
    assert!(!rig.fake.line(5) && b.lock().device().unplugged);
    kept.set_intx(true);
    assert!(!rig.fake.line(5));
    assert_eq!(rig.get(0, 7, 0, 4), 0xffff_ffff);
}

#[test]
fn loading_an_asserted_pin_makes_no_edge() {
    let rig = Rig::new();
    let thing = rig.add(3, spec(vec![], PIN));
    thing.lock().interrupt().set_intx(true);
    let blob = thing.lock().save().unwrap();
    thing.lock().reset();
    rig.fake.take_calls();
    thing.lock().load(&blob).unwrap();
    assert_eq!(rig.fake.take_calls(), []);
    thing.lock().interrupt().set_intx(false);
    assert_eq!(rig.fake.take_calls(), [Call::Line(11, false)]);
}

#[test]
fn addresses_are_refused_in_known_words() {
    let rig = Rig::new();
    let add = |address: Address, multifunction: bool| {
        let site = Site { address, multifunction, ..rig.site(&rig.bus, 0) };
        let made = site.add(spec(vec![], PIN), |_| Ok(Thing::default()));
        made.map_err(|error| error.to_string())
    };
    let _single = add(Address::new(3, 0), false).unwrap();
    assert_eq!(
        add(Address::new(3, 0), false).err().unwrap(),
        "PCI: slot 3 function 0 not available for thing, in use by thing"
    );
    assert_eq!(
        add(Address::new(3, 1), false).err().unwrap(),
        "PCI: single function device can't be populated in function 3.1"
    );
    let _other = add(Address::new(4, 2), false).unwrap();
    assert_eq!(
        add(Address::new(4, 0), false).err().unwrap(),
        "PCI: 4.0 indicates single function, but 4.2 is already populated."
    );
    let _first = add(Address::new(4, 0), true).unwrap();
    assert_eq!(rig.get(0, 4, reg::HEADER_TYPE, 1), 0x80);
    assert_eq!(rig.bus.free_slot(3), Some(Address::new(5, 0)));
}

const APERTURES: Apertures = Apertures {
    io: (0xc000, 0xffff),
    memory: (0xc000_0000, 0xfebf_ffff),
    high: (0x1_0000_0000, 0x8_ffff_ffff),
};

#[test]
fn without_firmware_functions_are_placed() {
    let rig = Rig::new();
    let bars = || {
        vec![
            Bar::new(0, BarKind::Io, 32),
            Bar::new(1, BarKind::Memory32, 4096),
            Bar::new(4, BarKind::Memory64, 1 << 20),
        ]
    };
    let things = [2, 3].map(|slot| rig.add(slot, spec(bars(), PIN)));
    assign(&rig.bus, &APERTURES, [10, 10, 11, 11]);
    let infos = rig.bus.inspect();
    let places: Vec<_> =
        infos.iter().flat_map(|info| &info.regions).map(|region| region.address.unwrap()).collect();
    assert_eq!(places, [0xc000, 0xc000_0000, 0x1_0000_0000, 0xc020, 0xc000_1000, 0x1_0010_0000]);
    assert_eq!(infos.iter().map(|info| info.line).collect::<Vec<_>>(), [Some(10), Some(11)]);
    assert_eq!(rig.byte(0xc000_1000), 1);
    drop(things);
}

#[test]
fn a_bridge_passes_on_what_its_windows_let_through() {
    let rig = Rig::new();
    let over = rig.add(9, spec(vec![], PIN));
    let behind = Bus::behind("pci.1", &rig.bus, Address::new(5, 0));
    let thing = rig
        .site(&behind, 6)
        .add(spec(vec![Bar::new(1, BarKind::Memory32, 4096)], PIN), |_| Ok(Thing::default()));
    let thing = thing.unwrap();
    assert_eq!(rig.get(1, 6, 0, 4), 0xffff_ffff);
    behind.configure(1, 1, Windows::default());
    assert_eq!(rig.get(1, 6, 0, 4), 0x5678_1234);
    rig.select(1, 6, 0x14);
    rig.ports.write(0xcfc, &0xd000_0000u32.to_le_bytes());
    rig.select(1, 6, 4);
    rig.ports.write(0xcfc, &[2, 0]);
    assert_eq!(rig.byte(0xd000_0000), 0xff);
    let memory = Some((0xd000_0000, 0xd00f_ffff));
    behind.configure(1, 1, Windows { memory, ..Windows::default() });
    assert_eq!(rig.byte(0xd000_0000), 1);
    behind.configure(
        1,
        1,
        Windows { memory: Some((0xd000_0000, 0xd000_0fff - 1)), ..Windows::default() },
    );
    assert_eq!(rig.byte(0xd000_0000), 0xff);
    // Pin A of slot 6 is pin C of the bridge, in slot 5: link C, input 11.
    thing.lock().interrupt().set_intx(true);
    assert!(rig.fake.line(11));
    drop(over);
}

#[test]
fn a_bridge_of_the_machine_is_set_up_and_saved() {
    let registers = |config: &mut ConfigSpace| {
        config.set_power_on(reg::HEADER_TYPE, &[1]);
        config.set(bridge::IO_BASE, &[0xc0, 0xd0]);
        config.set(bridge::MEMORY_BASE, &[0x00, 0xd0, 0x10, 0xd0]);
    };
    let mut config = ConfigSpace::default();
    registers(&mut config);
    let info = inspect::BridgeInfo::of(&config);
    assert_eq!((info.io, info.memory), ((0xc000, 0xdfff), (0xd000_0000, 0xd01f_ffff)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_a_guest_or_a_state_does_panics(
        ops in prop::collection::vec((any::<u8>(), any::<u16>(), any::<[u8; 8]>(), 1usize..9), 0..60),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let rig = Rig::new();
        let bars = vec![Bar::new(0, BarKind::Io, 32), Bar::new(4, BarKind::Memory64, 1 << 14)];
        let msix = Interrupts { pin: Some(1), msix: Some((70, 1)), msi: None };
        let thing = rig.add(3, spec(bars, msix));
        for (op, at, data, len) in ops {
            let region = if op & 1 == 0 { CONFIG } else { u16::from(op >> 1 & 7) };
            let at = resources::device::At { region, offset: u64::from(at) & 0x1fff };
            let mut data = data;
            match op >> 6 {
                0 => thing.lock().read(at, &mut data[..len]),
                _ => thing.lock().write(at, &data[..len]),
            }
            thing.lock().interrupt().message(u16::from(op));
            thing.lock().interrupt().set_intx(op & 4 != 0);
        }
        let blob = thing.lock().save().unwrap();
        thing.lock().load(&blob).unwrap();
        prop_assert_eq!(&thing.lock().save().unwrap(), &blob);
        let mut bytes = blob.to_bytes().unwrap();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(blob) = Blob::from_bytes(&bytes) {
            let _ = thing.lock().load(&blob);
        }
        thing.lock().reset();
        let once = thing.lock().save().unwrap();
        thing.lock().reset();
        prop_assert_eq!(once, thing.lock().save().unwrap());
    }
}
