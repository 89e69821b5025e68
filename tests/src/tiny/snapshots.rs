//! Guests that go back to a snapshot of themselves and their disks, or are told why not.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use super::migrate::{checker, expect_sound};
use super::pause::{size, wait_for_more};
use super::{SOON, expect_equal, expect_shown, expect_status, shown};
use crate::rig::Result;
use crate::rig::disk::Disk;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{TestVm, VmBuilder};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::tiny("snapshots::there_and_back", 120, there_and_back),
        Test::tiny("snapshots::while_it_runs", 60, while_it_runs),
        Test::tiny("snapshots::in_another_process", 60, in_another_process),
        Test::tiny("snapshots::refused", 60, refused),
        Test::tiny("snapshots::no_room", 60, no_room),
        Test::tiny("snapshots::damaged", 120, damaged),
    ]
}

pub(super) const MIB: u64 = 1 << 20;

/// What a line at the human monitor prints.
pub(super) fn human(vm: &mut TestVm, line: &str) -> Result<String> {
    let said = vm.qmp.execute("human-monitor-command", json!({ "command-line": line }))?;
    Ok(said.as_str().unwrap_or_default().replace("\r\n", "\n"))
}

pub(super) fn expect_said(vm: &mut TestVm, line: &str, expected: &str) -> Result {
    let said = human(vm, line)?;
    if said.starts_with(expected) && (!expected.is_empty() || said.is_empty()) {
        return Ok(());
    }
    Err(vm.process.explain(format!("{line}: {said:?}, not {expected:?}").into()))
}

/// A qcow2 image on top of 4 MiB of nothing.
pub(super) fn image(ctx: &Ctx, name: &str) -> Result<PathBuf> {
    let base = Disk::blank(&ctx.dir, &format!("{name}.raw"), 4 * MIB)?;
    image_on(ctx, name, base.path())
}

/// A qcow2 image on top of a raw one.
pub(super) fn image_on(ctx: &Ctx, name: &str, base: &Path) -> Result<PathBuf> {
    let path = ctx.dir.join(name);
    let mut vm = ctx.vm().without_guest().args(["-drive", &Disk::at(base).drive("d")]).start()?;
    let new = json!({ "device": "d", "snapshot-file": path });
    vm.qmp.execute("blockdev-snapshot-sync", new)?;
    vm.qmp.execute("quit", json!({}))?;
    vm.exit_code(SOON)?;
    Ok(path)
}

pub(super) fn drive(id: &str, path: &Path) -> String {
    format!("if=none,id={id},format=qcow2,file={}", path.display())
}

/// A guest that checks its memory, with the file of its rounds and two disks.
fn guest(ctx: &Ctx) -> Result<(VmBuilder, PathBuf)> {
    let (vm, rounds) = checker(ctx)?;
    let (first, second) = (image(ctx, "first")?, image(ctx, "second")?);
    Ok((vm.args(["-drive", &drive("d0", &first), "-drive", &drive("d1", &second)]), rounds))
}

/// Fills the beginning of the disks with a byte.
pub(super) fn fill(vm: &mut TestVm, byte: u8) -> Result {
    for id in ["d0", "d1"] {
        expect_said(vm, &format!("qemu-io {id} \"write -P {byte} 0 1M\""), "")?;
    }
    Ok(())
}

/// What is on a disk.
pub(super) fn content(vm: &mut TestVm, dir: &Path, id: &str) -> Result<Vec<u8>> {
    let copy = dir.join(format!("copy-{id}"));
    let _ = std::fs::remove_file(&copy);
    expect_said(vm, &format!("drive_backup -f {id} {} raw", copy.display()), "")?;
    vm.qmp.event("BLOCK_JOB_COMPLETED", SOON)?;
    Ok(std::fs::read(&copy)?)
}

/// Fails unless the beginning of the disks is filled with that byte.
pub(super) fn expect_filled(vm: &mut TestVm, dir: &Path, byte: u8) -> Result {
    for id in ["d0", "d1"] {
        let bytes = content(vm, dir, id)?;
        let wrong = bytes[..MIB as usize].iter().position(|found| *found != byte);
        expect_equal(&format!("where {id} is wrong"), wrong, None)?;
        expect_equal("its rest", bytes[MIB as usize..].iter().all(|found| *found == 0), true)?;
    }
    Ok(())
}

/// Memory, processors, devices and disks go back together, as often as one likes.
fn there_and_back(ctx: &Ctx) -> Result {
    let (builder, path) = guest(ctx)?;
    let mut vm = builder.start()?;
    for time in 1..=4u8 {
        let now = size(&path)?;
        wait_for_more(now, || size(&path))?;
        vm.qmp.execute("stop", json!({}))?;
        let saved = size(&path)?;
        fill(&mut vm, time)?;
        // The second one replaces the first.
        expect_said(&mut vm, &format!("savevm s{}", time / 3), "")?;
        expect_status(&mut vm, "paused")?;
        expect_filled(&mut vm, &ctx.dir, time)?;
        for _ in 0..2 {
            vm.qmp.execute("cont", json!({}))?;
            fill(&mut vm, 100)?;
            let now = size(&path)?;
            wait_for_more(now + 1, || size(&path))?;
            vm.qmp.execute("stop", json!({}))?;
            expect_said(&mut vm, &format!("loadvm s{}", time / 3), "")?;
            expect_status(&mut vm, "paused")?;
            expect_filled(&mut vm, &ctx.dir, time)?;
            // Of these rounds it knows nothing any more.
            File::options().write(true).open(&path)?.set_len(saved)?;
        }
        vm.qmp.execute("cont", json!({}))?;
    }
    let listed = human(&mut vm, "info snapshots")?;
    let tags: Vec<_> = listed.lines().skip(1).map(|line| &line[..12]).collect();
    expect_equal("the snapshots", tags, vec!["1         s0", "2         s1"])?;
    for tag in ["s0", "1", "2"] {
        let gone = if tag == "1" { "Error while deleting snapshot on device 'd0'" } else { "" };
        expect_said(&mut vm, &format!("delvm {tag}"), gone)?;
    }
    expect_said(&mut vm, "info snapshots", "There is no snapshot available.")?;
    let now = size(&path)?;
    wait_for_more(now, || size(&path))?;
    vm.console.type_text("x")?;
    let rounds = shown(&mut vm, "rounds")?;
    expect_equal("rounds", rounds, size(&path)?)?;
    expect_shown(&mut vm, "bad", 0)
}

/// A running guest is stopped for as long as it takes, and runs again.
fn while_it_runs(ctx: &Ctx) -> Result {
    let (builder, path) = guest(ctx)?;
    let mut vm = builder.start()?;
    let mut now = wait_for_more(0, || size(&path))?;
    fill(&mut vm, 1)?;
    vm.qmp.forget_events();
    expect_said(&mut vm, "savevm", "")?;
    vm.qmp.event("STOP", SOON)?;
    vm.qmp.event("RESUME", SOON)?;
    expect_status(&mut vm, "running")?;
    for _ in 0..3 {
        fill(&mut vm, 2)?;
        now = wait_for_more(now, || size(&path))?;
        vm.qmp.forget_events();
        expect_said(&mut vm, "loadvm 1", "")?;
        vm.qmp.event("STOP", SOON)?;
        vm.qmp.event("RESUME", SOON)?;
        expect_status(&mut vm, "running")?;
        expect_filled(&mut vm, &ctx.dir, 1)?;
        now = wait_for_more(now, || size(&path))?;
    }
    vm.console.type_text("x")?;
    shown(&mut vm, "rounds")?;
    expect_shown(&mut vm, "bad", 0)
}

/// The guest goes on in a process that was told to begin with it.
fn in_another_process(ctx: &Ctx) -> Result {
    let (builder, path) = guest(ctx)?;
    let mut vm = builder.clone().start()?;
    wait_for_more(0, || size(&path))?;
    vm.qmp.execute("stop", json!({}))?;
    fill(&mut vm, 7)?;
    expect_said(&mut vm, "savevm away", "")?;
    fill(&mut vm, 8)?;
    vm.qmp.execute("quit", json!({}))?;
    vm.exit_code(SOON)?;
    let rounds = size(&path)?;

    let mut vm = builder.clone().args(["-S", "-loadvm", "nothing"]).start()?;
    expect_status(&mut vm, "prelaunch")?;
    let text = "Device 'd0' does not have the requested snapshot 'nothing'";
    expect_equal("the reason is told", vm.process.stderr().says(text, SOON), true)?;
    drop(vm);

    let mut vm = builder.clone().args(["-S", "-loadvm", "away"]).start()?;
    expect_status(&mut vm, "prelaunch")?;
    expect_filled(&mut vm, &ctx.dir, 7)?;
    expect_equal("rounds", size(&path)?, rounds)?;
    drop(vm);
    let mut vm = builder.args(["-loadvm", "away"]).start()?;
    wait_for_more(rounds, || size(&path))?;
    expect_filled(&mut vm, &ctx.dir, 7)?;
    expect_sound(vm, &path)
}

/// What cannot be saved or loaded is said, and the guest goes on.
fn refused(ctx: &Ctx) -> Result {
    let (builder, path) = guest(ctx)?;
    let raw = Disk::blank(&ctx.dir, "raw", MIB)?;
    let (bare, _) = checker(ctx)?;
    let mut vm = bare.clone().start()?;
    expect_said(&mut vm, "savevm s", "No block device can accept snapshots\n")?;
    expect_said(&mut vm, "loadvm s", "No block device supports snapshots\n")?;
    expect_said(&mut vm, "delvm s", "No block device supports snapshots\n")?;
    expect_said(&mut vm, "info snapshots", "No available block device supports snapshots\n")?;
    drop(vm);
    let mut vm = bare.args(["-drive", &raw.drive("r")]).start()?;
    let text = "Device 'r' is writable but does not support snapshots.\n";
    expect_said(&mut vm, "savevm s", text)?;
    expect_said(&mut vm, "loadvm s", text)?;
    drop(vm);

    let mut vm = builder.clone().start()?;
    fill(&mut vm, 1)?;
    expect_said(&mut vm, "savevm s", "")?;
    expect_said(&mut vm, "snapshot_blkdev_internal d0 disk", "")?;
    expect_said(&mut vm, "snapshot_blkdev_internal d1 disk", "")?;
    expect_said(&mut vm, "savevm one", "")?;
    expect_said(&mut vm, "snapshot_delete_blkdev_internal d1 one", "")?;
    fill(&mut vm, 2)?;
    vm.qmp.forget_events();
    let text = "Device 'd0' does not have the requested snapshot 't'\n";
    expect_said(&mut vm, "loadvm t", text)?;
    expect_said(&mut vm, "loadvm disk", "This is a disk-only snapshot.")?;
    let text = "Device 'd1' does not have the requested snapshot 'one'\n";
    expect_said(&mut vm, "delvm d1", "Error while deleting snapshot on device 'd0'")?;
    expect_said(&mut vm, "loadvm one", text)?;
    expect_equal("stops", vm.qmp.take_events("STOP").len(), 0)?;
    expect_status(&mut vm, "running")?;
    vm.qmp.execute("quit", json!({}))?;
    vm.exit_code(SOON)?;

    let prefix = "Error -22 while loading VM state: ";
    for (other, reason) in [
        (builder.clone().memory("32"), "Length mismatch: pc.ram: 1000000 in != 2000000"),
        (builder.clone().args(["-device", "ib700,id=dog"]), "'/machine/peripheral/dog'"),
        (builder.clone().cpus(2), "'/machine/cpu[1]'"),
    ] {
        let before = size(&path)?;
        let mut vm = other.start()?;
        let before = wait_for_more(before, || size(&path))?;
        let said = human(&mut vm, "loadvm s")?;
        if !said.starts_with(prefix) || !said.contains(reason) {
            return Err(format!("it says {said:?}").into());
        }
        // Nothing of it was taken over.
        expect_status(&mut vm, "running")?;
        wait_for_more(before, || size(&path))?;
        expect_filled(&mut vm, &ctx.dir, 2)?;
    }
    Ok(())
}

/// A state that finds no room leaves the guest and the older snapshot as they are.
fn no_room(ctx: &Ctx) -> Result {
    let (vm, path) = checker(ctx)?;
    let (first, config) = (image(ctx, "first")?, ctx.dir.join("faults"));
    let fault = "[inject-error]\nevent = \"vmstate_save\"\nstate = \"1\"\nerrno = \"28\"\n\
                 once = \"on\"\n[set-state]\nevent = \"vmstate_save\"\nstate = \"1\"\n\
                 new_state = \"2\"\n";
    let whole = vm.clone().args(["-drive", &drive("d0", &first)]);
    std::fs::write(&config, fault)?;
    let faulty = format!(
        "if=none,id=d0,format=qcow2,file=blkdebug:{}:{}",
        config.display(),
        first.display()
    );
    let mut here = whole.clone().start()?;
    let now = wait_for_more(0, || size(&path))?;
    expect_said(&mut here, "savevm s", "")?;
    drop(here);
    let mut here = vm.args(["-drive", &faulty]).start()?;
    let now = wait_for_more(now, || size(&path))?;
    expect_said(&mut here, "savevm s", "Error -28 while writing VM: ")?;
    expect_status(&mut here, "running")?;
    wait_for_more(now, || size(&path))?;
    let listed = human(&mut here, "info snapshots")?;
    expect_equal("snapshots", listed.lines().count(), 2)?;
    here.qmp.execute("stop", json!({}))?;
    expect_said(&mut here, "loadvm s", "")?;
    // Once it had no room, then it has.
    expect_said(&mut here, "savevm s", "")?;
    here.qmp.execute("cont", json!({}))?;
    expect_status(&mut here, "running")?;
    here.console.type_text("x")?;
    shown(&mut here, "rounds")?;
    expect_shown(&mut here, "bad", 0)
}

/// Where the record of the first snapshot in an image has the size of its state.
fn size_at(file: &File) -> Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, 64)?;
    Ok(u64::from_be_bytes(bytes) + 40)
}

/// Nothing that stands in a state kills the process, or lets a guest run that is none.
fn damaged(ctx: &Ctx) -> Result {
    let (vm, path) = checker(ctx)?;
    let first = image(ctx, "first")?;
    let builder = vm.args(["-drive", &drive("d0", &first)]);
    let mut vm = builder.clone().start()?;
    wait_for_more(0, || size(&path))?;
    vm.qmp.execute("stop", json!({}))?;
    expect_said(&mut vm, "savevm s", "")?;
    vm.qmp.execute("quit", json!({}))?;
    vm.exit_code(SOON)?;
    let good = std::fs::read(&first)?;
    let begin = good.windows(8).position(|bytes| bytes == b"QEVM\0\0\0\x03");
    let begin = begin.ok_or("there is no state in the image")? as u64;
    let at = size_at(&File::open(&first)?)?;
    let state = {
        let mut bytes = [0; 8];
        File::open(&first)?.read_exact_at(&mut bytes, at)?;
        u64::from_be_bytes(bytes)
    };
    // What to put where in the image.
    let sizes = [1, 8, 20, 300, state / 2, state - 60_000, state - 1, 1 << 40, u64::MAX];
    let sizes = sizes.map(|size| (at, size.to_be_bytes().to_vec()));
    let bytes = [0, 6, 9, 30, 200, 600, 1000, 3000, state - 5000, state - 200];
    let bytes = bytes.map(|offset| (begin + offset, vec![0xa5; 5]));
    let others = [(begin + 300, vec![0xff; 1 << 15]), (begin + 4096, vec![0; 1 << 15])];
    for (offset, change) in sizes.into_iter().chain(bytes).chain(others) {
        std::fs::write(&first, &good)?;
        let file = OpenOptions::new().write(true).open(&first)?;
        file.write_all_at(&change, offset)?;
        let mut vm = builder.clone().args(["-S"]).start()?;
        let began = Instant::now();
        let said = human(&mut vm, "loadvm s")?;
        let explain = |text: String| format!("{} bytes at {offset}: {text}", change.len());
        if began.elapsed() > Duration::from_secs(10) {
            return Err(explain(format!("takes {:?}", began.elapsed())).into());
        }
        let status = vm.qmp.execute("query-status", json!({}))?["status"].clone();
        let status = status.as_str().unwrap_or_default();
        match (&*said, status) {
            // What is nobody's was hit, or what follows the end.
            ("", "prelaunch") => {}
            (said, "prelaunch" | "internal-error") if said.starts_with("Error -") => {}
            (said, "prelaunch") if said.starts_with("This is a disk-only") => {}
            _ => return Err(explain(format!("{said:?}, {status}")).into()),
        }
        if status == "internal-error" {
            let went = vm.qmp.try_execute("cont", json!({}))?;
            expect_equal("it goes on", went.is_ok(), false)?;
        }
    }
    std::fs::write(&first, &good)?;
    let now = size(&path)?;
    let vm = builder.args(["-loadvm", "s"]).start()?;
    wait_for_more(now, || size(&path))?;
    expect_sound(vm, &path)
}
