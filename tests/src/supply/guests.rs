//! The files Linux guests boot from: for each kernel its two images and an initrd with a shell.

use std::fs;
use std::path::{Path, PathBuf};

use super::cache::{Item, file_key, item};
use super::cpio::Archive;
use super::kernel::Files;
use crate::rig::Result;
use crate::rig::vm::Kernel;

/// The scripts of the initrd and their places in it.
const SCRIPTS: [(&str, &str); 3] = [
    ("init", include_str!("guest-init.sh")),
    ("bin/load", include_str!("guest-load.sh")),
    ("etc/udhcpc/default.script", include_str!("guest-dhcp.sh")),
];

/// Modules of the initrd. The first two, the power button and the input events it sends, are
/// loaded by init, the others by whoever tests their devices. A kernel may have some built in, and
/// some not at all.
pub const MODULES: [&str; 23] = [
    "button",
    "evdev",
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_scsi",
    "sd_mod",
    "sr_mod",
    "isofs",
    "virtio_rng",
    "virtio_balloon",
    "virtio_console",
    "vmw_vsock_virtio_transport",
    "i6300esb",
    "pvpanic_pci",
    "pvpanic_mmio",
    "vmgenid",
    "qemu_fw_cfg",
    "bridge",
    "8021q",
    "overlay",
    "af_packet",
    "tun",
];

/// The static busybox of the distribution.
pub fn busybox() -> Result<PathBuf> {
    ["/usr/bin/busybox", "/bin/busybox"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists())
        .ok_or_else(|| "busybox-static has no busybox".into())
}

/// Makes `<kernel>/{bzImage,vmlinux,initrd}` for every kernel.
pub fn get(cache: &Path, kernels: &[(Kernel, Files)]) -> Result<Item> {
    let busybox = busybox()?;
    let mut key = format!("{}{SCRIPTS:?}{MODULES:?}\n", file_key(&busybox)?);
    key.extend(kernels.iter().map(|(_, files)| files.key()));
    item(cache, "guests", key, "making the guests' initrds", |dir| {
        for (kernel, files) in kernels {
            let dir = dir.join(kernel.name());
            fs::create_dir(&dir)?;
            fs::copy(files.bz_image(), dir.join("bzImage"))?;
            fs::copy(files.vmlinux(), dir.join("vmlinux"))?;
            fs::write(dir.join("initrd"), initrd(&busybox, files)?)?;
        }
        Ok(())
    })
}

fn initrd(busybox: &Path, kernel: &Files) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for dir in ["bin", "dev", "etc", "etc/udhcpc", "mnt", "modules", "proc", "sys", "tmp"] {
        archive.dir(dir);
    }
    archive.char_device("dev/console", 5, 1);
    for (name, text) in SCRIPTS {
        archive.file(name, 0o755, text.as_bytes());
    }
    archive.file("bin/busybox", 0o755, &fs::read(busybox)?);
    for module in kernel.modules(&MODULES)? {
        archive.file(&format!("modules/{}.ko", module.name), 0o644, &module.data);
        // What `load` reads.
        let needs = format!("{}\n", module.needs.join(" "));
        archive.file(&format!("modules/{}.needs", module.name), 0o644, needs.as_bytes());
    }
    Ok(archive.finish())
}
