//! Random bytes by virtio, with each way the rings and interrupts of a virtio device can be used.

use std::time::Duration;

use serde_json::json;

use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::Kernel;

pub(super) fn tests() -> Vec<Test> {
    vec![Test::linux("rng::every_kind_of_ring", 300, every_kind_of_ring)]
}

/// Properties that a driver can see, and those of the host's side.
const KINDS: [&str; 7] = [
    "",
    ",event_idx=off,indirect_desc=off",
    ",packed=on",
    ",packed=on,event_idx=off",
    ",iommu_platform=on",
    ",vectors=0",
    ",packed=on,vectors=0,ioeventfd=off",
];

/// Each device is used in its turn, while the machine is saved and loaded under it.
fn every_kind_of_ring(ctx: &Ctx) -> Result {
    let mut builder = ctx.linux(Kernel::V6_12).args(["-object", "rng-builtin,id=source"]);
    for (number, kind) in KINDS.iter().enumerate() {
        let device = format!("virtio-rng-pci,id=r{number},rng=source{kind}");
        builder = builder.args(["-device", &device]);
    }
    let mut vm = builder.start()?;
    vm.booted()?;
    vm.load(&["virtio_rng"])?;
    let available = vm.sh("cat /sys/class/misc/hw_random/rng_available")?;
    for number in 0..KINDS.len() {
        let name = format!("virtio_rng.{number}");
        if !available.split_whitespace().any(|one| one == name) {
            return Err(format!("the guest has {available:?}, not {name}").into());
        }
        vm.sh(&format!("echo {name} >/sys/class/misc/hw_random/rng_current"))?;
        vm.sh("(dd if=/dev/hwrng of=/tmp/random bs=64 count=2000 2>/dev/null; \
               echo >/tmp/done) >/dev/null 2>&1 &")?;
        for _ in 0..3 {
            vm.qmp.execute("x-pulse-save-restore", json!({}))?;
        }
        let wait = "until [ -e /tmp/done ]; do sleep 0.05; done; rm /tmp/done";
        vm.sh_within(wait, Duration::from_secs(60))?;
        let (size, packed) = (vm.sh("wc -c </tmp/random")?, vm.sh("gzip -c /tmp/random | wc -c")?);
        if size.trim() != "128000" || packed.trim().parse::<u32>()? < 128_000 {
            return Err(format!("{name} gave {size} bytes, {packed} compressed").into());
        }
    }
    vm.check_kernel_log()
}
