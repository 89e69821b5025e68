//! The encoder with vector instructions. They make a mask with one bit for each byte that
//! differs; the runs begin and end where a bit is unlike the one before it: at the edges.

#![expect(unsafe_code)] // vector loads, and calls for instructions that were found present

use std::arch::x86_64::{
    __m256i, __m512i, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_movemask_epi8,
    _mm512_cmpneq_epi8_mask, _mm512_loadu_si512,
};

use super::{Encoded, PAGE_SIZE, Page, Writer, scalar};
use crate::simd::Simd;

/// The bytes that a word of the mask stands for.
const WORD: usize = 64;

/// Runs that fit into a page: each is two lengths and a byte or more.
const RUNS: usize = PAGE_SIZE / 3;

/// So many edges are taken out of a word at once, whether it has them or not: that is quicker
/// than to guess how many it has.
const AT_ONCE: usize = 8;

/// A word that has no more than these is done with so many.
const FEW: usize = 4;

/// A page with changes in more words than these may be one that does not fit: that is found before
/// it is tried.
const MANY: u32 = 48;

/// Where the runs of bytes that differ begin and end, by turns. What is behind them is undefined.
pub(super) type Edges = [u16; 2 * RUNS + WORD + AT_ONCE];

/// Room for edges.
pub(super) fn edges() -> Box<Edges> {
    Box::new([0; 2 * RUNS + WORD + AT_ONCE])
}

/// With the instructions of `simd`, or with fewer if the processor does not have them.
pub(super) fn encode(
    simd: Simd,
    old: &Page,
    new: &Page,
    out: &mut Page,
    edges: &mut Edges,
) -> Encoded {
    match simd.min(Simd::detect()) {
        Simd::Portable => scalar::encode(old, new, out),
        // SAFETY: the processor has these, says `detect`.
        Simd::Avx2 => unsafe { encode_avx2(old, new, out, edges) },
        // SAFETY: as above.
        Simd::Avx512 => unsafe { encode_avx512(old, new, out, edges) },
    }
}

#[target_feature(enable = "avx512f,avx512bw,bmi1,popcnt")]
fn encode_avx512(old: &Page, new: &Page, out: &mut Page, edges: &mut Edges) -> Encoded {
    encode_by(old, new, out, edges, |old, new| {
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
fn encode_avx2(old: &Page, new: &Page, out: &mut Page, edges: &mut Edges) -> Encoded {
    encode_by(old, new, out, edges, |old, new| {
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
    edges: &mut Edges,
    different: impl Fn(&[u8; WORD], &[u8; WORD]) -> u64,
) -> Encoded {
    // A bit for each byte that differs, the lowest first, and one for each word that has any.
    let mut bits = [0_u64; PAGE_SIZE / WORD];
    let (words, _) = new.as_chunks::<WORD>();
    let (old, _) = old.as_chunks::<WORD>();
    let mut changed = 0_u64;
    for (index, (bits, (old, new))) in bits.iter_mut().zip(old.iter().zip(words)).enumerate() {
        *bits = different(old, new);
        changed |= u64::from(*bits != 0) << index;
    }
    if changed == 0 {
        return Encoded::Unchanged;
    }
    if changed.count_ones() > MANY {
        // Each run is two lengths and its bytes, or more.
        let least = |index| {
            let word: u64 = bits.get(index).copied().unwrap_or_default();
            word.count_ones() + 2 * (word & turns(&bits, index)).count_ones()
        };
        let least: u32 = (0..bits.len()).map(least).sum();
        if least > PAGE_SIZE as u32 {
            return Encoded::Overflow;
        }
    }
    runs(&bits, changed, edges, new, out).unwrap_or(Encoded::Overflow)
}

/// A bit for each byte of a word that is unlike the one before it.
#[inline(always)]
fn turns(bits: &[u64; PAGE_SIZE / WORD], index: usize) -> u64 {
    let word = |index| bits.get(index).copied().unwrap_or_default();
    word(index) ^ (word(index) << 1 | word(index.wrapping_sub(1)) >> 63)
}

/// None: there is no room.
#[inline(always)]
fn runs(
    bits: &[u64; PAGE_SIZE / WORD],
    changed: u64,
    edges: &mut Edges,
    new: &Page,
    out: &mut Page,
) -> Option<Encoded> {
    let mut count = 0;
    // A run may end with its word.
    let mut busy = changed | changed << 1;
    while busy != 0 {
        let index = busy.trailing_zeros() as usize;
        busy &= busy - 1;
        let base = (index * WORD) as u16;
        let mut turns = turns(bits, index);
        let after = count + turns.count_ones() as usize;
        if after - count <= FEW {
            for edge in edges.get_mut(count..)?.first_chunk_mut::<FEW>()? {
                *edge = base + turns.trailing_zeros() as u16;
                turns &= turns.wrapping_sub(1);
            }
        }
        while turns != 0 {
            for edge in edges.get_mut(count..)?.first_chunk_mut::<AT_ONCE>()? {
                *edge = base + turns.trailing_zeros() as u16;
                turns &= turns.wrapping_sub(1);
            }
            count += AT_ONCE;
        }
        count = after;
    }
    if count % 2 == 1 {
        *edges.get_mut(count)? = PAGE_SIZE as u16;
        count += 1;
    }
    let mut writer = Writer::new(out);
    let mut last = 0;
    for &[start, end] in edges.get(..count)?.as_chunks::<2>().0 {
        let (start, end) = (start.into(), end.into());
        let same = start - last;
        if !short_run(&mut writer, same, new, start, end)
            && !long_run(&mut writer, same, new, start, end)
        {
            writer.run(same, new, start, end)?;
        }
        last = end;
    }
    Some(writer.finish())
}

/// [`Writer::run`] without decisions that depend on the run; false: it is too long for that, or
/// too near an end.
#[inline(always)]
fn short_run(writer: &mut Writer, same: usize, new: &Page, start: usize, end: usize) -> bool {
    /// A copy of so many bytes is as quick as one of fewer.
    const SHORT: usize = 32;
    let len = end - start;
    let from = new.get(start..).and_then(|rest| rest.first_chunk::<SHORT>());
    let to = writer.out.get_mut(writer.len..).and_then(|rest| rest.first_chunk_mut());
    let (Some(from), Some(to)) = (from, to) else { return false };
    let to: &mut [u8; 4 + SHORT] = to;
    if len > SHORT {
        return false;
    }
    let (same, first) = uleb(same);
    let lengths = (same | len << (8 * first)) as u32;
    let (head, _) = to.split_at_mut(4);
    head.copy_from_slice(&lengths.to_le_bytes());
    let Some(bytes) = to.get_mut(1 + first..).and_then(|rest| rest.first_chunk_mut()) else {
        return false;
    };
    *bytes = *from;
    writer.len += 1 + first + len;
    true
}

/// As [`short_run`], of any length, in pieces that are copied whole.
#[inline(always)]
fn long_run(writer: &mut Writer, same: usize, new: &Page, start: usize, end: usize) -> bool {
    const PIECE: usize = 64;
    let len = end - start;
    let room = len.next_multiple_of(PIECE);
    let from = new.get(start..start + room);
    let to = writer.out.get_mut(writer.len..).and_then(|rest| rest.get_mut(..4 + room));
    let (Some(from), Some(to)) = (from, to) else { return false };
    let ((same, first), (count, second)) = (uleb(same), uleb(len));
    let lengths = (same | count << (8 * first)) as u32;
    let (head, _) = to.split_at_mut(4);
    head.copy_from_slice(&lengths.to_le_bytes());
    let Some(to) = to.get_mut(first + second..) else { return false };
    let (to, from) = (to.as_chunks_mut::<PIECE>().0, from.as_chunks::<PIECE>().0);
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    writer.len += first + second + len;
    true
}

/// A length of up to 14 bits as the format has it, the first byte lowest, and how many bytes it is.
#[inline(always)]
fn uleb(length: usize) -> (usize, usize) {
    let long = usize::from(length >= 0x80);
    (length & 0x7F | long << 7 | (length >> 7) << 8, 1 + long)
}
