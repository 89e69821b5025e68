//! The test rig: guest tests, the places they run in, and what these need from the distribution.
//!
//! [`linux`] and [`tiny`] hold the tests, [`rig`] what tests are written with, [`host`] the places
//! they run in (this machine's KVM or a nested host), [`supply`] the files they need, [`suite`]
//! the `cargo vmtest` command and [`demo`] the `cargo demo` one.

pub mod demo;
pub mod host;
pub mod linux;
pub mod rig;
pub mod scratch;
pub mod suite;
pub mod supply;
pub mod tiny;
pub mod workspace;
