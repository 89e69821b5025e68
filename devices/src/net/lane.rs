//! A bounded queue of frames from one task to another, on any loop.
//!
//! Any thread may put and take; one task waits on each side. Lock: a leaf mutex around the queue.
//! However fast a side is, no more than `FRAMES` frames and `BYTES` bytes are kept: then the
//! other side waits.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;
use resources::iol::{Direction, Notify};

use super::backend::Endpoint;
use super::frame::{Segment, gather};

/// The most frames in a lane.
pub(super) const FRAMES: usize = 512;

/// The most bytes in a lane, or one frame if that is longer.
pub(super) const BYTES: usize = 1 << 20;

/// See the module's description. Clones are the same lane.
#[derive(Clone)]
pub struct Lane(Arc<Inner>);

struct Inner {
    queue: Mutex<Queue>,
    /// There is something to take.
    filled: Notify,
    /// There is room again.
    drained: Notify,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Somebody was told that there is no room.
    refused: bool,
    closed: bool,
}

impl Queue {
    fn is_full(&self) -> bool {
        self.frames.len() >= FRAMES || self.bytes >= BYTES
    }

    fn is_roomy(&self) -> bool {
        self.frames.len() <= FRAMES / 2 && self.bytes <= BYTES / 2
    }
}

impl Default for Lane {
    fn default() -> Lane {
        Lane(Arc::new(Inner {
            queue: Mutex::default(),
            filled: Notify::new(),
            drained: Notify::new(),
        }))
    }
}

impl Lane {
    /// An empty one.
    pub fn new() -> Lane {
        Lane::default()
    }

    /// Puts a frame at the end, unless there is no room. A closed lane takes it and forgets it.
    /// The frame is made only if there is room.
    pub fn put(&self, frame: impl FnOnce() -> Vec<u8>) -> bool {
        {
            let mut queue = self.0.queue.lock();
            if queue.closed {
                return true;
            }
            if queue.is_full() {
                queue.refused = true;
                return false;
            }
            let frame = frame();
            queue.bytes = queue.bytes.saturating_add(frame.len());
            queue.frames.push_back(frame);
        }
        self.0.filled.notify();
        true
    }

    /// Takes the first frame.
    pub fn take(&self) -> Option<Vec<u8>> {
        let (frame, wake) = {
            let mut queue = self.0.queue.lock();
            let frame = queue.frames.pop_front()?;
            queue.bytes = queue.bytes.saturating_sub(frame.len());
            // Half empty, so that the two sides do not wake each other for every frame.
            let roomy = queue.is_roomy();
            (frame, roomy && std::mem::take(&mut queue.refused))
        };
        if wake {
            self.0.drained.notify();
        }
        Some(frame)
    }

    /// Takes the first frame once there is one.
    pub async fn next(&self) -> Vec<u8> {
        loop {
            if let Some(frame) = self.take() {
                return frame;
            }
            self.0.filled.notified().await;
        }
    }

    /// Completes when there may be a frame to take.
    pub async fn filled(&self) {
        if self.is_empty() {
            self.0.filled.notified().await;
        }
    }

    /// Completes when there may be room.
    pub async fn drained(&self) {
        if !self.has_room() {
            self.0.drained.notified().await;
        }
    }

    /// Whether half of it is empty; if not, whoever waits is told when it is.
    pub fn is_roomy(&self) -> bool {
        let mut queue = self.0.queue.lock();
        let roomy = queue.is_roomy() || queue.closed;
        queue.refused |= !roomy;
        roomy
    }

    /// Completes when half of it may be empty.
    pub async fn roomy(&self) {
        if !self.is_roomy() {
            self.0.drained.notified().await;
        }
    }

    /// Whether the next frame will be taken; if not, whoever waits is told when it will.
    pub fn has_room(&self) -> bool {
        let mut queue = self.0.queue.lock();
        let full = queue.is_full() && !queue.closed;
        queue.refused |= full;
        !full
    }

    /// Whether there is nothing to take.
    pub fn is_empty(&self) -> bool {
        self.0.queue.lock().frames.is_empty()
    }

    /// How many frames there are to take.
    pub fn len(&self) -> usize {
        self.0.queue.lock().frames.len()
    }

    /// Forgets the frames that are there.
    pub fn clear(&self) {
        let frames = {
            let mut queue = self.0.queue.lock();
            (queue.bytes, queue.refused) = (0, false);
            std::mem::take(&mut queue.frames)
        };
        drop(frames);
        self.0.drained.notify();
    }

    /// Takes frames again after [`close`](Self::close).
    pub fn reopen(&self) {
        self.0.queue.lock().closed = false;
    }

    /// Forgets what is there and what comes.
    pub fn close(&self) {
        self.0.queue.lock().closed = true;
        self.clear();
    }
}

/// The endpoint between two lanes.
pub(super) struct LaneEnd {
    /// Takes what is sent.
    pub(super) send: Lane,
    /// Has what is to be received.
    pub(super) recv: Lane,
}

impl Endpoint for LaneEnd {
    fn send(&self, frame: &[Segment<'_>]) -> io::Result<()> {
        self.send.put(|| gather(frame)).then_some(()).ok_or(io::ErrorKind::WouldBlock.into())
    }

    fn recv(&self, frame: &mut [u8]) -> io::Result<usize> {
        let taken = self.recv.take().ok_or(io::ErrorKind::WouldBlock)?;
        let len = taken.len().min(frame.len());
        if let (Some(to), Some(from)) = (frame.get_mut(..len), taken.get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(len)
    }

    fn ready(&self, direction: Direction) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        match direction {
            Direction::Write => Box::pin(self.send.drained()),
            _ => Box::pin(self.recv.filled()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_lane_refuses_and_tells_when_half_empty() {
        let lane = Lane::new();
        for n in 0..FRAMES {
            assert!(lane.put(|| vec![0; n % 7]));
        }
        assert!(!lane.put(|| unreachable!()));
        for n in 0..FRAMES / 2 {
            assert_eq!(lane.take().unwrap().len(), n % 7);
        }
        assert!(lane.has_room());
        lane.close();
        assert!(lane.put(|| vec![1]) && lane.is_empty());
    }

    #[test]
    fn bytes_are_bounded_too() {
        let lane = Lane::new();
        let mut count = 0;
        while lane.put(|| vec![0; 65536]) {
            count += 1;
        }
        assert_eq!(count, BYTES / 65536);
        lane.clear();
        assert!(lane.put(|| vec![0; 2 * BYTES]) && !lane.put(|| vec![0]));
        assert_eq!(lane.take().unwrap().len(), 2 * BYTES);
        assert!(lane.put(|| vec![0]));
    }
}
