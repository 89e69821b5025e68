//! Refcounts, and places in the file that are given by them.
//!
//! What callers have to hold, for an image to survive a crash at any moment:
//!
//! * A place that was [allocated](Qcow2::allocate), or a refcount that was
//!   [raised](Qcow2::raise), is durable in the refcounts after
//!   [`write_refcounts`](Qcow2::write_refcounts) and a flush of the file. Only then may a reference
//!   to it be written. References in L2 tables and in the L1 table need no care:
//!   [`flush_metadata`](Qcow2::flush_metadata) writes refcounts first.
//! * A place is [given up](Qcow2::give_up) once no table in memory refers to it. Its refcount falls
//!   when that is durable, which the next `flush_metadata` sees to, and when nobody reads or writes
//!   there any more. A crash in between loses room, never data. Whoever removes references that are
//!   not in L2 tables or the L1 table (of snapshots, bitmaps) makes that durable himself first.
//!
//! On the image's loop. One task at a time changes refcounts; it waits for
//! nothing but the file. Refcounts come from the image: those that contradict themselves are an
//! error of the operation, never of the process.

mod table;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::io;

use super::Qcow2;
use super::bytes::errno;
use super::header::DIRTY;
use super::options::Freed;
use super::refcount;
use crate::wait::{Turn, Turnstile};

/// Places given up that are remembered before a flush is made for them.
const MOST_FREED: usize = 16_384;
/// Slices of refcounts that are looked at in one go.
const SCANNED: u32 = 64;
/// The end of the places that an L2 entry can name.
const END: u64 = 1 << 56;

/// The refcount table of an image, and what is known about free places.
pub(super) struct Alloc {
    /// Held by whoever changes refcounts.
    pub(super) turn: Turnstile,
    /// The refcount table.
    table: RefCell<Vec<u64>>,
    /// Its sectors that the file does not have yet.
    dirty: RefCell<BTreeSet<usize>>,
    /// No cluster before this one is free.
    from: Cell<u64>,
    /// Nobody has ever written to this cluster and those behind it: they read as zeros.
    fresh: Cell<u64>,
    /// Where the next compressed cluster may begin, inside a cluster.
    packed: Cell<u64>,
    /// Given up in memory.
    freed: RefCell<Vec<Place>>,
    /// Given up durably, by the epoch whose operations may still use them.
    ripe: RefCell<VecDeque<(u64, Vec<Place>)>>,
}

/// A place in the file, given up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    offset: u64,
    len: u64,
    why: Freed,
}

/// Clusters that were free.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// Where the first one is.
    pub offset: u64,
    /// How many they are.
    pub count: u64,
    /// Nobody has ever written to them: they read as zeros.
    pub fresh: bool,
}

impl Alloc {
    pub(super) fn new(table: Vec<u64>, fresh: u64) -> Alloc {
        Alloc {
            turn: Turnstile::default(),
            table: RefCell::new(table),
            dirty: RefCell::default(),
            from: Cell::new(0),
            fresh: Cell::new(fresh),
            packed: Cell::new(0),
            freed: RefCell::default(),
            ripe: RefCell::default(),
        }
    }

    /// The refcount table.
    pub(super) fn table(&self) -> Vec<u64> {
        self.table.borrow().clone()
    }

    fn block(&self, index: u64) -> u64 {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        self.table.borrow().get(index).copied().unwrap_or(0)
    }

    /// Takes another refcount table, which the file has already, and forgets what was known.
    pub(super) fn replace(&self, table: Vec<u64>) {
        *self.table.borrow_mut() = table;
        self.dirty.borrow_mut().clear();
        self.from.set(0);
        self.packed.set(0);
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.borrow().is_empty()
    }

    /// Something waits to be given up.
    pub(super) fn has_freed(&self) -> bool {
        !self.freed.borrow().is_empty()
    }

    /// What was given up so far: to be [durable](Self::ripen) by whoever takes it.
    pub(super) fn take_freed(&self) -> Vec<Place> {
        std::mem::take(&mut *self.freed.borrow_mut())
    }

    pub(super) fn not_durable(&self, places: Vec<Place>) {
        self.freed.borrow_mut().extend(places);
    }

    /// These are given up durably; operations up to `epoch` may still use them.
    pub(super) fn ripen(&self, epoch: u64, places: Vec<Place>) {
        if !places.is_empty() {
            self.ripe.borrow_mut().push_back((epoch, places));
        }
    }
}

impl Qcow2 {
    /// The refcount of the cluster with this number.
    ///
    /// # Errors
    /// Those of the file; `EIO` when the refcount table is wrong.
    pub async fn refcount(&self, cluster: u64) -> io::Result<u64> {
        match self.slice_of(cluster)? {
            Some((at, index)) => self.count_at(at, index).await,
            None => Ok(0),
        }
    }

    /// Raises the refcounts of all clusters that a range of the file touches by one.
    ///
    /// # Errors
    /// Those of the file; `EINVAL` when one of them would become too large: some may be raised.
    pub async fn raise(&self, offset: u64, len: u64) -> io::Result<()> {
        let turn = self.alloc.turn.enter().await;
        for cluster in self.clusters(offset, len)? {
            self.add(&turn, cluster, 1).await?;
        }
        Ok(())
    }

    /// Lowers the refcounts of all clusters that a range of the file touches by one, at once: no
    /// reference is left, durably, and nobody reads or writes there.
    ///
    /// # Errors
    /// Those of the file; `EINVAL` when a refcount is zero already: some may be lowered.
    pub async fn lower(&self, offset: u64, len: u64, why: Freed) -> io::Result<()> {
        let turn = self.alloc.turn.enter().await;
        self.drop_range(&turn, self.clusters(offset, len)?, why).await
    }

    /// Gives clusters up that no table in memory refers to any more; see the module.
    pub fn give_up(&self, offset: u64, len: u64, why: Freed) {
        if len == 0 {
            return;
        }
        let freed = &mut *self.alloc.freed.borrow_mut();
        if let Some(last) = freed.last_mut()
            && last.offset.checked_add(last.len) == Some(offset)
            && last.why == why
            && self.geometry().within(offset) == 0
        {
            last.len += len;
            return;
        }
        freed.push(Place { offset, len, why });
    }

    /// So much was given up that a flush should be made for it.
    pub(super) fn has_much_freed(&self) -> bool {
        self.alloc.freed.borrow().len() > MOST_FREED
    }

    /// Takes up to `most` free clusters that follow one another.
    ///
    /// # Errors
    /// Those of the file; `EFBIG` when the format has no more places.
    pub async fn allocate(&self, most: u64) -> io::Result<Taken> {
        self.take_clusters(1, most.max(1)).await
    }

    /// Takes `len` bytes, rounded up to clusters, that follow one another.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    pub async fn allocate_whole(&self, len: u64) -> io::Result<u64> {
        let count = len.div_ceil(self.geometry().cluster()).max(1);
        Ok(self.take_clusters(count, count).await?.offset)
    }

    async fn take_clusters(&self, least: u64, most: u64) -> io::Result<Taken> {
        let turn = self.alloc.turn.enter().await;
        self.alive()?;
        self.step("cluster_alloc").await?;
        self.mark_dirty().await?;
        self.ripe_to_free(&turn).await?;
        let (first, count) = self.find(&turn, least, most).await?;
        for done in 0..count {
            if let Err(error) = self.add(&turn, first + done, 1).await {
                let _ = self.drop_range(&turn, first..first + done, Freed::Unused).await;
                return Err(error);
            }
        }
        let fresh = self.alloc.fresh.get();
        self.alloc.fresh.set(fresh.max(first + count));
        let offset = first << self.geometry().cluster_bits;
        Ok(Taken { offset, count, fresh: first >= fresh })
    }

    /// Takes `len` bytes, no more than a cluster, for compressed data: they may share clusters
    /// with those before.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    pub async fn allocate_packed(&self, len: u64) -> io::Result<u64> {
        let geometry = self.geometry();
        let turn = self.alloc.turn.enter().await;
        self.alive()?;
        self.step("cluster_alloc_bytes").await?;
        self.mark_dirty().await?;
        self.ripe_to_free(&turn).await?;
        let packed = self.alloc.packed.get();
        let cluster = packed >> geometry.cluster_bits;
        let mut room = match geometry.within(packed) {
            0 => 0,
            within => geometry.cluster() - within,
        };
        // The cluster may have been given up since, and its refcount may not grow for ever.
        if room > 0 {
            let count = self.refcount(cluster).await?;
            if count == 0 || count >= refcount::most(geometry.refcount_order) {
                room = 0;
            }
        }
        if room < len {
            let (first, _) = self.find(&turn, 1, 1).await?;
            self.add(&turn, first, 1).await?;
            self.alloc.fresh.set(self.alloc.fresh.get().max(first + 1));
            if room == 0 || first != cluster + 1 {
                let offset = first << geometry.cluster_bits;
                self.alloc.packed.set(offset + len);
                return Ok(offset);
            }
        }
        if let Err(error) = self.add(&turn, cluster, 1).await {
            // The new cluster, if there is one, is not used.
            if room < len {
                let _ = self.drop_one(&turn, cluster + 1).await;
            }
            return Err(error);
        }
        self.alloc.packed.set(packed + len);
        Ok(packed)
    }

    /// Applies what was given up durably and is used by nobody.
    pub(super) async fn release(&self) -> io::Result<()> {
        if self.alloc.ripe.borrow().is_empty() {
            return Ok(());
        }
        let turn = self.alloc.turn.enter().await;
        self.ripe_to_free(&turn).await
    }

    async fn ripe_to_free(&self, turn: &Turn<'_>) -> io::Result<()> {
        loop {
            let places = {
                let mut ripe = self.alloc.ripe.borrow_mut();
                match ripe.front() {
                    Some((epoch, _)) if self.epochs.is_over(*epoch) => ripe.pop_front(),
                    _ => return Ok(()),
                }
            };
            for place in places.map(|(_, places)| places).unwrap_or_default() {
                self.step("cluster_free").await?;
                let clusters = self.clusters(place.offset, place.len)?;
                // A refcount that is wrong is left to a check: the room is lost.
                if let Err(error) = self.drop_range(turn, clusters, place.why).await {
                    tracing::warn!(offset = place.offset, %error, "qcow2_cluster_free");
                }
            }
        }
    }

    /// The numbers of the clusters that a range touches.
    fn clusters(&self, offset: u64, len: u64) -> io::Result<std::ops::Range<u64>> {
        let bits = self.geometry().cluster_bits;
        if len == 0 {
            return Ok(0..0);
        }
        let last = offset.checked_add(len - 1).filter(|last| *last < END);
        let last = last.ok_or(errno(libc::EFBIG))?;
        Ok(offset >> bits..(last >> bits) + 1)
    }

    /// The slice with the refcount of a cluster, and its index there; `None` when the cluster has
    /// none, which means zero.
    fn slice_of(&self, cluster: u64) -> io::Result<Option<(u64, u64)>> {
        let geometry = self.geometry();
        let block = self.alloc.block(cluster >> geometry.block_bits());
        if geometry.within(block) != 0 {
            let text = format!(
                "Refblock offset {block:#x} unaligned (reftable index: {:#x})",
                cluster >> geometry.block_bits()
            );
            self.corrupt(text, Some(block), None, false);
            return Err(errno(libc::EIO));
        }
        if block == 0 {
            return Ok(None);
        }
        let index = cluster & ((1 << geometry.block_bits()) - 1);
        let slice = index / geometry.slice_counts() * geometry.slice() as u64;
        Ok(Some((block + slice, index % geometry.slice_counts())))
    }

    async fn count_at(&self, at: u64, index: u64) -> io::Result<u64> {
        let order = self.geometry().refcount_order;
        loop {
            if let Some(count) = self.counts.look(at, |data| refcount::get(data, order, index)) {
                return Ok(count);
            }
            self.load_counts(at).await?;
        }
    }

    /// Raises the refcount of a cluster; makes a refcount block if there is none for it.
    async fn add(&self, turn: &Turn<'_>, cluster: u64, count: u64) -> io::Result<()> {
        let geometry = self.geometry();
        let order = geometry.refcount_order;
        loop {
            let Some((at, index)) = self.slice_of(cluster)? else {
                self.add_blocks(turn, cluster >> geometry.block_bits(), 0).await?;
                continue;
            };
            let sum = self.count_at(at, index).await?.checked_add(count);
            let sum = sum.filter(|sum| *sum <= refcount::most(order));
            let sum = sum.ok_or(errno(libc::EINVAL))?;
            if self.counts.change(at, |data| refcount::set(data, order, index, sum)).is_some() {
                return Ok(());
            }
        }
    }

    /// Lowers the refcounts of clusters by one.
    async fn drop_range(
        &self,
        turn: &Turn<'_>,
        clusters: std::ops::Range<u64>,
        why: Freed,
    ) -> io::Result<()> {
        let bits = self.geometry().cluster_bits;
        if self.options.pass_discard.has(why) {
            // Before anybody else may have them. That the host cannot is no harm.
            let mut run = clusters.start;
            for cluster in clusters.clone() {
                if self.refcount(cluster).await? != 1 {
                    let _ = self.file.discard(run << bits, (cluster - run) << bits).await;
                    run = cluster + 1;
                }
            }
            let _ = self.file.discard(run << bits, (clusters.end - run) << bits).await;
        }
        for cluster in clusters {
            self.drop_one(turn, cluster).await?;
        }
        Ok(())
    }

    async fn drop_one(&self, _: &Turn<'_>, cluster: u64) -> io::Result<()> {
        let geometry = self.geometry();
        let order = geometry.refcount_order;
        let (at, index) = self.slice_of(cluster)?.ok_or(errno(libc::EINVAL))?;
        loop {
            let count = self.count_at(at, index).await?;
            let less = count.checked_sub(1).ok_or(errno(libc::EINVAL))?;
            if self.counts.change(at, |data| refcount::set(data, order, index, less)).is_none() {
                continue;
            }
            if less == 0 {
                let offset = cluster << geometry.cluster_bits;
                // What was a table may become anything.
                self.metadata.remove(offset);
                self.l2.forget(offset, geometry.cluster());
                *self.unpacked.borrow_mut() = None;
                self.alloc.from.set(self.alloc.from.get().min(cluster));
                if geometry.floor(self.alloc.packed.get()) == offset {
                    self.alloc.packed.set(0);
                }
            }
            return Ok(());
        }
    }

    /// Finds between `least` and `most` free clusters that follow one another.
    async fn find(&self, turn: &Turn<'_>, least: u64, most: u64) -> io::Result<(u64, u64)> {
        let geometry = self.geometry();
        let order = geometry.refcount_order;
        let mut at = self.alloc.from.get();
        // The first free cluster seen, and the run that ends before `at`.
        let (mut seen, mut run, mut looked) = (None, 0, 0u32);
        while run < most {
            looked = looked.wrapping_add(1);
            if looked % SCANNED == 0 {
                // An image may say that everything is in use: others go on meanwhile.
                self.local.yield_now().await;
            }
            if at >= END >> geometry.cluster_bits {
                return Err(errno(libc::EFBIG));
            }
            let Some((slice, index)) = self.slice_of(at)? else {
                if run >= least {
                    break;
                }
                // Where no refcounts are, everything is free, but for what they take themselves.
                at = self.add_blocks(turn, at >> geometry.block_bits(), least).await?;
                run = 0;
                continue;
            };
            let scan = |data: &[u8]| {
                let (mut index, mut at) = (index, at);
                while index < geometry.slice_counts() && run < most {
                    let free = refcount::get(data, order, index) == 0;
                    if !free && run >= least {
                        return (at, true);
                    }
                    run = if free { run + 1 } else { 0 };
                    if free && seen.is_none() {
                        seen = Some(at);
                    }
                    (index, at) = (index + 1, at + 1);
                }
                (at, false)
            };
            let Some((next, done)) = self.counts.look(slice, scan) else {
                self.load_counts(slice).await?;
                continue;
            };
            at = next;
            if done {
                break;
            }
        }
        let first = at - run;
        let seen = seen.unwrap_or(first);
        self.alloc.from.set(if seen >= first { at } else { seen });
        Ok((first, run))
    }

    /// With lazy refcounts, says in the image that they are behind, before they are.
    async fn mark_dirty(&self) -> io::Result<()> {
        if !self.lazy.get() || self.header.borrow().incompatible & DIRTY != 0 {
            return Ok(());
        }
        self.change_header(|header| header.incompatible |= DIRTY).await
    }
}
