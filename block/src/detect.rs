//! Zeros that are looked for below the top: what a node is given to write, and is nothing but
//! zeros, becomes a write of zeros. At the top of a graph a [`Disk`](crate::Disk) looks for them.
//!
//! On its loop, no lock. Everything else goes to the node as it is.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use resources::iol::IoBuf;

use crate::blkdebug::Blkdebug;
use crate::host::HostFile;
use crate::image::Image;
use crate::node::{Extent, Info, Node, Op, Zero};
use crate::options::{OptionError, Options};

/// A node whose written zeros are looked for.
struct Detect {
    node: Rc<dyn Node>,
    how: Zero,
}

/// What `detect-zeroes` says: what becomes of zeros, if they are looked for. `discards`: room may
/// be given back.
///
/// # Errors
/// It is no value of the option, or does not go with the others; in words that clients know.
pub fn wanted(options: &mut Options, discards: bool) -> Result<Option<Zero>, OptionError> {
    match options.take("detect-zeroes").as_deref() {
        None | Some("off") => Ok(None),
        Some("on") => Ok(Some(Zero::Keep)),
        Some("unmap") if discards => Ok(Some(Zero::MayUnmap)),
        Some("unmap") => Err(OptionError(
            "setting detect-zeroes to unmap is not allowed without setting discard operation to \
             unmap"
                .to_owned(),
        )),
        Some(_) => Err(OptionError("invalid detect-zeroes option".to_owned())),
    }
}

/// The node, with zeros looked for if that is wanted.
pub(crate) fn over(node: Rc<dyn Node>, how: Option<Zero>) -> Rc<dyn Node> {
    match how {
        Some(how) => Rc::new(Detect { node, how }),
        None => node,
    }
}

impl Detect {
    async fn write_zeros(&self, offset: u64, len: u64, durable: bool) -> io::Result<()> {
        self.node.zero(offset, len, self.how).await?;
        if durable { self.node.flush().await } else { Ok(()) }
    }
}

impl Node for Detect {
    fn info(&self) -> Info {
        self.node.info()
    }

    fn read(&self, offset: u64, buf: IoBuf) -> Op<'_> {
        self.node.read(offset, buf)
    }

    fn write(&self, offset: u64, buf: IoBuf, durable: bool) -> Op<'_> {
        if buf.is_zero() {
            return Box::pin(self.write_zeros(offset, buf.len() as u64, durable));
        }
        self.node.write(offset, buf, durable)
    }

    fn zero(&self, offset: u64, len: u64, how: Zero) -> Op<'_> {
        self.node.zero(offset, len, how)
    }

    fn zero_fast(&self, offset: u64, len: u64, how: Zero) -> Op<'_> {
        self.node.zero_fast(offset, len, how)
    }

    fn discard(&self, offset: u64, len: u64) -> Op<'_> {
        self.node.discard(offset, len)
    }

    fn flush(&self) -> Op<'_> {
        self.node.flush()
    }

    fn map(&self, offset: u64, len: u64) -> Op<'_, Extent> {
        self.node.map(offset, len)
    }

    fn write_compressed(&self, offset: u64, buf: IoBuf) -> Op<'_> {
        self.node.write_compressed(offset, buf)
    }

    fn reopen(&self, read_only: bool) -> Op<'_> {
        self.node.reopen(read_only)
    }

    fn close(&self) -> Op<'_> {
        self.node.close()
    }

    fn step(&self, name: &'static str) -> Option<Op<'_, ()>> {
        self.node.step(name)
    }

    fn blkdebug(&self) -> Option<&Blkdebug> {
        self.node.blkdebug()
    }

    fn image(&self) -> Option<&dyn Image> {
        self.node.image()
    }

    fn resize(&self, size: u64) -> Op<'_> {
        self.node.resize(size)
    }

    fn driver(&self) -> &'static str {
        self.node.driver()
    }

    fn filename(&self) -> Option<String> {
        self.node.filename()
    }

    fn host(&self) -> Option<Arc<HostFile>> {
        self.node.host()
    }

    fn highest_offset(&self) -> u64 {
        self.node.highest_offset()
    }

    fn children(&self) -> Vec<(&'static str, Rc<dyn Node>)> {
        self.node.children()
    }
}
