//! Devices that come and go while a guest runs, and the tools of the Debian system in a quick one.
//!
//! Runs on the test's own thread; holds no lock.

use serde_json::{Value, json};

use super::Result;
use super::disk::Disk;
use super::registry::Ctx;
use super::vm::{Peer, SOON, TestVm, VmBuilder};

impl Ctx {
    /// Adds the Debian system as a disk to read from: [`TestVm::mount_tools`] finds it there.
    pub fn with_tools(&self, vm: VmBuilder) -> Result<VmBuilder> {
        let image = self.image.as_ref().ok_or("the test is not made with_debian")?;
        let drive = format!("if=none,id=tools,format=raw,readonly=on,file={}", image.display());
        Ok(vm.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=tools,serial=tools"]))
    }
}

impl TestVm {
    /// Mounts the disk of [`Ctx::with_tools`]: its programs run by [`tool`](Self::tool).
    pub fn mount_tools(&mut self) -> Result {
        self.load(&["virtio_blk", "af_packet"])?;
        self.wait_for("grep -l tools /sys/block/*/serial")?;
        self.sh("disk=$(grep -l tools /sys/block/*/serial | cut -d/ -f4) && \
             mount -r -t ext4 /dev/$disk /mnt && mount -o bind /dev /mnt/dev && \
             mount -t proc proc /mnt/proc && mount -t sysfs sys /mnt/sys && \
             mount -t tmpfs tmp /mnt/tmp")
            .map(drop)
    }

    /// Runs a program of the Debian system in the guest.
    pub fn tool(&mut self, line: &str) -> Result<String> {
        self.sh(&format!("PATH=/usr/sbin:/usr/bin chroot /mnt {line}"))
    }

    /// Makes the block back end `id` of a raw image, for a device that comes later.
    pub fn add_disk(&mut self, peer: &Peer, id: &str, disk: &Disk) -> Result {
        let file = json!({ "driver": "file", "filename": disk.path() });
        let arguments = match peer {
            Peer::Vmm(_) => json!({ "options": { "driver": "raw", "id": id, "file": file } }),
            Peer::Qemu(_) => json!({ "driver": "raw", "node-name": id, "file": file }),
        };
        self.qmp.execute("blockdev-add", arguments).map(drop)
    }

    /// Plugs a device in.
    pub fn plug(&mut self, device: Value) -> Result {
        self.qmp.execute("device_add", device).map(drop)
    }

    /// Asks the guest to give the devices `ids` up, and waits until it has.
    pub fn unplug(&mut self, ids: &[&str]) -> Result {
        for id in ids {
            self.qmp.execute("device_del", json!({ "id": id }))?;
        }
        let mut left = ids.to_vec();
        while !left.is_empty() {
            // The events of parts of a device name it by its path only.
            let event = self.qmp.event("DEVICE_DELETED", SOON)?;
            left.retain(|id| event["data"]["device"] != *id);
        }
        Ok(())
    }
}
