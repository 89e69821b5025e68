//! Persistent dirty bitmaps.

#[allow(dead_code, reason = "bitmaps are only looked at so far")]
mod directory;

pub(super) use directory::{OFFSET_MASK, load_directory};
