//! A transmit queue: frames from the guest to the back end.
//!
//! A frame that the back end takes as it is goes out of the guest's buffers by one system call,
//! without a copy. The others are copied, see [`super::outgoing`]. While a frame waits for the
//! back end nothing more is taken from the ring.
//!
//! The loop of the device; no lock. The guest's buffers may change while they are sent: the
//! kernel, or a copy, sees either version. Frames that are described wrongly are dropped.

use std::rc::Rc;

use resources::guest_error;
use resources::iol::{Notify, race};
use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::features::Features;
use super::header::{BadFrame, HEADER_LEN, Header};
use super::offload::ETHERNET;
use super::outgoing::{MAX_FRAME, Outgoing, OutgoingState, Takes};
use crate::net::{Port, Segment, Sent};
use crate::virtio::{Broken, Chain, Worker};

/// The most frames that are completed together.
const BATCH: usize = 64;

/// See the module's description. Everything that must not be lost is in here, none of it in the
/// future that serves the queue.
pub(super) struct Transmit {
    pub(super) worker: Rc<Worker>,
    /// Without it frames go nowhere.
    pub(super) port: Option<Rc<Port>>,
    pub(super) features: Features,
    pub(super) takes: Takes,
    /// What waits for the back end.
    pub(super) outgoing: Option<Outgoing>,
    /// What was sent and the driver not told of.
    pub(super) sent: Vec<Chain>,
}

impl Transmit {
    /// Serves the queue until `halt` is raised or the device stops.
    pub(super) async fn run(&mut self, halt: &Notify) {
        self.worker.queue(|queue| queue.disable_notification().ok());
        loop {
            if !self.send_waiting(halt).await {
                return;
            }
            if self.sent.len() >= BATCH {
                self.flush();
                let stopped = self.worker.is_stopping();
                if stopped || !unless(halt, self.worker.local().yield_now()).await {
                    return;
                }
            }
            if self.worker.is_stopping() {
                break;
            }
            match self.worker.try_next() {
                Some(chain) => self.send(chain),
                None => {
                    self.flush();
                    if !unless(halt, self.worker.kicked()).await {
                        return;
                    }
                }
            }
        }
    }

    /// The device stops: nothing stays out of the ring. Returns what the back end did not take.
    pub(super) fn finish(mut self) -> Option<OutgoingState> {
        self.flush();
        self.outgoing.map(|outgoing| outgoing.save())
    }

    /// Waits for room in the back end; `false` when there is something else to do.
    async fn sendable(&self, halt: &Notify) -> bool {
        let Some(port) = &self.port else { return true };
        let ready = async {
            race(self.worker.stopped(), port.sendable()).await;
        };
        unless(halt, ready).await && !self.worker.is_stopping()
    }

    /// Tells the driver of what was sent.
    fn flush(&mut self) {
        if !self.sent.is_empty() {
            self.worker.done_together(self.sent.drain(..).map(|chain| (chain, 0)));
        }
    }

    /// Sends what waits, segment by segment; `false` when there is something else to do.
    async fn send_waiting(&mut self, halt: &Notify) -> bool {
        while let Some(outgoing) = &mut self.outgoing {
            let (header, frame) = outgoing.now();
            let header = header.to_bytes();
            let sent = match &self.port {
                None => Sent::Taken,
                Some(port) if self.takes.header => port.send(&[header[..].into(), frame.into()]),
                Some(port) => port.send(&[frame.into()]),
            };
            if sent == Sent::Full {
                self.flush();
                if !self.sendable(halt).await {
                    return false;
                }
            } else if !outgoing.advance() {
                self.outgoing = None;
            } else if !unless(halt, self.worker.piece_done()).await || self.worker.is_stopping() {
                return false;
            }
        }
        true
    }

    fn send(&mut self, chain: Chain) {
        match self.try_send(&chain) {
            Ok(()) => self.sent.push(chain),
            Err(Refused::Frame(why)) => {
                guest_error!("virtio-net", "a frame to be sent {why}");
                self.sent.push(chain);
            }
            Err(Refused::Chain(why)) => self.worker.fail(chain, why),
        }
    }

    fn try_send(&mut self, chain: &Chain) -> Result<(), Refused> {
        let mut reader = chain.reader();
        let header: [u8; HEADER_LEN] =
            reader.array().map_err(|_| Broken::Request("a frame has no header"))?;
        let parsed = Header::parse(&header);
        let length = usize::try_from(reader.remaining()).unwrap_or(usize::MAX);
        if !(ETHERNET..=MAX_FRAME).contains(&length) {
            return Err(BadFrame::Length.into());
        }
        let as_it_is = self.takes.as_it_is(&parsed, self.features)?;
        let Some(port) = &self.port else { return Ok(()) };
        if as_it_is {
            let memory = &**chain.memory();
            let mut pieces = Vec::with_capacity(chain.readable().len().saturating_add(1));
            if self.takes.header {
                pieces.push(Segment::from(&header[..]));
            }
            for piece in reader.segments() {
                let length = usize::try_from(piece.len).unwrap_or(usize::MAX);
                for slice in memory.get_slices(GuestAddress(piece.address.0), length) {
                    let slice = slice.map_err(|_| Broken::Request("a frame is not in RAM"))?;
                    pieces.push(Segment::from(&slice));
                }
            }
            if port.send(&pieces) == Sent::Taken {
                return Ok(());
            }
        }
        let mut frame = vec![0; length];
        let read = reader.read(&mut frame);
        frame.truncate(read);
        self.outgoing = Some(Outgoing::new(parsed, frame, self.takes, self.features)?);
        Ok(())
    }
}

/// Completes `what`; `false` if `halt` is raised first.
pub(super) async fn unless(halt: &Notify, what: impl Future<Output = ()>) -> bool {
    matches!(race(halt.notified(), what).await, resources::iol::Either::Right(()))
}

/// Why a chain is not sent.
enum Refused {
    Frame(BadFrame),
    Chain(Broken),
}

impl From<BadFrame> for Refused {
    fn from(why: BadFrame) -> Refused {
        Refused::Frame(why)
    }
}

impl From<Broken> for Refused {
    fn from(why: Broken) -> Refused {
        Refused::Chain(why)
    }
}
