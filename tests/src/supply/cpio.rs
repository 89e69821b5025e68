//! Initramfs archives, in the "newc" cpio format the kernel reads (its
//! Documentation/driver-api/early-userspace/buffer-format.rst).

/// An archive that grows entry by entry.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const DIRECTORY: u32 = 0o040_755;
const CHAR_DEVICE: u32 = 0o020_600;
const REGULAR: u32 = 0o100_000;

impl Archive {
    /// Adds a directory; its parent must have been added before.
    pub fn dir(&mut self, name: &str) -> &mut Self {
        self.entry(name, DIRECTORY, (0, 0), &[])
    }

    /// Adds a file with the permission bits `mode`.
    pub fn file(&mut self, name: &str, mode: u32, data: &[u8]) -> &mut Self {
        self.entry(name, REGULAR | mode, (0, 0), data)
    }

    /// Adds a character device node.
    pub fn char_device(&mut self, name: &str, major: u32, minor: u32) -> &mut Self {
        self.entry(name, CHAR_DEVICE, (major, minor), &[])
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) -> &mut Self {
        self.entries += 1;
        // ino, mode, uid, gid, nlink, mtime, filesize, major, minor, rmajor, rminor, namesize, check
        let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let (rmajor, rminor) = device;
        self.bytes.extend_from_slice(b"070701");
        for field in [self.entries, mode, 0, 0, 1, 0, size, 0, 0, rmajor, rminor, name_size, 0] {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
        self
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn entries_are_aligned_and_counted() {
        let mut archive = super::Archive::default();
        archive.dir("dev").char_device("dev/console", 5, 1).file("init", 0o755, b"hello");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let headers: Vec<usize> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(headers.len(), 4);
        assert!(headers.iter().all(|at| at % 4 == 0));
        let init = &text[headers[2]..];
        assert_eq!(&init[14..22], "000081ed");
        assert_eq!(&init[54..62], "00000005");
    }
}
