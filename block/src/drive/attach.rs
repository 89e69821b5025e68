//! The device that has a drive, or several that share it.
//!
//! Main thread: giving a drive to a device may move its graph, which waits for two loops.

use std::sync::Arc;

use resources::iol::Handle;

use super::{Drive, IoStatus, close};
use crate::chain;
use crate::open::OpenError;

/// The door of a removable medium.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tray {
    /// It is open.
    pub open: bool,
    /// The guest has locked it.
    pub locked: bool,
}

/// The device that has a drive. Called on the main thread, without any lock held.
pub trait Model: Send + Sync {
    /// The size has changed.
    fn resized(&self) {}
    /// The door; `None` when the medium cannot be changed.
    fn tray(&self) -> Option<Tray> {
        None
    }
    /// A medium was put in, or taken out.
    fn medium_changed(&self, _loaded: bool) {}
    /// The user wants the medium out; with `force` the lock is gone.
    fn eject_request(&self, _force: bool) {}
}

/// Somebody else has the drive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Drive '{0}' is in use by another device")]
pub struct Busy(pub String);

impl Drive {
    /// Gives the drive to a device for itself, whose requests come on the loop `on`; the graph is
    /// moved there.
    ///
    /// # Errors
    /// When it has a device already, the graph cannot be built there, or another program writes
    /// the image.
    pub fn attach(
        self: &Arc<Self>,
        on: &Handle,
        model: Arc<dyn Model>,
    ) -> Result<Attachment, AttachError> {
        self.attach_as(on, model, false)
    }

    /// As [`attach`](Self::attach); with `share`, other devices that share it can have it too, and
    /// other programs may write the image, if its format leaves its bytes as they are. Cache mode
    /// and error policy are the drive's, and so those of all its devices.
    ///
    /// # Errors
    /// As above; when the devices that have it do not share it, or are served on another loop.
    pub fn attach_as(
        self: &Arc<Self>,
        on: &Handle,
        model: Arc<dyn Model>,
        share: bool,
    ) -> Result<Attachment, AttachError> {
        let (old, moves) = {
            let mut state = self.state.lock();
            let taken = !state.models.is_empty();
            if taken && !(share && state.shares) || state.in_use || state.job.is_some() {
                return Err(AttachError::Busy(Busy(self.id.clone())));
            }
            if taken && !state.home.is(on) {
                return Err(AttachError::Elsewhere(self.id.clone()));
            }
            state.models.push(model.clone());
            if taken {
                return Ok(Attachment { drive: self.clone(), model });
            }
            state.shares = share;
            state.io_status = state.io_status.map(|_| IoStatus::Ok);
            let moves = !state.home.is(on);
            state.home = on.clone();
            (state.medium.clone(), moves)
        };
        let attachment = Attachment { drive: self.clone(), model };
        if let Some(medium) = old
            && moves
        {
            // Closed here before it is opened there: one graph at a time.
            // Its files stay open: their names may mean something else by now.
            let spec = medium.spec.clone();
            let files = self.on_disk(|disk| async move { chain::files(disk.node()) });
            let files = files.unwrap_or_default();
            // The old one stays the place of the drive meanwhile: who uses it from outside waits
            // for the new one there.
            close(Some(medium));
            match self.build(on, spec, files) {
                Ok(medium) => self.state.lock().medium = Some(medium),
                Err(error) => {
                    // The old graph is gone: the drive is as empty as one that was emptied.
                    self.remove();
                    return Err(AttachError::Open(error));
                }
            }
        }
        let locked = self.on_disk(move |disk| async move {
            let mut files = chain::plain_files(disk.node()).into_iter();
            files.try_for_each(|file| file.share_writes(share))
        });
        // Without a medium there is nothing to be locked.
        locked.unwrap_or(Ok(())).map_err(|error| AttachError::Locked(error.into()))?;
        Ok(attachment)
    }

    /// The device that has it; the first of several.
    pub fn model(&self) -> Option<Arc<dyn Model>> {
        self.state.lock().models.first().cloned()
    }

    /// The devices that have it.
    pub fn models(&self) -> Vec<Arc<dyn Model>> {
        self.state.lock().models.clone()
    }

    /// Whether a device has it.
    pub fn is_attached(&self) -> bool {
        !self.state.lock().models.is_empty()
    }

    /// Whether devices have it that would share it with another one.
    pub fn is_shared(&self) -> bool {
        let state = self.state.lock();
        state.shares && !state.models.is_empty()
    }

    /// The door; `None` when the medium cannot be changed. A drive without a device has one.
    pub fn tray(&self) -> Option<Tray> {
        match self.model() {
            Some(model) => model.tray(),
            None => Some(Tray::default()),
        }
    }
}

/// Why a drive was not given to a device.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Somebody else has it.
    #[error(transparent)]
    Busy(Busy),
    /// Its graph cannot be built on the loop of the device.
    #[error("cannot move the disk to its I/O thread: {0}")]
    Open(OpenError),
    /// Another program writes the image.
    #[error(transparent)]
    Locked(OpenError),
    /// The devices that share it are served elsewhere.
    #[error("Drive '{0}' is shared by devices of another I/O thread")]
    Elsewhere(String),
}

/// A device has a drive for as long as it keeps this.
pub struct Attachment {
    drive: Arc<Drive>,
    model: Arc<dyn Model>,
}

impl Attachment {
    /// The drive.
    pub fn drive(&self) -> &Arc<Drive> {
        &self.drive
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let same = |other: &Arc<dyn Model>| Arc::ptr_eq(other, &self.model);
        let gone = {
            let mut state = self.drive.state.lock();
            let at = state.models.iter().position(same);
            at.map(|at| state.models.remove(at))
        };
        drop(gone);
    }
}

#[cfg(test)]
mod tests;
