//! The receiving side of post-copy ([`crate::postcopy`]).
//!
//! On the thread of the migration, which from the section that says what is missing does nothing
//! but hear who touches memory, ask for it and place what comes. What takes long meanwhile, loading
//! the state of devices, another thread waits for: it may touch memory itself.
//!
//! A source can send what it likes: pages go to places of this machine's memory that were missing,
//! and nowhere else.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use crate::link::Link;
use crate::postcopy::faults::{Area, Faults};
use crate::postcopy::missing::Missing;
use crate::postcopy::{MOST_AT_ONCE, form};
use crate::ram::Block;
use crate::stream::{Error, Reader, answer, command, kind};

/// So many pages are asked for at a time. That many requests fit into the buffers of any
/// connection, so that nobody waits to send one.
const ASKED: usize = 256;

/// So long a page may take that the machine waits for before the guest is here.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 30 });

/// Memory that comes late.
#[derive(Debug)]
pub(super) struct Late {
    faults: Faults,
    blocks: Vec<Filling>,
    /// Pages that were asked for, and when.
    asked: HashMap<(usize, u64), Instant>,
    /// It is missing, and waited for.
    begun: bool,
    page: Vec<u8>,
}

#[derive(Debug)]
struct Filling {
    name: String,
    area: Area,
    missing: Missing,
}

/// Whether this host lets memory come late.
///
/// # Errors
/// Why not.
pub fn possible() -> Result<(), String> {
    Faults::open().map(drop)
}

impl Late {
    /// The memory of this machine that may come late. It holds nothing yet.
    pub(super) fn new(all: &[Block]) -> Result<Late, Error> {
        let refuse = |reason: String| Error::bad(format!("post-copy is not possible: {reason}"));
        let faults = Faults::open().map_err(refuse)?;
        let mut blocks = Vec::new();
        for block in all {
            let refuse = |reason: String| refuse(format!("memory '{}': {reason}", block.name));
            let area = match Area::new(&block.ram) {
                Ok(area) => area,
                Err(_) if block.ram.size() <= MOST_AT_ONCE => continue,
                Err(reason) => return Err(refuse(reason)),
            };
            // Better to know now what the host refuses than when the guest stands still. Nothing
            // has come yet, and the machine has never run.
            let tried = faults.register(&area).and_then(|()| area.clear());
            faults.unregister(&area);
            match tried {
                Ok(()) => {
                    let missing = Missing::none(area.size(), area.page());
                    blocks.push(Filling { name: block.name.clone(), area, missing });
                }
                Err(_) if block.ram.size() <= MOST_AT_ONCE => {}
                Err(error) => return Err(refuse(error.to_string())),
            }
        }
        blocks.truncate(usize::from(u8::MAX));
        Ok(Late { faults, blocks, asked: HashMap::new(), begun: false, page: Vec::new() })
    }

    /// The blocks, for the source.
    pub(super) fn list(&self) -> Vec<u8> {
        let mut list = Vec::new();
        for Filling { name, area, .. } in &self.blocks {
            list.push(u8::try_from(name.len()).unwrap_or(0));
            list.extend_from_slice(name.as_bytes());
            list.extend_from_slice(&u32::try_from(area.page()).unwrap_or(0).to_be_bytes());
        }
        list
    }

    /// Reads what is missing. From now on who touches it waits.
    pub(super) fn begin(&mut self, from: &mut Reader<impl Link>) -> Result<(), Error> {
        if self.begun {
            return Err(Error::bad("what is missing is said twice"));
        }
        for block in &mut self.blocks {
            block.missing = Missing::read(from, block.area.size(), block.area.page())?;
        }
        self.begun = true;
        for Filling { name, area, missing } in &self.blocks {
            let mut done = self.faults.register(area);
            for (offset, len) in missing.runs() {
                done = done.and_then(|()| area.forget(offset, len));
            }
            done.map_err(|error| Error::Here(format!("memory '{name}' comes late: {error}")))?;
        }
        Ok(())
    }

    /// Whether memory is missing.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Does something on another thread, while this one fills memory.
    pub(super) fn meanwhile<T: Send>(
        &mut self,
        from: &mut Reader<impl Link>,
        work: impl FnOnce() -> Result<T, String> + Send,
    ) -> Result<T, Error> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let event = event.map_err(|error| Error::Io(error.into()))?;
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("migrate-load".to_owned());
            let worker = thread.spawn_scoped(scope, || {
                let result = work();
                done.store(true, Ordering::Release);
                let _ = rustix::io::write(&event, &1_u64.to_ne_bytes());
                result
            })?;
            let filled = self.fill(from, Some((&done, event.as_fd())));
            from.channel().give_up_at(None);
            if filled.is_err() {
                // The guest will not run here: whoever waits for its memory need not.
                self.blocks.iter().for_each(|block| self.faults.unregister(&block.area));
            }
            let result = worker.join();
            filled?;
            match result {
                Ok(result) => result.map_err(Error::Bad),
                Err(_) => Err(Error::Here("loading has panicked".to_owned())),
            }
        })
    }

    /// Fills memory until the source says `wanted`; nothing else may come.
    pub(super) fn until(&mut self, from: &mut Reader<impl Link>, wanted: u16) -> Result<(), Error> {
        match self.fill(from, None)? {
            Some(found) if found == wanted => Ok(()),
            _ => Err(Error::bad("something else comes where the guest changes hands")),
        }
    }

    /// Fills memory until something is done, or the source says something, which is returned.
    fn fill(
        &mut self,
        from: &mut Reader<impl Link>,
        work: Option<(&AtomicBool, BorrowedFd<'_>)>,
    ) -> Result<Option<u16>, Error> {
        loop {
            self.ask(from)?;
            if work.is_some_and(|(done, _)| done.load(Ordering::Acquire)) {
                return Ok(None);
            }
            if work.is_some() {
                // Others than this thread may wait for the machine.
                let since = self.asked.values().min().copied().unwrap_or_else(Instant::now);
                from.channel().give_up_at(since.checked_add(PATIENCE));
            }
            if !from.has_input() {
                let mut others = vec![];
                if self.asked.len() < ASKED {
                    others.push(self.faults.as_fd());
                }
                others.extend(work.map(|(_, event)| event));
                if !from.channel().wait(&others, None)? {
                    continue;
                }
            }
            match from.u8()? {
                kind::LATE => self.place(from)?,
                kind::COMMAND if work.is_none() => {
                    let (command, len) = (from.u16()?, from.u16()?);
                    return Ok((len == 0).then_some(command));
                }
                _ => {
                    let text = "something else comes where the guest changes hands";
                    return Err(Error::bad(text));
                }
            }
        }
    }

    /// Asks for the pages that somebody waits for.
    fn ask(&mut self, from: &mut Reader<impl Link>) -> Result<(), Error> {
        while self.asked.len() < ASKED {
            let Some(address) = self.faults.next()? else { return Ok(()) };
            let mut blocks = self.blocks.iter().enumerate();
            let Some((index, block, offset)) = blocks
                .find_map(|(index, block)| Some((index, block, block.area.offset_of(address)?)))
            else {
                continue;
            };
            let offset = offset - offset % block.area.page();
            if block.missing.has(offset) != Some(true) {
                // One that has come meanwhile, or was zeros from the beginning, or that the guest
                // has given back.
                self.faults.place_zeros(&block.area, offset)?;
            } else if let Entry::Vacant(place) = self.asked.entry((index, offset)) {
                place.insert(Instant::now());
                let mut request = vec![u8::try_from(index).unwrap_or(u8::MAX)];
                request.extend_from_slice(&offset.to_be_bytes());
                super::say(from.channel(), answer::REQUEST, &request)?;
            }
        }
        Ok(())
    }

    /// Places what comes.
    fn place(&mut self, from: &mut Reader<impl Link>) -> Result<(), Error> {
        let (index, offset, form) = (usize::from(from.u8()?), from.u64()?, from.u8()?);
        let bad = || Error::bad("a page comes late that is not of this memory");
        let block = self.blocks.get_mut(index).ok_or_else(bad)?;
        block.missing.has(offset).ok_or_else(bad)?;
        let placed = match form {
            form::ZERO => {
                !block.missing.take(offset) || self.faults.place_zeros(&block.area, offset)?
            }
            form::BYTES => {
                self.page.resize(usize::try_from(block.area.page()).unwrap_or(0), 0);
                from.bytes(&mut self.page)?;
                !block.missing.take(offset) || self.faults.place(&block.area, offset, &self.page)?
            }
            _ => return Err(bad()),
        };
        if !placed {
            // Nobody waited for it, and the guest may have gone on with what is there.
            let text = format!("memory '{}' holds a page that has not come yet", block.name);
            return Err(Error::Here(text));
        }
        self.asked.remove(&(index, offset));
        Ok(())
    }

    /// The guest is here: fills memory until it is all here. If that fails the guest is lost: gives
    /// those who wait for its memory too.
    pub(super) fn rest(mut self, from: &mut Reader<impl Link>) -> Result<(), (Error, Faults)> {
        let done = self.until(from, command::ALL_SENT).and_then(|()| {
            let missing: u64 = self.blocks.iter().map(|block| block.missing.bytes()).sum();
            match missing {
                0 => Ok(()),
                bytes => Err(Error::bad(format!("{bytes} bytes of memory never came"))),
            }
        });
        match done {
            Ok(()) => {
                self.blocks.iter().for_each(|block| self.faults.unregister(&block.area));
                Ok(())
            }
            Err(error) => Err((error, self.faults)),
        }
    }
}
