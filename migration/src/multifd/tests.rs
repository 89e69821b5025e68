//! Both sides against each other by channels that break, and strangers at the door.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use resources::ram::{PAGE, RamBlock};
use resources::state::Blob;

use super::*;
use crate::callers::Caller;
use crate::channel::Limiter;
use crate::chunk::Packer;
use crate::dest::{Section, Target, receive};
use crate::inventory::{self, Inventory};
use crate::link::Link;
use crate::needs::Needs;
use crate::ram::{self, Block};
use crate::source::{Machine, Outcome, Wants, send};
use crate::status::{Limits, Progress};
use crate::stream::{Writer, command, kind};
use crate::testing::{Cut, channel, contents, inventory};

const PAGES: u64 = 700;

/// Connections, in the order in which they come.
struct Queue(Receiver<UnixStream>);

impl Door for Queue {
    fn next(&mut self, within: Duration) -> Result<Option<Caller>, Error> {
        let Ok(socket) = self.0.recv_timeout(within) else { return Ok(None) };
        let link = channel(socket);
        let hang_up = link.breaker();
        let greeting = Box::new(move || Ok(Box::new(link) as Box<dyn Link + Send>));
        Ok(Some(Caller { greeting, hang_up }))
    }
}

/// A machine with a thread that writes memory until the guest is stopped.
struct Fake {
    ram: Arc<RamBlock>,
    running: Arc<AtomicBool>,
    dirtier: Option<JoinHandle<()>>,
    /// Where its channels go.
    way: Sender<UnixStream>,
    /// The first of them breaks after so many bytes.
    cut: usize,
    opened: usize,
    stopped: bool,
    released: bool,
}

fn memory() -> Arc<RamBlock> {
    RamBlock::anonymous(PAGES * PAGE).unwrap()
}

fn blocks(ram: &Arc<RamBlock>) -> Vec<Block> {
    vec![Block { name: "ram".to_owned(), ram: ram.clone() }]
}

impl Fake {
    fn new(way: Sender<UnixStream>, cut: usize) -> Fake {
        let (ram, running) = (memory(), Arc::new(AtomicBool::new(true)));
        (0..PAGES / 2).for_each(|page| ram.write(page * 2 * PAGE, &[(page % 200) as u8 + 1; 300]));
        let (to, runs) = (ram.clone(), running.clone());
        let dirtier = thread::spawn(move || {
            let mut count = 0_u64;
            while runs.load(SeqCst) {
                count += 1;
                // The same few pages again and again.
                to.write((count * 37 % 90) * PAGE + 8, &count.to_be_bytes());
                if count.is_multiple_of(64) {
                    thread::yield_now();
                }
            }
        });
        let dirtier = Some(dirtier);
        Fake { ram, running, dirtier, way, cut, opened: 0, stopped: false, released: false }
    }

    fn stop(&mut self) {
        self.running.store(false, SeqCst);
        self.dirtier.take().into_iter().for_each(|thread| thread.join().unwrap());
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Machine for Fake {
    fn switch_over(&mut self) -> Result<Vec<Section>, String> {
        self.stop();
        self.stopped = true;
        Ok(vec![Section { name: "cpu".to_owned(), blob: Blob::new(1, &7u32).unwrap() }])
    }
    fn release(&mut self) -> Result<(), String> {
        self.released = true;
        Ok(())
    }
    fn connect(&mut self) -> Result<Box<dyn Link + Send>, String> {
        let (a, b) = UnixStream::pair().unwrap();
        self.way.send(b).map_err(|_| "nobody listens".to_owned())?;
        let left = if self.opened == 0 { self.cut } else { usize::MAX };
        self.opened += 1;
        Ok(Box::new(Cut::new(a, left)))
    }
}

struct Taker(Option<Queue>, bool);

impl Target for Taker {
    fn load(&mut self, _: Vec<Section>) -> Result<(), String> {
        self.1 = true;
        Ok(())
    }
    fn take(&mut self) -> Result<(), String> {
        Ok(())
    }
    fn door(&mut self) -> Option<Box<dyn Door>> {
        Some(Box::new(self.0.take()?))
    }
}

struct Ended {
    here: Fake,
    there: Arc<RamBlock>,
    outcome: Outcome,
    received: Result<(), Error>,
    progress: Progress,
}

fn run(wants: Wants, cut: usize, door: bool) -> Ended {
    let (way, came) = mpsc::channel();
    let (mut here, there) = (Fake::new(way, cut), memory());
    let (a, b) = UnixStream::pair().unwrap();
    let to = blocks(&there);
    let receiver = thread::spawn(move || {
        let queue = door.then_some(Queue(came));
        let mut main = channel(b);
        let received = receive(&mut main, to, &inventory(), &mut Taker(queue, false));
        // Who has the guest keeps the connection; who has not closes it.
        let main = received.is_ok().then_some(main);
        (received, main)
    });
    let (progress, limits) = (Arc::new(Progress::default()), Arc::new(Limits::default()));
    limits.set_bandwidth(0);
    let from = blocks(&here.ram);
    let outcome = send(channel(a), from, &inventory(), &mut here, &limits, &progress, wants);
    let (received, _) = receiver.join().unwrap();
    let progress = Arc::into_inner(progress).unwrap();
    Ended { here, there, outcome, received, progress }
}

#[test]
fn a_guest_moves_by_channels() {
    for (channels, level) in [(1, None), (2, None), (5, None), (2, Some(1)), (0, Some(3))] {
        let ended = run(Wants { channels, level, ..Wants::default() }, usize::MAX, true);
        assert!(matches!(ended.outcome, Outcome::Moved), "{:?}", ended.outcome);
        ended.received.unwrap();
        assert!(contents(&ended.here.ram) == contents(&ended.there), "{channels} {level:?}");
        assert_eq!(ended.here.opened, usize::from(channels));
        let figures = ended.progress.figures();
        assert!(figures.normal >= PAGES / 2 && figures.zero >= PAGES / 4, "{figures:?}");
        let whole = figures.normal * PAGE;
        assert_eq!(figures.transferred < whole, level.is_some(), "{figures:?}");
    }
}

/// A machine whose guest has written all of its memory the first times that this is looked at.
struct Busy {
    ram: Arc<RamBlock>,
    looked: u32,
    stopped: u32,
    way: Sender<UnixStream>,
}

impl Machine for Busy {
    fn harvest(&mut self) -> Result<(), String> {
        self.looked += 1;
        if self.looked <= 4 {
            self.ram.mark_range(0, self.ram.size());
        }
        Ok(())
    }
    fn switch_over(&mut self) -> Result<Vec<Section>, String> {
        self.stopped = self.looked;
        Ok(vec![Section { name: "cpu".to_owned(), blob: Blob::new(1, &7u32).unwrap() }])
    }
    fn release(&mut self) -> Result<(), String> {
        Ok(())
    }
    fn connect(&mut self) -> Result<Box<dyn Link + Send>, String> {
        let (a, b) = UnixStream::pair().unwrap();
        self.way.send(b).map_err(|_| "nobody listens".to_owned())?;
        Ok(Box::new(channel(a)))
    }
}

#[test]
fn what_waits_in_a_channel_is_not_sent_yet() {
    let (way, came) = mpsc::channel();
    // As much as waits in a channel, by a slow one.
    let [ram, there] = [(); 2].map(|()| RamBlock::anonymous(256 * PAGE).unwrap());
    (0..256).for_each(|page| ram.write(page * PAGE, &[page as u8 | 1]));
    let mut here = Busy { ram, looked: 0, stopped: 0, way };
    let (a, b) = UnixStream::pair().unwrap();
    let to = blocks(&there);
    let receiver = thread::spawn(move || {
        receive(channel(b), to, &inventory(), &mut Taker(Some(Queue(came)), false))
    });
    let (progress, limits) = (Arc::default(), Arc::new(Limits::default()));
    limits.set_bandwidth(4 << 20);
    let (from, wants) = (blocks(&here.ram), Wants { channels: 1, ..Wants::default() });
    let outcome = send(channel(a), from, &inventory(), &mut here, &limits, &progress, wants);
    assert!(matches!(outcome, Outcome::Moved), "{outcome:?}");
    receiver.join().unwrap().unwrap();
    assert!(here.stopped > 4, "a guest stood still of which all was to be sent");
}

#[test]
fn deltas_and_packed_pages_go_together() {
    let ended = run(Wants { level: Some(1), deltas: true, ..Wants::default() }, usize::MAX, true);
    assert!(matches!(ended.outcome, Outcome::Moved), "{:?}", ended.outcome);
    assert!(contents(&ended.here.ram) == contents(&ended.there));
}

#[test]
fn a_channel_that_dies_anywhere_fails_the_migration() {
    let wants = Wants { channels: 2, ..Wants::default() };
    let hello = [0, 5, 28];
    let first = [29, 30, 45, 60, 61, 62, 5_000];
    // The first channel has about half of the memory.
    let later = (0..4).map(|n| 60_000 + n * 150_000);
    for cut in hello.into_iter().chain(first).chain(later) {
        let ended = run(wants, cut, true);
        assert!(matches!(ended.outcome, Outcome::Stayed(_)), "{cut}: {:?}", ended.outcome);
        assert!(ended.received.is_err() && !ended.here.released, "{cut}");
    }
}

#[test]
fn a_destination_without_a_door_refuses_before_the_guest_stops() {
    let ended = run(Wants { channels: 2, ..Wants::default() }, usize::MAX, false);
    let Outcome::Stayed(Error::Refused(text)) = &ended.outcome else {
        panic!("{:?}", ended.outcome)
    };
    assert_eq!(text, "parallel channels come in by tcp and unix only");
    assert!(!ended.here.stopped && ended.here.opened == 0);
}

#[test]
fn one_that_does_not_know_channels_says_so() {
    let needs = Needs { channels: Some(Announcement::new(2).unwrap()), compress: true };
    let bytes = inventory().to_bytes(&needs).unwrap();
    // As before there were any.
    let old = Blob::from_bytes(&bytes).and_then(|blob| blob.parse::<Inventory>(1, &[]));
    let error = old.unwrap_err().to_string();
    assert_eq!(error, "saved state needs 'compress', which is not known here");
}

#[test]
fn announcements_are_bounded() {
    let bad = |count, session| {
        let channels = Some(Announcement { count, session });
        let needs = Needs { channels, compress: false };
        let bytes = inventory().to_bytes(&needs).unwrap();
        Inventory::from_bytes(&bytes).unwrap_err().to_string()
    };
    assert_eq!(bad(0, vec![1; 16]), "0 channels are announced, not 1 to 16");
    assert_eq!(bad(17, vec![1; 16]), "17 channels are announced, not 1 to 16");
    assert_eq!(bad(2, vec![1; 15]), "the session of the channels is no session");
}

/// Somebody who says this, and then nothing.
fn caller(say: &[u8]) -> (UnixStream, UnixStream) {
    let (mut a, b) = UnixStream::pair().unwrap();
    a.write_all(say).unwrap();
    (a, b)
}

#[test]
fn strangers_are_turned_away_and_keep_nobody_out() {
    let announced = Announcement::new(2).unwrap();
    let other = Announcement::new(2).unwrap();
    assert_ne!(announced, other);
    let hello = |of: &Announcement, number| {
        let mut bytes = Vec::new();
        of.greet(&mut bytes, number).unwrap();
        bytes
    };
    let mut newer = hello(&announced, 0);
    newer[7] = 2;
    let (way, came) = mpsc::channel();
    let mut ends = Vec::new();
    for say in [
        b"".to_vec(),
        b"QEVM\0\0\0\x03".to_vec(),
        hello(&other, 0),
        hello(&announced, 1),
        hello(&announced, 2),
        newer,
        hello(&announced, 1),
        hello(&announced, 0)[..20].to_vec(),
        hello(&announced, 0),
        hello(&announced, 0),
    ] {
        let (a, b) = caller(&say);
        ends.push(a);
        way.send(b).unwrap();
    }
    let mut links = Arrivals::meet(&mut Queue(came), &announced).unwrap();
    for (end, link) in [(8, 0), (3, 1)] {
        ends[end].write_all(b"x").unwrap();
        let mut byte = [0];
        links[link].read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }
    // Nobody else was let in.
    for end in [0, 1, 2, 4, 5, 6, 7, 9] {
        // Nor is anybody heard any more.
        ends[end].set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let end_of = ends[end].read(&mut [0]).map_err(|error| error.kind());
        assert!(matches!(end_of, Ok(0) | Err(io::ErrorKind::ConnectionReset)), "{end}: {end_of:?}");
    }
}

#[test]
fn channels_that_do_not_come_are_not_awaited_for_ever() {
    let (_way, came) = mpsc::channel();
    let announced = Announcement::new(3).unwrap();
    let began = Instant::now();
    let error = Arrivals::meet(&mut Queue(came), &announced).err().unwrap();
    assert_eq!(error.to_string(), "3 of 3 channels have not come");
    assert!(began.elapsed() < Duration::from_secs(20));
}

/// A source up to its list of memory: the main stream, and its channels, which say `say`.
fn by_hand(say: &[u8]) -> (UnixStream, Vec<UnixStream>, JoinHandle<Result<(), Error>>) {
    let (a, b) = UnixStream::pair().unwrap();
    let (way, came) = mpsc::channel();
    let announced = Announcement::new(2).unwrap();
    let receiver = thread::spawn(move || {
        let mut taker = Taker(Some(Queue(came)), false);
        let received = receive(&mut channel(b), blocks(&memory()), &inventory(), &mut taker);
        assert!(!taker.1 || received.is_ok());
        received
    });
    let mut to = Writer::new(a.try_clone().unwrap());
    to.begin("pc").unwrap();
    to.command(command::OPEN_RETURN_PATH, &[]).unwrap();
    to.section(kind::FULL, 1, inventory::NAME, 1).unwrap();
    let needs = Needs { channels: Some(announced.clone()), compress: false };
    to.blob(&inventory().to_bytes(&needs).unwrap()).unwrap();
    to.footer(1).unwrap();
    let channels = (0..2).map(|number| {
        let (mut a, b) = UnixStream::pair().unwrap();
        way.send(b).unwrap();
        announced.greet(&mut a, number).unwrap();
        a.write_all(say).unwrap();
        a
    });
    let channels = channels.collect();
    to.section(kind::START, 2, ram::NAME, ram::VERSION).unwrap();
    ram::Sender::new(blocks(&memory())).start(&mut to).unwrap();
    to.footer(2).unwrap();
    to.flush().unwrap();
    (a, channels, receiver)
}

#[test]
fn a_bad_channel_is_told_to_the_source() {
    let (mut main, mut channels, receiver) = by_hand(&[7; 40]);
    // It is closed, and so is the stream then.
    assert!(matches!(channels[0].read(&mut [0]), Ok(0) | Err(_)));
    main.shutdown(std::net::Shutdown::Write).unwrap();
    let error = receiver.join().unwrap().unwrap_err().to_string();
    assert_eq!(error, "a chunk of pages is of no memory");
    let mut answer = Vec::new();
    let _ = main.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.ends_with("a chunk of pages is of no memory"), "{answer:?}");
}

#[test]
fn a_silent_channel_holds_nobody_up_when_the_stream_fails() {
    let (main, _channels, receiver) = by_hand(&[]);
    main.shutdown(std::net::Shutdown::Both).unwrap();
    receiver.join().unwrap().unwrap_err();
}

#[test]
fn nothing_is_loaded_before_every_channel_has_its_mark() {
    let (main, mut channels, receiver) = by_hand(&[]);
    let mut to = Writer::new(main.try_clone().unwrap());
    to.section(kind::FULL, 3, "cpu", 1).unwrap();
    to.blob(&Blob::new(1, &7u32).unwrap().to_bytes().unwrap()).unwrap();
    to.footer(3).unwrap();
    to.u8(kind::EOF).unwrap();
    to.u8(kind::DESCRIPTION).unwrap();
    to.blob(b"{}").unwrap();
    to.flush().unwrap();
    channels[1].write_all(&Packer::end()).unwrap();
    // The other one ends without.
    drop(channels);
    receiver.join().unwrap().unwrap_err();
}

/// A channel that breaks after its greeting, and takes its time to go away.
#[derive(Default)]
struct Broken {
    greeted: bool,
}

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }
}

impl Write for Broken {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.greeted, true) {
            false => Ok(()),
            true => Err(io::Error::other("the way is gone")),
        }
    }
}

impl Link for Broken {
    fn two_way(&self) -> bool {
        true
    }
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn why_a_channel_has_failed_is_known_as_soon_as_that_it_has() {
    let announced = Announcement::new(1).unwrap();
    let connect = || Ok(Box::new(Broken::default()) as Box<dyn Link + Send>);
    let channels = Channels::open(&announced, None, Limiter::default(), connect).unwrap();
    assert_eq!(channels.drain().unwrap_err().to_string(), "the way is gone");
}
