//! Command lines of the human monitor: from text to typed arguments.
//!
//! Pure functions on the main thread. The text is a client's; nothing here panics, and what is
//! made of it is not larger than it.

use std::borrow::Cow;

use resources::value;

use super::expr::{self, Registers};
use crate::vm::Vm;

/// What an argument looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A word, or a string in double quotes.
    Word,
    /// The same, naming a file.
    File,
    /// The same, naming a block device.
    Block,
    /// The rest of the line.
    Rest,
    /// An option string, `key=value,...`, as one word.
    Options,
    /// An expression of at most 32 bits, unsigned.
    Int,
    /// An expression of 64 bits.
    Long,
    /// An expression in MiB; the value is in bytes.
    Mib,
    /// A size with a suffix, MiB without one; the value is in bytes.
    Size,
    /// Seconds, perhaps with a fraction, or with a suffix `ms`, `us` or `ns`.
    Seconds,
    /// `on` or `off`.
    Switch,
    /// A flag such as `-d`.
    Flag(u8),
    /// A format such as `/4xb`.
    Format,
}

/// Whether an argument must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It must.
    Required,
    /// It may be left out at the end of the line.
    Optional,
    /// It is there if a dot is.
    AfterDot,
}

/// The words that complete what is typed of an argument.
pub type Words = fn(&Vm) -> Vec<String>;

/// An argument of a command.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Its name, for the handler.
    pub name: &'static str,
    /// What it looks like.
    pub kind: Kind,
    /// Whether it must be there.
    pub presence: Presence,
    /// Words for Tab, if there are any.
    pub words: Option<Words>,
}

/// An argument that must be there.
pub const fn arg(name: &'static str, kind: Kind) -> Param {
    Param { name, kind, presence: Presence::Required, words: None }
}

/// An argument that may be left out.
pub const fn opt(name: &'static str, kind: Kind) -> Param {
    Param { presence: Presence::Optional, ..arg(name, kind) }
}

/// A flag: `-LETTER`.
pub const fn flag(name: &'static str, letter: u8) -> Param {
    opt(name, Kind::Flag(letter))
}

impl Param {
    /// The same argument, which Tab completes with these words.
    pub const fn words(self, words: Words) -> Param {
        Param { words: Some(words), ..self }
    }

    /// The same argument, which a dot introduces.
    pub const fn after_dot(self) -> Param {
        Param { presence: Presence::AfterDot, ..self }
    }
}

/// How memory and numbers are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// How many values.
    pub count: u64,
    /// `x d u o c`, or `i` for instructions.
    pub letter: u8,
    /// Bytes of a value: 1, 2, 4 or 8; `None` where instructions decide.
    pub size: Option<u8>,
}

/// The letter and size of the last format, which stand in where the next one lacks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastFormat {
    letter: u8,
    size: u8,
}

impl Default for LastFormat {
    fn default() -> LastFormat {
        LastFormat { letter: b'x', size: 4 }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Text(String),
    Number(i64),
    Float(f64),
    Switch(bool),
    Format(Format),
}

/// The arguments of one command line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Args(Vec<(&'static str, Value)>);

impl Args {
    fn find(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The text of an argument, if it was given.
    pub fn opt_text(&self, name: &str) -> Option<&str> {
        match self.find(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The text of an argument that must be there.
    pub fn text(&self, name: &str) -> &str {
        self.opt_text(name).unwrap_or_default()
    }

    /// The number of an argument, if it was given.
    pub fn opt_number(&self, name: &str) -> Option<i64> {
        match self.find(name)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The number of an argument that must be there.
    pub fn number(&self, name: &str) -> i64 {
        self.opt_number(name).unwrap_or_default()
    }

    /// The seconds of an argument, if it was given.
    pub fn opt_seconds(&self, name: &str) -> Option<f64> {
        match self.find(name)? {
            Value::Float(seconds) => Some(*seconds),
            _ => None,
        }
    }

    /// Whether a flag was given, or a switch is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.find(name) == Some(&Value::Switch(true))
    }

    /// The format of a command that takes one.
    pub fn format(&self) -> Format {
        self.0
            .iter()
            .find_map(|(_, value)| match value {
                Value::Format(format) => Some(*format),
                _ => None,
            })
            .unwrap_or(Format { count: 1, letter: b'x', size: Some(4) })
    }
}

/// Reads the arguments of the command `name`; all of the rest of the line must be used.
///
/// # Errors
/// One line for the user.
pub fn arguments(
    name: &str,
    params: &[Param],
    text: &mut Cursor<'_>,
    last: &mut LastFormat,
    registers: &mut Registers<'_>,
) -> Result<Args, String> {
    let mut args = Args::default();
    for (index, param) in params.iter().enumerate() {
        text.skip_blanks();
        let value = match param.kind {
            Kind::Flag(letter) => {
                let later = params.get(index + 1..).unwrap_or_default();
                text.flag(name, letter, later)?.then_some(Value::Switch(true))
            }
            Kind::Format => Some(Value::Format(text.format(last)?)),
            _ => match param.presence {
                Presence::Optional if text.peek().is_none() => None,
                Presence::AfterDot if text.peek() != Some(b'.') => None,
                Presence::AfterDot => {
                    text.bump();
                    Some(text.value(name, param.kind, registers)?)
                }
                _ => Some(text.value(name, param.kind, registers)?),
            },
        };
        args.0.extend(value.map(|value| (param.name, value)));
    }
    text.skip_blanks();
    match text.peek() {
        None => Ok(args),
        Some(_) => Err(format!("{name}: extraneous characters at the end of line")),
    }
}

/// A place in a line.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

impl<'a> Cursor<'a> {
    /// The start of a line.
    pub fn new(text: &'a str) -> Cursor<'a> {
        Cursor { rest: text.as_bytes() }
    }

    /// What has not been read.
    pub fn rest(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.rest)
    }

    /// How many bytes have not been read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next byte, which stays.
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next byte, which is read.
    pub fn bump(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// Reads blanks.
    pub fn skip_blanks(&mut self) {
        while self.peek().is_some_and(is_blank) {
            self.bump();
        }
    }

    /// Reads as long as bytes are of a kind.
    pub fn take_while(&mut self, of: impl Fn(u8) -> bool) -> Cow<'a, str> {
        let end = self.rest.iter().position(|byte| !of(*byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        String::from_utf8_lossy(taken)
    }

    /// Reads the name of a command, which a blank or `/` ends; empty at the end of the line.
    pub fn command(&mut self) -> Cow<'a, str> {
        self.skip_blanks();
        self.take_while(|byte| byte != b'/' && !is_blank(byte))
    }

    /// Reads the prefix of a number as C writes it, `0x` only before a digit.
    pub(super) fn number_base(&mut self) -> u32 {
        match self.rest {
            [b'0', b'x' | b'X', digit, ..] if digit.is_ascii_hexdigit() => {
                self.bump();
                self.bump();
                16
            }
            [b'0', ..] => 8,
            _ => 10,
        }
    }

    fn value(
        &mut self,
        name: &str,
        kind: Kind,
        registers: &mut Registers<'_>,
    ) -> Result<Value, String> {
        self.skip_blanks();
        let text = |text: Option<String>, what: &str| match text {
            Some(text) => Ok(Value::Text(text)),
            None => Err(format!("{name}: {what} expected")),
        };
        match kind {
            Kind::Word | Kind::Options => text(self.word(), "string"),
            Kind::File => text(self.word(), "filename"),
            Kind::Block => text(self.word(), "block device name"),
            Kind::Rest => {
                let rest = self.take_while(|_| true).into_owned();
                text(Some(rest).filter(|rest| !rest.is_empty()), "string")
            }
            Kind::Int => {
                let value = expr::evaluate(self, registers)?;
                if u32::try_from(value).is_err() {
                    return Err(format!("'{name}' has failed: integer is for 32-bit values"));
                }
                Ok(Value::Number(value))
            }
            Kind::Long => Ok(Value::Number(expr::evaluate(self, registers)?)),
            Kind::Mib => {
                let value = expr::evaluate(self, registers)?;
                if value < 0 {
                    return Err("enter a positive value".to_owned());
                }
                let bytes = value.checked_mul(1 << 20).ok_or("number too large")?;
                Ok(Value::Number(bytes))
            }
            Kind::Size => {
                let size = value::parse_mib_size(&self.take_while(|byte| !is_blank(byte)));
                let size = size.and_then(|size| i64::try_from(size).ok());
                Ok(Value::Number(size.ok_or("invalid size")?))
            }
            Kind::Seconds => self.seconds().map(Value::Float),
            Kind::Switch => match &*self.take_while(|byte| byte.is_ascii_graphic()) {
                "on" => Ok(Value::Switch(true)),
                "off" => Ok(Value::Switch(false)),
                _ => Err("Expected 'on' or 'off'".to_owned()),
            },
            // Read elsewhere.
            Kind::Flag(_) | Kind::Format => Ok(Value::Switch(false)),
        }
    }

    /// Reads a word, or a string in double quotes. `None` at the end of the line, and for a string
    /// that is not one; what is wrong with it is for the log.
    fn word(&mut self) -> Option<String> {
        if self.peek()? != b'"' {
            return Some(self.take_while(|byte| !is_blank(byte)).into_owned());
        }
        self.bump();
        let mut bytes = Vec::new();
        loop {
            match self.bump() {
                Some(b'"') => return Some(String::from_utf8_lossy(&bytes).into_owned()),
                Some(b'\\') => match self.bump() {
                    Some(b'n') => bytes.push(b'\n'),
                    Some(b'r') => bytes.push(b'\r'),
                    Some(same @ (b'\\' | b'\'' | b'"')) => bytes.push(same),
                    Some(other) => {
                        tracing::warn!("unsupported escape code: '\\{}'", char::from(other));
                        return None;
                    }
                    None => break,
                },
                Some(byte) => bytes.push(byte),
                None => break,
            }
        }
        tracing::warn!("unterminated string");
        None
    }

    /// Whether the flag `-letter` comes next; it is read. A flag of the parameters `later` is left
    /// for them.
    fn flag(&mut self, name: &str, letter: u8, later: &[Param]) -> Result<bool, String> {
        let [b'-', given, ..] = *self.rest else {
            return match self.rest {
                [b'-'] => Err(format!("{name}: unsupported option -")),
                _ => Ok(false),
            };
        };
        if given == letter {
            self.bump();
            self.bump();
            return Ok(true);
        }
        if later.iter().any(|param| param.kind == Kind::Flag(given)) {
            return Ok(false);
        }
        Err(format!("{name}: unsupported option -{}", char::from(given)))
    }

    fn format(&mut self, last: &mut LastFormat) -> Result<Format, String> {
        if self.peek() != Some(b'/') {
            let size = (last.letter != b'i').then_some(last.size);
            return Ok(Format { count: 1, letter: last.letter, size });
        }
        self.bump();
        let digits = self.take_while(|byte| byte.is_ascii_digit());
        let count = if digits.is_empty() { 1 } else { digits.parse().unwrap_or(u64::MAX) };
        let (mut letter, mut size) = (None, None);
        loop {
            match self.peek() {
                Some(given @ (b'o' | b'd' | b'u' | b'x' | b'i' | b'c')) => letter = Some(given),
                Some(b'b') => size = Some(1),
                Some(b'h') => size = Some(2),
                Some(b'w') => size = Some(4),
                Some(b'g' | b'L') => size = Some(8),
                Some(other) if !is_blank(other) => {
                    return Err(format!("invalid char in format: '{}'", char::from(other)));
                }
                _ => break,
            }
            self.bump();
        }
        let letter = letter.unwrap_or(last.letter);
        last.letter = letter;
        if letter != b'i' {
            last.size = size.unwrap_or(last.size);
            size = Some(last.size);
        }
        Ok(Format { count, letter, size })
    }

    fn seconds(&mut self) -> Result<f64, String> {
        let part = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'+' | b'-');
        let mut ahead = self.clone();
        let mut number = ahead.take_while(part).into_owned();
        if let [b'e' | b'E', b'0'..=b'9', ..] | [b'e' | b'E', b'-' | b'+', b'0'..=b'9', ..] =
            ahead.rest
        {
            number.push('e');
            ahead.bump();
            number.push_str(&ahead.take_while(part));
        }
        let value: f64 = number.parse().map_err(|_| "Number expected")?;
        if !value.is_finite() {
            return Err("Bad number".to_owned());
        }
        *self = ahead;
        let divisor = match self.rest {
            [b'm', b's', ..] => 1e3,
            [b'u', b's', ..] => 1e6,
            [b'n', b's', ..] => 1e9,
            _ => 1.0,
        };
        if divisor > 1.0 {
            self.bump();
            self.bump();
        }
        match self.peek() {
            Some(byte) if !is_blank(byte) => Err("Unknown unit suffix".to_owned()),
            _ => Ok(value / divisor),
        }
    }
}

#[cfg(test)]
mod tests;
