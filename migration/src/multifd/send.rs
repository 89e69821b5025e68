//! The channels at the source: a thread for each looks for zeros, copies, packs and sends.
//!
//! The migration thread has it, and waits for the slowest channel when its queue is full. The
//! threads share counters and a lock around the first error, a leaf.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::channel::Limiter;
use crate::chunk::{Chunk, Packer, Tally};
use crate::link::{Breaker, Link};
use crate::needs::Announcement;
use crate::stream::Error;

/// Chunks that wait for a channel: enough that it always has work, few enough that they are soon
/// sent when the guest stands still.
const QUEUE: usize = 4;

/// The channels of a migration.
pub(crate) struct Channels {
    workers: Vec<Worker>,
    shared: Arc<Shared>,
    /// Of all of them; follows what the migration may use.
    limiter: Limiter,
}

struct Worker {
    /// None once it has ended.
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
    hang_up: Breaker,
}

enum Order {
    Send(Chunk),
    /// Fail when for so long nothing moves, and from then on.
    GiveUp(Duration, Option<Instant>),
    /// Say so when everything before it was sent; it is the last, perhaps.
    Done {
        end: bool,
        reply: SyncSender<()>,
    },
}

#[derive(Default)]
struct Shared {
    zero: AtomicU64,
    normal: AtomicU64,
    written: AtomicU64,
    failed: Mutex<Option<Error>>,
}

impl Channels {
    /// Opens them all by `connect`.
    ///
    /// # Errors
    /// One cannot be opened.
    pub(crate) fn open(
        announced: &Announcement,
        level: Option<i32>,
        limiter: Limiter,
        mut connect: impl FnMut() -> Result<Box<dyn Link + Send>, Error>,
    ) -> Result<Channels, Error> {
        let mut channels = Channels { workers: Vec::new(), shared: Arc::default(), limiter };
        for number in 0..announced.count {
            let mut link = connect()?;
            announced.greet(&mut link, number)?;
            link.set_limiter(&channels.limiter);
            let packer = Packer::new(level)?;
            let (orders, queue) = sync_channel(QUEUE);
            let (shared, hang_up) = (channels.shared.clone(), link.breaker());
            let thread = Builder::new().name(format!("migrate-{number}"));
            let thread = thread.spawn(move || work(&queue, link, packer, &shared))?;
            let (orders, thread) = (Some(orders), Some(thread));
            channels.workers.push(Worker { orders, thread, hang_up });
        }
        Ok(channels)
    }

    /// Sends no more than `rate` bytes a second by all of them, or 0: as many as go. Those that
    /// wait hear of it.
    pub(crate) fn limit(&self, rate: u64) {
        if self.limiter.rate() != rate {
            self.limiter.set(rate);
        }
    }

    /// What holds them to that; for the main connection too.
    pub(crate) fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    /// Leaves the pages to the thread of their channel.
    ///
    /// # Errors
    /// A channel has failed.
    pub(crate) fn send(&self, chunk: Chunk) -> Result<(), Error> {
        // Neighbours go to different channels, and so do those at most distances.
        let place = chunk.word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let index = (place * self.workers.len() as u64) >> 32;
        let worker = usize::try_from(index).ok().and_then(|index| self.workers.get(index));
        self.order(worker, Order::Send(chunk))
    }

    fn order(&self, worker: Option<&Worker>, order: Order) -> Result<(), Error> {
        let orders = worker.and_then(|worker| worker.orders.as_ref());
        match orders.map(|orders| orders.send(order)) {
            Some(Ok(())) => Ok(()),
            _ => Err(self.failure()),
        }
    }

    fn failure(&self) -> Error {
        let error = self.shared.failed.lock().take();
        error.unwrap_or_else(|| Error::Here("a channel has ended already".to_owned()))
    }

    /// A channel fails from now on when for so long nothing moves, and at the deadline.
    ///
    /// # Errors
    /// One has failed.
    pub(crate) fn give_up(
        &self,
        silence: Duration,
        deadline: Option<Instant>,
    ) -> Result<(), Error> {
        let mut workers = self.workers.iter();
        workers.try_for_each(|worker| self.order(Some(worker), Order::GiveUp(silence, deadline)))
    }

    /// Waits until everything was handed to the host.
    ///
    /// # Errors
    /// A channel has failed.
    pub(crate) fn drain(&self) -> Result<(), Error> {
        self.done(false)
    }

    /// Sends what is left and the end of each channel.
    ///
    /// # Errors
    /// A channel has failed.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        self.done(true)?;
        self.workers.iter_mut().for_each(|worker| worker.orders = None);
        Ok(())
    }

    fn done(&self, end: bool) -> Result<(), Error> {
        let replies = self.workers.iter().map(|worker| {
            let (reply, told) = sync_channel(1);
            self.order(Some(worker), Order::Done { end, reply })?;
            Ok(told)
        });
        let replies: Vec<_> = replies.collect::<Result<_, Error>>()?;
        replies.into_iter().try_for_each(|told| told.recv().map_err(|_| self.failure()))
    }

    /// Pages sent since this was asked last.
    pub(crate) fn tally(&self) -> Tally {
        let take = |counter: &AtomicU64| counter.swap(0, Relaxed);
        Tally { zero: take(&self.shared.zero), normal: take(&self.shared.normal) }
    }

    /// Bytes sent.
    pub(crate) fn written(&self) -> u64 {
        self.shared.written.load(Relaxed)
    }
}

impl Drop for Channels {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            if worker.orders.take().is_some() {
                (worker.hang_up)();
            }
        }
        for thread in self.workers.iter_mut().filter_map(|worker| worker.thread.take()) {
            let _ = thread.join();
        }
    }
}

/// The thread of a channel.
fn work(
    orders: &Receiver<Order>,
    mut link: Box<dyn Link + Send>,
    mut packer: Packer,
    shared: &Shared,
) {
    for order in orders {
        if let Err(error) = obey(&order, &mut *link, &mut packer, shared) {
            // Before the reply and the queue close, so that whoever sees that sees why.
            shared.failed.lock().get_or_insert(error);
            return;
        }
        if let Order::Done { reply, .. } = order {
            // Whoever does not wait any more has ended.
            let _ = reply.send(());
        }
    }
}

fn obey(
    order: &Order,
    link: &mut (dyn Link + Send),
    packer: &mut Packer,
    shared: &Shared,
) -> Result<(), Error> {
    match order {
        Order::Send(chunk) => {
            let (tally, bytes) = packer.pack(chunk);
            link.send_memory(&bytes)?;
            shared.zero.fetch_add(tally.zero, Relaxed);
            shared.normal.fetch_add(tally.normal, Relaxed);
            shared.written.fetch_add(bytes.len() as u64, Relaxed);
        }
        Order::GiveUp(silence, deadline) => {
            link.give_up_after(*silence);
            link.give_up_at(*deadline);
        }
        Order::Done { end, .. } => {
            if *end {
                link.write_all(&Packer::end())?;
            }
            link.flush()?;
            if *end {
                // The other side may have read the mark, and be gone.
                let _ = link.finish();
            }
        }
    }
    Ok(())
}
