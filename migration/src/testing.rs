//! What tests of both sides share.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use resources::ram::RamBlock;

use crate::channel::{Canceller, Channel, Limiter};
use crate::dest::postcopy_possible;
use crate::inventory::Inventory;
use crate::link::{Breaker, Link};

/// A machine with one part, `cpu`.
pub(crate) fn inventory() -> Inventory {
    let parts = [("cpu".to_owned(), "x".to_owned())].into();
    Inventory { machine: "pc".to_owned(), cpu: "qemu64".to_owned(), parts, ..Inventory::default() }
}

/// What is in memory.
pub(crate) fn contents(ram: &RamBlock) -> Vec<u8> {
    let mut all = vec![0; ram.size() as usize];
    ram.read(0, &mut all);
    all
}

/// Whether a test of memory that comes late is skipped, since the host does not let this process
/// handle page faults.
pub(crate) fn skips_postcopy() -> bool {
    let possible = postcopy_possible();
    possible.map_err(resources::testing::skipped).is_err()
}

pub(crate) fn channel(socket: UnixStream) -> Channel {
    Channel::new(socket.into(), &Canceller::new().unwrap()).unwrap()
}

/// A channel that breaks, as if the process at this end was killed, when so many bytes were written
/// to it.
pub(crate) struct Cut {
    channel: Channel,
    pub(crate) left: usize,
    /// When it gives up.
    pub(crate) patience: Option<Duration>,
    dead: bool,
}

impl Cut {
    pub(crate) fn new(socket: UnixStream, left: usize) -> Cut {
        Cut { channel: channel(socket), left, patience: None, dead: false }
    }

    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

impl Read for Cut {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.alive()?;
        self.channel.read(bytes)
    }
}

impl Write for Cut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let now = bytes.len().min(self.left);
        if now == 0 {
            self.dead = true;
            let _ = self.channel.flush();
            self.channel.breaker()();
            return Err(ErrorKind::BrokenPipe.into());
        }
        self.left -= now;
        self.channel.write(&bytes[..now])
    }
    fn flush(&mut self) -> io::Result<()> {
        self.channel.flush()
    }
}

impl Link for Cut {
    fn two_way(&self) -> bool {
        true
    }
    fn set_limiter(&mut self, limiter: &Limiter) {
        self.channel.set_limiter(limiter);
    }
    fn give_up_after(&mut self, silence: Duration) {
        self.patience = Some(silence);
        self.channel.give_up_after(silence);
    }
    fn give_up_at(&mut self, deadline: Option<Instant>) {
        self.channel.give_up_at(deadline);
    }
    fn breaker(&self) -> Breaker {
        self.channel.breaker()
    }
    fn hasten(&mut self) {
        self.channel.hasten();
    }
    fn wait(&mut self, others: &[BorrowedFd<'_>], time: Option<Duration>) -> io::Result<bool> {
        self.alive()?;
        self.channel.wait(others, time)
    }
    fn finish(&mut self) -> io::Result<()> {
        self.channel.finish()
    }
}
