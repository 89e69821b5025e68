//! Which pages of a block are still at the source.
//!
//! A bit for each page, where a page is what the destination's host can place at once: 4 KiB, or a
//! huge page. On the wire runs of equal words, so that a large block of which little or all is
//! missing takes few bytes. What is read comes from anybody: it fills the words of this block and
//! no others.

use std::io::{Read, Write};

use resources::ram::PAGE;

use crate::stream::{Error, Reader, Writer};

/// The pages of a block that are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Bytes of a page.
    page: u64,
    /// Pages of the block.
    pages: u64,
    words: Vec<u64>,
    left: u64,
}

impl Missing {
    /// Nothing is missing of `size` bytes in pages of `page` bytes.
    pub fn none(size: u64, page: u64) -> Missing {
        let pages = size.div_ceil(page.max(1));
        let words = vec![0; usize::try_from(pages.div_ceil(64)).unwrap_or(0)];
        Missing { page: page.max(1), pages, words, left: 0 }
    }

    /// What is missing when these pages of 4 KiB are: whole larger pages are.
    pub fn of_small(small: &[u64], size: u64, page: u64) -> Missing {
        let mut all = Missing::none(size, page);
        for (index, word) in small.iter().enumerate().filter(|(_, word)| **word != 0) {
            for bit in (0..64).filter(|bit| word >> bit & 1 == 1) {
                all.add((index as u64 * 64 + bit) * PAGE / all.page);
            }
        }
        all
    }

    fn add(&mut self, page: u64) {
        if page >= self.pages {
            return;
        }
        if let Some(word) = self.words.get_mut((page / 64) as usize) {
            let bit = 1 << (page % 64);
            self.left += u64::from(*word & bit == 0);
            *word |= bit;
        }
    }

    /// Bytes of a page.
    pub fn page(&self) -> u64 {
        self.page
    }

    /// Bytes that are missing.
    pub fn bytes(&self) -> u64 {
        self.left.saturating_mul(self.page)
    }

    /// Whether the page at this offset is missing; `None` if no page begins there.
    pub fn has(&self, offset: u64) -> Option<bool> {
        let page = offset / self.page;
        if !offset.is_multiple_of(self.page) || page >= self.pages {
            return None;
        }
        self.words.get((page / 64) as usize).map(|word| word >> (page % 64) & 1 == 1)
    }

    /// The page at this offset is missing no more; returns whether it was.
    pub fn take(&mut self, offset: u64) -> bool {
        if self.has(offset) != Some(true) {
            return false;
        }
        let page = offset / self.page;
        if let Some(word) = self.words.get_mut((page / 64) as usize) {
            *word &= !(1 << (page % 64));
            self.left -= 1;
        }
        true
    }

    /// The offset of the first missing page at or after `from`.
    pub fn next(&self, from: u64) -> Option<u64> {
        let first = from.div_ceil(self.page);
        let mut index = (first / 64) as usize;
        let mut mask = u64::MAX << (first % 64);
        while let Some(word) = self.words.get(index) {
            let bits = word & mask;
            if bits != 0 {
                return Some((index as u64 * 64 + u64::from(bits.trailing_zeros())) * self.page);
            }
            mask = u64::MAX;
            index += 1;
        }
        None
    }

    /// Runs of missing pages: where each begins, and its bytes.
    pub fn runs(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = self.next(at)?;
            let mut end = start;
            while self.has(end) == Some(true) {
                end += self.page;
            }
            at = end;
            Some((start, end - start))
        })
    }

    /// Sends it.
    ///
    /// # Errors
    /// The connection has broken.
    pub fn write(&self, to: &mut Writer<impl Write>) -> Result<(), Error> {
        let same = |a: &u64, b: &u64| a == b;
        for run in self.words.chunk_by(same) {
            for part in run.chunks(u32::MAX as usize) {
                to.u32(u32::try_from(part.len()).unwrap_or(u32::MAX))?;
                to.u64(part.first().copied().unwrap_or(0))?;
            }
        }
        Ok(())
    }

    /// Reads what is missing of `size` bytes in pages of `page` bytes.
    ///
    /// # Errors
    /// It is of another block, or the stream ends.
    pub fn read(from: &mut Reader<impl Read>, size: u64, page: u64) -> Result<Missing, Error> {
        let mut all = Missing::none(size, page);
        let bad = || Error::bad("what is missing of memory is not of this memory");
        let mut at = 0_usize;
        while at < all.words.len() {
            let (count, word) = (from.u32()? as usize, from.u64()?);
            let end = at.checked_add(count).ok_or_else(bad)?;
            let words = all.words.get_mut(at..end).filter(|words| !words.is_empty());
            words.ok_or_else(bad)?.fill(word);
            all.left += u64::from(word.count_ones()) * count as u64;
            at = end;
        }
        let last = all.words.last().copied().unwrap_or(0);
        let used = all.pages % 64;
        if used != 0 && last >> used != 0 {
            return Err(bad());
        }
        Ok(all)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HUGE: u64 = 2 << 20;

    #[test]
    fn pages_are_found_and_taken() {
        let mut missing = Missing::of_small(&[0b1010, 0, 1], 130 * PAGE, PAGE);
        assert_eq!(missing.bytes(), 3 * PAGE);
        assert_eq!(missing.next(0), Some(PAGE));
        assert_eq!(missing.next(PAGE + 1), Some(3 * PAGE));
        assert_eq!(missing.next(4 * PAGE), Some(128 * PAGE));
        assert_eq!((missing.has(PAGE), missing.has(0)), (Some(true), Some(false)));
        assert_eq!((missing.has(PAGE + 1), missing.has(130 * PAGE)), (None, None));
        assert!(missing.take(PAGE) && !missing.take(PAGE) && !missing.take(u64::MAX));
        assert_eq!(missing.runs().collect::<Vec<_>>(), [(3 * PAGE, PAGE), (128 * PAGE, PAGE)]);
        // One small page is missing of a huge one: it comes as a whole.
        let missing = Missing::of_small(&[0, 0, 0, 0, 0, 0, 0, 0, 2], 2 * HUGE, HUGE);
        assert_eq!((missing.next(0), missing.bytes()), (Some(HUGE), HUGE));
    }

    #[test]
    fn other_blocks_are_refused() {
        let mut to = Writer::new(Vec::new());
        Missing::of_small(&[u64::MAX; 2], 128 * PAGE, PAGE).write(&mut to).unwrap();
        to.flush().unwrap();
        let bytes = std::mem::take(to.channel());
        assert_eq!(bytes.len(), 12);
        for pages in [64, 127] {
            let error = Missing::read(&mut Reader::new(&bytes[..]), pages * PAGE, PAGE);
            assert!(error.unwrap_err().to_string().contains("not of this memory"));
        }
        Missing::read(&mut Reader::new(&bytes[..]), 128 * PAGE, PAGE).unwrap();
        Missing::read(&mut Reader::new(&bytes[..]), 129 * PAGE, PAGE).unwrap_err();
        let none = [0; 12];
        Missing::read(&mut Reader::new(&none[..]), 128 * PAGE, PAGE).unwrap_err();
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(words in prop::collection::vec(0..3_u64, 1..40), cut in 0..64_u64) {
            let pages = words.len() as u64 * 64 - cut;
            let missing = Missing::of_small(&words, pages * PAGE, PAGE);
            let mut to = Writer::new(Vec::new());
            missing.write(&mut to).unwrap();
            to.flush().unwrap();
            let bytes = std::mem::take(to.channel());
            let read = Missing::read(&mut Reader::new(&bytes[..]), pages * PAGE, PAGE).unwrap();
            prop_assert_eq!(read.runs().map(|(_, len)| len).sum::<u64>(), missing.bytes());
            prop_assert_eq!(read, missing);
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Missing::read(&mut Reader::new(&bytes[..]), 4096 * PAGE, PAGE);
        }
    }
}
