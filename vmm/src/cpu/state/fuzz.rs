//! The part of loading a vCPU's state that comes before KVM, for the fuzzer.

use resources::state::Blob;

use super::*;

/// The XSAVE area of a host that has AMX.
const XSAVE_SIZE: usize = 11_008;

/// Decodes a saved state and makes what KVM is given of it.
pub fn fuzz(data: &[u8]) {
    let Ok(state) = Blob::from_bytes(data).and_then(|blob| blob.parse::<VcpuState>(1, &[])) else {
        return;
    };
    let again = Blob::new(1, &state).and_then(|blob| blob.parse::<VcpuState>(1, &[]));
    assert_eq!(again.expect("what was read can be written"), state);

    let _ = lapic_of(&state.lapic.0);
    let _ = xcrs_of(&state.xcrs);
    let _ = raw::xsave_buffer(raw::XSAVE_MIN, &state.xsave.0);
    let _ = raw::xsave_buffer(XSAVE_SIZE, &state.xsave.0);
    if let Some(Ok(nested)) = state.nested.as_ref().map(|bytes| raw::nested_buffer(&bytes.0)) {
        let _ = raw::nested_idle(&nested);
    }
    for batch in state.msrs.chunks(KVM_MAX_MSR_ENTRIES) {
        let _ = msrs_of(batch);
    }
    let _ = kvm_regs::from(state.regs);
    let _ = kvm_sregs::from(state.sregs);
    let _ = kvm_debugregs::from(state.debug);
    let _ = kvm_vcpu_events::from(state.events);
}

/// A state to begin with.
pub fn fuzz_seed() -> Vec<u8> {
    let state = VcpuState {
        mp_state: 0,
        regs: kvm_regs::default().into(),
        sregs: kvm_sregs::default().into(),
        debug: kvm_debugregs::default().into(),
        xsave: Bytes(vec![0; raw::XSAVE_MIN]),
        xcrs: vec![(0, 7)],
        lapic: Bytes(vec![0; kvm_lapic_state::default().regs.len()]),
        msrs: vec![(MSR_FEATURE_CONTROL, 5), (MSR_TSC, 1), (MSR_TSC_DEADLINE, 2)],
        events: kvm_vcpu_events::default().into(),
        tsc_khz: Some(2_000_000),
        nested: Some(Bytes(vec![0; 128])),
    };
    Blob::new(1, &state).and_then(|blob| blob.to_bytes()).expect("a small state")
}
