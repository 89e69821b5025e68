//! Devices of the PC's ISA bus, at their traditional ports.
//!
//! Each device's file names its ports, its threads and what a hostile guest can do with it.

pub mod debug;
pub mod i8042;
pub mod port92;
mod ps2;
pub mod reset_control;
pub mod rtc;
pub mod serial;

use std::sync::Arc;

use crate::chardev::Chardev;

/// The host side of a device that moves single bytes.
///
/// Called with the device's mutex held, so an implementation must not block and must not call
/// back into the device from inside these methods.
pub trait CharBackend: Send {
    /// Takes as many bytes as it can and returns how many. After it took fewer than it was given,
    /// it tells the device once there is room again.
    fn write(&mut self, bytes: &[u8]) -> usize;
    /// The device has room for input again after it had none.
    fn accept_input(&mut self);
}

impl CharBackend for Arc<Chardev> {
    fn write(&mut self, bytes: &[u8]) -> usize {
        Chardev::write(self, bytes)
    }

    fn accept_input(&mut self) {
        Chardev::accept_input(self);
    }
}

/// A back end that swallows output and has no input.
#[derive(Debug, Default)]
pub struct NullBackend;

impl CharBackend for NullBackend {
    fn write(&mut self, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn accept_input(&mut self) {}
}
