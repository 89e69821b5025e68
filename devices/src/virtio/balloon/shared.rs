//! What the machine, the device and its tasks know of a balloon.
//!
//! Any thread. Lock: one leaf mutex each for balloon and slot; interrupts and requests are made
//! without them. A hostile guest chooses the size it tells and the statistics; both are only told
//! to clients.

use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use resources::iol::Notify;
use resources::props::Value;
use resources::ram::GuestMemory;
use resources::request::{Request, Requests};
use serde::{Deserialize, Serialize};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::hints::{Hints, Pieces};
use crate::virtio::ConfigIrq;

/// Bytes of a page of a balloon, whatever the guest's pages are.
pub(super) const PAGE: u64 = 4096;

/// The names of the statistics by their tags (section 5.5.6.4).
pub(super) const STATS: [&str; 10] = [
    "stat-swap-in",
    "stat-swap-out",
    "stat-major-faults",
    "stat-minor-faults",
    "stat-free-memory",
    "stat-total-memory",
    "stat-available-memory",
    "stat-disk-caches",
    "stat-htlb-pgalloc",
    "stat-htlb-pgfail",
];

/// The place for the one balloon that a machine can have.
#[derive(Default)]
pub struct Slot(Mutex<Weak<Balloon>>);

impl Slot {
    /// The balloon, if there is one.
    pub fn get(&self) -> Option<Arc<Balloon>> {
        self.0.lock().upgrade()
    }

    /// Takes the place, if it is free.
    pub(super) fn claim(&self, balloon: &Arc<Balloon>) -> bool {
        let mut place = self.0.lock();
        let free = place.upgrade().is_none();
        if free {
            *place = Arc::downgrade(balloon);
        }
        free
    }

    /// Leaves the place, if it is this one's.
    pub(super) fn release(&self, balloon: &Arc<Balloon>) {
        let mut place = self.0.lock();
        if std::ptr::eq(place.as_ptr(), Arc::as_ptr(balloon)) {
            *place = Weak::new();
        }
    }
}

/// What is saved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    /// Pages that should be in the balloon.
    target: u32,
    /// Pages that the driver says are in it.
    actual: u32,
    /// What the guest's free pages hold.
    poison: u32,
    /// Seconds between two questions for statistics; 0 for none.
    interval: u64,
    /// The latest statistics by tag.
    stats: Vec<Option<u64>>,
    /// Seconds since 1970 when they came; 0 for never.
    updated: u64,
}

/// A balloon, for the rest of the machine.
pub struct Balloon {
    /// Pages of RAM.
    pages: u64,
    requests: Requests,
    inner: Mutex<Inner>,
    /// The interval was changed.
    pub(super) interval_changed: Notify,
}

#[derive(Default)]
struct Inner {
    state: State,
    driver: Option<ConfigIrq>,
    /// It can name pages that need not be moved.
    can_hint: bool,
    hints: Hints,
}

impl Balloon {
    pub(super) fn new(ram: &GuestMemory, requests: Requests) -> Arc<Balloon> {
        let pages = ram.iter().fold(0_u64, |sum, region| sum.saturating_add(region.len())) / PAGE;
        let inner = Mutex::default();
        Arc::new(Balloon { pages, requests, inner, interval_changed: Notify::new() })
    }

    /// Asks the guest to make do with this many bytes. More than it has means all of them.
    pub fn set_target(&self, bytes: u64) {
        let pages = self.pages.saturating_sub(bytes / PAGE);
        let driver = {
            let mut inner = self.inner.lock();
            inner.state.target = u32::try_from(pages).unwrap_or(u32::MAX);
            inner.driver.clone()
        };
        if let Some(driver) = driver {
            driver.changed();
        }
    }

    /// How many bytes the guest has left, by what its driver says.
    pub fn actual(&self) -> u64 {
        let actual = u64::from(self.inner.lock().state.actual);
        self.pages.saturating_sub(actual).saturating_mul(PAGE)
    }

    pub(super) fn set_actual(&self, pages: u32) {
        let changed = std::mem::replace(&mut self.inner.lock().state.actual, pages) != pages;
        if changed {
            self.requests.request(Request::BalloonChange(self.actual()));
        }
    }

    pub(super) fn set_poison(&self, poison: u32) {
        self.inner.lock().state.poison = poison;
    }

    /// Pages wanted, pages in it, what free pages hold.
    pub(super) fn registers(&self) -> (u32, u32, u32) {
        let inner = self.inner.lock();
        (inner.state.target, inner.state.actual, inner.state.poison)
    }

    /// Who is to be told of a new target, and whether it can name pages that need not be moved.
    pub(super) fn set_driver(&self, driver: ConfigIrq, can_hint: bool) {
        let mut inner = self.inner.lock();
        (inner.driver, inner.can_hint) = (Some(driver), can_hint);
    }

    /// What the driver reads of the round of hints.
    pub(super) fn hint_id(&self) -> u32 {
        self.inner.lock().hints.id()
    }

    /// The driver says of which round its hints are, and names memory.
    pub(super) fn hear_hints(&self, id: Option<u32>, pieces: impl Iterator<Item = (u64, u64)>) {
        let mut inner = self.inner.lock();
        if let Some(id) = id {
            inner.hints.hear(id);
        }
        pieces.for_each(|(address, len)| inner.hints.free(address, len));
    }

    /// Whether the guest can name memory that it does not use.
    pub fn can_hint(&self) -> bool {
        self.inner.lock().can_hint
    }

    /// Asks the guest to name memory that it does not use, if it can. What was written to that
    /// before this call may be forgotten, if what is written after it is noted.
    pub fn begin_hints(&self) {
        let driver = {
            let mut inner = self.inner.lock();
            if !inner.can_hint {
                return;
            }
            inner.hints.begin();
            inner.driver.clone()
        };
        if let Some(driver) = driver {
            driver.changed();
        }
    }

    /// What the guest has named since it was asked to or this was called last: addresses and
    /// lengths, any that it likes.
    pub fn take_hints(&self) -> Vec<(u64, u64)> {
        self.inner.lock().hints.take()
    }

    /// As [`take_hints`](Self::take_hints), the last time: what the guest names from now on is not
    /// heard. It keeps what it has named for another [`begin_hints`](Self::begin_hints); with `done`
    /// it uses that again.
    pub fn end_hints(&self, done: bool) -> Vec<(u64, u64)> {
        let (driver, taken) = {
            let mut inner = self.inner.lock();
            let taken: Pieces = inner.hints.take();
            let news = inner.hints.end(done);
            (inner.driver.clone().filter(|_| news), taken)
        };
        if let Some(driver) = driver {
            driver.changed();
        }
        taken
    }

    /// A new driver begins with nothing in the balloon; what is wanted of it stays.
    pub(super) fn reset(&self) {
        let mut inner = self.inner.lock();
        let State { target, interval, .. } = inner.state;
        inner.state = State { target, interval, ..State::default() };
        (inner.driver, inner.can_hint) = (None, false);
        inner.hints.reset();
    }

    pub(super) fn state(&self) -> State {
        self.inner.lock().state.clone()
    }

    pub(super) fn load(&self, mut state: State) {
        state.stats.truncate(STATS.len());
        {
            let mut inner = self.inner.lock();
            inner.state = state;
            inner.hints.reset();
        }
        self.interval_changed.notify();
    }

    /// Seconds between two questions for statistics; 0 for none.
    pub(super) fn interval(&self) -> u64 {
        self.inner.lock().state.interval
    }

    pub(super) fn set_interval(&self, seconds: u64) {
        let old = std::mem::replace(&mut self.inner.lock().state.interval, seconds);
        if old != seconds {
            self.interval_changed.notify();
        }
    }

    /// Takes over what the guest has told: tags and values.
    pub(super) fn set_stats(&self, told: impl Iterator<Item = (u16, u64)>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut stats = vec![None; STATS.len()];
        for (tag, value) in told {
            if let Some(place) = stats.get_mut(usize::from(tag)) {
                *place = Some(value);
            }
        }
        let mut inner = self.inner.lock();
        (inner.state.stats, inner.state.updated) = (stats, now.as_secs());
    }

    /// The statistics as clients see them; -1 for what was not told.
    pub(super) fn stats(&self) -> Value {
        let inner = self.inner.lock();
        let told = |tag: usize| inner.state.stats.get(tag).copied().flatten();
        let value = |tag| Value::Int(told(tag).map_or(-1, |told| told.try_into().unwrap_or(-1)));
        let stats = STATS.iter().enumerate().map(|(tag, name)| (*name, value(tag))).collect();
        Value::Struct(vec![
            ("last-update", Value::Uint(inner.state.updated)),
            ("stats", Value::Struct(stats)),
        ])
    }
}
