//! The virtual processors: what they look like to the guest, how they start and run, how their
//! state is saved.

pub mod model;
pub mod processors;
pub mod run_page;
pub mod setup;
pub mod state;
pub mod thread;
pub mod topology;
