//! The commands, in files by subject. Each has its rows for the table, and for that of `info`.
//!
//! Handlers are thin: what they do is done where the QMP command does it. The order of groups does
//! not matter; names are unique, which a test checks.

mod absent;
mod balloon;
mod block;
mod chardev;
mod examine;
mod fd;
mod help;
mod identity;
mod job;
mod log;
mod memory;
mod migrate;
mod nbd;
mod net;
mod nic;
mod objects;
mod pci;
mod run;
mod snapshots;

pub(crate) use memory::quoted;

use super::table::{Action, Row, Rows};

/// All commands.
pub(super) const COMMANDS: Rows = &[
    &[INFO_ROW],
    balloon::ROWS,
    block::ROWS,
    chardev::ROWS,
    examine::ROWS,
    fd::ROWS,
    help::ROWS,
    job::ROWS,
    log::ROWS,
    memory::ROWS,
    migrate::ROWS,
    nbd::ROWS,
    net::ROWS,
    nic::ROWS,
    objects::ROWS,
    run::ROWS,
    snapshots::ROWS,
];

/// The commands of `info`.
pub(super) const INFO: Rows = &[
    absent::INFO,
    balloon::INFO,
    block::INFO,
    chardev::INFO,
    examine::INFO,
    help::INFO,
    identity::INFO,
    job::INFO,
    migrate::INFO,
    net::INFO,
    objects::INFO,
    pci::INFO,
    run::INFO,
    snapshots::INFO,
];

const INFO_ROW: Row = Row {
    names: &["info"],
    args: &[],
    params: "[subcommand]",
    help: "show the state of a part of the machine",
    action: Action::Sub(INFO),
    anytime: true,
};
