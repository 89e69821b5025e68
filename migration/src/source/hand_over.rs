//! The end of a migration at the source: the guest stops and changes hands.
//!
//! On the thread of the migration. What comes back is from anybody: answers are short and compared,
//! and none is waited for without limit while the guest stands still.

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use resources::ram::PAGE;
use serde_json::json;

use super::{Machine, Source};
use crate::channel::{Limiter, is_cancelled};
use crate::chunk::Tally;
use crate::dest::Section;
use crate::link::Link;
use crate::multifd::Channels;
use crate::ram::Hinting;
use crate::status::Phase;
use crate::stream::{Error, answer, command, kind};

/// So long a destination may be silent while the guest waits, or runs there, and so long it may
/// take for each answer then, before it is given up.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 8 } else { 30 });
/// While the guest stands still a destination is to take a tenth of the bytes a second that it took
/// before, but nobody is asked for more than the second of these, nor gets by with less than the
/// first.
const PACE: (f64, f64) = (16384.0, 1048576.0);
/// So long at least a client cannot end the waiting for it.
pub(super) const GRACE: Duration = Duration::from_secs(1);
/// So long a destination may take to say why it has closed a channel.
const REASON: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });
/// So long a command may take to end when it has everything: it may have to bring all memory to a
/// disk.
const LAST: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 600 });
/// The reason why a connection was closed is among so many answers, or is not told.
const LAST_ANSWERS: usize = 4;

impl<L: Link, M: Machine> Source<'_, L, M> {
    /// Stops the guest, sends the rest and gives it away.
    pub(super) fn complete(&mut self) -> Result<(), Error> {
        self.progress.check()?;
        self.stopped = Some(self.machine.now());
        self.skip(Hinting::Done);
        let sections = self.machine.switch_over().map_err(Error::Here)?;
        // The guest waits.
        self.to.channel().set_limiter(&Limiter::default());
        self.channels.iter().for_each(|channels| channels.limit(0));
        self.sync()?;
        self.set_aside();
        let states = sections.into_iter().map(encoded).collect::<Result<Vec<_>, _>>()?;
        let until = self.hurry(states.iter().map(|(_, bytes)| bytes.len() as u64).sum())?;
        self.finish_disks()?;
        self.ram.last();
        self.to.part(kind::END, self.ram_id)?;
        let mut tally = Tally::default();
        while self.next(&mut tally)?.is_some() {}
        self.channels.as_mut().map_or(Ok(()), Channels::finish)?;
        self.end_part(tally)?;
        self.tell_missing()?;
        for (name, bytes) in states {
            self.full(&name, &bytes)?;
        }
        if self.to.channel().two_way() { self.hand_over(until) } else { self.leave() }
    }

    /// A guest does not wait for a destination that is stuck, or takes the rest, with `more` bytes
    /// that are not memory or disks, far slower than it took what was before. Returns until when.
    fn hurry(&mut self, more: u64) -> Result<Option<Instant>, Error> {
        let bytes = self.rest().saturating_add(self.disks_left()).saturating_add(more);
        let pace = (self.bandwidth.rate / 10.0).clamp(PACE.0, PACE.1);
        let time = Duration::try_from_secs_f64(bytes as f64 / pace).unwrap_or(Duration::MAX);
        let until = Instant::now().checked_add(time.saturating_add(PATIENCE));
        self.to.channel().give_up_after(PATIENCE);
        self.to.channel().give_up_at(until);
        self.channels.as_ref().map_or(Ok(()), |channels| channels.give_up(PATIENCE, until))?;
        Ok(until)
    }

    /// The destination answers: it gets the guest when it has everything, by `until`.
    fn hand_over(&mut self, until: Option<Instant>) -> Result<(), Error> {
        self.end()?;
        self.to.flush()?;
        self.answered_by(answer::LOADED, until.max(Instant::now().checked_add(PATIENCE)))?;
        self.progress.check()?;
        self.release()?;
        self.to.command(command::TAKE, &[])?;
        self.answered_within(answer::READY, PATIENCE)?;
        // Where memory is to follow, a connection that ends takes the guest along.
        self.progress.commit(Some(GRACE).filter(|_| !self.lags()))?;
        self.to.command(command::GO, &[])?;
        self.gone = true;
        self.answered_within(answer::RUNNING, PATIENCE)?;
        self.stood_still();
        self.send_late()?;
        // What is lost now is not the guest.
        let _ = self.to.channel().finish();
        Ok(())
    }

    /// Nobody answers: it is given away when the stream is where it belongs.
    fn leave(&mut self) -> Result<(), Error> {
        self.to.flush()?;
        self.progress.commit(Some(Duration::ZERO))?;
        self.release()?;
        self.to.channel().give_up_at(Instant::now().checked_add(LAST));
        self.end()?;
        self.to.flush()?;
        self.gone = !self.to.channel().is_file();
        self.to.channel().finish()?;
        self.stood_still();
        Ok(())
    }

    /// The guest runs there, or is where it is to be.
    fn stood_still(&self) {
        let Some(at) = self.stopped else { return };
        let downtime = (self.machine.now() - at).as_millis();
        let downtime = u64::try_from(downtime).unwrap_or(u64::MAX);
        self.progress.update(|figures| figures.downtime = downtime);
    }

    /// The end of the stream, and what was in it.
    fn end(&mut self) -> Result<(), Error> {
        self.to.u8(kind::EOF)?;
        let devices: Vec<_> =
            self.described.iter().map(|(name, len)| described(name, *len)).collect();
        let mut text = json!({ "page_size": PAGE, "devices": devices }).to_string();
        // Tools look for the first brace after the last zero, which must not be in the length.
        while (text.len() as u32).to_be_bytes().contains(&b'{') {
            text.push(' ');
        }
        self.to.u8(kind::DESCRIPTION)?;
        self.to.blob(text.as_bytes())
    }

    /// Waits for an answer while the guest stands still, which it does not for ever.
    pub(super) fn answered_within(&mut self, wanted: u16, time: Duration) -> Result<(), Error> {
        self.answered_by(wanted, Instant::now().checked_add(time))
    }

    fn answered_by(&mut self, wanted: u16, until: Option<Instant>) -> Result<(), Error> {
        self.to.channel().give_up_at(until);
        self.answered(wanted)?;
        self.to.channel().give_up_at(None);
        Ok(())
    }

    /// Waits for an answer; gives what is in it.
    pub(super) fn answered(&mut self, wanted: u16) -> Result<Vec<u8>, Error> {
        loop {
            let (number, data) = self.answers.wait(self.to.channel())?;
            match number {
                number if number == wanted => return Ok(data),
                answer::REQUEST => self.serve(&data)?,
                number => return Err(unexpected(number, &data)),
            }
        }
    }

    /// The reason to tell: a connection that was closed by the other side may hold one.
    pub(super) fn reason(&mut self, error: Error) -> Error {
        if self.progress.phase() == Phase::Cancelling {
            return Error::Cancelled;
        }
        let Error::Io(broken) = &error else { return error };
        if is_cancelled(broken) {
            return Error::Cancelled;
        }
        let closed = matches!(broken.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
        self.to.channel().give_up_at(Instant::now().checked_add(REASON));
        if self.wants.channels > 0 {
            self.channels = None;
            // The main connection may be whole: the destination shall see that this was all.
            let _ = self.to.channel().finish();
        }
        if closed && self.progress.phase() != Phase::Committed && self.to.channel().two_way() {
            for _ in 0..LAST_ANSWERS {
                let Ok((number, data)) = self.answers.wait(self.to.channel()) else { break };
                if number == answer::FAILED {
                    return Error::Refused(String::from_utf8_lossy(&data).into_owned());
                }
            }
        }
        error
    }
}

/// An answer that was not asked for.
pub(super) fn unexpected(number: u16, data: &[u8]) -> Error {
    match number {
        answer::FAILED => Error::Refused(String::from_utf8_lossy(data).into_owned()),
        number => Error::bad(format!("the destination answered {number:#x}, which was not asked")),
    }
}

/// What the destination says, of which the last may be there in part.
#[derive(Default)]
pub(super) struct Answers(Vec<u8>);

impl Answers {
    /// Waits for the next one: its number, and what is in it.
    fn wait(&mut self, from: &mut impl Read) -> Result<(u16, Vec<u8>), Error> {
        loop {
            if let Some(answer) = self.read(from)? {
                return Ok(answer);
            }
        }
    }

    /// The next one, if all of it is there.
    pub(super) fn next(&mut self, from: &mut impl Link) -> Result<Option<(u16, Vec<u8>)>, Error> {
        while from.wait(&[], Some(Duration::ZERO))? {
            if let Some(answer) = self.read(from)? {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    /// Reads once, and nothing of the one after it.
    fn read(&mut self, from: &mut impl Read) -> Result<Option<(u16, Vec<u8>)>, Error> {
        let have = self.0.len();
        let whole = |bytes: &[u8]| match bytes {
            [_, _, high, low, ..] => 4 + usize::from(u16::from_be_bytes([*high, *low])),
            _ => 4,
        };
        self.0.resize(whole(&self.0), 0);
        let count = from.read(self.0.get_mut(have..).unwrap_or_default());
        self.0.truncate(have + *count.as_ref().unwrap_or(&0));
        match count {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(None),
            Ok(0) => return Err(Error::Io(ErrorKind::UnexpectedEof.into())),
            count => drop(count?),
        }
        match self.0.as_slice() {
            [a, b, _, _, data @ ..] if 4 + data.len() == whole(&self.0) => {
                let answer = (u16::from_be_bytes([*a, *b]), data.to_vec());
                self.0.clear();
                Ok(Some(answer))
            }
            _ => Ok(None),
        }
    }
}

/// The name of a part and its state as it is sent.
fn encoded(section: Section) -> Result<(String, Vec<u8>), Error> {
    let Section { name, blob } = section;
    match blob.to_bytes() {
        Ok(bytes) => Ok((name, bytes)),
        Err(error) => Err(Error::Here(format!("{name}: {error}"))),
    }
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
