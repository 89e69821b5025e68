//! Guests that move in TLS, and strangers who cannot make them.

use std::net::TcpStream;
use std::path::Path;

use serde_json::json;

use super::migrate::{checker, expect_ended, expect_sound, migrate, turn_on};
use super::pause::{size, wait_for_more};
use super::{SOON, expect_status};
use crate::rig::Result;
use crate::rig::moving::{credentials, tcp, trust};
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{TestVm, VmBuilder};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::tiny("migrate_tls::moves", 120, |ctx| moves(ctx, "tls")),
        Test::tiny("migrate_tls::channels", 120, |ctx| moves(ctx, "tls,multifd,compress")),
        Test::tiny("migrate_tls::strangers", 60, strangers),
    ]
}

/// Has the machine speak TLS.
fn speak(vm: &mut TestVm, end: &str, dir: &Path, capabilities: &str) -> Result {
    trust(vm, end, dir)?;
    turn_on(vm, capabilities)
}

/// A machine that waits for a guest in TLS.
fn awaits(builder: &VmBuilder, dir: &Path, uri: &str) -> Result<TestVm> {
    let mut there = builder.clone().args(["-incoming", "defer"]).start()?;
    speak(&mut there, "server", dir, "tls")?;
    there.qmp.execute("migrate-incoming", json!({ "uri": uri }))?;
    Ok(there)
}

fn moves(ctx: &Ctx, capabilities: &str) -> Result {
    let (builder, path) = checker(ctx)?;
    let dir = credentials(&ctx.dir.join("tls"))?;
    let mut here = builder.clone().start()?;
    let mut rounds = wait_for_more(0, || size(&path))?;
    for _ in 0..2 {
        let uri = tcp()?;
        let mut there = awaits(&builder, &dir, &uri)?;
        speak(&mut here, "client", &dir, capabilities)?;
        migrate(&mut here, &uri)?;
        expect_ended(&mut here, "completed")?;
        there.qmp.event("RESUME", SOON)?;
        rounds = wait_for_more(rounds, || size(&path))?;
        here = there;
    }
    expect_sound(here, &path)
}

/// Who has no credentials, or others, or speaks no TLS, gets nothing and sends nothing; then the
/// right one comes.
fn strangers(ctx: &Ctx) -> Result {
    let (builder, path) = checker(ctx)?;
    let ours = credentials(&ctx.dir.join("ours"))?;
    let theirs = credentials(&ctx.dir.join("theirs"))?;
    let mut here = builder.clone().start()?;
    let rounds = wait_for_more(0, || size(&path))?;
    let uri = tcp()?;
    let mut there = awaits(&builder, &ours, &uri)?;
    // In the clear; and somebody who says nothing at all.
    migrate(&mut here, &uri)?;
    expect_ended(&mut here, "failed")?;
    drop(TcpStream::connect(uri.trim_start_matches("tcp:"))?);
    // With credentials that the destination does not know, nor the source those there.
    speak(&mut here, "client", &theirs, "tls")?;
    migrate(&mut here, &uri)?;
    expect_ended(&mut here, "failed")?;
    expect_status(&mut here, "running")?;
    expect_status(&mut there, "inmigrate")?;
    here.qmp.execute("object-del", json!({ "id": "client" }))?;
    speak(&mut here, "client", &ours, "tls")?;
    migrate(&mut here, &uri)?;
    expect_ended(&mut here, "completed")?;
    there.qmp.event("RESUME", SOON)?;
    wait_for_more(rounds, || size(&path))?;
    expect_sound(there, &path)
}
