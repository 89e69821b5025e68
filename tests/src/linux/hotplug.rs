//! Devices and processors that come and go while the guest works.

use std::time::Duration;

use serde_json::json;

use crate::rig::Result;
use crate::rig::disk::Disk;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{Kernel, Peer, TestVm};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::linux("hotplug::fifty_rounds_under_load", 900, fifty_rounds),
        Test::linux("hotplug::cpus", 240, cpus),
        Test::linux("hotplug::behind_bridges", 300, behind_bridges),
        Test::linux("hotplug::behind_a_bridge_that_came", 300, behind_a_bridge_that_came),
    ]
}

const ROUNDS: u32 = 50;

/// Reads the disk that stays over and over, and whatever other disk is there, until told to stop.
/// The disk that stays must not change; reading the other one may fail at any moment.
const LOAD: &str = r#"
want=$(sha256sum </dev/vda)
( until [ -e /tmp/stop ]; do
      [ "$(sha256sum </dev/vda)" = "$want" ] || echo changed >>/tmp/wrong
      echo 3 >/proc/sys/vm/drop_caches
      echo x >>/tmp/rounds
      sleep 0.3
  done ) >/dev/null 2>&1 &
( until [ -e /tmp/stop ]; do
      dd if=/dev/vdb of=/dev/null bs=16k iflag=direct; sleep 0.2
  done ) >/dev/null 2>&1 &
( until [ -e /tmp/stop ]; do
      ping -c 20 -i 0.1 -W 1 10.0.2.2 || sleep 0.1
  done ) >/dev/null 2>&1 &"#;

/// A disk and a network card, plugged, used and unplugged while both are busy.
fn fifty_rounds(ctx: &Ctx) -> Result {
    crate::rig::net::isolate()?;
    let stays = Disk::patterned(&ctx.dir, "stays", 512 << 10, 1)?;
    let comes = Disk::patterned(&ctx.dir, "comes", 1 << 20, 2)?;
    let (drive, sum) = (stays.drive("stays"), comes.sha256()?);
    let mut vm = ctx
        .linux(Kernel::V6_12)
        .args(["-drive", &drive, "-device", "virtio-blk-pci,drive=stays"])
        .args(["-netdev", "user,id=n0"])
        .start()?;
    vm.booted()?;
    vm.load(&["virtio_blk", "virtio_net", "af_packet"])?;
    vm.add_disk(&ctx.peer, "comes", &comes)?;
    vm.sh(LOAD)?;
    for round in 0..ROUNDS {
        let slots = |count: u32| 8 + (round * 2 + count) % 20;
        vm.plug(json!({
            "driver": "virtio-blk-pci", "id": "disk", "drive": "comes",
            "addr": format!("{:#x}", slots(0)),
        }))?;
        vm.plug(json!({
            "driver": "virtio-net-pci", "id": "card", "netdev": "n0",
            "addr": format!("{:#x}", slots(1)),
        }))?;
        vm.wait_for("test -b /dev/vdb && test -e /sys/class/net/eth0")?;
        vm.sh("ip address add 10.0.2.15/24 dev eth0 && ip link set eth0 up && \
             ping -c 3 -i 0.1 -W 5 10.0.2.2")?;
        let read = vm.sha256("/dev/vdb")?;
        if read != sum {
            return Err(format!("in round {round} the disk has {read}, not {sum}").into());
        }
        vm.unplug(&["disk", "card"])?;
        let left = vm.sh("ls -d /dev/vdb /sys/class/net/eth0 2>/dev/null || true")?;
        if !left.is_empty() {
            return Err(format!("after round {round} the guest still has {left}").into());
        }
    }
    let (status, said) =
        vm.sh_within("touch /tmp/stop; wait; cat /tmp/wrong", Duration::from_secs(60))?;
    if status == 0 {
        return Err(format!("the disk that stayed changed: {said}").into());
    }
    vm.sh("test -s /tmp/rounds")?;
    vm.check_kernel_log()
}

/// A disk behind a bridge and a network card behind the next one, with the machine saved and
/// loaded in between; what is behind the bridges when the guest is reset stays there.
fn behind_bridges(ctx: &Ctx) -> Result {
    crate::rig::net::isolate()?;
    let comes = Disk::patterned(&ctx.dir, "comes", 1 << 20, 2)?;
    let sum = comes.sha256()?;
    let mut vm = ctx
        .linux(Kernel::V6_12)
        .args(["-device", "pci-bridge,id=near,chassis_nr=1,addr=5"])
        .args(["-device", "pci-bridge,id=far,chassis_nr=2,bus=near,addr=3"])
        .args(["-netdev", "user,id=n0"])
        .start()?;
    vm.booted()?;
    vm.load(&["virtio_blk", "virtio_net", "af_packet"])?;
    vm.add_disk(&ctx.peer, "comes", &comes)?;
    for round in 0..5 {
        vm.plug(json!({
            "driver": "virtio-blk-pci", "id": "disk", "drive": "comes",
            "bus": "near", "addr": format!("{:#x}", 8 + round),
        }))?;
        vm.plug(json!({
            "driver": "virtio-net-pci", "id": "card", "netdev": "n0",
            "bus": "far", "addr": format!("{:#x}", 1 + round),
        }))?;
        vm.wait_for("test -b /dev/vda && test -e /sys/class/net/eth0")?;
        if let Peer::Vmm(_) = ctx.peer {
            vm.qmp.execute("x-pulse-save-restore", json!({}))?;
        }
        vm.sh("ip address add 10.0.2.15/24 dev eth0 && ip link set eth0 up && \
             ping -c 3 -i 0.1 -W 5 10.0.2.2")?;
        let read = vm.sha256("/dev/vda")?;
        if read != sum {
            return Err(format!("in round {round} the disk has {read}, not {sum}").into());
        }
        vm.unplug(&["disk", "card"])?;
        let left = vm.sh("ls -d /dev/vda /sys/class/net/eth0 2>/dev/null || true")?;
        if !left.is_empty() {
            return Err(format!("after round {round} the guest still has {left}").into());
        }
    }
    vm.check_kernel_log()
}

/// Once the guest was reset, it takes a disk behind a bridge that came while it ran.
fn behind_a_bridge_that_came(ctx: &Ctx) -> Result {
    let comes = Disk::patterned(&ctx.dir, "comes", 1 << 20, 2)?;
    let mut vm = ctx.linux(Kernel::V6_12).start()?;
    vm.booted()?;
    vm.add_disk(&ctx.peer, "comes", &comes)?;
    vm.plug(json!({"driver": "pci-bridge", "id": "late", "chassis_nr": 1, "addr": "0x6"}))?;
    vm.wait_for("grep -l 0x060400 /sys/bus/pci/devices/*/class")?;
    let disk = json!({"driver": "virtio-blk-pci", "id": "disk", "drive": "comes", "bus": "late", "addr": "0x9"});
    match vm.plug(disk.clone()) {
        Err(error) if error.to_string().contains("Bus 'late' does not support hotplugging") => {}
        other => return Err(format!("a disk that the guest does not hear of: {other:?}").into()),
    }
    vm.qmp.execute("system_reset", json!({}))?;
    vm.booted()?;
    vm.load(&["virtio_blk"])?;
    vm.plug(disk)?;
    vm.wait_for("test -b /dev/vda")?;
    if vm.sha256("/dev/vda")? != comes.sha256()? {
        return Err("the guest reads something else".into());
    }
    vm.unplug(&["disk"])?;
    vm.check_kernel_log()
}

/// The guest takes processors that are added, up to the most there can be, and computes on them.
fn cpus(ctx: &Ctx) -> Result {
    let mut vm = ctx.linux(Kernel::V6_12).args(["-smp", "1,maxcpus=4"]).start()?;
    vm.booted()?;
    for id in 1..4 {
        add_cpu(&mut vm, &ctx.peer, id)?;
        // The kernel has found it; whether it is used at once is the distribution's choice.
        let sys = format!("/sys/devices/system/cpu/cpu{id}");
        vm.wait_for(&format!(
            "test -e {sys} && ( grep -q 1 {sys}/online || echo 1 >{sys}/online )"
        ))?;
    }
    vm.sh("[ $(nproc) = 4 ]")?;
    vm.sh(
        "for cpu in 0 1 2 3; do ( taskset -c $cpu sha256sum /bin/busybox >/tmp/sum$cpu ) & done; \
         wait; cat /tmp/sum? | sort -u | wc -l | grep -qx 1",
    )?;
    vm.check_kernel_log()
}

fn add_cpu(vm: &mut TestVm, peer: &Peer, id: u32) -> Result {
    match peer {
        Peer::Vmm(_) => vm.qmp.execute("cpu-add", json!({ "id": id })).map(drop),
        // It has lost that command since.
        Peer::Qemu(_) => vm.plug(json!({
            "driver": "host-x86_64-cpu", "socket-id": id, "core-id": 0, "thread-id": 0,
        })),
    }
}
