//! A whole Debian system, from its disk to a login.

use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::SYSTEM;

pub(super) fn tests() -> Vec<Test> {
    vec![Test::linux("debian::boots_to_login", 400, boots_to_login).with_debian()]
}

/// systemd brings everything up, what is written stays, and the system powers off in order.
fn boots_to_login(ctx: &Ctx) -> Result {
    let disk = ctx.debian_disk("root.raw")?;
    let mut vm = ctx.debian(&disk).start()?;
    vm.log_in()?;
    let state =
        vm.wait_for("state=$(systemctl is-system-running); echo $state; [ $state != starting ]")?;
    if state != "running" {
        let failed = vm.sh("systemctl --failed --no-legend --plain")?;
        return Err(format!("the system is {state}: {failed}").into());
    }
    let root = vm.sh("findmnt -n -o SOURCE,FSTYPE /")?;
    if root.split_whitespace().collect::<Vec<_>>() != ["/dev/vda", "ext4"] {
        return Err(format!("the root is {root}").into());
    }
    println!("{}", vm.sh("systemd-analyze")?);
    vm.sh("echo kept >/root/word")?;
    vm.check_kernel_log()?;
    vm.console.type_text("poweroff\n")?;
    if vm.exit_code(SYSTEM)? != 0 {
        return Err("a poweroff with another exit code than 0".into());
    }
    disk.check_ext4()
}
