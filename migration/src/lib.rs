//! Live migration: a running guest moves to another process.
//!
//! | piece | file |
//! |---|---|
//! | where the other side is: `tcp:`, `unix:`, `fd:`, `exec:`, `file:` | `uri.rs` |
//! | what a connection is | `link.rs` |
//! | the connection to it | `channel/` |
//! | the same within TLS | `tls.rs` |
//! | which vector instructions there are | `simd.rs` |
//! | the outer form of what is sent | `stream.rs` |
//! | memory in it | `ram.rs` |
//! | disks in it | `blocks.rs` |
//! | what machine it is, what the stream needs | `inventory.rs`, `needs.rs` |
//! | the sending thread, the receiving one | `source.rs`, `dest.rs` |
//! | how it stands, who has the guest | `status.rs` |
//! | how fast the guest writes, and slowing it down | `converge.rs` |
//! | pages of zeros | `zero.rs` |
//! | pages as differences to what the other side has | `xbzrle/` |
//! | many pages at once, packed with zstd | `chunk.rs`, `compress.rs` |
//! | memory by channels of its own | `multifd/` |
//! | those who connect, until they are known | `callers.rs` |
//! | the ways to the other side, as often as they are gone | `road.rs` |
//! | running it before its memory is there | `postcopy/` |
//!
//! What the other side sends comes from anybody, so nothing here may panic: the lints below say
//! so.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod blocks;
pub mod callers;
pub mod channel;
mod chunk;
pub mod compress;
mod converge;
pub mod dest;
#[doc(hidden)]
pub mod fuzz;
pub mod inventory;
pub mod link;
pub mod multifd;
mod needs;
pub mod postcopy;
pub mod ram;
pub mod road;
pub mod simd;
pub mod source;
pub mod status;
pub mod stream;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod testing;
pub mod tls;
pub mod uri;
pub mod xbzrle;
pub mod zero;

/// Why there is no way to the other side, in the words that a client or the user is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

impl Error {
    fn new(text: &str) -> Self {
        Self(text.into())
    }
}
