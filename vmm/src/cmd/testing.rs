//! Machines for the tests of commands, and clients that ask them.

use devices::isa::rtc;
use qmp::QmpError;
use resources::hv::fake::Fake;
use resources::hv::kvm::{KvmError, KvmVm};
use resources::iol::Notify;
use resources::props::Overrides;
use resources::ram::{Ram, RamConfig};
use resources::request::Requests;
use serde_json::Value;

use crate::cpu::model::CpuSpec;
use crate::cpu::processors::{self, Processors};
use crate::cpu::run_page;
use crate::cpu::topology::Topology;
use crate::machine::{Accel, Board, Boot, pc};
use crate::mailbox::Mailbox;
use crate::vm::{Policy, Vm};

/// RAM of the machines here.
pub(crate) const RAM: u64 = 2 << 20;

/// A `pc` without processors.
pub(crate) fn fake() -> Vm {
    machine(Accel::Qtest(Fake::unrecorded()))
}

/// A `pc` with two processors that were reset and have not run; `None` without /dev/kvm.
pub(crate) fn kvm() -> Option<Vm> {
    match KvmVm::new() {
        Ok(kvm) => Some(machine(Accel::Kvm(kvm))),
        Err(KvmError::Open(error)) => {
            resources::testing::skipped(format_args!("no /dev/kvm here: {error}"));
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Machine `none`.
pub(crate) fn nothing() -> Vm {
    let board = Board::new(Accel::Qtest(Fake::unrecorded()));
    Vm::new(board, Vec::new(), Mailbox::new(Notify::new()), Policy::default())
}

fn machine(accel: Accel) -> Vm {
    let topology = Topology::parse([("cpus", "2"), ("maxcpus", "5")]).unwrap();
    let mailbox = Mailbox::new(Notify::new());
    let config = pc::PcConfig {
        ram: Ram::new(&RamConfig { size: RAM, ..RamConfig::default() }).unwrap(),
        topology: &topology,
        serials: Vec::new(),
        debugcon: None,
        rtc: (rtc::Source::Virtual, 0),
        boot: Boot::Nothing,
        overrides: &Overrides::default(),
    };
    let requests: Requests = mailbox.clone();
    let board = pc::build(accel.clone(), config, &requests).unwrap();
    let (mut vcpus, mut made_of) = (Vec::new(), None);
    if let Accel::Kvm(kvm) = &accel {
        run_page::install_signal_handler().unwrap();
        let model = processors::resolve(&CpuSpec::parse("qemu64").unwrap(), kvm).unwrap();
        let processors = Processors::new(kvm, &board, (model, topology), &mailbox).unwrap();
        vcpus = processors.make_first().unwrap();
        made_of = Some(processors);
    }
    let mut vm = Vm::new(board, vcpus, mailbox, Policy::default());
    vm.processors = made_of;
    vm.fdsets = resources::fdset::FdSets::new();
    vm.reset().unwrap();
    vm
}

/// What a client is answered.
pub(crate) fn ask(vm: &mut Vm, command: &str, arguments: Value) -> Result<Value, QmpError> {
    let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
    qmp::dispatch(vm, command, arguments)
}

/// Checks that a command refuses arguments with these texts.
pub(crate) fn refuses(vm: &mut Vm, command: &str, cases: &[(Value, &str)]) {
    for (arguments, expected) in cases {
        let error = ask(vm, command, arguments.clone()).expect_err(expected);
        assert_eq!(error.desc, *expected, "{command} {arguments}");
    }
}

/// The names of the events since the last time.
pub(crate) fn events(vm: &mut Vm) -> Vec<String> {
    let events = std::mem::take(&mut vm.context.events);
    events.iter().map(|raised| raised.message()["event"].as_str().unwrap().to_owned()).collect()
}

/// A path for a test's file.
pub(crate) fn temporary(name: &str) -> String {
    let path = std::env::temp_dir().join(format!("cmd-{name}-{}", std::process::id()));
    path.to_str().unwrap().to_owned()
}
