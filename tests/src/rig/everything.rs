//! A machine with one of every device, for tests of the machine as a whole.
//!
//! Runs on the test's own thread; holds no lock.

use super::Result;
use super::disk::Disk;
use super::registry::Ctx;
use super::vm::VmBuilder;

/// What needs nothing outside of the machine.
const ALONE: [&str; 9] = [
    "virtio-rng-pci,id=rng0",
    "virtio-balloon-pci,id=balloon0",
    "virtio-serial-pci,id=serial0",
    "virtconsole,id=console0,bus=serial0.0,chardev=c0",
    "virtserialport,id=port0,bus=serial0.0,chardev=c1,name=test.port",
    "virtio-scsi-pci,id=scsi0",
    "i6300esb,id=watchdog0",
    "pvpanic,id=panic0",
    "pci-bridge,id=bridge0,chassis_nr=1",
];

/// Adds a virtio-blk disk named `d0` (image `disk0`, 16 MiB with an empty ext4), a SCSI disk and a
/// CD drive, a network card named `card0` on the user-mode network `n0`, and all of `ALONE`. The
/// port `test.port` leads to the socket `port` in the test's directory.
pub fn add(ctx: &Ctx, vm: VmBuilder) -> Result<VmBuilder> {
    let disk = Disk::ext4(&ctx.dir, "disk0", 16 << 20)?;
    let scsi = Disk::patterned(&ctx.dir, "disk1", 1 << 20, 1)?;
    let disc = Disk::patterned(&ctx.dir, "disc", 1 << 20, 2)?;
    let port = format!("socket,id=c1,path={},server=on,wait=off", ctx.dir.join("port").display());
    let mut vm = vm
        .args(["-drive", &disk.drive("b0"), "-device", "virtio-blk-pci,id=d0,drive=b0"])
        .args(["-netdev", "user,id=n0", "-device", "virtio-net-pci,id=card0,netdev=n0"])
        .args(["-chardev", "null,id=c0", "-chardev", &port])
        .args([
            "-drive",
            &scsi.drive("b1"),
            "-drive",
            &format!("{},media=cdrom", disc.drive("b2")),
        ]);
    for device in ALONE {
        vm = vm.args(["-device", device]);
    }
    Ok(vm
        .args(["-device", "scsi-hd,id=sd0,bus=scsi0.0,drive=b1"])
        .args(["-device", "scsi-cd,id=cd0,bus=scsi0.0,drive=b2"])
        .args(["-device", "vmgenid,id=gen0"]))
}
