//! What a drive is opened from: a graph as data, which can be built on any loop.
//!
//! Files are opened, and locked, when a source is made; building nodes on a loop, and on another
//! one when a device wants that, opens nothing. Any thread, no lock.

use std::rc::Rc;
use std::sync::Arc;

use resources::iol::Local;

use crate::file::File;
use crate::host::HostFile;
use crate::node::{Node, Op};
use crate::null::Null;
use crate::raw::Raw;

/// Makes a node on a loop.
pub type MakeNode = dyn Fn(&Local) -> Rc<dyn Node> + Send + Sync;

/// A graph, not built yet.
#[derive(Clone)]
pub enum Source {
    /// A file or block device.
    File(Arc<HostFile>),
    /// The raw format over something: all of it, or a part.
    Raw {
        /// What it is a part of.
        file: Box<Source>,
        /// Where the part begins, in bytes.
        offset: u64,
        /// Its size in bytes; the rest of the file if not given.
        size: Option<u64>,
    },
    /// So many bytes of zeros.
    Null(u64),
    /// A node that somebody else makes: of tests.
    Other(Arc<MakeNode>),
}

impl Source {
    /// The raw format over a file.
    pub fn raw(file: Arc<HostFile>) -> Source {
        Source::Raw { file: Box::new(Source::File(file)), offset: 0, size: None }
    }

    /// Builds the nodes on the loop that the caller runs on.
    ///
    /// # Errors
    /// When the parts do not fit each other.
    pub fn build<'a>(&'a self, local: &'a Local) -> Op<'a, Rc<dyn Node>> {
        Box::pin(async move {
            let node: Rc<dyn Node> = match self {
                Source::File(host) => File::new(local, host.clone()),
                Source::Raw { file, offset, size } => {
                    Rc::new(Raw::new(file.build(local).await?, *offset, *size)?)
                }
                Source::Null(size) => Rc::new(Null(*size)),
                Source::Other(make) => make(local),
            };
            Ok(node)
        })
    }

    /// The name of its driver.
    pub fn driver(&self) -> &'static str {
        match self {
            Source::File(host) => host.driver(),
            Source::Raw { .. } => "raw",
            Source::Null(_) => "null-co",
            Source::Other(_) => "other",
        }
    }

    /// The file at the bottom, if there is one.
    pub fn host(&self) -> Option<&Arc<HostFile>> {
        match self {
            Source::File(host) => Some(host),
            Source::Raw { file, .. } => file.host(),
            Source::Null(_) | Source::Other(_) => None,
        }
    }

    /// Whether a protocol lies below it whose figures are told apart.
    pub fn has_parent(&self) -> bool {
        matches!(self, Source::Raw { .. })
    }
}
