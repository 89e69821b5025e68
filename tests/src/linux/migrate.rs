//! Linux guests that move between processes with their disks, cards and ports in use.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::clock::{UPTIME, read, went_on_but};
use super::live::{VERIFY, WRITER};
use super::nic::serve_back;
use super::ways::{self, WAYS, Way};
use crate::rig::disk::Disk;
use crate::rig::moving::begin_slowly;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{BOOT, Kernel, SOON, TestVm, VmBuilder};
use crate::rig::{Result, everything, net, qmp, thorough};
use crate::supply::run;
use crate::tiny::migrate::Cutter;

pub(super) fn tests() -> Vec<Test> {
    let mut tests = back_and_forth();
    tests.extend([
        Test::linux("migrate::cancelled_and_failed", 450, cancelled_and_failed),
        Test::linux("migrate::everything", 300, all_devices),
        Test::linux("migrate::large", 300, large),
    ]);
    tests
}

/// One guest that moves in all ways but those of guests that move with their network; at length a
/// guest for every way, which goes back and forth in it.
fn back_and_forth() -> Vec<Test> {
    const NAME: &str = "migrate::back_and_forth";
    const TIMES: usize = 20;
    let way = |way: &Way| {
        let name = if way.is_empty() { "plain".to_owned() } else { way.join("_") };
        let (way, name) = ([*way], name.replace('-', "_"));
        Test::linux(&format!("{NAME}:{name}"), 600, move |ctx| moves(ctx, &way, 2 * TIMES))
    };
    let usual = &WAYS[ways::ELSEWHERE..];
    let all = || vec![Test::linux(NAME, 600, |ctx| moves(ctx, usual, usual.len()))];
    if thorough(0, 1) == 0 { all() } else { WAYS.iter().map(way).collect() }
}

/// A part of memory that is rewritten and checked.
const MEMORY: &str = r#"
data=$(mktemp)
dd if=/dev/urandom of=$data bs=64k count=32 2>/dev/null
want=$(sha256sum <$data)
( until [ -e /tmp/stop ]; do
      cp $data $data.copy
      [ "$(sha256sum <$data.copy)" = "$want" ] || echo memory >>/tmp/wrong
      echo x >>/tmp/rounds
  done ) >/dev/null 2>&1 &"#;

/// A count on the port and on the second UART. `$port` is the port's device.
const COUNTS: &str = r#"
( n=0
  until [ -e /tmp/stop ]; do
      echo $n >&3; echo $n >&4
      n=$((n + 1))
      usleep 20000
  done 3>$port 4>/dev/ttyS1; echo $n >/tmp/counted ) 2>/dev/null &"#;

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

/// A guest under load, and how to make a process that takes it.
struct Moving {
    vm: TestVm,
    builder: VmBuilder,
    dir: PathBuf,
    image: PathBuf,
    /// Connections to it come back.
    tcp: u16,
    moves: usize,
}

impl Moving {
    fn start(ctx: &Ctx) -> Result<Moving> {
        net::isolate()?;
        let dir = ctx.dir.to_path_buf();
        let path = |name: &str| dir.join(name).display().to_string();
        let image = dir.join("disk.qcow2");
        let blank = Disk::ext4(&dir, "blank", 64 << 20)?;
        let mut convert = Command::new("/usr/bin/qemu-img");
        run(convert.args(["convert", "-f", "raw", "-O", "qcow2"]).arg(blank.path()).arg(&image))?;
        let file = |id: &str| format!("file,id={id},path={},append=on", path(id));
        let builder = ctx
            .linux(Kernel::V6_12)
            .memory("256")
            .args(["-drive", &format!("if=none,id=d0,format=qcow2,file={}", image.display())])
            .args(["-device", "virtio-blk-pci,drive=d0"])
            .args(["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,id=card0"])
            .args(["-chardev", &file("port"), "-chardev", &file("uart")])
            .args(["-device", "virtio-serial-pci,id=vs"])
            .args(["-device", "virtserialport,bus=vs.0,chardev=port,name=test.port"])
            .args(["-serial", "chardev:uart"]);
        let mut vm = builder.clone().start()?;
        vm.booted()?;
        vm.load(&["virtio_blk", "virtio_net", "af_packet", "virtio_console"])?;
        vm.wait_for("test -b /dev/vda && test -e /sys/class/net/eth0")?;
        vm.wait_for("grep -q test.port /sys/class/virtio-ports/*/name")?;
        vm.sh("mount -t ext4 /dev/vda /mnt && touch /tmp/kept /tmp/rounds")?;
        vm.sh("ip address add 10.0.2.15/24 dev eth0 && ip link set eth0 up")?;
        vm.sh("stty -F /dev/ttyS1 raw || true")?;
        let port = "port=/dev/$(grep -l test.port /sys/class/virtio-ports/*/name | cut -d/ -f5)";
        vm.sh(MEMORY)?;
        vm.sh(&format!("{port}{COUNTS}"))?;
        vm.sh(WRITER)?;
        let tcp = serve_back()?;
        let mut moving = Moving { vm, builder, dir, image, tcp, moves: 0 };
        moving.goes_on()?;
        Ok(moving)
    }

    fn goes_on(&mut self) -> Result {
        let (status, said) = self.vm.sh_within(&format!("( {GOES_ON} )"), BOOT)?;
        if status != 0 {
            return Err(self.vm.process.explain(format!("it stands still: {said}").into()));
        }
        let tcp = self.tcp;
        let ask = format!("echo hello | nc 10.0.2.2 {tcp}");
        let (_, said) = self.vm.sh_within(&ask, SOON)?;
        match &*said {
            "hello" => Ok(()),
            said => Err(format!("the network gives back {said:?}").into()),
        }
    }

    /// A process that waits for the guest, and where.
    fn destination(&mut self) -> Result<(TestVm, String)> {
        self.moves += 1;
        let uri = format!("unix:{}", self.dir.join(format!("m{}", self.moves)).display());
        Ok((self.builder.clone().args(["-incoming", &uri]).start()?, uri))
    }

    /// Moves it, and sees that nothing happened to it.
    fn hand_over(mut self, way: Way) -> Result<Moving> {
        let before = read(&mut self.vm, UPTIME)?;
        self.moves += 1;
        let place = (&*self.dir, &*format!("m{}", self.moves));
        let (there, mut left) = ways::go(self.vm, self.builder.clone(), way, place)?;
        self.vm = there;
        let after = read(&mut self.vm, UPTIME)?;
        let downtime = left.info["downtime"].as_f64().ok_or("no downtime")? / 1000.0;
        // The source hears a little later that it runs again.
        went_on_but("time since boot", &before, &after, [0.0, downtime])?;
        // It has another owner now, who has its disk locked.
        if left.vm.qmp.try_execute("cont", json!({}))?.is_ok() {
            return Err("the guest goes on where it was moved away from".into());
        }
        self.verify_kept()?;
        self.goes_on()?;
        Ok(self)
    }

    /// What was written before is read back from the disk.
    fn verify_kept(&mut self) -> Result {
        // The writer removes old ones meanwhile: those it says nothing of soon after.
        let check = "tail -n 12 /tmp/kept >/tmp/seen; echo 3 >/proc/sys/vm/drop_caches; \
            while read name; do \
            [ \"$(sha256sum </mnt/$name | cut -d' ' -f1)\" = $name ] && continue; \
            sleep 1; grep -q $name /tmp/kept && echo wrong $name; done </tmp/seen 2>/dev/null";
        let (_, wrong) = self.vm.sh_within(check, BOOT)?;
        if wrong.is_empty() { Ok(()) } else { Err(format!("on the disk: {wrong}").into()) }
    }

    /// Ends the load and the machine; nothing was lost on any way.
    fn finish(mut self) -> Result {
        let vm = &mut self.vm;
        vm.sh("touch /tmp/stop")?;
        vm.wait_for("[ -e /tmp/stopped ] && [ -s /tmp/counted ]")?;
        let (status, wrong) = vm.sh_within(VERIFY, BOOT)?;
        let wrong = wrong + &vm.sh("cat /tmp/wrong 2>/dev/null || true")?;
        if status != 0 || !wrong.is_empty() {
            return Err(format!("what went wrong: {wrong}").into());
        }
        vm.check_kernel_log()?;
        let counted: usize = vm.sh("cat /tmp/counted")?.trim().parse()?;
        vm.sh("umount /mnt")?;
        vm.qmp.execute("quit", json!({}))?;
        vm.exit_code(SOON)?;
        let wanted: String = (0..counted).map(|n| format!("{n}\n")).collect();
        for name in ["port", "uart"] {
            let heard = std::fs::read_to_string(self.dir.join(name))?.replace('\r', "");
            let at = heard.lines().zip(wanted.lines()).position(|(heard, wanted)| heard != wanted);
            if heard != wanted {
                let lines = heard.lines().count();
                return Err(format!(
                    "{name}: {lines} lines of {counted}, the first wrong at {at:?}: {:?}",
                    at.and_then(|at| heard.lines().nth(at))
                )
                .into());
            }
        }
        run(Command::new("/usr/bin/qemu-img").args(["check", "-q", "-f", "qcow2"]).arg(&self.image))
            .map(drop)
    }
}

pub(super) fn migrate(vm: &mut TestVm, uri: &str) -> Result {
    vm.qmp.execute("migrate_set_speed", json!({ "value": 1u64 << 30 }))?;
    vm.qmp.execute("migrate_set_downtime", json!({ "value": 1 }))?;
    vm.qmp.execute("migrate", json!({ "uri": uri }))?;
    Ok(())
}

pub(super) fn expect_ended(vm: &mut TestVm, how: &str) -> Result<Value> {
    let deadline = Instant::now() + BOOT;
    loop {
        let info = vm.qmp.execute("query-migrate", json!({}))?;
        match info["status"].as_str() {
            Some("setup" | "active" | "postcopy-active") if Instant::now() < deadline => {}
            Some(status) if status == how => return Ok(info),
            _ => return Err(vm.process.explain(format!("not {how}: {info}").into())),
        }
        sleep(Duration::from_millis(20));
    }
}

/// The guest moves so often, in one way after the other, and notices nothing.
fn moves(ctx: &Ctx, ways: &[Way], times: usize) -> Result {
    let mut guest = Moving::start(ctx)?;
    for (time, &way) in ways.iter().cycle().take(times).enumerate() {
        println!("move {time} with {way:?}");
        guest =
            guest.hand_over(way).map_err(|error| format!("move {time} with {way:?}: {error}"))?;
    }
    guest.finish()
}

/// A guest that does not get away stays whole, with its disk its own.
fn cancelled_and_failed(ctx: &Ctx) -> Result {
    let mut guest = Moving::start(ctx)?;
    let (mut there, uri) = guest.destination()?;
    begin_slowly(&mut guest.vm, &uri, 4 << 20, 2 << 20)?;
    guest.vm.qmp.execute("migrate_cancel", json!({}))?;
    expect_ended(&mut guest.vm, "cancelled")?;
    there.exit_code(SOON)?;
    guest.goes_on().map_err(|error| format!("cancelled: {error}"))?;

    let (there, uri) = guest.destination()?;
    begin_slowly(&mut guest.vm, &uri, 4 << 20, 2 << 20)?;
    there.process.signal(rustix::process::Signal::KILL)?;
    expect_ended(&mut guest.vm, "failed")?;
    guest.goes_on().map_err(|error| format!("killed while memory flows: {error}"))?;

    // The destination dies when it has loaded all, then when it has the disk too.
    for back in [12, 16] {
        let (there, uri) = guest.destination()?;
        let front = guest.dir.join(format!("front{back}"));
        let behind = uri.strip_prefix("unix:").unwrap_or_default().into();
        let cutter = Cutter::start(&front, behind, (u64::MAX, back), there.process.id())?;
        migrate(&mut guest.vm, &format!("unix:{}", front.display()))?;
        expect_ended(&mut guest.vm, "failed")?;
        cutter.passed()?;
        // It may have been given away in the last moment: then it is for whoever knows that it does
        // not run there.
        let status = guest.vm.qmp.execute("query-status", json!({}))?;
        if back == 16 && status["status"] == "postmigrate" {
            guest.vm.qmp.execute("cont", json!({}))?;
        }
        guest.goes_on().map_err(|error| format!("killed after {back} bytes: {error}"))?;
        guest.verify_kept()?;
    }
    guest.hand_over(&[])?.finish()
}

/// A guest with much memory, many processors and an older kernel moves.
fn large(ctx: &Ctx) -> Result {
    let builder = ctx.linux(Kernel::V6_1).memory("4096").cpus(4);
    let mut vm = builder.clone().start()?;
    vm.booted()?;
    vm.sh("touch /tmp/rounds")?;
    (0..4).try_for_each(|_| vm.sh(MEMORY).map(drop))?;
    for time in 0..thorough(1, 20) {
        let way = [WAYS[0], ways::EARLY, ways::CHANNELS][time % 3];
        let before = read(&mut vm, UPTIME)?;
        let (there, left) = ways::go(vm, builder.clone(), way, (&ctx.dir, &format!("m{time}")))
            .map_err(|error| format!("move {time} with {way:?}: {error}"))?;
        vm = there;
        let downtime = left.info["downtime"].as_f64().ok_or("no downtime")? / 1000.0;
        went_on_but("time since boot", &before, &read(&mut vm, UPTIME)?, [0.0, downtime])?;
        drop(left);
        let rounds = "n=$(wc -l </tmp/rounds); until [ $(wc -l </tmp/rounds) -gt $((n + 4)) ]; do \
            usleep 10000; done";
        vm.sh_within(rounds, BOOT)?;
    }
    vm.sh("touch /tmp/stop; [ $(nproc) = 4 ]")?;
    let wrong = vm.sh("cat /tmp/wrong 2>/dev/null || true")?;
    if !wrong.is_empty() {
        return Err(format!("what went wrong: {wrong}").into());
    }
    vm.check_kernel_log()
}

/// A machine with one of every device under load moves.
fn all_devices(ctx: &Ctx) -> Result {
    net::isolate()?;
    let builder = everything::add(ctx, ctx.linux(Kernel::V6_12).cpus(2))?;
    let mut vm = super::everything::ready(builder.clone().start()?)?;
    let mut port = BufReader::new(qmp::connect(&ctx.dir.join("port"), SOON)?);
    vm.sh("touch /tmp/disks /tmp/pings")?;
    vm.sh(super::everything::LOAD)?;
    vm.sh(super::everything::GOES_ON)?;
    let mut line = String::new();
    port.read_line(&mut line)?;

    let uri = format!("unix:{}", ctx.dir.join("m").display());
    std::fs::remove_file(ctx.dir.join("port"))?;
    let mut there = builder.args(["-incoming", &uri]).start()?;
    migrate(&mut vm, &uri)?;
    expect_ended(&mut vm, "completed")?;
    there.qmp.event("RESUME", SOON).map_err(|error| there.process.explain(error))?;
    drop(vm);
    let mut port = BufReader::new(qmp::connect(&ctx.dir.join("port"), SOON)?);
    port.get_ref().set_read_timeout(Some(SOON))?;
    for _ in 0..2 {
        line.clear();
        port.read_line(&mut line)?;
    }
    if !line.starts_with("line ") || !line.ends_with(" of the port\n") {
        return Err(format!("{line:?} comes from the port").into());
    }
    there.sh(super::everything::GOES_ON)?;
    there.sh("touch /tmp/stop; killall cat; until [ -s /tmp/sent ]; do usleep 10000; done")?;
    // What the network of the source had taken in is gone with it.
    let wrong = there.sh("grep -v loss /tmp/wrong 2>/dev/null || true")?;
    if !wrong.is_empty() {
        return Err(format!("what went wrong: {wrong}").into());
    }
    there.check_kernel_log()
}
