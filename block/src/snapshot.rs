//! Snapshots of a drive: new images on top of it, and such inside its image.
//!
//! On the loop of the drive's graph; what may block goes through its pool. Names are a client's.

use std::io;
use std::rc::Rc;

use resources::iol::Local;

use crate::disk::Disk;
use crate::host::errno_text;
use crate::image::{Image, Snapshot};
use crate::job::{NewFile, make};
use crate::node::Node;
use crate::open::{OpenError, Spec};
use crate::tools::{clock, size};

fn refuse<T>(text: impl Into<String>) -> Result<T, OpenError> {
    Err(OpenError(text.into()))
}

/// A new image that is to be put on top of a drive.
pub struct Overlay {
    node: Rc<dyn Node>,
    spec: Spec,
}

impl Overlay {
    /// Makes what was written durable and opens the new image, which is created if it is to be: on
    /// what the drive has, opened from `spec`, or on one that was prepared before. The drive is as
    /// before.
    ///
    /// # Errors
    /// What cannot be flushed, created or opened. A file that was created stays.
    pub async fn prepare(
        local: &Local,
        disk: &Disk,
        spec: &Spec,
        file: &NewFile,
        before: Option<&Overlay>,
    ) -> Result<Overlay, OpenError> {
        let (old, spec) = match before {
            Some(overlay) => (overlay.node.clone(), &overlay.spec),
            None => (disk.node(), spec),
        };
        if !disk.read_only() && old.flush().await.is_err() {
            return refuse("An IO error has occurred");
        }
        let made = make(local, disk, spec, file, Some(&old)).await?;
        let mut new = made.spec;
        if made.node.image().is_none() {
            let _ = made.node.close().await;
            return refuse(format!(
                "Backing file not supported for file format '{}'",
                made.node.driver()
            ));
        }
        // Opened anew, it stands on what it stands on now, whatever stands in it.
        if let Some(filename) = spec.filename.as_deref().filter(|name| !name.starts_with("json:")) {
            new.options.set("backing.file", filename);
        }
        for (key, value) in spec.options.iter() {
            new.options.set(&format!("backing.{key}"), value);
        }
        Ok(Overlay { node: made.node, spec: new })
    }

    /// Puts it on top, and what was there below it, where it is not written to any more. Returns
    /// what the drive is opened from then.
    pub async fn commit(&self, disk: &Disk) -> Spec {
        let _held = disk.drain().await;
        let old = disk.node();
        if let Some(image) = self.node.image() {
            image.set_backing(Some(old.clone()));
        }
        disk.replace(self.node.clone());
        if let Err(error) = old.reopen(true).await {
            tracing::warn!("the image below a snapshot stays open for writing: {error}");
        }
        self.spec.clone()
    }

    /// Lets go of it.
    pub async fn release(&self) {
        if let Err(error) = self.node.close().await {
            tracing::warn!("an image was not closed well: {error}");
        }
    }
}

/// A drive whose image is to be looked at or changed.
fn snapshots_of<'a>(
    node: &'a Rc<dyn Node>,
    device: &str,
) -> Result<(&'a dyn Image, Vec<Snapshot>), OpenError> {
    let image = node.image();
    match image.and_then(|image| Some((image, image.snapshots()?))) {
        Some(found) => Ok(found),
        None => refuse(format!(
            "Block format '{}' used by device '{device}' does not support feature 'internal snapshot'",
            node.driver()
        )),
    }
}

/// Takes a snapshot inside the image of a drive; what it is to be called and when it is taken
/// stands in `wanted`.
///
/// # Errors
/// The format has none, the name is empty or taken, or the image cannot be written to.
pub async fn create_internal(
    disk: &Disk,
    device: &str,
    wanted: Snapshot,
) -> Result<Snapshot, OpenError> {
    let node = disk.node();
    let (_, all) = snapshots_of(&node, device)?;
    let name = &wanted.name;
    if name.is_empty() {
        return refuse("Name is empty");
    }
    if all.iter().any(|snapshot| snapshot.name == *name) {
        return refuse(format!("Snapshot with name '{name}' already exists on device '{device}'"));
    }
    create_another(disk, device, wanted).await
}

/// As [`create_internal`], also if there is one of this name, which is to go when the new one is
/// safe.
///
/// # Errors
/// The format has none, or the image cannot be written to.
pub async fn create_another(
    disk: &Disk,
    device: &str,
    wanted: Snapshot,
) -> Result<Snapshot, OpenError> {
    let _held = disk.drain().await;
    let node = disk.node();
    let (image, _) = snapshots_of(&node, device)?;
    let name = wanted.name.clone();
    let wanted = Snapshot { disk_size: node.info().size, ..wanted };
    image.create_snapshot(wanted).await.map_err(|error| {
        let why = errno_text(&error);
        OpenError(format!("Failed to create snapshot '{name}' on device '{device}': {why}"))
    })
}

/// Deletes the first snapshot inside the image of a drive that has this identity and this name, as
/// far as they are given, and tells what it was.
///
/// # Errors
/// There is none, or the image cannot be written to.
pub async fn delete_internal(
    disk: &Disk,
    device: &str,
    id: Option<&str>,
    name: Option<&str>,
) -> Result<Snapshot, OpenError> {
    let _held = disk.drain().await;
    let node = disk.node();
    let Some((image, all)) = node.image().and_then(|image| Some((image, image.snapshots()?)))
    else {
        let why = errno_text(&io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        return refuse(format!("Failed to get a snapshot list: {why}"));
    };
    let found = all.into_iter().find(|snapshot| {
        id.is_none_or(|id| snapshot.id == id) && name.is_none_or(|name| snapshot.name == name)
    });
    let Some(found) = found else {
        let (id, name) = (id.unwrap_or("null"), name.unwrap_or("null"));
        return refuse(format!(
            "Snapshot with id '{id}' and name '{name}' does not exist on device '{device}'"
        ));
    };
    match image.delete_snapshot(&found.id).await {
        Ok(()) => Ok(found),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => refuse(format!(
            "Block format '{}' used by device '{device}' does not support feature \
             'internal snapshot deletion'",
            node.driver()
        )),
        Err(error) => refuse(errno_text(&error)),
    }
}

/// Gives a snapshot inside the image of a drive another identity.
///
/// # Errors
/// There is none of the one, there is one of the other, or the image cannot be written to.
pub async fn identify_internal(disk: &Disk, id: &str, to: &str) -> io::Result<()> {
    let _held = disk.drain().await;
    let node = disk.node();
    node.image().ok_or(io::ErrorKind::Unsupported)?.identify_snapshot(id, to).await
}

/// Makes a drive what it was at the snapshot of this identity or name.
///
/// # Errors
/// There is none, or the image cannot be written to.
pub async fn apply_internal(disk: &Disk, wanted: &str) -> io::Result<Snapshot> {
    let _held = disk.drain().await;
    let node = disk.node();
    let image = node.image().ok_or(io::ErrorKind::Unsupported)?;
    let all = image.snapshots().ok_or(io::ErrorKind::Unsupported)?;
    let found = find(&all, wanted).cloned().ok_or(io::Error::from_raw_os_error(libc::ENOENT))?;
    image.apply_snapshot(&found.id).await?;
    disk.size_changed();
    Ok(found)
}

/// The snapshot of this identity or, if there is none, of this name.
pub fn find<'a>(all: &'a [Snapshot], wanted: &str) -> Option<&'a Snapshot> {
    let by_id = all.iter().find(|snapshot| snapshot.id == wanted);
    by_id.or_else(|| all.iter().find(|snapshot| snapshot.name == wanted))
}

/// The name of a snapshot that is given none, taken so many seconds after 1970.
pub fn default_name(seconds: u32) -> String {
    let digits = clock::local_time(seconds);
    let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
    format!("vm-{digits}")
}

/// A table of snapshots, line by line.
pub fn listing(snapshots: &[Snapshot]) -> Vec<String> {
    let row = |id: &str, tag: &str, size: &str, date: &str, clock: &str| {
        format!("{id:<10}{tag:<20}{size:>7}{date:>20}{clock:>15}")
    };
    let mut lines = vec![row("ID", "TAG", "VM SIZE", "DATE", "VM CLOCK")];
    for snapshot in snapshots {
        let seconds = snapshot.vm_clock / 1_000_000_000;
        let millis = snapshot.vm_clock / 1_000_000 % 1000;
        let (minutes, hours) = (seconds / 60 % 60, seconds / 3600);
        let clock = format!("{hours:02}:{minutes:02}:{:02}.{millis:03}", seconds % 60);
        let date = clock::local_time(snapshot.date.0);
        let size = size::short(snapshot.vm_state_size);
        lines.push(row(&snapshot.id, &snapshot.name, &size, &date, &clock));
    }
    lines
}
