//! Tests with guests of a few instructions, which run on any KVM.
//!
//! [`asm`] is what they are written with, [`entry`] how they come to 64-bit mode, and [`image`] what
//! makes them bootable.

pub mod asm;
mod boot;
mod chance;
mod cli;
mod clients;
mod converge;
mod dump;
pub mod entry;
mod hostile;
mod human;
pub mod image;
mod irq;
pub(crate) mod migrate;
mod migrate_disks;
mod migrate_tls;
pub(crate) mod pause;
mod ports;
mod postcopy;
mod smp;
mod snapshots;
mod snapshots_beside;
mod states;
mod transcripts;

use std::time::Duration;

use serde_json::json;

use crate::rig::Result;
use crate::rig::registry::Test;
use crate::rig::vm::{TestVm, VmBuilder};

/// How long a guest or the machine may take for a step, which is a matter of milliseconds: less
/// than any test's limit, so that the failure is told by the step.
const SOON: Duration = Duration::from_secs(20);

/// Every tiny-guest test.
pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    tests.extend(ports::tests());
    tests.extend(states::tests());
    tests.extend(pause::tests());
    tests.extend(migrate::tests());
    tests.extend(migrate_tls::tests());
    tests.extend(chance::tests());
    tests.extend(migrate_disks::tests());
    tests.extend(snapshots::tests());
    tests.extend(snapshots_beside::tests());
    tests.extend(converge::tests());
    tests.extend(postcopy::tests());
    tests.extend(irq::tests());
    tests.extend(boot::tests());
    tests.extend(smp::tests());
    tests.extend(clients::tests());
    tests.extend(dump::tests());
    tests.extend(human::tests());
    tests.extend(hostile::tests());
    tests.extend(cli::tests());
    tests.extend(transcripts::tests());
    tests
}

/// Starts the machine and lets the guest run only once the client is there, so that the client
/// sees every event.
fn start_watched(vm: VmBuilder) -> Result<TestVm> {
    let mut vm = vm.args(["-S"]).start()?;
    vm.qmp.execute("cont", json!({}))?;
    vm.qmp.event("RESUME", SOON)?;
    Ok(vm)
}

/// Reads the next line `name=VALUE` that the guest shows.
fn shown(vm: &mut TestVm, name: &str) -> Result<u64> {
    let line = vm.console.expect_line(&format!("{name}="), SOON);
    let line = line.map_err(|error| vm.process.explain(error))?;
    let (_, value) = line.split_once('=').unwrap_or_default();
    u64::from_str_radix(value, 16).map_err(|_| format!("{line:?} is no number").into())
}

/// Fails unless the guest shows `expected` next as `name`.
fn expect_shown(vm: &mut TestVm, name: &str, expected: u64) -> Result {
    match shown(vm, name)? {
        value if value == expected => Ok(()),
        value => Err(format!("{name} is {value:#x}, not {expected:#x}").into()),
    }
}

/// Fails unless the machine's run state is `expected`.
fn expect_status(vm: &mut TestVm, expected: &str) -> Result {
    let status = vm.qmp.execute("query-status", json!({}))?;
    let running = expected == "running";
    if status["status"] == expected && status["running"] == running {
        return Ok(());
    }
    Err(format!("the machine is not {expected} but {status}").into())
}

/// Waits for an event that tells its reason; all reasons but the guest's begin with "host".
fn expect_event(vm: &mut TestVm, name: &str, reason: &str) -> Result {
    let event = vm.qmp.event(name, SOON)?;
    let guest = reason.starts_with("guest");
    expect_equal(name, &event["data"], &json!({ "guest": guest, "reason": reason }))
}

/// Fails unless `left` is `right`, which `what` names.
fn expect_equal<T: PartialEq + std::fmt::Debug>(what: &str, left: T, right: T) -> Result {
    if left == right {
        return Ok(());
    }
    Err(format!("{what}: {left:?}, not {right:?}").into())
}

/// The memory of the machine's process that is in use, in KiB.
fn memory_kib(vm: &TestVm) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", vm.process.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let number = line.split_whitespace().next().unwrap_or_default();
    number.parse().map_err(|_| format!("VmRSS is {line:?}").into())
}
