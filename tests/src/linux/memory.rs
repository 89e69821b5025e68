//! Guest RAM of several sizes: below the hole for PCI, up to it, and above 4 GiB.

use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::Kernel;

pub(super) fn tests() -> Vec<Test> {
    [("6G", 6144), ("3584", 3584), ("512", 512)]
        .map(|(size, mib)| {
            let name = format!("memory::{mib}_mib");
            Test::linux(&name, 240, move |ctx| all_there(ctx, size, mib))
        })
        .into()
}

/// The guest has all of its RAM, but what a PC keeps below 1 MiB for itself, and it holds data.
fn all_there(ctx: &Ctx, size: &str, mib: u64) -> Result {
    let mut vm = ctx.linux(Kernel::V6_12).memory(size).start()?;
    vm.booted()?;
    let map = vm.sh("grep 'System RAM' /proc/iomem")?;
    let mut total = 0;
    let mut end_of_ram = 0;
    for line in map.lines() {
        let (start, end) = range(line).ok_or_else(|| format!("what is {line:?}?"))?;
        total += end + 1 - start;
        end_of_ram = end_of_ram.max(end);
    }
    let given = mib << 20;
    if total > given || total < given - (2 << 20) {
        return Err(format!("of {given} bytes the guest has {total}:\n{map}").into());
    }
    let above_4g = end_of_ram >= 1 << 32;
    if above_4g != (mib > 3584) && mib != 3584 {
        return Err(format!("with {mib} MiB the RAM ends at {end_of_ram:#x}").into());
    }
    // Linux takes the highest memory first.
    vm.sh("dd if=/dev/urandom of=/tmp/a bs=1M count=24 2>&1 && cp /tmp/a /tmp/b")?;
    vm.sh("echo 1 >/proc/sys/vm/drop_caches; cmp /tmp/a /tmp/b")?;
    vm.check_kernel_log()
}

fn range(line: &str) -> Option<(u64, u64)> {
    let (start, end) = line.trim().split_once(" : ")?.0.split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}
