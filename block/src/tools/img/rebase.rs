//! `vmm-img rebase`: gives an image another backing file.
//!
//! Unless only the name is to change, what shows through the image stays the same: where the old
//! backing file and the new one differ, the old one's contents are written into the image first.
//!
//! On the tool's loop.

use std::rc::Rc;

use resources::iol::IoBuf;

use super::{Call, Command, Fail, Running};
use crate::chain::{self, Content};
use crate::image::BackingFile;
use crate::name;
use crate::node::{Node, Zero};
use crate::tools::args::{flag, long_flag, long_value, value};
use crate::tools::images::{self, Wanted, why};
use crate::tools::progress::Progress;
use crate::tools::signals;
use crate::tools::work::{Queue, find_and_do};

pub(super) const COMMAND: Command = Command {
    name: "rebase",
    synopsis: "[-f FMT | --image-opts] [-t CACHE] [-T CACHE] [-p] [-q] [-u] [-U] -b BASE [-F FMT] FILE",
    options: &[
        value('f'),
        value('t'),
        value('T'),
        value('b'),
        value('F'),
        flag('p'),
        flag('q'),
        flag('u'),
        flag('U').long("force-share"),
        long_flag("image-opts"),
        long_value("object"),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

const WORKERS: usize = 8;
const CHUNK: u64 = 1 << 20;
/// Differences are copied by this many bytes.
const BLOCK: usize = 4096;

struct Work {
    image: Rc<dyn Node>,
    /// What shows now, and what will.
    old: Option<Rc<dyn Node>>,
    new: Option<Rc<dyn Node>>,
    chunks: Rc<Queue<(u64, u64)>>,
    progress: Progress,
}

async fn run(call: &Call) -> Result<(), Fail> {
    let [filename] = call.operands("Expecting one image file name")?;
    let only_name = call.args.has('u');
    let base = match call.args.get('b') {
        Some(base) => base,
        None if only_name => "",
        None => {
            let text = "Must specify backing file (-b) or use unsafe mode (-u)";
            return Err(Fail::Usage(text.to_owned()));
        }
    };
    let format = call.args.get('F');
    if let Some(format) = format
        && !images::is_format(format)
    {
        return Err(Fail::Told(format!("Invalid format name: '{format}'")));
    }
    let cache = call.cache('t', "writeback", "Invalid cache option")?;
    let source_cache = call.cache('T', "writeback", "Invalid source cache option")?;
    let wanted = Wanted { writable: true, cache, no_backing: only_name, ..call.wanted(filename)? };
    let image = call.open(&wanted).await?;
    if !only_name {
        let new = if base.is_empty() {
            None
        } else {
            let full = name::combine(&name::of(&*image), base);
            let wanted = Wanted { cache: source_cache, ..Wanted::read(&full, format) };
            let opened = call.open(&wanted).await;
            Some(opened.map_err(|fail| match fail {
                Fail::Told(text) => {
                    Fail::Told(format!("Could not open new backing file '{base}': {text}"))
                }
                fail => fail,
            })?)
        };
        copy(call, &image, new).await?;
    }
    let backing = BackingFile { name: base.to_owned(), format: format.map(str::to_owned) };
    let backing = Some(backing).filter(|backing| !backing.name.is_empty());
    let changed = match image.image() {
        Some(format) => format.change_backing_file(backing).await,
        None => Err(std::io::ErrorKind::Unsupported.into()),
    };
    changed.map_err(|error| {
        let why = match error.raw_os_error() {
            Some(libc::ENOSPC) => "No space left in the file header".to_owned(),
            _ => why(&error),
        };
        Fail::Told(format!("Could not change the backing file to '{base}': {why}"))
    })
}

/// Writes into the image what would look different.
async fn copy(call: &Call, image: &Rc<dyn Node>, new: Option<Rc<dyn Node>>) -> Result<(), Fail> {
    let work = Rc::new(Work {
        image: image.clone(),
        old: chain::backing(image),
        new,
        chunks: Queue::new(WORKERS),
        progress: Progress::new(&call.console, call.args.has('p'), image.info().size),
    });
    let finder = work.clone();
    let find = async move { finder.find().await };
    let copied = find_and_do(&call.local, &work.chunks, WORKERS, find, || {
        let work = work.clone();
        async move { work.serve().await }
    });
    copied.await?;
    let flushed = image.flush().await;
    flushed.map_err(|error| format!("Error while writing to COW image: {}", why(&error)))?;
    work.progress.end();
    Ok(())
}

impl Work {
    /// Finds where the image has nothing of its own.
    async fn find(&self) -> Result<(), Fail> {
        let size = self.image.info().size;
        let mut at = 0;
        while at < size {
            signals::check()?;
            let place = chain::look(&self.image, at, size - at, Some(1)).await;
            let place = place
                .map_err(|error| format!("error while reading image metadata: {}", why(&error)))?;
            let end = at + place.len;
            if place.content == Content::Nothing {
                while at < end {
                    let len = (CHUNK - at % CHUNK).min(end - at);
                    if !self.chunks.put((at, len)).await {
                        return Ok(());
                    }
                    at += len;
                }
            } else {
                self.progress.advance(place.len);
            }
            at = end;
        }
        Ok(())
    }

    async fn serve(&self) -> Result<(), Fail> {
        let (old, new) = (IoBuf::zeroed(CHUNK as usize), IoBuf::zeroed(CHUNK as usize));
        while let Some((offset, len)) = self.chunks.take().await {
            signals::check()?;
            let (old, new) = (old.slice(0..len as usize), new.slice(0..len as usize));
            read(self.old.as_ref(), offset, &old).await.map_err(|error| {
                format!("error while reading from old backing file: {}", why(&error))
            })?;
            read(self.new.as_ref(), offset, &new).await.map_err(|error| {
                format!("error while reading from new backing file: {}", why(&error))
            })?;
            self.keep(offset, &old, &new)
                .await
                .map_err(|error| format!("Error while writing to COW image: {}", why(&error)))?;
            self.progress.advance(len);
        }
        Ok(())
    }

    /// Writes the runs of the old contents that differ from the new.
    async fn keep(&self, offset: u64, old: &IoBuf, new: &IoBuf) -> std::io::Result<()> {
        let (before, after) = (old.to_vec(), new.to_vec());
        let differs = |at: usize| {
            let end = (at + BLOCK).min(before.len());
            before.get(at..end) != after.get(at..end)
        };
        let mut at = 0;
        while at < before.len() {
            if !differs(at) {
                at += BLOCK;
                continue;
            }
            let start = at;
            while at < before.len() && differs(at) {
                at += BLOCK;
            }
            let end = at.min(before.len());
            let run = old.slice(start..end);
            let (offset, len) = (offset + start as u64, (end - start) as u64);
            // Without a backing file zeros need not be told, and would be gone under the new one.
            if run.is_zero() && self.old.is_some() {
                self.image.zero(offset, len, Zero::MayUnmap).await?;
            } else {
                self.image.write(offset, run, false).await?;
            }
        }
        Ok(())
    }
}

/// Zeros where there is no such file, or where it has ended.
async fn read(node: Option<&Rc<dyn Node>>, offset: u64, buf: &IoBuf) -> std::io::Result<()> {
    let size = node.map_or(0, |node| node.info().size);
    let inside = size.saturating_sub(offset).min(buf.len() as u64) as usize;
    buf.skip(inside).fill(0);
    match node {
        Some(node) if inside > 0 => node.read(offset, buf.slice(0..inside)).await,
        _ => Ok(()),
    }
}
