//! Opening files and block devices of the host as disks.
//!
//! Any thread; opening may block as long as the host's file system does. No lock. Names come from
//! users and clients, and go through the process's descriptor sets.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use resources::fdset;
use resources::iol::IoBuf;
use rustix::fs::{FileType, Mode, OFlags, SeekFrom, fstat, seek};

use crate::lock;

/// How written data is kept before it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cache {
    /// Writes may stay in caches until a flush; otherwise each one is durable when it is done.
    pub writeback: bool,
    /// Past the host's page cache (`O_DIRECT`).
    pub direct: bool,
    /// Flushes do nothing: a crash of the host may lose everything.
    pub no_flush: bool,
}

impl Default for Cache {
    fn default() -> Cache {
        Cache { writeback: true, direct: false, no_flush: false }
    }
}

impl Cache {
    /// The mode that `cache=` names.
    pub fn named(name: &str) -> Option<Cache> {
        let (writeback, direct, no_flush) = match name {
            "writeback" => (true, false, false),
            "none" | "off" => (true, true, false),
            "writethrough" => (false, false, false),
            "directsync" => (false, true, false),
            "unsafe" => (true, false, true),
            _ => return None,
        };
        Some(Cache { writeback, direct, no_flush })
    }
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOptions {
    /// Nothing will be written.
    pub read_only: bool,
    /// How it is cached.
    pub cache: Cache,
    /// A discard gives room back.
    pub discard: bool,
    /// It has to be a block device (`host_device`), or must not be anything but a file or one.
    pub device: bool,
    /// Lock it against other programs.
    pub locking: bool,
    /// They may write it, though.
    pub share_writes: bool,
    /// Read and write it by threads, even where there is io_uring.
    pub threads: bool,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        let cache = Cache::default();
        OpenOptions {
            read_only: false,
            cache,
            discard: false,
            device: false,
            locking: true,
            share_writes: false,
            threads: false,
        }
    }
}

/// An image that cannot be opened. The texts are those that clients know.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The host refuses.
    #[error("Could not open '{name}': {}", errno_text(.error))]
    Open {
        /// The file.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// Somebody else uses it.
    #[error("Could not open '{name}': {reason}")]
    Locked {
        /// The file.
        name: String,
        /// How.
        reason: String,
    },
    /// It is neither a file nor a block device.
    #[error("Could not open '{0}': it is neither a regular file nor a block device")]
    Kind(String),
    /// Its length is not to be had.
    #[error("Could not refresh total sector count: {}", errno_text(.0))]
    Size(io::Error),
}

/// The C library's text of an error, as clients expect it behind a colon.
pub fn errno_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(at) => text.get(..at).unwrap_or_default().to_owned(),
        None => text,
    }
}

/// What an error says, in its own words or those of the C library: of our own kinds, what guests
/// see.
pub fn why(error: &io::Error) -> String {
    if error.get_ref().is_some() {
        // It has words of its own.
        return error.to_string();
    }
    let number = error.raw_os_error().or(match error.kind() {
        io::ErrorKind::Unsupported => Some(libc::ENOTSUP),
        io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => Some(libc::EIO),
        io::ErrorKind::PermissionDenied => Some(libc::EACCES),
        io::ErrorKind::ReadOnlyFilesystem => Some(libc::EROFS),
        io::ErrorKind::StorageFull => Some(libc::ENOSPC),
        io::ErrorKind::NotFound => Some(libc::ENOENT),
        io::ErrorKind::AlreadyExists => Some(libc::EEXIST),
        io::ErrorKind::OutOfMemory => Some(libc::ENOMEM),
        _ => None,
    });
    match number {
        Some(number) => errno_text(&io::Error::from_raw_os_error(number)),
        None => error.to_string(),
    }
}

/// An open file of the host.
#[derive(Debug)]
pub struct HostFile {
    name: String,
    fd: Arc<OwnedFd>,
    /// Keeps a descriptor's set in use.
    _file: fdset::File,
    options: OpenOptions,
    /// As the options say at first.
    share_writes: AtomicBool,
    block_device: bool,
    size: AtomicU64,
    align: u32,
    memory_align: u32,
    sectors: Option<(u32, u32)>,
}

impl Drop for HostFile {
    /// Locks live as long as anybody has the open file, and a child process that is just being made
    /// has it until it runs its program. A descriptor of an fdset is shared with others.
    fn drop(&mut self) {
        if self.options.locking && !self.name.starts_with("/dev/fdset/") {
            lock::unlock(self.fd.as_fd());
        }
    }
}

impl HostFile {
    /// Opens an image and locks it.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn open(name: &str, options: OpenOptions) -> Result<Arc<HostFile>, HostError> {
        let file = open_as(name, name, options)?;
        HostFile::of(name, file, options)
    }

    /// The same file, opened again to be written or not to be; its locks go over to the new one.
    /// On failure everything is as before. May block.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn reopen(&self, read_only: bool) -> Result<Arc<HostFile>, HostError> {
        let name = self.name.as_str();
        let share_writes = self.share_writes.load(Relaxed);
        let options = OpenOptions { read_only, share_writes, ..self.options };
        let file = if name.starts_with("/dev/fdset/") {
            open_as(name, name, options)?
        } else {
            // The name may mean another file by now, the descriptor cannot.
            let same = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
            open_as(&same, name, options)?
        };
        if options.locking {
            lock::unlock(self.fd.as_fd());
        }
        HostFile::of(name, file, options).inspect_err(|_| {
            if self.relock(share_writes).is_err() {
                tracing::warn!("the lock of '{name}' was lost while it was opened again");
            }
        })
    }

    /// Says whether other programs may write it. On failure everything is as before.
    ///
    /// # Errors
    /// They must not, but one does.
    pub fn share_writes(&self, shared: bool) -> Result<(), HostError> {
        let before = self.share_writes.load(Relaxed);
        match self.relock(shared) {
            Ok(()) => {
                self.share_writes.store(shared, Relaxed);
                Ok(())
            }
            Err(reason) => {
                // What it had before, nobody else can have taken meanwhile.
                let _ = self.relock(before);
                Err(HostError::Locked { name: self.name.clone(), reason: reason.to_string() })
            }
        }
    }

    fn relock(&self, shared: bool) -> Result<(), lock::LockError> {
        if !self.options.locking {
            return Ok(());
        }
        lock::lock(self.fd.as_fd(), !self.options.read_only, shared)
    }

    fn of(name: &str, file: fdset::File, options: OpenOptions) -> Result<Arc<HostFile>, HostError> {
        let refused = |error: io::Error| HostError::Open { name: name.to_owned(), error };
        let stat = fstat(&file).map_err(|error| refused(error.into()))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let block_device = match kind {
            FileType::BlockDevice => true,
            FileType::RegularFile if !options.device => false,
            FileType::Directory => {
                return Err(refused(io::Error::from_raw_os_error(libc::EISDIR)));
            }
            _ => return Err(HostError::Kind(name.to_owned())),
        };
        if options.locking {
            let locked = lock::lock(file.as_fd(), !options.read_only, options.share_writes);
            locked.map_err(|reason| HostError::Locked {
                name: name.to_owned(),
                reason: reason.to_string(),
            })?;
        }
        let fd = file.as_fd().try_clone_to_owned().map_err(&refused)?;
        let size = length(&fd).map_err(HostError::Size)?;
        let (align, memory_align) =
            if options.cache.direct { alignment(&fd, size) } else { (1, 1) };
        let sectors = block_device.then(|| sectors(&fd)).flatten();
        Ok(Arc::new(HostFile {
            name: name.to_owned(),
            fd: Arc::new(fd),
            _file: file,
            share_writes: AtomicBool::new(options.share_writes),
            options,
            block_device,
            size: AtomicU64::new(size),
            align,
            memory_align,
            sectors,
        }))
    }

    /// The name it was opened by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The descriptor.
    pub fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// How it was opened.
    pub fn options(&self) -> &OpenOptions {
        &self.options
    }

    /// Whether it is a block device.
    pub fn is_block_device(&self) -> bool {
        self.block_device
    }

    /// The name of its driver.
    pub fn driver(&self) -> &'static str {
        if self.block_device { "host_device" } else { "file" }
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size.load(Relaxed)
    }

    /// What direct I/O wants offsets and lengths to be multiples of; 1 without.
    pub fn align(&self) -> u32 {
        self.align
    }

    /// What direct I/O wants addresses to be multiples of; 1 without.
    pub fn memory_align(&self) -> u32 {
        self.memory_align
    }

    /// Logical and physical sector size of a block device.
    pub fn sectors(&self) -> Option<(u32, u32)> {
        self.sectors
    }

    /// Bytes it takes on the host.
    pub fn allocated(&self) -> Option<u64> {
        let stat = fstat(&*self.fd).ok()?;
        u64::try_from(stat.st_blocks).ok()?.checked_mul(512)
    }

    /// It has grown by a write.
    pub(crate) fn reaches(&self, end: u64) {
        self.size.fetch_max(end, Relaxed);
    }

    /// Makes a file of this size; a block device must be as large already. May block.
    pub(crate) fn set_size(&self, size: u64) -> io::Result<()> {
        if self.block_device {
            if size > length(&self.fd)? {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        } else {
            rustix::fs::ftruncate(&*self.fd, size)?;
        }
        self.size.store(size, Relaxed);
        Ok(())
    }

    /// Makes an empty file of this name, or empties the one there is, unless another program or
    /// a drive of this one uses it. May block.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn create(name: &str) -> Result<(), HostError> {
        let refused = |error| HostError::Open { name: name.to_owned(), error };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOCTTY;
        let file = fdset::open(name, flags, Mode::from_raw_mode(0o644)).map_err(refused)?;
        let stat = fstat(&file).map_err(|error| refused(error.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            // It cannot be emptied; whoever opens it says what else is wrong.
            return Ok(());
        }
        let locked = lock::lock(file.as_fd(), true, false);
        let emptied = match locked {
            Ok(()) => rustix::fs::ftruncate(&file, 0).map_err(|error| refused(error.into())),
            Err(reason) => {
                Err(HostError::Locked { name: name.to_owned(), reason: reason.to_string() })
            }
        };
        if !name.starts_with("/dev/fdset/") {
            // See `drop`.
            lock::unlock(file.as_fd());
        }
        emptied
    }
}

/// Opens `path`, which `name` is told for.
fn open_as(path: &str, name: &str, options: OpenOptions) -> Result<fdset::File, HostError> {
    let mut flags = if options.read_only { OFlags::RDONLY } else { OFlags::RDWR };
    if options.cache.direct {
        flags |= OFlags::DIRECT;
    }
    // A FIFO or a terminal must not make us wait; a file does not mind.
    flags |= OFlags::NONBLOCK | OFlags::NOCTTY;
    fdset::open(path, flags, Mode::empty()).map_err(|error| {
        let error = match error.raw_os_error() {
            Some(libc::EROFS) => io::Error::from_raw_os_error(libc::EACCES),
            _ => error,
        };
        HostError::Open { name: name.to_owned(), error }
    })
}

/// The size of a file or a block device. Descriptors are read and written at offsets only, so
/// moving its position disturbs nobody.
fn length(fd: &OwnedFd) -> io::Result<u64> {
    Ok(seek(fd, SeekFrom::End(0))?)
}

/// Finds out by trying what direct I/O wants: alignment of offsets and of addresses.
fn alignment(fd: &OwnedFd, size: u64) -> (u32, u32) {
    let buf = IoBuf::zeroed(8192);
    let reads = |at: usize, len: usize| buf.slice(at..at + len).readv(fd, Some(0)).is_ok();
    if size == 0 {
        // Nothing to be read, so nothing is refused.
        return (4096, 4096);
    }
    let sizes = [512u32, 1024, 2048, 4096];
    let align = sizes.into_iter().find(|len| reads(0, *len as usize)).unwrap_or(4096);
    let memory = sizes.into_iter().find(|at| reads(*at as usize, 4096)).unwrap_or(4096);
    (align, memory)
}

/// Logical and physical sector size, as the kernel tells them in `/sys`.
fn sectors(fd: &OwnedFd) -> Option<(u32, u32)> {
    let device = fstat(fd).ok()?.st_rdev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let queue = |what: &str| {
        // A partition has no queue of its own, its disk has.
        ["queue", "../queue"].iter().find_map(|queue| {
            let path = format!("/sys/dev/block/{major}:{minor}/{queue}/{what}");
            std::fs::read_to_string(path).ok()?.trim().parse::<u32>().ok()
        })
    };
    let usable = |size: &u32| size.is_power_of_two() && (512..=32768).contains(size);
    let logical = queue("logical_block_size").filter(usable)?;
    Some((logical, queue("physical_block_size").filter(usable).unwrap_or(logical)))
}
