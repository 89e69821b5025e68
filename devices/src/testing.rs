//! Stand-ins for the rest of the machine, shared by unit tests.

use std::sync::Arc;

use parking_lot::Mutex;
use resources::device::{At, Device};
use resources::hv::fake::Fake;
use resources::irq::{Irq, Wire};
use resources::request::{Mailbox, Request};

use crate::chardev::{Control, ModemLines};
use crate::isa::CharBackend;

/// A mailbox that remembers.
#[derive(Default)]
pub(crate) struct Requested(Mutex<Vec<Request>>);

impl Requested {
    pub(crate) fn take(&self) -> Vec<Request> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Mailbox for Requested {
    fn request(&self, request: Request) {
        self.0.lock().push(request);
    }
}

/// What a [`TestBackend`] has seen, and how much it takes.
#[derive(Default)]
pub(crate) struct TestChar {
    pub(crate) written: Vec<u8>,
    /// Calls of `write`.
    pub(crate) writes: usize,
    /// Bytes it takes before it blocks.
    pub(crate) room: usize,
    pub(crate) accepts: usize,
    pub(crate) controls: Vec<Control>,
    /// The modem's lines, if there is a modem.
    pub(crate) lines: Option<ModemLines>,
    /// What a device left when it went.
    pub(crate) pushed: Vec<u8>,
}

/// A back end with limited room.
#[derive(Clone, Default)]
pub(crate) struct TestBackend(pub(crate) Arc<Mutex<TestChar>>);

impl TestBackend {
    pub(crate) fn new() -> Self {
        let backend = Self::default();
        backend.0.lock().room = usize::MAX;
        backend
    }

    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().written)
    }
}

impl CharBackend for TestBackend {
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut inner = self.0.lock();
        let taken = bytes.len().min(inner.room);
        inner.room -= taken;
        inner.writes += 1;
        inner.written.extend_from_slice(&bytes[..taken]);
        taken
    }

    fn push(&mut self, bytes: &[u8]) -> usize {
        self.0.lock().pushed.extend_from_slice(bytes);
        bytes.len()
    }

    fn accept_input(&mut self) {
        self.0.lock().accepts += 1;
    }

    fn control(&mut self, control: Control) {
        self.0.lock().controls.push(control);
    }

    fn modem_lines(&mut self) -> Option<ModemLines> {
        self.0.lock().lines
    }
}

/// A line to interrupt `gsi`, and the fake that shows its level.
pub(crate) fn line(gsi: u32) -> (Irq, Arc<Fake>) {
    let fake = Fake::new();
    (Wire::new(gsi, fake.clone()).line(), fake)
}

/// A byte-wide read of region 0.
pub(crate) fn inb(device: &mut impl Device, offset: u64) -> u8 {
    let mut data = [0xff];
    device.read(At { region: 0, offset }, &mut data);
    data[0]
}

/// A byte-wide write to region 0.
pub(crate) fn outb(device: &mut impl Device, offset: u64, value: u8) {
    device.write(At { region: 0, offset }, &[value]);
}
