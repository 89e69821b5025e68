//! The receiving side.
//!
//! A thread of its own reads the stream and puts pages into RAM, while the machine stands in state
//! `inmigrate`; what concerns the machine it asks of the main thread by [`Target`]. Where the
//! connection goes both ways the guest changes hands in four steps, so that it never runs at both
//! ends:
//!
//! | source | destination |
//! |---|---|
//! | stopped, everything sent | |
//! | | everything loaded: LOADED |
//! | lets go of the disks: TAKE | |
//! | | has the disks: READY |
//! | from here on it is no longer its guest: GO | |
//! | | RUNNING, then it runs |
//!
//! A connection that ends before GO leaves the guest with the source. Where it goes one way, the
//! guest is the destination's when the stream is complete, to the last byte of its description.
//!
//! The stream comes from anybody: it is checked before anything is applied but pages, which go
//! nowhere but into RAM of a machine that has never run.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use resources::state::{Blob, MAX_BYTES};

use crate::blocks::{self, Sink};
use crate::inventory::{self, Inventory};
use crate::link::Link;
use crate::multifd::{Arrivals, Door};
use crate::needs::Needs;
use crate::postcopy::faults::Faults;
use crate::ram::{self, Block, Receiver};
use crate::stream::{Error, Reader, answer, command, kind};

mod postcopy;

use postcopy::Late;
pub use postcopy::possible as postcopy_possible;

/// So long a source may take for each step in which the guest changes hands.
const STEP: Duration = Duration::from_secs(if cfg!(test) { 4 } else { 60 });

/// The encoded state of all devices may have so many bytes.
const MAX_STATE: usize = 64 << 20;

/// The longest description of a stream.
const MAX_DESCRIPTION: usize = 16 << 20;

/// The saved state of one part of the machine.
#[derive(Debug, Clone)]
pub struct Section {
    /// The part.
    pub name: String,
    /// Its state.
    pub blob: Blob,
}

/// The machine that is to take the guest.
pub trait Target: Send {
    /// The source is as it should be, and memory follows.
    fn begun(&mut self) {}
    /// The disks that can be written, whose contents come too.
    ///
    /// # Errors
    /// They cannot be had.
    fn disks(&mut self) -> Result<Vec<Box<dyn Sink>>, String> {
        Err("disks cannot be taken here".to_owned())
    }
    /// Takes over the state of every part.
    ///
    /// # Errors
    /// It does not fit.
    fn load(&mut self, sections: Vec<Section>) -> Result<(), String>;
    /// Takes the disks.
    ///
    /// # Errors
    /// Somebody else has one, or it cannot be opened.
    fn take(&mut self) -> Result<(), String>;
    /// The guest is here and may run, and some of its memory comes late. If that fails from now on
    /// the guest is lost: nobody who waits for memory ever goes on.
    fn early(&mut self) {}
    /// Some of that memory never comes. Whoever waits for it does so until the process ends.
    fn lost(&mut self, faults: Faults) {
        faults.never_give_up();
    }
    /// Where further connections come in, once; without a call nobody is let in.
    fn door(&mut self) -> Option<Box<dyn Door>> {
        None
    }
}

/// Takes a guest over. Once this returns it may run here, and nowhere else.
///
/// # Errors
/// Why not; the source was told, if it can be. The machine must not run.
pub fn receive(
    link: impl Link,
    blocks: Vec<Block>,
    here: &Inventory,
    target: &mut impl Target,
) -> Result<(), Error> {
    let from = Reader::new(link);
    let ram = Receiver::new(blocks.clone());
    let mut incoming = Incoming {
        from,
        ram,
        here,
        answers: false,
        sent: Inventory::default(),
        disks: None,
        needs: None,
        door: None,
        links: Vec::new(),
        channels: None,
        parts: BTreeMap::new(),
        state: Vec::new(),
        bytes: 0,
        late: None,
        blocks,
    };
    let mut done = incoming.all(target);
    // A source closes the connection when a channel fails.
    let failed = incoming.channels.as_mut().and_then(Arrivals::failure);
    if let (Err(Error::Io(_)), Some(error)) = (&done, failed) {
        done = Err(error);
    }
    if let Err(error) = &done
        && !matches!(error, Error::Io(_))
    {
        // The source may be gone.
        let _ = incoming.answer(answer::FAILED, error.to_string().as_bytes());
    }
    done
}

struct Incoming<'a, L> {
    from: Reader<L>,
    ram: Receiver,
    here: &'a Inventory,
    /// The source wants answers.
    answers: bool,
    /// What the source is.
    sent: Inventory,
    disks: Option<blocks::Receiver>,
    /// The inventory came and fits; what the stream needs.
    needs: Option<Needs>,
    /// Where channels come in, until they have.
    door: Option<Box<dyn Door>>,
    /// Those that have come.
    links: Vec<Box<dyn Link + Send>>,
    /// The ways of memory, if it has ways of its own.
    channels: Option<Arrivals>,
    /// Sections that come in parts: their numbers.
    parts: BTreeMap<u32, String>,
    state: Vec<Section>,
    /// Of that state.
    bytes: usize,
    /// What may come late, if that was agreed on.
    late: Option<Late>,
    blocks: Vec<Block>,
}

impl<L: Link> Incoming<'_, L> {
    fn all(&mut self, target: &mut impl Target) -> Result<(), Error> {
        let machine = self.from.begin()?;
        if machine != self.here.machine {
            let here = &self.here.machine;
            return Err(Error::bad(format!(
                "Machine type received is '{machine}' and local is '{here}'"
            )));
        }
        while self.section(target)? {}
        if self.needs.is_none() {
            return Err(Error::bad("the stream does not say what machine it is of"));
        }
        let sections = std::mem::take(&mut self.state);
        self.description()?;
        self.flush_disks()?;
        self.channels.as_mut().map_or(Ok(()), Arrivals::wait)?;
        self.meanwhile(|| target.load(sections))?;
        if self.answers {
            self.answer(answer::LOADED, &[])?;
            self.expect(command::TAKE)?;
        }
        self.meanwhile(|| target.take())?;
        if self.answers {
            self.answer(answer::READY, &[])?;
            self.expect(command::GO)?;
            let late = self.late.take_if(|late| late.has_begun());
            if late.is_some() {
                // Nobody else has the rest of the memory, however long it takes to come.
                self.from.channel().give_up_after(Duration::MAX);
                target.early();
            }
            // Without a source that could hear it the guest is here all the same.
            let _ = self.answer(answer::RUNNING, &[]);
            if let Some(late) = late {
                late.rest(&mut self.from).map_err(|(error, faults)| {
                    target.lost(faults);
                    error
                })?;
                let _ = self.answer(answer::FULL, &[]);
            }
        }
        Ok(())
    }

    /// Has the machine do something, which may need memory that comes late.
    fn meanwhile(&mut self, work: impl FnOnce() -> Result<(), String> + Send) -> Result<(), Error> {
        match self.late.as_mut().filter(|late| late.has_begun()) {
            Some(late) => late.meanwhile(&mut self.from, work),
            None => work().map_err(Error::Bad),
        }
    }

    /// What follows the end is for tools; but a stream without it was cut, and the source may have
    /// seen that and gone on.
    fn description(&mut self) -> Result<(), Error> {
        match self.from.u8()? {
            kind::DESCRIPTION => {
                self.from.blob("the description of the stream", MAX_DESCRIPTION).map(drop)
            }
            other => Err(Error::bad(format!("Unknown savevm section type {other}"))),
        }
    }

    /// Reads a section; `false` at the end.
    fn section(&mut self, target: &mut impl Target) -> Result<bool, Error> {
        let late = self.late.as_ref().is_some_and(Late::has_begun);
        match self.from.u8()? {
            kind::EOF => return Ok(false),
            // Nobody would ask for a page that this thread touches.
            kind::START | kind::PART | kind::END if late => {
                return Err(Error::bad("memory comes that was to come late"));
            }
            section @ (kind::START | kind::FULL) => {
                let id = self.from.u32()?;
                let name = self.from.name()?;
                let instance = self.from.u32()?;
                let version = self.from.u32()?;
                if instance != 0 {
                    return Err(unknown(&name, instance));
                }
                match (section, &*name) {
                    (kind::START, ram::NAME) => {
                        newer(version, ram::VERSION, ram::NAME)?;
                        if self.needs.is_none() {
                            return Err(Error::bad("memory comes before the inventory"));
                        }
                        self.begin(id, &name)?;
                        self.meet()?;
                        self.ram.start(&mut self.from)?;
                        let links = std::mem::take(&mut self.links);
                        self.channels = Some(Arrivals::start(links, self.ram.order())?);
                        target.begun();
                    }
                    (kind::START, blocks::NAME) => {
                        newer(version, blocks::VERSION, blocks::NAME)?;
                        if self.needs.is_none() {
                            return Err(Error::bad("disks come before the inventory"));
                        }
                        self.begin(id, &name)?;
                        let mut disks = target.disks().map_err(Error::Bad)?;
                        disks.retain(|disk| self.sent.disks.contains_key(disk.name()));
                        let mut disks = blocks::Receiver::new(disks);
                        disks.part(&mut self.from)?;
                        self.disks = Some(disks);
                    }
                    (kind::FULL, inventory::NAME) => {
                        newer(version, 1, inventory::NAME)?;
                        if self.needs.is_some() {
                            return Err(Error::bad("the inventory comes twice"));
                        }
                        let bytes = self.from.blob("the inventory", MAX_BYTES)?;
                        let (source, needs) = Inventory::from_bytes(&bytes)?;
                        self.here.check(&source)?;
                        self.sent = source;
                        // Without channels nobody else is let in from now on.
                        self.door = target.door().filter(|_| needs.channels.is_some());
                        if needs.channels.is_some() && self.door.is_none() {
                            let text = "parallel channels come in by tcp and unix only";
                            return Err(Error::bad(text));
                        }
                        self.needs = Some(needs);
                    }
                    (kind::FULL, crate::postcopy::NAME) => {
                        newer(version, crate::postcopy::VERSION, &name)?;
                        let late = self.late.as_mut();
                        late.ok_or_else(|| unknown(&name, instance))?.begin(&mut self.from)?;
                    }
                    (kind::FULL, _) => self.state(&name, version)?,
                    _ => return Err(unknown(&name, instance)),
                }
                self.from.footer(id, &name)?;
            }
            kind::PART | kind::END => {
                let id = self.from.u32()?;
                let Some(name) = self.parts.get(&id) else {
                    return Err(Error::bad(format!("Unknown savevm section {id}")));
                };
                match &mut self.disks {
                    Some(disks) if name == blocks::NAME => disks.part(&mut self.from)?,
                    _ => self.ram.part(&mut self.from)?,
                }
                self.from.footer(id, name)?;
            }
            kind::COMMAND => self.command()?,
            other => return Err(Error::bad(format!("Unknown savevm section type {other}"))),
        }
        Ok(true)
    }

    /// A section that comes in parts.
    fn begin(&mut self, id: u32, name: &str) -> Result<(), Error> {
        if self.parts.values().any(|other| other == name) {
            return Err(Error::bad(format!("the section '{name}' starts twice")));
        }
        self.parts.insert(id, name.to_owned());
        Ok(())
    }

    /// Lets the channels of memory in that were announced, if some were and have not come yet.
    fn meet(&mut self) -> Result<(), Error> {
        let announced = self.needs.as_ref().and_then(|needs| needs.channels.as_ref());
        if let (Some(announced), Some(mut door)) = (announced, self.door.take()) {
            self.links = Arrivals::meet(&mut *door, announced)?;
        }
        Ok(())
    }

    fn state(&mut self, name: &str, version: u32) -> Result<(), Error> {
        if self.needs.is_none() || !self.here.parts.contains_key(name) {
            return Err(unknown(name, 0));
        }
        newer(version, 1, name)?;
        if self.state.iter().any(|section| section.name == name) {
            return Err(Error::bad(format!("the state of '{name}' comes twice")));
        }
        let bytes = self.from.blob(name, MAX_BYTES)?;
        self.bytes = self.bytes.saturating_add(bytes.len());
        if self.bytes > MAX_STATE {
            return Err(Error::bad(format!("the state of devices is over {MAX_STATE} bytes")));
        }
        let blob = Blob::from_bytes(&bytes);
        let blob = blob.map_err(|error| Error::bad(format!("{name}: {error}")))?;
        self.state.push(Section { name: name.to_owned(), blob });
        Ok(())
    }

    fn command(&mut self) -> Result<(), Error> {
        let number = self.from.u16()?;
        let mut data = vec![0; self.from.u16()?.into()];
        self.from.bytes(&mut data)?;
        match number {
            command::OPEN_RETURN_PATH if !self.from.channel().two_way() => {
                return Err(Error::bad("the source wants answers, which cannot go this way"));
            }
            command::OPEN_RETURN_PATH => self.answers = true,
            command::POSTCOPY_ADVISE if self.answers => {
                if !self.may_lag() {
                    return Err(Error::bad("post-copy cannot be agreed on here"));
                }
                let late = self.late.insert(Late::new(&self.blocks)?);
                let list = late.list();
                self.answer(answer::LATE, &list)?;
            }
            command::PING if self.answers => {
                // The guest still runs: what it takes to make them durable it does not wait for.
                self.flush_disks()?;
                self.answer(answer::PONG, &data)?;
                // The source knows now that they may come.
                self.meet()?;
            }
            _ => return Err(Error::bad(format!("command {number:#x} is not known here"))),
        }
        Ok(())
    }

    /// Whether memory may come late: some that has come would be lost by trying it, and channels
    /// would wait for memory that only this thread asks for.
    fn may_lag(&self) -> bool {
        let channels = self.needs.as_ref().map(|needs| needs.channels.is_some());
        channels == Some(false) && self.late.is_none() && self.parts.is_empty()
    }

    fn flush_disks(&mut self) -> Result<(), Error> {
        self.disks.as_mut().map_or(Ok(()), blocks::Receiver::flush)
    }

    /// Waits for a command, which is the source's next step.
    fn expect(&mut self, wanted: u16) -> Result<(), Error> {
        self.from.channel().give_up_at(Instant::now().checked_add(STEP));
        self.expected(wanted)?;
        self.from.channel().give_up_at(None);
        Ok(())
    }

    /// Reads a command; nothing else may come.
    fn expected(&mut self, wanted: u16) -> Result<(), Error> {
        if let Some(late) = self.late.as_mut().filter(|late| late.has_begun()) {
            return late.until(&mut self.from, wanted);
        }
        let found = (self.from.u8()?, self.from.u16()?, self.from.u16()?);
        if found != (kind::COMMAND, wanted, 0) {
            return Err(Error::bad("something else comes where the guest changes hands"));
        }
        Ok(())
    }

    fn answer(&mut self, number: u16, data: &[u8]) -> Result<(), Error> {
        if !self.answers {
            return Ok(());
        }
        say(self.from.channel(), number, data)
    }
}

/// Sends an answer.
fn say(channel: &mut impl Write, number: u16, data: &[u8]) -> Result<(), Error> {
    let len = data.len().min(4096);
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend_from_slice(&u16::try_from(len).unwrap_or(0).to_be_bytes());
    bytes.extend_from_slice(data.get(..len).unwrap_or_default());
    channel.write_all(&bytes)?;
    Ok(channel.flush()?)
}

fn unknown(name: &str, instance: u32) -> Error {
    Error::bad(format!("Unknown savevm section or instance '{name}' {instance}"))
}

fn newer(version: u32, known: u32, name: &str) -> Result<(), Error> {
    if version > known {
        let text = format!("savevm: unsupported version {version} for '{name}' v{known}");
        return Err(Error::bad(text));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
