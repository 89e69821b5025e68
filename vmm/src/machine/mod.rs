//! Machines: a file for each, which puts parts together, and what they have in common.
//!
//! A machine is built on the main thread before anything runs. What it adds to the address spaces
//! stays; nothing hostile is near yet but the images to be booted, which [`crate::boot`] checks.

use std::sync::Arc;

use devices::acpi::cpu::CpuHotplug;
use devices::acpi::gpe::{self, Gpe};
use devices::acpi::pci_aml;
use devices::acpi::pm::Pm;
use devices::acpi::tables::{self, Tables};
use devices::isa::rtc::Rtc;
use resources::clock::Clock;
use resources::device::DeviceCell;
use resources::hv::fake::Fake;
use resources::hv::kvm::{KvmVm, WIRED_GSIS};
use resources::hv::{Hypervisor, SpaceKind};
use resources::irq::{Routes, Wire};
use resources::nearest::nearest;
use resources::ram::{GuestMemory, Ram, RamBlock};
use resources::request::WakeReason;
use resources::space::Space;

use self::bus::{Bus, Plugged};
use crate::boot::firmware::Firmware;
use crate::boot::layout::{self, RamLayout};
use crate::boot::{self, BootSource};
use crate::cpu::setup::Entry;
use crate::objects::memory::MemoryBackend;

pub mod bus;
pub mod kvm_chips;
pub mod pc;
pub mod pci;
mod wake;

/// A kind of machine.
#[derive(Debug)]
pub struct Machine {
    /// Its name.
    pub name: &'static str,
    /// Another name for it.
    pub alias: Option<&'static str>,
    /// One line for `-machine help`.
    pub description: &'static str,
    /// The most processors it takes.
    pub max_cpus: u32,
    /// What it is made of.
    pub kind: Kind,
}

/// What a machine is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`pc`].
    Pc,
    /// Nothing: no guest, for managing disks alone.
    None,
}

/// All machines; the first is the default.
pub const MACHINES: &[Machine] = &[
    Machine {
        name: "pc-i440fx-2.0",
        alias: Some("pc"),
        description: "PC (i440FX + PIIX)",
        max_cpus: 255,
        kind: Kind::Pc,
    },
    Machine {
        name: "none",
        alias: None,
        description: "no guest: for managing disks alone",
        max_cpus: 1,
        kind: Kind::None,
    },
];

/// Finds a machine by name or alias; the default one without a name.
///
/// # Errors
/// Names what was asked for and the nearest machine there is.
pub fn find(name: Option<&str>) -> Result<&'static Machine, String> {
    let (Some(default), Some(name)) = (MACHINES.first(), name) else { return Ok(&MACHINES[0]) };
    let names = || MACHINES.iter().flat_map(|machine| [Some(machine.name), machine.alias]);
    MACHINES.iter().find(|m| m.name == name || m.alias == Some(name)).ok_or_else(|| {
        let near = nearest(name, names().flatten());
        let near = near.or(default.alias).unwrap_or(default.name);
        format!("{name}: unsupported machine type (did you mean '{near}'?)")
    })
}

/// The text of `-machine help`.
pub fn help_text() -> String {
    let mut text = String::from("Supported machines are:\n");
    for (index, machine) in MACHINES.iter().enumerate() {
        let Machine { name, description, .. } = machine;
        let default = if index == 0 { " (default)" } else { "" };
        if let Some(alias) = machine.alias {
            text.push_str(&format!("{alias:<20} {description} (alias of {name})\n"));
        }
        text.push_str(&format!("{name:<20} {description}{default}\n"));
    }
    text
}

/// What runs the guest.
#[derive(Clone)]
pub enum Accel {
    /// KVM.
    Kvm(Arc<KvmVm>),
    /// Nothing: the debug port drives the devices.
    Qtest(Arc<Fake>),
}

impl Accel {
    /// The calls the board makes.
    pub fn hypervisor(&self) -> Arc<dyn Hypervisor> {
        match self {
            Accel::Kvm(vm) => vm.clone(),
            Accel::Qtest(fake) => fake.clone(),
        }
    }
}

/// Everything the guest sees but its processors.
pub struct Board {
    /// The name of the machine.
    pub machine: &'static str,
    /// The name of the processors' model.
    pub cpu_model: String,
    /// What runs the guest.
    pub accel: Accel,
    /// Guest-physical memory.
    pub memory: Arc<Space>,
    /// I/O ports.
    pub ports: Arc<Space>,
    /// Main memory; none in machine `none`.
    pub ram: Option<Ram>,
    /// The object that it is of, which is so in use.
    pub ram_backend: Option<Arc<MemoryBackend>>,
    /// Memory that holds firmware, by its name in saved state.
    pub roms: Vec<(&'static str, Arc<RamBlock>)>,
    /// Virtual time.
    pub clock: Arc<Clock>,
    /// Every device, in plug order.
    pub devices: Vec<Plugged>,
    /// What they sit on, the system bus first.
    pub buses: Vec<Bus>,
    /// How many devices without an id there have been.
    pub anonymous: u32,
    /// The wired interrupts, by GSI.
    pub wires: Vec<Arc<Wire>>,
    /// Where message-signalled interrupts come from.
    pub routes: Arc<Routes>,
    /// The PCI bus; none in machine `none`.
    pub pci: Option<pci::Pci>,
    /// The ACPI power management block, for the power button.
    pub pm: Option<Arc<DeviceCell<Pm>>>,
    /// The real-time clock, whose RAM tells firmware of the machine.
    pub rtc: Option<Arc<DeviceCell<Rtc>>>,
    /// By what processors are added.
    pub cpus: Option<Arc<DeviceCell<CpuHotplug>>>,
    /// The place for the one balloon.
    pub balloon: Arc<devices::virtio::balloon::Slot>,
    /// What is booted.
    pub boot: Boot,
    /// What the ACPI tables say, which are written at each reset; none if firmware brings its own.
    pub acpi: Option<tables::Config>,
    /// The general purpose events of ACPI.
    pub gpe: Option<Arc<Gpe>>,
    /// What of the images is not in RAM yet.
    pub contents: boot::Contents,
    /// Guest RAM still reads as zero wherever nothing was loaded.
    pub fresh: bool,
}

/// What a machine boots.
pub enum Boot {
    /// Nothing: the processors stay at the reset vector with no memory behind it.
    Nothing,
    /// A kernel, loaded into RAM at each reset.
    Kernel(BootSource),
    /// Firmware, mapped below 4 GiB and run from the reset vector.
    Firmware(Firmware),
}

impl Board {
    /// An empty board.
    pub fn new(accel: Accel) -> Board {
        let hv = accel.hypervisor();
        Board {
            memory: Space::new(SpaceKind::Memory, hv.clone()),
            ports: Space::new(SpaceKind::Ports, hv.clone()),
            routes: Routes::new(hv, WIRED_GSIS),
            clock: match &accel {
                Accel::Kvm(_) => Clock::new(),
                Accel::Qtest(_) => Clock::stepped(),
            },
            accel,
            machine: "none",
            cpu_model: String::new(),
            ram: None,
            ram_backend: None,
            roms: Vec::new(),
            devices: Vec::new(),
            buses: vec![Bus::new(bus::SYSTEM_BUS, "System", None)],
            anonymous: 0,
            wires: Vec::new(),
            pci: None,
            pm: None,
            boot: Boot::Nothing,
            contents: boot::Contents::default(),
            acpi: None,
            gpe: None,
            rtc: None,
            balloon: Arc::default(),
            cpus: None,
            fresh: true,
        }
    }

    /// The DMA view of guest memory; empty without RAM.
    pub fn guest_memory(&self) -> GuestMemory {
        self.ram.as_ref().map(|ram| ram.memory().clone()).unwrap_or_default()
    }

    /// Every device has loaded its state: without an interrupt controller that has a state of its
    /// own, the interrupts follow the devices' lines.
    pub fn loaded(&self) {
        if let Accel::Qtest(fake) = &self.accel {
            for wire in &self.wires {
                let _ = fake.set_line(wire.gsi(), wire.level());
            }
        }
    }

    /// A processor has come: tells the guest, which may be running.
    pub fn processor_came(&mut self, index: usize) {
        if let Some(described) = self.acpi.as_mut().and_then(|acpi| acpi.processors.get_mut(index))
        {
            described.present = true;
        }
        if let (Some(cpus), Some(gpe)) = (&self.cpus, &self.gpe) {
            cpus.lock().add(index);
            let count = cpus.lock().count();
            if let Some(rtc) = &self.rtc {
                rtc.lock().set_processors(count);
            }
            gpe.raise(gpe::CPU_HOTPLUG);
        }
    }

    /// Presses the power button, if there is one.
    pub fn power_button(&self) {
        if let Some(pm) = &self.pm {
            pm.lock().power_button();
        }
    }

    /// Presses the sleep button, if there is one.
    pub fn sleep_button(&self) {
        if let Some(pm) = &self.pm {
            pm.lock().sleep_button();
        }
    }

    /// The guest goes to sleep in S3.
    pub fn sleep(&self) {
        self.note_sleep(true);
    }

    /// Whether the guest wants to be woken for this reason.
    pub fn wakes_by(&self, reason: WakeReason) -> bool {
        self.pm.as_ref().is_none_or(|pm| pm.lock().wakes_by(reason))
    }

    /// Lets the guest read why it woke up, and tells it of what came meanwhile.
    pub fn wake(&self, reason: WakeReason) {
        if let Some(pm) = &self.pm {
            pm.lock().wake(reason);
        }
        if let (Some(cpus), Some(gpe)) = (&self.cpus, &self.gpe)
            && cpus.lock().has_news()
        {
            gpe.raise(gpe::CPU_HOTPLUG);
        }
    }

    /// Notes where firmware looks for it whether the guest sleeps.
    fn note_sleep(&self, asleep: bool) {
        if let Some(rtc) = &self.rtc {
            rtc.lock().set_sleeping(asleep);
        }
    }

    /// Where the boot processor starts when the guest wakes up. `None`: the guest has not said, or
    /// nothing that can be; it is to start as at power-on.
    pub fn waking_entry(&self) -> Option<Entry> {
        if let Boot::Firmware(_) = &self.boot {
            return Some(Entry::Reset);
        }
        wake::entry(&self.guest_memory(), self.tables()?.facs.into())
    }

    /// The ACPI tables of the machine as it is now.
    pub fn tables(&self) -> Option<Tables> {
        let mut config = self.acpi.clone()?;
        if let Some(pci) = &self.pci {
            config.devices.extend(pci_aml::behind(&pci.bridges));
            config.events.extend(pci_aml::event(&pci.bridges));
        }
        Some(tables::build(&config, layout::ACPI_RSDP as u32))
    }

    /// Puts the tables into RAM and finds a place there for what is to be booted, which
    /// [`fill`](Self::fill) copies; returns where the boot processor starts, if anything is booted.
    ///
    /// # Errors
    /// When an image cannot be read or does not fit.
    pub fn load(&mut self) -> Result<Option<Entry>, boot::Error> {
        self.place_functions();
        self.renew_hotplug();
        self.note_sleep(false);
        if let Some(cpus) = &self.cpus {
            cpus.lock().forget_news();
        }
        let Some(ram) = &self.ram else { return Ok(None) };
        let fresh = std::mem::take(&mut self.fresh);
        let rsdp = self.tables().map(|tables| {
            let rsdp = u64::from(tables.rsdp);
            if let Some(range) = ram.ranges().first() {
                range.block.write(rsdp.saturating_sub(range.guest), &tables.bytes);
            }
            rsdp
        });
        match &self.boot {
            Boot::Nothing => Ok(None),
            Boot::Firmware(_) => Ok(Some(Entry::Reset)),
            Boot::Kernel(source) => {
                let layout = RamLayout::of_size(ram.size());
                let target = boot::Target { mem: ram.memory(), layout, rsdp, zeroed: fresh };
                let (entry, contents) = source.load(&target)?;
                self.contents = contents;
                Ok(Some(entry))
            }
        }
    }

    /// Copies what is to be booted into RAM, unless that was done since the last
    /// [`load`](Self::load): to be called before the guest runs or anyone looks at its memory.
    ///
    /// # Errors
    /// When an image cannot be read, or has become shorter.
    pub fn fill(&mut self) -> Result<(), boot::Error> {
        match &self.ram {
            Some(ram) if !self.contents.is_empty() => self.contents.fill(ram.memory()),
            _ => Ok(()),
        }
    }
}
