//! Copying by the host, from one file into another (`copy_file_range`): a file system that can
//! share blocks copies nothing, others at least do not bring the data here.
//!
//! On the tool's loop, by its pool; no lock. Places in the source come from its metadata: what lies
//! behind the end of its file is not copied, and then read as it always is.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use resources::iol::Local;
use rustix::fs::copy_file_range;

use crate::host::HostFile;
use crate::node::Node;

/// A place in a file of the host.
pub(super) type Place = (Arc<HostFile>, u64);

/// A target into which the host can copy.
pub(super) struct Offload {
    file: Arc<HostFile>,
    /// Where the target begins in it.
    base: u64,
    /// It has not refused yet.
    on: Cell<bool>,
    copied: Cell<u64>,
}

/// The file that has what a node says has a place: its own, or that below a format.
pub(super) fn file_of(node: &Rc<dyn Node>) -> Option<Arc<HostFile>> {
    let usable = |host: &Arc<HostFile>| !host.options().cache.direct && !host.is_block_device();
    if let Some(host) = node.host() {
        return Some(host).filter(usable);
    }
    if !matches!(node.driver(), "raw" | "qcow2") {
        return None;
    }
    let children = node.children();
    let child = |name: &str| children.iter().find(|(what, _)| *what == name);
    let (_, file) = child("data-file").or_else(|| child("file"))?;
    file.host().filter(usable)
}

impl Offload {
    /// For a raw target in a file; `None` for all others.
    pub(super) async fn new(target: &Rc<dyn Node>) -> Option<Offload> {
        if target.image().is_some() {
            return None;
        }
        let file = file_of(target)?;
        let base = target.map(0, 1).await.ok()?.offset?;
        Some(Offload { file, base, on: Cell::new(true), copied: Cell::new(0) })
    }

    /// Copies `len` bytes to `offset` of the target; false when it has to be done otherwise.
    pub(super) async fn copy(&self, local: &Local, from: &Place, offset: u64, len: u64) -> bool {
        if !self.on.get() {
            return false;
        }
        let ((source, at), target) = (from.clone(), self.file.clone());
        let Some(to) = self.base.checked_add(offset) else { return false };
        let copied = local.pool(move || copy(&source, at, &target, to, len)).await;
        match copied.and_then(|copied| copied) {
            Ok(count) => {
                self.copied.set(self.copied.get().saturating_add(count));
                count == len
            }
            // Another file system, or one that cannot: so it will be for all.
            Err(error) => {
                tracing::debug!("the host does not copy: {error}");
                self.on.set(false);
                false
            }
        }
    }
}

fn copy(source: &HostFile, at: u64, target: &HostFile, to: u64, len: u64) -> io::Result<u64> {
    let (mut at, mut to, mut done) = (at, to, 0);
    while done < len {
        let left = usize::try_from(len - done).unwrap_or(usize::MAX);
        let (from, into) = (&**source.fd(), &**target.fd());
        match copy_file_range(from, Some(&mut at), into, Some(&mut to), left) {
            Ok(0) => break,
            Ok(count) => done += count as u64,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use resources::iol::Loop;

    use super::*;
    use crate::Spec;

    #[test]
    fn the_host_copies_between_files_and_says_when_it_cannot() {
        let dir = vmm_sys_util::tempdir::TempDir::new().unwrap();
        let name = |name: &str| dir.as_path().join(name).to_str().unwrap().to_owned();
        let bytes: Vec<u8> = (0..300_000u32).map(|at| (at >> 7) as u8).collect();
        std::fs::write(name("a"), &bytes).unwrap();
        std::fs::write(name("b"), vec![0; 300_032]).unwrap();
        let mut the_loop = Loop::new("test").unwrap();
        let local = the_loop.local().clone();
        the_loop.run(async {
            let open = |file: &str, read_only| {
                let spec = Spec { read_only, ..Spec::file(&name(file), Some("raw")) };
                let local = local.clone();
                async move { crate::open(&local, &spec).await.unwrap() }
            };
            let (source, target) = (open("a", true).await, open("b", false).await);
            let from = file_of(&source).unwrap();
            let offload = Offload::new(&target).await.unwrap();
            assert!(offload.copy(&local, &(from.clone(), 1000), 2000, 200_000).await);
            assert_eq!(std::fs::read(name("b")).unwrap()[2000..202_000], bytes[1000..201_000]);
            // No more than there is.
            assert!(!offload.copy(&local, &(from.clone(), 299_000), 0, 2000).await);
            assert!(offload.on.get() && offload.copied.get() == 201_000);
            // A file that cannot be written to.
            let offload = Offload::new(&source).await.unwrap();
            assert!(!offload.copy(&local, &(from, 0), 0, 512).await && !offload.on.get());
        });
    }
}
