//! A firmware image (`-bios`): checked and copied once into memory of our own.
//!
//! Main thread, before the machine starts. The copy cannot change or shrink beneath the guest's
//! mapping as the file could.

use std::fs::File;
use std::path::Path;

use resources::ram::ABOVE_4G;
use rustix::fs::MemfdFlags;

use super::Error;
use super::image::Image;
use super::layout::{FIRMWARE_MIN, HIGH_MEMORY};

/// The largest image: it ends at 4 GiB, and KVM's own pages lie 16 MiB below.
pub const FIRMWARE_MAX: u64 = ABOVE_4G - FIRMWARE_MIN;
/// How much of the image's end is also mapped below 1 MiB.
const LOW_ALIAS: u64 = 128 << 10;
const PAGE: u64 = 4096;

/// A firmware image in a memory file.
#[derive(Debug)]
pub struct Firmware {
    file: File,
    size: u64,
}

/// Where a part of the firmware is mapped, read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirmwareMapping {
    /// Guest-physical address.
    pub address: u64,
    /// Offset in the image.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

impl Firmware {
    /// Reads the image `path`: a multiple of 4 KiB, at most 16 MiB.
    ///
    /// # Errors
    ///
    /// The file cannot be opened or read, or has another size.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let image = Image::open("firmware", path)?;
        let size = image.len()?;
        if size == 0 || size > FIRMWARE_MAX || size % PAGE != 0 {
            return Err(image.refused(format!(
                "its size {size} is not a multiple of 4096 up to {FIRMWARE_MAX}"
            )));
        }
        let failed = |e: std::io::Error| image.refused(format!("copying it failed: {e}"));
        let memory = rustix::fs::memfd_create("firmware", MemfdFlags::CLOEXEC)
            .map_err(|e| failed(e.into()))?;
        let mut file = File::from(memory);
        if std::io::copy(&mut image.file(), &mut file).map_err(failed)? != size {
            return Err(image.refused("it changed while it was read"));
        }
        Ok(Self { file, size })
    }

    /// The memory file that holds the image from offset 0.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Bytes of the image.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where the machine maps it: all of it up to 4 GiB, and its end up to 1 MiB.
    pub fn mappings(&self) -> [FirmwareMapping; 2] {
        let low = self.size.min(LOW_ALIAS);
        [
            FirmwareMapping { address: ABOVE_4G - self.size, offset: 0, len: self.size },
            FirmwareMapping { address: HIGH_MEMORY - low, offset: self.size - low, len: low },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn firmware(name: &str, size: usize) -> Result<Firmware, String> {
        let path = std::env::temp_dir().join(format!("vmm-{name}-{}", std::process::id()));
        let mut bytes = vec![0x90; size];
        if let Some(last) = bytes.last_mut() {
            *last = 0x55;
        }
        std::fs::write(&path, &bytes).unwrap();
        let firmware = Firmware::open(&path).map_err(|e| e.to_string());
        std::fs::remove_file(&path).unwrap();
        firmware
    }

    #[test]
    fn maps_below_four_gib_and_one_mib() {
        let small = firmware("bios64", 64 << 10).unwrap();
        assert_eq!(
            small.mappings(),
            [
                FirmwareMapping { address: 0xffff_0000, offset: 0, len: 0x1_0000 },
                FirmwareMapping { address: 0xf_0000, offset: 0, len: 0x1_0000 },
            ]
        );
        let big = firmware("bios256", 256 << 10).unwrap();
        assert_eq!(
            big.mappings()[1],
            FirmwareMapping { address: 0xe_0000, offset: 0x2_0000, len: 0x2_0000 }
        );
        let mut last = [0];
        big.file().read_exact_at(&mut last, big.size() - 1).unwrap();
        assert_eq!(last, [0x55]);
    }

    #[test]
    fn odd_sizes_are_refused() {
        for (name, size) in [("empty", 0), ("odd", 4097), ("huge", (16 << 20) + 4096)] {
            let error = firmware(name, size).unwrap_err();
            assert!(error.contains(&format!("its size {size} is not a multiple")), "{error}");
        }
        let error = Firmware::open(Path::new("/nonexistent/bios.bin")).unwrap_err().to_string();
        assert!(
            error.starts_with("could not open firmware '/nonexistent/bios.bin': No such file"),
            "{error}"
        );
    }
}
