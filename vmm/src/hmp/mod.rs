//! The human monitor: commands as a line of text, answers to be read by people (and by tools that
//! know their layout).
//!
//! | file | holds |
//! |---|---|
//! | `table.rs` | what a command is, and finding one |
//! | `commands/` | the commands, one file for each subject: a row each and a thin handler |
//! | `parse.rs`, `expr.rs` | from a line to typed arguments |
//! | `editor.rs`, `complete.rs` | the line being typed: echo, keys, history, Tab |
//! | `front.rs` | the monitors on character devices |
//!
//! A new command is one row in the file of its subject. Its handler calls what the QMP command of
//! that name calls, and prints.
//!
//! Main thread, with the machine to itself. Whoever types may send anything: lines are bounded
//! before they come here or by the limits of QMP requests, and what a command prints by
//! [`MAX_OUTPUT`].
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod commands;
mod complete;
pub mod editor;
pub mod expr;
pub mod front;
mod fuzz;
pub mod parse;
mod registers;
pub mod table;
#[cfg(test)]
mod tests;

use std::fmt::Display;

use qmp::QmpError;

pub(crate) use commands::quoted;
pub use editor::History;
pub use fuzz::fuzz;
pub(crate) use fuzz::reaches_out as fuzz_reaches_out;
pub use parse::LastFormat;

use crate::cli::log;
use crate::vm::Vm;
use parse::Cursor;
use table::Action;

/// How many bytes one command can print; the rest is left out.
pub const MAX_OUTPUT: usize = 16 << 20;

/// What a human monitor remembers from one command to the next.
#[derive(Debug, Default)]
pub struct Monitor {
    /// The processor that commands are about.
    pub cpu: usize,
    /// The lines that were typed.
    pub history: History,
}

/// A command being carried out.
pub struct Call<'a> {
    /// The machine.
    pub vm: &'a mut Vm,
    /// The monitor that asks.
    pub monitor: &'a mut Monitor,
    out: String,
}

/// Carries out a command line and returns what it prints, with a line feed after each line.
pub fn run(vm: &mut Vm, monitor: &mut Monitor, line: &str) -> String {
    let mut call = Call { vm, monitor, out: String::new() };
    let ((), told) = log::listen(|| {
        if let Err(message) = call.execute(line) {
            call.line(message);
        }
    });
    call.print(&told);
    call.out
}

/// Whether a line can be carried out also while the machine is being saved or loaded.
pub(crate) fn is_anytime(line: &str) -> bool {
    let name = Cursor::new(line).command();
    table::find(commands::COMMANDS, &name).is_none_or(|row| row.anytime)
}

/// Puts a carriage return before each line feed, as monitors send them.
pub fn with_returns(text: &str) -> String {
    text.replace('\n', "\r\n")
}

impl Call<'_> {
    /// Prints text as it is.
    pub fn print(&mut self, text: &str) {
        let room = MAX_OUTPUT.saturating_sub(self.out.len());
        let fits = |end: &usize| text.is_char_boundary(*end);
        let end = (0..=room.min(text.len())).rev().find(fits).unwrap_or(0);
        self.out.push_str(text.get(..end).unwrap_or_default());
    }

    /// Prints a line.
    pub fn line(&mut self, line: impl Display) {
        self.print(&format!("{line}\n"));
    }

    fn execute(&mut self, line: &str) -> Result<(), String> {
        let mut text = Cursor::new(line);
        let mut rows = commands::COMMANDS;
        loop {
            let name = text.command();
            if name.is_empty() && text.peek().is_none() {
                return Ok(());
            }
            let Some(row) = table::find(rows, &name) else {
                let end = line.len().saturating_sub(text.remaining());
                let tried = line.get(..end).unwrap_or(line);
                return Err(format!("unknown command: '{tried}'"));
            };
            match row.action {
                Action::Sub(sub) => {
                    text.skip_blanks();
                    if text.peek().is_none() {
                        self.print(&table::help(sub, &format!("{name} ")));
                        return Ok(());
                    }
                    rows = sub;
                }
                Action::Run(handler) => {
                    let mut last = self.vm.last_format;
                    let mut registers = registers::Reader::new(self.vm, self.monitor.cpu);
                    let mut read = |register: &str| registers.read(register);
                    let args = parse::arguments(&name, row.args, &mut text, &mut last, &mut read)?;
                    self.vm.last_format = last;
                    return handler(self, &args).map_err(|QmpError { desc, .. }| desc);
                }
            }
        }
    }
}
