//! Memory that a guest gives back: the host has it then, and the guest has it again afterwards.

use std::fs;

use serde_json::{Value, json};

use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{Kernel, SOON, TestVm};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::linux("balloon::in_and_out", 300, in_and_out),
        Test::linux("balloon::free_pages_are_reported", 300, reported),
    ]
}

const MIB: u64 = 1 << 20;

/// Bytes of memory the host has given the process.
fn resident(vm: &TestVm) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", vm.process.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

fn actual(vm: &mut TestVm) -> Result<u64> {
    let info = vm.qmp.execute("query-balloon", json!({}))?;
    info["actual"].as_u64().ok_or_else(|| format!("a balloon of {info}").into())
}

/// Waits until the guest has so much left, as its events tell.
fn resize(vm: &mut TestVm, bytes: u64) -> Result {
    vm.qmp.execute("balloon", json!({"value": bytes}))?;
    while actual(vm)? != bytes {
        vm.qmp.event("BALLOON_CHANGE", SOON)?;
    }
    Ok(())
}

/// Bytes that the guest has free.
fn free(vm: &mut TestVm) -> Result<u64> {
    let text = vm.sh("sed -n 's/MemFree: *\\(.*\\) kB/\\1/p' /proc/meminfo")?;
    Ok(text.trim().parse::<u64>()? * 1024)
}

/// The guest's memory is used, ballooned away, and used again; the machine is saved in between.
fn in_and_out(ctx: &Ctx) -> Result {
    for kind in ["", ",packed=on,deflate-on-oom=on"] {
        let device = format!("virtio-balloon-pci,id=b0{kind}");
        let args = ["-device", &device];
        let mut vm = ctx.linux(Kernel::V6_12).memory("512").args(args).start()?;
        vm.booted()?;
        vm.load(&["virtio_balloon"])?;
        let fill = "dd if=/dev/urandom of=/tmp/data bs=1M count=200 2>/dev/null; \
                    sha256sum </tmp/data; rm /tmp/data";
        vm.sh_within(fill, SOON)?;
        let full = resident(&vm)?;
        resize(&mut vm, 192 * MIB)?;
        let small = resident(&vm)?;
        if small + 150 * MIB > full {
            return Err(format!("of {full} bytes the host still holds {small}").into());
        }
        // MemTotal is not asked: with deflate-on-oom Linux counts the balloon as its own.
        let less = free(&mut vm)?;
        vm.qmp.execute("x-pulse-save-restore", json!({}))?;
        if actual(&mut vm)? != 192 * MIB {
            return Err("a saved machine forgets its balloon".into());
        }
        resize(&mut vm, 512 * MIB)?;
        let more = free(&mut vm)?;
        if more < less + 250 * MIB {
            return Err(format!("the guest has {more} bytes after {less}").into());
        }
        vm.sh_within(fill, SOON)?;

        let set = json!({
            "path": "/machine/peripheral/b0",
            "property": "guest-stats-polling-interval",
            "value": 1,
        });
        vm.qmp.execute("qom-set", set)?;
        vm.sh("sleep 2")?;
        let get = json!({"path": "/machine/peripheral/b0", "property": "guest-stats"});
        let stats: Value = vm.qmp.execute("qom-get", get)?;
        let told = stats["stats"]["stat-total-memory"].as_i64().unwrap_or(-1);
        if told < 400 << 20 || stats["last-update"] == 0 {
            return Err(format!("the guest tells of itself: {stats}").into());
        }
        vm.check_kernel_log()?;
    }
    Ok(())
}

/// What the guest has freed goes back to the host without being asked for.
fn reported(ctx: &Ctx) -> Result {
    let args = ["-device", "virtio-balloon-pci,free-page-reporting=on"];
    let mut vm = ctx.linux(Kernel::V6_12).memory("512").args(args).start()?;
    vm.booted()?;
    vm.load(&["virtio_balloon"])?;
    vm.sh_within("dd if=/dev/urandom of=/tmp/data bs=1M count=200 2>/dev/null", SOON)?;
    let full = resident(&vm)?;
    vm.sh("rm /tmp/data; echo 3 >/proc/sys/vm/drop_caches")?;
    // The guest reports every two seconds, what lies together in large pieces.
    for _ in 0..20 {
        vm.sh("sleep 1")?;
        if resident(&vm)? + 100 * MIB < full {
            return vm.check_kernel_log();
        }
    }
    Err(format!("of {full} bytes the host still holds {}", resident(&vm)?).into())
}
