//! Disks on virtio-blk.

use crate::rig::Result;
use crate::rig::disk::Disk;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{Kernel, SOON};

pub(super) fn tests() -> Vec<Test> {
    Kernel::ALL
        .map(|kernel| {
            let name = format!("disk::read_and_written_{}", kernel.name());
            Test::linux(&name, 180, move |ctx| read_and_written(ctx, kernel))
        })
        .into()
}

/// What the guest reads is what the image has, and what it writes is there after a poweroff.
fn read_and_written(ctx: &Ctx, kernel: Kernel) -> Result {
    let source = Disk::patterned(&ctx.dir, "source", 24 << 20, 1)?;
    let target = Disk::blank(&ctx.dir, "target", 32 << 20)?;
    let (first, second) = (source.drive("first"), target.drive("second"));
    let mut vm = ctx
        .linux(kernel)
        .args(["-drive", &first, "-device", "virtio-blk-pci,drive=first,serial=one"])
        .args(["-drive", &second, "-device", "virtio-blk-pci,drive=second,serial=two"])
        .start()?;
    vm.booted()?;
    vm.load(&["virtio_blk"])?;
    let serials = vm.sh("cat /sys/block/vda/serial; echo; cat /sys/block/vdb/serial")?;
    if serials.split_whitespace().collect::<Vec<_>>() != ["one", "two"] {
        return Err(format!("the disks' serial numbers are {serials:?}").into());
    }
    let sum = source.sha256()?;
    let read = vm.sha256("/dev/vda")?;
    if read != sum {
        return Err(format!("the guest reads {read}, the image has {sum}").into());
    }
    vm.sh("dd if=/dev/vda of=/dev/vdb bs=64k conv=fsync 2>&1")?;
    vm.check_kernel_log()?;
    vm.console.type_text("poweroff -f\n")?;
    if vm.exit_code(SOON)? != 0 {
        return Err("a poweroff with another exit code than 0".into());
    }
    let written = std::fs::read(target.path())?;
    let wanted = std::fs::read(source.path())?;
    if written.get(..wanted.len()) != Some(&wanted)
        || written[wanted.len()..].iter().any(|&b| b != 0)
    {
        return Err("the image does not have what the guest wrote".into());
    }
    Ok(())
}
