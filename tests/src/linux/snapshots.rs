//! Linux guests that go back to a snapshot of themselves and their disk, and such that are put
//! away in a file, or take their disk along.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::live::{VERIFY, WRITER};
use crate::rig::Result;
use crate::rig::disk::Disk;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{BOOT, Kernel, SOON, TestVm, VmBuilder};
use crate::supply::run;

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::linux("snapshots::with_memory", 400, with_memory),
        Test::linux("snapshots::in_a_file", 300, in_a_file),
        Test::linux("migrate::with_its_disk", 400, with_its_disk),
    ]
}

/// A part of memory that is rewritten and checked.
const LOAD: &str = r#"
dd if=/dev/urandom of=/tmp/data bs=64k count=32 2>/dev/null
want=$(sha256sum </tmp/data)
( until [ -e /tmp/stop ]; do
      cp /tmp/data /tmp/copy
      [ "$(sha256sum </tmp/copy)" = "$want" ] || echo memory >>/tmp/wrong
      echo x >>/tmp/rounds
  done ) >/dev/null 2>&1 &"#;

/// All of it goes on.
const GOES_ON: &str = "
for file in kept rounds; do
    last=$(tail -n 1 /tmp/$file; wc -c </tmp/$file); n=0
    while [ $n -lt 2 ]; do
        now=$(tail -n 1 /tmp/$file; wc -c </tmp/$file)
        [ \"$now\" = \"$last\" ] || { n=$((n+1)); last=$now; }
        if [ -e /tmp/stopped ]; then echo the writer has ended; exit 1; fi
        usleep 20000
    done
done";

/// A qcow2 image on top of an empty file system.
fn on_blank(ctx: &Ctx, name: &str) -> Result<PathBuf> {
    let blank = ctx.dir.join("blank");
    if !blank.exists() {
        Disk::ext4(&ctx.dir, "blank", 48 << 20)?;
    }
    let image = ctx.dir.join(name);
    let mut create = Command::new("/usr/bin/qemu-img");
    create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]);
    run(create.arg(&blank).arg(&image))?;
    Ok(image)
}

fn with_disk(ctx: &Ctx, image: &Path) -> VmBuilder {
    let drive = format!("if=none,id=d0,format=qcow2,file={}", image.display());
    let vm = ctx.linux(Kernel::V6_12).memory("256").cpus(2);
    vm.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=d0"])
}

/// A guest that writes files to `/dev/vda`, and checks them and its memory.
struct Busy {
    vm: TestVm,
    builder: VmBuilder,
    image: PathBuf,
}

impl Busy {
    fn start(ctx: &Ctx) -> Result<Busy> {
        let image = on_blank(ctx, "disk.qcow2")?;
        let builder = with_disk(ctx, &image);
        let mut vm = builder.clone().start()?;
        vm.booted()?;
        vm.load(&["virtio_blk"])?;
        vm.wait_for("test -b /dev/vda")?;
        vm.sh("mount -t ext4 /dev/vda /mnt && touch /tmp/kept /tmp/rounds")?;
        vm.sh(LOAD)?;
        vm.sh(WRITER)?;
        let mut busy = Busy { vm, builder, image };
        busy.goes_on()?;
        Ok(busy)
    }

    fn goes_on(&mut self) -> Result {
        let (status, said) = self.vm.sh_within(&format!("( {GOES_ON} )"), BOOT)?;
        if status != 0 {
            return Err(self.vm.process.explain(format!("it stands still: {said}").into()));
        }
        Ok(())
    }

    fn human(&mut self, line: &str) -> Result {
        let said = self.vm.qmp.execute("human-monitor-command", json!({ "command-line": line }))?;
        match said.as_str() {
            Some("") => Ok(()),
            _ => Err(self.vm.process.explain(format!("{line}: {said}").into())),
        }
    }

    /// Ends the load and the machine; the disk has all that the guest says it has.
    fn finish(mut self) -> Result<PathBuf> {
        let vm = &mut self.vm;
        vm.sh("touch /tmp/stop")?;
        vm.wait_for("[ -e /tmp/stopped ]")?;
        let (status, wrong) = vm.sh_within(VERIFY, BOOT)?;
        let wrong = wrong + &vm.sh("cat /tmp/wrong 2>/dev/null || true")?;
        if status != 0 || !wrong.is_empty() {
            return Err(format!("what went wrong: {wrong}").into());
        }
        vm.check_kernel_log()?;
        vm.sh("umount /mnt")?;
        vm.qmp.execute("quit", json!({}))?;
        vm.exit_code(SOON)?;
        run(Command::new("/usr/bin/qemu-img")
            .args(["check", "-q", "-f", "qcow2"])
            .arg(&self.image))?;
        Ok(self.image)
    }
}

/// The guest goes back, again and again, and in another process: memory and disk belong together.
fn with_memory(ctx: &Ctx) -> Result {
    let mut guest = Busy::start(ctx)?;
    guest.human("savevm begin")?;
    for time in 0..3 {
        guest.goes_on()?;
        guest.vm.sh("touch /mnt/later /tmp/later && sync")?;
        guest.human("loadvm begin")?;
        let there = guest.vm.sh("ls /mnt/later /tmp/later 2>/dev/null || true")?;
        if !there.trim().is_empty() {
            return Err(format!("time {time}: from the future: {there}").into());
        }
        guest.goes_on().map_err(|error| format!("time {time}: {error}"))?;
        guest.human("savevm again")?;
    }
    guest.vm.qmp.execute("quit", json!({}))?;
    guest.vm.exit_code(SOON)?;
    let list =
        Command::new("/usr/bin/qemu-img").args(["snapshot", "-l"]).arg(&guest.image).output()?;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    for tag in ["begin", "again"] {
        let line = list.lines().find(|line| line.split_whitespace().nth(1) == Some(tag));
        let line = line.ok_or_else(|| format!("no {tag} in {list}"))?;
        if !line.contains("MiB") {
            return Err(format!("qemu-img sees no state in {line:?}").into());
        }
    }
    for tag in ["begin", "again"] {
        // The disk belongs to one at a time.
        if guest.vm.process.running()? {
            guest.vm.qmp.execute("quit", json!({}))?;
            guest.vm.exit_code(SOON)?;
        }
        guest.vm = guest.builder.clone().args(["-loadvm", tag]).start()?;
        guest.goes_on().map_err(|error| format!("-loadvm {tag}: {error}"))?;
    }
    guest.human("delvm begin")?;
    guest.human("delvm again")?;
    guest.finish().map(drop)
}

/// The guest is put away, with its disk in use, and taken out again.
fn in_a_file(ctx: &Ctx) -> Result {
    let mut guest = Busy::start(ctx)?;
    for time in 0..2 {
        let uri = format!("file:{}", ctx.dir.join(format!("state{time}")).display());
        guest.vm.qmp.execute("migrate_set_speed", json!({ "value": 1u64 << 30 }))?;
        guest.vm.qmp.execute("migrate", json!({ "uri": uri }))?;
        super::migrate::expect_ended(&mut guest.vm, "completed")?;
        // The disk is free once this one is gone.
        guest.vm.qmp.execute("quit", json!({}))?;
        guest.vm.exit_code(SOON)?;
        guest.vm = guest.builder.clone().args(["-incoming", &uri]).start()?;
        guest.goes_on().map_err(|error| format!("time {time}: {error}"))?;
    }
    guest.finish().map(drop)
}

/// The guest goes to a disk of its own at the other side, twice: what it has above an image that
/// both have, and everything.
fn with_its_disk(ctx: &Ctx) -> Result {
    let mut guest = Busy::start(ctx)?;
    let whole = ctx.dir.join("whole.qcow2");
    let mut create = Command::new("/usr/bin/qemu-img");
    run(create.args(["create", "-q", "-f", "qcow2"]).arg(&whole).arg("48M"))?;
    for (how, image) in [("inc", on_blank(ctx, "other.qcow2")?), ("blk", whole)] {
        let uri = format!("unix:{}", ctx.dir.join(how).display());
        let builder = with_disk(ctx, &image);
        let mut there = builder.clone().args(["-incoming", &uri]).start()?;
        guest.vm.qmp.execute("migrate_set_speed", json!({ "value": 1u64 << 30 }))?;
        guest.vm.qmp.execute("migrate_set_downtime", json!({ "value": 2 }))?;
        guest.vm.qmp.execute("migrate", json!({ "uri": uri, how: true }))?;
        super::migrate::expect_ended(&mut guest.vm, "completed")?;
        there.qmp.event("RESUME", SOON).map_err(|error| there.process.explain(error))?;
        guest = Busy { vm: there, builder, image };
        guest.goes_on().map_err(|error| format!("{how}: {error}"))?;
    }
    guest.finish().map(drop)
}
