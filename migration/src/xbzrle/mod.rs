//! XBZRLE (xor-based zero run length encoding): a page as the difference to what the other side
//! has.
//!
//! | piece | file |
//! |---|---|
//! | the encoder as the format tells it, byte by byte | `scalar.rs` |
//! | the encoder with vector instructions | `vector.rs` |
//! | the decoder | `decode.rs` |
//! | what the other side has | `cache.rs` |
//! | how a page is sent | `sender.rs` |
//!
//! The format, from a page that both sides have to a new one:
//!
//! ```text
//! page  := { zrun nzrun }        zrun: how many bytes are the same (0 only at the beginning)
//! zrun  := uleb                  nzrun: how many bytes differ (not 0), and they
//! nzrun := uleb bytes
//! uleb  := 1 byte below 128, else 2: the low 7 bits and 128, the high 7 bits
//! ```
//!
//! Bytes after the last run stay as they are, so an unchanged page is nothing at all.
//!
//! On the thread that sends or that receives, without locks. A guest chooses the pages and a peer
//! the deltas: an encoder gives up where a page is shorter, a decoder where a delta makes no sense.

mod cache;
mod decode;
mod scalar;
mod sender;
#[cfg(test)]
mod tests;
mod vector;

pub use cache::{Cache, CacheError};
#[doc(hidden)]
pub use decode::fuzz;
pub use decode::{DecodeError, decode};
pub use sender::{Form, Sender, Stats};

use crate::simd::Simd;

/// The bytes of a page.
pub const PAGE_SIZE: usize = 4096;

/// A page's content.
pub type Page = [u8; PAGE_SIZE];

/// What [`Encoder::encode`] made of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// The pages are the same: nothing needs to be sent.
    Unchanged,
    /// The difference is in that many bytes of the output, 1 to 4096.
    Delta(usize),
    /// The difference would be longer than a page: send the page.
    Overflow,
}

/// Makes deltas, with the best instructions there are.
pub struct Encoder {
    simd: Simd,
    edges: Box<vector::Edges>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// With the best instructions of this processor.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Simd::detect())
    }

    /// With chosen instructions, for tests and benches. What the processor does not have is not
    /// used.
    #[must_use]
    pub fn with(simd: Simd) -> Self {
        Self { simd, edges: vector::edges() }
    }

    /// The difference from `old` to `new`, into `out`; what is after the delta there is undefined.
    /// All instructions give the same delta.
    #[must_use]
    pub fn encode(&mut self, old: &Page, new: &Page, out: &mut Page) -> Encoded {
        vector::encode(self.simd, old, new, out, &mut self.edges)
    }
}

/// Puts runs into the output, as far as it has room.
struct Writer<'a> {
    out: &'a mut Page,
    len: usize,
}

impl<'a> Writer<'a> {
    fn new(out: &'a mut Page) -> Self {
        Self { out, len: 0 }
    }

    /// One run: `same` equal bytes, then those of `new` from `start` to `end`. None: no room.
    fn run(&mut self, same: usize, new: &Page, start: usize, end: usize) -> Option<()> {
        self.length(same)?;
        self.length(end - start)?;
        let bytes = new.get(start..end)?;
        let after = self.len + bytes.len();
        self.out.get_mut(self.len..after)?.copy_from_slice(bytes);
        self.len = after;
        Some(())
    }

    /// A uleb of up to 14 bits. Two bytes must be free, even where one is enough.
    fn length(&mut self, length: usize) -> Option<()> {
        let long = length >= 0x80;
        let [low, high] = [(length & 0x7F) as u8 | u8::from(long) << 7, (length >> 7) as u8];
        *self.out.get_mut(self.len..)?.first_chunk_mut()? = [low, high];
        self.len += 1 + usize::from(long);
        Some(())
    }

    fn finish(self) -> Encoded {
        if self.len == 0 { Encoded::Unchanged } else { Encoded::Delta(self.len) }
    }
}
