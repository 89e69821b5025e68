//! Free-page hinting (section 5.5.6.7): the guest names pages that it does not use, so that they
//! need not be moved with it.
//!
//! A round of hints has a number. A page that was named in the present round was free at some time
//! since that began; what the guest has written to it since then is in the logs of what is
//! written, which nobody has looked at meanwhile. So whoever moves the guest may forget what was
//! written to the page *before* the round, and no more than that. A hint of an older round says
//! nothing: the page may have been used again and the log of that been taken.
//!
//! Pure; [`Balloon`](super::Balloon) brings the lock. A hostile guest can have its own memory not be
//! moved, and make [`MOST`] pieces wait.

use super::shared::PAGE;

/// VIRTIO_BALLOON_CMD_ID_STOP: hints are not wanted now; the driver keeps the pages it has named.
const STOP: u32 = 0;
/// VIRTIO_BALLOON_CMD_ID_DONE: none are wanted; the driver uses the pages again.
const DONE: u32 = 1;
/// Rounds have numbers from here on.
const FIRST: u32 = 0x8000_0000;

/// Pieces of memory that wait at most; what comes beyond is moved.
const MOST: usize = 1 << 16;

/// Addresses and lengths in bytes, of whole pages.
pub(super) type Pieces = Vec<(u64, u64)>;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Hints {
    /// What the driver reads: [`STOP`], [`DONE`], or the number of the round.
    id: u32,
    next: u32,
    /// The driver has said that what it names from now on is of this round.
    begun: bool,
    free: Pieces,
}

impl Default for Hints {
    fn default() -> Hints {
        Hints { id: DONE, next: FIRST, begun: false, free: Vec::new() }
    }
}

impl Hints {
    /// What the driver reads.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// A new round begins: what is named from now on counts.
    pub(super) fn begin(&mut self) {
        self.id = self.next;
        self.next = self.next.checked_add(1).unwrap_or(FIRST);
        (self.begun, self.free) = (false, Vec::new());
    }

    /// What was named since this was asked last.
    pub(super) fn take(&mut self) -> Pieces {
        std::mem::take(&mut self.free)
    }

    /// The round ends: what is named from now on does not count. With `done` there will be no other
    /// one. Whether that is news to the driver.
    pub(super) fn end(&mut self, done: bool) -> bool {
        let id = match done {
            true => DONE,
            false if self.id == DONE => DONE,
            false => STOP,
        };
        self.begun = false;
        std::mem::replace(&mut self.id, id) != id
    }

    /// As it was before there was a driver; numbers are not used again.
    pub(super) fn reset(&mut self) {
        *self = Hints { next: self.next, ..Hints::default() };
    }

    /// The driver says of which round its hints are from now on.
    pub(super) fn hear(&mut self, id: u32) {
        self.begun = id == self.id && id >= FIRST;
    }

    /// The driver names memory; pages that are not wholly in it are left out.
    pub(super) fn free(&mut self, address: u64, len: u64) {
        let first = address.checked_next_multiple_of(PAGE);
        let end = address.checked_add(len).map(|end| end & !PAGE.wrapping_sub(1));
        let (Some(first), Some(end)) = (first, end) else { return };
        if !self.begun || first >= end || self.free.len() >= MOST {
            return;
        }
        self.free.push((first, end.saturating_sub(first)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_count_in_their_round_only() {
        let mut hints = Hints::default();
        hints.hear(DONE);
        hints.free(0, PAGE);
        assert!(!hints.end(false) && hints.take().is_empty());
        hints.begin();
        let first = hints.id();
        assert!(first >= FIRST);
        // Before the driver has said so, they may be of another round.
        hints.free(0, PAGE);
        hints.hear(first);
        hints.free(PAGE, 2 * PAGE);
        assert_eq!(hints.take(), [(PAGE, 2 * PAGE)]);
        assert!(hints.take().is_empty());
        hints.free(8 * PAGE, PAGE);
        // The driver has named all.
        hints.hear(STOP);
        hints.free(9 * PAGE, PAGE);
        assert!(hints.end(false) && !hints.end(false));
        assert_eq!((hints.id(), hints.take()), (STOP, vec![(8 * PAGE, PAGE)]));
        hints.hear(first);
        hints.free(0, PAGE);
        hints.hear(STOP);
        hints.free(0, PAGE);
        assert!(hints.take().is_empty());
        hints.begin();
        hints.hear(first);
        hints.free(0, PAGE);
        assert!(hints.take().is_empty(), "of the round before");
        assert!(hints.end(true) && !hints.end(true));
        assert_eq!(hints.id(), DONE);
        hints.reset();
        hints.begin();
        assert_eq!(hints.id(), first + 2);
        hints.next = u32::MAX;
        hints.begin();
        hints.begin();
        assert_eq!(hints.id(), FIRST);
    }

    #[test]
    fn pages_that_are_named_in_part_are_kept() {
        let mut hints = Hints::default();
        hints.begin();
        hints.hear(hints.id());
        hints.free(1, 2 * PAGE);
        hints.free(PAGE - 1, 1);
        hints.free(5, 0);
        hints.free(u64::MAX - 10, 10);
        hints.free(0, u64::MAX);
        assert_eq!(hints.take(), [(PAGE, PAGE), (0, u64::MAX - (PAGE - 1))]);
        (0..MOST as u64 + 5).for_each(|page| hints.free(page * PAGE, PAGE));
        assert_eq!(hints.take().len(), MOST);
    }
}
