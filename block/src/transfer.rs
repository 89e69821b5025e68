//! The contents of a drive that move to another process: read while the guest writes them, and
//! written there.
//!
//! Both ends are used by any one thread but the loop of the drive's graph, for which they wait. A
//! chunk's mark is taken before it is read, so that what is written meanwhile marks it anew. What
//! is written here comes from a peer: ranges are checked.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use resources::iol::{IoBuf, Remote};

use crate::chain;
use crate::dirty::Bitmap;
use crate::disk::{Disk, Tap};
use crate::drive::Drive;
use crate::node::{State, Zero};

/// Bytes that are moved at once.
pub const CHUNK: u64 = 1 << 20;
/// What is looked at in one step at first.
const LOOK: u64 = 1 << 30;

/// A range of a drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// What is in it; zeros are told by their number alone.
    pub content: Content,
}

/// What is in a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Bytes.
    Data(Vec<u8>),
    /// So many zeros.
    Zeros(u64),
}

/// What of a drive is still to be moved.
struct Marks {
    dirty: RefCell<Bitmap>,
    /// Bytes that are marked.
    left: Arc<AtomicU64>,
    /// Where the search for the next chunk goes on.
    at: Cell<u64>,
}

impl Marks {
    fn set(&self, offset: u64, len: u64) {
        self.dirty.borrow_mut().set(offset, len);
        self.tell();
    }

    fn tell(&self) {
        self.left.store(self.dirty.borrow().bytes(), Relaxed);
    }

    /// The next marked range, without its mark.
    fn take(&self) -> Option<(u64, u64)> {
        let found = {
            let dirty = self.dirty.borrow();
            dirty.next(self.at.get(), CHUNK).or_else(|| dirty.next(0, CHUNK))
        };
        let (offset, len) = found?;
        self.dirty.borrow_mut().clear(offset, len);
        self.at.set(offset.saturating_add(len));
        self.tell();
        Some((offset, len))
    }
}

impl Tap for Marks {
    fn after(&self, offset: u64, len: u64) {
        self.set(offset, len);
    }
}

/// A drive whose contents are read. Its writes are seen until this is dropped.
pub struct Sending {
    drive: Arc<Drive>,
    /// The graph that is looked at: another one has writes that were not seen.
    place: Arc<Remote<Disk>>,
    marks: Arc<Remote<Marks>>,
    left: Arc<AtomicU64>,
    size: u64,
}

impl Sending {
    /// Begins with everything or, if `top_only`, with what the topmost image does not leave to
    /// those below it.
    ///
    /// # Errors
    /// There is no medium, or the host reports something.
    pub fn start(drive: &Arc<Drive>, top_only: bool) -> io::Result<Sending> {
        let place = drive.place().ok_or(io::ErrorKind::NotFound)?;
        let left = Arc::new(AtomicU64::new(0));
        let told = left.clone();
        let started = drive.on_loop(move |local, disk| async move {
            let size = disk.info().size;
            let dirty = RefCell::new(Bitmap::new(size, CHUNK));
            let marks = Rc::new(Marks { dirty, left: told, at: Cell::new(0) });
            let tap: Rc<dyn Tap> = marks.clone();
            disk.add_tap(&tap).await;
            mark_first(&disk, &marks, size, top_only).await?;
            Ok::<_, io::Error>((Arc::new(local.keep(marks)), size))
        });
        let (marks, size) = started??;
        Ok(Sending { drive: drive.clone(), place, marks, left, size })
    }

    /// The drive.
    pub fn drive(&self) -> &Arc<Drive> {
        &self.drive
    }

    /// Bytes of the drive.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are still to be moved.
    pub fn left(&self) -> u64 {
        self.left.load(Relaxed)
    }

    /// Reads the next chunk; `None` when there is none now.
    ///
    /// # Errors
    /// What the host reports, or that the drive has another medium or size.
    pub fn next(&self) -> io::Result<Option<Chunk>> {
        if !self.drive.place().is_some_and(|place| Arc::ptr_eq(&place, &self.place)) {
            return Err(io::Error::other("another medium was put in"));
        }
        let (marks, size) = (self.marks.clone(), self.size);
        let read = self.drive.on_loop(move |local, disk| async move {
            let gone = || io::Error::other("its writes are not seen any more");
            let marks = marks.get(&local).ok_or_else(gone)?;
            if disk.info().size != size {
                return Err(io::Error::other("its size has changed"));
            }
            let Some((offset, len)) = marks.take() else { return Ok(None) };
            let content = read(&disk, offset, len).await;
            let content = content.inspect_err(|_| marks.set(offset, len))?;
            Ok(Some(Chunk { offset, content }))
        });
        read?
    }
}

/// Marks what is to be moved at first.
async fn mark_first(disk: &Disk, marks: &Marks, size: u64, top_only: bool) -> io::Result<()> {
    if !top_only {
        marks.set(0, size);
        return Ok(());
    }
    let mut at = 0;
    while at < size {
        let want = (size - at).min(LOOK);
        let extent = disk.begin(at, want).await?.node.map(at, want).await?;
        let len = extent.len.clamp(1, want);
        if extent.state != State::Absent {
            marks.set(at, len);
        }
        at = at.saturating_add(len);
    }
    Ok(())
}

/// Reads a range, past the drive's limits.
async fn read(disk: &Disk, offset: u64, len: u64) -> io::Result<Content> {
    let request = disk.begin(offset, len).await?;
    let (state, known) = chain::state_above(&request.node, None, offset, len).await?;
    if state != State::Data && known >= len {
        return Ok(Content::Zeros(len));
    }
    let buf = IoBuf::zeroed(usize::try_from(len).map_err(io::Error::other)?);
    request.node.read(offset, buf.clone()).await?;
    Ok(if buf.is_zero() { Content::Zeros(len) } else { Content::Data(buf.to_vec()) })
}

/// A drive whose contents come in.
pub struct Receiving {
    drive: Arc<Drive>,
    size: u64,
}

impl Receiving {
    /// A drive that nobody uses yet, as it is now.
    pub fn new(drive: &Arc<Drive>) -> Receiving {
        Receiving { drive: drive.clone(), size: drive.size() }
    }

    /// The drive.
    pub fn drive(&self) -> &Arc<Drive> {
        &self.drive
    }

    /// Bytes of the drive.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes a chunk.
    ///
    /// # Errors
    /// It is not within the drive, nothing can be written, or the host reports something.
    pub fn write(&self, chunk: Chunk) -> io::Result<()> {
        if self.drive.read_only() {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        let written = self.drive.on_loop(move |_, disk| async move {
            let Chunk { offset, content } = chunk;
            match content {
                Content::Zeros(len) => {
                    let request = disk.begin(offset, len).await?;
                    request.node.zero(offset, len, Zero::MayUnmap).await
                }
                Content::Data(bytes) => {
                    let request = disk.begin(offset, bytes.len() as u64).await?;
                    request.node.write(offset, IoBuf::copy_of(&bytes), false).await
                }
            }
        });
        written?
    }

    /// Makes durable what was written.
    ///
    /// # Errors
    /// What the host reports.
    pub fn flush(&self) -> io::Result<()> {
        let done = self.drive.on_loop(|_, disk| async move { disk.node().flush().await });
        done?
    }
}

#[cfg(test)]
mod tests {
    use resources::clock::Clock;
    use resources::iol::Thread;
    use vmm_sys_util::tempfile::TempFile;

    use super::*;
    use crate::Spec;
    use crate::throttle::Given;

    /// What is refused leaves nothing to be moved, what is written does.
    #[test]
    fn a_drive_that_was_let_go_has_no_more_to_move() {
        let (_thread, on) = Thread::spawn("test").unwrap();
        let file = TempFile::new().unwrap();
        file.as_file().set_len(3 << 20).unwrap();
        let spec = Spec::file(file.as_path().to_str().unwrap(), Some("raw"));
        let drive = Drive::with("d", on, spec).unwrap();
        let sending = Sending::start(&drive, false).unwrap();
        while sending.next().unwrap().is_some() {}
        let write = || {
            let done = drive.on_disk(|disk| async move {
                disk.write(0, IoBuf::copy_of(&[1; 512]), false).await
            });
            done.unwrap()
        };
        write().unwrap();
        assert!(sending.left() > 0);
        while sending.next().unwrap().is_some() {}
        drive.deactivate().unwrap();
        write().unwrap_err();
        assert_eq!(sending.left(), 0);
        drive.activate().unwrap();
        write().unwrap();
        assert!(sending.left() > 0);
    }

    /// What was accepted from a client of another process is carried out, however late.
    #[test]
    fn what_waits_for_its_limits_is_done_before_a_drive_is_let_go() {
        let (_thread, on) = Thread::spawn("test").unwrap();
        let file = TempFile::new().unwrap();
        file.as_file().set_len(3 << 20).unwrap();
        let spec = Spec::file(file.as_path().to_str().unwrap(), Some("raw"));
        let drive = Drive::with("d", on, spec).unwrap();
        drive.set_clock(Clock::stepped());
        let slow = Given { iops: [1, 0, 0], ..Given::default() };
        drive.set_limits(slow.limits().unwrap());
        let (tell, told) = std::sync::mpsc::channel();
        let begun = drive.on_loop(move |local, disk| async move {
            for at in 0..20u64 {
                let (disk, tell) = (disk.clone(), tell.clone());
                let write = async move {
                    let done = disk.write(at << 12, IoBuf::copy_of(&[1; 4096]), false).await;
                    tell.send(done.is_ok()).unwrap();
                };
                local.spawn(write).detach();
            }
            local.yield_now().await;
        });
        begun.unwrap();
        drive.deactivate().unwrap();
        assert!((0..20).all(|_| told.recv().unwrap()));
    }
}
