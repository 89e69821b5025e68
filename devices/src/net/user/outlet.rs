//! An address inside the network that leads to a character device (`guestfwd=`).
//!
//! What the guest sends there goes to the chardev, as if one connection was there for ever; what
//! the chardev gives goes to the guest's connection, if there is one. What the library has for the
//! chardev must be taken as a whole, so that it is kept here when the peer takes no more: then the
//! stack gets no more frames of the guest ([`Outlet::is_full`]) until it does.
//!
//! Under the stack's lock, and on the chardev's loop; leaf mutexes around what waits. A guest makes
//! [`KEPT`] bytes and what the frames of one turn hold wait here, a peer [`KEPT`].

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use resources::iol::{Handle, Notify};

use super::super::options::OpenError;
use crate::chardev::{CharFrontend, Chardev, Device, Patience, parse_device};
use crate::class::FindChardev;

/// Bytes that wait on their way.
const KEPT: usize = 64 << 10;

/// See the module's description.
pub(super) struct Outlet {
    pub(super) server: Ipv4Addr,
    pub(super) port: u16,
    chardev: Arc<Chardev>,
    to_chardev: Mutex<VecDeque<u8>>,
    to_guest: Mutex<VecDeque<u8>>,
    /// There is something for the guest, or room for what it sends.
    changed: Notify,
}

impl Outlet {
    /// Opens what a rule names: a chardev that is there already (`chardev:ID`), or a new one.
    pub(super) fn open(
        (server, port, device): (Ipv4Addr, u16, &str),
        on: &Handle,
        find: Option<&FindChardev>,
        changed: &Notify,
    ) -> Result<Arc<Outlet>, OpenError> {
        let failed = |error: &dyn std::fmt::Display| {
            let text = format!("could not open guest forwarding device '{device}': {error}");
            OpenError::Failed(text)
        };
        let parsed = parse_device("guestfwd=", device, false).map_err(|error| failed(&error))?;
        let chardev = match parsed {
            Device::New { backend, monitor: false } => {
                let label = format!("guestfwd.tcp.{port}");
                Chardev::open_with(&label, backend, on, Patience::Brief)
            }
            Device::Chardev(id) => match find.and_then(|find| find(&id)) {
                Some(found) => found,
                None => return Err(failed(&"there is no such chardev")),
            },
            Device::New { .. } | Device::None => return Err(failed(&"it cannot be that")),
        };
        let chardev = chardev.map_err(|error| failed(&error))?;
        let outlet = Arc::new(Outlet {
            server,
            port,
            chardev: chardev.clone(),
            to_chardev: Mutex::default(),
            to_guest: Mutex::default(),
            changed: changed.clone(),
        });
        let front = Arc::new(Front(Arc::downgrade(&outlet)));
        chardev.attach(front).map_err(|error| failed(&error))?;
        Ok(outlet)
    }

    /// The peer takes no more than what waits for it.
    pub(super) fn is_full(&self) -> bool {
        self.to_chardev.lock().len() >= KEPT
    }

    /// Takes all that the guest has sent.
    pub(super) fn send(&self, data: &[u8]) {
        let mut waiting = self.to_chardev.lock();
        let sent = if waiting.is_empty() { self.chardev.write(data) } else { 0 };
        waiting.extend(data.get(sent..).unwrap_or_default());
    }

    /// What waits goes on, as far as the peer takes it.
    fn flush(&self) {
        let mut waiting = self.to_chardev.lock();
        while !waiting.is_empty() {
            let sent = self.chardev.write(waiting.as_slices().0);
            if sent == 0 {
                break;
            }
            waiting.drain(..sent);
        }
        drop(waiting);
        self.changed.notify();
    }

    /// Gives up to `room` bytes for the guest.
    pub(super) fn receive(&self, room: usize) -> Vec<u8> {
        let data: Vec<u8> = {
            let mut waiting = self.to_guest.lock();
            let len = waiting.len().min(room);
            waiting.drain(..len).collect()
        };
        if !data.is_empty() {
            self.chardev.accept_input();
        }
        data
    }

    /// Whether something waits for the guest.
    pub(super) fn has_input(&self) -> bool {
        !self.to_guest.lock().is_empty()
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.chardev.detach();
    }
}

/// The front end of the chardev.
struct Front(Weak<Outlet>);

impl CharFrontend for Front {
    fn can_receive(&self) -> usize {
        let Some(outlet) = self.0.upgrade() else { return 0 };
        KEPT.saturating_sub(outlet.to_guest.lock().len())
    }

    fn receive(&self, data: &[u8]) {
        let Some(outlet) = self.0.upgrade() else { return };
        outlet.to_guest.lock().extend(data);
        outlet.changed.notify();
    }

    fn writable(&self) {
        if let Some(outlet) = self.0.upgrade() {
            outlet.flush();
        }
    }
}
