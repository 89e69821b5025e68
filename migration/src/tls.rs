//! TLS 1.3 around a channel: the other side is who it says, and nobody reads along.
//!
//! On migration threads, which wait in the channel; a cancel ends a handshake as it ends
//! everything else there. After it either direction can go to a thread of its own; a lock around
//! rustls is held for its calculations only. Before the handshake is done nothing of a peer is believed; what it can
//! make us hold is bounded by rustls.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use resources::tls::{Client, Server};
use rustls::Connection;

use crate::channel::{self, Channel, Limiter};
use crate::link::{Breaker, Link};

/// Makes sure that the other side is who `client` says.
///
/// # Errors
/// It is not, or it goes away.
pub fn connect(client: &Client, channel: Channel) -> io::Result<Tls> {
    agree(client.connection(), channel)
}

/// Makes sure that the other side is one to be believed.
///
/// # Errors
/// It is not, or it goes away.
pub fn accept(server: &Server, channel: Channel) -> io::Result<Tls> {
    agree(server.connection(), channel)
}

/// Has the connection agreed on.
fn agree(connection: Result<Connection, rustls::Error>, mut channel: Channel) -> io::Result<Tls> {
    let mut connection = connection.map_err(io::Error::other)?;
    while connection.is_handshaking() {
        let done = connection.complete_io(&mut channel);
        // What is wrong with the peer is said to it too.
        let flushed = channel.flush();
        done?;
        flushed?;
    }
    Tls::new(connection, channel)
}

/// A channel within TLS.
#[derive(Debug)]
pub struct Tls {
    reader: Reader,
    writer: Writer,
}

/// What both directions share: rustls. The lock is a leaf, held while bytes are encrypted or
/// decrypted and never while anybody waits.
type Shared = Arc<Mutex<Connection>>;

impl Tls {
    /// After the handshake.
    fn new(connection: Connection, channel: Channel) -> io::Result<Tls> {
        let (Some(input), Some(output)) = channel.split() else {
            return Err(io::Error::new(ErrorKind::Unsupported, "TLS goes both ways"));
        };
        let connection: Shared = Arc::new(Mutex::new(connection));
        let raw = vec![0; RAW].into_boxed_slice();
        let reader = Reader { input, raw, start: 0, end: 0, connection: connection.clone() };
        let writer = Writer { output: Some(output), sealed: Vec::new(), connection };
        Ok(Tls { reader, writer })
    }

    /// Lets the directions go to a thread each.
    #[must_use]
    pub fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }

    /// Bytes that went to the host so far, those in the buffer not among them.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.writer.output.as_ref().map_or(0, channel::Writer::sent)
    }
}

/// Encrypted bytes that are read at once.
const RAW: usize = 64 << 10;

/// What comes from the other side.
#[derive(Debug)]
pub struct Reader {
    input: channel::Reader,
    /// Encrypted bytes that rustls has not taken yet.
    raw: Box<[u8]>,
    start: usize,
    end: usize,
    connection: Shared,
}

impl Reader {
    /// As [`Channel::set_patience`]; for both halves.
    pub fn set_patience(&self, patience: Option<Duration>) {
        self.input.set_patience(patience);
    }

    /// Gives rustls of what the other side has sent what it takes; `false` where that has ended.
    fn take_in(&mut self) -> io::Result<bool> {
        if self.start == self.end {
            (self.start, self.end) = (0, self.input.read(&mut self.raw)?);
        }
        let more = self.start < self.end;
        let mut connection = self.connection.lock();
        // No bytes tell it that there are no more.
        let mut bytes = self.raw.get(self.start..self.end).unwrap_or_default();
        self.start += connection.read_tls(&mut bytes)?;
        let taken = connection.process_new_packets();
        taken.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        Ok(more)
    }

    /// Whether something can be read without more from the other side.
    fn is_ready(&self) -> io::Result<bool> {
        let known = self.connection.lock().process_new_packets();
        let known = known.map_err(io::Error::other)?;
        Ok(known.plaintext_bytes_to_read() > 0 || known.peer_has_closed())
    }
}

impl Read for Reader {
    /// A stream that is cut off, which anybody on the way can do, is an error and not an end.
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.lock().reader().read(to) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            self.take_in()?;
        }
    }
}

/// What goes to the other side. What rustls itself has to say goes with it.
#[derive(Debug)]
pub struct Writer {
    /// None once it has ended.
    output: Option<channel::Writer>,
    /// Encrypted bytes on their way.
    sealed: Vec<u8>,
    connection: Shared,
}

impl Writer {
    /// Hands on what was encrypted.
    fn pass_on(&mut self) -> io::Result<()> {
        let output = self.output.as_mut().ok_or(ErrorKind::BrokenPipe)?;
        let mut connection = self.connection.lock();
        while connection.wants_write() {
            connection.write_tls(&mut self.sealed)?;
        }
        drop(connection);
        let done = output.write_all(&self.sealed);
        self.sealed.clear();
        done
    }

    /// As [`channel::Writer::finish`].
    ///
    /// # Errors
    /// As there.
    pub fn finish(&mut self) -> io::Result<()> {
        if self.output.is_none() {
            return Ok(());
        }
        self.connection.lock().send_close_notify();
        self.pass_on()?;
        self.output.take().map_or(Ok(()), channel::Writer::finish)
    }
}

impl Write for Writer {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let count = self.connection.lock().writer().write(from)?;
        self.pass_on()?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        // Nothing is left of one that has ended.
        if self.output.is_none() {
            return Ok(());
        }
        self.pass_on()?;
        self.output.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Read for Tls {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.reader.read(to)
    }
}

impl Write for Tls {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.writer.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Link for Tls {
    fn two_way(&self) -> bool {
        true
    }

    fn set_limiter(&mut self, limiter: &Limiter) {
        if let Some(output) = &mut self.writer.output {
            output.set_limiter(limiter);
        }
    }

    fn give_up_after(&mut self, silence: Duration) {
        self.reader.set_patience(Some(silence));
    }

    fn give_up_at(&mut self, deadline: Option<Instant>) {
        self.reader.input.set_deadline(deadline);
    }

    fn breaker(&self) -> Breaker {
        self.reader.input.breaker()
    }

    fn hasten(&mut self) {
        self.writer.output.iter().for_each(channel::Writer::hasten);
    }

    fn wait(&mut self, others: &[BorrowedFd<'_>], time: Option<Duration>) -> io::Result<bool> {
        // Who reads a record of which half is there waits for the other half.
        let reader = &mut self.reader;
        if reader.is_ready()? {
            return Ok(true);
        }
        if reader.start == reader.end && !reader.input.wait(others, time)? {
            return Ok(false);
        }
        Ok(!reader.take_in()? || reader.is_ready()?)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.writer.finish()
    }
}

#[cfg(test)]
mod tests;
