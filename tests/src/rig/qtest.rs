//! A client of the debug port (`-qtest`): what the guest's processors would do, step by step.
//!
//! Used from the test's own thread; holds no lock. Every wait has a limit, and a failure shows the
//! end of the conversation.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Result;
use super::qmp;

/// How long a line may take to come.
const PATIENCE: Duration = Duration::from_secs(40);
const KEPT_LINES: usize = 30;

/// One connection.
pub struct Qtest {
    stream: BufReader<UnixStream>,
    /// Changes of interrupts not asked for yet, oldest first.
    changes: VecDeque<(u32, bool)>,
    levels: BTreeMap<u32, bool>,
    said: VecDeque<String>,
}

impl Qtest {
    /// Connects to the Unix socket `path`, waiting for it to appear.
    pub fn connect(path: &Path, limit: Duration) -> Result<Self> {
        let stream = BufReader::new(qmp::connect(path, limit)?);
        let (changes, levels) = (VecDeque::new(), BTreeMap::new());
        Ok(Self { stream, changes, levels, said: VecDeque::new() })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result {
        let shown: String = String::from_utf8_lossy(bytes).trim_end().chars().take(120).collect();
        self.note(format!("-> {shown}"));
        let sent = self.stream.get_mut().write_all(bytes);
        sent.map_err(|error| self.failure(&format!("cannot send: {error}")))
    }

    /// The next reply: what follows `OK`, or else what follows `FAIL`.
    pub fn reply(&mut self) -> Result<std::result::Result<String, String>> {
        loop {
            let line = self.line(Instant::now() + PATIENCE)?;
            if line == "OK" {
                return Ok(Ok(String::new()));
            } else if let Some(value) = line.strip_prefix("OK ") {
                return Ok(Ok(value.to_owned()));
            } else if let Some(reason) = line.strip_prefix("FAIL ") {
                return Ok(Err(reason.to_owned()));
            }
            self.interrupt(&line)?;
        }
    }

    /// Runs a command; the inner result is what the peer answered.
    pub fn try_command(&mut self, line: &str) -> Result<std::result::Result<String, String>> {
        self.send(format!("{line}\n").as_bytes())?;
        self.reply()
    }

    /// Runs a command; `FAIL` is a failure.
    pub fn command(&mut self, line: &str) -> Result<String> {
        let reply = self.try_command(line)?;
        reply.map_err(|reason| self.failure(&format!("{line:?} failed: {reason}")))
    }

    fn number(&mut self, line: &str) -> Result<u64> {
        let text = self.command(line)?;
        let number = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        number.map_err(|_| self.failure(&format!("{text:?} is no number")))
    }

    /// Reads a port of 1 byte.
    pub fn inb(&mut self, port: u16) -> Result<u8> {
        Ok(u8::try_from(self.number(&format!("inb {port:#x}"))?)?)
    }

    /// Reads a port of 2 bytes.
    pub fn inw(&mut self, port: u16) -> Result<u16> {
        Ok(u16::try_from(self.number(&format!("inw {port:#x}"))?)?)
    }

    /// Reads a port of 4 bytes.
    pub fn inl(&mut self, port: u16) -> Result<u32> {
        Ok(u32::try_from(self.number(&format!("inl {port:#x}"))?)?)
    }

    /// Writes a port of 1 byte.
    pub fn outb(&mut self, port: u16, value: u8) -> Result {
        self.command(&format!("outb {port:#x} {value:#x}")).map(drop)
    }

    /// Writes a port of 2 bytes.
    pub fn outw(&mut self, port: u16, value: u16) -> Result {
        self.command(&format!("outw {port:#x} {value:#x}")).map(drop)
    }

    /// Reads 8 bytes of memory.
    pub fn readq(&mut self, address: u64) -> Result<u64> {
        self.number(&format!("readq {address:#x}"))
    }

    /// Writes 8 bytes of memory.
    pub fn writeq(&mut self, address: u64, value: u64) -> Result {
        self.command(&format!("writeq {address:#x} {value:#x}")).map(drop)
    }

    /// Reads memory.
    pub fn read(&mut self, address: u64, size: usize) -> Result<Vec<u8>> {
        let text = self.command(&format!("read {address:#x} {size:#x}"))?;
        let digits = text.strip_prefix("0x").unwrap_or_default();
        let pairs = digits.as_bytes().chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).ok()?;
            u8::from_str_radix(pair, 16).ok()
        });
        match pairs.collect::<Option<Vec<u8>>>() {
            Some(bytes) if bytes.len() == size => Ok(bytes),
            _ => Err(self.failure("a read's reply has other data than asked for")),
        }
    }

    /// Writes memory.
    pub fn write(&mut self, address: u64, data: &[u8]) -> Result {
        let digits: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        self.command(&format!("write {address:#x} {:#x} 0x{digits}", data.len())).map(drop)
    }

    /// Lets virtual time pass; the new time in nanoseconds.
    pub fn step(&mut self, time: Duration) -> Result<u64> {
        self.number(&format!("clock_step {}", time.as_nanos()))
    }

    /// Lets virtual time pass until the next timer is due; the new time in nanoseconds.
    pub fn step_to_timer(&mut self) -> Result<u64> {
        self.number("clock_step")
    }

    /// Asks to be told of interrupts.
    pub fn intercept(&mut self) -> Result {
        self.command("irq_intercept_in ioapic").map(drop)
    }

    /// The level of an interrupt, as far as it was told.
    pub fn irq(&self, number: u32) -> bool {
        self.levels.get(&number).copied().unwrap_or(false)
    }

    /// The changes of interrupts told so far, oldest first; each is given once.
    pub fn irq_changes(&mut self) -> Vec<(u32, bool)> {
        self.changes.drain(..).collect()
    }

    /// Waits until an interrupt has a level, by something other than a command.
    pub fn wait_irq(&mut self, number: u32, high: bool) -> Result {
        let deadline = Instant::now() + PATIENCE;
        while self.irq(number) != high {
            let line = self.line(deadline)?;
            self.interrupt(&line)?;
        }
        Ok(())
    }

    fn interrupt(&mut self, line: &str) -> Result {
        let mut words = line.split(' ');
        let parsed = match (words.next(), words.next(), words.next(), words.next()) {
            (Some("IRQ"), Some("raise"), Some(number), None) => Some((number.parse()?, true)),
            (Some("IRQ"), Some("lower"), Some(number), None) => Some((number.parse()?, false)),
            _ => None,
        };
        let (number, high) = parsed.ok_or_else(|| self.failure("not a line of the protocol"))?;
        if self.levels.insert(number, high).unwrap_or(false) == high {
            return Err(self.failure("an interrupt that did not change"));
        }
        self.changes.push_back((number, high));
        Ok(())
    }

    fn line(&mut self, deadline: Instant) -> Result<String> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.stream.get_ref().set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(_) if line.ends_with('\n') => {
                line.pop();
                self.note(format!("<- {}", line.chars().take(120).collect::<String>()));
                Ok(line)
            }
            Ok(_) => Err(self.failure("the connection was closed")),
            Err(error) => Err(self.failure(&format!("no line in time: {error}"))),
        }
    }

    fn note(&mut self, line: String) {
        if self.said.len() == KEPT_LINES {
            self.said.pop_front();
        }
        self.said.push_back(line);
    }

    fn failure(&self, what: &str) -> Box<dyn std::error::Error + Send + Sync> {
        let said: String = self.said.iter().map(|line| format!("    | {line}\n")).collect();
        format!("qtest: {what}; the conversation ends with\n{said}").into()
    }
}
