//! Chains of images: what shows where an image has nothing of its own.
//!
//! On one loop, no lock. Chains come from images: no more than [`DEPTH`] layers of one are looked
//! at, and whatever a node tells about a range ends with the range.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use resources::iol::Local;

use crate::host::HostFile;
use crate::name;
use crate::node::{Node, State};

/// Layers of a chain at most.
pub const DEPTH: usize = 1024;

/// What shows where this node has nothing.
pub fn backing(node: &Rc<dyn Node>) -> Option<Rc<dyn Node>> {
    node.image()?.backing()
}

/// The layers of a chain, the topmost first.
pub fn layers(top: &Rc<dyn Node>) -> Vec<Rc<dyn Node>> {
    let mut all = vec![top.clone()];
    while all.len() < DEPTH
        && let Some(next) = all.last().and_then(backing)
    {
        all.push(next);
    }
    all
}

/// All nodes of a graph; one that is there in several ways may come as often.
pub(crate) fn nodes(top: Rc<dyn Node>) -> Vec<Rc<dyn Node>> {
    let mut found = vec![top];
    let mut at = 0;
    while let Some(node) = found.get(at) {
        let below = node.children();
        found.extend(below.into_iter().map(|(_, child)| child));
        at += 1;
    }
    found
}

/// All open files of the host in a graph.
pub(crate) fn files(top: Rc<dyn Node>) -> Vec<Arc<HostFile>> {
    files_where(top, |_| true)
}

/// The open files of the host that hold what is in a graph byte for byte.
pub(crate) fn plain_files(top: Rc<dyn Node>) -> Vec<Arc<HostFile>> {
    files_where(top, |node| node.image().is_none())
}

fn files_where(top: Rc<dyn Node>, look_below: fn(&dyn Node) -> bool) -> Vec<Arc<HostFile>> {
    let mut found = Vec::new();
    let mut left = vec![top];
    while let Some(node) = left.pop() {
        found.extend(node.host());
        if look_below(&*node) {
            left.extend(node.children().into_iter().map(|(_, child)| child));
        }
    }
    found
}

/// Whether both are the same node.
pub fn same(one: &Rc<dyn Node>, other: &Rc<dyn Node>) -> bool {
    std::ptr::addr_eq(Rc::as_ptr(one), Rc::as_ptr(other))
}

/// Whether two names mean the same: files of the host by where they are, others by the letter.
pub async fn same_file(local: &Local, one: &str, other: &str) -> bool {
    if one.is_empty() || other.is_empty() {
        return false;
    }
    if name::protocol(one).is_some() || name::protocol(other).is_some() {
        return one == other;
    }
    let (one, other) = (one.to_owned(), other.to_owned());
    let real = |name: &str| std::fs::canonicalize(name).ok();
    let compare = move || real(&one).is_some_and(|found| Some(found) == real(&other));
    local.pool(compare).await.unwrap_or(false)
}

/// The layer below `top` that a client calls `wanted`: by the name that the layer above it knows
/// it by. Relative names are relative to that layer.
pub async fn find(local: &Local, top: &Rc<dyn Node>, wanted: &str) -> Option<Rc<dyn Node>> {
    for node in layers(top) {
        let below = backing(&node)?;
        let opened = name::of(&*below);
        let recorded = if opened.is_empty() {
            node.image().and_then(|image| image.backing_file()).map(|file| file.name)?
        } else {
            opened
        };
        let full = |name: &str| match name::protocol(name) {
            Some(_) => name.to_owned(),
            None => name::combine(&name::of(&*node), name),
        };
        // A name that was opened is relative to the process, as a client may have it too.
        if recorded == wanted
            || same_file(local, &full(wanted), &recorded).await
            || same_file(local, &full(wanted), &full(&recorded)).await
        {
            return Some(below);
        }
    }
    None
}

/// What a range reads as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Data that lies somewhere.
    Data,
    /// Zeros that a layer says are zeros.
    Zero,
    /// Nothing: no layer that was looked at has anything.
    Nothing,
    /// Nothing, and the layer below ends before: these are zeros.
    Beyond,
}

/// A range of one layer.
pub struct Place {
    /// Bytes; at least 1.
    pub len: u64,
    /// What it reads as.
    pub content: Content,
    /// Layers above the one that decides.
    pub depth: u32,
    /// Where it begins in the layer's file, where that is known.
    pub offset: Option<u64>,
    /// The layer.
    pub node: Rc<dyn Node>,
}

/// What lies at `offset`, looking at no more than `len` bytes and at the `layers` topmost layers.
///
/// # Errors
/// What the layers report; `UnexpectedEof` beyond the end.
pub async fn look(
    top: &Rc<dyn Node>,
    offset: u64,
    len: u64,
    layers: Option<u32>,
) -> io::Result<Place> {
    walk(top, offset, len, |depth, _| layers.is_none_or(|layers| depth < layers)).await
}

/// As [`look`], for as long as what lies there is of the same content: neighbours are put
/// together, up to `len` bytes.
///
/// # Errors
/// As [`look`].
pub async fn run(node: &Rc<dyn Node>, offset: u64, len: u64) -> io::Result<(Content, u64)> {
    let alike = |content| match content {
        Content::Beyond => Content::Nothing,
        other => other,
    };
    let first = look(node, offset, len, None).await?;
    let len = len.min(node.info().size.saturating_sub(offset));
    let mut known = first.len;
    while known < len {
        let next = look(node, offset.saturating_add(known), len - known, None).await?;
        if alike(next.content) != alike(first.content) {
            break;
        }
        known += next.len;
    }
    Ok((alike(first.content), known))
}

/// What the layers above `base` have at `offset`: all of them when there is no `base`. `Absent`
/// if they have nothing. The second figure is how far that holds, at most `len` and at least 1.
///
/// What lies past the end of a lower layer that is shorter than those above it is `Zero`.
///
/// # Errors
/// As [`look`].
pub async fn state_above(
    top: &Rc<dyn Node>,
    base: Option<&Rc<dyn Node>>,
    offset: u64,
    len: u64,
) -> io::Result<(State, u64)> {
    if base.is_some_and(|base| same(base, top)) {
        return Ok((State::Absent, len));
    }
    let wanted = |_, node: &Rc<dyn Node>| !base.is_some_and(|base| same(base, node));
    let place = walk(top, offset, len, wanted).await?;
    let state = match place.content {
        Content::Data => State::Data,
        Content::Zero | Content::Beyond => State::Zero,
        Content::Nothing => State::Absent,
    };
    Ok((state, place.len))
}

/// Looks at one layer after the other, from the topmost one on, as long as the next one is wanted.
async fn walk(
    top: &Rc<dyn Node>,
    offset: u64,
    len: u64,
    wanted: impl Fn(u32, &Rc<dyn Node>) -> bool,
) -> io::Result<Place> {
    let mut node = top.clone();
    let mut len = len.min(node.info().size.saturating_sub(offset));
    for depth in 0.. {
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let extent = node.map(offset, len).await?;
        len = extent.len.clamp(1, len);
        let place = |content, offset, node| Place { len, content, depth, offset, node };
        match extent.state {
            State::Data => return Ok(place(Content::Data, extent.offset, node)),
            State::Zero => return Ok(place(Content::Zero, extent.offset, node)),
            State::Absent => {}
        }
        let Some(below) = backing(&node).filter(|below| wanted(depth + 1, below)) else {
            return Ok(place(Content::Nothing, None, node));
        };
        match below.info().size.saturating_sub(offset) {
            0 => return Ok(place(Content::Beyond, None, node)),
            room => len = len.min(room),
        }
        if depth as usize >= DEPTH {
            break;
        }
        node = below;
    }
    Err(io::Error::other("the chain of backing files is too long"))
}

/// Ends the use of the layers of a chain that another one does not have. What fails is logged:
/// they were not written to.
pub async fn close_rest(old: &Rc<dyn Node>, kept: &Rc<dyn Node>) {
    let kept = layers(kept);
    for node in layers(old) {
        if kept.iter().any(|other| same(other, &node)) {
            break;
        }
        if let Err(error) = node.close().await {
            tracing::warn!("an image that is no longer used was not closed well: {error}");
        }
    }
}
