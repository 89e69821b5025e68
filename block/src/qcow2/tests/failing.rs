//! A file whose writes and flushes fail when a test wants it.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use resources::iol::IoBuf;

use crate::memory::Memory;
use crate::node::{Extent, Info, Node, Op, Zero};

/// A file that fails for a while. What it writes then is written all the same, which is the worst
/// that can be, unless that is asked for.
pub(in super::super) struct Failing {
    file: Rc<Memory>,
    /// Writes and flushes that go well, and those after them that do not.
    well: Cell<u64>,
    ill: Cell<u64>,
    /// How often it has failed.
    pub(in super::super) failures: Cell<u64>,
    /// Writes that fail write nothing.
    pub(in super::super) loses: Cell<bool>,
    /// Reads from here fail.
    pub(in super::super) unreadable: Cell<Option<u64>>,
}

impl Failing {
    pub(in super::super) fn new(file: &Rc<Memory>) -> Rc<Failing> {
        Rc::new(Failing {
            file: file.clone(),
            well: Cell::new(u64::MAX),
            ill: Cell::new(0),
            failures: Cell::new(0),
            loses: Cell::new(false),
            unreadable: Cell::new(None),
        })
    }

    pub(in super::super) fn fail(&self, well: u64, ill: u64) {
        self.well.set(well);
        self.ill.set(ill);
    }

    fn turn(&self) -> io::Result<()> {
        let of = if self.well.get() > 0 { &self.well } else { &self.ill };
        let fails = self.well.get() == 0 && self.ill.get() > 0;
        of.set(of.get().saturating_sub(1));
        if fails {
            self.failures.set(self.failures.get() + 1);
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }
}

impl Node for Failing {
    fn info(&self) -> Info {
        self.file.info()
    }

    fn read(&self, offset: u64, buf: IoBuf) -> Op<'_> {
        if self.unreadable.get() == Some(offset) {
            return Box::pin(async { Err(io::Error::from_raw_os_error(libc::EIO)) });
        }
        self.file.read(offset, buf)
    }

    fn write(&self, offset: u64, buf: IoBuf, durable: bool) -> Op<'_> {
        Box::pin(async move {
            let turn = self.turn();
            if turn.is_ok() || !self.loses.get() {
                self.file.write(offset, buf, durable).await?;
            }
            turn
        })
    }

    fn zero(&self, offset: u64, len: u64, how: Zero) -> Op<'_> {
        self.file.zero(offset, len, how)
    }

    fn discard(&self, offset: u64, len: u64) -> Op<'_> {
        self.file.discard(offset, len)
    }

    fn flush(&self) -> Op<'_> {
        Box::pin(async { self.turn() })
    }

    fn map(&self, offset: u64, len: u64) -> Op<'_, Extent> {
        self.file.map(offset, len)
    }

    fn reopen(&self, read_only: bool) -> Op<'_> {
        self.file.reopen(read_only)
    }
}
