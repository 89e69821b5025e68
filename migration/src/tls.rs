//! TLS 1.3 around a channel: the other side is who it says, and nobody reads along.
//!
//! Credentials are files in a directory, by the names that `tls-creds-x509` gives them:
//! `ca-cert.pem`, perhaps `ca-crl.pem`, and `server-cert.pem` with `server-key.pem` or
//! `client-cert.pem` with `client-key.pem`.
//!
//! On the migration thread, which waits in the channel; a cancel ends a handshake as it ends
//! everything else there. Before the handshake is done nothing of a peer is believed; what it can
//! make us hold is bounded by rustls.

use std::fmt::Display;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, RootCertStore, ServerConfig,
    ServerConnection, SideData, StreamOwned,
};

use crate::Error;
use crate::channel::{Channel, Limiter};
use crate::source::Link;

/// What the sending side shows and believes.
#[derive(Clone, Debug)]
pub struct Client(Arc<ClientConfig>);

/// What the receiving side shows and believes.
#[derive(Clone, Debug)]
pub struct Server(Arc<ServerConfig>);

impl Client {
    /// From a directory. It has a certificate of its own if one is there.
    ///
    /// # Errors
    /// A file is missing or is not what it should be.
    pub fn new(directory: &Path) -> Result<Self, Error> {
        let files = Files(directory);
        let verifier =
            WebPkiServerVerifier::builder_with_provider(files.authorities()?, provider())
                .with_crls(files.revoked()?)
                .build()
                .map_err(|error| files.bad("ca-cert.pem", error))?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| files.bad("", error))?
            .with_webpki_verifier(verifier);
        let config = if files.path("client-cert.pem").exists() {
            let (chain, key) = files.identity("client")?;
            let config = config.with_client_auth_cert(chain, key);
            config.map_err(|error| files.bad("client-key.pem", error))?
        } else {
            config.with_no_client_auth()
        };
        Ok(Self(Arc::new(config)))
    }

    /// Makes sure that the other side is `name`, a host name or an address.
    ///
    /// # Errors
    /// It is not, or it goes away.
    pub fn connect(&self, mut channel: Channel, name: &str) -> io::Result<Tls> {
        let name = ServerName::try_from(name.to_owned()).map_err(|error| {
            io::Error::new(ErrorKind::InvalidInput, format!("TLS host name '{name}': {error}"))
        })?;
        let mut client = ClientConnection::new(self.0.clone(), name).map_err(io::Error::other)?;
        handshake(&mut client, &mut channel)?;
        Ok(Tls(End::Client(StreamOwned::new(client, channel))))
    }
}

impl Server {
    /// From a directory. With `verify_peer` the source must show a certificate that the authority
    /// has signed; without anybody can send a guest.
    ///
    /// # Errors
    /// A file is missing or is not what it should be.
    pub fn new(directory: &Path, verify_peer: bool) -> Result<Self, Error> {
        let files = Files(directory);
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| files.bad("", error))?;
        let config = if verify_peer {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(files.authorities()?, provider())
                    .with_crls(files.revoked()?)
                    .build()
                    .map_err(|error| files.bad("ca-cert.pem", error))?;
            config.with_client_cert_verifier(verifier)
        } else {
            config.with_no_client_auth()
        };
        let (chain, key) = files.identity("server")?;
        let config = config.with_single_cert(chain, key);
        let mut config = config.map_err(|error| files.bad("server-key.pem", error))?;
        // Nobody comes twice.
        config.send_tls13_tickets = 0;
        Ok(Self(Arc::new(config)))
    }

    /// Makes sure that the other side is one to be believed.
    ///
    /// # Errors
    /// It is not, or it goes away.
    pub fn accept(&self, mut channel: Channel) -> io::Result<Tls> {
        let mut server = ServerConnection::new(self.0.clone()).map_err(io::Error::other)?;
        handshake(&mut server, &mut channel)?;
        Ok(Tls(End::Server(StreamOwned::new(server, channel))))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A directory of credentials.
struct Files<'a>(&'a Path);

impl Files<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn bad(&self, name: &str, error: impl Display) -> Error {
        Error(format!("TLS credentials {}: {error}", self.path(name).display()))
    }

    /// All of a kind that a file has.
    fn all<T: PemObject>(&self, name: &str) -> Result<Vec<T>, Error> {
        let items = T::pem_file_iter(self.path(name)).and_then(Iterator::collect::<Result<_, _>>);
        let items: Vec<T> = items.map_err(|error| self.bad(name, error))?;
        if items.is_empty() {
            return Err(self.bad(name, "there is nothing of use in it"));
        }
        Ok(items)
    }

    fn authorities(&self) -> Result<Arc<RootCertStore>, Error> {
        const NAME: &str = "ca-cert.pem";
        let mut roots = RootCertStore::empty();
        for certificate in self.all::<CertificateDer<'static>>(NAME)? {
            roots.add(certificate).map_err(|error| self.bad(NAME, error))?;
        }
        Ok(Arc::new(roots))
    }

    /// Lists of what the authority has taken back, if there are any.
    fn revoked(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
        const NAME: &str = "ca-crl.pem";
        if self.path(NAME).exists() { self.all(NAME) } else { Ok(Vec::new()) }
    }

    fn identity(
        &self,
        end: &str,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
        let name = format!("{end}-key.pem");
        let key = PrivateKeyDer::from_pem_file(self.path(&name));
        Ok((self.all(&format!("{end}-cert.pem"))?, key.map_err(|error| self.bad(&name, error))?))
    }
}

/// A channel within TLS.
#[derive(Debug)]
pub struct Tls(End);

#[derive(Debug)]
enum End {
    Client(StreamOwned<ClientConnection, Channel>),
    Server(StreamOwned<ServerConnection, Channel>),
}

/// Both ends read and write.
trait Duplex: Read + Write {}

impl<T: Read + Write> Duplex for T {}

impl Tls {
    /// The channel, to be limited and asked how much it has sent.
    pub fn channel(&mut self) -> &mut Channel {
        match &mut self.0 {
            End::Client(stream) => &mut stream.sock,
            End::Server(stream) => &mut stream.sock,
        }
    }

    fn stream(&mut self) -> &mut dyn Duplex {
        match &mut self.0 {
            End::Client(stream) => stream,
            End::Server(stream) => stream,
        }
    }
}

fn handshake<S: SideData>(
    connection: &mut ConnectionCommon<S>,
    channel: &mut Channel,
) -> io::Result<()> {
    while connection.is_handshaking() {
        let done = connection.complete_io(channel);
        // What is wrong with the peer is said to it too.
        let flushed = channel.flush();
        done?;
        flushed?;
    }
    Ok(())
}

impl Read for Tls {
    /// A stream that is cut off, which anybody on the way can do, is an error and not an end.
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.stream().read(to)
    }
}

impl Write for Tls {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.stream().write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream().flush()?;
        // A write hides the errors of the channel; it remembers them.
        self.channel().flush()
    }
}

impl Link for Tls {
    fn two_way(&self) -> bool {
        true
    }

    fn set_limiter(&mut self, limiter: &Limiter) {
        self.channel().set_limiter(limiter);
    }

    fn give_up_after(&mut self, silence: Duration) {
        self.channel().set_patience(Some(silence));
    }

    fn hasten(&mut self) {
        self.channel().hasten();
    }

    fn wait(&mut self, others: &[BorrowedFd<'_>], time: Option<Duration>) -> io::Result<bool> {
        let known = match &mut self.0 {
            End::Client(stream) => stream.conn.process_new_packets(),
            End::Server(stream) => stream.conn.process_new_packets(),
        };
        if known.map_err(io::Error::other)?.plaintext_bytes_to_read() > 0 {
            return Ok(true);
        }
        self.channel().wait(others, time)
    }

    fn finish(&mut self) -> io::Result<()> {
        match &mut self.0 {
            End::Client(stream) => stream.conn.send_close_notify(),
            End::Server(stream) => stream.conn.send_close_notify(),
        }
        self.flush()?;
        self.channel().finish()
    }
}

#[cfg(test)]
mod tests;
