//! Internal snapshots.

#[allow(dead_code, reason = "snapshots are only looked at so far")]
mod table;

#[cfg(test)]
pub(super) use table::serialise_table;
pub(super) use table::{Record, load_table};
