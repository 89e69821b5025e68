//! Jobs started as clients ask for them: with images by their names.
//!
//! On the loop of the drive's graph; what may block goes through its pool. Names and formats are a
//! client's, and the names of backing files an image's.

use std::io;
use std::rc::Rc;

use resources::iol::Local;

use super::{
    BackupOptions, CommitOptions, Errors, Job, Kind, Mirror, MirrorOptions, Start, StreamOptions,
    Sync, granularity_for,
};
use crate::chain;
use crate::create::{NewImage, create, is_zero_when_new};
use crate::disk::Disk;
use crate::drive::OnError;
use crate::host::errno_text;
use crate::image::BackingFile;
use crate::name;
use crate::node::Node;
use crate::open::{OpenError, Spec, open};

/// An image that is to be written to.
#[derive(Debug, Clone)]
pub struct NewFile {
    /// Its name, which may say its protocol.
    pub filename: String,
    /// Its format; of an existing one found out if not given, of a new one the drive's.
    pub format: Option<String>,
    /// It is there already and is not created.
    pub existing: bool,
}

/// What every start of a job needs.
pub struct Request {
    /// What the drive was opened from.
    pub spec: Spec,
    /// What the caller knows to be wrong, told when nothing is found that clients expect before.
    pub checked: Result<(), String>,
    /// What the job begins with.
    pub start: Start,
}

/// A job that was started.
pub struct Started {
    /// The job.
    pub job: Job,
    /// What the drive is opened from when the job has exchanged its graph.
    pub pivot: Option<Spec>,
}

/// A new image, open.
pub(crate) struct Opened {
    pub(crate) node: Rc<dyn Node>,
    /// What it is opened from, as the medium of a drive.
    pub(crate) spec: Spec,
}

fn refuse<T>(text: impl Into<String>) -> Result<T, OpenError> {
    Err(OpenError(text.into()))
}

/// Creates an image over `backing` if it is to be, and opens it for writing, without what shows
/// through it.
pub(crate) async fn make(
    local: &Local,
    disk: &Disk,
    spec: &Spec,
    file: &NewFile,
    backing: Option<&Rc<dyn Node>>,
) -> Result<Opened, OpenError> {
    let mut format = file.format.clone();
    if !file.existing {
        let format = format.get_or_insert_with(|| disk.node().driver().to_owned());
        create(
            local,
            &NewImage {
                filename: file.filename.clone(),
                format: format.clone(),
                size: Some(disk.info().size),
                backing: backing.map(|node| name::of(&**node)),
                backing_format: backing.map(|node| node.driver().to_owned()),
                ..NewImage::default()
            },
        )
        .await?;
    }
    let options = Spec::file(&file.filename, format.as_deref()).options;
    let device = spec.device.clone();
    let mut spec =
        Spec { device, open_files: Vec::new(), ..spec.below(Some(file.filename.clone()), options) };
    let wanted = Spec { read_only: false, no_backing: true, device: String::new(), ..spec.clone() };
    let node = open(local, &wanted).await?;
    if spec.options.get("driver").is_none() {
        spec.options.set("driver", node.driver());
    }
    Ok(Opened { node, spec })
}

/// Opens what an image names as its backing file and puts it below. What is a layer of `chain`
/// already is not opened once more.
///
/// # Errors
/// When it cannot be opened.
pub(crate) async fn attach_backing(
    local: &Local,
    node: &Rc<dyn Node>,
    chain: &Rc<dyn Node>,
    spec: &Spec,
) -> Result<(), OpenError> {
    let Some(image) = node.image() else { return Ok(()) };
    let (None, Some(named)) = (image.backing(), image.backing_file()) else { return Ok(()) };
    let full = name::combine(&name::of(&**node), &named.name);
    for layer in chain::layers(chain) {
        if chain::same_file(local, &full, &name::of(&*layer)).await {
            image.set_backing(Some(layer));
            return Ok(());
        }
    }
    let known = |format: &String| {
        crate::format::named(format).is_some() || crate::protocol::named(format).is_some()
    };
    let options = Spec::file(&full, named.format.filter(known).as_deref()).options;
    let below = Spec { read_only: true, no_backing: false, ..spec.below(Some(full), options) };
    let below = Spec { open_files: Vec::new(), ..below };
    image.set_backing(Some(open(local, &below).await?));
    Ok(())
}

/// What a copy stands on: what of the source it does not hold itself.
fn stands_on(top: &Rc<dyn Node>, sync: Sync) -> Option<Rc<dyn Node>> {
    match sync {
        Sync::Full => None,
        Sync::Top => chain::backing(top),
        Sync::None => Some(top.clone()),
    }
}

/// What a mirror is asked to do.
pub struct MirrorRequest {
    /// Where to.
    pub target: NewFile,
    /// What of the disk is copied.
    pub sync: Sync,
    /// Bytes of a granule; 0 chooses.
    pub granularity: u64,
    /// Bytes under way at most.
    pub buf_size: u64,
    /// What to do about errors.
    pub errors: Errors,
}

/// Starts to mirror a drive.
///
/// # Errors
/// The target cannot be created or opened, or what [`Request::checked`] says.
pub async fn start_mirror(
    local: &Local,
    disk: Rc<Disk>,
    request: Request,
    mirror: MirrorRequest,
) -> Result<Started, OpenError> {
    let MirrorRequest { target, mut sync, granularity, buf_size, errors } = mirror;
    let top = disk.node();
    if sync == Sync::Top && chain::backing(&top).is_none() {
        sync = Sync::Full;
    }
    let under = stands_on(&top, sync);
    let Opened { node, spec } = make(local, &disk, &request.spec, &target, under.as_ref()).await?;
    if let Err(text) = request.checked {
        close(&node).await;
        return refuse(text);
    }
    let (here, source, below) = (local.clone(), disk.clone(), spec.clone());
    let attach = move |target: Rc<dyn Node>| -> crate::node::Op<'static, Result<(), String>> {
        let (local, chain, spec) = (here.clone(), source.node(), below.clone());
        Box::pin(async move {
            Ok(attach_backing(&local, &target, &chain, &spec).await.map_err(|error| error.0))
        })
    };
    let options = MirrorOptions {
        kind: Kind::Mirror,
        sync,
        target_is_zero: !target.existing && is_zero_when_new(&*node),
        granularity: if granularity == 0 { granularity_for(&*node) } else { granularity },
        buf_size,
        errors,
        attach_backing: Some(Box::new(attach)),
        target: node,
    };
    let job = Mirror::start(local, disk, options, request.start).await;
    Ok(Started { job, pivot: Some(Spec { no_backing: false, ..spec }) })
}

/// Starts to copy a drive as it is.
///
/// # Errors
/// As [`start_mirror`].
pub async fn start_backup(
    local: &Local,
    disk: Rc<Disk>,
    request: Request,
    target: NewFile,
    mut sync: Sync,
    errors: Errors,
) -> Result<Started, OpenError> {
    let top = disk.node();
    if sync == Sync::Top && chain::backing(&top).is_none() {
        sync = Sync::Full;
    }
    let under = stands_on(&top, sync);
    let Opened { node, spec } = make(local, &disk, &request.spec, &target, under.as_ref()).await?;
    let attached = attach_backing(local, &node, &top, &spec).await;
    let attached =
        attached.map_err(|error| OpenError(format!("Could not open backing file: {error}")));
    if let Err(error) = attached.and_then(|()| request.checked.map_err(OpenError)) {
        chain::close_rest(&node, &top).await;
        return Err(error);
    }
    let options = BackupOptions { target: node, sync, errors };
    let job = options.start(local, disk, request.start).await;
    Ok(Started { job, pivot: None })
}

/// Starts to draw backing files into the topmost image: those above `base`, or all.
///
/// # Errors
/// There is no such base, or what [`Request::checked`] says.
pub async fn start_stream(
    local: &Local,
    disk: Rc<Disk>,
    request: Request,
    base: Option<String>,
    on_error: OnError,
) -> Result<Started, OpenError> {
    let mut options = StreamOptions { base: None, backing_file: None, on_error };
    if let Some(name) = base {
        let Some(node) = chain::find(local, &disk.node(), &name).await else {
            return refuse(format!("Base '{name}' not found"));
        };
        let format = Some(node.driver().to_owned());
        (options.base, options.backing_file) = (Some(node), Some(BackingFile { name, format }));
    }
    request.checked.map_err(OpenError)?;
    Ok(Started { job: options.start(local, disk, request.start).await, pivot: None })
}

/// Starts to draw the images from `top` down to above `base` into that one; into the lowest if
/// none is named.
///
/// # Errors
/// There are no such images, they cannot be written to, or what [`Request::checked`] says.
pub async fn start_commit(
    local: &Local,
    disk: Rc<Disk>,
    request: Request,
    top_name: &str,
    base: Option<String>,
) -> Result<Started, OpenError> {
    let active = disk.node();
    let top = if name::of(&*active) == top_name {
        active.clone()
    } else {
        match chain::find(local, &active, top_name).await {
            Some(top) => top,
            None => return refuse(format!("Top image file {top_name} not found")),
        }
    };
    let base = match base {
        Some(name) => match chain::find(local, &top, &name).await {
            Some(base) => base,
            None => return refuse(format!("Base '{name}' not found")),
        },
        None => chain::layers(&top).last().cloned().unwrap_or_else(|| top.clone()),
    };
    if chain::same(&top, &base) {
        return refuse("Invalid files for merge: top and base are the same");
    }
    let layers = chain::layers(&active);
    let at = layers.iter().position(|node| chain::same(node, &top));
    let overlay = at.and_then(|at| layers.get(at.checked_sub(1)?)).cloned();
    request.checked.map_err(OpenError)?;
    let base_read_only = base.info().read_only;
    if disk.read_only() {
        return refuse("Device '' is read only");
    }
    reopen(&base).await?;
    let Some(overlay) = overlay else {
        return commit_active(local, disk, base, request.spec, request.start).await;
    };
    let overlay_read_only = overlay.info().read_only;
    if let Err(error) = reopen(&overlay).await {
        restore(&base, base_read_only).await;
        return Err(error);
    }
    let format = Some(base.driver().to_owned());
    let backing_file = BackingFile { name: name::of(&*base), format };
    let options =
        CommitOptions { overlay, top, base, backing_file, overlay_read_only, base_read_only };
    Ok(Started { job: options.start(local, disk, request.start).await, pivot: None })
}

/// The topmost image goes into its base, which takes its place.
async fn commit_active(
    local: &Local,
    disk: Rc<Disk>,
    base: Rc<dyn Node>,
    spec: Spec,
    start: Start,
) -> Result<Started, OpenError> {
    let size = disk.info().size;
    if base.info().size < size
        && let Err(error) = base.resize(size).await
    {
        restore(&base, true).await;
        return refuse(format!("Could not resize: {}", errno_text(&error)));
    }
    let file = name::of(&*base);
    let pivot = spec.below(Some(file.clone()), Spec::file(&file, Some(base.driver())).options);
    let pivot = Spec { device: spec.device, open_files: Vec::new(), ..pivot };
    let options = MirrorOptions {
        kind: Kind::Commit,
        sync: Sync::Top,
        target_is_zero: false,
        granularity: granularity_for(&*base),
        buf_size: 1 << 20,
        errors: Errors::default(),
        attach_backing: None,
        target: base,
    };
    let job = Mirror::start(local, disk, options, start).await;
    Ok(Started { job, pivot: Some(pivot) })
}

async fn reopen(node: &Rc<dyn Node>) -> Result<(), OpenError> {
    if !node.info().read_only {
        return Ok(());
    }
    node.reopen(false).await.map_err(|error| {
        let file = name::of(&**node);
        tracing::debug!("reopening '{file}': {error}");
        match error.kind() {
            io::ErrorKind::Unsupported => OpenError(format!(
                "Block format '{}' used by device '' does not support feature 'reopening of file'",
                node.driver()
            )),
            _ => OpenError(format!("failed while preparing to reopen image '{file}'")),
        }
    })
}

async fn restore(node: &Rc<dyn Node>, read_only: bool) {
    if read_only && let Err(error) = node.reopen(true).await {
        tracing::warn!("an image stays open for writing: {error}");
    }
}

async fn close(node: &Rc<dyn Node>) {
    if let Err(error) = node.close().await {
        tracing::warn!("an image was not closed well: {error}");
    }
}
