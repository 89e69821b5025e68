//! Descriptor chains: walking them, and reading and writing what they describe.
//!
//! Called by whoever owns the chain. The driver, hostile perhaps, may change descriptors while
//! they are walked and buffers while they are read: each descriptor is copied once and checked
//! after that; buffers are only ever copied.

use std::sync::Arc;

use resources::iol::IoBuf;
use resources::ram::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::{Broken, MAX_SEGMENTS, Pending, Taken};

/// VIRTQ_DESC_F_NEXT: the chain goes on.
pub(super) const NEXT: u16 = 1;
/// VIRTQ_DESC_F_WRITE: for the device to write.
pub(super) const WRITE: u16 = 2;
/// VIRTQ_DESC_F_INDIRECT: a table of descriptors.
pub(super) const INDIRECT: u16 = 4;

/// Bytes of a descriptor.
pub(super) const DESCRIPTOR: u64 = 16;

/// A piece of guest RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Guest-physical address.
    pub address: GuestAddress,
    /// Bytes, at least 1.
    pub len: u32,
}

/// A descriptor as it is in memory: address, length, and two fields whose meaning depends on the
/// ring.
#[derive(Debug, Clone, Copy)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) len: u32,
    /// Split: flags. Packed: buffer id.
    pub(super) third: u16,
    /// Split: next. Packed: flags.
    pub(super) fourth: u16,
}

impl Descriptor {
    /// Copies the one with this number of a table.
    pub(super) fn read(memory: &GuestMemory, table: u64, index: u32) -> Result<Self, Broken> {
        let offset = u64::from(index).wrapping_mul(DESCRIPTOR);
        let address = table.wrapping_add(offset);
        let mut bytes = [0; 16];
        memory
            .read_slice(&mut bytes, GuestAddress(address))
            .map_err(|_| Broken::Memory { address, len: 16 })?;
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, t0, t1, f0, f1] = bytes;
        Ok(Descriptor {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            third: u16::from_le_bytes([t0, t1]),
            fourth: u16::from_le_bytes([f0, f1]),
        })
    }
}

/// A chain while it is being walked.
pub(super) struct Walk<'a> {
    memory: &'a GuestMemory,
    indirect: bool,
    segments: Vec<Segment>,
    readable: usize,
    total: u32,
}

impl<'a> Walk<'a> {
    /// Nothing walked yet. `indirect`: tables were negotiated. `spare`: a list to use again.
    pub(super) fn new(
        memory: &'a GuestMemory,
        indirect: bool,
        spare: Option<Vec<Segment>>,
    ) -> Self {
        let mut segments = spare.unwrap_or_default();
        segments.clear();
        Walk { memory, indirect, segments, readable: 0, total: 0 }
    }

    pub(super) fn memory(&self) -> &'a GuestMemory {
        self.memory
    }

    /// The segments, and how many of them are readable.
    pub(super) fn finish(self) -> (Vec<Segment>, usize) {
        (self.segments, self.readable)
    }

    /// Adds what a descriptor describes.
    pub(super) fn add(&mut self, address: u64, len: u32, writable: bool) -> Result<(), Broken> {
        if len == 0 {
            return Err(Broken::Empty);
        }
        if self.segments.len() >= MAX_SEGMENTS {
            return Err(Broken::Segments);
        }
        self.total = self.total.checked_add(len).ok_or(Broken::Length)?;
        let at = GuestAddress(address);
        let fits = usize::try_from(len).is_ok_and(|len| self.memory.check_range(at, len));
        if !fits {
            return Err(Broken::Memory { address, len });
        }
        if !writable {
            if self.readable < self.segments.len() {
                return Err(Broken::Order);
            }
            self.readable = self.readable.saturating_add(1);
        }
        self.segments.push(Segment { address: at, len });
        Ok(())
    }

    /// How many descriptors the table at a descriptor has.
    pub(super) fn table(&self, address: u64, len: u32) -> Result<u32, Broken> {
        let table = usize::try_from(len).unwrap_or(usize::MAX);
        if !self.indirect || len == 0 || len & 15 != 0 {
            return Err(Broken::Indirect);
        }
        if !self.memory.check_range(GuestAddress(address), table) {
            return Err(Broken::Memory { address, len });
        }
        Ok(len >> 4)
    }

    /// Walks a chain of a table of `size` descriptors linked by their `next` (section 2.7.5).
    pub(super) fn chain(&mut self, table: u64, size: u32, head: u16) -> Result<(), Broken> {
        let (mut table, mut size, mut index) = (table, size, head);
        let mut nested = false;
        let mut left = size;
        loop {
            if u32::from(index) >= size {
                return Err(Broken::Descriptor { index, size });
            }
            left = left.checked_sub(1).ok_or(Broken::Loop)?;
            let one = Descriptor::read(self.memory, table, u32::from(index))?;
            let (flags, next) = (one.third, one.fourth);
            if flags & INDIRECT != 0 {
                if nested || flags & NEXT != 0 {
                    return Err(Broken::Indirect);
                }
                size = self.table(one.address, one.len)?;
                (table, index, left, nested) = (one.address, 0, size, true);
                continue;
            }
            self.add(one.address, one.len, flags & WRITE != 0)?;
            if flags & NEXT == 0 {
                return Ok(());
            }
            index = next;
        }
    }
}

/// A request of the driver: segments of guest RAM, the readable ones first.
///
/// Every segment lies in RAM and has a byte at least; all together have less than 4 GiB. Give it
/// back to its queue with [`Queue::push`](super::Queue::push).
pub struct Chain {
    memory: Arc<GuestMemory>,
    id: u16,
    slots: u16,
    segments: Vec<Segment>,
    readable: usize,
    resumed: bool,
}

impl Chain {
    pub(super) fn new(
        memory: Arc<GuestMemory>,
        taken: Taken,
        segments: Vec<Segment>,
        readable: usize,
    ) -> Chain {
        Chain { memory, id: taken.id, slots: taken.slots, segments, readable, resumed: false }
    }

    /// A chain of saved state, whose segments are checked anew.
    pub(super) fn resumed(memory: &Arc<GuestMemory>, pending: &Pending) -> Result<Chain, Broken> {
        let mut walk = Walk::new(memory, false, None);
        for (number, (address, len)) in pending.segments.iter().enumerate() {
            walk.add(*address, *len, number >= pending.readable)?;
        }
        let (segments, readable) = walk.finish();
        let taken = Taken { id: pending.id, slots: pending.slots };
        let chain = Chain::new(memory.clone(), taken, segments, readable);
        Ok(Chain { resumed: true, ..chain })
    }

    pub(super) fn pending(&self) -> Pending {
        Pending {
            id: self.id,
            slots: self.slots,
            readable: self.readable,
            segments: self.segments.iter().map(|one| (one.address.0, one.len)).collect(),
        }
    }

    pub(super) fn into_segments(self) -> Vec<Segment> {
        self.segments
    }

    pub(super) fn slots(&self) -> u16 {
        self.slots
    }

    /// What the driver knows the chain by.
    pub fn id(&self) -> u16 {
        self.id
    }

    /// Whether it was taken before the device last stopped, and put back.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Guest RAM, in which the segments are.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// What the device may read.
    pub fn readable(&self) -> &[Segment] {
        self.segments.get(..self.readable).unwrap_or_default()
    }

    /// What the device may write. It may read it too: the driver may have put something there.
    pub fn writable(&self) -> &[Segment] {
        self.segments.get(self.readable..).unwrap_or_default()
    }

    /// Bytes the device may read.
    pub fn readable_len(&self) -> u32 {
        len_of(self.readable())
    }

    /// Bytes the device may write.
    pub fn writable_len(&self) -> u32 {
        len_of(self.writable())
    }

    /// Reads from the first readable byte on.
    pub fn reader(&self) -> Reader<'_> {
        Reader(Cursor::new(&self.memory, self.readable()))
    }

    /// Writes from the first writable byte on.
    pub fn writer(&self) -> Writer<'_> {
        Writer { to: Cursor::new(&self.memory, self.writable()), written: 0 }
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let segments = (self.readable(), self.writable());
        f.debug_tuple("Chain").field(&self.id).field(&segments).finish()
    }
}

fn len_of(segments: &[Segment]) -> u32 {
    // The walk has seen to it that the sum fits.
    segments.iter().fold(0, |sum, one| sum.saturating_add(one.len))
}

/// A chain has fewer bytes left than a request of this kind takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a request is too short")]
pub struct Short;

/// A place in a list of segments.
#[derive(Clone)]
struct Cursor<'a> {
    memory: &'a GuestMemory,
    segments: &'a [Segment],
    /// Bytes of the first segment that are passed already; less than its length.
    passed: u32,
    left: u32,
}

impl<'a> Cursor<'a> {
    fn new(memory: &'a GuestMemory, segments: &'a [Segment]) -> Self {
        Cursor { memory, segments, passed: 0, left: len_of(segments) }
    }

    /// The next piece in one segment, of at most `max` bytes, and goes past it.
    fn advance(&mut self, max: u32) -> Option<Segment> {
        let first = self.segments.first()?;
        let rest = first.len.saturating_sub(self.passed);
        let len = rest.min(max).min(self.left);
        if len == 0 {
            return None;
        }
        let address = GuestAddress(first.address.0.wrapping_add(u64::from(self.passed)));
        if len == rest {
            self.segments = self.segments.get(1..).unwrap_or_default();
            self.passed = 0;
        } else {
            self.passed = self.passed.saturating_add(len);
        }
        self.left = self.left.saturating_sub(len);
        Some(Segment { address, len })
    }

    /// Takes the first `len` bytes off into a cursor of their own.
    fn split_to(&mut self, len: u32) -> Option<Cursor<'a>> {
        if len > self.left {
            return None;
        }
        let head = Cursor { left: len, ..self.clone() };
        self.skip(len);
        Some(head)
    }

    fn skip(&mut self, len: u32) {
        let mut left = len;
        while let Some(piece) = self.advance(left) {
            left = left.saturating_sub(piece.len);
        }
    }
}

impl Cursor<'_> {
    fn buf(&self) -> IoBuf {
        let mut rest = self.clone();
        let segments = std::iter::from_fn(|| rest.advance(u32::MAX));
        let ranges =
            segments.map(|one| (one.address, usize::try_from(one.len).unwrap_or(usize::MAX)));
        // The walk has seen to it that all of it is RAM.
        IoBuf::guest(self.memory, ranges).unwrap_or_else(|_| IoBuf::empty())
    }
}

/// Reads a chain's readable bytes in order.
#[derive(Clone)]
pub struct Reader<'a>(Cursor<'a>);

impl<'a> Reader<'a> {
    /// Bytes left.
    pub fn remaining(&self) -> u32 {
        self.0.left
    }

    /// Copies as many bytes as there are and fit; returns how many.
    pub fn read(&mut self, data: &mut [u8]) -> usize {
        let mut done = 0_usize;
        while let Some(rest) = data.get_mut(done..)
            && let Some(piece) = self.0.advance(u32::try_from(rest.len()).unwrap_or(u32::MAX))
        {
            let len = usize::try_from(piece.len).unwrap_or(usize::MAX);
            let Some(part) = rest.get_mut(..len) else { break };
            if self.0.memory.read_slice(part, piece.address).is_err() {
                break;
            }
            done = done.saturating_add(len);
        }
        done
    }

    /// Fills `data`.
    ///
    /// # Errors
    /// When there are fewer bytes; some may then have been read.
    pub fn read_exact(&mut self, data: &mut [u8]) -> Result<(), Short> {
        if self.read(data) == data.len() { Ok(()) } else { Err(Short) }
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// As [`read_exact`](Self::read_exact).
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let mut data = [0; N];
        self.read_exact(&mut data).map(|()| data)
    }

    /// The next byte.
    ///
    /// # Errors
    /// As [`read_exact`](Self::read_exact).
    pub fn u8(&mut self) -> Result<u8, Short> {
        self.array().map(u8::from_le_bytes)
    }

    /// The next two bytes, little-endian.
    ///
    /// # Errors
    /// As [`read_exact`](Self::read_exact).
    pub fn le16(&mut self) -> Result<u16, Short> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next four bytes, little-endian.
    ///
    /// # Errors
    /// As [`read_exact`](Self::read_exact).
    pub fn le32(&mut self) -> Result<u32, Short> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next eight bytes, little-endian.
    ///
    /// # Errors
    /// As [`read_exact`](Self::read_exact).
    pub fn le64(&mut self) -> Result<u64, Short> {
        self.array().map(u64::from_le_bytes)
    }

    /// Goes past `len` bytes, or to the end.
    pub fn skip(&mut self, len: u32) {
        self.0.skip(len);
    }

    /// Takes the first `len` bytes off; this reader goes on behind them.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn split_to(&mut self, len: u32) -> Result<Reader<'a>, Short> {
        self.0.split_to(len).map(Reader).ok_or(Short)
    }

    /// What is left, for a file or a socket to be written from.
    pub fn buf(&self) -> IoBuf {
        self.0.buf()
    }

    /// The pieces of guest RAM that are left.
    pub fn segments(&self) -> impl Iterator<Item = Segment> + use<'a> {
        let mut rest = self.0.clone();
        std::iter::from_fn(move || rest.advance(u32::MAX))
    }
}

/// Writes a chain's writable bytes in order, and counts them.
pub struct Writer<'a> {
    to: Cursor<'a>,
    written: u32,
}

impl<'a> Writer<'a> {
    /// Bytes of room left.
    pub fn remaining(&self) -> u32 {
        self.to.left
    }

    /// Bytes written or passed so far: what [`Queue::push`](super::Queue::push) wants to know.
    pub fn written(&self) -> u32 {
        self.written
    }

    /// Copies as many bytes as there is room for; returns how many.
    pub fn write(&mut self, data: &[u8]) -> usize {
        let mut done = 0_usize;
        while let Some(rest) = data.get(done..)
            && let Some(piece) = self.to.advance(u32::try_from(rest.len()).unwrap_or(u32::MAX))
        {
            let len = usize::try_from(piece.len).unwrap_or(usize::MAX);
            let Some(part) = rest.get(..len) else { break };
            if self.to.memory.write_slice(part, piece.address).is_err() {
                break;
            }
            done = done.saturating_add(len);
            self.written = self.written.saturating_add(piece.len);
        }
        done
    }

    /// Writes all of `data`.
    ///
    /// # Errors
    /// When there is less room; nothing is then written.
    pub fn write_all(&mut self, data: &[u8]) -> Result<(), Short> {
        let fits = u32::try_from(data.len()).is_ok_and(|len| len <= self.to.left);
        if fits && self.write(data) == data.len() { Ok(()) } else { Err(Short) }
    }

    /// Goes past `len` bytes, or to the end, counting them as written: another part of the
    /// request, or the host's kernel, has written them.
    pub fn skip(&mut self, len: u32) {
        let before = self.to.left;
        self.to.skip(len);
        self.written = self.written.saturating_add(before.saturating_sub(self.to.left));
    }

    /// Takes the first `len` bytes off into a writer with its own count; this one goes on behind
    /// them and does not count them.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn split_to(&mut self, len: u32) -> Result<Writer<'a>, Short> {
        self.to.split_to(len).map(|to| Writer { to, written: 0 }).ok_or(Short)
    }

    /// What is left, for a file or a socket to be read into.
    pub fn buf(&self) -> IoBuf {
        self.to.buf()
    }

    /// The pieces of guest RAM that are left.
    pub fn segments(&self) -> impl Iterator<Item = Segment> + use<'a> {
        let mut rest = self.to.clone();
        std::iter::from_fn(move || rest.advance(u32::MAX))
    }
}
