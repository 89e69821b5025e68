//! What a command of the human monitor is, and where to find one.
//!
//! Static tables; any thread, no lock.

use qmp::QmpError;

use super::Call;
use super::parse::{Args, Param};

/// Carries out a command.
pub type Handler = fn(&mut Call<'_>, &Args) -> Result<(), QmpError>;

/// A command.
pub struct Row {
    /// Its names; `help` sorts by the first.
    pub names: &'static [&'static str],
    /// Its arguments, in order.
    pub args: &'static [Param],
    /// Its arguments as `help` shows them.
    pub params: &'static str,
    /// One line about it.
    pub help: &'static str,
    /// What it does.
    pub action: Action,
    /// It can be carried out also while the machine is being saved or loaded: it only asks, or
    /// ends everything.
    pub anytime: bool,
}

/// What a command does.
pub enum Action {
    /// It is carried out.
    Run(Handler),
    /// Its first argument is a command of a table of its own.
    Sub(Rows),
}

/// Commands, in groups by subject.
pub type Rows = &'static [&'static [Row]];

/// A command with arguments.
pub const fn row(
    names: &'static [&'static str],
    args: &'static [Param],
    params: &'static str,
    help: &'static str,
    handler: Handler,
) -> Row {
    Row { names, args, params, help, action: Action::Run(handler), anytime: false }
}

/// A command without arguments.
pub const fn bare(names: &'static [&'static str], help: &'static str, handler: Handler) -> Row {
    row(names, &[], "", help, handler)
}

/// The command of a name.
pub fn find(rows: Rows, name: &str) -> Option<&'static Row> {
    rows.iter().copied().flatten().find(|row| row.names.contains(&name))
}

/// The names of all commands, sorted.
pub fn names(rows: Rows) -> Vec<String> {
    let names = rows.iter().copied().flatten().flat_map(|row| row.names);
    let mut names: Vec<_> = names.map(|name| (*name).to_owned()).collect();
    names.sort_unstable();
    names
}

/// A line of help for each command, sorted; `prefix` stands before each name.
pub fn help(rows: Rows, prefix: &str) -> String {
    let mut rows: Vec<_> = rows.iter().copied().flatten().collect();
    rows.sort_unstable_by_key(|row| row.names);
    rows.into_iter().map(|row| row.help(prefix)).collect()
}

impl Row {
    /// The same, to be carried out at any time.
    pub const fn anytime(mut self) -> Row {
        self.anytime = true;
        self
    }

    /// Its line of help.
    pub fn help(&self, prefix: &str) -> String {
        let names = self.names.join("|");
        format!("{prefix}{names} {} -- {}\n", self.params, self.help)
    }
}
