//! Frames that the kernel of the machine below moves between its tap and the guest's rings.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use devices::net::{Hubs, Means, OpenError, parse_netdev};
use devices::virtio::feature;
use devices::virtio::queue::Layout;
use resources::iol::Thread;
use resources::ram::{PAGE, Ram, RamConfig};
use serde_json::json;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

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
        Test::linux("vhost::writes_are_recorded", 60, writes_are_recorded),
    ]
}

/// Where a ring is that the kernel serves without a guest, and its buffers, each in a page.
const RING: Layout = Layout { size: 128, desc: 0x1000, driver: 0x2000, device: 0x3000 };
const BUFFERS: u64 = 0x10_0000;

/// RAM with that ring, all of whose buffers are free.
fn ram_with_ring() -> Result<Ram> {
    let ram = Ram::new(&RamConfig { size: 4 << 20, ..RamConfig::default() })?;
    let block = &ram.ranges()[0].block;
    block.write(RING.driver + 2, &RING.size.to_le_bytes());
    for n in 0..u64::from(RING.size) {
        block.write(RING.desc + 16 * n, &(BUFFERS + PAGE * n).to_le_bytes());
        // 2 KiB for the device to write.
        block.write(RING.desc + 16 * n + 8, &[0, 8, 0, 0, 2, 0, 0, 0]);
        block.write(RING.driver + 4 + 2 * n, &(n as u16).to_le_bytes());
    }
    block.region().bitmap().reset();
    Ok(ram)
}

/// The kernel notes the pages that it writes, those of frames and of the ring and no others, while
/// it is asked to.
fn writes_are_recorded(_: &Ctx) -> Result {
    net::isolate()?;
    let options = "type=tap,id=n0,ifname=tap0,script=no,downscript=no,vhost=on,vhostfd=mine";
    let pairs: Vec<_> = options.split(',').filter_map(|pair| pair.split_once('=')).collect();
    let (id, options) = parse_netdev(&pairs)?;
    let (_thread, on) = Thread::spawn("io")?;
    // As a client passes it.
    let take_fd = &mut |_: &str| {
        let opened = File::options().read(true).write(true).open("/dev/vhost-net");
        opened.map(OwnedFd::from).map_err(|error| OpenError::Host(error.to_string()))
    };
    let netdev = options.open(
        &id,
        false,
        Means { on: &on, hubs: &Hubs::default(), take_fd, chardevs: None },
    )?;
    let kernel = netdev.backend().kernel(0).ok_or("the tap has no vhost")?;
    let ram = ram_with_ring()?;
    let (memory, block) = (Arc::new(ram.memory().clone()), &ram.ranges()[0].block);
    let kick = EventFd::new(EFD_NONBLOCK)?;
    let vhost = &kernel.vhost;
    vhost.set_features(feature::VERSION_1)?;
    vhost.set_memory(&memory)?;
    vhost.set_ring(0, &RING, 0)?;
    vhost.set_kick(0, Some(&kick))?;
    vhost.set_tap(0, Some(kernel.tap.as_fd()))?;
    net::ip("address add 10.9.0.1/24 dev tap0")?;
    net::ip("link set tap0 up")?;
    let used = || {
        let mut index = [0; 2];
        block.read(RING.device + 2, &mut index);
        u16::from_le_bytes(index)
    };
    // Nobody answers: the host asks for a neighbour, over and over. Returns the first buffer used.
    let frame = || -> Result<u64> {
        let before = used();
        let mut ping = Command::new(busybox()?)
            .args(["ping", "-c", "1", "-W", "1", "10.9.0.2"])
            .stdout(Stdio::null())
            .spawn()?;
        let deadline = Instant::now() + SOON;
        while used() == before {
            if Instant::now() > deadline {
                return Err("the kernel does not serve the ring".into());
            }
            pause(10);
        }
        let _ = ping.wait();
        Ok(BUFFERS + PAGE * u64::from(before))
    };
    let dirty = |address: u64| block.region().bitmap().is_addr_set(address as usize);
    let all = || (0..1024).map(|page| page * PAGE).filter(|page| dirty(*page)).collect::<Vec<_>>();
    frame()?;
    vhost.harvest(&memory);
    if !all().is_empty() {
        return Err(format!("pages are dirty that nobody asked for: {:x?}", all()).into());
    }
    vhost.set_log(&memory, true)?;
    let buffer = frame()?;
    vhost.harvest(&memory);
    let noted = all();
    let in_ring =
        |page: &u64| *page == RING.device || (BUFFERS..BUFFERS + 128 * PAGE).contains(page);
    if !noted.contains(&buffer) || !noted.contains(&RING.device) || !noted.iter().all(in_ring) {
        return Err(format!("a frame in {buffer:#x} makes these pages dirty: {noted:x?}").into());
    }
    vhost.set_log(&memory, false)?;
    block.region().bitmap().reset();
    frame()?;
    vhost.harvest(&memory);
    if !all().is_empty() {
        return Err(format!("pages are dirty after the end: {:x?}", all()).into());
    }
    vhost.set_tap(0, None)?;
    Ok(())
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
