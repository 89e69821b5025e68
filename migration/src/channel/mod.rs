//! The connection to the other side of a migration.
//!
//! | piece | file |
//! |---|---|
//! | reading and writing | here |
//! | stopping whoever waits | `cancel.rs` |
//! | the speed limit | `limit.rs` |
//! | the way out | `connect.rs` |
//! | the way in | `listen.rs` |
//! | commands | `exec.rs` |
//!
//! A channel belongs to one migration thread, which waits in it, or its halves to one each;
//! [`Canceller`] and [`Limiter`] are for all. A peer may never read, never write, or go away at
//! any byte: the first two end by a cancel or by the [patience](Channel::set_patience), the last
//! with an error.

mod cancel;
mod connect;
mod exec;
mod limit;
mod listen;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::PollFlags;
use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};

pub use cancel::{Canceller, is_cancelled};
pub use connect::Connecting;
use exec::Exec;
pub use limit::{Limiter, WINDOW};
pub use listen::Listener;

use resources::iol::IoBuf;

use crate::link::{Breaker, Link};

/// So much is gathered before it is written, and read at once.
const BUFFER: usize = 256 << 10;

/// So much waits in the host when what is asked for is to come soon: a few hundredths of a second on
/// a slow link, and enough for a quick one.
const HASTY_BUFFER: usize = 256 << 10;

/// A TCP peer that answers nothing for so long is gone, in milliseconds and as what that is made
/// of: a first probe after some silence, then more of them.
const GONE_MS: u32 = 30_000;
const PROBE_AFTER: Duration = Duration::from_secs(10);
const PROBE_EVERY: Duration = Duration::from_secs(5);
const PROBES: u32 = 4;
/// The longest that such a silence can be allowed to be: a peer that has not come back after a day
/// never does.
const LONGEST_MS: u32 = 24 * 3600 * 1000;

/// Both directions, as far as they exist: files and commands have one.
#[derive(Debug)]
pub struct Channel {
    reader: Option<Reader>,
    writer: Option<Writer>,
}

impl Channel {
    /// What a file descriptor leads to: a socket, pipe, file or device. It becomes non-blocking,
    /// for all who share it.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn new(fd: OwnedFd, canceller: &Canceller) -> io::Result<Self> {
        Self::with(fd, None, canceller)
    }

    fn with(fd: OwnedFd, exec: Option<Exec>, canceller: &Canceller) -> io::Result<Self> {
        let kind = FileType::from_raw_mode(fstat(&fd)?.st_mode);
        let flags = fcntl_getfl(&fd)?;
        fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        if kind == FileType::Socket {
            watch(&fd);
        }
        let mode = flags & OFlags::RWMODE;
        // A file that is open both ways has one position for both: a stream goes one way.
        let (reads, writes) = (mode != OFlags::WRONLY, mode != OFlags::RDONLY);
        let (for_reader, for_writer) = if writes { (None, exec) } else { (exec, None) };
        let canceller = canceller.clone();
        let (patience_ms, deadline) = (AtomicU64::new(0), Mutex::default());
        let line = Arc::new(Line { fd, kind, canceller, patience_ms, deadline });
        let writer = writes.then(|| Writer {
            line: line.clone(),
            buffer: Vec::new(),
            failed: None,
            limiter: Limiter::default(),
            sent: Arc::default(),
            exec: for_writer,
        });
        let reader = reads.then(|| Reader {
            input: BufReader::with_capacity(BUFFER, Input { line, received: Arc::default() }),
            _exec: for_reader,
        });
        Ok(Self { reader, writer })
    }

    /// Whether the other side can answer: it is behind a socket.
    #[must_use]
    pub fn two_way(&self) -> bool {
        let line = self.reader.as_ref().map(|reader| &reader.input.get_ref().line);
        line.is_some_and(|line| line.kind == FileType::Socket)
    }

    /// Lets the directions go to a thread each.
    #[must_use]
    pub fn split(self) -> (Option<Reader>, Option<Writer>) {
        (self.reader, self.writer)
    }

    /// Sends no faster than that from now on; without a call there is no limit.
    pub fn set_limiter(&mut self, limiter: &Limiter) {
        if let Some(writer) = &mut self.writer {
            writer.limiter = limiter.clone();
        }
    }

    /// Reading and writing fail with [`ErrorKind::TimedOut`] if for so long no byte moves; None:
    /// never, as in the beginning. A TCP peer that does not even answer probes is given up when
    /// that has lasted for half a minute, or for as long as this if it is more, up to a day.
    pub fn set_patience(&self, patience: Option<Duration>) {
        self.line().into_iter().for_each(|line| line.set_patience(patience));
    }

    /// Reading, writing and waiting, for the end of a command too, fail with
    /// [`ErrorKind::TimedOut`] from then on, however much moves; None: never, as in the beginning.
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        self.line().into_iter().for_each(|line| *line.deadline.lock() = deadline);
    }

    fn line(&self) -> Option<&Arc<Line>> {
        let line = self.reader.as_ref().map(|reader| &reader.input.get_ref().line);
        line.or(self.writer.as_ref().map(|writer| &writer.line))
    }

    /// Bytes that went to the host so far, those in the buffer not among them.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.writer.as_ref().map_or(0, Writer::sent)
    }

    /// As [`Writer::finish`]. Nothing can be written after that; what comes can still be read.
    ///
    /// # Errors
    /// As there.
    pub fn finish(&mut self) -> io::Result<()> {
        self.writer.take().map_or(Ok(()), Writer::finish)
    }
}

impl Link for Channel {
    fn two_way(&self) -> bool {
        self.two_way()
    }

    fn breaker(&self) -> Breaker {
        self.line().map_or(Box::new(|| {}), breaker)
    }

    fn is_file(&self) -> bool {
        let kind = self.writer.as_ref().map(|writer| writer.line.kind);
        matches!(kind, Some(FileType::RegularFile | FileType::BlockDevice))
    }

    fn set_limiter(&mut self, limiter: &Limiter) {
        self.set_limiter(limiter);
    }

    fn give_up_after(&mut self, silence: Duration) {
        self.set_patience(Some(silence));
    }

    fn send_memory(&mut self, memory: &IoBuf) -> io::Result<()> {
        let none = || io::Error::new(ErrorKind::Unsupported, "the channel cannot be written");
        self.writer.as_mut().ok_or_else(none)?.send_memory(memory)
    }

    fn give_up_at(&mut self, deadline: Option<Instant>) {
        self.set_deadline(deadline);
    }

    fn hasten(&mut self) {
        self.writer.iter().for_each(Writer::hasten);
    }

    fn wait(&mut self, others: &[BorrowedFd<'_>], time: Option<Duration>) -> io::Result<bool> {
        let none = || io::Error::new(ErrorKind::Unsupported, "the channel cannot be read");
        self.reader.as_ref().ok_or_else(none)?.wait(others, time)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.finish()
    }
}

/// Breaks a connection, if it is still there.
fn breaker(line: &Arc<Line>) -> Breaker {
    let line: Weak<Line> = Arc::downgrade(line);
    Box::new(move || {
        if let Some(line) = line.upgrade() {
            // Others than sockets refuse it.
            let _ = shutdown(&line.fd, Shutdown::Both);
        }
    })
}

impl Read for Channel {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let none = || io::Error::new(ErrorKind::Unsupported, "the channel cannot be read");
        self.reader.as_mut().ok_or_else(none)?.read(to)
    }
}

impl Write for Channel {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let none = || io::Error::new(ErrorKind::Unsupported, "the channel cannot be written");
        self.writer.as_mut().ok_or_else(none)?.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), Write::flush)
    }
}

/// What comes from the other side, buffered.
#[derive(Debug)]
pub struct Reader {
    input: BufReader<Input>,
    /// Ends with the reader.
    _exec: Option<Exec>,
}

impl Reader {
    /// Bytes that came from the host so far, those that wait in the buffer among them.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.input.get_ref().received.load(Ordering::Relaxed)
    }

    /// As [`Channel::set_patience`]; for both halves.
    pub fn set_patience(&self, patience: Option<Duration>) {
        self.input.get_ref().line.set_patience(patience);
    }

    /// As [`Channel::set_deadline`]; for both halves.
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        *self.input.get_ref().line.deadline.lock() = deadline;
    }

    /// As [`Link::wait`].
    ///
    /// # Errors
    /// As there.
    pub fn wait(&self, others: &[BorrowedFd<'_>], time: Option<Duration>) -> io::Result<bool> {
        if !self.input.buffer().is_empty() {
            return Ok(true);
        }
        let line = &self.input.get_ref().line;
        let time = line.left()?.into_iter().chain(time).min();
        line.canceller.wait_any(line.fd.as_fd(), others, time)
    }

    /// As [`Link::breaker`].
    #[must_use]
    pub fn breaker(&self) -> Breaker {
        breaker(&self.input.get_ref().line)
    }
}

impl Read for Reader {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.input.read(to)
    }
}

#[derive(Debug)]
struct Input {
    line: Arc<Line>,
    received: Arc<AtomicU64>,
}

impl Read for Input {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = self.line.read(to)?;
        self.received.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// What goes to the other side, buffered. What is in the buffer when it is dropped is lost.
#[derive(Debug)]
pub struct Writer {
    line: Arc<Line>,
    buffer: Vec<u8>,
    /// How writing has failed: bytes are lost since, so that nothing after them may be sent.
    failed: Option<ErrorKind>,
    limiter: Limiter,
    sent: Arc<AtomicU64>,
    exec: Option<Exec>,
}

impl Writer {
    /// As [`Channel::sent`].
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The same, for others to look at while this thread waits.
    #[must_use]
    pub fn counter(&self) -> Arc<AtomicU64> {
        self.sent.clone()
    }

    /// As [`Channel::set_patience`]; for both halves.
    pub fn set_patience(&self, patience: Option<Duration>) {
        self.line.set_patience(patience);
    }

    /// As [`Link::hasten`].
    pub fn hasten(&self) {
        // It only takes longer without.
        let _ = sockopt::set_socket_send_buffer_size(&self.line.fd, HASTY_BUFFER);
    }

    /// As [`Channel::set_limiter`].
    pub fn set_limiter(&mut self, limiter: &Limiter) {
        self.limiter = limiter.clone();
    }

    /// Writes what is left and tells the other side that it was all: a socket is shut down in
    /// this direction, a file brought to its disk, a command's input closed and its end awaited.
    ///
    /// # Errors
    /// Not all could be written, or the command did not end well.
    pub fn finish(mut self) -> io::Result<()> {
        self.drain()?;
        let Self { line, exec, .. } = self;
        match line.kind {
            FileType::Socket => shutdown(&line.fd, Shutdown::Write)?,
            FileType::RegularFile | FileType::BlockDevice => rustix::fs::fdatasync(&line.fd)?,
            _ => {}
        }
        let (canceller, left) = (line.canceller.clone(), line.left());
        drop(line);
        exec.map_or(Ok(()), |exec| exec.finish(&canceller, left?))
    }

    fn drain(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let result = self.put(&buffer[..]);
        self.buffer = buffer;
        self.buffer.clear();
        result
    }

    /// Writes memory, from where it is.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn send_memory(&mut self, memory: &IoBuf) -> io::Result<()> {
        self.drain()?;
        self.put(memory.clone())
    }

    /// Whoever writes may not have looked at the first error, as TLS does not.
    fn check(&self) -> io::Result<()> {
        self.line.canceller.check()?;
        self.failed.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn put(&mut self, bytes: impl Outgoing) -> io::Result<()> {
        self.check()?;
        let result = self.pass_on(bytes);
        self.failed = result.as_ref().err().map(io::Error::kind);
        result
    }

    fn pass_on(&self, mut bytes: impl Outgoing) -> io::Result<()> {
        while bytes.len() > 0 {
            let granted = self.limiter.reserve(bytes.len().min(BUFFER), &self.line.canceller)?;
            let mut now = bytes.take(granted);
            while now.len() > 0 {
                let count = self.line.write(&now)?;
                self.sent.fetch_add(count as u64, Ordering::Relaxed);
                now.take(count);
            }
        }
        Ok(())
    }
}

/// What is written: bytes of this process, or of the guest where they are.
trait Outgoing: Sized {
    fn len(&self) -> usize;
    /// Cuts off what comes first.
    fn take(&mut self, count: usize) -> Self;
    fn write(&self, line: &Line) -> io::Result<usize>;
}

impl Outgoing for &[u8] {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn take(&mut self, count: usize) -> Self {
        let (now, later) = self.split_at_checked(count).unwrap_or((self, &[]));
        *self = later;
        now
    }

    fn write(&self, line: &Line) -> io::Result<usize> {
        Ok(match line.kind {
            FileType::Socket => send(&line.fd, self, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?,
            _ => rustix::io::write(&line.fd, self)?,
        })
    }
}

/// Without the flags of a socket: the descriptor is non-blocking, and SIGPIPE is ignored in any
/// process of Rust.
impl Outgoing for IoBuf {
    fn len(&self) -> usize {
        self.len()
    }

    fn take(&mut self, count: usize) -> Self {
        let now = self.slice(0..count);
        *self = self.skip(count);
        now
    }

    fn write(&self, line: &Line) -> io::Result<usize> {
        self.writev(&line.fd, None, false)
    }
}

impl Write for Writer {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.check()?;
        if self.buffer.len() + from.len() > BUFFER {
            self.drain()?;
        }
        if from.len() >= BUFFER {
            self.put(from)?;
        } else {
            self.buffer.extend_from_slice(from);
        }
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.drain()
    }
}

/// The file descriptor, and what is known of it.
#[derive(Debug)]
struct Line {
    fd: OwnedFd,
    kind: FileType,
    canceller: Canceller,
    /// 0: no end.
    patience_ms: AtomicU64,
    /// From then on nothing is done. A leaf, held for a moment.
    deadline: Mutex<Option<Instant>>,
}

impl Line {
    fn set_patience(&self, patience: Option<Duration>) {
        let ms = patience.map_or(0, |patience| patience.as_millis().max(1));
        self.patience_ms.store(u64::try_from(ms).unwrap_or(u64::MAX), Ordering::Relaxed);
        // The host is not to be less patient. What it has been told of silence takes the place of
        // the number of probes too. Other sockets and files refuse it.
        let gone = u32::try_from(ms).unwrap_or(u32::MAX).clamp(GONE_MS, LONGEST_MS);
        let _ = sockopt::set_tcp_user_timeout(&self.fd, gone);
    }

    /// How long there is until the deadline, if there is one.
    fn left(&self) -> io::Result<Option<Duration>> {
        let Some(deadline) = *self.deadline.lock() else { return Ok(None) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let text = "the other side of the migration took too long";
            return Err(io::Error::new(ErrorKind::TimedOut, text));
        }
        Ok(Some(left))
    }

    /// 0: the end.
    fn read(&self, to: &mut [u8]) -> io::Result<usize> {
        self.transfer(PollFlags::IN, || {
            Ok(match self.kind {
                FileType::Socket => recv(&self.fd, &mut *to, RecvFlags::DONTWAIT)?.0,
                _ => rustix::io::read(&self.fd, &mut *to)?,
            })
        })
    }

    /// Never 0.
    fn write(&self, from: &impl Outgoing) -> io::Result<usize> {
        let count = self.transfer(PollFlags::OUT, || from.write(self))?;
        if count == 0 { Err(ErrorKind::WriteZero.into()) } else { Ok(count) }
    }

    /// Does it as soon as it does not block.
    fn transfer(
        &self,
        events: PollFlags,
        mut act: impl FnMut() -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            self.canceller.check()?;
            let left = self.left()?;
            match act() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => return result,
            }
            let ms = self.patience_ms.load(Ordering::Relaxed);
            let patience = (ms > 0).then(|| Duration::from_millis(ms));
            let time = left.into_iter().chain(patience).min();
            if !self.canceller.wait(self.fd.as_fd(), events, time)? && time == patience {
                let text = format!("the other side of the migration did nothing for {ms} ms");
                return Err(io::Error::new(ErrorKind::TimedOut, text));
            }
        }
    }
}

/// Makes a TCP socket quick, and notice when the peer is gone. Other sockets refuse that, rightly.
fn watch(socket: &OwnedFd) {
    let _ = sockopt::set_tcp_nodelay(socket, true);
    let _ = sockopt::set_socket_keepalive(socket, true);
    let _ = sockopt::set_tcp_keepidle(socket, PROBE_AFTER);
    let _ = sockopt::set_tcp_keepintvl(socket, PROBE_EVERY);
    let _ = sockopt::set_tcp_keepcnt(socket, PROBES);
    let _ = sockopt::set_tcp_user_timeout(socket, GONE_MS);
}

/// Goes to where the stream begins in a file that was just opened. A FIFO has no places.
fn seek(file: &File, offset: u64) -> io::Result<()> {
    if offset == 0 {
        return Ok(());
    }
    let offset = rustix::fs::SeekFrom::Start(offset);
    rustix::fs::seek(file, offset).map(drop).map_err(Into::into)
}

/// The C library's text of an error.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((text, _)) => text.into(),
        None => text,
    }
}
