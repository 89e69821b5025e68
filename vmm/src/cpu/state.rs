//! The saved state of a virtual processor.
//!
//! Runs on the vCPU's own thread while it is parked, after the KVM_RUN with `immediate_exit` that
//! completes a pending port or MMIO access: until then registers are half-way. A saved state is not
//! trusted: sizes are checked here, values by KVM, and a refusal names the call that refused.
//!
//! The guest's clock (KVM_GET_CLOCK) belongs to the VM, not to its processors; the MSRs that point
//! at it are here, the note that the guest was stopped (KVM_KVMCLOCK_CTRL) is the thread's. RAM must
//! be loaded first: KVM reads page-directory pointers, and writes clock structures, through the
//! registers set here. CPUID must be set first too, or KVM refuses what the processor lacks.

mod fuzz;
mod raw;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, ops::RangeInclusive};

use kvm_bindings::{
    KVM_MAX_CPUID_ENTRIES, KVM_MAX_MSR_ENTRIES, Msrs, kvm_debugregs, kvm_dtable, kvm_lapic_state,
    kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs, kvm_vcpu_events, kvm_xcr,
    kvm_xcrs,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use resources::state::Bytes;
use serde::{Deserialize, Serialize};

pub use fuzz::{fuzz, fuzz_seed};

/// Model-specific registers with a place of their own in the order of loading (Intel SDM volume 4).
pub(super) const MSR_TSC: u32 = 0x10;
const MSR_FEATURE_CONTROL: u32 = 0x3a;
const MSR_MCG_CAP: u32 = 0x179;
pub(super) const MSR_TSC_DEADLINE: u32 = 0x6e0;

/// The memory type range registers, which KVM has but does not list: default type, fixed ranges,
/// and the bases and masks of 8 variable ones.
const MSRS_MTRR: [u32; 28] = {
    let mut all = [0; 28];
    let fixed =
        [0x2ff, 0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];
    let mut i = 0;
    while i < all.len() {
        all[i] = if i < fixed.len() { fixed[i] } else { 0x200 + (i - fixed.len()) as u32 };
        i += 1;
    }
    all
};

/// The first machine-check bank register and the most banks; KVM does not list these either.
const MSR_MC0_CTL: u32 = 0x400;
const MCE_BANKS: u32 = 32;

/// The registers of Hyper-V; KVM keeps them, and some count, whether the guest knows of them or not.
const MSRS_HYPERV: RangeInclusive<u32> = 0x4000_0000..=0x4000_01ff;

/// How far the TSC frequencies of two hosts may differ before a guest notices: KVM's own tolerance,
/// 250 parts per million.
const TSC_TOLERANCE_PPM: u64 = 250;

/// What state this host's KVM has for a vCPU; the same for all vCPUs of a VM.
#[derive(Debug, Clone)]
pub struct StateCaps {
    /// In order.
    msrs: Vec<u32>,
    /// The same without those of Hyper-V, for a guest that has no Hyper-V.
    msrs_without_hyperv: Vec<u32>,
    xsave_size: usize,
    xcrs: bool,
    nested: bool,
}

/// Why a vCPU's state could not be saved or loaded.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// KVM refused a call.
    #[error("{call}: {source}")]
    Kvm {
        /// The ioctl.
        call: &'static str,
        /// What it said.
        source: kvm_ioctls::Error,
    },
    /// KVM refused a value of a model-specific register.
    #[error("this host's KVM refuses {value:#x} in MSR {index:#x}")]
    Msr {
        /// The register.
        index: u32,
        /// Its saved value.
        value: u64,
    },
    /// The saved state cannot be one of a processor of this host.
    #[error("{0}")]
    Invalid(String),
}

impl StateError {
    pub(super) fn kvm(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |source| Self::Kvm { call, source }
    }
}

impl StateCaps {
    /// Asks KVM; `vm` because the size of the XSAVE area is a matter of the VM.
    ///
    /// # Errors
    /// When KVM does not answer KVM_GET_MSR_INDEX_LIST.
    pub fn probe(kvm: &Kvm, vm: &VmFd) -> Result<Self, StateError> {
        let list = kvm.get_msr_index_list().map_err(StateError::kvm("KVM_GET_MSR_INDEX_LIST"))?;
        let mut msrs = list.as_slice().to_vec();
        msrs.extend(MSRS_MTRR);
        msrs.extend(MSR_MC0_CTL..MSR_MC0_CTL + 4 * MCE_BANKS);
        msrs.sort_unstable();
        msrs.dedup();
        Ok(Self {
            msrs_without_hyperv: msrs
                .iter()
                .copied()
                .filter(|index| !MSRS_HYPERV.contains(index))
                .collect(),
            msrs,
            xsave_size: usize::try_from(vm.check_extension_int(Cap::Xsave2))
                .unwrap_or(0)
                .max(raw::XSAVE_MIN),
            xcrs: kvm.check_extension(Cap::Xcrs),
            nested: kvm.check_extension_int(Cap::NestedState) > 0,
        })
    }
}

/// Defines a state structure that mirrors one of KVM's, and both conversions.
macro_rules! mirror {
    ($(#[$doc:meta])* $name:ident: $kvm:ty { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        struct $name { $($field: $type),* }
        impl From<$kvm> for $name {
            fn from(kvm: $kvm) -> Self {
                Self { $($field: kvm.$field.into()),* }
            }
        }
        #[allow(clippy::needless_update, reason = "some of KVM's structures have padding")]
        impl From<$name> for $kvm {
            fn from(state: $name) -> Self {
                Self { $($field: state.$field.into(),)* ..Default::default() }
            }
        }
    };
}

mirror! {
    /// General registers.
    Regs: kvm_regs {
        rax: u64, rbx: u64, rcx: u64, rdx: u64, rsi: u64, rdi: u64, rsp: u64, rbp: u64, r8: u64,
        r9: u64, r10: u64, r11: u64, r12: u64, r13: u64, r14: u64, r15: u64, rip: u64, rflags: u64,
    }
}

mirror! {
    Segment: kvm_segment {
        base: u64, limit: u32, selector: u16, type_: u8, present: u8, dpl: u8, db: u8, s: u8,
        l: u8, g: u8, avl: u8, unusable: u8,
    }
}

mirror! {
    Table: kvm_dtable { base: u64, limit: u16 }
}

mirror! {
    /// Segments, control registers, and an interrupt on its way.
    Sregs: kvm_sregs {
        cs: Segment, ds: Segment, es: Segment, fs: Segment, gs: Segment, ss: Segment, tr: Segment,
        ldt: Segment, gdt: Table, idt: Table, cr0: u64, cr2: u64, cr3: u64, cr4: u64, cr8: u64,
        efer: u64, apic_base: u64, interrupt_bitmap: [u64; 4],
    }
}

mirror! {
    Debug: kvm_debugregs { db: [u64; 4], dr6: u64, dr7: u64, flags: u64 }
}

/// Exceptions, interrupts and NMIs between two instructions (KVM_GET_VCPU_EVENTS).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Events {
    flags: u32,
    exception: [u8; 4],
    exception_error: u32,
    exception_payload: Option<u64>,
    interrupt: [u8; 4],
    nmi: [u8; 3],
    sipi_vector: u32,
    smi: [u8; 4],
    triple_fault: u8,
}

impl From<kvm_vcpu_events> for Events {
    fn from(e: kvm_vcpu_events) -> Self {
        let x = &e.exception;
        let i = &e.interrupt;
        Self {
            flags: e.flags,
            exception: [x.injected, x.nr, x.has_error_code, x.pending],
            exception_error: x.error_code,
            exception_payload: (e.exception_has_payload != 0).then_some(e.exception_payload),
            interrupt: [i.injected, i.nr, i.soft, i.shadow],
            nmi: [e.nmi.injected, e.nmi.pending, e.nmi.masked],
            sipi_vector: e.sipi_vector,
            smi: [e.smi.smm, e.smi.pending, e.smi.smm_inside_nmi, e.smi.latched_init],
            triple_fault: e.triple_fault.pending,
        }
    }
}

impl From<Events> for kvm_vcpu_events {
    fn from(s: Events) -> Self {
        let mut e = Self { flags: s.flags, sipi_vector: s.sipi_vector, ..Self::default() };
        let x = &mut e.exception;
        [x.injected, x.nr, x.has_error_code, x.pending] = s.exception;
        x.error_code = s.exception_error;
        e.exception_has_payload = u8::from(s.exception_payload.is_some());
        e.exception_payload = s.exception_payload.unwrap_or(0);
        let i = &mut e.interrupt;
        [i.injected, i.nr, i.soft, i.shadow] = s.interrupt;
        [e.nmi.injected, e.nmi.pending, e.nmi.masked] = s.nmi;
        [e.smi.smm, e.smi.pending, e.smi.smm_inside_nmi, e.smi.latched_init] = s.smi;
        e.triple_fault.pending = s.triple_fault;
        e
    }
}

/// A vCPU's state as it is saved. Made by [`save`]; read by [`load`] alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuState {
    /// KVM_MP_STATE_*: running, halted, waiting for INIT or SIPI.
    mp_state: u32,
    regs: Regs,
    sregs: Sregs,
    debug: Debug,
    xsave: Bytes,
    /// Extended control registers as (index, value).
    xcrs: Vec<(u32, u64)>,
    lapic: Bytes,
    /// Model-specific registers as (index, value), in order.
    msrs: Vec<(u32, u64)>,
    events: Events,
    /// The frequency of the guest's TSC; `None` where KVM does not tell.
    tsc_khz: Option<u32>,
    /// The state of a guest that is a hypervisor itself; `None` where KVM has none.
    nested: Option<Bytes>,
}

impl VcpuState {
    /// Makes a load bring the time-stamp counter in step with the other processors', which is what
    /// KVM does when zero is written, instead of back to where it was.
    pub(super) fn join_tsc(&mut self) {
        self.set_msr(MSR_TSC, 0);
    }

    fn set_msr(&mut self, index: u32, value: u64) {
        for msr in self.msrs.iter_mut().filter(|m| m.0 == index) {
            msr.1 = value;
        }
    }
}

/// Reads a vCPU's state. The other vCPUs of the VM must be parked too: an interrupt from one of
/// them would fall between two of the calls here.
///
/// # Errors
/// When KVM refuses a call.
pub fn save(vcpu: &VcpuFd, caps: &StateCaps) -> Result<VcpuState, StateError> {
    // First, because it lets a pending INIT or SIPI take effect, which changes everything else.
    let mp_state = vcpu.get_mp_state().map_err(StateError::kvm("KVM_GET_MP_STATE"))?.mp_state;
    let xcrs = if caps.xcrs {
        let xcrs = vcpu.get_xcrs().map_err(StateError::kvm("KVM_GET_XCRS"))?;
        let used = usize::try_from(xcrs.nr_xcrs).unwrap_or(0);
        xcrs.xcrs.iter().take(used).map(|x| (x.xcr, x.value)).collect()
    } else {
        Vec::new()
    };
    let lapic = vcpu.get_lapic().map_err(StateError::kvm("KVM_GET_LAPIC"))?;
    let nested = if caps.nested { Some(Bytes(raw::nested(vcpu)?)) } else { None };
    Ok(VcpuState {
        mp_state,
        regs: vcpu.get_regs().map_err(StateError::kvm("KVM_GET_REGS"))?.into(),
        sregs: vcpu.get_sregs().map_err(StateError::kvm("KVM_GET_SREGS"))?.into(),
        debug: vcpu.get_debug_regs().map_err(StateError::kvm("KVM_GET_DEBUGREGS"))?.into(),
        xsave: Bytes(raw::xsave(vcpu, caps.xsave_size)?),
        xcrs,
        lapic: Bytes(lapic.regs.map(i8::cast_unsigned).to_vec()),
        msrs: get_msrs(
            vcpu,
            if is_hyperv(vcpu)? { &caps.msrs } else { &caps.msrs_without_hyperv },
        )?,
        tsc_khz: vcpu.get_tsc_khz().ok().filter(|khz| *khz != 0),
        nested,
        // Last: the calls before may move an exception or interrupt from one stage to the next.
        events: vcpu.get_vcpu_events().map_err(StateError::kvm("KVM_GET_VCPU_EVENTS"))?.into(),
    })
}

/// Sets a vCPU's state. The vCPUs of a VM should be loaded within a second: so long KVM takes their
/// time-stamp counters to be meant the same, and keeps them in step. On an error the vCPU holds a
/// part of the state and must be loaded or reset again before it runs.
///
/// # Errors
/// When a part has an impossible size, this host lacks something the guest uses, or KVM refuses a
/// value.
pub fn load(vcpu: &VcpuFd, caps: &StateCaps, state: &VcpuState) -> Result<(), StateError> {
    let lapic = lapic_of(&state.lapic.0)?;
    let xcrs = xcrs_of(&state.xcrs)?;
    let nested = match &state.nested {
        Some(bytes) => Some(raw::nested_buffer(&bytes.0)?),
        None => None,
    };
    if nested.is_some() && !caps.nested {
        return Err(StateError::Invalid("nested state: this host's KVM has none".to_owned()));
    }
    set_tsc_khz(vcpu, state.tsc_khz)?;

    // Out of a nested guest before anything else: leaving it later would bring back registers of
    // the time it was entered. VMX keeps it until its feature control says so.
    if let Some(idle) = nested.as_ref().and_then(raw::nested_idle) {
        vcpu.set_nested_state(&idle).map_err(StateError::kvm("KVM_SET_NESTED_STATE"))?;
    }
    let (early, rest): (Vec<_>, Vec<_>) =
        state.msrs.iter().copied().partition(|(index, _)| *index == MSR_FEATURE_CONTROL);
    set_msrs(vcpu, caps, &early)?;
    vcpu.set_sregs(&state.sregs.clone().into()).map_err(StateError::kvm("KVM_SET_SREGS"))?;
    // After EFER and CR4, which must allow it.
    if let Some(nested) = &nested {
        vcpu.set_nested_state(nested).map_err(StateError::kvm("KVM_SET_NESTED_STATE"))?;
    }
    vcpu.set_regs(&state.regs.clone().into()).map_err(StateError::kvm("KVM_SET_REGS"))?;
    if caps.xcrs {
        vcpu.set_xcrs(&xcrs).map_err(StateError::kvm("KVM_SET_XCRS"))?;
    }
    raw::set_xsave(vcpu, caps.xsave_size, &state.xsave.0)?;
    vcpu.set_debug_regs(&state.debug.clone().into())
        .map_err(StateError::kvm("KVM_SET_DEBUGREGS"))?;
    // After SREGS, which have the APIC's mode.
    vcpu.set_lapic(&lapic).map_err(StateError::kvm("KVM_SET_LAPIC"))?;
    // After the LAPIC, whose timer must be in deadline mode to take a deadline; the deadline after
    // the counter it is compared with.
    let (timers, others): (Vec<_>, Vec<_>) =
        rest.into_iter().partition(|(index, _)| matches!(*index, MSR_TSC | MSR_TSC_DEADLINE));
    set_msrs(vcpu, caps, &others)?;
    write_msrs(vcpu, &timers)?;
    // After REGS, which drop a pending exception.
    vcpu.set_vcpu_events(&state.events.clone().into())
        .map_err(StateError::kvm("KVM_SET_VCPU_EVENTS"))?;
    vcpu.set_mp_state(kvm_mp_state { mp_state: state.mp_state })
        .map_err(StateError::kvm("KVM_SET_MP_STATE"))
}

fn lapic_of(bytes: &[u8]) -> Result<kvm_lapic_state, StateError> {
    let mut lapic = kvm_lapic_state::default();
    if bytes.len() != lapic.regs.len() {
        return Err(StateError::Invalid(format!("local APIC of {} bytes", bytes.len())));
    }
    for (to, from) in lapic.regs.iter_mut().zip(bytes) {
        *to = from.cast_signed();
    }
    Ok(lapic)
}

fn xcrs_of(saved: &[(u32, u64)]) -> Result<kvm_xcrs, StateError> {
    let mut xcrs = kvm_xcrs::default();
    if saved.len() > xcrs.xcrs.len() {
        return Err(StateError::Invalid(format!("{} extended control registers", saved.len())));
    }
    for (to, (xcr, value)) in xcrs.xcrs.iter_mut().zip(saved) {
        *to = kvm_xcr { xcr: *xcr, value: *value, ..Default::default() };
    }
    xcrs.nr_xcrs = u32::try_from(saved.len()).unwrap_or(0);
    Ok(xcrs)
}

/// Sets the TSC's frequency if it is another than this host's.
pub(super) fn set_tsc_khz(vcpu: &VcpuFd, khz: Option<u32>) -> Result<(), StateError> {
    let Some(khz) = khz else { return Ok(()) };
    // A host that does not tell its frequency cannot be compared with.
    let Ok(now) = vcpu.get_tsc_khz() else { return Ok(()) };
    if u64::from(now.abs_diff(khz)) * 1_000_000 <= u64::from(now) * TSC_TOLERANCE_PPM {
        return Ok(());
    }
    vcpu.set_tsc_khz(khz).map_err(|e| {
        StateError::Invalid(format!(
            "TSC of {khz} kHz: this host's runs at {now} kHz and KVM cannot scale it ({e})"
        ))
    })
}

/// Whether the guest was told that it runs on Hyper-V.
fn is_hyperv(vcpu: &VcpuFd) -> Result<bool, StateError> {
    let cpuid =
        vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES).map_err(StateError::kvm("KVM_GET_CPUID2"))?;
    let hv = u32::from_le_bytes(*b"Hv#1");
    Ok(cpuid.as_slice().iter().any(|e| e.function == 0x4000_0001 && e.eax == hv))
}

/// Reads the registers that this vCPU has, out of `indices`.
pub(super) fn get_msrs(vcpu: &VcpuFd, indices: &[u32]) -> Result<Vec<(u32, u64)>, StateError> {
    let mut read = Vec::with_capacity(indices.len());
    let banks = {
        let mut cap = msrs_of(&[(MSR_MCG_CAP, 0)])?;
        let got = vcpu.get_msrs(&mut cap).unwrap_or(0);
        let cap = cap.as_slice().first().filter(|_| got == 1).map_or(0, |m| m.data & 0xff);
        u32::try_from(cap).unwrap_or(0).min(MCE_BANKS)
    };
    let beyond = MSR_MC0_CTL + 4 * banks..MSR_MC0_CTL + 4 * MCE_BANKS;
    let mut left: Vec<(u32, u64)> =
        indices.iter().filter(|i| !beyond.contains(i)).map(|i| (*i, 0)).collect();
    while !left.is_empty() {
        let batch = &left[..left.len().min(KVM_MAX_MSR_ENTRIES)];
        let mut msrs = msrs_of(batch)?;
        // KVM stops at the first it refuses: that one is passed over.
        let got = vcpu.get_msrs(&mut msrs).map_err(StateError::kvm("KVM_GET_MSRS"))?;
        read.extend(msrs.as_slice().iter().take(got).map(|m| (m.index, m.data)));
        let done = if got < batch.len() { got + 1 } else { got };
        left.drain(..done);
    }
    Ok(read)
}

/// Sets registers, those only whose value changes: some cannot be written, and some make KVM warn
/// whatever is written. One that this host does not know is an error unless the guest never used
/// it.
fn set_msrs(vcpu: &VcpuFd, caps: &StateCaps, msrs: &[(u32, u64)]) -> Result<(), StateError> {
    let known: Vec<u32> =
        msrs.iter().map(|m| m.0).filter(|i| caps.msrs.binary_search(i).is_ok()).collect();
    let now: HashMap<u32, u64> = get_msrs(vcpu, &known)?.into_iter().collect();
    let mut changed = Vec::new();
    for &(index, value) in msrs {
        match now.get(&index) {
            Some(now) if *now == value => {}
            None if value == 0 => {}
            Some(_) => changed.push((index, value)),
            None => return Err(StateError::Msr { index, value }),
        }
    }
    write_msrs(vcpu, &changed)
}

fn write_msrs(vcpu: &VcpuFd, msrs: &[(u32, u64)]) -> Result<(), StateError> {
    for batch in msrs.chunks(KVM_MAX_MSR_ENTRIES) {
        let done = vcpu.set_msrs(&msrs_of(batch)?).map_err(StateError::kvm("KVM_SET_MSRS"))?;
        if let Some(&(index, value)) = batch.get(done) {
            return Err(StateError::Msr { index, value });
        }
    }
    Ok(())
}

fn msrs_of(msrs: &[(u32, u64)]) -> Result<Msrs, StateError> {
    let entries: Vec<_> = msrs
        .iter()
        .map(|&(index, data)| kvm_msr_entry { index, data, ..Default::default() })
        .collect();
    Msrs::from_entries(&entries)
        .map_err(|e| StateError::Invalid(format!("{} MSRs: {e:?}", msrs.len())))
}

/// Sets bits in registers as a boot entry wants them; registers KVM does not have for this vCPU are
/// passed over.
pub(super) fn set_msr_bits(vcpu: &VcpuFd, msrs: &[(u32, u64)]) -> Result<(), StateError> {
    for &(index, bits) in msrs {
        let now = get_msrs(vcpu, &[index])?;
        let Some((_, now)) = now.first() else { continue };
        let done = vcpu
            .set_msrs(&msrs_of(&[(index, now | bits)])?)
            .map_err(StateError::kvm("KVM_SET_MSRS"))?;
        if done == 0 {
            tracing::debug!("KVM does not take {bits:#x} in MSR {index:#x} at start");
        }
    }
    Ok(())
}
