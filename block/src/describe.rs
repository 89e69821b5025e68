//! What is told about a graph: data for any thread, gathered on its loop.
//!
//! Names and facts come from images.

use crate::image::{BackingFile, Facts, Snapshot};
use crate::name;
use crate::node::Node;

/// What is told about an image and what shows through it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// The name of its file; empty if it has none.
    pub filename: String,
    /// Its driver: the format's, or the protocol's where there is none.
    pub driver: &'static str,
    /// Bytes.
    pub size: u64,
    /// Bytes that its file takes on the host, where that is known.
    pub allocated: Option<u64>,
    /// The driver is a format over a protocol.
    pub has_file: bool,
    /// Where the last sector begins that was written to in its file.
    pub highest_offset: u64,
    /// What the format knows, if it has metadata.
    pub facts: Option<Facts>,
    /// It cannot be used before it is given a key.
    pub needs_key: bool,
    /// The backing file that it names; if that is open, by the name it was opened by.
    pub backing_file: Option<BackingFile>,
    /// Its snapshots.
    pub snapshots: Vec<Snapshot>,
    /// What shows through it, if that is open.
    pub backing: Option<Box<Description>>,
}

impl Description {
    /// Looks at a graph; on its loop.
    pub fn of(node: &dyn Node) -> Description {
        let mut chain = vec![one(node)];
        let mut next = below(node);
        while let Some(node) = next {
            chain.push(one(&*node));
            next = below(&*node);
        }
        let mut told: Option<Box<Description>> = None;
        for mut image in chain.into_iter().rev() {
            if let (Some(opened), Some(named)) = (&told, &mut image.backing_file)
                && !opened.filename.is_empty()
            {
                opened.filename.clone_into(&mut named.name);
            }
            image.backing = told;
            told = Some(Box::new(image));
        }
        told.map(|told| *told).unwrap_or_default()
    }

    /// Images that show through it, opened.
    pub fn depth(&self) -> u64 {
        std::iter::successors(self.backing.as_deref(), |image| image.backing.as_deref()).count()
            as u64
    }

    /// The image that lacks a key: the one right below this one, or this one.
    pub fn keyless(&self) -> Option<&Description> {
        let backing = self.backing.as_deref().filter(|backing| backing.needs_key);
        backing.or(Some(self).filter(|image| image.needs_key))
    }

    /// Its contents are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.facts.as_ref().is_some_and(|facts| facts.encrypted)
    }
}

fn below(node: &dyn Node) -> Option<std::rc::Rc<dyn Node>> {
    node.image().and_then(|image| image.backing())
}

fn one(node: &dyn Node) -> Description {
    let image = node.image();
    let file = node.children().into_iter().find(|(role, _)| *role == "file").map(|(_, file)| file);
    Description {
        filename: name::of(node),
        driver: node.driver(),
        size: node.info().size,
        allocated: allocated(node),
        has_file: file.is_some(),
        highest_offset: file.map_or(0, |file| file.highest_offset()),
        facts: image.map(|image| image.facts()),
        needs_key: image.is_some_and(|image| image.needs_key()),
        backing_file: image.and_then(|image| image.backing_file()),
        snapshots: image.and_then(|image| image.snapshots()).unwrap_or_default(),
        backing: None,
    }
}

fn allocated(node: &dyn Node) -> Option<u64> {
    if let Some(host) = node.host() {
        return host.allocated();
    }
    let children = node.children();
    let below = |role: &str| children.iter().find(|(it, _)| *it == role).map(|(_, node)| node);
    let own = allocated(&**below("file")?)?;
    let data = below("data-file").and_then(|data| allocated(&**data)).unwrap_or(0);
    Some(own.saturating_add(data))
}
