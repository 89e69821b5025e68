//! Guest-visible devices and their host back ends.
//!
//! Each device is one file that documents its regions, so that a machine can map it. Everything
//! here faces the guest, so the lints below turn every way to panic into a compile error.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation))]

pub mod acpi;
pub mod chardev;
pub mod class;
mod datagram;
pub mod entropy;
pub mod fuzz;
pub mod isa;
pub mod net;
pub mod pci;
pub mod scsi;
#[cfg(test)]
mod testing;
pub mod virtio;
