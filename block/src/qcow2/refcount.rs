//! The refcounts in a refcount block: numbers of 1 to 64 bits.
//!
//! Those narrower than a byte fill it from its least significant bit; wider ones are big-endian.
//! Pure functions; an index beyond the block reads as zero and is not written.

use super::bytes::{get as bytes, put};

/// The largest refcount of `1 << order` bits.
pub(super) fn most(order: u32) -> u64 {
    u64::MAX >> (64 - (1u32 << order.min(6)))
}

/// The refcount at `index` of a block.
pub(super) fn get(block: &[u8], order: u32, index: u64) -> u64 {
    let Ok(index) = usize::try_from(index) else { return 0 };
    if order < 3 {
        let shift = (index << order) & 7;
        let byte = block.get(index >> (3 - order)).copied().unwrap_or_default();
        return u64::from(byte) >> shift & most(order);
    }
    let len = 1usize << (order.min(6) - 3);
    let bytes = index.checked_mul(len).and_then(|at| bytes(block, at, len)).unwrap_or_default();
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Writes the refcount at `index` of a block; the caller sees to it that it fits.
pub(super) fn set(block: &mut [u8], order: u32, index: u64, count: u64) {
    let Ok(index) = usize::try_from(index) else { return };
    let count = count & most(order);
    if order < 3 {
        let shift = (index << order) & 7;
        if let Some(byte) = block.get_mut(index >> (3 - order)) {
            *byte = (*byte & !((most(order) as u8) << shift)) | (count as u8) << shift;
        }
        return;
    }
    let len = 1usize << (order.min(6) - 3);
    if let Some(at) = index.checked_mul(len) {
        let bytes = count.to_be_bytes();
        put(block, at, bytes.get(8 - len..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_keeps_its_numbers_apart() {
        for order in 0..=6 {
            let mut block = [0u8; 512];
            let count = (512 * 8) >> order;
            let value = |index: u64| index.wrapping_mul(0x9e37_79b9_7f4a_7c15) & most(order);
            for index in 0..count {
                set(&mut block, order, index, value(index));
            }
            for index in 0..count {
                assert_eq!(get(&block, order, index), value(index), "order {order}");
            }
            set(&mut block, order, count, 1);
            assert_eq!(get(&block, order, count), 0);
        }
    }

    #[test]
    fn the_places_are_those_of_the_format() {
        let block = [0b0000_0110, 0x21, 0, 7];
        assert_eq!((get(&block, 0, 0), get(&block, 0, 1), get(&block, 0, 2)), (0, 1, 1));
        assert_eq!((get(&block, 1, 0), get(&block, 1, 1)), (2, 1));
        assert_eq!((get(&block, 2, 2), get(&block, 2, 3)), (1, 2));
        assert_eq!(get(&block, 4, 1), 7);
        assert_eq!((most(0), most(4), most(6)), (1, 0xffff, u64::MAX));
    }
}
