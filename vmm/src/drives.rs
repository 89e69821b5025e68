//! The drives of a machine: what `-drive`, drive_add and blockdev-add make.
//!
//! Main thread. Options are the user's or a client's; images come from anybody. Opening an image,
//! giving one up and flushing wait for the loop that serves it.

use std::sync::Arc;

use block::options::OptionError;
use block::{Drive, Failure, IoStatus, OnError, OpenError, Options, Policy, Spec};
use resources::clock::Clock;
use resources::iol::Handle;
use resources::value::check_identifier;

use crate::cli::keyval::Pairs;
use crate::mailbox::Mailbox;
use place::{Media, Place};
use spec::Wanted;

/// All drives, in the order in which they were made.
#[derive(Default)]
pub struct Drives {
    all: Vec<Arc<Drive>>,
    /// Where those of `-drive` are.
    places: Vec<Place>,
    /// Nodes that are parts of others, by their names.
    parts: Vec<(String, Spec)>,
    /// Those that go when their device does.
    with_device: Vec<String>,
    clock: Option<Arc<Clock>>,
    /// The guest is still with another process, and so are its disks.
    pub awaits_guest: bool,
}

/// Why there is no such drive. The texts are those that clients know.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DriveError(pub String);

impl From<OptionError> for DriveError {
    fn from(error: OptionError) -> DriveError {
        DriveError(error.0)
    }
}

fn wrong<T>(text: impl Into<String>) -> Result<T, DriveError> {
    Err(DriveError(text.into()))
}

/// What drives stand on.
pub struct Home<'a> {
    /// The loop that serves drives without a device.
    pub io: Handle,
    /// Who is told of failed requests.
    pub mailbox: &'a Arc<Mailbox>,
}

impl Drives {
    /// The drive of this name.
    pub fn find(&self, id: &str) -> Option<&Arc<Drive>> {
        self.all.iter().find(|drive| drive.id() == id)
    }

    /// Whether a drive, or a part of one, has this name.
    fn is_taken(&self, name: &str) -> bool {
        self.find(name).is_some() || self.parts.iter().any(|(part, _)| part == name)
    }

    /// All of them, oldest first.
    pub fn all(&self) -> Vec<Arc<Drive>> {
        self.all.clone()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Drive>> {
        self.all.iter()
    }

    /// Makes what `-drive` asks for; returns the devices that it wants too, a controller first.
    ///
    /// # Errors
    /// An option is wrong, or the image cannot be opened.
    pub fn add_option(&mut self, pairs: &Pairs, home: &Home<'_>) -> Result<Vec<Pairs>, DriveError> {
        let mut options: Options = pairs.iter().collect();
        let place = Place::take(&mut options, &self.places)?;
        if place.media == Media::Cdrom {
            options.set("read-only", "on");
        }
        self.open(&place.id, options, home, true)?;
        let devices = place.devices(&self.places);
        self.places.push(place);
        Ok(devices)
    }

    /// Makes a drive from options as `-drive` has them, with dotted keys for what is below it. It
    /// stays when the device that has it goes.
    ///
    /// # Errors
    /// An option is wrong, the id is taken, or the image cannot be opened.
    pub fn add(&mut self, id: &str, options: Options, home: &Home<'_>) -> Result<(), DriveError> {
        check_identifier("id", id).map_err(|error| DriveError(error.to_string()))?;
        self.open(id, options, home, false)
    }

    fn open(
        &mut self,
        id: &str,
        options: Options,
        home: &Home<'_>,
        goes_with_device: bool,
    ) -> Result<(), DriveError> {
        if self.is_taken(id) {
            return wrong(format!("Duplicate ID '{id}' for drive"));
        }
        let wanted = Wanted::parse(id, options)?;
        let mailbox = home.mailbox.clone();
        let report = move |failure: Failure| mailbox.ask(|mail| mail.disk_failed(failure));
        let drive = Drive::new(id, home.io.clone(), wanted.policy, report);
        if self.awaits_guest {
            drive.begin_inactive();
        }
        let mailbox = home.mailbox.clone();
        let name = id.to_owned();
        drive.tell_corruption(Arc::new(move |damage| {
            mailbox.ask(|mail| mail.image_corrupted(&name, damage));
        }));
        if let Some(serial) = &wanted.serial {
            drive.set_serial(serial);
        }
        if let Some((spec, name)) = wanted.medium {
            let opened = drive.insert(spec);
            opened.map_err(|why| DriveError(format!("could not open disk image {name}: {why}")))?;
        }
        if let Some(clock) = &self.clock {
            drive.set_clock(clock.clone());
        }
        drive.set_limits(wanted.limits);
        if goes_with_device {
            self.with_device.push(id.to_owned());
        }
        self.all.push(drive);
        Ok(())
    }

    /// Gives all drives the clock that their limits go by.
    pub fn set_clock(&mut self, clock: &Arc<Clock>) {
        self.clock = Some(clock.clone());
        for drive in &self.all {
            drive.set_clock(clock.clone());
        }
    }

    /// Those that a device has.
    pub fn attached(&self) -> Vec<String> {
        let attached = self.all.iter().filter(|drive| drive.is_attached());
        attached.map(|drive| drive.id().to_owned()).collect()
    }

    /// Takes away those of these drives that were made for a device which has gone.
    pub fn device_gone(&mut self, ids: &[String]) {
        for id in ids {
            if self.with_device.contains(id)
                && self.find(id).is_some_and(|drive| !drive.is_attached())
                && let Err(error) = self.remove(id)
            {
                tracing::debug!("drive '{id}' stays: {error}");
            }
        }
    }

    /// Takes a drive away, even if a device has it, which is then without a disk.
    ///
    /// # Errors
    /// There is none, or a job has it.
    pub fn remove(&mut self, id: &str) -> Result<(), DriveError> {
        let Some(at) = self.all.iter().position(|drive| drive.id() == id) else {
            return wrong(format!("Device '{id}' not found"));
        };
        if self.all.get(at).is_some_and(|drive| drive.in_use()) {
            return wrong(format!("Device '{id}' is in use"));
        }
        let drive = self.all.remove(at);
        self.places.retain(|place| place.id != id);
        self.with_device.retain(|other| other != id);
        drive.set_policy(Policy { read: OnError::Report, write: OnError::Report });
        drive.remove();
        Ok(())
    }

    /// Makes everything durable that was written.
    ///
    /// # Errors
    /// The first disk that fails, by name.
    pub fn flush_all(&self) -> Result<(), DriveError> {
        self.all.iter().try_for_each(|drive| {
            let done = drive.flush();
            done.map_err(|why| DriveError(format!("flush of drive '{}': {why}", drive.id())))
        })
    }

    /// Whether another process could take the disks as they are.
    ///
    /// # Errors
    /// The first one with something that stays in this process, by name.
    pub fn check_movable(&self) -> Result<(), DriveError> {
        for drive in &self.all {
            let id = drive.id();
            if drive.in_use() {
                return wrong(format!("drive '{id}' has a job, which cannot move"));
            }
            if drive.spec().is_some_and(|spec| spec.snapshot) {
                return wrong(format!("drive '{id}' is temporary (snapshot=on) and cannot move"));
            }
        }
        Ok(())
    }

    /// Lets go of all disks, so that another process can take them.
    ///
    /// # Errors
    /// The first disk that fails, by name.
    pub fn deactivate(&self) -> Result<(), DriveError> {
        self.each(|drive| drive.deactivate())
    }

    /// Takes all disks back, or none.
    ///
    /// # Errors
    /// The first disk that fails, by name.
    pub fn activate(&self) -> Result<(), DriveError> {
        let inactive: Vec<_> = self.all.iter().filter(|drive| drive.is_inactive()).collect();
        let done = self.each(|drive| drive.activate());
        if done.is_err() {
            for drive in inactive {
                if let Err(why) = drive.deactivate() {
                    tracing::error!("drive '{}' stays in use here: {why}", drive.id());
                }
            }
        }
        done
    }

    /// Takes all disks of a guest that comes, and those that it gets later.
    ///
    /// # Errors
    /// As [`activate`](Self::activate).
    pub fn take_over(&mut self) -> Result<(), DriveError> {
        self.activate()?;
        self.awaits_guest = false;
        Ok(())
    }

    /// Which image each drive has: its name and that of the file on top.
    pub fn images(&self) -> Vec<(String, String)> {
        let images = self.all.iter().filter_map(|drive| Some((drive, drive.describe()?)));
        images.map(|(drive, image)| (drive.id().to_owned(), image.filename)).collect()
    }

    fn each(&self, todo: impl Fn(&Drive) -> Result<(), OpenError>) -> Result<(), DriveError> {
        self.all.iter().try_for_each(|drive| {
            todo(drive).map_err(|why| DriveError(format!("drive '{}': {why}", drive.id())))
        })
    }

    /// Makes everything durable that was written. A disk that fails is named in the log.
    pub fn flush(&self) {
        for drive in &self.all {
            if let Err(error) = drive.flush() {
                tracing::error!("drive '{}' could not be flushed: {error}", drive.id());
            }
        }
    }

    /// An error has stopped the machine.
    pub fn stopped_by(&self, failure: &Failure) {
        if let Some(drive) = self.find(&failure.drive) {
            let status = if failure.no_space { IoStatus::NoSpace } else { IoStatus::Failed };
            drive.set_io_status(status);
        }
    }

    /// The machine goes on.
    pub fn reset_io_status(&self) {
        self.all.iter().for_each(|drive| drive.reset_io_status());
    }

    /// Closes all images.
    pub fn close(&mut self) {
        self.all.drain(..).for_each(|drive| drive.remove());
    }
}

mod node;
mod place;
mod spec;
#[cfg(test)]
mod tests;
