//! What a migration takes: bandwidth, measured over a socket, and memory beside the guest's.
//!
//! In a process of its own, one test after the other: others would be measured too.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use migration::channel::{Canceller, Channel, Limiter};
use migration::dest::{Section, Target, receive};
use migration::inventory::Inventory;
use migration::link::Link;
use migration::ram::Block;
use migration::source::{Machine, Outcome, Wants, send};
use migration::status::{Limits, Progress};
use resources::ram::{PAGE, RamBlock};
use resources::state::Blob;

fn inventory() -> Inventory {
    let parts = [("cpu".to_owned(), "x".to_owned())].into();
    Inventory { machine: "pc".to_owned(), cpu: "qemu64".to_owned(), parts, ..Inventory::default() }
}

fn blocks(ram: &Arc<RamBlock>) -> Vec<Block> {
    vec![Block { name: "ram".to_owned(), ram: ram.clone() }]
}

/// A guest whose memory is `ram`, of which it writes to some pages whenever somebody looks.
struct Guest {
    ram: Arc<RamBlock>,
    writes: u64,
    looks: u64,
}

impl Machine for Guest {
    fn harvest(&mut self) -> Result<(), String> {
        self.looks += 1;
        if self.looks < 6 {
            let text = self.looks.to_be_bytes();
            (0..self.writes).for_each(|page| self.ram.write(page * PAGE + 8 * self.looks, &text));
        }
        Ok(())
    }
    fn switch_over(&mut self) -> Result<Vec<Section>, String> {
        Ok(vec![Section { name: "cpu".to_owned(), blob: Blob::new(1, &7u32).unwrap() }])
    }
    fn release(&mut self) -> Result<(), String> {
        Ok(())
    }
}

struct Taker;

impl Target for Taker {
    fn load(&mut self, _: Vec<Section>) -> Result<(), String> {
        Ok(())
    }
    fn take(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// A socket whose other end tells when how much has come.
struct Counting {
    socket: UnixStream,
    came: Vec<(Instant, u64)>,
}

impl Read for Counting {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.socket.read(bytes)?;
        let before = self.came.last().map_or(0, |came| came.1);
        self.came.push((Instant::now(), before + count as u64));
        Ok(count)
    }
}

impl Link for Counting {
    fn two_way(&self) -> bool {
        true
    }
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes a second that arrive while so many are sent at this limit.
fn rate(limit: u64, size: u64) -> f64 {
    let [ram, there] = [(); 2].map(|()| RamBlock::anonymous(size).unwrap());
    (0..size / PAGE).for_each(|page| ram.write(page * PAGE, &[1; 8]));
    let (here, peer) = UnixStream::pair().unwrap();
    let receiver = thread::spawn(move || {
        let mut link = Counting { socket: peer, came: Vec::new() };
        receive(&mut link, blocks(&there), &inventory(), &mut Taker).unwrap();
        link.came
    });
    let limits = Arc::new(Limits::default());
    limits.set_bandwidth(limit);
    let link = Channel::new(here.into(), &Canceller::new().unwrap()).unwrap();
    let mut guest = Guest { ram: ram.clone(), writes: 0, looks: 0 };
    let (all, wants, progress) = (blocks(&ram), Wants::default(), Arc::default());
    let outcome = send(link, all, &inventory(), &mut guest, &limits, &progress, wants);
    assert!(matches!(outcome, Outcome::Moved), "{outcome:?}");
    let came = receiver.join().unwrap();
    // What a window lets through comes at its beginning. Not the end, when the guest stands still
    // and there is no limit.
    let gap = Duration::from_millis(30);
    let mut windows = came.windows(2).filter(|came| came[1].0 - came[0].0 > gap);
    let begins = |came: &[(Instant, u64)]| (came[1].0, came[0].1);
    let first = windows.next().map(begins).unwrap();
    let last = windows.rfind(|came| came[0].1 <= size / 10 * 9).map(begins).unwrap();
    (last.1 - first.1) as f64 / (last.0 - first.0).as_secs_f64()
}

/// A limit is one for seconds: what goes in its windows of 100 ms may come at their beginning. Where
/// the host is so busy that nothing is sent in some, it is measured again.
fn the_speed_is_that_of_the_limit() {
    let (mut low, mut high) = (f64::MAX, 0_f64);
    for limit in [8 << 20, 64 << 20] {
        let found = (0..5).map(|_| rate(limit, 2 * limit) / limit as f64).find(|ratio| {
            assert!(*ratio < 1.06, "{ratio} of {limit} bytes a second");
            (0.95..1.05).contains(ratio)
        });
        let found = found.expect("the limit is never reached");
        (low, high) = (low.min(found), high.max(found));
    }
    println!("the limit was kept to {low:.3} to {high:.3}");
}

/// Memory of this process that it would not have without the migration, in bytes: its own pages, and
/// the tables of pages.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (kib("RssAnon:") + kib("VmPTE:")) << 10
}

/// Somewhere where everything is taken, and where it is looked how much memory there is.
struct Sink {
    most: u64,
    count: u64,
}

impl Read for Sink {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::Unsupported.into())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.count += 1;
        if self.count.is_multiple_of(16) {
            self.most = self.most.max(memory());
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Link for &mut Sink {
    fn two_way(&self) -> bool {
        false
    }
    fn set_limiter(&mut self, _: &Limiter) {}
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Beside the cache at most 32 MiB for a guest of 4 GiB, which has written to more pages than the
/// cache has room for.
fn memory_is_bounded() {
    const CACHE: u64 = 64 << 20;
    let ram = RamBlock::anonymous(4 << 30).unwrap();
    let writes = 2 * CACHE / PAGE;
    (0..writes).for_each(|page| ram.write(page * PAGE, &[1; 8]));
    for deltas in [false, true] {
        let limits = Arc::new(Limits::default());
        limits.set_bandwidth(0);
        limits.set_cache(CACHE);
        // The guest moves when it writes nothing any more.
        limits.set_downtime(Duration::ZERO);
        let before = memory();
        let mut sink = Sink { most: 0, count: 0 };
        let mut guest = Guest { ram: ram.clone(), writes, looks: 0 };
        let wants = Wants { deltas, ..Wants::default() };
        let (all, progress) = (blocks(&ram), Arc::new(Progress::default()));
        let outcome = send(&mut sink, all, &inventory(), &mut guest, &limits, &progress, wants);
        assert!(matches!(outcome, Outcome::Moved), "{outcome:?}");
        assert!(guest.looks > 5 && sink.count > 100);
        let more = sink.most.saturating_sub(before);
        println!("with a cache: {deltas}; {} KiB more", more >> 10);
        let cache = if deltas { CACHE } else { 0 };
        assert!(more <= cache + (32 << 20), "{more} bytes");
        assert!(more >= cache, "the cache is not measured: {more} bytes");
    }
}

#[test]
fn limits_hold() {
    memory_is_bounded();
    the_speed_is_that_of_the_limit();
}
