//! The table of guest tests.
//!
//! A test is one function and one row. It runs in a process of its own (`vmtest run-one NAME`), on
//! this machine or inside a nested host, so nothing it leaves behind reaches another test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::disk::Disk;
use super::vm::{DEBIAN, Kernel, Peer, VmBuilder};
use super::{Result, thorough};
use crate::scratch::Scratch;

/// What a test needs of the machine's KVM.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Needs {
    /// Any /dev/kvm, also one that emulates supervisor code instruction by instruction.
    Tiny,
    /// A KVM that boots Linux.
    Linux,
}

type Body = Box<dyn Fn(&Ctx) -> Result + Send + Sync>;

/// One row of the table.
pub struct Test {
    /// `subject::what`, unique.
    pub name: String,
    /// Where it can run.
    pub needs: Needs,
    /// Whether it uses the Debian system on a disk.
    pub debian: bool,
    /// When the runner gives up on it: about five times what it takes in a nested host.
    pub limit: Duration,
    /// The test itself.
    pub body: Body,
}

impl Test {
    /// A test of a small guest that needs no Linux.
    pub fn tiny(
        name: &str,
        seconds: u64,
        body: impl Fn(&Ctx) -> Result + Send + Sync + 'static,
    ) -> Self {
        Self::new(Needs::Tiny, name, seconds, body)
    }

    /// A test that boots Linux.
    pub fn linux(
        name: &str,
        seconds: u64,
        body: impl Fn(&Ctx) -> Result + Send + Sync + 'static,
    ) -> Self {
        Self::new(Needs::Linux, name, seconds, body)
    }

    fn new(
        needs: Needs,
        name: &str,
        seconds: u64,
        body: impl Fn(&Ctx) -> Result + Send + Sync + 'static,
    ) -> Self {
        let limit = Duration::from_secs(seconds) * u32::try_from(thorough(1, 5)).unwrap_or(1);
        Self { name: name.to_owned(), needs, debian: false, limit, body: Box::new(body) }
    }

    /// Gives the test the Debian system on a disk: [`Ctx::debian`].
    pub fn with_debian(self) -> Self {
        Self { debian: true, ..self }
    }
}

/// Every guest test, in the order they run.
pub fn all() -> Vec<Test> {
    let mut tests = crate::tiny::tests();
    tests.extend(crate::linux::tests());
    tests
}

/// What a running test is given.
pub struct Ctx {
    /// The program under test.
    pub peer: Peer,
    /// Kernels and initrds: `<kernel>/{bzImage,vmlinux,initrd}`.
    pub guests: PathBuf,
    /// The Debian system's image, for tests that are made [`with_debian`](Test::with_debian).
    pub image: Option<PathBuf>,
    /// An empty directory for sockets and files, short enough for a socket's name.
    pub dir: Scratch,
}

impl Ctx {
    /// A context with a fresh directory below the system's temporary one.
    pub fn new(peer: Peer, guests: &Path, image: Option<PathBuf>) -> Result<Self> {
        Ok(Self { peer, guests: guests.to_owned(), image, dir: Scratch::new()? })
    }

    /// A copy of the Debian system of one's own: a file system without partitions.
    pub fn debian_disk(&self, name: &str) -> Result<Disk> {
        let image = self.image.as_ref().ok_or("the test is not made with_debian")?;
        Disk::copy(&self.dir, name, image)
    }

    /// A VM whose first virtio-blk disk is `disk` with the Debian system on it, which boots to a
    /// login: [`TestVm::log_in`](super::vm::TestVm::log_in).
    pub fn debian(&self, disk: &Disk) -> VmBuilder {
        self.linux(Kernel::V6_12).only_append(DEBIAN).args([
            "-drive",
            &disk.drive("root"),
            "-device",
            "virtio-blk-pci,drive=root",
        ])
    }

    /// A VM without a guest: add one, then start it.
    pub fn vm(&self) -> VmBuilder {
        VmBuilder::new(&self.peer, &self.guests, &self.dir)
    }

    /// A VM that boots `kernel` by PVH to the test shell with 1 vCPU and 512 MiB.
    pub fn linux(&self, kernel: Kernel) -> VmBuilder {
        self.vm().kernel(kernel, super::vm::Image::Vmlinux)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_plain() {
        let mut seen = HashSet::new();
        for test in super::all() {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_:.".contains(c);
            assert!(test.name.chars().all(plain), "{}", test.name);
            assert!(seen.insert(test.name.clone()), "{} is there twice", test.name);
        }
    }
}
