//! The raw format: a node, or a part of one, byte for byte.
//!
//! On its loop, no lock. Ranges are checked against the part before they are moved.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use resources::iol::IoBuf;

use crate::chain;
use crate::node::{Extent, Info, Node, Op, State, Zero};

/// A part of another node.
pub struct Raw {
    file: Rc<dyn Node>,
    offset: u64,
    size: Cell<u64>,
    /// It is the rest of the file and grows with it.
    whole: bool,
}

impl Raw {
    /// `file` from `offset` on: `size` bytes of it, or the rest of it rounded up to a sector.
    ///
    /// # Errors
    /// When that is not in the file.
    pub fn new(file: Rc<dyn Node>, offset: u64, size: Option<u64>) -> io::Result<Raw> {
        let all = file.info().size;
        let rest = all.checked_sub(offset).ok_or(io::ErrorKind::InvalidInput)?;
        let whole = size.is_none();
        let size = match size {
            None => rest.checked_next_multiple_of(512).ok_or(io::ErrorKind::InvalidInput)?,
            Some(size) if size <= rest => size,
            Some(_) => return Err(io::ErrorKind::InvalidInput.into()),
        };
        Ok(Raw { file, offset, size: Cell::new(size), whole })
    }

    /// Where a range is in the file.
    fn at(&self, offset: u64, len: u64) -> io::Result<u64> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size.get() => {
                self.offset.checked_add(offset).ok_or(io::ErrorKind::InvalidInput.into())
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn with<'a>(&'a self, offset: u64, len: u64, then: impl FnOnce(u64) -> Op<'a>) -> Op<'a> {
        match self.at(offset, len) {
            Ok(at) => then(at),
            Err(error) => Box::pin(async { Err(error) }),
        }
    }
}

impl Node for Raw {
    fn info(&self) -> Info {
        Info { size: self.size.get(), ..self.file.info() }
    }

    fn read(&self, offset: u64, buf: IoBuf) -> Op<'_> {
        self.with(offset, buf.len() as u64, |at| match self.file.step("read_aio") {
            None => self.file.read(at, buf),
            Some(step) => Box::pin(async move {
                step.await?;
                self.file.read(at, buf).await
            }),
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, durable: bool) -> Op<'_> {
        self.with(offset, buf.len() as u64, |at| match self.file.step("write_aio") {
            None => self.file.write(at, buf, durable),
            Some(step) => Box::pin(async move {
                step.await?;
                self.file.write(at, buf, durable).await
            }),
        })
    }

    fn zero(&self, offset: u64, len: u64, how: Zero) -> Op<'_> {
        self.with(offset, len, |at| self.file.zero(at, len, how))
    }

    fn zero_fast(&self, offset: u64, len: u64, how: Zero) -> Op<'_> {
        self.with(offset, len, |at| self.file.zero_fast(at, len, how))
    }

    fn discard(&self, offset: u64, len: u64) -> Op<'_> {
        self.with(offset, len, |at| self.file.discard(at, len))
    }

    fn flush(&self) -> Op<'_> {
        self.file.flush()
    }

    fn close(&self) -> Op<'_> {
        self.file.close()
    }

    fn map(&self, offset: u64, len: u64) -> Op<'_, Extent> {
        Box::pin(async move {
            let len = len.min(self.size.get().saturating_sub(offset));
            let at = self.at(offset, len)?;
            if self.file.image().is_none() {
                return self.file.map(at, len).await;
            }
            // An image has its backing files with it, which nobody could look for below this.
            let (state, len) = chain::state_above(&self.file, None, at, len).await?;
            let state = if state == State::Absent { State::Zero } else { state };
            Ok(Extent { len, state, offset: None })
        })
    }

    fn reopen(&self, read_only: bool) -> Op<'_> {
        self.file.reopen(read_only)
    }

    fn step(&self, name: &'static str) -> Option<Op<'_, ()>> {
        self.file.step(name)
    }

    fn resize(&self, size: u64) -> Op<'_> {
        Box::pin(async move {
            if !self.whole {
                return Err(io::ErrorKind::Unsupported.into());
            }
            let end = self.offset.checked_add(size).ok_or(io::ErrorKind::InvalidInput)?;
            self.file.resize(end).await?;
            self.size.set(size.checked_next_multiple_of(512).ok_or(io::ErrorKind::InvalidInput)?);
            Ok(())
        })
    }

    fn driver(&self) -> &'static str {
        "raw"
    }

    fn children(&self) -> Vec<(&'static str, Rc<dyn Node>)> {
        vec![("file", self.file.clone())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Mem;

    /// Nobody looks for backing files below this: what they have is data of it.
    #[test]
    fn a_part_of_an_overlay_has_what_shows_through_it() {
        resources::iol::Loop::new("test").unwrap().run(async {
            let base = Mem::filled(32 << 10, 7);
            let top = Mem::new(64 << 10, Some(base));
            top.zero(8 << 10, 4 << 10, Zero::Keep).await.unwrap();
            let raw: Rc<dyn Node> = Rc::new(Raw::new(top, 4 << 10, None).unwrap());
            let mut seen = Vec::new();
            while let Some(left) = raw.info().size.checked_sub(seen.len() as u64 * 4096)
                && left > 0
            {
                let at = seen.len() as u64 * 4096;
                let (content, len) = chain::run(&raw, at, left).await.unwrap();
                seen.extend(vec![content == chain::Content::Data; (len / 4096) as usize]);
            }
            let data: Vec<bool> = (1..16).map(|at| at < 8 && at != 2).collect();
            assert_eq!(seen, data);
        });
    }
}
