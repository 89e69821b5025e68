//! The files Linux guests boot from: for each kernel its two images and an initrd with a shell.

use std::fs;
use std::path::{Path, PathBuf};

use super::cache::{Item, file_key, item};
use super::cpio::Archive;
use super::kernel::Files;
use crate::rig::Result;
use crate::rig::vm::Kernel;

const INIT: &str = include_str!("guest-init.sh");

/// Modules of the initrd: the ACPI power button and the input events it sends.
const MODULES: [&str; 2] = ["button", "evdev"];

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
    let mut key = format!("{}{INIT}{MODULES:?}\n", file_key(&busybox)?);
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
    for dir in ["bin", "dev", "proc", "sys", "tmp", "modules"] {
        archive.dir(dir);
    }
    archive.char_device("dev/console", 5, 1);
    archive.file("init", 0o755, INIT.as_bytes());
    archive.file("bin/busybox", 0o755, &fs::read(busybox)?);
    for (number, (name, data)) in kernel.modules(&MODULES)?.iter().enumerate() {
        archive.file(&format!("modules/{number}-{name}"), 0o644, data);
    }
    Ok(archive.finish())
}
