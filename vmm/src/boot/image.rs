//! A file to boot from: opened once, read again at every reset.
//!
//! Main thread only: reading moves the file's offset. The file is not trusted, and it may change
//! or shrink between two reads; every read is checked and short files are errors.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use resources::fdset;
use rustix::fs::{Mode, OFlags};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

use super::Error;

/// Why an image is refused that has less than it says.
pub(super) const TRUNCATED: &str = "it ends too early";

/// An open kernel, initrd or firmware file; clones are the same file.
#[derive(Clone, Debug)]
pub(super) struct Image {
    what: &'static str,
    path: PathBuf,
    file: Arc<fdset::File>,
}

impl Image {
    /// Opens the regular file `path`; `what` is the word for it in error messages.
    pub(super) fn open(what: &'static str, path: &Path) -> Result<Self, Error> {
        let error = |source| Error::Open { what, path: path.to_owned(), source };
        let file = fdset::open(path, OFlags::RDONLY, Mode::empty()).map_err(error)?;
        let image = Self { what, path: path.to_owned(), file: Arc::new(file) };
        // A pipe or a terminal has no length and cannot be read again at reset.
        let kind = image.file.metadata().map_err(error)?.file_type();
        if !kind.is_file() {
            return Err(image.refused("it is not a regular file"));
        }
        Ok(image)
    }

    /// The same from a file that is open already and has no name.
    pub(super) fn from_file(what: &'static str, file: File) -> Self {
        Self { what, path: PathBuf::from("(memory)"), file: Arc::new(file.into()) }
    }

    /// The path it was opened by.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, to copy from.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// The error that this image cannot be booted, for `reason`.
    pub(super) fn refused(&self, reason: impl Into<String>) -> Error {
        Error::Refused { what: self.what, path: self.path.clone(), reason: reason.into() }
    }

    fn unreadable(&self, error: impl std::fmt::Display) -> Error {
        self.refused(format!("reading it failed: {error}"))
    }

    /// The file's present length in bytes.
    pub(super) fn len(&self) -> Result<u64, Error> {
        Ok(self.file.metadata().map_err(|e| self.unreadable(e))?.len())
    }

    /// Up to `len` bytes from `offset`; fewer at the end of the file.
    pub(super) fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        if i64::try_from(offset).is_err() {
            return Ok(Vec::new()); // The system's reads take no such offset; no file is as long.
        }
        let mut buf = vec![0; len];
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.unreadable(e)),
            }
        }
        buf.truncate(done);
        Ok(buf)
    }

    /// Reads `len` bytes from `offset` straight into guest memory at `addr`, without a copy in
    /// this process.
    pub(super) fn load<M: GuestMemory>(
        &self,
        offset: u64,
        len: u64,
        mem: &M,
        addr: u64,
    ) -> Result<(), Error> {
        let mut file = self.file();
        file.seek(SeekFrom::Start(offset)).map_err(|e| self.unreadable(e))?;
        let mut done = 0;
        while done < len {
            let rest = usize::try_from(len - done).unwrap_or(usize::MAX);
            match mem.read_volatile_from(GuestAddress(addr.saturating_add(done)), &mut file, rest) {
                Ok(0) => return Err(self.refused(TRUNCATED)),
                Ok(n) => done += n as u64,
                Err(e) => return Err(self.unreadable(e)),
            }
        }
        Ok(())
    }
}
