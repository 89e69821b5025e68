//! Opening an image, letting it be written, and closing it.
//!
//! On the loop where the graph will live. Only the header, the active L1 table and the refcount
//! table are read; all three are bounded by the header's checks.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use resources::iol::Local;

use super::alloc::Alloc;
use super::cache::Cache;
use super::geometry::Geometry;
use super::header::{BITMAPS, CORRUPT, Crypt, DIRTY, Header, LAZY_REFCOUNTS, RAW_DATA, V2_LENGTH};
use super::l1::L1;
use super::options::{
    DEFAULT_CLEAN_INTERVAL, DEFAULT_L2_CACHE, DEFAULT_REFCOUNT_CACHE, OpenError, Options,
};
use super::{Qcow2, access::load, bytes::be64, check_file, snapshot};
use crate::image::Repair;
use crate::node::{Node, Op};

/// Bytes of the header that are read first: with small images this is all.
const FIRST: usize = 4096;

/// Reads the header of the image in `file`.
///
/// # Errors
/// What is wrong with it, with the texts that clients know; `device` is the name they speak of.
pub async fn read_header(file: &dyn Node, device: &str) -> Result<Header, OpenError> {
    let cannot = |error| OpenError::io("Could not read qcow2 header", &error);
    let size = usize::try_from(file.info().size).unwrap_or(usize::MAX);
    let mut data = load(file, 0, size.min(FIRST) as u64).await.map_err(cannot)?;
    let wanted = Header::wanted(&data).min(size);
    if wanted > data.len() && data.len() >= V2_LENGTH {
        data = load(file, 0, wanted as u64).await.map_err(cannot)?;
    }
    Header::parse(&data).map_err(|error| OpenError::Header { error, device: device.to_owned() })
}

/// Reads a table of 64-bit entries; the caller has bounded it.
pub(super) async fn load_table(file: &dyn Node, offset: u64, count: usize) -> io::Result<Vec<u64>> {
    let bytes = load(file, offset, count as u64 * 8).await?;
    Ok(bytes.chunks_exact(8).map(|entry| be64(entry, 0)).collect())
}

/// Opens the image in `file`.
///
/// # Errors
/// What is wrong with the image, with the texts that clients know.
pub async fn open(
    local: &Local,
    file: Rc<dyn Node>,
    options: Options,
) -> Result<Rc<Qcow2>, OpenError> {
    let header = read_header(&*file, &options.device).await?;
    if header.refcount_table_clusters == 0 && !options.check {
        return Err(OpenError::new("Image does not contain a reference count table", libc::EINVAL));
    }
    refuse_corrupt(&header, !options.read_only && !options.check)?;
    if header.external_data() && options.data_file.is_none() {
        return Err(OpenError::new("'data-file' is required for this image", libc::EINVAL));
    }
    if !header.external_data() && options.data_file.is_some() {
        return Err(OpenError::new(
            "'data-file' can only be set for images with an external data file",
            libc::EINVAL,
        ));
    }
    if options.lazy_refcounts == Some(true) && header.version < 3 {
        return Err(OpenError::new(
            "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level",
            libc::EINVAL,
        ));
    }
    let sizes = 512..=header.cluster_size();
    if options
        .cache_entry_size
        .is_some_and(|size| !size.is_power_of_two() || !sizes.contains(&size))
    {
        let most = header.cluster_size();
        return Err(OpenError::new(
            format!(
                "L2 cache entry size must be a power of two between 512 and the cluster size ({most})"
            ),
            libc::EINVAL,
        ));
    }
    let (l1, table) = load_tables(&*file, &header).await?;
    let image = Rc::new(build(local, file, header, options, l1, table));
    image.load_snapshots().await?;
    image.load_bitmaps().await?;
    if !image.read_only.get() {
        image.begin_writing().await?;
    }
    clean_caches(&image);
    Ok(image)
}

/// Has what nobody uses leave the caches, as long as the image is there.
fn clean_caches(image: &Rc<Qcow2>) {
    let seconds = image.options.cache_clean_interval.unwrap_or(DEFAULT_CLEAN_INTERVAL);
    let interval = Duration::from_secs(seconds.min(u64::from(u32::MAX)));
    if interval.is_zero() {
        return;
    }
    let (local, image) = (image.local.clone(), Rc::downgrade(image));
    let timer = local.clone();
    let clean = async move {
        loop {
            timer.sleep(interval).await;
            let Some(image) = image.upgrade() else { return };
            image.l2.clean();
            image.counts.clean();
        }
    };
    local.spawn(clean).detach();
}

/// The active L1 table and the refcount table.
async fn load_tables(file: &dyn Node, header: &Header) -> Result<(Vec<u64>, Vec<u64>), OpenError> {
    let l1 = load_table(file, header.l1_offset, header.l1_entries as usize)
        .await
        .map_err(|error| OpenError::io("Could not read L1 table", &error))?;
    let entries = (u64::from(header.refcount_table_clusters) << header.cluster_bits) / 8;
    let table = load_table(file, header.refcount_table_offset, entries as usize)
        .await
        .map_err(|error| OpenError::io("Could not initialize refcount handling", &error))?;
    Ok((l1, table))
}

fn refuse_corrupt(header: &Header, writable: bool) -> Result<(), OpenError> {
    if writable && header.incompatible & CORRUPT != 0 {
        let text = "qcow2: Image is corrupt; cannot be opened read/write";
        return Err(OpenError::new(text, libc::EACCES));
    }
    Ok(())
}

fn build(
    local: &Local,
    file: Rc<dyn Node>,
    header: Header,
    options: Options,
    l1: Vec<u64>,
    table: Vec<u64>,
) -> Qcow2 {
    let geometry = Geometry::of(&header, options.cache_entry_size);
    let slice = geometry.slice();
    let data = options.data_file.clone().unwrap_or_else(|| file.clone());
    let encrypted = header.crypt != Crypt::None;
    let fresh = file.info().size.div_ceil(header.cluster_size());
    Qcow2 {
        local: local.clone(),
        l2: Cache::new(slice, options.l2_cache_size.unwrap_or(DEFAULT_L2_CACHE)),
        counts: Cache::new(slice, options.refcount_cache_size.unwrap_or(DEFAULT_REFCOUNT_CACHE)),
        alloc: Alloc::new(table, fresh),
        l1: L1::new(l1),
        size: Cell::new(header.size),
        lazy: Cell::new(false),
        geometry: Cell::new(geometry),
        header: RefCell::new(header),
        read_only: Cell::new(options.read_only),
        backing: RefCell::new(options.backing.clone()),
        file,
        data,
        options,
        dead: Cell::new(false),
        told: Cell::new(false),
        encrypted,
        key: RefCell::new(None),
        flights: Default::default(),
        epochs: Default::default(),
        ordering: Default::default(),
        tables: Default::default(),
        header_turn: Default::default(),
        sectors: Default::default(),
        metadata: Default::default(),
        snapshots: Default::default(),
        bitmaps: Default::default(),
        unpacked: RefCell::new(None),
    }
}

impl Qcow2 {
    /// What has to be done before the first write: features that clear themselves, and repair
    /// after a crash.
    async fn begin_writing(&self) -> Result<(), OpenError> {
        let lost_bitmaps = self.has_lost_bitmaps() && !self.options.check;
        let (dirty, kept) = {
            let header = self.header.borrow();
            let lazy = self.options.lazy_refcounts;
            self.lazy.set(lazy.unwrap_or(header.compatible & LAZY_REFCOUNTS != 0));
            let mut kept = if header.external_data() { RAW_DATA } else { 0 };
            kept |= if lost_bitmaps { 0 } else { BITMAPS };
            (header.incompatible & DIRTY != 0, kept)
        };
        if self.header.borrow().autoclear & !kept != 0 {
            let done = self.change_header(|header| header.autoclear &= kept).await;
            done.map_err(|error| OpenError::io("Could not update qcow2 header", &error))?;
        }
        if dirty && !self.options.check {
            let cannot = |error| OpenError::io("Could not repair dirty image", &error);
            let found = check_file(&*self.file, Repair::All).await.map_err(cannot)?;
            if found.corruptions > 0 || found.check_errors > 0 {
                return Err(cannot(io::Error::from_raw_os_error(libc::EIO)));
            }
            self.reload().await?;
        }
        if !self.options.check {
            let follow = self.follow_writes().await;
            follow.map_err(|error| OpenError::io("Could not mark bitmaps as in use", &error))?;
        }
        Ok(())
    }

    /// Reads everything anew, when somebody else has changed the file and nothing is in memory
    /// that the file does not have.
    pub(super) async fn reload(&self) -> Result<(), OpenError> {
        let header = read_header(&*self.file, &self.options.device).await?;
        let (l1, table) = load_tables(&*self.file, &header).await?;
        self.size.set(header.size);
        self.geometry.set(Geometry::of(&header, self.options.cache_entry_size));
        *self.header.borrow_mut() = header;
        self.l1.replace(l1);
        self.alloc.replace(table);
        self.l2.clear();
        self.counts.clear();
        self.metadata.forget();
        *self.unpacked.borrow_mut() = None;
        self.load_bitmaps().await?;
        self.load_snapshots().await
    }

    /// Takes over what was done to the file past all caches, and makes it durable: it may have
    /// ended in the middle. If that fails, the image is out of service.
    pub(super) async fn take_over(&self) -> io::Result<()> {
        let taken = async {
            self.reload().await.map_err(io::Error::other)?;
            self.file.flush().await
        };
        let taken = taken.await;
        self.dead.set(self.dead.get() || taken.is_err());
        taken
    }

    async fn load_snapshots(&self) -> Result<(), OpenError> {
        let header = self.header.borrow().clone();
        let (records, bytes) = snapshot::load_table(&*self.file, &header)
            .await
            .map_err(|error| OpenError::io("Could not read snapshots", &error))?;
        self.set_snapshots(records, bytes);
        Ok(())
    }

    /// Takes a list of snapshots that the file has, in a table of so many bytes.
    pub(super) fn set_snapshots(&self, records: Vec<snapshot::Record>, bytes: u64) {
        let l1s = records.iter().map(|one| (one.l1_offset, u64::from(one.l1_entries)));
        *self.metadata.inactive.borrow_mut() = l1s.collect();
        self.metadata.snapshot_table.set(bytes);
        *self.snapshots.borrow_mut() = records;
    }

    /// Says in the image that its refcounts are right. They are, durably.
    pub(super) async fn clear_dirty(&self) -> io::Result<()> {
        if self.header.borrow().incompatible & DIRTY == 0 {
            return Ok(());
        }
        self.change_header(|header| header.incompatible &= !DIRTY).await
    }

    /// Everything is durable, in order, and the refcounts are right.
    pub(super) async fn settle(&self) -> io::Result<()> {
        if self.read_only.get() || self.dead.get() {
            return Ok(());
        }
        self.flush_metadata().await?;
        self.release().await?;
        self.write_refcounts().await?;
        self.file.flush().await?;
        if self.options.check {
            // Only the check knows.
            return Ok(());
        }
        self.clear_dirty().await
    }

    async fn forbid_writes(&self) -> io::Result<()> {
        self.settle().await?;
        self.file.reopen(true).await?;
        if self.geometry().external {
            self.data.reopen(true).await?;
        }
        self.read_only.set(true);
        Ok(())
    }

    pub(super) fn reopen_as<'a>(&'a self, read_only: bool) -> Op<'a> {
        Box::pin(async move {
            if read_only == self.read_only.get() {
                return Ok(());
            }
            if read_only {
                self.store_bitmaps().await?;
                let done = self.forbid_writes().await;
                if done.is_err() && self.follow_writes().await.is_err() {
                    // Nobody would notice what is written.
                    self.dead.set(true);
                }
                return done;
            }
            refuse_corrupt(&self.header.borrow(), true).map_err(io::Error::other)?;
            self.file.reopen(false).await?;
            if self.geometry().external
                && let Err(error) = self.data.reopen(false).await
            {
                self.file.reopen(true).await?;
                return Err(error);
            }
            self.read_only.set(false);
            if let Err(error) = self.begin_writing().await {
                self.read_only.set(true);
                self.file.reopen(true).await?;
                return Err(io::Error::other(error));
            }
            Ok(())
        })
    }
}
