//! Changing what an image is: its version, its options, the width of its refcounts.
//!
//! Each change is one switch of the header, made when everything it needs is durable. On the
//! image's loop, with nothing else under way.

use std::io;

use resources::iol::IoBuf;

use super::Qcow2;
use super::bytes::errno;
use super::check;
use super::create::version_named;
use super::header::{CORRUPT, DIRTY, Header, LAZY_REFCOUNTS, RAW_DATA};
use crate::image::{BackingFile, BitmapChange, Image};
use crate::node::Node;
use crate::options::{OptionError, Options};

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
    /// Another name of the file with the guest's data.
    pub data_file: Option<String>,
    /// That file need not be a raw image by itself any more.
    pub data_file_any: bool,
}

impl AmendOptions {
    /// Takes them from the options of a new image, for an image with this header.
    ///
    /// # Errors
    /// What is no value of its option, or cannot be changed, in words that clients know.
    pub fn parse(options: &mut Options, header: &Header) -> io::Result<AmendOptions> {
        let invalid = |error: OptionError| refused(error.0);
        let now = (header.backing.clone(), header.backing_format.clone());
        let backing = options.take("backing_file").is_some_and(|name| Some(name) != now.0);
        let format = options.take("backing_fmt").is_some_and(|name| Some(name) != now.1);
        if backing || format {
            return Err(refused("Cannot amend the backing file"));
        }
        let version = options.take("compat").map(|compat| version_named(&compat)).transpose();
        let bits = options.take_number("refcount_bits").map_err(invalid)?;
        let data_file = options.take("data_file");
        if data_file.is_some() && !header.external_data() {
            return Err(refused(
                "data-file can only be set for images that use an external data file",
            ));
        }
        let raw = options.take_switch("data_file_raw").map_err(invalid)?;
        if raw == Some(true) && header.autoclear & RAW_DATA == 0 {
            return Err(refused("data-file-raw cannot be set on existing images"));
        }
        Ok(AmendOptions {
            version: version.map_err(refused)?,
            lazy_refcounts: options.take_switch("lazy_refcounts").map_err(invalid)?,
            backing: None,
            size: options.take_size("size").map_err(invalid)?,
            refcount_bits: bits.map(|bits| u32::try_from(bits).unwrap_or(u32::MAX)),
            data_file,
            data_file_any: raw == Some(false),
        })
    }
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
        if let Some(name) = &options.data_file {
            self.change_header(|header| header.data_file = Some(name.clone())).await?;
        }
        if options.data_file_any {
            self.change_header(|header| header.autoclear &= !RAW_DATA).await?;
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
        if self.header.borrow().snapshots > 0 {
            // Old records do not tell the sizes of disks, which may change from now on.
            self.rewrite_records().await?;
        }
        self.change_header(|header| header.version = 3).await?;
        self.geometry
            .set(super::Geometry::of(&self.header.borrow(), self.options.cache_entry_size));
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
        self.write_zeros_out().await?;
        if header.snapshots > 0 {
            self.write_zeros_of_snapshots().await?;
        }
        self.make_lazy(false).await?;
        for bitmap in self.bitmaps() {
            self.change_bitmap(&bitmap.name, BitmapChange::Remove).await?;
        }
        self.change_header(|header| {
            header.version = 2;
            (header.incompatible, header.compatible, header.autoclear) = (0, 0, 0);
            header.unknown.clear();
        })
        .await?;
        self.geometry
            .set(super::Geometry::of(&self.header.borrow(), self.options.cache_entry_size));
        Ok(())
    }

    /// Writes the zeros that entries only tell of, or gives them up where nothing is below.
    async fn write_zeros_out(&self) -> io::Result<()> {
        let geometry = self.geometry();
        let size = self.size.get();
        let cluster = geometry.cluster();
        let below = self.may_show();
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
        self.change_header(|header| {
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
        self.take_over().await?;
        done
    }
}

#[cfg(test)]
#[path = "tests/amend.rs"]
mod tests;
