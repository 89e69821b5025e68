//! A connection: requests on their way, and the replies to them.
//!
//! On the client's loop, no lock. One task reads replies and gives each to the request that waits
//! for it. A reply that nobody waits for, that holds something else than was asked for, or that is
//! too long ends the connection, and with it every request.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use resources::iol::{IoBuf, Local};
use resources::tls::Client as Tls;

use super::handshake::{Facts, Handshake, Style};
use crate::nbd::gauge::Gauge;
use crate::nbd::stream::{self, Message, Reader, Writer};
use crate::nbd::wire::{
    BASE_ALLOCATION, CHUNK_LEN, Chunk, Fields, MAX_STRING, ReplyHeader, Request, SIMPLE_LEN,
    SIMPLE_MAGIC, STRUCTURED_MAGIC, chunk, command, error_of, option,
};

/// Requests on their way at once.
const IN_FLIGHT: usize = 64;
/// Most bytes of a block status: 2^20 extents.
const MAX_STATUS: u32 = 4 + 8 * (1 << 20);
/// After so many replies everybody else has a turn.
const TURN: u32 = 64;

/// A connection whose handshake has begun, and is within TLS if that is wanted.
pub(super) struct Greeted {
    fd: Arc<OwnedFd>,
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    pub(super) style: Style,
}

/// Greets the server on a socket, and begins TLS.
pub(super) async fn greet(
    local: &Local,
    socket: OwnedFd,
    tls: Option<&Tls>,
) -> io::Result<Greeted> {
    let fd = Arc::new(socket);
    // Fails, rightly, on what is not TCP.
    let _ = rustix::net::sockopt::set_tcp_nodelay(&*fd, true);
    let _ = rustix::net::sockopt::set_socket_keepalive(&*fd, true);
    let socket = stream::watch(local, fd.clone())?;
    let (mut reader, writer) = (Reader::new(socket.clone()), Writer::new(socket.clone()));
    let handshake = Handshake::begin(&mut reader, &writer).await?;
    let Some(tls) = tls else {
        let style = handshake.style;
        return Ok(Greeted { fd, reader, writer, style });
    };
    let style = handshake.start_tls().await?;
    let fd = Arc::new(crate::nbd::tls::wrap(local, socket, tls.connection()).await?);
    let socket = stream::watch(local, fd.clone())?;
    let (reader, writer) = (Reader::new(socket.clone()), Writer::new(socket));
    Ok(Greeted { fd, reader, writer, style })
}

/// A connection to an export.
pub(super) struct Connection {
    pub(super) facts: Facts,
    fd: Arc<OwnedFd>,
    writer: Writer,
    gauge: Rc<Gauge>,
    pending: RefCell<Vec<Option<Pending>>>,
    serial: Cell<u64>,
    /// When the server has answered last or, if it had nothing to answer then, was asked.
    heard: Cell<Instant>,
    lost: Cell<bool>,
    /// Told when the connection is lost.
    watcher: RefCell<Option<Waker>>,
}

/// A request on its way.
struct Pending {
    request: Request,
    into: IoBuf,
    /// Bytes that have been filled.
    filled: u64,
    error: Option<u32>,
    extent: Option<(u32, u32)>,
    state: Progress,
    waker: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Waiting,
    Done,
}

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection was lost; whether it was carried out is unknown.
    Lost,
    /// The server's error.
    Refused(io::Error),
}

fn broken(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl Connection {
    /// Negotiates on a socket, and begins to read replies.
    pub(super) async fn begin(
        local: &Local,
        socket: OwnedFd,
        export: &str,
        tls: Option<&Tls>,
    ) -> io::Result<Rc<Connection>> {
        let Greeted { fd, mut reader, writer, style } = greet(local, socket, tls).await?;
        let facts = {
            let mut handshake = Handshake::resume(&mut reader, &writer, style);
            handshake.structured().await?;
            let set = option::SET_META_CONTEXT;
            let contexts = handshake.contexts(set, export, &[BASE_ALLOCATION]).await?;
            let mut facts = handshake.go(export).await?;
            facts.contexts = contexts;
            facts
        };
        let connection = Rc::new(Connection {
            facts,
            fd,
            writer,
            gauge: Gauge::new(IN_FLIGHT),
            pending: RefCell::default(),
            serial: Cell::new(0),
            heard: Cell::new(Instant::now()),
            lost: Cell::new(false),
            watcher: RefCell::default(),
        });
        local.spawn(connection.clone().receive(local.clone(), reader)).detach();
        Ok(connection)
    }

    /// Whether nothing more will come of it.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.get()
    }

    /// Waits until it is lost. One task may wait.
    pub(super) async fn until_lost(&self) {
        poll_fn(|cx| {
            if self.lost.get() {
                return Poll::Ready(());
            }
            *self.watcher.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Says good-bye and ends it.
    pub(super) async fn leave(&self) {
        let _ = self.writer.send(bye().into()).await;
        stream::cut(&self.fd);
    }

    /// Ends it, with a good-bye if that can be said without waiting; requests on their way are
    /// lost.
    pub(super) fn leave_now(&self) {
        if self.pending.borrow().iter().all(Option::is_none) {
            let _ = rustix::io::write(&*self.fd, &bye());
        }
        stream::cut(&self.fd);
    }

    /// The identity of `base:allocation`.
    pub(super) fn allocation(&self) -> Option<u32> {
        let found = self.facts.contexts.iter().find(|(_, name)| name == BASE_ALLOCATION);
        found.map(|(id, _)| *id)
    }

    /// Sends a request and waits for its end. `into` is what a read fills. The extent is that of
    /// a block status.
    pub(super) async fn call(
        &self,
        mut request: Request,
        payload: Option<IoBuf>,
        into: IoBuf,
    ) -> Result<Option<(u32, u32)>, Failure> {
        let _slot = self.gauge.take(1).await;
        if self.lost.get() {
            return Err(Failure::Lost);
        }
        let at = {
            let mut pending = self.pending.borrow_mut();
            if pending.iter().all(Option::is_none) {
                self.heard.set(Instant::now());
            }
            let free = pending.iter().position(Option::is_none);
            let at = free.unwrap_or(pending.len());
            self.serial.set(self.serial.get().wrapping_add(1));
            request.cookie = self.serial.get() << 16 | (at & 0xffff) as u64;
            let new = Pending {
                request,
                into,
                filled: 0,
                error: None,
                extent: None,
                state: Progress::Waiting,
                waker: None,
            };
            match pending.get_mut(at) {
                Some(slot) => *slot = Some(new),
                None => pending.push(Some(new)),
            }
            at
        };
        let waits = Waits { connection: self, at };
        let header = request.bytes();
        if self.writer.send(Message { header, payload, _keep: None }).await.is_err() {
            self.fail();
            return Err(Failure::Lost);
        }
        poll_fn(|cx| {
            let mut pending = self.pending.borrow_mut();
            match pending.get_mut(at) {
                Some(Some(mine)) if mine.state == Progress::Waiting && !self.lost.get() => {
                    mine.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
                _ => Poll::Ready(()),
            }
        })
        .await;
        let mine = waits.take();
        match mine {
            Some(mine) if mine.state == Progress::Done => match mine.error {
                None => Ok(mine.extent),
                Some(number) => Err(Failure::Refused(error_of(number))),
            },
            _ => Err(Failure::Lost),
        }
    }

    /// The server owes an answer, and has given none for so long.
    pub(super) fn is_silent(&self, silence: Duration) -> bool {
        self.pending.borrow().iter().any(Option::is_some) && self.heard.get().elapsed() >= silence
    }

    /// Nothing more will come.
    pub(super) fn fail(&self) {
        if self.lost.replace(true) {
            return;
        }
        stream::cut(&self.fd);
        let mut wakers = Vec::new();
        wakers.extend(self.watcher.borrow_mut().take());
        for pending in self.pending.borrow_mut().iter_mut().flatten() {
            wakers.extend(pending.waker.take());
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    async fn receive(self: Rc<Self>, local: Local, mut reader: Reader) {
        let mut turn = 0u32;
        let end = loop {
            turn = turn.wrapping_add(1);
            if turn.is_multiple_of(TURN) {
                local.yield_now().await;
            }
            if let Err(error) = self.reply(&mut reader).await {
                break error;
            }
            self.heard.set(Instant::now());
        };
        tracing::debug!("the connection to an NBD server has ended: {end}");
        self.fail();
    }

    async fn reply(&self, reader: &mut Reader) -> io::Result<()> {
        match header(reader).await? {
            ReplyHeader::Simple { error, cookie } => {
                let (request, into) = self.find(cookie)?;
                let read = request.command == command::READ;
                let needs_chunks = read || request.command == command::BLOCK_STATUS;
                if error != 0 {
                    self.note(cookie, |mine| mine.error = Some(error));
                } else if needs_chunks && self.facts.structured {
                    return Err(broken("a simple reply where chunks have to come"));
                } else if read {
                    reader.fill(&into).await?;
                    self.note(cookie, |mine| mine.filled = u64::from(request.length));
                }
                self.finish(cookie)
            }
            ReplyHeader::Chunk(chunk) => {
                if !self.facts.structured {
                    return Err(broken("a chunk that was not asked for"));
                }
                self.chunk(reader, chunk).await?;
                if chunk.flags & chunk::DONE != 0 { self.finish(chunk.cookie) } else { Ok(()) }
            }
        }
    }

    async fn chunk(&self, reader: &mut Reader, chunk: Chunk) -> io::Result<()> {
        let (request, into) = self.find(chunk.cookie)?;
        let within = |offset: u64, len: u64| {
            let from = offset.checked_sub(request.offset);
            let from = from.filter(|from| {
                from.checked_add(len).is_some_and(|end| end <= request.length.into())
            });
            from.filter(|_| request.command == command::READ && len > 0)
                .ok_or_else(|| broken("data that was not asked for"))
        };
        match chunk.kind {
            chunk::NONE if chunk.length == 0 && chunk.flags & chunk::DONE != 0 => Ok(()),
            chunk::OFFSET_DATA => {
                let len = u64::from(chunk.length.saturating_sub(8));
                let offset = u64::from_be_bytes(reader.array().await?);
                let from = within(offset, len)?;
                self.filled(chunk.cookie, len)?;
                reader.fill(&into.slice(from as usize..(from + len) as usize)).await
            }
            chunk::OFFSET_HOLE if chunk.length == 12 => {
                let offset = u64::from_be_bytes(reader.array().await?);
                let len = u64::from(u32::from_be_bytes(reader.array().await?));
                let from = within(offset, len)?;
                self.filled(chunk.cookie, len)?;
                into.slice(from as usize..(from + len) as usize).fill(0);
                Ok(())
            }
            chunk::BLOCK_STATUS => self.status(reader, &request, chunk).await,
            kind if kind & chunk::ERROR_BIT != 0 => self.error(reader, chunk).await,
            _ => Err(broken("a chunk of an unknown kind")),
        }
    }

    async fn status(&self, reader: &mut Reader, request: &Request, chunk: Chunk) -> io::Result<()> {
        let fits = chunk.length >= 12 && chunk.length % 8 == 4 && chunk.length <= MAX_STATUS;
        if request.command != command::BLOCK_STATUS || !fits {
            return Err(broken("a block status that was not asked for"));
        }
        let bytes: [u8; 12] = reader.array().await?;
        reader.skip(u64::from(chunk.length - 12)).await?;
        let mut fields = Fields(&bytes);
        let (id, len, flags) = (fields.u32(), fields.u32(), fields.u32());
        let (Some(id), Some(len), Some(flags)) = (id, len, flags) else {
            return Err(broken("a broken block status"));
        };
        if Some(id) != self.allocation() || len == 0 {
            return Err(broken("a block status of something else"));
        }
        let mut again = false;
        self.note(chunk.cookie, |mine| again = mine.extent.replace((len, flags)).is_some());
        if again { Err(broken("a second block status")) } else { Ok(()) }
    }

    async fn error(&self, reader: &mut Reader, chunk: Chunk) -> io::Result<()> {
        if chunk.length as usize > MAX_STRING + 14 || chunk.length < 6 {
            return Err(broken("an error of impossible length"));
        }
        let bytes = reader.vec(chunk.length as usize).await?;
        let mut fields = Fields(&bytes);
        let (Some(number), Some(len)) = (fields.u32(), fields.u16()) else {
            return Err(broken("a broken error"));
        };
        let text = fields.take(len.into()).ok_or_else(|| broken("an error that is too long"))?;
        if number == 0 {
            return Err(broken("an error without number"));
        }
        tracing::debug!("an NBD server reports: {:?}", String::from_utf8_lossy(text));
        self.note(chunk.cookie, |mine| mine.error = Some(number));
        Ok(())
    }

    /// The request with this mark, which has to be on its way.
    fn find(&self, cookie: u64) -> io::Result<(Request, IoBuf)> {
        let pending = self.pending.borrow();
        let mine = pending.get(slot_of(cookie)).and_then(Option::as_ref);
        let mine = mine.filter(|mine| mine.request.cookie == cookie);
        let mine = mine.filter(|mine| mine.state != Progress::Done);
        let found = mine.map(|mine| (mine.request, mine.into.clone()));
        found.ok_or_else(|| broken("a reply to no request"))
    }

    fn note(&self, cookie: u64, change: impl FnOnce(&mut Pending)) {
        let mut pending = self.pending.borrow_mut();
        let mine = pending.get_mut(slot_of(cookie)).and_then(Option::as_mut);
        if let Some(mine) = mine.filter(|mine| mine.request.cookie == cookie) {
            change(mine);
        }
    }

    /// So many more bytes of a read have come.
    fn filled(&self, cookie: u64, len: u64) -> io::Result<()> {
        let mut fits = true;
        self.note(cookie, |mine| {
            mine.filled = mine.filled.saturating_add(len);
            fits = mine.filled <= mine.request.length.into();
        });
        if fits { Ok(()) } else { Err(broken("more data than was asked for")) }
    }

    /// The reply is complete.
    fn finish(&self, cookie: u64) -> io::Result<()> {
        let mut waker = None;
        let mut whole = true;
        self.note(cookie, |mine| {
            whole = mine.error.is_some()
                || match mine.request.command {
                    command::READ => mine.filled == u64::from(mine.request.length),
                    command::BLOCK_STATUS => mine.extent.is_some(),
                    _ => true,
                };
            if whole {
                mine.state = Progress::Done;
                waker = mine.waker.take();
            }
        });
        waker.into_iter().for_each(Waker::wake);
        if whole { Ok(()) } else { Err(broken("a reply that lacks something")) }
    }
}

/// Which of the requests on their way a mark is of.
fn slot_of(cookie: u64) -> usize {
    (cookie & 0xffff) as usize
}

/// A caller waits for its request as long as it keeps this.
struct Waits<'a> {
    connection: &'a Connection,
    at: usize,
}

impl Waits<'_> {
    fn take(self) -> Option<Pending> {
        self.connection.pending.borrow_mut().get_mut(self.at).and_then(Option::take)
    }
}

impl Drop for Waits<'_> {
    /// A caller that is dropped while it waits takes the connection with it: its reply would come
    /// for nobody.
    fn drop(&mut self) {
        let left = self.connection.pending.borrow_mut().get_mut(self.at).and_then(Option::take);
        if left.is_some_and(|mine| mine.state == Progress::Waiting) {
            self.connection.fail();
        }
    }
}

/// The request that has no reply.
fn bye() -> Vec<u8> {
    Request { flags: 0, command: command::DISC, cookie: 0, offset: 0, length: 0 }.bytes()
}

async fn header(reader: &mut Reader) -> io::Result<ReplyHeader> {
    let magic: [u8; 4] = reader.array().await?;
    match u32::from_be_bytes(magic) {
        SIMPLE_MAGIC => {
            let rest: [u8; SIMPLE_LEN - 4] = reader.array().await?;
            let mut rest = Fields(&rest);
            if let (Some(error), Some(cookie)) = (rest.u32(), rest.u64()) {
                return Ok(ReplyHeader::Simple { error, cookie });
            }
        }
        STRUCTURED_MAGIC => {
            let rest: [u8; CHUNK_LEN - 4] = reader.array().await?;
            let mut rest = Fields(&rest);
            let (flags, kind) = (rest.u16(), rest.u16());
            let (cookie, length) = (rest.u64(), rest.u32());
            if let (Some(flags), Some(kind), Some(cookie), Some(length)) =
                (flags, kind, cookie, length)
            {
                return Ok(ReplyHeader::Chunk(Chunk { flags, kind, cookie, length }));
            }
        }
        _ => {}
    }
    Err(broken("no reply where one should be"))
}
