//! How a function interrupts: by messages (MSI-X, MSI) or by its interrupt pin.
//!
//! A device signals from any thread, without its function's mutex. Sending a message is a write
//! to an eventfd; while the message is masked it stays there and is sent on unmasking, so that the
//! eventfds themselves are the pending bits. The pin's state has a lock of its own, a leaf but for
//! the interrupt controller's.
//!
//! A hostile guest can mask, unmask and misdirect its own functions' interrupts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;
use resources::guest_error;
use resources::hv::HvError;
use resources::irq::{Msi, MsiMessage, Routes};
use vmm_sys_util::eventfd::EventFd;

use super::bus::Pin;

/// A function's interrupts.
pub struct Interrupt {
    messages: Vec<Msi>,
    routes: Option<Arc<Routes>>,
    /// Messages are switched on.
    enabled: AtomicBool,
    /// How many of the messages the guest lets the function use, a power of two; only MSI has
    /// this.
    granted: AtomicU32,
    pin: Mutex<PinState>,
}

#[derive(Default)]
struct PinState {
    /// None of a function without a pin.
    pin: Option<Pin>,
    /// The device wants an interrupt.
    asserted: bool,
    /// The guest has not switched the pin off.
    allowed: bool,
}

impl Interrupt {
    /// With `count` messages, all masked.
    pub(super) fn new(
        routes: &Arc<Routes>,
        count: u16,
        pin: Option<Pin>,
    ) -> Result<Arc<Interrupt>, HvError> {
        let messages = (0..count).map(|_| routes.msi()).collect::<Result<Vec<_>, _>>()?;
        Ok(Arc::new(Interrupt {
            routes: (count > 0).then(|| routes.clone()),
            messages,
            enabled: AtomicBool::new(false),
            granted: AtomicU32::new(u32::MAX),
            pin: Mutex::new(PinState { pin, asserted: false, allowed: true }),
        }))
    }

    /// Whether the guest has switched messages on (MSI-X or MSI); the pin is silent then.
    pub fn messages_enabled(&self) -> bool {
        self.enabled.load(Ordering::Acquire)
    }

    /// As [`messages_enabled`](Self::messages_enabled), by the name of the usual kind.
    pub fn msix_enabled(&self) -> bool {
        self.messages_enabled()
    }

    /// How many messages there are.
    pub fn messages(&self) -> u16 {
        u16::try_from(self.messages.len()).unwrap_or(u16::MAX)
    }

    /// Sends message `vector`; nothing while messages are off or if there is none of that number.
    pub fn message(&self, vector: u16) {
        if self.messages_enabled()
            && let Some(message) = self.find(vector)
        {
            message.signal();
        }
    }

    fn find(&self, vector: u16) -> Option<&Msi> {
        let granted = self.granted.load(Ordering::Relaxed);
        let vector = match u32::from(vector) {
            vector if vector < granted => vector,
            vector => vector & granted.saturating_sub(1),
        };
        self.messages.get(usize::try_from(vector).ok()?)
    }

    /// The eventfd that sends message `vector`, for kernel and out-of-process back ends.
    pub fn message_fd(&self, vector: u16) -> Option<&EventFd> {
        self.messages.get(usize::from(vector)).map(Msi::fd)
    }

    /// Asserts the interrupt pin or lets go of it. The pin follows unless messages are on or the
    /// guest has switched it off.
    pub fn set_intx(&self, high: bool) {
        self.pin.lock().change(|state| state.asserted = high, true);
    }

    /// Whether the device asserts its pin.
    pub fn intx(&self) -> bool {
        self.pin.lock().asserted
    }

    /// The guest lets the pin work, and messages are on or off.
    pub(super) fn configure(&self, messages: bool, granted: u32, pin: bool) {
        self.granted.store(granted, Ordering::Relaxed);
        self.enabled.store(messages, Ordering::Release);
        self.pin.lock().change(|state| state.allowed = pin && !messages, true);
    }

    /// On load: the pin's state, without an edge.
    pub(super) fn import(&self, asserted: bool, allowed: bool) {
        let change = |state: &mut PinState| (state.asserted, state.allowed) = (asserted, allowed);
        self.pin.lock().change(change, false);
    }

    /// Sets messages by their numbers; those that are `None` are masked.
    pub(super) fn set_messages(&self, changes: &[(u16, Option<MsiMessage>)]) {
        let changes: Vec<_> = changes
            .iter()
            .filter_map(|(vector, message)| {
                Some((self.messages.get(usize::from(*vector))?, *message))
            })
            .collect();
        if let Some(routes) = self.routes.as_ref().filter(|_| !changes.is_empty())
            && let Err(error) = routes.update(&changes)
        {
            guest_error!("pci", "cannot change an interrupt's message: {error}");
        }
    }

    /// Which of 64 messages from `first` on were signalled and not sent. Only the `masked` are
    /// looked at: nobody else reads their eventfds.
    pub(super) fn pending(&self, first: u16, masked: u64) -> u64 {
        let messages = self.messages.iter().skip(first.into()).take(64).enumerate();
        let waits = |message: &Msi| match message.fd().read() {
            Ok(count) => message.fd().write(count).is_ok(),
            Err(_) => false,
        };
        messages
            .filter(|(bit, message)| masked >> bit & 1 != 0 && waits(message))
            .fold(0, |bits, (bit, _)| bits | 1 << bit)
    }

    /// Signals a message that was pending when it was saved.
    pub(super) fn set_pending(&self, vector: u16) {
        if let Some(message) = self.messages.get(usize::from(vector)) {
            message.signal();
        }
    }

    /// Forgets what is pending; everything is masked.
    pub(super) fn clear_pending(&self) {
        for message in &self.messages {
            // Fails if there is nothing to forget.
            let _ = message.fd().read();
        }
    }

    /// The function is gone: nothing that still has this can interrupt.
    pub(super) fn detach(&self) {
        self.enabled.store(false, Ordering::Release);
        let all: Vec<_> = (0..self.messages()).map(|vector| (vector, None)).collect();
        self.set_messages(&all);
        let mut state = self.pin.lock();
        state.change(|state| state.asserted = false, true);
        state.pin = None;
    }
}

impl PinState {
    fn change(&mut self, change: impl FnOnce(&mut PinState), edge: bool) {
        change(self);
        let level = self.asserted && self.allowed;
        if let Some(pin) = &mut self.pin {
            pin.set(level, edge);
        }
    }
}
