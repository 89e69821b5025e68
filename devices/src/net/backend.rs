//! What a back end is to the rest: a factory of endpoints, one for each queue.
//!
//! A [`Backend`] is used from the main thread and by NICs, on any thread; an [`Endpoint`] by the
//! one loop it was opened on.

use std::future::Future;
use std::io;
use std::pin::Pin;

use bitflags::bitflags;
use resources::iol::{Direction, Local};

use super::frame::Segment;
use super::kernel::Kernel;

bitflags! {
    /// What a receiver of frames does itself, so that the sender may leave it out; as in the
    /// feature bits of virtio-net and in TUNSETOFFLOAD.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Offloads: u32 {
        /// Fills in checksums.
        const CSUM = 1;
        /// Takes TCP over IPv4 in segments longer than the MTU.
        const TSO4 = 1 << 1;
        /// Takes TCP over IPv6 in segments longer than the MTU.
        const TSO6 = 1 << 2;
        /// Takes long segments with ECN.
        const ECN = 1 << 3;
        /// Takes UDP to be fragmented.
        const UFO = 1 << 4;
        /// Takes UDP over IPv4 in segments longer than the MTU.
        const USO4 = 1 << 5;
        /// Takes UDP over IPv6 in segments longer than the MTU.
        const USO6 = 1 << 6;
    }
}

/// What a back end can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Frames can have a header in front.
    pub header: bool,
    /// With a header: what the back end does to frames that it takes, and may be allowed to leave
    /// out of those it gives.
    pub offloads: Offloads,
}

/// How a NIC uses a back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Frames have a header, both ways. Only where [`Caps::header`] says so.
    pub header: bool,
    /// What the NIC takes of frames that it is given; a part of [`Caps::offloads`], and none
    /// without a header.
    pub offloads: Offloads,
    /// How many queues are in use, from the first.
    pub queues: u16,
}

impl Default for Setup {
    /// Plain frames on one queue.
    fn default() -> Setup {
        Setup { header: false, offloads: Offloads::empty(), queues: 1 }
    }
}

/// Where frames of a netdev go to and come from.
pub trait Backend: Send + Sync {
    /// How many queues there are, at least 1.
    fn queues(&self) -> u16 {
        1
    }

    /// What it can do.
    fn caps(&self) -> Caps {
        Caps::default()
    }

    /// A NIC uses it in another way from now on. No queue is open.
    ///
    /// # Errors
    /// When the host refuses; the setup before is still in force.
    fn configure(&self, setup: Setup) -> io::Result<()> {
        let _ = setup;
        Ok(())
    }

    /// Opens a queue for a NIC on its loop. Each queue is open once at a time.
    ///
    /// # Errors
    /// When the host refuses.
    fn open(&self, queue: u16, on: &Local) -> io::Result<Box<dyn Endpoint>>;

    /// What can move the frames of a queue instead of an endpoint, between rings of virtio and
    /// here; frames have a header then. Not while the endpoint is open.
    fn kernel(&self, queue: u16) -> Option<Kernel> {
        let _ = queue;
        None
    }

    /// A NIC was plugged in: what came before it was there is not meant for it.
    fn plugged(&self) {}

    /// The NIC is gone.
    fn unplugged(&self) {}

    /// What stands in `info network` behind the type.
    fn info(&self, queue: u16) -> String;

    /// What the user can have forwarded, where there is such a thing.
    fn forwards(&self) -> Option<&dyn Forwards> {
        None
    }

    /// Lets go of the host. Endpoints may still be open; what they do no longer matters.
    fn close(&self) {}
}

/// Ports of the host that lead into a network.
pub trait Forwards {
    /// Adds one: `[tcp|udp]:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT`.
    ///
    /// # Errors
    /// What is wrong with the rule, or that the host refuses.
    fn add(&self, rule: &str) -> Result<(), String>;

    /// Removes one by its host's side, `[tcp|udp]:[HOSTADDR]:HOSTPORT`; tells whether it was
    /// there. `None`: that is no rule.
    fn remove(&self, rule: &str) -> Option<bool>;

    /// A table of the connections.
    fn connections(&self) -> String;
}

/// One queue of a back end, seen by the loop that uses it.
pub trait Endpoint {
    /// Takes a frame, whole.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room for it now; anything else: the frame is lost.
    fn send(&self, frame: &[Segment<'_>]) -> io::Result<()>;

    /// Gives a frame, of which what does not fit is cut off; returns its length. 0: there was
    /// something, but no frame.
    ///
    /// # Errors
    /// `WouldBlock` when there is none now; anything else: there will be none any more.
    fn recv(&self, frame: &mut [u8]) -> io::Result<usize>;

    /// Completes when `direction` may work.
    fn ready(&self, direction: Direction) -> Pin<Box<dyn Future<Output = ()> + '_>>;
}
