use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;

/// A disk in memory, with a mark for each chunk.
#[derive(Clone)]
struct Memory {
    name: String,
    bytes: Arc<Mutex<Vec<u8>>>,
    dirty: Arc<Mutex<Vec<bool>>>,
    flushed: Arc<Mutex<usize>>,
}

impl Memory {
    fn new(name: &str, size: usize) -> Memory {
        Memory {
            name: name.to_owned(),
            bytes: Arc::new(Mutex::new(vec![0; size])),
            dirty: Arc::new(Mutex::new(vec![true; size.div_ceil(CHUNK_LEN)])),
            flushed: Arc::default(),
        }
    }

    fn fill(&self, at: usize, len: usize, byte: u8) {
        self.bytes.lock()[at..at + len].fill(byte);
        self.dirty.lock()[at / CHUNK_LEN..=(at + len - 1) / CHUNK_LEN].fill(true);
    }
}

impl Source for Memory {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> u64 {
        self.bytes.lock().len() as u64
    }

    fn left(&self) -> u64 {
        self.dirty.lock().iter().filter(|dirty| **dirty).count() as u64 * CHUNK
    }

    fn next<'a>(&mut self, buffer: &'a mut Vec<u8>) -> io::Result<Option<Chunk<'a>>> {
        let Some(at) = self.dirty.lock().iter().position(|dirty| *dirty) else { return Ok(None) };
        self.dirty.lock()[at] = false;
        let bytes = self.bytes.lock();
        let from = at * CHUNK_LEN;
        *buffer = bytes[from..bytes.len().min(from + CHUNK_LEN)].to_vec();
        Ok(Some(match buffer.iter().all(|byte| *byte == 0) {
            true => Chunk::Zeros(from as u64, buffer.len() as u64),
            false => Chunk::Data(from as u64, buffer),
        }))
    }
}

impl Sink for Memory {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> u64 {
        self.bytes.lock().len() as u64
    }

    fn write(&mut self, chunk: &Chunk<'_>) -> io::Result<()> {
        let mut bytes = self.bytes.lock();
        match *chunk {
            Chunk::Data(at, data) => {
                bytes[at as usize..at as usize + data.len()].copy_from_slice(data);
            }
            Chunk::Zeros(at, len) => bytes[at as usize..(at + len) as usize].fill(0),
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        *self.flushed.lock() += 1;
        Ok(())
    }
}

/// A part with everything that is to be sent.
fn part(sender: &mut Sender) -> Vec<u8> {
    let mut to = Writer::new(Vec::new());
    while sender.send(&mut to).unwrap() {}
    sender.end_part(&mut to).unwrap();
    to.flush().unwrap();
    std::mem::take(to.channel())
}

fn sender(disks: &[&Memory], zeros: bool) -> Sender {
    let disks = disks.iter().map(|disk| Box::new((*disk).clone()) as Box<dyn Source>);
    Sender::new(disks.collect(), zeros)
}

fn receiver(disks: &[&Memory]) -> Receiver {
    Receiver::new(disks.iter().map(|disk| Box::new((*disk).clone()) as Box<dyn Sink>).collect())
}

#[test]
fn disks_arrive_with_what_is_written_meanwhile() {
    for zeros in [false, true] {
        let (one, two) = (Memory::new("one", 5 * CHUNK_LEN + 700), Memory::new("two", 512));
        let (there, also) = (Memory::new("one", 5 * CHUNK_LEN + 700), Memory::new("two", 512));
        there.fill(0, 5 * CHUNK_LEN, 9);
        one.fill(CHUNK_LEN + 5, 10, 1);
        one.fill(5 * CHUNK_LEN, 700, 2);
        two.fill(3, 4, 3);
        let mut from_here = sender(&[&one, &two], zeros);
        let mut to_there = receiver(&[&also, &there]);
        assert!(from_here.is_bulk());
        let bytes = part(&mut from_here);
        assert!(!from_here.is_bulk());
        // Three have data; the others are zeros.
        let chunks = if zeros { 3 } else { 7 };
        assert_eq!(bytes.len() / CHUNK_LEN, chunks);
        to_there.part(&mut Reader::new(&bytes[..])).unwrap();
        one.fill(CHUNK_LEN - 1, 2, 7);
        assert_eq!(from_here.figures().remaining, 2 * CHUNK);
        to_there.part(&mut Reader::new(&part(&mut from_here)[..])).unwrap();
        assert_eq!(from_here.left(), 0);
        assert!(*one.bytes.lock() == *there.bytes.lock());
        assert!(*two.bytes.lock() == *also.bytes.lock());
        to_there.flush().unwrap();
        assert_eq!((*there.flushed.lock(), *also.flushed.lock()), (1, 1));
    }
}

#[test]
fn records_that_fit_nowhere_are_refused() {
    let refused = |head: u64, name: &str| {
        let mut to = Writer::new(Vec::new());
        to.u64(head).unwrap();
        to.name(name).unwrap();
        to.flush().unwrap();
        let bytes = std::mem::take(to.channel());
        let mut receiver = receiver(&[&Memory::new("d", 1000)]);
        receiver.part(&mut Reader::new(&bytes[..])).unwrap_err().to_string()
    };
    assert_eq!(refused(0x01, "e"), "Error unknown block device e");
    assert_eq!(refused(0x09 | 1 << 20, "d"), "a chunk at 0x100000 is past the end of 'd'");
    assert_eq!(refused(0x09 | !0x1ff, "d"), "a chunk at 0xfffffffffffffe00 is past the end of 'd'");
    assert_eq!(refused(0x08, "d"), "Unknown block migration flags: 0x8");
    assert_eq!(refused(0x03, "d"), "Unknown block migration flags: 0x3");
    assert_eq!(refused(0x01, "d"), "the stream ended before its end");
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let mut receiver = receiver(&[&Memory::new("d", 1000), &Memory::new("", 0)]);
        let mut from = Reader::new(&bytes[..]);
        while receiver.part(&mut from).is_ok() {}
    }
}
