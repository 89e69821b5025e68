//! Metadata written to the file below, past every cache.
//!
//! On the loop of the graph, no lock. Offsets come from images: what lies behind the end of the
//! file reads as zeros, and lengths are bounded by whoever asks.

use std::io;

use resources::iol::IoBuf;

use super::bytes::errno;
use crate::node::Node;

/// Bytes written at once where much is written.
pub(super) const PIECE: u64 = 1 << 20;

/// Writes all of `data` at `offset`.
pub(super) async fn store(file: &dyn Node, offset: u64, data: &[u8]) -> io::Result<()> {
    file.write(offset, IoBuf::copy_of(data), false).await
}

/// Writes zeros where nothing may be left to chance, and has them take room.
pub(super) async fn store_zeros(file: &dyn Node, offset: u64, len: u64) -> io::Result<()> {
    let zeros = IoBuf::zeroed(len.min(PIECE) as usize);
    let mut done = 0;
    while done < len {
        let part = zeros.slice(0..(len - done).min(PIECE) as usize);
        let count = part.len() as u64;
        file.write(offset.checked_add(done).ok_or(errno(libc::EFBIG))?, part, false).await?;
        done += count;
    }
    Ok(())
}
/// Reads `len` bytes at `offset`. The caller has bounded `len`.
pub(super) async fn load(file: &dyn Node, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    let room = usize::try_from(len).map_err(|_| errno(libc::EFBIG))?;
    let inside = file.info().size.saturating_sub(offset).min(len) as usize;
    let buf = IoBuf::zeroed(inside);
    if inside > 0 {
        file.read(offset, buf.clone()).await?;
    }
    let mut data = buf.to_vec();
    data.resize(room, 0);
    Ok(data)
}
