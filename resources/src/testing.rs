//! What the tests of all crates share; for nothing else. Any thread, no state.

use std::fmt::Display;

/// Set to something where the host has all that tests may need: then one that lacks something
/// fails.
pub const COMPLETE: &str = "VMTEST_COMPLETE";

/// Whether the host is said to lack nothing.
pub fn is_complete() -> bool {
    std::env::var_os(COMPLETE).is_some_and(|value| !value.is_empty())
}

/// A test ends before it has tested anything, as the host lacks what it needs: says so.
///
/// # Panics
/// Where the host is said to lack nothing: see [`COMPLETE`].
pub fn skipped(lacks: impl Display) {
    assert!(!is_complete(), "{COMPLETE} is set, but: {lacks}");
    eprintln!("skipped: {lacks}");
}
