//! Packing and unpacking clusters.
//!
//! Pure functions that run on the loop's pool. What is unpacked comes from the image: the output is
//! of the size asked for, whatever the input says.

use std::io::{self, Read};

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};

use super::bytes::errno;
use super::header::Compression;

/// Binary logarithm of the window of deflated clusters.
const WINDOW: u8 = 12;
/// Binary logarithm of the largest window of a zstd frame: more memory is not spent on one.
const ZSTD_WINDOW: u32 = 23;

/// Packs a cluster; `None` when that does not make it smaller.
pub(super) fn pack(kind: Compression, data: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut out = vec![0; data.len().saturating_sub(1)];
    match kind {
        Compression::Zlib => {
            let level = flate2::Compression::default();
            let mut deflate = Compress::new_with_window_bits(level, false, WINDOW);
            let status = deflate.compress(data, &mut out, FlushCompress::Finish);
            if !matches!(status, Ok(Status::StreamEnd)) {
                return Ok(None);
            }
            out.truncate(usize::try_from(deflate.total_out()).unwrap_or(0));
        }
        Compression::Zstd => match zstd::bulk::compress_to_buffer(data, &mut out, 0) {
            Ok(len) => out.truncate(len),
            Err(_) => return Ok(None),
        },
    }
    Ok(Some(out))
}

/// Unpacks a cluster of `size` bytes. What follows it in `data` does not matter.
pub(super) fn unpack(kind: Compression, data: &[u8], size: usize) -> io::Result<Vec<u8>> {
    let mut out = vec![0; size];
    let well = match kind {
        Compression::Zlib => {
            let mut inflate = Decompress::new(false);
            let done = inflate.decompress(data, &mut out, FlushDecompress::Finish);
            done.is_ok() && inflate.total_out() == size as u64
        }
        Compression::Zstd => {
            let mut frames = zstd::stream::read::Decoder::with_buffer(data)?;
            frames.window_log_max(ZSTD_WINDOW)?;
            frames.read_exact(&mut out).is_ok()
        }
    };
    if well { Ok(out) } else { Err(errno(libc::EIO)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let mut seed = 1u32;
        let data: Vec<u8> = (0..65536u32)
            .map(|index| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if index % 3 == 0 { (seed >> 24) as u8 } else { (index / 700) as u8 }
            })
            .collect();
        let noise: Vec<u8> = (0..4096)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8
            })
            .collect();
        for kind in [Compression::Zlib, Compression::Zstd] {
            let mut packed = pack(kind, &data).unwrap().unwrap();
            assert!(packed.len() < 60_000);
            packed.resize(packed.len().next_multiple_of(512), 0xaa);
            assert_eq!(unpack(kind, &packed, data.len()).unwrap(), data);
            unpack(kind, &packed[..512], data.len()).unwrap_err();
            unpack(kind, &noise, 65536).unwrap_err();
            assert_eq!(pack(kind, &noise).unwrap(), None);
        }
    }
}
