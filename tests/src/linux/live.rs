//! Operations on a disk that a guest writes to: snapshots, commits, streams, mirrors, backups,
//! throttling, growth; and errors that stop the machine. What was synced is there afterwards.

use serde_json::{Value, json};

use crate::rig::Result;
use crate::rig::disk::Disk;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{BOOT, Kernel, SOON, TestVm};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::linux("live::chains_under_writes", 600, chains),
        Test::linux("live::copies_under_writes", 600, copies),
        Test::linux("live::errors_stop_and_go_on", 300, errors),
    ]
}

/// Writes files named by their sums and says each name when the disk has it, until told to stop.
pub(super) const WRITER: &str = r#"
( cd /mnt
  until [ -e /tmp/stop ]; do
      dd if=/dev/urandom of=new bs=16k count=$((1 + RANDOM % 8)) 2>/dev/null || break
      name=$(sha256sum new | cut -d' ' -f1)
      mv new $name && sync || break
      echo $name >>/tmp/kept
      n=$(ls | wc -l)
      [ $n -lt 60 ] || { old=$(head -n 1 /tmp/kept); rm $old && sed -i 1d /tmp/kept; }
  done
  touch /tmp/stopped ) >/dev/null 2>&1 &"#;

/// Every file that was kept is there with its sum, read from the disk.
pub(super) const VERIFY: &str = "umount /mnt && echo 3 >/proc/sys/vm/drop_caches && mount -t ext4 /dev/vda /mnt \
    && cd /mnt && while read name; do \
       [ \"$(sha256sum $name | cut -d' ' -f1)\" = $name ] || echo wrong $name; done </tmp/kept; cd /";

/// A guest that writes to `/dev/vda`, an ext4 file system on the drive `d0`.
struct Writing {
    vm: TestVm,
    disk: Disk,
}

impl Writing {
    fn start(ctx: &Ctx, drive: &str) -> Result<Writing> {
        let disk = Disk::ext4(&ctx.dir, "base.raw", 48 << 20)?;
        let drive = format!("{}{drive}", disk.drive("d0"));
        let args = ["-drive", &drive, "-device", "virtio-blk-pci,drive=d0"];
        let mut vm = ctx.linux(Kernel::V6_12).args(args).start()?;
        vm.booted()?;
        vm.load(&["virtio_blk"])?;
        vm.sh("mount -t ext4 /dev/vda /mnt && touch /tmp/kept")?;
        vm.sh(WRITER)?;
        let mut writing = Writing { vm, disk };
        writing.goes_on()?;
        Ok(writing)
    }

    /// Waits until some more files were written.
    fn goes_on(&mut self) -> Result {
        let more = "last=$(tail -n 1 /tmp/kept); n=0; while [ $n -lt 3 ]; do \
                    now=$(tail -n 1 /tmp/kept); if [ \"$now\" != \"$last\" ]; then \
                    n=$((n+1)); last=$now; fi; [ ! -e /tmp/stopped ] || exit 1; usleep 20000; done";
        let (status, said) = self.vm.sh_within(&format!("( {more} )"), BOOT)?;
        if status == 0 { Ok(()) } else { Err(format!("the guest writes no more: {said}").into()) }
    }

    /// Runs a command, and sees the guest go on.
    fn run(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let done = self.vm.qmp.execute(command, arguments)?;
        self.goes_on().map_err(|error| format!("after {command}: {error}"))?;
        Ok(done)
    }

    /// Waits for the end of the drive's job, which must be a success.
    fn completed(&mut self, kind: &str) -> Result {
        let event = self.vm.qmp.event("BLOCK_JOB_COMPLETED", BOOT)?;
        let data = &event["data"];
        if data["type"] != kind || data.get("error").is_some() || data["len"] != data["offset"] {
            return Err(format!("the {kind} job ended so: {event}").into());
        }
        self.goes_on()
    }

    /// The file of the active layer.
    fn active(&mut self) -> Result<String> {
        let all = self.vm.qmp.execute("query-block", json!({}))?;
        let drive = all.as_array().and_then(|all| all.iter().find(|one| one["device"] == "d0"));
        let file = drive.and_then(|drive| drive["inserted"]["file"].as_str());
        Ok(file.ok_or_else(|| format!("no medium in {all}"))?.to_owned())
    }

    /// Ends the writer; what it kept is on the disk.
    fn verify(&mut self) -> Result {
        self.vm.sh("touch /tmp/stop")?;
        self.vm.wait_for("[ -e /tmp/stopped ]")?;
        let (status, wrong) = self.vm.sh_within(VERIFY, BOOT)?;
        if status != 0 || !wrong.is_empty() {
            return Err(format!("the disk has lost something: {wrong}").into());
        }
        self.vm.check_kernel_log()
    }

    fn quit(mut self) -> Result {
        self.vm.sh("umount /mnt")?;
        self.vm.qmp.execute("quit", json!({}))?;
        self.vm.exit_code(SOON).map(drop)
    }
}

/// Layers are put on a disk and merged again, in every way.
fn chains(ctx: &Ctx) -> Result {
    let mut disk = Writing::start(ctx, "")?;
    let path = |name: &str| ctx.dir.join(name).display().to_string();
    let (one, two, three) = (path("one.qcow2"), path("two.qcow2"), path("three.qcow2"));
    for file in [&one, &two] {
        disk.run("blockdev-snapshot-sync", json!({"device": "d0", "snapshot-file": file}))?;
        if disk.active()? != *file {
            return Err(format!("the active layer is {}, not {file}", disk.active()?).into());
        }
    }
    disk.run("blockdev-snapshot-internal-sync", json!({"device": "d0", "name": "inside"}))?;
    // The middle goes into the base, then the base into the top.
    disk.run("block-commit", json!({"device": "d0", "top": one}))?;
    disk.completed("commit")?;
    disk.run("block-stream", json!({"device": "d0"}))?;
    disk.completed("stream")?;
    disk.run("blockdev-snapshot-delete-internal-sync", json!({"device": "d0", "name": "inside"}))?;
    // A layer on top, which goes down again while it is written.
    disk.run("blockdev-snapshot-sync", json!({"device": "d0", "snapshot-file": three}))?;
    disk.run("block-commit", json!({"device": "d0", "top": three}))?;
    disk.vm.qmp.event("BLOCK_JOB_READY", BOOT)?;
    disk.goes_on()?;
    disk.run("block-job-complete", json!({"device": "d0"}))?;
    disk.completed("commit")?;
    if disk.active()? != two {
        return Err(format!("after the commit the active layer is {}", disk.active()?).into());
    }
    disk.verify()?;
    disk.quit()
}

/// A disk is copied while it is written, moved, slowed down and made larger.
fn copies(ctx: &Ctx) -> Result {
    let mut disk = Writing::start(ctx, "")?;
    let path = |name: &str| ctx.dir.join(name).display().to_string();
    let (backup, moved) = (path("backup.raw"), path("moved.qcow2"));

    // The copy is of the moment of the command: of a file system that is quiet then.
    disk.vm.sh("sync")?;
    let limits = json!({"device": "d0", "bps": 8 << 20, "bps_rd": 0, "bps_wr": 0, "iops": 0,
        "iops_rd": 0, "iops_wr": 0});
    disk.run("block_set_io_throttle", limits)?;
    let target = json!({"device": "d0", "target": backup, "format": "raw", "sync": "full"});
    disk.run("drive-backup", target)?;
    disk.completed("backup")?;
    let none = json!({"device": "d0", "bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0,
        "iops_wr": 0});
    disk.run("block_set_io_throttle", none)?;
    let copy = Disk::at(&ctx.dir.join("backup.raw"));
    copy.check_ext4()?;

    let target = json!({"device": "d0", "target": moved, "format": "qcow2", "sync": "full"});
    disk.run("drive-mirror", target)?;
    disk.vm.qmp.event("BLOCK_JOB_READY", BOOT)?;
    disk.goes_on()?;
    disk.run("block-job-complete", json!({"device": "d0"}))?;
    disk.completed("mirror")?;
    if disk.active()? != moved {
        return Err(format!("after the mirror the active layer is {}", disk.active()?).into());
    }

    disk.run("block_resize", json!({"device": "d0", "size": 64 << 20}))?;
    disk.vm.wait_for("[ $(cat /sys/block/vda/size) = 131072 ]")?;
    disk.verify()?;
    // The image that was left has the state of the pivot, as after a pulled plug.
    disk.disk.check_ext4()?;
    disk.quit()
}

/// A write fails as if the disk were full, then as if it were broken: the machine stops, goes on
/// when it is told to, and nothing is lost.
fn errors(ctx: &Ctx) -> Result {
    let disk = Disk::ext4(&ctx.dir, "base.raw", 48 << 20)?;
    let rules = ctx.dir.join("rules");
    // After each error the rule is spent; the next one waits for its own state.
    std::fs::write(
        &rules,
        "[inject-error]\nevent = \"write_aio\"\nstate = \"1\"\nerrno = \"28\"\nonce = \"on\"\n\
         [set-state]\nevent = \"write_aio\"\nstate = \"1\"\nnew_state = \"2\"\n\
         [inject-error]\nevent = \"write_aio\"\nstate = \"2\"\nerrno = \"5\"\nonce = \"on\"\n\
         [set-state]\nevent = \"write_aio\"\nstate = \"2\"\nnew_state = \"3\"\n",
    )?;
    let drive = format!(
        "if=none,id=d0,format=raw,werror=stop,rerror=stop,file=blkdebug:{}:{}",
        rules.display(),
        disk.path().display()
    );
    let args = ["-drive", &drive, "-device", "virtio-blk-pci,drive=d0"];
    let mut vm = ctx.linux(Kernel::V6_12).args(args).start()?;
    vm.booted()?;
    vm.load(&["virtio_blk"])?;
    vm.console.type_text("mount -t ext4 /dev/vda /mnt && touch /tmp/kept && echo mou''nted\n")?;
    for status in ["nospace", "failed"] {
        let event = vm.qmp.event("BLOCK_IO_ERROR", BOOT)?;
        let data = &event["data"];
        if data["device"] != "d0" || data["action"] != "stop" || data["operation"] != "write" {
            return Err(format!("the error is told as {event}").into());
        }
        vm.qmp.event("STOP", SOON)?;
        let state = vm.qmp.execute("query-status", json!({}))?;
        if state["status"] != "io-error" {
            return Err(format!("the machine is {state}").into());
        }
        let all = vm.qmp.execute("query-block", json!({}))?;
        let drive = all.as_array().and_then(|all| all.iter().find(|one| one["device"] == "d0"));
        if drive.is_none_or(|drive| drive["io-status"] != status) {
            return Err(format!("the drive is told as {all}").into());
        }
        vm.qmp.execute("cont", json!({}))?;
        vm.qmp.event("RESUME", SOON)?;
    }
    vm.console.expect("mounted\n", SOON)?;
    vm.sh(WRITER)?;
    let mut writing = Writing { vm, disk };
    writing.goes_on()?;
    writing.verify()?;
    writing.quit()
}
