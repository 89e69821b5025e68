//! Big-endian integers in byte strings: what is not there reads as zero and is not written.

use std::io;

/// A range of bytes, if all of it is there.
pub(super) fn get(data: &[u8], at: usize, len: usize) -> Option<&[u8]> {
    data.get(at..at.checked_add(len)?)
}

fn array<const N: usize>(data: &[u8], at: usize) -> [u8; N] {
    get(data, at, N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
}

/// 16 bits at a byte offset.
pub(super) fn be16(data: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(data, at))
}

/// 32 bits at a byte offset.
pub(super) fn be32(data: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(data, at))
}

/// 64 bits at a byte offset.
pub(super) fn be64(data: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array(data, at))
}

/// Writes bytes at a byte offset.
pub(super) fn put(data: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(end) = at.checked_add(bytes.len())
        && let Some(place) = data.get_mut(at..end)
    {
        place.copy_from_slice(bytes);
    }
}

/// An error of the host with this number.
pub(super) fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}
