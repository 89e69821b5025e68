//! Dumps of a Linux guest, read by the debugger: the kernel's banner by its virtual address.

use serde_json::json;

use crate::rig::Result;
use crate::rig::gdb::gdb;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::Kernel;

pub(super) fn tests() -> Vec<Test> {
    // With memory above 4 GiB, where Linux keeps most of what it allocates.
    [("6G", Kernel::V6_12), ("512", Kernel::V6_1)]
        .map(|(size, kernel)| {
            let name = format!("dump::gdb_reads_the_banner_{}_{size}", kernel.name());
            Test::linux(&name, 240, move |ctx| banner(ctx, kernel, size))
        })
        .into()
}

fn banner(ctx: &Ctx, kernel: Kernel, size: &str) -> Result {
    let mut vm = ctx.linux(kernel).memory(size).cpus(2).start()?;
    vm.booted()?;
    let address = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let symbol = vm.sh("grep ' linux_banner$' /proc/kallsyms")?;
    let symbol = address(&symbol).ok_or("the guest's kernel has no linux_banner")?;
    let version = vm.sh("cat /proc/version")?;
    // A page that the kernel was just given, wherever in memory that is.
    vm.sh("echo a-word-for-the-dump >/tmp/word")?;

    let core = ctx.dir.join("core");
    let protocol = format!("file:{}", core.display());
    let arguments = json!({ "paging": true, "protocol": protocol });
    vm.qmp.execute("dump-guest-memory", arguments)?;
    let text = gdb(&core, &[&format!("x/s 0x{symbol}"), "info threads", "p/x $rip"])?;
    if !text.contains(version.trim()) {
        return Err(format!("the debugger does not find {version:?} at {symbol}:\n{text}").into());
    }
    if text.matches("Thread ").count() + text.matches("LWP ").count() < 2 {
        return Err(format!("the debugger does not see both processors:\n{text}").into());
    }
    // The guest has noticed nothing.
    vm.sh("grep a-word-for-the-dump /tmp/word")?;
    vm.check_kernel_log()
}
