//! Frames that the kernel of the machine below moves between its tap and the guest's rings.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use super::iperf::{iperf, static_address};
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{Kernel, SOON, TestVm};
use crate::rig::{Result, net};
use crate::supply::guests::busybox;

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::linux("vhost::iperf_over_tap", 300, |ctx| with_card(ctx, "", "")).with_debian(),
        Test::linux("vhost::without_messages", 300, |ctx| with_card(ctx, "", ",vectors=0"))
            .with_debian(),
        Test::linux("vhost::two_queues", 300, |ctx| with_card(ctx, ",queues=2", ",mq=on"))
            .with_debian(),
    ]
}

const HOST: &str = "10.7.0.1";
const GUEST: &str = "10.7.0.2";

/// Pings the guest while something is done to it; every answer must come.
fn no_ping_lost(meanwhile: impl FnOnce() -> Result) -> Result {
    let child = Command::new(busybox()?)
        .args(["ping", "-c", "200", "-i", "0.02", "-W", "20", GUEST])
        .stdout(Stdio::piped())
        .spawn()?;
    meanwhile()?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !said.contains("200 packets transmitted, 200 packets received") {
        return Err(format!("of the pings some are lost: {said}").into());
    }
    Ok(())
}

fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// Both ways, while the machine is stopped, saved and loaded, and with its link down and up.
fn with_card(ctx: &Ctx, netdev: &str, card: &str) -> Result {
    net::isolate()?;
    // Forced: if the kernel did not do it, nobody would.
    let netdev =
        format!("tap,id=n0,ifname=tap0,script=no,downscript=no,vhost=on,vhostforce=on{netdev}");
    let card = format!("virtio-net-pci,netdev=n0{card}");
    let vm = ctx.linux(Kernel::V6_12).cpus(2).args(["-netdev", &netdev, "-device", &card]);
    let mut vm = ctx.with_tools(vm)?.start()?;
    net::ip(&format!("address add {HOST}/24 dev tap0"))?;
    net::ip("link set tap0 up")?;
    let _server = net::serve_iperf(Ipv4Addr::new(10, 7, 0, 1))?;
    vm.booted()?;
    vm.mount_tools()?;
    static_address(&mut vm, &format!("{GUEST}/24"))?;
    vm.wait_for(&format!("ping -c 1 -W 1 {HOST}"))?;
    iperf(&mut vm, HOST)?;
    let command = |vm: &mut TestVm, name: &str| vm.qmp.execute(name, json!({})).map(drop);
    no_ping_lost(|| {
        for _ in 0..10 {
            command(&mut vm, "stop")?;
            pause(50);
            command(&mut vm, "cont")?;
            pause(100);
        }
        Ok(())
    })?;
    no_ping_lost(|| {
        for _ in 0..10 {
            command(&mut vm, "x-pulse-save-restore")?;
            pause(150);
        }
        Ok(())
    })?;
    for up in [false, true] {
        vm.qmp.execute("set_link", json!({ "name": "n0", "up": up }))?;
        if up {
            vm.wait_for(&format!("ping -c 1 -W 1 {HOST}"))?;
        } else if vm.sh_within(&format!("ping -c 1 -W 2 {HOST}"), SOON)?.0 == 0 {
            return Err("a ping comes back over a link that is down".into());
        }
    }
    // The interface is down and up again: the guest resets the card.
    vm.sh("ip link set eth0 down && ip link set eth0 up")?;
    vm.wait_for(&format!("ping -c 1 -W 1 {HOST}"))?;
    no_ping_lost(|| Ok(()))?;
    vm.check_kernel_log()
}
