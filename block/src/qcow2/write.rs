//! Writing: to clusters that are the guest's alone where they are, and to new ones otherwise.
//!
//! A cluster that is not allocated, or that somebody else refers to, gets a new place. What of it
//! is not written comes from where it was before, in the same write as the data; where the new
//! place is known to be zero, zeros are not written. The table is changed when the data are
//! written, and [`flush`](super::flush) makes both durable in that order.
//!
//! Whoever changes the mapping of clusters holds their [`Flight`](super::sync::Flight); others
//! wait. Nobody waits for a flight while holding one, so nobody waits for ever.
//!
//! On the image's loop. Offsets and data are the guest's, entries the image's.

use std::io;
use std::ops::Range;

use resources::iol::IoBuf;

use super::Qcow2;
use super::geometry::{ALL_DATA, COMPRESSED, COPIED, Entry, Run, Sub, What};
use super::options::Freed;
use super::read::Now;
use super::sync::join;
use super::{bytes::errno, compress, crypt};
use crate::node::Op;

/// Operations of one request at the same time, at most.
const MOST_OPS: usize = 64;

/// Clusters that get data, and are not written where they are.
struct Plan {
    /// What the entries were.
    old: Vec<Entry>,
    /// They have a place of their own already, which nobody else uses.
    reuse: Option<u64>,
    /// What is copied along with the first and with the last of them comes in units of this.
    head_unit: u64,
    tail_unit: u64,
}

impl Qcow2 {
    pub(super) fn write_now(&self, offset: u64, buf: IoBuf, durable: bool) -> Op<'_> {
        let len = buf.len() as u64;
        if let Some(host) = self.in_place(offset, len) {
            let guard = self.epochs.enter();
            return Box::pin(async move {
                self.step("write_aio").await?;
                // Nothing else has to become durable with it.
                let alone = durable && !self.has_changes();
                self.data.write(host, buf, alone).await?;
                drop(guard);
                if durable && !alone { self.flush_all().await } else { Ok(()) }
            });
        }
        Box::pin(async move {
            self.write_anywhere(offset, buf).await?;
            if self.has_much_freed() {
                self.flush_metadata().await?;
            }
            if durable { self.flush_all().await } else { Ok(()) }
        })
    }

    /// Where a whole range may be written at once, if that can be said without waiting.
    fn in_place(&self, offset: u64, len: u64) -> Option<u64> {
        if self.is_encrypted() || self.options.overlap_check.inactive_l2 || len == 0 {
            return None;
        }
        if self.flights.clash(&self.cluster_range(offset, len)).is_some() {
            return None;
        }
        match self.run_now(offset, len) {
            Ok(Now::Run(Run { what: What::Data(host), len: there, copied: true })) => {
                let free = self.geometry().external || self.overlaps(host, len, false).is_none();
                (there >= len && free).then_some(host)
            }
            _ => None,
        }
    }

    /// The guest's clusters that a range, which is not empty, touches.
    pub(super) fn cluster_range(&self, offset: u64, len: u64) -> Range<u64> {
        let bits = self.geometry().cluster_bits;
        let last = offset.saturating_add(len.saturating_sub(1));
        offset >> bits..(last >> bits) + 1
    }

    /// As [`write_range`](Self::write_range), and also parts of encrypted sectors.
    pub(super) async fn write_anywhere(&self, offset: u64, buf: IoBuf) -> io::Result<()> {
        if !self.is_encrypted() || (offset | buf.len() as u64) & 511 == 0 {
            return self.write_range(offset, buf).await;
        }
        let _turn = self.sectors.enter().await;
        let start = offset & !511;
        let end = (offset + buf.len() as u64).next_multiple_of(512);
        let whole = IoBuf::zeroed((end - start) as usize);
        self.read_range(start, whole.clone()).await?;
        whole.skip((offset - start) as usize).copy_from_buf(&buf);
        self.write_range(start, whole).await
    }

    /// Writes what the guest is to see; also behind the end of the disk.
    pub(super) async fn write_range(&self, offset: u64, buf: IoBuf) -> io::Result<()> {
        let bits = self.geometry().cluster_bits;
        let mut ops: Vec<Op<'_>> = Vec::new();
        let mut done = 0;
        while done < buf.len() {
            let at = offset.checked_add(done as u64).ok_or(errno(libc::EINVAL))?;
            let mut left = (buf.len() - done) as u64;
            let clusters = self.cluster_range(at, left);
            if let Some(first) = self.flights.clash(&clusters) {
                if first == clusters.start {
                    join(std::mem::take(&mut ops)).await?;
                    self.flights.free(first..first + 1).await;
                    continue;
                }
                left = (first << bits) - at;
            }
            let run = match self.run_now(at, left)? {
                Now::Run(run) => run,
                Now::Load(slice) => {
                    self.load_l2(slice).await?;
                    continue;
                }
            };
            match run.what {
                What::Data(host) if run.copied => {
                    let len = run.len.min(left) as usize;
                    let part = buf.slice(done..done + len);
                    done += len;
                    let guard = self.epochs.enter();
                    ops.push(Box::pin(async move {
                        let done = self.put_data(at, host, part).await;
                        drop(guard);
                        done
                    }));
                }
                _ => {
                    let part = buf.slice(done..done + left as usize);
                    done += self.write_new(at, part).await?;
                }
            }
            if ops.len() >= MOST_OPS {
                join(std::mem::take(&mut ops)).await?;
            }
        }
        join(ops).await
    }

    /// Writes data of the guest to a place in the data file.
    async fn put_data(&self, guest: u64, host: u64, buf: IoBuf) -> io::Result<()> {
        if !self.geometry().external {
            self.check_overlap(host, buf.len() as u64).await?;
        }
        self.step("write_aio").await?;
        if !self.is_encrypted() {
            return self.data.write(host, buf, false).await;
        }
        let mut bytes = buf.to_vec();
        crypt::encrypt(&self.key()?, guest, &mut bytes);
        self.data.write(host, IoBuf::copy_of(&bytes), false).await
    }

    /// Writes the beginning of `buf` to clusters that are not written where they are; how much.
    ///
    /// No one has a flight of these clusters: that was seen without waiting since.
    async fn write_new(&self, at: u64, buf: IoBuf) -> io::Result<usize> {
        let geometry = self.geometry();
        let want = (buf.len() as u64).min(geometry.left_in_slice(at));
        let all = self.cluster_range(at, want);
        let start = all.start << geometry.cluster_bits;
        let mut flight = self.flights.take(all.clone());
        let table = self.own_table(at).await?;
        let plan = loop {
            let (slice, index) = geometry.in_slice(at);
            let count = (all.end - all.start) as usize;
            let plan = |data: &[u8]| {
                self.plan((0..count).map(|more| geometry.entry(data, index + more)), start)
            };
            match self.l2.look(table + slice, plan) {
                Some(plan) => break plan?,
                None => self.load_l2(table + slice).await?,
            }
        };
        let mut count = plan.old.len() as u64;
        // Others need not wait for those that stay where they are.
        drop(flight);
        flight = self.flights.take(all.start..all.start + count);
        let (host, fresh) = match plan.reuse {
            Some(host) => (host, false),
            None => {
                let taken = self.allocate(count).await?;
                count = taken.count.min(count);
                (taken.offset, taken.fresh)
            }
        };
        let end = (at + want).min(start + (count << geometry.cluster_bits));
        let head_unit = plan.head_unit;
        let tail_unit = if count == plan.old.len() as u64 { plan.tail_unit } else { head_unit };
        let covered = at & !(head_unit - 1)..(end + tail_unit - 1) & !(tail_unit - 1);
        let part = buf.slice(0..(end - at) as usize);
        let written = async {
            // A data file does not reach behind the disk.
            let last = if geometry.external { self.size.get().max(end) } else { u64::MAX };
            let edges = covered.start..covered.end.min(last);
            let (from, data) = self.with_edges(at, part, edges, fresh).await?;
            self.put_data(from, host + (from - start), data).await
        };
        if let Err(error) = written.await {
            if plan.reuse.is_none() {
                self.give_up(host, count << geometry.cluster_bits, Freed::Unused);
            }
            return Err(error);
        }
        let old = plan.old.get(..count as usize).unwrap_or_default();
        let linked = self.link(table, start, host, covered, old).await;
        match (&linked, plan.reuse) {
            (_, Some(_)) => {}
            (Ok(()), None) => old.iter().for_each(|old| self.give_up_entry(*old, Freed::Other)),
            (Err(_), None) => self.give_up(host, count << geometry.cluster_bits, Freed::Unused),
        }
        drop(flight);
        linked?;
        Ok((end - at) as usize)
    }

    /// How clusters with these entries, the first of which is at `start`, get data: as many as
    /// can be treated alike.
    fn plan(&self, entries: impl Iterator<Item = Entry>, start: u64) -> io::Result<Plan> {
        let geometry = self.geometry();
        let mut plan =
            Plan { old: Vec::new(), reuse: None, head_unit: geometry.sub(), tail_unit: 0 };
        for (index, entry) in entries.enumerate() {
            let guest = start + ((index as u64) << geometry.cluster_bits);
            let own = match geometry.host(entry) {
                _ if geometry.external => Some(guest),
                host => host.filter(|_| entry.word & COPIED != 0),
            };
            if own.is_some_and(|own| geometry.within(own) != 0) {
                return Err(errno(libc::EIO));
            }
            let has_data = entry.word & COMPRESSED != 0
                || geometry.host(entry).is_some()
                    && if geometry.has_subs() {
                        entry.subs & ALL_DATA != 0
                    } else {
                        geometry.state(entry, 0)? == Sub::Data
                    };
            let written_in_place = own.is_some() && has_data;
            if index == 0 {
                plan.reuse = own;
            } else {
                let follows = match (plan.reuse, own) {
                    (None, None) => true,
                    (Some(first), Some(own)) => first.checked_add(guest - start) == Some(own),
                    _ => false,
                };
                if written_in_place || !follows {
                    break;
                }
            }
            // What somebody else refers to is copied as a whole.
            let unit = if has_data && own.is_none() { geometry.cluster() } else { geometry.sub() };
            if index == 0 {
                plan.head_unit = unit;
            }
            plan.tail_unit = unit;
            plan.old.push(entry);
            if written_in_place {
                break;
            }
        }
        Ok(plan)
    }

    /// Data together with what is around them in `covered`, and where that begins. Zeros are left
    /// out where the place is `fresh`.
    async fn with_edges(
        &self,
        at: u64,
        data: IoBuf,
        covered: Range<u64>,
        fresh: bool,
    ) -> io::Result<(u64, IoBuf)> {
        let end = at + data.len() as u64;
        let fresh = fresh && !self.is_encrypted();
        let head = self.edge(covered.start..at, fresh).await?;
        let tail = self.edge(end..covered.end, fresh).await?;
        match (head, tail) {
            (None, None) => Ok((at, data)),
            (None, Some(tail)) => Ok((at, IoBuf::concat(&[data, tail]))),
            (Some(head), None) => Ok((covered.start, IoBuf::concat(&[head, data]))),
            (Some(head), Some(tail)) => Ok((covered.start, IoBuf::concat(&[head, data, tail]))),
        }
    }

    /// What the guest sees in a range, if it has to be written to a new place.
    async fn edge(&self, range: Range<u64>, fresh: bool) -> io::Result<Option<IoBuf>> {
        let len = range.end - range.start;
        if len == 0 {
            return Ok(None);
        }
        let zero = self.reads_zero(range.start, len).await?;
        if zero && fresh {
            return Ok(None);
        }
        let buf = IoBuf::zeroed(len as usize);
        if !zero {
            self.step("cow_read").await?;
            self.read_range(range.start, buf.clone()).await?;
        }
        self.step("cow_write").await?;
        Ok(Some(buf))
    }

    /// A range is known to be zeros without reading it.
    pub(super) async fn reads_zero(&self, offset: u64, len: u64) -> io::Result<bool> {
        self.is_zero_with(offset, len, |at| self.nothing_below(at)).await
    }

    /// A range is known to be zeros, and stays so whatever is put below.
    pub(super) async fn stays_zero(&self, offset: u64, len: u64) -> io::Result<bool> {
        self.is_zero_with(offset, len, |_| !self.may_show()).await
    }

    /// A range is known to be zeros if `absent` says so of where the image has nothing.
    async fn is_zero_with(
        &self,
        offset: u64,
        len: u64,
        absent: impl Fn(u64) -> bool,
    ) -> io::Result<bool> {
        let mut done = 0;
        while done < len {
            let run = self.run(offset + done, len - done).await?;
            let zero = match run.what {
                What::Zero => true,
                What::Absent => absent(offset + done),
                What::Data(_) | What::Compressed(_) => false,
            };
            if !zero {
                return Ok(false);
            }
            done += run.len;
        }
        Ok(true)
    }

    /// Nothing shows from here on where the image has nothing.
    pub(super) fn nothing_below(&self, offset: u64) -> bool {
        self.backing.borrow().as_ref().is_none_or(|below| offset >= below.info().size)
    }

    /// Something shows where the image has nothing, or may some day: another backing file may come
    /// in place of the one there is, however long that is, and the one that the header names may
    /// not be open yet. Zeros have to be told there.
    pub(super) fn may_show(&self) -> bool {
        self.backing.borrow().is_some() || self.header.borrow().backing.is_some()
    }

    /// Has the entries of clusters from `start` on refer to their new places, the first at `host`.
    /// `covered` was written; the rest of a cluster with subclusters stays what it was.
    pub(super) async fn link(
        &self,
        table: u64,
        start: u64,
        host: u64,
        covered: Range<u64>,
        old: &[Entry],
    ) -> io::Result<()> {
        let geometry = self.geometry();
        let (slice, index) = geometry.in_slice(start);
        let entry = |more: usize, old: &Entry| {
            let from = start + ((more as u64) << geometry.cluster_bits);
            let place = host + ((more as u64) << geometry.cluster_bits);
            let mut subs = 0;
            if geometry.has_subs() {
                let first = covered.start.saturating_sub(from).min(geometry.cluster());
                let last = covered.end.saturating_sub(from).min(geometry.cluster());
                let (first, last) = (first >> geometry.sub_bits, last >> geometry.sub_bits);
                let mask = (1u64 << last) - (1u64 << first.min(last));
                let kept = if old.word & COMPRESSED == 0 { old.subs } else { 0 };
                subs = (kept | mask) & !(mask << 32);
            }
            Entry { word: place | COPIED, subs }
        };
        loop {
            let change = |data: &mut [u8]| {
                for (more, old) in old.iter().enumerate() {
                    geometry.put_entry(data, index + more, entry(more, old));
                }
            };
            if self.l2.change(table + slice, change).is_some() {
                break;
            }
            self.load_l2(table + slice).await?;
        }
        Ok(())
    }

    /// Gives up what an entry referred to that is in no table any more.
    pub(super) fn give_up_entry(&self, entry: Entry, why: Freed) {
        let geometry = self.geometry();
        if geometry.external {
            return;
        }
        if entry.word & COMPRESSED != 0 {
            let (host, len) = geometry.compressed(entry);
            self.give_up(host, len, why);
        } else if let Some(host) = geometry.host(entry) {
            self.give_up(host, geometry.cluster(), why);
        }
    }

    /// Writes a cluster compressed, if that makes it smaller.
    pub(super) async fn write_packed(&self, offset: u64, buf: IoBuf) -> io::Result<()> {
        let geometry = self.geometry();
        let len = buf.len() as u64;
        if self.is_encrypted() || geometry.external {
            return Err(errno(libc::ENOTSUP));
        }
        let ends = offset.checked_add(len) == Some(self.size.get());
        let whole = len == geometry.cluster() || ends && len < geometry.cluster();
        if geometry.within(offset) != 0 || !whole || len == 0 {
            return Err(errno(libc::EINVAL));
        }
        let mut data = buf.to_vec();
        data.resize(geometry.cluster() as usize, 0);
        let kind = self.header.borrow().compression;
        let packed = self.local.pool(move || compress::pack(kind, &data)).await??;
        let Some(packed) = packed else { return self.write_range(offset, buf).await };
        let clusters = self.cluster_range(offset, 1);
        self.flights.free(clusters.clone()).await;
        let flight = self.flights.take(clusters);
        let table = self.own_table(offset).await?;
        let host = self.allocate_packed(packed.len() as u64).await?;
        let new = geometry.compressed_entry(host, packed.len() as u64);
        let written = async {
            let new = new.ok_or(errno(libc::EFBIG))?;
            self.check_overlap(host, packed.len() as u64).await?;
            self.step("write_compressed").await?;
            self.file.write(host, IoBuf::copy_of(&packed), false).await?;
            self.step("l2_update_compressed").await?;
            Ok(new)
        };
        let new = match written.await {
            Ok(new) => new,
            Err(error) => {
                self.give_up(host, packed.len() as u64, Freed::Unused);
                return Err(error);
            }
        };
        let (slice, index) = geometry.in_slice(offset);
        loop {
            let change = |data: &mut [u8]| {
                let old = geometry.entry(data, index);
                geometry.put_entry(data, index, new);
                old
            };
            if let Some(old) = self.l2.change(table + slice, change) {
                self.give_up_entry(old, Freed::Other);
                break;
            }
            self.load_l2(table + slice).await?;
        }
        drop(flight);
        Ok(())
    }
}
