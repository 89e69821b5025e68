//! What has to be durable before what, and the caches' way to the file.
//!
//! An image survives a crash at any moment because what refers to something is written after it:
//!
//! | written | only after this is durable |
//! |---|---|
//! | data, new L2 tables, new refcount blocks | nothing: no one refers to them yet |
//! | the refcount table | the blocks it refers to |
//! | refcount blocks, raised | nothing: at worst room is lost |
//! | L2 tables, the L1 table | data, new tables and refcounts of what they refer to |
//! | refcount blocks, lowered; other uses of the place | the tables that do not refer to it any more |
//!
//! So a flush is: take the changed tables as they are now, write refcounts, flush the file, write
//! what was taken, flush the file, and let go of what was given up before. Changes made meanwhile
//! are those of the next flush. With lazy refcounts the second step is left out.
//!
//! On the image's loop. One flush at a time; those who ask while one is under way share the next.

use std::cell::Cell;
use std::io;

use resources::iol::IoBuf;

use super::Qcow2;
use super::cache::Cache;
use crate::wait::Turnstile;

/// The order of flushes.
#[derive(Default)]
pub(super) struct Ordering {
    turn: Turnstile,
    /// Held by whoever writes refcounts.
    counts: Turnstile,
    /// Flushes begun.
    begun: Cell<u64>,
    /// The last flush that succeeded.
    done: Cell<u64>,
}

impl Ordering {
    pub(super) fn is_busy(&self) -> bool {
        self.turn.is_busy()
    }
}

impl Qcow2 {
    /// There is something in memory that the file does not have, or is being written.
    pub(super) fn has_changes(&self) -> bool {
        self.l2.is_dirty()
            || self.l1.is_dirty()
            || self.alloc.has_freed()
            || self.ordering.is_busy()
            || !self.lazy.get() && (self.counts.is_dirty() || self.alloc.is_dirty())
    }

    /// Makes all data and metadata durable, in an order that survives a crash at any moment.
    ///
    /// # Errors
    /// Those of the file. What was not written will be the next time.
    pub async fn flush_metadata(&self) -> io::Result<()> {
        let wanted = self.ordering.begun.get() + 1;
        let _turn = self.ordering.turn.enter().await;
        if self.ordering.done.get() >= wanted {
            return Ok(());
        }
        let this = self.ordering.begun.get() + 1;
        self.ordering.begun.set(this);
        self.flush_once().await?;
        self.ordering.done.set(this);
        Ok(())
    }

    async fn flush_once(&self) -> io::Result<()> {
        self.alive()?;
        // No wait between these: together they are the image at one moment.
        let l1 = self.l1.take_dirty();
        let l2 = self.l2.take_dirty();
        let freed = self.alloc.take_freed();
        let (mut written_l1, mut written_l2) = (0, 0);
        let write = async {
            if !self.lazy.get() {
                self.write_refcounts().await?;
            }
            self.flush_files().await?;
            // What the file refers to may not be what memory does.
            self.alive()?;
            if l1.is_empty() && l2.is_empty() {
                return Ok(());
            }
            for batch in &l2 {
                self.step("l2_update").await?;
                self.check_overlap_except(batch.at, batch.data.len() as u64, true).await?;
                self.file.write(batch.at, batch.data.clone(), false).await?;
                self.l2.written(batch, true);
                written_l2 += 1;
            }
            let base = self.header.borrow().l1_offset;
            for (sector, data) in &l1 {
                self.step("l1_update").await?;
                self.file.write(base + (sector * 512) as u64, data.clone(), false).await?;
                written_l1 += 1;
            }
            self.file.flush().await
        };
        let result = write.await;
        if result.is_ok() {
            self.alloc.ripen(self.epochs.turn(), freed);
            return Ok(());
        }
        // What was written is not durable either: all of it is written again.
        for batch in &l2 {
            self.l2.written(batch, false);
        }
        self.l1.not_written(l1.iter().map(|(sector, _)| *sector));
        self.alloc.not_durable(freed);
        tracing::debug!(written_l1, written_l2, "qcow2_flush_failed");
        result
    }

    async fn flush_files(&self) -> io::Result<()> {
        if self.geometry().external {
            self.data.flush().await?;
        }
        self.file.flush().await
    }

    /// What a flush of the disk does.
    pub(super) async fn flush_all(&self) -> io::Result<()> {
        self.alive()?;
        if self.read_only.get() {
            return Ok(());
        }
        self.step("flush_to_os").await?;
        self.step("flush_to_disk").await?;
        if !self.has_changes() {
            return self.flush_files().await;
        }
        self.flush_metadata().await?;
        self.release().await
    }

    /// Writes changed refcounts.
    pub(super) async fn write_counts(&self) -> io::Result<()> {
        let _turn = self.ordering.counts.enter().await;
        let mut result = Ok(());
        for batch in self.counts.take_dirty() {
            if result.is_ok() {
                result = self.write_batch(batch.at, &batch.data).await;
            }
            self.counts.written(&batch, result.is_ok());
        }
        result
    }

    async fn write_batch(&self, at: u64, data: &IoBuf) -> io::Result<()> {
        self.step("refblock_update").await?;
        self.check_overlap_except(at, data.len() as u64, true).await?;
        self.file.write(at, data.clone(), false).await
    }

    /// Reads a slice of an L2 table. It is here when this is done, until the next wait.
    ///
    /// Nobody who waits here holds what a flush needs.
    pub(super) async fn load_l2(&self, at: u64) -> io::Result<()> {
        while !self.l2.has(at) {
            if self.l2.is_loading(at) {
                self.l2.waiters.until(|| !self.l2.is_loading(at)).await;
            } else if self.l2.make_room() {
                self.load(&self.l2, at, "l2_load").await?;
            } else {
                self.flush_metadata().await?;
            }
        }
        Ok(())
    }

    /// Reads a slice of a refcount block. It is here when this is done, until the next wait.
    pub(super) async fn load_counts(&self, at: u64) -> io::Result<()> {
        while !self.counts.has(at) {
            if self.counts.is_loading(at) {
                self.counts.waiters.until(|| !self.counts.is_loading(at)).await;
            } else if self.counts.make_room() {
                self.load(&self.counts, at, "refblock_load").await?;
            } else {
                self.write_counts().await?;
            }
        }
        Ok(())
    }

    async fn load(&self, cache: &Cache, at: u64, step: &'static str) -> io::Result<()> {
        if !cache.begin_load(at) {
            return Ok(());
        }
        let read = async {
            self.step(step).await?;
            let buf = IoBuf::zeroed(self.geometry().slice());
            self.file.read(at, buf.clone()).await?;
            Ok(buf.to_vec().into_boxed_slice())
        };
        let data = read.await;
        if let Ok(data) = data {
            cache.insert(at, data);
            cache.end_load(at);
            return Ok(());
        }
        cache.end_load(at);
        data.map(drop)
    }
}
