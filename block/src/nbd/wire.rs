//! Numbers and layouts of the NBD protocol: newstyle negotiation, requests, simple and structured
//! replies. All integers are big-endian.
//!
//! The source is the protocol's document (doc/proto.md of the NBD project) and, for the resize
//! command, its extension of that name. Functions over bytes only: no thread, no lock. What is
//! parsed here comes from a peer that may lie about every length; a [`Fields`] ends where its
//! bytes end.

use std::io;

/// The port that is registered for NBD.
pub const PORT: u16 = 10809;
/// Most bytes that travel in one request or reply.
pub const MAX_PAYLOAD: u32 = 32 << 20;
/// Most bytes of a string: names of exports and contexts, messages.
pub const MAX_STRING: usize = 4096;
/// Most bytes of what comes with an option.
pub const MAX_OPTION: u32 = 64 << 10;
/// Most bytes that one request without payload reaches: a multiple of every block size.
pub const MAX_REACH: u64 = 1 << 31;

/// The first eight bytes of a server.
pub const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Begins an option, and newstyle negotiation.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Oldstyle negotiation.
pub const OLD_MAGIC: u64 = 0x0000_4202_8186_1253;
/// Begins the reply to an option.
pub const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Begins a request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Begins a simple reply.
pub const SIMPLE_MAGIC: u32 = 0x6744_6698;
/// Begins a chunk of a structured reply.
pub const STRUCTURED_MAGIC: u32 = 0x668e_33ef;

/// Bytes of a request without payload.
pub const REQUEST_LEN: usize = 28;
/// Bytes of a simple reply without payload.
pub const SIMPLE_LEN: usize = 16;
/// Bytes of the header of a chunk.
pub const CHUNK_LEN: usize = 20;
/// Zeros that end oldstyle negotiation and the answer to [`option::EXPORT_NAME`].
pub const PADDING: usize = 124;

/// Flags of the handshake: the same bits from server and client.
pub mod handshake {
    /// Options get replies.
    pub const FIXED_NEWSTYLE: u16 = 1;
    /// The padding is left out.
    pub const NO_ZEROES: u16 = 2;
}

/// What an export can do: transmission flags.
pub mod flag {
    /// Always set.
    pub const HAS_FLAGS: u16 = 1;
    /// Nothing can be written.
    pub const READ_ONLY: u16 = 1 << 1;
    /// There is a flush command.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// Writes can be durable.
    pub const SEND_FUA: u16 = 1 << 3;
    /// There is a trim command.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// There is a write-zeroes command.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// Reads can ask for one chunk.
    pub const SEND_DF: u16 = 1 << 7;
    /// Several connections see the same bytes, and a flush of one is a flush of all.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    /// There is a resize command.
    pub const SEND_RESIZE: u16 = 1 << 9;
    /// There is a cache command.
    pub const SEND_CACHE: u16 = 1 << 10;
    /// Zeroing can be asked for only if it is quick.
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// Options of the client in the handshake.
pub mod option {
    /// Use this export, without an answer that could be an error.
    pub const EXPORT_NAME: u32 = 1;
    /// End the session.
    pub const ABORT: u32 = 2;
    /// List the exports.
    pub const LIST: u32 = 3;
    /// Begin TLS.
    pub const STARTTLS: u32 = 5;
    /// Tell about an export.
    pub const INFO: u32 = 6;
    /// Tell about an export and use it.
    pub const GO: u32 = 7;
    /// Use structured replies.
    pub const STRUCTURED_REPLY: u32 = 8;
    /// List metadata contexts.
    pub const LIST_META_CONTEXT: u32 = 9;
    /// Select metadata contexts.
    pub const SET_META_CONTEXT: u32 = 10;
}

/// Replies to options.
pub mod reply {
    /// Done.
    pub const ACK: u32 = 1;
    /// An export.
    pub const SERVER: u32 = 2;
    /// Something about an export.
    pub const INFO: u32 = 3;
    /// A metadata context.
    pub const META_CONTEXT: u32 = 4;
    /// Set in every error.
    pub const ERROR: u32 = 1 << 31;
    /// An option the server does not know.
    pub const UNSUP: u32 = ERROR + 1;
    /// An option the server does not allow.
    pub const POLICY: u32 = ERROR + 2;
    /// An option with nonsense in it.
    pub const INVALID: u32 = ERROR + 3;
    /// An option the server was built without.
    pub const PLATFORM: u32 = ERROR + 4;
    /// TLS first.
    pub const TLS_REQD: u32 = ERROR + 5;
    /// No such export.
    pub const UNKNOWN: u32 = ERROR + 6;
    /// The server is ending.
    pub const SHUTDOWN: u32 = ERROR + 7;
    /// The client has to ask for block sizes.
    pub const BLOCK_SIZE_REQD: u32 = ERROR + 8;
    /// Too much at once.
    pub const TOO_BIG: u32 = ERROR + 9;
}

/// What is told about an export.
pub mod info {
    /// Size and flags.
    pub const EXPORT: u16 = 0;
    /// Its name.
    pub const NAME: u16 = 1;
    /// A text for people.
    pub const DESCRIPTION: u16 = 2;
    /// Block sizes.
    pub const BLOCK_SIZE: u16 = 3;
}

/// Commands.
pub mod command {
    /// Read.
    pub const READ: u16 = 0;
    /// Write.
    pub const WRITE: u16 = 1;
    /// End the session; no reply.
    pub const DISC: u16 = 2;
    /// Make durable.
    pub const FLUSH: u16 = 3;
    /// Discard.
    pub const TRIM: u16 = 4;
    /// Will be read soon.
    pub const CACHE: u16 = 5;
    /// Write zeros.
    pub const WRITE_ZEROES: u16 = 6;
    /// Metadata of a range.
    pub const BLOCK_STATUS: u16 = 7;
    /// Change the size to what stands in the offset.
    pub const RESIZE: u16 = 8;
}

/// Flags of commands.
pub mod command_flag {
    /// Durable when it is done.
    pub const FUA: u16 = 1;
    /// Zeros that keep their room.
    pub const NO_HOLE: u16 = 1 << 1;
    /// In one chunk.
    pub const DF: u16 = 1 << 2;
    /// One extent.
    pub const REQ_ONE: u16 = 1 << 3;
    /// Only if it is quick.
    pub const FAST_ZERO: u16 = 1 << 4;
}

/// Types of chunks of structured replies.
pub mod chunk {
    /// The end, and nothing else.
    pub const NONE: u16 = 0;
    /// Bytes at an offset.
    pub const OFFSET_DATA: u16 = 1;
    /// Zeros at an offset.
    pub const OFFSET_HOLE: u16 = 2;
    /// Extents of a metadata context.
    pub const BLOCK_STATUS: u16 = 5;
    /// Set in every error.
    pub const ERROR_BIT: u16 = 1 << 15;
    /// An error.
    pub const ERROR: u16 = ERROR_BIT + 1;
    /// An error at an offset.
    pub const ERROR_OFFSET: u16 = ERROR_BIT + 2;
    /// Flag: the last chunk of the reply.
    pub const DONE: u16 = 1;
}

/// Status of extents in `base:allocation`, and the bit of dirty bitmaps.
pub mod state {
    /// Takes no room.
    pub const HOLE: u32 = 1;
    /// Reads as zeros.
    pub const ZERO: u32 = 2;
    /// In a dirty bitmap: was written.
    pub const DIRTY: u32 = 1;
}

/// The context that tells data from holes and zeros.
pub const BASE_ALLOCATION: &str = "base:allocation";
/// What the context of a dirty bitmap begins with; its name follows.
pub const DIRTY_BITMAP: &str = "qemu:dirty-bitmap:";

/// The context that tells how many layers of a chain there are down to what holds a range.
pub const ALLOCATION_DEPTH: &str = "qemu:allocation-depth";

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// See [`command_flag`].
    pub flags: u16,
    /// See [`command`].
    pub command: u16,
    /// The client's mark, which the reply repeats.
    pub cookie: u64,
    /// In bytes.
    pub offset: u64,
    /// In bytes.
    pub length: u32,
}

impl Request {
    /// Reads one; `None` when that is not the beginning of a request.
    pub fn parse(bytes: &[u8; REQUEST_LEN]) -> Option<Request> {
        let mut fields = Fields(bytes);
        if fields.u32()? != REQUEST_MAGIC {
            return None;
        }
        Some(Request {
            flags: fields.u16()?,
            command: fields.u16()?,
            cookie: fields.u64()?,
            offset: fields.u64()?,
            length: fields.u32()?,
        })
    }

    /// As it travels.
    pub fn bytes(&self) -> Vec<u8> {
        Bytes::default()
            .u32(REQUEST_MAGIC)
            .u16(self.flags)
            .u16(self.command)
            .u64(self.cookie)
            .u64(self.offset)
            .u32(self.length)
            .0
    }
}

/// The beginning of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyHeader {
    /// All of it, but the bytes of a read.
    Simple {
        /// An error number of the protocol; 0 for none.
        error: u32,
        /// Of the request.
        cookie: u64,
    },
    /// A chunk.
    Chunk(Chunk),
}

/// The header of a chunk of a structured reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// See [`chunk::DONE`].
    pub flags: u16,
    /// See [`chunk`].
    pub kind: u16,
    /// Of the request.
    pub cookie: u64,
    /// Bytes that follow.
    pub length: u32,
}

impl Chunk {
    /// As it travels.
    pub fn bytes(&self) -> Bytes {
        Bytes::default()
            .u32(STRUCTURED_MAGIC)
            .u16(self.flags)
            .u16(self.kind)
            .u64(self.cookie)
            .u32(self.length)
    }
}

/// The header of a simple reply as it travels.
pub fn simple_reply(error: u32, cookie: u64) -> Vec<u8> {
    Bytes::default().u32(SIMPLE_MAGIC).u32(error).u64(cookie).0
}

/// The head of an option as it travels.
pub fn option_head(option: u32, length: u32) -> Bytes {
    Bytes::default().u64(OPTION_MAGIC).u32(option).u32(length)
}

/// The head of the reply to an option as it travels.
pub fn option_reply(option: u32, kind: u32, length: u32) -> Bytes {
    Bytes::default().u64(REPLY_MAGIC).u32(option).u32(kind).u32(length)
}

/// Bytes that are put together.
#[derive(Debug, Clone, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// Adds a number.
    #[must_use]
    pub fn u16(mut self, value: u16) -> Bytes {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn u32(mut self, value: u32) -> Bytes {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn u64(mut self, value: u64) -> Bytes {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// Adds bytes.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Bytes {
        self.0.extend(bytes);
        self
    }

    /// Adds a string with its length before it.
    #[must_use]
    pub fn string(self, text: &str) -> Bytes {
        let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
        self.u32(len).raw(text.as_bytes())
    }
}

/// Bytes that are taken apart; `None` where they end too early.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// The next bytes.
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (now, later) = self.0.split_at_checked(len)?;
        self.0 = later;
        Some(now)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// The next number.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// The next number.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// The next number.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// The next string, with its length before it; `None` if it is too long or no UTF-8 too.
    pub fn string(&mut self) -> Option<&'a str> {
        let len = usize::try_from(self.u32()?).ok()?;
        if len > MAX_STRING {
            return None;
        }
        std::str::from_utf8(self.take(len)?).ok()
    }
}

/// The number that an error travels as. The protocol has eight of them; they are positive.
pub fn error_number(error: &io::Error) -> u32 {
    let number = match error.raw_os_error() {
        Some(number) => number,
        None => match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => libc::EPERM,
            io::ErrorKind::InvalidInput => libc::EINVAL,
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => libc::ENOSPC,
            io::ErrorKind::OutOfMemory => libc::ENOMEM,
            _ => libc::EIO,
        },
    };
    match number {
        libc::EPERM | libc::EACCES | libc::EROFS => 1,
        libc::ENOMEM => 12,
        libc::EINVAL => 22,
        libc::ENOSPC | libc::EFBIG | libc::EDQUOT => 28,
        libc::EOVERFLOW => 75,
        libc::EOPNOTSUPP => 95,
        libc::ESHUTDOWN => 108,
        _ => 5,
    }
}

/// The error that a number stands for; those that the protocol does not have are `EINVAL`.
pub fn error_of(number: u32) -> io::Error {
    io::Error::from_raw_os_error(match number {
        1 => libc::EPERM,
        5 => libc::EIO,
        12 => libc::ENOMEM,
        28 => libc::ENOSPC,
        75 => libc::EOVERFLOW,
        95 => libc::EOPNOTSUPP,
        108 => libc::ESHUTDOWN,
        _ => libc::EINVAL,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_request_makes_the_round_trip(
            flags: u16, command: u16, cookie: u64, offset: u64, length: u32, other: u8,
        ) {
            let request = Request { flags, command, cookie, offset, length };
            let mut bytes: [u8; REQUEST_LEN] = request.bytes().try_into().unwrap();
            prop_assert_eq!(Request::parse(&bytes), Some(request));
            if bytes[0] != other {
                bytes[0] = other;
                prop_assert_eq!(Request::parse(&bytes), None);
            }
        }

        #[test]
        fn fields_end_where_their_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut fields = Fields(&bytes);
            while fields.string().is_some() {}
            while fields.u16().is_some() {}
            prop_assert!(fields.0.len() < 2);
        }
    }

    #[test]
    fn errors_are_numbers_of_the_protocol() {
        let os = |number| error_number(&io::Error::from_raw_os_error(number));
        assert_eq!((os(libc::EROFS), os(libc::EACCES), os(libc::ENODEV)), (1, 1, 5));
        assert_eq!((os(libc::EDQUOT), os(libc::EINVAL), os(libc::EOPNOTSUPP)), (28, 22, 95));
        assert_eq!(error_number(&io::ErrorKind::InvalidInput.into()), 22);
        assert_eq!(error_number(&io::Error::other("anything")), 5);
        for number in [1, 5, 12, 22, 28, 75, 95, 108] {
            assert_eq!(error_number(&error_of(number)), number);
        }
        assert_eq!(error_of(30).raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn strings_are_bounded() {
        let long = "x".repeat(MAX_STRING + 1);
        assert!(Fields(&Bytes::default().string(&long).0).string().is_none());
        assert!(Fields(&Bytes::default().u32(u32::MAX).raw(b"abc").0).string().is_none());
        assert!(Fields(&Bytes::default().u32(1).raw(&[0xff]).0).string().is_none());
        assert_eq!(Fields(&Bytes::default().string("name").0).string(), Some("name"));
    }
}
