//! What the device, its queues and commands share of a card.
//!
//! Any thread. Lock: one leaf mutex around the state; the interrupt for the configuration and the
//! mailbox are called without it.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use resources::request::{Request, Requests};
use resources::state::bytes;
use serde::{Deserialize, Serialize};

use super::features::Features;
use super::filter::Filter;
use super::outgoing::OutgoingState;
use crate::net::{self, Mac};
use crate::virtio::ConfigIrq;

/// How often a driver is asked to announce the guest's addresses.
pub(super) const ANNOUNCEMENTS: u8 = 5;

/// A frame of an impossible length cannot be here, so this is bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Waiting {
    /// Received, with its header, when the driver had no buffers.
    #[serde(with = "bytes")]
    pub(super) received: Vec<u8>,
    /// Taken from the driver, not yet taken by the back end.
    pub(super) outgoing: Option<OutgoingState>,
}

/// What a driver has brought a card to. It is also the saved state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    /// What passes.
    pub(super) filter: Filter,
    /// How many pairs of queues are used.
    pub(super) pairs: u16,
    /// The offloads towards the guest, once the control queue has set them: feature bits.
    pub(super) offloads: Option<u64>,
    /// How often the driver is still to be asked for an announcement; if not 0, it is asked now.
    pub(super) announcements: u8,
    /// What is under way, for each pair of queues.
    pub(super) waiting: Vec<Waiting>,
    /// Whether the guest saw a link; only in a saved state, and in older ones not.
    pub(super) link: Option<bool>,
}

impl Default for State {
    fn default() -> State {
        State::new(Mac::default())
    }
}

impl State {
    /// That of a card that no driver has used.
    pub(super) fn new(mac: Mac) -> State {
        State {
            filter: Filter::new(mac.0),
            pairs: 1,
            offloads: None,
            announcements: 0,
            waiting: Vec::new(),
            link: None,
        }
    }
}

/// See the module's description.
pub(super) struct Card {
    path: String,
    requests: Requests,
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    /// While a driver uses the card: what it accepted, and how it is told of changes.
    driver: Option<(Features, ConfigIrq)>,
    /// Nobody has asked for the filter since a change of it was told.
    muted: bool,
    /// A change is to be told.
    changed: bool,
    /// The guest has come from elsewhere, and its network does not know it yet.
    came: bool,
}

impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Card({})", self.path)
    }
}

impl Card {
    /// The card at a place in the tree of objects. Its address comes later.
    pub(super) fn new(path: String, requests: Requests) -> Arc<Card> {
        let state = State::default();
        let inner = Inner { state, driver: None, muted: false, changed: false, came: false };
        Arc::new(Card { path, requests, inner: Mutex::new(inner) })
    }

    /// Looks at the state, or changes what nobody has to be told of.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        work(&mut self.inner.lock().state)
    }

    /// Changes the filter, and tells clients so unless they have not asked since the last time.
    pub(super) fn change_filter(&self, change: impl FnOnce(&mut Filter)) {
        let tell = {
            let mut inner = self.inner.lock();
            change(&mut inner.state.filter);
            let tell = !inner.muted;
            inner.muted = true;
            inner.changed |= tell;
            tell
        };
        if tell {
            self.requests.request(Request::RxFilterChanged);
        }
    }

    /// A driver uses the card now, or no longer does.
    pub(super) fn set_driver(&self, driver: Option<(Features, ConfigIrq)>) {
        self.inner.lock().driver = driver;
    }

    /// The guest has come from elsewhere: its network is told when the card is served.
    pub(super) fn has_come(&self) {
        self.inner.lock().came = true;
    }

    /// Whether it has, and the network was not told yet.
    pub(super) fn came(&self) -> bool {
        self.inner.lock().came
    }

    /// The network was told.
    pub(super) fn is_known(&self) {
        self.inner.lock().came = false;
    }

    /// Asks the driver to announce the guest's addresses, if it can; `rounds` times, from now on.
    pub(super) fn announce(&self, rounds: u8) {
        let config = {
            let mut inner = self.inner.lock();
            let Some((features, config)) = inner.driver.clone() else { return };
            if !features.contains(Features::GUEST_ANNOUNCE) {
                return;
            }
            inner.state.announcements = rounds;
            config
        };
        if rounds > 0 {
            config.changed();
        }
    }
}

impl net::Nic for Card {
    fn link_changed(&self, _: bool) {
        let driver = self.inner.lock().driver.clone();
        if let Some((features, config)) = driver
            && features.contains(Features::STATUS)
        {
            config.changed();
        }
    }

    fn rx_filter(&self) -> Option<Filter> {
        let mut inner = self.inner.lock();
        (inner.muted, inner.changed) = (false, false);
        Some(inner.state.filter.clone())
    }

    fn take_filter_change(&self) -> Option<String> {
        std::mem::take(&mut self.inner.lock().changed).then(|| self.path.clone())
    }
}
