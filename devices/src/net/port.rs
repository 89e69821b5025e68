//! A NIC's side of the connection.
//!
//! A [`Cable`] is used on any thread, a [`Port`] on the loop it was opened on. The link's two
//! flags are atomics; who waits on the link is behind a leaf mutex. Lengths of frames are checked
//! here, for all back ends and in both directions.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use resources::iol::{Direction, Either, Local, Notify, race};
use resources::log::RateLimit;

use super::backend::{Caps, Endpoint, Setup};
use super::frame::{HEADER_LEN, MAX_FRAME, MIN_FRAME, Segment, total};
use super::kernel::Kernel;
use super::network::{Netdev, Network, NicEntry};
use crate::virtio::vhost::Vhost;

/// How many frames are dropped at once before others have their turn.
const BATCH: usize = 64;

/// What becomes of a frame that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way, or lost as frames on a network may be.
    Taken,
    /// There is no room: try again when [`Port::sendable`] completes.
    Full,
}

/// The state of a connection, shared by its two sides.
pub(super) struct Link {
    /// The netdev's own flag; the NIC's is with the NIC.
    pub(super) up: AtomicBool,
    /// The netdev is removed.
    pub(super) gone: AtomicBool,
    ports: Mutex<Vec<Weak<Waits>>>,
}

/// What a port waits with, besides its endpoint: one for each direction.
#[derive(Default)]
struct Waits {
    recv: Notify,
    send: Notify,
}

impl Link {
    pub(super) fn new() -> Link {
        Link { up: true.into(), gone: false.into(), ports: Mutex::default() }
    }

    /// Has all open ports look at the flags.
    pub(super) fn changed(&self) {
        let ports: Vec<_> = self.ports.lock().iter().filter_map(Weak::upgrade).collect();
        for port in ports {
            port.recv.notify();
            port.send.notify();
        }
    }

    fn join(&self) -> Arc<Waits> {
        let waits = Arc::new(Waits::default());
        let mut ports = self.ports.lock();
        ports.retain(|other| other.strong_count() > 0);
        ports.push(Arc::downgrade(&waits));
        waits
    }
}

/// A NIC's connection to a netdev, or to nothing. Dropping it takes the NIC off the network.
pub struct Cable {
    pub(super) network: Arc<Network>,
    pub(super) nic: Arc<NicEntry>,
    pub(super) netdev: Option<Arc<Netdev>>,
    pub(super) setup: Mutex<Setup>,
}

impl fmt::Debug for Cable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cable").field("nic", &self.nic.name()).finish_non_exhaustive()
    }
}

impl Cable {
    /// How many queues the other side has, at least 1; without one, as many as are wanted.
    pub fn queues(&self) -> Option<u16> {
        self.netdev.as_ref().map(|netdev| netdev.backend().queues().max(1))
    }

    /// What the other side can do.
    pub fn caps(&self) -> Caps {
        self.netdev.as_ref().map(|netdev| netdev.backend().caps()).unwrap_or_default()
    }

    /// Says how the other side is used from now on. No port may be open.
    ///
    /// # Errors
    /// When the host refuses, or `setup` asks for what [`caps`](Self::caps) does not offer.
    pub fn configure(&self, setup: Setup) -> io::Result<()> {
        if let Some(netdev) = &self.netdev {
            let (caps, queues) = (netdev.backend().caps(), netdev.backend().queues());
            let known = caps.header >= setup.header
                && caps.offloads.contains(setup.offloads)
                && (setup.header || setup.offloads.is_empty())
                && (1..=queues.max(1)).contains(&setup.queues);
            if !known {
                return Err(io::Error::other(format!("netdev '{}' lacks {setup:?}", netdev.id())));
            }
            if !netdev.link.gone.load(Ordering::Acquire) {
                netdev.backend().configure(setup)?;
            }
        }
        *self.setup.lock() = setup;
        Ok(())
    }

    /// Opens a queue on the loop of the calling task, until the port is dropped. A queue is open
    /// once at a time.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn open(&self, queue: u16, on: &Local) -> io::Result<Port> {
        let header = if self.setup.lock().header { HEADER_LEN } else { 0 };
        let (end, link) = match &self.netdev {
            Some(netdev) if !netdev.link.gone.load(Ordering::Acquire) => {
                (Some(Rc::from(netdev.backend().open(queue, on)?)), netdev.link.clone())
            }
            Some(netdev) => (None, netdev.link.clone()),
            None => (None, Arc::new(Link::new())),
        };
        let waits = link.join();
        let name = self.netdev.as_ref().map(|netdev| netdev.id().to_owned()).unwrap_or_default();
        let nic = self.nic.clone();
        Ok(Port { end: RefCell::new(end), link, nic, waits, header, name, on: on.clone() })
    }

    /// What can move the frames of a queue instead of a [port](Self::open); `None` also while
    /// frames are not to pass.
    pub fn kernel(&self, queue: u16) -> Option<Kernel> {
        let netdev = self.netdev.as_ref()?;
        let up = is_up(&self.nic, &netdev.link) && self.setup.lock().header;
        up.then(|| netdev.backend().kernel(queue)).flatten()
    }

    /// Whether frames can be moved by the kernel at all, and its device for that.
    pub fn vhost(&self) -> Option<Arc<Vhost>> {
        Some(self.netdev.as_ref()?.backend().kernel(0)?.vhost)
    }

    /// The kernel's devices for all queues.
    pub fn vhosts(&self) -> Vec<Arc<Vhost>> {
        let Some(netdev) = &self.netdev else { return Vec::new() };
        let kernel = |queue| netdev.backend().kernel(queue).map(|kernel| kernel.vhost);
        (0..netdev.backend().queues()).filter_map(kernel).collect()
    }

    /// To be told when frames begin or cease to pass, from now on.
    pub fn watch_link(&self) -> LinkWatch {
        LinkWatch(match &self.netdev {
            Some(netdev) => netdev.link.join(),
            None => Arc::default(),
        })
    }

    /// Whether the guest is to see a link.
    pub fn link_up(&self) -> bool {
        self.nic.link_up()
    }

    /// What is known of the NIC on the network.
    pub fn nic(&self) -> &Arc<NicEntry> {
        &self.nic
    }

    /// The netdev at the other end, unless there was never one.
    pub fn netdev(&self) -> Option<&Arc<Netdev>> {
        self.netdev.as_ref()
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.network.unplug(&self.nic);
        if let Some(netdev) = &self.netdev {
            netdev.release();
        }
    }
}

/// See [`Cable::watch_link`].
pub struct LinkWatch(Arc<Waits>);

impl LinkWatch {
    /// Completes when one of the link's flags may have changed.
    pub async fn changed(&self) {
        self.0.recv.notified().await;
    }
}

fn is_up(nic: &NicEntry, link: &Link) -> bool {
    nic.link_up() && link.up.load(Ordering::Acquire) && !link.gone.load(Ordering::Acquire)
}

/// One queue of a NIC's connection, on one loop. Two tasks may share it, one for each direction.
///
/// Dropping a wait, or the port, loses no frame: what was not received waits in the back end.
pub struct Port {
    /// `None`: there is nobody on the other side.
    end: RefCell<Option<Rc<dyn Endpoint>>>,
    link: Arc<Link>,
    nic: Arc<NicEntry>,
    waits: Arc<Waits>,
    header: usize,
    name: String,
    on: Local,
}

impl Port {
    /// Sends a frame, with its header if that is agreed on, whole or not at all. The pieces are
    /// read once. A frame of an impossible length is lost.
    pub fn send(&self, frame: &[Segment<'_>]) -> Sent {
        let least = self.header.saturating_add(MIN_FRAME);
        if !(least..=MAX_FRAME).contains(&total(frame)) || !self.is_up() {
            return Sent::Taken;
        }
        let end = self.end.borrow();
        let Some(end) = &*end else { return Sent::Taken };
        match end.send(frame) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Full,
            Err(error) => {
                static LIMIT: RateLimit = RateLimit::new();
                if LIMIT.allow().is_some() {
                    tracing::debug!("netdev '{}' lost a frame: {error}", self.name);
                }
                Sent::Taken
            }
            Ok(()) => Sent::Taken,
        }
    }

    /// The bytes of the header that frames have, if one is agreed on.
    pub fn header(&self) -> usize {
        self.header
    }

    /// Completes when [`send`](Self::send) may have room again.
    pub async fn sendable(&self) {
        self.wait(Direction::Write, &self.waits.send).await;
    }

    /// Receives a frame, with its header if that is agreed on, if there is one now. `buf` has room
    /// for [`MAX_FRAME`] bytes. At most a batch of frames is looked at and dropped; then there is
    /// none, and [`receivable`](Self::receivable) completes soon.
    pub fn try_recv(&self, buf: &mut [u8]) -> Option<usize> {
        let least = self.header.saturating_add(MIN_FRAME);
        for _ in 0..BATCH {
            if self.link.gone.load(Ordering::Acquire) {
                self.end.take();
            }
            let result = self.end.borrow().as_ref()?.recv(buf);
            match result {
                Ok(len) if self.is_up() && (least..=buf.len()).contains(&len) => return Some(len),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => {
                    tracing::error!("netdev '{}' has failed: {error}", self.name);
                    self.end.take();
                }
            }
        }
        self.waits.recv.notify();
        None
    }

    /// Receives a frame as [`try_recv`](Self::try_recv) does, once there is one; never, if there
    /// is nobody on the other side.
    pub async fn recv(&self, buf: &mut [u8]) -> usize {
        loop {
            if let Some(len) = self.try_recv(buf) {
                return len;
            }
            self.receivable().await;
            self.on.yield_now().await;
        }
    }

    /// Completes when [`try_recv`](Self::try_recv) may give a frame.
    pub async fn receivable(&self) {
        self.wait(Direction::Read, &self.waits.recv).await;
    }

    async fn wait(&self, direction: Direction, changed: &Notify) {
        if self.link.gone.load(Ordering::Acquire) {
            // A closed descriptor is what tells a tap or a peer.
            self.end.take();
        }
        // The other direction's task may give the endpoint up meanwhile.
        let end = self.end.borrow().clone();
        match end {
            Some(end) => {
                let _: Either<(), ()> = race(end.ready(direction), changed.notified()).await;
            }
            None => changed.notified().await,
        }
    }

    fn is_up(&self) -> bool {
        is_up(&self.nic, &self.link)
    }
}
