//! The virtual processors: what they look like to the guest, how they start and run, how their
//! state is saved.
//!
//! Each vCPU has a thread, which alone touches its file ([`thread`]); the main thread sends it
//! closures. The guest controls every exit and every register; saved state is untrusted
//! ([`state`]).

pub mod lapic;
pub mod model;
pub mod paging;
pub mod processors;
pub mod registers;
pub mod run_page;
pub mod setup;
pub mod state;
pub mod thread;
pub mod throttle;
pub mod topology;
