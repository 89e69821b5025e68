//! Guest RAM: the host memory behind it, and how it lies in guest-physical space.
//!
//! A [`RamBlock`] is one piece of host memory. [`Ram`] is the machine's main memory: one or two
//! blocks (below and above the 32-bit PCI hole) and the [`GuestMemory`] view that devices use for
//! DMA, in which only RAM is reachable.
//!
//! Any thread, no lock. The guest changes this memory at any time: it is only ever accessed by
//! volatile copies through `vm-memory`, never as a slice. Every write through it marks the block's
//! dirty bitmap, because KVM's dirty log does not see the writes of this process.
#![expect(unsafe_code, reason = "host memory is mapped and advised by address")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fdset;
use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags};
use vm_memory::bitmap::{AtomicBitmap, Bitmap};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Address, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap, MemoryRegionAddress, MmapRegion,
};

/// The DMA view of guest memory: RAM and nothing else.
pub type GuestMemory = GuestMemoryMmap<AtomicBitmap>;

/// The x86 page size.
pub const PAGE: u64 = 4096;

/// Where RAM continues after the 32-bit PCI hole.
pub const ABOVE_4G: u64 = 1 << 32;

/// Low RAM is cut here when it would reach further: 3 GiB, so that both parts are whole gigabytes.
pub const LOW_MAX: u64 = 0xc000_0000;

/// RAM up to (not including) this size stays in one piece below the hole.
pub const LOW_LIMIT: u64 = 0xe000_0000;

/// The largest RAM of a machine: what a 46-bit guest-physical space holds with room for devices.
pub const MAX_RAM: u64 = 32 << 40;

/// What host memory is to be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RamConfig {
    /// Bytes; a multiple of [`PAGE`].
    pub size: u64,
    /// The kind of memory.
    pub backend: RamBackend,
    /// Touch every page at start, so that memory that is missing shows then.
    pub prealloc: bool,
    /// Other processes that have the file see the guest's writes.
    pub share: bool,
    /// The host may keep pages of equal contents once (KSM). A wish: it may be unable to.
    pub merge: bool,
    /// It is part of core dumps.
    pub dump: bool,
}

/// The kinds of host memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RamBackend {
    /// Private anonymous memory.
    #[default]
    Anonymous,
    /// An unnamed file in memory; its pages are huge pages of this size in bytes, if given.
    Memfd(Option<u64>),
    /// A file: this path itself, or an unlinked temporary file where it is a directory (such as
    /// a hugetlbfs mount).
    File(PathBuf),
}

/// Guest RAM that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// Zero, unaligned or too large.
    #[error("RAM size {0} is not a multiple of 4096 between 4096 and {MAX_RAM}")]
    Size(u64),
    /// The host refused.
    #[error("cannot {what}: {source}")]
    Host {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

fn host(what: impl Into<String>, source: impl Into<io::Error>) -> RamError {
    RamError::Host { what: what.into(), source: source.into() }
}

/// One piece of host memory that a guest can see.
#[derive(Debug)]
pub struct RamBlock {
    region: Arc<MmapRegion<AtomicBitmap>>,
}

impl RamBlock {
    /// Private anonymous memory of `size` bytes, for ROMs and tests.
    pub fn anonymous(size: u64) -> Result<Arc<RamBlock>, RamError> {
        Ok(Arc::new(RamBlock { region: Arc::new(map(size, None, false)?) }))
    }

    /// The first `size` bytes of a file, privately: a firmware image.
    pub fn from_file(file: &File, size: u64) -> Result<Arc<RamBlock>, RamError> {
        Ok(Arc::new(RamBlock { region: Arc::new(map(size, Some((file, 0)), false)?) }))
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.region.size() as u64
    }

    /// The mapping, for access by volatile copies.
    pub fn region(&self) -> &Arc<MmapRegion<AtomicBitmap>> {
        &self.region
    }

    /// Copies out of the block; bytes past its end are left alone.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(slice) = self.slice(offset, data.len()) {
            slice.copy_to(data);
        }
    }

    /// Copies into the block and marks its pages dirty; bytes past its end are dropped.
    pub fn write(&self, offset: u64, data: &[u8]) {
        if let Some(slice) = self.slice(offset, data.len()) {
            slice.copy_from(data);
        }
    }

    fn slice(
        &self,
        offset: u64,
        len: usize,
    ) -> Option<vm_memory::VolatileSlice<'_, vm_memory::bitmap::BS<'_, AtomicBitmap>>> {
        use vm_memory::VolatileMemory;
        let offset = usize::try_from(offset).ok()?;
        let room = self.region.size().checked_sub(offset)?;
        self.region.get_slice(offset, len.min(room)).ok()
    }

    /// Marks all pages of a range as written.
    pub fn mark_range(&self, offset: u64, size: u64) {
        self.region.bitmap().set_addr_range(offset as usize, size as usize);
    }

    /// Marks pages as written, as harvested from KVM: one bit a page from `offset` on.
    pub fn mark_dirty(&self, offset: u64, pages: &[u64]) {
        let first = (offset / PAGE) as usize;
        for (word, bits) in pages.iter().enumerate().filter(|(_, bits)| **bits != 0) {
            for bit in (0..64).filter(|bit| bits >> bit & 1 == 1) {
                self.region.bitmap().set_bit(first + word * 64 + bit);
            }
        }
    }
}

/// A piece of the machine's main memory.
#[derive(Debug, Clone)]
pub struct RamRange {
    /// Guest-physical address.
    pub guest: u64,
    /// The memory there.
    pub block: Arc<RamBlock>,
}

/// The machine's main memory.
#[derive(Debug, Clone)]
pub struct Ram {
    ranges: Vec<RamRange>,
    memory: GuestMemory,
    size: u64,
    /// The file behind it, one of a set perhaps, which is then in use.
    _file: Option<Arc<fdset::File>>,
}

impl Ram {
    /// Allocates RAM as `config` says and lays it out around the 32-bit PCI hole.
    pub fn new(config: &RamConfig) -> Result<Ram, RamError> {
        let size = config.size;
        if size == 0 || !size.is_multiple_of(PAGE) || size > MAX_RAM {
            return Err(RamError::Size(size));
        }
        let file = config.backend.open(size)?;
        let mut ranges = Vec::new();
        let mut offset = 0;
        for (guest, len) in layout(size) {
            let file = file.as_ref().map(|file| (&**file, offset));
            let region = Arc::new(map(len, file, config.share)?);
            for (wanted, advice) in
                [(config.merge, libc::MADV_MERGEABLE), (config.dump, libc::MADV_DODUMP)]
            {
                if wanted {
                    advise(&region, advice);
                }
            }
            ranges.push(RamRange { guest, block: Arc::new(RamBlock { region }) });
            offset += len;
        }
        if config.prealloc {
            ranges.iter().try_for_each(|range| prealloc(&range.block))?;
        }
        let regions = ranges.iter().map(|range| {
            GuestRegionMmap::with_arc(range.block.region.clone(), GuestAddress(range.guest))
                .ok_or(RamError::Size(size))
        });
        let memory = GuestMemory::from_regions(regions.collect::<Result<_, _>>()?)
            .map_err(|e| host("lay out guest RAM", io::Error::other(e)))?;
        Ok(Ram { ranges, memory, size, _file: file.map(Arc::new) })
    }

    /// The pieces, lowest address first.
    pub fn ranges(&self) -> &[RamRange] {
        &self.ranges
    }

    /// The DMA view.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Total size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// Address and length of each piece of `size` bytes of RAM: all below the 32-bit PCI hole, or
/// 3 GiB there and the rest from 4 GiB on.
pub fn layout(size: u64) -> Vec<(u64, u64)> {
    if size < LOW_LIMIT { vec![(0, size)] } else { vec![(0, LOW_MAX), (ABOVE_4G, size - LOW_MAX)] }
}

impl RamBackend {
    fn open(&self, size: u64) -> Result<Option<fdset::File>, RamError> {
        let (file, page): (fdset::File, u64) = match self {
            RamBackend::Anonymous => return Ok(None),
            RamBackend::Memfd(huge) => {
                let mut flags = MemfdFlags::CLOEXEC;
                if let Some(size) = huge {
                    flags |= match size {
                        0x20_0000 => MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
                        0x4000_0000 => MemfdFlags::HUGETLB | MemfdFlags::HUGE_1GB,
                        other => {
                            let what = format!("use huge pages of {other} bytes");
                            return Err(host(what, io::ErrorKind::Unsupported));
                        }
                    };
                }
                let fd = rustix::fs::memfd_create("guest-ram", flags)
                    .map_err(|e| host("create a memory file for guest RAM", e))?;
                (File::from(fd).into(), huge.unwrap_or(PAGE))
            }
            RamBackend::File(path) => open_file(path)?,
        };
        let len = size.next_multiple_of(page);
        // A file that is large enough is taken as it is: it may hold a saved guest.
        let has = file.metadata().map_err(|e| host("look at the file of guest RAM", e))?.len();
        if has < len {
            file.set_len(len)
                .map_err(|e| host(format!("make the file of guest RAM {len} bytes long"), e))?;
        }
        Ok(Some(file))
    }
}

fn open_file(path: &Path) -> Result<(fdset::File, u64), RamError> {
    let what = || format!("open '{}' for guest RAM", path.display());
    let file = if path.is_dir() {
        // O_TMPFILE is not offered by hugetlbfs on older kernels: make a file and unlink it.
        let name = path.join(format!("vmm-ram-{}", std::process::id()));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(&name, flags, Mode::RUSR | Mode::WUSR).map_err(|e| host(what(), e))?;
        rustix::fs::unlink(&name).map_err(|e| host(what(), e))?;
        File::from(fd).into()
    } else {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        fdset::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|e| host(what(), e))?
    };
    let stat = rustix::fs::fstatfs(&file).map_err(|e| host(what(), e))?;
    Ok((file, u64::try_from(stat.f_bsize).unwrap_or(PAGE).max(PAGE)))
}

fn map(
    size: u64,
    file: Option<(&File, u64)>,
    share: bool,
) -> Result<MmapRegion<AtomicBitmap>, RamError> {
    let len = usize::try_from(size).map_err(|_| RamError::Size(size))?;
    let what = || format!("map {size} bytes of guest RAM");
    let bitmap = AtomicBitmap::new(len, std::num::NonZeroUsize::MIN.saturating_add(4095));
    let sharing = match (&file, share) {
        (None, false) => libc::MAP_ANONYMOUS | libc::MAP_PRIVATE,
        (None, true) => libc::MAP_ANONYMOUS | libc::MAP_SHARED,
        (Some(_), false) => libc::MAP_PRIVATE,
        (Some(_), true) => libc::MAP_SHARED,
    };
    let mut builder = MmapRegionBuilder::new_with_bitmap(len, bitmap)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(sharing | libc::MAP_NORESERVE);
    if let Some((file, offset)) = file {
        let file = file.try_clone().map_err(|e| host(what(), e))?;
        builder = builder.with_file_offset(FileOffset::new(file, offset));
    }
    let region = builder.build().map_err(|e| host(what(), io::Error::other(e)))?;
    // Left out of core dumps, unless asked for, and of huge pages where the host has some.
    advise(&region, libc::MADV_DONTDUMP);
    advise(&region, libc::MADV_HUGEPAGE);
    Ok(region)
}

/// Gives the host an advice that changes no contents. It is a wish: its failure changes nothing
/// the user asked for.
fn advise(region: &MmapRegion<AtomicBitmap>, advice: i32) {
    // SAFETY: the range is exactly the mapping that `region` owns, and none of the advices given
    // changes its contents.
    unsafe { libc::madvise(region.as_ptr().cast(), region.size(), advice) };
}

/// Gives the host the memory behind whole pages of guest RAM; they hold zeros when they are touched
/// again. They count as written, for their contents changed. Of memory in a private file they hold
/// what is in the file.
///
/// # Errors
/// The range is not all RAM, is not of whole pages of the host, or the host cannot: it has locked
/// them in memory.
pub fn discard(memory: &GuestMemory, address: u64, len: u64) -> io::Result<()> {
    let outside = || io::Error::from(io::ErrorKind::AddrNotAvailable);
    let (mut at, mut left) = (GuestAddress(address), len);
    while left > 0 {
        let region = memory.find_region(at).ok_or_else(outside)?;
        let offset = region.to_region_addr(at).ok_or_else(outside)?.0;
        let take = left.min(region.len().saturating_sub(offset));
        discard_in(region, offset as usize, take as usize)?;
        left -= take;
        at = at.checked_add(take).ok_or_else(outside)?;
    }
    Ok(())
}

fn discard_in(region: &GuestRegionMmap<AtomicBitmap>, offset: usize, len: usize) -> io::Result<()> {
    let slice = region.get_slice(MemoryRegionAddress(offset as u64), len);
    let slice = slice.map_err(io::Error::other)?;
    let map = region.get_mmap();
    if let Some(file) = map.file_offset()
        && map.flags() & libc::MAP_SHARED != 0
    {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // SAFETY: the descriptor is open for as long as `map` lives.
        let fd = unsafe { rustix::fd::BorrowedFd::borrow_raw(file.file().as_raw_fd()) };
        rustix::fs::fallocate(fd, mode, file.start() + offset as u64, len as u64)?;
    } else {
        // SAFETY: the slice was checked to be in the mapping that `region` owns, in which nobody
        // relies on contents: a guest changes them at any time.
        let done = unsafe {
            libc::madvise(slice.ptr_guard_mut().as_ptr().cast(), len, libc::MADV_DONTNEED)
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    slice.bitmap().mark_dirty(0, len);
    Ok(())
}

/// Populates a block for writing. MADV_POPULATE_WRITE (Linux 5.14) reports missing memory as an
/// error, where touching a hugetlbfs page would end the process with SIGBUS.
fn prealloc(block: &RamBlock) -> Result<(), RamError> {
    let region = block.region();
    // SAFETY: the range is exactly the mapping that `region` owns; populating keeps its contents.
    let done =
        unsafe { libc::madvise(region.as_ptr().cast(), region.size(), libc::MADV_POPULATE_WRITE) };
    if done == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::EINVAL) {
        return Err(host(format!("preallocate {} bytes of guest RAM", region.size()), error));
    }
    // An older kernel: allocate the file's blocks where there is one, then touch every page.
    if let Some(file) = region.file_offset() {
        // SAFETY: the descriptor is open for as long as `file` lives.
        let fd = unsafe { rustix::fd::BorrowedFd::borrow_raw(file.file().as_raw_fd()) };
        let mode = FallocateFlags::empty();
        rustix::fs::fallocate(fd, mode, file.start(), region.size() as u64)
            .map_err(|e| host(format!("preallocate {} bytes of guest RAM", region.size()), e))?;
    }
    for offset in (0..block.size()).step_by(PAGE as usize) {
        let mut byte = [0];
        block.read(offset, &mut byte);
        block.write(offset, &byte);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;
    use vm_memory::bitmap::Bitmap;

    #[test]
    fn the_hole_opens_at_three_and_a_half_gigabytes() {
        assert_eq!(layout(512 << 20), [(0, 512 << 20)]);
        assert_eq!(layout(0xdfff_f000), [(0, 0xdfff_f000)]);
        assert_eq!(layout(0xe000_0000), [(0, 0xc000_0000), (ABOVE_4G, 0x2000_0000)]);
        assert_eq!(layout(6 << 30), [(0, 0xc000_0000), (ABOVE_4G, 3 << 30)]);
    }

    #[test]
    fn every_backend_holds_what_is_written() {
        let dir = std::env::temp_dir();
        let path = dir.join(format!("ram-test-{}", std::process::id()));
        let backends = [
            RamBackend::Anonymous,
            RamBackend::Memfd(None),
            RamBackend::File(dir.clone()),
            RamBackend::File(path.clone()),
        ];
        for backend in backends {
            for (share, prealloc) in [(false, false), (true, true)] {
                let size = if prealloc { 1 << 20 } else { 5 << 30 };
                let backend = backend.clone();
                let (merge, dump) = (share, share);
                let config = RamConfig { size, backend, prealloc, share, merge, dump };
                let ram = Ram::new(&config).unwrap();
                ram.memory().write_obj(0x1122_3344u32, GuestAddress(0x5000)).unwrap();
                assert_eq!(
                    ram.memory().read_obj::<u32>(GuestAddress(0x5000)).unwrap(),
                    0x1122_3344
                );
                let bitmap = ram.ranges()[0].block.region().bitmap();
                assert!(bitmap.dirty_at(0x5000) && !bitmap.dirty_at(0x6000));
                if size > LOW_LIMIT {
                    ram.memory().write_obj(1u8, GuestAddress(ABOVE_4G)).unwrap();
                    assert!(ram.memory().write_obj(1u8, GuestAddress(LOW_MAX)).is_err());
                }
            }
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn bad_sizes_and_paths_are_refused_with_the_reason() {
        for size in [0, 4097, MAX_RAM + PAGE] {
            let config = RamConfig { size, ..RamConfig::default() };
            assert!(matches!(Ram::new(&config), Err(RamError::Size(_))));
        }
        let backend = RamBackend::File("/nonexistent/file".into());
        let config = RamConfig { size: PAGE, backend, ..RamConfig::default() };
        let error = Ram::new(&config).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/file") && error.contains("No such file"), "{error}");
    }

    #[test]
    fn harvested_pages_are_marked_at_their_place() {
        let block = RamBlock::anonymous(1 << 20).unwrap();
        block.mark_dirty(0x10_000, &[0b101]);
        let bitmap = block.region().bitmap();
        assert!(bitmap.dirty_at(0x10_000) && bitmap.dirty_at(0x12_000));
        assert!(!bitmap.dirty_at(0x11_000));
    }

    #[test]
    fn accesses_past_the_end_are_cut() {
        let block = RamBlock::anonymous(PAGE).unwrap();
        block.write(PAGE - 2, &[1, 2, 3, 4]);
        let mut data = [9; 4];
        block.read(PAGE - 2, &mut data);
        assert_eq!(data, [1, 2, 9, 9]);
        block.read(PAGE + 1, &mut data);
    }
}
