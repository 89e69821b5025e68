//! NBD: disks over a socket, as a client and as a server.
//!
//! | piece | file |
//! |---|---|
//! | numbers and layouts of the protocol | `wire.rs` |
//! | a socket as reader and writer of messages | `stream.rs` |
//! | limits of what is under way, and buffers | `gauge.rs` |
//! | names of servers and exports, sockets | `address.rs` |
//! | NBD as what images lie on | `protocol.rs` |
//! | the client: an export as a node | `client/` |
//! | TLS around a connection | `tls.rs` |
//! | both against hostile peers | `fuzz.rs` |
//! | the server: exports and clients | `server/` |
//!
//! Whoever is at the other end is not trusted: lengths are bounded before anything is allocated,
//! answers are matched with what was asked, and a peer that breaks the rules is left.

pub mod address;
pub mod client;
pub mod fuzz;
mod gauge;
mod protocol;
pub mod server;
mod stream;
pub(crate) mod tls;
pub mod wire;

#[cfg(test)]
mod tests;

pub use address::{Address, Target};
pub use client::{Client, Options, open};
pub(crate) use protocol::PROTOCOL;
pub use server::{Bitmap, Exists, Export, Server};
