//! Guests that write faster than they can be sent: they move only if they are slowed down.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use iced_x86::code_asm::*;
use serde_json::{Value, json};

use super::asm::{COM1, DATA, Guest};
use super::migrate::{expect_ended, expect_sound};
use super::pause::{DEBUGCON, checked_memory, size, wait_for_more};
use super::{SOON, expect_equal, expect_status};
use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{TestVm, VmBuilder};

/// Pages that the guest writes one after the other, and how often it does nothing before each: some
/// 20 microseconds, so that it writes faster than [`SPEED`] even on a busy host, and slower when
/// little of its time is left.
const PAGES: u32 = 1024;
const IDLE: u32 = 40_000;

/// Bytes a second that may be sent.
const SPEED: u64 = 8 << 20;

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::tiny("migrate::converge", 180, converge),
        Test::tiny("migrate::throttled", 60, throttled),
        Test::tiny("migrate::dirty_ring", 120, dirty_ring),
    ]
}

/// A guest that writes the round into each of its pages in turn, checks what was there, and tells
/// each round by a byte in the file. A key ends it; it then shows `rounds`, and as `bad` where a
/// page was wrong, or 0.
fn dirtier(ctx: &Ctx, pages: u32, idle: u32) -> Result<(VmBuilder, PathBuf)> {
    let mut g = Guest::new()?;
    g.xor(r8d, r8d)?;
    g.in_user_mode(|g| {
        let (mut clear, mut round, mut page, mut wait, mut bad, mut end) = (
            g.create_label(),
            g.create_label(),
            g.create_label(),
            g.create_label(),
            g.create_label(),
            g.create_label(),
        );
        g.xor(r9d, r9d)?;
        g.mov(edi, DATA)?;
        g.mov(ecx, pages)?;
        g.set_label(&mut clear)?;
        g.mov(qword_ptr(rdi), r8)?;
        g.add(rdi, 4096)?;
        g.dec(ecx)?;
        g.jnz(clear)?;
        g.set_label(&mut round)?;
        g.lea(r11, ptr(r8 + 1))?;
        g.mov(edi, DATA)?;
        g.mov(ecx, pages)?;
        g.set_label(&mut page)?;
        g.mov(edx, idle)?;
        g.set_label(&mut wait)?;
        g.dec(edx)?;
        g.jnz(wait)?;
        g.cmp(qword_ptr(rdi), r8)?;
        g.jne(bad)?;
        g.mov(qword_ptr(rdi), r11)?;
        g.add(rdi, 4096)?;
        g.dec(ecx)?;
        g.jnz(page)?;
        g.mov(r8, r11)?;
        g.mov(edx, DEBUGCON)?;
        g.mov(al, b'.' as u32)?;
        g.out(dx, al)?;
        g.mov(edx, COM1 + 5)?;
        g.in_(al, dx)?;
        g.test(al, 1)?;
        g.jz(round)?;
        g.jmp(end)?;
        g.set_label(&mut bad)?;
        g.mov(r9, rdi)?;
        g.set_label(&mut end)?;
        g.nop()?;
        Ok(())
    })?;
    g.show("rounds", r8)?;
    g.show("bad", r9)?;
    let path = ctx.dir.join("rounds");
    let chardev = format!("file,path={},append=on,id=rounds", path.display());
    let vm = g.vm(ctx)?.memory("16");
    Ok((vm.args(["-chardev", &chardev, "-debugcon", "chardev:rounds"]), path))
}

fn auto_converge(vm: &mut TestVm, on: bool) -> Result {
    let all = json!([{ "capability": "auto-converge", "state": on }]);
    vm.qmp.execute("migrate-set-capabilities", json!({ "capabilities": all }))?;
    Ok(())
}

fn migrate(vm: &mut TestVm, uri: &str) -> Result {
    vm.qmp.execute("migrate_set_speed", json!({ "value": SPEED }))?;
    vm.qmp.execute("migrate", json!({ "uri": uri }))?;
    Ok(())
}

/// Watches a migration until it ends or so much time has passed. Gives what query-migrate says
/// then, and the percentages at which the guest was slowed down.
fn watch(vm: &mut TestVm, time: Duration) -> Result<(Value, Vec<u64>)> {
    let deadline = Instant::now() + time;
    let mut seen = Vec::new();
    loop {
        let info = vm.qmp.execute("query-migrate", json!({}))?;
        if let Some(percent) = info["cpu-throttle-percentage"].as_u64()
            && seen.last() != Some(&percent)
        {
            seen.push(percent);
        }
        let running = matches!(info["status"].as_str(), Some("setup" | "active"));
        if !running || Instant::now() > deadline {
            return Ok((info, seen));
        }
        sleep(Duration::from_millis(20));
    }
}

/// The guest does not move as it is; slowed down it does, and runs as ever where it comes to.
fn converge(ctx: &Ctx) -> Result {
    let (builder, path) = dirtier(ctx, PAGES, IDLE)?;
    let uri = format!("unix:{}/m", ctx.dir.display());
    let mut here = builder.clone().start()?;
    wait_for_more(0, || size(&path))?;

    let mut there = builder.clone().args(["-incoming", &uri]).start()?;
    migrate(&mut here, &uri)?;
    let (info, seen) = watch(&mut here, Duration::from_secs(8))?;
    expect_equal("the status without", &info["status"], &json!("active"))?;
    expect_equal("the throttle without", seen, Vec::new())?;
    if info["ram"]["dirty-pages-rate"].as_u64() < Some(SPEED / 4096 / 2) {
        return Err(format!("the guest is too slow for this test: {info}").into());
    }
    here.qmp.execute("migrate_cancel", json!({}))?;
    expect_ended(&mut here, "cancelled")?;
    expect_equal("the destination's status", there.exit_code(SOON)?, 1)?;

    let mut there = builder.args(["-incoming", &uri]).start()?;
    auto_converge(&mut here, true)?;
    migrate(&mut here, &uri)?;
    let (info, seen) = watch(&mut here, Duration::from_secs(90))?;
    eprintln!("slowed down by {seen:?} %: {info}");
    expect_equal("the status with", &info["status"], &json!("completed"))?;
    let steps = [20, 30, 40, 50, 60, 70, 80, 90, 99];
    if !steps.starts_with(&seen) || seen.is_empty() {
        return Err(format!("slowed down by {seen:?}").into());
    }
    there.qmp.event("RESUME", SOON)?;
    expect_sound(there, &path)
}

/// A guest that is slowed down can be stopped and asked as quickly as any, and is as quick as ever
/// when the migration has ended without it.
fn throttled(ctx: &Ctx) -> Result {
    let (builder, path) = dirtier(ctx, PAGES, IDLE)?;
    let uri = format!("unix:{}/m", ctx.dir.display());
    let mut here = builder.clone().start()?;
    wait_for_more(0, || size(&path))?;
    let mut there = builder.args(["-incoming", &uri]).start()?;
    auto_converge(&mut here, true)?;
    migrate(&mut here, &uri)?;
    let deadline = Instant::now() + 3 * SOON;
    while here.qmp.execute("query-migrate", json!({}))?["cpu-throttle-percentage"].is_null() {
        if Instant::now() > deadline {
            return Err("the guest is not slowed down".into());
        }
        sleep(Duration::from_millis(20));
    }
    for _ in 0..20 {
        here.qmp.execute("query-cpus", json!({}))?;
        here.qmp.execute("stop", json!({}))?;
        expect_status(&mut here, "paused")?;
        here.qmp.execute("cont", json!({}))?;
        expect_status(&mut here, "running")?;
    }
    let rounds = size(&path)?;
    wait_for_more(rounds, || size(&path))?;
    here.qmp.execute("migrate_cancel", json!({}))?;
    let info = expect_ended(&mut here, "cancelled")?;
    expect_equal("the throttle", &info["cpu-throttle-percentage"], &Value::Null)?;
    expect_equal("the destination's status", there.exit_code(SOON)?, 1)?;
    expect_sound(here, &path)
}

/// What the guest writes is found in KVM's rings too, also when they are full again and again: the
/// guest writes more pages than they have room for, and finds in each what it wrote.
fn dirty_ring(ctx: &Ctx) -> Result {
    let ring = ["-accel", "kvm,dirty-ring-size=1024"];
    let (builder, path) = dirtier(ctx, 2560, 1)?;
    let builder = builder.args(ring);
    let mut here = match builder.clone().start() {
        Ok(vm) => vm,
        Err(error) if error.to_string().contains("KVM_CAP_DIRTY_LOG_RING") => {
            eprintln!("skipped: {error}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let mut rounds = wait_for_more(0, || size(&path))?;
    for time in 0..3 {
        let uri = format!("unix:{}/m{time}", ctx.dir.display());
        let mut there = builder.clone().args(["-incoming", &uri]).start()?;
        here.qmp.execute("migrate_set_speed", json!({ "value": 1u64 << 30 }))?;
        here.qmp.execute("migrate_set_downtime", json!({ "value": 1 }))?;
        here.qmp.execute("migrate", json!({ "uri": uri }))?;
        expect_ended(&mut here, "completed")?;
        there.qmp.event("RESUME", SOON)?;
        rounds = wait_for_more(rounds, || size(&path))?;
        here = there;
    }
    expect_sound(here, &path)?;

    // The same guest by the checks of each word.
    let path = ctx.dir.join("words");
    let chardev = format!("file,path={},append=on,id=words", path.display());
    let builder = checked_memory()?.vm(ctx)?.memory("16").args(ring);
    let builder = builder.args(["-chardev", &chardev, "-debugcon", "chardev:words"]);
    let mut here = builder.clone().start()?;
    wait_for_more(0, || size(&path))?;
    let uri = format!("unix:{}/w", ctx.dir.display());
    let mut there = builder.args(["-incoming", &uri]).start()?;
    here.qmp.execute("migrate_set_downtime", json!({ "value": 1 }))?;
    here.qmp.execute("migrate", json!({ "uri": uri }))?;
    expect_ended(&mut here, "completed")?;
    there.qmp.event("RESUME", SOON)?;
    expect_sound(there, &path)
}
