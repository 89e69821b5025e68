//! Memory that a guest gives back: the host has it then, and the guest has it again afterwards.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::migrate::expect_ended;
use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{BOOT, Kernel, SOON, TestVm};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::linux("balloon::in_and_out", 300, in_and_out),
        Test::linux("balloon::free_pages_are_reported", 300, reported),
        Test::linux("balloon::free_pages_are_not_moved", 400, not_moved),
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

/// What the guest has freed before it is moved, or while it is, does not go with it; what it uses
/// does, also where it was free in between.
fn not_moved(ctx: &Ctx) -> Result {
    let args = ["-device", "virtio-balloon-pci,free-page-hint=on"];
    let builder = ctx.linux(Kernel::V6_12).memory("512").args(args);
    let mut vm = builder.clone().start()?;
    vm.booted()?;
    vm.load(&["virtio_balloon"])?;
    let kept = "dd if=/dev/urandom of=/tmp/kept bs=1M count=4 2>/dev/null";
    let fill = "dd if=/dev/urandom of=/tmp/data bs=1M count=200 2>/dev/null; rm /tmp/data";
    vm.sh_within(&format!("{kept}; {fill}; sha256sum </tmp/kept >/tmp/want"), BOOT)?;
    // Linux names all of it in one go, which takes an emulated processor long.
    vm.sh("echo 60 >/proc/sys/kernel/watchdog_thresh")?;
    // Memory that was free is used all the time.
    vm.sh("( until [ -e /tmp/stop ]; do
                cp /tmp/kept /tmp/copy
                sha256sum </tmp/copy | cmp - /tmp/want || echo wrong >>/tmp/wrong
                rm /tmp/copy
            done ) >/dev/null 2>&1 &")?;
    let uri = format!("unix:{}", ctx.dir.join("moves").display());
    let mut there = builder.args(["-incoming", &uri]).start()?;
    // The guest needs its time to say what is free.
    vm.qmp.execute("migrate_set_speed", json!({"value": 2 * MIB}))?;
    vm.qmp.execute("migrate", json!({"uri": uri}))?;
    let deadline = Instant::now() + BOOT;
    loop {
        let info = vm.qmp.execute("query-migrate", json!({}))?;
        match info["ram"]["remaining"].as_u64() {
            Some(left) if info["ram"]["transferred"] != 0 && left < 150 * MIB => break,
            _ if Instant::now() < deadline => sleep(Duration::from_millis(100)),
            _ => return Err(format!("nothing is left out: {info}").into()),
        }
    }
    vm.qmp.execute("migrate_set_speed", json!({"value": 1 << 30}))?;
    let info = expect_ended(&mut vm, "completed")?;
    there.qmp.event("RESUME", SOON).map_err(|error| there.process.explain(error))?;
    let sent = info["ram"]["transferred"].as_u64().ok_or("nothing was sent")?;
    if sent > 220 * MIB {
        return Err(format!("too much was sent: {info}").into());
    }
    // All that was free is used.
    let check = "touch /tmp/stop; sha256sum </tmp/kept | cmp - /tmp/want && [ ! -e /tmp/wrong ]";
    let (status, said) = there.sh_within(&format!("{fill}; {check}"), BOOT)?;
    if status != 0 {
        return Err(format!("the guest's memory is not as it was: {said}").into());
    }
    there.check_kernel_log()?;
    Ok(())
}
