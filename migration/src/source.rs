//! The sending side.
//!
//! A thread of its own: it announces the machine, sends all memory and then, pass by pass, what
//! the guest has written meanwhile, until the rest could be sent within the downtime that is
//! allowed. Then the main thread stops the guest ([`Machine::switch_over`]), and the rest goes with
//! the state of the devices. How the guest changes hands stands in [`crate::dest`]. It may wait for
//! the main thread, which waits for it never.
//!
//! Who has the guest: this side until `Progress::commit`, which a cancel cannot pass. A peer that
//! is known not to run it gives it back even then.
//!
//! What comes back on the connection is from anybody: answers are short and compared.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::dest::Section;
use crate::inventory::{self, Inventory};
use crate::ram::{self, Block, Sender, Sent};
use crate::status::{Limits, Phase, Progress};
use crate::stream::{Error, Writer, answer, command, kind};
use crate::xbzrle;

use resources::ram::PAGE;

/// Over this time bandwidth is measured and limited.
const WINDOW: Duration = Duration::from_millis(100);
/// So long a part of a pass may take.
const PART: Duration = Duration::from_millis(50);
/// Over this time at least is measured how fast the guest writes.
const RATE_PERIOD: Duration = Duration::from_secs(1);
/// Fewer bytes say nothing of the bandwidth: the host's buffers took them.
const TELLING: u64 = 1 << 20;

/// The machine whose guest moves.
pub trait Machine {
    /// Has the hypervisor note what the guest writes.
    ///
    /// # Errors
    /// It cannot.
    fn start_log(&mut self) -> Result<(), String>;
    /// Marks what was noted in the blocks' bitmaps, and begins to note anew.
    ///
    /// # Errors
    /// The hypervisor has failed.
    fn harvest(&mut self) -> Result<(), String>;
    /// Ends the noting.
    fn stop_log(&mut self);
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
}

/// The connection to the destination.
pub trait Link: Read + Write {
    /// Whether it can answer.
    fn two_way(&self) -> bool;
    /// Nothing more is sent: waits until what was is where it belongs.
    ///
    /// # Errors
    /// It is not.
    fn finish(&mut self) -> io::Result<()>;
}

/// What is to be done to make it quick.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wants {
    /// Pages are sent as differences to what was sent before, where that is shorter (XBZRLE).
    pub deltas: bool,
}

/// How it has ended.
#[derive(Debug)]
pub enum Outcome {
    /// The other side has the guest.
    Moved,
    /// This side has the guest, for this reason.
    Stayed(Error),
    /// The connection was lost at the one moment when it cannot be known who has the guest. It does
    /// not run here.
    Unsure(Error),
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
    let mut source = Source {
        to: Writer::new(link),
        ram: sender,
        inventory,
        machine,
        limits,
        progress,
        wants,
        described: Vec::new(),
        bandwidth: 0.0,
        synced: (Instant::now(), 0),
        stopped: None,
        next_id: 0,
        ram_id: 0,
        pinged: false,
    };
    let done = source.all();
    source.machine.stop_log();
    let stopped = source.stopped;
    let outcome = match done {
        Ok(()) => Outcome::Moved,
        Err(error) => {
            let unsure = progress.phase() == Phase::Committed && !source.given_back(&error);
            let error = source.reason(error);
            if unsure { Outcome::Unsure(error) } else { Outcome::Stayed(error) }
        }
    };
    if let (Outcome::Moved, Some(at)) = (&outcome, stopped) {
        let downtime = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        progress.update(|figures| figures.downtime = downtime);
    }
    outcome
}

struct Source<'a, L, M> {
    to: Writer<L>,
    ram: Sender,
    inventory: &'a Inventory,
    machine: &'a mut M,
    limits: &'a Limits,
    progress: &'a Progress,
    wants: Wants,
    /// The sections of devices: name and length.
    described: Vec<(String, usize)>,
    /// Bytes a second.
    bandwidth: f64,
    /// When it was last found how fast the guest writes, and pages written since.
    synced: (Instant, u64),
    /// When the guest was stopped.
    stopped: Option<Instant>,
    next_id: u32,
    ram_id: u32,
    /// The destination has said that it read all until then.
    pinged: bool,
}

/// The present tenth of a second.
struct Window {
    began: Instant,
    /// Bytes of the stream at its beginning.
    from: u64,
    /// Time spent sending in it.
    busy: Duration,
    /// It was filled to its limit.
    full: bool,
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
        self.to.begin(&self.inventory.machine)?;
        if self.to.channel().two_way() {
            self.to.command(command::OPEN_RETURN_PATH, &[])?;
        }
        let bytes = self.inventory.to_bytes()?;
        self.full(inventory::NAME, &bytes)?;
        self.machine.start_log().map_err(Error::Here)?;
        // All pages are to be sent as it is.
        self.machine.harvest().map_err(Error::Here)?;
        self.ram.collect();
        if self.wants.deltas {
            let deltas = xbzrle::Sender::new(self.limits.cache());
            self.ram.send_deltas(deltas.map_err(|error| Error::Here(error.to_string()))?);
        }
        self.ram_id = self.id();
        self.to.section(kind::START, self.ram_id, ram::NAME, ram::VERSION)?;
        self.ram.start(&mut self.to)?;
        self.to.footer(self.ram_id)?;
        self.to.flush()?;
        self.synced = (Instant::now(), 0);
        let (total, remaining) = (self.ram.total(), self.ram.dirty() * PAGE);
        self.progress.update(|figures| (figures.total, figures.remaining) = (total, remaining));
        Ok(())
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
            if self.small_enough() {
                self.sync()?;
                if self.small_enough() && self.read_there()? {
                    return Ok(());
                }
            }
            self.part(&mut window)?;
            self.measure(&mut window);
        }
    }

    fn window(&self) -> Window {
        let from = self.to.written();
        Window { began: Instant::now(), from, busy: Duration::ZERO, full: false }
    }

    fn rest(&self) -> u64 {
        self.ram.dirty() * PAGE
    }

    /// Whether the rest could be sent within the downtime that is allowed.
    fn small_enough(&self) -> bool {
        self.rest() as f64 <= self.bandwidth * self.limits.downtime().as_secs_f64()
    }

    /// Whether the destination has read everything: what it refuses it has refused then, before the
    /// guest stops. `false` if that was not known yet, and the guest has gone on meanwhile.
    fn read_there(&mut self) -> Result<bool, Error> {
        if self.pinged || !self.to.channel().two_way() {
            return Ok(true);
        }
        self.to.command(command::PING, &1u32.to_be_bytes())?;
        self.answered(answer::PONG)?;
        self.pinged = true;
        Ok(false)
    }

    /// Finds what the guest has written.
    fn sync(&mut self) -> Result<(), Error> {
        self.machine.harvest().map_err(Error::Here)?;
        self.synced.1 += self.ram.collect();
        let cache = self.limits.cache();
        if let Some(deltas) = self.ram.deltas()
            && deltas.stats().cache_size != cache
            && let Err(error) = deltas.resize(cache)
        {
            tracing::warn!("the cache for differences stays as it is: {error}");
        }
        let elapsed = self.synced.0.elapsed();
        let (rest, bandwidth) = (self.rest(), self.bandwidth);
        let rate = (elapsed >= RATE_PERIOD).then(|| {
            let pages = std::mem::replace(&mut self.synced, (Instant::now(), 0)).1;
            (pages as f64 / elapsed.as_secs_f64()) as u64
        });
        self.progress.update(|figures| {
            figures.remaining = rest;
            if let Some(rate) = rate {
                figures.dirty_rate = rate;
            }
            if bandwidth > 0.0 {
                figures.expected_downtime = (rest as f64 / bandwidth * 1000.0) as u64;
            }
        });
        Ok(())
    }

    /// Sends a part of a pass, within the limit of the window.
    fn part(&mut self, window: &mut Window) -> Result<(), Error> {
        if self.ram.dirty() == 0 {
            return Ok(());
        }
        let began = Instant::now();
        let (mut zero, mut normal) = (0, 0);
        self.to.part(kind::PART, self.ram_id)?;
        loop {
            let limit = self.limits.bandwidth() / 10;
            if limit != 0 && self.to.written() - window.from >= limit {
                window.full = true;
                break;
            }
            if began.elapsed() > PART {
                break;
            }
            // The clock is asked now and then.
            let mut last = false;
            for _ in 0..16 {
                match self.ram.send(&mut self.to)? {
                    Some(Sent::Zero) => zero += 1,
                    Some(Sent::Normal) => normal += 1,
                    Some(Sent::Delta) => {}
                    None => last = true,
                }
            }
            if last {
                break;
            }
        }
        self.end_part(zero, normal)?;
        window.busy += began.elapsed();
        Ok(())
    }

    fn end_part(&mut self, zero: u64, normal: u64) -> Result<(), Error> {
        self.ram.end_part(&mut self.to)?;
        self.to.footer(self.ram_id)?;
        self.to.flush()?;
        let (transferred, remaining) = (self.to.written(), self.rest());
        let deltas = self.ram.deltas().map(|deltas| deltas.stats());
        self.progress.update(|figures| {
            figures.zero += zero;
            figures.normal += normal;
            (figures.transferred, figures.remaining) = (transferred, remaining);
            figures.deltas = deltas;
        });
        Ok(())
    }

    /// At the end of a window: how fast it went. Waits for that end, if the window is full.
    fn measure(&mut self, window: &mut Window) {
        if window.full {
            let end = window.began + WINDOW;
            std::thread::sleep(end.saturating_duration_since(Instant::now()));
        }
        let elapsed = window.began.elapsed();
        if elapsed < WINDOW {
            return;
        }
        let bytes = self.to.written() - window.from;
        let busy = if window.full { elapsed } else { window.busy };
        if !busy.is_zero() && (bytes >= TELLING || self.bandwidth == 0.0 || window.full) {
            self.bandwidth = bytes as f64 / busy.as_secs_f64();
        }
        let mbps = bytes as f64 * 8.0 / elapsed.as_secs_f64() / 1e6;
        self.progress.update(|figures| figures.mbps = mbps);
        *window = self.window();
    }

    /// Stops the guest, sends the rest and gives it away.
    fn complete(&mut self) -> Result<(), Error> {
        self.progress.check()?;
        self.stopped = Some(Instant::now());
        let sections = self.machine.switch_over().map_err(Error::Here)?;
        self.sync()?;
        self.ram.last();
        self.to.part(kind::END, self.ram_id)?;
        let (mut zero, mut normal) = (0, 0);
        while let Some(sent) = self.ram.send(&mut self.to)? {
            match sent {
                Sent::Zero => zero += 1,
                Sent::Normal => normal += 1,
                Sent::Delta => {}
            }
        }
        self.end_part(zero, normal)?;
        for Section { name, blob } in sections {
            let bytes = blob.to_bytes().map_err(|error| Error::Here(format!("{name}: {error}")))?;
            self.full(&name, &bytes)?;
        }
        if self.to.channel().two_way() { self.hand_over() } else { self.leave() }
    }

    /// The destination answers: it gets the guest when it has everything.
    fn hand_over(&mut self) -> Result<(), Error> {
        self.end()?;
        self.to.flush()?;
        self.answered(answer::LOADED)?;
        self.progress.check()?;
        self.machine.release().map_err(Error::Here)?;
        self.to.command(command::TAKE, &[])?;
        self.answered(answer::READY)?;
        self.progress.commit()?;
        self.to.command(command::GO, &[])?;
        self.answered(answer::RUNNING)?;
        // What is lost now is not the guest.
        let _ = self.to.channel().finish();
        Ok(())
    }

    /// Nobody answers: it is given away when the stream is where it belongs.
    fn leave(&mut self) -> Result<(), Error> {
        self.to.flush()?;
        self.progress.commit()?;
        self.machine.release().map_err(Error::Here)?;
        self.end()?;
        self.to.flush()?;
        Ok(self.to.channel().finish()?)
    }

    /// The end of the stream, and what was in it.
    fn end(&mut self) -> Result<(), Error> {
        self.to.u8(kind::EOF)?;
        let devices: Vec<_> =
            self.described.iter().map(|(name, len)| described(name, *len)).collect();
        let text = json!({ "page_size": PAGE, "devices": devices }).to_string();
        self.to.u8(kind::DESCRIPTION)?;
        self.to.blob(text.as_bytes())
    }

    /// Waits for an answer.
    fn answered(&mut self, wanted: u16) -> Result<(), Error> {
        let (number, data) = read_answer(self.to.channel())?;
        if number == wanted {
            return Ok(());
        }
        if number == answer::FAILED {
            return Err(Error::Refused(String::from_utf8_lossy(&data).into_owned()));
        }
        Err(Error::bad(format!("the destination answered {number:#x} instead of {wanted:#x}")))
    }

    /// Whether the destination has said, or its host, that it does not run the guest. As long as it
    /// has it, it keeps the connection.
    fn given_back(&mut self, error: &Error) -> bool {
        match error {
            // A stream without its end is nobody's guest.
            _ if !self.to.channel().two_way() => true,
            Error::Refused(_) => true,
            Error::Io(error) => matches!(
                error.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            ),
            _ => false,
        }
    }

    /// The reason to tell: a connection that was closed by the other side may hold one.
    fn reason(&mut self, error: Error) -> Error {
        if self.progress.phase() == Phase::Cancelling {
            return Error::Cancelled;
        }
        let Error::Io(broken) = &error else { return error };
        let closed = matches!(broken.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
        if closed && self.to.channel().two_way() {
            while let Ok((number, data)) = read_answer(self.to.channel()) {
                if number == answer::FAILED {
                    return Error::Refused(String::from_utf8_lossy(&data).into_owned());
                }
            }
        }
        error
    }
}

fn read_answer(from: &mut impl Read) -> Result<(u16, Vec<u8>), Error> {
    let mut head = [0; 4];
    from.read_exact(&mut head)?;
    let [a, b, c, d] = head;
    let mut data = vec![0; u16::from_be_bytes([c, d]).into()];
    from.read_exact(&mut data)?;
    Ok((u16::from_be_bytes([a, b]), data))
}

/// A section of ours, for tools that look into streams.
fn described(name: &str, len: usize) -> serde_json::Value {
    json!({
        "name": name,
        "instance_id": 0,
        "vmsd_name": name,
        "version": 1,
        "fields": [
            { "name": "length", "type": "uint32", "size": 4 },
            { "name": "state", "type": "buffer", "size": len },
        ],
    })
}

#[cfg(test)]
mod tests;
