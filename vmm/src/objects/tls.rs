//! `tls-creds-x509`: certificates and keys for migrations in TLS, in the files of a directory.
//!
//! Main thread. The directory is a user's or a client's to name; its files are read when the object
//! is made and not again.

use std::path::Path;
use std::sync::Arc;

use resources::props::{Kind, Prop};
use resources::tls::{AnyClient, Server, TlsError};

use super::{Object, ObjectError, ObjectType};

/// The type.
pub(super) const TLS_CREDS: ObjectType = ObjectType {
    name: "tls-creds-x509",
    parent: "tls-creds",
    props: &[
        Prop {
            name: "dir",
            kind: Kind::Str,
            default: None,
            help: "the directory with ca-cert.pem and the certificate and key of this end",
        },
        Prop {
            name: "endpoint",
            kind: Kind::Enum(&["client", "server"]),
            default: Some("client"),
            help: "client to send guests, server to take them",
        },
        Prop {
            name: "verify-peer",
            kind: Kind::Bool,
            default: Some("on"),
            help: "the other end must show a certificate; a client always asks for it",
        },
    ],
    needs: &["dir"],
    create: |props, _| {
        let refused = |error: TlsError| ObjectError::Refused(error.0);
        let dir = Path::new(props.get::<&str>("dir")?);
        let verify = props.get::<bool>("verify-peer")?;
        Ok(Object::TlsCreds(Arc::new(match props.get::<&str>("endpoint")? {
            "server" => TlsCreds::Server(Server::new(dir, verify).map_err(refused)?),
            _ if !verify => {
                let text = "a client that does not verify its peer is not secure: verify-peer=off \
                            is for servers";
                return Err(ObjectError::Refused(text.to_owned()));
            }
            _ => TlsCreds::Client(AnyClient::new(dir).map_err(refused)?),
        })))
    },
};

/// What one end shows and believes.
pub enum TlsCreds {
    /// Of one that sends guests.
    Client(AnyClient),
    /// Of one that takes them.
    Server(Server),
}
