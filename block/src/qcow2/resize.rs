//! Making the disk larger or smaller.
//!
//! Nothing else is under way. What is new reads as zeros, whatever was there before: clusters
//! behind the old end are given up, and what would show from below is hidden. On the image's loop;
//! the size is a client's.

use std::io;

use super::access::store_zeros;
use super::bytes::errno;
use super::geometry::{Entry, OFFSET, What};
use super::header::MAX_L1_BYTES;
use super::options::Freed;
use super::{Preallocation, Qcow2};
use crate::node::Zero;

impl Qcow2 {
    pub(super) async fn set_size(&self, size: u64) -> io::Result<()> {
        let old = self.size.get();
        if size & 511 != 0 {
            tracing::error!("The new size must be a multiple of 512");
            return Err(errno(libc::EINVAL));
        }
        let header = self.header.borrow().clone();
        // The disks of snapshots have their sizes with them only from version 3 on.
        if header.snapshots > 0 && header.version < 3 {
            tracing::error!("Can't resize an image which has snapshots");
            return Err(errno(libc::ENOTSUP));
        }
        if size > i64::MAX as u64 || header.l1_entries_for(size) * 8 > MAX_L1_BYTES {
            return Err(errno(libc::EFBIG));
        }
        let aside = self.set_bitmaps_aside(size).await?;
        let resized = match size.cmp(&old) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => self.enlarge(old, size).await,
            std::cmp::Ordering::Less => self.shrink(old, size).await,
        };
        let kept = self.resize_bitmaps(aside).await;
        resized.and(kept)?;
        self.release().await
    }

    async fn enlarge(&self, old: u64, size: u64) -> io::Result<()> {
        let geometry = self.geometry();
        let entries = self.header.borrow().l1_entries_for(size);
        self.grow_l1(entries).await?;
        // Of the last cluster, what was behind the end.
        let edge = geometry.ceil(old).min(size);
        self.zero_tail(old, edge).await?;
        if edge < size {
            self.drop_range_of_guest(edge, geometry.ceil(size)).await?;
            let below = self.backing.borrow().as_ref().map_or(0, |below| below.info().size);
            if below > edge {
                self.zero_range(edge, below.min(size) - edge, Zero::MayUnmap).await?;
            }
        }
        self.flush_metadata().await?;
        if geometry.external {
            self.data.resize(size).await?;
        }
        self.write_size(size).await
    }

    /// Zeros in the last cluster. What is zero, or absent with nothing below, is left alone.
    async fn zero_tail(&self, from: u64, to: u64) -> io::Result<()> {
        if from < to && !self.reads_zero(from, to - from).await? {
            let zeros = resources::iol::IoBuf::zeroed((to - from) as usize);
            self.write_range(from, zeros).await?;
        }
        Ok(())
    }

    async fn shrink(&self, old: u64, size: u64) -> io::Result<()> {
        let geometry = self.geometry();
        self.flush_metadata().await?;
        self.write_size(size).await?;
        self.drop_range_of_guest(geometry.ceil(size), geometry.ceil(old)).await?;
        // Tables that map nothing any more.
        let first = self.header.borrow().l1_entries_for(size);
        let last = self.header.borrow().l1_entries_for(old);
        for index in first..last {
            let table = self.l1.get(index) & OFFSET;
            if table != 0 {
                self.l1.set(index, 0);
                self.give_up(table, geometry.cluster(), Freed::Other);
            }
        }
        self.flush_metadata().await?;
        if geometry.external {
            self.data.resize(size).await?;
        }
        Ok(())
    }

    /// Gives clusters of the disk, of which the image has nothing, places of their own.
    pub(super) async fn give_room(&self, from: u64, to: u64, how: Preallocation) -> io::Result<()> {
        let geometry = self.geometry();
        self.check_write(from, to.saturating_sub(from))?;
        if self.is_encrypted() {
            return Err(errno(libc::ENOTSUP));
        }
        let (mut at, end) = (geometry.floor(from), geometry.ceil(to));
        // The cluster with the old end may have something, or show something.
        let old = self.run(at, geometry.cluster()).await?.what;
        if at < from && !(old == What::Absent && self.nothing_below(at)) {
            at += geometry.cluster();
        }
        while at < end && how != Preallocation::Off {
            let table = self.own_table(at).await?;
            let all = self.cluster_range(at, (end - at).min(geometry.left_in_slice(at)));
            let mut count = all.end - all.start;
            let (host, fresh) = if geometry.external {
                (at, true)
            } else {
                let taken = self.allocate(count).await?;
                count = taken.count.min(count);
                (taken.offset, taken.fresh)
            };
            let len = count << geometry.cluster_bits;
            match how {
                Preallocation::Metadata | Preallocation::Off if fresh => {}
                Preallocation::Metadata | Preallocation::Off => {
                    // What was there before must not show.
                    self.data.zero(host, len, Zero::MayUnmap).await?;
                }
                Preallocation::Falloc => self.data.zero(host, len, Zero::Keep).await?,
                Preallocation::Full => store_zeros(&*self.data, host, len).await?,
            }
            let last = host + len;
            if !geometry.external && self.file.info().size < last {
                self.file.resize(last).await?;
            }
            // Subclusters without data stay so.
            let covered = match geometry.has_subs() && self.nothing_below(at) {
                true => at..at,
                false => at..at + len,
            };
            let old = vec![Entry::default(); count as usize];
            self.link(table, at, host, covered, &old).await?;
            at += len;
        }
        self.flush_metadata().await
    }

    async fn write_size(&self, size: u64) -> io::Result<()> {
        self.change_header(|header| header.size = size).await?;
        self.size.set(size);
        Ok(())
    }
}
