//! The devices of machine `pc`, register by register, in the real `vmm` without KVM.
//!
//! Each test starts a process with `-machine pc,accel=qtest` and is its processors: it reads and
//! writes ports and memory over the debug port and lets virtual time pass.

mod acpi;
mod chardev;
mod debug_ports;
mod golden;
mod i8042;
mod life;
mod memory;
mod net;
mod plug;
mod protocol;
mod reset;
mod rtc;
mod serial;

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use tests::rig::qtest::Qtest;
use tests::rig::vm::{Peer, SOON, TestVm, VmBuilder};
use tests::scratch::Scratch;
use tests::workspace::debug_peer;

/// One nanosecond short of nothing, to look at both sides of a deadline.
const NS: Duration = Duration::from_nanos(1);

/// A machine and the connections to it.
struct Machine {
    /// The debug port.
    q: Qtest,
    /// The process, QMP, and COM1 on its standard input and output.
    vm: TestVm,
    dir: Scratch,
}

/// A machine without processors and without connections.
fn builder(dir: &Path, memory: &str) -> VmBuilder {
    static PEER: OnceLock<Peer> = OnceLock::new();
    let peer = PEER.get_or_init(|| debug_peer().unwrap());
    let vm = VmBuilder::new(peer, Path::new("/nonexistent"), dir);
    vm.memory(memory).args(["-machine", "pc,accel=qtest"])
}

impl Machine {
    /// A `pc` of 64 MiB and what `args` add.
    fn new<const N: usize>(args: [&str; N]) -> Machine {
        Machine::of_size("64", args)
    }

    fn of_size<const N: usize>(memory: &str, args: [&str; N]) -> Machine {
        Machine::with(memory, &args)
    }

    fn with(memory: &str, args: &[&str]) -> Machine {
        let dir = Scratch::new().unwrap();
        let socket = dir.join("qtest");
        let device = format!("unix:{}", socket.display());
        let vm = builder(&dir, memory).args(["-qtest", &device]);
        let vm = args.iter().fold(vm, |vm, arg| vm.args([*arg])).start().unwrap();
        let q = Qtest::connect(&socket, SOON).unwrap();
        Machine { q, vm, dir }
    }

    /// A machine that tells its interrupts.
    fn with_irqs<const N: usize>(args: [&str; N]) -> Machine {
        let mut machine = Machine::new(args);
        machine.q.intercept().unwrap();
        machine
    }

    fn inb(&mut self, port: u16) -> u8 {
        self.q.inb(port).unwrap()
    }

    fn outb(&mut self, port: u16, value: u8) {
        self.q.outb(port, value).unwrap();
    }

    /// Lets virtual time pass; the new time in nanoseconds.
    fn step(&mut self, time: Duration) -> u64 {
        self.q.step(time).unwrap()
    }

    /// The changes of interrupts since the last time.
    fn irqs(&mut self) -> Vec<(u32, bool)> {
        self.q.irq_changes()
    }

    /// Waits for a QMP event.
    fn event(&mut self, name: &str) -> serde_json::Value {
        self.vm.qmp.event(name, SOON).map_err(|error| self.vm.process.explain(error)).unwrap()
    }

    /// Waits for the process to end.
    fn exit_code(&mut self) -> i32 {
        self.vm.exit_code(SOON).unwrap()
    }

    /// Runs a QMP command without arguments.
    fn qmp(&mut self, command: &str) -> serde_json::Value {
        self.vm.qmp.execute(command, serde_json::json!({})).unwrap()
    }
}
