//! Memory that can lack pages, and who touches those: userfaultfd(2).
//!
//! Whoever touches a page that is not there, the guest, a thread of this process or the kernel on
//! behalf of either, waits in the kernel until it is placed. That needs a host that lets this
//! process handle faults of the kernel: `/dev/userfaultfd`, CAP_SYS_PTRACE or the sysctl
//! `vm.unprivileged_userfaultfd`.
//!
//! On the thread of the migration. A guest decides which pages are touched, and nothing else.
#![expect(unsafe_code, reason = "pages are placed and forgotten by address")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use resources::ram::{PAGE, RamBlock};
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use rustix::mm::UserfaultfdFlags;

/// The numbers of linux/userfaultfd.h and linux/magic.h.
mod number {
    pub(super) const API: u64 = 0xaa;
    pub(super) const MISSING: u64 = 1;
    pub(super) const PAGEFAULT: u8 = 0x12;
    pub(super) const MESSAGE: usize = 32;
    pub(super) const NEW: libc::c_ulong = 0xaa00;
    pub(super) const HANDSHAKE: libc::c_ulong = 0xc018_aa3f;
    pub(super) const REGISTER: libc::c_ulong = 0xc020_aa00;
    pub(super) const UNREGISTER: libc::c_ulong = 0x8010_aa01;
    pub(super) const WAKE: libc::c_ulong = 0x8010_aa02;
    pub(super) const COPY: libc::c_ulong = 0xc028_aa03;
    pub(super) const ZEROPAGE: libc::c_ulong = 0xc020_aa04;
    pub(super) const TMPFS: u64 = 0x0102_1994;
    pub(super) const HUGETLBFS: u64 = 0x9584_58f6;
}

/// The largest page that is placed at once.
pub(crate) const LARGEST: u64 = 2 << 20;

/// How the pages of a block are forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forget {
    /// By this mapping, which alone has them.
    Mapping,
    /// By the memory file behind it.
    File,
    /// By both: the mapping has copies of what is in the file.
    Both,
}

/// A block of memory whose pages can be missing. As long as there is one of a file in memory, the host
/// makes no huge pages of that: a part of one that somebody uses cannot be forgotten. It would be
/// zeros, and not missing.
#[derive(Debug)]
pub struct Area {
    ram: Arc<RamBlock>,
    page: u64,
    forget: Forget,
}

impl Area {
    /// The memory of a block.
    ///
    /// # Errors
    /// Why its pages cannot be missing.
    pub fn new(ram: &Arc<RamBlock>) -> Result<Area, String> {
        let region = ram.region();
        let shared = region.flags() & libc::MAP_SHARED != 0;
        let (page, forget) = match region.file_offset() {
            None if shared => (PAGE, Forget::File),
            None => (PAGE, Forget::Mapping),
            Some(file) => {
                let file = file.file();
                let reason = |error: Errno| format!("its file cannot be looked at: {error}");
                let (kind, stat) =
                    (rustix::fs::fstatfs(file).map_err(reason)?, rustix::fs::fstat(file));
                let named = stat.map_err(reason)?.st_nlink > 0;
                let page = match kind.f_type as u64 {
                    number::TMPFS => PAGE,
                    number::HUGETLBFS => u64::try_from(kind.f_bsize).unwrap_or(0),
                    _ => return Err("it is in a file that is not in memory".to_owned()),
                };
                match (shared, named) {
                    (true, _) => (page, Forget::File),
                    (false, false) => (page, Forget::Both),
                    (false, true) => {
                        return Err("it is a private copy of a file that has a name".to_owned());
                    }
                }
            }
        };
        if !(PAGE..=LARGEST).contains(&page) || !ram.size().is_multiple_of(page) {
            return Err(format!("its pages of {page} bytes are too large"));
        }
        let area = Area { ram: ram.clone(), page, forget };
        if area.can_stick() {
            // A host without huge pages refuses.
            let _ = area.advise(0, area.size(), libc::MADV_NOHUGEPAGE);
        }
        Ok(area)
    }

    /// Bytes of a page.
    pub fn page(&self) -> u64 {
        self.page
    }

    /// Bytes of the block.
    pub fn size(&self) -> u64 {
        self.ram.size()
    }

    /// Where in the block an address of this process is.
    pub fn offset_of(&self, address: u64) -> Option<u64> {
        let offset = address.checked_sub(self.base())?;
        (offset < self.size()).then_some(offset)
    }

    fn base(&self) -> u64 {
        self.ram.region().as_ptr() as u64
    }

    /// The range of whole pages, if it is one of this block.
    fn checked(&self, offset: u64, len: u64) -> io::Result<u64> {
        let whole = offset.is_multiple_of(self.page) && len.is_multiple_of(self.page) && len > 0;
        let end = offset.checked_add(len).filter(|end| *end <= self.size());
        match (whole, end) {
            (true, Some(_)) => Ok(self.base() + offset),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Whether pages can be parts of huge ones that are not split when one part is forgotten.
    fn can_stick(&self) -> bool {
        self.forget != Forget::Mapping && self.page == PAGE
    }

    fn advise(&self, offset: u64, len: u64, advice: i32) -> io::Result<()> {
        let address = self.checked(offset, len)?;
        // SAFETY: the range was checked to be in the mapping that `ram` owns, in which nobody relies
        // on contents: a guest changes them at any time.
        match unsafe { libc::madvise(address as *mut _, len as usize, advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Tries to forget, before anything has come; all of it where there can be huge pages already,
    /// which can always be forgotten as a whole.
    ///
    /// # Errors
    /// As [`forget`](Self::forget).
    pub fn clear(&self) -> io::Result<()> {
        self.forget(0, if self.can_stick() { self.size() } else { self.page })
    }

    /// Forgets what is in whole pages: they are missing from then on.
    ///
    /// # Errors
    /// The host cannot; the pages are locked in memory, or in huge pages that somebody uses.
    pub fn forget(&self, offset: u64, len: u64) -> io::Result<()> {
        self.checked(offset, len)?;
        if self.forget != Forget::Mapping {
            match self.ram.region().file_offset() {
                Some(file) => {
                    let mode = rustix::fs::FallocateFlags::PUNCH_HOLE
                        | rustix::fs::FallocateFlags::KEEP_SIZE;
                    rustix::fs::fallocate(file.file(), mode, file.start() + offset, len)?;
                }
                None => self.advise(offset, len, libc::MADV_REMOVE)?,
            }
        }
        if self.forget != Forget::File {
            self.advise(offset, len, libc::MADV_DONTNEED)?;
        }
        // A huge page that was not split is not all in the range: it is at an end of it.
        if self.can_stick() && (self.holds(offset)? || self.holds(offset + len - PAGE)?) {
            return Err(io::Error::other("somebody uses a huge page of which it is a part"));
        }
        Ok(())
    }

    /// Whether the host has a page of the file in memory.
    fn holds(&self, offset: u64) -> io::Result<bool> {
        if let Some(file) = self.ram.region().file_offset() {
            let at = file.start() + offset;
            return match rustix::fs::seek(file.file(), SeekFrom::Data(at)) {
                Err(Errno::NXIO) => Ok(false),
                found => Ok(found? == at),
            };
        }
        let (address, mut held) = (self.checked(offset, PAGE)?, 0);
        // SAFETY: the page was checked to be in the mapping that `ram` owns, and the kernel writes a
        // byte for it.
        match unsafe { libc::mincore(address as *mut _, PAGE as usize, &raw mut held) } {
            0 => Ok(held & 1 != 0),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        if self.can_stick() {
            // As it was made.
            let _ = self.advise(0, self.size(), libc::MADV_HUGEPAGE);
        }
    }
}

/// Hears who touches missing pages, and places pages. Dropped, it gives zeros to whoever waits.
#[derive(Debug)]
pub struct Faults {
    fd: OwnedFd,
}

impl Faults {
    /// Asks the host for it.
    ///
    /// # Errors
    /// Why the host does not give it.
    pub fn open() -> Result<Faults, String> {
        let fd = Faults::from_device().or_else(|_| {
            let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
            // SAFETY: nothing is registered with it yet, and what will be is checked then.
            unsafe { rustix::mm::userfaultfd(flags) }
        });
        let fd = fd.map_err(|error| match error {
            Errno::PERM => "the host does not let this process handle page faults of the kernel: \
                            give it /dev/userfaultfd, or set the sysctl \
                            vm.unprivileged_userfaultfd to 1"
                .to_owned(),
            error => format!("the host has no userfaultfd: {error}"),
        })?;
        let faults = Faults { fd };
        let mut handshake = [number::API, 0, 0];
        let done = faults.control(number::HANDSHAKE, &mut handshake);
        done.map_err(|error| format!("the host's userfaultfd is of another kind: {error}"))?;
        Ok(faults)
    }

    fn from_device() -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let device = rustix::fs::open("/dev/userfaultfd", flags, Mode::empty())?;
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: the call takes flags and makes a descriptor, which is ours.
        let fd = unsafe { libc::ioctl(device.as_raw_fd(), number::NEW, flags) };
        if fd < 0 {
            return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL));
        }
        // SAFETY: as above.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// One of the calls, whose structures are all made of u64.
    fn control<const N: usize>(
        &self,
        call: libc::c_ulong,
        data: &mut [u64; N],
    ) -> Result<(), Errno> {
        // SAFETY: the number holds the size of the structure, which is that of `data`. That no call
        // changes memory but that of areas is for the callers, all in this file, to see to.
        let done = unsafe { libc::ioctl(self.fd.as_raw_fd(), call, data.as_mut_ptr()) };
        match done {
            0 => Ok(()),
            _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
        }
    }

    /// From now on a missing page of the area is waited for.
    ///
    /// # Errors
    /// The host cannot do that with this kind of memory.
    pub fn register(&self, area: &Area) -> io::Result<()> {
        let mut data = [area.base(), area.size(), number::MISSING, 0];
        Ok(self.control(number::REGISTER, &mut data)?)
    }

    /// From now on a missing page of the area is zeros; whoever waits for one goes on.
    pub fn unregister(&self, area: &Area) {
        // It fails where it was not registered.
        let _ = self.control(number::UNREGISTER, &mut [area.base(), area.size()]);
    }

    /// The next address that somebody waits for, if somebody does.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn next(&self) -> io::Result<Option<u64>> {
        loop {
            let mut message = [0; number::MESSAGE];
            match rustix::io::read(&self.fd, &mut message) {
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(number::MESSAGE) => {}
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            let [event, .., a, b, c, d, e, f, g, h, _, _, _, _, _, _, _, _] = message;
            if event == number::PAGEFAULT {
                return Ok(Some(u64::from_ne_bytes([a, b, c, d, e, f, g, h])));
            }
        }
    }

    /// Places a page and lets who waits for it go on. One that is there stays as it is; returns
    /// whether none was.
    ///
    /// # Errors
    /// It is no page of the area, or the host is short of memory.
    pub fn place(&self, area: &Area, offset: u64, bytes: &[u8]) -> io::Result<bool> {
        let len = bytes.len() as u64;
        let address = area.checked(offset, len)?;
        let mut data = [address, bytes.as_ptr() as u64, len, 0, 0];
        self.until_done((address, len), || self.control(number::COPY, &mut data))
    }

    /// Places a page of zeros, as [`place`](Self::place).
    ///
    /// # Errors
    /// As there.
    pub fn place_zeros(&self, area: &Area, offset: u64) -> io::Result<bool> {
        let address = area.checked(offset, area.page)?;
        if area.page != PAGE {
            return self.place(area, offset, &vec![0; area.page as usize]);
        }
        let mut data = [address, area.page, 0, 0];
        self.until_done((address, area.page), || self.control(number::ZEROPAGE, &mut data))
    }

    fn until_done(
        &self,
        (address, len): (u64, u64),
        mut call: impl FnMut() -> Result<(), Errno>,
    ) -> io::Result<bool> {
        loop {
            match call() {
                Ok(()) => return Ok(true),
                Err(Errno::EXIST) => {
                    // Whoever waits has missed that it came.
                    let _ = self.control(number::WAKE, &mut [address, len]);
                    return Ok(false);
                }
                // The process's mappings are being changed.
                Err(Errno::AGAIN) => std::thread::yield_now(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Lets whoever waits do so until the process ends.
    pub fn never_give_up(self) {
        std::mem::forget(self);
    }
}

impl AsFd for Faults {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use resources::ram::{Ram, RamBackend, RamConfig};

    use super::*;

    fn memory(backend: RamBackend, share: bool) -> Arc<RamBlock> {
        let config = RamConfig { size: 16 * PAGE, backend, share, ..RamConfig::default() };
        Ram::new(&config).unwrap().ranges()[0].block.clone()
    }

    #[test]
    fn pages_of_every_kind_of_memory_are_waited_for() {
        let faults = match Faults::open() {
            Ok(faults) => faults,
            Err(reason) => return resources::testing::skipped(reason),
        };
        for (backend, share) in [
            (RamBackend::Anonymous, false),
            (RamBackend::Anonymous, true),
            (RamBackend::Memfd(None), false),
            (RamBackend::Memfd(None), true),
        ] {
            let ram = memory(backend.clone(), share);
            (0..16).for_each(|page| ram.write(page * PAGE, b"old"));
            let area = Area::new(&ram).unwrap();
            assert_eq!(area.page(), PAGE);
            faults.register(&area).unwrap();
            area.forget(PAGE, 3 * PAGE).unwrap();
            area.forget(16 * PAGE, PAGE).unwrap_err();
            area.forget(1, PAGE).unwrap_err();
            let reader = {
                let ram = ram.clone();
                std::thread::spawn(move || {
                    [0, 1, 2, 3].map(|page| {
                        let mut bytes = [9; 3];
                        ram.read(page * PAGE, &mut bytes);
                        bytes
                    })
                })
            };
            let poll = |offset| {
                let mut fds = [rustix::event::PollFd::new(&faults, rustix::event::PollFlags::IN)];
                rustix::event::poll(&mut fds, None).unwrap();
                let address = faults.next().unwrap().unwrap();
                assert_eq!(area.offset_of(address), Some(offset), "{backend:?} {share}");
            };
            poll(PAGE);
            let mut page = vec![0; PAGE as usize];
            page[..3].copy_from_slice(b"new");
            assert!(faults.place(&area, PAGE, &page).unwrap());
            // What is there stays.
            assert!(!faults.place(&area, PAGE, &[7; PAGE as usize]).unwrap());
            assert!(!faults.place_zeros(&area, PAGE).unwrap());
            faults.place(&area, PAGE, &[7; 5]).unwrap_err();
            poll(2 * PAGE);
            assert!(faults.place_zeros(&area, 2 * PAGE).unwrap());
            poll(3 * PAGE);
            faults.unregister(&area);
            assert_eq!(reader.join().unwrap(), [*b"old", *b"new", [0; 3], [0; 3]]);
        }
    }

    /// A file system in memory, without a name, that uses huge pages wherever it can.
    fn huge_files() -> Result<OwnedFd, Errno> {
        use rustix::mount::*;
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "huge", "always")?;
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    #[test]
    fn a_part_of_a_huge_page_that_somebody_uses_is_not_taken_for_missing() {
        let dir = match huge_files() {
            Ok(dir) => dir,
            Err(error) => return resources::testing::skipped(error),
        };
        let backend = RamBackend::File(format!("/proc/self/fd/{}", dir.as_raw_fd()).into());
        let config = RamConfig { size: 2 * LARGEST, backend, share: true, ..RamConfig::default() };
        let ram = Ram::new(&config).unwrap().ranges()[0].block.clone();
        // The kernel keeps a page that is in a pipe, and with it the huge page that it is in.
        let (_output, input) = rustix::pipe::pipe().unwrap();
        let fill_and_use = || {
            (0..ram.size() / PAGE).for_each(|page| ram.write(page * PAGE, b"old"));
            let used = ram.region().as_ptr().wrapping_add(100 * PAGE as usize);
            let used = libc::iovec { iov_base: used.cast(), iov_len: PAGE as usize };
            // SAFETY: the page is in the mapping, and nobody relies on what is in it.
            let taken = unsafe { libc::vmsplice(input.as_raw_fd(), &raw const used, 1, 0) };
            assert_eq!(taken, PAGE as isize);
        };
        fill_and_use();
        let area = Area::new(&ram).unwrap();
        area.forget(PAGE, 3 * PAGE).unwrap_err();
        area.clear().unwrap();
        // What comes from now on is not in huge pages.
        fill_and_use();
        area.forget(PAGE, 3 * PAGE).unwrap();
        let first = |page: u64| {
            let mut byte = [0];
            ram.read(page * PAGE, &mut byte);
            byte[0]
        };
        assert_eq!([0, 1, 2, 3, 4].map(first), [b'o', 0, 0, 0, b'o']);
    }

    #[test]
    fn memory_in_a_file_on_a_disk_cannot_lack_pages() {
        let path = std::env::temp_dir().join(format!("vmm-late-{}", std::process::id()));
        let ram = memory(RamBackend::File(path.clone()), true);
        let kind = rustix::fs::statfs(&path).unwrap().f_type as u64;
        std::fs::remove_file(&path).unwrap();
        // Where temporary files are in memory they can.
        assert_eq!(Area::new(&ram).is_ok(), kind == number::TMPFS);
    }
}
