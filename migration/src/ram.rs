//! RAM in the stream: the section `ram` with its records of pages.
//!
//! A record is eight bytes, the page's offset in its block with flags below, then the block's name
//! unless it is that of the record before, then the page. On the sending side [`Sender`] knows
//! which pages are still to be sent; a page's bit is cleared *before* the page is copied, so that
//! what the guest writes meanwhile is sent again. [`Receiver`] puts pages where they belong.
//!
//! Each belongs to the thread of its side. What the receiver reads comes from anybody: names,
//! lengths and offsets are checked against the machine's own blocks.

use std::io::{Read, Write};
use std::sync::Arc;

use resources::iol::IoBuf;
use resources::ram::{PAGE, RamBlock};

use crate::chunk::{Chunk, Packer, Scanner, Tally, Unpacker, clear};
use crate::stream::{self, Error, MemoryWrite, Reader, Writer};
use crate::xbzrle::{self, Form};
use crate::zero::is_zero;

mod free;

pub use free::{Free, Hinting};

/// The version of the section.
pub const VERSION: u32 = 4;
/// The name of the section.
pub const NAME: &str = "ram";

/// Flags of a record.
mod flag {
    pub(super) const COMPRESS: u64 = 0x02;
    pub(super) const MEM_SIZE: u64 = 0x04;
    pub(super) const PAGE: u64 = 0x08;
    pub(super) const EOS: u64 = 0x10;
    pub(super) const CONTINUE: u64 = 0x20;
    pub(super) const XBZRLE: u64 = 0x40;
    /// Many pages at once. Ours.
    pub(super) const CHUNK: u64 = 0x800;
    pub(super) const ALL: u64 = 0xfff;
}

const PAGE_LEN: usize = PAGE as usize;

/// A piece of memory that moves, under the name that both sides give it.
#[derive(Debug, Clone)]
pub struct Block {
    /// Its name, at most 255 bytes.
    pub name: String,
    /// The memory.
    pub ram: Arc<RamBlock>,
}

/// How a page was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// As a page of zeros.
    Zero,
    /// As it is.
    Normal,
    /// As the difference to what was sent before, which may be none.
    Delta,
    /// Several at once.
    Chunk(Tally),
}

/// What announces a delta.
const DELTA: u8 = 1;

struct Outgoing {
    block: Block,
    /// Bytes of the blocks before it.
    base: u64,
    /// A bit for each page that is to be sent.
    dirty: Vec<u64>,
}

/// Has what the guest writes to a part of a block, an offset and so many bytes, noted again.
pub type Watch = Box<dyn FnMut(&RamBlock, u64, u64) -> Result<(), String> + Send>;

/// So many pages are watched again at once, before the first of them is read.
const CHUNK: u64 = 1024;

/// Memory on the sending side.
pub struct Sender {
    blocks: Vec<Outgoing>,
    /// Pages to be sent.
    dirty: u64,
    /// Where to look next: a block, and a page in it.
    at: (usize, u64),
    /// The block of the last record of this part.
    named: Option<usize>,
    /// Knows what was sent, if differences are to be.
    deltas: Option<xbzrle::Sender>,
    watch: Option<Watch>,
    /// The block and the chunk of it that was watched last since writes were collected.
    watched: Option<(usize, u64)>,
    /// Packs pages, if they are to be.
    packer: Option<Packer>,
    scanner: Scanner,
    /// The page that is being sent.
    page: Box<xbzrle::Page>,
    /// How often it was collected what was written.
    pass: u32,
    /// Pages that the guest has named as free since then.
    freed: u64,
    /// The guest stands still: nothing is sent twice any more.
    last: bool,
}

fn pages(block: &Block) -> u64 {
    block.ram.size() / PAGE
}

impl Sender {
    /// All pages of these blocks are to be sent.
    pub fn new(blocks: Vec<Block>) -> Sender {
        let mut bytes = 0u64;
        let blocks: Vec<_> = (blocks.into_iter())
            .map(|block| {
                let base = bytes;
                bytes = bytes.saturating_add(block.ram.size());
                let pages = pages(&block);
                let mut dirty = vec![u64::MAX; pages.div_ceil(64) as usize];
                if let Some(last) = dirty.last_mut()
                    && !pages.is_multiple_of(64)
                {
                    *last = (1 << (pages % 64)) - 1;
                }
                Outgoing { block, base, dirty }
            })
            .collect();
        let dirty = blocks.iter().map(|out| pages(&out.block)).sum();
        let (deltas, packer, pass, freed, last) = (None, None, 0, 0, false);
        let (at, named, watch, watched) = ((0, 0), None, None, None);
        let (scanner, page) = (Scanner::default(), Box::new([0; PAGE_LEN]));
        Sender {
            blocks,
            dirty,
            at,
            named,
            deltas,
            watch,
            watched,
            packer,
            scanner,
            page,
            pass,
            freed,
            last,
        }
    }

    /// Sends differences from now on, where that is shorter.
    pub fn send_deltas(&mut self, deltas: xbzrle::Sender) {
        self.deltas = Some(deltas);
    }

    /// Calls `watch` for memory that it is about to read from now on, if it was not called for it
    /// since [`collect`](Self::collect).
    pub fn watch_by(&mut self, watch: Watch) {
        self.watch = Some(watch);
    }

    /// What knows the differences, if they are sent.
    pub fn deltas(&mut self) -> Option<&mut xbzrle::Sender> {
        self.deltas.as_mut()
    }

    /// Packs pages from now on, by this level of zstd; but those that are sent as differences.
    ///
    /// # Errors
    /// There is no memory.
    pub fn compress(&mut self, level: i32) -> Result<(), Error> {
        self.packer = Some(Packer::new(Some(level))?);
        Ok(())
    }

    /// The guest stands still from now on: it needs not be watched any more.
    pub fn last(&mut self) {
        (self.last, self.watch) = (true, None);
    }

    /// Pages that are to be sent.
    pub fn dirty(&self) -> u64 {
        self.dirty
    }

    /// The blocks.
    pub(crate) fn blocks(&self) -> Vec<(String, Arc<RamBlock>)> {
        let blocks = self.blocks.iter();
        blocks.map(|out| (out.block.name.clone(), out.block.ram.clone())).collect()
    }

    /// The pages of a block that were to be sent, and are not any more.
    pub(crate) fn take_dirty(&mut self, name: &str) -> Vec<u64> {
        let Some(out) = self.blocks.iter_mut().find(|out| out.block.name == name) else {
            return Vec::new();
        };
        let words = out.dirty.len();
        let taken = std::mem::replace(&mut out.dirty, vec![0; words]);
        self.dirty -= taken.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
        taken
    }

    /// Bytes of all blocks.
    pub fn total(&self) -> u64 {
        self.blocks.iter().map(|out| out.block.ram.size()).sum()
    }

    /// Takes over what the blocks' own bitmaps say was written; returns how many pages were.
    pub fn collect(&mut self) -> u64 {
        let mut new = 0;
        self.pass = self.pass.saturating_add(1);
        (self.watched, self.freed) = (None, 0);
        for out in &mut self.blocks {
            let written = out.block.ram.region().bitmap().get_and_reset();
            for (word, written) in out.dirty.iter_mut().zip(written) {
                new += u64::from(written.count_ones());
                self.dirty += u64::from((written & !*word).count_ones());
                *word |= written;
            }
        }
        new
    }

    /// The list of blocks, with which the section starts.
    ///
    /// # Errors
    /// The connection has broken.
    pub fn start(&mut self, to: &mut Writer<impl Write>) -> Result<(), Error> {
        to.u64(self.total() | flag::MEM_SIZE)?;
        for out in &self.blocks {
            to.name(&out.block.name)?;
            to.u64(out.block.ram.size())?;
        }
        self.end_part(to)
    }

    /// Ends the part.
    ///
    /// # Errors
    /// The connection has broken.
    pub fn end_part(&mut self, to: &mut Writer<impl Write>) -> Result<(), Error> {
        self.named = None;
        to.u64(flag::EOS)
    }

    /// The next pages to send, up to the end of their word, or only the first if it is to be `one`.
    /// Their bits are cleared, and what is written to them from now on is noted.
    fn next(&mut self, one: bool) -> Result<Option<(usize, u64, u64)>, Error> {
        let Some((index, word, bits)) = self.find(one) else { return Ok(None) };
        let chunk = word * 64 / CHUNK;
        if let Some(watch) = &mut self.watch
            && self.watched != Some((index, chunk))
            && let Some(out) = self.blocks.get(index)
        {
            let (offset, size) = (chunk * CHUNK * PAGE, CHUNK * PAGE);
            watch(&out.block.ram, offset, size).map_err(Error::Here)?;
            self.watched = Some((index, chunk));
        }
        Ok(Some((index, word, bits)))
    }

    fn find(&mut self, one: bool) -> Option<(usize, u64, u64)> {
        if self.dirty == 0 {
            return None;
        }
        // Once around, and the first block again up to where it began.
        for _ in 0..=self.blocks.len() {
            let (index, from) = self.at;
            let out = self.blocks.get_mut(index)?;
            let mut first = (from / 64) as usize;
            let mut mask = u64::MAX << (from % 64);
            while let Some(word) = out.dirty.get_mut(first) {
                let mut bits = *word & mask;
                if bits != 0 {
                    self.at.1 = (first as u64 + 1) * 64;
                    if one {
                        let bit = bits.trailing_zeros();
                        bits = 1 << bit;
                        self.at.1 = first as u64 * 64 + u64::from(bit) + 1;
                    }
                    *word &= !bits;
                    self.dirty -= u64::from(bits.count_ones());
                    return Some((index, first as u64, bits));
                }
                mask = u64::MAX;
                first += 1;
            }
            self.at = ((index + 1) % self.blocks.len(), 0);
        }
        None
    }

    /// The next pages to send, as a chunk; `None` if there are none. Their bits are cleared, so
    /// they must be read after this.
    ///
    /// # Errors
    /// The hypervisor does not note what is written.
    pub(crate) fn chunk(&mut self) -> Result<Option<Chunk>, Error> {
        let Some((index, word, pages)) = self.next(false)? else { return Ok(None) };
        let block = u32::try_from(index).ok().zip(self.blocks.get(index));
        let ram = |out: &Outgoing| out.block.ram.clone();
        Ok(block.map(|(block, out)| Chunk { block, ram: ram(out), word, pages }))
    }

    /// Sends the next pages, up to a word of them; `None` if there is none.
    ///
    /// # Errors
    /// The connection has broken.
    pub fn send(&mut self, to: &mut Writer<impl MemoryWrite>) -> Result<Option<Sent>, Error> {
        // In the first pass there are no differences, nor is it noted what was sent.
        if self.deltas.is_some() && self.pass > 1 {
            return self.send_page(to);
        }
        let Some(chunk) = self.chunk()? else { return Ok(None) };
        let tally = match &mut self.packer {
            Some(packer) => {
                let (tally, memory) = packer.pack(&chunk);
                to.u64(flag::CHUNK)?;
                to.memory(&memory)?;
                tally
            }
            None => self.send_records(to, &chunk)?,
        };
        Ok(Some(Sent::Chunk(tally)))
    }

    /// Sends the pages of a chunk as records of their own; those that are not zeros from where they
    /// are.
    fn send_records(
        &mut self,
        to: &mut Writer<impl MemoryWrite>,
        chunk: &Chunk,
    ) -> Result<Tally, Error> {
        let zeros = self.scanner.zeros(chunk);
        let others = chunk.pages & !zeros;
        let mut heads = Vec::with_capacity(1024);
        // Where pages stand between the heads.
        let mut pages = Vec::with_capacity(others.count_ones() as usize);
        for bit in (0..u64::from(u64::BITS)).filter(|bit| chunk.pages >> bit & 1 != 0) {
            let (index, offset) = (chunk.block as usize, chunk.offset(bit));
            if zeros >> bit & 1 != 0 {
                self.head(&mut heads, index, offset | flag::COMPRESS)?;
                heads.push(0);
            } else {
                self.head(&mut heads, index, offset | flag::PAGE)?;
                pages.push((heads.len(), bit));
            }
        }
        if pages.is_empty() {
            to.bytes(&heads)?;
        } else {
            let heads = IoBuf::copy_of(&heads);
            let mut parts = Vec::with_capacity(2 * pages.len() + 1);
            let mut from = 0;
            for (end, bit) in pages {
                parts.extend([heads.slice(from..end), chunk.buf(bit, 1)]);
                from = end;
            }
            parts.push(heads.skip(from));
            to.memory(&IoBuf::concat(&parts))?;
        }
        Ok(Tally { zero: zeros.count_ones().into(), normal: others.count_ones().into() })
    }

    /// Sends the next page as a difference, if that is shorter.
    fn send_page(&mut self, to: &mut Writer<impl Write>) -> Result<Option<Sent>, Error> {
        let Some((index, word, bit)) = self.next(true)? else { return Ok(None) };
        let offset = (word * 64 + u64::from(bit.trailing_zeros())) * PAGE;
        let Some(out) = self.blocks.get(index) else { return Ok(None) };
        out.block.ram.read(offset, &mut self.page[..]);
        let address = out.base + offset;
        if is_zero(&self.page[..]) {
            if let Some(deltas) = &mut self.deltas {
                deltas.zero(address, self.pass);
            }
            self.record(to, index, offset | flag::COMPRESS)?;
            to.u8(0)?;
            return Ok(Some(Sent::Zero));
        }
        if self.delta(to, (index, offset, address))? {
            return Ok(Some(Sent::Delta));
        }
        self.record(to, index, offset | flag::PAGE)?;
        to.bytes(&self.page[..])?;
        Ok(Some(Sent::Normal))
    }

    /// Sends a page as the difference to what was sent of it before, if that is to be and shorter.
    fn delta(
        &mut self,
        to: &mut Writer<impl Write>,
        (index, offset, address): (usize, u64, u64),
    ) -> Result<bool, Error> {
        let Some(deltas) = &mut self.deltas else { return Ok(false) };
        let delta = match deltas.page(address, &self.page, self.pass, self.last) {
            Form::Unchanged => return Ok(true),
            Form::Raw => return Ok(false),
            Form::Delta(delta) => delta.to_vec(),
        };
        let before = to.written();
        self.record(to, index, offset | flag::XBZRLE)?;
        to.u8(DELTA)?;
        to.u16(u16::try_from(delta.len()).unwrap_or(u16::MAX))?;
        to.bytes(&delta)?;
        let sent = usize::try_from(to.written() - before).unwrap_or(usize::MAX);
        if let Some(deltas) = &mut self.deltas {
            deltas.sent(sent);
        }
        Ok(true)
    }

    fn record(
        &mut self,
        to: &mut Writer<impl Write>,
        index: usize,
        head: u64,
    ) -> Result<(), Error> {
        let mut bytes = Vec::with_capacity(8);
        self.head(&mut bytes, index, head)?;
        to.bytes(&bytes)
    }

    /// What a record begins with.
    fn head(&mut self, into: &mut Vec<u8>, index: usize, head: u64) -> Result<(), Error> {
        if self.named == Some(index) {
            into.extend((head | flag::CONTINUE).to_be_bytes());
            return Ok(());
        }
        self.named = Some(index);
        into.extend(head.to_be_bytes());
        let name = self.blocks.get(index).map_or("", |out| &out.block.name);
        into.extend(stream::name(name)?);
        Ok(())
    }
}

/// Memory on the receiving side.
pub struct Receiver {
    blocks: Vec<Block>,
    /// The list of blocks was read.
    listed: bool,
    named: Option<usize>,
    /// The blocks in the order of the list.
    order: Vec<Block>,
    unpacker: Unpacker,
    scanner: Scanner,
    /// A page that changes.
    page: Box<xbzrle::Page>,
}

impl Receiver {
    /// These blocks are to be filled.
    pub fn new(blocks: Vec<Block>) -> Receiver {
        let (order, unpacker) = (Vec::new(), Unpacker::default());
        let (scanner, page) = (Scanner::default(), Box::new([0; PAGE_LEN]));
        Receiver { blocks, listed: false, named: None, order, unpacker, scanner, page }
    }

    /// The blocks in the order in which they were listed.
    pub fn order(&self) -> &[Block] {
        &self.order
    }

    /// Reads the start of the section: the list of blocks, and nothing else.
    ///
    /// # Errors
    /// It is not that, or not of this machine, or the stream ends. No memory was changed.
    pub fn start(&mut self, from: &mut Reader<impl Read>) -> Result<(), Error> {
        let head = from.u64()?;
        if head & flag::ALL != flag::MEM_SIZE {
            return Err(Error::bad("the section of memory does not start with its list"));
        }
        self.list(from, head & !flag::ALL)?;
        match from.u64()? {
            flag::EOS => Ok(()),
            _ => Err(Error::bad("pages come with the list of memory")),
        }
    }

    /// Reads a further part of the section.
    ///
    /// # Errors
    /// It is not one that this machine can take, or the stream ends.
    pub fn part(&mut self, from: &mut Reader<impl Read>) -> Result<(), Error> {
        self.named = None;
        loop {
            let head = from.u64()?;
            let (offset, flags) = (head & !flag::ALL, head & flag::ALL);
            match flags & !flag::CONTINUE {
                flag::EOS => return Ok(()),
                flag::MEM_SIZE => self.list(from, offset)?,
                flag::CHUNK if flags == flag::CHUNK && offset == 0 => {
                    if !self.unpacker.take(from, &self.order)? {
                        return Err(Error::bad("Ack, bad migration stream!"));
                    }
                }
                flag::COMPRESS => {
                    let index = self.place(from, offset, flags)?;
                    let fill = from.u8()?;
                    self.fill(index, offset, fill);
                }
                flag::PAGE => {
                    let index = self.place(from, offset, flags)?;
                    if let Some(block) = self.blocks.get(index) {
                        from.memory(&block.ram, offset..offset + PAGE)?;
                    }
                }
                flag::XBZRLE => {
                    let index = self.place(from, offset, flags)?;
                    self.change(from, index, offset)?;
                }
                _ => {
                    let text = format!("Unknown combination of migration flags: {flags:#x}");
                    return Err(Error::bad(text));
                }
            }
        }
    }

    /// Which block a record is of.
    fn place(
        &mut self,
        from: &mut Reader<impl Read>,
        offset: u64,
        flags: u64,
    ) -> Result<usize, Error> {
        if !self.listed {
            return Err(Error::bad("pages come before the list of memory"));
        }
        let index = if flags & flag::CONTINUE == 0 {
            let name = from.name()?;
            let found = self.blocks.iter().position(|block| block.name == name);
            found.ok_or_else(|| Error::bad(format!("Can't find block {name}!")))?
        } else {
            self.named.ok_or_else(|| Error::bad("Ack, bad migration stream!"))?
        };
        self.named = Some(index);
        match self.blocks.get(index) {
            Some(block) if offset < block.ram.size() => Ok(index),
            Some(block) => {
                let text = format!("a page at {offset:#x} is past the end of '{}'", block.name);
                Err(Error::bad(text))
            }
            None => Err(Error::bad("Ack, bad migration stream!")),
        }
    }

    /// A page as the difference to what it is.
    fn change(
        &mut self,
        from: &mut Reader<impl Read>,
        index: usize,
        offset: u64,
    ) -> Result<(), Error> {
        let failed = |what: &str| Error::bad(format!("Failed to load XBZRLE page - {what}!"));
        if from.u8()? != DELTA {
            return Err(failed("wrong compression"));
        }
        let len = usize::from(from.u16()?);
        let mut delta = [0; PAGE_LEN];
        let delta = delta.get_mut(..len).ok_or_else(|| failed("len overflow"))?;
        from.bytes(delta)?;
        if let Some(block) = self.blocks.get(index) {
            block.ram.read(offset, &mut self.page[..]);
            xbzrle::decode(delta, &mut self.page).map_err(|_| failed("decode error"))?;
            block.ram.write(offset, &self.page[..]);
        }
        Ok(())
    }

    /// A page of one byte. One that is so already is left alone, so that it takes no memory.
    fn fill(&mut self, index: usize, offset: u64, fill: u8) {
        let Some(block) = self.blocks.get(index) else { return };
        if fill == 0 {
            return clear(&block.ram, offset, &mut self.scanner);
        }
        block.ram.read(offset, &mut self.page[..]);
        if *self.page != [fill; PAGE_LEN] {
            block.ram.write(offset, &[fill; PAGE_LEN]);
        }
    }

    /// The list of blocks must be that of this machine.
    fn list(&mut self, from: &mut Reader<impl Read>, total: u64) -> Result<(), Error> {
        let mut left = total;
        let mut found = vec![false; self.blocks.len()];
        let mut order = Vec::new();
        while left > 0 {
            let name = from.name()?;
            let size = from.u64()?;
            let index = self.blocks.iter().position(|block| block.name == name);
            let (Some(seen), Some(block)) = (
                index.and_then(|index| found.get_mut(index)),
                index.and_then(|index| self.blocks.get(index)),
            ) else {
                let text = format!("Unknown ramblock \"{name}\", cannot accept migration");
                return Err(Error::bad(text));
            };
            if size != block.ram.size() {
                let here = block.ram.size();
                return Err(Error::bad(format!(
                    "Length mismatch: {name}: {size:x} in != {here:x}"
                )));
            }
            if std::mem::replace(seen, true) {
                return Err(Error::bad(format!("memory '{name}' is listed twice")));
            }
            order.push(block.clone());
            left = left
                .checked_sub(size)
                .ok_or_else(|| Error::bad("the list of memory is longer than its total"))?;
        }
        if let Some((block, _)) = self.blocks.iter().zip(&found).find(|(_, found)| !**found) {
            let text = format!("memory '{}' of this machine is not in the stream", block.name);
            return Err(Error::bad(text));
        }
        (self.listed, self.order) = (true, order);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
