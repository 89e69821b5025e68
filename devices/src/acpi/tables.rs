//! The ACPI tables of a PC (ACPI specification 6.5, chapter 5), as one block for guest memory.
//!
//! RSDP, RSDT, XSDT, FADT, FACS, MADT and a DSDT with the ISA devices. Built by the main thread at
//! each reset from the machine's own description; nothing hostile reaches it, and no guest can
//! make the host read it back.

use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Name, Package, Path, ResourceTemplate, Scope,
};
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};

use super::cpu_aml;
use super::pm::{self, SCI, SLEEP_S5, Sleeps};
use crate::isa::reset_control;

const OEM_ID: [u8; 6] = *b"VMM   ";
const OEM_TABLE_ID: [u8; 8] = *b"VMMPC   ";
const OEM_REVISION: u32 = 1;

/// Size of a table's common header.
const HEADER: u32 = 36;
/// Size of the root pointer.
const RSDP_SIZE: usize = 36;

/// Ports of the fixed hardware, which have 16 bits.
const EVENT: u32 = PM + pm::PM1_EVENT;
const CONTROL: u32 = PM + pm::PM1_CONTROL;
const TIMER: u32 = PM + pm::PM_TIMER;
const GPE: u32 = port_number(pm::GPE_PORT);
const GPE_LENGTH: u8 = (pm::GPE_SIZE & 0xff) as u8;
const PM: u32 = port_number(pm::BLOCK_PORT);
const SMI: u32 = port_number(pm::SMI_PORT);
const RESET: u32 = port_number(reset_control::PORT);

const fn port_number(port: u64) -> u32 {
    (port & 0xffff) as u32
}

/// Where every local APIC is.
const LOCAL_APIC: u32 = 0xfee0_0000;
/// Interrupt sources with polarity and trigger (MPS INTI flags): as the ISA bus has them, and
/// active high, level.
const INTI_BUS: u16 = 0x0;
const INTI_HIGH_LEVEL: u16 = 0xd;

/// The type of entry for processors whose numbers do not fit a byte.
const LOCAL_X2APIC: u8 = 9;

/// A processor that the machine has or may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processor {
    /// Its local APIC's id.
    pub apic_id: u32,
    /// There; otherwise it can be added later.
    pub present: bool,
}

/// A serial port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SerialPort {
    /// Number from 1: COM1.
    pub number: u8,
    /// Base port, 16 bits.
    pub port: u64,
    /// ISA interrupt.
    pub irq: u32,
}

/// What the tables describe.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// All processors up to the most the machine may have, the boot processor first.
    pub processors: Vec<Processor>,
    /// The I/O APIC's id and address.
    pub ioapic: (u8, u32),
    /// The serial ports.
    pub serial: Vec<SerialPort>,
    /// There is a keyboard controller.
    pub i8042: bool,
    /// There is a VGA-compatible display.
    pub vga: bool,
    /// What the machine can sleep by.
    pub sleeps: Sleeps,
    /// The interrupts that PCI devices share.
    pub shared: Vec<u8>,
    /// AML of more devices, such as a PCI bus, to be put into scope `\_SB`.
    pub devices: Vec<u8>,
    /// AML of the methods `_Exx` that general purpose events run, to be put into scope `\_GPE`.
    pub events: Vec<u8>,
}

/// The finished tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// Guest address of the root pointer (RSDP).
    pub rsdp: u32,
    /// Guest address of the FACS, in which the guest says where it wakes up.
    pub facs: u32,
    /// What to write to guest memory from [`rsdp`](Self::rsdp) on.
    pub bytes: Vec<u8>,
}

/// Builds the tables for guest address `at`, which begins with the root pointer. A guest that is
/// given no pointer searches 0xe0000 to 0xfffff at multiples of 16.
///
/// `at` is a multiple of 64 and leaves room below 4 GiB: a few hundred bytes, and 100 more for
/// each processor.
pub fn build(config: &Config, at: u32) -> Tables {
    let mut block = Block { at, bytes: vec![0; RSDP_SIZE] };
    let mut facs = FACS::new();
    // Who wakes up can do so in 64-bit mode (version 2, 64BIT_WAKE_SUPPORTED_F).
    (facs.version, facs.flags) = (2, 2.into());
    let facs = block.place(&bytes_of(&facs));
    let dsdt = block.place(dsdt(config).as_slice());
    let fadt = block.place(&bytes_of(&fadt(config, facs, dsdt)));
    let madt = block.place(madt(config).as_slice());
    let tables = [fadt, madt];
    let short: Vec<u8> = tables.iter().flat_map(|address| address.to_le_bytes()).collect();
    let long: Vec<u8> =
        tables.iter().flat_map(|address| u64::from(*address).to_le_bytes()).collect();
    let rsdt = block.place(table(*b"RSDT", 1, &short).as_slice());
    let xsdt = block.place(table(*b"XSDT", 1, &long).as_slice());
    let mut bytes = block.bytes;
    bytes.splice(..RSDP_SIZE, rsdp(rsdt, xsdt));
    Tables { rsdp: at, facs, bytes }
}

/// Tables one after the other.
struct Block {
    at: u32,
    bytes: Vec<u8>,
}

impl Block {
    /// Adds a table and returns its guest address, a multiple of 64, as the FACS needs it.
    fn place(&mut self, table: &[u8]) -> u32 {
        self.bytes.resize(self.bytes.len().next_multiple_of(64), 0);
        let offset = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes.extend(table);
        self.at.saturating_add(offset)
    }
}

fn bytes_of(aml: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    aml.to_aml_bytes(&mut bytes);
    bytes
}

fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Sdt {
    let mut table = Sdt::new(signature, HEADER, revision, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(body);
    table
}

/// The byte that makes the sum of all zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

/// The root pointer. Its first 20 bytes, the first version, have a checksum of their own.
fn rsdp(rsdt: u32, xsdt: u32) -> Vec<u8> {
    let first = |sum: u8| {
        let mut bytes = b"RSD PTR ".to_vec();
        bytes.push(sum);
        bytes.extend(OEM_ID);
        bytes.push(2);
        bytes.extend(rsdt.to_le_bytes());
        bytes
    };
    let whole = |sum: u8| {
        let mut bytes = first(checksum(&first(0)));
        bytes.extend(HEADER.to_le_bytes());
        bytes.extend(u64::from(xsdt).to_le_bytes());
        bytes.extend([sum, 0, 0, 0]);
        bytes
    };
    whole(checksum(&whole(0)))
}

fn port(address: u32, bytes: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bytes.saturating_mul(8), 0, access, u64::from(address))
}

fn fadt(config: &Config, facs: u32, dsdt: u32) -> impl Aml {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .preferred_pm_profile(PmProfile::Unspecified)
        .firmware_ctrl_32(facs)
        .dsdt_32(dsdt)
        .flag(Flags::Wbinvd)
        // Both buttons are fixed hardware (flags clear), as is waking by the clock.
        .flag(Flags::ProcC1)
        .flag(Flags::ResetRegSup);
    fadt.x_dsdt = u64::from(dsdt).into();
    fadt.sci_int = u16::from(SCI).into();
    fadt.smi_cmd = SMI.into();
    fadt.acpi_enable = pm::ACPI_ENABLE;
    fadt.acpi_disable = pm::ACPI_DISABLE;
    fadt.pm1a_evt_blk = EVENT.into();
    fadt.pm1a_cnt_blk = CONTROL.into();
    fadt.pm_tmr_blk = TIMER.into();
    fadt.gpe0_blk = GPE.into();
    fadt.pm1_evt_len = 4;
    fadt.pm1_cnt_len = 2;
    fadt.pm_tmr_len = 4;
    fadt.gpe0_blk_len = GPE_LENGTH;
    fadt.x_pm1a_evt_blk = port(EVENT, 4, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = port(CONTROL, 2, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = port(TIMER, 4, AccessSize::DwordAccess);
    fadt.x_gpe0_blk = port(GPE, GPE_LENGTH, AccessSize::ByteAccess);
    // No C2 and no C3: latencies above what the specification allows for them.
    fadt.p_lvl2_lat = 101.into();
    fadt.p_lvl3_lat = 1001.into();
    fadt.century = 0x32;
    // Legacy devices; keyboard controller; no VGA. A real-time clock is always there.
    let boot = 1 | if config.i8042 { 2 } else { 0 } | if config.vga { 0 } else { 4 };
    fadt.iapc_boot_arch = boot.into();
    fadt.reset_reg = port(RESET, 1, AccessSize::ByteAccess);
    fadt.reset_value = reset_control::RESET_VALUE;
    fadt.finalize()
}

/// The entry of a processor's local APIC: enabled, or able to be enabled while running.
pub(super) fn local_apic(uid: u32, apic_id: u32, enabled: bool) -> Vec<u8> {
    let flags = if enabled { 1u32 } else { 2 }.to_le_bytes();
    match (u8::try_from(uid), u8::try_from(apic_id)) {
        // An id of 255 addresses all.
        (Ok(uid), Ok(id)) if id < 255 && uid < 255 => [&[0, 8, uid, id][..], &flags].concat(),
        _ => [&[LOCAL_X2APIC, 16, 0, 0][..], &apic_id.to_le_bytes(), &flags, &uid.to_le_bytes()]
            .concat(),
    }
}

fn madt(config: &Config) -> Sdt {
    let mut body = LOCAL_APIC.to_le_bytes().to_vec();
    // There are also two 8259 interrupt controllers.
    body.dword(1);
    let mut far = false;
    for (uid, processor) in (0u32..).zip(&config.processors) {
        let entry = local_apic(uid, processor.apic_id, processor.present);
        far |= entry.first() == Some(&LOCAL_X2APIC);
        body.extend(entry);
    }
    let (id, address) = config.ioapic;
    body.extend([1, 12, id, 0]);
    body.dword(address);
    body.dword(0);
    // The timer's ISA interrupt 0 arrives at pin 2, and the SCI is a level.
    let overrides = [(0, 2, INTI_BUS), (SCI, u32::from(SCI), INTI_HIGH_LEVEL)];
    // So are those that PCI devices share.
    let shared = config.shared.iter().map(|irq| (*irq, u32::from(*irq), INTI_HIGH_LEVEL));
    for (irq, gsi, flags) in overrides.into_iter().chain(shared) {
        body.extend([2, 10, 0, irq]);
        body.dword(gsi);
        body.word(flags);
    }
    // The non-maskable interrupt is at pin LINT1 of all local APICs.
    body.extend([4, 6, 0xff, 0, 0, 1]);
    if far {
        body.extend([0xa, 12, 0, 0]);
        body.dword(u32::MAX);
        body.extend([1, 0, 0, 0]);
    }
    table(*b"APIC", 5, &body)
}

fn dsdt(config: &Config) -> Sdt {
    let mut devices = Vec::new();
    for serial in config.serial.iter().filter(|serial| (1..=9).contains(&serial.number)) {
        isa_device(
            &mut devices,
            &Isa {
                path: &format!("COM{}", serial.number),
                id: "PNP0501",
                uid: serial.number,
                ports: &[(serial.port, 8)],
                irq: Some(serial.irq),
            },
        );
    }
    let isa = |devices: &mut Vec<u8>, path, id, ports: &[(u64, u8)], irq| {
        isa_device(devices, &Isa { path, id, uid: 0, ports, irq });
    };
    isa(&mut devices, "RTC_", "PNP0B00", &[(0x70, 2)], Some(8));
    if config.i8042 {
        isa(&mut devices, "KBD_", "PNP0303", &[(0x60, 1), (0x64, 1)], Some(1));
        isa(&mut devices, "MOU_", "PNP0F13", &[], Some(12));
    }
    devices.extend(cpu_aml::container(&config.processors));
    devices.extend(&config.devices);

    let mut body = Scope::raw(Path::new("_SB_"), devices);
    body.extend(Scope::raw(Path::new("_GPE"), [cpu_aml::event(), config.events.clone()].concat()));
    let Sleeps { s3, s4 } = config.sleeps;
    let sleeps = [("_S3_", s3.then_some(pm::SLEEP_S3)), ("_S4_", s4), ("_S5_", Some(SLEEP_S5))];
    for (name, kind) in sleeps.into_iter().filter_map(|(name, kind)| Some((name, kind?))) {
        let package = Package::new(vec![&kind, &kind, &0u8, &0u8]);
        Name::new(name.into(), &package).to_aml_bytes(&mut body);
    }
    table(*b"DSDT", 2, &body)
}

struct Isa<'a> {
    path: &'a str,
    id: &'a str,
    /// 0 for the only one of its kind.
    uid: u8,
    /// First port and count.
    ports: &'a [(u64, u8)],
    irq: Option<u32>,
}

fn isa_device(sink: &mut Vec<u8>, isa: &Isa) {
    let id = EISAName::new(isa.id);
    let hid = Name::new("_HID".into(), &id);
    let uid = Name::new("_UID".into(), &isa.uid);
    let ports = isa.ports.iter().filter_map(|(first, count)| {
        let first = u16::try_from(*first).ok()?;
        Some(IO::new(first, first, 1, *count))
    });
    let ports: Vec<IO> = ports.collect();
    // Edge triggered, active high, not shared.
    let irq = isa.irq.map(|irq| Interrupt::new(true, true, false, false, irq));
    let mut resources: Vec<&dyn Aml> = ports.iter().map(|port| port as &dyn Aml).collect();
    resources.extend(irq.iter().map(|irq| irq as &dyn Aml));
    let resources = ResourceTemplate::new(resources);
    let crs = Name::new("_CRS".into(), &resources);
    let mut children: Vec<&dyn Aml> = vec![&hid, &crs];
    if isa.uid != 0 {
        children.push(&uid);
    }
    Device::new(Path::new(isa.path), children).to_aml_bytes(sink);
}

#[cfg(test)]
mod tests;
