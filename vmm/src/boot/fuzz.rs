//! The kernel loaders on arbitrary bytes.
//!
//! For fuzz targets and tests only, on one thread.

use std::fs::File;
use std::io::Write;

use resources::ram::{Ram, RamConfig};
use rustix::fs::MemfdFlags;

use super::image::Image;
use super::layout::{BOOT_AREA_END, RamLayout};
use super::multiboot::Module;
use super::place::Target;
use super::{BootSource, Extras};
use crate::cpu::setup::Entry;

/// Small, but a stock kernel fits.
const SIZE: u64 = 64 << 20;

/// Loads `data` as a kernel into a small guest and checks that a kernel that was accepted starts
/// within loaded memory. The first byte chooses what comes with it: bit 0 an initrd, bit 1
/// modules instead, bit 2 RAM that is not zero; the second byte is the length of the command line.
///
/// # Panics
///
/// When a loader is wrong: that is the point.
pub fn fuzz(data: &[u8]) {
    let [choice, cmdline_len, kernel @ ..] = data else { return };
    let Some(kernel) = memory_file("kernel", kernel) else { return };
    let Some(extra) = memory_file("initrd", b"not really an initrd") else { return };
    let extras = match choice & 3 {
        0 => Extras::Initrd(None),
        1 => Extras::Initrd(Some(extra)),
        _ => Extras::Modules(vec![Module { image: extra, string: "module args".into() }]),
    };
    let cmdline = "x".repeat(usize::from(*cmdline_len) * 16);
    let Ok(source) = BootSource::new(kernel, extras, &cmdline) else { return };
    let Ok(ram) = Ram::new(&RamConfig { size: SIZE, ..RamConfig::default() }) else { return };
    let layout = RamLayout::of_size(SIZE);
    let target = Target { mem: ram.memory(), layout, rsdp: None, zeroed: choice & 4 == 0 };
    if let Ok(entry) = source.load_all(&target) {
        let rip = match entry {
            Entry::Long { rip, .. } | Entry::Pvh { rip, .. } | Entry::Multiboot { rip, .. } => rip,
            other => panic!("a kernel does not start so: {other:?}"),
        };
        assert!((BOOT_AREA_END..SIZE).contains(&rip.0), "entry outside what was loaded: {entry:?}");
    }
}

fn memory_file(what: &'static str, bytes: &[u8]) -> Option<Image> {
    let mut file = File::from(rustix::fs::memfd_create(what, MemfdFlags::CLOEXEC).ok()?);
    file.write_all(bytes).ok()?;
    Some(Image::from_file(what, file))
}
