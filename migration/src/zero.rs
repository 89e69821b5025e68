//! Pages of zeros: they travel as a mark of a few bytes.
//!
//! Any thread, no lock. The guest chooses the bytes; they only steer how soon the answer is known.

#![expect(unsafe_code)] // calling a function for instructions that were just found present

use crate::simd::Simd;

/// So many bytes are looked at between two decisions.
const BLOCK: usize = 256;

/// Whether all bytes are zero. Pages that are not mostly show it in their first bytes, so the
/// answer for these is quick; for others it comes at the speed of memory.
#[inline]
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    if bytes.first().is_some_and(|&first| first != 0) {
        return false;
    }
    is_zero_by(Simd::detect(), bytes)
}

/// [`is_zero`] with chosen instructions, for tests and benches. What the processor does not have
/// is not used.
#[must_use]
pub fn is_zero_by(simd: Simd, bytes: &[u8]) -> bool {
    match simd.min(Simd::detect()) {
        Simd::Portable => scan(bytes),
        // SAFETY: the processor has AVX2, says `detect`.
        Simd::Avx2 => unsafe { scan_avx2(bytes) },
        // SAFETY: the processor has AVX-512 F and BW, says `detect`.
        Simd::Avx512 => unsafe { scan_avx512(bytes) },
    }
}

#[target_feature(enable = "avx2")]
fn scan_avx2(bytes: &[u8]) -> bool {
    scan(bytes)
}

#[target_feature(enable = "avx512f,avx512bw")]
fn scan_avx512(bytes: &[u8]) -> bool {
    scan(bytes)
}

/// The compiler makes of this what the caller's instructions allow.
#[inline(always)]
fn scan(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    blocks.iter().all(|block| block.iter().fold(0, |all, &byte| all | byte) == 0)
        && rest.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_zero_at_any_length_and_place() {
        let zeros = [0; 4096 + 64];
        for simd in Simd::available() {
            for start in [0, 1, 7, 63] {
                for len in [0, 1, 15, 255, 256, 257, 512, 4095, 4096] {
                    assert!(is_zero_by(simd, &zeros[start..start + len]), "{simd:?} {len}");
                }
            }
        }
        assert!(is_zero(&zeros));
    }

    #[test]
    fn one_bit_anywhere_is_seen() {
        let mut page = [0; 4096];
        for at in 0..page.len() {
            page[at] = 1 << (at % 8);
            for simd in Simd::available() {
                assert!(!is_zero_by(simd, &page), "{simd:?} at {at}");
            }
            assert!(!is_zero(&page));
            assert!(is_zero(&page[at + 1..]));
            page[at] = 0;
        }
    }
}
