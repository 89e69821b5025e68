//! Control messages (section 5.3.6.2) and those that wait for the guest to take them.
//!
//! Pure; whoever owns an [`Outbox`] brings the lock. A guest that takes nothing makes no more than
//! a few messages for each port wait, as a newer one of a kind takes the place of an older one.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Bytes of a message before its text.
pub(super) const HEAD: usize = 8;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Event {
    /// VIRTIO_CONSOLE_PORT_ADD.
    Add,
    /// VIRTIO_CONSOLE_PORT_REMOVE.
    Remove,
    /// VIRTIO_CONSOLE_CONSOLE_PORT: the port is a console.
    Console,
    /// VIRTIO_CONSOLE_PORT_OPEN: the host has opened or closed it.
    Open,
    /// VIRTIO_CONSOLE_PORT_NAME.
    Name,
    /// VIRTIO_CONSOLE_RESIZE: a console has this size.
    Resize,
}

impl Event {
    fn number(self) -> u16 {
        match self {
            Event::Add => 1,
            Event::Remove => 2,
            Event::Console => 4,
            Event::Resize => 5,
            Event::Open => 6,
            Event::Name => 7,
        }
    }
}

/// A message to the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) port: u32,
    pub(super) event: Event,
    pub(super) value: u16,
    /// The text of [`Event::Name`].
    #[serde(default)]
    pub(super) text: String,
    /// Columns and rows of [`Event::Resize`].
    #[serde(default)]
    pub(super) size: (u16, u16),
}

impl Message {
    pub(super) fn new(port: u32, event: Event, value: u16) -> Message {
        Message { port, event, value, text: String::new(), size: (0, 0) }
    }

    /// As the guest reads it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.port.to_le_bytes().to_vec();
        bytes.extend(self.event.number().to_le_bytes());
        bytes.extend(self.value.to_le_bytes());
        if self.event == Event::Name {
            bytes.extend(self.text.bytes());
            bytes.push(0);
        }
        if self.event == Event::Resize {
            // The specification has the columns first, but Linux, in all versions but a few, reads
            // the rows first.
            let (cols, rows) = self.size;
            bytes.extend(rows.to_le_bytes());
            bytes.extend(cols.to_le_bytes());
        }
        bytes
    }
}

/// What a guest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// VIRTIO_CONSOLE_DEVICE_READY; false: the driver has failed.
    DeviceReady(bool),
    /// VIRTIO_CONSOLE_PORT_READY, of a port; false: the driver has failed.
    PortReady(u32, bool),
    /// VIRTIO_CONSOLE_PORT_OPEN: a program of the guest has opened or closed a port.
    Open(u32, bool),
}

impl Said {
    /// Understands a message; `None` for one that a guest has no reason to send.
    pub(super) fn parse([p0, p1, p2, p3, e0, e1, v0, v1]: [u8; HEAD]) -> Option<Said> {
        let port = u32::from_le_bytes([p0, p1, p2, p3]);
        let value = u16::from_le_bytes([v0, v1]) != 0;
        match u16::from_le_bytes([e0, e1]) {
            0 => Some(Said::DeviceReady(value)),
            3 => Some(Said::PortReady(port, value)),
            6 => Some(Said::Open(port, value)),
            _ => None,
        }
    }
}

/// Messages in the order in which the guest gets them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Outbox(VecDeque<Message>);

impl Outbox {
    /// Adds a message, in place of one of its kind about the same port.
    pub(super) fn push(&mut self, message: Message) {
        self.0.retain(|old| (old.port, old.event) != (message.port, message.event));
        self.0.push_back(message);
    }

    /// A port is gone: what was to be said about it no longer is, and the guest that knows of it
    /// is told.
    pub(super) fn remove(&mut self, port: u32) {
        let of_port = |old: &Message| old.port == port;
        let known = !self.0.iter().any(|old| of_port(old) && old.event == Event::Add);
        self.0.retain(|old| !of_port(old) || old.event == Event::Remove);
        if known {
            self.push(Message::new(port, Event::Remove, 1));
        }
    }

    /// Takes the next message.
    pub(super) fn pop(&mut self) -> Option<Message> {
        self.0.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether these can be the messages about ports below `ports`, for a saved state.
    pub(super) fn fits(&self, ports: usize) -> bool {
        let known = |port| usize::try_from(port).is_ok_and(|port| port < ports);
        self.0.len() <= ports.saturating_mul(6)
            && self.0.iter().all(|message| known(message.port) && message.text.len() <= 4096)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(outbox: &mut Outbox) -> Vec<(u32, Event, u16)> {
        std::iter::from_fn(|| outbox.pop()).map(|m| (m.port, m.event, m.value)).collect()
    }

    #[test]
    fn messages_are_little_endian_and_names_end_with_a_zero() {
        let name = Message { text: "ab".to_owned(), ..Message::new(0x102, Event::Name, 1) };
        assert_eq!(name.bytes(), [2, 1, 0, 0, 7, 0, 1, 0, b'a', b'b', 0]);
        assert_eq!(Said::parse([5, 0, 0, 0, 6, 0, 1, 0]), Some(Said::Open(5, true)));
        assert_eq!(Said::parse([5, 0, 0, 0, 1, 0, 1, 0]), None);
    }

    #[test]
    fn a_port_that_comes_and_goes_unseen_is_not_told_of() {
        let mut outbox = Outbox::default();
        outbox.push(Message::new(1, Event::Add, 1));
        outbox.push(Message::new(2, Event::Add, 1));
        outbox.remove(1);
        assert_eq!(drain(&mut outbox), [(2, Event::Add, 1)]);
        outbox.push(Message::new(2, Event::Open, 1));
        outbox.remove(2);
        outbox.push(Message::new(2, Event::Add, 1));
        outbox.remove(2);
        assert_eq!(drain(&mut outbox), [(2, Event::Remove, 1)]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut outbox = Outbox::default();
        for round in 0..1000 {
            outbox.push(Message::new(1, Event::Open, round & 1));
        }
        assert_eq!(drain(&mut outbox), [(1, Event::Open, 1)]);
    }
}
