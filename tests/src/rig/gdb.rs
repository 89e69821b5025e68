//! The debugger, which reads dumps of guests.

use std::path::Path;
use std::process::Command;

use super::Result;
use crate::supply::run;

/// Where the debugger is, here and in a nested host.
pub const GDB: &str = "/usr/bin/gdb";

/// Opens a core file, runs `commands` and returns what they print.
///
/// # Errors
/// When the debugger does not open it or says that it misses something.
pub fn gdb(core: &Path, commands: &[&str]) -> Result<String> {
    let mut gdb = Command::new(GDB);
    gdb.args(["-nx", "-batch", "-ex", "set width 0", "-ex", "set print elements 0", "-ex"]);
    gdb.arg(format!("core-file {}", core.display()));
    for command in commands {
        gdb.args(["-ex", command]);
    }
    let text = String::from_utf8_lossy(&run(&mut gdb)?).into_owned();
    Ok(text)
}
