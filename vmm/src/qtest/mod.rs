//! The debug port: QEMU's qtest protocol, which drives a machine without a hypervisor.
//!
//! A client sends lines and gets one line back for each: `OK`, `OK VALUE` or `FAIL REASON`. With
//! it a test (or a person) does what the guest's processors would do: reads and writes ports and
//! memory, and lets virtual time pass. Once interrupts are intercepted, each change of a wired
//! interrupt is told by a line `IRQ raise N` or `IRQ lower N`, before the reply to the command
//! that caused it.
//!
//! | piece | file |
//! |---|---|
//! | lines in, lines out | here |
//! | the commands, one row each | `command.rs` |
//! | base 64, for two of them | `resources::base64` |
//! | the port on a chardev | `frontend.rs` |
//!
//! Thread: the engine runs where it is fed; the front end feeds it on the chardev's I/O thread.
//! Lock: the engine has none; the list of interrupt changes has a leaf mutex, because devices
//! drive their lines from any thread with their own locks held. A client can send anything: lines,
//! sizes, the timers run by one command and the interrupt changes kept for it are bounded, and
//! what is wrong is answered by `FAIL` with the reason.

mod command;
mod frontend;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::Mutex;
use resources::clock::Clock;
use resources::hv::fake::Fake;
use resources::iol::Notify;
use resources::space::Space;

pub use frontend::attach;

/// The most bytes that one command reads or writes; `memset`, which sends no data, has a larger
/// limit of its own.
pub const MAX_DATA: usize = 1 << 20;

/// The longest line: a `write` of [`MAX_DATA`] in hexadecimal.
pub const MAX_LINE: usize = 2 * MAX_DATA + 128;

/// The most interrupt changes kept until they are sent.
const MAX_CHANGES: usize = 4096;

/// The engine: a client's lines in, replies out.
pub struct Qtest {
    memory: Arc<Space>,
    ports: Arc<Space>,
    clock: Arc<Clock>,
    fake: Arc<Fake>,
    input: Input,
    changes: Arc<Changes>,
    /// The controller whose inputs are watched.
    intercepted: Option<&'static str>,
}

impl Qtest {
    /// An engine for a machine's address spaces, clock and hypervisor. The clock is a
    /// [stepped](Clock::stepped) one.
    pub fn new(memory: Arc<Space>, ports: Arc<Space>, clock: Arc<Clock>, fake: Arc<Fake>) -> Qtest {
        let (input, changes) = (Input::default(), Arc::default());
        Qtest { memory, ports, clock, fake, input, changes, intercepted: None }
    }

    /// How many bytes [`push`](Self::push) takes now; 0 while a complete line waits.
    pub fn room(&self) -> usize {
        if self.input.has_line() { 0 } else { Input::CHUNK }
    }

    /// Takes a piece of input, cut anywhere.
    pub fn push(&mut self, bytes: &[u8]) {
        self.input.push(bytes);
    }

    /// Runs the next complete line, if there is one; returns everything to be sent because of it,
    /// the reply last.
    pub fn run(&mut self) -> Option<String> {
        let line = self.input.take()?;
        let result = match line {
            Ok(line) => self.command(&line),
            Err(TooLong) => Err(format!("line longer than {MAX_LINE} bytes")),
        };
        let mut out = self.changes();
        let _ = match result {
            Ok(value) if value.is_empty() => writeln!(out, "OK"),
            Ok(value) => writeln!(out, "OK {value}"),
            Err(reason) => writeln!(out, "FAIL {reason}"),
        };
        Some(out)
    }

    /// The interrupt changes since the last time, as lines.
    pub fn changes(&mut self) -> String {
        let mut out = String::new();
        let mut changes = self.changes.0.lock();
        for (gsi, high) in changes.queue.drain(..) {
            let _ = writeln!(out, "IRQ {} {gsi}", if high { "raise" } else { "lower" });
        }
        let lost = std::mem::take(&mut changes.lost);
        drop(changes);
        if lost > 0 {
            tracing::warn!("qtest: {lost} interrupt changes were not sent: too many at once");
        }
        out
    }

    /// Is raised when an interrupt changed, perhaps on another thread.
    pub fn changed(&self) -> Notify {
        self.changes.0.lock().notify.clone()
    }

    /// The client is gone: forgets its input and what it asked to be told. The machine stays.
    pub fn disconnect(&mut self) {
        self.input = Input::default();
        self.intercepted = None;
        let mut changes = self.changes.0.lock();
        changes.watching = false;
        changes.queue.clear();
    }

    /// Takes input and runs every line that it completes; returns all output.
    pub fn feed(&mut self, bytes: &[u8]) -> String {
        let mut out = String::new();
        for piece in bytes.chunks(Input::CHUNK) {
            self.push(piece);
            while let Some(reply) = self.run() {
                out.push_str(&reply);
            }
        }
        out
    }

    /// Begins to note the changes of wired interrupts.
    fn watch(&mut self) {
        let changes = self.changes.clone();
        self.changes.0.lock().watching = true;
        self.fake.watch_lines(move |gsi, high| changes.add(gsi, high));
    }
}

/// The interrupt changes on their way to the client.
#[derive(Default)]
struct Changes(Mutex<ChangeList>);

#[derive(Default)]
struct ChangeList {
    watching: bool,
    queue: VecDeque<(u32, bool)>,
    /// Changes that found the queue full.
    lost: u64,
    notify: Notify,
}

impl Changes {
    fn add(&self, gsi: u32, high: bool) {
        let mut changes = self.0.lock();
        if !changes.watching {
            return;
        }
        if changes.queue.len() >= MAX_CHANGES {
            changes.lost = changes.lost.saturating_add(1);
            return;
        }
        changes.queue.push_back((gsi, high));
        let notify = changes.notify.clone();
        drop(changes);
        notify.notify();
    }
}

/// A line that was longer than [`MAX_LINE`].
struct TooLong;

/// Bytes on their way to become lines.
#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// No line ends between `start` and here.
    searched: usize,
    /// The line that is under way is too long: its end is looked for and nothing kept.
    overlong: bool,
}

impl Input {
    /// What is taken in one piece, so that [`MAX_LINE`] and one piece bound what is kept.
    const CHUNK: usize = 64 << 10;

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    fn end_of_line(&self) -> Option<usize> {
        let rest = self.bytes.get(self.searched..)?;
        rest.iter().position(|byte| *byte == b'\n').map(|found| self.searched + found)
    }

    fn has_line(&self) -> bool {
        self.end_of_line().is_some()
    }

    /// The next complete line without its end.
    fn take(&mut self) -> Option<Result<Vec<u8>, TooLong>> {
        let Some(end) = self.end_of_line() else {
            self.searched = self.bytes.len();
            if self.overlong || self.searched - self.start > MAX_LINE {
                self.overlong = true;
                self.start = self.searched;
            }
            return None;
        };
        let line = self.bytes.get(self.start..end).unwrap_or_default();
        let long = std::mem::take(&mut self.overlong) || line.len() > MAX_LINE;
        let line = if long { Err(TooLong) } else { Ok(line.to_vec()) };
        self.start = end + 1;
        self.searched = self.start;
        Some(line)
    }
}

/// The engine on arbitrary input, against a small machine of RAM alone.
///
/// # Panics
///
/// When a reply is not in the protocol's form: that is the point.
pub fn fuzz(data: &[u8]) {
    use resources::hv::SpaceKind;
    use resources::ram::RamBlock;
    use resources::space::Mapping;

    let fake = Fake::unrecorded();
    let memory = Space::new(SpaceKind::Memory, fake.clone());
    let ports = Space::new(SpaceKind::Ports, fake.clone());
    let Ok(block) = RamBlock::anonymous(64 << 10) else { return };
    if memory.map(Mapping::ram(0, block)).is_err() {
        return;
    }
    let mut qtest = Qtest::new(memory, ports, Clock::stepped(), fake);
    // The largest `memset` takes a while, so let there be few.
    let data = data.get(..1024).unwrap_or(data);
    let lines = data.iter().filter(|byte| **byte == b'\n').count();
    let out = qtest.feed(data);
    assert!(out.is_empty() || out.ends_with('\n'));
    assert_eq!(out.lines().count(), lines, "one reply for each line");
    for line in out.lines() {
        assert!(line == "OK" || line.starts_with("OK ") || line.starts_with("FAIL "), "{line}");
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    }
}
