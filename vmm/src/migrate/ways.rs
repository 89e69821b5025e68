//! The ways to the other side: what a URI means here.
//!
//! Main thread; what takes long is left to the thread of the migration. The URI is a client's or
//! the user's, who may name any file and run any command by it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use migration::Error;
use migration::channel::{Canceller, Connecting, Listener};
use migration::status::{Phase, Progress};
use migration::uri::Uri;
use qmp::QmpError;

use crate::nets::numbered_fd;
use crate::vm::Vm;

impl Vm {
    /// Begins to move the guest to where `uri` says.
    ///
    /// # Errors
    /// That is nowhere, or it is known at once that nobody is there: the migration has failed then.
    pub(crate) fn migrate_to(&mut self, uri: &str) -> Result<(), QmpError> {
        let progress = self.begin_migration();
        let begun = self.begin(uri, &progress);
        if let Err(error) = &begun {
            progress.ended(Phase::Failed, Some(error.desc.clone()));
        }
        begun
    }

    fn begin(&mut self, uri: &str, progress: &Arc<Progress>) -> Result<(), QmpError> {
        let uri = Uri::outgoing(uri).map_err(refused)?;
        let fd = match &uri {
            Uri::Fd(name) => Some(self.take_named_fd(name)?),
            _ => None,
        };
        let canceller = Canceller::new().map_err(|error| QmpError::generic(error.to_string()))?;
        let gone = || Error("the descriptor is gone".to_owned());
        match Connecting::start(&uri, &canceller, |_| fd.ok_or_else(gone)) {
            Ok(connecting) => {
                progress.hang_up_by(move || canceller.cancel());
                self.send_over(progress, move || connecting.finish());
                Ok(())
            }
            Err(error) => Err(refused(error)),
        }
    }

    /// Takes a guest over that comes in where `uri` says.
    ///
    /// # Errors
    /// That is nowhere.
    pub(crate) fn receive_from(&mut self, uri: &str) -> Result<(), Error> {
        let uri = Uri::incoming(uri)?;
        let mut listener = Listener::start(&uri, inherited)?;
        let canceller = Canceller::new().map_err(|error| Error(error.to_string()))?;
        self.receive_over(move || listener.accept(&canceller));
        Ok(())
    }
}

fn refused(error: Error) -> QmpError {
    QmpError::generic(error.to_string())
}

/// The descriptor that the process was started with under this number.
fn inherited(number: &str) -> Result<OwnedFd, Error> {
    numbered_fd(number).map_err(|error| Error(error.to_string()))
}
