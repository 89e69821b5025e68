//! Where a tool's text goes, and how its failures are told.
//!
//! On the tool's thread, no lock. A closed pipe is no reason to stop half way: what cannot be
//! written is left out.

use std::cell::RefCell;
use std::fmt::Display;
use std::io::{self, Write};
use std::rc::Rc;

/// Takes text for people and programs.
#[derive(Clone)]
pub struct Console {
    name: Rc<str>,
    sinks: Rc<RefCell<Sinks>>,
}

struct Sinks {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
}

impl Console {
    /// The process's own output; `name` stands in front of errors.
    pub fn standard(name: &str) -> Console {
        Console::to(name, Box::new(io::stdout()), Box::new(io::stderr()))
    }

    /// To any place.
    pub fn to(name: &str, out: Box<dyn Write>, err: Box<dyn Write>) -> Console {
        Console { name: name.into(), sinks: Rc::new(RefCell::new(Sinks { out, err })) }
    }

    /// The tool's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A line on standard output.
    pub fn line(&self, text: impl Display) {
        let _ = writeln!(self.sinks.borrow_mut().out, "{text}");
    }

    /// Text as it is on standard output, seen at once.
    pub fn print(&self, text: impl Display) {
        let out = &mut self.sinks.borrow_mut().out;
        let _ = write!(out, "{text}").and_then(|()| out.flush());
    }

    /// A line as it is on standard error.
    pub fn error_line(&self, text: impl Display) {
        let _ = writeln!(self.sinks.borrow_mut().err, "{text}");
    }

    /// A line on standard error, after the tool's name.
    pub fn error(&self, text: impl Display) {
        self.error_line(format_args!("{}: {text}", self.name));
    }
}

/// Why a tool does not go on.
#[derive(Debug, PartialEq, Eq)]
pub enum Fail {
    /// To be told as an error of the tool; it ends with 1.
    Told(String),
    /// As `Told`, for a mistake on the command line.
    Usage(String),
    /// Everything was said; it ends with this.
    Code(u8),
    /// By a signal of this number.
    Interrupted(i32),
}

impl Fail {
    /// Says what is to be said, and returns the exit code.
    pub fn tell(&self, console: &Console) -> u8 {
        match self {
            Fail::Told(text) => {
                console.error(text);
                1
            }
            Fail::Usage(text) => {
                console.error(text);
                let hint = format_args!("Try '{} --help' for more information", console.name());
                console.error_line(hint);
                1
            }
            Fail::Code(code) => *code,
            Fail::Interrupted(signal) => {
                console.error("interrupted, not completed");
                u8::try_from(*signal).unwrap_or(0).saturating_add(128)
            }
        }
    }
}

impl From<String> for Fail {
    fn from(text: String) -> Fail {
        Fail::Told(text)
    }
}

impl From<&str> for Fail {
    fn from(text: &str) -> Fail {
        Fail::Told(text.to_owned())
    }
}
