//! The ways between the two sides, as often as they are gone: once for the stream, and once more
//! for each channel of its own. Within TLS all of them are.
//!
//! On migration threads, which wait here for the other side until they are cancelled. Who comes in
//! is anybody: a stranger who does not get through TLS is turned away.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::Error;
use crate::channel::{Canceller, Channel, Connecting, Listener};
use crate::multifd::{Door, Greeting};
use crate::source::Link;
use crate::stream;
use crate::tls::{Client, Server};
use crate::uri::Uri;

/// So long a peer may be silent until it is through TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);

type Boxed = Box<dyn Link + Send>;

/// The way to a destination.
#[derive(Clone, Debug)]
pub struct Road {
    uri: Uri,
    canceller: Canceller,
    /// What is believed, and who the other side must be.
    tls: Option<(Client, String)>,
}

impl Road {
    /// To `uri`, and in TLS to whom it names or `name` says.
    ///
    /// # Errors
    /// TLS does not go there.
    pub fn new(
        uri: Uri,
        canceller: &Canceller,
        tls: Option<(Client, Option<String>)>,
    ) -> Result<Road, Error> {
        let tls = match (tls, &uri) {
            (None, _) => None,
            (Some((client, Some(name))), Uri::Tcp { .. } | Uri::Unix(_)) => Some((client, name)),
            (Some((client, None)), Uri::Tcp { host, .. }) => Some((client, host.clone())),
            (Some(_), Uri::Unix(_)) => {
                return Err(Error::new("TLS over unix needs the parameter 'tls-hostname'"));
            }
            (Some(_), _) => return Err(Error::new("TLS needs a connection by tcp or unix")),
        };
        Ok(Road { uri, canceller: canceller.clone(), tls })
    }

    /// Whether it can be gone more than once.
    #[must_use]
    pub fn repeats(&self) -> bool {
        matches!(self.uri, Uri::Tcp { .. } | Uri::Unix(_))
    }

    /// Begins to go, and never waits. `resolve` gives the file descriptor of `fd:`.
    ///
    /// # Errors
    /// As [`Connecting::start`].
    pub fn set_out(
        &self,
        resolve: impl FnOnce(&str) -> Result<OwnedFd, Error>,
    ) -> Result<Connecting, Error> {
        Connecting::start(&self.uri, &self.canceller, resolve)
    }

    /// Waits until the other side is there, and is who it should be.
    ///
    /// # Errors
    /// It is not, or it was cancelled.
    pub fn arrive(&self, connecting: Connecting) -> Result<Boxed, Error> {
        let channel = connecting.finish()?;
        let Some((client, name)) = &self.tls else { return Ok(Box::new(channel)) };
        let failed = |error: io::Error| {
            let hint = match error.kind() {
                io::ErrorKind::InvalidData => "",
                _ => "; does the destination have the capability 'tls'?",
            };
            Error(format!("TLS with '{name}' failed: {error}{hint}"))
        };
        channel.set_patience(Some(HANDSHAKE));
        let mut tls = client.connect(channel, name).map_err(failed)?;
        tls.give_up_after(Duration::MAX);
        Ok(Box::new(tls))
    }

    /// Goes there again.
    ///
    /// # Errors
    /// As [`arrive`](Self::arrive), or there is only one connection of this kind.
    pub fn again(&self) -> Result<Boxed, Error> {
        if !self.repeats() {
            return Err(Error::new("parallel channels need a destination by tcp or unix"));
        }
        let none = |_: &str| Err(Error::new("there is only one descriptor"));
        self.arrive(self.set_out(none)?)
    }
}

/// Where sources come in. Dropped, nobody can connect any more.
#[derive(Debug)]
pub struct Gate {
    listener: Listener,
    canceller: Canceller,
    tls: Option<Server>,
}

impl Gate {
    /// Of what listens; with `tls` only in TLS.
    #[must_use]
    pub fn new(listener: Listener, canceller: &Canceller, tls: Option<Server>) -> Gate {
        Gate { listener, canceller: canceller.clone(), tls }
    }

    /// Waits for a source; strangers that do not get through TLS are turned away.
    ///
    /// # Errors
    /// It was cancelled, or there is no way in.
    pub fn first(&mut self) -> Result<Boxed, Error> {
        loop {
            let channel = self.listener.accept(&self.canceller)?;
            match within(self.tls.as_ref(), channel) {
                Ok(link) => return Ok(link),
                Err(error) if self.canceller.is_cancelled() => {
                    return Err(Error(error.to_string()));
                }
                Err(error) => tracing::warn!("a connection was turned away: {error}"),
            }
        }
    }
}

/// The channel, or what is in its TLS.
fn within(tls: Option<&Server>, channel: Channel) -> io::Result<Boxed> {
    let Some(server) = tls else { return Ok(Box::new(channel)) };
    channel.set_patience(Some(HANDSHAKE));
    let mut tls = server.accept(channel)?;
    tls.give_up_after(Duration::MAX);
    Ok(Box::new(tls))
}

impl Door for Gate {
    fn next(&mut self, time: Duration) -> Result<Option<Greeting>, stream::Error> {
        let channel = self.listener.accept_within(&self.canceller, Some(time));
        let channel = channel.map_err(|error| stream::Error::Here(error.0))?;
        let tls = self.tls.clone();
        Ok(channel.map(|channel| -> Greeting { Box::new(move || within(tls.as_ref(), channel)) }))
    }
}
