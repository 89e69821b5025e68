//! The qcow2 format.
//!
//! | piece | file |
//! |---|---|
//! | the header and its extensions | `header/`, names of features in `names.rs` |
//! | opening, reopening, closing | `open.rs`, how in `options.rs` |
//! | changing the header | `switch.rs` |
//! | addresses and L2 entries | `geometry.rs` |
//! | the active L1 table, own L2 tables | `l1.rs` |
//! | slices of tables in memory | `cache.rs` |
//! | what is durable before what | `flush.rs` |
//! | finding and reading data | `read.rs` |
//! | writing data | `write.rs` |
//! | zeros and discards | `zero.rs` |
//! | refcounts, allocation | `alloc/`, in their blocks `refcount.rs` |
//! | keeping writes off metadata | `overlap.rs` |
//! | another size | `resize.rs` |
//! | packing, encryption | `compress.rs`, `crypt.rs` |
//! | what it tells about itself | `image.rs` |
//! | making an image | `create.rs` |
//! | the row of the format: options as data | `driver.rs` |
//! | another version, other options | `amend.rs` |
//! | how large an image would become | `measure.rs` |
//! | checking and mending | `check/` |
//! | internal snapshots | `snapshot/` |
//! | persistent dirty bitmaps | `bitmap/` |
//! | how tasks wait for one another | `sync.rs` |
//! | metadata past every cache | `access.rs` |
//! | integers in bytes | `bytes.rs` |
//!
//! An image lives on one loop, without locks. Its contents are whoever made it's: tables are
//! bounded, entries are checked where they are used, and what contradicts itself is an error of
//! the operation and is told to [`options::OnCorruption`].

mod access;
pub mod alloc;
pub mod amend;
pub mod bitmap;
mod bytes;
mod cache;
mod check;
mod compress;
pub mod create;
mod crypt;
pub mod driver;
mod flush;
pub mod fuzz;
mod geometry;
pub mod header;
mod image;
mod l1;
pub mod measure;
mod names;
mod open;
pub mod options;
mod overlap;
mod read;
mod refcount;
mod resize;
mod snapshot;
mod switch;
mod sync;
#[cfg(test)]
mod tests;
mod write;
mod zero;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use resources::iol::{IoBuf, Local};

pub use check::check_file;
pub use create::{CreateError, CreateOptions, Preallocation, create};
pub use header::{Header, HeaderError};
pub use measure::{Measure, Touched, measure};
pub use open::{open, read_header};
pub use options::{Corruption, OpenError, Options, OverlapCheck, PassDiscard};

use crate::image::Image;
use crate::node::{Extent, Info, Node, Op, Zero};
use crate::wait::Turnstile;
use bytes::errno;
use geometry::Geometry;

/// An open image.
pub struct Qcow2 {
    local: Local,
    file: Rc<dyn Node>,
    /// Where the guest's data are: `file`, or a file of their own.
    data: Rc<dyn Node>,
    backing: RefCell<Option<Rc<dyn Node>>>,
    options: Options,
    /// As it is in the file, or about to be.
    header: RefCell<Header>,
    geometry: Cell<Geometry>,
    size: Cell<u64>,
    read_only: Cell<bool>,
    /// Taken out of service.
    dead: Cell<bool>,
    /// It was told that the image contradicts itself.
    told: Cell<bool>,
    /// Refcounts are written when the image is closed.
    lazy: Cell<bool>,
    encrypted: bool,
    key: RefCell<Option<crypt::Key>>,
    l1: l1::L1,
    l2: cache::Cache,
    counts: cache::Cache,
    alloc: alloc::Alloc,
    flights: sync::Flights,
    epochs: sync::Epochs,
    ordering: flush::Ordering,
    metadata: overlap::Metadata,
    snapshots: RefCell<Vec<snapshot::Record>>,
    bitmaps: bitmap::Bitmaps,
    /// Held by whoever makes L2 tables.
    tables: Turnstile,
    /// Held by whoever changes the header.
    header_turn: Turnstile,
    /// Held by whoever writes parts of encrypted sectors.
    sectors: Turnstile,
    /// The compressed cluster that was read last, by its entry.
    unpacked: RefCell<Option<(u64, IoBuf)>>,
}

impl Qcow2 {
    fn geometry(&self) -> Geometry {
        self.geometry.get()
    }

    /// Lets fault injection have its say.
    async fn step(&self, name: &'static str) -> io::Result<()> {
        match self.file.step(name) {
            Some(step) => step.await,
            None => Ok(()),
        }
    }

    /// A range that the guest may use.
    fn check_range(&self, offset: u64, len: u64) -> io::Result<()> {
        self.alive()?;
        match offset.checked_add(len) {
            Some(end) if end <= self.size.get() => Ok(()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn check_write(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.read_only.get() {
            return Err(errno(libc::EACCES));
        }
        self.check_range(offset, len)
    }

    /// Reads of the saved state of a machine, which begins at
    /// [`vmstate_offset`](Self::vmstate_offset); zeros where nothing was written.
    ///
    /// # Errors
    /// Those of the file.
    pub async fn read_vmstate(&self, offset: u64, buf: IoBuf) -> io::Result<()> {
        self.alive()?;
        let at = self.vmstate_offset().checked_add(offset).ok_or(errno(libc::EFBIG))?;
        self.step("vmstate_load").await?;
        self.read_range(at, buf).await
    }

    /// Writes of the saved state of a machine. Nothing else is under way.
    ///
    /// # Errors
    /// Those of the file; `EFBIG` when the tables cannot map so much.
    pub async fn write_vmstate(&self, offset: u64, buf: IoBuf) -> io::Result<()> {
        self.check_write(0, 0)?;
        let at = self.vmstate_offset().checked_add(offset).ok_or(errno(libc::EFBIG))?;
        let end = at.checked_add(buf.len() as u64).ok_or(errno(libc::EFBIG))?;
        self.step("vmstate_save").await?;
        let entries = self.header.borrow().l1_entries_for(end);
        self.grow_l1(entries).await?;
        self.write_range(at, buf).await
    }
}

/// Runs an operation if its range is right.
fn checked<'a, T: 'a>(check: io::Result<()>, op: impl FnOnce() -> Op<'a, T>) -> Op<'a, T> {
    match check {
        Ok(()) => op(),
        Err(error) => Box::pin(async { Err(error) }),
    }
}

impl Node for Qcow2 {
    fn info(&self) -> Info {
        let file = self.data.info();
        Info {
            size: self.size.get(),
            align: if self.encrypted { file.align.max(512) } else { file.align },
            sectors: None,
            discards: self.options.discard,
            read_only: self.read_only.get(),
        }
    }

    fn read(&self, offset: u64, buf: IoBuf) -> Op<'_> {
        checked(self.check_range(offset, buf.len() as u64), || self.read_now(offset, buf))
    }

    fn write(&self, offset: u64, buf: IoBuf, durable: bool) -> Op<'_> {
        let check = self.check_write(offset, buf.len() as u64);
        checked(check, || {
            self.bitmaps.touch(offset, buf.len() as u64);
            self.write_now(offset, buf, durable)
        })
    }

    fn zero(&self, offset: u64, len: u64, how: Zero) -> Op<'_> {
        let check = self.check_write(offset, len);
        checked(check, || {
            self.bitmaps.touch(offset, len);
            Box::pin(self.zero_range(offset, len, how))
        })
    }

    fn zero_fast(&self, offset: u64, len: u64, how: Zero) -> Op<'_> {
        if !self.geometry().zeros {
            return Box::pin(async { Err(io::ErrorKind::Unsupported.into()) });
        }
        self.zero(offset, len, how)
    }

    fn discard(&self, offset: u64, len: u64) -> Op<'_> {
        let check = self.check_write(offset, len);
        checked(check, || {
            self.bitmaps.touch(offset, len);
            Box::pin(self.discard_range(offset, len))
        })
    }

    fn flush(&self) -> Op<'_> {
        Box::pin(self.flush_all())
    }

    fn map(&self, offset: u64, len: u64) -> Op<'_, Extent> {
        checked(self.check_range(offset, 0), || Box::pin(self.extent(offset, len)))
    }

    fn write_compressed(&self, offset: u64, buf: IoBuf) -> Op<'_> {
        let check = self.check_write(offset, buf.len() as u64);
        checked(check, || {
            self.bitmaps.touch(offset, buf.len() as u64);
            Box::pin(self.write_packed(offset, buf))
        })
    }

    fn reopen(&self, read_only: bool) -> Op<'_> {
        checked(self.alive(), || self.reopen_as(read_only))
    }

    fn close(&self) -> Op<'_> {
        Box::pin(async move {
            if let Err(error) = self.store_bitmaps().await {
                // They stay marked as in use; the data are worth more.
                tracing::warn!(%error, "lost the persistent bitmaps of an image");
            }
            self.settle().await?;
            if self.geometry().external {
                self.data.close().await?;
            }
            self.file.close().await
        })
    }

    fn image(&self) -> Option<&dyn Image> {
        Some(self)
    }

    fn resize(&self, size: u64) -> Op<'_> {
        checked(self.check_write(0, 0), || Box::pin(self.set_size(size)))
    }

    fn children(&self) -> Vec<(&'static str, Rc<dyn Node>)> {
        let mut children = vec![("file", self.file.clone())];
        if self.geometry().external {
            children.push(("data-file", self.data.clone()));
        }
        if let Some(backing) = self.below() {
            children.push(("backing", backing));
        }
        children
    }
}
