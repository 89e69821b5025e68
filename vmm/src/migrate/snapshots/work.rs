//! The work of savevm and loadvm: memory goes into an image, or comes out of it.
//!
//! Thread `snapshot`, which waits for the loops of the disks. It never has the [`Vm`](crate::vm::Vm):
//! the state of everything but memory is given to it, or given by it to the main thread, which goes
//! on with its clients meanwhile and starts nothing. Told that the machine ends it gives up, unless
//! it is changing the snapshots or the disks: that is done whole.
//!
//! A snapshot comes from whoever made the image: its state is read as that of any peer is, and no
//! more of it than a machine of this size can have. Disks change last: a state that cannot be loaded
//! leaves them as they are.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use block::drive::{Drive, Held};
use block::image::Snapshot;
use block::vmstate::{self, Reader, Writer};
use migration::dest::{self, Section, Target};
use migration::inventory::Inventory;
use migration::link::{Link, Stored};
use migration::ram::Block;
use migration::source::{self, Machine, Outcome, Wants};
use migration::status::{Limits, Progress};
use migration::stream::Error;
use qmp::QmpError;
use resources::ram::PAGE;

use super::super::{Ask, Main};
use super::disks::{activate, all_capable, take_all, wanted};
use super::{code, refuse};

/// Bytes that a page has in a stream at most, with what stands before it.
const PAGE_IN_STREAM: u64 = PAGE + 512;
/// Bytes of a stream beside its pages at most.
const REST_OF_STREAM: u64 = 256 << 20;

/// How it went.
pub(in super::super) struct Done {
    /// What the client is told.
    pub(super) result: Result<(), QmpError>,
    /// The machine is not what it was before any more.
    pub(super) changed: bool,
    /// The disks that have another size now.
    pub(super) resized: Vec<Arc<Drive>>,
}

impl Done {
    pub(super) fn with(result: Result<(), QmpError>) -> Done {
        Done { result, changed: false, resized: Vec::new() }
    }
}

/// What clients are told when the state could not be written or loaded.
fn told(error: &Error, what: &str) -> QmpError {
    let number = match error {
        Error::Io(error) => code(error),
        _ => -libc::EINVAL,
    };
    QmpError::generic(format!("Error {number} while {what}: {error}"))
}

/// Set when the machine ends.
#[derive(Clone, Default)]
pub(super) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> io::Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the machine ends")),
            false => Ok(()),
        }
    }
}

/// The state of the machine on its way into an image.
struct IntoImage(Writer, Cancel);

impl Write for IntoImage {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.check()?;
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Read for IntoImage {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Link for &mut IntoImage {
    fn two_way(&self) -> bool {
        false
    }

    fn is_file(&self) -> bool {
        true
    }

    fn finish(&mut self) -> io::Result<()> {
        self.0.finish()
    }
}

/// The state of the machine on its way out of an image.
struct OutOfImage(Reader, Cancel);

impl Read for OutOfImage {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.1.check()?;
        self.0.read(bytes)
    }
}

/// A machine that stands still, with what was saved of it.
struct Still(Vec<Section>);

impl Machine for Still {
    fn switch_over(&mut self) -> Result<Vec<Section>, String> {
        Ok(std::mem::take(&mut self.0))
    }

    fn release(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// The machine that goes back to what it was.
struct Back<'a> {
    main: &'a Main,
    changed: &'a mut bool,
}

impl Target for Back<'_> {
    fn begun(&mut self) {
        *self.changed = true;
    }

    fn load(&mut self, sections: Vec<Section>) -> Result<(), String> {
        *self.changed = true;
        self.main.order(|reply| Ask::Replace(sections, reply))
    }

    fn take(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// Nothing begins on any disk as long as the result lives, and no job exchanges an image: state and
/// snapshots are of one moment, and in one image each.
fn hold(drives: &[Arc<Drive>]) -> Vec<Held> {
    drives.iter().filter_map(|drive| drive.hold()).collect()
}

/// Lets an image have its room back that the state had before it was a snapshot's.
fn discard(drive: &Drive) {
    if let Err(error) = vmstate::discard(drive) {
        tracing::warn!("a machine's state that nobody wants stays on '{}': {error}", drive.id());
    }
}

/// What is to be saved of a machine that stands still.
pub(super) struct Saving {
    pub(super) drives: Vec<Arc<Drive>>,
    pub(super) blocks: Vec<Block>,
    pub(super) inventory: Inventory,
    pub(super) sections: Vec<Section>,
    /// The name or identity of the snapshot.
    pub(super) tag: Option<String>,
    /// Virtual time.
    pub(super) clock: u64,
}

impl Saving {
    /// The thread.
    pub(super) fn run(self, cancel: &Cancel) -> Result<(), QmpError> {
        for drive in &self.drives {
            drive.flush().map_err(|why| {
                let text = format!("flush of drive '{}': {why}", drive.id());
                told(&Error::Here(text), "writing VM")
            })?;
        }
        let held = hold(&self.drives);
        let disks = all_capable(&self.drives)?;
        let Some((first, snapshots)) = disks.first() else {
            return refuse("No block device can accept snapshots");
        };
        let (wanted, kept) = wanted(self.tag.as_deref(), snapshots, &disks, self.clock);
        let written = self.write_state(first, cancel);
        let done = written.and_then(|size| cancel.check().map(|()| size).map_err(Error::Io));
        let done = done.map_err(|error| told(&error, "writing VM")).and_then(|vm_state_size| {
            take_all(&disks, &Snapshot { vm_state_size, ..wanted }, kept.as_deref())
        });
        if done.is_err() {
            discard(first);
        }
        drop(held);
        done
    }

    /// Writes the state of the machine into the image of a disk; gives its bytes.
    fn write_state(self, drive: &Arc<Drive>, cancel: &Cancel) -> Result<u64, Error> {
        let mut link = IntoImage(Writer::new(drive), cancel.clone());
        let limits = Arc::new(Limits::default());
        limits.set_bandwidth(0);
        let outcome = source::send(
            &mut link,
            self.blocks,
            &self.inventory,
            &mut Still(self.sections),
            &limits,
            &Arc::new(Progress::default()),
            Wants::default(),
        );
        match outcome {
            Outcome::Moved => Ok(link.0.written()),
            Outcome::Stayed(error)
            | Outcome::Unsure(error)
            | Outcome::PerhapsLost(error)
            | Outcome::Lost(error) => Err(error),
        }
    }
}

/// What is to be gone back to.
pub(super) struct Loading {
    pub(super) drives: Vec<Arc<Drive>>,
    pub(super) blocks: Vec<Block>,
    pub(super) inventory: Inventory,
    /// The disks, each with its snapshot; the first has the state of the machine.
    pub(super) plan: Vec<(Arc<Drive>, Snapshot)>,
}

impl Loading {
    /// The thread.
    pub(super) fn run(self, main: &Main, cancel: &Cancel) -> Done {
        let mut done = Done::with(Ok(()));
        done.result = self.load(main, cancel, &mut done.changed, &mut done.resized);
        done
    }

    fn load(
        self,
        main: &Main,
        cancel: &Cancel,
        changed: &mut bool,
        resized: &mut Vec<Arc<Drive>>,
    ) -> Result<(), QmpError> {
        let Some((first, snapshot)) = self.plan.first() else { return Ok(()) };
        let pages: u64 = self.blocks.iter().map(|block| block.ram.size() / PAGE).sum();
        let most = pages.saturating_mul(PAGE_IN_STREAM).saturating_add(REST_OF_STREAM);
        let link = Reader::open(first, &snapshot.id, snapshot.vm_state_size, most);
        let link = link
            .map_err(|error| QmpError::generic(format!("Could not open VM state file: {error}")))?;
        let link = Stored(OutOfImage(link, cancel.clone()));
        let mut back = Back { main, changed };
        let received = dest::receive(link, self.blocks, &self.inventory, &mut back);
        let received = received.and_then(|_| cancel.check().map_err(Error::Io));
        received.map_err(|error| told(&error, "loading VM state"))?;
        let held = hold(&self.drives);
        for (drive, snapshot) in &self.plan {
            if activate(drive, snapshot)? {
                resized.push(drive.clone());
            }
        }
        discard(first);
        drop(held);
        Ok(())
    }
}
