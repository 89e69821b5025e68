//! Booting a kernel without firmware: bzImage, ELF by its PVH note or 64-bit entry, multiboot 1.
//!
//! Everything here runs on the main thread while the machine is built, and again at each reset
//! with the processors stopped, because the guest may have overwritten what was loaded. Kernels,
//! initrds and command lines are not trusted: sizes and addresses are checked and claimed in guest
//! RAM before anything is read, and a file is read straight into guest RAM, so that
//! an image of any size costs no memory of this process. That reading waits until the guest is about
//! to run ([`Contents`]).

mod bytes;
mod bzimage;
mod elf;
pub mod firmware;
mod fuzz;
mod image;
pub mod layout;
mod linux;
mod multiboot;
mod place;
mod pvh;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use vm_memory::GuestMemory;

pub use fuzz::fuzz;
pub use place::{Contents, Target};

use crate::cpu::setup::Entry;
use elf::Elf;
use image::Image;
use multiboot::Module;
use place::Placer;

/// How much of a kernel is read to tell what it is; a multiboot header lies within it.
const HEAD: usize = multiboot::SEARCH;

/// Why a boot failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is not there or may not be read.
    #[error("could not open {what} '{}': {source}", path.display())]
    Open {
        /// "kernel", "initrd" or "firmware".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not what it should be, or does not fit.
    #[error("cannot load {what} '{}': {reason}", path.display())]
    Refused {
        /// "kernel", "initrd" or "firmware".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// A range of guest-physical memory.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    start: u64,
    len: u64,
}

/// A kernel to boot with what belongs to it: files open, nothing in memory.
#[derive(Debug)]
pub struct BootSource {
    kernel: Image,
    extras: Extras,
    cmdline: String,
}

/// What the initrd option names, which depends on the kernel.
#[derive(Debug)]
enum Extras {
    Initrd(Option<Image>),
    Modules(Vec<Module>),
}

/// The kind of kernel a file holds.
enum Kind<'a> {
    BzImage,
    Pvh(Elf, u64),
    Multiboot(multiboot::Header<'a>, Option<Elf>),
    Elf64(Elf),
}

impl BootSource {
    /// Opens `kernel` and the files `initrd` names, and checks that the kernel is of a kind that
    /// can be booted.
    ///
    /// For a multiboot kernel `initrd` is a list of modules, `FILE ARGS,FILE ARGS`, with `,,` for
    /// a comma; for any other it is one file name as it stands.
    ///
    /// # Errors
    ///
    /// A file that cannot be opened, a kernel of no known kind, or a command line with a NUL.
    pub fn open(kernel: &Path, initrd: Option<&str>, cmdline: &str) -> Result<Self, Error> {
        let kernel = Image::open("kernel", kernel)?;
        let head = kernel.read_at(0, HEAD)?;
        let extras = match (recognise(&kernel, &head)?, initrd) {
            (_, None) => Extras::Initrd(None),
            (Kind::Multiboot(..), Some(list)) => Extras::Modules(
                multiboot::module_strings(list)
                    .into_iter()
                    .map(|string| {
                        let file = string.split(' ').next().unwrap_or_default();
                        Image::open("initrd", Path::new(file)).map(|image| Module { image, string })
                    })
                    .collect::<Result<_, _>>()?,
            ),
            (_, Some(file)) => Extras::Initrd(Some(Image::open("initrd", Path::new(file))?)),
        };
        Self::new(kernel, extras, cmdline)
    }

    fn new(kernel: Image, extras: Extras, cmdline: &str) -> Result<Self, Error> {
        if cmdline.contains('\0') {
            return Err(kernel.refused("the command line contains a NUL"));
        }
        Ok(Self { kernel, extras, cmdline: cmdline.into() })
    }

    /// Finds a place in guest RAM for everything and writes what is not in the files: at the
    /// start and after each reset. The rest is in the [`Contents`].
    ///
    /// The files are looked at anew, so a kernel replaced in place is booted as it is now. On an
    /// error guest RAM may be partly written.
    ///
    /// # Errors
    ///
    /// The image is damaged or does not fit into RAM, or reading it fails.
    pub fn load<M: GuestMemory>(&self, target: &Target<'_, M>) -> Result<(Entry, Contents), Error> {
        let Self { kernel, cmdline, .. } = self;
        let mut placer = Placer::new(target);
        let head = kernel.read_at(0, HEAD)?;
        let kind = recognise(kernel, &head)?;
        let (initrd, modules): (Option<&Image>, &[Module]) = match (&self.extras, &kind) {
            (Extras::Initrd(None), _) => (None, &[]),
            (Extras::Modules(modules), Kind::Multiboot(..)) => (None, modules),
            (Extras::Modules(_), _) | (Extras::Initrd(Some(_)), Kind::Multiboot(..)) => {
                return Err(kernel.refused("it has become another kind of kernel"));
            }
            (Extras::Initrd(Some(initrd)), _) => (Some(initrd), &[]),
        };
        let entry = match kind {
            Kind::BzImage => bzimage::load(kernel, &head, initrd, cmdline, &mut placer),
            Kind::Pvh(elf, entry) => pvh::load(kernel, &elf, entry, initrd, cmdline, &mut placer),
            Kind::Multiboot(header, elf) => {
                multiboot::load(kernel, header, elf.as_ref(), modules, cmdline, &mut placer)
            }
            Kind::Elf64(elf) => elf::load(kernel, &elf, initrd, cmdline, &mut placer),
        }?;
        Ok((entry, placer.into_contents()))
    }

    /// As [`load`](Self::load), with the contents.
    fn load_all<M: GuestMemory>(&self, target: &Target<'_, M>) -> Result<Entry, Error> {
        let (entry, mut contents) = self.load(target)?;
        contents.fill(target.mem)?;
        Ok(entry)
    }
}

/// Tells a kernel by its content.
fn recognise<'a>(kernel: &Image, head: &'a [u8]) -> Result<Kind<'a>, Error> {
    if bzimage::recognise(head) {
        return Ok(Kind::BzImage);
    }
    let multiboot = multiboot::find(head);
    if elf::recognise(head) {
        let elf = Elf::parse(kernel, head)?;
        return Ok(match (pvh::entry_note(kernel, &elf)?, multiboot) {
            (Some(entry), _) => Kind::Pvh(elf, entry),
            (None, Some(header)) => Kind::Multiboot(header, Some(elf)),
            (None, None) => Kind::Elf64(elf),
        });
    }
    match multiboot {
        Some(header) => Ok(Kind::Multiboot(header, None)),
        None => Err(kernel.refused(format!(
            "it is neither a bzImage nor an ELF or multiboot kernel but {}",
            describe(head)
        ))),
    }
}

/// Names what a file that is no kernel is, by its first bytes.
fn describe(head: &[u8]) -> String {
    const KNOWN: &[(&[u8], &str)] = &[
        (b"\x1f\x8b", "gzip data"),
        (b"\xfd7zXZ\0", "xz data"),
        (b"\x28\xb5\x2f\xfd", "zstd data"),
        (b"BZh", "bzip2 data"),
        (b"\x04\x22\x4d\x18", "lz4 data"),
        (b"\x02\x21\x4c\x18", "lz4 data"),
        (b"070701", "a cpio archive (an initrd?)"),
        (b"QFI\xfb", "a qcow2 disk image"),
        (b"MZ", "an EFI or Windows program"),
        (b"#!", "a script"),
        (b"!<arch>\n", "an archive"),
        (b"\x27\x05\x19\x56", "a U-Boot image"),
    ];
    if head.is_empty() {
        return "empty".into();
    }
    KNOWN.iter().find(|(magic, _)| head.starts_with(magic)).map_or_else(
        || {
            let start: Vec<_> = head.iter().take(8).map(|b| format!("{b:02x}")).collect();
            format!("a file that starts with {}", start.join(" "))
        },
        |(_, name)| (*name).into(),
    )
}
