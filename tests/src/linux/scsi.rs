//! virtio-scsi: a disk and a CD drive, and a disk that comes and goes.

use serde_json::json;

use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{Kernel, SOON};

pub(super) fn tests() -> Vec<Test> {
    vec![Test::linux("scsi::disk_and_cd", 240, disk_and_cd)]
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
