//! QMP, the machine protocol of QEMU, without a machine and without sockets.
//!
//! | module | holds |
//! |---|---|
//! | [`json`] | reading and writing JSON as QEMU does |
//! | [`session`] | one client: greeting, negotiation, requests, replies |
//! | [`monitors`] | all clients: who gets which event when |
//! | [`event`] | timestamps and rate limits of events |
//! | `generated` | types, commands, events and [`dispatch`], from `schema/` |
//! | `introspect` | the interface as data, for clients |
//! | [`check`], [`decode`] | from JSON to typed arguments |
//!
//! A program that is to be driven has one type that implements [`Handle`] for
//! every command of the schema ([`Commands`]; the compiler names those that
//! lack) and [`monitors::Host`]. Everything runs on the thread that owns it, and
//! nothing here blocks, does I/O or takes a lock.
//!
//! Clients are not trusted: no input makes this crate panic, block, or hold more
//! than a bounded amount of memory.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod check;
pub mod decode;
mod error;
pub mod event;
pub mod fuzz;
#[rustfmt::skip]
mod generated;
mod introspect;
pub mod json;
pub mod monitors;
mod own;
pub mod session;

pub use error::QmpError;
pub use generated::*;

use check::Arg;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// A command: its arguments are the fields of the type that implements this.
pub trait Command: DeserializeOwned {
    /// Its name on the wire.
    const NAME: &'static str;
    /// Its arguments.
    const ARGS: &'static [Arg];
    /// Whether it takes arguments that `ARGS` does not name.
    const OPEN: bool;
    /// What it returns; `()` is `{}` on the wire.
    type Ret: Serialize;
}

/// Carries out the command `C`.
pub trait Handle<C: Command> {
    /// Does it, and gives what the client is to be told.
    ///
    /// # Errors
    /// What stands in the way, in QEMU's words where it has some.
    fn handle(&mut self, command: C) -> Result<C::Ret, QmpError>;
}

/// A command as the tables know it.
#[derive(Clone, Copy, Debug)]
pub struct CommandSpec {
    /// Its name on the wire.
    pub name: &'static str,
    /// Its arguments.
    pub args: &'static [Arg],
}

/// How many of the [`EXPECTED`] commands are implemented.
pub fn implemented() -> usize {
    EXPECTED.iter().filter(|name| COMMANDS.iter().any(|spec| spec.name == **name)).count()
}

/// Checks and decodes the arguments, then has `host` carry out the command.
///
/// # Errors
/// What is wrong with the arguments, or what the handler says.
pub fn call<C: Command, H: Handle<C> + ?Sized>(
    host: &mut H,
    args: Map<String, Value>,
) -> Result<Value, QmpError> {
    check::check(C::ARGS, C::OPEN, &args)?;
    let ret = host.handle(decode::arguments(args)?)?;
    match serde_json::to_value(ret) {
        Ok(Value::Null) => Ok(Value::Object(Map::new())),
        Ok(value) => Ok(value),
        Err(error) => Err(QmpError::generic(error.to_string())),
    }
}

#[cfg(test)]
mod tests;
