//! One of every device in one machine: all found by their drivers, and all under load while the
//! machine is saved and loaded again.

use std::io::{Read, Write};
use std::time::Duration;

use serde_json::json;

use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{Kernel, Peer, SOON, TestVm};
use crate::rig::{Result, everything, net, qmp};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::linux("everything::is_found", 240, is_found),
        Test::linux("everything::pulses_under_load", 600, pulses),
    ]
}

const PULSES: u32 = 20;

fn booted(ctx: &Ctx) -> Result<TestVm> {
    net::isolate()?;
    ready(everything::add(ctx, ctx.linux(Kernel::V6_12).cpus(2))?.start()?)
}

/// Boots, and loads all drivers.
pub(super) fn ready(mut vm: TestVm) -> Result<TestVm> {
    vm.booted()?;
    vm.load(&["virtio_blk", "virtio_net", "af_packet", "virtio_rng", "virtio_balloon"])?;
    vm.load(&["virtio_console", "virtio_scsi", "sd_mod", "sr_mod", "i6300esb", "pvpanic_mmio"])?;
    vm.wait_for("test -b /dev/vda && test -b /dev/sda && test -b /dev/sr0")?;
    Ok(vm)
}

fn is_found(ctx: &Ctx) -> Result {
    let mut vm = booted(ctx)?;
    for there in [
        "test -e /sys/class/net/eth0",
        "grep -q virtio_rng /sys/class/misc/hw_random/rng_current",
        "test -e /dev/hvc0",
        "grep -q test.port /sys/class/virtio-ports/*/name",
        "grep -q i6300ESB /sys/class/watchdog/watchdog0/identity",
        "ls /sys/bus/virtio/drivers/virtio_balloon | grep -q virtio",
    ] {
        vm.wait_for(there).map_err(|error| format!("{there}: {error}"))?;
    }
    vm.sh("dd if=/dev/hwrng of=/dev/null bs=64 count=4 2>&1")?;
    vm.sh("dd if=/dev/sda of=/dev/null bs=64k 2>&1 && dd if=/dev/sr0 of=/dev/null bs=64k 2>&1")?;
    vm.check_kernel_log()
}

/// Writes and reads the disks, pings, and sends numbered lines through the port until told to
/// stop. What goes wrong is noted.
pub(super) const LOAD: &str = r#"
mount -t ext4 /dev/vda /mnt
ip address add 10.0.2.15/24 dev eth0 && ip link set eth0 up
dd if=/dev/urandom of=/tmp/data bs=64k count=8 2>/dev/null
port=/dev/$(grep -l test.port /sys/class/virtio-ports/*/name | cut -d/ -f5)
data=$(sha256sum </tmp/data); scsi=$(sha256sum </dev/sda)
( until [ -e /tmp/stop ]; do
      cp /tmp/data /mnt/new && sync && echo 3 >/proc/sys/vm/drop_caches
      [ "$(sha256sum </mnt/new)" = "$data" ] || echo disk >>/tmp/wrong
      [ "$(sha256sum </dev/sda)" = "$scsi" ] || echo scsi >>/tmp/wrong
      echo x >>/tmp/disks
  done ) >/dev/null 2>&1 &
( until [ -e /tmp/stop ]; do
      ping -c 10 -i 0.05 -W 10 10.0.2.2 >/tmp/ping || echo ping >>/tmp/wrong
      grep -q ' 0% packet loss' /tmp/ping || echo loss >>/tmp/wrong
      echo x >>/tmp/pings
  done ) >/dev/null 2>&1 &
( n=0
  until [ -e /tmp/stop ]; do
      echo "line $n of the port"
      n=$((n + 1))
      usleep 20000
  done >$port; echo $n >/tmp/sent ) 2>/dev/null &
( cat /dev/hwrng >/dev/null ) 2>/dev/null &"#;

/// Each kind of traffic goes on after a pulse.
pub(super) const GOES_ON: &str = "
for kind in disks pings; do
    count=$(wc -l </tmp/$kind)
    until [ $(wc -l </tmp/$kind) -gt $count ]; do sleep 0.05; done
done";

fn pulse(vm: &mut TestVm, peer: &Peer) -> Result {
    let commands: &[&str] = match peer {
        Peer::Vmm(_) => &["x-pulse-save-restore"],
        // It has nothing of the kind; this checks the test.
        Peer::Qemu(_) => &["stop", "cont"],
    };
    commands.iter().try_for_each(|command| vm.qmp.execute(command, json!({})).map(drop))
}

fn pulses(ctx: &Ctx) -> Result {
    let mut vm = booted(ctx)?;
    let mut port = qmp::connect(&ctx.dir.join("port"), SOON)?;
    vm.sh("touch /tmp/disks /tmp/pings")?;
    vm.sh(LOAD)?;
    let mut heard = Vec::new();
    port.set_read_timeout(Some(Duration::from_millis(1)))?;
    for number in 0..PULSES {
        pulse(&mut vm, &ctx.peer)?;
        let status = vm.qmp.execute("query-status", json!({}))?;
        if status["status"] != "running" {
            return Err(format!("after pulse {number} the status is {status}").into());
        }
        vm.sh(GOES_ON)?;
        // Until there is nothing more for now.
        let mut part = [0; 4096];
        while let Ok(count @ 1..) = port.read(&mut part) {
            heard.extend_from_slice(&part[..count]);
        }
    }
    vm.sh("touch /tmp/stop; killall cat; until [ -s /tmp/sent ]; do usleep 10000; done")?;
    let wrong = vm.sh("cat /tmp/wrong 2>/dev/null || true")?;
    if !wrong.is_empty() {
        return Err(format!("what went wrong: {wrong}").into());
    }
    let sent: usize = vm.sh("cat /tmp/sent")?.trim().parse()?;
    port.set_read_timeout(Some(SOON))?;
    let wanted: String = (0..sent).map(|n| format!("line {n} of the port\n")).collect();
    let mut part = [0; 4096];
    while heard.len() < wanted.len() {
        let count = port.read(&mut part)?;
        heard.extend_from_slice(part.get(..count).filter(|part| !part.is_empty()).ok_or("cut")?);
    }
    if heard != wanted.as_bytes() {
        return Err("the lines of the port are not what the guest sent".into());
    }
    // And the way back.
    port.write_all(b"an answer\n")?;
    let answer = vm.sh("head -n 1 $port")?;
    if answer != "an answer" {
        return Err(format!("the guest hears {answer:?} from its port").into());
    }
    vm.check_kernel_log()
}
