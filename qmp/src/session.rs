//! One client of the machine protocol, without its socket.
//!
//! Runs on the main thread without locks. What the client sends goes in by
//! [`Session::feed`], what it is to be told comes out by [`Session::output`], and
//! [`Session::next_request`] gives the commands it wants run, one at a time: the
//! text behind a request is not looked at before that request is answered.
//!
//! A hostile client reaches everything here. Its memory is bounded:
//! - a request that is not whole yet by [`crate::json::parse::MEMORY_MAX`];
//! - what was fed but not looked at by what the caller reads at once, as it
//!   reads only while [`Session::wants_input`];
//! - replies by [`OUTPUT_PAUSE`] and one reply more, because no request is taken
//!   while that much is unread;
//! - events by [`EVENTS_MAX`], beyond which the session is closed: QEMU would
//!   keep them for ever, but a client that reads nothing misses nothing.

use crate::event::Raised;
use crate::json::{self, Parser};
use crate::monitors::Ticket;
use crate::{Command, ErrorClass, QmpCapabilities, QmpError, VersionInfo, check, decode};
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

/// How many bytes may be unread by the client before no request of it is taken.
pub const OUTPUT_PAUSE: usize = 1 << 20;

/// How many bytes of events may pile up, since the client last had read
/// everything, before the session is closed.
pub const EVENTS_MAX: usize = 4 << 20;

/// Buffers above this are given back when they run empty.
const BUFFER_KEEP: usize = 512;

/// The state of one connection, from its greeting on.
#[derive(Debug)]
pub struct Session {
    pretty: bool,
    negotiating: bool,
    parser: Parser,
    input: Buffer,
    output: Buffer,
    /// Bytes of events added since `output` was last empty.
    events: usize,
    overrun: bool,
    /// Descriptors that came with the latest message that had some, the first one first.
    fds: VecDeque<OwnedFd>,
    /// Bytes came after the last descriptor: the next one begins another message.
    fds_ended: bool,
    held: Held,
}

/// Why nothing that the client sent is looked at.
#[derive(Debug, Default)]
enum Held {
    /// It is.
    #[default]
    No,
    /// A request cannot be carried out yet.
    Parked(Request),
    /// A request with this identity is answered later.
    Awaits(Ticket, Option<Value>),
}

/// A command that a client wants run.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The command.
    pub name: String,
    /// Its arguments; empty if none were given.
    pub arguments: Map<String, Value>,
    /// To be given back with the reply.
    pub id: Option<Value>,
}

impl Session {
    /// A connection that has just been opened: its greeting is in the output.
    /// `pretty` spreads messages over lines.
    pub fn new(version: &VersionInfo, pretty: bool) -> Self {
        let mut session = Self {
            pretty,
            negotiating: true,
            parser: Parser::new(),
            input: Buffer::default(),
            output: Buffer::default(),
            events: 0,
            overrun: false,
            fds: VecDeque::new(),
            fds_ended: false,
            held: Held::No,
        };
        session.say(&serde_json::json!({"QMP": {"version": version, "capabilities": []}}));
        session
    }

    /// Takes what the client sent, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        if !self.overrun {
            self.fds_ended |= !bytes.is_empty();
            self.input.add(bytes);
        }
    }

    /// Takes a descriptor that came with the bytes that are fed next. It waits for the command
    /// that wants it; those that came with earlier bytes are closed.
    pub fn push_fd(&mut self, fd: OwnedFd) {
        if std::mem::take(&mut self.fds_ended) {
            self.fds.clear();
        }
        self.fds.push_back(fd);
    }

    /// Whether it is time to read from the client: everything it sent before
    /// has been looked at, and it reads its replies.
    pub fn wants_input(&self) -> bool {
        self.input.is_empty() && self.may_look()
    }

    /// Whether something the client sent has not been looked at, and can be now: it reads.
    pub fn is_ready(&self) -> bool {
        !self.input.is_empty() && self.may_look()
    }

    fn may_look(&self) -> bool {
        !self.overrun && self.output.len() < OUTPUT_PAUSE && !self.is_held()
    }

    /// Whether a request of the client waits to be carried out, or to be answered.
    pub fn is_held(&self) -> bool {
        !matches!(self.held, Held::No)
    }

    /// What the client waits for.
    pub fn awaits(&self) -> Option<Ticket> {
        match self.held {
            Held::Awaits(ticket, _) => Some(ticket),
            _ => None,
        }
    }

    /// Keeps a request that cannot be carried out yet: it is the next one again.
    pub(crate) fn park(&mut self, request: Request) {
        self.held = Held::Parked(request);
    }

    /// The request with this identity is answered later, by [`Self::answer`].
    pub(crate) fn await_answer(&mut self, ticket: Ticket, id: Option<Value>) {
        self.held = Held::Awaits(ticket, id);
    }

    /// Answers the request whose answer is awaited.
    pub(crate) fn answer(&mut self, result: Result<Value, QmpError>) {
        if let Held::Awaits(_, id) = std::mem::take(&mut self.held) {
            self.reply(id, result);
        }
    }

    /// The next command to run; [`Self::reply`] must follow, soon or later. Mistakes in between
    /// are answered on the way. `None`: more input is needed, or the client must
    /// first read.
    pub fn next_request(&mut self) -> Option<Request> {
        match std::mem::take(&mut self.held) {
            Held::No => {}
            Held::Parked(request) => return Some(request),
            awaits @ Held::Awaits(..) => {
                self.held = awaits;
                return None;
            }
        }
        while self.may_look() {
            if self.input.is_empty() {
                return None;
            }
            let (used, message) = self.parser.parse(self.input.bytes());
            self.input.drop_front(used);
            let request = match message? {
                Ok(value) => Request::from_message(value),
                Err(json::SyntaxError) => Err(QmpError::syntax()),
            };
            match request {
                Ok(request) if self.negotiating => self.negotiate(request),
                Ok(request) => return Some(request),
                Err(error) => self.reply(None, Err(error)),
            }
        }
        None
    }

    /// Before the client has asked for capabilities it may do nothing else.
    fn negotiate(&mut self, request: Request) {
        let result = if request.name == QmpCapabilities::NAME {
            enable(request.arguments)
        } else {
            Err(QmpError::command_not_found(&request.name))
        };
        self.negotiating = result.is_err();
        self.reply(request.id, result.map(|()| Value::Object(Map::new())));
    }

    /// Answers a request.
    pub fn reply(&mut self, id: Option<Value>, result: Result<Value, QmpError>) {
        let mut message = Map::new();
        match result {
            Ok(value) => {
                message.insert("return".into(), value);
                message.extend(id.map(|id| ("id".into(), id)));
            }
            Err(QmpError { class, desc }) => {
                message.extend(id.map(|id| ("id".into(), id)));
                message.insert(
                    "error".into(),
                    serde_json::json!({"class": ErrorClass::as_str(class), "desc": desc}),
                );
            }
        }
        self.say(&Value::Object(message));
    }

    /// Tells the client of an event, if it has finished negotiating.
    pub fn event(&mut self, raised: &Raised) {
        if self.negotiating || self.overrun {
            return;
        }
        let before = self.output.len();
        self.say(&raised.message());
        self.events = self.events.saturating_add(self.output.len().saturating_sub(before));
        if self.events > EVENTS_MAX {
            self.overrun = true;
            self.input = Buffer::default();
            self.output = Buffer::default();
            self.parser = Parser::new();
            self.held = Held::No;
        }
    }

    fn say(&mut self, message: &Value) {
        if !self.overrun {
            json::write(&mut self.output.data, message, self.pretty);
            self.output.data.extend_from_slice(b"\r\n");
        }
    }

    /// What the client is to be sent.
    pub fn output(&self) -> &[u8] {
        self.output.bytes()
    }

    /// The first `count` bytes of the output have been sent.
    pub fn sent(&mut self, count: usize) {
        self.output.drop_front(count);
        if self.output.is_empty() {
            self.events = 0;
        }
    }

    /// Whether the client has left so many events unread that the connection is
    /// to be closed; nothing goes in or out any more.
    pub fn is_overrun(&self) -> bool {
        self.overrun
    }

    /// Takes the first descriptor that waits.
    pub fn take_fd(&mut self) -> Option<OwnedFd> {
        self.fds.pop_front()
    }

    /// Puts one back that was not wanted.
    pub fn untake_fd(&mut self, fd: OwnedFd) {
        self.fds.push_front(fd);
    }
}

/// Looks at the arguments of `qmp_capabilities`.
fn enable(arguments: Map<String, Value>) -> Result<(), QmpError> {
    check::check(QmpCapabilities::ARGS, QmpCapabilities::OPEN, &arguments)?;
    match decode::arguments(arguments)? {
        QmpCapabilities { enable: Some(names) } if !names.is_empty() => {
            Err(QmpError::generic(format!("Capability {} not available", names.join(", "))))
        }
        QmpCapabilities { .. } => Ok(()),
    }
}

impl Request {
    /// Looks at a message as a whole. None of these errors carries an id; of several mistakes the
    /// first in the order of QEMU's hash of the members' names is told.
    fn from_message(message: Value) -> Result<Self, QmpError> {
        let Value::Object(members) = message else {
            return Err(QmpError::generic("Expected 'object' in QMP input"));
        };
        let (mut name, mut arguments, mut id) = (None, Map::new(), None);
        let mut wrong: Option<(u32, QmpError)> = None;
        for (member, value) in members {
            let error = match (member.as_str(), value) {
                ("execute", Value::String(text)) => {
                    name = Some(text);
                    continue;
                }
                ("arguments", Value::Object(object)) => {
                    arguments = object;
                    continue;
                }
                ("id", value) => {
                    id = Some(value);
                    continue;
                }
                ("execute", _) => QmpError::member_expects(&member, "string"),
                ("arguments", _) => QmpError::member_expects(&member, "object"),
                _ => QmpError::unexpected_member(&member),
            };
            let place = check::bucket(&member);
            if wrong.as_ref().is_none_or(|(first, _)| place < *first) {
                wrong = Some((place, error));
            }
        }
        if let Some((_, error)) = wrong {
            return Err(error);
        }
        let name = name.ok_or_else(|| QmpError::generic("Expected 'execute' in QMP input"))?;
        Ok(Self { name, arguments, id })
    }
}

/// Bytes that come in at the end and leave at the front.
#[derive(Debug, Default)]
struct Buffer {
    data: Vec<u8>,
    /// How many of `data` have left.
    gone: usize,
}

impl Buffer {
    fn bytes(&self) -> &[u8] {
        self.data.get(self.gone..).unwrap_or_default()
    }

    fn len(&self) -> usize {
        self.bytes().len()
    }

    fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    fn add(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
    }

    fn drop_front(&mut self, count: usize) {
        self.gone = self.gone.saturating_add(count);
        if self.is_empty() {
            self.gone = 0;
            self.data.clear();
            if self.data.capacity() > BUFFER_KEEP {
                self.data = Vec::new();
            }
        } else if self.gone > OUTPUT_PAUSE {
            self.data.drain(..self.gone);
            self.gone = 0;
        }
    }
}

#[cfg(test)]
mod tests;
