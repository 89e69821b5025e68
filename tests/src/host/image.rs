//! What a nested host boots from and mounts: its initramfs and the two disk images.
//!
//! The base image (QEMU, a debugger, the guests' files, libraries) is mounted before the snapshot and made
//! rarely. The run image (the programs under test) is made for every run, at a fixed size, because
//! a restored host already knows the size of its disks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::nested::checksum;
use crate::rig::Result;
use crate::rig::gdb::GDB;
use crate::rig::vm::Peer;
use crate::supply::apt;
use crate::supply::cache::{Item, file_key, item};
use crate::supply::cpio::Archive;
use crate::supply::guests::busybox;
use crate::supply::kernel::Files;
use crate::supply::tree;
use crate::workspace::{NBD, THIS_PROGRAM};

/// The distribution's QEMU: it is the nested host, and a peer to compare with inside of it.
pub const QEMU: &str = "/usr/bin/qemu-system-x86_64";

const INIT: &str = include_str!("nested-init.sh");
const RUN_IMAGE_SIZE: u64 = 256 << 20;

/// Programs that tests call beside QEMU; all have their places on the machine that runs the tests.
const PROGRAMS: [&str; 8] = [
    QEMU,
    "/sbin/e2fsck",
    "/sbin/mke2fs",
    "/usr/bin/iperf3",
    "/usr/bin/nbdcopy",
    "/usr/bin/qemu-img",
    "/usr/bin/tcpdump",
    "/usr/sbin/tc",
];

/// Modules a nested host loads: KVM with its AMD backend, its disks and their file system, and
/// what tests of network devices and of disks of the host need.
const MODULES: [&str; 12] = [
    "kvm_amd",
    "virtio_blk",
    "erofs",
    "loop",
    "nbd",
    "tun",
    "bridge",
    "veth",
    "sch_netem",
    "vhost_net",
    "vhost_vsock",
    "af_packet",
];

/// Firmware and option ROMs QEMU loads for the guests we give it.
const ROMS: [&str; 2] = ["/usr/share/seabios", "/usr/share/qemu"];
const MAX_ROM: u64 = 1 << 20;

/// The initramfs of a nested host.
pub fn initramfs(kernel: &Files) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for dir in ["bin", "dev", "proc", "sys", "tmp", "host", "modules"] {
        archive.dir(dir);
    }
    archive.char_device("dev/console", 5, 1);
    archive.file("init", 0o755, INIT.as_bytes());
    archive.file("bin/busybox", 0o755, &fs::read(busybox()?)?);
    for (number, module) in kernel.modules(&MODULES)?.iter().enumerate() {
        let name = format!("modules/{number:02}-{}.ko", module.name);
        archive.file(&name, 0o644, &module.data);
    }
    Ok(archive.finish())
}

/// The base image, as the item's file `base.erofs`.
pub fn base(cache: &Path, guests: &Item) -> Result<Item> {
    let mut files = Vec::new();
    for program in PROGRAMS.map(Path::new) {
        files.push(program.to_owned());
        files.extend(tree::libraries(program)?);
    }
    let debugger = debugger(cache)?;
    files.extend(tree::libraries(&debugger)?);
    for dir in ROMS {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let meta = fs::metadata(&path)?;
            if meta.is_file() && meta.len() <= MAX_ROM {
                files.push(path);
            }
        }
    }
    files.sort();
    files.dedup();
    // This file tells what else is in it.
    let mut key = format!("{}{}\n", guests.key(), checksum(include_bytes!("image.rs")));
    for file in &files {
        key.push_str(&file_key(file)?);
    }
    item(cache, "base", key, "making the nested host's disk", |dir| {
        let root = dir.join("root");
        for empty in ["dev", "proc", "sys", "tmp", "run"] {
            fs::create_dir_all(root.join(empty))?;
        }
        for file in &files {
            tree::copy_in(&root, file)?;
        }
        // tcpdump asks who root is; the other is a place for another file over it.
        fs::create_dir_all(root.join("etc"))?;
        fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n")?;
        fs::write(root.join("etc/group"), "root:x:0:\n")?;
        fs::write(root.join("etc/resolv.conf"), "")?;
        tree::copy(&busybox()?, &root.join("bin/busybox"))?;
        tree::copy(&debugger, &root.join(GDB.trim_start_matches('/')))?;
        copy_tree(guests.path(), &root.join("guests"))?;
        tree::erofs(&root, &dir.join("base.erofs"))?;
        fs::remove_dir_all(root)?;
        Ok(())
    })
}

/// A debugger that needs no Python, which would have to be in the image too. Its libraries are
/// among those of the installed one.
fn debugger(cache: &Path) -> Result<PathBuf> {
    let key = file_key(Path::new(GDB))?;
    let made =
        item(cache, "gdb", key, "unpacking a debugger", |dir| apt::unpack("gdb-minimal", dir))?;
    Ok(made.path().join(GDB.trim_start_matches('/')))
}

fn copy_tree(source: &Path, target: &Path) -> Result {
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let to = target.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &to)?;
        } else {
            tree::copy(&entry.path(), &to)?;
        }
    }
    Ok(())
}

/// An image of the size a run image has, with nothing in it: what the snapshot is made with.
pub fn empty_run(image: &Path) -> Result {
    Ok(File::create(image)?.set_len(RUN_IMAGE_SIZE)?)
}

/// Makes the run image at `dir/run.erofs`: `vmtest`, `vmm`, `vmm-nbd` where it was built beside
/// that, and `lib/`.
pub fn run(dir: &Path, peer: &Peer) -> Result<PathBuf> {
    let root = dir.join("run-root");
    let mut binaries = vec![("vmtest", Path::new(THIS_PROGRAM))];
    let server = peer.path().with_file_name(NBD);
    if let Peer::Vmm(path) = peer {
        binaries.push(("vmm", path));
        binaries.extend(server.exists().then_some((NBD, &*server)));
    }
    for (name, path) in binaries {
        let copy = root.join(name);
        tree::copy(path, &copy)?;
        for library in tree::libraries(&copy)? {
            let name = library.file_name().ok_or("a library without a name")?;
            tree::copy(&library, &root.join("lib").join(name))?;
        }
    }
    let image = dir.join("run.erofs");
    tree::erofs(&root, &image)?;
    fs::remove_dir_all(root)?;
    let file = File::options().write(true).open(&image)?;
    if file.metadata()?.len() > RUN_IMAGE_SIZE {
        return Err("the programs under test do not fit the nested host's disk".into());
    }
    file.set_len(RUN_IMAGE_SIZE)?;
    Ok(image)
}
