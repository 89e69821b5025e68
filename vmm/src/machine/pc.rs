//! Machine `pc`: an i440FX-like port and memory map.
//!
//! | where | what |
//! |---|---|
//! | memory 0 .. RAM or 3 GiB, from 4 GiB on | RAM |
//! | memory 0xE0000 .. 1 MiB | ACPI tables, or the end of the firmware |
//! | memory below 4 GiB | firmware |
//! | ports 0x20, 0x40, 0xa0, 0x4d0; memory 0xFEC00000, 0xFEE00000 | KVM's PIC, PIT, IOAPIC, APICs |
//! | ports 0x60, 0x64 | i8042 |
//! | port 0x70 | RTC and CMOS |
//! | port 0x80; 0xe9 and 0x402 | POST code; debug console |
//! | port 0x92, 0xcf9 | A20 and reset |
//! | ports 0xcf8 to 0xcff | PCI configuration |
//! | ports 0x2e8, 0x2f8, 0x3e8, 0x3f8 | COM4, COM2, COM3, COM1 |
//! | ports 0xb2, 0x600, 0xafe0 | ACPI |
//! | port 0xae00 | adding and removing PCI devices |
//! | port 0xaf00 | adding processors |
//! | ports 0xc000 on; memory up to 0xFEC00000 and above RAM | PCI devices |
//!
//! Main thread, before the guest runs.

use std::sync::Arc;

use devices::acpi::cpu::{self, CpuHotplug};
use devices::acpi::gpe::Gpe;
use devices::acpi::pci_aml;
use devices::acpi::pm::{self, Pm};
use devices::acpi::tables::{self, Processor, SerialPort};
use devices::chardev::Chardev;
use devices::class::Ctx;
use devices::isa::NullBackend;
use devices::isa::debug::{DebugCon, PostCode};
use devices::isa::i8042::{self, I8042};
use devices::isa::port92::{self, Port92};
use devices::isa::reset_control::ResetControl;
use devices::isa::rtc::{self, Rtc};
use devices::isa::serial::{self, Serial};
use devices::pci::i440fx;
use devices::pci::piix::Piix4Pm;
use resources::class::Class;
use resources::device::{Device, DeviceCell, DeviceRef};
use resources::hv::kvm::WIRED_GSIS;
use resources::irq::{Irq, Wire};
use resources::props::Overrides;
use resources::ram::{Ram, RamBlock};
use resources::request::Requests;
use resources::space::{Mapping, SpaceError, Target};

use super::bus::{Plugged, SYSTEM_BUS};
use super::kvm_chips::KvmChips;
use super::{Accel, Board, Boot, pci};
use crate::boot::layout;
use crate::cpu::topology::Topology;

/// The bus of the devices at traditional ports.
pub const ISA_BUS: &str = "isa.0";

/// What a `pc` is made of.
pub struct PcConfig<'a> {
    /// Main memory.
    pub ram: Ram,
    /// The processors.
    pub topology: &'a Topology,
    /// COM1 and on.
    pub serials: Vec<Arc<Chardev>>,
    /// The debug console at ports 0xe9 and 0x402.
    pub debugcon: Option<Arc<Chardev>>,
    /// The time that the real-time clock shows, and the clock it follows.
    pub rtc: (rtc::Source, i64),
    /// What is booted.
    pub boot: Boot,
    /// Defaults of the parts' properties.
    pub overrides: &'a Overrides,
}

impl PcConfig<'_> {
    /// Nobody but this program prepares the machine for what is booted.
    pub fn without_firmware(&self) -> bool {
        !matches!(self.boot, Boot::Firmware(_))
    }
}

/// A board could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// An address range does not fit, or KVM refused it.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// KVM did not give the state of its chips.
    #[error(transparent)]
    Chips(#[from] resources::state::StateError),
    /// Host memory.
    #[error(transparent)]
    Ram(#[from] resources::ram::RamError),
    /// A property that a device's class does not take.
    #[error(transparent)]
    Prop(#[from] resources::props::PropError),
    /// A function of the chipset.
    #[error(transparent)]
    Create(#[from] resources::class::CreateError),
    /// A chardev is used twice.
    #[error(transparent)]
    Chardev(#[from] devices::chardev::CharError),
}

/// Puts a `pc` together.
///
/// # Errors
/// When KVM refuses a part of it.
pub fn build(accel: Accel, config: PcConfig, requests: &Requests) -> Result<Board, BuildError> {
    let board = Board::new(accel);
    let (memory, ports) = (board.memory.clone(), board.ports.clone());
    memory.together(|| ports.together(|| fill(board, config, requests)))??
}

fn fill(mut board: Board, config: PcConfig, requests: &Requests) -> Result<Board, BuildError> {
    map_memory(&mut board, &config)?;
    board.wires = (0..WIRED_GSIS).map(|gsi| Wire::new(gsi, board.accel.hypervisor())).collect();
    if let Accel::Kvm(vm) = &board.accel {
        let chips = DeviceCell::new("/machine/kvm-chips", KvmChips::new(vm)?);
        board.devices.push(Plugged::part(chips, &KvmChips::CLASS, SYSTEM_BUS));
    }
    let reset = add_reset(&mut board, requests)?;
    pci::add(&mut board, &config, reset)?;
    add_legacy(&mut board, requests)?;
    add_rtc(&mut board, &config, requests)?;
    for (index, chardev) in config.serials.iter().enumerate() {
        let Some((port, gsi)) = serial::COM.get(index).copied() else { break };
        let path = format!("/machine/serial[{index}]");
        let back_end = Box::new(NullBackend);
        let com = Serial::new(&path, line(&board, gsi), &board.clock, back_end);
        serial::connect(&com, chardev.clone())?;
        add(&mut board, (com, &Serial::CLASS), &[(port, serial::SIZE, 0)])?;
        let (index, port, gsi) = (index.to_string(), port.to_string(), gsi.to_string());
        let chardev = ("chardev", chardev.label());
        tell(&mut board, &[chardev, ("index", &index), ("iobase", &port), ("irq", &gsi)])?;
    }
    if let Some(chardev) = &config.debugcon {
        // Where QEMU has it, and where firmware writes.
        let con = DebugCon::on_chardev("/machine/debugcon", chardev.clone())?;
        let ports = [(0xe9, 1, 0), (DebugCon::PORT, 1, 0)];
        add(&mut board, (con, &DebugCon::CLASS), &ports)?;
        tell(&mut board, &[("chardev", chardev.label())])?;
    }
    add_acpi(&mut board, &config, requests)?;
    board.ram = Some(config.ram);
    board.boot = config.boot;
    Ok(board)
}

fn line(board: &Board, gsi: u32) -> Irq {
    board.wires.get(gsi as usize).map(Wire::line).unwrap_or_default()
}

/// Adds a device and maps its regions: port, size and region number.
pub(super) fn add<D: Device + 'static>(
    board: &mut Board,
    (device, class): (Arc<DeviceCell<D>>, &'static Class<Ctx>),
    regions: &[(u64, u64, u16)],
) -> Result<(), BuildError> {
    let device: DeviceRef = device;
    for (port, size, region) in regions {
        board.ports.map(Mapping::device(*port, *size, device.clone(), *region))?;
    }
    let bus = match class.bus {
        "ISA" => ISA_BUS,
        "PCI" => pci::PCI_BUS,
        _ => SYSTEM_BUS,
    };
    board.devices.push(Plugged::part(device, class, bus));
    Ok(())
}

/// Notes the properties of the device added last, as if it had been made by name.
fn tell(board: &mut Board, given: &[(&str, &str)]) -> Result<(), BuildError> {
    if let Some(last) = board.devices.last_mut() {
        last.props = last.class.props(&Overrides::default(), given.iter().copied())?;
    }
    Ok(())
}

fn map_memory(board: &mut Board, config: &PcConfig) -> Result<(), BuildError> {
    for range in config.ram.ranges() {
        let whole = Mapping::ram(range.guest, range.block.clone());
        // What is between is for the host bridge to show.
        let shown = match range.guest {
            0 => [0..i440fx::SEGMENTS.start, i440fx::SEGMENTS.end..whole.size],
            _ => [0..whole.size, 0..0],
        };
        for part in shown {
            let size = part.end.min(whole.size).saturating_sub(part.start);
            if size > 0 {
                let target =
                    Target::Ram { block: range.block.clone(), offset: part.start, readonly: false };
                let base = range.guest + part.start;
                board.memory.map(Mapping { base, size, target, ..whole.clone() })?;
            }
        }
    }
    if let Boot::Firmware(firmware) = &config.boot {
        let block = RamBlock::from_file(firmware.file(), firmware.size())?;
        board.roms.push(("pc.bios", block.clone()));
        for part in firmware.mappings() {
            let target = Target::Ram { block: block.clone(), offset: part.offset, readonly: true };
            board.memory.map(Mapping {
                base: part.address,
                size: part.len,
                priority: 1,
                target,
                bells: Vec::new(),
                enabled: true,
            })?;
        }
    }
    Ok(())
}

fn add_legacy(board: &mut Board, requests: &Requests) -> Result<(), BuildError> {
    let keyboard = I8042::new("/machine/i8042", line(board, 1), line(board, 12), requests.clone());
    let ports = [(i8042::DATA_PORT, 1, i8042::DATA), (i8042::COMMAND_PORT, 1, i8042::COMMAND)];
    add(board, (keyboard, &I8042::CLASS), &ports)?;
    let post_code = PostCode::new("/machine/post-code");
    add(board, (post_code, &PostCode::CLASS), &[(PostCode::PORT, 1, 0)])?;
    let port92 = Port92::new("/machine/port92", requests.clone());
    add(board, (port92, &Port92::CLASS), &[(port92::PORT, 1, 0)])
}

/// The reset control, which the PCI host bridge's ports lead to.
fn add_reset(board: &mut Board, requests: &Requests) -> Result<DeviceRef, BuildError> {
    let reset = ResetControl::new("/machine/reset-control", requests.clone());
    add(board, (reset.clone(), &ResetControl::CLASS), &[])?;
    Ok(reset)
}

fn add_rtc(board: &mut Board, config: &PcConfig, requests: &Requests) -> Result<(), BuildError> {
    let layout = layout::RamLayout::of_size(config.ram.size());
    let config = rtc::Config {
        source: config.rtc.0,
        base: config.rtc.1,
        ram_low: layout.low,
        ram_high: layout.high,
        processors: config.topology.cpus(),
    };
    let rtc = Rtc::new("/machine/rtc", line(board, 8), &board.clock, requests.clone(), &config);
    board.rtc = Some(rtc.clone());
    add(board, (rtc, &Rtc::CLASS), &[(rtc::PORT, rtc::SIZE, 0)])
}

/// The power management hardware, and the tables that describe the machine.
fn add_acpi(board: &mut Board, config: &PcConfig, requests: &Requests) -> Result<(), BuildError> {
    // Without firmware nobody else switches the hardware to ACPI mode.
    let acpi_mode = config.without_firmware();
    let gpe = Gpe::new(line(board, pm::SCI.into()));
    let sci = (line(board, pm::SCI.into()), gpe.clone());
    let props = Piix4Pm::CLASS.props(config.overrides, [])?;
    let sleeps = Pm::sleeps(&props)?;
    let how = (acpi_mode, sleeps);
    let block = Pm::new("/machine/pm", sci, &board.clock, requests.clone(), how);
    (board.pm, board.gpe) = (Some(block.clone()), Some(gpe));
    let ports = [(pm::GPE_PORT, pm::GPE_SIZE, pm::GPE), (pm::SMI_PORT, pm::SMI_SIZE, pm::SMI)];
    add(board, (block.clone(), &Pm::CLASS), &ports)?;
    pci::add_power_management(board, block, props)?;
    pci::add_hotplug(board, requests)?;
    let topology = config.topology;
    let processors = (0..topology.max_cpus()).map(|index| Processor {
        apic_id: topology.apic_id(index),
        present: index < topology.cpus(),
    });
    let processors: Vec<_> = processors.collect();
    let cpus = CpuHotplug::new("/machine/cpu-hotplug", &processors);
    board.cpus = Some(cpus.clone());
    add(board, (cpus, &CpuHotplug::CLASS), &[(cpu::PORT, cpu::SIZE, 0)])?;
    if acpi_mode {
        let serial = (1..).zip(serial::COM).take(config.serials.len());
        board.acpi = Some(tables::Config {
            processors,
            ioapic: (0, layout::IOAPIC as u32),
            serial: serial.map(|(number, (port, irq))| SerialPort { number, port, irq }).collect(),
            i8042: true,
            shared: pci_aml::INPUTS.to_vec(),
            devices: pci::aml(layout::RamLayout::of_size(config.ram.size())),
            sleeps,
            ..tables::Config::default()
        });
    }
    Ok(())
}
