//! The encoder with vector instructions. They make a mask with one bit for each byte that
//! differs; the runs begin and end where a bit is unlike the one before it.

#![expect(unsafe_code)] // vector loads, and calls for instructions that were found present

use std::arch::x86_64::{
    __m256i, __m512i, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_movemask_epi8,
    _mm512_cmpneq_epi8_mask, _mm512_loadu_si512,
};

use super::{Encoded, PAGE_SIZE, Page, Writer, scalar};
use crate::simd::Simd;

/// The bytes that a word of the mask stands for.
const WORD: usize = 64;

/// A bit for each byte of a page, the lowest first.
type Mask = [u64; PAGE_SIZE / WORD];

/// With the instructions of `simd`, or with fewer if the processor does not have them.
pub(super) fn encode(simd: Simd, old: &Page, new: &Page, out: &mut Page) -> Encoded {
    match simd.min(Simd::detect()) {
        Simd::Portable => scalar::encode(old, new, out),
        // SAFETY: the processor has these, says `detect`.
        Simd::Avx2 => unsafe { encode_avx2(old, new, out) },
        // SAFETY: as above.
        Simd::Avx512 => unsafe { encode_avx512(old, new, out) },
    }
}

#[target_feature(enable = "avx512f,avx512bw,bmi1,popcnt")]
fn encode_avx512(old: &Page, new: &Page, out: &mut Page) -> Encoded {
    encode_by(old, new, out, |old, new| {
        // SAFETY: 64 bytes are there to be read, at any alignment.
        let (old, new) = unsafe {
            (
                _mm512_loadu_si512(old.as_ptr().cast::<__m512i>()),
                _mm512_loadu_si512(new.as_ptr().cast::<__m512i>()),
            )
        };
        _mm512_cmpneq_epi8_mask(old, new)
    })
}

#[target_feature(enable = "avx2,bmi1,popcnt")]
fn encode_avx2(old: &Page, new: &Page, out: &mut Page) -> Encoded {
    encode_by(old, new, out, |old, new| {
        let half = |at: usize| {
            // SAFETY: `at` is 0 or 32, so 32 bytes are there to be read, at any alignment.
            let (old, new) = unsafe {
                (
                    _mm256_loadu_si256(old.as_ptr().add(at).cast::<__m256i>()),
                    _mm256_loadu_si256(new.as_ptr().add(at).cast::<__m256i>()),
                )
            };
            u64::from(_mm256_movemask_epi8(_mm256_cmpeq_epi8(old, new)) as u32)
        };
        !(half(0) | half(32) << 32)
    })
}

/// `different` tells which of 64 bytes differ.
#[inline(always)]
fn encode_by(
    old: &Page,
    new: &Page,
    out: &mut Page,
    different: impl Fn(&[u8; WORD], &[u8; WORD]) -> u64,
) -> Encoded {
    let mut mask: Mask = [0; PAGE_SIZE / WORD];
    let (old, _) = old.as_chunks::<WORD>();
    let (words, _) = new.as_chunks::<WORD>();
    // Each run costs two bytes for its lengths or more, so much is known before the first is made.
    let mut least = 0;
    let mut before = 0;
    for (bits, (old, new)) in mask.iter_mut().zip(old.iter().zip(words)) {
        *bits = different(old, new);
        let begins = *bits & !(*bits << 1 | before);
        before = *bits >> 63;
        least += bits.count_ones() + 2 * begins.count_ones();
    }
    match least {
        0 => Encoded::Unchanged,
        1..=4096 => runs(&mask, new, out).unwrap_or(Encoded::Overflow),
        _ => Encoded::Overflow,
    }
}

#[inline(always)]
fn runs(mask: &Mask, new: &Page, out: &mut Page) -> Option<Encoded> {
    let mut writer = Writer::new(out);
    // Where the last run ended, where the one that is not at its end yet began.
    let mut last = 0;
    let mut open = None;
    let mut before = 0;
    for (base, &bits) in (0..).step_by(WORD).zip(mask) {
        let mut edges = bits ^ (bits << 1 | before);
        before = bits >> 63;
        while edges != 0 {
            let at = base + edges.trailing_zeros() as usize;
            edges &= edges - 1;
            match open.take() {
                None => open = Some(at),
                Some(start) => {
                    writer.run(start - last, new, start, at)?;
                    last = at;
                }
            }
        }
    }
    if let Some(start) = open {
        writer.run(start - last, new, start, PAGE_SIZE)?;
    }
    Some(writer.finish())
}
