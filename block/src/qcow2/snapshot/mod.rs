//! Internal snapshots.

#[allow(dead_code, reason = "snapshots are only looked at so far")]
mod table;

pub(super) use table::load_table;
#[cfg(test)]
pub(super) use table::{Record, serialise_table};
