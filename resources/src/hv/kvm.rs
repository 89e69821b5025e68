//! KVM: opening it, checking what it can do, and the board's calls on it.
//!
//! Callable from any thread; the slot table's lock is a leaf. The guest reaches none of this
//! directly. A kernel that lacks something is reported once, at start, by the name of the
//! capability.
#![expect(unsafe_code, reason = "KVM is told host addresses of guest RAM")]

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, KVM_PIT_SPEAKER_DUMMY,
    KvmIrqRouting, kvm_irq_routing_entry, kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, NoDatamatch, VcpuFd, VmFd};
use parking_lot::Mutex;
use vmm_sys_util::eventfd::EventFd;

use super::{Doorbell, HvError, Hypervisor, Route, Slot, SpaceKind};

mod dirty;

/// The number of IOAPIC pins, and so of wired GSIs.
pub const WIRED_GSIS: u32 = 24;

/// Where KVM puts the three pages of its real-mode TSS, as far below 4 GiB as firmware allows.
const TSS_ADDRESS: usize = 0xfeff_d000;

/// The page of its identity map, just below the TSS.
const IDENTITY_MAP_ADDRESS: u64 = 0xfeff_c000;

/// What this program needs of KVM, with the capability's name in the kernel's documentation.
const NEEDED: &[(Cap, &str)] = &[
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
    (Cap::DestroyMemoryRegionWorks, "KVM_CAP_DESTROY_MEMORY_REGION_WORKS"),
    (Cap::JoinMemoryRegionsWorks, "KVM_CAP_JOIN_MEMORY_REGIONS_WORKS"),
    (Cap::VcpuEvents, "KVM_CAP_VCPU_EVENTS"),
    (Cap::Debugregs, "KVM_CAP_DEBUGREGS"),
    (Cap::Xsave, "KVM_CAP_XSAVE"),
    (Cap::Pit2, "KVM_CAP_PIT2"),
    (Cap::PitState2, "KVM_CAP_PIT_STATE2"),
    (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::SignalMsi, "KVM_CAP_SIGNAL_MSI"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::AdjustClock, "KVM_CAP_ADJUST_CLOCK"),
    (Cap::ReadonlyMem, "KVM_CAP_READONLY_MEM"),
];

/// Why there is no usable KVM. Each message is one line fit for the user.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// The device cannot be opened, or is not KVM.
    #[error("cannot open /dev/kvm: {0}")]
    Open(io::Error),
    /// A kernel from before 2007.
    #[error("/dev/kvm speaks API version {0}, not 12")]
    Version(i32),
    /// The kernel lacks a capability.
    #[error("KVM lacks {0}, which is needed")]
    Missing(&'static str),
    /// Dirty rings of more entries than it makes.
    #[error("KVM makes dirty rings of at most {1} entries, not {0}")]
    Ring(u32, u64),
    /// A call that sets up the machine failed.
    #[error(transparent)]
    Call(#[from] HvError),
}

/// A virtual machine in KVM, with its in-kernel PIC, IOAPIC, local APICs and PIT.
pub struct KvmVm {
    kvm: Kvm,
    vm: VmFd,
    /// The slots as KVM has them; keeps their memory mapped for as long as the guest can see it.
    slots: Mutex<BTreeMap<u32, Slot>>,
    log: dirty::Log,
}

fn failed(what: impl Into<String>) -> impl FnOnce(kvm_ioctls::Error) -> HvError {
    move |error| HvError::new(what, io::Error::from_raw_os_error(error.errno()))
}

impl KvmVm {
    /// Opens KVM and makes a machine with interrupt controllers and timer, but no memory and no
    /// vCPU.
    pub fn new() -> Result<Arc<KvmVm>, KvmError> {
        KvmVm::with_dirty_rings(None)
    }

    /// As [`new`](Self::new), with a ring of so many entries for each vCPU into which KVM puts what
    /// it writes; otherwise there is a bitmap for each slot.
    pub fn with_dirty_rings(entries: Option<u32>) -> Result<Arc<KvmVm>, KvmError> {
        let kvm =
            Kvm::new().map_err(|e| KvmError::Open(io::Error::from_raw_os_error(e.errno())))?;
        match kvm.get_api_version() {
            12 => {}
            // What the system call returned: this device does not know it.
            ..0 => {
                let error = io::Error::from_raw_os_error(libc::ENOTTY);
                return Err(KvmError::Open(error));
            }
            other => return Err(KvmError::Version(other)),
        }
        if let Some((_, name)) = NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
            return Err(KvmError::Missing(name));
        }
        let vm = loop {
            match kvm.create_vm() {
                Ok(vm) => break vm,
                // A signal that arrives while KVM waits for other CPUs interrupts the call.
                Err(error) if error.errno() == libc::EINTR => {}
                Err(error) => return Err(failed("create a virtual machine")(error).into()),
            }
        };
        vm.set_identity_map_address(IDENTITY_MAP_ADDRESS)
            .map_err(failed("place KVM's identity map"))?;
        vm.set_tss_address(TSS_ADDRESS).map_err(failed("place KVM's TSS"))?;
        vm.create_irq_chip().map_err(failed("create the interrupt controllers"))?;
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        vm.create_pit2(pit).map_err(failed("create the interval timer"))?;
        let log = dirty::Log::new(&vm, entries)?;
        let vm = KvmVm { kvm, vm, slots: Mutex::default(), log };
        // KVM's own first table has the timer at pin 0 of the IOAPIC, where no PC has it.
        vm.set_routes(&[])?;
        Ok(Arc::new(vm))
    }

    /// The system file, for what depends on no machine (supported CPUID and MSRs).
    pub fn kvm(&self) -> &Kvm {
        &self.kvm
    }

    /// The machine's file, for vCPUs, irqchip, PIT and clock.
    pub fn vm(&self) -> &VmFd {
        &self.vm
    }

    /// A vCPU was made: to be called before it runs.
    pub fn add_vcpu(&self, vcpu: &VcpuFd) -> Result<(), HvError> {
        match &self.log {
            dirty::Log::Ring(rings) => rings.add(vcpu),
            _ => Ok(()),
        }
    }

    /// The bytes of a slot.
    fn size_of(&self, slot: u32, what: &str) -> Result<u64, HvError> {
        let size = self.slots.lock().get(&slot).map(|slot| slot.size);
        let missing = || HvError::new(format!("{what} of slot {slot}"), io::ErrorKind::NotFound);
        size.ok_or_else(missing)
    }
}

impl Hypervisor for KvmVm {
    fn set_slot(&self, slot: &Slot) -> Result<(), HvError> {
        let end = slot.offset.checked_add(slot.size);
        if end.is_none_or(|end| end > slot.ram.size()) {
            let what = format!("map guest memory at {:#x}", slot.guest);
            return Err(HvError::new(what, io::ErrorKind::InvalidInput));
        }
        let mut flags = 0;
        if slot.log {
            flags |= KVM_MEM_LOG_DIRTY_PAGES;
        }
        if slot.readonly {
            flags |= KVM_MEM_READONLY;
        }
        let region = kvm_userspace_memory_region {
            slot: slot.id,
            flags,
            guest_phys_addr: slot.guest,
            memory_size: slot.size,
            userspace_addr: slot.ram.region().as_ptr() as u64 + slot.offset,
        };
        let mut slots = self.slots.lock();
        // SAFETY: the range lies inside the mapping of `slot.ram` (checked above), and the table
        // keeps that mapping alive until KVM no longer knows the slot.
        unsafe { self.vm.set_user_memory_region(region) }.map_err(failed(format!(
            "map {:#x} bytes of guest memory at {:#x}",
            slot.size, slot.guest
        )))?;
        let old = match slot.size {
            0 => slots.remove(&slot.id),
            _ => slots.insert(slot.id, slot.clone()),
        };
        if old.is_none_or(|old| slot.size == 0 || old.log != slot.log) {
            self.log.forget(slot.id);
        }
        Ok(())
    }

    fn doorbell(&self, at: &Doorbell, fd: &EventFd, on: bool) -> Result<(), HvError> {
        let address = match at.space {
            SpaceKind::Memory => IoEventAddress::Mmio(at.address),
            SpaceKind::Ports => IoEventAddress::Pio(at.address),
        };
        // The width travels as the type of the value to match.
        macro_rules! set {
            ($value:expr) => {
                if on {
                    self.vm.register_ioevent(fd, &address, $value)
                } else {
                    self.vm.unregister_ioevent(fd, &address, $value)
                }
            };
        }
        let done = match (at.width, at.value) {
            (1, Some(value)) => set!(value as u8),
            (2, Some(value)) => set!(value as u16),
            (4, Some(value)) => set!(value as u32),
            (8, Some(value)) => set!(value),
            _ => set!(NoDatamatch),
        };
        done.map_err(failed(format!("bind an eventfd to address {:#x}", at.address)))
    }

    fn irqfd(
        &self,
        gsi: u32,
        fd: &EventFd,
        resample: Option<&EventFd>,
        on: bool,
    ) -> Result<(), HvError> {
        let done = match (on, resample) {
            (true, None) => self.vm.register_irqfd(fd, gsi),
            (true, Some(resample)) => self.vm.register_irqfd_with_resample(fd, resample, gsi),
            (false, _) => self.vm.unregister_irqfd(fd, gsi),
        };
        done.map_err(failed(format!("bind an eventfd to interrupt {gsi}")))
    }

    fn set_routes(&self, all: &[Route]) -> Result<(), HvError> {
        let mut entries = wired_routes();
        entries.extend(all.iter().map(|route| {
            let mut entry = kvm_irq_routing_entry {
                gsi: route.gsi,
                type_: KVM_IRQ_ROUTING_MSI,
                ..Default::default()
            };
            entry.u.msi.address_lo = route.message.address as u32;
            entry.u.msi.address_hi = (route.message.address >> 32) as u32;
            entry.u.msi.data = route.message.data;
            entry
        }));
        let what = "set the interrupt routes";
        let table = KvmIrqRouting::from_entries(&entries)
            .map_err(|_| HvError::new(what, io::ErrorKind::QuotaExceeded))?;
        self.vm.set_gsi_routing(&table).map_err(failed(what))
    }

    fn set_line(&self, gsi: u32, high: bool) -> Result<(), HvError> {
        self.vm.set_irq_line(gsi, high).map_err(failed(format!("set interrupt line {gsi}")))
    }

    fn take_dirty(&self, slot: u32, into: &mut [u64]) -> Result<(), HvError> {
        let size = self.size_of(slot, "take the dirty log")?;
        self.log.take(&self.vm, (slot, size), into)
    }

    fn watch(&self, slot: u32, pages: Range<u64>) -> Result<(), HvError> {
        let size = self.size_of(slot, "clear the dirty log")?;
        self.log.watch(&self.vm, (slot, size), pages)
    }

    fn log_full(&self) -> Result<(), HvError> {
        match &self.log {
            dirty::Log::Ring(rings) => rings.empty(&self.vm),
            _ => Ok(()),
        }
    }
}

/// The routes of the wired interrupts to the two PICs and the IOAPIC, as on a PC: the timer is pin
/// 0 of the PIC and pin 2 of the IOAPIC, and pin 2 of the PIC is the other PIC.
fn wired_routes() -> Vec<kvm_irq_routing_entry> {
    let chip = |gsi: u32, irqchip: u32, pin: u32| {
        let mut entry =
            kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
        entry.u.irqchip.irqchip = irqchip;
        entry.u.irqchip.pin = pin;
        entry
    };
    let mut routes = Vec::new();
    for gsi in 0..WIRED_GSIS {
        match gsi {
            0..8 => routes.push(chip(gsi, KVM_IRQCHIP_PIC_MASTER, gsi)),
            8..16 => routes.push(chip(gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - 8)),
            _ => {}
        }
        match gsi {
            0 => routes.push(chip(gsi, KVM_IRQCHIP_IOAPIC, 2)),
            2 => {}
            _ => routes.push(chip(gsi, KVM_IRQCHIP_IOAPIC, gsi)),
        }
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::irq::{MsiMessage, Routes, Wire};
    use crate::ram::RamBlock;

    fn kvm() -> Option<Arc<KvmVm>> {
        match KvmVm::new() {
            Ok(vm) => Some(vm),
            Err(KvmError::Open(error)) => {
                crate::testing::skipped(format_args!("no /dev/kvm here: {error}"));
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn the_board_calls_work_on_real_kvm() {
        let Some(vm) = kvm() else { return };
        let ram = RamBlock::anonymous(1 << 20).unwrap();
        let slot = Slot {
            id: 0,
            guest: 0x10_0000,
            size: 1 << 20,
            ram,
            offset: 0,
            readonly: false,
            log: true,
        };
        vm.set_slot(&slot).unwrap();
        vm.take_dirty(0, &mut [0; 4]).unwrap();
        assert!(vm.set_slot(&Slot { offset: 4096, ..slot.clone() }).is_err());
        vm.set_slot(&Slot { size: 0, ..slot }).unwrap();
        assert!(vm.take_dirty(0, &mut [0; 4]).is_err());

        let wire = Wire::new(5, vm.clone());
        let line = wire.line();
        line.signal();

        let routes = Routes::new(vm.clone(), WIRED_GSIS);
        let msi = routes.msi().unwrap();
        msi.set(Some(MsiMessage { address: 0xfee0_0000, data: 0x30 })).unwrap();
        msi.signal();
        msi.set(None).unwrap();

        let fd = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        for (width, value) in [(0, None), (2, Some(7)), (4, Some(1)), (8, Some(9))] {
            let at = Doorbell { space: SpaceKind::Memory, address: 0xe000_0000, width, value };
            vm.doorbell(&at, &fd, true).unwrap();
            vm.doorbell(&at, &fd, false).unwrap();
        }
    }
}
