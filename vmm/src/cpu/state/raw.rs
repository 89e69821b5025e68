//! The two parts of a vCPU's state whose size KVM decides: the XSAVE area and the nested state.
//!
//! Runs on the vCPU's own thread. Sizes from a saved state are checked here before KVM reads by
//! them.
// KVM copies as many bytes as the guest's state has, whatever the buffer's type says.
#![expect(unsafe_code)]

use std::slice;

use kvm_bindings::{Xsave, kvm_xsave, nested::KvmNestedStateBuffer};
use kvm_ioctls::VcpuFd;

use super::StateError;

/// What KVM_GET_XSAVE copies; also the least that KVM_SET_XSAVE reads.
pub(super) const XSAVE_MIN: usize = size_of::<kvm_xsave>();

/// Reads the XSAVE area: `size` bytes, as KVM_CAP_XSAVE2 tells.
pub(super) fn xsave(vcpu: &VcpuFd, size: usize) -> Result<Vec<u8>, StateError> {
    if size <= XSAVE_MIN {
        let xsave = vcpu.get_xsave().map_err(StateError::kvm("KVM_GET_XSAVE"))?;
        return Ok(xsave.region.iter().flat_map(|w| w.to_le_bytes()).collect());
    }
    let mut xsave = buffer(size)?;
    // SAFETY: the buffer has the size KVM named for this VM, and this process asks for no dynamic
    // XSAVE features after that (it never calls arch_prctl for them).
    unsafe { vcpu.get_xsave2(&mut xsave) }.map_err(StateError::kvm("KVM_GET_XSAVE2"))?;
    let head = &xsave.as_fam_struct_ref().xsave.region;
    let words = head.iter().chain(xsave.as_slice());
    let mut bytes: Vec<u8> = words.flat_map(|w| w.to_le_bytes()).collect();
    bytes.truncate(size);
    Ok(bytes)
}

/// Sets the XSAVE area from saved bytes; what this host has beyond them is zero.
pub(super) fn set_xsave(vcpu: &VcpuFd, size: usize, bytes: &[u8]) -> Result<(), StateError> {
    let xsave = xsave_buffer(size, bytes)?;
    // SAFETY: the buffer is at least as large as the area KVM named for this VM.
    unsafe { vcpu.set_xsave2(&xsave) }.map_err(StateError::kvm("KVM_SET_XSAVE"))
}

/// Checks the size of a saved XSAVE area and gives it the type KVM takes.
pub(super) fn xsave_buffer(size: usize, bytes: &[u8]) -> Result<Xsave, StateError> {
    let size = size.max(XSAVE_MIN);
    let (bytes, beyond) = bytes.split_at(bytes.len().min(size));
    if beyond.iter().any(|b| *b != 0) {
        let all = bytes.len() + beyond.len();
        return Err(StateError::Invalid(format!(
            "XSAVE area of {all} bytes: this host has {size}"
        )));
    }
    let mut xsave = buffer(size)?;
    let words = bytes.chunks(4).map(|chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        u32::from_le_bytes(word)
    });
    let mut region = [0; XSAVE_MIN / 4];
    let mut words = words.fuse();
    region.iter_mut().zip(words.by_ref()).for_each(|(to, from)| *to = from);
    xsave.as_mut_slice().iter_mut().zip(words).for_each(|(to, from)| *to = from);
    // SAFETY: the array is replaced by one of the same size; the length of the flexible part is
    // not touched.
    unsafe { xsave.as_mut_fam_struct() }.xsave.region = region;
    Ok(xsave)
}

fn buffer(size: usize) -> Result<Xsave, StateError> {
    Xsave::new(size.saturating_sub(XSAVE_MIN).div_ceil(4))
        .map_err(|e| StateError::Invalid(format!("XSAVE area of {size} bytes: {e:?}")))
}

/// The header of the nested state: flags, format, size and what the format puts beside them.
const NESTED_HEADER: usize = 128;
const FORMAT_VMX: u16 = 0;
const FORMAT_SVM: u16 = 1;
const SVM_GIF_SET: u16 = 0x100;

/// Reads the nested state (KVM_GET_NESTED_STATE): the header, and a control block if the guest is
/// a hypervisor that runs one.
pub(super) fn nested(vcpu: &VcpuFd) -> Result<Vec<u8>, StateError> {
    let mut buffer = KvmNestedStateBuffer::empty();
    vcpu.nested_state(&mut buffer).map_err(StateError::kvm("KVM_GET_NESTED_STATE"))?;
    let size = usize::try_from(buffer.size).unwrap_or(0).min(size_of_val(&buffer));
    // SAFETY: the buffer is a repr(C) structure without padding that was zeroed when it was made;
    // `size` is not more than it has.
    Ok(unsafe { slice::from_raw_parts((&raw const buffer).cast::<u8>(), size) }.to_vec())
}

/// Checks the size of a saved nested state and gives it the type KVM takes.
pub(super) fn nested_buffer(bytes: &[u8]) -> Result<KvmNestedStateBuffer, StateError> {
    let mut buffer = KvmNestedStateBuffer::empty();
    let most = size_of_val(&buffer);
    let fits = (NESTED_HEADER..=most).contains(&bytes.len());
    let Some(size) = u32::try_from(bytes.len()).ok().filter(|_| fits) else {
        return Err(StateError::Invalid(format!("nested state of {} bytes", bytes.len())));
    };
    // SAFETY: the buffer has room for the bytes, and every bit pattern is a valid value of it.
    unsafe {
        (&raw mut buffer).cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
    }
    // KVM reads as many bytes as this says.
    buffer.size = size;
    Ok(buffer)
}

/// The nested state of a processor that runs no guest of its own, in the format of `like`.
pub(super) fn nested_idle(like: &KvmNestedStateBuffer) -> Option<KvmNestedStateBuffer> {
    let mut idle = KvmNestedStateBuffer::empty();
    idle.size = u32::try_from(NESTED_HEADER).ok()?;
    idle.format = like.format;
    match like.format {
        FORMAT_VMX => {
            idle.hdr.vmx.vmxon_pa = u64::MAX;
            idle.hdr.vmx.vmcs12_pa = u64::MAX;
        }
        FORMAT_SVM => idle.flags = SVM_GIF_SET,
        _ => return None,
    }
    Some(idle)
}
