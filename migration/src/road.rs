//! The ways between the two sides, as often as they are gone: once for the stream, and once more
//! for each channel of its own. Within TLS all of them are.
//!
//! On migration threads, which wait here for the other side until they are cancelled. Who comes in
//! is anybody: a stranger who does not get through TLS is turned away.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::Error;
use crate::callers::{Caller, Callers, Greeting};
use crate::channel::{Canceller, Channel, Connecting, Listener};
use crate::link::Link;
use crate::multifd::Door;
use crate::stream;
use crate::tls;
use crate::uri::Uri;
use resources::tls::{AnyClient, Client, Server};

/// So long a peer may take until it is through TLS.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });
/// So many are heard at once until one is through.
const STRANGERS: usize = 32;
/// So often it is seen whether others have come than those that say nothing.
const GLANCE: Duration = Duration::from_millis(100);

type Boxed = Box<dyn Link + Send>;

/// The way to a destination.
#[derive(Clone, Debug)]
pub struct Road {
    uri: Uri,
    canceller: Canceller,
    /// What is believed, and who the other side must be.
    tls: Option<Client>,
}

impl Road {
    /// To `uri`, and in TLS to whom it names or `name` says.
    ///
    /// # Errors
    /// TLS does not go there.
    pub fn new(
        uri: Uri,
        canceller: &Canceller,
        tls: Option<(AnyClient, Option<String>)>,
    ) -> Result<Road, Error> {
        let tls = match (tls, &uri) {
            (None, _) => None,
            (Some((any, Some(name))), Uri::Tcp { .. } | Uri::Unix(_)) => Some(any.to(&name)),
            (Some((any, None)), Uri::Tcp { host, .. }) => Some(any.to(host)),
            (Some(_), Uri::Unix(_)) => {
                return Err(Error::new("TLS over unix needs the parameter 'tls-hostname'"));
            }
            (Some(_), _) => return Err(Error::new("TLS needs a connection by tcp or unix")),
        };
        let tls = tls.transpose().map_err(|error| Error(error.0))?;
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
        let Some(client) = &self.tls else { return Ok(Box::new(channel)) };
        let failed = |error: io::Error| {
            let hint = match error.kind() {
                io::ErrorKind::InvalidData => "",
                _ => "; does the destination have the capability 'tls'?",
            };
            Error(format!("{client:?} failed: {error}{hint}"))
        };
        channel.set_deadline(Instant::now().checked_add(HANDSHAKE));
        let mut tls = tls::connect(client, channel).map_err(failed)?;
        tls.give_up_at(None);
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
        if self.tls.is_none() {
            return Ok(Box::new(self.listener.accept(&self.canceller)?));
        }
        let mut callers = Callers::new();
        loop {
            let time = (callers.count() > 0).then_some(Duration::ZERO);
            if callers.count() < STRANGERS
                && let Some(channel) = self.listener.accept_within(&self.canceller, time)?
            {
                let Caller { greeting, hang_up } = self.caller(channel);
                if let Err(error) = callers.hear(hang_up, greeting) {
                    tracing::warn!("a connection was turned away: {error}");
                }
            }
            self.canceller.check().map_err(|error| Error(error.to_string()))?;
            if let Some(link) = callers.known(GLANCE) {
                return Ok(link);
            }
        }
    }

    fn caller(&self, channel: Channel) -> Caller {
        let (tls, hang_up) = (self.tls.clone(), channel.breaker());
        let greeting: Greeting = Box::new(move || within(tls.as_ref(), channel));
        Caller { greeting, hang_up }
    }
}

/// The channel, or what is in its TLS.
fn within(tls: Option<&Server>, channel: Channel) -> io::Result<Boxed> {
    let Some(server) = tls else { return Ok(Box::new(channel)) };
    channel.set_deadline(Instant::now().checked_add(HANDSHAKE));
    let mut tls = tls::accept(server, channel)?;
    tls.give_up_at(None);
    Ok(Box::new(tls))
}

impl Door for Gate {
    fn next(&mut self, time: Duration) -> Result<Option<Caller>, stream::Error> {
        let channel = self.listener.accept_within(&self.canceller, Some(time));
        let channel = channel.map_err(|error| stream::Error::Here(error.0))?;
        Ok(channel.map(|channel| self.caller(channel)))
    }
}
