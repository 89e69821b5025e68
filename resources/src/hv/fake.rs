//! A hypervisor that records what it is asked. It runs nothing.
//!
//! Used by unit tests and by the machine under the debug port. Callable from any thread; its lock
//! is a leaf. Nothing hostile reaches it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use vmm_sys_util::eventfd::EventFd;

use super::{Doorbell, HvError, Hypervisor, Route, Slot};

/// A recorded call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the call")]
pub enum Call {
    Slot { id: u32, guest: u64, size: u64, offset: u64, readonly: bool, log: bool },
    Doorbell(Doorbell, bool),
    Irqfd(u32, bool),
    Routes(Vec<Route>),
    Line(u32, bool),
    TakeDirty(u32),
    Watch(u32, Range<u64>),
}

type Watch = Box<dyn Fn(u32, bool) + Send + Sync>;

type Refuse = Box<dyn Fn(&Call) -> bool + Send + Sync>;

/// The fake.
#[derive(Default)]
pub struct Fake {
    state: Mutex<State>,
    watch: Mutex<Option<Watch>>,
    refuse: Mutex<Option<Refuse>>,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    /// Off outside tests: a machine that runs for long must not collect calls.
    recording: bool,
    lines: BTreeMap<u32, bool>,
    dirty: BTreeMap<u32, Vec<u64>>,
}

impl Fake {
    /// A fake that records.
    pub fn new() -> Arc<Fake> {
        let fake = Fake::default();
        fake.state.lock().recording = true;
        Arc::new(fake)
    }

    /// A fake that keeps levels but no list of calls.
    pub fn unrecorded() -> Arc<Fake> {
        Arc::default()
    }

    /// The calls since the last time, oldest first.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state.lock().calls)
    }

    /// The level of a wired interrupt.
    pub fn line(&self, gsi: u32) -> bool {
        self.state.lock().lines.get(&gsi).copied().unwrap_or(false)
    }

    /// Has `watch` called at each change of a wired interrupt's level.
    pub fn watch_lines(&self, watch: impl Fn(u32, bool) + Send + Sync + 'static) {
        *self.watch.lock() = Some(Box::new(watch));
    }

    /// Fails the calls that `refuse` picks from now on, which are recorded all the same.
    pub fn refuse(&self, refuse: impl Fn(&Call) -> bool + Send + Sync + 'static) {
        *self.refuse.lock() = Some(Box::new(refuse));
    }

    /// Pretends that the guest wrote page `page` of a slot.
    pub fn dirty(&self, slot: u32, page: usize) {
        let mut state = self.state.lock();
        let words = state.dirty.entry(slot).or_default();
        if words.len() <= page / 64 {
            words.resize(page / 64 + 1, 0);
        }
        words[page / 64] |= 1 << (page % 64);
    }

    fn record(&self, call: Call) -> Result<(), HvError> {
        let refused = self.refuse.lock().as_ref().is_some_and(|refuse| refuse(&call));
        let done = match refused {
            true => Err(HvError::new(format!("do {call:?}"), std::io::ErrorKind::Other)),
            false => Ok(()),
        };
        let mut state = self.state.lock();
        if state.recording {
            state.calls.push(call);
        }
        done
    }
}

impl Hypervisor for Fake {
    fn set_slot(&self, slot: &Slot) -> Result<(), HvError> {
        let Slot { id, guest, size, offset, readonly, log, .. } = *slot;
        self.record(Call::Slot { id, guest, size, offset, readonly, log })
    }

    fn doorbell(&self, at: &Doorbell, _: &EventFd, on: bool) -> Result<(), HvError> {
        self.record(Call::Doorbell(*at, on))
    }

    fn irqfd(&self, gsi: u32, fd: &EventFd, _: Option<&EventFd>, on: bool) -> Result<(), HvError> {
        if !on {
            // As KVM does: what was signalled until now is sent, not kept.
            let _ = fd.read();
        }
        self.record(Call::Irqfd(gsi, on))
    }

    fn set_routes(&self, all: &[Route]) -> Result<(), HvError> {
        self.record(Call::Routes(all.to_vec()))
    }

    fn set_line(&self, gsi: u32, high: bool) -> Result<(), HvError> {
        let before = self.state.lock().lines.insert(gsi, high).unwrap_or(false);
        self.record(Call::Line(gsi, high))?;
        if before != high
            && let Some(watch) = &*self.watch.lock()
        {
            watch(gsi, high);
        }
        Ok(())
    }

    fn watch(&self, slot: u32, pages: Range<u64>) -> Result<(), HvError> {
        self.record(Call::Watch(slot, pages))
    }

    fn take_dirty(&self, slot: u32, into: &mut [u64]) -> Result<(), HvError> {
        self.record(Call::TakeDirty(slot))?;
        let taken = self.state.lock().dirty.remove(&slot).unwrap_or_default();
        into.iter_mut().zip(taken).for_each(|(word, taken)| *word |= taken);
        Ok(())
    }
}
