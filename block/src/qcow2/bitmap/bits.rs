//! The bits of a dirty bitmap.
//!
//! Plain data; sizes are bounded by the format.

use super::directory::MAX_BITMAP_BYTES;

/// Which parts of a disk are dirty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bits {
    size: u64,
    granularity_bits: u32,
    /// The lowest bit of each byte is the first.
    bytes: Vec<u8>,
}

impl Bits {
    /// For a disk of `size` bytes, a bit for each `1 << granularity_bits` of them, none set. `None`
    /// when those are more than a bitmap may have.
    pub fn new(size: u64, granularity_bits: u32) -> Option<Bits> {
        let count =
            size.checked_add((1u64.checked_shl(granularity_bits)?) - 1)? >> granularity_bits;
        let bytes = count.div_ceil(8);
        let len = usize::try_from(bytes).ok().filter(|_| bytes <= MAX_BITMAP_BYTES)?;
        Some(Bits { size, granularity_bits, bytes: vec![0; len] })
    }

    /// Binary logarithm of the bytes that a bit stands for.
    pub fn granularity_bits(&self) -> u32 {
        self.granularity_bits
    }

    /// All bits, the lowest one of each byte first.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Whether the part with this byte of the disk is dirty.
    pub fn get(&self, offset: u64) -> bool {
        let bit = offset >> self.granularity_bits;
        self.bytes.get((bit / 8) as usize).is_some_and(|byte| byte & (1 << (bit % 8)) != 0)
    }

    /// Makes a range of the disk dirty.
    pub fn set(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.size);
        if offset >= end {
            return;
        }
        for bit in offset >> self.granularity_bits..=(end - 1) >> self.granularity_bits {
            if let Some(byte) = self.bytes.get_mut((bit / 8) as usize) {
                *byte |= 1 << (bit % 8);
            }
        }
    }

    /// Makes everything dirty that is so in `other`.
    pub fn merge(&mut self, other: &Bits) {
        for (at, byte) in other.bytes.iter().enumerate().filter(|(_, byte)| **byte != 0) {
            for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                let bit = at as u64 * 8 + bit;
                self.set(bit << other.granularity_bits, 1 << other.granularity_bits);
            }
        }
    }

    /// How many bytes of the disk are dirty.
    pub fn count(&self) -> u64 {
        let ones: u64 = self.bytes.iter().map(|byte| u64::from(byte.count_ones())).sum();
        (ones << self.granularity_bits).min(self.size)
    }
}
