//! Media of drives: taking them out, putting others in, keys and limits.
//!
//! Main thread; opening and closing an image waits for the loop that serves it. Names and values
//! are a client's.

use std::sync::Arc;

use block::throttle::Given;
use block::{Cache, Drive, Options, Spec};
use qmp::{BlockPasswd, BlockSetIoThrottle, Change, Eject, ErrorClass, Event, Handle, QmpError};

use crate::vm::Vm;

impl Handle<BlockSetIoThrottle> for Vm {
    fn handle(&mut self, all: BlockSetIoThrottle) -> Result<(), QmpError> {
        let drive = self.drive(&all.device)?;
        let or_none = |value: Option<i64>| value.unwrap_or(0);
        let given = Given {
            bps: [all.bps, all.bps_rd, all.bps_wr],
            bps_max: [all.bps_max, all.bps_rd_max, all.bps_wr_max].map(or_none),
            iops: [all.iops, all.iops_rd, all.iops_wr],
            iops_max: [all.iops_max, all.iops_rd_max, all.iops_wr_max].map(or_none),
            iops_size: or_none(all.iops_size),
        };
        let limits = given.limits().map_err(|error| QmpError::generic(error.to_string()))?;
        drive.set_limits(limits);
        Ok(())
    }
}

impl Handle<Eject> for Vm {
    fn handle(&mut self, Eject { device, force }: Eject) -> Result<(), QmpError> {
        let drive = self.drive(&device)?;
        self.take_medium(&drive, force.unwrap_or(false))
    }
}

impl Handle<Change> for Vm {
    fn handle(&mut self, Change { device, target, arg }: Change) -> Result<(), QmpError> {
        let drive = self.drive(&device)?;
        let mut options = Options::new();
        if let Some(format) = &arg {
            if block::format::usable(format).is_none() && block::protocol::named(format).is_none() {
                return Err(QmpError::generic(format!("Invalid block format '{format}'")));
            }
            options.set("driver", format);
        }
        let old = drive.spec();
        // What is in a CD-ROM drive is never written.
        let read_only = if drive.has_medium() { drive.read_only() } else { drive.is_attached() };
        self.take_medium(&drive, false)?;
        let cache = Cache { writeback: false, direct: false, no_flush: false };
        let snapshot = old.is_some_and(|spec| spec.snapshot);
        let flags = Spec { read_only, cache, snapshot, ..Spec::default() };
        let spec = Spec { filename: Some(target), options, device, ..flags };
        drive.insert(spec).map_err(|error| QmpError::generic(error.to_string()))?;
        match keyless(&drive) {
            Some(error) => Err(error),
            None => {
                self.medium_came(&drive);
                Ok(())
            }
        }
    }
}

impl Handle<BlockPasswd> for Vm {
    fn handle(&mut self, BlockPasswd { device, password }: BlockPasswd) -> Result<(), QmpError> {
        let drive = self.drive(&device)?;
        let described = drive.describe();
        let missing = described.as_ref().is_some_and(|medium| medium.keyless().is_some());
        let encrypted = described.is_some_and(|medium| {
            let below = medium.backing.as_ref().is_some_and(|below| below.is_encrypted());
            medium.is_encrypted() || below
        });
        if !encrypted {
            return Err(QmpError::generic(format!("Device '{device}' is not encrypted")));
        }
        drive.set_key(&password).map_err(|_| QmpError::generic("Password incorrect"))?;
        if missing {
            self.medium_came(&drive);
        }
        Ok(())
    }
}

impl Vm {
    /// The first drive that lacks a key, as an error.
    pub fn lacks_key(&self) -> Option<QmpError> {
        self.drives.iter().find_map(|drive| keyless(drive))
    }

    /// Opens the trays that are closed, before the process ends.
    pub fn open_trays(&mut self) {
        let closed = |drive: &&Arc<Drive>| {
            let tray = drive.model().and_then(|model| model.tray());
            tray.is_some_and(|tray| !tray.open)
        };
        let closed: Vec<_> = self.drives.iter().filter(closed).cloned().collect();
        closed.iter().for_each(|drive| self.tray_moved(drive, true));
    }

    /// Takes the medium out, and opens the tray for that.
    fn take_medium(&mut self, drive: &Arc<Drive>, force: bool) -> Result<(), QmpError> {
        let id = drive.id();
        let refuse = |what: &str| Err(QmpError::generic(format!("Device '{id}' is {what}")));
        if drive.in_use() {
            return refuse("in use");
        }
        let Some(tray) = drive.tray() else { return refuse("not removable") };
        let models = drive.models();
        if !models.is_empty() && tray.locked && !tray.open {
            models.iter().for_each(|model| model.eject_request(force));
            if !force {
                return refuse("locked");
            }
        }
        drive.remove();
        models.iter().for_each(|model| model.medium_changed(false));
        if !models.is_empty() && !tray.open {
            self.tray_moved(drive, true);
        }
        Ok(())
    }

    /// A medium can be used now: the tray closes, after it opened if it was closed.
    fn medium_came(&mut self, drive: &Drive) {
        let Some(model) = drive.model() else { return };
        let Some(tray) = model.tray() else { return };
        if !tray.open {
            self.tray_moved(drive, true);
        }
        drive.models().iter().for_each(|model| model.medium_changed(true));
        self.tray_moved(drive, false);
    }

    fn tray_moved(&mut self, drive: &Drive, tray_open: bool) {
        self.context.raise(Event::DeviceTrayMoved { device: drive.id().to_owned(), tray_open });
    }
}

/// That the medium of a drive cannot be used without a key, if it is so.
fn keyless(drive: &Drive) -> Option<QmpError> {
    let medium = drive.describe()?;
    let image = medium.keyless()?;
    let text = format!("'{}' ({}) is encrypted", drive.id(), image.filename);
    Some(QmpError::new(ErrorClass::DeviceEncrypted, text))
}
