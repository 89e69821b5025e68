//! What capabilities and parameters mean for the next migration.
//!
//! Main thread. Names and numbers are a client's.

use migration::Error;
use migration::compress::LEVEL;
use migration::source::Wants;
use qmp::MigrationCapability;
use resources::tls::{AnyClient, Server};

use crate::objects::tls::TlsCreds;
use crate::vm::Vm;

/// What clients have set, beside the limits.
#[derive(Debug)]
pub struct Parameters {
    /// How many connections are for memory, if some are.
    pub channels: u8,
    /// How hard pages are packed, if they are.
    pub level: i32,
    /// The object with the credentials.
    pub tls_creds: String,
    /// Who the destination must be; empty for the host of the URI.
    pub tls_hostname: String,
}

impl Default for Parameters {
    fn default() -> Parameters {
        let (tls_creds, tls_hostname) = (String::new(), String::new());
        Parameters { channels: 2, level: LEVEL, tls_creds, tls_hostname }
    }
}

impl Vm {
    /// How the guest is to be sent.
    pub(super) fn wants(&self) -> Wants {
        let migration = &self.migration;
        let (on, parameters) = (|capability| migration.has(capability), &migration.parameters);
        Wants {
            deltas: on(MigrationCapability::Xbzrle),
            converge: on(MigrationCapability::AutoConverge),
            postcopy: on(MigrationCapability::PostcopyRam),
            channels: if on(MigrationCapability::Multifd) { parameters.channels } else { 0 },
            level: on(MigrationCapability::Compress).then_some(parameters.level),
        }
    }

    /// The credentials, if TLS is to be spoken.
    fn tls_creds(&self) -> Result<Option<&TlsCreds>, Error> {
        if !self.migration.has(MigrationCapability::Tls) {
            return Ok(None);
        }
        let id = &*self.migration.parameters.tls_creds;
        if id.is_empty() {
            let text = "Capability 'tls' needs the parameter 'tls-creds'";
            return Err(Error(text.to_owned()));
        }
        let none = || Error(format!("No TLS credentials with id '{id}'"));
        self.objects.tls_creds(id).ok_or_else(none).map(Some)
    }

    /// What the source speaks TLS with, and who the destination must be.
    ///
    /// # Errors
    /// There are no such credentials.
    pub(super) fn tls_client(&self) -> Result<Option<(AnyClient, Option<String>)>, Error> {
        let name = Some(&self.migration.parameters.tls_hostname).filter(|name| !name.is_empty());
        match self.tls_creds()? {
            None => Ok(None),
            Some(TlsCreds::Client(client)) => Ok(Some((client.clone(), name.cloned()))),
            Some(TlsCreds::Server(_)) => Err(wrong_end("client")),
        }
    }

    /// What the destination speaks TLS with.
    ///
    /// # Errors
    /// There are no such credentials.
    pub(super) fn tls_server(&self) -> Result<Option<Server>, Error> {
        match self.tls_creds()? {
            None => Ok(None),
            Some(TlsCreds::Server(server)) => Ok(Some(server.clone())),
            Some(TlsCreds::Client(_)) => Err(wrong_end("server")),
        }
    }
}

fn wrong_end(end: &str) -> Error {
    Error(format!("Expected TLS credentials for a {end} endpoint"))
}
