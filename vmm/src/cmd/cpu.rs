//! Commands about processors, and the processors' registers for other commands.
//!
//! Main thread; each vCPU is asked on its own thread, where it must first come out of the guest.

use kvm_bindings::kvm_lapic_state;
use qmp::{
    Cpu, CpuAdd, CpuDefinitionInfo, CpuInfoFast, Handle, InjectNmi, QmpError, QueryCpuDefinitions,
    QueryCpusFast, SysEmuTarget,
};

use crate::cpu::lapic::Lapic;
use crate::cpu::model;
use crate::cpu::registers::Registers;
use crate::cpu::thread::Vcpu;
use crate::vm::Vm;

/// Where the APIC's page has the entry for its second local input (SDM volume 3, 12.5.1).
const LVT_LINT1: usize = 0x360;
/// The entry's input is ignored.
const LVT_MASKED: u32 = 1 << 16;
/// How the entry's input is delivered: bits 8 to 10, 4 for an NMI.
const LVT_MODE: u32 = 7 << 8;
const LVT_MODE_NMI: u32 = 4 << 8;

impl Vm {
    /// The registers of the vCPU with this index.
    ///
    /// # Errors
    /// When there is no such vCPU, with the text that commands give for it; or KVM does not tell.
    pub fn registers(&self, index: i64) -> Result<Registers, QmpError> {
        let vcpu = usize::try_from(index).ok().and_then(|index| self.vcpu(index));
        let vcpu = vcpu.ok_or_else(|| QmpError::expects("cpu-index", "a CPU number"))?;
        let registers = vcpu.call(|vcpu| Registers::capture(&vcpu.fd));
        registers.map_err(failed)?.map_err(failed)
    }

    /// The registers of all vCPUs, in index order.
    ///
    /// # Errors
    /// When KVM does not tell.
    pub fn all_registers(&self) -> Result<Vec<Registers>, QmpError> {
        let all = self.on_all_vcpus(|vcpu| Registers::capture(&vcpu.fd)).map_err(failed)?;
        all.into_iter().collect::<Result<_, _>>().map_err(failed)
    }

    /// The local APIC of a vCPU.
    ///
    /// # Errors
    /// There is no such vCPU, or KVM does not tell.
    pub fn lapic(&self, index: usize) -> Result<Lapic, QmpError> {
        let vcpu = self.vcpu(index).ok_or_else(|| QmpError::generic("No local APIC"))?;
        vcpu.call(|vcpu| Lapic::capture(&vcpu.fd)).map_err(failed)?.map_err(failed)
    }

    /// Sends an NMI to every vCPU.
    ///
    /// # Errors
    /// When KVM does not take one.
    pub fn inject_nmi(&mut self) -> Result<(), QmpError> {
        self.on_all_vcpus(inject_nmi).map_err(failed)?.into_iter().try_for_each(|done| {
            done.map_err(|error| QmpError::generic(format!("cannot inject an NMI: {error}")))
        })
    }
}

fn failed(error: impl std::fmt::Display) -> QmpError {
    QmpError::generic(error.to_string())
}

impl Handle<Cpu> for Vm {
    fn handle(&mut self, _: Cpu) -> Result<(), QmpError> {
        Ok(())
    }
}

impl Handle<CpuAdd> for Vm {
    /// Adds a processor, which waits for another to start it, as after power-on.
    fn handle(&mut self, CpuAdd { id }: CpuAdd) -> Result<(), QmpError> {
        self.migration.refuse_moving("cpu-add")?;
        let refuse = |text: String| Err(QmpError::generic(text));
        let Some(cpus) = self.board.cpus.clone() else {
            return refuse("Not supported".to_owned());
        };
        let Ok(index) = usize::try_from(id) else {
            return refuse(format!("Invalid CPU id: {id}"));
        };
        let room = cpus.lock().room();
        if cpus.lock().is_present(index) {
            return refuse(format!("Unable to add CPU: {id}, it already exists"));
        }
        if index >= room {
            let most = room.saturating_sub(1);
            return refuse(format!("Unable to add CPU: {id}, max allowed: {most}"));
        }
        if let (Some(processors), Ok(number)) = (&self.processors, u32::try_from(index)) {
            let vcpu = processors.make(number).map_err(failed)?;
            let place = self.vcpus.partition_point(|other| other.index() < index);
            self.vcpus.insert(place, vcpu);
        }
        self.board.processor_came(index);
        Ok(())
    }
}

impl Handle<InjectNmi> for Vm {
    fn handle(&mut self, _: InjectNmi) -> Result<(), QmpError> {
        self.inject_nmi()
    }
}

/// Raises the second local input, to which a PC's NMI line goes. KVM's APIC has no such input: what
/// its entry says is done here.
fn inject_nmi(vcpu: &mut Vcpu) -> Result<(), kvm_ioctls::Error> {
    match vcpu.fd.get_lapic() {
        Ok(lapic) if !takes_nmi(&lapic) => Ok(()),
        _ => vcpu.fd.nmi(),
    }
}

fn takes_nmi(lapic: &kvm_lapic_state) -> bool {
    let entry = lapic.regs.iter().skip(LVT_LINT1).take(4).rev();
    let entry = entry.fold(0, |entry, byte| entry << 8 | u32::from(byte.cast_unsigned()));
    entry & LVT_MASKED == 0 && entry & LVT_MODE == LVT_MODE_NMI
}

impl Handle<QueryCpuDefinitions> for Vm {
    fn handle(&mut self, _: QueryCpuDefinitions) -> Result<Vec<CpuDefinitionInfo>, QmpError> {
        let names = model::model_names().rev();
        Ok(names.map(|name| CpuDefinitionInfo { name: name.to_owned() }).collect())
    }
}

impl Handle<QueryCpusFast> for Vm {
    fn handle(&mut self, _: QueryCpusFast) -> Result<Vec<CpuInfoFast>, QmpError> {
        let list = self.vcpus.iter().map(|vcpu| CpuInfoFast {
            thread_id: vcpu.thread_id().into(),
            qom_path: crate::qom::cpu_path(vcpu.index()),
            cpu_index: vcpu.index() as i64,
            target: SysEmuTarget::X8664,
        });
        Ok(list.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::testing::{self, ask};
    use serde_json::json;

    #[test]
    fn lint1_decides_whether_an_nmi_is_taken() {
        let mut lapic = kvm_lapic_state::default();
        for (entry, takes) in
            [(0x1_0000u32, false), (0x400, true), (0x1_0400, false), (0x700, false), (0x4ff, true)]
        {
            let place = lapic.regs.iter_mut().skip(LVT_LINT1);
            place.zip(entry.to_le_bytes()).for_each(|(to, byte)| *to = byte.cast_signed());
            assert_eq!(takes_nmi(&lapic), takes, "{entry:#x}");
        }
    }

    #[test]
    fn cpu_has_no_effect_whatever_it_is_given() {
        let mut vm = testing::fake();
        for index in [0, -1, i64::MAX] {
            assert_eq!(ask(&mut vm, "cpu", json!({"index": index})), Ok(json!({})));
        }
        testing::refuses(
            &mut vm,
            "cpu",
            &[
                (json!({}), "Parameter 'index' is missing"),
                (json!({"index": "0"}), "Invalid parameter type for 'index', expected: int"),
                (json!({"index": 0, "x": 1}), "Invalid parameter 'x'"),
            ],
        );
    }

    #[test]
    fn an_nmi_goes_to_every_processor_that_takes_it() {
        testing::refuses(
            &mut testing::fake(),
            "inject-nmi",
            &[(json!({"x": 1}), "Invalid parameter 'x'")],
        );
        assert_eq!(ask(&mut testing::fake(), "inject-nmi", json!({})), Ok(json!({})));
        let Some(mut vm) = testing::kvm() else { return };
        let pending = |vm: &Vm| {
            vm.on_all_vcpus(|vcpu| vcpu.fd.get_vcpu_events().unwrap().nmi.pending).unwrap()
        };
        vm.vcpus[1]
            .call(|vcpu| {
                let mut lapic = vcpu.fd.get_lapic().unwrap();
                // The spurious vector register enables it, without which entries stay masked.
                lapic.regs[0xf1] = 1;
                lapic.regs[LVT_LINT1 + 1] = 4;
                lapic.regs[LVT_LINT1 + 2] = 0;
                vcpu.fd.set_lapic(&lapic).unwrap();
            })
            .unwrap();
        assert_eq!(pending(&vm), [0, 0]);
        assert_eq!(ask(&mut vm, "inject-nmi", json!({})), Ok(json!({})));
        assert_eq!(pending(&vm), [0, 1]);
    }

    #[test]
    fn models_and_processors_are_listed() {
        let mut vm = testing::fake();
        let models = ask(&mut vm, "query-cpu-definitions", json!({})).unwrap();
        let models: Vec<_> =
            models.as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
        assert_eq!(models.last(), Some(&"qemu64"));
        assert!(models.contains(&"Haswell") && !models.contains(&"host"));
        assert_eq!(ask(&mut vm, "query-cpus-fast", json!({})), Ok(json!([])));
        let Some(mut vm) = testing::kvm() else { return };
        let list = ask(&mut vm, "query-cpus-fast", json!({})).unwrap();
        assert_eq!(list[1]["cpu-index"], 1);
        assert_eq!(list[1]["target"], "x86_64");
        assert_eq!(list[1]["thread-id"], vm.vcpus[1].thread_id());
    }

    #[test]
    fn registers_are_those_of_the_processor_asked_for() {
        let error = testing::fake().registers(0).unwrap_err();
        assert_eq!(error.desc, "Parameter 'cpu-index' expects a CPU number");
        let Some(vm) = testing::kvm() else { return };
        assert!(vm.registers(-1).is_err() && vm.registers(2).is_err());
        let registers = vm.registers(0).unwrap();
        assert_eq!((registers.regs.rip, registers.pc()), (0xfff0, 0xffff_fff0));
        assert_eq!(vm.all_registers().unwrap().len(), 2);
    }

    #[test]
    fn processors_are_added_up_to_the_most_there_may_be() {
        let mut vm = testing::fake();
        testing::refuses(
            &mut vm,
            "cpu-add",
            &[
                (json!({}), "Parameter 'id' is missing"),
                (json!({"id": -1}), "Invalid CPU id: -1"),
                (json!({"id": 1}), "Unable to add CPU: 1, it already exists"),
                (json!({"id": 5}), "Unable to add CPU: 5, max allowed: 4"),
                (
                    json!({"id": i64::MAX}),
                    &format!("Unable to add CPU: {}, max allowed: 4", i64::MAX),
                ),
            ],
        );
        assert_eq!(ask(&mut vm, "cpu-add", json!({"id": 3})), Ok(json!({})));
        let cpus = vm.board.cpus.clone().unwrap();
        assert!(cpus.lock().is_present(3));
        assert!(!cpus.lock().is_present(2));
        let mut status = [0];
        vm.board.ports.read(0xafe0, &mut status);
        assert_eq!(status, [1 << 2]);
        let again = [(json!({"id": 3}), "Unable to add CPU: 3, it already exists")];
        testing::refuses(&mut vm, "cpu-add", &again);
        // It is in the tables from the next start on, and in saved state at once.
        vm.pulse().unwrap();
        vm.reset().unwrap();
        assert!(vm.board.acpi.as_ref().unwrap().processors[3].present);
        testing::refuses(
            &mut testing::nothing(),
            "cpu-add",
            &[(json!({"id": 0}), "Not supported")],
        );
    }

    #[test]
    fn added_processors_are_as_the_others() {
        let Some(mut vm) = testing::kvm() else { return };
        for id in [4, 2] {
            assert_eq!(ask(&mut vm, "cpu-add", json!({"id": id})), Ok(json!({})));
        }
        let list = ask(&mut vm, "query-cpus", json!({})).unwrap();
        let numbers: Vec<_> =
            list.as_array().unwrap().iter().map(|cpu| cpu["CPU"].as_i64().unwrap()).collect();
        assert_eq!(numbers, [0, 1, 2, 4]);
        assert!(vm.registers(4).is_ok() && vm.registers(3).is_err());
        vm.pulse().unwrap();
        vm.reset().unwrap();
        vm.pulse().unwrap();
        assert_eq!(vm.all_registers().unwrap().len(), 4);
        let other = vm.save().unwrap();
        assert_eq!(ask(&mut vm, "cpu-add", json!({"id": 3})), Ok(json!({})));
        let error = vm.load(&other).unwrap_err().to_string();
        assert_eq!(error, "saved state lacks '/machine/cpu[3]'");
    }
}
