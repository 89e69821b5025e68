//! The port as a chardev's front end. On the chardev's loop, under the device's mutex.

use std::sync::Weak;

use resources::device::DeviceCell;

use super::Serial;
use crate::chardev::{CharEvent, CharFrontend};

/// What the chardev calls.
pub(super) struct Front(pub(super) Weak<DeviceCell<Serial>>);

impl CharFrontend for Front {
    fn can_receive(&self) -> usize {
        self.0.upgrade().map_or(0, |port| port.lock().can_receive())
    }

    fn receive(&self, data: &[u8]) {
        if let Some(port) = self.0.upgrade() {
            port.lock().receive(data);
        }
    }

    fn event(&self, event: CharEvent) {
        let Some(port) = self.0.upgrade() else { return };
        match event {
            // Perhaps another line than before.
            CharEvent::Opened => port.lock().meet_line(),
            CharEvent::Break => port.lock().receive_break(),
            _ => {}
        }
    }

    fn writable(&self) {
        if let Some(port) = self.0.upgrade() {
            port.lock().writable();
        }
    }
}
