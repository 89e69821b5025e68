//! A Debian 12 system on a disk image: systemd, udev, the tools that measure disks and networks,
//! and the modules of the kernel it is booted with.
//!
//! Made once by mmdebstrap, which needs root (or sudo) and a mirror; mke2fs fills the image, so no
//! file system is mounted for it.

use std::fs;
use std::path::{Path, PathBuf};

use super::cache::{Item, item};
use super::kernel::Files;
use super::{apt, run};
use crate::rig::Result;

const SUITE: &str = "bookworm";
const SETUP: &str = include_str!("debian-setup.sh");

/// What is there beside the packages that are essential.
const PACKAGES: [&str; 13] = [
    "curl",
    "dbus",
    "e2fsprogs",
    "fio",
    "iperf3",
    "iproute2",
    "iputils-ping",
    "kmod",
    "pciutils",
    "systemd-resolved",
    "systemd-sysv",
    "tcpdump",
    "udev",
];

/// What people read and no test does.
const LEFT_OUT: [&str; 4] =
    ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/zoneinfo/*"];

/// Room for what a test writes, in MiB.
const ROOM: u64 = 96;

/// The image.
pub struct Debian {
    item: Item,
}

impl Debian {
    /// Makes the image if there is none.
    pub fn get(cache: &Path, kernel: &Files) -> Result<Self> {
        let key = format!("{SUITE}{PACKAGES:?}{LEFT_OUT:?}{ROOM}{SETUP}{}", kernel.key());
        let item = item(cache, "debian", key, "making a Debian system", |dir| {
            let root = dir.join("root");
            let setup = dir.join("setup.sh");
            fs::write(&setup, SETUP)?;
            let modules = kernel.all_modules();
            let hook =
                format!("--customize-hook=sh '{}' \"$1\" '{}'", setup.display(), modules.display());
            let include = format!("--include={}", PACKAGES.join(","));
            let excludes = LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}"));
            let mut words = vec!["mmdebstrap", "--quiet", "--variant=minbase"];
            words.extend([include.as_str(), hook.as_str()]);
            words.extend(excludes.iter().map(String::as_str));
            words.push(SUITE);
            run(apt::as_root(&words).arg(&root))?;

            let used = run(apt::as_root(&["du", "-sm", "--apparent-size"]).arg(&root))?;
            let used = String::from_utf8_lossy(&used).into_owned();
            let used: u64 = used.split_whitespace().next().ok_or("no size")?.parse()?;
            let image = dir.join("image");
            fs::File::create(&image)?.set_len((used * 5 / 4 + ROOM) << 20)?;
            let words = ["/sbin/mke2fs", "-q", "-t", "ext4", "-L", "debian", "-m", "0", "-d"];
            run(apt::as_root(&words).arg(&root).arg(&image))?;
            run(apt::as_root(&["rm", "-rf"]).arg(&root))?;
            Ok(())
        })?;
        Ok(Self { item })
    }

    /// The file with the file system: no partitions, nothing before it.
    pub fn image(&self) -> PathBuf {
        self.item.path().join("image")
    }
}
