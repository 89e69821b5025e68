//! The device's side of a virtqueue.
//!
//! | piece | file |
//! |---|---|
//! | [`Queue`]: what is the same for both ring layouts | this one |
//! | the split ring (section 2.7) | `split.rs` |
//! | the packed ring (section 2.8) | `packed.rs` |
//! | descriptors, chains, reading and writing them | `chain.rs` |
//!
//! A chain is walked and checked as a whole before it is handed out. Whatever the driver does
//! wrong latches the queue as broken: the driver is told once that the device needs a reset, and
//! every later call fails. Chains that were taken before can still be completed.
//!
//! Thread: whoever owns the queue; no lock. The driver, hostile perhaps, writes rings and
//! descriptors at any time: everything is read once, by volatile copies, and checked after that.

use std::sync::Arc;

use resources::ram::GuestMemory;
use resources::state::{StateError, invalid};
use serde::{Deserialize, Serialize};
use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::feature;
use super::port::ConfigIrq;

mod chain;
mod packed;
mod split;
#[cfg(test)]
mod tests;

pub use chain::{Chain, Reader, Segment, Short, Writer};

use packed::Packed;
use split::Split;

/// The most segments of a chain. Larger ones are refused, like in other implementations.
pub const MAX_SEGMENTS: usize = 1024;

/// The largest size of a queue (section 2.7).
pub const MAX_SIZE: u16 = 32768;

/// What a driver did that a queue cannot go on after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The size is not one a ring can have.
    #[error("a ring of {0} entries cannot be")]
    Size(u16),
    /// A part of the ring is not aligned as it must be, or not in RAM.
    #[error("the ring at {0:#x} is misaligned or not in RAM")]
    Ring(u64),
    /// The available index is further ahead than the ring is long.
    #[error("available index {available} is too far ahead of {taken}")]
    Index {
        /// What the driver wrote.
        available: u16,
        /// What the device has taken.
        taken: u16,
    },
    /// More buffers are available than the ring has entries: some were offered twice.
    #[error("more buffers are in flight than the ring has entries")]
    Overrun,
    /// A descriptor number past the end of its table.
    #[error("descriptor {index} is outside its table of {size}")]
    Descriptor {
        /// The number.
        index: u16,
        /// The entries of the table.
        size: u32,
    },
    /// The chain is longer than its table: it has a loop.
    #[error("a descriptor chain has a loop")]
    Loop,
    /// More than [`MAX_SEGMENTS`].
    #[error("a descriptor chain has more than {MAX_SEGMENTS} segments")]
    Segments,
    /// All segments together pass 4 GiB.
    #[error("a descriptor chain is longer than 4 GiB")]
    Length,
    /// A segment without a byte.
    #[error("a descriptor is empty")]
    Empty,
    /// A segment that is not in RAM as a whole.
    #[error("a descriptor at {address:#x} of {len} bytes is not in RAM")]
    Memory {
        /// Where it begins.
        address: u64,
        /// Its length in bytes.
        len: u32,
    },
    /// A readable segment after a writable one.
    #[error("a readable descriptor follows a writable one")]
    Order,
    /// A table of descriptors that is nested, has a successor, is empty or of odd size, or was not
    /// negotiated.
    #[error("an indirect descriptor is not allowed there")]
    Indirect,
    /// A saved chain that cannot be.
    #[error("saved buffers do not fit the ring")]
    Saved,
    /// The request in a chain makes no sense to the device.
    #[error("{0}")]
    Request(&'static str),
}

/// Where a ring is and how the driver uses it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Entries.
    pub size: u16,
    /// Guest-physical address of the descriptors.
    pub desc: u64,
    /// Guest-physical address of the driver's area (the available ring).
    pub driver: u64,
    /// Guest-physical address of the device's area (the used ring).
    pub device: u64,
}

/// How far a queue has come. What a stopped device keeps of each queue, and what is saved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Position {
    /// The next entry to be taken: a running count (split), or a slot (packed).
    pub next_avail: u16,
    /// The next entry to be given back, likewise.
    pub next_used: u16,
    /// Packed: the wrap counter of `next_avail`, inverted, so that a new queue has zeros.
    pub avail_flipped: bool,
    /// Packed: the wrap counter of `next_used`, inverted.
    pub used_flipped: bool,
    /// Chains that were taken and not completed, oldest first.
    pub pending: Vec<Pending>,
}

/// A chain of a [`Position`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pending {
    /// What the driver knows it by.
    pub id: u16,
    /// Entries of the ring it takes.
    pub slots: u16,
    /// How many of `segments` are readable.
    pub readable: usize,
    /// Address and length of each segment.
    pub segments: Vec<(u64, u32)>,
}

impl Position {
    /// Checks what can be without looking at guest memory: the counts must fit each other.
    ///
    /// # Errors
    /// When no queue of this size can be there.
    pub fn check(&self, size: u16, packed: bool) -> Result<(), StateError> {
        let wrong = |what: &str| Err(invalid(format!("a queue's {what}")));
        let mut slots = 0_u32;
        for pending in &self.pending {
            let one = u32::from(pending.slots);
            slots = slots.saturating_add(one);
            if one == 0
                || (!packed && (one != 1 || pending.id >= size))
                || pending.readable > pending.segments.len()
                || pending.segments.is_empty()
                || pending.segments.len() > MAX_SEGMENTS
            {
                return wrong("pending buffers make no sense");
            }
        }
        let ahead = if packed {
            if self.next_avail >= size || self.next_used >= size {
                return wrong("position is outside its ring");
            }
            let (avail, used) = (i32::from(self.next_avail), i32::from(self.next_used));
            let lap = if self.avail_flipped == self.used_flipped { 0 } else { i32::from(size) };
            u32::try_from(avail.saturating_sub(used).saturating_add(lap)).unwrap_or(u32::MAX)
        } else {
            u32::from(self.next_avail.wrapping_sub(self.next_used))
        };
        if ahead != slots || ahead > u32::from(size) {
            return wrong("position does not fit its pending buffers");
        }
        Ok(())
    }
}

/// One of the two layouts.
enum Ring {
    Split(Split),
    Packed(Packed),
}

/// Calls the same method of either ring.
macro_rules! ring {
    ($ring:expr, $($call:tt)+) => {
        match $ring {
            Ring::Split(ring) => ring.$($call)+,
            Ring::Packed(ring) => ring.$($call)+,
        }
    };
}

impl Ring {
    fn new(layout: Layout, features: u64, at: &Position) -> Ring {
        let event_idx = features & feature::EVENT_IDX != 0;
        if is_packed(features) {
            Ring::Packed(Packed::new(layout, event_idx, at))
        } else {
            Ring::Split(Split::new(layout, event_idx, at))
        }
    }

    /// Address, size and alignment of each part.
    fn areas(&self, layout: &Layout) -> [(u64, usize, u64); 3] {
        match self {
            Ring::Split(_) => Split::areas(layout),
            Ring::Packed(_) => Packed::areas(layout),
        }
    }
}

fn is_packed(features: u64) -> bool {
    features & feature::RING_PACKED != 0
}

/// Whether a ring can have this many entries (sections 2.7 and 2.8.10.1).
pub fn is_size(size: u16, features: u64) -> bool {
    (1..=MAX_SIZE).contains(&size) && (is_packed(features) || size.is_power_of_two())
}

/// The device's side of a virtqueue.
pub struct Queue {
    ring: Ring,
    layout: Layout,
    memory: Arc<GuestMemory>,
    features: u64,
    /// Entries of the ring that were taken and not given back.
    in_flight: u16,
    /// Chains from before the last stop, to be handed out again.
    resumed: std::collections::VecDeque<Chain>,
    /// Chains that were given back unfinished.
    put_back: Vec<Chain>,
    broken: Option<Broken>,
    alarm: Option<ConfigIrq>,
    /// Segment lists of completed chains, to be used again.
    spare: Vec<Vec<Segment>>,
}

impl Queue {
    /// A queue that goes on at `position`. A ring that cannot be makes a broken queue, which
    /// tells the driver through `alarm`.
    pub fn new(
        memory: Arc<GuestMemory>,
        layout: Layout,
        features: u64,
        position: Position,
        alarm: Option<ConfigIrq>,
    ) -> Queue {
        let mut queue = Queue {
            ring: Ring::new(layout, features, &position),
            layout,
            memory,
            features,
            in_flight: 0,
            resumed: Default::default(),
            put_back: Vec::new(),
            broken: None,
            alarm,
            spare: Vec::new(),
        };
        let checked = queue.check_ring().and_then(|()| queue.resume(position));
        let _ = queue.latch(checked);
        queue
    }

    fn check_ring(&self) -> Result<(), Broken> {
        let size = self.layout.size;
        if !is_size(size, self.features) {
            return Err(Broken::Size(size));
        }
        for (address, len, align) in self.ring.areas(&self.layout) {
            if address & align.wrapping_sub(1) != 0
                || !self.memory.check_range(GuestAddress(address), len)
            {
                return Err(Broken::Ring(address));
            }
        }
        Ok(())
    }

    /// Takes over the chains of before.
    fn resume(&mut self, position: Position) -> Result<(), Broken> {
        position.check(self.layout.size, is_packed(self.features)).map_err(|_| Broken::Saved)?;
        for pending in position.pending {
            self.in_flight = self.in_flight.saturating_add(pending.slots);
            self.resumed.push_back(Chain::resumed(&self.memory, &pending)?);
        }
        Ok(())
    }

    /// Where it is.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The features the driver has accepted.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Guest RAM.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// How far it has come. Chains that were [put back](Self::put_back) are in it; others that
    /// were taken and not pushed would be lost, and are counted as an error of the device.
    pub fn position(&self) -> Position {
        let pending = self.resumed.iter().chain(&self.put_back).map(Chain::pending).collect();
        Position { pending, ..ring!(&self.ring, position()) }
    }

    /// For queues that someone else serves meanwhile, such as the kernel: where that one has got
    /// to. Everything before it was completed. Only of the split layout, which counts so.
    pub fn set_position(&mut self, next_avail: u16) {
        let at = Position { next_avail, next_used: next_avail, ..Position::default() };
        self.ring = Ring::new(self.layout, self.features, &at);
        self.in_flight = 0;
        self.resumed.clear();
        self.put_back.clear();
    }

    /// The next entry to be taken, where someone else can go on as this queue is: a split ring
    /// that is sound and has nothing taken that was not given back.
    pub fn idle_at(&self) -> Option<u16> {
        let idle = self.in_flight == 0 && self.broken.is_none() && !is_packed(self.features);
        idle.then(|| self.position().next_avail)
    }

    /// Entries of the ring that were taken and neither pushed nor put back.
    pub fn in_flight(&self) -> u16 {
        let waiting = self.resumed.iter().chain(&self.put_back);
        waiting.fold(self.in_flight, |left, chain| left.saturating_sub(chain.slots()))
    }

    /// Why the queue cannot go on, if so.
    pub fn broken(&self) -> Option<Broken> {
        self.broken
    }

    /// Latches the queue as broken, for a request that makes no sense to the device.
    pub fn fail(&mut self, why: Broken) {
        if self.broken.is_none() {
            self.broken = Some(why);
            if let Some(alarm) = &self.alarm {
                alarm.needs_reset(&why);
            }
        }
    }

    fn latch<T>(&mut self, result: Result<T, Broken>) -> Result<T, Broken> {
        if let Err(why) = result {
            self.fail(why);
        }
        result
    }

    /// Takes the next chain; `None` when there is none now. The chain was checked as a whole.
    ///
    /// # Errors
    /// When the queue is broken.
    pub fn pop(&mut self) -> Result<Option<Chain>, Broken> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        if let Some(chain) = self.resumed.pop_front() {
            return Ok(Some(chain));
        }
        let indirect = self.features & feature::INDIRECT_DESC != 0;
        let mut walk = chain::Walk::new(&self.memory, indirect, self.spare.pop());
        match ring!(&mut self.ring, pop(&mut walk, self.in_flight)) {
            Ok(Some(taken)) => {
                self.in_flight = self.in_flight.saturating_add(taken.slots);
                let (segments, readable) = walk.finish();
                let memory = self.memory.clone();
                Ok(Some(Chain::new(memory, taken, segments, readable)))
            }
            Ok(None) => {
                self.spare.push(walk.finish().0);
                Ok(None)
            }
            Err(why) => {
                self.fail(why);
                Err(why)
            }
        }
    }

    /// Gives a chain back to the driver with `written` bytes written to it, and shows it.
    ///
    /// # Errors
    /// When the ring cannot be written; a queue that was broken by something else still takes it.
    pub fn push(&mut self, chain: Chain, written: u32) -> Result<(), Broken> {
        self.add(chain, written)?;
        self.publish()
    }

    /// As [`push`](Self::push), but the driver sees the chain only with the next
    /// [`publish`](Self::publish), along with all others: a packet in several buffers.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn add(&mut self, chain: Chain, written: u32) -> Result<(), Broken> {
        let written = written.min(chain.writable_len());
        let done = ring!(&mut self.ring, add(&self.memory, &chain, written));
        self.in_flight = self.in_flight.saturating_sub(chain.slots());
        if self.spare.len() < 64 {
            self.spare.push(chain.into_segments());
        }
        self.latch(done)
    }

    /// Shows the driver what was [added](Self::add).
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn publish(&mut self) -> Result<(), Broken> {
        let done = ring!(&mut self.ring, publish(&self.memory));
        self.latch(done)
    }

    /// Keeps a chain that was taken and cannot be completed before the device stops. It is saved
    /// with the queue and handed out again when the device goes on.
    pub fn put_back(&mut self, chain: Chain) {
        self.put_back.push(chain);
    }

    /// Whether the driver wants an interrupt for what was published since the last call that said
    /// so. Call it after publishing, and signal if it is true.
    ///
    /// # Errors
    /// When the driver's wishes cannot be read.
    pub fn needs_interrupt(&mut self) -> Result<bool, Broken> {
        let wanted = ring!(&mut self.ring, needs_interrupt(&self.memory));
        self.latch(wanted)
    }

    /// Asks the driver to kick when it makes buffers available. True when there are some already:
    /// the driver may then not have seen the wish, so [`pop`](Self::pop) again.
    ///
    /// # Errors
    /// When the queue is broken.
    pub fn enable_notification(&mut self) -> Result<bool, Broken> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        let done = ring!(&mut self.ring, notify_me(&self.memory, true));
        self.latch(done)
    }

    /// Tells the driver that kicks are not needed. It may kick all the same.
    ///
    /// # Errors
    /// When the queue is broken.
    pub fn disable_notification(&mut self) -> Result<(), Broken> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        let done = ring!(&mut self.ring, notify_me(&self.memory, false));
        self.latch(done).map(|_| ())
    }
}

/// What a ring gave out.
struct Taken {
    /// What the driver knows the chain by.
    id: u16,
    /// Entries of the ring it takes.
    slots: u16,
}
