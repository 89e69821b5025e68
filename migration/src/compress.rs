//! Pages packed with zstd: those of a chunk in one frame, each frame for itself, so that any that
//! is late harms no other.
//!
//! On the thread that sends or that receives, without locks. A peer chooses the frames: they are
//! unpacked into the room for the pages and nowhere else, whatever size they claim.

use std::io;

/// The quickest of the usual levels: a link is to be outrun, not a disk saved.
pub const LEVEL: i32 = 1;

/// The levels that can be asked for.
pub const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

/// Packs pages.
pub struct Compressor(zstd::bulk::Compressor<'static>);

impl Compressor {
    /// A higher level packs better and takes longer; those outside of zstd's range become the
    /// nearest in it.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new(level: i32) -> io::Result<Self> {
        let mut zstd = zstd::bulk::Compressor::new(level)?;
        // The length is known, and channels have checksums of their own.
        zstd.include_contentsize(false)?;
        zstd.include_checksum(false)?;
        Ok(Self(zstd))
    }

    /// Packs `pages` into the beginning of `frame`; the bytes of that, or None if it is not
    /// shorter or there is no room.
    pub fn pack(&mut self, pages: &[u8], frame: &mut [u8]) -> Option<usize> {
        let room = frame.len().min(pages.len().saturating_sub(1));
        self.0.compress_to_buffer(pages, frame.get_mut(..room)?).ok()
    }
}

/// Why a frame is none of these pages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// It is not of zstd, or more than the pages.
    #[error("packed pages cannot be unpacked: {0}")]
    Frame(String),
    /// It is less than the pages.
    #[error("packed pages have {0} bytes instead of {1}")]
    Short(usize, usize),
}

/// Unpacks pages.
pub struct Decompressor(zstd::bulk::Decompressor<'static>);

impl Decompressor {
    /// # Errors
    /// There is no memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self(zstd::bulk::Decompressor::new()?))
    }

    /// Unpacks a frame into `pages`, which it fills. Any bytes are safe to give.
    ///
    /// # Errors
    /// They are not such pages; `pages` may have been changed.
    pub fn unpack(&mut self, frame: &[u8], pages: &mut [u8]) -> Result<(), UnpackError> {
        let unpacked = self.0.decompress_to_buffer(frame, pages);
        match unpacked.map_err(|error| UnpackError::Frame(error.to_string()))? {
            len if len == pages.len() => Ok(()),
            len => Err(UnpackError::Short(len, pages.len())),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEN: usize = 3 * 4096;

    #[test]
    fn pages_come_back() {
        let mut compressor = Compressor::new(LEVEL).unwrap();
        let mut decompressor = Decompressor::new().unwrap();
        for divisor in 1..50 {
            let pages: [u8; LEN] = std::array::from_fn(|at| (at / (divisor + 2)) as u8);
            let mut frame = [0; LEN];
            let len = compressor.pack(&pages, &mut frame).unwrap();
            let mut back = [0xEE; LEN];
            decompressor.unpack(&frame[..len], &mut back).unwrap();
            assert!(back == pages, "{divisor}");
        }
    }

    #[test]
    fn noise_is_not_packed() {
        let mut state = 1_u64;
        let noise: [u8; LEN] = std::array::from_fn(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        let mut compressor = Compressor::new(LEVEL).unwrap();
        let mut frame = [0; LEN];
        assert_eq!(compressor.pack(&noise, &mut frame), None);
        assert_eq!(compressor.pack(&[], &mut frame), None);
        // It works on.
        assert!(compressor.pack(&[1; LEN], &mut frame).unwrap() < 64);
    }

    #[test]
    fn frames_of_other_lengths_are_refused() {
        let mut decompressor = Decompressor::new().unwrap();
        let mut pages = [0; LEN];
        let mut unpack = |content: &[u8]| {
            let frame = zstd::bulk::compress(content, 1).unwrap();
            decompressor.unpack(&frame, &mut pages)
        };
        assert_eq!(unpack(&[1; LEN]), Ok(()));
        assert_eq!(unpack(&[1; LEN - 1]), Err(UnpackError::Short(LEN - 1, LEN)));
        assert!(matches!(unpack(&[1; LEN + 1]), Err(UnpackError::Frame(_))));
        assert!(matches!(unpack(&vec![1; 1 << 30 >> 4]), Err(UnpackError::Frame(_))));
        assert!(matches!(decompressor.unpack(b"x", &mut pages), Err(UnpackError::Frame(_))));
        assert_eq!(decompressor.unpack(b"", &mut pages), Err(UnpackError::Short(0, LEN)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe_to_unpack(
            frame in prop::collection::vec(any::<u8>(), 0..64),
            at in 0..64_usize,
            byte in any::<u8>(),
        ) {
            let mut decompressor = Decompressor::new().unwrap();
            let mut pages = [0; LEN];
            let _ = decompressor.unpack(&frame, &mut pages);
            // One that is nearly right.
            let mut compressor = Compressor::new(LEVEL).unwrap();
            let mut frame = [0; LEN];
            let content: [u8; LEN] = std::array::from_fn(|at| (at / 50) as u8);
            let len = compressor.pack(&content, &mut frame).unwrap();
            frame[at % len] = byte;
            let _ = decompressor.unpack(&frame[..len], &mut pages);
        }
    }
}
