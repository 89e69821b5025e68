//! Commands that ask what the machine is and what it does.
//!
//! Main thread. They change nothing; some ask the vCPUs' threads and wait for the answer.

use kvm_bindings::KVM_MP_STATE_HALTED;
use qmp::{
    CpuInfo, GuidInfo, Handle, KvmInfo, NameInfo, QmpError, QueryCpus, QueryKvm, QueryName,
    QueryStatus, QueryTarget, QueryUuid, QueryVersion, QueryVmGenerationId, StatusInfo, TargetInfo,
    UuidInfo, VersionInfo,
};

use crate::cpu::thread::Vcpu;
use crate::machine::Accel;
use crate::vm::Vm;

impl Handle<QueryStatus> for Vm {
    fn handle(&mut self, _: QueryStatus) -> Result<StatusInfo, QmpError> {
        Ok(StatusInfo { status: self.state(), singlestep: false, running: self.is_running() })
    }
}

impl Handle<QueryVersion> for Vm {
    fn handle(&mut self, _: QueryVersion) -> Result<VersionInfo, QmpError> {
        Ok(crate::version())
    }
}

impl Handle<QueryKvm> for Vm {
    fn handle(&mut self, _: QueryKvm) -> Result<KvmInfo, QmpError> {
        let enabled = matches!(self.board.accel, Accel::Kvm(_));
        let present = enabled || std::path::Path::new("/dev/kvm").exists();
        Ok(KvmInfo { enabled, present })
    }
}

impl Handle<QueryName> for Vm {
    fn handle(&mut self, _: QueryName) -> Result<NameInfo, QmpError> {
        Ok(NameInfo { name: self.policy.name.clone() })
    }
}

impl Handle<QueryUuid> for Vm {
    fn handle(&mut self, _: QueryUuid) -> Result<UuidInfo, QmpError> {
        Ok(UuidInfo { uuid: self.policy.uuid.hyphenated().to_string() })
    }
}

impl Handle<QueryVmGenerationId> for Vm {
    fn handle(&mut self, _: QueryVmGenerationId) -> Result<GuidInfo, QmpError> {
        let device = self.board.devices.iter().find(|device| device.class.name == "vmgenid");
        match device.map(|device| device.props.get::<&str>("guid")) {
            Some(Ok(guid)) => Ok(GuidInfo { guid: guid.to_owned() }),
            _ => Err(QmpError::generic("VM Generation ID device not found")),
        }
    }
}

impl Handle<QueryTarget> for Vm {
    fn handle(&mut self, _: QueryTarget) -> Result<TargetInfo, QmpError> {
        Ok(TargetInfo { arch: "x86_64".to_owned() })
    }
}

impl Handle<QueryCpus> for Vm {
    fn handle(&mut self, _: QueryCpus) -> Result<Vec<CpuInfo>, QmpError> {
        // All at once: each may first have to be brought out of the guest.
        let states =
            self.on_all_vcpus(glance).map_err(|error| QmpError::generic(error.to_string()))?;
        let mut list = Vec::new();
        for (vcpu, state) in self.vcpus.iter().zip(states) {
            let (pc, halted) = state
                .map_err(|error| QmpError::generic(format!("vCPU {}: {error}", vcpu.index())))?;
            let cpu = vcpu.index() as i64;
            list.push(CpuInfo {
                current: cpu == 0,
                cpu,
                pc: Some(pc as i64),
                halted,
                thread_id: vcpu.thread_id().into(),
            });
        }
        Ok(list)
    }
}

/// Where a vCPU is, and whether it waits for an interrupt.
fn glance(vcpu: &mut Vcpu) -> Result<(u64, bool), kvm_ioctls::Error> {
    let pc = vcpu.fd.get_sregs()?.cs.base.wrapping_add(vcpu.fd.get_regs()?.rip);
    Ok((pc, vcpu.fd.get_mp_state()?.mp_state == KVM_MP_STATE_HALTED))
}
