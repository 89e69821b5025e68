//! JSON as QEMU reads and writes it.
//!
//! Runs on the main thread without locks. A hostile client feeds [`Parser`] any
//! bytes at all: it takes bounded memory ([`parse::MEMORY_MAX`]), time linear
//! in the input, and a stack that does not depend on it.

pub mod parse;
mod write;

pub use parse::{Parser, SyntaxError};
pub use write::write;

#[cfg(test)]
mod tests;
