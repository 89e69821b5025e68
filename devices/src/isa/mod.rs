//! Devices of the PC's ISA bus, at their traditional ports.
//!
//! Each device's file names its ports, its threads and what a hostile guest can do with it.

pub mod debug;
pub mod i8042;
pub mod ib700;
pub mod port92;
mod ps2;
pub mod pvpanic;
pub mod reset_control;
pub mod rtc;
pub mod serial;

use std::sync::Arc;

use crate::chardev::{Chardev, Control, ModemLines};

/// The host side of a device that moves single bytes.
///
/// Called with the device's mutex held, so an implementation must not block and must not call
/// back into the device from inside these methods.
pub trait CharBackend: Send {
    /// Takes as many bytes as it can and returns how many. After it took fewer than it was given,
    /// it tells the device once there is room again.
    fn write(&mut self, bytes: &[u8]) -> usize;

    /// As `write`, from a device that cannot wait or is about to go: what is not taken at once is
    /// kept and sent later, if it is not too much.
    fn push(&mut self, bytes: &[u8]) -> usize {
        self.write(bytes)
    }

    /// The device has room for input again after it had none.
    fn accept_input(&mut self);

    /// Does something to the line, where there is one.
    fn control(&mut self, control: Control) {
        let _ = control;
    }

    /// The lines from the modem, where there are some.
    fn modem_lines(&mut self) -> Option<ModemLines> {
        None
    }
}

/// A chardev whose front end a device is, until this is dropped.
struct Attached(Arc<Chardev>);

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.detach();
    }
}

impl CharBackend for Attached {
    fn write(&mut self, bytes: &[u8]) -> usize {
        self.0.write(bytes)
    }

    fn push(&mut self, bytes: &[u8]) -> usize {
        self.0.push(bytes)
    }

    fn accept_input(&mut self) {
        self.0.accept_input();
    }

    fn control(&mut self, control: Control) {
        self.0.control(control);
    }

    fn modem_lines(&mut self) -> Option<ModemLines> {
        self.0.modem_lines()
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
