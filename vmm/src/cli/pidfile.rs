//! The file that names the process while it runs.
//!
//! Main thread only. The lock in it belongs to the process, not to its parent: take it after
//! [`super::daemonize`]. Another process may have put anything in its place: a file that is locked
//! is somebody else's, and at the end only our own is removed.

use resources::fdset;
use rustix::fs::{self, FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The locked file; dropping it removes it.
#[derive(Debug)]
pub struct Pidfile {
    file: fdset::File,
    /// Absolute, as the process may change its directory.
    path: PathBuf,
}

impl Pidfile {
    /// Creates or takes over `path`, locks it and writes the process id and a newline.
    ///
    /// # Errors
    /// `Could not acquire pidfile: REASON`: it cannot be opened, locked (another process that runs
    /// has it) or written.
    pub fn acquire(path: &Path) -> Result<Pidfile, String> {
        Self::try_acquire(path).map_err(|e| format!("Could not acquire pidfile: {e}"))
    }

    fn try_acquire(path: &Path) -> io::Result<Pidfile> {
        let path = std::path::absolute(path)?;
        let mut file = loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let file = fdset::open(&path, flags, Mode::RUSR | Mode::WUSR)?;
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("not a regular file"));
            }
            fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)?;
            // Its last owner may have removed it between the opening and the locking.
            if file.is_of_set() || is_at(&file, &path) {
                break file;
            }
        };
        file.set_len(0)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes())?;
        Ok(Pidfile { file, path })
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        if is_at(&self.file, &self.path) {
            // Nothing can be done about a failure, and the lock ends with the process anyway.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether `path` names the open `file`.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("vmm-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Dir(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn holds_the_process_id_and_goes_at_the_end() {
        let dir = Dir::new("pidfile");
        let path = dir.0.join("pid");
        std::fs::write(&path, "a much longer text that was there before\n").unwrap();
        let pidfile = Pidfile::acquire(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(pidfile);
        assert!(!path.exists());
        let pidfile = Pidfile::acquire(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        drop(pidfile);
    }

    #[test]
    fn leaves_what_is_not_its_own() {
        let dir = Dir::new("pidfile-other");
        let path = dir.0.join("pid");
        let pidfile = Pidfile::acquire(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another\n").unwrap();
        drop(pidfile);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "another\n");
    }

    #[test]
    fn says_why_not() {
        let error = Pidfile::acquire(Path::new("/nonexistent/pid")).unwrap_err();
        assert!(error.starts_with("Could not acquire pidfile: No such file"), "{error}");
        let error = Pidfile::acquire(Path::new("/dev/null")).unwrap_err();
        assert_eq!(error, "Could not acquire pidfile: not a regular file");
    }
}
