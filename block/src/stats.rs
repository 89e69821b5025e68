//! Counters of a drive.
//!
//! Any thread, no lock: each counter is an atomic of its own, so that figures of one answer may be
//! a request apart. They wrap after 2^64.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// What a device asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A read.
    Read,
    /// A write, with or without data.
    Write,
    /// A flush.
    Flush,
}

/// Requests of a device that have ended, successfully or not.
#[derive(Debug, Default)]
pub struct Stats {
    kinds: [Counter; 3],
    highest: AtomicU64,
}

#[derive(Debug, Default)]
struct Counter {
    operations: AtomicU64,
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
}

/// Figures of one [`Kind`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// How many.
    pub operations: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Time that all of them took, in nanoseconds.
    pub nanoseconds: u64,
}

impl Stats {
    /// A request that began at `started` has ended.
    pub fn account(&self, kind: Kind, bytes: u64, started: Instant) {
        let took = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let counter = self.counter(kind);
        counter.operations.fetch_add(1, Relaxed);
        counter.bytes.fetch_add(bytes, Relaxed);
        counter.nanoseconds.fetch_add(took, Relaxed);
    }

    /// A range up to `end` is written.
    pub fn wrote_to(&self, end: u64) {
        // The figure that is told is the start of the last sector.
        self.highest.fetch_max(end.saturating_sub(1) & !511, Relaxed);
    }

    /// The counters of one kind.
    pub fn figures(&self, kind: Kind) -> Figures {
        let counter = self.counter(kind);
        Figures {
            operations: counter.operations.load(Relaxed),
            bytes: counter.bytes.load(Relaxed),
            nanoseconds: counter.nanoseconds.load(Relaxed),
        }
    }

    /// Where the last sector begins that was written to, in bytes; 0 if none was.
    pub fn highest_offset(&self) -> u64 {
        self.highest.load(Relaxed)
    }

    fn counter(&self, kind: Kind) -> &Counter {
        let [read, write, flush] = &self.kinds;
        match kind {
            Kind::Read => read,
            Kind::Write => write,
            Kind::Flush => flush,
        }
    }
}
