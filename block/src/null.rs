//! A disk of zeros that forgets what is written: for tests and measurements.
//!
//! On its loop, no lock.

use std::io;

use resources::iol::IoBuf;

use crate::node::{Extent, Info, Node, Op, State, Zero};

/// So many bytes of nothing.
pub struct Null(pub u64);

impl Null {
    fn within(&self, offset: u64, len: u64) -> io::Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.0 => Ok(()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl Node for Null {
    fn info(&self) -> Info {
        Info { size: self.0, align: 1, sectors: None, discards: true, read_only: false }
    }

    fn read(&self, offset: u64, buf: IoBuf) -> Op<'_> {
        Box::pin(async move {
            self.within(offset, buf.len() as u64)?;
            buf.fill(0);
            Ok(())
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, _: bool) -> Op<'_> {
        Box::pin(async move { self.within(offset, buf.len() as u64) })
    }

    fn zero(&self, offset: u64, len: u64, _: Zero) -> Op<'_> {
        Box::pin(async move { self.within(offset, len) })
    }

    fn discard(&self, offset: u64, len: u64) -> Op<'_> {
        Box::pin(async move { self.within(offset, len) })
    }

    fn flush(&self) -> Op<'_> {
        Box::pin(async { Ok(()) })
    }

    fn map(&self, offset: u64, len: u64) -> Op<'_, Extent> {
        Box::pin(async move {
            let len = len.min(self.0.saturating_sub(offset));
            Ok(Extent { len, state: State::Zero, offset: None })
        })
    }
}
