//! What the graph of a drive, on its loop, and everybody else know together.
//!
//! Any thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use resources::clock::Clock;

use crate::stats::Stats;
use crate::throttle::Limits;

/// What the graph on its loop and everybody else share.
pub(crate) struct Shared {
    pub(crate) stats: Stats,
    pub(super) size: AtomicU64,
    pub(super) read_only: AtomicBool,
    pub(super) write_cache: AtomicBool,
    pub(super) discards: AtomicBool,
    /// And the clock that they go by.
    pub(super) limits: Mutex<(Limits, Option<Arc<Clock>>)>,
    pub(super) sectors: Mutex<Option<(u32, u32)>>,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared {
            stats: Stats::default(),
            size: AtomicU64::new(0),
            read_only: AtomicBool::new(false),
            write_cache: AtomicBool::new(true),
            discards: AtomicBool::new(true),
            limits: Mutex::default(),
            sectors: Mutex::new(None),
        }
    }
}

impl Shared {
    pub(crate) fn set_read_only(&self, read_only: bool) {
        self.read_only.store(read_only, Relaxed);
    }

    pub(crate) fn set_caching(&self, write_cache: bool, discards: bool) {
        self.write_cache.store(write_cache, Relaxed);
        self.discards.store(discards, Relaxed);
    }

    pub(crate) fn set_size(&self, size: u64) {
        self.size.store(size, Relaxed);
    }

    pub(crate) fn read_only(&self) -> bool {
        self.read_only.load(Relaxed)
    }

    pub(crate) fn write_cache(&self) -> bool {
        self.write_cache.load(Relaxed)
    }

    pub(crate) fn limits(&self) -> (Limits, Option<Arc<Clock>>) {
        self.limits.lock().clone()
    }

    pub(crate) fn discards(&self) -> bool {
        self.discards.load(Relaxed)
    }
}
