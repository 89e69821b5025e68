//! A receive queue: frames from the back end into the guest's buffers.
//!
//! A frame is taken from the back end when the one before has found its buffers, so that a guest
//! without buffers makes the back end wait. Buffers are given back in batches, all those of one
//! frame together.
//!
//! The loop of the device; no lock but the card's, briefly. A guest can offer buffers of any
//! number and size: a frame that does not fit what it can offer at once is dropped.

use std::rc::Rc;
use std::sync::Arc;

use resources::iol::{Notify, race};

use super::card::Card;
use super::features::Features;
use super::header::{DATA_VALID, Gso, HEADER_LEN, Header, NEEDS_CSUM};
use super::offload::{complete_checksum, is_dhcp_reply};
use super::transmit::unless;
use crate::net::{MAX_FRAME, Port};
use crate::virtio::{Broken, Chain, Worker};

/// The most frames that are taken before others have their turn.
const BATCH: usize = 64;

/// See the module's description. Everything that must not be lost is in here, none of it in the
/// future that serves the queue.
pub(super) struct Receive {
    pub(super) card: Arc<Card>,
    pub(super) worker: Rc<Worker>,
    pub(super) port: Option<Rc<Port>>,
    /// What the driver accepted, of the offloads only those in force.
    pub(super) features: Features,
    /// Whether frames come with a header.
    pub(super) header: bool,
    /// Where frames are put together, header first.
    pub(super) buffer: Vec<u8>,
    /// How long the frame in `buffer` is, with its header; 0 if there is none.
    pub(super) length: usize,
    /// Buffers that were taken for the next frame.
    pub(super) held: Vec<Chain>,
    /// Buffers that were filled and the driver not told of, with how much is in them.
    pub(super) filled: Vec<(Chain, u32)>,
}

/// What became of a frame.
enum Placed {
    /// It is done with.
    Done,
    /// There are not enough buffers yet.
    NoBuffers,
}

impl Receive {
    /// A buffer of the size that [`Receive::buffer`] needs, with a frame that waits.
    pub(super) fn buffer(waiting: &[u8]) -> (Vec<u8>, usize) {
        let mut buffer = vec![0; HEADER_LEN.saturating_add(MAX_FRAME)];
        match buffer.get_mut(..waiting.len()) {
            Some(start) => start.copy_from_slice(waiting),
            None => return (buffer, 0),
        }
        (buffer, waiting.len())
    }

    /// Serves the queue until `halt` is raised or the device stops.
    pub(super) async fn run(&mut self, halt: &Notify) {
        self.worker.queue(|queue| queue.disable_notification().ok());
        let mut frames = 0usize;
        while !self.worker.is_stopping() {
            if self.length == 0 && !self.fetch() {
                self.flush();
                frames = 0;
                let ready = async {
                    match &self.port {
                        Some(port) => {
                            race(self.worker.stopped(), port.receivable()).await;
                        }
                        None => self.worker.stopped().await,
                    }
                };
                if !unless(halt, ready).await {
                    return;
                }
                continue;
            }
            match self.place() {
                Placed::Done => self.length = 0,
                Placed::NoBuffers => {
                    self.flush();
                    if !unless(halt, self.worker.kicked()).await {
                        return;
                    }
                }
            }
            frames = frames.saturating_add(1);
            if frames >= BATCH {
                frames = 0;
                self.flush();
                if !unless(halt, self.worker.local().yield_now()).await {
                    return;
                }
            }
        }
    }

    /// The device stops: nothing stays out of the ring. Returns the frame that found no buffers.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.flush();
        self.held.drain(..).for_each(|chain| self.worker.put_back(chain));
        self.buffer.truncate(self.length);
        self.buffer
    }

    /// Tells the driver of the buffers that were filled.
    fn flush(&mut self) {
        if !self.filled.is_empty() {
            self.worker.done_together(self.filled.drain(..));
        }
    }

    /// Takes the next frame from the back end; `false` if there is none now.
    fn fetch(&mut self) -> bool {
        let start = if self.header { 0 } else { HEADER_LEN };
        let Some(buffer) = self.buffer.get_mut(start..) else { return false };
        let Some(length) = self.port.as_ref().and_then(|port| port.try_recv(buffer)) else {
            return false;
        };
        if !self.header
            && let Some(header) = self.buffer.first_chunk_mut()
        {
            *header = Header::default().to_bytes();
        }
        self.length = start.saturating_add(length);
        if !self.prepare() {
            self.length = 0;
        }
        true
    }

    /// Puts the header right for the driver; whether it is to see the frame.
    fn prepare(&mut self) -> bool {
        let Some((header, rest)) = self.buffer.split_first_chunk_mut::<HEADER_LEN>() else {
            return false;
        };
        let length = self.length.saturating_sub(HEADER_LEN);
        let Some(frame) = rest.get_mut(..length) else { return false };
        if !self.card.with(|state| state.filter.passes(frame)) {
            return false;
        }
        if !self.header {
            return true;
        }
        let mut parsed = Header::parse(header);
        let takes = match parsed.gso() {
            Ok(Gso::None) => Features::empty(),
            Ok(Gso::Tcp4) => Features::GUEST_TSO4,
            Ok(Gso::Tcp6) => Features::GUEST_TSO6,
            Ok(Gso::Udp) => Features::GUEST_USO4,
            Err(_) => return false,
        };
        if !self.features.contains(takes) {
            return false;
        }
        let sums = self.features.contains(Features::GUEST_CSUM);
        let complete = takes.is_empty() && (!sums || is_dhcp_reply(frame));
        if parsed.needs_csum() && complete {
            if complete_checksum(frame, parsed.csum_start, parsed.csum_offset).is_err() {
                return false;
            }
            (parsed.csum_start, parsed.csum_offset) = (0, 0);
            parsed.flags &= !NEEDS_CSUM;
        }
        parsed.flags &= if sums { NEEDS_CSUM | DATA_VALID } else { 0 };
        *header = parsed.to_bytes();
        true
    }

    /// Puts the frame into buffers, if there are enough.
    fn place(&mut self) -> Placed {
        let mergeable = self.features.contains(Features::MRG_RXBUF);
        let mut room = self.held.iter().map(room_of).sum::<usize>();
        while self.length != 0 && (room < self.length || self.held.is_empty()) {
            let full = |worker: &Worker| {
                worker.queue(|queue| queue.in_flight() >= queue.layout().size).unwrap_or(true)
            };
            if !self.held.is_empty() && !mergeable {
                // Another buffer would not be larger. This one is for the next frame.
                return Placed::Done;
            }
            if full(&self.worker) && self.filled.is_empty() && !self.held.is_empty() {
                return Placed::Done;
            }
            let Some(chain) = self.worker.try_next() else { return Placed::NoBuffers };
            let size = room_of(&chain);
            if size == 0 || self.held.is_empty() && size < HEADER_LEN {
                self.worker.fail(chain, Broken::Request("a receive buffer is too small"));
                return Placed::Done;
            }
            room = room.saturating_add(size);
            self.held.push(chain);
        }
        let used = self.buffers_needed();
        if let Some((header, _)) = self.buffer.split_first_chunk_mut::<HEADER_LEN>() {
            let num_buffers = u16::try_from(used).unwrap_or(u16::MAX);
            *header = Header { num_buffers, ..Header::parse(header) }.to_bytes();
        }
        let mut rest = self.buffer.get(..self.length).unwrap_or_default();
        for chain in self.held.drain(..used.min(self.held.len())) {
            let mut writer = chain.writer();
            let written = writer.write(rest);
            rest = rest.get(written..).unwrap_or_default();
            let written = writer.written();
            self.filled.push((chain, written));
        }
        Placed::Done
    }

    /// How many of the buffers that are held the frame takes.
    fn buffers_needed(&self) -> usize {
        let mut left = self.length;
        let takes_one = |chain: &&Chain| {
            let takes = left > 0;
            left = left.saturating_sub(room_of(chain));
            takes
        };
        self.held.iter().take_while(takes_one).count()
    }
}

fn room_of(chain: &Chain) -> usize {
    usize::try_from(chain.writable_len()).unwrap_or(usize::MAX)
}
