//! Making the processors of a machine: files in KVM, CPUID, threads.
//!
//! Main thread, before the guest runs.

use std::sync::Arc;

use resources::hv::kvm::KvmVm;

use super::model::{CpuModel, CpuSpec, HostCpu};
use super::setup;
use super::state::StateCaps;
use super::thread::{Vcpu, VcpuHandle};
use super::topology::Topology;
use crate::machine::Board;
use crate::mailbox::Mailbox;

/// Why there are no processors.
#[derive(Debug, thiserror::Error)]
pub enum ProcessorError {
    /// KVM refused a request.
    #[error("cannot {0}: {1}")]
    Kvm(&'static str, std::io::Error),
    /// The model cannot be had here.
    #[error(transparent)]
    Model(#[from] super::model::ModelError),
    /// A vCPU does not take its CPUID.
    #[error(transparent)]
    Setup(#[from] setup::SetupError),
    /// A vCPU does not give its state.
    #[error(transparent)]
    State(#[from] super::state::StateError),
    /// More processors than KVM takes.
    #[error("KVM runs at most {0} vCPUs here, not {1}")]
    TooMany(usize, usize),
}

fn kvm(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> ProcessorError {
    move |error| ProcessorError::Kvm(what, std::io::Error::from_raw_os_error(error.errno()))
}

/// Finds out what the model means on this host.
///
/// # Errors
/// When KVM does not answer, or the model insists on what the host lacks.
pub fn resolve(spec: &CpuSpec, vm: &KvmVm) -> Result<CpuModel, ProcessorError> {
    let host = HostCpu::probe(vm.kvm()).map_err(kvm("ask KVM for the supported CPUID"))?;
    Ok(spec.resolve(&host)?)
}

/// Makes the processors present at the start. Their threads wait behind the gate.
///
/// # Errors
/// When KVM or the host refuses one.
pub fn create(
    vm: &KvmVm,
    board: &Board,
    (model, topology): (&CpuModel, &Topology),
    mailbox: &Arc<Mailbox>,
) -> Result<Vec<VcpuHandle>, ProcessorError> {
    let (count, max) = (topology.cpus() as usize, vm.kvm().get_max_vcpus());
    if count > max {
        return Err(ProcessorError::TooMany(max, count));
    }
    let caps = Arc::new(StateCaps::probe(vm.kvm(), vm.vm())?);
    (0..topology.cpus())
        .map(|index| {
            let id = topology.apic_id(index).into();
            let fd = vm.vm().create_vcpu(id).map_err(kvm("create a vCPU"))?;
            setup::configure(&fd, model, topology, index)?;
            Vcpu::new(fd, index as usize, &caps, (&board.memory, &board.ports), mailbox)?
                .spawn()
                .map_err(|error| ProcessorError::Kvm("start a vCPU's thread", error))
        })
        .collect()
}
