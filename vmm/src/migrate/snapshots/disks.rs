//! The snapshots in the images of a machine's disks: which there are, which is meant, and taking,
//! applying and deleting one on all disks.
//!
//! Any thread but those of the disks' loops, for which it waits. Names are a client's, snapshots
//! those of whoever made the image.

use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use block::drive::Drive;
use block::image::Snapshot;
use block::snapshot::{
    apply_internal, create_another, default_name, delete_internal, identify_internal,
};
use qmp::QmpError;

use super::super::writable;
use super::{code, refuse};

/// A disk that can be written to, with the snapshots in its image.
pub(crate) type Disk = (Arc<Drive>, Vec<Snapshot>);

/// The disks that can be written to and whose format has snapshots.
pub(super) fn capable(drives: &[Arc<Drive>]) -> Vec<Disk> {
    writable(drives).filter_map(|drive| Some((drive.clone(), list(drive)?))).collect()
}

/// The same, when all disks that can be written to are among them.
pub(super) fn all_capable(drives: &[Arc<Drive>]) -> Result<Vec<Disk>, QmpError> {
    let all = writable(drives).map(|drive| match list(drive) {
        Some(snapshots) => Ok((drive.clone(), snapshots)),
        None => {
            refuse(format!("Device '{}' is writable but does not support snapshots.", drive.id()))
        }
    });
    all.collect()
}

/// The snapshot that a user means: the one of this name or, if there is none, of this identity.
pub(super) fn meant<'a>(all: &'a [Snapshot], tag: &str) -> Option<&'a Snapshot> {
    let by_name = all.iter().find(|snapshot| snapshot.name == tag);
    by_name.or_else(|| all.iter().find(|snapshot| snapshot.id == tag))
}

/// The one that belongs to it on another disk. Names tell, for identities are given by each image
/// for itself.
pub(super) fn twin<'a>(all: &'a [Snapshot], of: &Snapshot) -> Option<&'a Snapshot> {
    let same =
        |id: bool| all.iter().find(|other| other.name == of.name && (!id || other.id == of.id));
    same(true).or_else(|| if of.name.is_empty() { None } else { same(false) })
}

/// What is to be gone back to: the disks, each with its snapshot. There is a first one, which has
/// the state of the machine.
pub(super) fn plan(
    drives: &[Arc<Drive>],
    tag: &str,
) -> Result<Vec<(Arc<Drive>, Snapshot)>, QmpError> {
    let mut plan: Vec<(Arc<Drive>, Snapshot)> = Vec::new();
    for (drive, all) in all_capable(drives)? {
        let found = match plan.first() {
            Some((_, first)) => twin(&all, first),
            None => meant(&all, tag),
        };
        let Some(found) = found else {
            let device = drive.id();
            return refuse(format!(
                "Device '{device}' does not have the requested snapshot '{tag}'"
            ));
        };
        if plan.is_empty() && found.vm_state_size == 0 {
            return refuse("This is a disk-only snapshot. Revert to it offline using vmm-img.");
        }
        if drive.in_use() {
            return refuse(format!("Device '{}' is in use", drive.id()));
        }
        if has_bitmaps(&drive) {
            let why = "it has active dirty bitmaps";
            return refuse(not_activated(-libc::EBUSY, &drive, tag, why));
        }
        let found = found.clone();
        plan.push((drive, found));
    }
    if plan.is_empty() { refuse("No block device supports snapshots") } else { Ok(plan) }
}

/// Deletes a snapshot from all disks; says of each of them why it was not.
pub(super) fn delete_all(drives: &[Arc<Drive>], tag: &str) -> Result<(), QmpError> {
    let disks = capable(drives);
    let Some((first, _)) = disks.first() else {
        return refuse("No block device supports snapshots");
    };
    let wanted = disks.iter().find_map(|(_, all)| meant(all, tag));
    let failed = disks.iter().filter_map(|(drive, all)| {
        let why = match wanted.and_then(|wanted| twin(all, wanted)) {
            Some(found) => delete(drive, &found.id).err()?,
            None => "Can't find the snapshot".to_owned(),
        };
        Some(not_deleted(first, &why))
    });
    let failed: Vec<_> = failed.collect();
    if failed.is_empty() { Ok(()) } else { refuse(failed.join("\n")) }
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
pub(super) fn wanted(
    tag: Option<&str>,
    first: &[Snapshot],
    disks: &[Disk],
    vm_clock: u64,
) -> (Snapshot, Option<String>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
    let before = tag.and_then(|tag| meant(first, tag));
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
pub(super) fn take_all(
    disks: &[Disk],
    wanted: &Snapshot,
    kept: Option<&str>,
) -> Result<(), QmpError> {
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

/// Makes a disk what it was at a snapshot; whether it has another size now.
pub(super) fn activate(drive: &Arc<Drive>, snapshot: &Snapshot) -> Result<bool, QmpError> {
    let (id, size) = (snapshot.id.clone(), drive.size());
    let done = drive.on_loop(move |_, disk| async move { apply_internal(&disk, &id).await });
    let done = done.map_err(|error| io::Error::other(error.to_string())).and_then(|done| done);
    match done {
        Ok(_) => Ok(drive.size() != size),
        Err(error) => {
            let why = block::errno_text(&error);
            refuse(not_activated(code(&error), drive, &snapshot.name, &why))
        }
    }
}
