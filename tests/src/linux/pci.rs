//! The PCI bus as a guest sees it, and devices that come to it and leave it.

use serde_json::{Value, json};

use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{Kernel, SOON, TestVm};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::linux("pci::functions", 200, functions),
        Test::linux("pci::behind_a_bridge", 200, behind_a_bridge),
        Test::linux("pci::watchdog", 200, watchdog),
        Test::linux("pci::hot_plug", 240, hot_plug),
        Test::linux("pci::removal_by_reset", 240, removal_by_reset),
    ]
}

const BY_ID: &str =
    "cd /sys/bus/pci/devices; for d in *; do echo $d $(cat $d/vendor $d/device); done";

fn functions(ctx: &Ctx) -> Result {
    let mut vm = ctx
        .linux(Kernel::V6_12)
        .args(["-device", "virtio-rng-pci,addr=5.1,id=one"])
        .args(["-device", "virtio-rng-pci,addr=5.0,multifunction=on"])
        .start()?;
    vm.booted()?;
    let expected = "0000:00:00.0 0x8086 0x1237\n0000:00:01.0 0x8086 0x7000\n\
                    0000:00:01.3 0x8086 0x7113\n0000:00:05.0 0x1af4 0x1044\n\
                    0000:00:05.1 0x1af4 0x1044";
    let found = vm.sh(BY_ID)?;
    if found != expected {
        return Err(format!("the guest sees\n{found}").into());
    }
    vm.load(&["virtio_pci", "virtio_rng"])?;
    vm.sh("dd if=/dev/hwrng of=/dev/null bs=64 count=4")?;
    vm.sh("grep -q 'virtio.-input' /proc/interrupts")?;
    // Regions were placed before the guest looked: it had nothing to assign anew.
    vm.sh("! dmesg | grep -E 'BAR.*(no space|failed to assign|assigned)'")?;
    vm.check_kernel_log()
}

fn behind_a_bridge(ctx: &Ctx) -> Result {
    let mut vm = ctx
        .linux(Kernel::V6_12)
        .args(["-device", "pci-bridge,id=b,chassis_nr=1"])
        .args(["-device", "virtio-rng-pci,bus=b,addr=3"])
        .start()?;
    vm.booted()?;
    vm.load(&["virtio_pci", "virtio_rng"])?;
    vm.sh("test -e /sys/bus/pci/devices/0000:01:03.0/driver")?;
    vm.sh("dd if=/dev/hwrng of=/dev/null bs=64 count=4")?;
    let info = vm.qmp.execute("query-pci", json!({}))?;
    let bridge = &info[0]["devices"][3]["pci_bridge"];
    if bridge["bus"]["secondary"] != 1 || bridge["devices"][0]["slot"] != 3 {
        return Err(format!("what is behind the bridge? {info}").into());
    }
    vm.sh("! dmesg | grep -E 'BAR.*(no space|failed to assign|assigned)'")?;
    vm.check_kernel_log()
}

fn watchdog(ctx: &Ctx) -> Result {
    let mut vm = ctx.linux(Kernel::V6_12).args(["-watchdog", "i6300esb"]).start()?;
    vm.booted()?;
    vm.load(&["i6300esb"])?;
    // Opened, it counts from 30 seconds down; closed without the magic word, it goes on.
    vm.wait_for("test -c /dev/watchdog")?;
    vm.sh("echo x >/dev/watchdog")?;
    let event = vm.qmp.event("WATCHDOG", 3 * SOON)?;
    match event["data"]["action"] == "reset" {
        true => vm.qmp.event("RESET", SOON).map(drop),
        false => Err(format!("{event}").into()),
    }
}

fn add(vm: &mut TestVm, id: &str) -> Result<Value> {
    vm.qmp.execute("device_add", json!({"driver": "virtio-rng-pci", "id": id}))
}

fn hot_plug(ctx: &Ctx) -> Result {
    let mut vm = ctx.linux(Kernel::V6_12).start()?;
    vm.booted()?;
    vm.load(&["virtio_pci", "virtio_rng"])?;
    for round in 0..5 {
        add(&mut vm, "r")?;
        vm.wait_for("grep -q virtio_rng /sys/class/misc/hw_random/rng_current")?;
        vm.sh("dd if=/dev/hwrng of=/dev/null bs=64 count=4")?;
        vm.qmp.execute("device_del", json!({"id": "r"}))?;
        let event = vm.qmp.event("DEVICE_DELETED", SOON)?;
        if event["data"] != json!({"device": "r", "path": "/machine/peripheral/r"}) {
            return Err(format!("round {round}: {event}").into());
        }
        vm.sh("! test -e /sys/bus/pci/devices/0000:00:02.0")?;
    }
    vm.check_kernel_log()
}

/// A guest that does not listen keeps its device until it is reset.
fn removal_by_reset(ctx: &Ctx) -> Result {
    let mut vm = ctx.linux(Kernel::V6_12).append("acpi=off").start()?;
    vm.booted()?;
    add(&mut vm, "r")?;
    vm.qmp.execute("device_del", json!({"id": "r"}))?;
    vm.sh("true")?;
    if !vm.qmp.take_events("DEVICE_DELETED").is_empty() {
        return Err("the device is gone already".into());
    }
    vm.qmp.execute("system_reset", json!({}))?;
    vm.qmp.event("DEVICE_DELETED", SOON)?;
    vm.qmp.event("RESET", SOON)?;
    add(&mut vm, "r").map(drop)
}
