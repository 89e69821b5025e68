//! What sessions cost: requests on one core, monitors that are idle, a request that is too large.
//!
//! One call is one round, as in `measure`.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::measure::{Peer, Place, SETTLE, connect, greeting, kib, micros, qmp_option};
use super::process::{memory, peak};
use super::sample::{Figure, Samples, Who};
use crate::rig::Result;

/// Requests in flight, when they are sent without waiting.
const FLIGHT: usize = 100;
/// Idle monitors.
const IDLE: usize = 100;
/// Bytes of a request that nobody has use for.
const LARGE: usize = 64 << 20;

/// Keeps this thread, and the processes it starts, on one processor.
struct OneCore(CpuSet);

impl OneCore {
    fn new() -> Result<Self> {
        let before = sched_getaffinity(None)?;
        let mut one = CpuSet::new();
        let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| before.is_set(*cpu));
        one.set(last.ok_or("no processor to run on")?);
        sched_setaffinity(None, &one)?;
        Ok(Self(before))
    }
}

impl Drop for OneCore {
    fn drop(&mut self) {
        // At worst what follows is slower.
        let _ = sched_setaffinity(None, &self.0);
    }
}

impl Place {
    pub(super) fn sessions(&self, round: usize, trips: usize, samples: &mut Samples) -> Result {
        for who in Who::order(Who::PAIR, round) {
            self.on_one_core(who, trips, samples)?;
            self.idle(who, samples)?;
            // QEMU takes a byte at a time, and minutes for this.
            if who == Who::Vmm {
                self.refused(who, samples)?;
            }
        }
        Ok(())
    }

    /// Requests one after another, then many in flight; client and machine share a processor.
    fn on_one_core(&self, who: Who, trips: usize, samples: &mut Samples) -> Result {
        let _one = OneCore::new()?;
        let mut peer = self.stopped(who, 0)?;
        peer.warm_up(FLIGHT)?;
        for _ in 0..trips.div_ceil(FLIGHT) {
            let start = Instant::now();
            (0..FLIGHT).try_for_each(|_| peer.trip().map(drop))?;
            samples.push(Figure::QueryOneCore, who, each(start.elapsed())?);
            let requests = "{\"execute\": \"query-status\"}\n".repeat(FLIGHT);
            let start = Instant::now();
            peer.stream().write_all(requests.as_bytes())?;
            peer.receive_many("\"return\"", FLIGHT)?;
            samples.push(Figure::QueryPipelined, who, each(start.elapsed())?);
        }
        Ok(())
    }

    /// What the process grows by for monitors whose clients have negotiated and say nothing.
    fn idle(&self, who: Who, samples: &mut Samples) -> Result {
        let peer = self.stopped(who, 0)?;
        sleep(SETTLE);
        let few = memory(peer.process().id())?;
        drop(peer);
        let peer = self.stopped(who, IDLE)?;
        let mut clients = Vec::new();
        for number in 0..IDLE {
            let mut stream: UnixStream = connect(&self.monitor(number))?;
            greeting(&mut stream)?;
            clients.push(stream);
        }
        sleep(SETTLE);
        let many = memory(peer.process().id())?;
        samples.push(Figure::IdleMonitors, who, kib(many.private) - kib(few.private));
        Ok(())
    }

    /// What the process grows by, at the most, while it refuses a large request.
    fn refused(&self, who: Who, samples: &mut Samples) -> Result {
        let mut peer = self.stopped(who, 0)?;
        peer.warm_up(1)?;
        let before = peak(peer.process().id())?;
        let chunk = vec![b'x'; 1 << 16];
        peer.stream().write_all(b"{\"execute\": \"")?;
        for _ in 0..LARGE / chunk.len() {
            peer.stream().write_all(&chunk)?;
        }
        peer.stream().write_all(b"x\"}\n")?;
        peer.receive_many("\"error\"", 1)?;
        let after = peak(peer.process().id())?;
        samples.push(Figure::Refused, who, kib(after.saturating_sub(before)));
        Ok(())
    }

    fn monitor(&self, number: usize) -> std::path::PathBuf {
        self.dir().join(format!("m{number}"))
    }

    /// A machine that is not started, with so many monitors besides the first.
    fn stopped(&self, who: Who, monitors: usize) -> Result<Peer> {
        let mut command = who.command(self.vmm());
        command.arg("-bios").arg(self.firmware()).arg("-S");
        for number in 0..monitors {
            let socket = self.monitor(number);
            let _ = std::fs::remove_file(&socket);
            command.arg("-qmp").arg(qmp_option(&socket));
        }
        Peer::start(&mut command, self.dir())
    }
}

fn each(time: Duration) -> Result<f64> {
    Ok(micros(time / u32::try_from(FLIGHT)?))
}
