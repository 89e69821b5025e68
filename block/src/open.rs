//! Opening a graph from data.
//!
//! A [`Spec`] says what is wanted: a file name, options with dotted keys, and flags. [`open`] finds
//! the protocol, opens the node, finds the format by its name or by the first bytes, opens that,
//! and then what the image names as its backing file, until there is none. It runs on the loop
//! where the graph will live; whatever may block goes through the loop's pool.
//!
//! Names of backing files are an image's: chains are bounded in depth ([`MAX_DEPTH`]). No lock.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use resources::iol::{IoBuf, Local};
use resources::tls::Credentials;

use crate::drive::patience::with_patience;
use crate::format::{self, Format};
use crate::host::{Cache, HostError, HostFile, errno_text};
use crate::image::BackingFile;
use crate::node::{Node, Zero};
use crate::options::{OptionError, Options};
use crate::protocol::{self, Protocol};
use crate::{chain, detect, name, overlay, qcow2};

/// Images in one chain.
pub const MAX_DEPTH: usize = 200;

/// Passwords of images, by the names that `encrypt.key-secret` gives.
pub type Secrets = Arc<Objects>;

/// What options name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objects {
    /// Passwords of images.
    pub passwords: BTreeMap<String, String>,
    /// Whom to believe, and what to show.
    pub tls: BTreeMap<String, Credentials>,
}

/// Bytes that a format is recognised by.
const HEAD: u64 = 2048;

/// A graph that is being opened.
pub type Opening<'a> = Pin<Box<dyn Future<Output = Result<Rc<dyn Node>, OpenError>> + 'a>>;

/// Makes a node on a loop.
pub type MakeNode = dyn Fn(&Local) -> Rc<dyn Node> + Send + Sync;

/// Why a graph cannot be opened or created. The texts are those that clients know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub String);

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> io::Error {
        io::Error::other(error)
    }
}

impl From<HostError> for OpenError {
    fn from(error: HostError) -> OpenError {
        OpenError(error.to_string())
    }
}

impl From<OptionError> for OpenError {
    fn from(error: OptionError) -> OpenError {
        OpenError(error.0)
    }
}

/// A graph that is wanted: data, for any thread.
#[derive(Clone, Default)]
pub struct Spec {
    /// The file: a path, a name that says its protocol (`nbd:host:port`), or `json:` and options.
    pub filename: Option<String>,
    /// Options with dotted keys: `driver` names the format; `file.` is for the protocol, `backing.`
    /// for what shows through, the others for the format.
    pub options: Options,
    /// The name of the drive in messages; empty for what has none.
    pub device: String,
    /// Nothing will be written.
    pub read_only: bool,
    /// How it is cached.
    pub cache: Cache,
    /// Discards give room back.
    pub discard: bool,
    /// Writes of nothing but zeros become writes of zeros, done so.
    pub detect_zeroes: Option<Zero>,
    /// Files are read and written by threads, even where there is io_uring.
    pub threads: bool,
    /// What the image names as its backing file is not opened.
    pub no_backing: bool,
    /// What is written goes to a temporary image that nobody can see.
    pub snapshot: bool,
    /// What is read is kept in the topmost image (copy-on-read).
    pub copy_on_read: bool,
    /// Files are not locked against other programs.
    pub no_locking: bool,
    /// Other programs may write the file too, if the format is one that leaves it as it is.
    pub share_writes: bool,
    /// The temporary image, once there is one.
    pub overlay: Option<String>,
    /// It is opened to be checked: what is wrong with it is no reason to refuse it, nor mended.
    pub check: bool,
    /// Who is told when an image of the graph contradicts itself.
    pub on_corruption: Option<qcow2::options::OnCorruption>,
    /// A node that somebody else makes, in place of everything: of tests.
    pub made: Option<Arc<MakeNode>>,
    /// Passwords that options name.
    pub secrets: Secrets,
    /// Files that are open already, and are used by their names.
    pub open_files: Vec<Arc<HostFile>>,
}

impl Spec {
    /// A file in a format; one that is to be found out if none is given.
    pub fn file(filename: &str, format: Option<&str>) -> Spec {
        let mut options = Options::new();
        if let Some(format) = format {
            options.set("driver", format);
        }
        Spec { filename: Some(filename.to_owned()), options, ..Spec::default() }
    }

    /// What options describe.
    pub fn options(options: Options) -> Spec {
        Spec { options, ..Spec::default() }
    }

    /// So many bytes of zeros.
    pub fn null(size: u64) -> Spec {
        let size = size.to_string();
        Spec::options([("driver", "null-co"), ("size", &size)].into_iter().collect())
    }

    /// A node that somebody else makes, when it is opened and whenever it moves: of tests.
    pub fn made(make: impl Fn(&Local) -> Rc<dyn Node> + Send + Sync + 'static) -> Spec {
        Spec { made: Some(Arc::new(make)), discard: true, ..Spec::default() }
    }

    /// What is to be opened below this, with the same flags.
    pub fn below(&self, filename: Option<String>, options: Options) -> Spec {
        let below = Spec { filename, options, device: String::new(), ..self.clone() };
        Spec { snapshot: false, copy_on_read: false, detect_zeroes: None, made: None, ..below }
    }
}

/// One layer that is being opened, as its driver sees it.
pub struct Layer<'a> {
    /// The loop.
    pub local: &'a Local,
    /// What was asked for, with the flags.
    pub spec: &'a Spec,
    /// Options for this layer; the driver takes those that it knows.
    pub options: &'a mut Options,
    /// Images above this one.
    pub depth: usize,
}

impl<'a> Layer<'a> {
    /// Opens a child that this layer's options name under `key`, or that `filename` names; as a
    /// whole image with a format of its own.
    ///
    /// # Errors
    /// As [`open`].
    pub async fn open_child(
        &mut self,
        key: &str,
        filename: Option<String>,
    ) -> Result<Rc<dyn Node>, OpenError> {
        let options = self.options.take_under(key);
        let filename = self.options.take(key).or(filename);
        let spec = self.spec.below(filename, options);
        open_at(self.local, &spec, self.depth + 1).await
    }
}

/// Opens a graph on the loop that the caller runs on.
///
/// # Errors
/// See [`OpenError`].
pub async fn open(local: &Local, spec: &Spec) -> Result<Rc<dyn Node>, OpenError> {
    open_at(local, spec, 0).await
}

/// A whole chain. What is below is opened in turn and not within: a chain is as deep as its images
/// say, and the stack is not.
fn open_at<'a>(local: &'a Local, spec: &'a Spec, depth: usize) -> Opening<'a> {
    Box::pin(async move {
        let (top, mut below) = open_layer(local, spec, depth).await?;
        let mut above = top.clone();
        let mut layers = 0;
        while let Some(spec) = below {
            layers += 1;
            let opened = open_layer(local, &spec, depth + layers).await;
            let (node, next) = opened.map_err(|error| {
                OpenError("Could not open backing file: ".repeat(layers) + &error.0)
            })?;
            if let Some(image) = above.image() {
                image.set_backing(Some(node.clone()));
            }
            (above, below) = (node, next);
        }
        Ok(top)
    })
}

/// A layer, and what is to be opened below it.
async fn open_layer(
    local: &Local,
    spec: &Spec,
    depth: usize,
) -> Result<(Rc<dyn Node>, Option<Spec>), OpenError> {
    if depth >= MAX_DEPTH {
        return Err(OpenError(format!("there are more than {MAX_DEPTH} images in the chain")));
    }
    if let Some(make) = &spec.made {
        return Ok((make(local), None));
    }
    if spec.snapshot {
        let base = Spec { read_only: true, snapshot: false, ..spec.clone() };
        let base = open_at(local, &base, depth).await?;
        return Ok((overlay::open(local, spec, base).await?, None));
    }
    let (filename, mut options) = parts(spec)?;
    let format = match options.take("driver") {
        None => None,
        Some(driver) => {
            if let Some(protocol) = protocol::named(&driver) {
                let node = open_protocol(local, spec, protocol, filename, options, depth).await?;
                return Ok((node, None));
            }
            let format = format::usable(&driver);
            Some(format.ok_or_else(|| OpenError(format!("Invalid driver: '{driver}'")))?)
        }
    };
    let file = open_file(local, spec, format, filename, &mut options, depth).await?;
    let top = Some(file.clone());
    let over = open_over(local, spec, format, file, options, depth);
    // Whoever wants it has to wait, though not for ever for a server that has stalled.
    with_patience(local, || top.clone(), over).await
}

/// A format over its file.
async fn open_over(
    local: &Local,
    spec: &Spec,
    format: Option<&Format>,
    file: Rc<dyn Node>,
    options: Options,
    depth: usize,
) -> Result<(Rc<dyn Node>, Option<Spec>), OpenError> {
    let format = match format {
        Some(format) => format,
        None => probe(&*file).await?,
    };
    if format.name == format::RAW.name {
        return open_format(local, spec, format, file, options, depth).await;
    }
    // Who wrote it besides would know nothing of what is kept here of its tables.
    for host in chain::files(file.clone()) {
        host.share_writes(false)?;
    }
    let spec = Spec { share_writes: false, ..spec.clone() };
    open_format(local, &spec, format, file, options, depth).await
}

/// The file name and the options, when what the name says is one of the options.
pub(crate) fn parts(spec: &Spec) -> Result<(Option<String>, Options), OpenError> {
    let Some(json) = spec.filename.as_deref().and_then(|name| name.strip_prefix("json:")) else {
        return Ok((spec.filename.clone(), spec.options.clone()));
    };
    let mut options = Options::from_json(json)?;
    for (key, value) in spec.options.iter() {
        options.set(key, value);
    }
    Ok((None, options))
}

/// The protocol layer below a format.
async fn open_file(
    local: &Local,
    spec: &Spec,
    format: Option<&Format>,
    filename: Option<String>,
    options: &mut Options,
    depth: usize,
) -> Result<Rc<dyn Node>, OpenError> {
    let mut below = options.take_under("file");
    let filename = options.take("file").or(filename);
    if filename.is_some() && below.get("filename").is_some() {
        let text = "Can't specify 'file' and 'filename' options at the same time";
        return Err(OpenError(text.to_owned()));
    }
    let protocol = match (below.take("driver"), &filename) {
        (Some(driver), _) => match protocol::named(&driver) {
            Some(protocol) => protocol,
            None if format::named(&driver).is_some() => {
                return Err(OpenError(format!(
                    "Can't use '{driver}' as a block driver for the protocol level"
                )));
            }
            None => return Err(OpenError(format!("Unknown driver '{driver}'"))),
        },
        (None, Some(filename)) => protocol::of_name(filename)?,
        (None, None) if below.get("filename").is_some() => protocol::FILE,
        (None, None) => {
            return Err(OpenError("Must specify either driver or file".to_owned()));
        }
    };
    // A format decides itself what of its file is of no use any more.
    let discard = spec.discard || format.is_none_or(|format| format.name != "raw");
    let spec = Spec { discard, ..spec.clone() };
    open_protocol(local, &spec, protocol, filename, below, depth).await
}

pub(crate) async fn open_protocol(
    local: &Local,
    spec: &Spec,
    protocol: &Protocol,
    filename: Option<String>,
    mut options: Options,
    depth: usize,
) -> Result<Rc<dyn Node>, OpenError> {
    if let Some(filename) = filename {
        if options.get("filename").is_some() {
            let text = "Can't specify 'file' and 'filename' options at the same time";
            return Err(OpenError(text.to_owned()));
        }
        (protocol.from_filename)(&filename, &mut options)?;
    }
    let zeros = detect::wanted(&mut options, spec.discard)?;
    let layer = Layer { local, spec, options: &mut options, depth };
    let node = (protocol.open)(layer).await?;
    match options.first_key() {
        None => Ok(detect::over(node, zeros)),
        Some(key) => {
            let name = protocol.name;
            Err(OpenError(format!("Block protocol '{name}' doesn't support the option '{key}'")))
        }
    }
}

async fn open_format(
    local: &Local,
    spec: &Spec,
    format: &Format,
    file: Rc<dyn Node>,
    mut options: Options,
    depth: usize,
) -> Result<(Rc<dyn Node>, Option<Spec>), OpenError> {
    let filename = name::of(&*file);
    let Some(open) = format.open else {
        return Err(OpenError(format!(
            "Could not open '{filename}': the image is in format '{}', which is not supported \
             (format=raw takes it as it is)",
            format.name
        )));
    };
    let layer = Layer { local, spec, options: &mut options, depth };
    let node = open(layer, file).await?;
    let below = backing_of(spec, &*node, &filename, &mut options);
    match options.first_key() {
        None => Ok((node, below)),
        Some(key) => Err(OpenError(format!(
            "Block format '{}' used by device '{}' doesn't support the option '{key}'",
            format.name, spec.device
        ))),
    }
}

/// What shows through an image: what the options say, or what the image names.
fn backing_of(spec: &Spec, node: &dyn Node, filename: &str, options: &mut Options) -> Option<Spec> {
    let image = node.image()?;
    let mut below = options.take_under("backing");
    let wanted = options.get("backing").is_none_or(|value| !value.is_empty());
    if !wanted {
        options.take("backing");
    }
    let named = image.backing_file();
    if spec.no_backing || !wanted || (named.is_none() && below.is_empty()) {
        return None;
    }
    let given = below.get("filename").is_some()
        || below.iter().any(|(key, _)| key == "file" || key.starts_with("file."));
    let mut full = None;
    if let Some(BackingFile { name, format }) = named
        && !given
    {
        full = Some(name::combine(filename, &name));
        // A name that nobody knows is no reason not to look at the image itself.
        if let Some(format) = format
            && below.get("driver").is_none()
            && (format::named(&format).is_some() || protocol::named(&format).is_some())
        {
            below.set("driver", &format);
        }
    }
    Some(Spec { read_only: true, share_writes: false, ..spec.below(full, below) })
}

/// Finds out the format by the first bytes.
async fn probe(file: &dyn Node) -> Result<&'static Format, OpenError> {
    let len = file.info().size.min(HEAD);
    if len == 0 {
        return Ok(format::RAW);
    }
    let head = IoBuf::zeroed(len as usize);
    file.read(0, head.clone()).await.map_err(|error| {
        let why = errno_text(&error);
        OpenError(format!("Could not read image for determining its format: {why}"))
    })?;
    Ok(format::probe(&head.to_vec(), &name::of(file)))
}
