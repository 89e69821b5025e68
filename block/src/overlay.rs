//! Temporary images that take what is written to a drive with `snapshot=on`.
//!
//! On the loop of the graph, no lock. The file has no name as soon as it is open, so that nobody
//! sees it and the host takes it back whatever happens.

use std::io;
use std::rc::Rc;

use resources::iol::Local;
use rustix::fs::{Mode, OFlags};

use crate::errno_text;
use crate::host::Cache;
use crate::image::BackingFile;
use crate::name;
use crate::node::Node;
use crate::open::{OpenError, Spec};
use crate::protocol::{self, FILE};
use crate::qcow2;

/// A temporary image over `base`: a new one, or the one that was made when the graph was opened
/// before.
///
/// # Errors
/// When it cannot be created.
pub(crate) async fn open(
    local: &Local,
    spec: &Spec,
    base: Rc<dyn Node>,
) -> Result<Rc<dyn Node>, OpenError> {
    let below = Spec {
        cache: Cache { writeback: true, direct: false, no_flush: true },
        discard: true,
        no_locking: true,
        read_only: false,
        ..spec.below(None, Default::default())
    };
    let options = |backing| qcow2::Options {
        device: spec.device.clone(),
        discard: spec.discard,
        backing: Some(backing),
        ..qcow2::Options::default()
    };
    let broken = |error: qcow2::OpenError| OpenError(error.to_string());
    if let Some(name) = &spec.overlay {
        let file = protocol::open_named(local, &below, FILE, name).await?;
        return Ok(qcow2::open(local, file, options(base)).await.map_err(broken)?);
    }
    let made = local.pool(make).await.and_then(|made| made);
    let name = made.map_err(|error| {
        OpenError(format!("Could not get temporary filename: {}", errno_text(&error)))
    })?;
    let opened = protocol::open_named(local, &below, FILE, &name).await;
    let path = name.clone();
    let gone = local.pool(move || std::fs::remove_file(path)).await.and_then(|gone| gone);
    if let Err(error) = gone {
        tracing::warn!("the temporary file '{name}' stays: {error}");
    }
    let file = opened?;
    // It is told what shows through it, as far as a header has room for that.
    let backing = BackingFile { name: name::of(&*base), format: Some(base.driver().to_owned()) };
    let backing = Some(backing).filter(|named| (1..1024).contains(&named.name.len()));
    let new = qcow2::CreateOptions { size: base.info().size, backing, ..Default::default() };
    qcow2::create(&*file, &new).await.map_err(|error| {
        OpenError(format!("Could not create temporary overlay '{name}': {error}"))
    })?;
    Ok(qcow2::open(local, file, options(base)).await.map_err(broken)?)
}

/// Makes an empty file of a name that was not there, which nobody else can read.
fn make() -> io::Result<String> {
    let directory = std::env::var("TMPDIR").ok().filter(|name| !name.is_empty());
    let directory = directory.unwrap_or_else(|| "/tmp".to_owned());
    loop {
        let mut random = [0; 6];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let letters = random.map(|byte| char::from(b'a' + byte % 26));
        let name = format!("{directory}/vl.{}", letters.iter().collect::<String>());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        match rustix::fs::open(&name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(_) => return Ok(name),
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
