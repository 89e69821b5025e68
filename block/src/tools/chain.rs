//! What lies where in a chain of images.
//!
//! On the loop of the graph, no lock. Chains are as long as images say, within the bound of
//! opening; they are walked one layer after the other.

use std::io;
use std::rc::Rc;

use crate::node::{Node, State};

/// What a range reads as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Data that lies somewhere.
    Data,
    /// Zeros that a layer says are zeros.
    Zero,
    /// Zeros because no layer has anything.
    Nothing,
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

/// What shows where `node` has nothing.
pub fn backing(node: &Rc<dyn Node>) -> Option<Rc<dyn Node>> {
    node.image().and_then(|image| image.backing())
}

/// What lies at `offset`, looking at no more than `len` bytes and at the `layers` topmost layers.
///
/// # Errors
/// What the layers report; `UnexpectedEof` beyond the end.
pub async fn look(
    node: &Rc<dyn Node>,
    offset: u64,
    len: u64,
    layers: Option<u32>,
) -> io::Result<Place> {
    let mut node = node.clone();
    let mut len = len.min(node.info().size.saturating_sub(offset));
    let mut depth = 0;
    loop {
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let extent = node.map(offset, len).await?;
        len = extent.len.clamp(1, len);
        let found = |content, node| Place { len, content, depth, offset: extent.offset, node };
        match extent.state {
            State::Data => return Ok(found(Content::Data, node)),
            State::Zero => return Ok(found(Content::Zero, node)),
            State::Absent => {}
        }
        let below = backing(&node).filter(|_| layers.is_none_or(|layers| depth + 1 < layers));
        let Some(below) = below else {
            return Ok(Place { offset: None, ..found(Content::Nothing, node) });
        };
        let room = below.info().size.saturating_sub(offset);
        if room == 0 {
            // The layer below ends before: what is above it decides that these are zeros.
            return Ok(Place { offset: None, ..found(Content::Nothing, node) });
        }
        len = len.min(room);
        node = below;
        depth = depth.saturating_add(1);
    }
}

/// As [`look`], for as long as what lies there is of the same content: neighbours are put
/// together, up to `len` bytes.
///
/// # Errors
/// As [`look`].
pub async fn run(node: &Rc<dyn Node>, offset: u64, len: u64) -> io::Result<(Content, u64)> {
    let first = look(node, offset, len, None).await?;
    let len = len.min(node.info().size.saturating_sub(offset));
    let mut known = first.len;
    while known < len {
        let next = look(node, offset.saturating_add(known), len - known, None).await?;
        if next.content != first.content {
            break;
        }
        known += next.len;
    }
    Ok((first.content, known))
}
