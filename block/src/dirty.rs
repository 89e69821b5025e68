//! Dirty bitmaps: which parts of a disk were written.
//!
//! A bitmap costs memory only where its bits differ from their neighbours: pieces that are all
//! clean or all dirty have none. On its loop, no lock. Ranges are a guest's: what lies beyond the
//! end is ignored.

use std::collections::BTreeMap;

/// Words of a piece.
const WORDS: usize = 64;
/// Bytes of a piece.
const BYTES: usize = 8 * WORDS;
/// Bits of a piece.
const BITS: u64 = 64 * WORDS as u64;

/// One bit for each granule of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    /// Bytes of a granule are `1 << shift`.
    shift: u32,
    /// Bytes of the disk.
    size: u64,
    /// Those that are not clean all over.
    pieces: BTreeMap<u64, Piece>,
    dirty: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Full,
    Mixed(Box<[u64; WORDS]>, u64),
}

impl Bitmap {
    /// A clean one for a disk of `size` bytes, in granules of `granularity` bytes, which is a power
    /// of two (rounded up to one if not).
    pub fn new(size: u64, granularity: u64) -> Bitmap {
        let granularity = granularity.clamp(1, 1 << 62).next_power_of_two();
        let shift = granularity.trailing_zeros();
        Bitmap { shift, size, pieces: BTreeMap::new(), dirty: 0 }
    }

    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of a granule.
    pub fn granularity(&self) -> u64 {
        1 << self.shift
    }

    /// Dirty granules.
    pub fn count(&self) -> u64 {
        self.dirty
    }

    /// Bytes of dirty granules; the last one counts as far as the disk goes.
    pub fn bytes(&self) -> u64 {
        let all = self.dirty.saturating_mul(self.granularity());
        let last = self.granules().saturating_sub(1);
        let beyond = self.granules().saturating_mul(self.granularity()) - self.size;
        if self.granules() > 0 && self.is_dirty(last << self.shift) { all - beyond } else { all }
    }

    /// Whether nothing is dirty.
    pub fn is_clean(&self) -> bool {
        self.dirty == 0
    }

    /// Whether the granule of this byte is dirty.
    pub fn is_dirty(&self, offset: u64) -> bool {
        let bit = offset >> self.shift;
        match self.pieces.get(&(bit / BITS)) {
            None => false,
            Some(Piece::Full) => bit < self.granules(),
            Some(Piece::Mixed(words, _)) => {
                let at = bit % BITS;
                words.get((at / 64) as usize).is_some_and(|word| word >> (at % 64) & 1 == 1)
            }
        }
    }

    /// Marks every granule that the range touches.
    pub fn set(&mut self, offset: u64, len: u64) {
        self.change(offset, len, true);
    }

    /// Takes the marks of every granule that the range touches.
    pub fn clear(&mut self, offset: u64, len: u64) {
        self.change(offset, len, false);
    }

    /// The first dirty run at or after `from`, of no more than `limit` bytes and at least one
    /// granule: where it begins and its length, which ends with the disk.
    pub fn next(&self, from: u64, limit: u64) -> Option<(u64, u64)> {
        let start = self.first_dirty(from.checked_add(self.granularity() - 1)? >> self.shift)?;
        let most = start.saturating_add((limit >> self.shift).max(1)).min(self.granules());
        let end = self.first_clean(start + 1, most);
        let (offset, end) = (start << self.shift, (end << self.shift).min(self.size));
        Some((offset, end.saturating_sub(offset)))
    }

    /// As many granules of another size, for a disk of another size; the marks within stay.
    pub fn resize(&mut self, size: u64) {
        let old = std::mem::replace(self, Bitmap::new(size, self.granularity()));
        let mut at = 0;
        while let Some((offset, len)) = old.next(at, u64::MAX) {
            self.set(offset, len);
            at = offset.saturating_add(len);
        }
    }

    /// Marks everything that is dirty in `other`.
    pub fn merge(&mut self, other: &Bitmap) {
        let mut at = 0;
        while let Some((offset, len)) = other.next(at, u64::MAX) {
            self.set(offset, len);
            at = offset.saturating_add(len);
        }
    }

    /// Whether the byte at `offset` is in a dirty granule, and for how many bytes that stays so: at
    /// least 1 and at most `len`.
    pub fn run(&self, offset: u64, len: u64) -> (bool, u64) {
        let first = offset >> self.shift;
        let end = offset.saturating_add(len).div_ceil(self.granularity());
        let dirty = self.is_dirty(offset);
        let last = match dirty {
            true => self.first_clean(first, end),
            false => self.first_dirty(first).map_or(end, |at| at.min(end)),
        };
        let left = last.saturating_mul(self.granularity()).saturating_sub(offset);
        (dirty, left.clamp(1, len.max(1)))
    }

    /// Bytes of one bit for each granule.
    pub fn bit_bytes(&self) -> u64 {
        self.granules().div_ceil(8)
    }

    /// The bits from byte `at` on, which is a multiple of 512, the lowest one of each byte first:
    /// `len` bytes, or as many as there are. `None` when nothing is dirty there.
    pub fn bits(&self, at: u64, len: u64) -> Option<Vec<u8>> {
        let len = self.bit_bytes().saturating_sub(at).min(len);
        let first = at / BYTES as u64;
        let mut data = Vec::new();
        for (index, piece) in self.pieces.range(first..(at + len).div_ceil(BYTES as u64)) {
            data.resize(usize::try_from((index - first) * BYTES as u64).unwrap_or(usize::MAX), 0);
            match piece {
                Piece::Mixed(words, _) => {
                    data.extend(words.iter().flat_map(|word| word.to_le_bytes()));
                }
                Piece::Full => {
                    let mut words = [0; WORDS];
                    fill(&mut words, 0, self.room(*index) - 1, true);
                    data.extend(words.iter().flat_map(|word| word.to_le_bytes()));
                }
            }
        }
        if data.is_empty() {
            return None;
        }
        data.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
        Some(data)
    }

    /// Marks what is dirty in `bits`, which are as [`bits`](Self::bits) gives them. What lies
    /// behind the end of the disk is ignored.
    pub fn set_bits(&mut self, at: u64, bits: &[u8]) {
        for (index, bytes) in (at / BYTES as u64..).zip(bits.chunks(BYTES)) {
            let room = self.room(index);
            if room == 0 || bytes.iter().all(|byte| *byte == 0) {
                continue;
            }
            let mut words = Box::new([0; WORDS]);
            for (word, bytes) in words.iter_mut().zip(bytes.chunks(8)) {
                let mut whole = [0; 8];
                whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                *word = u64::from_le_bytes(whole);
            }
            if room < BITS {
                fill(words.as_mut_slice(), room, BITS - 1, false);
            }
            let before = match self.pieces.remove(&index) {
                None => 0,
                Some(Piece::Full) => {
                    words.fill(0);
                    fill(words.as_mut_slice(), 0, room - 1, true);
                    room
                }
                Some(Piece::Mixed(old, count)) => {
                    words.iter_mut().zip(old.iter()).for_each(|(word, old)| *word |= old);
                    count
                }
            };
            self.put(index, words, before);
        }
    }

    /// Puts the words of a piece in, of which `before` were dirty.
    fn put(&mut self, index: u64, words: Box<[u64; WORDS]>, before: u64) {
        let after: u64 = words.iter().map(|word| u64::from(word.count_ones())).sum();
        if after == self.room(index) {
            self.pieces.insert(index, Piece::Full);
        } else if after > 0 {
            self.pieces.insert(index, Piece::Mixed(words, after));
        }
        self.dirty = self.dirty + after - before;
    }

    /// Bits of a piece that stand for granules.
    fn room(&self, index: u64) -> u64 {
        self.granules().saturating_sub(index.saturating_mul(BITS)).min(BITS)
    }

    fn granules(&self) -> u64 {
        self.size.div_ceil(self.granularity())
    }

    /// The first dirty granule from this one on.
    fn first_dirty(&self, from: u64) -> Option<u64> {
        for (index, piece) in self.pieces.range(from / BITS..) {
            let base = index * BITS;
            let begin = from.max(base);
            match piece {
                Piece::Full => return (begin < self.granules()).then_some(begin),
                Piece::Mixed(words, _) => {
                    let at = begin - base;
                    let first = (at / 64) as usize;
                    for (number, word) in words.iter().enumerate().skip(first) {
                        let mask = if number == first { u64::MAX << (at % 64) } else { u64::MAX };
                        if word & mask != 0 {
                            let bit = u64::from((word & mask).trailing_zeros());
                            return Some(base + number as u64 * 64 + bit);
                        }
                    }
                }
            }
        }
        None
    }

    /// The first clean granule from this one on, or else `end`.
    fn first_clean(&self, from: u64, end: u64) -> u64 {
        let mut at = from;
        while at < end {
            let index = at / BITS;
            match self.pieces.get(&index) {
                None => return at,
                Some(Piece::Full) => at = (index + 1) * BITS,
                Some(Piece::Mixed(words, _)) => {
                    let word = words.get((at % BITS / 64) as usize).copied().unwrap_or(0);
                    let clean = !word & (u64::MAX << (at % 64));
                    let base = at - at % 64;
                    if clean != 0 {
                        return (base + u64::from(clean.trailing_zeros())).min(end);
                    }
                    at = base + 64;
                }
            }
        }
        end
    }

    fn change(&mut self, offset: u64, len: u64, dirty: bool) {
        let end = offset.saturating_add(len).min(self.size);
        if offset >= end {
            return;
        }
        let (mut at, last) = (offset >> self.shift, (end - 1) >> self.shift);
        while at <= last {
            let index = at / BITS;
            let stop = (index * BITS + BITS - 1).min(last);
            self.change_piece(index, at % BITS, stop % BITS, dirty);
            at = stop + 1;
        }
    }

    /// Changes bits `from..=to` of a piece.
    fn change_piece(&mut self, index: u64, from: u64, to: u64, dirty: bool) {
        let room = self.room(index);
        let before = match self.pieces.get(&index) {
            None => 0,
            Some(Piece::Full) => room,
            Some(Piece::Mixed(_, count)) => *count,
        };
        if before == if dirty { room } else { 0 } {
            return;
        }
        let mut words = match self.pieces.remove(&index) {
            Some(Piece::Mixed(words, _)) => words,
            other => {
                let mut words = Box::new([0; WORDS]);
                if other.is_some() {
                    fill(words.as_mut_slice(), 0, room - 1, true);
                }
                words
            }
        };
        fill(words.as_mut_slice(), from, to, dirty);
        self.put(index, words, before);
    }
}

/// Sets or clears bits `from..=to`.
fn fill(words: &mut [u64], from: u64, to: u64, dirty: bool) {
    for (number, word) in words.iter_mut().enumerate() {
        let base = number as u64 * 64;
        if base + 63 < from || base > to {
            continue;
        }
        let low = from.saturating_sub(base);
        let high = (to - base).min(63);
        let mask = (u64::MAX << low) & (u64::MAX >> (63 - high));
        *word = if dirty { *word | mask } else { *word & !mask };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bitmap_is_a_row_of_flags(
            size in 0u64..9000 * 8,
            steps in prop::collection::vec((any::<bool>(), 0u64..80_000, 0u64..70_000), 0..40),
        ) {
            let mut bitmap = Bitmap::new(size, 8);
            let mut model = vec![false; size.div_ceil(8) as usize];
            for (dirty, offset, len) in steps {
                if dirty { bitmap.set(offset, len) } else { bitmap.clear(offset, len) }
                let end = (offset + len).min(size);
                if offset < end {
                    model[(offset / 8) as usize..=((end - 1) / 8) as usize].fill(dirty);
                }
                prop_assert_eq!(bitmap.count(), model.iter().filter(|bit| **bit).count() as u64);
            }
            let mut at = 0;
            let mut seen = vec![false; model.len()];
            let mut bytes = 0;
            while let Some((offset, len)) = bitmap.next(at, 64) {
                prop_assert!(len > 0 && len <= 64 && offset % 8 == 0 && offset + len <= size);
                seen[(offset / 8) as usize..(offset + len).div_ceil(8) as usize].fill(true);
                bytes += len;
                at = offset + len;
            }
            prop_assert!(seen == model);
            prop_assert_eq!(bitmap.bytes(), bytes);
            let mut runs = Vec::new();
            while runs.len() < model.len() {
                let (at, left) = (runs.len() as u64 * 8, (model.len() - runs.len()) as u64 * 8);
                let (dirty, len) = bitmap.run(at, left);
                prop_assert!(len > 0 && len % 8 == 0);
                runs.resize(runs.len() + len as usize / 8, dirty);
            }
            prop_assert!(runs == model);
            for (number, bit) in model.iter().enumerate() {
                prop_assert_eq!(bitmap.is_dirty(number as u64 * 8), *bit);
            }
            let mut copy = Bitmap::new(size, 8);
            copy.merge(&bitmap);
            prop_assert_eq!(&copy, &bitmap);
            let mut copy = Bitmap::new(size, 8);
            for at in (0..bitmap.bit_bytes()).step_by(1024) {
                if let Some(bits) = bitmap.bits(at, 1024) {
                    copy.set_bits(at, &bits);
                    copy.set_bits(at, &bits);
                }
            }
            prop_assert_eq!(&copy, &bitmap);
            copy.set_bits(0, &vec![0xff; bitmap.bit_bytes() as usize]);
            prop_assert_eq!(copy.count(), model.len() as u64);
        }
    }

    #[test]
    fn a_great_disk_costs_little() {
        let mut bitmap = Bitmap::new(1 << 50, 512);
        bitmap.set(1 << 40, 1 << 20);
        bitmap.clear((1 << 40) + 512, 512);
        assert_eq!(bitmap.count(), 2047);
        assert!(bitmap.pieces.len() <= 2);
        bitmap.resize(1 << 40);
        assert!(bitmap.is_clean());
        bitmap.set(u64::MAX, u64::MAX);
        assert_eq!(bitmap.next(0, 1), None);
    }
}
