//! The sending side.
//!
//! A thread of its own: it announces the machine, sends all memory and then, pass by pass, what
//! the guest has written meanwhile, until the rest could be sent within the downtime that is
//! allowed. Then the main thread stops the guest ([`Machine::switch_over`]), and the rest goes with
//! the state of the devices. How the guest changes hands stands in [`crate::dest`]. It may wait for
//! the main thread, which waits for it never.
//!
//! Who has the guest: this side until `Progress::commit`, which a cancel cannot pass, and until the
//! last byte that the other side needs was handed to the host. From then on only a peer that says
//! so does not run it: anybody on the way can cut a connection. A stream in a file runs nowhere.
//!
//! What comes back on the connection is from anybody: answers are short and compared.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::blocks;
use crate::channel::Limiter;
use crate::chunk::Tally;
use crate::converge::Converge;
use crate::dest::Section;
use crate::inventory::{self, Inventory};
use crate::link::Link;
use crate::multifd::Channels;
use crate::needs::{Announcement, Needs};
use crate::ram::{self, Block, Free, Hinting, Sender, Sent, Watch};
use crate::status::{Limits, Phase, Progress};
use crate::stream::{Error, Writer, answer, command, kind};
use crate::xbzrle;

use resources::ram::PAGE;

mod disks;
mod hand_over;
mod postcopy;

/// Over this time throughput is measured.
const WINDOW: Duration = Duration::from_millis(100);
/// So long a part of a pass may take.
const PART: Duration = Duration::from_millis(50);
/// Fewer bytes, sent in less time, say nothing of the bandwidth: the host's buffers took them.
const TELLING: (u64, Duration) = (1 << 20, Duration::from_secs(1));

/// The machine whose guest moves.
pub trait Machine {
    /// Has the hypervisor note what the guest writes, if there is one that does.
    ///
    /// # Errors
    /// It cannot.
    fn start_log(&mut self) -> Result<(), String> {
        Ok(())
    }
    /// Marks what was noted in the blocks' bitmaps, and begins to note anew.
    ///
    /// # Errors
    /// The hypervisor has failed.
    fn harvest(&mut self) -> Result<(), String> {
        Ok(())
    }
    /// Has what is written to pages that were marked noted again; `None`: it always is.
    fn watch(&self) -> Option<Watch> {
        None
    }
    /// The disks whose contents move too, if they do. What is written to them is seen from now on.
    ///
    /// # Errors
    /// They cannot be read.
    fn disks(&mut self) -> Result<Option<blocks::Sender>, String> {
        Ok(None)
    }
    /// Ends the noting.
    fn stop_log(&mut self) {}
    /// Takes so many percent of its time from the guest from now on, 0 to 99.
    fn throttle(&mut self, _percent: u8) {}
    /// What time it is.
    fn now(&self) -> Instant {
        Instant::now()
    }
    /// What of its memory the guest says it does not use. It is not asked while somebody could
    /// still want such a page from here, as when the guest runs elsewhere before all has been sent.
    fn hints(&mut self, _ask: Hinting) -> Vec<Free> {
        Vec::new()
    }
    /// Stops the guest and saves the state of everything but memory. From now on nothing writes
    /// memory.
    ///
    /// # Errors
    /// It cannot be saved.
    fn switch_over(&mut self) -> Result<Vec<Section>, String>;
    /// Lets go of the disks, so that another can take them.
    ///
    /// # Errors
    /// They are not durable.
    fn release(&mut self) -> Result<(), String>;
    /// Opens another connection to the destination.
    ///
    /// # Errors
    /// There is no way, or nobody is there.
    fn connect(&mut self) -> Result<Box<dyn Link + Send>, String> {
        Err("the way to the destination can be gone only once".to_owned())
    }
}

/// What is to be done to make it quick.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wants {
    /// Pages are sent as differences to what was sent before, where that is shorter (XBZRLE).
    pub deltas: bool,
    /// A guest that writes too fast is slowed down (auto-converge).
    pub converge: bool,
    /// The guest may go before its memory (post-copy).
    pub postcopy: bool,
    /// Memory goes by so many channels of its own, if any; without differences.
    pub channels: u8,
    /// Pages are packed with zstd, by this level.
    pub level: Option<i32>,
}

/// How it has ended.
#[derive(Debug)]
pub enum Outcome {
    /// The other side has the guest.
    Moved,
    /// This side has the guest, for this reason.
    Stayed(Error),
    /// The connection was lost at the one moment when it cannot be known who has the guest. It does
    /// not run here, and may run there.
    Unsure(Error),
    /// The same, where some of the guest's memory was to follow it: if the other side ran it then
    /// its disks may have changed, and with what this side has it must not go on.
    PerhapsLost(Error),
    /// The connection was lost when the other side ran the guest and lacked some of its memory. Nobody
    /// has the guest any more.
    Lost(Error),
}

/// Moves the guest of `machine` over `link`. Does not set the phase at the end: whoever hears of
/// the outcome does, when the machine is as it should be then.
pub fn send<L: Link, M: Machine>(
    link: L,
    blocks: Vec<Block>,
    inventory: &Inventory,
    machine: &mut M,
    limits: &Arc<Limits>,
    progress: &Arc<Progress>,
    wants: Wants,
) -> Outcome {
    let sender = Sender::new(blocks);
    let converge = Converge::new(wants.converge, machine.now());
    let mut source = Source {
        to: Writer::new(link),
        ram: sender,
        channels: None,
        inventory,
        machine,
        limits,
        progress,
        wants,
        described: Vec::new(),
        disks: None,
        bandwidth: Bandwidth::default(),
        converge,
        stopped: None,
        next_id: 0,
        ram_id: 0,
        pinged: false,
        gone: false,
        late: None,
        answers: hand_over::Answers::default(),
    };
    let done = source.all();
    source.machine.throttle(0);
    source.machine.hints(Hinting::Done);
    source.machine.stop_log();
    match done {
        Ok(()) => Outcome::Moved,
        Err(error) => {
            let unsure = source.gone && !matches!(error, Error::Refused(_));
            let error = source.reason(error);
            match progress.phase() {
                Phase::Postcopy => Outcome::Lost(error),
                _ if unsure && source.lags() => Outcome::PerhapsLost(error),
                _ if unsure => Outcome::Unsure(error),
                _ => Outcome::Stayed(error),
            }
        }
    }
}

struct Source<'a, L, M> {
    to: Writer<L>,
    ram: Sender,
    /// The ways of memory, if it has ways of its own.
    channels: Option<Channels>,
    inventory: &'a Inventory,
    machine: &'a mut M,
    limits: &'a Limits,
    progress: &'a Progress,
    wants: Wants,
    /// The sections of devices: name and length.
    described: Vec<(String, usize)>,
    disks: Option<disks::Disks>,
    bandwidth: Bandwidth,
    converge: Converge,
    /// When the guest was stopped.
    stopped: Option<Instant>,
    next_id: u32,
    ram_id: u32,
    /// The destination has said that it read all until then.
    pinged: bool,
    /// The destination may have all that it needs to run the guest.
    gone: bool,
    /// What may come late, if that was agreed on.
    late: Option<postcopy::Late>,
    answers: hand_over::Answers,
}

/// How fast bytes go.
#[derive(Default)]
struct Bandwidth {
    /// Bytes a second.
    rate: f64,
    /// Bytes sent since that was found, and the time that took.
    bytes: u64,
    busy: Duration,
}

impl Bandwidth {
    fn add(&mut self, bytes: u64, busy: Duration) {
        self.bytes += bytes;
        self.busy += busy;
        let telling = self.bytes >= TELLING.0 || self.busy >= TELLING.1 || self.rate == 0.0;
        if telling && !self.busy.is_zero() {
            let rate = self.bytes as f64 / self.busy.as_secs_f64();
            *self = Bandwidth { rate, ..Bandwidth::default() };
        }
    }
}

/// The present tenth of a second.
struct Window {
    began: Instant,
    /// Bytes of the stream at its beginning.
    from: u64,
    /// Time spent sending in it.
    busy: Duration,
}

impl<L: Link, M: Machine> Source<'_, L, M> {
    fn all(&mut self) -> Result<(), Error> {
        self.setup()?;
        self.progress.active()?;
        self.passes()?;
        self.complete()
    }

    fn id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }

    fn setup(&mut self) -> Result<(), Error> {
        self.to.channel().set_limiter(self.limits.limiter());
        self.to.begin(&self.inventory.machine)?;
        if self.to.channel().two_way() {
            self.to.command(command::OPEN_RETURN_PATH, &[])?;
        }
        let needs = self.needs()?;
        let bytes = self.inventory.to_bytes(&needs)?;
        self.full(inventory::NAME, &bytes)?;
        if let Some(announced) = &needs.channels {
            self.open_channels(announced)?;
        } else if let Some(level) = self.wants.level {
            self.ram.compress(level)?;
        }
        self.advise()?;
        self.start_disks()?;
        self.machine.start_log().map_err(Error::Here)?;
        if let Some(watch) = self.machine.watch() {
            self.ram.watch_by(watch);
        }
        // All pages are to be sent as it is.
        self.machine.harvest().map_err(Error::Here)?;
        self.ram.collect();
        if self.wants.deltas {
            let deltas = xbzrle::Sender::new(self.cache());
            self.ram.send_deltas(deltas.map_err(|error| Error::Here(error.to_string()))?);
        }
        self.ram_id = self.id();
        self.to.section(kind::START, self.ram_id, ram::NAME, ram::VERSION)?;
        self.ram.start(&mut self.to)?;
        self.to.footer(self.ram_id)?;
        self.to.flush()?;
        self.begin_hints();
        self.converge = Converge::new(self.wants.converge, self.machine.now());
        let (total, remaining) = (self.ram.total(), self.ram.dirty() * PAGE);
        self.progress.update(|figures| (figures.total, figures.remaining) = (total, remaining));
        Ok(())
    }

    /// What the stream needs of the destination.
    fn needs(&self) -> Result<Needs, Error> {
        let channels = match self.wants.channels {
            0 => None,
            count => Some(Announcement::new(count)?),
        };
        Ok(Needs { channels, compress: self.wants.level.is_some() })
    }

    /// Opens the channels of memory, when the destination has agreed to everything.
    fn open_channels(&mut self, announced: &Announcement) -> Result<(), Error> {
        if !self.to.channel().two_way() {
            let text = "parallel channels need a destination that answers";
            return Err(Error::Here(text.to_owned()));
        }
        self.read_all()?;
        let limiter = Limiter::new(self.limits.bandwidth());
        let connect = || self.machine.connect().map_err(Error::Here);
        let channels = Channels::open(announced, self.wants.level, limiter, connect)?;
        self.to.channel().set_limiter(channels.limiter());
        self.channels = Some(channels);
        Ok(())
    }

    /// Waits until the destination has read everything that went by the main connection.
    fn read_all(&mut self) -> Result<(), Error> {
        self.to.command(command::PING, &1u32.to_be_bytes())?;
        self.answered(answer::PONG).map(drop)
    }

    /// Bytes of the stream so far.
    fn written(&self) -> u64 {
        self.to.written() + self.channels.as_ref().map_or(0, Channels::written)
    }

    /// Sends the next pages, or leaves them to their channel; `None` if there are none.
    fn next(&mut self, tally: &mut Tally) -> Result<Option<()>, Error> {
        let Some(channels) = &self.channels else {
            let sent = self.ram.send(&mut self.to)?;
            return Ok(sent.map(|sent| tally.add(sent)));
        };
        let Some(chunk) = self.ram.chunk()? else { return Ok(None) };
        channels.send(chunk).map(Some)
    }

    /// Sends a section of our own.
    fn full(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let id = self.id();
        self.to.section(kind::FULL, id, name, 1)?;
        self.to.blob(bytes)?;
        self.to.footer(id)?;
        self.described.push((name.to_owned(), bytes.len()));
        Ok(())
    }

    /// Sends memory until the rest is small enough.
    fn passes(&mut self) -> Result<(), Error> {
        let mut window = self.window();
        loop {
            self.progress.check()?;
            if self.goes_early()? {
                return Ok(());
            }
            if self.small_enough() {
                self.drain(&mut window)?;
                self.sync()?;
                if self.small_enough() && self.read_there()? {
                    return Ok(());
                }
            }
            self.part(&mut window)?;
            self.measure(&mut window);
        }
    }

    /// Waits until the channels have sent what waits in them, which would keep the guest waiting too,
    /// and is a part of how fast it goes.
    fn drain(&mut self, window: &mut Window) -> Result<(), Error> {
        let Some(channels) = &self.channels else { return Ok(()) };
        let began = self.machine.now();
        channels.drain()?;
        window.busy += self.machine.now() - began;
        self.measure(window);
        Ok(())
    }

    fn window(&self) -> Window {
        let from = self.written();
        Window { began: self.machine.now(), from, busy: Duration::ZERO }
    }

    /// The bytes of the cache for differences: one as large as memory is as good as any.
    fn cache(&self) -> u64 {
        self.limits.cache().min(self.ram.total().next_power_of_two())
    }

    fn rest(&self) -> u64 {
        self.ram.dirty() * PAGE
    }

    /// Whether the rest could be sent within the downtime that is allowed.
    fn small_enough(&self) -> bool {
        (self.rest() + self.disks_left()) as f64
            <= self.bandwidth.rate * self.limits.downtime().as_secs_f64()
    }

    /// Whether the destination has read everything: what it refuses it has refused then, before the
    /// guest stops. `false` if that was not known yet, and the guest has gone on meanwhile.
    fn read_there(&mut self) -> Result<bool, Error> {
        if self.pinged || !self.to.channel().two_way() {
            return Ok(true);
        }
        self.read_all()?;
        self.pinged = true;
        Ok(false)
    }

    /// Asks the guest to say what it does not use, as long as it runs here and nobody could want
    /// such a page from here later.
    fn begin_hints(&mut self) {
        if self.stopped.is_none() && !self.wants.postcopy {
            self.machine.hints(Hinting::Begin);
        }
    }

    /// Asks the guest what it does not use; what was written there until it was last found what
    /// was is not sent.
    fn skip(&mut self, ask: Hinting) {
        for free in self.machine.hints(ask) {
            self.ram.skip(free);
        }
    }

    /// Finds what the guest has written.
    fn sync(&mut self) -> Result<(), Error> {
        // A hint that came later could be about a page that was used again since, and would hide
        // what is found now.
        let runs = self.stopped.is_none();
        if runs {
            self.skip(Hinting::End);
        }
        self.machine.harvest().map_err(Error::Here)?;
        let rate = self.converge.written(self.ram.collect(), self.machine.now());
        self.begin_hints();
        let cache = self.cache();
        if let Some(deltas) = self.ram.deltas()
            && deltas.stats().cache_size != cache
            && let Err(error) = deltas.resize(cache)
        {
            tracing::warn!("the cache for differences stays as it is: {error}");
        }
        let (rest, bandwidth) = (self.rest(), self.bandwidth.rate);
        let percent = self.converge.percent();
        if self.stopped.is_none() {
            self.machine.throttle(percent);
        }
        self.progress.update(|figures| {
            (figures.remaining, figures.throttle) = (rest, percent);
            if let Some(rate) = rate {
                figures.dirty_rate = rate;
            }
            if bandwidth > 0.0 {
                figures.expected_downtime = (rest as f64 / bandwidth * 1000.0) as u64;
            }
        });
        Ok(())
    }

    /// Sends a part of a pass: no more than the limit lets through in a window.
    fn part(&mut self, window: &mut Window) -> Result<(), Error> {
        self.skip(Hinting::Take);
        if self.disk_part(window)? || self.ram.dirty() == 0 {
            return Ok(());
        }
        let (began, from) = (self.machine.now(), self.written());
        let before = self.ram.dirty();
        let mut tally = Tally::default();
        self.channels.iter().for_each(|channels| channels.limit(self.limits.bandwidth()));
        self.to.part(kind::PART, self.ram_id)?;
        // Many pages go at once, or one by one.
        let every = if self.wants.deltas { 16 } else { 1 };
        for count in 1_u64.. {
            if self.next(&mut tally)?.is_none() {
                break;
            }
            let limit = self.limits.bandwidth() / 10;
            if limit != 0 && self.written() - from >= limit {
                break;
            }
            // The clock is asked now and then.
            if count.is_multiple_of(every) && self.machine.now() - began > PART {
                break;
            }
        }
        self.end_part(tally)?;
        window.busy += self.machine.now() - began;
        self.converge.sent(before - self.ram.dirty());
        Ok(())
    }

    fn end_part(&mut self, mut tally: Tally) -> Result<(), Error> {
        self.ram.end_part(&mut self.to)?;
        self.to.footer(self.ram_id)?;
        self.to.flush()?;
        self.channels.iter().for_each(|channels| tally.add(Sent::Chunk(channels.tally())));
        let (transferred, remaining) = (self.without_disks(), self.rest());
        let deltas = self.ram.deltas().map(|deltas| deltas.stats());
        self.progress.update(|figures| {
            figures.zero += tally.zero;
            figures.normal += tally.normal;
            (figures.transferred, figures.remaining) = (transferred, remaining);
            figures.deltas = deltas;
        });
        Ok(())
    }

    /// At the end of a window: how fast it went.
    fn measure(&mut self, window: &mut Window) {
        let elapsed = self.machine.now() - window.began;
        if elapsed < WINDOW {
            return;
        }
        let bytes = self.written() - window.from;
        self.bandwidth.add(bytes, window.busy);
        let mbps = bytes as f64 * 8.0 / elapsed.as_secs_f64() / 1e6;
        self.progress.update(|figures| figures.mbps = mbps);
        *window = self.window();
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
