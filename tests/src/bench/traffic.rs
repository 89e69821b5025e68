//! What guests do with their disks and networks, and how fast a new disk is there.
//!
//! One call is one round, as in `measure`. Throughput is what fio and iperf3 in the guest report,
//! by the guest's clock.

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use super::measure::{Place, millis};
use super::sample::{Figure, Samples, Who};
use crate::rig::disk::Disk;
use crate::rig::registry::Ctx;
use crate::rig::vm::{BOOT, Kernel, Peer, SOON, TestVm, VmBuilder};
use crate::rig::{Result, everything, net};
use crate::supply::run;

/// Bytes of the disk that is measured: more than any cache of the nested host's processor.
const DISK: u64 = 128 << 20;
/// Seconds of guest time for each job of fio and each run of iperf3.
const SECONDS: u32 = 3;
/// Disks that are plugged, one after another, in a round.
const PLUGS: usize = 5;

/// Figure, pattern, block size and depth of each job.
const JOBS: [(Figure, &str, &str, u32); 6] = [
    (Figure::DiskRead1, "randread", "4k", 1),
    (Figure::DiskRead32, "randread", "4k", 32),
    (Figure::DiskWrite1, "randwrite", "4k", 1),
    (Figure::DiskWrite32, "randwrite", "4k", 32),
    (Figure::DiskReadSequential, "read", "1M", 4),
    (Figure::DiskWriteSequential, "write", "1M", 4),
];

/// The name in the guest of the disk with this serial number.
fn found(vm: &mut TestVm, serial: &str) -> Result<String> {
    vm.sh(&format!("grep -lx {serial} /sys/block/*/serial | cut -d/ -f4"))
}

/// Requests in a second of guest time that a job of fio does on a disk.
fn fio(vm: &mut TestVm, name: &str, pattern: &str, size: &str, depth: u32) -> Result<f64> {
    let line = format!(
        "PATH=/usr/sbin:/usr/bin chroot /mnt fio --name=job --filename=/dev/{name} \
         --ioengine=libaio --direct=1 --rw={pattern} --bs={size} --iodepth={depth} --time_based \
         --runtime={SECONDS} --ramp_time=1 --norandommap --thread --gtod_reduce=1 \
         --output-format=json 2>/dev/null"
    );
    let (status, said) = vm.sh_within(&line, BOOT)?;
    let report = said.find('{').map(|at| serde_json::from_str::<Value>(&said[at..]));
    let (0, Some(Ok(report))) = (status, report) else {
        return Err(format!("fio ended with {status}: {said}").into());
    };
    let way = if pattern.ends_with("read") { "read" } else { "write" };
    Ok(report["jobs"][0][way]["iops"].as_f64().ok_or("fio tells no rate")?)
}

impl Place {
    /// A context for guests of `who`, the uncompressed kernel's pair.
    pub(super) fn ctx(&self, who: Who) -> Result<Ctx> {
        let peer = match who {
            Who::Vmm | Who::VmmPvh => Peer::Vmm(self.vmm().to_owned()),
            _ => Peer::Qemu(crate::host::image::QEMU.into()),
        };
        Ctx::new(peer, self.guests(), self.image())
    }

    /// Boots a guest with the Debian system's programs.
    fn guest(ctx: &Ctx, vm: VmBuilder) -> Result<TestVm> {
        let mut vm = ctx.with_tools(vm)?.start()?;
        vm.booted()?;
        vm.mount_tools()?;
        Ok(vm)
    }

    /// fio on a raw image, and how it does on others.
    pub(super) fn disk(&self, round: usize, samples: &mut Samples) -> Result {
        for who in Who::order(Who::PVH, round) {
            let ctx = self.ctx(who)?;
            let disk = Disk::patterned(&ctx.dir, "measured", DISK, 1)?;
            let drive = disk.drive("measured");
            let vm = ctx.linux(Kernel::V6_12).args(["-drive", &drive, "-device"]);
            let vm = vm.args(["virtio-blk-pci,drive=measured,serial=measured"]);
            let mut vm = Self::guest(&ctx, vm)?;
            let name = found(&mut vm, "measured")?;
            for (figure, pattern, size, depth) in JOBS {
                samples.push(figure, who, fio(&mut vm, &name, pattern, size, depth)?);
            }
        }
        self.formats(samples)
    }

    /// fio on an image in which every cluster is there, as a part of what it does on a raw one.
    fn formats(&self, samples: &mut Samples) -> Result {
        let who = Who::VmmPvh;
        let ctx = self.ctx(who)?;
        let raw = Disk::patterned(&ctx.dir, "raw", DISK, 1)?;
        let qcow2 = ctx.dir.join("qcow2");
        let mut convert = Command::new("/usr/bin/qemu-img");
        convert.args(["convert", "-f", "raw", "-O", "qcow2"]).arg(raw.path()).arg(&qcow2);
        run(&mut convert)?;
        let other = format!("if=none,id=qcow2,format=qcow2,file={}", qcow2.display());
        let vm = ctx.linux(Kernel::V6_12).args(["-drive", &raw.drive("raw"), "-drive", &other]);
        let vm = vm.args(["-device", "virtio-blk-pci,drive=raw,serial=is-raw"]);
        let vm = vm.args(["-device", "virtio-blk-pci,drive=qcow2,serial=is-qcow2"]);
        let mut vm = Self::guest(&ctx, vm)?;
        let (raw, qcow2) = (found(&mut vm, "is-raw")?, found(&mut vm, "is-qcow2")?);
        for (figure, pattern) in
            [(Figure::FormatRead, "randread"), (Figure::FormatWrite, "randwrite")]
        {
            let [on_raw, on_qcow2] =
                [raw.as_str(), qcow2.as_str()].map(|name| fio(&mut vm, name, pattern, "4k", 32));
            samples.push(figure, who, on_qcow2? / on_raw?);
        }
        Ok(())
    }

    /// iperf3 over a TAP interface and through the user-mode network.
    pub(super) fn network(&self, round: usize, samples: &mut Samples) -> Result {
        net::isolate()?;
        net::tap("tap0", "10.7.0.1/24")?;
        let _servers =
            [net::serve_iperf(Ipv4Addr::new(10, 7, 0, 1))?, net::serve_iperf(Ipv4Addr::LOCALHOST)?];
        for who in Who::order(Who::PVH, round) {
            let ctx = self.ctx(who)?;
            let vm = ctx.linux(Kernel::V6_12);
            let vm = vm.args(["-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no"]);
            let vm = vm.args(["-device", "virtio-net-pci,netdev=n0,addr=0x8"]);
            let vm = vm.args(["-netdev", "user,id=n1"]);
            let vm = vm.args(["-device", "virtio-net-pci,netdev=n1,addr=0x9"]);
            let mut vm = Self::guest(&ctx, vm)?;
            vm.load(&["virtio_net", "af_packet"])?;
            for (card, address) in [("eth0", "10.7.0.2/24"), ("eth1", "10.0.2.15/24")] {
                vm.wait_for(&format!("test -e /sys/class/net/{card}"))?;
                vm.sh(&format!("ip address add {address} dev {card} && ip link set {card} up"))?;
            }
            for (server, send, receive) in [
                ("10.7.0.1", Figure::TapSend, Figure::TapReceive),
                ("10.0.2.2", Figure::UserSend, Figure::UserReceive),
            ] {
                vm.wait_for(&format!("ping -c 1 -W 1 {server}"))?;
                for (figure, way) in [(send, ""), (receive, "--reverse")] {
                    let line =
                        format!("iperf3 --client {server} --time {SECONDS} --omit 1 --json {way}");
                    let report: Value = serde_json::from_str(&vm.tool(&line)?)?;
                    let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
                    samples.push(figure, who, rate.ok_or("iperf3 tells no rate")? / 1e6);
                }
            }
        }
        Ok(())
    }

    /// From device_add to the block device in the guest.
    pub(super) fn hotplug(&self, round: usize, samples: &mut Samples) -> Result {
        for who in Who::order(Who::PVH, round) {
            let ctx = self.ctx(who)?;
            let disk = Disk::blank(&ctx.dir, "comes", 1 << 20)?;
            let mut vm = ctx.linux(Kernel::V6_12).start()?;
            vm.booted()?;
            vm.load(&["virtio_blk"])?;
            vm.add_disk(&ctx.peer, "comes", &disk)?;
            // The first one finds nothing in the guest's caches.
            for plug in 0..=PLUGS {
                let see = "until [ -b /dev/vda ]; do usleep 2000; done; echo se''en\n";
                vm.console.type_text(see)?;
                let start = Instant::now();
                let device = json!({ "driver": "virtio-blk-pci", "id": "d0", "drive": "comes" });
                vm.plug(device)?;
                vm.console.expect("seen\n", SOON)?;
                if plug > 0 {
                    samples.push(Figure::Hotplug, who, millis(start.elapsed()));
                }
                vm.unplug(&["d0"])?;
                vm.wait_for("[ ! -b /dev/vda ]")?;
            }
        }
        Ok(())
    }

    /// From exec to the guest's shell with every device there is, beside the same without.
    pub(super) fn devices(&self, round: usize, samples: &mut Samples) -> Result {
        for who in Who::order(Who::PVH, round) {
            let mut times = Vec::new();
            for with in [false, true] {
                let ctx = self.ctx(who)?;
                File::create(ctx.dir.join("empty"))?;
                let mut vm = ctx.linux(Kernel::V6_12);
                if with {
                    vm = everything::add(&ctx, vm)?;
                }
                let start = Instant::now();
                let mut vm = vm.start()?;
                vm.booted()?;
                times.push(millis(start.elapsed()));
            }
            samples.push(Figure::BootBare, who, times[0]);
            samples.push(Figure::BootDevices, who, times[1]);
            samples.push(Figure::BootPart, who, times[1] / times[0]);
        }
        Ok(())
    }
}
