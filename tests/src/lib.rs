//! The test rig: guest tests, the places they run in, and what these need from the distribution.
//!
//! [`linux`] and [`tiny`] hold the tests, [`rig`] what tests are written with, [`host`] the places
//! they run in (this machine's KVM or a nested host), [`clients`] programs of others,
//! [`images`] the image tools beside the distribution's, [`supply`] the files they need, [`suite`]
//! the `cargo vmtest` command, [`demo`] the `cargo demo` one and [`mod@bench`] `cargo vmbench`.
//! [`transcript`] has the monitor's conversations, word by word.
//!
//! What the rig reads (consoles, QMP, its own nested hosts) is bounded in size and in time, because
//! a program under test may do anything. Modules that start threads or hold locks say so.

pub mod bench;
pub mod clients;
pub mod demo;
pub mod host;
pub mod images;
pub mod linux;
pub mod rig;
pub mod scratch;
pub mod suite;
pub mod supply;
pub mod tiny;
pub mod transcript;
pub mod workspace;
