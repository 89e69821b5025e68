//! Opening images for the tools.
//!
//! On the tool's loop, no lock. Names come from whoever starts the tool, or from images.

use std::rc::Rc;

use resources::iol::Local;

use super::console::Fail;
pub use crate::host::why;
use crate::node::Node;
use crate::open::Secrets;
use crate::{Cache, CreateOption, NewImage, Spec, format, protocol};

/// An image that is wanted.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// Its name; its options, if `image_opts`.
    pub name: &'a str,
    /// Its format; found out if not given.
    pub format: Option<&'a str>,
    /// `name` is `driver=..,file.filename=..`.
    pub image_opts: bool,
    /// It will be written.
    pub writable: bool,
    /// How it is cached.
    pub cache: Cache,
    /// What it names as its backing file is not opened.
    pub no_backing: bool,
    /// Others may be writing it.
    pub force_share: bool,
    /// It is opened to be checked.
    pub check: bool,
    /// Files are read and written by threads, even where there is io_uring.
    pub threads: bool,
    /// The name of the password it is encrypted with.
    pub key_secret: Option<&'a str>,
    /// Its snapshot of this id or name is wanted in its place.
    pub snapshot: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    /// To be read.
    pub fn read(name: &'a str, format: Option<&'a str>) -> Wanted<'a> {
        Wanted {
            name,
            format,
            image_opts: false,
            writable: false,
            cache: Cache::default(),
            no_backing: false,
            force_share: false,
            check: false,
            threads: false,
            key_secret: None,
            snapshot: None,
        }
    }
}

impl Wanted<'_> {
    fn spec(&self, secrets: &Secrets) -> Spec {
        let mut spec = if self.image_opts {
            Spec::options(split_options(self.name).into_iter().collect())
        } else {
            Spec::file(self.name, self.format)
        };
        if let Some(id) = self.key_secret {
            spec.options.set("encrypt.key-secret", id);
        }
        Spec {
            secrets: secrets.clone(),
            threads: self.threads,
            device: "image".to_owned(),
            read_only: !self.writable,
            cache: self.cache,
            discard: true,
            no_backing: self.no_backing,
            no_locking: self.force_share,
            check: self.check,
            ..spec
        }
    }
}

/// Opens an image with all that it stands on.
///
/// # Errors
/// `Could not open 'NAME': REASON`.
pub async fn open(
    local: &Local,
    wanted: &Wanted<'_>,
    secrets: &Secrets,
) -> Result<Rc<dyn Node>, Fail> {
    if let Some(format) = wanted.format
        && !is_driver(format)
    {
        return Err(Fail::Told(format!("Unknown driver '{format}'")));
    }
    let opened = crate::open(local, &wanted.spec(secrets)).await;
    let node =
        opened.map_err(|error| Fail::Told(format!("Could not open '{}': {error}", wanted.name)))?;
    if let Some(snapshot) = wanted.snapshot {
        show(&node, snapshot).await?;
    }
    Ok(node)
}

/// Has an image show a snapshot: `snapshot.id=`, `snapshot.name=` and both, or else an identity or
/// name.
///
/// # Errors
/// When there is none.
pub async fn show(node: &Rc<dyn Node>, wanted: &str) -> Result<(), Fail> {
    let pairs = split_options(wanted);
    let given = |key: &str| pairs.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str());
    let by_options = (given("snapshot.id"), given("snapshot.name"));
    let shown = match (node.image(), by_options) {
        (None, _) => Err(std::io::ErrorKind::Unsupported.into()),
        (Some(image), (None, None)) => match image.show_snapshot(Some(wanted), None).await {
            Err(_) => image.show_snapshot(None, Some(wanted)).await,
            shown => shown,
        },
        (Some(image), (id, name)) => image.show_snapshot(id, name).await,
    };
    shown.map_err(|error| {
        Fail::Told(format!("Failed to load snapshot: {}", crate::errno_text(&error)))
    })
}

/// Makes an image.
///
/// # Errors
/// What is wrong with the wish, or what the host reports.
pub async fn create(local: &Local, new: &NewImage) -> Result<(), String> {
    crate::create(local, new).await.map_err(|error| error.to_string())
}

/// Whether there is a format of this name.
pub fn is_format(name: &str) -> bool {
    format::named(name).is_some()
}

/// Whether there is a format or a protocol of this name.
fn is_driver(name: &str) -> bool {
    is_format(name) || protocol::named(name).is_some()
}

/// The options that a format has for new images.
pub fn create_options(format: &str) -> &'static [CreateOption] {
    format::named(format).map(|format| format.create_options).unwrap_or_default()
}

/// `KEY=VALUE,KEY=VALUE`: two commas are one in a value, a key alone is on.
pub fn split_options(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut pair = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != ',' || chars.next_if_eq(&',').is_some() {
            pair.push(c);
        } else {
            pairs.push(std::mem::take(&mut pair));
        }
    }
    if !pair.is_empty() || pairs.is_empty() {
        pairs.push(pair);
    }
    let halves = |pair: String| match pair.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (pair, "on".to_owned()),
    };
    pairs.into_iter().map(halves).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split() {
        let pairs = |text| -> Vec<String> {
            let pairs = split_options(text);
            pairs.into_iter().map(|(key, value)| format!("{key}:{value}")).collect()
        };
        assert_eq!(pairs("a=1,b=x,,y,c"), ["a:1", "b:x,y", "c:on"]);
        assert_eq!(pairs("a="), ["a:"]);
        assert_eq!(pairs(""), [":on"]);
        assert_eq!(pairs("a,"), ["a:on"]);
    }
}
