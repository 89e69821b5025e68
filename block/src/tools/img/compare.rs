//! `vmm-img compare`: whether two images read the same.
//!
//! On the tool's loop: one task finds what has to be read, others read it. What counts is the
//! finding with the lowest offset, so they all finish what lies before one that was made.

use std::cell::RefCell;
use std::rc::Rc;

use resources::iol::IoBuf;

use super::{Call, Command, Fail, Running};
use crate::chain::{self, Content};
use crate::node::Node;
use crate::tools::args::{flag, long_flag, long_value, value};
use crate::tools::console::Console;
use crate::tools::images::{Wanted, why};
use crate::tools::progress::Progress;
use crate::tools::signals;
use crate::tools::work::{Queue, find_and_do};

pub(super) const COMMAND: Command = Command {
    name: "compare",
    synopsis: "[-f FMT] [-F FMT] [-T CACHE] [-p] [-q] [-s] [-U] [--image-opts] FILE1 FILE2",
    options: &[
        value('f'),
        value('F'),
        value('T'),
        flag('p'),
        flag('q'),
        flag('s'),
        flag('U').long("force-share"),
        long_flag("image-opts"),
        long_value("object"),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

const WORKERS: usize = 8;
/// Read at once.
const CHUNK: u64 = 1 << 20;
/// Differences are told by this many bytes.
const SECTOR: usize = 512;

/// The exit codes.
const DIFFERENT: u8 = 1;
const CANNOT_OPEN: u8 = 2;
const CANNOT_MAP: u8 = 3;
const CANNOT_READ: u8 = 4;

/// What ends the comparison, and where.
struct Finding {
    offset: u64,
    code: u8,
    text: String,
}

struct Work {
    images: [Rc<dyn Node>; 2],
    names: [String; 2],
    chunks: Rc<Queue<Chunk>>,
    finding: RefCell<Option<Finding>>,
    progress: Progress,
}

/// What is to be read of the images.
struct Chunk {
    offset: u64,
    len: u64,
    read: [bool; 2],
}

impl Work {
    fn found(&self, offset: u64, code: u8, text: String) {
        let mut finding = self.finding.borrow_mut();
        if finding.as_ref().is_none_or(|known| offset < known.offset) {
            *finding = Some(Finding { offset, code, text });
        }
    }

    fn is_over(&self, offset: u64) -> bool {
        self.finding.borrow().as_ref().is_some_and(|known| known.offset < offset)
    }

    async fn look_for_work(&self, strict: bool) -> Result<(), Fail> {
        let sizes = [self.images[0].info().size, self.images[1].info().size];
        let end = sizes[0].max(sizes[1]);
        let mut offset = 0;
        while offset < end && self.finding.borrow().is_none() {
            signals::check()?;
            let mut len = end - offset;
            let mut kinds = [Content::Nothing; 2];
            for side in 0..2 {
                let (Some(image), Some(size)) = (self.images.get(side), sizes.get(side)) else {
                    continue;
                };
                if offset >= *size {
                    continue;
                }
                match chain::run(image, offset, len).await {
                    Ok((content, known)) => {
                        len = known;
                        if let Some(kind) = kinds.get_mut(side) {
                            *kind = content;
                        }
                    }
                    Err(_) => {
                        let name = self.names.get(side).map(String::as_str).unwrap_or_default();
                        let text = format!("Sector allocation test failed for {name}");
                        self.found(offset, CANNOT_MAP, text);
                        return Ok(());
                    }
                }
            }
            let allocated = kinds.map(|kind| kind != Content::Nothing);
            if strict && offset < sizes[0].min(sizes[1]) && allocated[0] != allocated[1] {
                let text = format!("Strict mode: Offset {offset} allocation mismatch!");
                self.found(offset, DIFFERENT, text);
                return Ok(());
            }
            let read = kinds.map(|kind| kind == Content::Data);
            if read == [false; 2] {
                self.progress.advance(len);
                offset += len;
                continue;
            }
            let stop = offset + len;
            while offset < stop {
                let len = (CHUNK - offset % CHUNK).min(stop - offset);
                if !self.chunks.put(Chunk { offset, len, read }).await {
                    return Ok(());
                }
                offset += len;
            }
        }
        Ok(())
    }

    async fn compare(&self) -> Result<(), Fail> {
        let room = CHUNK as usize;
        let bufs = [IoBuf::zeroed(room), IoBuf::zeroed(room)];
        while let Some(Chunk { offset, len, read }) = self.chunks.take().await {
            signals::check()?;
            if self.is_over(offset) {
                continue;
            }
            let [first, second] = bufs.each_ref().map(|buf| buf.slice(0..len as usize));
            if read[0] && !self.read(0, offset, &first).await {
                continue;
            }
            if read[1] && !self.read(1, offset, &second).await {
                continue;
            }
            let differs = match read {
                [true, true] => first_difference(&first, &second, offset),
                [true, false] => first_data(&first, offset),
                _ => first_data(&second, offset),
            };
            if let Some(at) = differs {
                let at = offset + at as u64;
                self.found(at, DIFFERENT, format!("Content mismatch at offset {at}!"));
            }
            self.progress.advance(len);
        }
        Ok(())
    }

    async fn read(&self, side: usize, offset: u64, buf: &IoBuf) -> bool {
        let (Some(image), Some(name)) = (self.images.get(side), self.names.get(side)) else {
            return false;
        };
        match image.read(offset, buf.clone()).await {
            Ok(()) => true,
            Err(error) => {
                let why = why(&error);
                let text = format!("Error while reading offset {offset} of {name}: {why}");
                self.found(offset, CANNOT_READ, text);
                false
            }
        }
    }
}

/// The pieces of a chunk that differences are told by: where each begins and ends.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize)> {
    let head = SECTOR - (offset % SECTOR as u64) as usize;
    let mut at = 0;
    std::iter::from_fn(move || {
        let end = if at == 0 { head.min(len) } else { (at + SECTOR).min(len) };
        let piece = (at, end);
        at = end;
        (piece.0 < piece.1).then_some(piece)
    })
}

fn first_difference(first: &IoBuf, second: &IoBuf, offset: u64) -> Option<usize> {
    let (first, second) = (first.to_vec(), second.to_vec());
    if first == second {
        return None;
    }
    let differs = |(at, end): &(usize, usize)| first.get(*at..*end) != second.get(*at..*end);
    pieces(offset, first.len()).find(differs).map(|(at, _)| at)
}

fn first_data(buf: &IoBuf, offset: u64) -> Option<usize> {
    if buf.is_zero() {
        return None;
    }
    let has_data = |(at, end): &(usize, usize)| !buf.slice(*at..*end).is_zero();
    pieces(offset, buf.len()).find(has_data).map(|(at, _)| at)
}

async fn run(call: &Call) -> Result<(), Fail> {
    let ended = compare(call).await;
    // What says that they differ has this code, so no other failure may.
    ended.map_err(|fail| match fail {
        Fail::Told(_) | Fail::Usage(_) => {
            fail.tell(&call.console);
            Fail::Code(CANNOT_OPEN)
        }
        fail => fail,
    })
}

async fn compare(call: &Call) -> Result<(), Fail> {
    let names: [&str; 2] = call.operands("Expecting two image file names")?;
    let cache = call.cache('T', "writeback", "Invalid source cache option")?;
    let strict = call.args.has('s');
    let first = Wanted { cache, ..call.wanted(names[0])? };
    let second = Wanted { name: names[1], format: call.args.get('F'), ..first.clone() };
    let first = open(call, &first).await?;
    let second = open(call, &second).await?;
    let sizes = [first.info().size, second.info().size];
    let say = |console: &Console, text: &str| {
        if !call.quiet() {
            console.line(text);
        }
    };
    if sizes[0] != sizes[1] && strict {
        say(&call.console, "Strict mode: Image size mismatch!");
        return Err(Fail::Code(DIFFERENT));
    }
    let work = Rc::new(Work {
        images: [first, second],
        names: names.map(str::to_owned),
        chunks: Queue::new(WORKERS),
        finding: RefCell::default(),
        progress: Progress::new(
            &call.console,
            call.args.has('p') && !call.quiet(),
            sizes[0].max(sizes[1]),
        ),
    });
    let finder = work.clone();
    let find = async move { finder.look_for_work(strict).await };
    let compared = find_and_do(&call.local, &work.chunks, WORKERS, find, || {
        let work = work.clone();
        async move { work.compare().await }
    });
    compared.await?;
    if let Some(finding) = work.finding.take() {
        match finding.code {
            DIFFERENT => say(&call.console, &finding.text),
            _ => call.console.error(&finding.text),
        }
        return Err(Fail::Code(finding.code));
    }
    work.progress.end();
    if sizes[0] != sizes[1] {
        say(&call.console, "Warning: Image size mismatch!");
    }
    say(&call.console, "Images are identical.");
    Ok(())
}

async fn open(call: &Call, wanted: &Wanted<'_>) -> Result<Rc<dyn Node>, Fail> {
    call.open(wanted)
        .await
        .inspect_err(|fail| {
            fail.tell(&call.console);
            call.console.error(format_args!("Can't open file {}", wanted.name));
        })
        .map_err(|_| Fail::Code(CANNOT_OPEN))
}
