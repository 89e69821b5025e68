//! Streams the rig listens to: a guest's console, a process's stderr, the channel to a nested host.
//!
//! A reader thread per stream appends to a transcript behind one mutex; the test thread waits on
//! its condition variable for text to appear. A hostile stream is cut at 16 MiB.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Result;

/// Bytes kept of one stream; what comes after is read and dropped.
const MAX_TRANSCRIPT: usize = 16 << 20;

/// Everything one stream has said so far.
#[derive(Clone)]
pub struct Transcript {
    shared: Arc<Shared>,
}

struct Shared {
    said: Mutex<Said>,
    grew: Condvar,
}

#[derive(Default)]
struct Said {
    text: Vec<u8>,
    closed: bool,
}

impl Transcript {
    /// Starts a thread that collects `stream` until its end.
    pub fn collect(stream: impl Read + Send + 'static) -> Self {
        Self::tee(stream, std::io::sink())
    }

    /// As [`collect`](Self::collect), and copies every byte to `copy` at once.
    pub fn tee(
        mut stream: impl Read + Send + 'static,
        mut copy: impl Write + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Shared { said: Mutex::new(Said::default()), grew: Condvar::new() });
        let transcript = Self { shared: Arc::clone(&shared) };
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let bytes = match stream.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => &buffer[..count],
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(_) => break,
                };
                // A copy that fails (a closed terminal) must not stop the collecting.
                let _ = copy.write_all(bytes).and_then(|()| copy.flush());
                let mut said = shared.said.lock();
                let room = MAX_TRANSCRIPT.saturating_sub(said.text.len());
                said.text.extend(bytes.iter().filter(|&&b| b != b'\r' && b != 0).take(room));
                shared.grew.notify_all();
            }
            shared.said.lock().closed = true;
            shared.grew.notify_all();
        });
        transcript
    }

    /// The whole text so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.shared.said.lock().text).into_owned()
    }

    /// The last `count` lines, each indented for a failure message.
    pub fn tail(&self, count: usize) -> String {
        tail(&self.text(), count)
    }

    /// Whether the other side has closed the stream.
    pub fn closed(&self) -> bool {
        self.shared.said.lock().closed
    }

    /// Whether `text` is said, now or before `limit` has passed.
    pub fn says(&self, text: &str, limit: Duration) -> bool {
        let found = |said: &[u8]| find(said, text.as_bytes());
        self.wait(0, Instant::now() + limit, found).is_some()
    }

    /// The whole text, once the stream has ended.
    pub fn wait_for_end(&self, limit: Duration) -> Result<String> {
        self.wait(0, Instant::now() + limit, |_| None::<()>);
        if self.closed() { Ok(self.text()) } else { Err("the stream did not end in time".into()) }
    }

    /// Waits until `found` gives a value for the text after `from`, the stream ends or `deadline`
    /// passes; the last two give `None`.
    fn wait<T>(
        &self,
        from: usize,
        deadline: Instant,
        found: impl Fn(&[u8]) -> Option<T>,
    ) -> Option<T> {
        let mut said = self.shared.said.lock();
        loop {
            if let Some(value) = found(said.text.get(from..).unwrap_or_default()) {
                return Some(value);
            }
            if said.closed || self.shared.grew.wait_until(&mut said, deadline).timed_out() {
                return found(said.text.get(from..).unwrap_or_default());
            }
        }
    }
}

/// A transcript with a place up to which it was read, and a way to answer.
pub struct Console {
    name: &'static str,
    transcript: Transcript,
    read: usize,
    writer: Box<dyn Writer>,
}

/// The way back of a console.
pub trait Writer: Write + Send {
    /// Ends the connection for the reading thread too; streams that cannot do it do nothing.
    fn hang_up(&self) {}
}

impl Writer for UnixStream {
    fn hang_up(&self) {
        // A connection that is gone already is what is asked for.
        let _ = self.shutdown(std::net::Shutdown::Both);
    }
}

impl Writer for std::process::ChildStdin {}
impl Writer for std::io::Sink {}

impl Console {
    /// A console named `name` in failure messages.
    pub fn new(name: &'static str, transcript: Transcript, writer: impl Writer + 'static) -> Self {
        Self { name, transcript, read: 0, writer: Box::new(writer) }
    }

    /// What was said so far, also what was already read.
    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    /// Waits for `text` and returns what came before it; reading goes on after it.
    pub fn expect(&mut self, text: &str, limit: Duration) -> Result<String> {
        let found = self.transcript.wait(self.read, Instant::now() + limit, |said| {
            let at = find(said, text.as_bytes())?;
            Some((String::from_utf8_lossy(&said[..at]).into_owned(), at + text.len()))
        });
        let (before, length) = found.ok_or_else(|| self.missing(text, limit))?;
        self.read += length;
        Ok(before)
    }

    /// Waits for a whole line that contains `text` and returns that line; reading goes on after it.
    pub fn expect_line(&mut self, text: &str, limit: Duration) -> Result<String> {
        let found = self.transcript.wait(self.read, Instant::now() + limit, |said| {
            let at = find(said, text.as_bytes())?;
            let start = said[..at].iter().rposition(|&b| b == b'\n').map_or(0, |p| p + 1);
            let end = at + said[at..].iter().position(|&b| b == b'\n')?;
            Some((String::from_utf8_lossy(&said[start..end]).into_owned(), end + 1))
        });
        let (line, length) = found.ok_or_else(|| self.missing(text, limit))?;
        self.read += length;
        Ok(line)
    }

    /// Types `text` as it is.
    pub fn type_text(&mut self, text: &str) -> Result {
        self.writer
            .write_all(text.as_bytes())
            .and_then(|()| self.writer.flush())
            .map_err(|error| format!("cannot write to the {}: {error}", self.name).into())
    }

    /// Ends the connection.
    pub fn hang_up(&self) {
        self.writer.hang_up();
    }

    /// What was said and not read yet.
    pub fn unread(&self) -> String {
        let said = self.transcript.shared.said.lock();
        String::from_utf8_lossy(said.text.get(self.read..).unwrap_or_default()).into_owned()
    }

    /// Moves past everything said so far.
    pub fn skip(&mut self) {
        self.read = self.transcript.shared.said.lock().text.len();
    }

    fn missing(&self, text: &str, limit: Duration) -> String {
        let why = if self.transcript.closed() {
            "it was closed".to_owned()
        } else {
            format!("{} s passed", limit.as_secs_f32())
        };
        format!(
            "no {text:?} on the {} ({why}); it ends with\n{}",
            self.name,
            self.transcript.tail(40)
        )
    }
}

/// The last `count` lines of `text`, each indented for a failure message.
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.len().saturating_sub(count);
    lines[start..].iter().map(|line| format!("    | {line}\n")).collect()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len().max(1)).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(text: &'static str) -> Console {
        Console::new("console", Transcript::collect(text.as_bytes()), std::io::sink())
    }

    #[test]
    fn reads_on_after_each_match() {
        let limit = Duration::from_secs(5);
        let mut console = console("one two\r\nthree four\nfive");
        assert_eq!(console.expect("two", limit).unwrap(), "one ");
        assert_eq!(console.expect_line("ee", limit).unwrap(), "three four");
        // A line without its end is not a line yet.
        assert!(console.expect_line("five", limit).is_err());
        assert_eq!(console.expect("five", limit).unwrap(), "");
    }

    #[test]
    fn a_failure_shows_the_end_of_the_console() {
        let error = console("last words\n").expect("hope", Duration::from_secs(5)).unwrap_err();
        assert!(error.to_string().contains("| last words"), "{error}");
        assert!(error.to_string().contains("it was closed"), "{error}");
    }
}
