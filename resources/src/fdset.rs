//! File descriptors that whoever manages the machine has handed over, in numbered sets, and the
//! one way to open a file that a user named: `/dev/fdset/N` stands for a descriptor of set N.
//!
//! Descriptor numbers are the process's, and so are the sets ([`FdSets::global`]).
//!
//! Any thread; a leaf mutex, under which nothing is closed. What a client can do is bounded by the
//! descriptors that the process may have. What closes a descriptor of a set:
//! - it was removed, or the set is not in use by an open file while no monitor has a client;
//! - and that is found when something is removed, a client leaves, or an open file is closed,
//!   while the guest runs: a machine that waits to be started keeps what it was given.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, fstat, ftruncate};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

/// What the name of a descriptor of a set begins with; the set's number follows.
const PREFIX: &[u8] = b"/dev/fdset/";

/// Flags of `open` that a descriptor can be given later.
const CHANGEABLE: OFlags =
    OFlags::APPEND.union(OFlags::NONBLOCK).union(OFlags::DIRECT).union(OFlags::NOATIME);

/// The access mode among the flags of `open`.
const ACCESS: OFlags = OFlags::WRONLY.union(OFlags::RDWR);

/// Opens a file that a user named, by the process's sets: see [`FdSets::open`].
///
/// # Errors
/// As [`FdSets::open`].
pub fn open(path: impl AsRef<Path>, flags: OFlags, mode: Mode) -> io::Result<File> {
    FdSets::global().open(path, flags, mode)
}

/// All sets. Clones are the same sets.
#[derive(Debug, Clone, Default)]
pub struct FdSets(Arc<Mutex<Sets>>);

#[derive(Debug, Default)]
struct Sets {
    all: BTreeMap<i64, Set>,
    /// Monitors that have a client.
    clients: usize,
    /// The guest runs.
    running: bool,
}

#[derive(Debug, Default)]
struct Set {
    /// Oldest first.
    fds: Vec<Member>,
    /// Open files that are one of the set's.
    leases: usize,
}

#[derive(Debug)]
struct Member {
    fd: OwnedFd,
    opaque: Option<String>,
    removed: bool,
}

/// A set as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetInfo {
    /// Its number.
    pub id: i64,
    /// Number and note of each descriptor, oldest first. One that was removed is listed until it
    /// is closed.
    pub fds: Vec<(RawFd, Option<String>)>,
}

impl FdSets {
    /// No set yet, apart from the process's.
    pub fn new() -> FdSets {
        FdSets::default()
    }

    /// The process's.
    pub fn global() -> &'static FdSets {
        static GLOBAL: LazyLock<FdSets> = LazyLock::new(FdSets::new);
        &GLOBAL
    }

    /// Opens a file, closed on exec. The name `/dev/fdset/N` gives a duplicate of the latest
    /// descriptor of set N that was opened with the access mode in `flags`: file offset and status
    /// flags are shared, and the status flags become those in `flags`.
    ///
    /// # Errors
    /// What the system says. Of a set: `ENOENT` if there is none, `EACCES` if no descriptor has
    /// the access mode, `EINVAL` if the name is none or `O_SYNC` differs.
    pub fn open(&self, path: impl AsRef<Path>, flags: OFlags, mode: Mode) -> io::Result<File> {
        let path = path.as_ref();
        let Some(number) = path.as_os_str().as_bytes().strip_prefix(PREFIX) else {
            let fd = rustix::fs::open(path, flags | OFlags::CLOEXEC, mode)?;
            return Ok(File { file: fd.into(), lease: None });
        };
        let id = std::str::from_utf8(number).ok().and_then(|text| text.parse::<i64>().ok());
        let id = id.filter(|id| *id >= 0).ok_or(Errno::INVAL)?;
        // Closed in this order if something fails: the file, then the lease.
        let (lease, fd) = {
            let mut sets = self.0.lock();
            let set = sets.all.get_mut(&id).ok_or(Errno::NOENT)?;
            let fd = set.find(flags)?;
            set.leases += 1;
            (Lease { sets: self.clone(), id }, fd)
        };
        give_flags(fd.as_fd(), flags)?;
        Ok(File { file: fd.into(), lease: Some(lease) })
    }

    /// Puts a descriptor into a set, which is made if need be; without `id` into a new one with
    /// the smallest free number. Gives the numbers of the set and of the descriptor.
    pub fn add(&self, id: Option<i64>, fd: OwnedFd, opaque: Option<String>) -> (i64, RawFd) {
        let number = fd.as_raw_fd();
        let mut sets = self.0.lock();
        let free = |id: &i64| !sets.all.contains_key(id);
        let id = id.or_else(|| (0..).find(free)).unwrap_or_default();
        sets.all.entry(id).or_default().fds.push(Member { fd, opaque, removed: false });
        (id, number)
    }

    /// Removes one descriptor of a set, or all; closed is what may be. False: there is no such.
    pub fn remove(&self, id: i64, fd: Option<i64>) -> bool {
        let mut sets = self.0.lock();
        let Some(set) = sets.all.get_mut(&id) else { return false };
        let mut found = fd.is_none();
        for member in &mut set.fds {
            if fd.is_none_or(|fd| fd == i64::from(member.fd.as_raw_fd())) {
                member.removed = true;
                found = true;
            }
        }
        let closed = if found { sets.clean_up() } else { Vec::new() };
        drop(sets);
        drop(closed);
        found
    }

    /// The sets, highest number first.
    pub fn list(&self) -> Vec<SetInfo> {
        let describe = |member: &Member| (member.fd.as_raw_fd(), member.opaque.clone());
        let sets = self.0.lock();
        let infos = sets.all.iter().rev();
        infos
            .map(|(id, set)| SetInfo { id: *id, fds: set.fds.iter().map(describe).collect() })
            .collect()
    }

    /// A monitor of either kind has got a client.
    pub fn client_came(&self) {
        let mut sets = self.0.lock();
        sets.clients = sets.clients.saturating_add(1);
    }

    /// A monitor's client is gone.
    pub fn client_left(&self) {
        let mut sets = self.0.lock();
        sets.clients = sets.clients.saturating_sub(1);
        let closed = sets.clean_up();
        drop(sets);
        drop(closed);
    }

    /// Whether the guest runs. Closes nothing at once.
    pub fn set_running(&self, running: bool) {
        self.0.lock().running = running;
    }
}

impl Sets {
    /// Takes out what is to be closed, for the caller to do that without the lock.
    fn clean_up(&mut self) -> Vec<Member> {
        if !self.running {
            return Vec::new();
        }
        let clients = self.clients;
        let mut closed = Vec::new();
        self.all.retain(|_, set| {
            let unused = set.leases == 0 && clients == 0;
            closed.extend(set.fds.extract_if(.., |member| member.removed || unused));
            !set.fds.is_empty() || set.leases > 0
        });
        closed
    }
}

impl Set {
    /// A duplicate of the latest descriptor with the access mode in `flags`.
    fn find(&self, flags: OFlags) -> io::Result<OwnedFd> {
        for member in self.fds.iter().rev() {
            if fcntl_getfl(&member.fd)? & ACCESS == flags & ACCESS {
                return Ok(fcntl_dupfd_cloexec(&member.fd, 3)?);
            }
        }
        Err(Errno::ACCESS.into())
    }
}

/// Does to an open descriptor what `open` would have done by `flags`.
fn give_flags(fd: BorrowedFd<'_>, flags: OFlags) -> io::Result<()> {
    let has = fcntl_getfl(fd)?;
    if has & OFlags::SYNC != flags & OFlags::SYNC {
        return Err(Errno::INVAL.into());
    }
    let wanted = (has - CHANGEABLE) | (flags & CHANGEABLE);
    if wanted != has {
        fcntl_setfl(fd, wanted)?;
    }
    let new = OFlags::CREATE | OFlags::EXCL;
    // Of other kinds of files `open` keeps what is in them.
    let regular = FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::RegularFile;
    if regular && (flags.contains(OFlags::TRUNC) || flags.contains(new)) {
        ftruncate(fd, 0)?;
    }
    Ok(())
}

/// An open file, perhaps one of a set, which is then in use until this is dropped.
#[derive(Debug)]
pub struct File {
    // In this order: the set hears of it when the file is closed.
    file: fs::File,
    lease: Option<Lease>,
}

/// The use of a set by an open file; dropped after the file.
#[derive(Debug)]
pub struct Lease {
    sets: FdSets,
    id: i64,
}

impl File {
    /// Whether it is one of a set, and its name that of the set.
    pub fn is_of_set(&self) -> bool {
        self.lease.is_some()
    }

    /// For those who keep the descriptor in another form: the lease must be kept until after that
    /// is closed. `None`: the file is of no set.
    pub fn into_parts(self) -> (OwnedFd, Option<Lease>) {
        (self.file.into(), self.lease)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut sets = self.sets.0.lock();
        if let Some(set) = sets.all.get_mut(&self.id) {
            set.leases = set.leases.saturating_sub(1);
        }
        let closed = sets.clean_up();
        drop(sets);
        drop(closed);
    }
}

/// A file that is of no set.
impl From<fs::File> for File {
    fn from(file: fs::File) -> File {
        File { file, lease: None }
    }
}

impl Deref for File {
    type Target = fs::File;

    fn deref(&self) -> &fs::File {
        &self.file
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Read for File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read(buf)
    }
}

impl Write for File {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Write for &File {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&self.file).write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&self.file).flush()
    }
}

#[cfg(test)]
mod tests;
