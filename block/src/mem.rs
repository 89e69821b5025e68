//! An image in memory for tests: with clusters, a backing file, faults on demand, and requests that
//! take their time.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use resources::iol::IoBuf;

use crate::image::{BackingFile, Facts, Image};
use crate::node::{Extent, Info, Node, Op, State, Zero};

/// Bytes of its clusters.
const CLUSTER: u64 = 4096;

/// A request that is to fail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) write: bool,
    pub(crate) at: u64,
    pub(crate) errno: i32,
    /// How often.
    pub(crate) times: u32,
}

pub(crate) struct Mem {
    data: RefCell<Vec<u8>>,
    own: RefCell<Vec<State>>,
    backing: RefCell<Option<Rc<dyn Node>>>,
    name: RefCell<Option<BackingFile>>,
    pub(crate) faults: RefCell<Vec<Fault>>,
    pub(crate) read_only: Cell<bool>,
    pub(crate) closed: Cell<bool>,
    /// It can name another backing file.
    pub(crate) renames: bool,
    /// Requests that have begun and wait, and the most that ever did.
    waiting: Cell<usize>,
    pub(crate) most_waiting: Cell<usize>,
    seed: Cell<u32>,
}

impl Mem {
    pub(crate) fn new(size: u64, backing: Option<Rc<dyn Node>>) -> Rc<Mem> {
        let name = backing.as_ref().map(|_| BackingFile { name: "below".into(), format: None });
        Rc::new(Mem {
            data: RefCell::new(vec![0; size as usize]),
            own: RefCell::new(vec![State::Absent; size.div_ceil(CLUSTER) as usize]),
            backing: RefCell::new(backing),
            name: RefCell::new(name),
            faults: RefCell::default(),
            read_only: Cell::new(false),
            closed: Cell::new(false),
            renames: true,
            waiting: Cell::new(0),
            most_waiting: Cell::new(0),
            seed: Cell::new(1),
        })
    }

    /// With every byte of it `byte`.
    pub(crate) fn filled(size: u64, byte: u8) -> Rc<Mem> {
        let mem = Mem::new(size, None);
        mem.data.borrow_mut().fill(byte);
        mem.own.borrow_mut().fill(State::Data);
        mem
    }

    pub(crate) fn fail(&self, write: bool, at: u64, errno: i32, times: u32) {
        self.faults.borrow_mut().push(Fault { write, at, errno, times });
    }

    /// Lets others run for a while, and fails if that is what the request is for.
    async fn enter(&self, write: bool, offset: u64, len: u64) -> io::Result<()> {
        let seed = self.seed.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.seed.set(seed);
        self.waiting.set(self.waiting.get() + 1);
        self.most_waiting.set(self.most_waiting.get().max(self.waiting.get()));
        for _ in 0..seed >> 30 {
            yield_now().await;
        }
        self.waiting.set(self.waiting.get() - 1);
        if write && self.read_only.get() {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        match offset.checked_add(len) {
            Some(end) if end <= self.size() => {}
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
        for fault in self.faults.borrow_mut().iter_mut() {
            let hit = (offset..offset + len.max(1)).contains(&fault.at);
            if fault.write == write && fault.times > 0 && hit {
                fault.times -= 1;
                return Err(io::Error::from_raw_os_error(fault.errno));
            }
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        self.data.borrow().len() as u64
    }

    fn below(&self) -> Option<Rc<dyn Node>> {
        self.backing.borrow().clone()
    }

    /// Reads what shows in a part of one cluster.
    async fn piece(&self, at: u64, len: u64) -> io::Result<Vec<u8>> {
        let state = self.own.borrow()[(at / CLUSTER) as usize];
        if state == State::Data {
            return Ok(self.data.borrow()[at as usize..(at + len) as usize].to_vec());
        }
        let mut bytes = vec![0; len as usize];
        if state == State::Absent
            && let Some(below) = self.below()
        {
            let room = below.info().size.saturating_sub(at).min(len);
            if room > 0 {
                let buf = IoBuf::zeroed(room as usize);
                below.read(at, buf.clone()).await?;
                bytes[..room as usize].copy_from_slice(&buf.to_vec());
            }
        }
        Ok(bytes)
    }

    /// The parts of a range that lie in one cluster each.
    fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (u64, u64)> {
        let mut at = offset;
        std::iter::from_fn(move || {
            let part = (offset + len - at).min(CLUSTER - at % CLUSTER);
            let piece = (part > 0).then_some((at, part));
            at += part;
            piece
        })
    }

    async fn put(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let cluster = at - at % CLUSTER;
        let room = CLUSTER.min(self.size() - cluster);
        let mut whole = self.piece(cluster, room).await?;
        // A cluster that somebody else has written meanwhile counts as it is now.
        if self.own.borrow()[(at / CLUSTER) as usize] == State::Data {
            let data = self.data.borrow();
            whole.copy_from_slice(&data[cluster as usize..(cluster + room) as usize]);
        }
        let from = (at - cluster) as usize;
        whole[from..from + bytes.len()].copy_from_slice(bytes);
        self.data.borrow_mut()[cluster as usize..(cluster + room) as usize].copy_from_slice(&whole);
        self.own.borrow_mut()[(at / CLUSTER) as usize] = State::Data;
        Ok(())
    }
}

async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

impl Node for Mem {
    fn info(&self) -> Info {
        let read_only = self.read_only.get();
        Info { size: self.size(), align: 1, sectors: None, discards: true, read_only }
    }

    fn read(&self, offset: u64, buf: IoBuf) -> Op<'_> {
        Box::pin(async move {
            self.enter(false, offset, buf.len() as u64).await?;
            for (at, len) in Mem::pieces(offset, buf.len() as u64) {
                let bytes = self.piece(at, len).await?;
                buf.copy_from((at - offset) as usize, &bytes);
            }
            Ok(())
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, _: bool) -> Op<'_> {
        Box::pin(async move {
            self.enter(true, offset, buf.len() as u64).await?;
            let bytes = buf.to_vec();
            for (at, len) in Mem::pieces(offset, buf.len() as u64) {
                let from = (at - offset) as usize;
                self.put(at, &bytes[from..from + len as usize]).await?;
            }
            Ok(())
        })
    }

    fn zero(&self, offset: u64, len: u64, _: Zero) -> Op<'_> {
        Box::pin(async move {
            self.enter(true, offset, len).await?;
            for (at, len) in Mem::pieces(offset, len) {
                if len == CLUSTER {
                    self.data.borrow_mut()[at as usize..(at + len) as usize].fill(0);
                    self.own.borrow_mut()[(at / CLUSTER) as usize] = State::Zero;
                } else {
                    self.put(at, &vec![0; len as usize]).await?;
                }
            }
            Ok(())
        })
    }

    fn discard(&self, offset: u64, len: u64) -> Op<'_> {
        self.zero(offset, len, Zero::MayUnmap)
    }

    fn flush(&self) -> Op<'_> {
        Box::pin(async move {
            for fault in self.faults.borrow_mut().iter_mut() {
                if fault.write && fault.at == u64::MAX && fault.times > 0 {
                    fault.times -= 1;
                    return Err(io::Error::from_raw_os_error(fault.errno));
                }
            }
            Ok(())
        })
    }

    fn map(&self, offset: u64, len: u64) -> Op<'_, Extent> {
        Box::pin(async move {
            yield_now().await;
            if offset >= self.size() {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let own = self.own.borrow();
            let state = own[(offset / CLUSTER) as usize];
            let mut end = offset - offset % CLUSTER + CLUSTER;
            while end < offset + len && own[(end / CLUSTER) as usize] == state {
                end += CLUSTER;
            }
            Ok(Extent { len: end.min(offset + len) - offset, state, offset: None })
        })
    }

    fn reopen(&self, read_only: bool) -> Op<'_> {
        self.read_only.set(read_only);
        Box::pin(async { Ok(()) })
    }

    fn close(&self) -> Op<'_> {
        self.closed.set(true);
        self.flush()
    }

    fn resize(&self, size: u64) -> Op<'_> {
        self.data.borrow_mut().resize(size as usize, 0);
        self.own.borrow_mut().resize(size.div_ceil(CLUSTER) as usize, State::Zero);
        Box::pin(async { Ok(()) })
    }

    fn image(&self) -> Option<&dyn Image> {
        Some(self)
    }
}

impl Image for Mem {
    fn format(&self) -> &'static str {
        "mem"
    }

    fn facts(&self) -> Facts {
        Facts { cluster_size: Some(CLUSTER), ..Facts::default() }
    }

    fn backing(&self) -> Option<Rc<dyn Node>> {
        self.below()
    }

    fn set_backing(&self, backing: Option<Rc<dyn Node>>) {
        *self.backing.borrow_mut() = backing;
    }

    fn backing_file(&self) -> Option<BackingFile> {
        self.name.borrow().clone()
    }

    fn change_backing_file(&self, backing: Option<BackingFile>) -> Op<'_> {
        if !self.renames {
            return Box::pin(async { Err(io::ErrorKind::Unsupported.into()) });
        }
        *self.name.borrow_mut() = backing;
        Box::pin(async { Ok(()) })
    }
}
