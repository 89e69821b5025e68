//! What an image tells about itself, and what it is told.
//!
//! On the image's loop.

use std::io;
use std::rc::Rc;

use resources::iol::IoBuf;

use super::amend::AmendOptions;
use super::bytes::errno;
use super::check;
use super::crypt::{self, Key};
use super::header::{CORRUPT, Compression, Crypt, LAZY_REFCOUNTS, MAX_BACKING_FORMAT, RAW_DATA};
use super::snapshot::Record;
use super::{Preallocation, Qcow2};
use crate::dirty::Bitmap;
use crate::image::{
    BackingFile, BitmapChange, Check, Fact, Facts, Image, PersistentBitmap, Repair, Snapshot,
};
use crate::node::{Node, Op};

impl Qcow2 {
    /// Its contents are encrypted.
    pub(super) fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// The key.
    ///
    /// # Errors
    /// `EACCES` while there is none.
    pub(super) fn key(&self) -> io::Result<Key> {
        self.key.borrow().ok_or(errno(libc::EACCES))
    }

    /// Where the saved states of machines begin, in bytes of the guest's disk.
    pub fn vmstate_offset(&self) -> u64 {
        let geometry = self.geometry();
        let entries = self.header.borrow().l1_entries_for(self.size.get());
        entries << (geometry.cluster_bits + geometry.l2_bits)
    }

    /// Looks at all metadata as they are in the file, and mends some.
    async fn check_open(&self, repair: Repair) -> io::Result<Check> {
        self.alive()?;
        if !self.read_only.get() {
            self.flush_metadata().await?;
            self.release().await?;
            self.write_refcounts().await?;
            self.file.flush().await?;
        } else if repair != Repair::No {
            return Err(errno(libc::EACCES));
        }
        let mut header = self.header.borrow().clone();
        let check = check::run(&*self.file, &mut header, repair).await;
        if repair != Repair::No {
            self.take_over().await?;
        }
        check
    }

    /// Names another backing file in the header.
    async fn name_backing(&self, backing: Option<BackingFile>) -> io::Result<()> {
        self.alive()?;
        if self.read_only.get() {
            return Err(errno(libc::EACCES));
        }
        let (name, format) = match backing {
            Some(backing) => (Some(backing.name), backing.format),
            None => (None, None),
        };
        if format.as_ref().is_some_and(|format| format.len() > MAX_BACKING_FORMAT) {
            return Err(errno(libc::EINVAL));
        }
        self.change_header(|header| (header.backing, header.backing_format) = (name, format)).await
    }

    fn told(&self) -> Facts {
        let header = self.header.borrow();
        let mut specific = Vec::new();
        let compat = if header.version >= 3 { "1.1" } else { "0.10" };
        specific.push(("compat", Fact::Text(compat.into())));
        let kind = match header.compression {
            Compression::Zlib => "zlib",
            Compression::Zstd => "zstd",
        };
        specific.push(("compression-type", Fact::Text(kind.into())));
        if header.version >= 3 {
            let lazy = header.compatible & LAZY_REFCOUNTS != 0;
            specific.push(("lazy-refcounts", Fact::Flag(lazy)));
        }
        let bitmaps = Qcow2::bitmaps(self);
        if !bitmaps.is_empty() {
            specific.push(("bitmaps", Fact::List(bitmaps.into_iter().map(about).collect())));
        }
        specific.push(("refcount-bits", Fact::Number(header.refcount_bits().into())));
        if header.version >= 3 {
            specific.push(("corrupt", Fact::Flag(header.incompatible & CORRUPT != 0)));
            specific.push(("extended-l2", Fact::Flag(header.extended_l2())));
            if let Some(name) = header.data_file.as_ref().filter(|_| header.external_data()) {
                specific.push(("data-file", Fact::Text(name.clone())));
                let raw = header.autoclear & RAW_DATA != 0;
                specific.push(("data-file-raw", Fact::Flag(raw)));
            }
        }
        Facts {
            cluster_size: Some(header.cluster_size()),
            encrypted: header.crypt != Crypt::None,
            dirty: header.incompatible & super::header::DIRTY != 0,
            corrupt: header.incompatible & CORRUPT != 0,
            vmstate_offset: Some(self.vmstate_offset()),
            specific,
        }
    }
}

/// What is told about a bitmap.
fn about(bitmap: PersistentBitmap) -> Vec<(&'static str, Fact)> {
    let flags = [(bitmap.inconsistent, "in-use"), (bitmap.enabled, "auto")];
    let flags = flags.into_iter().filter(|(is, _)| *is).map(|(_, word)| word);
    vec![
        ("flags", Fact::Words(flags.collect())),
        ("name", Fact::Text(bitmap.name)),
        ("granularity", Fact::Number(bitmap.granularity)),
    ]
}

impl Image for Qcow2 {
    fn format(&self) -> &'static str {
        "qcow2"
    }

    fn facts(&self) -> Facts {
        self.told()
    }

    fn backing(&self) -> Option<Rc<dyn Node>> {
        self.below()
    }

    fn set_backing(&self, backing: Option<Rc<dyn Node>>) {
        *self.backing.borrow_mut() = backing;
    }

    fn backing_file(&self) -> Option<BackingFile> {
        let header = self.header.borrow();
        let name = header.backing.clone()?;
        Some(BackingFile { name, format: header.backing_format.clone() })
    }

    fn show_snapshot<'a>(&'a self, id: Option<&'a str>, name: Option<&'a str>) -> Op<'a> {
        Box::pin(Qcow2::show_snapshot(self, id, name))
    }

    fn change_backing_file(&self, backing: Option<BackingFile>) -> Op<'_> {
        Box::pin(self.name_backing(backing))
    }

    fn check(&self, repair: Repair) -> Op<'_, Check> {
        Box::pin(self.check_open(repair))
    }

    fn snapshots(&self) -> Option<Vec<Snapshot>> {
        Some(self.snapshots.borrow().iter().map(Record::snapshot).collect())
    }

    fn create_snapshot(&self, snapshot: Snapshot) -> Op<'_, Snapshot> {
        Box::pin(self.take_snapshot(snapshot))
    }

    fn delete_snapshot(&self, id: &str) -> Op<'_> {
        let id = id.to_owned();
        Box::pin(async move { self.remove_snapshot(&id).await })
    }

    fn identify_snapshot<'a>(&'a self, id: &'a str, to: &'a str) -> Op<'a> {
        Box::pin(Qcow2::identify_snapshot(self, id, to))
    }

    fn apply_snapshot(&self, id: &str) -> Op<'_> {
        let id = id.to_owned();
        Box::pin(async move { self.go_to_snapshot(&id).await })
    }

    fn bitmaps(&self) -> Option<Vec<PersistentBitmap>> {
        Some(Qcow2::bitmaps(self))
    }

    fn bitmap<'a>(&'a self, name: &'a str) -> Op<'a, Bitmap> {
        Box::pin(Qcow2::bitmap(self, name))
    }

    fn change_bitmap<'a>(&'a self, name: &'a str, change: BitmapChange<'a>) -> Op<'a> {
        Box::pin(Qcow2::change_bitmap(self, name, change))
    }

    fn amend<'a>(&'a self, options: &'a mut crate::Options) -> Op<'a> {
        Box::pin(async move {
            let options = AmendOptions::parse(options, &self.header.borrow())?;
            Qcow2::amend(self, &options).await
        })
    }

    fn read_vmstate(&self, offset: u64, buf: IoBuf) -> Op<'_> {
        Box::pin(Qcow2::read_vmstate(self, offset, buf))
    }

    fn write_vmstate(&self, offset: u64, buf: IoBuf) -> Op<'_> {
        Box::pin(Qcow2::write_vmstate(self, offset, buf))
    }

    fn discard_vmstate(&self) -> Op<'_> {
        Box::pin(self.forget_vmstate())
    }

    fn view_snapshot<'a>(&'a self, id: &'a str) -> Op<'a, Rc<dyn Node>> {
        Box::pin(async move {
            let view: Rc<dyn Node> = self.view(id).await?;
            Ok(view)
        })
    }

    fn preallocate(&self, from: u64, to: u64, how: Preallocation) -> Op<'_> {
        Box::pin(self.give_room(from, to, how))
    }

    fn make_empty(&self) -> Op<'_> {
        Box::pin(self.forget_contents())
    }

    fn set_key(&self, password: &str) -> io::Result<()> {
        if !self.is_encrypted() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        *self.key.borrow_mut() = Some(crypt::key(password));
        Ok(())
    }

    fn needs_key(&self) -> bool {
        self.is_encrypted() && self.key.borrow().is_none()
    }
}
