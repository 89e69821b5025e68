//! Guests that go before their memory, because they write it faster than it can be sent.

use serde_json::json;

use super::migrate::{Cutter, checker, expect_ended, expect_sound};
use super::pause::{size, wait_for_more};
use super::{SOON, expect_equal, expect_status};
use crate::rig::Result;
use crate::rig::moving::begin_slowly;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::TestVm;

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::tiny("postcopy::moves", 120, moves),
        Test::tiny("postcopy::destination_killed", 60, destination_killed),
        Test::tiny("postcopy::source_killed", 60, source_killed),
        Test::tiny("postcopy::one_way", 60, one_way),
    ]
}

const ON: &str = r#"[{"capability": "postcopy-ram", "state": true}]"#;

/// Turns it on at both ends; `false` where the host refuses it, with the reason, which it must not
/// to root.
fn allowed(here: &mut TestVm, there: &mut TestVm) -> Result<bool> {
    let on = json!({ "capabilities": serde_json::from_str::<serde_json::Value>(ON)? });
    here.qmp.execute("migrate-set-capabilities", on.clone())?;
    match there.qmp.try_execute("migrate-set-capabilities", on)? {
        Ok(_) => Ok(true),
        Err(reason) if rustix::process::geteuid().is_root() => {
            Err(format!("post-copy is refused to root: {reason:?}").into())
        }
        Err(reason) => {
            println!("  skipped: {reason:?}");
            Ok(false)
        }
    }
}

/// Begins so slowly that it cannot end, then lets the guest go.
fn go_early(here: &mut TestVm, uri: &str) -> Result {
    begin_slowly(here, uri, 2 << 20, 300_000)?;
    expect_status(here, "running")?;
    here.qmp.execute("migrate-start-postcopy", json!({}))?;
    Ok(())
}

/// The guest moves again and again, and finds in its memory what it wrote.
fn moves(ctx: &Ctx) -> Result {
    let (builder, path) = checker(ctx)?;
    let mut here = builder.clone().start()?;
    let mut rounds = wait_for_more(0, || size(&path))?;
    // Memory of each kind that can come late.
    let kinds: [&[&str]; 3] = [
        &[],
        &["-object", "memory-backend-memfd,id=m,size=16M", "-machine", "memory-backend=m"],
        &[
            "-object",
            "memory-backend-memfd,id=m,size=16M,share=off",
            "-machine",
            "memory-backend=m",
        ],
    ];
    for (time, kind) in kinds.into_iter().enumerate() {
        let uri = format!("unix:{}/m{time}", ctx.dir.display());
        let incoming = builder.clone().args(["-incoming", &uri]);
        let mut there = kind.iter().fold(incoming, |vm, arg| vm.args([*arg])).start()?;
        if !allowed(&mut here, &mut there)? {
            return Ok(());
        }
        go_early(&mut here, &uri)?;
        let info = expect_ended(&mut here, "completed")?;
        expect_equal("remaining", &info["ram"]["remaining"], &json!(0))?;
        expect_status(&mut here, "postmigrate")?;
        there.qmp.event("RESUME", SOON)?;
        expect_ended(&mut there, "completed")?;
        rounds = wait_for_more(rounds, || size(&path))?;
        here = there;
    }
    expect_sound(here, &path)
}

/// After the guest runs there it is lost with its process, and that is told.
fn destination_killed(ctx: &Ctx) -> Result {
    let (builder, path) = checker(ctx)?;
    let (front, behind) = (ctx.dir.join("f"), ctx.dir.join("b"));
    let mut here = builder.clone().start()?;
    wait_for_more(0, || size(&path))?;
    let incoming = format!("unix:{}", behind.display());
    let mut there = builder.args(["-incoming", &incoming]).start()?;
    if !allowed(&mut here, &mut there)? {
        return Ok(());
    }
    let cutter = Cutter::start(&front, behind, (1_500_000, u64::MAX), there.process.id())?;
    go_early(&mut here, &format!("unix:{}", front.display()))?;
    expect_ended(&mut here, "failed")?;
    expect_status(&mut here, "postmigrate")?;
    // What is here is old, and the disks may not be.
    if here.qmp.try_execute("cont", json!({}))?.is_ok() {
        return Err("the lost guest goes on".into());
    }
    here.qmp.execute("quit", json!({}))?;
    let said = here.process.wait_for_stderr(SOON)?;
    if !said.contains("the guest is lost") {
        return Err(format!("the source says {said:?}").into());
    }
    cutter.passed().map(drop)
}

/// Without the source, who has the rest of its memory, the guest is stopped and its process ends.
fn source_killed(ctx: &Ctx) -> Result {
    let (builder, path) = checker(ctx)?;
    let (front, behind) = (ctx.dir.join("f"), ctx.dir.join("b"));
    let mut here = builder.clone().start()?;
    wait_for_more(0, || size(&path))?;
    let incoming = format!("unix:{}", behind.display());
    let mut there = builder.args(["-incoming", &incoming]).start()?;
    if !allowed(&mut here, &mut there)? {
        return Ok(());
    }
    let cutter = Cutter::start(&front, behind, (1_500_000, u64::MAX), here.process.id())?;
    go_early(&mut here, &format!("unix:{}", front.display()))?;
    expect_equal("the destination's status", there.exit_code(SOON)?, 1)?;
    let said = there.process.wait_for_stderr(SOON)?;
    if !said.contains("the guest is lost") {
        return Err(format!("the destination says {said:?}").into());
    }
    cutter.passed().map(drop)
}

/// Where nobody can ask for memory, it is refused.
fn one_way(ctx: &Ctx) -> Result {
    let (builder, path) = checker(ctx)?;
    let mut here = builder.start()?;
    wait_for_more(0, || size(&path))?;
    let on = json!({ "capabilities": serde_json::from_str::<serde_json::Value>(ON)? });
    here.qmp.execute("migrate-set-capabilities", on)?;
    let uri = format!("file:{}/state", ctx.dir.display());
    here.qmp.execute("migrate", json!({ "uri": uri }))?;
    expect_ended(&mut here, "failed")?;
    expect_sound(here, &path)
}
