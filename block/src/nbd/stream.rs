//! A socket as a reader and a writer of messages.
//!
//! Payload goes from the socket straight into the buffer it is for, and from its buffer straight
//! into the socket; only what is read together with a header is copied, a page at most.
//!
//! On its loop, no lock. The peer decides when bytes come and go: nothing here waits for anybody
//! but in a task of that peer's own.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use resources::iol::{Direction, IoBuf, Local, Watch};
use rustix::net::{Shutdown, shutdown};

/// What is read ahead: enough for many headers, little enough that copying it costs nothing.
const AHEAD: usize = 4096;
/// Headers that are written at once come from one page.
const HEADERS: usize = 4096;
/// Messages that one write may take.
const BATCH: usize = 64;

/// A socket on a loop.
pub(super) type Socket = Rc<Watch<Arc<OwnedFd>>>;

/// Watches a socket, which becomes non-blocking.
pub(super) fn watch(local: &Local, fd: Arc<OwnedFd>) -> io::Result<Socket> {
    rustix::io::ioctl_fionbio(&*fd, true)?;
    Ok(Rc::new(local.watch(fd)?))
}

/// Ends what is read and written, here and by whoever else holds the socket.
pub(super) fn cut(fd: &OwnedFd) {
    // Fails when the peer has gone already.
    let _ = shutdown(fd, Shutdown::Both);
}

/// What comes from a peer.
pub(super) struct Reader {
    socket: Socket,
    buf: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Reader {
    pub(super) fn new(socket: Socket) -> Reader {
        Reader::with(socket, &[])
    }

    /// A reader to which bytes have come before.
    pub(super) fn with(socket: Socket, ahead: &[u8]) -> Reader {
        let mut buf = vec![0; AHEAD.max(ahead.len())].into_boxed_slice();
        if let Some(room) = buf.get_mut(..ahead.len()) {
            room.copy_from_slice(ahead);
        }
        Reader { socket, buf, start: 0, end: ahead.len() }
    }

    /// What was read and nobody has taken.
    pub(super) fn ahead(&self) -> &[u8] {
        self.buf.get(self.start..self.end).unwrap_or_default()
    }

    /// Puts back what was taken last.
    pub(super) fn unread(&mut self, len: usize) {
        self.start = self.start.saturating_sub(len);
    }

    /// Fills `into`; `UnexpectedEof` when the peer has gone.
    pub(super) async fn exact(&mut self, into: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < into.len() {
            if self.start == self.end {
                self.refill().await?;
            }
            let room = into.get_mut(done..).unwrap_or_default();
            let ahead = self.ahead();
            let count = ahead.len().min(room.len());
            if let (Some(to), Some(from)) = (room.get_mut(..count), ahead.get(..count)) {
                to.copy_from_slice(from);
            }
            self.start += count;
            done += count;
        }
        Ok(())
    }

    /// As [`exact`](Self::exact), for so many bytes.
    pub(super) async fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.exact(&mut bytes).await?;
        Ok(bytes)
    }

    /// As [`exact`](Self::exact), into a new vector; the caller bounds the length.
    pub(super) async fn vec(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.exact(&mut bytes).await?;
        Ok(bytes)
    }

    /// Fills `buf`, past our own memory where it is large.
    pub(super) async fn fill(&mut self, buf: &IoBuf) -> io::Result<()> {
        let mut done = buf.copy_from(0, self.ahead());
        self.start += done;
        while done < buf.len() {
            let rest = buf.skip(done);
            let read = |fd: &Arc<OwnedFd>| rest.readv(&**fd, None);
            match self.socket.io(Direction::Read, read).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => done += count,
            }
        }
        Ok(())
    }

    /// Leaves out so many bytes.
    pub(super) async fn skip(&mut self, mut len: u64) -> io::Result<()> {
        while len > 0 {
            if self.start == self.end {
                self.refill().await?;
            }
            let count = len.min((self.end - self.start) as u64);
            self.start += count as usize;
            len -= count;
        }
        Ok(())
    }

    async fn refill(&mut self) -> io::Result<()> {
        let buf = &mut self.buf;
        let read = |fd: &Arc<OwnedFd>| Ok(rustix::io::read(&**fd, &mut buf[..])?);
        let count = self.socket.io(Direction::Read, read).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (self.start, self.end) = (0, count);
        Ok(())
    }
}

/// What goes to a peer: messages of many tasks, each whole.
pub(super) struct Writer {
    socket: Socket,
    queue: RefCell<VecDeque<Message>>,
    /// Somebody is writing, and will write what is put into the queue too.
    busy: Cell<bool>,
    broken: Cell<bool>,
    headers: IoBuf,
}

/// A header with its payload.
pub(super) struct Message {
    pub(super) header: Vec<u8>,
    pub(super) payload: Option<IoBuf>,
    /// Dropped when it is written, or never will be.
    pub(super) _keep: Option<Box<dyn Any>>,
}

impl From<Vec<u8>> for Message {
    fn from(header: Vec<u8>) -> Message {
        Message { header, payload: None, _keep: None }
    }
}

impl Writer {
    pub(super) fn new(socket: Socket) -> Writer {
        Writer {
            socket,
            queue: RefCell::default(),
            busy: Cell::new(false),
            broken: Cell::new(false),
            headers: IoBuf::zeroed(HEADERS),
        }
    }

    /// Sends a message behind those before it. It may still be on its way when this is done, if
    /// another task is writing.
    pub(super) async fn send(&self, message: Message) -> io::Result<()> {
        if self.broken.get() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.queue.borrow_mut().push_back(message);
        if self.busy.replace(true) {
            return Ok(());
        }
        let done = self.drain().await;
        self.busy.set(false);
        if done.is_err() {
            self.broken.set(true);
            self.queue.borrow_mut().clear();
        }
        done
    }

    async fn drain(&self) -> io::Result<()> {
        loop {
            let batch = {
                let mut queue = self.queue.borrow_mut();
                let count = queue.len().min(BATCH);
                queue.drain(..count).collect::<Vec<_>>()
            };
            if batch.is_empty() {
                return Ok(());
            }
            self.write(&batch).await?;
        }
    }

    async fn write(&self, batch: &[Message]) -> io::Result<()> {
        let mut parts = Vec::with_capacity(batch.len() * 2);
        let mut at = 0;
        for message in batch {
            let end = at + message.header.len();
            if end <= HEADERS {
                self.headers.copy_from(at, &message.header);
                parts.push(self.headers.slice(at..end));
                at = end;
            } else {
                parts.push(IoBuf::copy_of(&message.header));
            }
            parts.extend(message.payload.clone());
        }
        let all = match &parts[..] {
            [one] => one.clone(),
            parts => IoBuf::concat(parts),
        };
        let mut done = 0;
        while done < all.len() {
            let rest = all.skip(done);
            let write = |fd: &Arc<OwnedFd>| rest.writev(&**fd, None, false);
            match self.socket.io(Direction::Write, write).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => done += count,
            }
        }
        Ok(())
    }
}
