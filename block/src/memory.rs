//! Bytes in memory, for images that are made and looked at without a file.
//!
//! On its loop, no lock. What is written beyond the limit fails as on a full disk.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use resources::iol::IoBuf;

use crate::node::{Extent, Info, Node, Op, State, Zero};

/// A file in memory. It grows by what is written, as files do.
pub struct Memory {
    bytes: RefCell<Vec<u8>>,
    limit: u64,
}

impl Memory {
    /// `bytes`, which may grow up to `limit`.
    pub fn new(bytes: Vec<u8>, limit: u64) -> Rc<Memory> {
        Rc::new(Memory { bytes: RefCell::new(bytes), limit })
    }

    /// What it holds.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.borrow().clone()
    }

    /// Runs `then` on a range, which is made to exist.
    fn with(&self, offset: u64, len: u64, then: impl FnOnce(&mut [u8])) -> io::Result<()> {
        let end = offset.checked_add(len).filter(|end| *end <= self.limit);
        let end = end.ok_or(io::ErrorKind::StorageFull)? as usize;
        let mut bytes = self.bytes.borrow_mut();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        if let Some(place) = bytes.get_mut(offset as usize..end) {
            then(place);
        }
        Ok(())
    }
}

impl Node for Memory {
    fn info(&self) -> Info {
        Info {
            size: self.bytes.borrow().len() as u64,
            align: 1,
            sectors: None,
            discards: false,
            read_only: false,
        }
    }

    fn read(&self, offset: u64, buf: IoBuf) -> Op<'_> {
        let bytes = self.bytes.borrow();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let data = bytes.get(start..).unwrap_or_default();
        let count = buf.copy_from(0, data.get(..buf.len()).unwrap_or(data));
        buf.skip(count).fill(0);
        Box::pin(async { Ok(()) })
    }

    fn write(&self, offset: u64, buf: IoBuf, _durable: bool) -> Op<'_> {
        let done = self.with(offset, buf.len() as u64, |place| {
            buf.copy_to(0, place);
        });
        Box::pin(async { done })
    }

    fn zero(&self, offset: u64, len: u64, _how: Zero) -> Op<'_> {
        let done = self.with(offset, len, |place| place.fill(0));
        Box::pin(async { done })
    }

    fn discard(&self, _offset: u64, _len: u64) -> Op<'_> {
        Box::pin(async { Ok(()) })
    }

    fn flush(&self) -> Op<'_> {
        Box::pin(async { Ok(()) })
    }

    fn map(&self, offset: u64, len: u64) -> Op<'_, Extent> {
        let len = len.min(self.info().size.saturating_sub(offset));
        Box::pin(async move { Ok(Extent { len, state: State::Data, offset: Some(offset) }) })
    }

    fn reopen(&self, _read_only: bool) -> Op<'_> {
        // Anybody may write: it is for those above to keep to it.
        Box::pin(async { Ok(()) })
    }

    fn resize(&self, size: u64) -> Op<'_> {
        let done = self.with(size, 0, |_| {});
        if done.is_ok() {
            self.bytes.borrow_mut().truncate(size as usize);
        }
        Box::pin(async { done })
    }
}
