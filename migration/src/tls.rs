//! TLS 1.3 around a channel: the other side is who it says, and nobody reads along.
//!
//! Credentials are files in a directory, by the names that `tls-creds-x509` gives them:
//! `ca-cert.pem`, perhaps `ca-crl.pem`, and `server-cert.pem` with `server-key.pem` or
//! `client-cert.pem` with `client-key.pem`.
//!
//! On migration threads, which wait in the channel; a cancel ends a handshake as it ends
//! everything else there. After it either direction can go to a thread of its own; a lock around
//! rustls is held for its calculations only. Before the handshake is done nothing of a peer is believed; what it can
//! make us hold is bounded by rustls.

use std::fmt::Display;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
};

use crate::Error;
use crate::channel::{self, Channel, Limiter};
use crate::source::{Breaker, Link};

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
        let client = ClientConnection::new(self.0.clone(), name).map_err(io::Error::other)?;
        let mut connection = Connection::Client(client);
        handshake(&mut connection, &mut channel)?;
        Tls::new(connection, channel)
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
        let server = ServerConnection::new(self.0.clone()).map_err(io::Error::other)?;
        let mut connection = Connection::Server(server);
        handshake(&mut connection, &mut channel)?;
        Tls::new(connection, channel)
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
pub struct Tls {
    reader: Reader,
    writer: Writer,
}

/// What both directions share: rustls. The lock is a leaf, held while bytes are encrypted or
/// decrypted and never while anybody waits.
type Shared = Arc<Mutex<Connection>>;

impl Tls {
    /// After the handshake.
    fn new(connection: Connection, channel: Channel) -> io::Result<Tls> {
        let (Some(input), Some(output)) = channel.split() else {
            return Err(io::Error::new(ErrorKind::Unsupported, "TLS goes both ways"));
        };
        let connection: Shared = Arc::new(Mutex::new(connection));
        let raw = vec![0; RAW].into_boxed_slice();
        let reader = Reader { input, raw, start: 0, end: 0, connection: connection.clone() };
        let writer = Writer { output: Some(output), sealed: Vec::new(), connection };
        Ok(Tls { reader, writer })
    }

    /// Lets the directions go to a thread each.
    #[must_use]
    pub fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }

    /// Bytes that went to the host so far, those in the buffer not among them.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.writer.output.as_ref().map_or(0, channel::Writer::sent)
    }
}

/// Encrypted bytes that are read at once.
const RAW: usize = 64 << 10;

fn handshake(connection: &mut Connection, channel: &mut Channel) -> io::Result<()> {
    while connection.is_handshaking() {
        let done = connection.complete_io(channel);
        // What is wrong with the peer is said to it too.
        let flushed = channel.flush();
        done?;
        flushed?;
    }
    Ok(())
}

/// What comes from the other side.
#[derive(Debug)]
pub struct Reader {
    input: channel::Reader,
    /// Encrypted bytes that rustls has not taken yet.
    raw: Box<[u8]>,
    start: usize,
    end: usize,
    connection: Shared,
}

impl Reader {
    /// As [`Channel::set_patience`]; for both halves.
    pub fn set_patience(&self, patience: Option<Duration>) {
        self.input.set_patience(patience);
    }
}

impl Read for Reader {
    /// A stream that is cut off, which anybody on the way can do, is an error and not an end.
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.lock().reader().read(to) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            if self.start == self.end {
                (self.start, self.end) = (0, self.input.read(&mut self.raw)?);
            }
            let mut connection = self.connection.lock();
            // No bytes tell it that there are no more.
            let mut bytes = self.raw.get(self.start..self.end).unwrap_or_default();
            self.start += connection.read_tls(&mut bytes)?;
            let taken = connection.process_new_packets();
            taken.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        }
    }
}

/// What goes to the other side. What rustls itself has to say goes with it.
#[derive(Debug)]
pub struct Writer {
    /// None once it has ended.
    output: Option<channel::Writer>,
    /// Encrypted bytes on their way.
    sealed: Vec<u8>,
    connection: Shared,
}

impl Writer {
    /// Hands on what was encrypted.
    fn pass_on(&mut self) -> io::Result<()> {
        let output = self.output.as_mut().ok_or(ErrorKind::BrokenPipe)?;
        let mut connection = self.connection.lock();
        while connection.wants_write() {
            connection.write_tls(&mut self.sealed)?;
        }
        drop(connection);
        let done = output.write_all(&self.sealed);
        self.sealed.clear();
        done
    }

    /// As [`channel::Writer::finish`].
    ///
    /// # Errors
    /// As there.
    pub fn finish(&mut self) -> io::Result<()> {
        if self.output.is_none() {
            return Ok(());
        }
        self.connection.lock().send_close_notify();
        self.pass_on()?;
        self.output.take().map_or(Ok(()), channel::Writer::finish)
    }
}

impl Write for Writer {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let count = self.connection.lock().writer().write(from)?;
        self.pass_on()?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        // Nothing is left of one that has ended.
        if self.output.is_none() {
            return Ok(());
        }
        self.pass_on()?;
        self.output.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Read for Tls {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.reader.read(to)
    }
}

impl Write for Tls {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.writer.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Link for Tls {
    fn two_way(&self) -> bool {
        true
    }

    fn set_limiter(&mut self, limiter: &Limiter) {
        if let Some(output) = &mut self.writer.output {
            output.set_limiter(limiter);
        }
    }

    fn give_up_after(&mut self, silence: Duration) {
        self.reader.set_patience(Some(silence));
    }

    fn breaker(&self) -> Breaker {
        self.reader.input.breaker()
    }

    fn hasten(&mut self) {
        self.writer.output.iter().for_each(channel::Writer::hasten);
    }

    fn wait(&mut self, others: &[BorrowedFd<'_>], time: Option<Duration>) -> io::Result<bool> {
        let known = self.reader.connection.lock().process_new_packets();
        let known = known.map_err(io::Error::other)?.plaintext_bytes_to_read();
        if known > 0 || self.reader.start < self.reader.end {
            return Ok(true);
        }
        self.reader.input.wait(others, time)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.writer.finish()
    }
}

#[cfg(test)]
mod tests;
