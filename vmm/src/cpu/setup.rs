//! The state a virtual processor starts in.
//!
//! Runs on the vCPU's own thread (its [`VcpuFd`] is the lock). A processor is made in this order:
//! `create_vcpu` with the id [`Topology::apic_id`], [`configure`], [`PowerOn::capture`]; every
//! machine reset, the first too, is [`PowerOn::reset`] on each processor and then [`enter`] on the
//! first. The guest's only influence is what it left in the registers, all of which a reset
//! replaces. Kernel images choose the entry points: checked here.

use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, kvm_dtable, kvm_lapic_state, kvm_regs, kvm_segment, kvm_xcrs,
};
use kvm_ioctls::VcpuFd;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory};

use super::{
    model::CpuModel,
    state::{self, StateCaps, StateError, VcpuState},
    topology::Topology,
};
use crate::boot::layout;

/// How the boot processor enters the guest; chosen by the boot loader from the image it loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The Linux 64-bit boot protocol: long mode, paging on with an identity map, RIP = `rip`,
    /// RSI = `rsi` (the zero page).
    Long {
        /// Where execution starts (guest-physical, identity-mapped).
        rip: GuestAddress,
        /// The address of `struct boot_params`.
        rsi: GuestAddress,
    },
    /// The PVH protocol of Xen: 32-bit protected mode without paging, EBX = `start_info`.
    Pvh {
        /// Where execution starts; below 4 GiB.
        rip: GuestAddress,
        /// The address of `struct hvm_start_info`; below 4 GiB.
        start_info: GuestAddress,
    },
    /// Multiboot 1: 32-bit protected mode without paging, EAX = 0x2BADB002, EBX = `info`.
    Multiboot {
        /// Where execution starts; below 4 GiB.
        rip: GuestAddress,
        /// The address of the multiboot information structure; below 4 GiB.
        info: GuestAddress,
    },
    /// Real mode at `vector`, as firmware wakes a guest: CS = `vector` / 16, IP = the rest.
    RealMode {
        /// Where execution starts; below 1 MiB.
        vector: u32,
    },
    /// 32-bit protected mode without paging, with flat segments of no table: as firmware wakes a
    /// guest that asks for it.
    Protected {
        /// Where execution starts.
        rip: u32,
    },
    /// 64-bit mode with paging on and an identity map of 4 GiB and of what is around `rip`, with
    /// flat segments of no table: as firmware wakes a guest that asks for it.
    Waking64 {
        /// Where execution starts; below 512 GiB.
        rip: u64,
    },
    /// The architectural reset vector, F000:FFF0 with base 0xFFFF0000: firmware.
    Reset,
}

/// The initial stack pointer of [`Entry::Long`]: the stack grows down from below the page tables.
const STACK: u64 = layout::PAGE_TABLES - 16;

/// What EAX holds for a kernel started by a multiboot 1 loader (Multiboot Specification 0.6.96,
/// section 3.2).
const MULTIBOOT_MAGIC: u64 = 0x2bad_b002;

/// Control register bits (Intel SDM volume 3, section 2.5).
const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// The tile registers, which a guest's kernel asks for when a program does.
const XCR0_AMX: u64 = 0b11 << 17;

/// Page table bits: present, writable, a large page.
const PAGE: u64 = 0b11;
const PAGE_LARGE: u64 = 1 << 7;

/// Bits that firmware sets in model-specific registers: fast string operations on; memory type
/// write-back wherever no range says otherwise (both are clear at power-on).
const BOOT_MSRS: [(u32, u64); 2] = [(0x1a0, 1), (0x2ff, 0x800 | 6)];

/// Local APIC registers (SDM volume 3, table 11-1) and delivery modes.
const LAPIC_LINT0: usize = 0x350;
const LAPIC_LINT1: usize = 0x360;
const DELIVER_NMI: u32 = 4 << 8;
const DELIVER_EXTINT: u32 = 7 << 8;

/// Why a processor could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// KVM refused a call.
    #[error("{call}: {source}")]
    Kvm {
        /// The ioctl.
        call: &'static str,
        /// What it said.
        source: kvm_ioctls::Error,
    },
    /// Registers that power-on sets.
    #[error(transparent)]
    State(#[from] StateError),
    /// What the image asked for cannot be.
    #[error("{0}")]
    Entry(String),
}

impl SetupError {
    fn kvm(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |source| Self::Kvm { call, source }
    }
}

/// Gives a new vCPU its CPUID and TSC frequency, and lets the others find it. Before anything else: what KVM takes afterwards
/// depends on it.
///
/// # Errors
/// When KVM refuses the leaves, or the host can neither run nor scale to the TSC frequency asked
/// for.
pub fn configure(
    vcpu: &VcpuFd,
    model: &CpuModel,
    topology: &Topology,
    index: u32,
) -> Result<(), SetupError> {
    let leaves = model.cpuid(topology, index);
    let cpuid = CpuId::from_entries(&leaves)
        .map_err(|e| SetupError::Entry(format!("{} CPUID leaves: {e:?}", leaves.len())))?;
    vcpu.set_cpuid2(&cpuid).map_err(SetupError::kvm("KVM_SET_CPUID2"))?;
    state::set_tsc_khz(vcpu, model.tsc_khz())?;
    // KVM looks for the APIC that an interrupt goes to in a table, which it makes anew when some
    // APIC changes, not when a vCPU is added: an INIT sent to it would be lost.
    let lapic = vcpu.get_lapic().map_err(SetupError::kvm("KVM_GET_LAPIC"))?;
    vcpu.set_lapic(&lapic).map_err(SetupError::kvm("KVM_SET_LAPIC"))
}

/// The state of one vCPU at power-on: the one KVM made it with, so that a reset brings back every
/// register KVM has, known here or not.
#[derive(Debug, Clone)]
pub struct PowerOn(VcpuState);

impl PowerOn {
    /// Takes the state of a vCPU that was configured and has not run yet.
    ///
    /// # Errors
    /// When KVM refuses a call.
    pub fn capture(vcpu: &VcpuFd, caps: &StateCaps) -> Result<Self, StateError> {
        let mut state = state::save(vcpu, caps)?;
        state.join_tsc();
        Ok(Self(state))
    }

    /// Resets the vCPU. The first one of the machine is then at the reset vector, the others wait
    /// for INIT and SIPI. All vCPUs of the VM must be parked. The time-stamp counter goes on, in
    /// step with the others'.
    ///
    /// # Errors
    /// When KVM refuses a call; the vCPU must not run then.
    pub fn reset(&self, vcpu: &VcpuFd, caps: &StateCaps) -> Result<(), StateError> {
        // An INIT or SIPI that is still on its way takes effect now, instead of after the reset.
        vcpu.get_mp_state().map_err(StateError::kvm("KVM_GET_MP_STATE"))?;
        state::load(vcpu, caps, &self.0)
    }
}

/// Puts the boot processor, fresh from [`PowerOn::reset`], where `entry` says, and writes into low
/// RAM what that needs (at [`layout::GDT`], and for [`Entry::Long`] at [`layout::PAGE_TABLES`]; both
/// may be reused by the guest once it has its own; for [`Entry::Waking64`] at
/// [`layout::WAKING_TABLES`], which is never the guest's).
///
/// # Errors
/// An entry point or structure at or above 4 GiB, RAM that lacks the low addresses, or a processor
/// that KVM does not let into the mode (a model without `lm` for [`Entry::Long`]).
pub fn enter<M: GuestMemory>(vcpu: &VcpuFd, entry: &Entry, memory: &M) -> Result<(), SetupError> {
    let mut regs = kvm_regs { rflags: 2, ..Default::default() };
    let long = match *entry {
        // Where power-on leaves it.
        Entry::Reset => return Ok(()),
        Entry::RealMode { vector } => {
            let mut sregs = vcpu.get_sregs().map_err(SetupError::kvm("KVM_GET_SREGS"))?;
            sregs.cs.base = u64::from(vector & 0xf_fff0);
            sregs.cs.selector = u16::try_from(vector >> 4 & 0xffff).unwrap_or(0);
            vcpu.set_sregs(&sregs).map_err(SetupError::kvm("KVM_SET_SREGS"))?;
            regs.rip = u64::from(vector & 0xf);
            return prepare(vcpu, &regs);
        }
        Entry::Protected { rip } => {
            regs.rip = rip.into();
            false
        }
        Entry::Waking64 { rip } => {
            regs.rip = rip;
            true
        }
        Entry::Long { rip, rsi } => {
            regs.rip = below_4g("entry point", rip)?;
            regs.rsi = below_4g("boot parameters", rsi)?;
            regs.rsp = STACK;
            true
        }
        Entry::Pvh { rip, start_info } => {
            regs.rip = below_4g("PVH entry point", rip)?;
            regs.rbx = below_4g("PVH start info", start_info)?;
            false
        }
        Entry::Multiboot { rip, info } => {
            regs.rip = below_4g("multiboot entry point", rip)?;
            regs.rbx = below_4g("multiboot information", info)?;
            regs.rax = MULTIBOOT_MAGIC;
            false
        }
    };

    let mut sregs = vcpu.get_sregs().map_err(SetupError::kvm("KVM_GET_SREGS"))?;
    let code = if long { segment(CODE64, 2 * 8) } else { segment(CODE32, 8) };
    let data = segment(DATA, 3 * 8);
    sregs.cs = code;
    for register in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *register = data;
    }
    sregs.tr = segment(TASK, 4 * 8);
    // A guest that wakes up has its own things in low RAM.
    if !matches!(entry, Entry::Protected { .. } | Entry::Waking64 { .. }) {
        sregs.gdt = kvm_dtable {
            base: layout::GDT,
            limit: u16::try_from(size_of_val(&DESCRIPTORS) - 1).unwrap_or(u16::MAX),
            ..Default::default()
        };
        write(memory, layout::GDT, &DESCRIPTORS)?;
    }
    // No interrupt is taken before the guest has a table of its own.
    sregs.idt = kvm_dtable::default();
    if long {
        let tables = match entry {
            Entry::Waking64 { .. } => layout::WAKING_TABLES,
            _ => layout::PAGE_TABLES,
        };
        page_tables(memory, tables, regs.rip)?;
        sregs.cr3 = tables;
        sregs.cr4 = CR4_PAE;
        sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
        sregs.efer = EFER_LME | EFER_LMA;
    } else {
        sregs.cr0 = CR0_PE | CR0_ET;
        sregs.cr4 = 0;
        sregs.efer = 0;
    }
    match vcpu.set_sregs(&sregs) {
        Err(e) if long => Err(SetupError::Entry(format!(
            "KVM refuses a start in 64-bit mode ({e}): the kernel needs a CPU model with lm"
        ))),
        other => other.map_err(SetupError::kvm("KVM_SET_SREGS")),
    }?;
    prepare(vcpu, &regs)
}

/// Gives the processor these registers, and what else firmware leaves behind.
fn prepare(vcpu: &VcpuFd, regs: &kvm_regs) -> Result<(), SetupError> {
    vcpu.set_regs(regs).map_err(SetupError::kvm("KVM_SET_REGS"))?;
    state::set_msr_bits(vcpu, &BOOT_MSRS)?;
    enable_xsave(vcpu)?;

    // As firmware leaves it: the legacy controller's interrupts arrive at LINT0, NMI at LINT1.
    let mut lapic = vcpu.get_lapic().map_err(SetupError::kvm("KVM_GET_LAPIC"))?;
    set_lapic_register(&mut lapic, LAPIC_LINT0, DELIVER_EXTINT);
    set_lapic_register(&mut lapic, LAPIC_LINT1, DELIVER_NMI);
    vcpu.set_lapic(&lapic).map_err(SetupError::kvm("KVM_SET_LAPIC"))
}

/// Turns on in XCR0 what the processor can save with XSAVE. It counts once the guest sets
/// CR4.OSXSAVE, and then the guest chooses for itself; but where XSETBV does not reach KVM (QEMU's
/// software emulation of a host with SVM does not intercept it) this is the only way KVM learns of
/// it, and without it the guest would lose its vector registers at every exit.
fn enable_xsave(vcpu: &VcpuFd) -> Result<(), SetupError> {
    let cpuid =
        vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES).map_err(SetupError::kvm("KVM_GET_CPUID2"))?;
    let Some(leaf) = cpuid.as_slice().iter().find(|e| e.function == 0xd && e.index == 0) else {
        return Ok(());
    };
    let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
    if let Some(xcr0) = xcrs.xcrs.first_mut() {
        xcr0.value = u64::from(leaf.eax) & !XCR0_AMX;
    }
    vcpu.set_xcrs(&xcrs).map_err(SetupError::kvm("KVM_SET_XCRS"))
}

fn below_4g(what: &str, address: GuestAddress) -> Result<u64, SetupError> {
    let address = address.raw_value();
    if address > u64::from(u32::MAX) {
        return Err(SetupError::Entry(format!("{what} at {address:#x} is not below 4 GiB")));
    }
    Ok(address)
}

fn set_lapic_register(lapic: &mut kvm_lapic_state, at: usize, value: u32) {
    for (to, from) in lapic.regs.iter_mut().skip(at).zip(value.to_le_bytes()) {
        *to = from.cast_signed();
    }
}

/// Segment descriptors (SDM volume 3, section 3.4.5): flat 32-bit code, flat 64-bit code, flat data,
/// a busy 32-bit or 64-bit task of 0x67 bytes.
const CODE32: u64 = 0x00cf_9b00_0000_ffff;
const CODE64: u64 = 0x00af_9b00_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;
const TASK: u64 = 0x0000_8b00_0000_0067;

/// The table: null, the four above, and the upper half of the 64-bit task. 64-bit code and data are
/// at the selectors 0x10 and 0x18, as the Linux boot protocol wants.
const DESCRIPTORS: [u64; 6] = [0, CODE32, CODE64, DATA, TASK, 0];

/// What a segment register holds after loading `descriptor`.
fn segment(descriptor: u64, selector: u16) -> kvm_segment {
    let bits = |from: u32, count: u32| (descriptor >> from) & ((1 << count) - 1);
    let small = |from, count| u8::try_from(bits(from, count)).unwrap_or(0);
    let limit = bits(0, 16) | (bits(48, 4) << 16);
    let limit = if small(55, 1) == 1 { (limit << 12) | 0xfff } else { limit };
    kvm_segment {
        base: bits(16, 24) | (bits(56, 8) << 24),
        limit: u32::try_from(limit).unwrap_or(u32::MAX),
        selector,
        type_: small(40, 4),
        s: small(44, 1),
        dpl: small(45, 2),
        present: small(47, 1),
        avl: small(52, 1),
        l: small(53, 1),
        db: small(54, 1),
        g: small(55, 1),
        ..Default::default()
    }
}

/// Maps 4 GiB one to one, and the GiB around `rip`, which is below 512 GiB.
fn page_tables<M: GuestMemory>(memory: &M, level4: u64, rip: u64) -> Result<(), SetupError> {
    let level3 = level4 + 0x1000;
    let level2 = level3 + 0x1000;
    let far = Some(rip >> 30).filter(|gib| *gib >= 4);
    // One page each for levels 4 and 3, four of level 2 that map 2 MiB with each entry, and one for
    // what is far.
    let mut tables = vec![0u64; if far.is_some() { 7 } else { 6 } * 512];
    for (i, entry) in (0..).zip(tables.iter_mut()) {
        *entry = match i {
            0 => level3 | PAGE,
            512..516 => (level2 + (i - 512) * 0x1000) | PAGE,
            512..1024 if far == Some(i - 512) => (level2 + 0x4000) | PAGE,
            1024..3072 => ((i - 1024) << 21) | PAGE | PAGE_LARGE,
            3072.. => (far.unwrap_or(0) << 30) | ((i - 3072) << 21) | PAGE | PAGE_LARGE,
            _ => 0,
        };
    }
    write(memory, level4, &tables)
}

fn write<M: GuestMemory>(memory: &M, at: u64, words: &[u64]) -> Result<(), SetupError> {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    memory
        .write_slice(&bytes, GuestAddress(at))
        .map_err(|e| SetupError::Entry(format!("boot tables at {at:#x} are not in RAM: {e}")))
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestMemoryMmap;

    use super::*;

    fn ram(size: usize) -> GuestMemoryMmap<()> {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]).unwrap()
    }

    #[test]
    fn descriptors_decode_to_flat_segments() {
        let code = segment(CODE64, 0x10);
        assert_eq!((code.base, code.limit, code.type_), (0, u32::MAX, 0xb));
        assert_eq!((code.l, code.db, code.g, code.s, code.present), (1, 0, 1, 1, 1));
        let code = segment(CODE32, 8);
        assert_eq!((code.l, code.db, code.limit), (0, 1, u32::MAX));
        let data = segment(DATA, 0x18);
        assert_eq!((data.type_, data.db, data.selector), (3, 1, 0x18));
        let task = segment(TASK, 0x20);
        assert_eq!((task.base, task.limit, task.type_, task.s), (0, 0x67, 0xb, 0));
    }

    #[test]
    fn page_tables_map_4_gib_onto_itself() {
        let memory = ram(0x10000);
        page_tables(&memory, 0x9000, 0x20_0000).unwrap();
        let read = |at: u64| memory.read_obj::<u64>(GuestAddress(at)).unwrap();
        for address in [0, 0x1f_ffff, 0x20_0000, 0x1234_5678, 0xffff_ffff] {
            let mask = 0x000f_ffff_ffff_f000;
            let level4 = read(0x9000 + (address >> 39) * 8);
            let level3 = read((level4 & mask) + (address >> 30 & 511) * 8);
            let level2 = read((level3 & mask) + (address >> 21 & 511) * 8);
            assert_eq!((level4 & 0xfff, level3 & 0xfff, level2 & 0xfff), (3, 3, 0x83));
            assert_eq!((level2 & mask) | (address & 0x1f_ffff), address);
        }
        assert_eq!(read(0x9008), 0);
        assert_eq!(read(0xa020), 0);
        assert_eq!(read(0xf000), 0);
        let error = page_tables(&ram(0x8000), 0x9000, 0).unwrap_err().to_string();
        assert!(error.contains("0x9000"));
        // The table of a guest that wakes up far above.
        let far: u64 = (77 << 30) + 0x20_0000;
        page_tables(&memory, 0x9000, far).unwrap();
        let level2 = read(0xa000 + 77 * 8) & !0xfff;
        assert_eq!((level2, read(level2 + 8)), (0xf000, far | 0x83));
        assert_eq!((read(0xa020), read(0xa000 + 78 * 8)), (0, 0));
    }
}
