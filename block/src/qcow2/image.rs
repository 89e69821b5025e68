//! What an image tells about itself, and what it is told.
//!
//! On the image's loop.

use std::io;
use std::rc::Rc;

use super::Qcow2;
use super::bytes::errno;
use super::crypt::{self, Key};
use super::header::{CORRUPT, Compression, Crypt, LAZY_REFCOUNTS, RAW_DATA};
use crate::image::{BackingFile, Fact, Facts, Image};
use crate::node::Node;

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

    fn told(&self) -> Facts {
        let header = self.header.borrow();
        let mut specific = Vec::new();
        let compat = if header.version >= 3 { "1.1" } else { "0.10" };
        specific.push(("compat", Fact::Text(compat.into())));
        if header.version >= 3 {
            let kind = match header.compression {
                Compression::Zlib => "zlib",
                Compression::Zstd => "zstd",
            };
            specific.push(("compression-type", Fact::Text(kind.into())));
            let lazy = header.compatible & LAZY_REFCOUNTS != 0;
            specific.push(("lazy-refcounts", Fact::Flag(lazy)));
            specific.push(("refcount-bits", Fact::Number(header.refcount_bits().into())));
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
