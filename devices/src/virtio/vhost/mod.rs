//! Rings that the host's kernel serves: vhost.
//!
//! | piece | file |
//! |---|---|
//! | the requests | `ioctl.rs`, the only one with `unsafe` |
//! | the record of what the kernel writes to guest RAM | `log.rs` |
//! | [`Rings`]: queues lent to the kernel and taken back | this one |
//!
//! Queues come to a task on an I/O loop as they always do, see [`Worker`]; the task lends those
//! that the kernel is to serve and waits. The driver's kicks then reach the kernel, and the
//! kernel's interrupts KVM, without a detour; where the driver has no messages, the loop relays
//! them. Before the device stops, the kernel says how far it has got, and the queue goes on from
//! there: stop, save and reset are as with every other device.
//!
//! Guest RAM is told to the kernel anew each time, and cannot change while the machine runs. What
//! the kernel writes there passes our record of dirty pages by: whoever lends rings adds a
//! [`Record`] to the guest's memory, so that the kernel notes it while the machine is moved. Where
//! the kernel [cannot](can_log), the device says so by
//! [`Device::pinned`](resources::device::Device::pinned), and the machine cannot be moved while it
//! runs.
//!
//! Thread: the loop of the device; no lock. A hostile guest reaches the kernel's own checks of
//! rings: what it finds wrong makes the device need a reset.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use resources::iol::{Direction, Task};
use resources::ram::GuestMemory;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::feature;
use super::port::ConfigIrq;
use super::worker::Worker;

mod ioctl;
mod log;
#[cfg(test)]
mod tests;

pub use ioctl::Vhost;
pub use log::Record;

/// VHOST_F_LOG_ALL: the kernel notes what it writes.
const LOG_ALL: u64 = 1 << 26;

/// The features of rings that the kernel can serve; of a device whose rings it can be lent. DMA
/// addresses are always the guest's own.
///
/// # Errors
/// When it cannot be asked, or is older than virtio 1.0.
pub fn ring_features(vhost: &Vhost) -> io::Result<u64> {
    let known = vhost.features()? & !LOG_ALL;
    if known & feature::VERSION_1 == 0 {
        return Err(io::Error::other("the kernel's vhost does not know virtio 1.0"));
    }
    Ok(known | feature::ACCESS_PLATFORM)
}

/// Whether the kernel can note what it writes to guest RAM.
pub fn can_log(vhost: &Vhost) -> bool {
    vhost.features().is_ok_and(|known| known & LOG_ALL != 0)
}

/// A queue that is lent.
struct Lent {
    worker: Rc<Worker>,
    /// Its number at the kernel.
    ring: u32,
    /// Where the kernel signals instead of to KVM.
    call: Option<Arc<EventFd>>,
    _relay: Option<Task<()>>,
    _errors: Task<()>,
}

/// Queues that are lent to the kernel, until this is dropped: after the kernel was told to serve
/// them no longer, and before the device has stopped.
pub struct Rings {
    vhost: Arc<Vhost>,
    lent: Vec<Lent>,
}

impl Rings {
    /// Lends queues, each with its number at the kernel, which still has to be told to serve them.
    ///
    /// # Errors
    /// When the kernel refuses, or a queue has something under way; nothing is lent then.
    pub fn lend(
        vhost: &Arc<Vhost>,
        workers: &[(u32, Rc<Worker>)],
        config: &ConfigIrq,
    ) -> io::Result<Rings> {
        let known = vhost.features()? & !(LOG_ALL | feature::ACCESS_PLATFORM);
        let first = workers.first().and_then(|(_, worker)| worker.queue(|queue| queue.features()));
        vhost.set_features(first.unwrap_or(0) & known)?;
        let mut rings = Rings { vhost: vhost.clone(), lent: Vec::new() };
        for (ring, worker) in workers {
            // If one cannot be lent, those before are taken back as `rings` is dropped.
            let lent = rings.lend_one(*ring, worker, config)?;
            rings.lent.push(lent);
        }
        Ok(rings)
    }

    fn lend_one(&self, ring: u32, worker: &Rc<Worker>, config: &ConfigIrq) -> io::Result<Lent> {
        let vhost = &self.vhost;
        let busy = || io::Error::other(format!("queue {} has requests under way", worker.index()));
        let gone = || io::Error::other("the queue is gone");
        let (memory, layout, base): (Arc<GuestMemory>, _, _) = worker
            .queue(|queue| (queue.memory().clone(), *queue.layout(), queue.idle_at()))
            .ok_or_else(gone)?;
        let base = base.ok_or_else(busy)?;
        vhost.set_memory(&memory)?;
        vhost.set_ring(ring, &layout, base)?;
        let (kick, irq) =
            worker.port(|port| (port.kick.clone(), port.irq.clone())).ok_or_else(gone)?;
        let local = worker.local();
        let mut call = None;
        let mut relay = None;
        match irq.fd() {
            Some(fd) => vhost.set_call(ring, Some(&fd))?,
            None => {
                let fd = Arc::new(EventFd::new(EFD_NONBLOCK)?);
                vhost.set_call(ring, Some(&fd))?;
                let watch = local.watch(fd.clone())?;
                call = Some(fd);
                relay = Some(local.spawn(async move {
                    while watch.io(Direction::Read, |fd| fd.read()).await.is_ok() {
                        irq.signal();
                    }
                }));
            }
        }
        let wrong = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        vhost.set_error(ring, Some(&wrong))?;
        let watch = local.watch(wrong)?;
        let (config, index) = (config.clone(), worker.index());
        let errors = local.spawn(async move {
            if watch.io(Direction::Read, |fd| fd.read()).await.is_ok() {
                config.needs_reset(&format_args!("the kernel cannot serve queue {index}"));
            }
        });
        vhost.set_kick(ring, Some(&kick))?;
        // What is there already.
        let _ = kick.write(1);
        Ok(Lent { worker: worker.clone(), ring, call, _relay: relay, _errors: errors })
    }

    fn take_back(&mut self) {
        for Lent { worker, ring, call, .. } in self.lent.drain(..) {
            for (what, done) in [
                ("interrupts", self.vhost.set_call(ring, None)),
                ("kicks", self.vhost.set_kick(ring, None)),
                ("errors", self.vhost.set_error(ring, None)),
            ] {
                if let Err(error) = done {
                    tracing::error!("vhost: ring {ring} keeps its {what}: {error}");
                }
            }
            match self.vhost.ring_base(ring) {
                Ok(base) => drop(worker.queue(|queue| queue.set_position(base))),
                Err(error) => tracing::error!("vhost: ring {ring}: {error}"),
            }
            // What the loop did not come to relay.
            if call.is_some_and(|call| call.read().is_ok()) {
                worker.port(|port| port.irq.signal());
            }
        }
    }
}

impl Drop for Rings {
    fn drop(&mut self) {
        self.take_back();
    }
}
