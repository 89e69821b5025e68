//! Copying what images read as into another one: many requests at a time, and nothing that need
//! not be copied.
//!
//! One task finds what lies in the sources and cuts it into chunks; workers read a chunk, look for
//! zeros in it and write the rest. Unless the order does not matter, writes begin in the order of
//! their offsets, so that a format which allocates as it is written to is laid out in that order.
//!
//! On the tool's loop, no lock. Sizes come from images; memory is bounded by the number of workers.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use resources::iol::{IoBuf, Local};

use super::offload::{Offload, Place, file_of};
use crate::chain::{self, Content};
use crate::node::{Node, Zero};
use crate::tools::console::{Console, Fail};
use crate::tools::images::why;
use crate::tools::progress::Progress;
use crate::tools::signals;
use crate::tools::work::{Queue, Turns, begin, find_and_do};

/// Read at once.
const CHUNK: u64 = 1 << 20;
/// Zeroed at once.
const ZEROED: u64 = 1 << 28;
/// Zeros are looked for in blocks of this many bytes, or of as many as count if that is less.
const BLOCK: u64 = 4096;
/// With these many bytes in flight, zeros are looked for, compressed and written by enough cores.
const COMPRESSORS: usize = 16;

/// Something to be copied.
pub(super) struct Source {
    /// Where it is read.
    pub(super) node: Rc<dyn Node>,
    /// From there on.
    pub(super) skip: u64,
    /// So many bytes.
    pub(super) len: u64,
}

impl Source {
    /// All of a node.
    pub(super) fn all(node: &Rc<dyn Node>) -> Source {
        Source { node: node.clone(), skip: 0, len: node.info().size }
    }
}

/// What is to be copied, and how.
pub(super) struct Copy {
    /// Read one behind the other.
    pub(super) sources: Vec<Source>,
    /// Written from its beginning on.
    pub(super) target: Rc<dyn Node>,
    /// Requests at a time.
    pub(super) workers: usize,
    /// Writes may begin in any order.
    pub(super) any_order: bool,
    /// So many zero bytes are not written as data; 0 if zeros are not looked for.
    pub(super) sparse: u64,
    /// What is known to be zero is written as data too.
    pub(super) full: bool,
    /// What is not written reads as zeros in the target already.
    pub(super) zeroed: bool,
    /// Only what these many topmost layers of the sources have is copied.
    pub(super) layers: Option<u32>,
    /// Written compressed, in clusters of this many bytes.
    pub(super) compressed: Option<u64>,
    /// What cannot be read is taken for zeros.
    pub(super) salvage: bool,
    /// Bytes in a second at most.
    pub(super) rate: Option<u64>,
    /// The host copies what it can, without looking for zeros.
    pub(super) offload: Option<Offload>,
}

impl Copy {
    /// A copy with nothing special about it.
    pub(super) fn new(sources: Vec<Source>, target: &Rc<dyn Node>) -> Copy {
        Copy {
            sources,
            target: target.clone(),
            workers: 8,
            any_order: false,
            sparse: BLOCK,
            full: false,
            zeroed: false,
            layers: None,
            compressed: None,
            salvage: false,
            rate: None,
            offload: None,
        }
    }

    /// Copies, and tells how far it is.
    ///
    /// # Errors
    /// `error while reading at byte N: REASON` and the like; [`Fail::Interrupted`].
    pub(super) async fn run(
        self,
        local: &Local,
        console: &Console,
        shown: bool,
    ) -> Result<(), Fail> {
        let total = self.sources.iter().fold(0u64, |sum, source| sum.saturating_add(source.len));
        let workers = match self.compressed {
            Some(_) => self.workers.max(COMPRESSORS),
            None => self.workers.max(1),
        };
        let work = Rc::new(Work {
            progress: Progress::new(console, shown, total),
            console: console.clone(),
            local: local.clone(),
            copy: self,
            chunks: Queue::new(workers),
            turns: Turns::default(),
            pace: Cell::new(Instant::now()),
            failed: RefCell::default(),
        });
        let finder = work.clone();
        let find = async move { finder.find().await.inspect_err(|_| finder.turns.open()) };
        let copied = find_and_do(local, &work.chunks, workers, find, || {
            let work = work.clone();
            async move { work.serve().await.inspect_err(|_| work.turns.open()) }
        });
        copied.await?;
        work.progress.end();
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Zero,
}

struct Chunk {
    /// Counts up: the order of writing.
    number: u64,
    /// In the target.
    offset: u64,
    len: u64,
    kind: Kind,
    /// Where the data are, if the host may copy them.
    from: Option<Place>,
}

struct Work {
    copy: Copy,
    local: Local,
    console: Console,
    chunks: Rc<Queue<Chunk>>,
    turns: Turns,
    progress: Progress,
    /// When the next chunk may be copied.
    pace: Cell<Instant>,
    /// What could not be read, to be told once for each run.
    failed: RefCell<Option<u64>>,
}

impl Work {
    /// Finds what there is to do.
    async fn find(&self) -> Result<(), Fail> {
        let mut start = 0u64;
        let mut number = 0;
        for source in &self.copy.sources {
            let mut at = 0;
            while at < source.len {
                signals::check()?;
                let offset = start.saturating_add(at);
                let (kind, mut len, from) = match self.look(source, at).await {
                    Ok(found) => found,
                    Err(_) if self.copy.salvage => {
                        (Some(Kind::Data), CHUNK.min(source.len - at), None)
                    }
                    Err(error) => {
                        let why = why(&error);
                        let text =
                            format!("error while reading block status at offset {offset}: {why}");
                        return Err(text.into());
                    }
                };
                let kind = match self.copy.compressed {
                    None => kind,
                    Some(cluster) => {
                        // What begins or ends within a cluster is part of that cluster.
                        let whole = (offset + len) / cluster * cluster;
                        let last = at + len >= source.len && self.is_last(source);
                        if kind != Some(Kind::Data) && (last || whole > offset) {
                            if !last {
                                len = whole - offset;
                            }
                            kind
                        } else {
                            let end = (offset + len).next_multiple_of(cluster);
                            len = (end - offset).min(self.total() - offset);
                            Some(Kind::Data)
                        }
                    }
                };
                self.cut(offset, len, kind, from, &mut number).await;
                at += len;
            }
            start = start.saturating_add(at);
        }
        Ok(())
    }

    fn total(&self) -> u64 {
        self.copy.sources.iter().fold(0, |sum, source| sum.saturating_add(source.len))
    }

    fn is_last(&self, source: &Source) -> bool {
        self.copy.sources.last().is_some_and(|last| std::ptr::eq(last, source))
    }

    /// What lies at `at` of a source; `None` is what need not be looked at.
    async fn look(
        &self,
        source: &Source,
        at: u64,
    ) -> io::Result<(Option<Kind>, u64, Option<Place>)> {
        let left = source.len - at;
        let at = source.skip.saturating_add(at);
        let size = source.node.info().size;
        if at >= size {
            return Ok((self.zeros(), left, None));
        }
        let place = chain::look(&source.node, at, left, self.copy.layers).await?;
        let kind = match place.content {
            Content::Data => Some(Kind::Data),
            Content::Zero => self.zeros(),
            Content::Nothing | Content::Beyond if self.copy.layers.is_some() => {
                // The source's own backing file may end before the target's does.
                let below = chain::backing(&source.node).map_or(0, |below| below.info().size);
                if at < below {
                    return Ok((None, place.len.min(below - at), None));
                }
                self.zeros()
            }
            Content::Nothing | Content::Beyond => self.zeros(),
        };
        let from = match (&self.copy.offload, kind, place.offset) {
            (Some(_), Some(Kind::Data), Some(at)) => file_of(&place.node).map(|file| (file, at)),
            _ => None,
        };
        Ok((kind, place.len, from))
    }

    /// What to do about zeros.
    fn zeros(&self) -> Option<Kind> {
        if self.copy.full {
            return Some(Kind::Data);
        }
        (!self.copy.zeroed).then_some(Kind::Zero)
    }

    async fn cut(
        &self,
        offset: u64,
        len: u64,
        kind: Option<Kind>,
        from: Option<Place>,
        number: &mut u64,
    ) {
        let Some(kind) = kind else {
            self.progress.advance(len);
            return;
        };
        let size = match (kind, self.copy.compressed) {
            (Kind::Zero, _) => ZEROED,
            (Kind::Data, Some(cluster)) => cluster,
            (Kind::Data, None) => CHUNK,
        };
        let mut at = offset;
        let end = offset.saturating_add(len);
        while at < end {
            let len = (size - at % size).min(end - at);
            let from = from.clone().map(|(file, start)| (file, start.saturating_add(at - offset)));
            let chunk = Chunk { number: *number, offset: at, len, kind, from };
            *number += 1;
            if !self.chunks.put(chunk).await {
                return;
            }
            at += len;
        }
    }

    /// Does what was found.
    async fn serve(&self) -> Result<(), Fail> {
        let room = self.copy.compressed.unwrap_or(0).max(CHUNK);
        let room = IoBuf::zeroed(room as usize);
        while let Some(chunk) = self.chunks.take().await {
            signals::check()?;
            self.keep_pace(chunk.len).await;
            match chunk.kind {
                Kind::Zero => self.zero(&chunk).await?,
                Kind::Data => self.data(&chunk, &room.slice(0..chunk.len as usize)).await?,
            }
            self.progress.advance(chunk.len);
        }
        Ok(())
    }

    async fn keep_pace(&self, len: u64) {
        let Some(rate) = self.copy.rate.filter(|rate| *rate > 0) else { return };
        let mine = self.pace.get().max(Instant::now());
        let nanos = u128::from(len) * 1_000_000_000 / u128::from(rate);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.pace.set(mine.checked_add(takes).unwrap_or(mine));
        self.local.sleep_until(mine).await;
    }

    async fn turn(&self, chunk: &Chunk) {
        if !self.copy.any_order {
            self.turns.wait(chunk.number).await;
        }
    }

    async fn zero(&self, chunk: &Chunk) -> Result<(), Fail> {
        self.turn(chunk).await;
        let zero = self.copy.target.zero(chunk.offset, chunk.len, Zero::MayUnmap);
        begin(zero, || self.turns.next()).await.map_err(|error| write_error(chunk.offset, &error))
    }

    async fn data(&self, chunk: &Chunk, buf: &IoBuf) -> Result<(), Fail> {
        if let (Some(offload), Some(from)) = (&self.copy.offload, &chunk.from)
            && offload.copy(&self.local, from, chunk.offset, chunk.len).await
        {
            self.turn(chunk).await;
            self.turns.next();
            return Ok(());
        }
        self.read(chunk.offset, buf).await?;
        let runs = self.runs(chunk, buf);
        self.turn(chunk).await;
        let count = runs.len();
        if count == 0 {
            self.turns.next();
        }
        for (index, (run, kind)) in runs.into_iter().enumerate() {
            let offset = chunk.offset + run.start as u64;
            let len = (run.end - run.start) as u64;
            let op = match kind {
                Kind::Zero => self.copy.target.zero(offset, len, Zero::MayUnmap),
                Kind::Data if self.copy.compressed.is_some() => {
                    self.copy.target.write_compressed(offset, buf.slice(run))
                }
                Kind::Data => self.copy.target.write(offset, buf.slice(run), false),
            };
            let last = index + 1 == count;
            let done = begin(op, || {
                if last {
                    self.turns.next();
                }
            });
            done.await.map_err(|error| write_error(offset, &error))?;
        }
        Ok(())
    }

    /// What has to be written of a chunk.
    fn runs(&self, chunk: &Chunk, buf: &IoBuf) -> Vec<(std::ops::Range<usize>, Kind)> {
        let len = buf.len();
        let whole = |kind| vec![(0..len, kind)];
        if self.copy.sparse == 0 {
            return whole(Kind::Data);
        }
        let zeros = if self.copy.zeroed { None } else { Some(Kind::Zero) };
        if buf.is_zero() && (len as u64 >= self.copy.sparse || self.copy.compressed.is_some()) {
            return zeros.map(whole).unwrap_or_default();
        }
        if self.copy.compressed.is_some() {
            return whole(Kind::Data);
        }
        let block = self.copy.sparse.min(BLOCK);
        let mut runs: Vec<(std::ops::Range<usize>, Kind)> = Vec::new();
        let mut at = 0;
        while at < len {
            let head = block - (chunk.offset + at as u64) % block;
            let end = (at + head as usize).min(len);
            let kind = if buf.slice(at..end).is_zero() { Kind::Zero } else { Kind::Data };
            match runs.last_mut() {
                Some((run, last)) if *last == kind => run.end = end,
                _ => runs.push((at..end, kind)),
            }
            at = end;
        }
        // Too short to be worth it.
        for (run, kind) in &mut runs {
            if ((run.end - run.start) as u64) < self.copy.sparse {
                *kind = Kind::Data;
            }
        }
        let mut merged: Vec<(std::ops::Range<usize>, Kind)> = Vec::new();
        for (run, kind) in runs {
            match merged.last_mut() {
                Some((before, last)) if *last == kind => before.end = run.end,
                _ => merged.push((run, kind)),
            }
        }
        merged.retain(|(_, kind)| *kind == Kind::Data || zeros.is_some());
        merged
    }

    /// Reads what lies at an offset of the target.
    async fn read(&self, offset: u64, buf: &IoBuf) -> Result<(), Fail> {
        let mut start = 0u64;
        let mut done = 0usize;
        for source in &self.copy.sources {
            let at = offset + done as u64;
            let end = start.saturating_add(source.len);
            if at < end && done < buf.len() {
                let len = (buf.len() - done).min(usize::try_from(end - at).unwrap_or(usize::MAX));
                let part = buf.slice(done..done + len);
                self.read_from(source, at - start, at, part).await?;
                done += len;
            }
            start = end;
        }
        buf.skip(done).fill(0);
        Ok(())
    }

    async fn read_from(&self, source: &Source, at: u64, told: u64, buf: IoBuf) -> Result<(), Fail> {
        let from = source.skip.saturating_add(at);
        let inside = source.node.info().size.saturating_sub(from).min(buf.len() as u64) as usize;
        buf.skip(inside).fill(0);
        let buf = buf.slice(0..inside);
        let error = match source.node.read(from, buf.clone()).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let tell = |at: u64, error: &io::Error| {
            format!("error while reading at byte {at}: {}", why(error))
        };
        if !self.copy.salvage {
            return Err(tell(told, &error).into());
        }
        let mut done = 0;
        while done < buf.len() {
            let end = (done + 512).min(buf.len());
            let (part, offset) = (buf.slice(done..end), told + done as u64);
            if let Err(error) = source.node.read(from + done as u64, part.clone()).await {
                part.fill(0);
                let expected = self.failed.replace(Some(offset + (end - done) as u64));
                if expected != Some(offset) {
                    self.console.error(format_args!("warning: {}", tell(offset, &error)));
                }
            }
            done = end;
        }
        Ok(())
    }
}

fn write_error(offset: u64, error: &io::Error) -> Fail {
    Fail::Told(format!("error while writing at byte {offset}: {}", why(error)))
}
