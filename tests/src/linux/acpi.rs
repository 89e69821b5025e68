//! What a guest does by ACPI besides switching itself off: sleep, take in processors, report panics.

use serde_json::json;

use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{Kernel, SOON, TestVm};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::linux("acpi::sleep_6.12", 400, |ctx| sleep(ctx, Kernel::V6_12)),
        Test::linux("acpi::sleep_6.1", 400, |ctx| sleep(ctx, Kernel::V6_1)),
        Test::linux("acpi::sleep_that_is_not_offered", 200, no_sleep),
        Test::linux("acpi::added_cpus_stay", 400, added_cpus),
        Test::linux("acpi::panic_is_reported", 200, panic),
        Test::linux("acpi::generation_id", 200, generation_id),
        Test::linux("acpi::sleep_button", 200, sleep_button),
    ]
}

fn status(vm: &mut TestVm, expected: &str) -> Result {
    let status = vm.qmp.execute("query-status", json!({}))?;
    if status["status"] == expected {
        return Ok(());
    }
    Err(format!("the status is {status}, not {expected:?}").into())
}

/// The guest goes to sleep, and `wake` wakes it: it goes on where it was, with both processors.
fn nap(vm: &mut TestVm, before: &str, wake: impl FnOnce(&mut TestVm) -> Result) -> Result {
    vm.sh(before)?;
    vm.console.type_text("echo mem >/sys/power/state; echo VMTEST-AWAKE-$?\n")?;
    vm.qmp.event("SUSPEND", SOON)?;
    wake(vm)?;
    vm.qmp.event("WAKEUP", SOON)?;
    vm.console.expect_line("VMTEST-AWAKE-0", SOON).map_err(|error| vm.process.explain(error))?;
    status(vm, "running")?;
    vm.sh("grep -c ^processor /proc/cpuinfo | grep -qx 2")?;
    vm.sh("sha256sum -c /tmp/sum >/dev/null").map(drop)
}

/// Sleeps, and every way to be woken, with what may be asked for meanwhile.
fn sleep(ctx: &Ctx, kernel: Kernel) -> Result {
    let mut vm = ctx.linux(kernel).cpus(2).append("no_console_suspend").start()?;
    vm.booted()?;
    vm.sh("dd if=/dev/urandom of=/tmp/data bs=1M count=16 2>/dev/null")?;
    vm.sh("sha256sum /tmp/data >/tmp/sum")?;
    nap(&mut vm, "true", |vm| {
        status(vm, "suspended")?;
        for command in ["cont", "stop", "x-pulse-save-restore"] {
            vm.qmp.execute(command, json!({}))?;
            status(vm, "suspended")?;
        }
        vm.qmp.execute("system_wakeup", json!({})).map(drop)
    })?;
    let alarm = "echo 0 >/sys/class/rtc/rtc0/wakealarm; echo +3 >/sys/class/rtc/rtc0/wakealarm";
    nap(&mut vm, alarm, |_| Ok(()))?;
    nap(&mut vm, "true", |vm| vm.qmp.execute("system_powerdown", json!({})).map(drop))?;
    vm.qmp.execute("x-pulse-save-restore", json!({}))?;
    nap(&mut vm, "true", |vm| vm.qmp.execute("system_wakeup", json!({})).map(drop))?;
    vm.check_kernel_log()?;

    // A machine that is reset in its sleep starts anew.
    vm.console.type_text("echo mem >/sys/power/state\n")?;
    vm.qmp.event("SUSPEND", SOON)?;
    vm.qmp.execute("system_reset", json!({}))?;
    vm.qmp.event("RESET", SOON)?;
    vm.booted()?;
    vm.sh("test ! -e /tmp/sum").map(drop)
}

fn no_sleep(ctx: &Ctx) -> Result {
    let mut vm = ctx.linux(Kernel::V6_12).args(["-global", "PIIX4_PM.disable_s3=1"]).start()?;
    vm.booted()?;
    vm.sh("! grep -q deep /sys/power/mem_sleep").map(drop)
}

/// Processors that were added in any order stay, whatever becomes of the machine.
fn added_cpus(ctx: &Ctx) -> Result {
    let mut vm = ctx.linux(Kernel::V6_12).args(["-smp", "1,maxcpus=4"]).start()?;
    vm.booted()?;
    for id in [2, 1, 3] {
        vm.qmp.execute("cpu-add", json!({ "id": id }))?;
    }
    let cpu = "/sys/devices/system/cpu/cpu";
    for id in 1..4 {
        vm.wait_for(&format!("test -e {cpu}{id}/online"))?;
        vm.sh(&format!("echo 1 >{cpu}{id}/online"))?;
    }
    vm.sh("grep -c ^processor /proc/cpuinfo | grep -qx 4")?;
    for _ in 0..3 {
        vm.qmp.execute("x-pulse-save-restore", json!({}))?;
        vm.sh("for cpu in 0 1 2 3; do taskset -c $cpu sha256sum /bin/busybox; done | uniq | wc -l | grep -qx 1")?;
    }
    vm.check_kernel_log()?;
    vm.qmp.execute("system_reset", json!({}))?;
    vm.booted()?;
    vm.sh("grep -c ^processor /proc/cpuinfo | grep -qx 4")?;
    vm.check_kernel_log()
}

fn panic(ctx: &Ctx) -> Result {
    let mut vm = ctx.linux(Kernel::V6_12).args(["-device", "pvpanic"]).start()?;
    vm.booted()?;
    vm.load(&["pvpanic_mmio"])?;
    vm.console.type_text("echo c >/proc/sysrq-trigger\n")?;
    let event = vm.qmp.event("GUEST_PANICKED", SOON)?;
    if event["data"] != json!({ "action": "pause" }) {
        return Err(format!("GUEST_PANICKED has {}", event["data"]).into());
    }
    vm.qmp.event("STOP", SOON)?;
    status(&mut vm, "guest-panicked")?;
    vm.qmp.execute("system_reset", json!({}))?;
    vm.qmp.event("RESET", SOON)?;
    vm.qmp.execute("cont", json!({}))?;
    vm.booted()
}

/// The guest's driver finds the number and takes it into its random numbers.
fn generation_id(ctx: &Ctx) -> Result {
    let mut vm = ctx.linux(Kernel::V6_12).args(["-device", "vmgenid,guid=auto"]).start()?;
    vm.booted()?;
    let guid = vm.qmp.execute("query-vm-generation-id", json!({}))?;
    if guid["guid"].as_str().map(str::len) != Some(36) {
        return Err(format!("{guid} is no number").into());
    }
    vm.load(&["vmgenid"])?;
    vm.wait_for("ls -l /sys/bus/acpi/devices/QEMUVGID:00/physical_node/driver /sys/bus/acpi/devices/QEMUVGID:00/driver 2>/dev/null | grep -q vmgenid")?;
    vm.qmp.execute("x-pulse-save-restore", json!({}))?;
    vm.check_kernel_log()
}

/// The button is a key for the guest's programs; here any key ends it.
fn sleep_button(ctx: &Ctx) -> Result {
    let mut vm = ctx.linux(Kernel::V6_12).start()?;
    vm.booted()?;
    vm.qmp.execute("x-system-sleep", json!({}))?;
    vm.console.expect("VMTEST-BUTTON", SOON)?;
    vm.qmp.event("SHUTDOWN", SOON).map(drop)
}
