//! What there is to type, and what was typed.

use qmp::QmpError;

use super::COMMANDS;
use crate::cli::log;
use crate::hmp::Call;
use crate::hmp::parse::{Args, Kind, opt};
use crate::hmp::table::{self, Action, Row, bare, row};

pub(super) const ROWS: &[Row] = &[row(
    &["help", "?"],
    &[opt("name", Kind::Rest).words(|_| table::names(COMMANDS))],
    "[cmd]",
    "show the help of all commands, or of one",
    help,
)
.anytime()];

pub(super) const INFO: &[Row] = &[bare(&["history"], "show the lines typed before", history)];

fn help(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let Some(name) = args.opt_text("name") else {
        call.print(&table::help(COMMANDS, ""));
        return Ok(());
    };
    if name.trim_end() == "log" {
        log_items(call);
        return Ok(());
    }
    let (mut rows, mut prefix) = (COMMANDS, String::new());
    for word in name.split_ascii_whitespace() {
        let Some(row) = table::find(rows, word) else { return Ok(()) };
        match row.action {
            Action::Sub(sub) => {
                rows = sub;
                prefix.push_str(word);
                prefix.push(' ');
            }
            Action::Run(_) => {
                call.print(&row.help(&prefix));
                return Ok(());
            }
        }
    }
    call.print(&table::help(rows, &prefix));
    Ok(())
}

/// Prints what can be logged.
pub(super) fn log_items(call: &mut Call<'_>) {
    call.line("Log items (comma separated):");
    call.line(format_args!("{:<10} {}", "none", "remove all logs"));
    for item in log::ITEMS {
        call.line(format_args!("{:<10} {}", item.name, item.help));
    }
}

fn history(call: &mut Call<'_>, _: &Args) -> Result<(), QmpError> {
    let lines: Vec<_> = call.monitor.history.lines().map(str::to_owned).collect();
    for (index, line) in lines.iter().enumerate() {
        call.line(format_args!("{index}: '{line}'"));
    }
    Ok(())
}
