//! Guests that move with their network: over TAP interfaces of one bridge, and between two network
//! namespaces with a bad link.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;

use super::clock::{UPTIME, read, went_on_but};
use super::migrate::expect_ended;
use super::ways::{self, WAYS, Way};
use crate::rig::disk::Disk;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{BOOT, Kernel, SOON, TestVm, VmBuilder};
use crate::rig::{Result, net, thorough};
use crate::tiny::migrate::{checker, expect_sound};
use crate::tiny::pause::{size, wait_for_more};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::linux("migrate::over_a_tap", 600, over_a_tap),
        Test::linux("migrate::over_a_bad_link", 300, over_a_bad_link),
        Test::linux("migrate::over_a_link_that_is_cut", 300, over_a_cut_link),
    ]
}

/// Where the other side of the TAP interfaces is.
const HERE: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
const GUEST: &str = "10.7.0.2";

/// Datagrams that may be lost with each move: the guest says one every 50 ms.
const LOST: usize = 20;

/// Counts on a connection and in datagrams, until told to stop.
const LOAD: &str = r#"
( n=0
  until [ -e /tmp/stop ]; do echo $n; n=$((n + 1)); usleep 20000; done
  echo end ) | nc 10.7.0.1 $tcp >/dev/null 2>&1 &
syslogd -R 10.7.0.1:$udp
( n=0
  until [ -e /tmp/stop ]; do logger "n $n"; n=$((n + 1)); usleep 50000; done
  echo $n >/tmp/datagrams ) >/dev/null 2>&1 &
dd if=/dev/urandom of=/tmp/data bs=64k count=64 2>/dev/null
want=$(sha256sum </tmp/data)
( until [ -e /tmp/stop ]; do
      cp /tmp/data /tmp/copy
      [ "$(sha256sum </tmp/copy)" = "$want" ] || echo memory >>/tmp/wrong
      echo x >>/tmp/rounds
  done ) >/dev/null 2>&1 &"#;

/// What was heard of the guest.
#[derive(Clone, Default)]
struct Heard {
    inner: Arc<Mutex<Numbers>>,
}

#[derive(Default)]
struct Numbers {
    /// Lines of the connection, which count up from 0.
    lines: u64,
    /// The first line that was not as it should be; `end` among them.
    other: Option<String>,
    datagrams: BTreeSet<u64>,
}

impl Heard {
    fn with<R>(&self, look: impl FnOnce(&mut Numbers) -> R) -> R {
        look(&mut self.inner.lock())
    }

    /// Listens; gives the ports of the connection and of the datagrams.
    fn start() -> Result<(Heard, u16, u16)> {
        let heard = Heard::default();
        let listener = TcpListener::bind((HERE, 0))?;
        let socket = UdpSocket::bind((HERE, 0))?;
        let ports = (listener.local_addr()?.port(), socket.local_addr()?.port());
        let numbers = heard.clone();
        thread::spawn(move || {
            let Ok((stream, _)) = listener.accept() else { return };
            for line in BufReader::new(stream).lines() {
                let Ok(line) = line else { return };
                numbers.with(|numbers| {
                    match line == numbers.lines.to_string() {
                        true => numbers.lines += 1,
                        false => _ = numbers.other.get_or_insert(line),
                    };
                });
            }
        });
        let numbers = heard.clone();
        thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok(count) = socket.recv(&mut bytes) {
                let text = String::from_utf8_lossy(bytes.get(..count).unwrap_or_default());
                let number = text.trim_end().rsplit_once("n ").and_then(|it| it.1.parse().ok());
                if let Some(number) = number {
                    numbers.with(|numbers| numbers.datagrams.insert(number));
                }
            }
        });
        Ok((heard, ports.0, ports.1))
    }

    /// Waits until more comes on both.
    fn goes_on(&self) -> Result {
        let count = || self.with(|it| (it.lines, it.datagrams.len()));
        let (before, deadline) = (count(), Instant::now() + SOON);
        loop {
            let now = count();
            if now.0 > before.0 + 5 && now.1 > before.1 + 2 {
                return Ok(());
            }
            if let Some(other) = self.with(|it| it.other.clone()) {
                return Err(format!("{other:?} comes after line {}", now.0).into());
            }
            if Instant::now() > deadline {
                return Err(format!("nothing comes any more: {before:?}, {now:?}").into());
            }
            sleep(Duration::from_millis(20));
        }
    }
}

/// The guest moves between TAP interfaces of one bridge; its connection has no gap, its datagrams
/// go on at once, and its clocks with them. On the way it gets processors and devices.
fn over_a_tap(ctx: &Ctx) -> Result {
    net::isolate()?;
    net::bridge("br0", &format!("{HERE}/24"), &["tap0", "tap1"])?;
    let (heard, tcp, udp) = Heard::start()?;
    let disk = Disk::blank(&ctx.dir, "comes", 4 << 20)?;
    let mut machine = Machine {
        base: ctx.linux(Kernel::V6_12).memory("256").args(["-drive", &disk.drive("comes")]),
        cpus: 1,
        late: &[],
    };
    let mut vm = machine.on("tap0").start()?;
    vm.booted()?;
    super::iperf::static_address(&mut vm, &format!("{GUEST}/24"))?;
    vm.load(&["virtio_blk"])?;
    vm.wait_for(&format!("ping -c 1 -W 1 {HERE}"))?;
    vm.sh("touch /tmp/rounds")?;
    vm.sh(&format!("tcp={tcp}; udp={udp}; {LOAD}"))?;
    heard.goes_on()?;
    let moves = thorough(ways::ELSEWHERE, 20);
    for time in 0..moves {
        if time == 1 {
            vm.plug(json!({ "driver": "virtio-blk-pci", "drive": "comes", "id": "d0",
                            "serial": "comes", "addr": "0xa" }))?;
            vm.wait_for("grep -l comes /sys/block/*/serial")?;
            machine.late = &["-device", "virtio-blk-pci,drive=comes,id=d0,serial=comes,addr=0xa"];
        }
        if time > 0 && machine.cpus < 4 {
            vm.qmp.execute("cpu-add", json!({ "id": machine.cpus }))?;
            machine.cpus += 1;
            let number = machine.cpus - 1;
            let online = format!("/sys/devices/system/cpu/cpu{number}/online");
            vm.wait_for(&format!("test -e {online} && {{ echo 1 >{online}; true; }}"))?;
        }
        let way = WAYS[time % WAYS.len()];
        let tap = if time % 2 == 0 { "tap1" } else { "tap0" };
        vm = hand_over(ctx, vm, &machine, tap, way, time)
            .map_err(|error| format!("move {time} with {way:?}: {error}"))?;
        heard.goes_on().map_err(|error| format!("move {time} with {way:?}: {error}"))?;
        if machine.cpus > 1 {
            vm.sh(&format!("[ $(nproc) = {} ]", machine.cpus))?;
        }
    }
    vm.sh("grep -l comes /sys/block/*/serial && dd if=/dev/vda of=/dev/null bs=64k 2>/dev/null")?;
    vm.sh("touch /tmp/stop")?;
    let sent: u64 = vm.wait_for("cat /tmp/datagrams")?.trim().parse()?;
    let wrong = vm.sh("cat /tmp/wrong 2>/dev/null || true")?;
    if !wrong.is_empty() {
        return Err(format!("what went wrong: {wrong}").into());
    }
    vm.check_kernel_log()?;
    let deadline = Instant::now() + SOON;
    while heard.with(|it| it.other.is_none()) && Instant::now() < deadline {
        sleep(Duration::from_millis(20));
    }
    let (other, arrived) = heard.with(|it| (it.other.clone(), it.datagrams.len()));
    if other.as_deref() != Some("end") {
        return Err(format!("the connection ends with {other:?}").into());
    }
    println!("{moves} moves: {arrived} of {sent} datagrams");
    match usize::try_from(sent)?.saturating_sub(arrived) {
        lost if lost <= LOST * moves => Ok(()),
        lost => Err(format!("{lost} of {sent} datagrams are lost").into()),
    }
}

/// The machine as it is at this moment.
struct Machine {
    base: VmBuilder,
    cpus: usize,
    late: &'static [&'static str],
}

impl Machine {
    fn on(&self, tap: &str) -> VmBuilder {
        let smp = format!("{},maxcpus=4", self.cpus);
        let netdev = format!("tap,id=n0,ifname={tap},script=no,downscript=no");
        let vm = self.base.clone().args(["-smp", &smp, "-netdev", &netdev]);
        let vm = vm.args(["-device", "virtio-net-pci,netdev=n0,addr=0x8"]);
        match *self.late {
            [option, value] => vm.args([option, value]),
            _ => vm,
        }
    }
}

/// Moves the guest to a process with this interface.
fn hand_over(
    ctx: &Ctx,
    mut vm: TestVm,
    machine: &Machine,
    tap: &str,
    way: Way,
    time: usize,
) -> Result<TestVm> {
    let before = read(&mut vm, UPTIME)?;
    let (mut there, left) = ways::go(vm, machine.on(tap), way, (&ctx.dir, &format!("m{time}")))?;
    let downtime = left.info["downtime"].as_f64().ok_or("no downtime")? / 1000.0;
    drop(left);
    // The source hears a little later that it runs again.
    went_on_but("time since boot", &before, &read(&mut there, UPTIME)?, [0.0, downtime])?;
    Ok(there)
}

/// How bad the link is: 100 Mbit/s, 40 ms there and back, one packet in a hundred lost on
/// either way.
const BAD: &str = "netem rate 100mbit delay 20ms loss 1%";
const THERE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// Gives the calling thread and a new one a network each, with a link between them, and runs
/// `there` on the new thread.
fn linked<T: Send + 'static>(there: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    net::isolate()?;
    // The other end is called veth0.
    net::ip("link add near type veth")?;
    let (started, thread) = channel();
    let (linked, link) = channel::<()>();
    let (done, result) = channel::<std::result::Result<T, String>>();
    thread::spawn(move || {
        let isolated = net::isolate();
        let _ = started.send(rustix::thread::gettid());
        let run = || -> Result<T> {
            isolated?;
            link.recv()?;
            net::ip("address add 10.9.0.2/24 dev veth0")?;
            net::ip("link set veth0 up")?;
            net::tc(&format!("qdisc add dev veth0 root {BAD}"))?;
            there()
        };
        let _ = done.send(run().map_err(|error| error.to_string()));
        // A process ends with the thread that has started it.
        loop {
            thread::park();
        }
    });
    let id = thread.recv()?;
    net::ip(&format!("link set veth0 netns {}", id.as_raw_nonzero()))?;
    net::ip("address add 10.9.0.1/24 dev near")?;
    net::ip("link set near up")?;
    net::tc(&format!("qdisc add dev near root {BAD}"))?;
    linked.send(())?;
    Ok(result.recv()??)
}

/// A guest comes whole over a slow link that loses packets, whatever is switched on.
fn over_a_bad_link(ctx: &Ctx) -> Result {
    let (builder, path) = checker(ctx)?;
    let incoming = builder.clone().args(["-incoming", &format!("tcp:{THERE}:4444")]);
    let mut there = linked(move || incoming.start())?;
    let mut here = builder.start()?;
    let rounds = wait_for_more(0, || size(&path))?;
    // It writes more than the link takes: the rest goes while it stands still.
    here.qmp.execute("migrate_set_downtime", json!({ "value": 60 }))?;
    here.qmp.execute("migrate", json!({ "uri": format!("tcp:{THERE}:4444") }))?;
    let info = expect_ended(&mut here, "completed")?;
    println!("over a bad link: {info}");
    there.qmp.event("RESUME", BOOT).map_err(|error| there.process.explain(error))?;
    drop(here);
    let rounds = wait_for_more(rounds, || size(&path))?;
    wait_for_more(rounds, || size(&path))?;
    expect_sound(there, &path)
}

/// The network goes in the middle: the guest stays, and whoever waited for it gives up when told.
fn over_a_cut_link(ctx: &Ctx) -> Result {
    let (builder, path) = checker(ctx)?;
    let incoming = builder.clone().args(["-incoming", &format!("tcp:{THERE}:4444")]);
    let mut there = linked(move || incoming.start())?;
    let mut here = builder.start()?;
    let rounds = wait_for_more(0, || size(&path))?;
    here.qmp.execute("migrate_set_speed", json!({ "value": 256 << 10 }))?;
    here.qmp.execute("migrate_set_downtime", json!({ "value": 0 }))?;
    here.qmp.execute("migrate", json!({ "uri": format!("tcp:{THERE}:4444") }))?;
    let deadline = Instant::now() + SOON;
    while here.qmp.execute("query-migrate", json!({}))?["ram"]["transferred"].as_u64()
        < Some(200_000)
    {
        if Instant::now() > deadline {
            return Err("nothing is sent".into());
        }
        sleep(Duration::from_millis(20));
    }
    net::ip("link set near down")?;
    // Nobody tells either side; the guest goes on, and the user ends it.
    let rounds = wait_for_more(rounds, || size(&path))?;
    here.qmp.execute("migrate_cancel", json!({}))?;
    expect_ended(&mut here, "cancelled")?;
    let rounds = wait_for_more(rounds, || size(&path))?;
    there.qmp.execute("quit", json!({}))?;
    there.exit_code(SOON)?;
    wait_for_more(rounds, || size(&path))?;
    expect_sound(here, &path)
}
