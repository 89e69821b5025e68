//! The client: an export of a server as a node.
//!
//! Reads and writes go between the caller's buffers and the socket without a copy. What is larger
//! than the server takes goes in pieces. When the connection is lost, it is made anew in the
//! background; requests wait for that as long as `reconnect-delay` says, and those whose reply
//! did not come are sent again: every command can be repeated. No request waits longer for
//! connections than that altogether, also if one after the other is lost.
//!
//! On its loop, no lock. The server is not trusted: see `handshake.rs` and `connection.rs`. A
//! server that stalls stalls the requests to it, and who waits for those until it is left
//! ([`Node::leave_silent`]).

mod connection;
mod handshake;
mod link;

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use resources::iol::{Either, IoBuf, Local, race};
use resources::tls::Client as Tls;

use super::address::{Address, Target};
use super::stream::{self, Reader, Writer};
use super::wire::{MAX_REACH, Request, command, command_flag, flag, option, state};
use crate::file::Gate;
use crate::node::{Extent, Info, Node, Op, State, Zero};
use crate::wait::Waiters;
use connection::{Connection, Failure, Greeted, greet};
pub use handshake::Facts;
use handshake::Handshake;
use link::Link;

/// How long negotiation may take.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// How long is waited between two attempts to connect, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(16));
/// Zeros that are written where the server has no command for it.
const ZEROS: u64 = 1 << 20;

/// How an export is used.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Nothing will be written.
    pub read_only: bool,
    /// How long requests wait for a lost connection (`reconnect-delay`); without it they fail.
    pub reconnect_delay: Duration,
    /// How long opening goes on trying to connect (`open-timeout`).
    pub open_timeout: Duration,
    /// It is spoken to by TLS, and has to be who that says.
    pub tls: Option<Tls>,
}

/// An export.
pub struct Client {
    local: Local,
    me: Weak<Client>,
    target: Target,
    options: Options,
    read_only: Cell<bool>,
    size: Cell<u64>,
    link: RefCell<Link>,
    /// Somebody cannot wait for a connection any more: until there is one, requests fail.
    given_up: Cell<bool>,
    waiters: Waiters,
    gate: Gate,
}

/// Connects to the server at `target` and opens the export.
///
/// # Errors
/// With the text for users.
pub async fn open(local: &Local, target: Target, options: Options) -> io::Result<Rc<Client>> {
    let until = Instant::now().checked_add(options.open_timeout);
    let connection = loop {
        match connect(local, &target, &options).await {
            Ok(connection) => break connection,
            Err(error) => {
                let now = Instant::now();
                let left = until.map(|until| until.saturating_duration_since(now));
                match left {
                    Some(left) if left.is_zero() => return Err(error),
                    left => local.sleep(left.unwrap_or(PAUSE.0).min(PAUSE.0)).await,
                }
            }
        }
    };
    adopt(local, target, options, connection).await
}

/// Opens an export on a socket that is connected already; it is not connected anew when it is
/// lost.
///
/// # Errors
/// As [`open`].
pub async fn open_socket(
    local: &Local,
    socket: OwnedFd,
    export: &str,
    options: Options,
) -> io::Result<Rc<Client>> {
    let begin = Connection::begin(local, socket, export, options.tls.as_ref());
    let connection = bounded(local, begin).await?;
    let target = Target { address: Address::Unix(String::new()), export: export.to_owned() };
    adopt(local, target, options, connection).await
}

/// Negotiates on a socket that somebody else is to use then, who knows simple replies only.
///
/// # Errors
/// As [`open`].
pub(crate) async fn negotiate(
    local: &Local,
    socket: &Arc<OwnedFd>,
    export: &str,
) -> io::Result<Facts> {
    let watched = stream::watch(local, socket.clone())?;
    let (mut reader, writer) = (Reader::new(watched.clone()), Writer::new(watched));
    let begin = async { Handshake::begin(&mut reader, &writer).await?.go(export).await };
    let facts = bounded(local, begin).await?;
    rustix::io::ioctl_fionbio(&**socket, false)?;
    Ok(facts)
}

async fn adopt(
    local: &Local,
    target: Target,
    options: Options,
    connection: Rc<Connection>,
) -> io::Result<Rc<Client>> {
    if connection.facts.has(flag::READ_ONLY) && !options.read_only {
        connection.leave().await;
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "request on denied for read-only export",
        ));
    }
    let client = Rc::new_cyclic(|me| Client {
        local: local.clone(),
        me: me.clone(),
        target,
        read_only: Cell::new(options.read_only),
        options,
        size: Cell::new(connection.facts.size),
        link: RefCell::new(Link::Up(connection.clone())),
        given_up: Cell::new(false),
        waiters: Waiters::default(),
        gate: Gate::default(),
    });
    client.watch(connection);
    Ok(client)
}

async fn connect(local: &Local, target: &Target, options: &Options) -> io::Result<Rc<Connection>> {
    let begin = async {
        let socket = target.address.connect(local).await?;
        Connection::begin(local, socket, &target.export, options.tls.as_ref()).await
    };
    bounded(local, begin).await
}

async fn bounded<R>(local: &Local, work: impl Future<Output = io::Result<R>>) -> io::Result<R> {
    match race(work, local.sleep(HANDSHAKE)).await {
        Either::Left(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let text = "Server closed the connection during negotiation";
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
        }
        Either::Left(done) => done,
        Either::Right(()) => {
            let text = "Server did not answer in time";
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        }
    }
}

/// The exports of a server, with all that it tells about them.
///
/// # Errors
/// With the text for users.
pub async fn list(local: &Local, address: &Address, tls: Option<&Tls>) -> io::Result<Vec<Facts>> {
    let ask = async {
        let socket = address.connect(local).await?;
        let Greeted { mut reader, writer, style, .. } = greet(local, socket, tls).await?;
        let mut handshake = Handshake::resume(&mut reader, &writer, style);
        handshake.structured().await?;
        let mut exports = Vec::new();
        for (name, description) in handshake.list().await? {
            let known = handshake.info(&name).await?;
            let contexts = handshake.contexts(option::LIST_META_CONTEXT, &name, &[]).await?;
            let mut facts = known.unwrap_or_else(|| Facts {
                name,
                description: None,
                size: 0,
                flags: 0,
                block_size: None,
                contexts: Vec::new(),
                structured: false,
            });
            facts.description = facts.description.or(description);
            facts.contexts = contexts;
            exports.push(facts);
        }
        handshake.abort().await;
        Ok(exports)
    };
    bounded(local, ask).await
}

impl Client {
    /// The server and the export.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What the server has told; `None` while there is no connection.
    pub fn facts(&self) -> Option<Facts> {
        match &*self.link.borrow() {
            Link::Up(connection) => Some(connection.facts.clone()),
            _ => None,
        }
    }

    /// Sends a request, again if the connection is lost and requests may wait for another one.
    async fn call(
        &self,
        (command, flags): (u16, u16),
        (offset, len): (u64, u64),
        payload: Option<IoBuf>,
        into: IoBuf,
    ) -> io::Result<Option<(u32, u32)>> {
        let length = u32::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        let request = Request { flags, command, cookie: 0, offset, length };
        let mut lost = None;
        loop {
            let connection = self.connection(lost).await?;
            match connection.call(request, payload.clone(), into.clone()).await {
                Ok(extent) => return Ok(extent),
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Lost) => {
                    let since = *lost.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.options.reconnect_delay {
                        return Err(io::Error::from_raw_os_error(libc::EIO));
                    }
                }
            }
        }
    }

    /// As [`call`](Self::call), for a command without payload.
    async fn order(&self, what: (u16, u16), offset: u64, len: u64) -> io::Result<()> {
        self.call(what, (offset, len), None, IoBuf::empty()).await.map(drop)
    }

    async fn has(&self, flag: u16) -> io::Result<bool> {
        Ok(self.connection(None).await?.facts.has(flag))
    }

    fn within(&self, offset: u64, len: u64) -> io::Result<u64> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size.get() => Ok(end),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn may_write(&self) -> io::Result<()> {
        match self.read_only.get() {
            true => Err(io::Error::from_raw_os_error(libc::EACCES)),
            false => Ok(()),
        }
    }

    /// The next piece of a range: no more than `most` bytes.
    fn pieces(offset: u64, end: u64, most: u64) -> impl Iterator<Item = (u64, u64)> {
        let most = most.max(1);
        let mut at = offset;
        std::iter::from_fn(move || {
            let len = end.saturating_sub(at).min(most);
            let piece = (at, len);
            at = at.saturating_add(len);
            (len > 0).then_some(piece)
        })
    }

    async fn read_all(&self, offset: u64, buf: &IoBuf) -> io::Result<()> {
        let end = self.within(offset, buf.len() as u64)?;
        let (least, most) = self.limits().await?;
        if (offset | buf.len() as u64) & (least - 1) != 0 {
            let (from, to) = self.widen(offset, end, least);
            let wide = self.wide(from, to, most).await?;
            buf.copy_from_buf(&wide.slice((offset - from) as usize..(end - from) as usize));
            return Ok(());
        }
        for (at, len) in Client::pieces(offset, end, most) {
            let from = (at - offset) as usize;
            let into = buf.slice(from..from + len as usize);
            self.call((command::READ, 0), (at, len), None, into).await?;
        }
        Ok(())
    }

    /// Block size and payload limit of the server.
    async fn limits(&self) -> io::Result<(u64, u64)> {
        let facts = &self.connection(None).await?.facts;
        Ok((facts.least().into(), facts.most().into()))
    }

    /// A range of whole blocks, as far as there are any.
    fn widen(&self, offset: u64, end: u64, least: u64) -> (u64, u64) {
        (offset & !(least - 1), end.next_multiple_of(least).min(self.size.get()))
    }

    /// Reads whole blocks into memory of our own.
    async fn wide(&self, from: u64, to: u64, most: u64) -> io::Result<IoBuf> {
        let buf = IoBuf::zeroed((to - from) as usize);
        for (at, len) in Client::pieces(from, to, most) {
            let into = buf.slice((at - from) as usize..(at - from + len) as usize);
            self.call((command::READ, 0), (at, len), None, into).await?;
        }
        Ok(buf)
    }

    async fn write_all(&self, offset: u64, buf: &IoBuf, durable: bool) -> io::Result<()> {
        self.may_write()?;
        let end = self.within(offset, buf.len() as u64)?;
        let (least, most) = self.limits().await?;
        let whole = (offset | buf.len() as u64) & (least - 1) == 0;
        // Blocks are read, changed and written while nobody else writes.
        let _pass = self.gate.pass(!whole).await;
        let (from, buf) = if whole {
            (offset, buf.clone())
        } else {
            let (from, to) = self.widen(offset, end, least);
            let wide = self.wide(from, to, most).await?;
            wide.slice((offset - from) as usize..(end - from) as usize).copy_from_buf(buf);
            (from, wide)
        };
        let fua = self.has(flag::SEND_FUA).await?;
        let flags = if durable && fua { command_flag::FUA } else { 0 };
        let to = from + buf.len() as u64;
        for (at, len) in Client::pieces(from, to, most) {
            let payload = buf.slice((at - from) as usize..(at - from + len) as usize);
            self.call((command::WRITE, flags), (at, len), Some(payload), IoBuf::empty()).await?;
        }
        if durable && !fua { self.sync().await } else { Ok(()) }
    }

    async fn zero_all(&self, offset: u64, len: u64, flags: u16) -> io::Result<()> {
        self.may_write()?;
        let end = self.within(offset, len)?;
        let (least, _) = self.limits().await?;
        let aligned = (offset | len) & (least - 1) == 0;
        if aligned && self.has(flag::SEND_WRITE_ZEROES).await? {
            let _pass = self.gate.pass(false).await;
            for (at, len) in Client::pieces(offset, end, MAX_REACH) {
                self.order((command::WRITE_ZEROES, flags), at, len).await?;
            }
            return Ok(());
        }
        if flags & command_flag::FAST_ZERO != 0 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let zeros = IoBuf::zeroed(len.min(ZEROS) as usize);
        for (at, len) in Client::pieces(offset, end, ZEROS) {
            self.write_all(at, &zeros.slice(0..len as usize), false).await?;
        }
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        if self.has(flag::SEND_FLUSH).await? && !self.has(flag::READ_ONLY).await? {
            self.order((command::FLUSH, 0), 0, 0).await?;
        }
        Ok(())
    }

    async fn status(&self, offset: u64, len: u64) -> io::Result<Extent> {
        let len = len.min(self.size.get().saturating_sub(offset));
        let data = |len| Extent { len, state: State::Data, offset: Some(offset) };
        let (least, _) = self.limits().await?;
        let (from, to) = self.widen(offset, offset.saturating_add(len), least);
        if len == 0 || self.connection(None).await?.allocation().is_none() {
            return Ok(data(len));
        }
        let ask = (from, (to - from).min(MAX_REACH));
        let what = (command::BLOCK_STATUS, command_flag::REQ_ONE);
        let Some((known, flags)) = self.call(what, ask, None, IoBuf::empty()).await? else {
            return Ok(data(len));
        };
        let known = from.saturating_add(known.into()).saturating_sub(offset).clamp(1, len);
        let zero = flags & state::ZERO != 0;
        Ok(Extent { state: if zero { State::Zero } else { State::Data }, ..data(known) })
    }
}

impl Node for Client {
    fn info(&self) -> Info {
        let link = self.link.borrow();
        let facts = match &*link {
            Link::Up(connection) => Some(&connection.facts),
            _ => None,
        };
        let has = |flag| facts.is_some_and(|facts| facts.has(flag));
        Info {
            size: self.size.get(),
            align: facts.map_or(1, Facts::least),
            sectors: None,
            discards: has(flag::SEND_TRIM),
            read_only: self.read_only.get(),
        }
    }

    fn read(&self, offset: u64, buf: IoBuf) -> Op<'_> {
        Box::pin(async move { self.read_all(offset, &buf).await })
    }

    fn write(&self, offset: u64, buf: IoBuf, durable: bool) -> Op<'_> {
        Box::pin(async move { self.write_all(offset, &buf, durable).await })
    }

    fn zero(&self, offset: u64, len: u64, how: Zero) -> Op<'_> {
        let flags = if how == Zero::Keep { command_flag::NO_HOLE } else { 0 };
        Box::pin(self.zero_all(offset, len, flags))
    }

    fn zero_fast(&self, offset: u64, len: u64, how: Zero) -> Op<'_> {
        let keep = if how == Zero::Keep { command_flag::NO_HOLE } else { 0 };
        Box::pin(async move {
            if !self.has(flag::SEND_FAST_ZERO).await? {
                return Err(io::ErrorKind::Unsupported.into());
            }
            let done = self.zero_all(offset, len, keep | command_flag::FAST_ZERO).await;
            done.map_err(|error| match error.raw_os_error() {
                Some(libc::EOPNOTSUPP) => io::ErrorKind::Unsupported.into(),
                _ => error,
            })
        })
    }

    fn discard(&self, offset: u64, len: u64) -> Op<'_> {
        Box::pin(async move {
            self.may_write()?;
            let end = self.within(offset, len)?;
            let (least, _) = self.limits().await?;
            // What does not fill blocks is left alone.
            let (from, to) = (offset.next_multiple_of(least), end & !(least - 1));
            if !self.has(flag::SEND_TRIM).await? {
                return Ok(());
            }
            for (at, len) in Client::pieces(from, to, MAX_REACH) {
                self.order((command::TRIM, 0), at, len).await?;
            }
            Ok(())
        })
    }

    fn flush(&self) -> Op<'_> {
        Box::pin(self.sync())
    }

    fn map(&self, offset: u64, len: u64) -> Op<'_, Extent> {
        Box::pin(self.status(offset, len))
    }

    fn reopen(&self, read_only: bool) -> Op<'_> {
        Box::pin(async move {
            if read_only {
                self.sync().await?;
            } else if self.has(flag::READ_ONLY).await? {
                return Err(io::Error::from_raw_os_error(libc::EACCES));
            }
            self.read_only.set(read_only);
            Ok(())
        })
    }

    fn close(&self) -> Op<'_> {
        Box::pin(async move {
            let synced = self.sync().await;
            let link = std::mem::replace(&mut *self.link.borrow_mut(), Link::Closed);
            if let Link::Up(connection) = link {
                connection.leave().await;
            }
            synced
        })
    }

    fn leave_silent(&self, silence: Duration) {
        self.give_up(silence);
    }

    fn driver(&self) -> &'static str {
        "nbd"
    }

    fn filename(&self) -> Option<String> {
        Some(self.target.to_string())
    }

    fn resize(&self, size: u64) -> Op<'_> {
        Box::pin(async move {
            self.may_write()?;
            if size == self.size.get() {
                return Ok(());
            }
            if !self.has(flag::SEND_RESIZE).await? {
                return Err(io::ErrorKind::Unsupported.into());
            }
            self.order((command::RESIZE, 0), size, 0).await?;
            self.size.set(size);
            Ok(())
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Link::Up(connection) = &*self.link.borrow() {
            connection.leave_now();
        }
    }
}
