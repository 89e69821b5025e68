//! Throughput between a guest and the machine it runs on, and between two guests.

use std::net::Ipv4Addr;

use super::net::with_nic;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{Kernel, TestVm};
use crate::rig::{Result, net};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::linux("iperf::over_tap", 240, iperf_over_tap).with_debian(),
        Test::linux("iperf::between_guests", 300, iperf_between_guests).with_debian(),
    ]
}

/// Loads the driver and gives the guest's interface an address.
pub(super) fn static_address(vm: &mut TestVm, address: &str) -> Result {
    vm.load(&["virtio_net", "af_packet"])?;
    vm.wait_for("test -e /sys/class/net/eth0")?;
    vm.sh(&format!("ip address add {address} dev eth0 && ip link set eth0 up")).map(drop)
}

/// Runs the client in `vm` both ways; something must arrive.
pub(super) fn iperf(vm: &mut TestVm, server: &str) -> Result {
    for way in ["", "--reverse"] {
        let said = vm.tool(&format!("iperf3 --client {server} --time 2 --json {way}"))?;
        let report: serde_json::Value = serde_json::from_str(&said)?;
        let bits = report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or_default();
        println!("{server} {way}: {:.0} Mbit/s", bits / 1e6);
        if bits < 1e6 {
            return Err(format!("hardly anything arrives: {}", report["end"]).into());
        }
    }
    Ok(())
}

/// Between a guest and the machine it runs on.
fn iperf_over_tap(ctx: &Ctx) -> Result {
    net::isolate()?;
    net::tap("tap0", "10.7.0.1/24")?;
    let _server = net::serve_iperf(Ipv4Addr::new(10, 7, 0, 1))?;
    let vm = with_nic(ctx.linux(Kernel::V6_12), "tap,id=n0,ifname=tap0,script=no,downscript=no");
    let mut vm = ctx.with_tools(vm)?.start()?;
    vm.booted()?;
    vm.mount_tools()?;
    static_address(&mut vm, "10.7.0.2/24")?;
    vm.wait_for("ping -c 1 -W 1 10.7.0.1")?;
    iperf(&mut vm, "10.7.0.1")?;
    vm.check_kernel_log()
}

/// Between two guests, one of which listens for the other.
fn iperf_between_guests(ctx: &Ctx) -> Result {
    net::isolate()?;
    let port = net::free_port()?;
    let mut vms = Vec::new();
    for (number, way) in [(1, "listen"), (2, "connect")] {
        let netdev = format!("socket,id=n0,{way}=127.0.0.1:{port}");
        let mac = format!("virtio-net-pci,netdev=n0,mac=52:54:00:12:34:{number:02}");
        let vm = ctx.linux(Kernel::V6_12).memory("256").args(["-netdev", &netdev, "-device", &mac]);
        let mut vm = ctx.with_tools(vm)?.start()?;
        vm.booted()?;
        vm.mount_tools()?;
        static_address(&mut vm, &format!("10.7.0.{number}/24"))?;
        vms.push(vm);
    }
    let [listener, connector] = vms.as_mut_slice() else { return Err("not two guests".into()) };
    connector.wait_for("ping -c 1 -W 1 10.7.0.1")?;
    listener.tool("iperf3 --server --daemon")?;
    iperf(connector, "10.7.0.1")?;
    for vm in [listener, connector] {
        vm.check_kernel_log()?;
    }
    Ok(())
}
