//! From the start of the process to a shell in the guest, by each kernel and boot protocol.

use serde_json::json;

use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{Image, Kernel, SOON};

pub(super) fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for kernel in Kernel::ALL {
        for (image, word) in [(Image::Vmlinux, "pvh"), (Image::BzImage, "bzimage")] {
            for cpus in [1, 2, 4] {
                let name = format!("boot::{word}_{}_{cpus}cpu", kernel.name());
                tests.push(Test::linux(&name, 180, move |ctx| boots(ctx, kernel, image, cpus)));
            }
        }
    }
    tests
}

/// The guest comes up with all its processors, a clean log, and powers off.
fn boots(ctx: &Ctx, kernel: Kernel, image: Image, cpus: u32) -> Result {
    let mut vm = ctx.vm().kernel(kernel, image).cpus(cpus).start()?;
    vm.booted()?;
    let release = vm.sh("uname -r")?;
    if !release.starts_with(&format!("{}.", kernel.name())) {
        return Err(format!("the guest runs {release}").into());
    }
    let online = vm.sh("nproc; grep -c ^processor /proc/cpuinfo")?;
    if online != format!("{cpus}\n{cpus}") {
        return Err(format!("of {cpus} vCPUs these are online: {online}").into());
    }
    let known = vm.qmp.execute("query-cpus", json!({}))?;
    let known = known.as_array().map_or(0, Vec::len);
    if known != usize::try_from(cpus)? {
        return Err(format!("query-cpus tells of {known} of {cpus} vCPUs").into());
    }
    vm.check_kernel_log()?;
    vm.console.type_text("poweroff -f\n")?;
    match vm.exit_code(SOON)? {
        0 => Ok(()),
        code => Err(format!("exit code {code} after a poweroff").into()),
    }
}
