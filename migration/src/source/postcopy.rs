//! The sending side of post-copy ([`crate::postcopy`]).
//!
//! On the thread of the migration: it sends pages, and between them looks whether the destination
//! asks for others. What it asks for comes from anybody: places are checked, a page is sent once,
//! and requests are read only so many at a time, so that they cannot hold up the rest.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use resources::ram::{PAGE, RamBlock};

use super::hand_over::unexpected;
use super::{Machine, Source, WINDOW};
use crate::link::Link;
use crate::postcopy::faults::LARGEST;
use crate::postcopy::missing::Missing;
use crate::postcopy::{NAME, VERSION, form};
use crate::stream::{Error, Writer, answer, command, kind};
use crate::zero::is_zero;

/// So many bytes are sent before it is looked whether something is asked for.
const CHUNK: u64 = 64 << 10;
/// So many requests are read before something else is sent.
const REQUESTS: usize = 64;
/// So long the destination may take to place the last pages and say so.
const LAST: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 120 });

/// The memory that may come late.
#[derive(Debug)]
pub(super) struct Late {
    blocks: Vec<Block>,
    /// The block and the offset in it to go on with.
    at: (usize, u64),
    /// The guest was stopped, and its memory comes late.
    begun: bool,
    /// Pages of zeros and others that were sent, in 4 KiB.
    zero: u64,
    normal: u64,
}

#[derive(Debug)]
struct Block {
    name: String,
    ram: Arc<RamBlock>,
    missing: Missing,
}

impl Late {
    /// The blocks that the destination lists in its answer.
    fn new(data: &[u8], blocks: &[(String, Arc<RamBlock>)]) -> Result<Late, Error> {
        let bad = || Error::bad("the destination lists memory that is not there");
        let mut all: Vec<Block> = Vec::new();
        let mut data = data;
        while let Some((len, rest)) = data.split_first() {
            let (name, rest) = rest.split_at_checked(usize::from(*len)).ok_or_else(bad)?;
            let (page, rest) = rest.split_first_chunk().ok_or_else(bad)?;
            data = rest;
            let page = u64::from(u32::from_be_bytes(*page));
            let found = blocks.iter().find(|(block, _)| block.as_bytes() == name);
            let (name, ram) = found.ok_or_else(bad)?;
            let fits = (PAGE..=LARGEST).contains(&page)
                && page.is_power_of_two()
                && ram.size().is_multiple_of(page);
            if !fits || all.iter().any(|block| block.name == *name) {
                return Err(bad());
            }
            let missing = Missing::none(ram.size(), page);
            all.push(Block { name: name.clone(), ram: ram.clone(), missing });
        }
        Ok(Late { blocks: all, at: (0, 0), begun: false, zero: 0, normal: 0 })
    }

    /// Bytes that are still to be sent.
    fn left(&self) -> u64 {
        self.blocks.iter().map(|block| block.missing.bytes()).sum()
    }

    /// The next page to send without being asked.
    fn next(&mut self) -> Option<(usize, u64)> {
        for _ in 0..=self.blocks.len() {
            let (index, from) = self.at;
            if let Some(offset) = self.blocks.get(index)?.missing.next(from) {
                return Some((index, offset));
            }
            self.at = ((index + 1) % self.blocks.len(), 0);
        }
        None
    }

    /// Sends a page, unless it was sent.
    fn send(
        &mut self,
        to: &mut Writer<impl Write>,
        (index, offset): (usize, u64),
    ) -> Result<(), Error> {
        let Some(block) = self.blocks.get_mut(index) else { return Ok(()) };
        if !block.missing.take(offset) {
            return Ok(());
        }
        let mut bytes = vec![0; usize::try_from(block.missing.page()).unwrap_or(0)];
        block.ram.read(offset, &mut bytes);
        let small = block.missing.page() / PAGE;
        // What follows is likely to be touched next.
        self.at = (index, offset + block.missing.page());
        to.u8(kind::LATE)?;
        to.u8(u8::try_from(index).unwrap_or(u8::MAX))?;
        to.u64(offset)?;
        if is_zero(&bytes) {
            self.zero += small;
            return to.u8(form::ZERO);
        }
        self.normal += small;
        to.u8(form::BYTES)?;
        to.bytes(&bytes)
    }

    /// What a request asks for.
    fn requested(&self, data: &[u8]) -> Result<(usize, u64), Error> {
        let bad = || Error::bad("the destination asks for memory that is not there");
        let (block, offset) = data.split_first().ok_or_else(bad)?;
        let offset = u64::from_be_bytes(offset.try_into().map_err(|_| bad())?);
        let index = usize::from(*block);
        let block = self.blocks.get(index).filter(|_| self.begun).ok_or_else(bad)?;
        block.missing.has(offset).ok_or_else(bad)?;
        Ok((index, offset))
    }
}

impl<L: Link, M: Machine> Source<'_, L, M> {
    /// Asks whether the destination could take memory late, if that is wanted.
    pub(super) fn advise(&mut self) -> Result<(), Error> {
        if !self.wants.postcopy {
            return Ok(());
        }
        if !self.to.channel().two_way() {
            let text = "post-copy needs a connection on which the destination can ask for memory";
            return Err(Error::Here(text.to_owned()));
        }
        self.to.command(command::POSTCOPY_ADVISE, &[])?;
        let listed = self.answered(answer::LATE)?;
        self.late = Some(Late::new(&listed, &self.ram.blocks())?);
        Ok(())
    }

    /// Whether the guest is to go on at the destination without the rest of its memory.
    pub(super) fn goes_early(&mut self) -> Result<bool, Error> {
        Ok(self.late.is_some() && self.progress.is_early_wanted() && self.read_there()?)
    }

    /// Whether some of the guest's memory follows it.
    pub(super) fn lags(&self) -> bool {
        self.late.as_ref().is_some_and(|late| late.begun)
    }

    /// The guest stands still: takes what may come late out of what is sent before it goes on, if
    /// a client has said that it is to go early.
    pub(super) fn set_aside(&mut self) {
        let Some(late) = self.late.as_mut().filter(|_| self.progress.is_early_wanted()) else {
            return;
        };
        late.begun = true;
        for block in &mut late.blocks {
            let small = self.ram.take_dirty(&block.name);
            block.missing = Missing::of_small(&small, block.ram.size(), block.missing.page());
        }
    }

    /// Says what is missing, if something comes late.
    pub(super) fn tell_missing(&mut self) -> Result<(), Error> {
        let Some(late) = self.late.take_if(|late| late.begun) else { return Ok(()) };
        let id = self.id();
        self.to.section(kind::FULL, id, NAME, VERSION)?;
        for block in &late.blocks {
            block.missing.write(&mut self.to)?;
        }
        self.to.footer(id)?;
        self.late = Some(late);
        Ok(())
    }

    /// Sends what somebody at the destination waits for.
    pub(super) fn serve(&mut self, request: &[u8]) -> Result<(), Error> {
        let Some(late) = &mut self.late else {
            return Err(Error::bad("the destination asks for memory before the guest is there"));
        };
        let place = late.requested(request)?;
        late.send(&mut self.to, place)?;
        self.to.flush()
    }

    /// The guest runs at the destination: sends what comes late, what is asked for first.
    pub(super) fn send_late(&mut self) -> Result<(), Error> {
        if !self.lags() {
            return Ok(());
        }
        self.progress.early();
        // However slow it is: nobody else has the memory.
        self.to.channel().give_up_after(Duration::MAX);
        self.to.channel().hasten();
        let (mut began, mut from) = (Instant::now(), self.to.written());
        loop {
            for _ in 0..REQUESTS {
                // The destination may have said half of one before its connection stalled.
                match self.answers.next(self.to.channel())? {
                    None => break,
                    Some((answer::REQUEST, data)) => self.serve(&data)?,
                    Some((other, data)) => return Err(unexpected(other, &data)),
                }
            }
            let Some(late) = &mut self.late else { return Ok(()) };
            let until = self.to.written() + CHUNK;
            while self.to.written() < until
                && let Some(place) = late.next()
            {
                late.send(&mut self.to, place)?;
            }
            let left = late.left();
            let (zero, normal) = (std::mem::take(&mut late.zero), std::mem::take(&mut late.normal));
            self.to.flush()?;
            let (written, elapsed) = (self.to.written(), began.elapsed());
            let transferred = self.without_disks();
            self.progress.update(|figures| {
                figures.zero += zero;
                figures.normal += normal;
                (figures.transferred, figures.remaining) = (transferred, left);
                if elapsed >= WINDOW {
                    figures.mbps = (written - from) as f64 * 8.0 / elapsed.as_secs_f64() / 1e6;
                }
            });
            if elapsed >= WINDOW {
                (began, from) = (Instant::now(), written);
            }
            if left == 0 {
                break;
            }
        }
        self.to.command(command::ALL_SENT, &[])?;
        self.answered_within(answer::FULL, LAST)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_page_is_larger_than_a_destination_can_place() {
        let ram = RamBlock::anonymous(2 * LARGEST).unwrap();
        let blocks = [("ram".to_owned(), ram)];
        let listed = |page: u64| {
            let list = [&[3][..], b"ram", &(page as u32).to_be_bytes()].concat();
            Late::new(&list, &blocks)
        };
        listed(LARGEST).unwrap();
        for page in [0, PAGE / 2, 3 * PAGE, 2 * LARGEST] {
            listed(page).unwrap_err();
        }
    }
}
