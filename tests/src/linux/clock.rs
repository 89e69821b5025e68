//! The guest's clocks across stop and cont.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{Kernel, TestVm};

pub(super) fn tests() -> Vec<Test> {
    vec![Test::linux("clock::stop_and_cont_under_load", 180, stop_and_cont)]
}

const STOPPED: f64 = 6.0;
/// What reading a clock through a shell may be off beside the delays that are measured.
const SLACK: f64 = 0.25;

/// A reading of a guest clock: its value, and this machine's time just before and just after.
pub(super) struct Reading {
    guest: f64,
    before: Instant,
    after: Instant,
}

pub(super) fn read(vm: &mut TestVm, command: &str) -> Result<Reading> {
    let before = Instant::now();
    let guest = vm.sh(command)?.trim().parse()?;
    Ok(Reading { guest, before, after: Instant::now() })
}

/// Fails unless the guest's clock went on by the time between two readings, less `paused`.
pub(super) fn went_on(what: &str, from: &Reading, to: &Reading, paused: f64) -> Result {
    went_on_but(what, from, to, [paused, paused])
}

/// The same where it stood still for at least and at most so long.
pub(super) fn went_on_but(what: &str, from: &Reading, to: &Reading, paused: [f64; 2]) -> Result {
    let least = (to.before - from.after).as_secs_f64() - paused[1] - SLACK;
    let most = (to.after - from.before).as_secs_f64() - paused[0] + SLACK;
    let guest = to.guest - from.guest;
    if guest < least.max(0.0) || guest > most {
        return Err(format!(
            "the guest's {what} went on by {guest:.2} s instead of {least:.2} to {most:.2} s"
        )
        .into());
    }
    Ok(())
}

pub(super) const UPTIME: &str = "cut -d' ' -f1 /proc/uptime";

/// A busy guest is stopped for a while: its time stands still, then goes on at the right pace.
fn stop_and_cont(ctx: &Ctx) -> Result {
    let mut vm = ctx.linux(Kernel::V6_12).cpus(2).start()?;
    vm.booted()?;
    for _ in 0..2 {
        vm.sh("while true; do true; done >/dev/null &")?;
    }
    let before = read(&mut vm, UPTIME)?;

    vm.qmp.execute("stop", json!({}))?;
    let stopped = Instant::now();
    vm.qmp.event("STOP", Duration::from_secs(10))?;
    let status = vm.qmp.execute("query-status", json!({}))?;
    if status["status"] != "paused" || status["running"] != false {
        return Err(format!("after stop the status is {status}").into());
    }
    // A stopped guest says nothing, whatever it is told.
    vm.console.type_text("echo VMTEST-AWAKE\n")?;
    thread::sleep(Duration::from_secs_f64(STOPPED));
    if vm.console.transcript().text().contains("\nVMTEST-AWAKE") {
        return Err("the guest runs while stopped".into());
    }
    vm.qmp.execute("cont", json!({}))?;
    let paused = stopped.elapsed().as_secs_f64();
    vm.qmp.event("RESUME", Duration::from_secs(10))?;
    vm.console.expect_line("VMTEST-AWAKE", Duration::from_secs(60))?;

    let after = read(&mut vm, UPTIME)?;
    went_on("time since boot across the stop", &before, &after, paused)?;
    vm.sh("sleep 3")?;
    let later = read(&mut vm, UPTIME)?;
    went_on("time since boot after the stop", &after, &later, 0.0)?;
    let date = read(&mut vm, "date +%s")?;
    vm.sh("sleep 4")?;
    let later = read(&mut vm, "date +%s")?;
    // Whole seconds: the readings may be off by one.
    let advance = later.guest - date.guest;
    let real = (later.after - date.before).as_secs_f64();
    if advance < 3.0 || advance > real + 1.0 {
        return Err(format!("the guest's date went on by {advance} s in {real:.1} s").into());
    }
    vm.check_kernel_log()
}
