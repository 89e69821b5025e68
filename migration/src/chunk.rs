//! Chunks: up to 64 pages that are neighbours, in one piece of the stream.
//!
//! A chunk is a word of the dirty bitmap. Its header has 32 bytes: the number of the block in the
//! order of the list of memory, the bytes of the packed pages (0: they are not packed), the number
//! of the word, a bit for each page of zeros and a bit for each page that follows. Then come the
//! pages, as they are or in one frame of zstd. [`Packer`] makes chunks and [`Unpacker`] takes them,
//! in channels of their own (`multifd/`) or between the records of the main one.
//!
//! Each belongs to one thread. What the unpacker reads comes from anybody: numbers are checked
//! against the blocks, and no chunk takes more memory than its 64 pages twice.

use std::io::Read;
use std::sync::Arc;

use resources::ram::{PAGE, RamBlock};

use crate::compress::{Compressor, Decompressor};
use crate::ram::{Block, Sent};
use crate::stream::{Error, Reader};
use crate::zero::is_zero;

/// Pages of a chunk at most.
const PAGES: u64 = 64;

const PAGE_LEN: usize = PAGE as usize;
const HEADER: usize = 32;
const ROOM: usize = PAGES as usize * PAGE_LEN;

/// Instead of a block: nothing follows in this channel.
const END: u32 = u32::MAX;

/// Pages that are to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    /// The number of their block.
    pub(crate) block: u32,
    /// The memory of that.
    pub(crate) ram: Arc<RamBlock>,
    /// The number of the first page in it, divided by 64.
    pub(crate) word: u64,
    /// Which of the 64 pages.
    pub(crate) pages: u64,
}

/// How many pages of which kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pages of zeros.
    pub zero: u64,
    /// Whole pages.
    pub normal: u64,
}

impl Tally {
    /// Counts what was sent.
    pub(crate) fn add(&mut self, sent: Sent) {
        match sent {
            Sent::Zero => self.zero += 1,
            Sent::Normal => self.normal += 1,
            Sent::Delta => {}
            Sent::Chunk(tally) => {
                self.zero += tally.zero;
                self.normal += tally.normal;
            }
        }
    }
}

/// The runs of neighbours in a mask: the first, and how many.
fn runs(mut mask: u64) -> impl Iterator<Item = (u64, usize)> {
    std::iter::from_fn(move || {
        let first = mask.trailing_zeros();
        let count = mask.checked_shr(first)?.trailing_ones();
        let run = u64::MAX.checked_shr(u64::BITS - count)?;
        mask &= !(run << first);
        Some((first.into(), count as usize))
    })
}

/// Makes chunks.
pub(crate) struct Packer {
    zstd: Option<(Compressor, Vec<u8>)>,
    /// A header, and pages as they are.
    plain: Vec<u8>,
}

impl Packer {
    /// One that packs, if there is a level for that.
    pub(crate) fn new(level: Option<i32>) -> Result<Packer, Error> {
        let zstd = match level {
            Some(level) => Some((Compressor::new(level)?, vec![0; HEADER + ROOM])),
            None => None,
        };
        Ok(Packer { zstd, plain: vec![0; HEADER + ROOM] })
    }

    /// The pages as they are now, ready to be sent, and what was among them.
    pub(crate) fn pack(&mut self, chunk: &Chunk) -> (Tally, &[u8]) {
        let mut zeros = 0_u64;
        let mut end = HEADER;
        for bit in 0..PAGES {
            if chunk.pages >> bit & 1 == 0 {
                continue;
            }
            let Some(page) = self.plain.get_mut(end..end + PAGE_LEN) else { break };
            chunk.ram.read((chunk.word * PAGES + bit) * PAGE, page);
            if is_zero(page) {
                zeros |= 1 << bit;
            } else {
                end += PAGE_LEN;
            }
        }
        let tally = Tally {
            zero: u64::from(zeros.count_ones()),
            normal: ((end - HEADER) / PAGE_LEN) as u64,
        };
        let pages = self.plain.get(HEADER..end).unwrap_or_default();
        let packed = self.zstd.as_mut().and_then(|(zstd, frame)| {
            let len = zstd.pack(pages, frame.get_mut(HEADER..)?)?;
            Some((len, frame))
        });
        let (len, to, end) = match packed {
            Some((len, frame)) => (len, frame, HEADER + len),
            None => (0, &mut self.plain, end),
        };
        let header = header(chunk.block, len as u32, chunk.word, (zeros, chunk.pages & !zeros));
        if let Some(to) = to.first_chunk_mut::<HEADER>() {
            *to = header;
        }
        (tally, to.get(..end).unwrap_or_default())
    }

    /// What ends a channel.
    pub(crate) fn end() -> [u8; HEADER] {
        header(END, 0, 0, (0, 0))
    }
}

fn header(block: u32, len: u32, word: u64, (zeros, pages): (u64, u64)) -> [u8; HEADER] {
    let parts = [u64::from(block) << 32 | u64::from(len), word, zeros, pages];
    let mut header = [0; HEADER];
    for (to, part) in header.as_chunks_mut().0.iter_mut().zip(parts) {
        *to = part.to_be_bytes();
    }
    header
}

/// Takes chunks.
#[derive(Default)]
pub(crate) struct Unpacker {
    zstd: Option<Decompressor>,
    frame: Vec<u8>,
    pages: Vec<u8>,
}

impl Unpacker {
    /// Reads a chunk and puts its pages where they belong; `false` where the channel ends.
    /// `blocks` are in the order of the list.
    ///
    /// # Errors
    /// It fits nowhere, or the stream ends.
    pub(crate) fn take(
        &mut self,
        from: &mut Reader<impl Read>,
        blocks: &[Block],
    ) -> Result<bool, Error> {
        let (number, len) = (from.u32()?, from.u32()? as usize);
        let (word, zeros, pages) = (from.u64()?, from.u64()?, from.u64()?);
        if number == END {
            return match (len, word, zeros, pages) {
                (0, 0, 0, 0) => Ok(false),
                _ => Err(Error::bad("a chunk of pages is of no memory")),
            };
        }
        let block = usize::try_from(number).ok().and_then(|number| blocks.get(number));
        let block = block.ok_or_else(|| Error::bad("a chunk of pages is of no memory"))?;
        let ram = &block.ram;
        let all = zeros | pages;
        let last = word
            .checked_mul(PAGES)
            .and_then(|first| first.checked_add(all.checked_ilog2()?.into()));
        let inside = last.is_some_and(|last| last < ram.size() / PAGE);
        if !inside || zeros & pages != 0 {
            let text = format!("a chunk of pages at {word:#x} is not one of '{}'", block.name);
            return Err(Error::bad(text));
        }
        let at = |bit: u64| (word * PAGES + bit) * PAGE;
        for (first, count) in runs(zeros) {
            (first..first + count as u64).for_each(|bit| clear(ram, at(bit)));
        }
        let wanted = pages.count_ones() as usize * PAGE_LEN;
        if self.pages.is_empty() {
            self.pages.resize(ROOM, 0);
        }
        let mut bytes = self.pages.get_mut(..wanted).unwrap_or_default();
        match len {
            0 => from.bytes(bytes)?,
            len if len >= wanted => {
                let text = format!("{wanted} bytes of pages are packed into {len}");
                return Err(Error::bad(text));
            }
            len => {
                self.frame.resize(len, 0);
                from.bytes(&mut self.frame)?;
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => none.insert(Decompressor::new()?),
                };
                let unpacked = zstd.unpack(&self.frame, bytes);
                unpacked.map_err(|error| Error::Bad(error.to_string()))?;
            }
        }
        for (first, count) in runs(pages) {
            let Some((run, rest)) = bytes.split_at_mut_checked(count * PAGE_LEN) else { break };
            ram.write(at(first), run);
            bytes = rest;
        }
        Ok(true)
    }
}

/// Makes a page zeros. One that is so already is left alone, so that it takes no memory.
fn clear(ram: &RamBlock, offset: u64) {
    let mut page = [0; PAGE_LEN];
    ram.read(offset, &mut page);
    if !is_zero(&page) {
        ram.write(offset, &[0; PAGE_LEN]);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(name: &str, pages: u64) -> Block {
        Block { name: name.to_owned(), ram: RamBlock::anonymous(pages * PAGE).unwrap() }
    }

    fn contents(block: &Block) -> Vec<u8> {
        let mut all = vec![0; block.ram.size() as usize];
        block.ram.read(0, &mut all);
        all
    }

    fn chunk(block: &Block, word: u64, pages: u64) -> Chunk {
        Chunk { block: 1, ram: block.ram.clone(), word, pages }
    }

    #[test]
    fn runs_are_those_of_the_mask() {
        let all = |mask| runs(mask).collect::<Vec<_>>();
        assert_eq!(all(0), []);
        assert_eq!(all(u64::MAX), [(0, 64)]);
        assert_eq!(all(0b1011 | 1 << 63), [(0, 2), (3, 1), (63, 1)]);
    }

    #[test]
    fn pages_arrive_packed_and_as_they_are() {
        for level in [None, Some(1), Some(19)] {
            let (here, there) = (block("a", 70), [block("other", 1), block("a", 70)]);
            there[1].ram.write(3 * PAGE, b"old");
            for page in [0, 1, 5, 63, 64, 69] {
                here.ram.write(page * PAGE + 7, &[page as u8 + 1; 100]);
            }
            // Not told of, so not sent.
            here.ram.write(2 * PAGE, b"later");
            let mut packer = Packer::new(level).unwrap();
            let mut bytes = Vec::new();
            let (tally, sent) = packer.pack(&chunk(&here, 0, !4));
            assert_eq!(tally, Tally { zero: 59, normal: 4 });
            assert_eq!(sent.len() < 1000, level.is_some(), "{}", sent.len());
            bytes.extend_from_slice(sent);
            let (tally, sent) = packer.pack(&chunk(&here, 1, 0x3f));
            assert_eq!(tally, Tally { zero: 4, normal: 2 });
            bytes.extend_from_slice(sent);
            bytes.extend_from_slice(&Packer::end());
            let mut from = Reader::new(&bytes[..]);
            let mut unpacker = Unpacker::default();
            assert!(unpacker.take(&mut from, &there).unwrap());
            assert!(unpacker.take(&mut from, &there).unwrap());
            assert!(!unpacker.take(&mut from, &there).unwrap());
            here.ram.write(2 * PAGE, &[0; 5]);
            assert!(contents(&here) == contents(&there[1]), "{level:?}");
            // Cut anywhere it is no chunk.
            for len in (0..bytes.len() - 32).step_by(7) {
                let mut from = Reader::new(&bytes[..len]);
                let mut unpacker = Unpacker::default();
                while let Ok(more) = unpacker.take(&mut from, &there) {
                    assert!(more);
                }
            }
        }
    }

    #[test]
    fn chunks_that_fit_nowhere_are_refused() {
        let blocks = [block("a", 70)];
        let refused = |block, len, word, masks, data: &[u8]| {
            let mut bytes = header(block, len, word, masks).to_vec();
            bytes.extend_from_slice(data);
            Unpacker::default().take(&mut Reader::new(&bytes[..]), &blocks).unwrap_err().to_string()
        };
        assert_eq!(refused(1, 0, 0, (1, 0), &[]), "a chunk of pages is of no memory");
        assert_eq!(refused(END, 0, 0, (1, 0), &[]), "a chunk of pages is of no memory");
        let not = "a chunk of pages at 0x1 is not one of 'a'";
        assert_eq!(refused(0, 0, 1, (1 << 6, 0), &[]), not);
        assert_eq!(refused(0, 0, 1, (0, 1 << 63), &[]), not);
        assert_eq!(refused(0, 0, 1, (0, 0), &[]), not);
        assert_eq!(refused(0, 0, 1, (1, 1), &[]), not);
        assert!(refused(0, 0, u64::MAX, (1, 0), &[]).contains("is not one of 'a'"));
        assert!(refused(0, 0, 1 << 58, (1, 0), &[]).contains("is not one of 'a'"));
        // Too long to be packed, and frames that are none or of less or more.
        assert_eq!(refused(0, 8192, 0, (0, 3), &[]), "8192 bytes of pages are packed into 8192");
        assert_eq!(refused(0, u32::MAX, 0, (0, 1), &[]).split(' ').next(), Some("4096"));
        assert_eq!(refused(0, 1, 0, (1, 0), &[]), "0 bytes of pages are packed into 1");
        assert!(refused(0, 3, 0, (0, 1), b"xyz").contains("cannot be unpacked"));
        for content in [vec![1; 4095], vec![1; 1 << 24]] {
            let frame = zstd::bulk::compress(&content, 1).unwrap();
            assert!(refused(0, frame.len() as u32, 0, (0, 1), &frame).contains("packed pages"));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_harm(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            near in any::<bool>(),
            masks in any::<(u64, u64)>(),
        ) {
            let blocks = [block("a", 70)];
            let mut unpacker = Unpacker::default();
            let mut all = Vec::new();
            if near {
                let zeros = masks.0 & !masks.1;
                all.extend_from_slice(&header(0, 100, 0, (zeros, masks.1)));
            }
            all.extend_from_slice(&bytes);
            let mut from = Reader::new(&all[..]);
            while unpacker.take(&mut from, &blocks).is_ok_and(|more| more) {}
        }
    }
}
