//! Chains of images: what shows where an image has nothing of its own.
//!
//! On one loop, no lock. Chains come from images: no more than [`DEPTH`] layers of one are looked
//! at, and whatever a node tells about a range ends with the range.

use std::io;
use std::rc::Rc;

use resources::iol::Local;

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

/// What the layers above `base` have at `offset`: all of them when there is no `base`. `Absent`
/// if they have nothing. The second figure is how far that holds, at most `len` and at least 1.
///
/// What lies past the end of a lower layer that is shorter than those above it is `Zero`.
///
/// # Errors
/// What the host reports, or that the offset is beyond the end.
pub async fn state_above(
    top: &Rc<dyn Node>,
    base: Option<&Rc<dyn Node>>,
    offset: u64,
    len: u64,
) -> io::Result<(State, u64)> {
    let mut len = len;
    let mut node = top.clone();
    for depth in 0..DEPTH {
        if base.is_some_and(|base| same(base, &node)) {
            return Ok((State::Absent, len));
        }
        let room = node.info().size.saturating_sub(offset);
        if room == 0 && depth > 0 {
            return Ok((State::Zero, len));
        }
        let extent = node.map(offset, len.min(room)).await?;
        len = extent.len.min(len);
        if len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if extent.state != State::Absent {
            return Ok((extent.state, len));
        }
        match backing(&node) {
            Some(next) => node = next,
            None => return Ok((State::Absent, len)),
        }
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
