//! The qcow2 format.
//!
//! | piece | file |
//! |---|---|
//! | the header and its extensions | `header.rs`, names of features in `names.rs` |
//! | refcounts in their blocks | `refcount.rs` |
//! | making an image | `create.rs` |
//! | the row of the format: options as data | `driver.rs` |
//! | checking and mending | `check/` |
//! | internal snapshots | `snapshot/` |
//! | persistent dirty bitmaps | `bitmap/` |
//! | metadata past every cache | `access.rs` |
//! | integers in bytes | `bytes.rs` |

mod access;
mod bitmap;
mod bytes;
mod check;
pub mod create;
pub mod driver;
pub mod header;
mod names;
mod refcount;
mod snapshot;

pub use check::check_file;
pub use create::{CreateError, CreateOptions, Preallocation, create};
pub use header::{Header, HeaderError};
