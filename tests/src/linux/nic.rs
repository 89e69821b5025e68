//! The network card itself: what it filters, how it is saved, its queues and its MTU.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{Kernel, SOON, TestVm};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::linux("nic::pulses_under_traffic_6.12", 300, |ctx| pulses(ctx, Kernel::V6_12)),
        Test::linux("nic::pulses_under_traffic_6.1", 300, |ctx| pulses(ctx, Kernel::V6_1)),
        Test::linux("nic::receive_filter", 180, receive_filter),
        Test::linux("nic::segmentation_off_and_on", 180, offloads),
    ]
}

const CARD: &str = "virtio-net-pci,netdev=n0,id=card,host_mtu=1400";

/// Starts a guest with the card on a network of its own and an address there.
fn start(ctx: &Ctx, kernel: Kernel) -> Result<TestVm> {
    let args = ["-netdev", "user,id=n0", "-device", CARD];
    let mut vm = ctx.linux(kernel).cpus(2).args(args).start()?;
    vm.booted()?;
    vm.load(&["virtio_net", "af_packet", "8021q"])?;
    vm.wait_for("test -e /sys/class/net/eth0")?;
    vm.sh("udhcpc -i eth0 -n -q 2>&1")?;
    Ok(vm)
}

/// A server that sends everything back that a client has sent, once that is all; gives the port.
pub(super) fn serve_back() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            thread::spawn(move || {
                let mut all = Vec::new();
                // A client that is gone has had enough.
                let _ = stream.read_to_end(&mut all).and_then(|_| stream.write_all(&all));
            });
        }
    });
    Ok(port)
}

const PULSES: u32 = 20;

/// Sends data away and compares what comes back, until told to stop.
const LOAD: &str = r#"
dd if=/dev/urandom of=/tmp/data bs=1M count=4 2>/dev/null
want=$(sha256sum </tmp/data)
echo 0 >/tmp/rounds
( rounds=0
  until [ -e /tmp/stop ]; do
      got=$(nc 10.0.2.2 $port </tmp/data | sha256sum)
      [ "$got" = "$want" ] || echo "round $rounds: $got" >>/tmp/wrong
      rounds=$((rounds + 1))
      echo $rounds >/tmp/new
      mv /tmp/new /tmp/rounds
  done ) >/dev/null 2>&1 &"#;

/// Streams in both directions do not notice that the machine is saved and loaded.
fn pulses(ctx: &Ctx, kernel: Kernel) -> Result {
    let port = serve_back()?;
    let mut vm = start(ctx, kernel)?;
    vm.sh(&format!("port={port}\n{LOAD}"))?;
    for number in 0..PULSES {
        vm.qmp.execute("x-pulse-save-restore", json!({}))?;
        if number % 5 == 4 {
            vm.sh("rounds=$(cat /tmp/rounds); until [ $(cat /tmp/rounds) -gt $rounds ]; do sleep 0.05; done")?;
        }
    }
    vm.sh_within("touch /tmp/stop; wait", Duration::from_secs(120))?;
    let wrong = vm.sh("cat /tmp/wrong 2>/dev/null || true")?;
    if !wrong.is_empty() {
        return Err(format!("other data came back: {wrong}").into());
    }
    if vm.sh("cat /sys/class/net/eth0/mtu")? != "1400" {
        return Err("the guest has another MTU".into());
    }
    vm.check_kernel_log()
}

/// Waits until the filter is as `wanted`; each change is told once.
fn filter(vm: &mut TestVm, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let event = vm.qmp.event("NIC_RX_FILTER_CHANGED", SOON)?;
    let path = "/machine/peripheral/card/virtio-backend";
    if event["data"] != json!({ "name": "card", "path": path }) {
        return Err(format!("the event is {event}").into());
    }
    loop {
        let found = vm.qmp.execute("query-rx-filter", json!({ "name": "card" }))?;
        if wanted(&found[0]) {
            return Ok(found[0].clone());
        }
        // It is told of the next change.
        vm.qmp.event("NIC_RX_FILTER_CHANGED", SOON).map_err(|_| format!("it stays {found}"))?;
    }
}

/// What the guest wants to receive is what clients see.
fn receive_filter(ctx: &Ctx) -> Result {
    let mut vm = start(ctx, Kernel::V6_12)?;
    filter(&mut vm, |info| {
        info["promiscuous"] == false && info["main-mac"] == "52:54:00:12:34:56"
    })?;
    vm.sh("ip link set eth0 promisc on")?;
    filter(&mut vm, |info| info["promiscuous"] == true)?;
    vm.sh("ip link set eth0 promisc off; ifconfig eth0 allmulti")?;
    filter(&mut vm, |info| info["promiscuous"] == false && info["multicast"] == "all")?;
    vm.sh("ip link add link eth0 name eth0.31 type vlan id 31 && ip link set eth0.31 up")?;
    filter(&mut vm, |info| info["vlan-table"].as_array().is_some_and(|t| t.contains(&json!(31))))?;
    vm.sh("ip link set eth0 address 52:54:00:00:00:77")?;
    filter(&mut vm, |info| info["main-mac"] == "52:54:00:00:00:77")?;
    vm.sh("ping -c 1 -W 5 10.0.2.2")?;
    vm.check_kernel_log()
}

/// The guest lets the card cut its frames, and cuts them itself.
fn offloads(ctx: &Ctx) -> Result {
    let port = serve_back()?;
    for off in ["", ",csum=off,gso=off,mrg_rxbuf=off,ctrl_vq=off,indirect_desc=off,event_idx=off"] {
        let card = format!("{CARD}{off}");
        let args = ["-netdev", "user,id=n0", "-device", &card];
        let mut vm = ctx.linux(Kernel::V6_12).args(args).start()?;
        vm.booted()?;
        vm.load(&["virtio_net", "af_packet"])?;
        vm.wait_for("test -e /sys/class/net/eth0")?;
        vm.sh("udhcpc -i eth0 -n -q 2>&1")?;
        let there_and_back = format!(
            "dd if=/dev/urandom of=/tmp/data bs=1M count=4 2>/dev/null
             nc 10.0.2.2 {port} </tmp/data >/tmp/back && cmp /tmp/data /tmp/back"
        );
        let (status, said) = vm.sh_within(&there_and_back, Duration::from_secs(60))?;
        if status != 0 {
            return Err(format!("other data came back: {said}").into());
        }
        vm.check_kernel_log()?;
    }
    Ok(())
}
