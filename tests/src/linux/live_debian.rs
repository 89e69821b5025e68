//! Every operation on disks, one after the other, under a whole Debian system that writes to two of
//! them all the time: its root and its data. What it synced is there afterwards, copies are what
//! they were to be, and QEMU's tools find no damage in any image.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::rig::Result;
use crate::rig::disk::Disk;
use crate::rig::process::die_with_parent;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{BOOT, DEBIAN, Kernel, SOON, SYSTEM, TestVm};
use crate::supply::guests::busybox;
use crate::supply::run;

pub(super) fn tests() -> Vec<Test> {
    vec![Test::linux("live_debian::keeps_its_data", 1500, keeps_its_data).with_debian()]
}

/// Bytes of the data disk at first, and when it has grown.
const DATA: u64 = 64 << 20;
const GROWN: u64 = 96 << 20;

/// Writes files named by their sums, in turns to both disks, and says each name when its disk has
/// it. Beside it fio writes blocks and reads them again, to see that they are what it wrote.
const WRITER: &str = r#"
write() {
    head -c $((16384 * (1 + count % 6))) /dev/urandom >$1/new || return 1
    name=$(sha256sum <$1/new | cut -d' ' -f1)
    mv $1/new $1/$name && sync -f $1 || return 1
    echo $1/$name >>/tmp/kept
}
count=0
until [ -e /tmp/stop ]; do
    count=$((count + 1))
    write /mnt/files && write /root/files || break
    if [ $(wc -l </tmp/kept) -gt 160 ]; then
        head -n 2 /tmp/kept | xargs rm && sed -i 1,2d /tmp/kept
    fi
done
touch /tmp/stopped
"#;
const BLOCKS: &str = r#"
until [ -e /tmp/stop ]; do
    fio --name=blocks --filename=/mnt/blocks --size=2m --rw=randwrite --bs=4k --direct=1 \
        --ioengine=libaio --iodepth=8 --fsync=16 --verify=crc32c --verify_fatal=1 \
        --do_verify=1 >/tmp/blocks 2>&1 || { touch /tmp/blocks-lost; break; }
    echo round >>/tmp/rounds
done
touch /tmp/blocks-stopped
"#;
/// Every file that was kept is there with its sum, read from its disk.
const VERIFY: &str = "echo 3 >/proc/sys/vm/drop_caches; while read file; do \
    [ \"$(sha256sum <$file | cut -d' ' -f1)\" = ${file##*/} ] || echo wrong $file; \
    done </tmp/kept; [ ! -e /tmp/blocks-lost ] || cat /tmp/blocks";

/// The guest, and where its files are.
struct Guest<'a> {
    vm: TestVm,
    dir: &'a Path,
}

impl Guest<'_> {
    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Waits until both disks have some more files.
    fn goes_on(&mut self) -> Result {
        let more = "now=$(tail -n 1 /tmp/kept); n=0; while [ $n -lt 4 ]; do last=$now; \
                    until now=$(tail -n 1 /tmp/kept); [ \"$now\" != \"$last\" ]; do \
                    [ ! -e /tmp/stopped ] || exit 1; sleep 0.02; done; n=$((n + 1)); done";
        let (status, said) = self.vm.sh_within(&format!("( {more} )"), BOOT)?;
        let (lost, what) =
            self.vm.sh_within("[ ! -e /tmp/blocks-lost ] || cat /tmp/blocks", SOON)?;
        if status == 0 && lost == 0 && what.is_empty() {
            return Ok(());
        }
        Err(format!("the guest writes no more: {said}{what}").into())
    }

    /// Runs a command, and sees the guest go on.
    fn run(&mut self, command: &str, arguments: Value) -> Result {
        let shown = arguments.to_string();
        let start = Instant::now();
        self.vm.qmp.execute(command, arguments)?;
        self.goes_on().map_err(|error| format!("after {command} {shown}: {error}"))?;
        println!("{command} {shown}: {:.1} s", start.elapsed().as_secs_f32());
        Ok(())
    }

    /// Waits for the end of the drive's job, which must be a success and the next thing heard of it.
    fn completed(&mut self, device: &str, kind: &str) -> Result {
        let event = self.vm.qmp.event("BLOCK_JOB_COMPLETED", BOOT)?;
        let data = &event["data"];
        let done =
            data["device"] == device && data["type"] == kind && data["len"] == data["offset"];
        if !done || data.get("error").is_some() {
            return Err(format!("the {kind} job of {device} ended so: {event}").into());
        }
        let jobs = self.vm.qmp.execute("query-block-jobs", json!({}))?;
        if jobs.as_array().is_some_and(|all| all.iter().any(|job| job["device"] == device)) {
            return Err(format!("the job that has ended is still listed: {jobs}").into());
        }
        self.goes_on()
    }

    /// Lets a job that is ready take the place of its drive.
    fn complete(&mut self, device: &str, kind: &str) -> Result {
        self.vm.qmp.event("BLOCK_JOB_READY", BOOT)?;
        self.goes_on()?;
        self.run("block-job-complete", json!({"device": device}))?;
        self.completed(device, kind)
    }

    /// What query-block tells of a drive.
    fn told(&mut self, device: &str) -> Result<Value> {
        let all = self.vm.qmp.execute("query-block", json!({}))?;
        let found = all.as_array().and_then(|all| all.iter().find(|one| one["device"] == device));
        Ok(found.cloned().ok_or_else(|| format!("no {device} in {all}"))?)
    }

    /// The active layer of a drive must be this file.
    fn stands_on(&mut self, device: &str, file: &str) -> Result {
        let told = self.told(device)?;
        if told["inserted"]["file"] == file {
            return Ok(());
        }
        Err(format!("{device} is not on {file} but {told}").into())
    }

    fn snapshot(&mut self, device: &str, file: &str) -> Result {
        let name = self.path(file);
        self.run("blockdev-snapshot-sync", json!({"device": device, "snapshot-file": name}))?;
        self.stands_on(device, &name)
    }

    /// The machine has stopped because of a failed request to the data disk.
    fn stopped(&mut self, status: &str) -> Result {
        let event = self.vm.qmp.event("BLOCK_IO_ERROR", SYSTEM)?;
        let data = &event["data"];
        if data["device"] != "data" || data["action"] != "stop" {
            return Err(format!("the error is told as {event}").into());
        }
        self.vm.qmp.event("STOP", SOON)?;
        let state = self.vm.qmp.execute("query-status", json!({}))?;
        let told = self.told("data")?;
        if state["status"] != "io-error" || told["io-status"] != status {
            return Err(format!("the machine is {state}, the drive {told}").into());
        }
        println!("stopped: {status}");
        Ok(())
    }

    /// Lets a machine that has stopped go on.
    fn cont(&mut self) -> Result {
        self.vm.qmp.forget_events();
        self.vm.qmp.execute("cont", json!({}))?;
        self.vm.qmp.event("RESUME", SOON).map(drop)
    }
}

fn keeps_its_data(ctx: &Ctx) -> Result {
    let image = ctx.image.as_ref().ok_or("the test is not made with_debian")?;
    let dir: &Path = &ctx.dir;
    let path = |name: &str| dir.join(name).display().to_string();
    let room = Room::new(&dir.join("room"))?;
    let backed = format!("create -q -f qcow2 -F raw -b {} {}", image.display(), path("root0"));
    img(&backed)?;
    Disk::ext4(dir, "data.raw", DATA)?;
    img(&format!("convert -f raw -O qcow2 {} {}", path("data.raw"), path("data0")))?;

    let mut guest = start(ctx)?;
    guest.goes_on()?;

    // Both disks and a copy of one at the same moment; and then not at all.
    let overlay = |device: &str, file: &str| {
        let data = json!({"device": device, "snapshot-file": path(file)});
        json!({"type": "blockdev-snapshot-sync", "data": data})
    };
    let target = json!({"device": "data", "target": path("backup"), "sync": "full",
        "format": "qcow2"});
    let copy = json!({"type": "drive-backup", "data": target});
    let (data, root) = (overlay("data", "data1"), overlay("root", "root1"));
    guest.run("transaction", json!({"actions": [data, root, copy]}))?;
    guest.completed("data", "backup")?;
    guest.stands_on("data", &path("data1"))?;
    guest.stands_on("root", &path("root1"))?;
    // What the data disk was at that moment stands still in its first image.
    img(&format!("compare -U {} {}", path("data0"), path("backup")))?;
    let abort = json!({"type": "abort", "data": {}});
    let actions = json!({"actions": [overlay("data", "lost"), abort]});
    if guest.vm.qmp.try_execute("transaction", actions)?.is_ok() {
        return Err("a transaction succeeds that was to be aborted".into());
    }
    guest.goes_on()?;
    guest.stands_on("data", &path("data1"))?;

    // Slower, and as fast as before.
    let limits = |bps: u64, iops: u64| {
        json!({"device": "data", "bps": bps, "bps_rd": 0, "bps_wr": 0, "iops": iops, "iops_rd": 0,
            "iops_wr": 0})
    };
    guest.run("block_set_io_throttle", limits(4 << 20, 200))?;
    guest.run("block_set_io_throttle", limits(0, 0))?;

    // One image again, with a snapshot inside, which then moves to another file.
    guest.run("block-stream", json!({"device": "data"}))?;
    guest.completed("data", "stream")?;
    if guest.told("data")?["inserted"].get("backing_file").is_some() {
        return Err("the stream has left a backing file".into());
    }
    let inside = json!({"device": "data", "name": "inside"});
    guest.run("blockdev-snapshot-internal-sync", inside.clone())?;
    guest.run("blockdev-snapshot-delete-internal-sync", inside)?;
    let target = json!({"device": "data", "target": path("data2"), "sync": "full",
        "format": "qcow2"});
    guest.run("drive-mirror", target)?;
    guest.complete("data", "mirror")?;
    guest.stands_on("data", &path("data2"))?;

    exported(&mut guest)?;

    // The middle of a chain into its base, then the top.
    guest.snapshot("root", "root2")?;
    for (top, active) in [("root1", false), ("root2", true)] {
        let commit = json!({"device": "root", "top": path(top), "base": path("root0")});
        guest.run("block-commit", commit)?;
        if active {
            guest.complete("root", "commit")?
        } else {
            guest.completed("root", "commit")?
        }
    }
    guest.stands_on("root", &path("root0"))?;

    // Larger, for the disk and the file system on it.
    guest.run("block_resize", json!({"device": "data", "size": GROWN}))?;
    let sectors = GROWN / 512;
    guest.vm.wait_for(&format!("[ $(cat /sys/block/vdb/size) = {sectors} ]"))?;
    let (status, said) = guest.vm.sh_within("resize2fs /dev/vdb 2>&1", BOOT)?;
    if status != 0 {
        return Err(format!("the file system does not grow: {said}").into());
    }
    guest.goes_on()?;

    // No room left on the host, for data and for what describes them.
    let snapshot = json!({"device": "data", "snapshot-file": path("room/data3")});
    guest.vm.qmp.execute("blockdev-snapshot-sync", snapshot)?;
    for size in [2_u64, 4, 256] {
        guest.stopped("nospace")?;
        room.resize(size << 20)?;
        guest.cont()?;
    }
    guest.goes_on()?;

    // A write that the disk refuses.
    std::fs::write(
        dir.join("rules"),
        "[inject-error]\nevent = \"write_aio\"\nstate = \"1\"\nonce = \"on\"\n\
         [set-state]\nevent = \"write_aio\"\nstate = \"1\"\nnew_state = \"2\"\n",
    )?;
    let over = format!("create -q -f qcow2 -F qcow2 -b {} {}", path("room/data3"), path("data4"));
    img(&format!("{over} {GROWN}"))?;
    let file = format!("blkdebug:{}:{}", path("rules"), path("data4"));
    let snapshot = json!({"device": "data", "snapshot-file": file, "mode": "existing"});
    guest.vm.qmp.execute("blockdev-snapshot-sync", snapshot)?;
    guest.stopped("failed")?;
    guest.cont()?;
    guest.goes_on()?;

    // All of it into one image.
    let top = guest.told("data")?["inserted"]["file"].clone();
    guest.run("block-commit", json!({"device": "data", "top": top}))?;
    guest.complete("data", "commit")?;
    guest.stands_on("data", &path("data2"))?;
    finish(guest, &["root0", "root1", "root2", "data0", "data1", "data2", "backup"])
}

/// Boots, and begins to write to both disks.
fn start(ctx: &Ctx) -> Result<Guest<'_>> {
    let drive = |id: &str, file: &str| {
        let file = ctx.dir.join(file);
        format!("if=none,id={id},format=qcow2,werror=stop,rerror=stop,file={}", file.display())
    };
    // What is of no use here only makes it late.
    let lean = "systemd.default_device_timeout_sec=600 systemd.mask=systemd-networkd.service \
                systemd.mask=systemd-resolved.service systemd.mask=systemd-logind.service \
                systemd.mask=systemd-udev-settle.service systemd.mask=systemd-journal-flush.service";
    let vm = ctx.linux(Kernel::V6_12).only_append(DEBIAN).append(lean);
    let vm = vm.args(["-drive", &drive("root", "root0"), "-device", "virtio-blk-pci,drive=root"]);
    let vm = vm.args(["-drive", &drive("data", "data0"), "-device", "virtio-blk-pci,drive=data"]);
    let mut vm = vm.start()?;
    vm.log_in()?;
    vm.sh("mount -t ext4 /dev/vdb /mnt && mkdir -p /mnt/files /root/files")?;
    vm.sh("touch /tmp/kept /tmp/rounds")?;
    for (name, script) in [("writer", WRITER), ("blocks-writer", BLOCKS)] {
        vm.sh(&format!("cat >/tmp/{name} <<'END'\n{script}END"))?;
        vm.sh(&format!("setsid sh /tmp/{name} </dev/null >/dev/null 2>&1 &"))?;
    }
    Ok(Guest { vm, dir: &ctx.dir })
}

/// Others read the data disk over NBD while the guest writes to it; and while it does not, what
/// they read is what is in the image.
fn exported(guest: &mut Guest<'_>) -> Result {
    let socket = guest.path("nbd");
    let addr = json!({"type": "unix", "data": {"path": socket}});
    guest.run("nbd-server-start", json!({"addr": addr}))?;
    guest.run("nbd-server-add", json!({"device": "data"}))?;
    let uri = format!("nbd+unix:///data?socket={socket}");
    let mut copies = [
        begin("/usr/bin/nbdcopy", &["--", &uri, &guest.path("moving1")])?,
        begin("/usr/bin/qemu-img", &["convert", "-O", "raw", &uri, &guest.path("moving2")])?,
    ];
    guest.goes_on()?;
    for copy in &mut copies {
        if !copy.wait()?.success() {
            return Err("an export cannot be read while the guest writes".into());
        }
    }
    guest.goes_on()?;

    guest.vm.qmp.execute("stop", json!({}))?;
    let still = guest.path("still");
    run(Command::new("/usr/bin/nbdcopy").args(["--", &uri, &still]))?;
    img(&format!("compare {still} {uri}"))?;
    img(&format!("compare -U -f raw -F qcow2 {still} {}", guest.path("data2")))?;
    // As after a pulled plug.
    Disk::at(Path::new(&still)).check_ext4()?;
    guest.vm.qmp.execute("cont", json!({}))?;
    for name in ["still", "moving1", "moving2"] {
        std::fs::remove_file(guest.dir.join(name))?;
    }
    guest.run("nbd-server-stop", json!({}))
}

/// Ends the writers: what they kept is there, and QEMU's tools find the images in order.
fn finish(mut guest: Guest<'_>, images: &[&str]) -> Result {
    let ended = "touch /tmp/stop; until [ -e /tmp/stopped ] && [ -e /tmp/blocks-stopped ]; do \
                 sleep 0.1; done; wc -l </tmp/kept; wc -l </tmp/rounds";
    let (status, counts) = guest.vm.sh_within(ended, SYSTEM)?;
    println!("files at last and rounds of fio: {}", counts.replace('\n', ", "));
    guest.vm.sh("umount /mnt && mount -t ext4 /dev/vdb /mnt")?;
    let (verified, wrong) = guest.vm.sh_within(VERIFY, SYSTEM)?;
    if status != 0 || verified != 0 || !wrong.is_empty() {
        return Err(format!("the disks have lost something: {wrong}").into());
    }
    guest.vm.check_kernel_log()?;
    guest.vm.console.type_text("poweroff\n")?;
    if guest.vm.exit_code(SYSTEM)? != 0 {
        return Err("a poweroff with another exit code than 0".into());
    }
    for image in images {
        img(&format!("check -q {}", guest.path(image)))?;
    }
    let (data, raw) = (guest.path("data2"), guest.path("data.raw"));
    img(&format!("convert -f qcow2 -O raw {data} {raw}"))?;
    Disk::at(Path::new(&raw)).check_ext4()
}

/// Runs QEMU's image tool with words that have no blanks in them.
fn img(line: &str) -> Result {
    let mut command = Command::new("/usr/bin/qemu-img");
    run(command.args(line.split_whitespace())).map(drop)
}

fn begin(program: &str, words: &[&str]) -> Result<Child> {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
    Ok(die_with_parent(&mut command).spawn()?)
}

/// A file system in memory, in which there is little room.
struct Room(PathBuf);

impl Room {
    fn new(path: &Path) -> Result<Room> {
        std::fs::create_dir(path)?;
        let room = Room(path.to_owned());
        room.mount("size=1m", "tmpfs")?;
        Ok(room)
    }

    fn resize(&self, bytes: u64) -> Result {
        self.mount(&format!("remount,size={bytes}"), "none")
    }

    fn mount(&self, options: &str, what: &str) -> Result {
        let mut command = Command::new(busybox()?);
        run(command.args(["mount", "-t", "tmpfs", "-o", options, what]).arg(&self.0)).map(drop)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Ok(busybox) = busybox() {
            let _ = run(Command::new(busybox).args(["umount", "-l"]).arg(&self.0));
        }
    }
}
