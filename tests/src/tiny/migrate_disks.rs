//! Guests that take the contents of their disks along.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::migrate::{Cutter, checker, expect_ended, expect_sound};
use super::pause::{size, wait_for_more};
use super::snapshots::{
    MIB, content, drive, expect_filled, expect_said, fill, human, image, image_on,
};
use super::{SOON, expect_equal, expect_status};
use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{TestVm, VmBuilder};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::tiny("migrate_disks::all", 60, |ctx| all(ctx, false)),
        Test::tiny("migrate_disks::zero_blocks", 60, |ctx| all(ctx, true)),
        Test::tiny("migrate_disks::top_only", 60, top_only),
        Test::tiny("migrate_disks::while_written", 60, while_written),
        Test::tiny("migrate_disks::refused", 60, refused),
        Test::tiny("migrate_disks::killed", 60, killed),
    ]
}

/// The machine with two disks, whose images have this letter.
fn with_disks(ctx: &Ctx, vm: &VmBuilder, letter: &str) -> Result<VmBuilder> {
    let (first, second) = (image(ctx, &format!("{letter}0"))?, image(ctx, &format!("{letter}1"))?);
    Ok(vm.clone().args(["-drive", &drive("d0", &first), "-drive", &drive("d1", &second)]))
}

fn migrate(vm: &mut TestVm, uri: &str, how: &str) -> Result {
    vm.qmp.execute("migrate_set_speed", json!({ "value": 1u64 << 30 }))?;
    vm.qmp.execute("migrate_set_downtime", json!({ "value": 0.5 }))?;
    vm.qmp.execute("migrate", json!({ "uri": uri, how: true }))?;
    Ok(())
}

/// The guest is at home where it goes to, with everything that was on its disks and nothing else.
fn all(ctx: &Ctx, zeros: bool) -> Result {
    let (vm, path) = checker(ctx)?;
    let mut here = with_disks(ctx, &vm, "a")?.start()?;
    let there = with_disks(ctx, &vm, "b")?;
    let mut before = there.clone().args(["-S"]).start()?;
    for id in ["d0", "d1"] {
        expect_said(&mut before, &format!("qemu-io {id} \"write -P 9 0 3M\""), "")?;
    }
    before.qmp.execute("quit", json!({}))?;
    before.exit_code(SOON)?;

    let uri = format!("unix:{}/m", ctx.dir.display());
    let mut there = there.args(["-incoming", &uri]).start()?;
    fill(&mut here, 5)?;
    if zeros {
        let on = json!([{ "capability": "zero-blocks", "state": true }]);
        here.qmp.execute("migrate-set-capabilities", json!({ "capabilities": on }))?;
    }
    wait_for_more(size(&path)?, || size(&path))?;
    migrate(&mut here, &uri, "blk")?;
    expect_ended(&mut here, "completed")?;
    there.qmp.event("RESUME", SOON)?;
    drop(here);
    expect_filled(&mut there, &ctx.dir, 5)?;
    fill(&mut there, 6)?;
    expect_filled(&mut there, &ctx.dir, 6)?;
    expect_sound(there, &path)
}

/// What lies below the topmost image is there already and is not sent.
fn top_only(ctx: &Ctx) -> Result {
    let (vm, path) = checker(ctx)?;
    let base = ctx.dir.join("base");
    std::fs::write(&base, vec![3; 4 * MIB as usize])?;
    for how in ["inc", "blk"] {
        let (from, to) = (format!("from-{how}"), format!("to-{how}"));
        let (from, to) = (image_on(ctx, &from, &base)?, image_on(ctx, &to, &base)?);
        let uri = format!("unix:{}/{how}", ctx.dir.display());
        let mut here = vm.clone().args(["-drive", &drive("d0", &from)]).start()?;
        let to_drive = drive("d0", &to);
        let mut there = vm.clone().args(["-drive", &to_drive, "-incoming", &uri]).start()?;
        expect_said(&mut here, "qemu-io d0 \"write -P 8 1M 4k\"", "")?;
        wait_for_more(size(&path)?, || size(&path))?;
        migrate(&mut here, &uri, how)?;
        expect_ended(&mut here, "completed")?;
        there.qmp.event("RESUME", SOON)?;
        let found = content(&mut there, &ctx.dir, "d0")?;
        let mut wanted = vec![3; 4 * MIB as usize];
        wanted[MIB as usize..MIB as usize + 4096].fill(8);
        expect_equal(how, found == wanted, true)?;
        let sent = size(&to)? > 3 * MIB;
        expect_equal("all of it was sent", sent, how == "blk")?;
    }
    Ok(())
}

/// What is written while the disks are on their way arrives too.
fn while_written(ctx: &Ctx) -> Result {
    let (vm, path) = checker(ctx)?;
    let mut here = with_disks(ctx, &vm, "a")?.start()?;
    let uri = format!("unix:{}/m", ctx.dir.display());
    let mut there = with_disks(ctx, &vm, "b")?.args(["-incoming", &uri]).start()?;
    fill(&mut here, 1)?;
    wait_for_more(0, || size(&path))?;
    // The guest writes more memory than that: it does not end.
    here.qmp.execute("migrate_set_speed", json!({ "value": 8 << 20 }))?;
    here.qmp.execute("migrate_set_downtime", json!({ "value": 0 }))?;
    here.qmp.execute("migrate", json!({ "uri": uri, "blk": true }))?;
    let deadline = Instant::now() + SOON;
    let mut byte = 2;
    loop {
        let info = here.qmp.execute("query-migrate", json!({}))?;
        if info["status"] == "active" {
            fill(&mut here, byte)?;
            byte = byte % 100 + 1;
            let disk = &info["disk"];
            expect_equal("bytes of the disks", disk["total"].as_u64(), Some(8 * MIB))?;
            if disk["transferred"].as_u64() > Some(10 * MIB) {
                break;
            }
        }
        if Instant::now() > deadline {
            return Err(format!("it stands still: {info}").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let text = "Device 'd0' is in use\n";
    expect_said(&mut here, "drive_del d0", text)?;
    let said = human(&mut here, "info migrate")?;
    expect_equal("the disks are told of", said.contains("total disk: 8192 kbytes\n"), true)?;
    fill(&mut here, 123)?;
    here.qmp.execute("migrate_set_speed", json!({ "value": 1u64 << 30 }))?;
    here.qmp.execute("migrate_set_downtime", json!({ "value": 0.5 }))?;
    expect_ended(&mut here, "completed")?;
    there.qmp.event("RESUME", SOON)?;
    expect_filled(&mut there, &ctx.dir, 123)?;
    expect_sound(there, &path)
}

/// Disks that do not fit are found before the guest stops.
fn refused(ctx: &Ctx) -> Result {
    let (vm, path) = checker(ctx)?;
    let first = image(ctx, "a0")?;
    let small = ctx.dir.join("small");
    std::fs::write(&small, vec![0; MIB as usize])?;
    let small = image_on(ctx, "b0", &small)?;
    let mut here = vm.clone().args(["-drive", &drive("d0", &first)]).start()?;
    wait_for_more(0, || size(&path))?;
    let own = drive("d0", &first);
    let uri = format!("unix:{}/m", ctx.dir.display());
    for (args, reason) in [
        (vec![], "the source sends disk 'd0', which this machine cannot fill"),
        (vec![drive("d0", &small)], "disk 'd0' has 4194304 bytes at the source and 1048576 here"),
        // One that is shared must not be written by both.
        (vec![own], "lock"),
    ] {
        let mut other = vm.clone().args(["-incoming", &uri]);
        for drive in &args {
            other = other.args(["-drive", drive]);
        }
        let mut there = other.start()?;
        here.qmp.forget_events();
        migrate(&mut here, &uri, "blk")?;
        expect_ended(&mut here, "failed")?;
        expect_status(&mut here, "running")?;
        expect_equal("stops", here.qmp.take_events("STOP").len(), 0)?;
        expect_equal("the destination's status", there.exit_code(SOON)?, 1)?;
        let said = there.process.wait_for_stderr(SOON)?;
        if !said.contains("load of migration failed") || !said.contains(reason) {
            return Err(format!("the destination says {said:?}").into());
        }
        // Nobody has it any more.
        expect_said(&mut here, "snapshot_blkdev_internal d0 s", "")?;
        expect_said(&mut here, "snapshot_delete_blkdev_internal d0 s", "")?;
    }
    expect_sound(here, &path)
}

/// A destination that goes away leaves the disks as they are, and the next one gets all.
fn killed(ctx: &Ctx) -> Result {
    let (vm, path) = checker(ctx)?;
    let mut here = with_disks(ctx, &vm, "a")?.start()?;
    let builder = with_disks(ctx, &vm, "b")?;
    let (front, behind) = (ctx.dir.join("f"), ctx.dir.join("b"));
    let uri = format!("unix:{}", front.display());
    let incoming = format!("unix:{}", behind.display());
    wait_for_more(0, || size(&path))?;
    fill(&mut here, 1)?;
    for (byte, bytes) in (2..).zip([5_000, 1_500_000, 5_000_000, 9_000_000]) {
        let mut there = builder.clone().args(["-incoming", &incoming]).start()?;
        let limits = (bytes, u64::MAX);
        let cutter = Cutter::start(&front, behind.clone(), limits, there.process.id())?;
        migrate(&mut here, &uri, "blk")?;
        expect_ended(&mut here, "failed").map_err(|error| format!("{bytes}: {error}"))?;
        expect_status(&mut here, "running")?;
        expect_filled(&mut here, &ctx.dir, byte - 1)?;
        fill(&mut here, byte)?;
        let _ = there.exit_code(SOON);
        cutter.passed()?;
        std::fs::remove_file(&front)?;
    }
    let mut there = builder.args(["-incoming", &uri]).start()?;
    migrate(&mut here, &uri, "blk")?;
    expect_ended(&mut here, "completed")?;
    there.qmp.event("RESUME", SOON)?;
    drop(here);
    expect_filled(&mut there, &ctx.dir, 5)?;
    expect_sound(there, Path::new(&path))
}
