//! Requests of a client: read one after the other, carried out at the same time, answered as they
//! are done.
//!
//! On the loop of the disk, no lock. Every range is checked against the size that the client was
//! told. A request is read only when there is room for it, so a client that does not take its
//! replies is not listened to any more, and costs nobody but itself. When the disk moves, what was
//! read and not begun moves with the connection.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use resources::iol::{Either, IoBuf, Local, Notify, race};

use super::handshake::{Chosen, Context};
use super::status::{Bitmap, allocation, depth, dirty};
use super::{IN_FLIGHT, IN_MEMORY};
use crate::disk::Disk;
use crate::nbd::gauge::{Buffer, Buffers, Gauge, Taken};
use crate::nbd::stream::{self, Message, Reader, Writer};
use crate::nbd::wire::{
    Chunk, MAX_PAYLOAD, MAX_REACH, REQUEST_LEN, Request, chunk, command, command_flag,
    error_number, simple_reply,
};
use crate::node::Zero;

/// What one cache command reads at once.
const CACHE_STEP: u64 = 1 << 20;
/// How long a client waits before it looks again for a disk that is being moved.
const MOVING: Duration = Duration::from_millis(2);
/// After so many requests everybody else has a turn.
const TURN: u32 = 64;

struct Session {
    export: Arc<super::Export>,
    disk: Rc<Disk>,
    writer: Writer,
    structured: bool,
    contexts: Vec<(u32, Context)>,
    bitmaps: Vec<Option<Rc<dyn Bitmap>>>,
    slots: Rc<Gauge>,
    buffers: Rc<Buffers>,
    /// Requests that came before the disk moved and could not be begun any more, as they came.
    left: RefCell<Vec<u8>>,
    /// There is the first of them.
    moved: Notify,
}

/// Serves requests until the client leaves. When the disk has moved to another loop, gives back
/// what was read and belongs there.
pub(super) async fn serve(
    local: &Local,
    fd: Arc<OwnedFd>,
    chosen: &Chosen,
    ahead: &[u8],
) -> io::Result<Option<Vec<u8>>> {
    let export = chosen.export.clone();
    let place = || (export.place)();
    let Some(disk) = place().and_then(|place| place.get(local)) else {
        // Its graph is on another loop, or on its way there.
        local.sleep(MOVING).await;
        return Ok(place().map(|_| ahead.to_vec()));
    };
    let socket = stream::watch(local, fd.clone())?;
    let mut reader = Reader::with(socket.clone(), ahead);
    let bitmaps = export.bitmaps.iter().map(|(_, find)| find(local)).collect();
    let session = Rc::new(Session {
        export: export.clone(),
        disk,
        writer: Writer::new(socket),
        structured: chosen.structured,
        contexts: chosen.contexts.clone(),
        bitmaps,
        slots: Gauge::new(IN_FLIGHT),
        buffers: Buffers::new(IN_MEMORY),
        left: RefCell::default(),
        moved: Notify::new(),
    });
    let mut turn = 0u32;
    let end = loop {
        turn = turn.wrapping_add(1);
        if turn.is_multiple_of(TURN) {
            local.yield_now().await;
        }
        let slot = session.slots.take(1).await;
        let come = match race(session.moved.notified(), reader.come(REQUEST_LEN)).await {
            Either::Left(()) => Ok(()),
            Either::Right(come) => come,
        };
        if let Err(error) = come {
            break Err(error);
        }
        // The disk that was there may have been moved, or taken away, in the meantime.
        if !session.is_here(local) {
            break Ok(place().map(|_| reader.ahead().to_vec()));
        }
        let header: [u8; REQUEST_LEN] = match reader.array().await {
            Ok(header) => header,
            Err(error) => break Err(error),
        };
        match session.clone().receive(local, &mut reader, &header, slot).await {
            Ok(true) => {}
            Ok(false) => break Ok(None),
            Err(error) => break Err(error),
        }
    };
    match &end {
        // It says no more, but may want to hear the replies.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        // Whoever waits for the client to take a reply need not any more.
        Err(_) => stream::cut(&fd),
        Ok(_) => {}
    }
    session.slots.idle().await;
    let mut left = session.left.take();
    match end {
        Ok(Some(ahead)) => {
            left.extend(ahead);
            Ok(Some(left))
        }
        // It may want to hear the replies to these, too.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !left.is_empty() => {
            Ok(place().map(|_| left))
        }
        end => end,
    }
}

/// A request that is refused before it is begun: the number of the error, and a text for people.
type Refused = (u32, &'static str);

/// The protocol's text asks for `EPERM` for what would write a read-only export, for `ENOSPC` for
/// writes beyond its end and for `EINVAL` for anything else there. (Old servers, which sent the
/// host's numbers, had `EROFS`: clients take it for `EINVAL`.)
const EPERM: u32 = 1;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;

impl Session {
    /// Takes a request and begins it; false when the client leaves.
    async fn receive(
        self: Rc<Self>,
        local: &Local,
        reader: &mut Reader,
        header: &[u8; REQUEST_LEN],
        slot: Taken,
    ) -> io::Result<bool> {
        let broken = |why| io::Error::new(io::ErrorKind::InvalidData, why);
        let request = Request::parse(header).ok_or_else(|| broken("no request"))?;
        let refused = self.check(&request);
        let payload = match request.command {
            command::DISC => return Ok(false),
            command::WRITE if request.length > MAX_PAYLOAD => {
                return Err(broken("a write that is too long"));
            }
            command::WRITE if refused.is_some() => {
                reader.skip(request.length.into()).await?;
                None
            }
            command::WRITE => {
                let buffer = self.buffers.get(request.length as usize).await;
                reader.fill(&buffer.buf).await?;
                Some(buffer)
            }
            _ => None,
        };
        let (here, header) = (local.clone(), *header);
        let task = async move {
            let mut payload = payload;
            if request.command == command::READ && refused.is_none() {
                self.writer.room().await;
                payload = Some(self.buffers.get(request.length as usize).await);
            }
            let mut message = match refused {
                Some((number, text)) => self.error(&request, number, text),
                None => match self.answer(&request, payload.as_ref()).await {
                    Ok(status) => self.done(&request, status, payload),
                    Err(_) if !self.is_here(&here) => {
                        self.leave(&header, payload.filter(|_| request.command == command::WRITE));
                        return;
                    }
                    Err(error) => self.failed(&request, &error),
                },
            };
            // Others have their turn when it is written.
            message._keep = Some(Box::new((message._keep.take(), slot)));
            // It fails when the client has gone, which the reader finds out.
            let _ = self.writer.send(message).await;
        };
        local.spawn(task).detach();
        Ok(true)
    }

    /// Whether a request is one that this client may make.
    fn check(&self, request: &Request) -> Option<Refused> {
        use command::{BLOCK_STATUS, CACHE, DISC, FLUSH, READ, RESIZE, TRIM, WRITE, WRITE_ZEROES};
        let allowed = match request.command {
            READ if self.structured => command_flag::DF,
            WRITE_ZEROES => command_flag::NO_HOLE | command_flag::FAST_ZERO,
            BLOCK_STATUS => command_flag::REQ_ONE,
            READ | WRITE | DISC | FLUSH | TRIM | CACHE => 0,
            RESIZE if self.export.resizable => 0,
            _ => return Some((EINVAL, "the command is not known")),
        };
        if request.flags & !(allowed | command_flag::FUA) != 0 {
            return Some((EINVAL, "the command does not have these flags"));
        }
        let writes = matches!(request.command, WRITE | TRIM | WRITE_ZEROES | RESIZE);
        if writes && !self.export.writable {
            return Some((EPERM, "the export is read-only"));
        }
        if request.command == BLOCK_STATUS && self.contexts.is_empty() {
            return Some((EINVAL, "no metadata contexts were negotiated"));
        }
        if request.command == BLOCK_STATUS && request.length == 0 {
            return Some((EINVAL, "an empty range has no status"));
        }
        if matches!(request.command, FLUSH | RESIZE | DISC) {
            return None;
        }
        if request.command == READ && request.length > MAX_PAYLOAD {
            return Some((EINVAL, "the read is too long"));
        }
        match request.offset.checked_add(request.length.into()) {
            Some(end) if end <= self.export.size() => None,
            _ if matches!(request.command, WRITE | WRITE_ZEROES) => {
                Some((ENOSPC, "the range is beyond the end of the export"))
            }
            _ => Some((EINVAL, "the range is beyond the end of the export")),
        }
    }

    /// Whether the disk is still the export's.
    fn is_here(&self, local: &Local) -> bool {
        let now = (self.export.place)().and_then(|place| place.get(local));
        now.is_some_and(|now| Rc::ptr_eq(&now, &self.disk))
    }

    /// Leaves a request to whoever serves the client where the disk is now.
    fn leave(&self, header: &[u8; REQUEST_LEN], payload: Option<Buffer>) {
        let left = &mut *self.left.borrow_mut();
        left.extend_from_slice(header);
        if let Some(payload) = payload {
            left.extend(payload.buf.to_vec());
        }
        self.moved.notify();
    }

    /// Carries a request out; the reply that tells a block status.
    async fn answer(&self, request: &Request, payload: Option<&Buffer>) -> io::Result<Vec<u8>> {
        if request.command == command::BLOCK_STATUS {
            return self.block_status(request).await;
        }
        self.carry_out(request, payload).await.map(|()| Vec::new())
    }

    async fn carry_out(&self, request: &Request, payload: Option<&Buffer>) -> io::Result<()> {
        let Request { offset, flags, .. } = *request;
        let len = u64::from(request.length);
        let durable = flags & command_flag::FUA != 0;
        let data = || payload.map_or_else(IoBuf::empty, |payload| payload.buf.clone());
        match request.command {
            command::READ => self.disk.read(offset, data()).await,
            command::WRITE => self.disk.write(offset, data(), durable).await,
            command::FLUSH => self.disk.flush().await,
            command::TRIM => {
                self.disk.discard(offset, len).await?;
                self.settle(durable).await
            }
            command::WRITE_ZEROES => {
                let how = match flags & command_flag::NO_HOLE {
                    0 => Zero::MayUnmap,
                    _ => Zero::Keep,
                };
                if flags & command_flag::FAST_ZERO != 0 {
                    self.zero_fast(offset, len, how).await?;
                } else {
                    self.disk.zero(offset, len, how).await?;
                }
                self.settle(durable).await
            }
            command::CACHE => self.cache(offset, len).await,
            command::RESIZE => {
                self.disk.resize(offset).await?;
                self.export.size.store(offset, Relaxed);
                Ok(())
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    async fn settle(&self, durable: bool) -> io::Result<()> {
        if durable { self.disk.flush().await } else { Ok(()) }
    }

    /// Zeroes what can be zeroed without writing.
    async fn zero_fast(&self, offset: u64, len: u64, how: Zero) -> io::Result<()> {
        self.disk.zero_fast(offset, len, how).await.map_err(|error| match error.kind() {
            io::ErrorKind::Unsupported => io::Error::from_raw_os_error(libc::EOPNOTSUPP),
            _ => error,
        })
    }

    /// Reads a range to have it in the host's cache.
    async fn cache(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.saturating_add(len);
        let mut at = offset;
        while at < end {
            let step = (end - at).min(CACHE_STEP);
            let buffer = self.buffers.get(step as usize).await;
            self.disk.read(at, buffer.buf.clone()).await?;
            at += step;
        }
        Ok(())
    }

    /// Whether the reply to a request comes in chunks.
    fn in_chunks(&self, request: &Request) -> bool {
        let chunks = matches!(request.command, command::READ | command::BLOCK_STATUS);
        self.structured && chunks
    }

    fn done(&self, request: &Request, status: Vec<u8>, payload: Option<Buffer>) -> Message {
        let cookie = request.cookie;
        if request.command == command::BLOCK_STATUS {
            return status.into();
        }
        let read = payload.filter(|_| request.command == command::READ);
        let header = if !self.in_chunks(request) {
            simple_reply(0, cookie)
        } else if request.length == 0 {
            Chunk { flags: chunk::DONE, kind: chunk::NONE, cookie, length: 0 }.bytes().0
        } else {
            let length = request.length.saturating_add(8);
            let chunk = Chunk { flags: chunk::DONE, kind: chunk::OFFSET_DATA, cookie, length };
            chunk.bytes().u64(request.offset).0
        };
        let payload = read.as_ref().map(|read| read.buf.clone());
        Message { header, payload, _keep: read.map(|read| Box::new(read) as _) }
    }

    fn failed(&self, request: &Request, error: &io::Error) -> Message {
        self.error(request, error_number(error), &crate::host::errno_text(error))
    }

    fn error(&self, request: &Request, number: u32, text: &str) -> Message {
        let cookie = request.cookie;
        if !self.in_chunks(request) {
            return simple_reply(number, cookie).into();
        }
        let (len, text) = match u16::try_from(text.len()) {
            Ok(len) if text.len() < 4096 => (len, text),
            _ => (0, ""),
        };
        let length = 6 + u32::from(len);
        let chunk = Chunk { flags: chunk::DONE, kind: chunk::ERROR, cookie, length };
        chunk.bytes().u32(number).u16(len).raw(text.as_bytes()).0.into()
    }

    async fn block_status(&self, request: &Request) -> io::Result<Vec<u8>> {
        let one = request.flags & command_flag::REQ_ONE != 0;
        let (offset, len) = (request.offset, u64::from(request.length).min(MAX_REACH));
        let mut reply = Vec::new();
        for (at, (id, context)) in self.contexts.iter().enumerate() {
            let extents = match context {
                Context::Allocation => allocation(&self.disk, offset, len, one).await?,
                Context::Depth => depth(&self.disk, offset, len, one).await?,
                Context::Bitmap(at) => match self.bitmaps.get(*at) {
                    Some(Some(bitmap)) => dirty(&**bitmap, offset, len, one),
                    _ => return Err(io::Error::other("the dirty bitmap has gone")),
                },
            };
            let last = at + 1 == self.contexts.len();
            let chunk = Chunk {
                flags: if last { chunk::DONE } else { 0 },
                kind: chunk::BLOCK_STATUS,
                cookie: request.cookie,
                length: u32::try_from(4 + 8 * extents.len()).unwrap_or(u32::MAX),
            };
            let head = chunk.bytes().u32(*id);
            let all = extents.iter().fold(head, |all, (len, flags)| all.u32(*len).u32(*flags));
            reply.extend(all.0);
        }
        Ok(reply)
    }
}
