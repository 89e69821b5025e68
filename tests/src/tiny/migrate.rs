//! Guests that move between two processes while they write memory, and come to no harm when that
//! fails.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::pause::{checked_memory, size, wait_for_more};
use super::{SOON, expect_equal, expect_shown, expect_status, shown};
use crate::rig::Result;
use crate::rig::moving::tcp;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{TestVm, VmBuilder};
use crate::supply::analyzer::Analyzer;
use crate::workspace::cache;

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::tiny("migrate::unix", 120, |ctx| {
            moves(ctx, 6, "", |dir, time| Ok(format!("unix:{dir}/m{time}")))
        }),
        Test::tiny("migrate::tcp", 120, |ctx| moves(ctx, 3, "", |_, _| tcp())),
        Test::tiny("migrate::xbzrle", 120, |ctx| {
            moves(ctx, 3, "xbzrle", |dir, time| Ok(format!("unix:{dir}/m{time}")))
        }),
        Test::tiny("migrate::multifd", 120, |ctx| {
            moves(ctx, 4, "multifd", |dir, time| Ok(format!("unix:{dir}/m{time}")))
        }),
        Test::tiny("migrate::multifd_tcp", 120, |ctx| {
            moves(ctx, 2, "multifd,compress", |_, _| tcp())
        }),
        Test::tiny("migrate::compress", 120, |ctx| {
            moves(ctx, 2, "compress", |dir, time| Ok(format!("unix:{dir}/m{time}")))
        }),
        Test::tiny("migrate::compress_xbzrle", 120, |ctx| {
            moves(ctx, 2, "compress,xbzrle", |dir, time| Ok(format!("unix:{dir}/m{time}")))
        }),
        Test::tiny("migrate::fd", 60, fd),
        Test::tiny("migrate::file", 60, |ctx| {
            stored(ctx, |dir| (format!("file:{dir}/state"), format!("file:{dir}/state")))
        }),
        Test::tiny("migrate::exec", 60, |ctx| {
            stored(ctx, |dir| (format!("exec:gzip -1 >{dir}/z"), format!("exec:zcat {dir}/z")))
        }),
        Test::tiny("migrate::analyzed", 300, analyzed),
        Test::tiny("migrate::paused", 60, paused),
        Test::tiny("migrate::cancel", 60, cancel),
        Test::tiny("migrate::refused", 60, refused),
        Test::tiny("migrate::exec_fails", 60, exec_fails),
        Test::tiny("migrate::killed", 180, killed),
        Test::tiny("migrate::cut_short", 60, cut_short),
    ]
}

/// Waits for the end of a migration; gives what query-migrate then says.
pub(super) fn ended(vm: &mut TestVm) -> Result<Value> {
    let deadline = Instant::now() + SOON;
    loop {
        let info = vm.qmp.execute("query-migrate", json!({}))?;
        if !matches!(info["status"].as_str(), Some("setup" | "active" | "postcopy-active")) {
            return Ok(info);
        }
        if Instant::now() > deadline {
            return Err(format!("the migration does not end: {info}").into());
        }
        sleep(Duration::from_millis(2));
    }
}

pub(super) fn expect_ended(vm: &mut TestVm, how: &str) -> Result<Value> {
    let info = ended(vm)?;
    match info["status"].as_str() {
        Some(status) if status == how => Ok(info),
        _ => Err(vm.process.explain(format!("not {how}: {info}").into())),
    }
}

/// A guest with 16 MiB that rewrites and checks 2 MiB of it, and the file that grows by a byte in
/// each of its rounds, wherever it runs.
pub(crate) fn checker(ctx: &Ctx) -> Result<(VmBuilder, PathBuf)> {
    let path = ctx.dir.join("rounds");
    let chardev = format!("file,path={},append=on,id=rounds", path.display());
    let vm = checked_memory()?.vm(ctx)?.memory("16");
    Ok((vm.args(["-chardev", &chardev, "-debugcon", "chardev:rounds"]), path))
}

/// The guest goes on, and has found nothing wrong in its memory.
pub(crate) fn expect_sound(mut vm: TestVm, path: &Path) -> Result {
    expect_status(&mut vm, "running")?;
    let rounds = size(path)?;
    wait_for_more(rounds, || size(path))?;
    vm.console.type_text("x")?;
    let rounds = shown(&mut vm, "rounds")?;
    expect_equal("rounds", rounds, size(path)?)?;
    expect_shown(&mut vm, "bad", 0)
}

pub(super) fn migrate(vm: &mut TestVm, uri: &str) -> Result {
    // It writes faster than 32 MiB a second.
    vm.qmp.execute("migrate_set_speed", json!({ "value": 1u64 << 30 }))?;
    vm.qmp.execute("migrate_set_downtime", json!({ "value": 0.5 }))?;
    vm.qmp.execute("migrate", json!({ "uri": uri }))?;
    Ok(())
}

/// Turns capabilities on, their names with commas between.
pub(super) fn turn_on(vm: &mut TestVm, capabilities: &str) -> Result {
    let names = capabilities.split(',').filter(|name| !name.is_empty());
    let on: Vec<_> = names.map(|name| json!({ "capability": name, "state": true })).collect();
    vm.qmp.execute("migrate-set-capabilities", json!({ "capabilities": on }))?;
    Ok(())
}

/// The guest moves again and again, and finds in its memory what it wrote.
fn moves(
    ctx: &Ctx,
    times: usize,
    capability: &str,
    uri: impl Fn(&str, usize) -> Result<String>,
) -> Result {
    let (builder, path) = checker(ctx)?;
    let dir = ctx.dir.display().to_string();
    let mut here = builder.clone().start()?;
    let mut rounds = wait_for_more(0, || size(&path))?;
    for time in 0..times {
        let uri = uri(&dir, time)?;
        let mut there = builder.clone().args(["-incoming", &uri]).start()?;
        expect_status(&mut there, "inmigrate")?;
        turn_on(&mut here, capability)?;
        migrate(&mut here, &uri)?;
        let info = expect_ended(&mut here, "completed")?;
        expect_status(&mut here, "postmigrate")?;
        here.qmp.event("STOP", SOON)?;
        there.qmp.event("RESUME", SOON)?;
        expect_status(&mut there, "running")?;
        expect_equal("remaining", &info["ram"]["remaining"], &json!(0))?;
        let sent = info["ram"]["normal"].as_u64().unwrap_or_default();
        if sent < 512 || info["ram"]["total"].as_u64() < Some(16 << 20) {
            return Err(format!("not all memory was sent: {info}").into());
        }
        expect_equal("deltas", info["xbzrle-cache"].is_object(), capability.contains("xbzrle"))?;
        rounds = wait_for_more(rounds, || size(&path))?;
        here = there;
    }
    expect_sound(here, &path)
}

/// The connection is one that the client has made.
fn fd(ctx: &Ctx) -> Result {
    let (builder, path) = checker(ctx)?;
    let socket = ctx.dir.join("m");
    let uri = format!("unix:{}", socket.display());
    let mut here = builder.clone().start()?;
    wait_for_more(0, || size(&path))?;
    let there = builder.args(["-incoming", &uri]).start()?;
    let connected = UnixStream::connect(&socket)?;
    let command = r#"{"execute": "getfd", "arguments": {"fdname": "way"}}"#;
    here.qmp.send_with_fd(command, connected.as_fd())?;
    here.qmp.reply(Instant::now() + SOON)?;
    drop(connected);
    migrate(&mut here, "fd:way")?;
    expect_ended(&mut here, "completed")?;
    let mut there = there;
    there.qmp.event("RESUME", SOON)?;
    expect_sound(there, &path)
}

/// The guest is put away, and comes back in another process.
fn stored(ctx: &Ctx, uris: impl Fn(&str) -> (String, String)) -> Result {
    let (builder, path) = checker(ctx)?;
    let (to, from) = uris(&ctx.dir.display().to_string());
    let mut here = builder.clone().start()?;
    wait_for_more(0, || size(&path))?;
    migrate(&mut here, &to)?;
    expect_ended(&mut here, "completed")?;
    expect_status(&mut here, "postmigrate")?;
    drop(here);
    let rounds = size(&path)?;
    let mut there = builder.args(["-incoming", &from]).start()?;
    if !there.qmp.execute("query-status", json!({}))?["running"].is_boolean() {
        return Err("no status".into());
    }
    wait_for_more(rounds, || size(&path))?;
    expect_sound(there, &path)
}

/// QEMU's script reads a stream in a file: all sections, and their description.
fn analyzed(ctx: &Ctx) -> Result {
    let script = Analyzer::get(&cache()?)?;
    let (builder, path) = checker(ctx)?;
    let stream = ctx.dir.join("state");
    let mut here = builder.start()?;
    wait_for_more(0, || size(&path))?;
    migrate(&mut here, &format!("file:{}", stream.display()))?;
    expect_ended(&mut here, "completed")?;
    let state: Value = serde_json::from_slice(&script.look(&stream, "state")?)?;
    let sections = state.as_object().ok_or("no sections")?;
    let find = |name: &str| {
        let mut all = sections.iter();
        let found = all.find(|(key, _)| key.starts_with(&format!("{name} (")));
        found.map(|(_, section)| section).ok_or(format!("no section '{name}': {state}"))
    };
    expect_equal("size", &find("ram")?["section sizes"]["pc.ram"], &json!("0x0000000001000000"))?;
    for name in ["inventory", "/machine/cpu[0]", "/machine/rtc"] {
        // The length, and what it says.
        let state = find(name)?["state"].as_str().unwrap_or_default();
        let length = find(name)?["length"].as_str().unwrap_or_default();
        let length = u64::from_str_radix(length.trim_start_matches("0x"), 16)?;
        expect_equal(name, state.split(' ').count() as u64, length)?;
    }
    let described: Value = serde_json::from_slice(&script.look(&stream, "desc")?)?;
    expect_equal("the size of pages", &described["page_size"], &json!(4096))
}

/// A guest that stands still does so where it comes to, and with -S any does.
fn paused(ctx: &Ctx) -> Result {
    let (builder, path) = checker(ctx)?;
    let mut here = builder.clone().start()?;
    wait_for_more(0, || size(&path))?;
    for (time, args) in [["-name", "x"], ["-S", "-no-shutdown"]].into_iter().enumerate() {
        let uri = format!("unix:{}/m{time}", ctx.dir.display());
        if time == 0 {
            here.qmp.execute("stop", json!({}))?;
        }
        let mut there = builder.clone().args(args).args(["-incoming", &uri]).start()?;
        migrate(&mut here, &uri)?;
        expect_ended(&mut here, "completed")?;
        let deadline = Instant::now() + SOON;
        while there.qmp.execute("query-status", json!({}))?["status"] == "inmigrate" {
            if Instant::now() > deadline {
                return Err("the guest does not arrive".into());
            }
        }
        expect_status(&mut there, "paused")?;
        there.qmp.execute("cont", json!({}))?;
        expect_status(&mut there, "running")?;
        here = there;
    }
    expect_sound(here, &path)
}

/// A cancelled migration leaves the guest alone, and another one can follow.
fn cancel(ctx: &Ctx) -> Result {
    let (builder, path) = checker(ctx)?;
    let uri = format!("unix:{}/m", ctx.dir.display());
    let mut here = builder.clone().start()?;
    wait_for_more(0, || size(&path))?;
    for _ in 0..3 {
        let mut there = builder.clone().args(["-incoming", &uri]).start()?;
        here.qmp.execute("migrate_set_speed", json!({ "value": 1 << 20 }))?;
        here.qmp.execute("migrate_set_downtime", json!({ "value": 0 }))?;
        here.qmp.execute("migrate", json!({ "uri": uri }))?;
        let again = here.qmp.try_execute("migrate", json!({ "uri": uri }))?;
        expect_equal("a second one", again.is_err(), true)?;
        let deadline = Instant::now() + SOON;
        loop {
            let info = here.qmp.execute("query-migrate", json!({}))?;
            if info["ram"]["transferred"].as_u64() > Some(200_000) {
                break;
            }
            if Instant::now() > deadline {
                return Err(format!("nothing is sent: {info}").into());
            }
        }
        here.qmp.execute("migrate_cancel", json!({}))?;
        let info = expect_ended(&mut here, "cancelled")?;
        expect_equal("members", info.as_object().map_or(0, |info| info.len()), 1)?;
        expect_status(&mut here, "running")?;
        expect_equal("the destination's status", there.exit_code(SOON)?, 1)?;
    }
    let mut there = builder.args(["-incoming", &uri]).start()?;
    migrate(&mut here, &uri)?;
    expect_ended(&mut here, "completed")?;
    there.qmp.event("RESUME", SOON)?;
    expect_sound(there, &path)
}

/// What the destination cannot take is found before the guest stops, and named at both ends.
fn refused(ctx: &Ctx) -> Result {
    let (builder, path) = checker(ctx)?;
    let uri = format!("unix:{}/m", ctx.dir.display());
    let mut here = builder.clone().start()?;
    wait_for_more(0, || size(&path))?;
    for (other, reason) in [
        (builder.clone().memory("32"), "Length mismatch: pc.ram: 1000000 in != 2000000"),
        (
            builder.clone().args(["-device", "ib700,id=dog"]),
            "this machine has '/machine/peripheral/dog'",
        ),
        (builder.clone().cpus(2), "this machine has '/machine/cpu[1]'"),
    ] {
        let mut there = other.args(["-incoming", &uri]).start()?;
        here.qmp.forget_events();
        migrate(&mut here, &uri)?;
        expect_ended(&mut here, "failed")?;
        expect_status(&mut here, "running")?;
        expect_equal("stops", here.qmp.take_events("STOP").len(), 0)?;
        expect_equal("the destination's status", there.exit_code(SOON)?, 1)?;
        let said = there.process.wait_for_stderr(SOON)?;
        if !said.contains("load of migration failed") || !said.contains(reason) {
            return Err(format!("the destination says {said:?}").into());
        }
    }
    expect_sound(here, &path)
}

/// A command that fails fails the migration. If it has had the whole stream, another process may
/// have the guest: then it stands still until somebody who knows better lets it go on.
fn exec_fails(ctx: &Ctx) -> Result {
    let (builder, path) = checker(ctx)?;
    let mut here = builder.start()?;
    wait_for_more(0, || size(&path))?;
    for command in
        ["exec:cat >/dev/null; exit 3", "exec:head -c 1000000 >/dev/null", "file:/dev/full"]
    {
        migrate(&mut here, command)?;
        expect_ended(&mut here, "failed")?;
        if command.contains("exit") {
            expect_status(&mut here, "postmigrate")?;
            here.qmp.execute("cont", json!({}))?;
        }
        expect_status(&mut here, "running")?;
    }
    expect_sound(here, &path)
}

/// What stands between the two and cuts the connection.
pub(crate) struct Cutter {
    thread: JoinHandle<Result<u64>>,
}

impl Cutter {
    /// Passes on what comes to `from` to `to`, until so many bytes went forward or so many back;
    /// then the process `victim` is killed before anything else is passed on, but for the last
    /// answer. Gives the bytes that went forward.
    pub(crate) fn start(
        from: &Path,
        to: PathBuf,
        limits: (u64, u64),
        victim: u32,
    ) -> Result<Cutter> {
        let listener = UnixListener::bind(from)?;
        let thread = thread::spawn(move || -> Result<u64> {
            let (source, _) = listener.accept()?;
            let dest = UnixStream::connect(&to)?;
            let over = Arc::new(AtomicBool::new(false));
            let kill =
                move || Pid::from_raw(victim as i32).map(|id| kill_process(id, Signal::KILL));
            let back = {
                let (mut source, mut dest, over) =
                    (source.try_clone()?, dest.try_clone()?, over.clone());
                thread::spawn(move || -> Result {
                    let mut passed = 0;
                    let mut bytes = [0; 4096];
                    loop {
                        let room = (limits.1 - passed).min(4096) as usize;
                        let count = dest.read(&mut bytes[..room])?;
                        passed += count as u64;
                        if count == 0 || passed == limits.1 {
                            over.store(true, Ordering::SeqCst);
                            let _ = dest.shutdown(Shutdown::Both);
                            if count != 0 {
                                kill();
                            }
                            let _ = source.write_all(&bytes[..count]);
                            let _ = source.shutdown(Shutdown::Both);
                            return Ok(());
                        }
                        source.write_all(&bytes[..count])?;
                    }
                })
            };
            let (mut source, mut dest) = (source, dest);
            let mut passed = 0;
            let mut bytes = [0; 4096];
            loop {
                let room = (limits.0 - passed).min(4096) as usize;
                let count = source.read(&mut bytes[..room]).unwrap_or(0);
                let gone = over.load(Ordering::SeqCst) || dest.write_all(&bytes[..count]).is_err();
                passed += count as u64;
                if count == 0 || gone {
                    break;
                }
                if passed == limits.0 {
                    kill();
                    let _ = source.shutdown(Shutdown::Both);
                    break;
                }
            }
            let _ = dest.shutdown(Shutdown::Both);
            let _ = back.join();
            Ok(passed)
        });
        Ok(Cutter { thread })
    }

    /// Waits until both ways have ended.
    pub(crate) fn passed(self) -> Result<u64> {
        self.thread.join().map_err(|_| "the cutter has panicked")?
    }
}

/// Whenever the destination is killed before the guest was given to it, the source goes on; by
/// itself, unless it cannot know that it was before.
fn killed(ctx: &Ctx) -> Result {
    let (builder, path) = checker(ctx)?;
    let (front, behind) = (ctx.dir.join("f"), ctx.dir.join("b"));
    let uri = format!("unix:{}", front.display());
    let incoming = format!("unix:{}", behind.display());
    let mut here = builder.clone().start()?;
    let mut rounds = wait_for_more(0, || size(&path))?;
    // The first answer is that to the PING; LOADED and READY have four bytes each.
    let forward = [1, 50, 5_000, 400_000, 2_000_000].map(|bytes| (bytes, u64::MAX));
    let back = [1, 8, 9, 12, 13, 16].map(|bytes| (u64::MAX, bytes));
    for limits in forward.into_iter().chain(back) {
        let mut there = builder.clone().args(["-incoming", &incoming]).start()?;
        let cutter = Cutter::start(&front, behind.clone(), limits, there.process.id())?;
        migrate(&mut here, &uri)?;
        expect_ended(&mut here, "failed").map_err(|error| format!("{limits:?}: {error}"))?;
        // READY came through: GO may have, too.
        if limits.1 == 16 && here.qmp.execute("query-status", json!({}))?["status"] == "postmigrate"
        {
            here.qmp.execute("cont", json!({}))?;
        }
        expect_status(&mut here, "running").map_err(|error| format!("{limits:?}: {error}"))?;
        rounds = wait_for_more(rounds, || size(&path))?;
        let _ = there.exit_code(SOON);
        cutter.passed()?;
        std::fs::remove_file(&front)?;
    }
    expect_sound(here, &path)
}

/// A stream that ends early, or is damaged, is refused, and nothing runs.
fn cut_short(ctx: &Ctx) -> Result {
    let (builder, path) = checker(ctx)?;
    let state = ctx.dir.join("state");
    let uri = format!("file:{}", state.display());
    let mut here = builder.clone().start()?;
    wait_for_more(0, || size(&path))?;
    migrate(&mut here, &uri)?;
    expect_ended(&mut here, "completed")?;
    let rounds = size(&path)?;
    let whole = std::fs::read(&state)?;
    let last = whole.len();
    for len in [0, 3, 8, 20, 300, last / 2, last - 60_000, last - 7_000] {
        std::fs::write(&state, &whole[..len])?;
        let mut there = builder.clone().args(["-incoming", &uri]).start_bare()?;
        expect_equal("the status", there.exit_code(SOON)?, 1)?;
        let said = there.wait_for_stderr(SOON)?;
        if !said.contains("load of migration failed") {
            return Err(format!("{len} of {last} bytes: {said:?}").into());
        }
    }
    expect_equal("rounds", size(&path)?, rounds)?;
    // It is still where it came from.
    here.qmp.execute("cont", json!({}))?;
    expect_sound(here, &path)
}
