//! Directories under `target/vmtest/` that are made once and kept while their key holds.
//!
//! Several `vmtest` processes may share them: a file lock per item, shared while it is used and
//! exclusive while it is made.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::rig::Result;

/// One ready item; it stays as it is while this value lives.
pub struct Item {
    path: PathBuf,
    key: String,
    _lock: File,
}

impl Item {
    /// The item's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the item was made from, to be part of the key of what is made from it.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// Gives the item `name` made from what `key` names, calling `make` with an empty directory when
/// there is none or it was made from something else. `what` tells people what is being made.
pub fn item(
    cache: &Path,
    name: &str,
    key: String,
    what: &str,
    make: impl FnOnce(&Path) -> Result,
) -> Result<Item> {
    fs::create_dir_all(cache)?;
    let path = cache.join(name);
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(cache.join(format!("{name}.lock")))?;
    let fresh = || fs::read_to_string(path.join("key")).is_ok_and(|found| found == key);

    flock(&lock, FlockOperation::LockShared)?;
    if !fresh() {
        flock(&lock, FlockOperation::Unlock)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            println!("  {what}: waiting for another vmtest");
            flock(&lock, FlockOperation::LockExclusive)?;
        }
        if !fresh() {
            println!("  {what}");
            let start = std::time::Instant::now();
            let unfinished = cache.join(format!("{name}.unfinished"));
            for stale in [&path, &unfinished] {
                if stale.exists() {
                    fs::remove_dir_all(stale)?;
                }
            }
            fs::create_dir(&unfinished)?;
            make(&unfinished).map_err(|error| format!("{what}: {error}"))?;
            fs::write(unfinished.join("key"), &key)?;
            fs::rename(&unfinished, &path)?;
            println!("  {what}: done in {:.1} s", start.elapsed().as_secs_f32());
        }
        flock(&lock, FlockOperation::LockShared)?;
    }
    Ok(Item { path, key, _lock: lock })
}

/// A key part for a file of the machine: its name, size and time of change.
pub fn file_key(path: &Path) -> Result<String> {
    let meta = fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let changed = meta.modified()?.duration_since(std::time::UNIX_EPOCH)?;
    Ok(format!("{} {} {}\n", path.display(), meta.len(), changed.as_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_made_once_per_key_and_not_left_half_made() {
        let cache = std::env::temp_dir().join(format!("vmtest-cache-{}", std::process::id()));
        let get = |key: &str, text: &'static str| {
            item(&cache, "thing", key.to_owned(), "making a thing", move |dir| {
                Ok(fs::write(dir.join("text"), text)?)
            })
            .map(|item| fs::read_to_string(item.path().join("text")).unwrap())
        };
        assert_eq!(get("one", "first").unwrap(), "first");
        assert_eq!(get("one", "second").unwrap(), "first");
        assert_eq!(get("two", "third").unwrap(), "third");
        let failed = item(&cache, "thing", "three".into(), "failing", |_| Err("no".into()));
        assert!(failed.is_err());
        assert_eq!(get("three", "fourth").unwrap(), "fourth");
        fs::remove_dir_all(&cache).unwrap();
    }
}
