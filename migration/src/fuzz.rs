//! Streams from anybody, for the fuzzer and the tests.

use std::io::{self, Read, Write};
use std::sync::Arc;

use resources::ram::{PAGE, RamBlock};
use resources::state::Blob;

use crate::chunk::{Chunk, Packer, Unpacker};
use crate::dest::{Section, Target, receive};
use crate::inventory::Inventory;
use crate::needs::Announcement;
use crate::ram::Block;
use crate::source::{Link, Machine, Wants, send};
use crate::status::{Limits, Progress};
use crate::stream::Reader;

/// A machine that takes and gives whatever it is told to.
struct Anything;

impl Target for Anything {
    fn load(&mut self, _: Vec<Section>) -> Result<(), String> {
        Ok(())
    }
    fn take(&mut self) -> Result<(), String> {
        Ok(())
    }
}

impl Machine for Anything {
    fn start_log(&mut self) -> Result<(), String> {
        Ok(())
    }
    fn harvest(&mut self) -> Result<(), String> {
        Ok(())
    }
    fn stop_log(&mut self) {}
    fn switch_over(&mut self) -> Result<Vec<Section>, String> {
        let blob = Blob::new(1, &7_u32).map_err(|error| error.to_string())?;
        Ok(vec![Section { name: "cpu".into(), blob }])
    }
    fn release(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// A peer that has said all it will say, and hears nothing; or a stream that goes one way.
struct Bytes<'a> {
    said: &'a [u8],
    heard: Vec<u8>,
}

impl Read for Bytes<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.said.read(to)
    }
}

impl Write for Bytes<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.heard.write(from)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Link for &mut Bytes<'_> {
    fn two_way(&self) -> bool {
        false
    }
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn inventory() -> Inventory {
    let parts = [("cpu".into(), "x".into())].into();
    Inventory { machine: "pc".into(), cpu: "qemu64".into(), parts, ..Inventory::default() }
}

fn memory() -> Vec<Block> {
    let block = |(name, pages): (&str, u64)| {
        let ram: Arc<RamBlock> = RamBlock::anonymous(pages * PAGE).ok()?;
        Some(Block { name: name.into(), ram })
    };
    [("pc.ram", 6), ("pc.rom", 1)].into_iter().filter_map(block).collect()
}

/// A stream to a small machine.
pub fn stream(data: &[u8]) {
    let mut link = Bytes { said: data, heard: Vec::new() };
    if let Err(error) = receive(&mut link, memory(), &inventory(), &mut Anything) {
        assert!(!error.to_string().is_empty());
    }
}

/// A channel of that machine's memory.
pub fn channel(mut data: &[u8]) {
    if announced().meet(&mut data).is_err() {
        return;
    }
    let (mut from, blocks) = (Reader::new(data), memory());
    let mut unpacker = Unpacker::default();
    while unpacker.take(&mut from, &blocks).is_ok_and(|more| more) {}
}

fn announced() -> Announcement {
    Announcement { count: 2, session: vec![7; 16] }
}

fn written() -> Vec<Block> {
    let blocks = memory();
    for block in &blocks {
        block.ram.write(PAGE / 2, b"in the first page");
    }
    blocks
}

/// What a source sends to that machine.
#[must_use]
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let send = |(name, level): (&str, Option<i32>)| {
        let mut link = Bytes { said: &[], heard: Vec::new() };
        let limits = Arc::new(Limits::default());
        let progress: Arc<Progress> = Arc::default();
        let wants = Wants { level, ..Wants::default() };
        send(&mut link, written(), &inventory(), &mut Anything, &limits, &progress, wants);
        (name.to_owned(), link.heard)
    };
    [("whole", None), ("packed", Some(1))].into_iter().map(send).collect()
}

/// What it sends by a channel.
#[must_use]
pub fn channel_seeds() -> Vec<(String, Vec<u8>)> {
    let channel = |(name, level)| {
        let mut bytes = Vec::new();
        announced().greet(&mut bytes, 1).ok()?;
        let mut packer = Packer::new(level).ok()?;
        for (block, it) in (0..).zip(written()) {
            let pages = (1 << (it.ram.size() / PAGE)) - 1;
            let chunk = Chunk { block, ram: it.ram, word: 0, pages };
            bytes.extend_from_slice(&packer.pack(&chunk).1.to_vec());
        }
        bytes.extend_from_slice(&Packer::end());
        Some((String::from(name), bytes))
    };
    [("plain", None), ("packed", Some(1))].into_iter().filter_map(channel).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_is_taken() {
        seeds().into_iter().for_each(|(_, stream)| taken(stream));
        for (name, channel) in channel_seeds() {
            super::channel(&channel);
            assert!(channel.len() > 4096 * 2 || name == "packed", "{}", channel.len());
        }
    }

    fn taken(stream: Vec<u8>) {
        let mut link = Bytes { said: &stream, heard: Vec::new() };
        let blocks = memory();
        receive(&mut link, blocks.clone(), &inventory(), &mut Anything).unwrap();
        let mut bytes = [0; 17];
        blocks[1].ram.read(PAGE / 2, &mut bytes);
        assert_eq!(&bytes, b"in the first page");
        // Cut off anywhere before the end of all sections it is refused, without harm.
        (0..stream.len()).step_by(61).for_each(|len| super::stream(&stream[..len]));
        // Nor do bytes that were changed on the way harm.
        let mut state = 1_u64;
        for _ in 0..2000 {
            let mut changed = stream.clone();
            for _ in 0..3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (at, byte) = ((state >> 33) as usize % changed.len(), (state >> 24) as u8);
                changed[at] = byte;
            }
            super::stream(&changed);
        }
    }

    #[test]
    #[ignore = "writes into the source tree"]
    fn write_seeds() {
        for (target, seeds) in [("stream", seeds()), ("channel", channel_seeds())] {
            let seeds_of = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds");
            let directory = format!("{seeds_of}/migration_{target}");
            std::fs::create_dir_all(&directory).unwrap();
            for (name, seed) in seeds {
                std::fs::write(format!("{directory}/{name}"), seed).unwrap();
            }
        }
    }
}
