//! Disks: a graph of asynchronous nodes, and the drives that devices are given.
//!
//! | piece | file |
//! |---|---|
//! | what every layer of a disk can do | `node.rs` |
//! | what a format with metadata can do beyond that | `image.rs` |
//! | files and block devices of the host | `file.rs`, opened by `host.rs`, locked by `lock.rs` |
//! | a part of another node, byte for byte | `raw.rs` |
//! | the qcow2 format | `qcow2/` |
//! | disks over the network: client and server | `nbd/` |
//! | faults on purpose | `blkdebug.rs` |
//! | nothing: zeros | `null.rs` |
//! | bytes in memory | `memory.rs` |
//! | a graph that is in use, on its loop | `disk.rs` |
//! | what is under an image | `chain.rs` |
//! | which parts were written | `dirty.rs` |
//! | long operations on a drive | `job/` |
//! | a drive: what has a name, with or without medium | `drive.rs` |
//! | what a graph is opened from | `open.rs`, by `options.rs`, `format.rs` and `protocol.rs` |
//! | new images | `create.rs` |
//! | names of files | `name.rs` |
//! | what is told about a graph | `describe.rs` |
//! | snapshots of a drive | `snapshot.rs` |
//! | a machine's saved state in an image | `vmstate.rs` |
//! | contents that move to another process | `transfer.rs` |
//! | counters | `stats.rs` |
//! | the command-line tools | `tools/` |
//! | limits of what is done | `throttle.rs` |
//!
//! A graph lives on one I/O loop, in `Rc`s, without locks. What other threads hold is a [`Drive`].
//! Images come from anybody, so nothing here may panic: the lints below say so.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod blkdebug;
pub mod chain;
pub mod create;
pub mod describe;
pub mod detect;
pub mod dirty;
pub mod disk;
pub mod drive;
pub mod file;
pub mod format;
pub mod host;
pub mod image;
pub mod job;
mod lock;
pub mod memory;
pub mod name;
pub mod nbd;
pub mod node;
pub mod null;
pub mod open;
pub mod options;
mod overlay;
pub mod protocol;
pub mod qcow2;
mod ranges;
pub mod raw;
pub mod snapshot;
pub mod stats;
pub mod throttle;
pub mod tools;
pub mod transfer;
pub mod vmstate;
mod wait;

#[cfg(test)]
mod mem;
#[cfg(test)]
mod tests;

pub use create::{CreateOption, NewImage, create};
pub use describe::Description;
pub use disk::Disk;
pub use drive::{
    Action, AttachError, Attachment, Busy, Drive, Failure, IoStatus, Model, OnError, Policy, Tray,
};
pub use host::{Cache, HostError, HostFile, OpenOptions, errno_text};
pub use image::{
    BackingFile, BitmapChange, Check, Fact, Facts, Image, PersistentBitmap, Repair, Snapshot,
};
pub use node::{Extent, Info, Node, Op, State, Zero};
pub use open::{OpenError, Spec, open};
pub use options::Options;
pub use stats::{Kind, Stats};
pub use throttle::Limits;
