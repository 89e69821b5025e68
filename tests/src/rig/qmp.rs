//! A QMP client for tests.
//!
//! Used from the test's own thread; holds no lock. The peer is not trusted to answer: every wait
//! has a limit, and a failure shows the end of the conversation.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};

use super::Result;

/// How long a command may take that has no reason to take long.
const PATIENCE: Duration = Duration::from_secs(60);
const KEPT_LINES: usize = 30;

/// One connection, past the handshake.
pub struct Qmp {
    stream: UnixStream,
    partial: Vec<u8>,
    events: VecDeque<Value>,
    said: VecDeque<String>,
    greeting: Value,
}

/// The error a command was answered with.
#[derive(Debug)]
pub struct Refusal {
    /// The `class` member: `GenericError`, `CommandNotFound`, ...
    pub class: String,
    /// The `desc` member, for people.
    pub desc: String,
}

impl Qmp {
    /// Connects to the unix socket `path`, waiting for it to appear, and leaves negotiation mode.
    pub fn connect(path: &Path, limit: Duration) -> Result<Self> {
        let mut qmp = Self::connect_raw(path, limit)?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Connects and reads the greeting, and stays in negotiation mode.
    pub fn connect_raw(path: &Path, limit: Duration) -> Result<Self> {
        let mut qmp = Self::open(path, limit)?;
        qmp.greeting = qmp.receive(Instant::now() + limit)?;
        if qmp.greeting.get("QMP").is_none() {
            return Err(qmp.failure("the first message is no greeting"));
        }
        Ok(qmp)
    }

    /// Connects and reads nothing.
    pub fn open(path: &Path, limit: Duration) -> Result<Self> {
        Ok(Self {
            stream: connect(path, limit)?,
            partial: Vec::new(),
            events: VecDeque::new(),
            said: VecDeque::new(),
            greeting: Value::Null,
        })
    }

    /// Ends the connection: nothing more can be said or heard.
    pub fn hang_up(&self) {
        // A peer that is gone has done it already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// The greeting's `QMP` member.
    pub fn greeting(&self) -> &Value {
        &self.greeting["QMP"]
    }

    /// Runs `command` and returns its `return` member; an error reply is a failure.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        match self.try_execute(command, arguments)? {
            Ok(value) => Ok(value),
            Err(refusal) => {
                let text = format!("{command} failed: {}: {}", refusal.class, refusal.desc);
                Err(self.failure(&text))
            }
        }
    }

    /// Runs `command`; the inner result is what the peer answered.
    pub fn try_execute(
        &mut self,
        command: &str,
        arguments: Value,
    ) -> Result<std::result::Result<Value, Refusal>> {
        let mut message = json!({ "execute": command });
        if arguments.as_object().is_some_and(|members| !members.is_empty()) {
            message["arguments"] = arguments;
        }
        self.send_text(&message.to_string())?;
        let deadline = Instant::now() + PATIENCE;
        let mut reply = self.reply(deadline)?;
        if let Some(value) = reply.get_mut("return") {
            return Ok(Ok(value.take()));
        }
        let member = |name: &str| reply["error"][name].as_str().map(str::to_owned);
        match (member("class"), member("desc")) {
            (Some(class), Some(desc)) => Ok(Err(Refusal { class, desc })),
            _ => Err(self.failure("a reply with neither return nor error")),
        }
    }

    /// Sends `line` as it is, and a line end: for tests of the wire itself.
    pub fn send_text(&mut self, line: &str) -> Result {
        self.note(format!("-> {line}"));
        let sent = self.stream.write_all(format!("{line}\n").as_bytes());
        sent.map_err(|error| self.failure(&format!("cannot send: {error}")))
    }

    /// Sends bytes as they are. A peer that hung up is no failure: the next reply tells.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result {
        match self.stream.write_all(bytes) {
            Err(error)
                if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) =>
            {
                Err(self.failure(&format!("cannot send: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Sends `line`, a line end, and a descriptor with them.
    pub fn send_with_fd(&mut self, line: &str, fd: BorrowedFd) -> Result {
        self.note(format!("-> {line} and a descriptor"));
        let line = format!("{line}\n");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [fd];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let data = [IoSlice::new(line.as_bytes())];
        match sendmsg(&self.stream, &data, &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) if sent == line.len() => Ok(()),
            Ok(_) => Err(self.failure("sent a part only")),
            Err(error) => Err(self.failure(&format!("cannot send: {error}"))),
        }
    }

    /// The next message that is no event.
    pub fn reply(&mut self, deadline: Instant) -> Result<Value> {
        loop {
            let message = self.receive(deadline)?;
            if message.get("event").is_none() {
                return Ok(message);
            }
            self.events.push_back(message);
        }
    }

    /// Waits for the event `name`, also one that came before this call, and returns the message.
    /// Other events stay in the queue.
    pub fn event(&mut self, name: &str, limit: Duration) -> Result<Value> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(at) = self.events.iter().position(|event| event["event"] == name) {
                return self.events.remove(at).ok_or_else(|| "an event that went away".into());
            }
            let message = match self.receive(deadline) {
                Ok(message) => message,
                Err(error) => return Err(format!("while waiting for {name}: {error}").into()),
            };
            if message.get("event").is_some() {
                self.events.push_back(message);
            }
        }
    }

    /// Takes the events `name` that came so far, in order.
    pub fn take_events(&mut self, name: &str) -> Vec<Value> {
        let events = std::mem::take(&mut self.events);
        let (taken, left) = events.into_iter().partition(|event| event["event"] == name);
        self.events = left;
        Vec::from_iter::<VecDeque<_>>(taken)
    }

    /// Forgets the events that came so far.
    pub fn forget_events(&mut self) {
        self.events.clear();
    }

    /// Waits until the peer closes the connection.
    pub fn closed(&mut self, limit: Duration) -> Result {
        let deadline = Instant::now() + limit;
        loop {
            match self.read_message(deadline)? {
                Some(message) if message.get("event").is_some() => self.events.push_back(message),
                Some(_) => {}
                None => return Ok(()),
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Value> {
        match self.read_message(deadline)? {
            Some(message) => Ok(message),
            None => Err(self.failure("the connection was closed")),
        }
    }

    /// The next message, or `None` at the end of the stream.
    fn read_message(&mut self, deadline: Instant) -> Result<Option<Value>> {
        let Some(line) = self.line(deadline)? else { return Ok(None) };
        match serde_json::from_str(&line) {
            Ok(message) => Ok(Some(message)),
            Err(error) => Err(self.failure(&format!("not JSON: {error}"))),
        }
    }

    /// The next line as it is, or `None` at the end of the stream. Events that the other functions
    /// have put aside are not in it.
    pub fn line(&mut self, deadline: Instant) -> Result<Option<String>> {
        loop {
            if let Some(end) = self.partial.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.partial.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line).trim().to_owned();
                if line.is_empty() {
                    continue;
                }
                self.note(format!("<- {line}"));
                return Ok(Some(line));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.failure("no message in time"));
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => self.partial.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(self.failure(&format!("cannot read: {error}"))),
            }
        }
    }

    fn note(&mut self, line: String) {
        if self.said.len() == KEPT_LINES {
            self.said.pop_front();
        }
        self.said.push_back(line);
    }

    /// `what` with the end of the conversation.
    pub fn failure(&self, what: &str) -> Box<dyn std::error::Error + Send + Sync> {
        let said: String = self.said.iter().map(|line| format!("    | {}\n", cut(line))).collect();
        format!("QMP: {what}; the conversation ends with\n{said}").into()
    }
}

/// The beginning of a line that is longer than people read.
fn cut(line: &str) -> String {
    const ENOUGH: usize = 2000;
    match line.char_indices().nth(ENOUGH) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}

/// Connects to a unix socket that may not be there yet.
pub fn connect(path: &Path, limit: Duration) -> Result<UnixStream> {
    let deadline = Instant::now() + limit;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() >= deadline => {
                return Err(format!("cannot connect to {}: {error}", path.display()).into());
            }
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A peer that says `script`'s lines, each after one line from the client but the first.
    fn peer(script: &'static [&'static str]) -> (std::path::PathBuf, thread::JoinHandle<()>) {
        use std::io::{BufRead, BufReader};
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("rig-qmp-{}-{number}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let handle = thread::spawn({
            let path = path.clone();
            move || {
                let (stream, _) = listener.accept().unwrap();
                std::fs::remove_file(path).unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                for (number, text) in script.iter().enumerate() {
                    if number > 0 {
                        lines.next().unwrap().unwrap();
                    }
                    (&stream).write_all(text.as_bytes()).unwrap();
                }
            }
        });
        (path, handle)
    }

    #[test]
    fn sorts_replies_from_events() {
        let (path, peer) = peer(&[
            "{\"QMP\": {}}\r\n",
            "{\"return\": {}}\n",
            "{\"event\": \"STOP\"}\n{\"return\": 7}\n{\"event\": \"RESUME\"}\n",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n",
        ]);
        let mut qmp = Qmp::connect(&path, LIMIT).unwrap();
        assert_eq!(qmp.execute("stop", json!({})).unwrap(), 7);
        let refusal = qmp.try_execute("cont", json!({})).unwrap().unwrap_err();
        assert_eq!(refusal.desc, "no");
        qmp.event("RESUME", LIMIT).unwrap();
        qmp.event("STOP", LIMIT).unwrap();
        qmp.closed(LIMIT).unwrap();
        peer.join().unwrap();
    }

    #[test]
    fn a_silent_or_gone_peer_is_a_failure_with_the_conversation() {
        let (path, peer) = peer(&["{\"QMP\": {}}\n", "{\"return\": {}}\n"]);
        let mut qmp = Qmp::connect(&path, LIMIT).unwrap();
        let error = qmp.execute("query-status", json!({})).unwrap_err().to_string();
        assert!(error.contains("-> {\"execute\":\"qmp_capabilities\"}"), "{error}");
        peer.join().unwrap();
    }
}
