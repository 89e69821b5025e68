//! What the kernel writes to guest RAM, as far as it is asked to note that: a bitmap of pages, and
//! the record that whoever copies RAM asks for.
//!
//! Any thread. The kernel sets bits at any time; they are taken one word at a time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use resources::ram::{GuestMemory, PAGE};
use resources::space::DirtyLog;
use vm_memory::bitmap::Bitmap;
use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::Vhost;

/// Pages in a word of the bitmap.
const WORD: u64 = 64;

/// A bit for each page from address 0 to the end of RAM.
pub(super) struct Log {
    words: Box<[AtomicU64]>,
}

impl Log {
    /// One for this RAM.
    pub(super) fn new(memory: &GuestMemory) -> io::Result<Log> {
        let pages = memory.last_addr().raw_value() / PAGE;
        let words = usize::try_from(pages / WORD).map_err(io::Error::other)?.saturating_add(1);
        Ok(Log { words: (0..words).map(|_| AtomicU64::new(0)).collect() })
    }

    /// Where the kernel finds it.
    pub(super) fn address(&self) -> u64 {
        u64::try_from(self.words.as_ptr().addr()).unwrap_or(0)
    }

    /// Forgets what is noted.
    pub(super) fn clear(&self) {
        self.words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// Marks the pages that are noted, and forgets them.
    pub(super) fn harvest(&self, memory: &GuestMemory) {
        for (index, word) in (0_u64..).zip(&self.words) {
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let noted = word.swap(0, Ordering::AcqRel);
            for bit in (0..WORD).filter(|bit| noted >> bit & 1 != 0) {
                let page = index.saturating_mul(WORD).saturating_add(bit);
                let address = GuestAddress(page.saturating_mul(PAGE));
                if let Some((region, offset)) = memory.to_region_addr(address) {
                    let offset = usize::try_from(offset.raw_value()).unwrap_or(usize::MAX);
                    region.bitmap().mark_dirty(offset, 1);
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn note(&self, page: usize) {
        self.words[page / 64].fetch_or(1 << (page % 64), Ordering::Relaxed);
    }
}

/// The record of what some of the kernel's devices write to this RAM.
pub struct Record {
    devices: Vec<Arc<Vhost>>,
    ram: GuestMemory,
}

impl Record {
    /// For all of a guest-visible device's.
    pub fn new(devices: Vec<Arc<Vhost>>, ram: GuestMemory) -> Record {
        Record { devices, ram }
    }
}

impl DirtyLog for Record {
    fn log(&self, on: bool) -> Result<(), String> {
        let set = |device: &Arc<Vhost>| device.set_log(&self.ram, on);
        let failed = |error| format!("vhost cannot record what it writes to guest RAM: {error}");
        self.devices.iter().try_for_each(set).map_err(failed)
    }

    fn harvest(&self) {
        self.devices.iter().for_each(|device| device.harvest(&self.ram));
    }
}
