//! Requests (section 5.6.6.1): taking commands, moving their data, and giving them back.
//!
//! On the adapter's loop, no lock of its own. Everything in a request is the guest's: address,
//! command, how much it gives and takes, and the memory it lies in, which may change while it is
//! looked at. What is to be moved was placed inside the medium by the unit, and is checked against
//! the request's room here.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use block::throttle::Direction;
use block::{Action, Disk, Kind, Zero};
use resources::iol::{Either, IoBuf, Local, Notify, race};

use super::adapter::{Sizes, parse_lun};
use crate::scsi::{Command, Place, ScsiBus, ScsiDrive, Sense, Work, absent, report_luns};
use crate::virtio::{Broken, Chain, Worker};

/// Bytes of a request before its command.
const HEAD: u32 = 19;
/// Bytes of a response before its sense data.
const RESPONSE: u32 = 12;
/// The most bytes compared or filled at once.
const PIECE: u64 = 1 << 20;

/// Response codes.
const OK: u8 = 0;
const OVERRUN: u8 = 1;
const BAD_TARGET: u8 = 3;
/// A task that was ended by who manages tasks: alone or with others, or by a reset.
pub(super) const ABORTED: u8 = 2;
pub(super) const RESET: u8 = 4;

const GOOD: u8 = 0;
const CHECK_CONDITION: u8 = 2;

/// A command under way.
pub(super) struct Task {
    place: Place,
    tag: u64,
    /// The response with which it is to end, if it can still be ended.
    cancelled: Cell<Option<u8>>,
    cancel: Notify,
    ended: Cell<bool>,
}

impl Task {
    /// It ends when it is noticed: while it waits, at once; while the host is at it, not before
    /// that has done what it was given.
    pub(super) fn cancel(&self, response: u8) {
        self.cancelled.set(Some(response));
        self.cancel.notify();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// How it ends, if it is to.
    fn end(&self) -> Result<(), Stop> {
        self.cancelled.get().map_or(Ok(()), |response| Err(Stop::Cancelled(response)))
    }

    /// Waits for something, until it is to end.
    async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        self.end()?;
        match race(self.cancel.notified(), work).await {
            Either::Left(()) => Err(Stop::Cancelled(self.cancelled.get().unwrap_or(ABORTED))),
            Either::Right(done) => Ok(done),
        }
    }
}

/// Why a command is not carried out to its end.
enum Stop {
    Cancelled(u8),
    Failed(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Failed(error)
    }
}

/// Commands under way.
#[derive(Default)]
pub(super) struct Tasks {
    all: RefCell<Vec<Rc<Task>>>,
    /// One has ended.
    pub(super) ended: Notify,
}

impl Tasks {
    /// Those under way: of a target, of one of its units, with a tag.
    pub(super) fn find(&self, target: u8, lun: Option<u16>, tag: Option<u64>) -> Vec<Rc<Task>> {
        let wanted = |task: &&Rc<Task>| {
            task.place.target == target
                && lun.is_none_or(|lun| task.place.lun == lun)
                && tag.is_none_or(|tag| task.tag == tag)
        };
        self.all.borrow().iter().filter(wanted).cloned().collect()
    }

    fn begin(&self, place: Place, tag: u64) -> Rc<Task> {
        let (cancelled, cancel, ended) = (Cell::new(None), Notify::new(), Cell::new(false));
        let task = Rc::new(Task { place, tag, cancelled, cancel, ended });
        self.all.borrow_mut().push(task.clone());
        task
    }

    fn end(&self, task: &Rc<Task>) {
        task.ended.set(true);
        let mut all = self.all.borrow_mut();
        if let Some(index) = all.iter().position(|one| Rc::ptr_eq(one, task)) {
            all.swap_remove(index);
        }
        drop(all);
        self.ended.notify();
    }
}

/// What serving commands takes.
pub(super) struct Serve {
    pub(super) bus: Arc<ScsiBus>,
    pub(super) sizes: Arc<Sizes>,
    pub(super) tasks: Tasks,
}

/// A request without its command.
struct Header {
    place: Option<Place>,
    tag: u64,
    cdb: Vec<u8>,
}

/// How a request ends.
enum Ended {
    /// With this much data for the guest, and this much not moved.
    Good {
        data: Vec<u8>,
        moved: u32,
    },
    Sense(Sense),
    Response(u8),
    /// It is tried again when the machine goes on.
    Kept,
}

impl Serve {
    /// Serves one queue until the device stops. Each command is a task of its own.
    pub(super) async fn queue(self: Rc<Self>, worker: Rc<Worker>) {
        let local = worker.local().clone();
        while let Some(chain) = worker.next().await {
            let (cdb_size, sense_size) = self.sizes.get();
            match parse(&chain, cdb_size, sense_size) {
                Some(header) => {
                    let task = self.clone().one(local.clone(), worker.clone(), chain, header);
                    local.spawn(task).detach();
                }
                None => worker.fail(chain, Broken::Request("a SCSI request has no header")),
            }
        }
    }

    async fn one(self: Rc<Self>, local: Local, worker: Rc<Worker>, chain: Chain, header: Header) {
        let sizes = self.sizes.get();
        let ended = match header.place {
            None => Ended::Response(BAD_TARGET),
            Some(place) => {
                let task = self.tasks.begin(place, header.tag);
                let ended = self.command(&local, &chain, &task, &header).await;
                self.tasks.end(&task);
                ended
            }
        };
        finish(&worker, chain, sizes, ended);
    }

    async fn command(&self, local: &Local, chain: &Chain, task: &Task, header: &Header) -> Ended {
        let place = task.place;
        let units = self.bus.units_of(place.target);
        if units.is_empty() {
            return Ended::Response(BAD_TARGET);
        }
        let found = units.iter().find(|(lun, _)| *lun == place.lun).map(|(_, unit)| unit);
        let kind = found.map_or(crate::scsi::Kind::Disk, |unit| unit.unit().identity().kind);
        // These a target answers, for units that it does not have, too.
        match (Command::parse(kind, &header.cdb), found) {
            (Ok(Command::ReportLuns { alloc }), _) => {
                let luns: Vec<u16> = units.iter().map(|(lun, _)| *lun).collect();
                answer(chain, self.sizes.get(), cut(report_luns(&luns), alloc))
            }
            (Ok(Command::Inquiry { page: None, alloc }), None) => {
                answer(chain, self.sizes.get(), cut(absent(), alloc))
            }
            (Ok(Command::RequestSense { alloc, .. }), None) => {
                answer(chain, self.sizes.get(), cut(Sense::LUN.fixed().to_vec(), alloc))
            }
            (_, None) => Ended::Sense(Sense::LUN),
            (_, Some(unit)) => self.carry_out(local, chain, unit, (task, header)).await,
        }
    }

    async fn carry_out(
        &self,
        local: &Local,
        chain: &Chain,
        unit: &ScsiDrive,
        (task, header): (&Task, &Header),
    ) -> Ended {
        let started = Instant::now();
        let sizes = self.sizes.get();
        let parameters = |wanted: usize| {
            let mut data = vec![0; wanted];
            let len = data_out(chain, sizes).copy_to(0, &mut data);
            data.truncate(len);
            data
        };
        let work = match unit.unit().begin(&header.cdb, parameters, unit.medium()) {
            Ok(work) => work,
            Err(sense) => return Ended::Sense(sense),
        };
        let (kind, bytes) = match &work {
            Work::Answer(data) => return answer(chain, sizes, data.clone()),
            Work::Tray { open } => {
                if let Some(drive) = unit.drive() {
                    self.bus.tray_moved(drive.id(), *open);
                }
                return answer(chain, sizes, Vec::new());
            }
            Work::Lock(_) => return answer(chain, sizes, Vec::new()),
            Work::Read { len, .. } | Work::Compare { len, .. } => (Kind::Read, *len),
            Work::Write { len, .. } | Work::Zero { len, .. } | Work::Fill { len, .. } => {
                (Kind::Write, *len)
            }
            Work::Discard(_) => (Kind::Write, 0),
            Work::Flush => (Kind::Flush, 0),
        };
        // A drive without a medium has nothing to flush.
        let Some(drive) = unit.drive() else { return answer(chain, sizes, Vec::new()) };
        let Some(disk) = drive.disk(local) else {
            return match work {
                Work::Flush => answer(chain, sizes, Vec::new()),
                _ => Ended::Sense(Sense::NO_MEDIUM),
            };
        };
        let room = match work {
            Work::Read { .. } => data_in(chain, sizes).len(),
            Work::Write { .. } | Work::Compare { .. } => data_out(chain, sizes).len(),
            _ => usize::MAX,
        };
        if u64::try_from(room).unwrap_or(u64::MAX) < bytes {
            return Ended::Response(OVERRUN);
        }
        let write = kind != Kind::Read;
        match transfer(&disk, work, chain, (task, sizes)).await {
            Ok(true) => {
                drive.stats().account(kind, bytes, started);
                let moved = u32::try_from(bytes).unwrap_or(u32::MAX);
                Ended::Good { data: Vec::new(), moved }
            }
            Ok(false) => Ended::Sense(Sense::MISCOMPARE),
            Err(Stop::Cancelled(response)) => Ended::Response(response),
            Err(Stop::Failed(error)) => match drive.failed(write, &error) {
                // What was to be ended is not tried again: its end was promised.
                Action::Stop => task.cancelled.get().map_or(Ended::Kept, Ended::Response),
                Action::Ignore => Ended::Good { data: Vec::new(), moved: 0 },
                Action::Report => Ended::Sense(Sense::of_io(&error, write)),
            },
        }
    }
}

/// Does what is to be done on a disk; false if a comparison found a difference.
async fn transfer(
    disk: &Disk,
    work: Work,
    chain: &Chain,
    (task, sizes): (&Task, (u32, u32)),
) -> Result<bool, Stop> {
    let bytes = |len: u64| usize::try_from(len).unwrap_or(usize::MAX);
    // From here on what was begun is waited for.
    let admitted = match &work {
        Work::Read { len, .. } | Work::Compare { len, .. } => {
            task.unless_cancelled(disk.admit(Direction::Read, *len)).await?
        }
        Work::Write { len, .. } | Work::Zero { len, .. } | Work::Fill { len, .. } => {
            task.unless_cancelled(disk.admit(Direction::Write, *len)).await?
        }
        _ => disk.unlimited(),
    };
    match work {
        Work::Read { at, len } => {
            admitted.read(at, data_in(chain, sizes).slice(0..bytes(len))).await?;
        }
        Work::Write { at, len, fua } => {
            admitted.write(at, data_out(chain, sizes).slice(0..bytes(len)), fua).await?;
        }
        Work::Compare { at, len } => {
            let (mut at, mut left, mut given) = (at, len, data_out(chain, sizes));
            while left > 0 {
                task.end()?;
                let piece = left.min(PIECE);
                let there = IoBuf::zeroed(bytes(piece));
                admitted.read(at, there.clone()).await?;
                if there.to_vec() != given.slice(0..bytes(piece)).to_vec() {
                    return Ok(false);
                }
                given = given.skip(bytes(piece));
                at = at.saturating_add(piece);
                left = left.saturating_sub(piece);
            }
        }
        Work::Zero { at, len, unmap } => {
            let how = if unmap { Zero::MayUnmap } else { Zero::Keep };
            admitted.zero(at, len, how).await?;
        }
        Work::Fill { at, len, block } => {
            let size = u64::try_from(block.len()).unwrap_or(u64::MAX).max(1);
            let count = PIECE.checked_div(size).unwrap_or(1).max(1);
            let buf = IoBuf::copy_of(&block.repeat(bytes(count)));
            let whole = size.saturating_mul(count);
            let (mut at, mut left) = (at, len);
            while left > 0 {
                task.end()?;
                let piece = left.min(whole);
                admitted.write(at, buf.slice(0..bytes(piece)), false).await?;
                at = at.saturating_add(piece);
                left = left.saturating_sub(piece);
            }
        }
        Work::Discard(places) => {
            for (at, len) in places {
                task.end()?;
                disk.discard(at, len).await?;
            }
        }
        Work::Flush => disk.flush().await?,
        Work::Answer(_) | Work::Tray { .. } | Work::Lock(_) => {}
    }
    Ok(true)
}

/// Copies the header and the command; there must be room for a response.
fn parse(chain: &Chain, cdb_size: u32, sense_size: u32) -> Option<Header> {
    let mut reader = chain.reader();
    let lun = reader.array::<8>().ok()?;
    let tag = reader.le64().ok()?;
    // Attribute, priority and CRN mean nothing to a drive that takes commands in any order.
    reader.skip(3);
    let mut cdb = vec![0; usize::try_from(cdb_size).unwrap_or(0)];
    reader.read_exact(&mut cdb).ok()?;
    if chain.writable_len() < RESPONSE.saturating_add(sense_size) {
        return None;
    }
    Some(Header { place: parse_lun(lun), tag, cdb })
}

fn data_out(chain: &Chain, (cdb_size, _): (u32, u32)) -> IoBuf {
    let mut reader = chain.reader();
    reader.skip(HEAD.saturating_add(cdb_size));
    reader.buf()
}

fn data_in(chain: &Chain, (_, sense_size): (u32, u32)) -> IoBuf {
    let mut writer = chain.writer();
    writer.skip(RESPONSE.saturating_add(sense_size));
    writer.buf()
}

fn cut(mut data: Vec<u8>, alloc: usize) -> Vec<u8> {
    data.truncate(alloc);
    data
}

/// Bytes that answer a command, if the guest has given room for them.
fn answer(chain: &Chain, sizes: (u32, u32), data: Vec<u8>) -> Ended {
    if data_in(chain, sizes).len() < data.len() {
        return Ended::Response(OVERRUN);
    }
    let moved = u32::try_from(data.len()).unwrap_or(u32::MAX);
    Ended::Good { data, moved }
}

/// Writes the response and gives the request back.
fn finish(worker: &Worker, chain: Chain, (cdb_size, sense_size): (u32, u32), ended: Ended) {
    let head = RESPONSE.saturating_add(sense_size);
    let room = chain.writable_len().saturating_sub(head);
    let given = chain.readable_len().saturating_sub(HEAD).saturating_sub(cdb_size);
    let (data, moved, sense, status, response) = match ended {
        Ended::Kept => return worker.put_back(chain),
        Ended::Good { data, moved } => (data, moved, None, GOOD, OK),
        Ended::Sense(sense) => (Vec::new(), 0, Some(sense), CHECK_CONDITION, OK),
        Ended::Response(response) => (Vec::new(), 0, None, GOOD, response),
    };
    // What of the room for data, in whichever direction, was not used.
    let all = if room > 0 { room } else { given };
    let residual = all.saturating_sub(moved);
    let sense = sense.map(|sense| sense.fixed().to_vec()).unwrap_or_default();
    let most = usize::try_from(sense_size).unwrap_or(0);
    let sense: Vec<u8> = sense.into_iter().take(most).collect();
    let mut out = u32::try_from(sense.len()).unwrap_or(0).to_le_bytes().to_vec();
    out.extend(residual.to_le_bytes());
    out.extend([0, 0, status, response]);
    out.extend(&sense);
    out.resize(usize::try_from(head).unwrap_or(0), 0);
    out.extend(&data);
    let mut writer = chain.writer();
    writer.write(&out);
    // What was read by the disk lies behind the response already.
    let read =
        if room > 0 { moved.saturating_sub(u32::try_from(data.len()).unwrap_or(0)) } else { 0 };
    writer.skip(read);
    let written = writer.written();
    worker.done(chain, written);
}
