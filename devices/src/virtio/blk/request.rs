//! Requests of a disk (section 5.2.6): taking them, carrying them out, giving them back.
//!
//! On the loop that serves the queues, no lock. Everything in a request is the guest's: its kind,
//! its range, how much it gives and takes, and the memory it lies in, which may change while it is
//! looked at.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use block::{Action, Disk, Drive, Kind, Zero};

use super::config::{MAX_RANGE, feature};
use crate::virtio::{Broken, Chain, Short, Worker};

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

/// VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP.
const UNMAP: u32 = 1;

/// Bytes of a serial number.
const ID_LEN: usize = 20;
/// Bytes that describe a range to be discarded or zeroed.
const RANGE_LEN: u32 = 16;

/// What serving a disk takes.
pub(super) struct Serve {
    pub(super) drive: Arc<Drive>,
    /// Bytes that requests are multiples of.
    pub(super) block_size: u32,
    pub(super) serial: Vec<u8>,
    /// Features that were offered.
    pub(super) offered: u64,
}

impl Serve {
    /// Serves all queues until the device stops.
    pub(super) async fn all(self, workers: Vec<Rc<Worker>>) {
        let serve = Rc::new(self);
        let tasks: Vec<_> = workers
            .into_iter()
            .map(|worker| worker.local().clone().spawn(serve.clone().queue(worker)))
            .collect();
        for task in tasks {
            task.await;
        }
    }

    async fn queue(self: Rc<Self>, worker: Rc<Worker>) {
        let local = worker.local().clone();
        let disk = self.drive.disk(&local);
        while let Some(chain) = worker.next().await {
            match Request::parse(&chain) {
                Ok(request) => {
                    let (serve, worker) = (self.clone(), worker.clone());
                    let disk = disk.clone();
                    let task = async move { serve.one(&worker, disk, chain, request).await };
                    local.spawn(task).detach();
                }
                Err(Short) => worker.fail(chain, Broken::Request("a disk request has no header")),
            }
        }
    }

    /// Carries out a request and gives it back, or keeps it for when the machine goes on.
    async fn one(&self, worker: &Worker, disk: Option<Rc<Disk>>, chain: Chain, request: Request) {
        let started = Instant::now();
        let Some(op) = self.operation(&request, &chain) else {
            return finish(worker, chain, UNSUPP);
        };
        if let Op::Id = op {
            let mut id: Vec<u8> = self.serial.iter().copied().take(ID_LEN).collect();
            id.resize(ID_LEN, 0);
            let mut writer = chain.writer();
            let room = writer.remaining().saturating_sub(1);
            if let Ok(mut data) = writer.split_to(room) {
                data.write(&id);
            }
            return finish(worker, chain, OK);
        }
        // What can never be done is the driver's mistake, whatever is done about errors of the host.
        let size = if disk.is_some() { self.drive.size() } else { u64::MAX };
        let Some(offset) = self.place(&op, &request, size) else {
            return finish(worker, chain, IOERR);
        };
        let (kind, bytes) = op.account();
        let done = match disk {
            Some(disk) => carry_out(&disk, op, (offset, request.kind), &chain).await,
            None => Err(io::Error::from_raw_os_error(ENOMEDIUM)),
        };
        let status = match done {
            Ok(()) => OK,
            Err(error) => match self.drive.failed(kind != Kind::Read, &error) {
                Action::Stop => return worker.put_back(chain),
                Action::Ignore => OK,
                Action::Report => IOERR,
            },
        };
        self.drive.stats().account(kind, bytes, started);
        finish(worker, chain, status);
    }

    /// What a request asks for; `None` if this disk does no such thing.
    fn operation(&self, request: &Request, chain: &Chain) -> Option<Op> {
        let offers = |bit| self.offered & bit != 0;
        Some(match request.kind {
            IN => Op::Read(chain_data(chain)),
            OUT => Op::Write(request.data),
            FLUSH => Op::Flush,
            GET_ID => Op::Id,
            DISCARD if offers(feature::DISCARD) => Op::Range(self.range(request, chain, 0)?),
            WRITE_ZEROES if offers(feature::WRITE_ZEROES) => {
                Op::Range(self.range(request, chain, UNMAP)?)
            }
            _ => return None,
        })
    }

    /// The one range of a discard or a write of zeros, with no other flags than `allowed`.
    fn range(&self, request: &Request, chain: &Chain, allowed: u32) -> Option<Range> {
        if request.data != RANGE_LEN {
            return None;
        }
        let mut reader = chain.reader();
        reader.skip(HEADER);
        let (sector, sectors) = (reader.le64().ok()?, reader.le32().ok()?);
        let flags = reader.le32().ok()?;
        (flags & !allowed == 0).then_some(Range { sector, sectors, unmap: flags & UNMAP != 0 })
    }

    /// Where what a request asks for begins, in bytes; `None` unless it is whole blocks of a disk of
    /// `size` bytes, and not more of them than are offered.
    fn place(&self, op: &Op, request: &Request, size: u64) -> Option<u64> {
        let (sector, len) = match op {
            Op::Read(len) | Op::Write(len) => (request.sector, *len),
            Op::Range(range) if range.sectors <= MAX_RANGE => (range.sector, range.len()),
            Op::Range(_) => return None,
            Op::Flush | Op::Id => return Some(0),
        };
        let (offset, len) = (sector.checked_mul(512)?, u64::from(len));
        let mask = u64::from(self.block_size.wrapping_sub(1));
        let whole = (offset | len) & mask == 0;
        (whole && offset.checked_add(len)? <= size).then_some(offset)
    }
}

async fn carry_out(
    disk: &Disk,
    op: Op,
    (offset, kind): (u64, u32),
    chain: &Chain,
) -> io::Result<()> {
    match op {
        Op::Read(len) => {
            let data = chain.writer().split_to(len);
            let data = data.map_err(|Short| io::Error::from_raw_os_error(EIO))?;
            disk.read(offset, data.buf()).await
        }
        Op::Write(_) => {
            let mut data = chain.reader();
            data.skip(HEADER);
            disk.write(offset, data.buf(), false).await
        }
        Op::Flush => disk.flush().await,
        Op::Range(range) if kind == DISCARD => disk.discard(offset, range.len().into()).await,
        Op::Range(range) => {
            let how = if range.unmap { Zero::MayUnmap } else { Zero::Keep };
            disk.zero(offset, range.len().into(), how).await
        }
        Op::Id => Ok(()),
    }
}

const ENOMEDIUM: i32 = 123;
const EIO: i32 = 5;

/// Bytes of the header.
const HEADER: u32 = 16;

/// The header of a request.
struct Request {
    kind: u32,
    sector: u64,
    /// Bytes behind the header.
    data: u32,
}

impl Request {
    /// Copies the header; there must be room for the status too.
    fn parse(chain: &Chain) -> Result<Request, Short> {
        let mut reader = chain.reader();
        let (kind, _priority) = (reader.le32()?, reader.le32()?);
        let sector = reader.le64()?;
        if chain.writable().is_empty() {
            return Err(Short);
        }
        Ok(Request { kind, sector, data: reader.remaining() })
    }
}

struct Range {
    sector: u64,
    sectors: u32,
    unmap: bool,
}

impl Range {
    /// Bytes; of more than can be, the most there are.
    fn len(&self) -> u32 {
        self.sectors.saturating_mul(512)
    }
}

enum Op {
    Read(u32),
    Write(u32),
    Flush,
    Id,
    Range(Range),
}

impl Op {
    /// How it is counted.
    fn account(&self) -> (Kind, u64) {
        match self {
            Op::Read(len) => (Kind::Read, u64::from(*len)),
            Op::Write(len) => (Kind::Write, u64::from(*len)),
            Op::Range(range) => (Kind::Write, u64::from(range.len())),
            Op::Flush | Op::Id => (Kind::Flush, 0),
        }
    }
}

/// Bytes that a chain has room for, without the status.
fn chain_data(chain: &Chain) -> u32 {
    chain.writable_len().saturating_sub(1)
}

/// Writes the status into the last byte and gives the request back. All room counts as written, as
/// the status lies behind it.
fn finish(worker: &Worker, chain: Chain, status: u8) {
    let mut writer = chain.writer();
    let room = writer.remaining().saturating_sub(1);
    writer.skip(room);
    // There is that byte: the header was not taken without it.
    let _ = writer.write_all(&[status]);
    worker.done(chain, room.saturating_add(1));
}
