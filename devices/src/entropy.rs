//! Sources of random bytes, as a device reads them.
//!
//! Read on the I/O loop of the device that has it, by any number of tasks. How much a guest may
//! have in which time is the device's to say; a reader holds the bytes it asked for.

use std::io;
use std::pin::Pin;

use resources::iol::Local;

/// A source of random bytes.
pub trait Entropy: Send + Sync {
    /// Reads at least one and at most `len` bytes (none if `len` is 0), as soon as there are some.
    /// Dropping the future gives up; bytes on their way may then be lost.
    ///
    /// # Errors
    /// What the source says, such as the end of a file; it may work later.
    fn read<'a>(&'a self, on: &'a Local, len: usize) -> Reading<'a>;
}

/// What [`Entropy::read`] gives.
pub type Reading<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<u8>>> + 'a>>;

/// The most bytes of one read, whatever was asked for.
pub const MAX_READ: usize = 64 << 10;

/// The host kernel's generator, which never runs dry.
#[derive(Debug, Clone, Copy)]
pub struct HostEntropy;

impl Entropy for HostEntropy {
    fn read<'a>(&'a self, _: &'a Local, len: usize) -> Reading<'a> {
        Box::pin(async move {
            let mut bytes = vec![0; len.min(MAX_READ)];
            let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
            bytes.truncate(got);
            Ok(bytes)
        })
    }
}
