//! Transcripts: conversations with a monitor, written down.
//!
//! They are in `tests/transcripts/`, one file per subject, line by line:
//!
//! | line | what |
//! |---|---|
//! | `# ...` | a comment |
//! | `vm ARGUMENTS` | a machine starts whose guest halts |
//! | `qtest ARGUMENTS` | one starts whose processors are the transcript |
//! | `none ARGUMENTS` | one starts that has no guest |
//! | `-> COMMAND {ARGUMENTS}` | the client says this |
//! | `=> COMMAND {ARGUMENTS}` | the same, with a descriptor of an empty file |
//! | `~> COMMAND {ARGUMENTS}` | the same, with a descriptor of a connected socket |
//! | `+> COMMAND {ARGUMENTS}` | the same, and QEMU is spared it: it would not come back |
//! | `>> TEXT` | the client says this, as it is |
//! | `<- VALUE` | the reply, a success |
//! | `<! CLASS MESSAGE` | the reply, an error |
//! | `<* EVENT {DATA}` | an event |
//! | `<< TEXT` | a message, as it is |
//! | `<.` | the connection ends |
//! | `file NAME SIZE AT=HEX ...` | there is a file of this size in `<dir>`, zeros but for these bytes |
//! | `connect` | the client goes and comes anew, and does not negotiate |
//! | `!! COMMAND` | the debug port is told this; `= VALUE` may say what it answers |
//!
//! Replies and events must come in this order, each byte as written, and no others: clients compare
//! them so. Where they vary they have holes: see [`pattern`](super::pattern). `<dir>` is a directory
//! of the machine's own. Constant text; any thread, no lock.

use serde_json::{Map, Value, json};

use crate::rig::Result;

/// A step of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A machine starts with these arguments.
    Start(Machine, Vec<String>),
    /// The client sends this text.
    Send {
        /// The text.
        text: String,
        /// The descriptor that goes with it.
        with: Pass,
    },
    /// The client hears a line with this pattern.
    Hear(String),
    /// The client hears an event: its name and the pattern of its data.
    Event(String, Option<String>),
    /// The connection ends.
    End,
    /// The client connects anew.
    Connect,
    /// A file is made: its name, its size, and bytes at their offsets.
    File(String, u64, Vec<(u64, Vec<u8>)>),
    /// The debug port is told this, and may have to answer that.
    Debug(String, Option<String>),
}

/// A descriptor that is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// None.
    Nothing,
    /// None, and QEMU does not get the text either.
    Ours,
    /// An empty file's.
    File,
    /// A connected socket's.
    Socket,
}

/// The kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// A guest that halts.
    Idle,
    /// No processors but the debug port.
    Qtest,
    /// Machine `none`.
    None,
}

/// A step and where it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The line's number, from 1 on.
    pub number: usize,
    /// The step.
    pub step: Step,
}

/// A whole file.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// The file's name without its ending.
    pub name: &'static str,
    /// The steps.
    pub lines: Vec<Line>,
}

/// A question and its answer, as far as one line tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// The command.
    pub command: String,
    /// Its arguments.
    pub arguments: Map<String, Value>,
    /// The error's message, or nothing for a success.
    pub error: Option<String>,
}

impl Script {
    /// Reads a file.
    ///
    /// # Errors
    /// The first line that is none of the above.
    pub fn parse(name: &'static str, text: &str) -> Result<Self> {
        let mut lines = Vec::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim_end)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let step = step(line).map_err(|error| format!("{name}.qmp:{number}: {error}"))?;
            lines.push(Line { number, step });
        }
        Ok(Self { name, lines })
    }

    /// Every command in it that is answered, with its answer.
    pub fn exchanges(&self) -> Vec<Exchange> {
        let mut found = Vec::new();
        let mut asked = None;
        for line in &self.lines {
            match &line.step {
                Step::Send { text, .. } => asked = request(text),
                Step::Hear(pattern) => {
                    let error = error_of(pattern);
                    if let Some((command, arguments)) = asked.take() {
                        found.push(Exchange { command, arguments, error });
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// The names of the events in it.
    pub fn events(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| match &line.step {
            Step::Event(name, _) => Some(name.as_str()),
            _ => None,
        })
    }
}

/// The command and the arguments of a request, which may have holes.
pub fn request(text: &str) -> Option<(String, Map<String, Value>)> {
    // Holes in it may stand for numbers.
    let value: Value = serde_json::from_str(text)
        .or_else(|_| serde_json::from_str(&text.replace('<', "\"<").replace('>', ">\"")))
        .ok()?;
    let arguments = value.get("arguments").and_then(Value::as_object).cloned().unwrap_or_default();
    Some((value.get("execute")?.as_str()?.to_owned(), arguments))
}

fn error_of(pattern: &str) -> Option<String> {
    let value: Value = serde_json::from_str(pattern).ok()?;
    Some(value.get("error")?.get("desc")?.as_str()?.to_owned())
}

fn step(line: &str) -> Result<Step> {
    let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = rest.trim_start();
    Ok(match mark {
        "vm" => Step::Start(Machine::Idle, words(rest)),
        "qtest" => Step::Start(Machine::Qtest, words(rest)),
        "none" => Step::Start(Machine::None, words(rest)),
        "connect" if rest.is_empty() => Step::Connect,
        "file" => file(rest)?,
        "->" => Step::Send { text: command(rest), with: Pass::Nothing },
        "=>" => Step::Send { text: command(rest), with: Pass::File },
        "+>" => Step::Send { text: command(rest), with: Pass::Ours },
        "~>" => Step::Send { text: command(rest), with: Pass::Socket },
        ">>" => Step::Send { text: rest.to_owned(), with: Pass::Nothing },
        "<-" => Step::Hear(format!("{{\"return\": {rest}}}")),
        "<!" => {
            let (class, desc) = rest.split_once(' ').ok_or("an error is a class and a message")?;
            Step::Hear(format!(
                "{{\"error\": {{\"class\": \"{class}\", \"desc\": {}}}}}",
                json!(desc)
            ))
        }
        "<*" => match rest.split_once(' ') {
            Some((name, data)) => Step::Event(name.to_owned(), Some(data.trim().to_owned())),
            None => Step::Event(rest.to_owned(), None),
        },
        "<<" => Step::Hear(rest.to_owned()),
        "<." => Step::End,
        "!!" => match rest.split_once(" = ") {
            Some((say, hear)) => Step::Debug(say.trim().to_owned(), Some(hear.trim().to_owned())),
            None => Step::Debug(rest.to_owned(), None),
        },
        _ => return Err(format!("no line begins with {mark:?}").into()),
    })
}

/// `NAME SIZE AT=HEX ...`.
fn file(text: &str) -> Result<Step> {
    let mut words = text.split_whitespace();
    let (Some(name), Some(size)) = (words.next(), words.next()) else {
        return Err("a file has a name and a size".into());
    };
    let mut parts = Vec::new();
    for word in words {
        let (at, hex) = word.split_once('=').ok_or("bytes are AT=HEX")?;
        let digits: Option<Vec<u8>> =
            hex.chars().map(|c| c.to_digit(16)?.try_into().ok()).collect();
        let digits = digits.ok_or("bytes are hexadecimal digits")?;
        let bytes = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, d| byte << 4 | d));
        parts.push((at.parse()?, bytes.collect()));
    }
    Ok(Step::File(name.to_owned(), size.parse()?, parts))
}

/// `COMMAND {ARGUMENTS}` as a client writes it.
fn command(text: &str) -> String {
    match text.split_once(' ') {
        Some((name, arguments)) => {
            format!("{{\"execute\": \"{name}\", \"arguments\": {}}}", arguments.trim())
        }
        None => format!("{{\"execute\": \"{text}\"}}"),
    }
}

/// Words between blanks; blanks may stand between single quotes.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quoted, mut any) = (String::new(), false, false);
    for c in text.chars() {
        match c {
            '\'' => (quoted, any) = (!quoted, true),
            ' ' if !quoted => {
                if any {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            c => {
                word.push(c);
                any = true;
            }
        }
    }
    if any {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_kind_of_line() {
        let text = "# says nothing\nvm -name 'a b'\n-> stop\n<* STOP\n<- {}\n\
                    => add-fd {\"fdset-id\": <n>}\n<! GenericError no \"such\" thing\n\
                    !! outb 0x70 1 = OK\n>> {\n<.\nconnect\nfile f 4096 16=0fa0\n";
        let script = Script::parse("x", text).unwrap();
        let steps: Vec<_> = script.lines.iter().map(|line| line.step.clone()).collect();
        let send = |text: &str, with| Step::Send { text: text.to_owned(), with };
        let error = r#"{"error": {"class": "GenericError", "desc": "no \"such\" thing"}}"#;
        assert_eq!(
            steps,
            [
                Step::Start(Machine::Idle, vec!["-name".into(), "a b".into()]),
                send("{\"execute\": \"stop\"}", Pass::Nothing),
                Step::Event("STOP".into(), None),
                Step::Hear("{\"return\": {}}".into()),
                send("{\"execute\": \"add-fd\", \"arguments\": {\"fdset-id\": <n>}}", Pass::File),
                Step::Hear(error.into()),
                Step::Debug("outb 0x70 1".into(), Some("OK".into())),
                send("{", Pass::Nothing),
                Step::End,
                Step::Connect,
                Step::File("f".into(), 4096, vec![(16, vec![0x0f, 0xa0])]),
            ]
        );
        assert_eq!(script.lines[1].number, 3);
        let exchanges = script.exchanges();
        assert_eq!(exchanges.len(), 2);
        assert_eq!(exchanges[0].error, None);
        assert_eq!(exchanges[1].command, "add-fd");
        assert_eq!(exchanges[1].error.as_deref(), Some("no \"such\" thing"));
        assert_eq!(script.events().collect::<Vec<_>>(), ["STOP"]);
        assert!(Script::parse("x", "hello").unwrap_err().to_string().contains("x.qmp:1"));
    }
}
