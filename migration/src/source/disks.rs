//! The contents of disks on their way, where they move too.

use super::{Machine, PART, Source, Window};
use crate::blocks;
use crate::link::Link;
use crate::stream::{Error, kind};

/// Disks that move, and what is told of them.
pub(super) struct Disks {
    id: u32,
    sender: blocks::Sender,
    /// Bytes of the stream that were theirs.
    pub(super) bytes: u64,
}

impl<L: Link, M: Machine> Source<'_, L, M> {
    /// Announces them, if any are to move.
    pub(super) fn start_disks(&mut self) -> Result<(), Error> {
        let Some(mut sender) = self.machine.disks().map_err(Error::Here)? else { return Ok(()) };
        let (id, from) = (self.id(), self.to.written());
        self.to.section(kind::START, id, blocks::NAME, blocks::VERSION)?;
        sender.end_part(&mut self.to)?;
        self.to.footer(id)?;
        self.disks = Some(Disks { id, sender, bytes: self.to.written() - from });
        self.tell_disks();
        Ok(())
    }

    fn tell_disks(&self) {
        if let Some(disks) = &self.disks {
            let told = disks.sender.figures();
            self.progress.update(|figures| figures.disk = Some(told));
        }
    }

    /// Bytes of them that are still to be sent.
    pub(super) fn disks_left(&self) -> u64 {
        self.disks.as_ref().map_or(0, |disks| disks.sender.left())
    }

    /// Bytes of the stream that were not theirs.
    pub(super) fn without_disks(&self) -> u64 {
        self.written() - self.disks.as_ref().map_or(0, |disks| disks.bytes)
    }

    /// Sends a part of them, if something is to be sent. Whether memory is to wait: until
    /// everything was sent once.
    pub(super) fn disk_part(&mut self, window: &mut Window) -> Result<bool, Error> {
        let Some(disks) = &mut self.disks else { return Ok(false) };
        if disks.sender.left() == 0 && !disks.sender.is_bulk() {
            return Ok(false);
        }
        let (began, from) = (self.machine.now(), self.to.written());
        self.to.part(kind::PART, disks.id)?;
        while disks.sender.send(&mut self.to)? {
            let limit = self.limits.bandwidth() / 10;
            if limit != 0 && self.to.written() - from >= limit || self.machine.now() - began > PART
            {
                break;
            }
        }
        disks.sender.end_part(&mut self.to)?;
        self.to.footer(disks.id)?;
        self.to.flush()?;
        disks.bytes += self.to.written() - from;
        let waits = disks.sender.is_bulk();
        window.busy += self.machine.now() - began;
        self.tell_disks();
        Ok(waits)
    }

    /// Gives the guest's disks away. What was sent of them must be all that they have.
    pub(super) fn release(&mut self) -> Result<(), Error> {
        self.machine.release().map_err(Error::Here)?;
        match self.disks_left() {
            0 => Ok(()),
            // Not by the guest: it stands still.
            left => Err(Error::Here(format!(
                "{left} bytes of disks were written to when their contents had been sent"
            ))),
        }
    }

    /// Sends the rest: the guest writes to them no more.
    pub(super) fn finish_disks(&mut self) -> Result<(), Error> {
        let Some(disks) = &mut self.disks else { return Ok(()) };
        let from = self.to.written();
        self.to.part(kind::END, disks.id)?;
        while disks.sender.send(&mut self.to)? {}
        disks.sender.end_part(&mut self.to)?;
        self.to.footer(disks.id)?;
        disks.bytes += self.to.written() - from;
        self.tell_disks();
        Ok(())
    }
}
