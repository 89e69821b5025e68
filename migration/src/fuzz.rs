//! Streams from anybody, for the fuzzer and the tests.

use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use resources::ram::{PAGE, RamBlock};
use resources::state::Blob;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::chunk::{Chunk, Packer, Unpacker};
use crate::dest::{Section, Target, receive};
use crate::inventory::Inventory;
use crate::link::Link;
use crate::needs::Announcement;
use crate::postcopy::faults::Faults;
use crate::ram::Block;
use crate::source::{Machine, Outcome, Wants, send};
use crate::status::{Limits, Progress};
use crate::stream::{Error, Reader, answer, command, kind};

/// A machine that takes and gives whatever it is told to.
struct Anything;

impl Target for Anything {
    fn load(&mut self, _: Vec<Section>) -> Result<(), String> {
        Ok(())
    }
    fn take(&mut self) -> Result<(), String> {
        Ok(())
    }
    fn lost(&mut self, _: Faults) {
        // Nobody waits for memory.
    }
}

impl Machine for Anything {
    fn switch_over(&mut self) -> Result<Vec<Section>, String> {
        let blob = Blob::new(1, &7_u32).map_err(|error| error.to_string())?;
        Ok(vec![Section { name: "cpu".into(), blob }])
    }
    fn release(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// A peer that has said all it will say; or a stream that goes one way.
#[derive(Default)]
struct Bytes<'a> {
    said: &'a [u8],
    heard: Vec<u8>,
    two_way: bool,
    /// How often it was waited for something that it says only when it has heard something else.
    held: u32,
}

/// What a peer says only when it has heard an answer, or when it is asked for.
const STEPS: [(u8, u16, u16); 2] =
    [(kind::COMMAND, command::TAKE, answer::LOADED), (kind::COMMAND, command::GO, answer::READY)];

impl Bytes<'_> {
    /// Where the next of what it says with others begins.
    fn step(&self) -> Option<(usize, u16)> {
        let steps = STEPS.iter().filter_map(|(kind, command, after)| {
            let [high, low] = command.to_be_bytes();
            let wanted = [*kind, high, low, 0, 0];
            let at = self.said.windows(wanted.len()).position(|bytes| bytes == wanted)?;
            Some((at, *after))
        });
        steps.min()
    }
}

impl Read for Bytes<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let most = match self.step() {
            Some((0, _)) if self.two_way => 5,
            Some((at, _)) if self.two_way => at,
            _ => to.len(),
        };
        let most = most.min(to.len());
        self.said.read(to.get_mut(..most).unwrap_or_default())
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

impl Link for Bytes<'_> {
    fn two_way(&self) -> bool {
        self.two_way
    }
    fn wait(&mut self, others: &[BorrowedFd<'_>], time: Option<Duration>) -> io::Result<bool> {
        // The end is not there before it is awaited.
        if time.is_some() {
            return Ok(!self.said.starts_with(&answer::FULL.to_be_bytes()));
        }
        let held = match self.step() {
            Some((0, after)) => {
                let answer = [after.to_be_bytes(), [0; 2]].concat();
                !self.heard.ends_with(&answer) && self.held < 100
            }
            _ => false,
        };
        if held {
            self.held += 1;
            let mut others: Vec<_> =
                others.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
            poll(&mut others, Timespec::try_from(Duration::from_millis(5)).ok().as_ref())?;
        }
        Ok(!held)
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

fn received(data: &[u8], two_way: bool) -> Result<(), Error> {
    let mut link = Bytes { said: data, two_way, ..Bytes::default() };
    let received = receive(&mut link, memory(), &inventory(), &mut Anything);
    received.inspect_err(|error| assert!(!error.to_string().is_empty()))
}

/// A stream to a small machine.
pub fn stream(data: &[u8]) {
    let _ = received(data, false);
}

/// The same of a source that hears answers. Where the host does not let this process handle page
/// faults, memory does not come late.
pub fn late(data: &[u8]) {
    let _ = received(data, true);
}

/// What a destination answers to that machine, whose guest is to go before its memory.
pub fn answers(data: &[u8]) {
    answered(data);
}

/// How that ends, and what the machine says.
fn answered(data: &[u8]) -> (Outcome, Vec<u8>) {
    let mut link = Bytes { said: data, two_way: true, ..Bytes::default() };
    let (limits, progress) = (Arc::default(), Arc::<Progress>::default());
    progress.go_early();
    let wants = Wants { postcopy: true, ..Wants::default() };
    let outcome =
        send(&mut link, written(), &inventory(), &mut Anything, &limits, &progress, wants);
    (outcome, link.heard)
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
        let mut link = Bytes::default();
        let limits = Arc::new(Limits::default());
        let progress: Arc<Progress> = Arc::default();
        let wants = Wants { level, ..Wants::default() };
        send(&mut link, written(), &inventory(), &mut Anything, &limits, &progress, wants);
        (name.to_owned(), link.heard)
    };
    [("whole", None), ("packed", Some(1))].into_iter().map(send).collect()
}

/// What a destination answers that takes a guest before its memory.
#[must_use]
pub fn answer_seeds() -> Vec<(String, Vec<u8>)> {
    let listed = memory().into_iter().flat_map(|block| {
        let name = block.name.into_bytes();
        let len = u8::try_from(name.len()).unwrap_or(0);
        [vec![len], name, 4096_u32.to_be_bytes().to_vec()].concat()
    });
    let (listed, page): (Vec<u8>, Vec<u8>) =
        (listed.collect(), [vec![0], PAGE.to_be_bytes().to_vec()].concat());
    let said = [
        (answer::LATE, listed),
        (answer::PONG, vec![0, 0, 0, 1]),
        (answer::REQUEST, page.clone()),
        (answer::LOADED, Vec::new()),
        (answer::READY, Vec::new()),
        (answer::RUNNING, Vec::new()),
        (answer::REQUEST, page),
        (answer::FULL, Vec::new()),
    ];
    let said = said.into_iter().flat_map(|(number, data)| {
        let len = u16::try_from(data.len()).unwrap_or(0);
        [&number.to_be_bytes()[..], &len.to_be_bytes(), &data].concat()
    });
    vec![("postcopy".to_owned(), said.collect())]
}

/// What its source sends.
#[must_use]
pub fn late_seeds() -> Vec<(String, Vec<u8>)> {
    answer_seeds().into_iter().map(|(name, said)| (name, answered(&said).1)).collect()
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
    use crate::testing::skips_postcopy;

    #[test]
    fn the_seed_is_taken() {
        seeds().into_iter().for_each(|(_, stream)| taken(stream));
        for (name, channel) in channel_seeds() {
            super::channel(&channel);
            assert!(channel.len() > 4096 * 2 || name == "packed", "{}", channel.len());
        }
    }

    #[test]
    fn the_seed_of_post_copy_is_taken() {
        for ((_, said), (_, stream)) in answer_seeds().into_iter().zip(late_seeds()) {
            let (outcome, _) = answered(&said);
            assert!(matches!(outcome, Outcome::Moved), "{outcome:?}");
            for len in 0..said.len() {
                assert!(!matches!(answered(&said[..len]).0, Outcome::Moved), "{len}");
            }
            change(&said, answers);
            if skips_postcopy() {
                return;
            }
            change(&stream, late);
            received(&stream, true).unwrap();
            for len in (0..stream.len()).step_by(61).chain(stream.len() - 5..stream.len()) {
                received(&stream[..len], true).unwrap_err();
            }
        }
    }

    fn taken(stream: Vec<u8>) {
        let mut link = Bytes { said: &stream, ..Bytes::default() };
        let blocks = memory();
        receive(&mut link, blocks.clone(), &inventory(), &mut Anything).unwrap();
        let mut bytes = [0; 17];
        blocks[1].ram.read(PAGE / 2, &mut bytes);
        assert_eq!(&bytes, b"in the first page");
        // Cut off anywhere before its end it is refused, without harm.
        let mut cuts = (0..stream.len()).step_by(61).chain(stream.len() - 1..stream.len());
        cuts.all(|len| received(&stream[..len], false).is_err()).then_some(()).unwrap();
        change(&stream, super::stream);
    }

    /// Nor do bytes that were changed on the way harm.
    fn change(seed: &[u8], take: fn(&[u8])) {
        let mut state = 1_u64;
        for _ in 0..2000 {
            let mut changed = seed.to_vec();
            for _ in 0..3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (at, byte) = ((state >> 33) as usize % changed.len(), (state >> 24) as u8);
                changed[at] = byte;
            }
            take(&changed);
        }
    }

    #[test]
    #[ignore = "writes into the source tree"]
    fn write_seeds() {
        let all = [
            ("stream", seeds()),
            ("channel", channel_seeds()),
            ("answers", answer_seeds()),
            ("late", late_seeds()),
        ];
        for (target, seeds) in all {
            let seeds_of = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds");
            let directory = format!("{seeds_of}/migration_{target}");
            std::fs::create_dir_all(&directory).unwrap();
            for (name, seed) in seeds {
                std::fs::write(format!("{directory}/{name}"), seed).unwrap();
            }
        }
    }
}
