//! Client against server, and each against a hostile peer.

mod hostile;
mod model;
mod server;
mod stalled;
mod tls;

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use resources::iol::{IoBuf, Local, Loop};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::client::{self, Client, Options};
use super::server::{Export, Server};
use crate::disk::Disk;
use crate::memory::Memory;
use crate::node::{Extent, Info, Node, Op, State, Zero};

fn run<F: Future>(task: impl FnOnce(Local) -> F) -> F::Output {
    let mut the_loop = Loop::new("nbd").unwrap();
    let local = the_loop.local().clone();
    the_loop.run(task(local))
}

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
}

/// A disk in memory that knows holes, fails and waits as it is told.
struct Faulty {
    memory: Rc<Memory>,
    /// 512 bytes each: nothing was written there.
    holes: RefCell<Vec<bool>>,
    fails: Cell<Option<i32>>,
    /// Requests wait while this is set.
    holds: Cell<bool>,
    under_way: Cell<usize>,
    most_under_way: Cell<usize>,
    begun: Cell<usize>,
    flushes: Cell<usize>,
    durable: Cell<usize>,
    local: Local,
}

impl Faulty {
    fn new(local: &Local, size: usize) -> Rc<Faulty> {
        Rc::new(Faulty {
            memory: Memory::new(vec![0; size], 1 << 40),
            holes: RefCell::new(vec![true; size.div_ceil(512)]),
            fails: Cell::new(None),
            holds: Cell::new(false),
            under_way: Cell::new(0),
            most_under_way: Cell::new(0),
            begun: Cell::new(0),
            flushes: Cell::new(0),
            durable: Cell::new(0),
            local: local.clone(),
        })
    }

    async fn begin(&self) -> io::Result<()> {
        self.begun.set(self.begun.get() + 1);
        self.under_way.set(self.under_way.get() + 1);
        self.most_under_way.set(self.most_under_way.get().max(self.under_way.get()));
        self.local.yield_now().await;
        while self.holds.get() {
            self.local.sleep(std::time::Duration::from_millis(1)).await;
        }
        self.under_way.set(self.under_way.get() - 1);
        match self.fails.get() {
            Some(number) => Err(io::Error::from_raw_os_error(number)),
            None => Ok(()),
        }
    }

    fn touch(&self, offset: u64, len: u64, hole: bool) {
        let mut holes = self.holes.borrow_mut();
        let (from, to) = (offset as usize / 512, (offset + len).div_ceil(512) as usize);
        let whole = offset.is_multiple_of(512) && len.is_multiple_of(512);
        if !hole || whole {
            let all = holes.len().max(to);
            holes.resize(all, true);
            holes[from..to].fill(hole);
        }
    }
}

impl Node for Faulty {
    fn info(&self) -> Info {
        self.memory.info()
    }

    fn read(&self, offset: u64, buf: IoBuf) -> Op<'_> {
        Box::pin(async move {
            self.begin().await?;
            self.memory.read(offset, buf).await
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, durable: bool) -> Op<'_> {
        Box::pin(async move {
            self.begin().await?;
            self.durable.set(self.durable.get() + usize::from(durable));
            self.touch(offset, buf.len() as u64, false);
            self.memory.write(offset, buf, durable).await
        })
    }

    fn zero(&self, offset: u64, len: u64, how: Zero) -> Op<'_> {
        Box::pin(async move {
            self.begin().await?;
            self.touch(offset, len, how == Zero::MayUnmap);
            self.memory.zero(offset, len, how).await
        })
    }

    fn zero_fast(&self, offset: u64, len: u64, how: Zero) -> Op<'_> {
        Box::pin(async move {
            if !offset.is_multiple_of(512) {
                return Err(io::ErrorKind::Unsupported.into());
            }
            self.zero(offset, len, how).await
        })
    }

    fn discard(&self, offset: u64, len: u64) -> Op<'_> {
        self.zero(offset, len, Zero::MayUnmap)
    }

    fn flush(&self) -> Op<'_> {
        Box::pin(async move {
            self.begin().await?;
            self.flushes.set(self.flushes.get() + 1);
            Ok(())
        })
    }

    fn map(&self, offset: u64, len: u64) -> Op<'_, Extent> {
        Box::pin(async move {
            self.begin().await?;
            let holes = self.holes.borrow();
            let first = offset as usize / 512;
            let hole = holes[first];
            let same = holes[first..].iter().take_while(|is| **is == hole).count();
            let end = ((first + same) * 512) as u64;
            let len = (end - offset).min(len);
            let state = if hole { State::Zero } else { State::Data };
            Ok(Extent { len, state, offset: Some(offset) })
        })
    }

    fn resize(&self, size: u64) -> Op<'_> {
        self.holes.borrow_mut().resize(size.div_ceil(512) as usize, true);
        self.memory.resize(size)
    }
}

/// An export of a node on this loop.
fn export(local: &Local, name: &str, node: Rc<dyn Node>) -> Export {
    let disk = Disk::alone(node);
    let size = disk.info().size;
    let place = Arc::new(local.keep(disk));
    Export::new(name, size, move || Some(place.clone())).writable(true)
}

/// A server with one export, nameless and writable.
fn serving(local: &Local, node: Rc<dyn Node>) -> Server {
    let server = Server::new(usize::MAX);
    server.add(export(local, "", node)).unwrap();
    server
}

/// A client of it.
async fn client(local: &Local, server: &Server, name: &str, options: Options) -> Rc<Client> {
    let (ours, theirs) = pair();
    server.serve(local, theirs, Arc::new(|| {}));
    client::open_socket(local, ours, name, options).await.unwrap()
}

async fn bytes(node: &dyn Node, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let buf = IoBuf::zeroed(len);
    buf.fill(0xee);
    node.read(offset, buf.clone()).await?;
    Ok(buf.to_vec())
}
