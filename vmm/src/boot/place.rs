//! Placing the parts of one boot in guest RAM, so that none lies outside it or over another.
//!
//! Main thread, machine stopped. The addresses come from untrusted images: every part is claimed
//! here before a byte of it is written.

use std::ops::Range;

use vm_memory::{Bytes, GuestAddress, GuestMemory};

use super::Error;
use super::image::{Image, TRUNCATED};
use super::layout::{BOOT_AREA_END, RamLayout};

/// The guest RAM one boot is loaded into.
#[derive(Debug)]
pub struct Target<'a, M> {
    /// The machine's RAM, mapped where `layout` says.
    pub mem: &'a M,
    /// How RAM lies in guest-physical space.
    pub layout: RamLayout,
    /// Address of the ACPI root pointer, if the machine has ACPI tables.
    pub rsdp: Option<u64>,
    /// RAM reads as zero still, so that a kernel's zero-filled part need not be written (and its
    /// pages not allocated). False at a reset and for RAM that is backed by an existing file.
    pub zeroed: bool,
}

/// Parts of images that have their place in guest RAM and are not there yet.
///
/// They are most of the work of a boot, so they wait until the guest is about to run: a machine
/// that is only being set up (`-S`) answers its first client at once. What is copied is what the
/// files hold then.
#[derive(Debug, Default)]
pub struct Contents {
    copies: Vec<Copy>,
}

#[derive(Debug)]
struct Copy {
    image: Image,
    offset: u64,
    len: u64,
    addr: u64,
}

impl Contents {
    /// Whether there is nothing to copy, or no more.
    pub fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    /// Copies everything into guest RAM.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or has become shorter: everything is still to be copied then.
    pub fn fill<M: GuestMemory>(&mut self, mem: &M) -> Result<(), Error> {
        for Copy { image, offset, len, addr } in &self.copies {
            image.load(*offset, *len, mem, *addr)?;
        }
        self.copies.clear();
        Ok(())
    }
}

/// What has been placed so far.
pub(super) struct Placer<'a, M> {
    target: &'a Target<'a, M>,
    taken: Vec<(Range<u64>, String)>,
    contents: Contents,
}

/// Pages: the alignment of the parts we choose the place of.
const PAGE: u64 = 4096;

impl<'a, M: GuestMemory> Placer<'a, M> {
    /// A fresh RAM in which only the boot structures' own area is taken.
    pub(super) fn new(target: &'a Target<'a, M>) -> Self {
        let taken = vec![(0..BOOT_AREA_END, "the boot structures".into())];
        Self { target, taken, contents: Contents::default() }
    }

    /// The RAM being loaded into.
    pub(super) fn target(&self) -> &'a Target<'a, M> {
        self.target
    }

    /// Takes `len` bytes from `start` for `what`. The error is a reason to refuse the image.
    pub(super) fn claim(&mut self, start: u64, len: u64, what: &str) -> Result<(), String> {
        let describe = || format!("{what} needs {len:#x} bytes of RAM at {start:#x}");
        let end = start.checked_add(len).ok_or_else(|| format!("{what} ends beyond 2^64"))?;
        let ram = self.target.layout.loadable();
        if !ram.iter().any(|r| r.start <= start && end <= r.end) {
            let [a, b] = ram;
            return Err(format!(
                "{}, but what can be loaded into is {:#x}-{:#x} and {:#x}-{:#x}",
                describe(),
                a.start,
                a.end,
                b.start,
                b.end
            ));
        }
        if let Some((range, other)) = self.overlap(start, end) {
            return Err(format!("{}, where {other} is ({range:#x?})", describe()));
        }
        self.taken.push((start..end, what.into()));
        Ok(())
    }

    fn overlap(&self, start: u64, end: u64) -> Option<&(Range<u64>, String)> {
        self.taken.iter().find(|(r, _)| start < r.end && r.start < end)
    }

    /// Takes `len` bytes as high as possible in low RAM below `limit`, page aligned.
    pub(super) fn claim_high(&mut self, len: u64, limit: u64, what: &str) -> Result<u64, String> {
        let [_, ram] = self.target.layout.loadable();
        let mut end = ram.end.min(limit);
        while let Some(start) = end.checked_sub(len).map(|start| start & !(PAGE - 1)) {
            if start < ram.start {
                break;
            }
            match self.overlap(start, start + len) {
                None => {
                    self.taken.push((start..start + len, what.into()));
                    return Ok(start);
                }
                Some((range, _)) => end = range.start,
            }
        }
        Err(format!("{what} ({len} bytes) does not fit into RAM below {limit:#x} with the kernel"))
    }

    /// Takes `len` bytes on the first page behind everything placed above 1 MiB so far.
    pub(super) fn claim_behind(&mut self, len: u64, what: &str) -> Result<u64, String> {
        let [_, ram] = self.target.layout.loadable();
        let last = self.taken.iter().map(|(r, _)| r.end).fold(ram.start, u64::max);
        let start = last
            .checked_next_multiple_of(PAGE)
            .ok_or_else(|| format!("there is no room for {what}"))?;
        self.claim(start, len, what)?;
        Ok(start)
    }

    /// Whether `addr` lies in something an image placed (not in the boot structures).
    pub(super) fn holds(&self, addr: u64) -> bool {
        self.taken.iter().skip(1).any(|(r, _)| r.contains(&addr))
    }

    /// Has `len` bytes of `image` from `offset` copied to a place that was claimed.
    pub(super) fn copy(
        &mut self,
        image: &Image,
        offset: u64,
        len: u64,
        addr: u64,
    ) -> Result<(), Error> {
        if offset.checked_add(len).is_none_or(|end| end > image.len().unwrap_or(0)) {
            return Err(image.refused(TRUNCATED));
        }
        self.contents.copies.push(Copy { image: image.clone(), offset, len, addr });
        Ok(())
    }

    /// What is to be copied.
    pub(super) fn into_contents(self) -> Contents {
        self.contents
    }

    /// Writes bytes to a place that was claimed, or into the boot structures.
    pub(super) fn write(&self, addr: u64, bytes: &[u8]) -> Result<(), String> {
        self.target
            .mem
            .write_slice(bytes, GuestAddress(addr))
            .map_err(|e| format!("guest RAM at {addr:#x} cannot be written: {e}"))
    }

    /// Makes `len` bytes at `addr` zero, without touching RAM that is zero already.
    pub(super) fn zero(&self, addr: u64, len: u64) -> Result<(), String> {
        static ZEROS: [u8; 65536] = [0; 65536];
        if self.target.zeroed {
            return Ok(());
        }
        let mut done = 0;
        while done < len {
            let n = (len - done).min(ZEROS.len() as u64);
            self.write(addr + done, ZEROS.get(..n as usize).unwrap_or(&ZEROS))?;
            done += n;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::GuestMemoryMmap;

    const MIB: u64 = 1 << 20;

    fn with_placer(f: impl FnOnce(&mut Placer<'_, GuestMemoryMmap<()>>)) {
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 16 << 20)]).unwrap();
        let layout = RamLayout { low: 16 * MIB, high: 0 };
        let target = Target { mem: &mem, layout, rsdp: None, zeroed: false };
        f(&mut Placer::new(&target));
    }

    #[test]
    fn claims_stay_in_ram_and_apart() {
        with_placer(|p| {
            p.claim(MIB, 4096, "text").unwrap();
            for (start, len, reason) in [
                (MIB + 4095, 2, "where text is"),
                (0x7000, 1, "where the boot structures is"),
                (0x9_f000, 0x1000, "can be loaded into"),
                (16 * MIB - 1, 2, "can be loaded into"),
                (u64::MAX, 2, "ends beyond"),
                (1 << 32, 1, "can be loaded into"),
            ] {
                let error = p.claim(start, len, "part").unwrap_err();
                assert!(error.contains(reason), "{error}");
            }
            p.claim(MIB + 4096, 1, "data").unwrap();
            assert!(p.holds(MIB) && !p.holds(0x7000) && !p.holds(MIB + 4097));
        });
    }

    #[test]
    fn high_claims_go_down_around_what_is_there() {
        with_placer(|p| {
            assert_eq!(p.claim_high(5000, u64::MAX, "initrd"), Ok(16 * MIB - 8192));
            p.claim(2 * MIB, 13 * MIB, "kernel").unwrap();
            assert_eq!(p.claim_high(MIB - 8192, u64::MAX, "a"), Ok(15 * MIB));
            assert_eq!(p.claim_high(MIB, u64::MAX, "b"), Ok(MIB));
            assert!(p.claim_high(2 * MIB, u64::MAX, "b").is_err());
            assert!(p.claim_high(u64::MAX, u64::MAX, "b").is_err());
        });
    }

    #[test]
    fn behind_is_the_next_page() {
        with_placer(|p| {
            assert_eq!(p.claim_behind(10, "a"), Ok(MIB));
            assert_eq!(p.claim_behind(10, "b"), Ok(MIB + 4096));
            assert!(p.claim_behind(15 * MIB, "c").is_err());
        });
    }
}
