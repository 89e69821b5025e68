//! The ways to the other side: what a URI means here.
//!
//! Main thread; what takes long is left to the thread of the migration. The URI is a client's or
//! the user's, who may name any file and run any command by it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use migration::Error;
use migration::channel::{Canceller, Listener};
use migration::road::{Gate, Road};
use migration::status::{Phase, Progress};
use migration::uri::Uri;
use qmp::{MigrationCapability, QmpError};

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
        let tls = self.tls_client().map_err(refused)?;
        let road = Road::new(uri, &canceller, tls).map_err(refused)?;
        if self.migration.has(MigrationCapability::Multifd) && !road.repeats() {
            let text = "Capability 'multifd' needs a destination by tcp or unix";
            return Err(QmpError::generic(text));
        }
        let gone = || Error("the descriptor is gone".to_owned());
        match road.set_out(|_| fd.ok_or_else(gone)) {
            Ok(connecting) => {
                progress.hang_up_by(move || canceller.cancel());
                self.send_over(progress, road, connecting);
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
        let canceller = Canceller::new().map_err(|error| Error(error.to_string()))?;
        let tls = self.tls_server()?;
        let gate = Gate::new(Listener::start(&uri, inherited)?, &canceller, tls);
        self.receive_over(gate, canceller);
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
