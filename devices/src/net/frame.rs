#![expect(unsafe_code)] // Guest memory is handed to the kernel by pointer.
//! A frame in pieces that stay where they are.
//!
//! The thread that sends; no lock. The guest may write to its pieces while they are sent: they are
//! read once, by the kernel or by a volatile copy, and never looked at as a Rust slice.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

/// The shortest Ethernet frame that anything can be done with: two addresses and a type.
pub const MIN_FRAME: usize = 14;

/// The longest frame, with its header if there is one: 64 KiB as segmentation offload makes them,
/// and generous room for what stands before.
pub const MAX_FRAME: usize = 4096 + 65536;

/// The length of the header that frames have where it is agreed on, `virtio_net_hdr_v1`.
pub const HEADER_LEN: usize = 12;

/// The most pieces that one system call takes.
const MAX_SEGMENTS: usize = 1024;

/// A piece of a frame: memory that is only read, of ours or of the guest's.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    start: *const u8,
    len: usize,
    memory: PhantomData<&'a u8>,
}

impl<'a> From<&'a [u8]> for Segment<'a> {
    fn from(bytes: &'a [u8]) -> Segment<'a> {
        Segment { start: bytes.as_ptr(), len: bytes.len(), memory: PhantomData }
    }
}

impl<'a, B: BitmapSlice> From<&VolatileSlice<'a, B>> for Segment<'a> {
    fn from(slice: &VolatileSlice<'a, B>) -> Segment<'a> {
        Segment { start: slice.ptr_guard().as_ptr(), len: slice.len(), memory: PhantomData }
    }
}

impl<'a> Segment<'a> {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The part that begins after `count` bytes; empty if there are no more.
    #[must_use]
    pub fn skip(self, count: usize) -> Segment<'a> {
        let count = count.min(self.len);
        // SAFETY: `count` is at most the length, so the pointer stays within the memory or at its
        // end.
        let start = unsafe { self.start.add(count) };
        Segment { start, len: self.len.saturating_sub(count), ..self }
    }

    fn append_to(&self, out: &mut Vec<u8>) {
        let old = out.len();
        out.resize(old.saturating_add(self.len), 0);
        let Some(room) = out.get_mut(old..) else { return };
        // SAFETY: `start..start + len` is readable for 'a, as the two ways to make a segment see
        // to. Nothing is thought of what is there: it may change meanwhile.
        let from = unsafe { VolatileSlice::with_bitmap(self.start.cast_mut(), self.len, (), None) };
        from.copy_to(room);
    }
}

/// How long all pieces are together.
pub(super) fn total(frame: &[Segment<'_>]) -> usize {
    frame.iter().fold(0, |sum, segment| sum.saturating_add(segment.len))
}

/// A copy of all pieces.
pub(super) fn gather(frame: &[Segment<'_>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(total(frame).min(MAX_FRAME));
    frame.iter().for_each(|segment| segment.append_to(&mut out));
    out
}

/// Writes all pieces as one frame to a descriptor, in one system call.
///
/// # Errors
/// Those of writev(2), `WouldBlock` among them.
pub(super) fn write(fd: BorrowedFd<'_>, frame: &[Segment<'_>]) -> io::Result<usize> {
    if frame.len() > MAX_SEGMENTS {
        let whole = gather(frame);
        return write(fd, &[whole.as_slice().into()]);
    }
    let vectors: Vec<libc::iovec> = frame
        .iter()
        .map(|segment| libc::iovec {
            iov_base: segment.start.cast_mut().cast(),
            iov_len: segment.len,
        })
        .collect();
    let count = libc::c_int::try_from(vectors.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: `vectors` holds `count` entries, each of memory that is readable while the segments
    // live; the kernel only reads it.
    let written = unsafe { libc::writev(fd.as_raw_fd(), vectors.as_ptr(), count) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

    #[test]
    fn pieces_of_ours_and_of_the_guest() {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        memory.write_slice(b"guest", GuestAddress(0x10)).unwrap();
        let slice = memory.get_slice(GuestAddress(0x10), 5).unwrap();
        let segment = Segment::from(&slice);
        let frame = [Segment::from(&b"ours "[..]), segment, segment.skip(3), segment.skip(9)];
        assert_eq!((total(&frame), gather(&frame)), (12, b"ours guestst".to_vec()));
        let (mut reader, writer) = std::io::pipe().unwrap();
        assert_eq!(write(writer.as_fd(), &frame).unwrap(), 12);
        let mut read = [0; 12];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"ours guestst");
    }

    #[test]
    fn more_pieces_than_the_kernel_takes() {
        let bytes = [7; 3000];
        let frame: Vec<_> = bytes.chunks(1).map(Segment::from).collect();
        let (_reader, writer) = std::io::pipe().unwrap();
        assert_eq!(write(writer.as_fd(), &frame).unwrap(), 3000);
    }
}
