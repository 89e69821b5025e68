//! Linux's virtio drivers with each form of ring, on a disk and a network card at once.

use crate::rig::Result;
use crate::rig::disk::Disk;
use crate::rig::net;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::Kernel;

pub(super) fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for (event_idx, packed, indirect) in [
        (true, false, true),
        (false, false, true),
        (true, true, true),
        (false, true, false),
        (true, false, false),
    ] {
        let word = |on, word| if on { word } else { "" };
        let name = format!(
            "virtio::{}{}{}",
            if packed { "packed" } else { "split" },
            word(event_idx, "_event_idx"),
            word(indirect, "_indirect")
        );
        // With memory above 4 GiB, which Linux uses first.
        let memory = if indirect { "512" } else { "5G" };
        let options = format!(
            "event_idx={},packed={},indirect_desc={}",
            on(event_idx),
            on(packed),
            on(indirect)
        );
        tests.push(Test::linux(&name, 200, move |ctx| moves_data(ctx, &options, memory)));
    }
    tests
}

fn on(value: bool) -> &'static str {
    if value { "on" } else { "off" }
}

/// The features that were agreed on are those asked for, and data moves both ways.
fn moves_data(ctx: &Ctx, options: &str, memory: &str) -> Result {
    net::isolate()?;
    let source = Disk::patterned(&ctx.dir, "source", 8 << 20, 1)?;
    let target = Disk::blank(&ctx.dir, "target", 8 << 20)?;
    let (first, second) = (source.drive("first"), target.drive("second"));
    let disk = |id: &str| format!("virtio-blk-pci,drive={id},{options}");
    let mut vm = ctx
        .linux(Kernel::V6_12)
        .memory(memory)
        .args(["-drive", &first, "-device", &disk("first")])
        .args(["-drive", &second, "-device", &disk("second")])
        .args(["-netdev", "user,id=n0", "-device", &format!("virtio-net-pci,netdev=n0,{options}")])
        .start()?;
    vm.booted()?;
    vm.load(&["virtio_blk", "virtio_net", "af_packet"])?;
    // A string of bits: indirect descriptors are 28, event index 29, packed 34, version 1 32.
    for (name, bit) in [("indirect_desc", 28), ("event_idx", 29), ("packed", 34)] {
        let wanted = if options.contains(&format!("{name}=on")) { "1" } else { "0" };
        let cut = format!("cut -c{} /sys/bus/virtio/devices/*/features | sort -u", bit + 1);
        let found = vm.sh(&cut)?;
        if found != wanted {
            return Err(format!("feature {name} is {found:?}, not {wanted}").into());
        }
    }
    vm.sh("dd if=/dev/vda of=/dev/vdb bs=64k conv=fsync 2>&1 && echo 3 >/proc/sys/vm/drop_caches")?;
    let sums = [source.sha256()?, vm.sha256("/dev/vda")?, vm.sha256("/dev/vdb")?];
    if sums.iter().any(|sum| *sum != sums[0]) {
        return Err(format!("image, source and copy have the sums {sums:?}").into());
    }
    vm.sh("udhcpc -i eth0 -n -q && ping -c 20 -i 0.02 -s 1400 -W 5 10.0.2.2")?;
    vm.check_kernel_log()
}
