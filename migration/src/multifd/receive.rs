//! The channels at the destination: who is let in, and a thread for each.
//!
//! The migration thread has it. Anybody can connect while channels are awaited: each connection
//! greets on a thread of its own, and there are only a few of those at a time, so that one who
//! says nothing keeps nobody out.

use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::callers::{Caller, Callers, Greeting};
use crate::chunk::Unpacker;
use crate::link::{Breaker, Link};
use crate::needs::Announcement;
use crate::ram::Block;
use crate::stream::{Error, Reader};

/// All channels come within this time.
const MEETING: Duration = if cfg!(test) { Duration::from_secs(2) } else { Duration::from_secs(30) };
/// So long a connection may take until it is known.
const GREETING: Duration = Duration::from_secs(5);
/// So often it is seen whether others have come than those that say nothing.
const GLANCE: Duration = Duration::from_millis(100);
/// So many strangers are heard at once.
const STRANGERS: usize = 16;

/// Where channels come in. Dropped, nobody can connect any more.
pub trait Door: Send {
    /// The next connection, if there is one within that time.
    ///
    /// # Errors
    /// There can be none.
    fn next(&mut self, within: Duration) -> Result<Option<Caller>, Error>;
}

/// Hears the next connection, if there is one.
fn admit(
    door: &mut dyn Door,
    within: Duration,
    callers: &mut Callers<(u8, Box<dyn Link + Send>)>,
    announced: &Announcement,
) -> Result<(), Error> {
    let Some(Caller { greeting, hang_up }) = door.next(within)? else { return Ok(()) };
    let announced = announced.clone();
    Ok(callers.hear(hang_up, move || greet(greeting, &announced))?)
}

fn greet(greeting: Greeting, announced: &Announcement) -> io::Result<(u8, Box<dyn Link + Send>)> {
    let mut link = greeting()?;
    link.give_up_at(Instant::now().checked_add(GREETING));
    let number = announced.meet(&mut link)?;
    // From now on it may be silent as long as the main one.
    link.give_up_at(None);
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
        let mut found: Vec<_> = (0..announced.count).map(|_| None).collect();
        let mut callers = Callers::new();
        let deadline = Instant::now() + MEETING;
        loop {
            let missing = found.iter().filter(|link| link.is_none()).count();
            if missing == 0 {
                return Ok(found.into_iter().flatten().collect());
            }
            let left = deadline.saturating_duration_since(Instant::now()).min(GLANCE);
            if left.is_zero() {
                let count = announced.count;
                let text = format!("{missing} of {count} channels have not come");
                return Err(Error::bad(text));
            }
            let enough = callers.count() >= missing;
            if !enough {
                admit(door, left, &mut callers, announced)?;
            }
            match callers.known(if enough { left } else { Duration::ZERO }) {
                // The first is the one; a second would be somebody who has read along.
                Some((number, link)) => {
                    if let Some(place @ None) = found.get_mut(usize::from(number)) {
                        *place = Some(link);
                    }
                }
                // There are strangers among them.
                None if enough && callers.count() < missing + STRANGERS => {
                    admit(door, Duration::ZERO, &mut callers, announced)?;
                }
                None => {}
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
