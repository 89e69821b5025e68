//! Negotiation with a client: which export it wants and how they are going to speak.
//!
//! On the loop that listens, no lock but that of the table of exports. What a client sends as an
//! option is bounded before it is read, strings are checked, and what is not understood gets an
//! error reply; a client that does not speak the protocol is left.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use resources::iol::Local;

use super::{Export, Server};
use crate::nbd::stream::{self, Reader, Socket, Writer};
use crate::nbd::tls;
use crate::nbd::wire::{
    ALLOCATION_DEPTH, BASE_ALLOCATION, Bytes, DIRTY_BITMAP, Fields, INIT_MAGIC, MAX_OPTION,
    MAX_PAYLOAD, OPTION_MAGIC, PADDING, handshake, info, option, option_reply, reply,
};

/// What a client and the server have agreed on.
pub(super) struct Chosen {
    pub(super) export: Arc<Export>,
    pub(super) structured: bool,
    /// The contexts of block status: identity and what they tell.
    pub(super) contexts: Vec<(u32, Context)>,
}

/// What block status tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Context {
    /// Holes and zeros.
    Allocation,
    /// How deep in the chain what shows is.
    Depth,
    /// A dirty bitmap of the export, by its place there.
    Bitmap(usize),
}

/// An option that is answered by an error: the kind, and a text for people.
type Refused = (u32, String);

/// What was chosen, bytes that came behind the choice, and the socket within TLS, if there is one.
pub(super) type Done = (Chosen, Vec<u8>, Option<Arc<OwnedFd>>);

/// Negotiates until the client chooses an export or leaves.
pub(super) async fn negotiate(
    local: &Local,
    server: &Server,
    fd: Arc<OwnedFd>,
) -> io::Result<Option<Done>> {
    let socket = stream::watch(local, fd)?;
    let mut peer = Peer {
        local,
        server,
        reader: Reader::new(socket.clone()),
        writer: Writer::new(socket.clone()),
        socket,
        within: None,
        padding: true,
        structured: false,
        contexts: None,
    };
    let chosen = peer.haggle().await?;
    Ok(chosen.map(|chosen| (chosen, peer.reader.ahead().to_vec(), peer.within)))
}

struct Peer<'a> {
    local: &'a Local,
    server: &'a Server,
    socket: Socket,
    /// The socket within TLS, once that is spoken.
    within: Option<Arc<OwnedFd>>,
    reader: Reader,
    writer: Writer,
    padding: bool,
    structured: bool,
    /// Those selected last, and for which export.
    contexts: Option<(String, Vec<(u32, Context)>)>,
}

fn lost(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn invalid(text: &str) -> Refused {
    (reply::INVALID, text.to_owned())
}

impl Peer<'_> {
    async fn haggle(&mut self) -> io::Result<Option<Chosen>> {
        let flags = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
        let hello = Bytes::default().u64(INIT_MAGIC).u64(OPTION_MAGIC).u16(flags);
        self.writer.send(hello.0.into()).await?;
        let theirs = u32::from_be_bytes(self.reader.array().await?);
        if theirs & !u32::from(flags) != 0 {
            return Err(lost("unknown flags of the client"));
        }
        self.padding = theirs & u32::from(handshake::NO_ZEROES) == 0;
        let fixed = theirs & u32::from(handshake::FIXED_NEWSTYLE) != 0;
        loop {
            let head: [u8; 16] = self.reader.array().await?;
            let mut head = Fields(&head);
            let (magic, kind, len) = (head.u64(), head.u32(), head.u32());
            let (Some(OPTION_MAGIC), Some(kind), Some(len)) = (magic, kind, len) else {
                return Err(lost("no option where one should be"));
            };
            if !fixed && kind != option::EXPORT_NAME {
                return Err(lost("an option that needs fixed newstyle negotiation"));
            }
            if len > MAX_OPTION {
                return Err(lost("an option that is too long"));
            }
            let data = self.reader.vec(len as usize).await?;
            let insecure = self.server.0.tls.is_some() && self.within.is_none();
            let answer = match kind {
                option::EXPORT_NAME if insecure => return Err(lost("an export without TLS")),
                option::EXPORT_NAME => return self.export_name(&data).await.map(Some),
                option::ABORT => {
                    // The client may have gone without waiting for this.
                    let _ = self.reply(kind, reply::ACK, &[]).await;
                    return Ok(None);
                }
                option::STARTTLS => match self.start_tls(&data).await? {
                    Ok(()) => continue,
                    Err(refused) => Err(refused),
                },
                _ if insecure => Err((reply::TLS_REQD, "TLS comes first".to_owned())),
                option::LIST => self.list(&data).await?,
                option::INFO | option::GO => match self.info(kind, &data).await? {
                    Ok(Some(chosen)) => return Ok(Some(chosen)),
                    Ok(None) => continue,
                    Err(refused) => Err(refused),
                },
                option::STRUCTURED_REPLY if !data.is_empty() => {
                    Err(invalid("the option takes no data"))
                }
                option::STRUCTURED_REPLY => {
                    self.structured = true;
                    Ok(())
                }
                option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                    self.meta_contexts(kind, &data).await?
                }
                _ => Err((reply::UNSUP, format!("option {kind} is not supported"))),
            };
            match answer {
                Ok(()) => self.reply(kind, reply::ACK, &[]).await?,
                Err((error, text)) => self.reply(kind, error, text.as_bytes()).await?,
            }
        }
    }

    /// Goes on within TLS; what was agreed on before is void.
    async fn start_tls(&mut self, data: &[u8]) -> io::Result<Result<(), Refused>> {
        let Some(tls) = self.server.0.tls.clone() else {
            return Ok(Err((reply::POLICY, "TLS is not configured".to_owned())));
        };
        if self.within.is_some() || !data.is_empty() {
            return Ok(Err(invalid("TLS begins once, and takes no data")));
        }
        self.reply(option::STARTTLS, reply::ACK, &[]).await?;
        if !self.reader.ahead().is_empty() {
            // Anybody on the way could have said that.
            return Err(lost("something was said between the option and TLS"));
        }
        let within = tls::wrap(self.local, self.socket.clone(), tls.connection()).await?;
        let within = Arc::new(within);
        self.socket = stream::watch(self.local, within.clone())?;
        self.reader = Reader::new(self.socket.clone());
        self.writer = Writer::new(self.socket.clone());
        self.within = Some(within);
        (self.structured, self.contexts) = (false, None);
        Ok(Ok(()))
    }

    async fn reply(&self, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        let len = u32::try_from(data.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.writer.send(option_reply(option, kind, len).raw(data).0.into()).await
    }

    fn find(&self, name: &str) -> Result<Arc<Export>, Refused> {
        let found = self.server.0.exports.lock().get(name).cloned();
        found.ok_or_else(|| (reply::UNKNOWN, format!("export '{name}' is not present")))
    }

    fn choose(&mut self, export: Arc<Export>) -> Chosen {
        let contexts = match self.contexts.take() {
            Some((name, contexts)) if name == export.name => contexts,
            _ => Vec::new(),
        };
        Chosen { export, structured: self.structured, contexts }
    }

    async fn export_name(&mut self, data: &[u8]) -> io::Result<Chosen> {
        let name = std::str::from_utf8(data).map_err(|_| lost("a name that is not UTF-8"))?;
        let export = self.find(name).map_err(|_| lost("an export that is not there"))?;
        let answer = Bytes::default().u64(export.size()).u16(export.flags(self.structured));
        let padding = if self.padding { PADDING } else { 0 };
        self.writer.send(answer.raw(&vec![0; padding]).0.into()).await?;
        Ok(self.choose(export))
    }

    async fn list(&mut self, data: &[u8]) -> io::Result<Result<(), Refused>> {
        if !data.is_empty() {
            return Ok(Err(invalid("the option takes no data")));
        }
        let exports: Vec<_> = self.server.0.exports.lock().values().cloned().collect();
        for export in exports {
            let text = export.description.as_deref().unwrap_or_default();
            let data = Bytes::default().string(&export.name).raw(text.as_bytes()).0;
            self.reply(option::LIST, reply::SERVER, &data).await?;
        }
        Ok(Ok(()))
    }

    /// Answers INFO and GO; what was chosen by GO.
    async fn info(
        &mut self,
        kind: u32,
        data: &[u8],
    ) -> io::Result<Result<Option<Chosen>, Refused>> {
        let mut fields = Fields(data);
        let parsed = (|| {
            let name = fields.string()?;
            let count = fields.u16()?;
            let wanted: Option<Vec<u16>> = (0..count).map(|_| fields.u16()).collect();
            Some((name, wanted?)).filter(|_| fields.0.is_empty())
        })();
        let Some((name, wanted)) = parsed else {
            return Ok(Err(invalid("the lengths do not fit")));
        };
        let export = match self.find(name) {
            Ok(export) => export,
            Err(refused) => return Ok(Err(refused)),
        };
        let about = |what: u16| Bytes::default().u16(what);
        if wanted.contains(&info::NAME) {
            let data = about(info::NAME).raw(export.name.as_bytes());
            self.reply(kind, reply::INFO, &data.0).await?;
        }
        if let Some(text) = &export.description {
            let data = about(info::DESCRIPTION).raw(text.as_bytes());
            self.reply(kind, reply::INFO, &data.0).await?;
        }
        if wanted.contains(&info::BLOCK_SIZE) {
            let data = about(info::BLOCK_SIZE).u32(1).u32(4096).u32(MAX_PAYLOAD);
            self.reply(kind, reply::INFO, &data.0).await?;
        }
        let data = about(info::EXPORT).u64(export.size()).u16(export.flags(self.structured));
        self.reply(kind, reply::INFO, &data.0).await?;
        self.reply(kind, reply::ACK, &[]).await?;
        Ok(Ok((kind == option::GO).then(|| self.choose(export))))
    }

    async fn meta_contexts(&mut self, kind: u32, data: &[u8]) -> io::Result<Result<(), Refused>> {
        let select = kind == option::SET_META_CONTEXT;
        if select {
            self.contexts = None;
        }
        if !self.structured {
            return Ok(Err(invalid("structured replies have to be asked for before")));
        }
        let mut fields = Fields(data);
        let parsed = (|| {
            let name = fields.string()?;
            let count = fields.u32()?;
            let mut queries = Vec::new();
            // Each takes four bytes at least, so the data bounds them.
            for _ in 0..count {
                queries.push(fields.string()?);
            }
            Some((name, queries)).filter(|_| fields.0.is_empty())
        })();
        let Some((name, queries)) = parsed else {
            return Ok(Err(invalid("the lengths do not fit, or a string is not one")));
        };
        let export = match self.find(name) {
            Ok(export) => export,
            Err(refused) => return Ok(Err(refused)),
        };
        let mut found = Vec::new();
        for (id, (context, full)) in contexts(&export).into_iter().enumerate() {
            let asked = queries.iter().any(|query| matches(query, &full, !select));
            if asked || !select && queries.is_empty() {
                let id = if select { u32::try_from(id).unwrap_or(u32::MAX) } else { 0 };
                found.push((id, context));
                let data = Bytes::default().u32(id).raw(full.as_bytes()).0;
                self.reply(kind, reply::META_CONTEXT, &data).await?;
            }
        }
        if select {
            self.contexts = Some((name.to_owned(), found));
        }
        Ok(Ok(()))
    }
}

/// The contexts of an export by their full names.
fn contexts(export: &Export) -> Vec<(Context, String)> {
    let bitmaps = export.bitmaps.iter().enumerate();
    let bitmaps =
        bitmaps.map(|(at, (name, _))| (Context::Bitmap(at), format!("{DIRTY_BITMAP}{name}")));
    let depth = export.allocation_depth.then(|| (Context::Depth, ALLOCATION_DEPTH.to_owned()));
    let all = std::iter::once((Context::Allocation, BASE_ALLOCATION.to_owned()));
    all.chain(depth).chain(bitmaps).collect()
}

/// Whether a query means this context. Wildcards end at a colon, and only lists have them.
fn matches(query: &str, full: &str, wildcards: bool) -> bool {
    let wildcard = ["base:", "qemu:", DIRTY_BITMAP].contains(&query);
    query == full || wildcards && wildcard && full.starts_with(query)
}
