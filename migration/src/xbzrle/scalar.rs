//! The encoder as the format tells it: byte by byte, and eight bytes at once where they are all
//! the same or all different. What the other encoders are measured by.

use super::{Encoded, PAGE_SIZE, Page, Writer};

pub(super) fn encode(old: &Page, new: &Page, out: &mut Page) -> Encoded {
    let mut writer = Writer::new(out);
    let mut at = 0;
    loop {
        let start = same_until(old, new, at);
        if start == PAGE_SIZE {
            return writer.finish();
        }
        let end = different_until(old, new, start);
        if writer.run(start - at, new, start, end).is_none() {
            return Encoded::Overflow;
        }
        at = end;
    }
}

/// The first byte from `at` on that differs, or the page's end.
fn same_until(old: &Page, new: &Page, at: usize) -> usize {
    scan(old, new, at, |difference| difference == 0, |old, new| old == new)
}

/// The first byte from `at` on that is the same, or the page's end.
fn different_until(old: &Page, new: &Page, at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // A zero byte borrows from the bit above it.
    let no_zero = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7) == 0;
    scan(old, new, at, no_zero, |old, new| old != new)
}

/// Goes on from `at` as long as the differences of words, and then of bytes, are as told.
#[inline(always)]
fn scan(
    old: &Page,
    new: &Page,
    mut at: usize,
    words: impl Fn(u64) -> bool,
    bytes: impl Fn(u8, u8) -> bool,
) -> usize {
    let word = |page: &Page, at| {
        page.get(at..).and_then(|rest| rest.first_chunk()).map(|&bytes| u64::from_ne_bytes(bytes))
    };
    while let (Some(old), Some(new)) = (word(old, at), word(new, at)) {
        if !words(old ^ new) {
            break;
        }
        at += 8;
    }
    while let (Some(&old), Some(&new)) = (old.get(at), new.get(at)) {
        if !bytes(old, new) {
            break;
        }
        at += 1;
    }
    at
}
