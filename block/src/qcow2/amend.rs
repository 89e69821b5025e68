//! Changing what an image is: its version, its options, the width of its refcounts.
//!
//! Each change is one switch of the header, made when everything it needs is durable. On the
//! image's loop, with nothing else under way.

use std::io;

use resources::iol::IoBuf;

use super::Qcow2;
use super::bytes::errno;
use super::check;
use super::header::{CORRUPT, DIRTY, LAZY_REFCOUNTS};
use crate::image::{BackingFile, Image};
use crate::node::Node;

/// What is to be changed.
#[derive(Debug, Clone, Default)]
pub struct AmendOptions {
    /// 2 or 3.
    pub version: Option<u32>,
    /// Refcounts may be written late.
    pub lazy_refcounts: Option<bool>,
    /// Another backing file, or none.
    pub backing: Option<Option<BackingFile>>,
    /// Bytes of the disk.
    pub size: Option<u64>,
    /// Bits of a refcount.
    pub refcount_bits: Option<u32>,
}

fn refused(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text.into())
}

impl Qcow2 {
    /// Changes the image, one option after the other: on failure those before stay changed.
    ///
    /// # Errors
    /// Those of the file; when options do not go together.
    pub async fn amend(&self, options: &AmendOptions) -> io::Result<()> {
        self.begin_change().await?;
        let version = options.version.unwrap_or(self.header.borrow().version);
        let bits = options.refcount_bits.unwrap_or(self.header.borrow().refcount_bits());
        if !bits.is_power_of_two() || bits > 64 {
            return Err(refused(
                "Refcount width must be a power of two and may not exceed 64 bits",
            ));
        }
        if version < 3 && options.lazy_refcounts == Some(true) {
            return Err(refused(
                "Lazy refcounts only supported with compatibility level 1.1 and above (use \
                 compat=1.1 or greater)",
            ));
        }
        if version < 3 && bits != 16 {
            return Err(refused(
                "Different refcount widths than 16 bits require compatibility level 1.1 or above \
                 (use compat=1.1 or greater)",
            ));
        }
        if version == 3 {
            self.upgrade().await?;
        }
        if bits != self.header.borrow().refcount_bits() {
            self.widen(bits.trailing_zeros()).await?;
        }
        if let Some(lazy) = options.lazy_refcounts {
            self.make_lazy(lazy).await?;
        }
        if let Some(backing) = &options.backing {
            self.change_backing_file(backing.clone()).await?;
        }
        if let Some(size) = options.size {
            self.resize(size).await?;
        }
        if version == 2 {
            self.downgrade().await?;
        }
        Ok(())
    }

    async fn upgrade(&self) -> io::Result<()> {
        if self.header.borrow().version >= 3 {
            return Ok(());
        }
        self.switch_header(|header| header.version = 3).await?;
        self.geometry.set(super::Geometry::of(&self.header.borrow()));
        Ok(())
    }

    /// Makes version 2 of it: what only version 3 has goes.
    async fn downgrade(&self) -> io::Result<()> {
        let header = self.header.borrow().clone();
        if header.version < 3 {
            return Ok(());
        }
        if header.incompatible & !(DIRTY | CORRUPT) != 0 || header.refcount_order != 4 {
            return Err(errno(libc::ENOTSUP));
        }
        if header.snapshots > 0 {
            // Their clusters of zeros would have to be written in tables that others share.
            return Err(errno(libc::ENOTSUP));
        }
        self.write_zeros_out().await?;
        self.make_lazy(false).await?;
        for bitmap in self.bitmaps().await? {
            self.remove_bitmap(&bitmap.name).await?;
        }
        self.switch_header(|header| {
            header.version = 2;
            (header.incompatible, header.compatible, header.autoclear) = (0, 0, 0);
            header.unknown.clear();
        })
        .await?;
        self.geometry.set(super::Geometry::of(&self.header.borrow()));
        Ok(())
    }

    /// Writes the zeros that entries only tell of, or gives them up where nothing is below.
    async fn write_zeros_out(&self) -> io::Result<()> {
        let geometry = self.geometry();
        let size = self.size.get();
        let cluster = geometry.cluster();
        let below = self.below().is_some();
        let mut at = 0;
        while at < size {
            let span = cluster << geometry.l2_bits;
            if self.table_of(at)?.is_none() {
                let Some(index) = self.l1.next_used(geometry.l1_index(at) + 1) else { break };
                at = index.saturating_mul(span);
                continue;
            }
            let run = self.run(at, (size - at).min(cluster)).await?;
            if run.what == super::geometry::What::Zero {
                let len = (size - at).min(cluster);
                if !below {
                    self.drop_range_of_guest(at, at + cluster).await?;
                }
                // What the discard has left is written.
                let run = self.run(at, len).await?;
                if run.what != super::geometry::What::Absent || below {
                    self.write_range(at, IoBuf::zeroed(len as usize)).await?;
                }
            }
            at += cluster;
        }
        self.flush_metadata().await?;
        self.release().await
    }

    async fn make_lazy(&self, lazy: bool) -> io::Result<()> {
        if !lazy {
            // What was put off is written first.
            self.settle().await?;
        }
        self.switch_header(|header| {
            header.compatible &= !LAZY_REFCOUNTS;
            header.compatible |= if lazy { LAZY_REFCOUNTS } else { 0 };
        })
        .await?;
        self.lazy.set(self.options.lazy_refcounts.unwrap_or(lazy));
        Ok(())
    }

    /// Writes refcounts of another width beside the old ones and switches to them.
    async fn widen(&self, order: u32) -> io::Result<()> {
        self.settle().await?;
        let mut header = self.header.borrow().clone();
        let done = check::widen(&*self.file, &mut header, order).await;
        self.reload().await.map_err(io::Error::other)?;
        done
    }

    /// Changes the header, durably.
    async fn switch_header(&self, change: impl FnOnce(&mut super::Header)) -> io::Result<()> {
        let old = self.header.borrow().clone();
        change(&mut self.header.borrow_mut());
        let written = self.write_header().await;
        if written.is_err() {
            *self.header.borrow_mut() = old;
        }
        written
    }
}

#[cfg(test)]
#[path = "tests/amend.rs"]
mod tests;
