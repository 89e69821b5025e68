//! A place for a port: what moves between its chardev and the guest.
//!
//! Threads: the chardev's loop delivers input, the device's loop serves the queues, main plugs and
//! saves. Lock: a leaf mutex for each place; a chardev is written without it. A peer's input is
//! taken up to [`ROOM`] and only while the guest has opened the port; a guest's output is taken
//! from its queue only as the chardev takes it.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use resources::iol::Notify;
use resources::state::{StateError, bytes, invalid};
use serde::{Deserialize, Serialize};

use crate::chardev::Chardev;

/// The most input that waits for the guest's buffers, in bytes.
const ROOM: usize = 16 << 10;

/// What is plugged into a place.
#[derive(Clone)]
pub(super) struct Plug {
    /// The id of its device.
    pub(super) id: Option<String>,
    /// By which the guest finds it.
    pub(super) name: Option<String>,
    pub(super) console: bool,
    pub(super) chardev: Option<Arc<Chardev>>,
}

/// What is saved of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct PortState {
    /// The guest has said that it is ready for the port.
    known: bool,
    /// A program of the guest has it open.
    guest_open: bool,
    /// The guest was told that the host has it open.
    told_open: bool,
    /// Input that waits for the guest's buffers.
    #[serde(with = "bytes")]
    incoming: Vec<u8>,
    /// How much of the guest's oldest buffer was written to the chardev.
    sent: u32,
}

#[derive(Default)]
struct Inner {
    plug: Option<Plug>,
    /// The guest's driver is served.
    running: bool,
    host_open: bool,
    known: bool,
    guest_open: bool,
    told_open: bool,
    /// Columns and rows of the terminal that the chardev is, and what the guest was told of them.
    size: Option<(u16, u16)>,
    told_size: Option<(u16, u16)>,
    incoming: VecDeque<u8>,
    sent: u32,
}

/// See the module's description.
#[derive(Default)]
pub(super) struct Slot {
    inner: Mutex<Inner>,
    /// There is input, for the task that serves the receive queue.
    pub(super) input: Notify,
    /// The chardev may take more, for the task that serves the transmit queue.
    pub(super) room: Notify,
}

impl Slot {
    pub(super) fn plug(&self, plug: Plug) {
        let mut inner = self.inner.lock();
        *inner = Inner { running: inner.running, plug: Some(plug), ..Inner::default() };
    }

    /// Takes out what is plugged in.
    pub(super) fn unplug(&self) -> Option<Plug> {
        let plug = {
            let mut inner = self.inner.lock();
            let running = inner.running;
            let old = std::mem::replace(&mut *inner, Inner { running, ..Inner::default() });
            old.plug
        };
        // Output that waits for the chardev goes nowhere now.
        self.room.notify();
        plug
    }

    /// What is plugged in, if something is.
    pub(super) fn plugged(&self) -> Option<Plug> {
        self.inner.lock().plug.clone()
    }

    pub(super) fn is_used(&self) -> bool {
        self.inner.lock().plug.is_some()
    }

    pub(super) fn set_running(&self, running: bool) {
        self.inner.lock().running = running;
        if running {
            self.input.notify();
            self.accept_input();
        }
    }

    /// The guest knows the port from now on, and nothing else yet.
    pub(super) fn set_known(&self) {
        let mut inner = self.inner.lock();
        (inner.known, inner.told_open, inner.told_size) = (true, false, None);
    }

    /// The guest opens or closes the port; whether that is a change.
    pub(super) fn set_guest_open(&self, open: bool) -> bool {
        let changed = {
            let mut inner = self.inner.lock();
            if !open {
                // Nobody is there to read it.
                inner.incoming.clear();
            }
            std::mem::replace(&mut inner.guest_open, open) != open
        };
        if open {
            self.accept_input();
        }
        changed
    }

    pub(super) fn set_host_open(&self, open: bool) {
        self.inner.lock().host_open = open;
    }

    /// What the guest is to be told of the host's side, if it has not been. Consoles are open.
    pub(super) fn untold_open(&self) -> Option<bool> {
        let mut inner = self.inner.lock();
        let console = inner.plug.as_ref()?.console;
        let open = inner.host_open || console;
        let tell = inner.known && inner.told_open != open;
        inner.told_open = open;
        tell.then_some(open)
    }

    /// Asks the chardev for the size of its terminal; whether it is another one than before.
    pub(super) fn measure(&self) -> bool {
        let size = self.chardev().and_then(|chardev| chardev.size());
        let size = size.map(|size| (size.cols, size.rows));
        let mut inner = self.inner.lock();
        std::mem::replace(&mut inner.size, size) != size
    }

    /// Columns and rows; zeros if they are not known.
    pub(super) fn size(&self) -> (u16, u16) {
        self.inner.lock().size.unwrap_or_default()
    }

    /// The size of a console, if the guest has not been told.
    pub(super) fn untold_size(&self) -> Option<(u16, u16)> {
        let mut inner = self.inner.lock();
        if !inner.known || !inner.plug.as_ref()?.console || inner.told_size == inner.size {
            return None;
        }
        inner.told_size = inner.size;
        inner.size
    }

    /// No driver uses the port; whether the guest had it open.
    pub(super) fn reset(&self) -> bool {
        let mut inner = self.inner.lock();
        let was_open = inner.guest_open;
        *inner = Inner {
            plug: inner.plug.take(),
            running: inner.running,
            host_open: inner.host_open,
            size: inner.size,
            ..Inner::default()
        };
        was_open
    }

    fn chardev(&self) -> Option<Arc<Chardev>> {
        self.inner.lock().plug.as_ref()?.chardev.clone()
    }

    fn accept_input(&self) {
        if let Some(chardev) = self.chardev() {
            chardev.accept_input();
        }
    }

    // ---- input ----

    pub(super) fn can_receive(&self) -> usize {
        let inner = self.inner.lock();
        if !inner.running || !inner.guest_open {
            return 0;
        }
        ROOM.saturating_sub(inner.incoming.len())
    }

    pub(super) fn receive(&self, data: &[u8]) {
        {
            let mut inner = self.inner.lock();
            let room = ROOM.saturating_sub(inner.incoming.len());
            if !inner.guest_open {
                return;
            }
            inner.incoming.extend(data.iter().take(room));
        }
        self.input.notify();
    }

    pub(super) fn has_input(&self) -> bool {
        !self.inner.lock().incoming.is_empty()
    }

    /// Takes up to `room` bytes of input.
    pub(super) fn take_input(&self, room: u32) -> Vec<u8> {
        let taken: Vec<u8> = {
            let mut inner = self.inner.lock();
            let len = inner.incoming.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            inner.incoming.drain(..len).collect()
        };
        self.accept_input();
        taken
    }

    // ---- output ----

    /// How much of the oldest buffer is written already.
    pub(super) fn sent(&self) -> u32 {
        self.inner.lock().sent
    }

    /// Writes some of the guest's bytes, all of them if nobody is there to take them; returns how
    /// many were taken. If not all, `room` is raised when there is more room.
    pub(super) fn write(&self, data: &[u8]) -> usize {
        let taken = match self.chardev() {
            Some(chardev) => chardev.write(data).min(data.len()),
            None => data.len(),
        };
        let mut inner = self.inner.lock();
        inner.sent = inner.sent.saturating_add(u32::try_from(taken).unwrap_or(u32::MAX));
        taken
    }

    /// The oldest buffer was written as a whole.
    pub(super) fn finished(&self) {
        self.inner.lock().sent = 0;
    }

    // ---- saved state ----

    pub(super) fn save(&self) -> PortState {
        let inner = self.inner.lock();
        PortState {
            known: inner.known,
            guest_open: inner.guest_open,
            told_open: inner.told_open,
            incoming: inner.incoming.iter().copied().collect(),
            sent: inner.sent,
        }
    }

    pub(super) fn load(&self, state: PortState) -> Result<(), StateError> {
        if state.incoming.len() > ROOM {
            return Err(invalid("a serial port has more input than it takes"));
        }
        let mut inner = self.inner.lock();
        inner.known = state.known;
        inner.guest_open = state.guest_open;
        inner.told_open = state.told_open;
        inner.incoming = state.incoming.into();
        inner.sent = state.sent;
        Ok(())
    }
}
