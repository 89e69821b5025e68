//! The virtual processors: what they look like to the guest, how they start, how their state is
//! saved.

pub mod model;
pub mod setup;
pub mod state;
pub mod topology;
