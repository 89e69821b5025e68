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
use std::iter;
use std::sync::Arc;

use resources::iol::IoBuf;
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

impl Chunk {
    /// Where one of the pages is in its block.
    pub(crate) fn offset(&self, bit: u64) -> u64 {
        (self.word * PAGES + bit) * PAGE
    }

    /// Neighbours among the pages, where they are.
    pub(crate) fn buf(&self, first: u64, count: usize) -> IoBuf {
        let start = usize::try_from(self.offset(first)).unwrap_or(usize::MAX);
        IoBuf::block(&self.ram, start..start.saturating_add(count * PAGE_LEN))
    }
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
    scanner: Scanner,
    zstd: Option<Zstd>,
}

/// Packs pages.
struct Zstd {
    by: Compressor,
    pages: Vec<u8>,
    /// A header, and room for what the pages become.
    frame: Vec<u8>,
}

impl Packer {
    /// One that packs, if there is a level for that.
    pub(crate) fn new(level: Option<i32>) -> Result<Packer, Error> {
        let zstd = match level {
            Some(level) => {
                let (by, room) = (Compressor::new(level)?, || vec![0; HEADER + ROOM]);
                Some(Zstd { by, pages: room(), frame: room() })
            }
            None => None,
        };
        Ok(Packer { scanner: Scanner::default(), zstd })
    }

    /// The chunk, ready to be sent, and what was among its pages. Those that are not packed are sent
    /// from where they are.
    pub(crate) fn pack(&mut self, chunk: &Chunk) -> (Tally, IoBuf) {
        let zeros = self.scanner.zeros(chunk);
        let others = chunk.pages & !zeros;
        let tally = Tally { zero: zeros.count_ones().into(), normal: others.count_ones().into() };
        let header = |len: usize| header(chunk.block, len as u32, chunk.word, (zeros, others));
        let packed = self.zstd.as_mut().and_then(|zstd| {
            let len = zstd.pack(chunk, others)?;
            let frame = zstd.frame.get_mut(..HEADER + len)?;
            *frame.first_chunk_mut()? = header(len);
            Some(IoBuf::copy_of(frame))
        });
        let plain = || {
            let pages = runs(others).map(|(first, count)| chunk.buf(first, count));
            let all: Vec<_> = iter::once(IoBuf::copy_of(&header(0))).chain(pages).collect();
            IoBuf::concat(&all)
        };
        (tally, packed.unwrap_or_else(plain))
    }

    /// What ends a channel.
    pub(crate) fn end() -> [u8; HEADER] {
        header(END, 0, 0, (0, 0))
    }
}

impl Zstd {
    /// Packs these pages behind the header; `None` if they do not become fewer bytes.
    fn pack(&mut self, chunk: &Chunk, pages: u64) -> Option<usize> {
        let mut end = 0;
        for (first, count) in runs(pages) {
            let room = self.pages.get_mut(end..end + count * PAGE_LEN)?;
            chunk.ram.read(chunk.offset(first), room);
            end += count * PAGE_LEN;
        }
        self.by.pack(self.pages.get(..end)?, self.frame.get_mut(HEADER..)?)
    }
}

/// Looks for pages of zeros.
pub(crate) struct Scanner(Box<[u8; PAGE_LEN]>);

/// Most pages that are not zeros show it in so many bytes.
const GLANCE: usize = 64;

impl Default for Scanner {
    fn default() -> Scanner {
        Scanner(Box::new([0; PAGE_LEN]))
    }
}

impl Scanner {
    /// Which of the pages are zeros.
    pub(crate) fn zeros(&mut self, chunk: &Chunk) -> u64 {
        let bits = (0..PAGES).filter(|bit| chunk.pages >> bit & 1 != 0);
        let zeros = bits.filter(|bit| self.is_zero(&chunk.ram, chunk.offset(*bit)));
        zeros.fold(0, |all, bit| all | 1 << bit)
    }

    /// Whether the page at this offset is zeros.
    pub(crate) fn is_zero(&mut self, ram: &RamBlock, offset: u64) -> bool {
        let (glance, page) = (&mut [0; GLANCE], &mut self.0[..]);
        ram.read(offset, glance);
        is_zero(glance) && {
            ram.read(offset, page);
            is_zero(page)
        }
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
    scanner: Scanner,
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
            (first..first + count as u64).for_each(|bit| clear(ram, at(bit), &mut self.scanner));
        }
        let wanted = pages.count_ones() as usize * PAGE_LEN;
        match len {
            0 => {
                for (first, count) in runs(pages) {
                    from.memory(ram, at(first)..at(first) + count as u64 * PAGE)?;
                }
                return Ok(true);
            }
            len if len >= wanted => {
                let text = format!("{wanted} bytes of pages are packed into {len}");
                return Err(Error::bad(text));
            }
            len => self.frame.resize(len, 0),
        }
        from.bytes(&mut self.frame)?;
        self.pages.resize(ROOM, 0);
        let mut bytes = self.pages.get_mut(..wanted).unwrap_or_default();
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(Decompressor::new()?),
        };
        let unpacked = zstd.unpack(&self.frame, bytes);
        unpacked.map_err(|error| Error::Bad(error.to_string()))?;
        for (first, count) in runs(pages) {
            let Some((run, rest)) = bytes.split_at_mut_checked(count * PAGE_LEN) else { break };
            ram.write(at(first), run);
            bytes = rest;
        }
        Ok(true)
    }
}

/// Makes a page zeros. One that is so already is left alone, so that it takes no memory.
pub(crate) fn clear(ram: &RamBlock, offset: u64, scanner: &mut Scanner) {
    if !scanner.is_zero(ram, offset) {
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
            let sent = sent.to_vec();
            assert_eq!(tally, Tally { zero: 59, normal: 4 });
            assert_eq!(sent.len() < 1000, level.is_some(), "{}", sent.len());
            bytes.extend_from_slice(&sent);
            let (tally, sent) = packer.pack(&chunk(&here, 1, 0x3f));
            assert_eq!(tally, Tally { zero: 4, normal: 2 });
            bytes.extend_from_slice(&sent.to_vec());
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
