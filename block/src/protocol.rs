//! The protocols: what images lie on. A new one is one file and one row.
//!
//! Any thread, no lock; opening is on the loop of the graph.

use std::rc::Rc;
use std::sync::Arc;

use resources::iol::Local;

use crate::file::File;
use crate::host::{HostError, HostFile, OpenOptions, errno_text};
use crate::name;
use crate::node::Node;
use crate::null::Null;
use crate::open::{Layer, OpenError, Opening, Spec};
use crate::options::Options;

/// A way to reach an image.
pub struct Protocol {
    /// Its name as a driver.
    pub name: &'static str,
    /// Words before the colon of a file name that mean it.
    pub prefixes: &'static [&'static str],
    /// What a file name means, as options.
    pub from_filename: fn(&str, &mut Options) -> Result<(), OpenError>,
    /// Opens it by its options.
    pub open: for<'a> fn(Layer<'a>) -> Opening<'a>,
    /// Makes an empty file of this name, on a thread that may wait; `None` if it cannot.
    pub create: Option<CreateFile>,
}

/// Makes an empty file.
pub type CreateFile = fn(&str) -> Result<(), OpenError>;

/// Files of the host.
pub const FILE: &Protocol = &Protocol {
    name: "file",
    prefixes: &["file"],
    from_filename: host_name,
    open: |layer| Box::pin(open_host(layer, false)),
    create: Some(create_file),
};

/// All of them.
pub static PROTOCOLS: &[&Protocol] = &[
    FILE,
    &Protocol {
        name: "host_device",
        prefixes: &["host_device"],
        from_filename: host_name,
        open: |layer| Box::pin(open_host(layer, true)),
        create: None,
    },
    &Protocol {
        name: "null-co",
        prefixes: &["null-co"],
        from_filename: no_name,
        open: |layer| Box::pin(open_null(layer, "null-co")),
        create: None,
    },
    &Protocol {
        name: "null-aio",
        prefixes: &["null-aio"],
        from_filename: no_name,
        open: |layer| Box::pin(open_null(layer, "null-aio")),
        create: None,
    },
    &crate::nbd::PROTOCOL,
    crate::blkdebug::PROTOCOL,
];

/// The protocol of this name.
pub fn named(name: &str) -> Option<&'static Protocol> {
    PROTOCOLS.iter().copied().find(|protocol| protocol.name == name)
}

/// The protocol that a file name says.
///
/// # Errors
/// When there is none of that name.
pub fn of_name(filename: &str) -> Result<&'static Protocol, OpenError> {
    let Some(word) = name::protocol(filename) else { return Ok(FILE) };
    let found = PROTOCOLS.iter().copied().find(|protocol| protocol.prefixes.contains(&word));
    found.ok_or_else(|| OpenError("Unknown protocol".to_owned()))
}

/// Makes an empty file.
///
/// # Errors
/// When the protocol or the host cannot.
pub(crate) async fn make(
    local: &Local,
    protocol: &Protocol,
    filename: &str,
) -> Result<(), OpenError> {
    let Some(make) = protocol.create else {
        let name = protocol.name;
        return Err(OpenError(format!("Driver '{name}' does not support image creation")));
    };
    let name = filename.to_owned();
    let made = local.pool(move || make(&name)).await;
    made.map_err(|error| OpenError(error.to_string()))?
}

/// Opens what a file name means, without a format.
pub(crate) async fn open_named(
    local: &Local,
    spec: &Spec,
    protocol: &Protocol,
    filename: &str,
) -> Result<Rc<dyn Node>, OpenError> {
    let name = Some(filename.to_owned());
    crate::open::open_protocol(local, spec, protocol, name, Options::new(), 0).await
}

fn host_name(filename: &str, options: &mut Options) -> Result<(), OpenError> {
    let path = match name::protocol(filename) {
        Some(word @ ("file" | "host_device")) => filename.get(word.len() + 1..).unwrap_or_default(),
        _ => filename,
    };
    options.set("filename", path);
    Ok(())
}

fn no_name(_: &str, _: &mut Options) -> Result<(), OpenError> {
    Ok(())
}

fn create_file(filename: &str) -> Result<(), OpenError> {
    let path = match name::protocol(filename) {
        Some("file") => filename.get("file:".len()..).unwrap_or_default(),
        _ => filename,
    };
    HostFile::create(path).map_err(|error| match error {
        HostError::Open { error, .. } => {
            OpenError(format!("Could not create file: {}", errno_text(&error)))
        }
        used => OpenError(used.to_string()),
    })
}

async fn open_host(layer: Layer<'_>, device: bool) -> Result<Rc<dyn Node>, OpenError> {
    let Layer { local, spec, options, .. } = layer;
    let Some(name) = options.take("filename") else {
        let driver = if device { "host_device" } else { "file" };
        return Err(OpenError(format!("The '{driver}' block driver requires a file name")));
    };
    let locking = match options.take_word("locking", &["on", "off", "auto"])? {
        Some(word) => word != "off",
        None => !spec.no_locking,
    };
    let threads = match options.take_word("aio", &["threads", "native", "io_uring"])? {
        Some(word) => word == "threads",
        None => spec.threads,
    };
    let given = OpenOptions {
        read_only: spec.read_only,
        cache: spec.cache,
        discard: spec.discard,
        device,
        locking,
        share_writes: spec.share_writes,
        threads,
    };
    let fits =
        |file: &&Arc<HostFile>| file.name() == name && file.options().read_only == given.read_only;
    let open = spec.open_files.iter().find(fits);
    let host = match open {
        Some(host) => host.clone(),
        None => {
            let opened = local.pool(move || HostFile::open(&name, given)).await;
            opened.map_err(|error| OpenError(error.to_string()))??
        }
    };
    Ok(File::new(local, host))
}

async fn open_null(layer: Layer<'_>, driver: &'static str) -> Result<Rc<dyn Node>, OpenError> {
    let options = layer.options;
    options.take("filename");
    let size = options.take_size("size")?.unwrap_or(1 << 30);
    let zeroes = options.take_switch("read-zeroes")?.unwrap_or(false);
    let latency = options.take_number("latency-ns")?.unwrap_or(0);
    Ok(Rc::new(Null::with(layer.local, driver, size, zeroes, latency)))
}
