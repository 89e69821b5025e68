//! The tasks that serve a balloon's queues.
//!
//! On the I/O loop, without locks but those of [`Balloon`]. A request of a guest may name as many
//! pages as fit its RAM: after each [`CHUNK`] the loop looks at everything else.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use resources::guest_error;
use resources::iol::{Either, Task, race};
use resources::ram::{self, GuestMemory};

use super::shared::{Balloon, PAGE, STATS};
use super::{Role, bit, roles};
use crate::virtio::{Chain, Worker};

/// Page numbers that are dealt with at once.
const CHUNK: usize = 1024;

/// Serves all queues until the device stops.
pub(super) async fn serve(
    workers: Vec<Rc<Worker>>,
    balloon: Arc<Balloon>,
    memory: Arc<GuestMemory>,
    features: u64,
) {
    let roles = roles(features);
    let tasks: Vec<Task<()>> = workers
        .into_iter()
        .map(|worker| {
            let role = roles.get(usize::from(worker.index())).copied();
            let (balloon, memory) = (balloon.clone(), memory.clone());
            let local = worker.local().clone();
            local.spawn(async move {
                match role {
                    Some(Role::Inflate) => inflate(&worker, &memory).await,
                    Some(Role::Stats) => stats(&worker, &balloon).await,
                    Some(Role::Reporting) => report(&worker, &balloon, &memory, features).await,
                    Some(Role::Hint) => hint(&worker, &balloon).await,
                    // What comes out of the balloon is there when it is touched; what has no
                    // number is not used.
                    Some(Role::Deflate) | None => {
                        while let Some(chain) = worker.next().await {
                            worker.done(chain, 0);
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await;
    }
}

/// Gives the pages of each request back to the host.
async fn inflate(worker: &Worker, memory: &GuestMemory) {
    while let Some(chain) = worker.next().await {
        let mut reader = chain.reader();
        let mut bytes = [0; CHUNK * 4];
        loop {
            let len = reader.read(&mut bytes);
            let mut pages: Vec<u64> = bytes
                .get(..len)
                .unwrap_or_default()
                .chunks_exact(4)
                .map(|page| u64::from(u32::from_le_bytes(page.try_into().unwrap_or_default())))
                .collect();
            discard_pages(memory, &mut pages);
            if reader.remaining() == 0 {
                break;
            }
            worker.local().yield_now().await;
        }
        worker.done(chain, 0);
    }
}

/// Gives pages back by their numbers, neighbours together.
fn discard_pages(memory: &GuestMemory, pages: &mut [u64]) {
    pages.sort_unstable();
    let follows = |a: &u64, b: &u64| b.wrapping_sub(*a) <= 1;
    for run in pages.chunk_by(follows) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let count = last.saturating_sub(*first).saturating_add(1);
        discard(memory, first.saturating_mul(PAGE), count.saturating_mul(PAGE));
    }
}

fn discard(memory: &GuestMemory, address: u64, len: u64) {
    if let Err(error) = ram::discard(memory, address, len) {
        guest_error!("balloon", "{len} bytes at {address:#x} stay where they are: {error}");
    }
}

/// Gives free pages back that the guest reports.
async fn report(worker: &Worker, balloon: &Balloon, memory: &GuestMemory, features: u64) {
    while let Some(chain) = worker.next().await {
        // They would come back as zeros, where the guest expects something else.
        let poisoned = features & bit::POISON != 0 && balloon.registers().2 != 0;
        if !poisoned {
            for segment in chain.writable() {
                discard(memory, segment.address.0, segment.len.into());
            }
        }
        worker.done(chain, 0);
    }
}

/// Hears of pages that need not be moved.
async fn hint(worker: &Worker, balloon: &Balloon) {
    while let Some(chain) = worker.next().await {
        let round = chain.reader().le32().ok();
        let pieces = chain.writable().iter().map(|segment| (segment.address.0, segment.len.into()));
        balloon.hear_hints(round, pieces);
        worker.done(chain, 0);
    }
}

/// Takes statistics and asks for new ones by giving the buffer back.
async fn stats(worker: &Worker, balloon: &Balloon) {
    let mut asked = None;
    while let Some(chain) = worker.next().await {
        // A buffer that was here before the machine stopped tells nothing new.
        if !chain.is_resumed() {
            take(balloon, &chain);
        }
        match race(worker.stopped(), due(worker, balloon, &mut asked)).await {
            Either::Left(()) => worker.put_back(chain),
            Either::Right(()) => worker.done(chain, 0),
        }
    }
}

fn take(balloon: &Balloon, chain: &Chain) {
    let mut reader = chain.reader();
    // A tag may come several times: the last one counts. There are not many of them.
    let told = std::iter::from_fn(|| Some((reader.le16().ok()?, reader.le64().ok()?)));
    balloon.set_stats(told.take(STATS.len().saturating_mul(4)));
}

/// Waits until statistics are to be asked for.
async fn due(worker: &Worker, balloon: &Balloon, asked: &mut Option<Instant>) {
    let local = worker.local();
    loop {
        let wait = match (balloon.interval(), *asked) {
            (0, _) => {
                *asked = None;
                Duration::MAX
            }
            (_, None) => Duration::ZERO,
            (seconds, Some(last)) => Duration::from_secs(seconds).saturating_sub(last.elapsed()),
        };
        if wait.is_zero() {
            *asked = Some(Instant::now());
            return;
        }
        race(balloon.interval_changed.notified(), local.sleep(wait)).await;
    }
}
