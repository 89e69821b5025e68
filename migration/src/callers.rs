//! Who has connected and is not known yet. All of them are heard at once, each on a thread of its
//! own, so that one who says nothing keeps nobody out.
//!
//! A migration thread has them. A caller is anybody; whoever hears one sets it a limit of time.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::link::{Breaker, Link};

/// Makes of a connection what can be read, on a thread of its own: this may wait for the peer.
pub type Greeting = Box<dyn FnOnce() -> io::Result<Box<dyn Link + Send>> + Send>;

/// Somebody who has connected.
pub struct Caller {
    /// What is to be done first.
    pub greeting: Greeting,
    /// Breaks the connection, so that nobody waits in the greeting.
    pub hang_up: Breaker,
}

/// Those that are heard, each of whom becomes a `T`. Dropped it hangs up on them.
pub(crate) struct Callers<T> {
    heard: BTreeMap<u64, (Breaker, JoinHandle<()>)>,
    next: u64,
    tell: Sender<(u64, Option<T>)>,
    told: Receiver<(u64, Option<T>)>,
}

impl<T: Send + 'static> Callers<T> {
    pub(crate) fn new() -> Callers<T> {
        let (tell, told) = channel();
        Callers { heard: BTreeMap::new(), next: 0, tell, told }
    }

    /// How many are heard.
    pub(crate) fn count(&self) -> usize {
        self.heard.len()
    }

    /// Hears one.
    ///
    /// # Errors
    /// There are no threads left.
    pub(crate) fn hear(
        &mut self,
        hang_up: Breaker,
        hear: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<()> {
        let (tell, number) = (self.tell.clone(), self.next);
        let thread = Builder::new().name("migrate-greet".to_owned());
        let thread = thread.spawn(move || {
            let known = hear();
            if let Err(error) = &known {
                tracing::warn!("a connection was turned away: {error}");
            }
            let _ = tell.send((number, known.ok()));
        })?;
        self.next += 1;
        self.heard.insert(number, (hang_up, thread));
        Ok(())
    }

    /// Who is known next, if one is within that time and before somebody is turned away.
    pub(crate) fn known(&mut self, within: Duration) -> Option<T> {
        let (number, known) = self.told.recv_timeout(within).ok()?;
        if let Some((_, thread)) = self.heard.remove(&number) {
            let _ = thread.join();
        }
        known
    }
}

impl<T> Drop for Callers<T> {
    fn drop(&mut self) {
        self.heard.values().for_each(|(hang_up, _)| hang_up());
        for (_, (_, thread)) in std::mem::take(&mut self.heard) {
            let _ = thread.join();
        }
    }
}
