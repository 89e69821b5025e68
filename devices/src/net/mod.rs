//! Networks: what a NIC is plugged into, and the host on the other side.
//!
//! A NIC holds a [`Cable`] to a [`Netdev`], or to nothing. For each of its queues it opens a
//! [`Port`] on the I/O loop it works on, and *pulls* frames from there when it has room for them:
//! what it does not take waits in the back end, which is the whole of back-pressure and of what
//! happens while the machine is stopped. What it sends, the port takes whole or not at all.
//!
//! | piece | file |
//! |---|---|
//! | a frame in pieces, of ours or of the guest's memory | `frame.rs` |
//! | who is there: netdevs and NICs by name, plugging, links | `network.rs` |
//! | a NIC's side: [`Cable`], [`Port`] | `port.rs` |
//! | a back end's side: [`Backend`], [`Endpoint`] | `backend.rs` |
//! | a bounded queue of frames between two loops | `lane.rs` |
//! | what a netdev is to be, from keys and values | `options.rs` |
//! | the back ends, one file each | `tap.rs` `bridge.rs` `user/` `socket/` |
//! | hubs and their ports; records of what passes them | `hub.rs` `dump.rs` |
//! | an endpoint that is a descriptor | `fdend.rs` |
//! | ioctls of TAP interfaces; scripts and helpers | `tun.rs` `launch.rs` |
//! | the other end of a netdev, for tests | `testing.rs` |
//!
//! A frame is an Ethernet frame without its checksum, of 14 to [`MAX_FRAME`] bytes. On a cable
//! whose [`Setup`] says so, each one has a `virtio_net_hdr_v1` of [`HEADER_LEN`] bytes in front,
//! little-endian, in both directions (virtio 1.x, 5.1.6).
//!
//! Threads: netdevs come and go on the main thread; a port belongs to its loop's. Locks: the
//! network's list, never held while a NIC or a back end is called; leaf mutexes around lanes and
//! around who waits on a link. A guest, and any peer on the network, can send any bytes at any
//! speed, stop taking frames, or vanish: lengths are checked here once for every back end, no
//! queue grows beyond its bound, and a peer that is gone is one line for the user and silence for
//! the guest.

mod announce;
mod backend;
mod bridge;
mod dump;
mod fdend;
mod frame;
mod hub;
mod kernel;
mod lane;
mod launch;
mod mac;
mod network;
mod options;
mod port;
mod socket;
mod tap;
pub mod testing;
mod tun;
mod user;

#[cfg(test)]
mod tests;

pub use announce::announce;
pub use backend::{Backend, Caps, Endpoint, Forwards, Offloads, Setup};
pub use bridge::Bridge;
pub use dump::{Dump, DumpOptions, LateClock};
pub use frame::{HEADER_LEN, MAX_FRAME, MIN_FRAME, Segment};
pub use hub::{HubMember, Hubs};
pub use kernel::Kernel;
pub use lane::Lane;
pub use mac::Mac;
pub use network::{Client, NetError, Netdev, Network, Nic, NicEntry, NicSpec};
pub use options::{
    LegacyNet, LegacyNic, Means, NETDEVS, OpenError, Options, TakeFd, What, parse_net,
    parse_netdev, port_for_nic,
};
pub use port::{Cable, LinkWatch, Port, Sent};
pub use socket::Socket;
pub use tap::Tap;
pub use user::User;
