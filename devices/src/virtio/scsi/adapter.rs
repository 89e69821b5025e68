//! What the adapter's device, its queues and its bus share: sizes that the driver chose, and
//! events that wait for the driver to take them.
//!
//! Any thread. Lock: a leaf mutex around the events. A guest that takes none makes no more than
//! [`MOST`] wait; it is then told that some were lost.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use resources::iol::Notify;
use serde::{Deserialize, Serialize};

use crate::scsi::{Adapter, Place};

/// Bytes of an event.
pub(super) const EVENT_LEN: usize = 16;
/// The most events that wait.
const MOST: usize = 64;

/// VIRTIO_SCSI_F_HOTPLUG.
pub(super) const HOTPLUG: u64 = 1 << 1;
/// VIRTIO_SCSI_F_CHANGE.
pub(super) const CHANGE: u64 = 1 << 2;

/// Kinds of events and why, of a transport reset.
const TRANSPORT_RESET: u32 = 1;
const PARAM_CHANGE: u32 = 3;
const MISSED: u32 = 0x8000_0000;
const RESCAN: u32 = 1;
const REMOVED: u32 = 2;

/// The default sizes of a command and of sense data, in bytes.
pub(super) const CDB_SIZE: u32 = 32;
pub(super) const SENSE_SIZE: u32 = 96;
/// The largest sizes that a driver can choose.
const MAX_SIZE: u32 = 255;

/// The sizes of a command and of sense data in a request, which the driver may choose.
pub(super) struct Sizes {
    cdb: AtomicU32,
    sense: AtomicU32,
}

impl Sizes {
    pub(super) fn new() -> Sizes {
        Sizes { cdb: AtomicU32::new(CDB_SIZE), sense: AtomicU32::new(SENSE_SIZE) }
    }

    /// Command, sense.
    pub(super) fn get(&self) -> (u32, u32) {
        (self.cdb.load(Ordering::Relaxed), self.sense.load(Ordering::Relaxed))
    }

    /// False, and nothing happens, if a request cannot be like that.
    pub(super) fn set(&self, cdb: Option<u32>, sense: Option<u32>) -> bool {
        if cdb.is_some_and(|cdb| !(1..=MAX_SIZE).contains(&cdb))
            || sense.is_some_and(|sense| sense > MAX_SIZE)
        {
            return false;
        }
        if let Some(cdb) = cdb {
            self.cdb.store(cdb, Ordering::Relaxed);
        }
        if let Some(sense) = sense {
            self.sense.store(sense, Ordering::Relaxed);
        }
        true
    }
}

/// An event for the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Event {
    kind: u32,
    target: u8,
    lun: u16,
    reason: u32,
}

impl Event {
    /// As the driver reads it.
    fn bytes(self, missed: bool) -> [u8; EVENT_LEN] {
        let [k0, k1, k2, k3] = (self.kind | if missed { MISSED } else { 0 }).to_le_bytes();
        let [high, low] = self.lun.to_be_bytes();
        let [r0, r1, r2, r3] = self.reason.to_le_bytes();
        // A flat address.
        let high = high & 0x3f | 0x40;
        [k0, k1, k2, k3, 1, self.target, high, low, 0, 0, 0, 0, r0, r1, r2, r3]
    }
}

/// What waits for the driver, and is saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Waiting {
    events: VecDeque<Event>,
    /// Some were lost.
    missed: bool,
}

impl Waiting {
    pub(super) fn is_sane(&self) -> bool {
        self.events.len() <= MOST
    }
}

/// See the module's description.
#[derive(Default)]
pub(super) struct Events {
    waiting: Mutex<(u64, Waiting)>,
    /// There is an event.
    pub(super) outgoing: Notify,
}

impl Events {
    /// The features of the driver that is there now; none without.
    pub(super) fn set_driver(&self, features: u64) {
        self.waiting.lock().0 = features;
    }

    pub(super) fn clear(&self) {
        *self.waiting.lock() = Default::default();
    }

    pub(super) fn any(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.1.missed || !waiting.1.events.is_empty()
    }

    /// The next one, for a buffer.
    pub(super) fn next(&self) -> Option<[u8; EVENT_LEN]> {
        let mut waiting = self.waiting.lock();
        let missed = std::mem::take(&mut waiting.1.missed);
        match waiting.1.events.pop_front() {
            Some(event) => Some(event.bytes(missed)),
            None if missed => {
                let mut bytes = [0; EVENT_LEN];
                let [b0, b1, b2, b3] = MISSED.to_le_bytes();
                for (to, from) in bytes.iter_mut().zip([b0, b1, b2, b3]) {
                    *to = from;
                }
                Some(bytes)
            }
            None => None,
        }
    }

    fn push(&self, feature: u64, event: Event) {
        {
            let mut waiting = self.waiting.lock();
            if waiting.0 & feature == 0 {
                return;
            }
            // What is told twice is told when it happened last.
            waiting.1.events.retain(|old| *old != event);
            if waiting.1.events.len() >= MOST {
                waiting.1.missed = true;
            } else {
                waiting.1.events.push_back(event);
            }
        }
        self.outgoing.notify();
    }

    pub(super) fn save(&self) -> Waiting {
        self.waiting.lock().1.clone()
    }

    pub(super) fn load(&self, state: Waiting) {
        self.waiting.lock().1 = state;
    }
}

impl Adapter for Events {
    fn came(&self, Place { target, lun }: Place) {
        self.push(HOTPLUG, Event { kind: TRANSPORT_RESET, target, lun, reason: RESCAN });
    }

    fn went(&self, Place { target, lun }: Place) {
        self.push(HOTPLUG, Event { kind: TRANSPORT_RESET, target, lun, reason: REMOVED });
    }

    fn changed(&self, Place { target, lun }: Place, code: u8, qualifier: u8) {
        let reason = u32::from(code) | u32::from(qualifier) << 8;
        self.push(CHANGE, Event { kind: PARAM_CHANGE, target, lun, reason });
    }
}

/// The address of a unit in a request (section 5.6.6.1); `None` where no unit can be.
pub(super) fn parse_lun([one, target, high, low, rest @ ..]: [u8; 8]) -> Option<Place> {
    if one != 1 || rest != [0; 4] {
        return None;
    }
    // Peripheral and flat addresses.
    let lun = match high >> 6 {
        0 if high == 0 => u16::from(low),
        1 => u16::from_be_bytes([high & 0x3f, low]),
        _ => return None,
    };
    Some(Place { target, lun })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let at = |target, lun| Some(Place { target, lun });
        assert_eq!(parse_lun([1, 3, 0, 7, 0, 0, 0, 0]), at(3, 7));
        assert_eq!(parse_lun([1, 3, 0x41, 7, 0, 0, 0, 0]), at(3, 0x107));
        assert_eq!(parse_lun([1, 3, 0xc1, 1, 0, 0, 0, 0]), None);
        assert_eq!(parse_lun([2, 3, 0, 1, 0, 0, 0, 0]), None);
        assert_eq!(parse_lun([1, 3, 0, 1, 0, 9, 0, 0]), None);
    }

    #[test]
    fn events_wait_and_are_lost_aloud() {
        let events = Events::default();
        events.came(Place { target: 1, lun: 0 });
        assert!(!events.any());
        events.set_driver(HOTPLUG | CHANGE);
        events.changed(Place { target: 2, lun: 3 }, 0x2a, 9);
        let bytes = events.next().unwrap();
        assert_eq!(bytes, [3, 0, 0, 0, 1, 2, 0x40, 3, 0, 0, 0, 0, 0x2a, 9, 0, 0]);
        // A unit that comes, goes and comes again is there in the end.
        let place = Place { target: 1, lun: 1 };
        events.came(place);
        events.went(place);
        events.came(place);
        let reason = |bytes: [u8; EVENT_LEN]| bytes[12];
        assert_eq!([(); 2].map(|()| events.next().map(reason)), [Some(2), Some(1)]);
        assert!(!events.any());
        for lun in 0..100 {
            events.went(Place { target: 1, lun });
        }
        assert_eq!(events.next().unwrap()[..4], [1, 0, 0, 0x80]);
        assert!(events.save().is_sane());
    }
}
