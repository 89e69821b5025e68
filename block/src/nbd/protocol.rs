//! NBD as a protocol that images lie on: what its file names and options mean.
//!
//! On the loop of the graph, no lock. Names and options are a user's, a client's or an image's.

use std::rc::Rc;
use std::time::Duration;

use super::address::Target;
use super::client::{self, Options as ClientOptions};
use super::tls;
use crate::node::Node;
use crate::open::{Layer, OpenError, Opening};
use crate::options::Options;
use crate::protocol::Protocol;

/// The row of the table of protocols.
pub(crate) static PROTOCOL: Protocol = Protocol {
    name: "nbd",
    prefixes: &["nbd", "nbd+tcp", "nbd+unix", "nbds", "nbds+tcp", "nbds+unix"],
    from_filename,
    open: |layer| -> Opening<'_> { Box::pin(open(layer)) },
    create: None,
};

/// Options that say where the server is.
const PLACE: [&str; 4] = ["host", "port", "path", "export"];

fn refused(error: impl ToString) -> OpenError {
    OpenError(error.to_string())
}

fn from_filename(name: &str, options: &mut Options) -> Result<(), OpenError> {
    if PLACE.iter().any(|key| options.get(key).is_some()) {
        return Err(refused("host/port/path and file names may not be specified at once"));
    }
    for (key, value) in Target::parse(name).map_err(refused)?.options() {
        options.set(key, &value);
    }
    Ok(())
}

async fn open(layer: Layer<'_>) -> Result<Rc<dyn Node>, OpenError> {
    let Layer { local, spec, options, .. } = layer;
    // The same as a file name, where options are given by name.
    if let Some(name) = options.take("filename") {
        from_filename(&name, options)?;
    }
    let (creds, hostname) = (options.take("tls-creds"), options.take("tls-hostname"));
    // The newer form: an address with members.
    let mut server = options.take_under("server");
    match server.take("type").as_deref() {
        None if server.is_empty() => {}
        Some("inet" | "unix") => server.iter().for_each(|(key, value)| options.set(key, value)),
        Some(other) => return Err(refused(format!("Invalid parameter '{other}'"))),
        None => return Err(refused("Parameter 'server.type' is missing")),
    }
    let delay = |options: &mut Options, key| {
        let seconds = options.take_number(key)?.unwrap_or(0);
        Ok::<_, OpenError>(Duration::from_secs(seconds.min(u32::MAX.into())))
    };
    let tls = match (creds, options.get("host")) {
        (None, _) => None,
        (Some(id), host) => {
            let name = hostname.as_deref().or(host).unwrap_or_default();
            Some(tls::client(&spec.secrets, &id, name).map_err(refused)?)
        }
    };
    let how = ClientOptions {
        tls,
        read_only: spec.read_only,
        reconnect_delay: delay(options, "reconnect-delay")?,
        open_timeout: delay(options, "open-timeout")?,
    };
    let target = Target::from_options(|key| options.get(key)).map_err(refused)?;
    PLACE.iter().for_each(|key| drop(options.take(key)));
    Ok(client::open(local, target, how).await.map_err(refused)?)
}
