//! The virtual machine monitor, as a library so that tests and fuzzers reach its parts.

pub mod boot;
pub mod cli;
pub mod cpu;
