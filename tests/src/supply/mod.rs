//! What the tests stand on and a fresh machine lacks: tools, guest kernels, initrds, disk images.
//!
//! All of it is made under `target/vmtest/` and remade when what it was made from changes.

pub mod analyzer;
pub mod apt;
pub mod cache;
pub mod cpio;
pub mod debian;
pub mod guests;
pub mod kernel;
pub mod python;
pub mod tree;

use std::process::{Command, Stdio};

use crate::rig::Result;

/// Runs `command` to its end; a failure shows its output.
pub(crate) fn run(command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot start {command:?}: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} failed ({}): {}", output.status, said.trim()).into())
}
