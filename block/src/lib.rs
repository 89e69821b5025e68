//! Disks: a graph of asynchronous nodes, and the drives that devices are given.
//!
//! | piece | file |
//! |---|---|
//! | what every layer of a disk can do | `node.rs` |
//! | what a format with metadata can do beyond that | `image.rs` |
//! | files and block devices of the host | `file.rs`, opened by `host.rs`, locked by `lock.rs` |
//! | a part of another node, byte for byte | `raw.rs` |
//! | the qcow2 format | `qcow2/` |
//! | nothing: zeros | `null.rs` |
//! | bytes in memory | `memory.rs` |
//! | a graph that is in use, on its loop | `disk.rs` |
//! | a drive: what has a name, with or without medium | `drive.rs` |
//! | what a drive is opened from | `source.rs` |
//! | counters | `stats.rs` |
//!
//! A graph lives on one I/O loop, in `Rc`s, without locks. What other threads hold is a [`Drive`].
//! Images come from anybody, so nothing here may panic: the lints below say so.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod disk;
pub mod drive;
pub mod file;
pub mod host;
pub mod image;
mod lock;
pub mod memory;
pub mod node;
pub mod null;
pub mod qcow2;
pub mod raw;
pub mod source;
pub mod stats;

#[cfg(test)]
mod tests;

pub use disk::Disk;
pub use drive::{
    Action, AttachError, Attachment, Busy, Drive, Failure, IoStatus, MediumInfo, Model, OnError,
    Policy, Tray,
};
pub use host::{Cache, HostFile, OpenError, OpenOptions, errno_text};
pub use image::{BackingFile, Check, Fact, Facts, Image, Repair, Snapshot};
pub use node::{Extent, Info, Node, Op, State, Zero};
pub use source::Source;
pub use stats::{Kind, Stats};
