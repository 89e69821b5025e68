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
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use resources::iol::{Direction, IoBuf, Local, Watch};
use rustix::net::{AddressFamily, Shutdown, shutdown, sockopt};

/// What is read ahead: enough for many headers, little enough that copying it costs nothing.
const AHEAD: usize = 4096;
/// Headers that are written at once come from one page.
const HEADERS: usize = 4096;
/// Messages that one write may take, and payload: of what is large each is written by itself, so
/// that its memory is free as soon as the peer has it.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 64 << 10;
/// With so many bytes of payload waiting for the peer there is no hurry to have more.
const ENOUGH: usize = 256 << 10;
/// What the kernel may keep of what is on its way to a peer on this host: enough for the peer to
/// go on while the next is fetched.
const ON_ITS_WAY: usize = 1 << 20;

/// A socket on a loop.
pub(super) type Socket = Rc<Watch<Arc<OwnedFd>>>;

/// Watches a socket, which becomes non-blocking.
pub(super) fn watch(local: &Local, fd: Arc<OwnedFd>) -> io::Result<Socket> {
    rustix::io::ioctl_fionbio(&*fd, true)?;
    Ok(Rc::new(local.watch(fd)?))
}

/// Has the kernel keep more of what is on its way, where it would not find out itself how much.
pub(super) fn widen(fd: &OwnedFd) {
    if sockopt::socket_domain(fd).is_ok_and(|domain| domain == AddressFamily::UNIX) {
        // No more than the host allows.
        let _ = sockopt::set_socket_send_buffer_size(fd, ON_ITS_WAY);
    }
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

    /// Waits until the next `len` bytes, [`AHEAD`] at most, are [`ahead`](Self::ahead);
    /// `UnexpectedEof` when the peer has gone. Dropping this loses none.
    pub(super) async fn come(&mut self, len: usize) -> io::Result<()> {
        while self.end - self.start < len {
            if self.start == self.end {
                self.refill().await?;
                continue;
            }
            self.buf.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            self.read_more().await?;
        }
        Ok(())
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
        (self.start, self.end) = (0, 0);
        if self.buf.len() > AHEAD {
            // What came from elsewhere was more.
            self.buf = vec![0; AHEAD].into_boxed_slice();
        }
        self.read_more().await
    }

    /// Reads behind what is there.
    async fn read_more(&mut self) -> io::Result<()> {
        let room = self.buf.get_mut(self.end..).unwrap_or_default();
        let read = |fd: &Arc<OwnedFd>| Ok(rustix::io::read(&**fd, &mut *room)?);
        let count = self.socket.io(Direction::Read, read).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.end += count;
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
    /// Bytes of payload not written yet.
    payload: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
}

/// A header with its payload.
pub(super) struct Message {
    pub(super) header: Vec<u8>,
    pub(super) payload: Option<IoBuf>,
    /// Dropped when it is written, or never will be.
    pub(super) _keep: Option<Box<dyn Any>>,
}

impl Message {
    /// Bytes of payload.
    fn len(&self) -> usize {
        self.payload.as_ref().map_or(0, IoBuf::len)
    }
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
            payload: Cell::new(0),
            waiting: RefCell::default(),
        }
    }

    /// Waits until the peer has taken most of what was sent to it: what would wait behind that
    /// only takes memory, which is nearer to the processor when it is used again soon.
    pub(super) async fn room(&self) {
        poll_fn(|cx| {
            if self.payload.get() < ENOUGH || self.broken.get() {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// So much payload is written, or never will be.
    fn written(&self, payload: usize) {
        self.payload.set(self.payload.get().saturating_sub(payload));
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Sends a message behind those before it. It may still be on its way when this is done, if
    /// another task is writing.
    pub(super) async fn send(&self, message: Message) -> io::Result<()> {
        if self.broken.get() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.payload.set(self.payload.get().saturating_add(message.len()));
        self.queue.borrow_mut().push_back(message);
        if self.busy.replace(true) {
            return Ok(());
        }
        let done = self.drain().await;
        self.busy.set(false);
        if done.is_err() {
            self.broken.set(true);
            let queue = std::mem::take(&mut *self.queue.borrow_mut());
            drop(queue);
            self.written(usize::MAX);
        }
        done
    }

    async fn drain(&self) -> io::Result<()> {
        loop {
            let batch = {
                let mut queue = self.queue.borrow_mut();
                let mut bytes = 0;
                let fits = |message: &&Message| {
                    bytes += message.len();
                    bytes <= BATCH_BYTES
                };
                let count = queue.iter().take(BATCH).take_while(fits).count().max(1);
                let count = count.min(queue.len());
                queue.drain(..count).collect::<Vec<_>>()
            };
            if batch.is_empty() {
                return Ok(());
            }
            self.write(&batch).await?;
            let payload = batch.iter().map(Message::len).sum();
            drop(batch);
            self.written(payload);
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
