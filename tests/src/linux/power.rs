//! The ways a machine goes off or starts again, and what the process makes of them.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{Kernel, SOON, TestVm};

pub(super) fn tests() -> Vec<Test> {
    let mut tests = vec![
        Test::linux("power::poweroff", 200, poweroff),
        Test::linux("power::poweroff_no_shutdown", 200, poweroff_no_shutdown),
        Test::linux("power::system_powerdown_6.12", 200, |ctx| powerdown(ctx, Kernel::V6_12)),
        Test::linux("power::system_powerdown_6.1", 200, |ctx| powerdown(ctx, Kernel::V6_1)),
        Test::linux("power::quit", 200, quit),
        Test::linux("power::sigterm", 200, sigterm),
        Test::linux("power::reboot_no_reboot", 200, no_reboot),
    ];
    // The kernel's ways to start the machine again: ACPI reset register, keyboard controller,
    // PCI reset port, triple fault.
    for (way, word) in [("a", "acpi"), ("k", "keyboard"), ("p", "pci"), ("t", "triple_fault")] {
        let name = format!("power::reboot_by_{word}");
        tests.push(Test::linux(&name, 180, move |ctx| reboot(ctx, way)));
    }
    tests
}

fn booted(ctx: &Ctx, arguments: &[&str]) -> Result<TestVm> {
    let mut builder = ctx.linux(Kernel::V6_12);
    for argument in arguments {
        builder = builder.args([argument]);
    }
    let mut vm = builder.start()?;
    vm.booted()?;
    Ok(vm)
}

/// Waits for SHUTDOWN with these data.
fn shutdown_event(vm: &mut TestVm, guest: bool, reason: &str) -> Result {
    let event = vm.qmp.event("SHUTDOWN", SOON)?;
    let expected = json!({ "guest": guest, "reason": reason });
    same("SHUTDOWN's data", &event["data"], &expected)
}

fn same(what: &str, found: &Value, expected: &Value) -> Result {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: {found} instead of {expected}").into())
}

fn ends_well(vm: &mut TestVm) -> Result {
    match vm.exit_code(SOON)? {
        0 => Ok(()),
        code => Err(vm.process.explain(format!("exit code {code}").into())),
    }
}

fn poweroff(ctx: &Ctx) -> Result {
    let mut vm = booted(ctx, &[])?;
    vm.console.type_text("poweroff -f\n")?;
    shutdown_event(&mut vm, true, "guest-shutdown")?;
    vm.qmp.closed(SOON)?;
    ends_well(&mut vm)
}

fn poweroff_no_shutdown(ctx: &Ctx) -> Result {
    let mut vm = booted(ctx, &["-no-shutdown"])?;
    vm.console.type_text("poweroff -f\n")?;
    shutdown_event(&mut vm, true, "guest-shutdown")?;
    vm.qmp.event("STOP", SOON)?;
    let status = vm.qmp.execute("query-status", json!({}))?;
    same("the status after poweroff", &status["status"], &json!("shutdown"))?;
    // A reset brings the machine back to its start, where it waits for cont.
    vm.qmp.execute("system_reset", json!({}))?;
    vm.qmp.event("RESET", SOON)?;
    let status = vm.qmp.execute("query-status", json!({}))?;
    same("the status after system_reset", &status["status"], &json!("paused"))?;
    vm.console.skip();
    vm.qmp.execute("cont", json!({}))?;
    vm.booted()?;
    vm.qmp.execute("quit", json!({}))?;
    ends_well(&mut vm)
}

fn powerdown(ctx: &Ctx, kernel: Kernel) -> Result {
    let mut vm = ctx.linux(kernel).start()?;
    vm.booted()?;
    vm.qmp.execute("system_powerdown", json!({}))?;
    vm.qmp.event("POWERDOWN", SOON)?;
    vm.console.expect("VMTEST-BUTTON", SOON)?;
    shutdown_event(&mut vm, true, "guest-shutdown")?;
    ends_well(&mut vm)
}

fn quit(ctx: &Ctx) -> Result {
    let mut vm = booted(ctx, &[])?;
    vm.qmp.execute("quit", json!({}))?;
    shutdown_event(&mut vm, false, "host-qmp-quit")?;
    ends_well(&mut vm)
}

fn sigterm(ctx: &Ctx) -> Result {
    let mut vm = booted(ctx, &[])?;
    let pid = Pid::from_raw(i32::try_from(vm.process.id())?).ok_or("no process id")?;
    kill_process(pid, Signal::TERM)?;
    shutdown_event(&mut vm, false, "host-signal")?;
    ends_well(&mut vm)
}

fn reboot(ctx: &Ctx, way: &str) -> Result {
    let mut vm = ctx.linux(Kernel::V6_12).append(&format!("reboot={way}")).start()?;
    vm.booted()?;
    vm.sh("echo gone >/tmp/before")?;
    vm.console.type_text("reboot -f\n")?;
    let event = vm.qmp.event("RESET", SOON)?;
    same("RESET's data", &event["data"], &json!({ "guest": true, "reason": "guest-reset" }))?;
    vm.booted()?;
    vm.sh("test ! -e /tmp/before")?;
    vm.check_kernel_log()
}

fn no_reboot(ctx: &Ctx) -> Result {
    let mut vm = booted(ctx, &["-no-reboot"])?;
    vm.console.type_text("reboot -f\n")?;
    shutdown_event(&mut vm, true, "guest-reset")?;
    ends_well(&mut vm)
}
