//! AML of the PCI bus of machine `pc`: what addresses it passes on, where interrupts lead, and what
//! the guest does when a device comes or is to go ([`super::pci_hotplug`]).
//!
//! ```text
//! \_SB.LNKA to LNKD        interrupt links, which lead to the input in a register of the PIIX3
//! \_SB.LNKS                the pin that leads to the system control interrupt
//! \_SB.PCI0                _CRS, _PRT
//!   ISA                    the PIIX3's registers PRQ0 to PRQ3
//!   S02 ...                a slot: _SUN, _EJ0
//!   PCNT()                 tells of each slot that something came to or is to leave
//!   S03.S00 ...            the same behind a bridge in a slot
//!   S03.PCNT()
//! \_GPE._E01               some slot of some bus has news
//! ```
//!
//! Pure; runs on the main thread.

use std::ops::Range;

use acpi_tables::aml::{
    Acquire, AddressSpace, AddressSpaceCacheable, And, Arg, CreateDWordField, Device, EISAName,
    Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, IO, If, Interrupt, Local,
    Method, MethodCall, Mutex, Name, Notify, ONE, OpRegion, OpRegionSpace, Or, Path, Release,
    ResourceTemplate, Return, Scope, ShiftLeft, Store, ZERO,
};
use acpi_tables::{Aml, AmlSink};

use super::pci_hotplug as hotplug;
use super::pm::SCI;
use crate::pci::Address;
use crate::pci::piix::ROUTES;
use crate::pci::setup::Apertures;

/// The inputs that a link can lead to.
pub const INPUTS: [u8; 3] = [5, 10, 11];
/// Flags of an interrupt descriptor: consumer, level, active high, shared.
const SHARED_LEVEL: u8 = 0x09;
/// In a routing register: switched off.
const OFF: u8 = 0x80;
/// Notifications: look whether the device is there; the device is to go.
const DEVICE_CHECK: u8 = 1;
const EJECT_REQUEST: u8 = 3;
/// The slots of the root bus whose devices come and go, and those of other buses.
const SLOTS: Range<u8> = hotplug::FIRST_SLOT..32;
const SLOTS_BEHIND: Range<u8> = 0..32;

/// AML that was made already.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

fn bytes_of(parts: &[&dyn Aml]) -> Vec<u8> {
    let mut bytes = Vec::new();
    parts.iter().for_each(|part| part.to_aml_bytes(&mut bytes));
    bytes
}

/// The bus and its links, for scope `\_SB`.
pub fn bus(apertures: &Apertures) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, letter) in (0u8..).zip(["A", "B", "C", "D"]) {
        link(&mut out, number, letter);
    }
    fixed_link(&mut out);
    let mut body = Vec::new();
    let (hid, zero) = (EISAName::new("PNP0A03"), ZERO);
    Name::new("_HID".into(), &hid).to_aml_bytes(&mut body);
    Name::new("_ADR".into(), &zero).to_aml_bytes(&mut body);
    Name::new("_UID".into(), &zero).to_aml_bytes(&mut body);
    resources(&mut body, apertures);
    Name::new("_PRT".into(), &Raw(routing())).to_aml_bytes(&mut body);
    isa(&mut body);
    registers(&mut body);
    ejection(&mut body);
    slots(&mut body, 0, SLOTS);
    Device::new("PCI0".into(), vec![&Raw(body)]).to_aml_bytes(&mut out);
    out
}

/// A bridge from behind which devices come and go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Its address, after those of the bridges before it on the way from the root bus.
    pub path: Vec<Address>,
    /// The number of the bus behind it in the registers of [`hotplug`].
    pub number: u8,
}

impl Bridge {
    fn scope(&self, member: &str) -> Path {
        let mut name = "\\_SB_.PCI0".to_owned();
        for address in &self.path {
            name.push('.');
            name.push_str(&device_name(*address));
        }
        name.push_str(member);
        Path::new(&name)
    }
}

/// The buses behind bridges, for scope `\_SB` after [`bus`]; a bridge comes after that which it is
/// behind.
pub fn behind(bridges: &[Bridge]) -> Vec<u8> {
    let mut out = Vec::new();
    for bridge in bridges {
        let mut body = Vec::new();
        slots(&mut body, bridge.number, SLOTS_BEHIND);
        if let Some((last, above)) = bridge.path.split_last()
            && last.function() != 0
        {
            // Only the first function of a slot is there already.
            let above = Bridge { path: above.to_vec(), number: 0 };
            let address = u32::from(last.slot()) << 16 | u32::from(last.function());
            let address = Name::new("_ADR".into(), &address);
            let function = Device::new(Path::new(&device_name(*last)), vec![&address]);
            out.extend(Scope::raw(above.scope(""), bytes_of(&[&function])));
        }
        out.extend(Scope::raw(bridge.scope(""), body));
    }
    out
}

/// The method of the event, for scope `\_GPE`.
pub fn event(bridges: &[Bridge]) -> Vec<u8> {
    let root = Bridge { path: Vec::new(), number: 0 };
    let all = [&root].into_iter().chain(bridges);
    let scans: Vec<_> =
        all.map(|bridge| MethodCall::new(bridge.scope(".PCNT"), Vec::new())).collect();
    let scans = scans.iter().map(|scan| scan as &dyn Aml).collect();
    bytes_of(&[&Method::new("_E01".into(), 0, false, scans)])
}

/// An interrupt descriptor with a choice of inputs.
fn choice(inputs: &[u8]) -> Raw {
    let numbers: Vec<u8> =
        inputs.iter().flat_map(|input| u32::from(*input).to_le_bytes()).collect();
    let count = u8::try_from(inputs.len()).unwrap_or(0);
    let length = count.saturating_mul(4).saturating_add(2);
    Raw([&[0x89, length, 0, SHARED_LEVEL, count], &numbers[..]].concat())
}

/// A link: which inputs it can lead to, which one it leads to, and how to change that.
fn link(out: &mut Vec<u8>, number: u8, letter: &str) {
    let register = Path::new(&format!("\\_SB_.PCI0.ISA_.PRQ{number}"));
    let hid = EISAName::new("PNP0C0F");
    let (hid, uid) = (Name::new("_HID".into(), &hid), Name::new("_UID".into(), &number));
    let inputs = choice(&INPUTS);
    let possible = ResourceTemplate::new(vec![&inputs]);
    let possible = Name::new("_PRS".into(), &possible);

    let is_off = And::new(&ZERO, &register, &OFF);
    let off = Return::new(&0x09u8);
    let off = If::new(&is_off, vec![&off]);
    let on = Return::new(&0x0bu8);
    let status = Method::new("_STA".into(), 0, false, vec![&off, &on]);

    let switch_off = Or::new(&register, &register, &OFF);
    let disable = Method::new("_DIS".into(), 0, false, vec![&switch_off]);

    // The number in an interrupt descriptor that begins a template.
    let number_at = 5u8;
    let input: Path = "INPT".into();
    let none = choice(&[0]);
    let template = ResourceTemplate::new(vec![&none]);
    let template_name: Path = "TMPL".into();
    let named = Name::new("TMPL".into(), &template);
    let field = CreateDWordField::new(&input, &template_name, &number_at);
    let fill = And::new(&input, &register, &0x0fu8);
    let answer = Return::new(&template_name);
    let current = Method::new("_CRS".into(), 0, true, vec![&named, &field, &fill, &answer]);

    let given = CreateDWordField::new(&input, &Arg(0), &number_at);
    let set = Store::new(&register, &input);
    let change = Method::new("_SRS".into(), 1, true, vec![&given, &set]);

    let children: Vec<&dyn Aml> = vec![&hid, &uid, &possible, &status, &disable, &current, &change];
    Device::new(Path::new(&format!("LNK{letter}")), children).to_aml_bytes(out);
}

/// The link of the power management's pin, which always leads to the same input.
fn fixed_link(out: &mut Vec<u8>) {
    let hid = EISAName::new("PNP0C0F");
    let (hid, uid) = (Name::new("_HID".into(), &hid), Name::new("_UID".into(), &4u8));
    let sci = Interrupt::new(true, false, false, true, SCI.into());
    let sci = ResourceTemplate::new(vec![&sci]);
    let (possible, current) = (Name::new("_PRS".into(), &sci), Name::new("_CRS".into(), &sci));
    let on = Return::new(&0x0bu8);
    let status = Method::new("_STA".into(), 0, false, vec![&on]);
    let disable = Method::new("_DIS".into(), 0, false, Vec::new());
    let change = Method::new("_SRS".into(), 1, false, Vec::new());
    let children: Vec<&dyn Aml> = vec![&hid, &uid, &possible, &current, &status, &disable, &change];
    Device::new("LNKS".into(), children).to_aml_bytes(out);
}

/// What the bus passes on: all but the ports and the memory of the board's own devices.
fn resources(body: &mut Vec<u8>, apertures: &Apertures) {
    let io = |first, last| AddressSpace::<u16>::new_io(first, last, None);
    let buses = AddressSpace::<u16>::new_bus_number(0, 0xff);
    let config = IO::new(0xcf8, 0xcf8, 1, 8);
    let [low, middle, high] = [io(0, 0x0cf7), io(0x0d00, 0xadff), io(0xb000, 0xffff)];
    let memory = |first: u64, last: u64| {
        let (first, last) = (u32::try_from(first).ok()?, u32::try_from(last).ok()?);
        let cacheable = AddressSpaceCacheable::NotCacheable;
        Some(AddressSpace::<u32>::new_memory(cacheable, true, first, last, None))
    };
    let memory: Vec<_> =
        [(0xa_0000, 0xb_ffff), apertures.memory].map(|(first, last)| memory(first, last)).into();
    let cacheable = AddressSpaceCacheable::Cacheable;
    let (first, last) = apertures.high;
    let above = AddressSpace::<u64>::new_memory(cacheable, true, first, last, None);
    let mut all: Vec<&dyn Aml> = vec![&buses, &config, &low, &middle, &high];
    all.extend(memory.iter().flatten().map(|range| range as &dyn Aml));
    all.push(&above);
    Name::new("_CRS".into(), &ResourceTemplate::new(all)).to_aml_bytes(body);
}

/// For each pin of each slot the link that it leads to.
fn routing() -> Vec<u8> {
    let entry = |slot: u32, pin: u8, link: &str| {
        let address = (slot << 16) | 0xffff;
        let link = Path::new(link);
        package(&bytes_of(&[&address, &pin, &link, &ZERO]), 4)
    };
    let mut entries = Vec::new();
    let mut count = 0u8;
    for slot in 1u32..32 {
        for pin in 0u8..4 {
            let number = slot.wrapping_add(pin.into()).wrapping_sub(1) & 3;
            let link = match number {
                // The pin of the power management.
                0 if (slot, pin) == (1, 0) => "LNKS",
                0 => "LNKA",
                1 => "LNKB",
                2 => "LNKC",
                _ => "LNKD",
            };
            entries.extend(entry(slot, pin, link));
            count = count.saturating_add(1);
        }
    }
    package(&entries, count)
}

/// A package of `count` elements that were made already.
fn package(elements: &[u8], count: u8) -> Vec<u8> {
    // A length includes its own bytes: one up to 63; else two or three, of which the first has the
    // low four bits and how many follow.
    let content = u32::try_from(elements.len()).unwrap_or(u32::MAX).saturating_add(1);
    let byte = |value: u32| u8::try_from(value & 0xff).unwrap_or(0);
    let mut out = vec![0x12];
    if content < 63 {
        out.push(byte(content.saturating_add(1)));
    } else if content < 0xffe {
        let length = content.saturating_add(2);
        out.extend([0x40 | byte(length & 0xf), byte(length >> 4)]);
    } else {
        let length = content.saturating_add(3);
        out.extend([0x80 | byte(length & 0xf), byte(length >> 4), byte(length >> 12)]);
    }
    out.push(count);
    out.extend(elements);
    out
}

fn field(name: &str, access: FieldAccessType, fields: &[&[u8; 4]], bits: usize) -> Field {
    let fields = fields.iter().map(|name| FieldEntry::Named(**name, bits)).collect();
    let (lock, update) = (FieldLockRule::NoLock, FieldUpdateRule::WriteAsZeroes);
    Field::new(Path::new(name), access, lock, update, fields)
}

/// The PIIX3's routing registers.
fn isa(body: &mut Vec<u8>) {
    let address = Name::new("_ADR".into(), &0x0001_0000u32);
    let first = u8::try_from(ROUTES).unwrap_or(0);
    let region = OpRegion::new("PRQR".into(), OpRegionSpace::PCIConfig, &first, &4u8);
    let names = [b"PRQ0", b"PRQ1", b"PRQ2", b"PRQ3"];
    let fields = field("PRQR", FieldAccessType::Byte, &names, 8);
    Device::new("ISA_".into(), vec![&address, &region, &fields]).to_aml_bytes(body);
}

/// The registers of hot-plug, and a lock around their use.
fn registers(body: &mut Vec<u8>) {
    let port = u16::try_from(hotplug::PORT).unwrap_or(0);
    let size = u8::try_from(hotplug::SIZE).unwrap_or(0);
    OpRegion::new("HPRG".into(), OpRegionSpace::SystemIO, &port, &size).to_aml_bytes(body);
    let names = [b"PCIU", b"PCID", b"B0EJ", b"PCIR", b"BNUM"];
    field("HPRG", FieldAccessType::DWord, &names, 32).to_aml_bytes(body);
    Mutex::new("BLCK".into(), 0).to_aml_bytes(body);
    // Nothing else may be put there.
    let (hid, uid) = (EISAName::new("PNP0A06"), "PCI hot-plug");
    let (hid, uid) = (Name::new("_HID".into(), &hid), Name::new("_UID".into(), &uid));
    let ports = IO::new(port, port, 1, size);
    let ports = ResourceTemplate::new(vec![&ports]);
    let ports = Name::new("_CRS".into(), &ports);
    let status = Name::new("_STA".into(), &0x0bu8);
    Device::new("PHPR".into(), vec![&hid, &uid, &status, &ports]).to_aml_bytes(body);
}

/// The name of a slot's first function, or of another one, among the devices of a bus.
fn device_name(address: Address) -> String {
    match address.function() {
        0 => format!("S{:02X}_", address.slot()),
        function => format!("S{:02X}{function}", address.slot()),
    }
}

fn slot_name(slot: u8) -> Path {
    Path::new(&device_name(Address::new(slot, 0)))
}

fn lock() -> (Acquire, Release) {
    (Acquire::new("BLCK".into(), 0xffff), Release::new("BLCK".into()))
}

/// What lets a slot's device go. Arg0: the number of the bus; Arg1: the slot.
fn ejection(body: &mut Vec<u8>) {
    let select: Path = "BNUM".into();
    let select = Store::new(&select, &Arg(0));
    let (acquire, release) = lock();
    let bit = ShiftLeft::new(&Local(0), &ONE, &Arg(1));
    let eject: Path = "B0EJ".into();
    let eject = Store::new(&eject, &Local(0));
    let steps: Vec<&dyn Aml> = vec![&acquire, &select, &bit, &eject, &release];
    Method::new("PCEJ".into(), 2, true, steps).to_aml_bytes(body);
}

/// The slots of a bus, and what looks for news of them.
fn slots(body: &mut Vec<u8>, number: u8, slots: Range<u8>) {
    for slot in slots.clone() {
        let address = Name::new("_ADR".into(), &(u32::from(slot) << 16));
        let shown = Name::new("_SUN".into(), &slot);
        let eject = MethodCall::new("PCEJ".into(), vec![&number, &slot]);
        let eject = Method::new("_EJ0".into(), 1, false, vec![&eject]);
        Device::new(slot_name(slot), vec![&address, &shown, &eject]).to_aml_bytes(body);
    }
    // Arg0: a bit for each slot; Arg1: what is told.
    let mut cases = Vec::new();
    for slot in slots {
        let bit = 1u32.checked_shl(slot.into()).unwrap_or(0);
        let name = slot_name(slot);
        let tell = Notify::new(&name, &Arg(1));
        let is = And::new(&ZERO, &Arg(0), &bit);
        If::new(&is, vec![&tell]).to_aml_bytes(&mut cases);
    }
    Method::new("DVNT".into(), 2, false, vec![&Raw(cases)]).to_aml_bytes(body);
    let select: Path = "BNUM".into();
    let select = Store::new(&select, &number);
    let (up, down): (Path, Path) = ("PCIU".into(), "PCID".into());
    let (to_0, to_1) = (Store::new(&Local(0), &up), Store::new(&Local(1), &down));
    let came = MethodCall::new("DVNT".into(), vec![&Local(0), &DEVICE_CHECK]);
    let goes = MethodCall::new("DVNT".into(), vec![&Local(1), &EJECT_REQUEST]);
    let (acquire, release) = lock();
    let steps: Vec<&dyn Aml> = vec![&acquire, &select, &to_0, &to_1, &release, &came, &goes];
    Method::new("PCNT".into(), 0, true, steps).to_aml_bytes(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    const APERTURES: Apertures = Apertures {
        io: (0xc000, 0xffff),
        memory: (0xc000_0000, 0xfebf_ffff),
        high: (0x1_0000_0000, 0x8_ffff_ffff),
    };

    fn has(aml: &[u8], part: &[u8]) -> bool {
        aml.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn lengths_of_packages_include_themselves() {
        assert_eq!(package(&[7], 1), [0x12, 3, 1, 7]);
        for (count, head) in [(61, vec![0x12, 63]), (62, vec![0x12, 0x41, 4])] {
            let made = package(&vec![0; count], 0);
            assert!(made.starts_with(&head), "{count}");
        }
        let made = package(&vec![0; 5000], 0);
        assert_eq!(made.len(), 5005);
        let length =
            usize::from(made[1] & 0xf) | usize::from(made[2]) << 4 | usize::from(made[3]) << 12;
        assert_eq!(length, 5004);
    }

    #[test]
    fn the_bus_has_its_resources_slots_and_routes() {
        let aml = bus(&APERTURES);
        for name in ["LNKA", "LNKD", "LNKS", "PCI0", "S02_", "S1F_", "PCNT", "PRQ3", "_PRT"] {
            assert!(has(&aml, name.as_bytes()), "{name}");
        }
        assert!(!has(&aml, b"S01_"), "the chipset stays");
        // Slot 3, pin A: link C.
        assert!(
            has(&aml, b"\x0c\xff\xff\x03\x00\x00LNKC\x00")
                || has(&aml, b"\xff\xff\x03\x00\x0a\x00LNKC\x00")
        );
        assert!(has(&aml, &0x8_ffff_ffffu64.to_le_bytes()));
        assert!(has(&aml, &0xfebf_ffffu32.to_le_bytes()));
        assert!(has(&event(&[]), b"_E01"));
    }

    #[test]
    fn buses_behind_bridges_have_slots_too() {
        let first = Bridge { path: vec![Address::new(3, 0)], number: 1 };
        let second = Bridge { path: vec![Address::new(3, 0), Address::new(0x1e, 2)], number: 2 };
        let bridges = [first, second];
        let aml = behind(&bridges);
        // The scopes; a function besides the first is made a device before.
        assert!(has(&aml, b"\\\x2f\x03_SB_PCI0S03_"));
        assert!(has(&aml, b"\\\x2f\x04_SB_PCI0S03_S1E2"));
        assert!(has(&aml, b"S1E2\x08_ADR\x0c\x02\x00\x1e\x00"));
        assert_eq!(aml.windows(4).filter(|name| name == b"PCNT").count(), 2);
        let event = event(&bridges);
        assert!(has(&event, b"PCI0S03_PCNT") && has(&event, b"S03_S1E2PCNT"));
        // So many fit into the space for tables, with all else.
        assert!(aml.len() < 2 * 3000, "{}", aml.len());
    }
}
