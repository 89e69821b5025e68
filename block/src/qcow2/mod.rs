//! The qcow2 format.
//!
//! | piece | file |
//! |---|---|
//! | the header and its extensions | `header.rs`, names of features in `names.rs` |
//! | integers in bytes | `bytes.rs` |

mod bytes;
pub mod header;
mod names;

pub use header::{Header, HeaderError};
