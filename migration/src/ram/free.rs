//! Memory that the guest does not use, which need not be sent.
//!
//! On the sending thread. A guest names what it likes: pages that are not there are ignored, and one
//! that it uses nevertheless is its own loss. It takes no more time than to name each page once.

use resources::ram::PAGE;

use super::Sender;

/// What is asked of the guest about memory that it does not use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hinting {
    /// It is to name some. The machine sees to it that whatever is written from now on is noted, and
    /// what was is not looked at before [`End`](Self::End).
    Begin,
    /// What it has named since it was asked last.
    Take,
    /// The same for the last time: what it names from now on does not count, until it is asked to
    /// begin again.
    End,
    /// As [`End`](Self::End), and it can use all again.
    Done,
}

/// A piece of memory that the guest has named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Free {
    /// The number of its block.
    pub block: usize,
    /// Where it begins in the block, in bytes.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

impl Sender {
    /// These pages need not be sent as they were when it was collected last what was written; what
    /// is written later is sent. Returns how many were to be sent.
    pub fn skip(&mut self, free: Free) -> u64 {
        if self.dirty == 0 {
            return 0;
        }
        let unnamed = (self.total() / PAGE).saturating_sub(self.freed);
        let Some(out) = self.blocks.get_mut(free.block) else { return 0 };
        let pages = out.block.ram.size() / PAGE;
        let first = free.offset.div_ceil(PAGE);
        let end = (free.offset.saturating_add(free.len) / PAGE).min(pages);
        // Who names more than there is names some twice, which changes nothing.
        let end = end.min(first.saturating_add(unnamed));
        self.freed += end.saturating_sub(first);
        let mut skipped = 0;
        let mut at = first;
        while at < end {
            let (word, bit) = ((at / 64) as usize, at % 64);
            let count = (64 - bit).min(end - at);
            let mask = (u64::MAX >> (64 - count)) << bit;
            if let Some(word) = out.dirty.get_mut(word) {
                skipped += u64::from((*word & mask).count_ones());
                *word &= !mask;
            }
            at += count;
        }
        self.dirty -= skipped;
        skipped
    }
}

#[cfg(test)]
mod tests {
    use resources::ram::RamBlock;

    use super::super::Block;
    use super::*;

    #[test]
    fn whole_pages_are_skipped_once() {
        let block = |pages: u64| {
            let ram = RamBlock::anonymous(pages * PAGE).unwrap();
            Block { name: pages.to_string(), ram }
        };
        let mut sender = Sender::new(vec![block(10), block(200)]);
        let mut skip = |block, offset, len| {
            let skipped = sender.skip(Free { block, offset, len });
            (skipped, sender.dirty())
        };
        assert_eq!(skip(0, 1, PAGE), (0, 210));
        assert_eq!(skip(0, 1, 2 * PAGE), (1, 209));
        assert_eq!(skip(0, 0, 3 * PAGE), (2, 207));
        assert_eq!(skip(0, 9 * PAGE, u64::MAX), (1, 206));
        assert_eq!(skip(0, 10 * PAGE, PAGE), (0, 206));
        assert_eq!(skip(0, u64::MAX, u64::MAX), (0, 206));
        assert_eq!(skip(2, 0, PAGE), (0, 206));
        assert_eq!(skip(1, 0, 64 * PAGE), (64, 142));
        assert_eq!(skip(1, 63 * PAGE, 130 * PAGE), (129, 13));
        let page = |(block, word, bits): (usize, u64, u64)| {
            (block, word * 64 + u64::from(bits.trailing_zeros()))
        };
        let left: Vec<_> = std::iter::from_fn(|| sender.find(true).map(page)).collect();
        let expected = (3..9).map(|page| (0, page)).chain((193..200).map(|page| (1, page)));
        assert_eq!(left, expected.collect::<Vec<_>>());
    }

    #[test]
    fn no_more_is_skipped_than_there_is_until_it_is_collected_again() {
        let block = |name: &str| {
            let ram = RamBlock::anonymous(100 * PAGE).unwrap();
            Block { name: name.to_owned(), ram }
        };
        let mut sender = Sender::new(vec![block("a"), block("b")]);
        let all = |block| Free { block, offset: 0, len: u64::MAX };
        assert_eq!(sender.skip(all(0)), 100);
        assert_eq!(sender.skip(Free { len: 60 * PAGE, ..all(0) }), 0);
        assert_eq!(sender.skip(all(1)), 40);
        assert_eq!(sender.skip(all(1)), 0);
        sender.collect();
        assert_eq!(sender.skip(all(1)), 60);
    }
}
