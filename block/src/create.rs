//! Creating images.
//!
//! On the loop that the caller runs on; what may block goes through its pool. Names and options
//! are a user's or a client's.

use std::rc::Rc;

use resources::iol::Local;

use crate::node::Node;
use crate::open::{OpenError, Spec, open};
use crate::options::Options;
use crate::{format, name, protocol};

/// An image that is wanted.
#[derive(Debug, Clone, Default)]
pub struct NewImage {
    /// Its name, which may say its protocol.
    pub filename: String,
    /// Its format.
    pub format: String,
    /// Options of the format: `cluster_size`, `compat`.
    pub options: Options,
    /// Bytes; those of the backing file if not given.
    pub size: Option<u64>,
    /// What shows through it: the name as it will stand in the image.
    pub backing: Option<String>,
    /// The format of that.
    pub backing_format: Option<String>,
}

/// An image that is being made, as its format sees it.
pub struct NewFile<'a> {
    /// The loop.
    pub local: &'a Local,
    /// Where it is made: an empty file.
    pub file: Rc<dyn Node>,
    /// The name of that.
    pub filename: &'a str,
    /// Bytes of the disk.
    pub size: u64,
    /// Options of the format, which takes those that it knows.
    pub options: &'a mut Options,
}

/// An option that a format has for new images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreateOption {
    /// Its name.
    pub name: &'static str,
    /// What it is, for the user.
    pub help: &'static str,
}

/// Whether what was never written to a new image of this kind reads as zeros.
pub(crate) fn is_zero_when_new(node: &dyn Node) -> bool {
    node.image().is_some()
        || match node.host() {
            Some(host) => !host.is_block_device(),
            None => {
                let children = node.children();
                let file = children.iter().find(|(role, _)| *role == "file");
                file.is_some_and(|(_, file)| is_zero_when_new(&**file))
            }
        }
}

/// Creates an image: the file of its protocol, and the format in it. An image that is there is
/// lost.
///
/// # Errors
/// What is wrong first, in the order and with the texts that clients know.
pub async fn create(local: &Local, new: &NewImage) -> Result<(), OpenError> {
    let NewImage { filename, format: format_name, .. } = new;
    let refuse = |text: String| Err(OpenError(text));
    let Some(format) = format::named(format_name) else {
        return refuse(format!("Unknown file format '{format_name}'"));
    };
    let Ok(protocol) = protocol::of_name(filename) else {
        return refuse(format!("Unknown protocol '{filename}'"));
    };
    let known = |name: &str| format.create_options.iter().any(|option| option.name == name);
    let mut options = new.options.clone();
    if options.iter().any(|(key, _)| !known(key)) {
        return refuse(format!("Invalid options for file format '{format_name}'."));
    }
    if let Some(backing) = &new.backing {
        if !known("backing_file") {
            return refuse(format!("Backing file not supported for file format '{format_name}'"));
        }
        options.set("backing_file", backing);
    }
    if let Some(backing_format) = &new.backing_format {
        if !known("backing_fmt") {
            return refuse(format!(
                "Backing file format not supported for file format '{format_name}'"
            ));
        }
        options.set("backing_fmt", backing_format);
    }
    let backing = options.get("backing_file").map(str::to_owned).filter(|name| !name.is_empty());
    if backing.as_deref() == Some(filename) {
        let text = "Error: Trying to create an image with the same filename as the backing file";
        return refuse(text.to_owned());
    }
    let backing_format = options.get("backing_fmt").map(str::to_owned);
    if let Some(name) = &backing_format
        && format::named(name).is_none()
        && protocol::named(name).is_none()
    {
        return refuse(format!("Unknown backing file format '{name}'"));
    }
    let size = match (new.size.or(options.take_size("size")?), &backing) {
        (Some(size), _) => size,
        (None, None) => return refuse("Image creation needs a size parameter".to_owned()),
        (None, Some(backing)) => {
            let backing = name::combine(filename, backing);
            let spec = Spec {
                read_only: true,
                no_locking: true,
                ..Spec::file(&backing, backing_format.as_deref())
            };
            let opened = open(local, &spec).await;
            opened.map_err(|e| OpenError(format!("Could not open '{backing}': {e}")))?.info().size
        }
    };
    options.take("size");
    let Some(make) = format.create else {
        return refuse(format!("Driver '{format_name}' does not support image creation"));
    };
    protocol::make(local, protocol, filename).await?;
    let spec = Spec { discard: true, ..Spec::default() };
    let file = protocol::open_named(local, &spec, protocol, filename).await?;
    make(NewFile { local, file: file.clone(), filename, size, options: &mut options }).await?;
    let closed = file.close().await;
    closed.map_err(|e| OpenError(format!("Could not create image: {}", crate::errno_text(&e))))
}
