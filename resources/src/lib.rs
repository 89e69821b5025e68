//! What a machine hands out: guest RAM, address spaces, interrupt lines, I/O loops, clocks,
//! saved state and properties.
//!
//! This crate is the bottom of the workspace: it knows no device, no disk and no protocol.
//! Everything above it (devices, the block layer, migration, the machine itself) is built from
//! the parts here, and every part can be used without KVM, on [`hv::fake::Fake`].

pub mod base64;
pub mod class;
pub mod clock;
pub mod device;
pub mod fdset;
pub mod hv;
pub mod iol;
pub mod irq;
pub mod log;
pub mod nearest;
pub mod props;
pub mod ram;
pub mod request;
pub mod space;
pub mod state;
pub mod testing;
pub mod tls;
pub mod value;
