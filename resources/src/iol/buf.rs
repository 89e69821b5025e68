//! Memory for reads and writes: pieces of guest RAM, or memory of our own.
//!
//! An [`IoBuf`] is what every layer between a device and a file hands on by value. Clones and
//! slices share the memory; nobody gets a Rust reference into it, because the guest, the kernel
//! and other clones change it at any time: it is copied in and out, or named to the kernel by
//! address. Whoever writes guest RAM through one marks the pages dirty, since KVM's dirty log does
//! not see the writes of this process.
//!
//! Any thread, no lock. A guest chooses the addresses and lengths: they are checked once, when the
//! buffer is made, and only RAM passes.
#![expect(unsafe_code, reason = "the kernel is given memory by address")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::Arc;

use vm_memory::bitmap::{AtomicBitmap, Bitmap, BitmapSlice};
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryRegion, MmapRegion, VolatileMemory, VolatileSlice,
};

use crate::ram::{GuestMemory, PAGE, RamBlock};

/// Pieces of memory that one call of the kernel takes (`IOV_MAX`); what lies behind them is left
/// to the next call, as after any short read or write.
const IOV_MAX: usize = 1024;

/// An address range that is not all RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at guest address {addr:#x} are not RAM")]
pub struct NotRam {
    /// Guest-physical address.
    pub addr: u64,
    /// Bytes.
    pub len: usize,
}

/// Memory for a read or a write: a sequence of pieces, seen as one run of bytes.
#[derive(Clone)]
pub struct IoBuf {
    pieces: Pieces,
    /// The part of `pieces` that this buffer is.
    start: usize,
    len: usize,
}

/// Most buffers are one piece, which then costs no allocation.
#[derive(Clone)]
enum Pieces {
    One(Piece),
    Many(Arc<[Piece]>),
}

#[derive(Clone)]
struct Piece {
    memory: Memory,
    /// Within `memory`; checked when the piece was made.
    offset: usize,
    len: usize,
}

#[derive(Clone)]
enum Memory {
    Guest(Arc<MmapRegion<AtomicBitmap>>),
    Owned(Arc<Owned>),
}

/// Zeroed memory of our own, aligned to pages so that it suits direct I/O.
struct Owned {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory is owned by this object and only ever accessed by volatile copies or by the
// kernel, like guest RAM; no Rust reference into it exists.
unsafe impl Send for Owned {}
// SAFETY: as above.
unsafe impl Sync for Owned {}

impl Owned {
    fn new(len: usize) -> Arc<Owned> {
        // A length beyond isize::MAX is a bug of ours and cannot be allocated anyway.
        let layout = Layout::from_size_align(len.max(1), PAGE as usize)
            .unwrap_or_else(|_| handle_alloc_error(Layout::new::<u8>()));
        // SAFETY: the size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        Arc::new(Owned { start, layout })
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout; the last owner is here.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

impl Piece {
    fn address(&self) -> *mut u8 {
        let start = match &self.memory {
            Memory::Guest(region) => region.as_ptr(),
            Memory::Owned(owned) => owned.start.as_ptr(),
        };
        // SAFETY: `offset` is within the memory: see the field.
        unsafe { start.add(self.offset) }
    }

    fn cut(&self, from: usize, len: usize) -> Piece {
        Piece { memory: self.memory.clone(), offset: self.offset + from, len }
    }

    /// Gives `visit` the bytes `from..from + len` of this piece for a volatile copy.
    fn volatile(&self, from: usize, len: usize, visit: &mut impl Visit) {
        match &self.memory {
            Memory::Guest(region) => {
                if let Ok(slice) = region.get_slice(self.offset + from, len) {
                    visit.slice(slice);
                }
            }
            Memory::Owned(owned) => {
                // SAFETY: the range is within the allocation, which `owned` keeps; it is accessed
                // by volatile copies alone.
                visit.slice(unsafe {
                    VolatileSlice::new(owned.start.as_ptr().add(self.offset + from), len)
                });
            }
        }
    }

    fn mark_dirty(&self, from: usize, len: usize) {
        if let Memory::Guest(region) = &self.memory {
            region.bitmap().mark_dirty(self.offset + from, len);
        }
    }
}

/// What is done with each piece: a closure generic over the kind of dirty bitmap.
trait Visit {
    fn slice<B: BitmapSlice>(&mut self, slice: VolatileSlice<'_, B>);
}

struct CopyTo<'a>(&'a mut [u8]);
struct CopyFrom<'a>(&'a [u8]);
struct Fill(u8);
struct AllZero(bool);

impl Visit for CopyTo<'_> {
    fn slice<B: BitmapSlice>(&mut self, slice: VolatileSlice<'_, B>) {
        let data = std::mem::take(&mut self.0);
        let (now, later) = data.split_at_mut(slice.len().min(data.len()));
        slice.copy_to(now);
        self.0 = later;
    }
}

impl Visit for CopyFrom<'_> {
    fn slice<B: BitmapSlice>(&mut self, slice: VolatileSlice<'_, B>) {
        let (now, later) = self.0.split_at(slice.len().min(self.0.len()));
        slice.copy_from(now);
        self.0 = later;
    }
}

impl Visit for Fill {
    fn slice<B: BitmapSlice>(&mut self, slice: VolatileSlice<'_, B>) {
        let block = [self.0; 512];
        let mut at = 0;
        while at < slice.len() {
            let len = block.len().min(slice.len() - at);
            if let Ok(part) = slice.subslice(at, len) {
                part.copy_from(&block[..len]);
            }
            at += len;
        }
    }
}

impl Visit for AllZero {
    fn slice<B: BitmapSlice>(&mut self, slice: VolatileSlice<'_, B>) {
        let mut block = [0u8; 512];
        let mut at = 0;
        while self.0 && at < slice.len() {
            let len = block.len().min(slice.len() - at);
            if let Ok(part) = slice.subslice(at, len) {
                part.copy_to(&mut block[..len]);
            }
            self.0 = block[..len].iter().all(|byte| *byte == 0);
            at += len;
        }
    }
}

impl IoBuf {
    /// `len` zero bytes of our own, aligned to a page.
    pub fn zeroed(len: usize) -> IoBuf {
        let piece = Piece { memory: Memory::Owned(Owned::new(len)), offset: 0, len };
        IoBuf { pieces: Pieces::One(piece), start: 0, len }
    }

    /// A copy of `data`, aligned to a page.
    pub fn copy_of(data: &[u8]) -> IoBuf {
        let buf = IoBuf::zeroed(data.len());
        buf.copy_from(0, data);
        buf
    }

    /// Nothing.
    pub fn empty() -> IoBuf {
        IoBuf { pieces: Pieces::Many(Arc::new([])), start: 0, len: 0 }
    }

    /// Guest RAM: ranges of guest-physical address and length, one behind the other.
    ///
    /// # Errors
    /// When one of them is not all RAM, or they are more bytes than can be addressed.
    pub fn guest(
        memory: &GuestMemory,
        ranges: impl IntoIterator<Item = (GuestAddress, usize)>,
    ) -> Result<IoBuf, NotRam> {
        let mut first = None;
        let mut pieces = Vec::new();
        let mut total = 0usize;
        for (addr, len) in ranges {
            let refuse = NotRam { addr: addr.0, len };
            total = total.checked_add(len).ok_or(refuse)?;
            let (mut at, mut left) = (addr, len);
            // A range may cross from one region into an adjoining one.
            while left > 0 {
                let region = memory.find_region(at).ok_or(refuse)?;
                let offset = region.to_region_addr(at).ok_or(refuse)?.0;
                let room = region.len().saturating_sub(offset);
                let take = usize::try_from(room).unwrap_or(usize::MAX).min(left);
                let piece = Piece {
                    memory: Memory::Guest(region.get_mmap()),
                    offset: usize::try_from(offset).map_err(|_| refuse)?,
                    len: take,
                };
                if first.is_none() {
                    first = Some(piece);
                } else {
                    pieces.push(piece);
                }
                left -= take;
                if left > 0 {
                    at = GuestAddress(at.0.checked_add(take as u64).ok_or(refuse)?);
                }
            }
        }
        let Some(first) = first else { return Ok(IoBuf::empty()) };
        let pieces = if pieces.is_empty() {
            Pieces::One(first)
        } else {
            pieces.insert(0, first);
            Pieces::Many(pieces.into())
        };
        Ok(IoBuf { pieces, start: 0, len: total })
    }

    /// A part of a block of guest memory; what lies beyond its end is left out.
    pub fn block(block: &RamBlock, range: Range<usize>) -> IoBuf {
        let memory = Memory::Guest(block.region().clone());
        let end = range.end.min(block.region().size());
        let offset = range.start.min(end);
        let len = end - offset;
        IoBuf { pieces: Pieces::One(Piece { memory, offset, len }), start: 0, len }
    }

    /// Buffers one behind the other as one.
    pub fn concat(bufs: &[IoBuf]) -> IoBuf {
        let mut pieces = Vec::new();
        for buf in bufs {
            buf.each(0..buf.len, |piece, from, len| pieces.push(piece.cut(from, len)));
        }
        let len = pieces.iter().map(|piece| piece.len).sum();
        IoBuf { pieces: Pieces::Many(pieces.into()), start: 0, len }
    }

    /// How many bytes it is.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is of no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A part of it, sharing the memory; what lies beyond its end is left out.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> IoBuf {
        let end = range.end.min(self.len);
        let start = range.start.min(end);
        IoBuf { pieces: self.pieces.clone(), start: self.start + start, len: end - start }
    }

    /// What is left behind the first `at` bytes.
    #[must_use]
    pub fn skip(&self, at: usize) -> IoBuf {
        self.slice(at..self.len)
    }

    /// Copies the bytes from `at` on into `data`; returns how many there were.
    pub fn copy_to(&self, at: usize, data: &mut [u8]) -> usize {
        let range = self.clip(at, data.len());
        let (count, mut copy) = (range.len(), CopyTo(data));
        self.each(range, |piece, from, len| piece.volatile(from, len, &mut copy));
        count
    }

    /// Copies `data` to the bytes from `at` on; returns how many there was room for.
    pub fn copy_from(&self, at: usize, data: &[u8]) -> usize {
        let range = self.clip(at, data.len());
        let (count, mut copy) = (range.len(), CopyFrom(data));
        self.each(range, |piece, from, len| piece.volatile(from, len, &mut copy));
        count
    }

    /// Copies as much of `from` as there is room for; returns how much that was. The two must not
    /// overlap.
    pub fn copy_from_buf(&self, from: &IoBuf) -> usize {
        let mut block = [0u8; 4096];
        let total = self.len.min(from.len);
        let mut at = 0;
        while at < total {
            let len = block.len().min(total - at);
            from.copy_to(at, &mut block[..len]);
            self.copy_from(at, &block[..len]);
            at += len;
        }
        total
    }

    /// Writes `byte` everywhere.
    pub fn fill(&self, byte: u8) {
        self.each(0..self.len, |piece, from, len| piece.volatile(from, len, &mut Fill(byte)));
    }

    /// Whether every byte was zero when it was looked at.
    pub fn is_zero(&self) -> bool {
        let mut all = AllZero(true);
        self.each(0..self.len, |piece, from, len| piece.volatile(from, len, &mut all));
        all.0
    }

    /// A copy of the bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut data = vec![0; self.len];
        self.copy_to(0, &mut data);
        data
    }

    /// Whether address and length of every piece are multiples of `align`, a power of two, as
    /// direct I/O wants them.
    pub fn is_aligned(&self, align: usize) -> bool {
        let mask = align.wrapping_sub(1);
        let mut aligned = true;
        self.each(0..self.len, |piece, from, len| {
            aligned &= ((piece.address() as usize + from) | len) & mask == 0;
        });
        aligned
    }

    /// Reads from a descriptor as `readv` or, with an offset, `preadv` does, and marks what was
    /// read as dirty.
    ///
    /// # Errors
    /// Those of the call.
    pub fn readv(&self, fd: impl AsFd, offset: Option<u64>) -> io::Result<usize> {
        let mut iovecs = Vec::new();
        self.iovecs(&mut iovecs);
        let (fd, count) = (fd.as_fd().as_raw_fd(), iovecs.len() as libc::c_int);
        let done = match offset.map(offset_of).transpose()? {
            // SAFETY: every iovec lies in memory that `self` keeps; a foreign write to it is
            // like one of the guest.
            None => unsafe { libc::readv(fd, iovecs.as_ptr(), count) },
            // SAFETY: as above.
            Some(offset) => unsafe { libc::preadv64(fd, iovecs.as_ptr(), count, offset) },
        };
        let result = usize::try_from(done).map_err(|_| io::Error::last_os_error());
        self.was_read(&result);
        result
    }

    /// As [`readv`](Self::readv) at an offset, of what need not be waited for: what the host has
    /// in memory.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing of it; otherwise those of `preadv2`, such as that the
    /// file system cannot tell.
    pub fn readv_now(&self, fd: impl AsFd, offset: u64) -> io::Result<usize> {
        let mut iovecs = Vec::new();
        self.iovecs(&mut iovecs);
        let (fd, count) = (fd.as_fd().as_raw_fd(), iovecs.len() as libc::c_int);
        let (offset, flags) = (offset_of(offset)?, libc::RWF_NOWAIT);
        // SAFETY: every iovec lies in memory that `self` keeps; a foreign write to it is like one
        // of the guest.
        let done = unsafe { libc::preadv2(fd, iovecs.as_ptr(), count, offset, flags) };
        let result = usize::try_from(done).map_err(|_| io::Error::last_os_error());
        self.was_read(&result);
        result
    }

    /// Writes to a descriptor as `writev` or, with an offset, `pwritev` does. `durable` (with an
    /// offset only): it is on stable storage when the call returns.
    ///
    /// # Errors
    /// Those of the call.
    pub fn writev(&self, fd: impl AsFd, offset: Option<u64>, durable: bool) -> io::Result<usize> {
        let mut iovecs = Vec::new();
        self.iovecs(&mut iovecs);
        let (fd, count) = (fd.as_fd().as_raw_fd(), iovecs.len() as libc::c_int);
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        let done = match offset.map(offset_of).transpose()? {
            // SAFETY: every iovec lies in memory that `self` keeps.
            None => unsafe { libc::writev(fd, iovecs.as_ptr(), count) },
            // SAFETY: as above.
            Some(offset) => unsafe { libc::pwritev2(fd, iovecs.as_ptr(), count, offset, flags) },
        };
        usize::try_from(done).map_err(|_| io::Error::last_os_error())
    }

    /// What the kernel has written to this buffer: guest pages become dirty. After an error it may
    /// have written anything.
    pub(super) fn was_read(&self, result: &io::Result<usize>) {
        let count = *result.as_ref().unwrap_or(&self.len);
        self.each(self.clip(0, count), |piece, from, len| piece.mark_dirty(from, len));
    }

    /// The pieces for the kernel, which may use them for as long as this buffer or its like lives.
    pub(super) fn iovecs(&self, into: &mut Vec<libc::iovec>) {
        into.clear();
        self.each(0..self.len, |piece, from, len| {
            if into.len() < IOV_MAX {
                let iov_base = piece.address().wrapping_add(from).cast();
                into.push(libc::iovec { iov_base, iov_len: len });
            }
        });
    }

    fn clip(&self, at: usize, len: usize) -> Range<usize> {
        let start = at.min(self.len);
        start..start.saturating_add(len).min(self.len)
    }

    /// Calls `visit` with each piece that `range`, which is within the buffer, touches, and with
    /// start and length of what it touches of it.
    fn each(&self, range: Range<usize>, mut visit: impl FnMut(&Piece, usize, usize)) {
        let pieces = match &self.pieces {
            Pieces::One(piece) => std::slice::from_ref(piece),
            Pieces::Many(pieces) => pieces,
        };
        let (mut skip, mut left) = (self.start + range.start, range.len());
        for piece in pieces {
            if left == 0 {
                break;
            }
            if skip >= piece.len {
                skip -= piece.len;
                continue;
            }
            let len = (piece.len - skip).min(left);
            visit(piece, skip, len);
            left -= len;
            skip = 0;
        }
    }
}

/// The kernel's form of an offset. Beyond it lies one that io_uring takes for "where the file is".
pub(super) fn offset_of(offset: u64) -> io::Result<i64> {
    i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl Default for IoBuf {
    fn default() -> Self {
        IoBuf::empty()
    }
}

impl fmt::Debug for IoBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoBuf({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    const MIB: usize = 1 << 20;

    /// Two regions side by side and one apart.
    fn memory() -> GuestMemory {
        let at = |addr: u64| (GuestAddress(addr), MIB);
        GuestMemory::from_ranges(&[at(0), at(MIB as u64), at(4 << 20)]).unwrap()
    }

    fn guest(memory: &GuestMemory, ranges: &[(u64, usize)]) -> Result<IoBuf, NotRam> {
        IoBuf::guest(memory, ranges.iter().map(|(addr, len)| (GuestAddress(*addr), *len)))
    }

    fn dirty(memory: &GuestMemory, addr: u64) -> bool {
        let region = memory.find_region(GuestAddress(addr)).unwrap();
        region.get_mmap().bitmap().is_addr_set((addr - region.start_addr().0) as usize)
    }

    #[test]
    fn pieces_are_one_run_of_bytes() {
        let memory = memory();
        let edge = MIB as u64;
        let buf = guest(&memory, &[(edge - 2, 4), (0x5000, 0), (4 << 20, 3)]).unwrap();
        assert_eq!(buf.len(), 7);
        assert_eq!(buf.copy_from(0, b"abcdefgh"), 7);
        assert_eq!(buf.to_vec(), b"abcdefg");
        let part = buf.slice(1..6).skip(2);
        assert_eq!(part.to_vec(), b"def");
        assert_eq!(part.copy_from(2, b"XY"), 1);
        assert_eq!(part.slice(2..99).to_vec(), b"X");
        assert!(part.skip(7).is_empty());
        let joined = IoBuf::concat(&[part.clone(), IoBuf::copy_of(b"--"), buf.slice(0..1)]);
        assert_eq!(joined.to_vec(), b"deX--a");
        joined.fill(0);
        assert_eq!(joined.to_vec(), [0; 6]);
        assert!(joined.is_zero());
        assert_eq!(buf.to_vec(), b"\0bc\0\0\0g");
        assert!(!buf.is_zero());
        assert_eq!(buf.to_vec(), b"\0bc\0\0\0g");
        let copy = IoBuf::zeroed(4);
        assert_eq!(copy.copy_from_buf(&buf), 4);
        assert_eq!(copy.to_vec(), b"\0bc\0");
        let mut two = [9; 2];
        assert_eq!(buf.copy_to(6, &mut two), 1);
        assert_eq!(two, [b'g', 9]);
        assert_eq!(buf.copy_to(7, &mut two), 0);
    }

    #[test]
    fn only_ram_passes() {
        let memory = memory();
        for (addr, len) in
            [(2 << 20, 1), ((2 << 20) - 1, 2), (u64::MAX, 1), (u64::MAX, 2), (0, usize::MAX)]
        {
            let refused = guest(&memory, &[(0, 1), (addr, len)]).unwrap_err();
            assert_eq!(refused, NotRam { addr, len });
        }
        assert!(guest(&memory, &[(7 << 20, 0)]).unwrap().is_empty());
        assert!(guest(&memory, &[]).unwrap().is_empty());
    }

    #[test]
    fn what_is_written_to_guest_ram_is_dirty() {
        let memory = memory();
        let buf = guest(&memory, &[(0x1000, 4096), (0x8000, 4096)]).unwrap();
        buf.copy_to(0, &mut [0; 8192]);
        assert!(!dirty(&memory, 0x1000));
        buf.slice(4096..4097).fill(1);
        assert!(dirty(&memory, 0x8000) && !dirty(&memory, 0x1000));

        let buf = guest(&memory, &[(0x20000, 4096), (0x30000, 4096)]).unwrap();
        let file = vmm_sys_util::tempfile::TempFile::new().unwrap().into_file();
        file.set_len(100).unwrap();
        assert_eq!(buf.readv(&file, Some(0)).unwrap(), 100);
        assert!(dirty(&memory, 0x20000) && !dirty(&memory, 0x30000));
        buf.readv(File::open("/").unwrap(), Some(0)).unwrap_err();
        assert!(dirty(&memory, 0x30000));
    }

    #[test]
    fn alignment_is_of_every_piece() {
        let memory = memory();
        assert!(guest(&memory, &[(0x1000, 512), (0x2200, 1024)]).unwrap().is_aligned(512));
        assert!(!guest(&memory, &[(0x1000, 512), (0x2201, 1024)]).unwrap().is_aligned(512));
        assert!(!guest(&memory, &[(0x1000, 511)]).unwrap().is_aligned(512));
        assert!(IoBuf::zeroed(8192).slice(4096..8192).is_aligned(4096));
        assert!(!IoBuf::zeroed(8192).slice(1..4097).is_aligned(4096));
        assert!(IoBuf::empty().is_aligned(4096));
    }

    #[test]
    fn a_file_takes_and_gives_the_bytes() {
        let memory = memory();
        let file = vmm_sys_util::tempfile::TempFile::new().unwrap().into_file();
        let buf = guest(&memory, &[(0x1000, 3), (0x2000, 4)]).unwrap();
        buf.copy_from(0, b"written");
        assert_eq!(buf.writev(&file, Some(10), true).unwrap(), 7);
        let back = IoBuf::zeroed(20);
        assert_eq!(back.readv(&file, Some(9)).unwrap(), 8);
        assert_eq!(back.slice(0..8).to_vec(), b"\0written");
        buf.writev(&file, Some(u64::MAX), false).unwrap_err();
        let (reader, writer) = std::io::pipe().unwrap();
        assert_eq!(buf.writev(&writer, None, false).unwrap(), 7);
        assert_eq!(back.readv(&reader, None).unwrap(), 7);
        // More pieces than the kernel takes at once: a short write.
        let many: Vec<_> = (0..2000).map(|i| (i * 8, 1)).collect();
        assert_eq!(guest(&memory, &many).unwrap().writev(&file, Some(0), false).unwrap(), IOV_MAX);
    }
}
