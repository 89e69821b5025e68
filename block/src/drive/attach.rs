//! The device that has a drive.
//!
//! Main thread: giving a drive to a device may move its graph, which waits for two loops.

use std::sync::Arc;

use resources::iol::Handle;

use super::{Drive, IoStatus, close, files};
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
    /// Gives the drive to a device, whose requests come on the loop `on`; the graph is moved there.
    ///
    /// # Errors
    /// When it has a device already, or the graph cannot be built there.
    pub fn attach(
        self: &Arc<Self>,
        on: &Handle,
        model: Arc<dyn Model>,
    ) -> Result<Attachment, AttachError> {
        let (old, moves) = {
            let mut state = self.state.lock();
            if state.model.is_some() || state.in_use || state.job.is_some() {
                return Err(AttachError::Busy(Busy(self.id.clone())));
            }
            state.model = Some(model);
            state.io_status = state.io_status.map(|_| IoStatus::Ok);
            let moves = !state.home.is(on);
            state.home = on.clone();
            (state.medium.clone(), moves)
        };
        let attachment = Attachment { drive: self.clone() };
        if let Some(medium) = old
            && moves
        {
            // Closed here before it is opened there: one graph at a time.
            // Its files stay open: their names may mean something else by now.
            let spec = medium.spec.clone();
            let files = self.on_disk(|disk| async move { files(disk.node()) }).unwrap_or_default();
            // The old one stays the place of the drive meanwhile: who uses it from outside waits
            // for the new one there.
            close(Some(medium));
            let built = self.build(on, spec, files);
            let mut state = self.state.lock();
            state.medium = None;
            state.medium = Some(built.map_err(AttachError::Open)?);
        }
        Ok(attachment)
    }

    /// The device that has it.
    pub fn model(&self) -> Option<Arc<dyn Model>> {
        self.state.lock().model.clone()
    }

    /// Whether a device has it.
    pub fn is_attached(&self) -> bool {
        self.state.lock().model.is_some()
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
}

/// A device has a drive for as long as it keeps this.
pub struct Attachment {
    drive: Arc<Drive>,
}

impl Attachment {
    /// The drive.
    pub fn drive(&self) -> &Arc<Drive> {
        &self.drive
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let model = self.drive.state.lock().model.take();
        drop(model);
    }
}
