//! What a test is made of: the VM it starts, the connections it talks through:
//! console, QMP, debug port.

pub mod console;
pub mod disk;
pub mod everything;
pub mod gdb;
pub mod net;
pub mod plug;
pub mod process;
pub mod qmp;
pub mod qtest;
pub mod registry;
pub mod vm;
pub mod vsock;

/// The result of a test or of a step of the rig: failures are texts for people.
pub type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
