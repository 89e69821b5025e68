//! The `cargo demo` command.

use std::path::Path;

use crate::rig::Result;

/// Boots a guest to a shell.
pub fn run() -> Result {
    Err("not yet".into())
}

/// Relays.
pub fn relay(_port: &Path, _socket: &Path) -> Result {
    Err("not yet".into())
}
