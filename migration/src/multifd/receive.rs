//! The channels at the destination: who is let in, and a thread for each.
//!
//! The migration thread has it. Anybody can connect while channels are awaited: each connection
//! greets on a thread of its own, and there are only a few of those at a time, so that one who
//! says nothing keeps nobody out.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::chunk::Unpacker;
use crate::needs::Announcement;
use crate::ram::Block;
use crate::source::{Breaker, Link};
use crate::stream::{Error, Reader};

/// All channels come within this time.
const MEETING: Duration = if cfg!(test) { Duration::from_secs(2) } else { Duration::from_secs(30) };
/// So long a connection may take for each byte until it is known.
const GREETING: Duration = Duration::from_secs(5);
/// So often it is seen whether others have come than those that say nothing.
const GLANCE: Duration = Duration::from_millis(100);
/// So many strangers are heard at once.
const STRANGERS: usize = 16;

/// Makes of a connection what can be read, on a thread of its own: this may wait for the peer.
pub type Greeting = Box<dyn FnOnce() -> io::Result<Box<dyn Link + Send>> + Send>;

/// Where channels come in. Dropped, nobody can connect any more.
pub trait Door: Send {
    /// The next connection, if there is one within that time.
    ///
    /// # Errors
    /// There can be none.
    fn next(&mut self, within: Duration) -> Result<Option<Greeting>, Error>;
}

type Met = Option<(u8, Box<dyn Link + Send>)>;

/// Those that were announced, in their order.
struct Meeting<'a> {
    announced: &'a Announcement,
    found: Vec<Option<Box<dyn Link + Send>>>,
    /// Connections that are not known yet.
    pending: usize,
    tell: Sender<Met>,
    told: Receiver<Met>,
}

impl Meeting<'_> {
    fn missing(&self) -> usize {
        self.found.iter().filter(|link| link.is_none()).count()
    }

    fn take(&mut self, met: Met) {
        self.pending = self.pending.saturating_sub(1);
        let Some((number, link)) = met else { return };
        // The first is the one; a second would be somebody who has read along.
        if let Some(place @ None) = self.found.get_mut(usize::from(number)) {
            *place = Some(link);
        }
    }

    /// Hears the next connection, if there is one.
    fn admit(&mut self, door: &mut dyn Door, within: Duration) -> Result<(), Error> {
        let Some(greeting) = door.next(within)? else { return Ok(()) };
        let (announced, tell) = (self.announced.clone(), self.tell.clone());
        let thread = Builder::new().name("migrate-greet".to_owned());
        thread.spawn(move || {
            let met = greet(greeting, &announced);
            if let Err(error) = &met {
                tracing::warn!("a connection was turned away: {error}");
            }
            let _ = tell.send(met.ok());
        })?;
        self.pending += 1;
        Ok(())
    }
}

fn greet(greeting: Greeting, announced: &Announcement) -> io::Result<(u8, Box<dyn Link + Send>)> {
    let mut link = greeting()?;
    link.give_up_after(GREETING);
    let number = announced.meet(&mut link)?;
    // From now on it may be silent as long as the main one.
    link.give_up_after(Duration::MAX);
    Ok((number, link))
}

/// Channels that have been let in, each with its thread.
pub(crate) struct Arrivals {
    results: Receiver<Result<(), Error>>,
    /// Those that have not told how they ended.
    left: usize,
    workers: Vec<(Breaker, JoinHandle<()>)>,
}

impl Arrivals {
    /// Waits for the channels that were announced.
    ///
    /// # Errors
    /// They do not come.
    pub(crate) fn meet(
        door: &mut dyn Door,
        announced: &Announcement,
    ) -> Result<Vec<Box<dyn Link + Send>>, Error> {
        let (tell, told) = channel();
        let found = (0..announced.count).map(|_| None).collect();
        let mut meeting = Meeting { announced, found, pending: 0, tell, told };
        let deadline = Instant::now() + MEETING;
        loop {
            while let Ok(met) = meeting.told.try_recv() {
                meeting.take(met);
            }
            let missing = meeting.missing();
            if missing == 0 {
                return Ok(meeting.found.into_iter().flatten().collect());
            }
            let left = deadline.saturating_duration_since(Instant::now()).min(GLANCE);
            if left.is_zero() {
                let count = announced.count;
                let text = format!("{missing} of {count} channels have not come");
                return Err(Error::bad(text));
            }
            if meeting.pending < missing {
                meeting.admit(door, left)?;
                continue;
            }
            match meeting.told.recv_timeout(left) {
                Ok(met) => meeting.take(met),
                // There are strangers among them.
                Err(RecvTimeoutError::Timeout) if meeting.pending < missing + STRANGERS => {
                    meeting.admit(door, Duration::ZERO)?;
                }
                Err(_) => {}
            }
        }
    }

    /// Has a thread fill `blocks`, which are in the order of the list, from each of `links`.
    ///
    /// # Errors
    /// There are no threads left.
    pub(crate) fn start(
        links: Vec<Box<dyn Link + Send>>,
        blocks: &[Block],
    ) -> Result<Arrivals, Error> {
        let (tell, results) = channel();
        let mut arrivals = Arrivals { results, left: 0, workers: Vec::new() };
        for (number, link) in links.into_iter().enumerate() {
            let (tell, blocks, hang_up) = (tell.clone(), blocks.to_vec(), link.breaker());
            let thread = Builder::new().name(format!("migrate-{number}"));
            let thread = thread.spawn(move || {
                // The result first: the source, which sees the end of the link, may ask why.
                let mut from = Reader::new(link);
                let _ = tell.send(fill(&mut from, &blocks));
            })?;
            arrivals.left += 1;
            arrivals.workers.push((hang_up, thread));
        }
        Ok(arrivals)
    }

    /// Waits until all have ended.
    ///
    /// # Errors
    /// Not with their mark.
    pub(crate) fn wait(&mut self) -> Result<(), Error> {
        while self.left > 0 {
            let ended = self.results.recv();
            self.left -= 1;
            ended.unwrap_or_else(|_| Err(Error::bad("a channel was not read")))?;
        }
        Ok(())
    }

    /// Why one has failed, if one has.
    pub(crate) fn failure(&mut self) -> Option<Error> {
        self.results.try_iter().find_map(Result::err)
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.workers.iter().for_each(|(hang_up, _)| hang_up());
        for (_, thread) in self.workers.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The thread of a channel.
fn fill(from: &mut Reader<Box<dyn Link + Send>>, blocks: &[Block]) -> Result<(), Error> {
    let mut unpacker = Unpacker::default();
    while unpacker.take(from, blocks)? {}
    Ok(())
}
