//! Pages packed with zstd, each a frame of its own, so that any that is lost or late harms no
//! other.
//!
//! On the thread that sends or that receives, without locks. A peer chooses the frames: they are
//! unpacked into the page and nowhere else, whatever size they claim.

use std::io;

use crate::xbzrle::{PAGE_SIZE, Page};

/// The quickest of the usual levels: a link is to be outrun, not a disk saved.
pub const LEVEL: i32 = 1;

/// Packs pages.
pub struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
    frame: Box<Page>,
}

impl Compressor {
    /// A higher level packs better and takes longer; those outside of zstd's range, which is up to
    /// 22, become the nearest in it.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new(level: i32) -> io::Result<Self> {
        let mut zstd = zstd::bulk::Compressor::new(level)?;
        // The length of a page is known, and channels have checksums of their own.
        zstd.include_contentsize(false)?;
        zstd.include_checksum(false)?;
        Ok(Self { zstd, frame: Box::new([0; PAGE_SIZE]) })
    }

    /// The page packed; None if that is not shorter.
    pub fn pack(&mut self, page: &Page) -> Option<&[u8]> {
        let room = self.frame.get_mut(..PAGE_SIZE - 1)?;
        let len = self.zstd.compress_to_buffer(page, room).ok()?;
        self.frame.get(..len)
    }
}

/// Why a frame is no page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// It is not of zstd, or more than a page.
    #[error("a packed page cannot be unpacked: {0}")]
    Frame(String),
    /// It is less than a page.
    #[error("a packed page has {0} bytes")]
    Short(usize),
}

/// Unpacks pages.
pub struct Decompressor(zstd::bulk::Decompressor<'static>);

impl Decompressor {
    /// # Errors
    /// There is no memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self(zstd::bulk::Decompressor::new()?))
    }

    /// Unpacks a frame into `page`. Any bytes are safe to give.
    ///
    /// # Errors
    /// They are not a page; `page` may have been changed.
    pub fn unpack(&mut self, frame: &[u8], page: &mut Page) -> Result<(), UnpackError> {
        let unpacked = self.0.decompress_to_buffer(frame, page.as_mut_slice());
        match unpacked.map_err(|error| UnpackError::Frame(error.to_string()))? {
            PAGE_SIZE => Ok(()),
            len => Err(UnpackError::Short(len)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pages_come_back() {
        let mut compressor = Compressor::new(LEVEL).unwrap();
        let mut decompressor = Decompressor::new().unwrap();
        for divisor in 1..50 {
            let page: Page = std::array::from_fn(|at| (at / (divisor + 2)) as u8);
            let frame = compressor.pack(&page).unwrap();
            let mut back = [0xEE; PAGE_SIZE];
            decompressor.unpack(frame, &mut back).unwrap();
            assert!(back == page, "{divisor}");
        }
    }

    #[test]
    fn noise_is_not_packed() {
        let mut state = 1_u64;
        let noise = std::array::from_fn(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        let mut compressor = Compressor::new(LEVEL).unwrap();
        assert_eq!(compressor.pack(&noise), None);
        // It works on.
        assert!(compressor.pack(&[1; PAGE_SIZE]).unwrap().len() < 64);
    }

    #[test]
    fn frames_of_other_lengths_are_refused() {
        let mut decompressor = Decompressor::new().unwrap();
        let mut page = [0; PAGE_SIZE];
        let mut unpack = |content: &[u8]| {
            let frame = zstd::bulk::compress(content, 1).unwrap();
            decompressor.unpack(&frame, &mut page)
        };
        assert_eq!(unpack(&[1; PAGE_SIZE]), Ok(()));
        assert_eq!(unpack(&[1; 4095]), Err(UnpackError::Short(4095)));
        assert!(matches!(unpack(&[1; 4097]), Err(UnpackError::Frame(_))));
        assert!(matches!(unpack(&vec![1; 1 << 30 >> 4]), Err(UnpackError::Frame(_))));
        assert!(matches!(decompressor.unpack(b"x", &mut page), Err(UnpackError::Frame(_))));
        assert_eq!(decompressor.unpack(b"", &mut page), Err(UnpackError::Short(0)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe_to_unpack(
            frame in prop::collection::vec(any::<u8>(), 0..64),
            at in 0..64_usize,
            byte in any::<u8>(),
        ) {
            let mut decompressor = Decompressor::new().unwrap();
            let mut page = [0; PAGE_SIZE];
            let _ = decompressor.unpack(&frame, &mut page);
            // One that is nearly right.
            let mut compressor = Compressor::new(LEVEL).unwrap();
            let mut frame = compressor.pack(&std::array::from_fn(|at| (at / 50) as u8)).unwrap().to_vec();
            let at = at % frame.len();
            frame[at] = byte;
            let _ = decompressor.unpack(&frame, &mut page);
        }
    }
}
