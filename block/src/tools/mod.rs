//! The command-line tools, each a thin program over a library function.
//!
//! | piece | file |
//! |---|---|
//! | `vmm-img`: its subcommands | `img/` |
//! | `vmm-io`: its commands | `io/` |
//! | `vmm-nbd` | `nbd/` |
//! | opening images | `images.rs` |
//! | options on the command line, passwords | `args.rs`, `secrets.rs` |
//! | where text goes, and how a failure is told | `console.rs` |
//! | progress, and being interrupted | `progress.rs`, `signals.rs` |
//! | sizes and JSON as text | `size.rs`, `json.rs` |
//! | several requests at a time | `work.rs` |
//!
//! A tool runs one loop on its main thread and closes every image before it reports success. What
//! it reads from images comes from anybody, its words from whoever starts it; both are bounded by
//! the layers below, and every mistake ends in one line on standard error.

pub mod args;
pub(crate) mod clock;
pub mod console;
pub mod images;
pub mod img;
pub mod io;
pub mod json;
pub mod nbd;
pub mod progress;
pub mod secrets;
pub mod signals;
pub mod size;
pub mod work;

#[cfg(test)]
pub(crate) mod testing;
