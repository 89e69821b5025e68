//! The ports of a virtio-serial device, as the device, its queues and the ports' devices share
//! them.
//!
//! Any thread. Lock: one around the conversation with the guest's driver, then that of a place. A
//! hostile guest reaches [`SerialBus::hear`] with any message about any port.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use resources::class::CreateError;
use resources::guest_error;
use resources::iol::Notify;
use resources::request::{Request, Requests};
use resources::state::{StateError, invalid};
use serde::{Deserialize, Serialize};

use super::control::{Event, Message, Outbox, Said};
use super::slot::{Plug, Slot};
use crate::chardev::{CharEvent, CharFrontend};
use crate::virtio::ConfigIrq;

/// The name of its type.
pub(super) const KIND: &str = "virtio-serial-bus";

/// The conversation with the driver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Control {
    /// The driver wants to hear of ports.
    ready: bool,
    outbox: Outbox,
}

#[cfg(test)]
impl Control {
    pub(super) fn push(&mut self, message: Message) {
        self.outbox.push(message);
    }
}

/// See the module's description.
pub struct SerialBus {
    path: String,
    slots: Vec<Arc<Slot>>,
    control: Mutex<Control>,
    /// There is a message for the guest.
    pub(super) outgoing: Notify,
    requests: Requests,
    /// The driver that wants to know how large consoles are (VIRTIO_CONSOLE_F_SIZE).
    sizes: Mutex<Option<ConfigIrq>>,
    /// The driver may know the size of a terminal elsewhere: it was loaded.
    moved: AtomicBool,
    /// Ports that were opened or closed since clients were last told, by id: one entry each.
    changes: Mutex<BTreeMap<String, bool>>,
}

impl SerialBus {
    /// A bus of the device at `path` with places for `ports`, and none taken.
    pub(super) fn new(path: String, ports: usize, requests: Requests) -> Arc<SerialBus> {
        Arc::new(SerialBus {
            path,
            slots: (0..ports).map(|_| Arc::default()).collect(),
            control: Mutex::default(),
            outgoing: Notify::new(),
            requests,
            sizes: Mutex::default(),
            moved: AtomicBool::new(false),
            changes: Mutex::default(),
        })
    }

    /// The ports that programs of the guest have opened or closed since the last call, by id, and
    /// whether they are open now. [`Request::PortChanged`] says that there are some.
    pub fn take_changes(&self) -> BTreeMap<String, bool> {
        std::mem::take(&mut *self.changes.lock())
    }

    /// How many places there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn slot(&self, number: u32) -> Option<&Arc<Slot>> {
        self.slots.get(usize::try_from(number).ok()?)
    }

    /// The number of a new port: the one asked for, or the first that is free. Number 0 is for a
    /// console, because a driver that knows only one port takes it for that.
    pub(super) fn choose(&self, wanted: Option<u32>, console: bool) -> Result<u32, CreateError> {
        let refuse = |why: String| Err(CreateError::Other(format!("virtio-serial-bus: {why}")));
        let Some(number) = wanted else {
            let numbered = (0_u32..).zip(&self.slots);
            let mut free = numbered.filter(|(n, slot)| !slot.is_used() && (console || *n != 0));
            return match free.next() {
                Some((number, _)) => Ok(number),
                None => refuse("Maximum port limit for this device reached".to_owned()),
            };
        };
        if number == 0 && !console {
            return refuse(
                "Port number 0 on virtio-serial devices reserved for virtconsole devices for \
                 backward compatibility."
                    .to_owned(),
            );
        }
        match self.slot(number) {
            None => {
                let most = self.len().saturating_sub(1);
                refuse(format!("Out-of-range port id specified, max. allowed: {most}"))
            }
            Some(slot) if slot.is_used() => refuse(format!("A port already exists at id {number}")),
            Some(_) => Ok(number),
        }
    }

    /// Puts a port into a place that is free, and tells the guest.
    pub(super) fn plug(self: &Arc<Self>, number: u32, plug: Plug) -> Result<(), CreateError> {
        let Some(slot) = self.slot(number) else { return Ok(()) };
        let chardev = plug.chardev.clone();
        slot.plug(plug);
        if let Some(chardev) = chardev {
            let front = Front { bus: Arc::downgrade(self), number };
            if let Err(error) = chardev.attach(Arc::new(front)) {
                slot.unplug();
                return Err(CreateError::Other(error.to_string()));
            }
        }
        let mut control = self.control.lock();
        if control.ready {
            self.say(&mut control, Message::new(number, Event::Add, 1));
        }
        Ok(())
    }

    /// A port goes.
    pub(super) fn unplug(&self, number: u32) {
        let Some(plug) = self.slot(number).and_then(|slot| slot.unplug()) else { return };
        if let Some(chardev) = &plug.chardev {
            chardev.detach();
        }
        let mut control = self.control.lock();
        if control.ready {
            control.outbox.remove(number);
            self.outgoing.notify();
        }
    }

    fn say(&self, control: &mut Control, message: Message) {
        control.outbox.push(message);
        self.outgoing.notify();
    }

    /// The next message to the guest.
    pub(super) fn next_message(&self) -> Option<Message> {
        self.control.lock().outbox.pop()
    }

    pub(super) fn has_message(&self) -> bool {
        !self.control.lock().outbox.is_empty()
    }

    /// The guest says something.
    pub(super) fn hear(&self, said: Said) {
        let mut control = self.control.lock();
        let (number, value) = match said {
            Said::DeviceReady(false) => return guest_error!(&self.path, "the driver has failed"),
            Said::DeviceReady(true) => {
                control.ready = true;
                for (number, slot) in (0..).zip(&self.slots) {
                    if slot.is_used() {
                        self.say(&mut control, Message::new(number, Event::Add, 1));
                    }
                }
                return;
            }
            Said::PortReady(number, value) | Said::Open(number, value) => (number, value),
        };
        let found = self.slot(number).and_then(|slot| Some((slot, slot.plugged()?)));
        let Some((slot, plug)) = found else {
            return guest_error!(&self.path, "a message about port {number}, which is not there");
        };
        match said {
            Said::Open(..) => {
                drop(control);
                if slot.set_guest_open(value) {
                    self.tell_change(&plug, value);
                }
            }
            _ if !value => guest_error!(&self.path, "the driver has failed for port {number}"),
            _ => {
                slot.set_known();
                if plug.console {
                    self.say(&mut control, Message::new(number, Event::Console, 1));
                }
                if let Some(text) = plug.name {
                    let name = Message { text, ..Message::new(number, Event::Name, 1) };
                    self.say(&mut control, name);
                }
                self.tell_open(&mut control, number, slot);
                self.tell_size(&mut control, number, slot);
            }
        }
    }

    /// Clients are told of programs that open and close a port with an id, but not of consoles.
    fn tell_change(&self, plug: &Plug, open: bool) {
        if let Some(id) = plug.id.as_deref().filter(|_| !plug.console) {
            self.changes.lock().insert(id.to_owned(), open);
            self.requests.request(Request::PortChanged);
        }
    }

    /// Tells the guest whether the host has a port open, if that has changed.
    fn tell_open(&self, control: &mut Control, number: u32, slot: &Slot) {
        if let Some(open) = slot.untold_open() {
            self.say(control, Message::new(number, Event::Open, open.into()));
        }
    }

    /// Tells the guest how large a console is, if it wants to know and that has changed.
    fn tell_size(&self, control: &mut Control, number: u32, slot: &Slot) {
        if self.sizes.lock().is_some()
            && let Some(size) = slot.untold_size()
        {
            self.say(control, Message { size, ..Message::new(number, Event::Resize, 0) });
        }
    }

    /// Columns and rows of the first port, for the configuration.
    pub(super) fn size(&self) -> (u16, u16) {
        self.slot(0).map(|slot| slot.size()).unwrap_or_default()
    }

    /// The chardev of a port may be a terminal of another size now.
    fn measure(&self, number: u32, slot: &Slot) {
        if !slot.measure() {
            return;
        }
        {
            let mut control = self.control.lock();
            self.tell_size(&mut control, number, slot);
        }
        let driver = self.sizes.lock().clone();
        if let Some(driver) = driver.filter(|_| number == 0) {
            driver.changed();
        }
    }

    /// The driver is served from now on. Without `multiport` there is only port 0, which is open
    /// without a word. `sizes`: who is to be told of the size of that, and wants to know of others.
    pub(super) fn start(&self, multiport: bool, sizes: Option<ConfigIrq>) {
        let moved = self.moved.swap(false, Ordering::Relaxed);
        if let Some(driver) = sizes.as_ref().filter(|_| moved) {
            driver.changed();
        }
        *self.sizes.lock() = sizes;
        if multiport {
            let mut control = self.control.lock();
            for (number, slot) in (0..).zip(&self.slots) {
                self.tell_open(&mut control, number, slot);
                self.tell_size(&mut control, number, slot);
            }
        } else if let Some(slot) = self.slot(0) {
            slot.set_guest_open(true);
        }
        self.slots.iter().for_each(|slot| slot.set_running(true));
    }

    /// The driver is no longer served: no input is taken.
    pub(super) fn stop(&self) {
        self.slots.iter().for_each(|slot| slot.set_running(false));
    }

    /// No driver is there.
    pub(super) fn reset(&self) {
        *self.control.lock() = Control::default();
        *self.sizes.lock() = None;
        for slot in &self.slots {
            if slot.reset()
                && let Some(plug) = slot.plugged()
            {
                self.tell_change(&plug, false);
            }
        }
    }

    /// A byte for the console, without a queue.
    pub(super) fn emergency(&self, byte: u8) {
        let chardev = self.slot(0).and_then(|slot| slot.plugged()).and_then(|plug| plug.chardev);
        if let Some(chardev) = chardev {
            chardev.push(&[byte]);
        }
    }

    pub(super) fn save(&self) -> Control {
        self.control.lock().clone()
    }

    pub(super) fn load(&self, state: Control) -> Result<(), StateError> {
        if !state.outbox.fits(self.len()) {
            return Err(invalid("messages about serial ports that there are not"));
        }
        *self.control.lock() = state;
        self.moved.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// A port as its chardev's front end.
struct Front {
    bus: Weak<SerialBus>,
    number: u32,
}

impl Front {
    fn with<R: Default>(&self, work: impl FnOnce(&SerialBus, &Slot) -> R) -> R {
        let bus = self.bus.upgrade();
        let found = bus.as_ref().and_then(|bus| Some((bus, bus.slot(self.number)?)));
        found.map(|(bus, slot)| work(bus, slot)).unwrap_or_default()
    }
}

impl CharFrontend for Front {
    fn can_receive(&self) -> usize {
        self.with(|_, slot| slot.can_receive())
    }

    fn receive(&self, data: &[u8]) {
        self.with(|_, slot| slot.receive(data));
    }

    fn event(&self, event: CharEvent) {
        let open = match event {
            CharEvent::Opened => true,
            CharEvent::Closed => false,
            CharEvent::Resized => return self.with(|bus, slot| bus.measure(self.number, slot)),
            _ => return,
        };
        self.with(|bus, slot| {
            if open {
                bus.measure(self.number, slot);
            }
            let mut control = bus.control.lock();
            slot.set_host_open(open);
            bus.tell_open(&mut control, self.number, slot);
        });
    }

    fn writable(&self) {
        self.with(|_, slot| slot.room.notify());
    }
}
