//! Real vCPUs: models, power-on, entries, save and load. Without /dev/kvm each test says so and
//! passes.

use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_UNINITIALIZED, kvm_userspace_memory_region,
};
use kvm_ioctls::VcpuExit;
use proptest::prelude::*;
use vm_memory::{Address, Bytes as _, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap};

use super::*;
use crate::cpu::{
    model::{CpuSpec, HostCpu, model_names},
    setup::{self, Entry, PowerOn},
    topology::Topology,
};

const RAM: usize = 1 << 20;
const CODE: GuestAddress = GuestAddress(0x1_0000);

/// A VM with two processors. The vCPUs go before the memory they run in.
struct Machine {
    vcpus: Vec<VcpuFd>,
    power_on: Vec<PowerOn>,
    caps: StateCaps,
    memory: GuestMemoryMmap<()>,
    _vm: VmFd,
}

#[expect(unsafe_code, reason = "the VM is told where its memory is")]
fn machine(cpu: &str) -> Option<Machine> {
    let Ok(kvm) = Kvm::new() else {
        resources::testing::skipped("no /dev/kvm here");
        return None;
    };
    let vm = kvm.create_vm().unwrap();
    vm.create_irq_chip().unwrap();
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
    let region = kvm_userspace_memory_region {
        memory_size: RAM as u64,
        userspace_addr: memory.get_host_address(GuestAddress(0)).unwrap() as u64,
        ..Default::default()
    };
    // SAFETY: the mapping lives in the machine, which drops its vCPUs first.
    unsafe { vm.set_user_memory_region(region) }.unwrap();
    let caps = StateCaps::probe(&kvm, &vm).unwrap();
    let model = CpuSpec::parse(cpu).unwrap().resolve(&HostCpu::probe(&kvm).unwrap()).unwrap();
    let topology = Topology::parse([("cpus", "2"), ("cores", "2")]).unwrap();
    let mut made = Machine { vcpus: vec![], power_on: vec![], caps, memory, _vm: vm };
    for index in 0..topology.cpus() {
        let vcpu = made._vm.create_vcpu(topology.apic_id(index).into()).unwrap();
        setup::configure(&vcpu, &model, &topology, index).unwrap();
        made.power_on.push(PowerOn::capture(&vcpu, &made.caps).unwrap());
        made.vcpus.push(vcpu);
    }
    Some(made)
}

impl Machine {
    /// Runs the first processor until it writes to a port, and completes the access.
    fn run_to_port(&mut self) -> (u16, u8) {
        loop {
            match self.vcpus[0].run().unwrap() {
                VcpuExit::IoOut(port, data) => {
                    let written = (port, data[0]);
                    self.vcpus[0].set_kvm_immediate_exit(1);
                    assert_eq!(self.vcpus[0].run().unwrap_err().errno(), libc::EINTR);
                    self.vcpus[0].set_kvm_immediate_exit(0);
                    return written;
                }
                VcpuExit::Intr => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn save(&self, index: usize) -> VcpuState {
        save(&self.vcpus[index], &self.caps).unwrap()
    }

    fn reset(&self) {
        for (vcpu, power_on) in self.vcpus.iter().zip(&self.power_on) {
            power_on.reset(vcpu, &self.caps).unwrap();
        }
    }

    /// Puts code that dirties what a reset must clean, and runs it in 64-bit mode.
    fn get_dirty(&mut self) {
        let code: &[&[u8]] = &[
            &[0xb9, 0x81, 0x00, 0x00, 0xc0], // mov ecx, STAR
            &[0xb8, 0x34, 0x12, 0x00, 0x00], // mov eax, 0x1234
            &[0x31, 0xd2],                   // xor edx, edx
            &[0x0f, 0x30],                   // wrmsr
            &[0xb9, 0x1b, 0x00, 0x00, 0x00], // mov ecx, APIC_BASE
            &[0x0f, 0x32],                   // rdmsr
            &[0x0d, 0x00, 0x0c, 0x00, 0x00], // or eax, enable | x2APIC
            &[0x0f, 0x30],                   // wrmsr
            &[0x31, 0xd2],                   // xor edx, edx
            &[0xb9, 0x0f, 0x08, 0x00, 0x00], // mov ecx, x2APIC spurious vector
            &[0xb8, 0xff, 0x01, 0x00, 0x00], // mov eax, enable | 0xff
            &[0x0f, 0x30],                   // wrmsr
            &[0xb9, 0x32, 0x08, 0x00, 0x00], // mov ecx, x2APIC timer
            &[0xb8, 0xef, 0x00, 0x03, 0x00], // mov eax, masked periodic 0xef
            &[0x0f, 0x30],                   // wrmsr
            &[0xb9, 0x38, 0x08, 0x00, 0x00], // mov ecx, x2APIC initial count
            &[0xb8, 0x00, 0x00, 0x00, 0x40], // mov eax, 0x40000000
            &[0x0f, 0x30],                   // wrmsr
            &[0x0f, 0x23, 0xc0],             // mov dr0, rax
            &[0xb8, 0x05, 0x00, 0x00, 0x00], // mov eax, 5
            &[0x44, 0x0f, 0x22, 0xc0],       // mov cr8, rax
            &[0xe6, 0x80],                   // out 0x80, al
            &[0xf4],                         // hlt
        ];
        self.memory.write_slice(&code.concat(), CODE).unwrap();
        let entry = Entry::Long { rip: CODE, rsi: GuestAddress(0x7000) };
        setup::enter(&self.vcpus[0], &entry, &self.memory).unwrap();
        assert_eq!(self.run_to_port(), (0x80, 5));
    }
}

/// The state without what moves by itself: the TSC and the APIC timer's current count.
fn still(mut state: VcpuState) -> VcpuState {
    state.set_msr(MSR_TSC, 0);
    state.lapic.0[0x390..0x394].fill(0);
    state
}

/// Fails naming the fields that differ, which are few of many.
#[track_caller]
fn assert_same(found: VcpuState, expected: &VcpuState, what: &str) {
    let (found, expected) = (still(found), still(expected.clone()));
    let flat = |state: &VcpuState| {
        let mut rows = Vec::new();
        flatten(String::new(), &serde_json::to_value(state).unwrap(), &mut rows);
        rows
    };
    if found != expected {
        let (found, expected) = (flat(&found), flat(&expected));
        let differ = found.iter().filter(|row| !expected.contains(row));
        let from = expected.iter().filter(|row| !found.contains(row));
        panic!("{what}: {:?}\nexpected {:?}", differ.collect::<Vec<_>>(), from.collect::<Vec<_>>());
    }
}

/// The leaves of a JSON value, with their paths.
fn flatten(path: String, value: &serde_json::Value, rows: &mut Vec<String>) {
    match value {
        serde_json::Value::Array(all) if all.iter().all(|v| !v.is_array()) && all.len() == 2 => {
            rows.push(format!("{path}/{}={}", all[0], all[1]));
        }
        serde_json::Value::Array(all) => {
            all.iter().enumerate().for_each(|(i, v)| flatten(format!("{path}/{i}"), v, rows));
        }
        serde_json::Value::Object(all) => {
            all.iter().for_each(|(k, v)| flatten(format!("{path}/{k}"), v, rows));
        }
        other => rows.push(format!("{path}={other}")),
    }
}

#[test]
fn kvm_takes_every_model() {
    for name in model_names().chain(["host", "max"]) {
        let Some(machine) = machine(name) else { return };
        let leaves = machine.vcpus[1].get_cpuid2(KVM_MAX_CPUID_ENTRIES).unwrap();
        let leaf1 = leaves.as_slice().iter().find(|e| e.function == 1).unwrap();
        assert_eq!(leaf1.ebx >> 24, 1, "{name}: the second processor's APIC id");
    }
}

#[test]
fn power_on_is_the_reset_vector_and_others_wait() {
    let Some(machine) = machine("qemu64") else { return };
    machine.reset();
    let regs = machine.vcpus[0].get_regs().unwrap();
    let sregs = machine.vcpus[0].get_sregs().unwrap();
    assert_eq!((regs.rip, sregs.cs.base, sregs.cs.selector), (0xfff0, 0xffff_0000, 0xf000));
    assert_eq!(machine.save(0).mp_state, KVM_MP_STATE_RUNNABLE);
    assert_eq!(machine.save(1).mp_state, KVM_MP_STATE_UNINITIALIZED);
}

#[test]
fn reset_cleans_everything_however_often() {
    let Some(mut machine) = machine("host") else { return };
    let clean = [0, 1].map(|i| still(machine.save(i)));
    for round in 0..50 {
        machine.get_dirty();
        let dirty = still(machine.save(0));
        assert_eq!(dirty.msrs.iter().find(|m| m.0 == 0xc000_0081).unwrap().1, 0x1234);
        assert_eq!(dirty.sregs.apic_base & 0x400, 0x400);
        assert_ne!(dirty, clean[0]);
        machine.reset();
        machine.reset();
        for (i, clean) in clean.iter().enumerate() {
            assert_same(machine.save(i), clean, &format!("round {round}, processor {i}"));
        }
    }
}

#[test]
fn reset_brings_the_tscs_in_step() {
    let Some(machine) = machine("host") else { return };
    let tsc = |i: usize| get_msrs(&machine.vcpus[i], &[MSR_TSC]).unwrap()[0].1;
    let ahead = tsc(1) + (1 << 50);
    write_msrs(&machine.vcpus[1], &[(MSR_TSC, ahead)]).unwrap();
    machine.reset();
    let [before, other, after] = [tsc(0), tsc(1), tsc(0)];
    assert!(before <= other && other <= after, "{before} {other} {after}");
}

#[test]
fn save_load_save_is_equal() {
    let Some(mut machine) = machine("max") else { return };
    machine.reset();
    machine.get_dirty();
    let saved = [machine.save(0), machine.save(1)];
    let text = serde_json::to_string(&saved).unwrap();
    machine.reset();
    let read: [VcpuState; 2] = serde_json::from_str(&text).unwrap();
    assert_eq!(read, saved);
    for (vcpu, state) in machine.vcpus.iter().zip(&read) {
        load(vcpu, &machine.caps, state).unwrap();
    }
    for (i, state) in saved.iter().enumerate() {
        assert_same(machine.save(i), state, &format!("processor {i}"));
    }
    // It goes on where it was: at the HLT after the port access.
    assert_eq!(machine.memory.read_obj::<u8>(GuestAddress(read[0].regs.rip)).unwrap(), 0xf4);
}

#[test]
fn the_guest_goes_on_after_a_load() {
    let Some(mut machine) = machine("qemu64") else { return };
    machine.reset();
    // inc eax; out 0x80, al; jmp back
    machine.memory.write_slice(&[0xff, 0xc0, 0xe6, 0x80, 0xeb, 0xfa], CODE).unwrap();
    let entry = Entry::Pvh { rip: CODE, start_info: GuestAddress(0) };
    setup::enter(&machine.vcpus[0], &entry, &machine.memory).unwrap();
    assert_eq!(machine.run_to_port(), (0x80, 1));
    let state = machine.save(0);
    assert_eq!(machine.run_to_port(), (0x80, 2));
    machine.reset();
    load(&machine.vcpus[0], &machine.caps, &state).unwrap();
    assert_eq!(machine.run_to_port(), (0x80, 2));
}

#[test]
fn entries_hand_over_what_their_protocols_say() {
    let Some(mut machine) = machine("host") else { return };
    let leaves = machine.vcpus[0].get_cpuid2(KVM_MAX_CPUID_ENTRIES).unwrap();
    let xsave = leaves.as_slice().iter().find(|e| e.function == 0xd && e.index == 0);
    let xcr0 = xsave.map_or(1, |e| u64::from(e.eax) & 0x2e7);
    // Each loads its pointer from the handed-over register and shows the byte there.
    let show_rsi = [0x8a, 0x06, 0xe6, 0x80]; // mov al, [rsi]; out 0x80, al
    let show_ebx = [0x8a, 0x03, 0xe6, 0x80]; // mov al, [ebx]; out 0x80, al
    let info = GuestAddress(0x7000);
    machine.memory.write_obj(0x5a_u8, info).unwrap();
    for (entry, code) in [
        (Entry::Long { rip: CODE, rsi: info }, show_rsi),
        (Entry::Pvh { rip: CODE, start_info: info }, show_ebx),
        (Entry::Multiboot { rip: CODE, info }, show_ebx),
    ] {
        machine.reset();
        machine.memory.write_slice(&code, CODE).unwrap();
        setup::enter(&machine.vcpus[0], &entry, &machine.memory).unwrap();
        let regs = machine.vcpus[0].get_regs().unwrap();
        let sregs = machine.vcpus[0].get_sregs().unwrap();
        assert_eq!((regs.rip, regs.rflags), (CODE.raw_value(), 2));
        if let Entry::Multiboot { .. } = entry {
            assert_eq!(regs.rax, 0x2bad_b002);
        }
        assert_eq!(machine.save(0).xcrs, [(0, xcr0)]);
        let long = matches!(entry, Entry::Long { .. });
        assert_eq!(sregs.efer & 0x400 != 0, long);
        assert_eq!((sregs.cs.l, sregs.cs.db), (u8::from(long), u8::from(!long)));
        let lapic = machine.vcpus[0].get_lapic().unwrap().regs;
        assert_eq!((lapic[0x351], lapic[0x361]), (7, 4), "LINT0 and LINT1");
        assert_eq!(machine.run_to_port(), (0x80, 0x5a), "{entry:?}");
    }
    machine.reset();
    setup::enter(&machine.vcpus[0], &Entry::Reset, &machine.memory).unwrap();
    assert_eq!(machine.vcpus[0].get_regs().unwrap().rip, 0xfff0);
}

#[test]
fn impossible_entries_are_refused() {
    let Some(machine) = machine("qemu32") else { return };
    let high = GuestAddress(1 << 32);
    let refused = |entry: Entry| {
        machine.reset();
        setup::enter(&machine.vcpus[0], &entry, &machine.memory).unwrap_err().to_string()
    };
    let message = refused(Entry::Pvh { rip: high, start_info: CODE });
    assert_eq!(message, "PVH entry point at 0x100000000 is not below 4 GiB");
    let message = refused(Entry::Multiboot { rip: CODE, info: high });
    assert_eq!(message, "multiboot information at 0x100000000 is not below 4 GiB");
    let message = refused(Entry::Long { rip: high, rsi: CODE });
    assert_eq!(message, "entry point at 0x100000000 is not below 4 GiB");
}

#[test]
fn impossible_states_are_refused() {
    let Some(machine) = machine("host") else { return };
    let good = machine.save(0);
    let refused = |change: &dyn Fn(&mut VcpuState)| {
        let mut state = good.clone();
        change(&mut state);
        load(&machine.vcpus[0], &machine.caps, &state).unwrap_err().to_string()
    };
    assert_eq!(refused(&|s| s.lapic.0.truncate(5)), "local APIC of 5 bytes");
    assert_eq!(refused(&|s| s.xcrs = vec![(0, 1); 17]), "17 extended control registers");
    assert!(refused(&|s| s.xsave.0.resize(1 << 20, 1)).starts_with("XSAVE area of 1048576 bytes"));
    assert_eq!(
        refused(&|s| s.msrs.push((0xdead_0000, 1))),
        "this host's KVM refuses 0x1 in MSR 0xdead0000"
    );
    let nested = refused(&|s| s.nested = Some(Bytes(vec![0; 3])));
    assert_eq!(nested, "nested state of 3 bytes");
    load(&machine.vcpus[0], &machine.caps, &good).unwrap();
}

#[test]
fn tsc_of_another_frequency_needs_scaling() {
    let Some(machine) = machine("host") else { return };
    let mut state = machine.save(0);
    let khz = state.tsc_khz.unwrap();
    state.tsc_khz = Some(khz + khz / 10_000);
    load(&machine.vcpus[0], &machine.caps, &state).unwrap();
    state.tsc_khz = Some(khz / 2);
    let scales = Kvm::new().unwrap().check_extension(Cap::TscControl);
    assert_eq!(load(&machine.vcpus[0], &machine.caps, &state).is_ok(), scales);
}

#[test]
fn an_unused_register_this_host_lacks_does_not_matter() {
    let Some(machine) = machine("host") else { return };
    let mut state = machine.save(0);
    state.msrs.push((0xdead_0000, 0));
    load(&machine.vcpus[0], &machine.caps, &state).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]
    #[test]
    fn hostile_states_are_refused_or_loaded_and_reset_recovers(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u32>()), 32),
    ) {
        let Some(machine) = machine("host") else { return Ok(()) };
        let clean = still(machine.save(0));
        let good = serde_json::to_value(&clean).unwrap();
        for (at, value) in changes {
            let mut state = good.clone();
            let mut numbers = Vec::new();
            collect(&mut state, &mut numbers);
            let at = at.index(numbers.len());
            *numbers.swap_remove(at) = value.into();
            // One that does not fit its field is refused when it is read.
            if let Ok(state) = serde_json::from_value::<VcpuState>(state) {
                let _ = load(&machine.vcpus[0], &machine.caps, &state);
            }
        }
        machine.reset();
        assert_same(machine.save(0), &clean, "after a reset");
    }
}

/// All numbers in a JSON value.
fn collect<'a>(value: &'a mut serde_json::Value, into: &mut Vec<&'a mut serde_json::Value>) {
    match value {
        serde_json::Value::Number(_) => into.push(value),
        serde_json::Value::Array(all) => all.iter_mut().for_each(|v| collect(v, into)),
        serde_json::Value::Object(all) => all.values_mut().for_each(|v| collect(v, into)),
        _ => {}
    }
}
