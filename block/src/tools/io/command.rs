//! The commands, and what their words mean.
//!
//! Plain tables and functions. Words come from users and clients.

use std::pin::Pin;

use super::{
    Failed, MAX_BORROWED, MAX_REQUEST, Session, background, breaks, control, inspect, transfer,
};
use crate::tools::args::{self, Opt, Parsed};

/// A command under way.
pub(super) type Running<'a> = Pin<Box<dyn Future<Output = Result<(), Failed>> + 'a>>;

/// A command.
pub(super) struct Command {
    pub(super) name: &'static str,
    pub(super) alias: &'static str,
    /// Its words, for the help.
    pub(super) args: &'static str,
    pub(super) about: &'static str,
    pub(super) options: &'static [Opt],
    /// Words behind its name, options included: at least and at most.
    pub(super) words: (usize, Option<usize>),
    /// It needs a disk.
    pub(super) on_disk: bool,
    pub(super) run: for<'a> fn(&'a Session, &'a Call) -> Running<'a>,
}

impl Command {
    /// What is the same for most: no short name, no words, about a disk.
    pub(super) const PLAIN: Command = Command {
        name: "",
        alias: "",
        args: "",
        about: "",
        options: &[],
        words: (0, Some(0)),
        on_disk: true,
        run: |_, _| Box::pin(async { Err(Failed) }),
    };
}

/// A command as it was given.
pub(super) struct Call {
    pub(super) command: &'static Command,
    pub(super) args: Parsed,
}

/// All of them, by name.
pub(super) static COMMANDS: &[&Command] = &[
    &control::ABORT,
    &background::FLUSH,
    &background::READ,
    &background::WRITE,
    &inspect::ALLOC,
    &breaks::BREAK,
    &control::CLOSE,
    &control::DISCARD,
    &control::FLUSH,
    &control::HELP,
    &inspect::INFO,
    &inspect::LENGTH,
    &inspect::MAP,
    &transfer::MULTIWRITE,
    &control::OPEN,
    &control::QUIT,
    &transfer::READ,
    &transfer::READV,
    &breaks::REMOVE_BREAK,
    &control::REOPEN,
    &breaks::RESUME,
    &control::SLEEP,
    &control::TRUNCATE,
    &breaks::WAIT_BREAK,
    &transfer::WRITE,
    &transfer::WRITEV,
];

/// The command of a name, or of a short one.
pub(super) fn find(name: &str) -> Option<&'static Command> {
    let named = |command: &&&Command| {
        command.name == name || !command.alias.is_empty() && command.alias == name
    };
    COMMANDS.iter().find(named).copied()
}

/// Carries out a line.
pub(super) async fn run(session: &Session, line: &str) -> Result<(), Failed> {
    let mut words = line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned);
    let Some(name) = words.next() else { return Ok(()) };
    let console = &session.console;
    let Some(command) = find(&name) else {
        console.error_line(format_args!("command \"{name}\" not found"));
        return Err(Failed);
    };
    if command.on_disk && session.disk().is_none() {
        console.error_line("no file open, try 'help open'");
        return Err(Failed);
    }
    let words: Vec<String> = words.collect();
    let (least, most) = command.words;
    let count = words.len();
    if count < least || most.is_some_and(|most| count > most) {
        let expected = match most {
            None => format!("at least {least} arguments"),
            Some(most) if most == least => format!("{least} arguments"),
            Some(most) => format!("between {least} and {most} arguments"),
        };
        let name = command.name;
        console
            .error_line(format_args!("bad argument count {count} to {name}, expected {expected}"));
        return Err(Failed);
    }
    let args = match args::parse(command.options, &words) {
        Ok(args) => args,
        Err(why) => {
            console.error_line(format_args!("{name}: {why}"));
            return usage(session, command);
        }
    };
    let call = Call { command, args };
    (command.run)(session, &call).await
}

/// One line about a command, which was not given as it should be.
pub(super) fn usage(session: &Session, command: &Command) -> Result<(), Failed> {
    session.console.line(summary(command));
    Err(Failed)
}

pub(super) fn summary(command: &Command) -> String {
    let mut text = command.name.to_owned();
    if !command.args.is_empty() {
        text = format!("{text} {}", command.args);
    }
    format!("{text} -- {}", command.about)
}

impl Session {
    /// Says something on standard output, and fails.
    pub(super) fn refuse<T>(&self, text: impl std::fmt::Display) -> Result<T, Failed> {
        self.console.line(text);
        Err(Failed)
    }

    /// A number of bytes.
    pub(super) fn number(&self, text: &str) -> Result<u64, Failed> {
        match resources::value::parse_size("", text) {
            Ok(number) if i64::try_from(number).is_ok() => Ok(number),
            Ok(_) => self.refuse(format_args!("Parsing error: argument too large -- {text}")),
            Err(_) => self.refuse(format_args!(
                "Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- {text}"
            )),
        }
    }

    /// The length of one request.
    pub(super) fn length(&self, text: &str) -> Result<u64, Failed> {
        let len = self.number(text)?;
        let most = if self.borrowed { MAX_BORROWED } else { MAX_REQUEST };
        if len > most {
            return self.refuse(format_args!("length cannot exceed {most}, given {text}"));
        }
        Ok(len)
    }

    /// A byte to write or to expect.
    pub(super) fn pattern(&self, text: &str) -> Result<u8, Failed> {
        let number = resources::value::parse_number("", text).ok();
        match number.and_then(|number| u8::try_from(number).ok()) {
            Some(byte) => Ok(byte),
            None => self.refuse(format_args!("{text} is not a valid pattern byte")),
        }
    }
}

impl Call {
    /// An operand that the count of words does not vouch for, as options are among them.
    pub(super) fn operand(&self, session: &Session, index: usize) -> Result<&str, Failed> {
        match self.args.operands.get(index) {
            Some(text) => Ok(text),
            None => {
                usage(session, self.command)?;
                Err(Failed)
            }
        }
    }

    /// There are exactly so many operands.
    pub(super) fn exactly(&self, session: &Session, count: usize) -> Result<(), Failed> {
        if self.args.operands.len() == count {
            return Ok(());
        }
        usage(session, self.command)
    }
}
