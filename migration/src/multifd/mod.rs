//! Memory by channels of its own, beside the connection that carries the rest (`multifd`).
//!
//! | piece | file |
//! |---|---|
//! | how a channel begins | here |
//! | the threads that send | `send.rs` |
//! | who is let in, and the threads that receive | `receive.rs` |
//!
//! The need `multifd` of the inventory announces how many channels come and what they show. When
//! the destination has answered a PING after it, the source connects as often, and the destination
//! lets them in. A channel begins with "VMCH", its
//! version, the session and its number; chunks (`chunk.rs`) follow, to their end mark.
//!
//! Every word of the dirty bitmap has its channel. So what a page was never overtakes what it is,
//! and nothing has to wait for anything but at the end: the destination loads the machine when
//! every channel has ended with its mark.
//!
//! A thread for each channel, on either side. Where one fails the migration fails, as if the main
//! connection had. Anybody can connect: who does not show the session at once is turned away.

mod receive;
mod send;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};

pub(crate) use receive::Arrivals;
pub use receive::Door;
pub(crate) use send::Channels;

use crate::needs::Announcement;
use crate::stream::Error;

/// The most channels of a migration. Either side has about 1 MiB of buffers for each.
pub const MOST: u8 = 16;

/// Bytes that only the two sides know, or on plain connections whoever reads along.
const SESSION: usize = 16;

const MAGIC: &[u8; 4] = b"VMCH";
const VERSION: u32 = 1;

impl Announcement {
    /// So many channels, of a session of their own.
    ///
    /// # Errors
    /// The host has no random bytes.
    pub(crate) fn new(count: u8) -> io::Result<Announcement> {
        let mut session = vec![0; SESSION];
        let mut rest = session.as_mut_slice();
        while !rest.is_empty() {
            let flags = rustix::rand::GetRandomFlags::empty();
            let got = rustix::rand::getrandom(&mut *rest, flags)?;
            rest = rest.get_mut(got..).unwrap_or_default();
        }
        Ok(Announcement { count, session })
    }

    /// Whether it can be what a source has announced.
    ///
    /// # Errors
    /// It cannot.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !(1..=MOST).contains(&self.count) {
            let text = format!("{} channels are announced, not 1 to {MOST}", self.count);
            return Err(Error::bad(text));
        }
        if self.session.len() != SESSION {
            return Err(Error::bad("the session of the channels is no session"));
        }
        Ok(())
    }

    /// Says which channel this is.
    pub(crate) fn greet(&self, to: &mut impl Write, number: u8) -> io::Result<()> {
        let version = VERSION.to_be_bytes();
        to.write_all(&[MAGIC, &version[..], &self.session, &[number]].concat())?;
        to.flush()
    }

    /// Hears which channel it is.
    pub(crate) fn meet(&self, from: &mut impl Read) -> io::Result<u8> {
        let refused = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidData, why));
        let mut bytes = [0; 8];
        from.read_exact(&mut bytes)?;
        let (magic, version) = bytes.split_at(4);
        if magic != MAGIC {
            return refused("it is no channel");
        }
        if version != VERSION.to_be_bytes() {
            return refused("it is of another version");
        }
        let mut session = [0; SESSION];
        from.read_exact(&mut session)?;
        if session[..] != self.session {
            return refused("it is of another session");
        }
        let mut number = [0];
        from.read_exact(&mut number)?;
        match number {
            [number] if number < self.count => Ok(number),
            [number] => refused(&format!("there is no channel {number}")),
        }
    }
}
