//! Disk images for tests: made here, compared here and in the guest.
//!
//! Runs on the test's own thread; holds no lock.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Result;
use crate::supply::guests::busybox;
use crate::supply::run;

/// A raw image file below the test's directory.
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// An image of so many bytes, all of them zero.
    pub fn blank(dir: &Path, name: &str, bytes: u64) -> Result<Self> {
        let path = dir.join(name);
        File::create(&path)?.set_len(bytes)?;
        Ok(Self { path })
    }

    /// An image of so many bytes with an empty ext4 file system.
    pub fn ext4(dir: &Path, name: &str, bytes: u64) -> Result<Self> {
        let disk = Self::blank(dir, name, bytes)?;
        run(Command::new("/sbin/mke2fs").args(["-q", "-t", "ext4", "-m", "0"]).arg(&disk.path))?;
        Ok(disk)
    }

    /// An image of so many bytes (a multiple of 8), no two words of which are the same; another
    /// `seed` gives others.
    pub fn patterned(dir: &Path, name: &str, bytes: u64, seed: u64) -> Result<Self> {
        let path = dir.join(name);
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        for word in 0..bytes / 8 {
            // Multiplying by an odd number keeps words apart and spreads their bits.
            let value = (word ^ (seed << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            file.write_all(&value.to_le_bytes())?;
        }
        file.flush()?;
        Ok(Self { path })
    }

    /// A copy of the file or block device `source`, with holes where that has only zeros.
    pub fn copy(dir: &Path, name: &str, source: &Path) -> Result<Self> {
        let path = dir.join(name);
        let mut source = File::open(source)?;
        let target = File::create(&path)?;
        let mut chunk = vec![0; 1 << 20];
        let mut at = 0;
        loop {
            let read = source.read(&mut chunk)?;
            if read == 0 {
                target.set_len(at)?;
                return Ok(Self { path });
            }
            if chunk[..read].iter().any(|&byte| byte != 0) {
                target.write_all_at(&chunk[..read], at)?;
            }
            at += u64::try_from(read)?;
        }
    }

    /// An image that somebody else has made.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The image's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The value of a `-drive` that has this image under the id `id` and is nobody's yet.
    pub fn drive(&self, id: &str) -> String {
        format!("if=none,id={id},format=raw,file={}", self.path.display())
    }

    /// Fails when the ext4 file system on it has an error, or was not unmounted in order and its
    /// journal does not mend it.
    pub fn check_ext4(&self) -> Result {
        let check = |way: &str| run(Command::new("/sbin/e2fsck").args(["-f", way]).arg(&self.path));
        // Replaying the journal is a change, which the first call is there for.
        let _ = check("-p");
        check("-n").map(drop)
    }

    /// Its SHA-256 sum.
    pub fn sha256(&self) -> Result<String> {
        let text = run(Command::new(busybox()?).arg("sha256sum").arg(&self.path))?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let sum = text.split_whitespace().next().ok_or("no sum")?;
        Ok(sum.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn seeds_and_places_are_told_apart() {
        let dir = Scratch::new().unwrap();
        let one = Disk::patterned(&dir, "one", 1 << 16, 1).unwrap();
        let two = Disk::patterned(&dir, "two", 1 << 16, 2).unwrap();
        let bytes = std::fs::read(one.path()).unwrap();
        assert_eq!(bytes.len(), 1 << 16);
        let words: std::collections::HashSet<_> = bytes.chunks(8).collect();
        assert_eq!(words.len(), 1 << 13);
        assert_ne!(bytes, std::fs::read(two.path()).unwrap());
    }
}
