//! Making the processors of a machine: files in KVM, CPUID, threads.
//!
//! Main thread. The guest may be running when one is added.

use std::collections::BTreeMap;
use std::sync::Arc;

use resources::hv::HvError;
use resources::hv::kvm::KvmVm;
use resources::space::Space;

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
    /// The hypervisor refused something.
    #[error(transparent)]
    Hypervisor(#[from] HvError),
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

/// What the processors of a machine are made of.
pub struct Processors {
    vm: Arc<KvmVm>,
    model: CpuModel,
    topology: Topology,
    caps: Arc<StateCaps>,
    spaces: (Arc<Space>, Arc<Space>),
    mailbox: Arc<Mailbox>,
}

impl Processors {
    /// Processors of this model for a board.
    ///
    /// # Errors
    /// When KVM does not tell what it can save.
    pub fn new(
        vm: &Arc<KvmVm>,
        board: &Board,
        (model, topology): (CpuModel, Topology),
        mailbox: &Arc<Mailbox>,
    ) -> Result<Processors, ProcessorError> {
        Ok(Processors {
            caps: Arc::new(StateCaps::probe(vm.kvm(), vm.vm())?),
            vm: vm.clone(),
            model,
            topology,
            spaces: (board.memory.clone(), board.ports.clone()),
            mailbox: mailbox.clone(),
        })
    }

    /// What they tell of themselves: the registers of each leaf and subleaf of CPUID.
    pub fn leaves(&self) -> BTreeMap<String, String> {
        let leaves = self.model.cpuid(&self.topology, 0).into_iter();
        leaves
            .map(|leaf| {
                let words = [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx].map(|it| format!("{it:08x}"));
                (format!("{:#x}.{}", leaf.function, leaf.index), words.join(" "))
            })
            .collect()
    }

    /// Makes those that are there at the start. Their threads wait behind the gate.
    ///
    /// # Errors
    /// When KVM or the host refuses one.
    pub fn make_first(&self) -> Result<Vec<VcpuHandle>, ProcessorError> {
        let (count, max) = (self.topology.cpus() as usize, self.vm.kvm().get_max_vcpus());
        if count > max {
            return Err(ProcessorError::TooMany(max, count));
        }
        (0..self.topology.cpus()).map(|index| self.make(index)).collect()
    }

    /// Makes the one with this index, in its power-on state. It runs as soon as the gate is open:
    /// but for the first, that is to wait for another to start it.
    ///
    /// # Errors
    /// When KVM or the host refuses it.
    pub fn make(&self, index: u32) -> Result<VcpuHandle, ProcessorError> {
        let id = self.topology.apic_id(index).into();
        let fd = self.vm.vm().create_vcpu(id).map_err(kvm("create a vCPU"))?;
        self.vm.add_vcpu(&fd)?;
        setup::configure(&fd, &self.model, &self.topology, index)?;
        let (memory, ports) = &self.spaces;
        Vcpu::new(fd, index as usize, &self.caps, (memory, ports), &self.mailbox)?
            .spawn()
            .map_err(|error| ProcessorError::Kvm("start a vCPU's thread", error))
    }
}
