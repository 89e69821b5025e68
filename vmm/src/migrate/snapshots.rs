//! The machine in a snapshot of its disks: savevm, loadvm, delvm.
//!
//! The state of the machine is the stream of a migration to a file. It stands in the image of the
//! first disk that can be written to; at the same point of time a snapshot is taken of each such
//! disk, and the first one's keeps the state. The guest stands still meanwhile.
//!
//! Main thread, which waits for the loops of the disks. Names are a client's. A snapshot comes from
//! whoever made the image, its state is read as that of any peer is, and no more of it than a
//! machine of this size can have. Disks change last: a state that cannot be loaded leaves them as
//! they are.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use block::drive::{Drive, Held};
use block::image::Snapshot;
use block::snapshot::{
    apply_internal, create_another, default_name, delete_internal, find, identify_internal,
};
use block::vmstate::{self, Reader, Writer};
use migration::dest::{self, Section, Target};
use migration::link::{Link, Stored};
use migration::source::{self, Machine, Outcome, Wants};
use migration::status::{Limits, Progress};
use migration::stream::Error;
use qmp::{QmpError, RunState};
use resources::ram::PAGE;

use super::incoming::unpack;
use crate::vm::{Vm, VmError};

/// Bytes that a page has in a stream at most, with what stands before it.
const PAGE_IN_STREAM: u64 = PAGE + 512;
/// Bytes of a stream beside its pages at most.
const REST_OF_STREAM: u64 = 256 << 20;

/// A disk that can be written to, with the snapshots in its image.
pub(crate) type Disk = (Arc<Drive>, Vec<Snapshot>);

fn refuse<T>(text: impl Into<String>) -> Result<T, QmpError> {
    Err(QmpError::generic(text))
}

/// A code as clients know it, negative.
fn code(error: &io::Error) -> i32 {
    -error.raw_os_error().unwrap_or(match error.kind() {
        io::ErrorKind::NotFound => libc::ENOENT,
        io::ErrorKind::Unsupported => libc::ENOTSUP,
        _ => libc::EIO,
    })
}

/// What clients are told when the state could not be written or loaded.
fn told(error: &Error, what: &str) -> String {
    let number = match error {
        Error::Io(error) => code(error),
        _ => -libc::EINVAL,
    };
    format!("Error {number} while {what}: {error}")
}

/// The state of the machine on its way into an image.
struct IntoImage(Writer);

impl Write for IntoImage {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
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
struct OutOfImage(Reader);

impl Read for OutOfImage {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

/// A machine that stands still, with what was saved of it.
struct Still(Vec<Section>);

impl Machine for Still {
    fn start_log(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn harvest(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn stop_log(&mut self) {}

    fn switch_over(&mut self) -> Result<Vec<Section>, String> {
        Ok(std::mem::take(&mut self.0))
    }

    fn release(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// The machine that goes back to what it was.
struct Back<'a> {
    vm: &'a mut Vm,
    /// It is not what it was before any more.
    changed: bool,
}

impl Target for Back<'_> {
    fn begun(&mut self) {
        self.changed = true;
    }

    fn load(&mut self, sections: Vec<Section>) -> Result<(), String> {
        self.changed = true;
        self.vm.replace_state(sections).map_err(|error| error.to_string())
    }

    fn take(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// What is to be gone back to.
struct Plan {
    /// The disks, each with its snapshot; the first has the state of the machine.
    disks: Vec<(Arc<Drive>, Snapshot)>,
}

impl Vm {
    pub(super) fn writable_drives(&self) -> impl Iterator<Item = &Arc<Drive>> {
        self.drives.iter().filter(|drive| drive.has_medium() && !drive.read_only())
    }

    /// The disks that can be written to and whose format has snapshots.
    pub(crate) fn snapshot_disks(&self) -> Vec<Disk> {
        let all = self.writable_drives().filter_map(|drive| Some((drive.clone(), list(drive)?)));
        all.collect()
    }

    /// The same, when all disks that can be written to are among them.
    fn all_snapshot_disks(&self) -> Result<Vec<Disk>, QmpError> {
        let all = self.writable_drives().map(|drive| match list(drive) {
            Some(snapshots) => Ok((drive.clone(), snapshots)),
            None => refuse(format!(
                "Device '{}' is writable but does not support snapshots.",
                drive.id()
            )),
        });
        all.collect()
    }

    /// Stops the guest in this state, if it runs; `Err` when that has ended the machine.
    fn halt(&mut self, state: RunState) -> Result<(), QmpError> {
        self.settle();
        if self.exit_status().is_some() {
            return refuse("the machine ends");
        }
        self.stop(state);
        Ok(())
    }

    /// Takes a snapshot of the machine and its disks, in place of the one that has this name or
    /// identity. The guest goes on if it ran.
    ///
    /// # Errors
    /// What cannot be saved, in words that clients know; everything is as before then, unless it is
    /// the snapshot which was to be replaced that cannot be deleted.
    pub(crate) fn save_snapshot(&mut self, tag: Option<&str>) -> Result<(), QmpError> {
        self.check_storable()?;
        if self.all_snapshot_disks()?.is_empty() {
            return refuse("No block device can accept snapshots");
        }
        self.settle_awake();
        self.halt(RunState::SaveVm)?;
        let done = self.save_halted(tag);
        if self.state() == RunState::SaveVm {
            self.start();
        }
        done
    }

    fn save_halted(&mut self, tag: Option<&str>) -> Result<(), QmpError> {
        let failed = |error: &Error| QmpError::generic(told(error, "writing VM"));
        let flushed = self.drives.flush_all();
        flushed.map_err(|error| failed(&Error::Here(error.to_string())))?;
        let running = self.state() == RunState::SaveVm;
        let sections = self
            .save_moving(if running { RunState::Running } else { RunState::Paused })
            .map_err(|text| failed(&Error::Here(text)))?;
        // Nothing begins on any disk, and no job exchanges an image: state and snapshots are of
        // one moment, and in one image each.
        let held: Vec<Held> = self.drives.iter().filter_map(|drive| drive.hold()).collect();
        let disks = self.all_snapshot_disks()?;
        let Some((first, snapshots)) = disks.first() else {
            return refuse("No block device can accept snapshots");
        };
        let (wanted, kept) = wanted(tag, snapshots, &disks, self.board.clock.now());
        let done = self.write_state(first, sections).map_err(|error| failed(&error));
        let done = done.and_then(|vm_state_size| {
            take_all(&disks, &Snapshot { vm_state_size, ..wanted }, kept.as_deref())
        });
        if done.is_err()
            && let Err(error) = vmstate::discard(first)
        {
            tracing::warn!(
                "a machine's state that nobody wants stays on '{}': {error}",
                first.id()
            );
        }
        drop(held);
        done
    }

    /// Writes the state of the machine into the image of a disk; gives its bytes.
    fn write_state(&self, drive: &Arc<Drive>, sections: Vec<Section>) -> Result<u64, Error> {
        let mut link = IntoImage(Writer::new(drive));
        let limits = Arc::new(Limits::default());
        limits.set_bandwidth(0);
        let outcome = source::send(
            &mut link,
            self.blocks(),
            &self.inventory(),
            &mut Still(sections),
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

    /// Makes the machine and its disks what they were at a snapshot. The guest goes on from there
    /// if it ran now.
    ///
    /// # Errors
    /// Why that cannot be, in words that clients know. Unless the machine was changed already it
    /// goes on as before; otherwise its state is `internal-error`, and its disks are as before if
    /// it was not they that failed.
    pub(crate) fn load_snapshot(&mut self, tag: &str) -> Result<(), QmpError> {
        self.check_storable()?;
        self.plan(tag)?;
        let ran = self.is_running();
        self.halt(RunState::RestoreVm)?;
        let mut changed = false;
        let done = self.plan(tag).and_then(|plan| self.load_halted(&plan, &mut changed));
        match (&done, self.state()) {
            (Err(_), _) if changed => self.fail(),
            (_, RunState::RestoreVm) if ran => self.start(),
            (Err(_), _) | (Ok(()), RunState::Prelaunch) => {}
            // Whatever had stopped it is over.
            (Ok(()), _) => self.set_state(RunState::Paused),
        }
        done
    }

    fn plan(&self, tag: &str) -> Result<Plan, QmpError> {
        let mut disks = Vec::new();
        for (drive, all) in self.all_snapshot_disks()? {
            let Some(found) = find(&all, tag) else {
                let device = drive.id();
                return refuse(format!(
                    "Device '{device}' does not have the requested snapshot '{tag}'"
                ));
            };
            if disks.is_empty() && found.vm_state_size == 0 {
                return refuse("This is a disk-only snapshot. Revert to it offline using vmm-img.");
            }
            if drive.in_use() {
                return refuse(format!("Device '{}' is in use", drive.id()));
            }
            if has_bitmaps(&drive) {
                return refuse(not_activated(
                    -libc::EBUSY,
                    &drive,
                    tag,
                    "it has active dirty bitmaps",
                ));
            }
            disks.push((drive, found.clone()));
        }
        if disks.is_empty() {
            return refuse("No block device supports snapshots");
        }
        Ok(Plan { disks })
    }

    fn load_halted(&mut self, plan: &Plan, changed: &mut bool) -> Result<(), QmpError> {
        let Some((first, snapshot)) = plan.disks.first() else { return Ok(()) };
        let blocks = self.blocks();
        let pages: u64 = blocks.iter().map(|block| block.ram.size() / PAGE).sum();
        let most = pages.saturating_mul(PAGE_IN_STREAM).saturating_add(REST_OF_STREAM);
        let link = Reader::open(first, &snapshot.id, snapshot.vm_state_size, most);
        let link = link
            .map_err(|error| QmpError::generic(format!("Could not open VM state file: {error}")))?;
        let inventory = self.inventory();
        let mut back = Back { vm: self, changed: false };
        let done = dest::receive(Stored(OutOfImage(link)), blocks, &inventory, &mut back);
        *changed = back.changed;
        done.map_err(|error| QmpError::generic(told(&error, "loading VM state")))?;
        let held: Vec<Held> = self.drives.iter().filter_map(|drive| drive.hold()).collect();
        plan.disks.iter().try_for_each(|(drive, snapshot)| activate(drive, snapshot))?;
        if let Err(error) = vmstate::discard(first) {
            tracing::warn!("'{}' keeps a machine's state: {error}", first.id());
        }
        drop(held);
        Ok(())
    }

    /// Forgets what the machine is and takes over the state of every part.
    fn replace_state(&mut self, sections: Vec<Section>) -> Result<(), VmError> {
        let (global, parts) = unpack(sections)?;
        self.mailbox().end_life();
        self.board.clock.set(global.clock);
        self.restore(&parts)
    }

    /// Deletes a snapshot from all disks; says of each of them why it was not.
    pub(crate) fn delete_snapshot(&mut self, tag: &str) -> Result<(), QmpError> {
        let disks = self.snapshot_disks();
        let Some((first, _)) = disks.first() else {
            return refuse("No block device supports snapshots");
        };
        let failed = disks.iter().filter_map(|(drive, all)| {
            let why = match find(all, tag) {
                Some(found) => delete(drive, &found.id).err()?,
                None => "Can't find the snapshot".to_owned(),
            };
            Some(not_deleted(first, &why))
        });
        let failed: Vec<_> = failed.collect();
        if failed.is_empty() { Ok(()) } else { refuse(failed.join("\n")) }
    }
}

/// The snapshots in the image of a drive; `None` if its format has none.
fn list(drive: &Drive) -> Option<Vec<Snapshot>> {
    let found = drive
        .on_loop(|_, disk| async move { disk.node().image().and_then(|image| image.snapshots()) });
    found.ok().flatten()
}

/// Whether there are bitmaps in its image that tell of changes to the disk as it is.
fn has_bitmaps(drive: &Drive) -> bool {
    let found = drive
        .on_loop(|_, disk| async move { disk.node().image().and_then(|image| image.bitmaps()) });
    found.ok().flatten().is_some_and(|bitmaps| !bitmaps.is_empty())
}

fn not_deleted(drive: &Drive, why: &str) -> String {
    format!("Error while deleting snapshot on device '{}': {why}", drive.id())
}

fn not_activated(number: i32, drive: &Drive, tag: &str, why: &str) -> String {
    format!("Error {number} while activating snapshot '{tag}' on '{}': {why}", drive.id())
}

fn delete(drive: &Drive, id: &str) -> Result<(), String> {
    let (device, id) = (drive.id().to_owned(), id.to_owned());
    let done = drive.on_loop(move |_, disk| async move {
        delete_internal(&disk, &device, Some(&id), None).await
    });
    done.and_then(|done| done).map(drop).map_err(|error| error.to_string())
}

/// What the snapshot is to be: of a new identity, which it has until the one of this name is gone,
/// and of which one then. A snapshot that there is already on the first disk keeps its name, and
/// its identity unless another disk has something else under it.
fn wanted(
    tag: Option<&str>,
    first: &[Snapshot],
    disks: &[Disk],
    vm_clock: u64,
) -> (Snapshot, Option<String>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
    let before = tag.and_then(|tag| find(first, tag));
    let name = match (before, tag) {
        (Some(before), _) => before.name.clone(),
        (None, Some(tag)) => tag.to_owned(),
        (None, None) => default_name(seconds),
    };
    let all = || disks.iter().flat_map(|(_, all)| all);
    let numbers = all().filter_map(|snapshot| snapshot.id.parse::<u64>().ok());
    let next = numbers.max().unwrap_or(0).saturating_add(1).to_string();
    let kept = before.map(|before| before.id.clone());
    let kept = kept.filter(|id| all().all(|other| other.id != *id || other.name == name));
    let wanted = Snapshot {
        id: next,
        name,
        vm_state_size: 0,
        date: (seconds, now.subsec_micros() * 1000),
        vm_clock,
        disk_size: 0,
    };
    (wanted, kept)
}

/// Takes the snapshot on all disks or on none; only the first keeps the state of the machine. Then
/// those that it replaces go, and it gets the identity that is `kept`.
fn take_all(disks: &[Disk], wanted: &Snapshot, kept: Option<&str>) -> Result<(), QmpError> {
    let give_up = |disks: &[Disk]| {
        for (drive, _) in disks {
            if let Err(why) = delete(drive, &wanted.id) {
                tracing::error!("{}", not_deleted(drive, &why));
            }
        }
    };
    for (index, (drive, _)) in disks.iter().enumerate() {
        let vm_state_size = if index == 0 { wanted.vm_state_size } else { 0 };
        let (device, wanted) =
            (drive.id().to_owned(), Snapshot { vm_state_size, ..wanted.clone() });
        let taken = drive
            .on_loop(move |_, disk| async move { create_another(&disk, &device, wanted).await });
        if let Err(why) = taken.and_then(|taken| taken) {
            give_up(disks.get(..index).unwrap_or_default());
            return refuse(format!("Error while creating snapshot on '{}': {why}", drive.id()));
        }
    }
    for (drive, all) in disks {
        for old in all.iter().filter(|old| old.name == wanted.name) {
            if let Err(why) = delete(drive, &old.id) {
                // Two of one name would be taken for one another.
                give_up(disks);
                return refuse(not_deleted(drive, &why));
            }
        }
    }
    for (drive, _) in disks {
        let Some(kept) = kept.map(str::to_owned) else { break };
        let id = wanted.id.clone();
        let done =
            drive.on_loop(move |_, disk| async move { identify_internal(&disk, &id, &kept).await });
        let done = done.map_err(io::Error::other).and_then(|done| done);
        done.unwrap_or_else(|why| {
            tracing::warn!("a snapshot on '{}' has a new identity: {why}", drive.id());
        });
    }
    Ok(())
}

/// Makes a disk what it was at a snapshot, and tells its device if that has another size.
fn activate(drive: &Arc<Drive>, snapshot: &Snapshot) -> Result<(), QmpError> {
    let (id, size) = (snapshot.id.clone(), drive.size());
    let done = drive.on_loop(move |_, disk| async move { apply_internal(&disk, &id).await });
    let done = done.map_err(|error| io::Error::other(error.to_string())).and_then(|done| done);
    if let Err(error) = done {
        let why = block::errno_text(&error);
        return refuse(not_activated(code(&error), drive, &snapshot.name, &why));
    }
    if drive.size() != size {
        drive.models().iter().for_each(|model| model.resized());
    }
    Ok(())
}
