//! Loading the state of a whole machine, for the fuzzer: a `pc` without processors.

use devices::isa::rtc;
use resources::hv::fake::Fake;
use resources::iol::Notify;
use resources::props::Overrides;
use resources::ram::{Ram, RamConfig};
use resources::request::Requests;

use super::*;
use crate::cpu::topology::Topology;
use crate::machine::{Accel, Boot, pc};

/// Loads a list of sections into a machine. What a machine takes it can run with, save and load.
pub fn fuzz(data: &[u8]) {
    let list = Blob::from_bytes(data).and_then(|blob| blob.parse::<Vec<(String, Blob)>>(1, &[]));
    let Ok(list) = list else { return };
    let sections: Vec<_> = list.into_iter().map(|(path, blob)| Section { path, blob }).collect();
    let mut vm = machine();
    if vm.load(&sections).is_err() {
        vm.fail();
        return vm.reset().expect("any state can be reset");
    }
    vm.start();
    vm.board.clock.step_timer(u64::MAX);
    vm.service();
    vm.stop(RunState::Paused);
    let sections = vm.save().expect("what was loaded can be saved");
    vm.load(&sections).expect("what was saved can be loaded");
}

/// The sections of a machine after power-on.
pub fn fuzz_seed() -> Vec<u8> {
    let sections = machine().save().expect("a new machine can be saved");
    let list: Vec<_> = sections.into_iter().map(|section| (section.path, section.blob)).collect();
    Blob::new(1, &list).and_then(|blob| blob.to_bytes()).expect("a small state")
}

/// A `pc` with 1 MiB and no processor, after power-on.
pub(crate) fn machine() -> Vm {
    let topology = Topology::parse::<&str, &str>([]).expect("one processor");
    let mailbox = Mailbox::new(Notify::new());
    let config = pc::PcConfig {
        ram: Ram::new(&RamConfig { size: 1 << 20, ..RamConfig::default() }).expect("1 MiB"),
        topology: &topology,
        serials: Vec::new(),
        debugcon: None,
        rtc: (rtc::Source::Virtual, 0),
        boot: Boot::Nothing,
        overrides: &Overrides::default(),
    };
    let requests: Requests = mailbox.clone();
    let board = pc::build(Accel::Qtest(Fake::unrecorded()), config, &requests).expect("a board");
    let mut vm = Vm::new(board, Vec::new(), mailbox, Policy::default());
    vm.reset().expect("a reset");
    vm
}
