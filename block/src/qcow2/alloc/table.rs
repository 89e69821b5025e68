//! The refcount table and its blocks: more of them, and their way to the file.
//!
//! On the image's loop; whoever has the turn of refcounts makes blocks, and nobody moves the table
//! while it is written.

use std::io;

use resources::iol::IoBuf;

use super::super::Qcow2;
use super::super::bytes::errno;
use super::super::header::MAX_REFCOUNT_TABLE_BYTES;
use super::super::options::Freed;
use super::super::refcount;
use super::END;
use crate::wait::Turn;

/// Entries in a sector of the refcount table.
const SECTOR: usize = 64;

impl Qcow2 {
    /// Makes refcount blocks from the one with this index on, of which none is there: as many as
    /// it takes to count themselves and `room` clusters more. The first cluster behind them.
    ///
    /// They stand at the beginning of what they count, where everything is free. The block is
    /// written at once and the entry of the table with the next flush, which makes the block
    /// durable before.
    pub(super) async fn add_blocks(
        &self,
        turn: &Turn<'_>,
        index: u64,
        room: u64,
    ) -> io::Result<u64> {
        let geometry = self.geometry();
        let (bits, per_block) = (geometry.cluster_bits, 1 << geometry.block_bits());
        self.step("refblock_alloc").await?;
        let mut blocks = 1;
        while blocks * per_block < blocks + room {
            blocks = (blocks + room).div_ceil(per_block);
        }
        let entries = self.alloc.table.borrow().len() as u64;
        let most = MAX_REFCOUNT_TABLE_BYTES.max(geometry.cluster());
        let mut grown = 0;
        // Somebody made later ones first: then this one alone.
        if (1..blocks).any(|more| self.alloc.block(index + more) != 0) {
            blocks = 1;
        }
        if index + blocks > entries {
            // The new table follows the blocks.
            loop {
                let need = (index + blocks).max((entries + entries / 2).min(most / 8));
                grown = (need * 8).div_ceil(geometry.cluster());
                if blocks * per_block >= blocks + grown + room {
                    break;
                }
                blocks = (blocks + grown + room).div_ceil(per_block);
            }
        }
        if grown << bits > most {
            return Err(errno(libc::EFBIG));
        }
        let first = index << geometry.block_bits();
        let last = (index + blocks) << geometry.block_bits();
        if last > END >> bits {
            return Err(errno(libc::EFBIG));
        }
        self.step("refblock_alloc.write_blocks").await?;
        self.write_blocks(first, blocks, blocks + grown).await?;
        self.alloc.fresh.set(self.alloc.fresh.get().max(first + blocks + grown));
        let at = |more: u64| (first + more) << bits;
        if grown > 0 {
            self.switch_table(turn, at(blocks), grown << bits, index, blocks).await?;
        } else {
            let mut table = self.alloc.table.borrow_mut();
            for more in 0..blocks {
                let entry = (index + more) as usize;
                if let Some(place) = table.get_mut(entry) {
                    *place = at(more);
                }
                self.alloc.dirty.borrow_mut().insert(entry / SECTOR);
            }
        }
        (0..blocks).for_each(|more| self.metadata.add(at(more), false));
        Ok(first + blocks + grown)
    }

    /// Writes blocks that say that the first `used` of their clusters are in use.
    async fn write_blocks(&self, first: u64, blocks: u64, used: u64) -> io::Result<()> {
        let geometry = self.geometry();
        let (per_block, mut left) = (1 << geometry.block_bits(), used);
        for block in 0..blocks {
            let mut data = vec![0; geometry.cluster() as usize];
            let here = left.min(per_block);
            (0..here).for_each(|index| refcount::set(&mut data, geometry.refcount_order, index, 1));
            left -= here;
            let offset = (first + block) << geometry.cluster_bits;
            self.check_overlap(offset, geometry.cluster()).await?;
            self.counts.forget(offset, geometry.cluster());
            let data = IoBuf::copy_of(&data);
            self.file.write(offset, data, false).await?;
        }
        Ok(())
    }

    /// Moves the refcount table to a larger place, durably, with new blocks in it.
    async fn switch_table(
        &self,
        turn: &Turn<'_>,
        offset: u64,
        len: u64,
        index: u64,
        blocks: u64,
    ) -> io::Result<()> {
        let geometry = self.geometry();
        let mut table = self.alloc.table();
        table.resize((len / 8) as usize, 0);
        let first = index << geometry.block_bits();
        for more in 0..blocks {
            if let Some(place) = table.get_mut((index + more) as usize) {
                *place = (first + more) << geometry.cluster_bits;
            }
        }
        let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        self.step("refblock_alloc.write_table").await?;
        self.check_overlap(offset, len).await?;
        self.file.write(offset, IoBuf::copy_of(&bytes), false).await?;
        self.write_counts().await?;
        self.file.flush().await?;
        self.step("refblock_alloc.switch_table").await?;
        let clusters = (len >> geometry.cluster_bits) as u32;
        let old = {
            let header = self.header.borrow();
            (header.refcount_table_offset, header.refcount_table_clusters)
        };
        // If this fails, nothing counts the new blocks: where they are is free.
        self.change_header(|header| {
            (header.refcount_table_offset, header.refcount_table_clusters) = (offset, clusters);
        })
        .await?;
        *self.alloc.table.borrow_mut() = table;
        self.alloc.dirty.borrow_mut().clear();
        let clusters = self.clusters(old.0, u64::from(old.1) << geometry.cluster_bits)?;
        self.drop_range(turn, clusters, Freed::Other).await
    }

    /// Writes all changed refcounts, and the refcount table if that was changed. Durable with the
    /// next flush of the file.
    ///
    /// # Errors
    /// Those of the file: what was not written will be written the next time.
    pub async fn write_refcounts(&self) -> io::Result<()> {
        if self.alloc.is_dirty() {
            // Nobody moves the table meanwhile.
            let _turn = self.alloc.turn.enter().await;
            // The blocks it refers to.
            self.file.flush().await?;
            self.write_refcount_table().await?;
        }
        self.write_counts().await
    }

    async fn write_refcount_table(&self) -> io::Result<()> {
        let base = self.header.borrow().refcount_table_offset;
        let sectors = std::mem::take(&mut *self.alloc.dirty.borrow_mut());
        for sector in &sectors {
            let bytes: Vec<u8> = {
                let table = self.alloc.table.borrow();
                let part = table.iter().skip(sector * SECTOR).take(SECTOR);
                part.flat_map(|entry| entry.to_be_bytes()).collect()
            };
            let data = IoBuf::copy_of(&bytes);
            let write = async {
                self.step("reftable_update").await?;
                self.file.write(base + (sector * 512) as u64, data, false).await
            };
            if let Err(error) = write.await {
                self.alloc.dirty.borrow_mut().extend(sectors.iter().copied());
                return Err(error);
            }
        }
        Ok(())
    }
}
