//! Lines for a human monitor, for the fuzzer.

use qmp::monitors::Context;
use resources::hv::fake::Fake;
use resources::iol::Notify;

use super::commands::COMMANDS;
use super::editor::{Editor, Typed};
use super::parse::{Cursor, Kind};
use super::{Monitor, complete, run, table};
use crate::machine::{Accel, Board};
use crate::mailbox::Mailbox;
use crate::vm::{Policy, Vm};

/// Types the bytes into a monitor of a machine without parts.
pub fn fuzz(data: &[u8]) {
    let board = Board::new(Accel::Qtest(Fake::unrecorded()));
    let mut vm = Vm::new(board, Vec::new(), Mailbox::new(Notify::new()), Policy::default());
    let (mut monitor, mut editor) = (Monitor::default(), Editor::default());
    for byte in data {
        let mut echo = Vec::new();
        match editor.key(*byte, &monitor.history, &mut echo) {
            Typed::Nothing => {}
            Typed::Complete => {
                let (typed, words) = complete::words(&vm, &editor.before_cursor());
                editor.complete(typed, &words, &mut echo);
            }
            Typed::Line(line) => {
                monitor.history.add(&line);
                if !reaches_out(&line) {
                    run(&mut vm, &mut monitor, &line);
                }
                vm.context = Context::default();
                vm.service();
            }
        }
    }
}

/// Whether the line is for a command that can make or change files: not with names made up here.
pub(crate) fn reaches_out(line: &str) -> bool {
    let row = table::find(COMMANDS, &Cursor::new(line).command());
    let names_files = |kind| matches!(kind, Kind::File | Kind::Options);
    row.is_some_and(|row| row.args.iter().any(|param| names_files(param.kind)))
}
