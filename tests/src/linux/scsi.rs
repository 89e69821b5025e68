//! virtio-scsi: a disk and a CD drive, and a disk that comes and goes.

use serde_json::json;

use crate::rig::Result;
use crate::rig::disk::Disk;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{Kernel, SOON, TestVm};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::linux("scsi::disk_and_cd", 240, disk_and_cd),
        Test::linux("scsi::locked_medium", 240, locked_medium),
    ]
}

/// A guest that uses a medium locks it in: it comes out by force only.
fn locked_medium(ctx: &Ctx) -> Result {
    let (one, two) = (
        Disk::patterned(&ctx.dir, "one", 2 << 20, 1)?,
        Disk::patterned(&ctx.dir, "two", 4 << 20, 2)?,
    );
    let drive = format!("{},media=cdrom", one.drive("cd"));
    let mut vm = ctx
        .linux(Kernel::V6_12)
        .args(["-device", "virtio-scsi-pci", "-drive", &drive, "-device", "scsi-cd,drive=cd"])
        .start()?;
    vm.booted()?;
    vm.load(&["virtio_pci", "virtio_scsi", "sr_mod"])?;
    vm.wait_for("test -b /dev/sr0")?;
    if vm.sha256("/dev/sr0")? != one.sha256()? {
        return Err("the guest reads something else".into());
    }
    vm.sh("exec 9</dev/sr0")?;
    let told = |vm: &mut TestVm| -> Result<(bool, bool)> {
        let all = vm.qmp.execute("query-block", json!({}))?;
        let (locked, open) = (all[0]["locked"].as_bool(), all[0]["tray_open"].as_bool());
        Ok((locked.ok_or("no lock")?, open.ok_or("no tray")?))
    };
    if told(&mut vm)? != (true, false) {
        return Err("a medium in use is not locked".into());
    }
    let change = json!({"device": "cd", "target": two.path(), "arg": "raw"});
    for (command, arguments) in [("eject", json!({"device": "cd"})), ("change", change.clone())] {
        match vm.qmp.try_execute(command, arguments)? {
            Err(refusal) if refusal.desc == "Device 'cd' is locked" => {}
            other => return Err(format!("{command} of a locked medium: {other:?}").into()),
        }
    }
    // Linux lets go of it when it hears that the user wants it out.
    vm.sh("exec 9<&-")?;
    vm.sh("exec 9</dev/sr0")?;
    vm.qmp.forget_events();
    vm.qmp.execute("eject", json!({"device": "cd", "force": true}))?;
    let event = vm.qmp.event("DEVICE_TRAY_MOVED", SOON)?;
    if event["data"] != json!({"device": "cd", "tray-open": true}) {
        return Err(format!("the tray is told as {event}").into());
    }
    vm.sh("exec 9<&-")?;
    vm.qmp.execute("change", change)?;
    let event = vm.qmp.event("DEVICE_TRAY_MOVED", SOON)?;
    if event["data"] != json!({"device": "cd", "tray-open": false}) {
        return Err(format!("the tray is told as {event}").into());
    }
    vm.wait_for(
        "dd if=/dev/sr0 of=/dev/null bs=2k count=1 && [ $(cat /sys/block/sr0/size) = 8192 ]",
    )?;
    if vm.sha256("/dev/sr0")? != two.sha256()? {
        return Err("the guest reads the medium that was taken out".into());
    }
    vm.qmp.execute("quit", json!({}))?;
    let event = vm.qmp.event("DEVICE_TRAY_MOVED", SOON)?;
    if event["data"]["tray-open"] != true {
        return Err(format!("the tray is told as {event} when the process ends").into());
    }
    vm.exit_code(SOON).map(drop)
}

fn disk_and_cd(ctx: &Ctx) -> Result {
    let image = |name: &str| -> Result<String> {
        let path = ctx.dir.join(name);
        let data: Vec<u8> = (0..8_u32 << 20).map(|n| (n >> 12) as u8 ^ n as u8).collect();
        std::fs::write(&path, data)?;
        Ok(path.display().to_string())
    };
    let drive = |id: &str, more: &str| -> Result<String> {
        Ok(format!("if=none,id={id},format=raw,file={}{more}", image(id)?))
    };
    let mut vm = ctx
        .linux(Kernel::V6_12)
        .args(["-device", "virtio-scsi-pci,id=scsi0"])
        .args(["-drive", &drive("hd", "")?, "-device", "scsi-hd,drive=hd,serial=one"])
        .args(["-drive", &drive("cd", ",media=cdrom,readonly=on")?])
        .args(["-device", "scsi-cd,drive=cd,scsi-id=3"])
        .args(["-drive", &drive("late", "")?])
        .start()?;
    vm.booted()?;
    vm.load(&["virtio_pci", "virtio_scsi", "sd_mod", "sr_mod"])?;
    vm.wait_for("test -b /dev/sda && test -b /dev/sr0")?;
    let sizes = vm.sh("cat /sys/block/sda/size /sys/block/sr0/size")?;
    if sizes != "16384\n16384" {
        return Err(format!("the guest sees sizes {sizes}").into());
    }
    vm.sh("cmp -n 8388608 /dev/sda /dev/sr0")?;
    vm.sh("dd if=/dev/urandom of=/tmp/x bs=64k count=32 && \
           dd if=/tmp/x of=/dev/sda bs=64k seek=16 && sync")?;
    vm.qmp.execute("x-pulse-save-restore", json!({}))?;
    vm.sh("echo 3 >/proc/sys/vm/drop_caches; \
           dd if=/dev/sda bs=64k skip=16 count=32 | cmp - /tmp/x")?;
    vm.sh("eject /dev/sr0 || true")?;

    let late = json!({"driver": "scsi-hd", "id": "l", "drive": "late", "bus": "scsi0.0"});
    vm.qmp.execute("device_add", late)?;
    vm.wait_for("test -b /dev/sdb")?;
    vm.sh("dd if=/dev/sdb of=/dev/null bs=64k")?;
    vm.qmp.execute("device_del", json!({"id": "l"}))?;
    vm.qmp.event("DEVICE_DELETED", SOON)?;
    vm.wait_for("! test -e /sys/block/sdb")?;
    vm.check_kernel_log()
}
