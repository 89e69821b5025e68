//! Locks on image files, so that two programs do not write one image.
//!
//! The bytes are those that QEMU locks since 2.10: byte 100 + N says "I use right N", byte 200 + N
//! "nobody else may use right N". Both are shared locks of the open file (`F_OFD_SETLK`), so that
//! they live as long as it does; somebody else's are found by asking whether an exclusive lock
//! would be granted (`F_OFD_GETLK`).
//!
//! Any thread, no lock of ours. A hostile program that can open the image can lock it.
#![expect(unsafe_code, reason = "rustix has no locks of ranges of open files")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

const USED: i64 = 100;
const DENIED: i64 = 200;

/// Rights by their number, and what they are called.
const RIGHTS: [(i64, &str); 2] = [(READ, "consistent read"), (WRITE, "write")];
const READ: i64 = 0;
const WRITE: i64 = 1;

/// Somebody else uses the image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// In a way that excludes ours.
    #[error("Failed to get {}\"{right}\" lock: is another process using the image?", if *.shared { "shared " } else { "" })]
    Taken { right: &'static str, shared: bool },
    /// The system refuses.
    #[error("cannot lock it: {0}")]
    Io(#[from] io::Error),
}

/// Locks an image for reading, and for writing too if `write`; nobody else may write it then,
/// unless `shared`. What was locked before is locked anew. A file system without locks is left
/// unlocked.
pub(crate) fn lock(fd: BorrowedFd<'_>, write: bool, shared: bool) -> Result<(), LockError> {
    let uses = if write { &[READ, WRITE][..] } else { &[READ] };
    let denies = if shared { &[][..] } else { &[WRITE] };
    if shared {
        // What is not locked, or cannot be, need not be unlocked.
        let _ = set_as(fd, libc::F_UNLCK, DENIED + WRITE);
    }
    let used = uses.iter().map(|right| USED + right);
    let bytes = used.chain(denies.iter().map(|right| DENIED + right));
    for byte in bytes {
        match set(fd, byte) {
            Ok(()) => {}
            Err(error) if is_unsupported(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    // Ours first, then look: of two that come at once, one at least sees the other.
    for (right, name) in RIGHTS {
        if uses.contains(&right) && is_locked(fd, DENIED + right)? {
            return Err(LockError::Taken { right: name, shared: false });
        }
        if denies.contains(&right) && is_locked(fd, USED + right)? {
            return Err(LockError::Taken { right: name, shared: true });
        }
    }
    Ok(())
}

/// Gives up all locks on an image.
pub(crate) fn unlock(fd: BorrowedFd<'_>) {
    for (right, _) in RIGHTS {
        for byte in [USED + right, DENIED + right] {
            // What is not locked, or cannot be, need not be unlocked.
            let _ = set_as(fd, libc::F_UNLCK, byte);
        }
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ENOLCK | libc::ENOSYS | libc::EOPNOTSUPP)
    )
}

fn flock(kind: i32, byte: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}

fn set(fd: BorrowedFd<'_>, byte: i64) -> io::Result<()> {
    set_as(fd, libc::F_RDLCK, byte)
}

fn set_as(fd: BorrowedFd<'_>, kind: i32, byte: i64) -> io::Result<()> {
    let lock = flock(kind, byte);
    // SAFETY: the descriptor is open, and the call reads `lock` only.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &lock) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn is_locked(fd: BorrowedFd<'_>, byte: i64) -> io::Result<bool> {
    let mut lock = flock(libc::F_WRLCK, byte);
    // SAFETY: the descriptor is open, and `lock` is ours to be written.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) } {
        0 => Ok(i32::from(lock.l_type) != libc::F_UNLCK),
        _ => Err(io::Error::last_os_error()),
    }
}
