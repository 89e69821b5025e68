//! A netdev whose other end is in the hands of a test.
//!
//! Any thread; the locks are those of the two lanes.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use resources::iol::Local;

use super::backend::{Backend, Caps, Endpoint, Setup};
use super::lane::{Lane, LaneEnd};
use super::network::Netdev;

/// The other end of a netdev made by [`pair`].
#[derive(Clone)]
pub struct Far {
    queues: Vec<(Lane, Lane)>,
    setup: Arc<Mutex<Setup>>,
}

impl Far {
    /// Sends a frame to the NIC on its queue; false if there is no room.
    pub fn send(&self, queue: usize, frame: &[u8]) -> bool {
        self.queues.get(queue).is_some_and(|(_, to)| to.put(|| frame.to_vec()))
    }

    /// Takes a frame that the NIC sent.
    pub fn recv(&self, queue: usize) -> Option<Vec<u8>> {
        self.queues.get(queue).and_then(|(from, _)| from.take())
    }

    /// The frames that the NIC sent.
    pub fn sent(&self, queue: usize) -> Option<&Lane> {
        self.queues.get(queue).map(|(from, _)| from)
    }

    /// How the NIC uses the netdev.
    pub fn setup(&self) -> Setup {
        *self.setup.lock()
    }
}

/// Makes a netdev with `queues` queues that can do `caps`, and its other end.
pub fn pair(id: &str, queues: u16, caps: Caps) -> (Arc<Netdev>, Far) {
    let queues = (0..queues.max(1)).map(|_| (Lane::new(), Lane::new())).collect();
    let far = Far { queues, setup: Arc::default() };
    (Netdev::new(id, "none", Box::new(Pair { far: far.clone(), caps })), far)
}

struct Pair {
    far: Far,
    caps: Caps,
}

impl Backend for Pair {
    fn queues(&self) -> u16 {
        u16::try_from(self.far.queues.len()).unwrap_or(u16::MAX)
    }

    fn caps(&self) -> Caps {
        self.caps
    }

    fn configure(&self, setup: Setup) -> io::Result<()> {
        *self.far.setup.lock() = setup;
        Ok(())
    }

    fn open(&self, queue: u16, _: &Local) -> io::Result<Box<dyn Endpoint>> {
        let queue = self.far.queues.get(usize::from(queue));
        let (send, recv) = queue.cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(LaneEnd { send, recv }))
    }

    fn info(&self, _: u16) -> String {
        String::new()
    }
}
