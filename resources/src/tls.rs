//! TLS 1.3: what one end shows and believes.
//!
//! Credentials are files in a directory, by the names that `tls-creds-x509` gives them:
//! `ca-cert.pem`, perhaps `ca-crl.pem`, and `server-cert.pem` with `server-key.pem` or
//! `client-cert.pem` with `client-key.pem`.
//!
//! Any thread, no lock. The files are the user's; what a peer can make an end hold is bounded by
//! rustls.

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
};

/// Credentials as they are named by users: `tls-creds-x509`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Where the files are.
    pub directory: PathBuf,
    /// They are those of a server.
    pub server: bool,
    /// A client has to show a certificate, too.
    pub verify_peer: bool,
}

/// Credentials that are of no use: which file, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(pub String);

/// What an end that connects shows and believes, whoever it will connect to.
#[derive(Clone)]
pub struct AnyClient(Arc<ClientConfig>);

/// The end that connects, and the name of the other one.
#[derive(Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// The end that is connected to.
#[derive(Clone)]
pub struct Server(Arc<ServerConfig>);

impl AnyClient {
    /// From a directory; it has a certificate of its own if one is there.
    ///
    /// # Errors
    /// A file is missing or is not what it should be.
    pub fn new(directory: &Path) -> Result<AnyClient, TlsError> {
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
        Ok(AnyClient(Arc::new(config)))
    }

    /// The end of a connection to `name`, a host name or an address, which the other end has to
    /// show that it is.
    ///
    /// # Errors
    /// `name` is no name.
    pub fn to(&self, name: &str) -> Result<Client, TlsError> {
        let server = ServerName::try_from(name.to_owned())
            .map_err(|error| TlsError(format!("TLS host name '{name}': {error}")))?;
        Ok(Client { config: self.0.clone(), name: server })
    }
}

impl Client {
    /// From a directory, as [`AnyClient::new`], and to `name`, as [`AnyClient::to`].
    ///
    /// # Errors
    /// As there.
    pub fn new(directory: &Path, name: &str) -> Result<Client, TlsError> {
        AnyClient::new(directory)?.to(name)
    }

    /// A connection that has not begun.
    ///
    /// # Errors
    /// What rustls says.
    pub fn connection(&self) -> Result<Connection, rustls::Error> {
        Ok(ClientConnection::new(self.config.clone(), self.name.clone())?.into())
    }
}

impl Server {
    /// From a directory. With `verify_peer` the other end must show a certificate that the
    /// authority has signed.
    ///
    /// # Errors
    /// A file is missing or is not what it should be.
    pub fn new(directory: &Path, verify_peer: bool) -> Result<Server, TlsError> {
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
        Ok(Server(Arc::new(config)))
    }

    /// A connection that has not begun.
    ///
    /// # Errors
    /// What rustls says.
    pub fn connection(&self) -> Result<Connection, rustls::Error> {
        Ok(ServerConnection::new(self.0.clone())?.into())
    }
}

impl fmt::Debug for AnyClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TLS")
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS with '{}'", self.name.to_str())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TLS")
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

    fn bad(&self, name: &str, error: impl Display) -> TlsError {
        TlsError(format!("TLS credentials {}: {error}", self.path(name).display()))
    }

    /// All of a kind that a file has.
    fn all<T: PemObject>(&self, name: &str) -> Result<Vec<T>, TlsError> {
        let items = T::pem_file_iter(self.path(name)).and_then(Iterator::collect::<Result<_, _>>);
        let items: Vec<T> = items.map_err(|error| self.bad(name, error))?;
        if items.is_empty() {
            return Err(self.bad(name, "there is nothing of use in it"));
        }
        Ok(items)
    }

    fn authorities(&self) -> Result<Arc<RootCertStore>, TlsError> {
        const NAME: &str = "ca-cert.pem";
        let mut roots = RootCertStore::empty();
        for certificate in self.all::<CertificateDer<'static>>(NAME)? {
            roots.add(certificate).map_err(|error| self.bad(NAME, error))?;
        }
        Ok(Arc::new(roots))
    }

    /// Lists of what the authority has taken back, if there are any.
    fn revoked(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
        const NAME: &str = "ca-crl.pem";
        if self.path(NAME).exists() { self.all(NAME) } else { Ok(Vec::new()) }
    }

    fn identity(
        &self,
        end: &str,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let name = format!("{end}-key.pem");
        let key = PrivateKeyDer::from_pem_file(self.path(&name));
        Ok((self.all(&format!("{end}-cert.pem"))?, key.map_err(|error| self.bad(&name, error))?))
    }
}
