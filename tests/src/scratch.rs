//! Temporary directories with short names, since names of sockets may not be long.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::rig::Result;

const PREFIX: &str = "vmtest-";

/// A directory that goes away with this value, or with the next run when the process was killed.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes an empty directory below the system's temporary one.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let parent = std::env::temp_dir();
        if number == 0 {
            sweep(&parent)?;
        }
        let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path })
    }
}

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes what processes that are gone left behind.
fn sweep(parent: &Path) -> Result {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split_once('-')?.0.parse::<u32>().ok());
        let gone = |pid: u32| !Path::new("/proc").join(pid.to_string()).exists();
        if owner.is_some_and(gone) {
            // Somebody else's directory may not be ours to remove.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_dead_processes_are_swept() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        let parent = std::env::temp_dir();
        let stale = parent.join(format!("{PREFIX}{dead}-0"));
        fs::create_dir_all(&stale).unwrap();
        let mine = Scratch::new().unwrap();
        sweep(&parent).unwrap();
        assert!(!stale.exists());
        assert!(mine.exists());
        let path = mine.to_path_buf();
        drop(mine);
        assert!(!path.exists());
    }
}
