//! What a test is made of: the VM it starts, the connections it talks through:
//! console, QMP, debug port.

pub mod console;
pub mod disk;
pub mod everything;
pub mod gdb;
pub mod moving;
pub mod net;
pub mod plug;
pub mod process;
pub mod qmp;
pub mod qtest;
pub mod registry;
mod standstill;
pub mod vm;
pub mod vsock;

/// The result of a test or of a step of the rig: failures are texts for people.
pub type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The environment variable by which tests that prove by repetition do so at length.
pub const THOROUGH: &str = "VMTEST_THOROUGH";

/// How often something is done: `usually`, or `at_length` where the user wants that.
pub fn thorough(usually: usize, at_length: usize) -> usize {
    if std::env::var_os(THOROUGH).is_some() { at_length } else { usually }
}
