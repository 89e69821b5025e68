//! Negotiation with a server.
//!
//! On the client's loop, no lock. The server may be hostile: replies are bounded in length and
//! number, sizes and block sizes are checked, and whoever calls bounds the time.

use std::io;

use crate::nbd::stream::{Reader, Writer};
use crate::nbd::wire::{
    Bytes, Fields, INIT_MAGIC, MAX_OPTION, MAX_PAYLOAD, MAX_STRING, OLD_MAGIC, OPTION_MAGIC,
    PADDING, REPLY_MAGIC, flag, handshake, info, option, option_head, reply,
};

/// Most replies to one option.
const REPLIES: usize = 4096;
/// Most bytes of all replies of a handshake, which are in memory at once where they are listed.
const MOST: u64 = 4 << 20;
/// Bytes of a reply before its data.
const HEAD: usize = 20;

/// What a server tells about an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// A text for people.
    pub description: Option<String>,
    /// Bytes.
    pub size: u64,
    /// See [`flag`].
    pub flags: u16,
    /// What offsets and lengths have to be multiples of, what they had better be, and the most
    /// bytes of one request; if the server tells.
    pub block_size: Option<(u32, u32, u32)>,
    /// The metadata contexts that were selected, or that there are.
    pub contexts: Vec<(u32, String)>,
    /// Replies come in chunks.
    pub structured: bool,
}

/// A handshake that has begun.
pub(super) struct Handshake<'a> {
    pub(super) reader: &'a mut Reader,
    pub(super) writer: &'a Writer,
    pub(super) style: Style,
    structured: bool,
    /// Bytes that the server may still reply.
    room: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// The server has told everything.
    Old { size: u64, flags: u16 },
    /// One option, no errors.
    New { padding: bool },
    /// Options and replies.
    Fixed { padding: bool },
}

/// An answer to an option: data of the replies before the last one, or an error.
enum Answer {
    Done(Vec<(u32, Vec<u8>)>),
    Refused { kind: u32, text: String },
}

fn lost(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

impl<'a> Handshake<'a> {
    /// Greets the server.
    pub(super) async fn begin(
        reader: &'a mut Reader,
        writer: &'a Writer,
    ) -> io::Result<Handshake<'a>> {
        let hello: [u8; 16] = reader.array().await?;
        let mut hello = Fields(&hello);
        let (first, second) = (hello.u64(), hello.u64());
        if first != Some(INIT_MAGIC) {
            return Err(lost("Server does not speak NBD"));
        }
        let style = match second {
            Some(OPTION_MAGIC) => {
                let theirs = u16::from_be_bytes(reader.array().await?);
                let known = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
                let flags = theirs & known;
                writer.send(Bytes::default().u32(flags.into()).0.into()).await?;
                let padding = flags & handshake::NO_ZEROES == 0;
                match flags & handshake::FIXED_NEWSTYLE {
                    0 => Style::New { padding },
                    _ => Style::Fixed { padding },
                }
            }
            Some(OLD_MAGIC) => {
                let size = u64::from_be_bytes(reader.array().await?);
                let flags = u32::from_be_bytes(reader.array().await?);
                reader.skip(PADDING as u64).await?;
                // The upper half is of no use, and neither is what has no flags at all.
                let flags = (flags & 0xffff) as u16;
                Style::Old { size, flags: if flags & flag::HAS_FLAGS == 0 { 0 } else { flags } }
            }
            _ => return Err(lost("Server does not speak a known negotiation")),
        };
        Ok(Handshake::resume(reader, writer, style))
    }

    /// A handshake that goes on where another one on the same connection has stopped.
    pub(super) fn resume(reader: &'a mut Reader, writer: &'a Writer, style: Style) -> Self {
        Handshake { reader, writer, style, structured: false, room: MOST }
    }

    /// Asks for TLS, which begins when this is done; how the handshake is to go on within that.
    pub(super) async fn start_tls(mut self) -> io::Result<Style> {
        if !matches!(self.style, Style::Fixed { .. }) {
            return Err(lost("Server does not support STARTTLS"));
        }
        match self.option(option::STARTTLS, &[]).await? {
            Answer::Done(_) if self.reader.ahead().is_empty() => Ok(self.style),
            // Anybody on the way could have said that.
            Answer::Done(_) => Err(lost("Server said something between the option and TLS")),
            Answer::Refused { kind, text } => Err(refused("TLS", kind, &text)),
        }
    }

    /// Asks for chunks; a server that has none does without.
    pub(super) async fn structured(&mut self) -> io::Result<()> {
        if matches!(self.style, Style::Fixed { .. }) {
            let answer = self.option(option::STRUCTURED_REPLY, &[]).await?;
            self.structured = matches!(answer, Answer::Done(_));
        }
        Ok(())
    }

    /// Selects or lists the contexts of an export that match.
    pub(super) async fn contexts(
        &mut self,
        kind: u32,
        export: &str,
        queries: &[&str],
    ) -> io::Result<Vec<(u32, String)>> {
        if !self.structured {
            return Ok(Vec::new());
        }
        let count = u32::try_from(queries.len()).unwrap_or(u32::MAX);
        let data = Bytes::default().string(export).u32(count);
        let data = queries.iter().fold(data, |data, query| data.string(query));
        let Answer::Done(replies) = self.option(kind, &data.0).await? else {
            return Ok(Vec::new());
        };
        replies
            .into_iter()
            .map(|(reply, data)| {
                let mut fields = Fields(&data);
                let id = fields.u32().filter(|_| reply == reply::META_CONTEXT);
                let name = std::str::from_utf8(fields.0).ok();
                match (id, name) {
                    (Some(id), Some(name)) if name.len() <= MAX_STRING => Ok((id, name.to_owned())),
                    _ => Err(lost("Server sent a broken metadata context")),
                }
            })
            .collect()
    }

    /// The names of the exports, with their descriptions.
    pub(super) async fn list(&mut self) -> io::Result<Vec<(String, Option<String>)>> {
        match self.style {
            Style::Fixed { .. } => {}
            Style::Old { .. } => return Ok(vec![(String::new(), None)]),
            Style::New { .. } => return Err(lost("Server cannot list its exports")),
        }
        let replies = match self.option(option::LIST, &[]).await? {
            Answer::Done(replies) => replies,
            Answer::Refused { kind, text } => return Err(refused("list of exports", kind, &text)),
        };
        replies
            .into_iter()
            .map(|(kind, data)| {
                let mut fields = Fields(&data);
                let name = fields.string().filter(|_| kind == reply::SERVER);
                let name = name.ok_or_else(|| lost("Server sent a broken list of exports"))?;
                Ok((name.to_owned(), text(fields.0)))
            })
            .collect()
    }

    /// Asks about an export; `None` when the server does not answer such questions.
    pub(super) async fn info(&mut self, export: &str) -> io::Result<Option<Facts>> {
        self.about(option::INFO, export).await
    }

    /// Chooses an export: requests come next.
    pub(super) async fn go(mut self, export: &str) -> io::Result<Facts> {
        let padding = match self.style {
            Style::Old { .. } if !export.is_empty() => {
                return Err(lost("Server does not support non-empty export names"));
            }
            Style::Old { size, flags } => return self.plain(export, size, flags),
            Style::New { padding } => padding,
            Style::Fixed { padding } => match self.about(option::GO, export).await? {
                Some(facts) => return Ok(facts),
                None => padding,
            },
        };
        let len = u32::try_from(export.len()).unwrap_or(u32::MAX);
        let message = option_head(option::EXPORT_NAME, len).raw(export.as_bytes());
        self.writer.send(message.0.into()).await?;
        let gone = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => lost(format!("Server has no export '{export}'")),
            _ => error,
        };
        let size = u64::from_be_bytes(self.reader.array().await.map_err(gone)?);
        let flags = u16::from_be_bytes(self.reader.array().await?);
        if padding {
            self.reader.skip(PADDING as u64).await?;
        }
        self.plain(export, size, flags)
    }

    /// Leaves a server before an export was chosen.
    pub(super) async fn abort(self) {
        if matches!(self.style, Style::Fixed { .. }) {
            let _ = self.writer.send(option_head(option::ABORT, 0).0.into()).await;
        }
    }

    fn plain(&self, name: &str, size: u64, flags: u16) -> io::Result<Facts> {
        check(Facts {
            name: name.to_owned(),
            description: None,
            size,
            flags,
            block_size: None,
            contexts: Vec::new(),
            structured: self.structured,
        })
    }

    async fn about(&mut self, kind: u32, export: &str) -> io::Result<Option<Facts>> {
        if !matches!(self.style, Style::Fixed { .. }) {
            return Ok(None);
        }
        let wanted = if kind == option::GO {
            &[info::BLOCK_SIZE][..]
        } else {
            &[info::NAME, info::DESCRIPTION, info::BLOCK_SIZE]
        };
        let count = u16::try_from(wanted.len()).unwrap_or(0);
        let data = Bytes::default().string(export).u16(count);
        let data = wanted.iter().fold(data, |data, what| data.u16(*what));
        let replies = match self.option(kind, &data.0).await? {
            Answer::Done(replies) => replies,
            Answer::Refused { kind: reply::UNSUP, .. } => return Ok(None),
            Answer::Refused { kind, text } => {
                return Err(refused(&format!("export '{export}'"), kind, &text));
            }
        };
        let mut facts = self.plain(export, 0, 0)?;
        let mut told = false;
        for (kind, data) in replies {
            let mut fields = Fields(&data);
            let what = fields.u16().filter(|_| kind == reply::INFO);
            let broken = || lost("Server sent broken information about the export");
            match what.ok_or_else(broken)? {
                info::EXPORT => {
                    facts.size = fields.u64().ok_or_else(broken)?;
                    facts.flags = fields.u16().ok_or_else(broken)?;
                    told = true;
                }
                info::NAME => facts.name = text(fields.0).unwrap_or_default(),
                info::DESCRIPTION => facts.description = text(fields.0),
                info::BLOCK_SIZE => {
                    let mut size = || fields.u32().ok_or_else(broken);
                    facts.block_size = Some((size()?, size()?, size()?));
                }
                _ => {}
            }
        }
        if !told {
            return Err(lost("Server did not tell the size of the export"));
        }
        check(facts).map(Some)
    }

    /// Sends an option and takes its replies up to the last one.
    async fn option(&mut self, kind: u32, data: &[u8]) -> io::Result<Answer> {
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.writer.send(option_head(kind, len).raw(data).0.into()).await?;
        let mut replies = Vec::new();
        loop {
            let head: [u8; HEAD] = self.reader.array().await?;
            let mut head = Fields(&head);
            let (magic, to) = (head.u64(), head.u32());
            let (Some(reply), Some(len)) = (head.u32(), head.u32()) else {
                return Err(lost("Server sent a broken reply"));
            };
            if magic != Some(REPLY_MAGIC) || to != Some(kind) {
                return Err(lost("Server sent something else than a reply to the option"));
            }
            let too_much = || lost("Server sent too much of a reply");
            if len > MAX_OPTION || replies.len() >= REPLIES {
                return Err(too_much());
            }
            let bytes = u64::from(len).saturating_add(HEAD as u64);
            self.room = self.room.checked_sub(bytes).ok_or_else(too_much)?;
            let data = self.reader.vec(len as usize).await?;
            match reply {
                reply::ACK => return Ok(Answer::Done(replies)),
                kind if kind & reply::ERROR != 0 => {
                    let text = text(&data).unwrap_or_default();
                    return Ok(Answer::Refused { kind, text });
                }
                kind => replies.push((kind, data)),
            }
        }
    }
}

/// A text of the server, for people: nothing in it can move a terminal's cursor.
fn text(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes.get(..bytes.len().min(MAX_STRING))?);
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    (!clean.is_empty()).then_some(clean)
}

fn refused(what: &str, kind: u32, said: &str) -> io::Error {
    let why = match kind {
        reply::UNSUP => "Server does not know what was asked for",
        reply::POLICY => "Server does not allow it",
        reply::INVALID => "Server found the request invalid",
        reply::PLATFORM => "Server lacks support for it",
        reply::TLS_REQD => "Server requires TLS",
        reply::UNKNOWN => "Requested export not available",
        reply::SHUTDOWN => "Server shutting down",
        reply::BLOCK_SIZE_REQD => "Server requires that block sizes are honoured",
        reply::TOO_BIG => "Server found the request too big",
        _ => "Server refused for an unknown reason",
    };
    let said = if said.is_empty() { String::new() } else { format!(" (server reported: {said})") };
    lost(format!("{what}: {why}{said}"))
}

/// Whether what was told can be.
fn check(facts: Facts) -> io::Result<Facts> {
    if facts.size > i64::MAX as u64 {
        return Err(lost(format!("Server export of {} bytes is too large", facts.size)));
    }
    if let Some((least, preferred, most)) = facts.block_size {
        if !least.is_power_of_two() || least > 1 << 16 {
            return Err(lost(format!("Server requires a minimum block size of {least}")));
        }
        if !preferred.is_power_of_two() || preferred < least {
            return Err(lost(format!("Server prefers a block size of {preferred}")));
        }
        if most < least.max(512) {
            return Err(lost(format!("Server takes no more than {most} bytes at once")));
        }
    }
    Ok(facts)
}

impl Facts {
    /// What offsets and lengths have to be multiples of.
    pub fn least(&self) -> u32 {
        self.block_size.map_or(1, |(least, _, _)| least)
    }

    /// The most bytes of one request.
    pub fn most(&self) -> u32 {
        let most = self.block_size.map_or(MAX_PAYLOAD, |(_, _, most)| most.min(MAX_PAYLOAD));
        most & !(self.least() - 1)
    }

    /// Whether the export has a flag of [`flag`].
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}
