//! Both sides against each other, over sockets that break.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};

use resources::ram::RamBlock;
use resources::state::Blob;

use super::*;
use crate::channel::{Canceller, Channel, Connecting};
use crate::dest::{Target, receive};
use crate::link::{Link, Stored};
use crate::stream::{answer, command, kind};
use crate::testing::{channel, contents, inventory};
use crate::uri::Uri;

mod free;
mod slow;

/// A machine with memory that is written as long as it runs.
struct Fake {
    ram: Arc<RamBlock>,
    running: Arc<AtomicBool>,
    guest: Option<JoinHandle<()>>,
    disks: Option<blocks::Sender>,
    stopped: bool,
    released: bool,
}

impl Fake {
    fn new() -> Fake {
        let ram = RamBlock::anonymous(32 * PAGE).unwrap();
        let (running, guest, disks) = (Arc::default(), None, None);
        Fake { ram, running, guest, disks, stopped: false, released: false }
    }

    /// Has the guest write its memory until it is stopped.
    fn start(&mut self) {
        self.running.store(true, SeqCst);
        let (ram, running) = (self.ram.clone(), self.running.clone());
        self.guest = Some(thread::spawn(move || {
            let mut count = 0u64;
            while running.load(SeqCst) && count < 200 {
                count += 1;
                ram.write((count % 32) * PAGE + 8, &count.to_be_bytes());
                thread::yield_now();
            }
        }));
    }

    fn stop(&mut self) {
        self.running.store(false, SeqCst);
        self.guest.take().into_iter().for_each(|guest| guest.join().unwrap());
    }

    fn blocks(&self) -> Vec<Block> {
        vec![Block { name: "ram".to_owned(), ram: self.ram.clone() }]
    }

    fn contents(&self) -> Vec<u8> {
        contents(&self.ram)
    }
}

impl Machine for Fake {
    fn disks(&mut self) -> Result<Option<blocks::Sender>, String> {
        Ok(self.disks.take())
    }
    fn switch_over(&mut self) -> Result<Vec<Section>, String> {
        self.stop();
        self.stopped = true;
        Ok(vec![Section { name: "cpu".to_owned(), blob: Blob::new(1, &7u32).unwrap() }])
    }
    fn release(&mut self) -> Result<(), String> {
        self.released = true;
        Ok(())
    }
}

#[derive(Default)]
struct Taker {
    loaded: Option<u32>,
    taken: bool,
    refuse: bool,
}

impl Target for Taker {
    fn load(&mut self, sections: Vec<Section>) -> Result<(), String> {
        if self.refuse {
            return Err("no room".to_owned());
        }
        self.loaded = Some(sections[0].blob.parse(1, &[]).map_err(|e| e.to_string())?);
        Ok(())
    }
    fn take(&mut self) -> Result<(), String> {
        self.taken = true;
        Ok(())
    }
}

/// A socket that breaks, as if the process at this end was killed, after so many bytes were
/// written to it.
struct Socket {
    socket: UnixStream,
    left: usize,
    two_way: bool,
    killed: bool,
}

impl Read for Socket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.socket.read(bytes)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let now = bytes.len().min(self.left);
        if now == 0 {
            self.killed = true;
            self.socket.shutdown(Shutdown::Both)?;
            return Err(ErrorKind::BrokenPipe.into());
        }
        self.left -= now;
        self.socket.write(&bytes[..now])
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Link for Socket {
    fn two_way(&self) -> bool {
        self.two_way
    }
    fn finish(&mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }
}

fn with(part: &str) -> Inventory {
    Inventory { parts: [(part.to_owned(), "x".to_owned())].into(), ..inventory() }
}

struct Ended {
    here: Fake,
    there: Fake,
    taker: Taker,
    outcome: Outcome,
    received: Result<(), Error>,
    progress: Arc<Progress>,
    sent: (usize, usize),
}

/// Moves a guest; each side is killed when it has written so many bytes.
fn run(two_way: bool, limits: (usize, usize), part: &str, taker: Taker) -> Ended {
    let (mut here, there) = (Fake::new(), Fake::new());
    let (a, b) = UnixStream::pair().unwrap();
    let (mut a, mut b) = (
        Socket { socket: a, left: limits.0, two_way, killed: false },
        Socket { socket: b, left: limits.1, two_way, killed: false },
    );
    (0..8).for_each(|page| here.ram.write(page * PAGE, &[page as u8 + 1; 100]));
    let blocks = there.blocks();
    let wanted = with(part);
    let receiver = thread::spawn(move || {
        let mut taker = taker;
        let received = receive(&mut b, blocks, &wanted, &mut taker);
        let left = b.left;
        let received = match b.killed {
            true => Err(Error::bad("killed")),
            false => received,
        };
        // Who has the guest keeps the connection; who has not closes it.
        let kept = received.is_ok().then_some(b);
        (received, taker, left, kept)
    });
    here.start();
    let progress = Arc::new(Progress::default());
    let limits_of = Arc::new(Limits::default());
    let blocks = here.blocks();
    let outcome =
        send(&mut a, blocks, &inventory(), &mut here, &limits_of, &progress, Wants::default());
    here.stop();
    a.socket.shutdown(Shutdown::Both).ok();
    let (received, taker, left, _) = receiver.join().unwrap();
    let sent = (limits.0 - a.left, limits.1 - left);
    Ended { here, there, taker, outcome, received, progress, sent }
}

const ALL: (usize, usize) = (usize::MAX, usize::MAX);

#[test]
fn a_guest_moves_with_what_it_writes_meanwhile() {
    for two_way in [true, false] {
        let ended = run(two_way, ALL, "cpu", Taker::default());
        assert!(matches!(ended.outcome, Outcome::Moved), "{:?}", ended.outcome);
        ended.received.unwrap();
        assert_eq!((ended.taker.loaded, ended.taker.taken), (Some(7), true));
        assert!(ended.here.stopped && ended.here.released);
        assert!(ended.here.contents() == ended.there.contents());
        assert_eq!(ended.progress.phase(), Phase::Committed);
        let figures = ended.progress.figures();
        assert_eq!((figures.total, figures.remaining), (32 * PAGE, 0));
        assert!(figures.normal >= 8 && figures.transferred > 8 * PAGE, "{figures:?}");
    }
}

#[test]
fn what_does_not_fit_is_found_before_the_guest_stops() {
    let ended = run(true, ALL, "disk", Taker::default());
    let Outcome::Stayed(Error::Refused(text)) = &ended.outcome else {
        panic!("{:?}", ended.outcome)
    };
    assert_eq!(text, "the source has 'cpu' (x), this machine has not");
    assert!(!ended.here.stopped && ended.received.is_err());
}

#[test]
fn a_destination_that_cannot_load_gives_the_guest_back() {
    let ended = run(true, ALL, "cpu", Taker { refuse: true, ..Taker::default() });
    let Outcome::Stayed(Error::Refused(text)) = &ended.outcome else {
        panic!("{:?}", ended.outcome)
    };
    assert_eq!(text, "no room");
    assert!(ended.here.stopped && !ended.here.released && ended.received.is_err());
}

#[test]
fn whoever_is_killed_exactly_one_side_has_the_guest() {
    let whole = run(true, ALL, "cpu", Taker::default()).sent;
    let steps =
        |whole: usize| (0..24).map(move |n| whole / 24 * n).chain(whole.saturating_sub(24)..whole);
    let cuts = (steps(whole.0).map(|cut| (cut, usize::MAX)))
        .chain((0..whole.1 + 1).map(|cut| (usize::MAX, cut)));
    for cut in cuts {
        let ended = run(true, cut, "cpu", Taker::default());
        // Killed when it would say that it has it: to the source that looks like a cut on the way.
        let last_words = cut.1 >= whole.1 - 4 && cut.1 < whole.1;
        let right = match ended.outcome {
            Outcome::Stayed(_) => ended.received.is_err() && !last_words,
            Outcome::Unsure(_) => last_words,
            Outcome::Moved => ended.received.is_ok(),
            Outcome::PerhapsLost(_) | Outcome::Lost(_) => false,
        };
        assert!(right, "{cut:?}: {:?} {:?}", ended.outcome, ended.received);
    }
}

/// One way, with room for so many bytes, to somebody who says in the end that it went wrong.
struct OneWay {
    bytes: Vec<u8>,
    room: usize,
    file: bool,
}

impl Read for OneWay {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::Unsupported.into())
    }
}

impl Write for OneWay {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let now = bytes.len().min(self.room - self.bytes.len());
        if now == 0 {
            return Err(ErrorKind::BrokenPipe.into());
        }
        self.bytes.extend_from_slice(&bytes[..now]);
        Ok(now)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Link for OneWay {
    fn two_way(&self) -> bool {
        false
    }
    fn is_file(&self) -> bool {
        self.file
    }
    fn finish(&mut self) -> io::Result<()> {
        Err(io::Error::other("exit status 3"))
    }
}

#[test]
fn a_whole_stream_may_run_there_and_a_cut_one_never_does() {
    let run = |room, file| {
        let (mut here, there) = (Fake::new(), Fake::new());
        let mut link = OneWay { bytes: Vec::new(), room, file };
        let (limits, progress) = (Arc::default(), Arc::default());
        let (blocks, wants) = (here.blocks(), Wants::default());
        let inventory = inventory();
        let outcome = send(&mut link, blocks, &inventory, &mut here, &limits, &progress, wants);
        let mut stream = Stored(io::Cursor::new(link.bytes));
        let received = receive(&mut stream, there.blocks(), &inventory, &mut Taker::default());
        (outcome, received, stream.0.into_inner().len())
    };
    let (outcome, received, whole) = run(usize::MAX, false);
    assert!(matches!(outcome, Outcome::Unsure(Error::Io(_))), "{outcome:?}");
    received.unwrap();
    let (outcome, ..) = run(usize::MAX, true);
    assert!(matches!(outcome, Outcome::Stayed(Error::Io(_))), "{outcome:?}");
    for room in (0..whole).step_by(97).chain(whole - 400..whole) {
        let (outcome, received, _) = run(room, false);
        assert!(matches!(outcome, Outcome::Stayed(Error::Io(_))), "{room}: {outcome:?}");
        received.unwrap_err();
    }
}

#[test]
fn a_command_that_does_not_end_is_given_up() {
    let (mut here, limits, progress) = (Fake::new(), Arc::default(), Arc::default());
    let (canceller, nowhere) = (Canceller::new().unwrap(), |_: &str| unreachable!());
    let uri = Uri::outgoing("exec:cat > /dev/null; sleep 1000").unwrap();
    let link = Connecting::start(&uri, &canceller, nowhere).unwrap().finish().unwrap();
    let blocks = here.blocks();
    let outcome = send(link, blocks, &inventory(), &mut here, &limits, &progress, Wants::default());
    let Outcome::Unsure(error) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(error.to_string(), "the migration command has everything and does not end");
}

/// A disk that somebody else than the guest writes to at the last moment.
struct Late(Arc<AtomicBool>);

impl crate::blocks::Source for Late {
    fn name(&self) -> &str {
        "disk"
    }
    fn size(&self) -> u64 {
        crate::blocks::CHUNK
    }
    fn left(&self) -> u64 {
        if self.0.load(SeqCst) { crate::blocks::CHUNK } else { 0 }
    }
    fn next<'a>(&mut self, _: &'a mut Vec<u8>) -> io::Result<Option<crate::blocks::Chunk<'a>>> {
        Ok(None)
    }
}

/// A machine with that disk.
struct WithLate(Fake, Arc<AtomicBool>);

impl Machine for WithLate {
    fn start_log(&mut self) -> Result<(), String> {
        self.0.start_log()
    }
    fn harvest(&mut self) -> Result<(), String> {
        self.0.harvest()
    }
    fn disks(&mut self) -> Result<Option<crate::blocks::Sender>, String> {
        Ok(Some(crate::blocks::Sender::new(vec![Box::new(Late(self.1.clone()))], false)))
    }
    fn switch_over(&mut self) -> Result<Vec<Section>, String> {
        self.0.switch_over()
    }
    fn release(&mut self) -> Result<(), String> {
        // What was accepted before is carried out now.
        self.1.store(true, SeqCst);
        self.0.release()
    }
}

#[test]
fn a_guest_stays_whose_disk_is_written_to_at_the_last_moment() {
    let mut here = WithLate(Fake::new(), Arc::default());
    let mut link = OneWay { bytes: Vec::new(), room: usize::MAX, file: false };
    let (blocks, inventory) = (here.0.blocks(), inventory());
    let (limits, progress) = (Arc::default(), Arc::default());
    let outcome =
        send(&mut link, blocks, &inventory, &mut here, &limits, &progress, Wants::default());
    let Outcome::Stayed(Error::Here(text)) = &outcome else { panic!("{outcome:?}") };
    assert!(text.contains("written to") && here.0.released, "{text}");
}

#[test]
fn slow_links_are_measured_too() {
    let mut bandwidth = Bandwidth::default();
    // What the host's buffers took.
    bandwidth.add(4 << 20, Duration::from_millis(4));
    assert_eq!(bandwidth.rate, 1e3 * f64::from(1 << 20));
    // Then 100 KiB in each tenth of a second.
    (0..20).for_each(|_| bandwidth.add(100 << 10, Duration::from_millis(100)));
    assert!((bandwidth.rate / f64::from(1000 << 10) - 1.0).abs() < 0.01, "{}", bandwidth.rate);
}

#[test]
fn a_cancelled_migration_leaves_the_guest_alone() {
    let (mut here, there) = (Fake::new(), Fake::new());
    let (a, b) = UnixStream::pair().unwrap();
    let progress = Arc::new(Progress::default());
    let limits = Arc::new(Limits::default());
    // So slow that it cannot end before it is cancelled.
    limits.set_bandwidth(40_000);
    (0..32).for_each(|page| here.ram.write(page * PAGE, &[1; 10]));
    let hang_up = Canceller::new().unwrap();
    let link = Channel::new(a.into(), &hang_up).unwrap();
    progress.hang_up_by(move || hang_up.cancel());
    let blocks = there.blocks();
    let receiver = thread::spawn(move || {
        receive(
            &mut Socket { socket: b, left: usize::MAX, two_way: true, killed: false },
            blocks,
            &inventory(),
            &mut Taker::default(),
        )
    });
    let canceller = progress.clone();
    let thread = thread::spawn(move || {
        while canceller.phase() == Phase::Setup {
            thread::yield_now();
        }
        canceller.cancel();
    });
    let blocks = here.blocks();
    let outcome = send(link, blocks, &inventory(), &mut here, &limits, &progress, Wants::default());
    assert!(matches!(outcome, Outcome::Stayed(Error::Cancelled)), "{outcome:?}");
    assert!(!here.stopped);
    thread.join().unwrap();
    receiver.join().unwrap().unwrap_err();
}

/// The bytes of an answer.
fn said(number: u16, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(data.len()).unwrap().to_be_bytes();
    [&number.to_be_bytes()[..], &len, data].concat()
}

/// That memory may come late, in pages of 4 KiB.
fn late() -> Vec<u8> {
    said(answer::LATE, &[&[3][..], b"ram", &4096_u32.to_be_bytes()].concat())
}

/// Reads up to a command, or to the end.
fn hear(from: &mut UnixStream, command: u16) {
    let (mut last, [high, low]) = ([0; 5], command.to_be_bytes());
    while last != [kind::COMMAND, high, low, 0, 0] {
        last.rotate_left(1);
        if from.read_exact(&mut last[4..]).is_err() {
            break;
        }
    }
}

/// Moves a guest to a destination that answers this, whatever it is sent, and in `then` goes on
/// when it was told to run it, or the stream has ended.
fn answered(
    answers: &[Vec<u8>],
    postcopy: bool,
    then: impl FnOnce(&mut UnixStream, &Progress) + Send,
) -> (Outcome, Arc<Progress>) {
    answered_to(Fake::new(), answers, postcopy, then)
}

fn answered_to(
    mut here: Fake,
    answers: &[Vec<u8>],
    postcopy: bool,
    then: impl FnOnce(&mut UnixStream, &Progress) + Send,
) -> (Outcome, Arc<Progress>) {
    here.start();
    let (a, mut b) = UnixStream::pair().unwrap();
    let (canceller, progress) = (Canceller::new().unwrap(), Arc::new(Progress::default()));
    let link = Channel::new(a.into(), &canceller).unwrap();
    progress.hang_up_by(move || canceller.cancel());
    if postcopy {
        progress.go_early();
    }
    b.write_all(&answers.concat()).unwrap();
    let (blocks, limits) = (here.blocks(), Arc::default());
    let outcome = thread::scope(|scope| {
        let progress = &progress;
        scope.spawn(move || {
            hear(&mut b, command::GO);
            then(&mut b, progress);
        });
        let wants = Wants { postcopy, ..Wants::default() };
        send(link, blocks, &inventory(), &mut here, &limits, progress, wants)
    });
    here.stop();
    (outcome, progress)
}

fn handed_over() -> Vec<Vec<u8>> {
    let nothing = |number| said(number, &[]);
    vec![said(answer::PONG, &[0, 0, 0, 1]), nothing(answer::LOADED), nothing(answer::READY)]
}

#[test]
fn a_guest_whose_memory_was_to_follow_is_not_to_go_on_here_when_it_may_have_run() {
    let (outcome, _) = answered(&handed_over(), false, |_, _| {});
    assert!(matches!(outcome, Outcome::Unsure(_)), "{outcome:?}");
    let (outcome, _) = answered(&[vec![late()], handed_over()].concat(), true, |_, _| {});
    assert!(matches!(outcome, Outcome::PerhapsLost(_)), "{outcome:?}");
}

#[test]
fn a_cancel_does_not_cut_off_a_guest_from_its_memory() {
    let answers = [vec![late()], handed_over()].concat();
    let (outcome, progress) = answered(&answers, true, |socket, progress| {
        thread::sleep(hand_over::GRACE);
        progress.cancel();
        socket.write_all(&said(answer::RUNNING, &[])).unwrap();
        hear(socket, command::ALL_SENT);
        progress.cancel();
        socket.write_all(&said(answer::FULL, &[])).unwrap();
    });
    assert!(matches!(outcome, Outcome::Moved), "{outcome:?}");
    assert_eq!(progress.phase(), Phase::Postcopy);
}

/// A disk of one chunk, which is sent once.
struct Small(bool);

impl blocks::Source for Small {
    fn name(&self) -> &str {
        "disk"
    }
    fn size(&self) -> u64 {
        blocks::CHUNK
    }
    fn left(&self) -> u64 {
        if self.0 { 0 } else { blocks::CHUNK }
    }
    fn next<'a>(&mut self, to: &'a mut Vec<u8>) -> io::Result<Option<blocks::Chunk<'a>>> {
        to.resize(blocks::CHUNK as usize, 7);
        Ok((!std::mem::replace(&mut self.0, true)).then_some(blocks::Chunk::Data(0, to)))
    }
}

#[test]
fn disks_are_not_told_as_memory_that_comes_late() {
    let mut here = Fake::new();
    here.disks = Some(blocks::Sender::new(vec![Box::new(Small(false))], false));
    let answers = [vec![late()], handed_over()].concat();
    let (outcome, progress) = answered_to(here, &answers, true, |socket, _| {
        socket.write_all(&said(answer::RUNNING, &[])).unwrap();
        hear(socket, command::ALL_SENT);
        socket.write_all(&said(answer::FULL, &[])).unwrap();
    });
    assert!(matches!(outcome, Outcome::Moved), "{outcome:?}");
    let figures = progress.figures();
    assert_eq!(figures.disk.unwrap().transferred, blocks::CHUNK);
    assert!(figures.transferred < blocks::CHUNK, "{figures:?}");
}

/// Says something again and again until nobody listens.
fn dribble(mut socket: &UnixStream, what: &[u8]) {
    while socket.write_all(what).is_ok() {
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_destination_that_answers_for_ever_is_given_up() {
    // An answer that never ends.
    let (a, b) = UnixStream::pair().unwrap();
    let mut here = Fake::new();
    let (mut main, progress) = (channel(a), Arc::default());
    let (blocks, limits) = (here.blocks(), Arc::default());
    let outcome = thread::scope(|scope| {
        scope.spawn(|| io::copy(&mut &b, &mut io::sink()));
        scope.spawn(|| {
            (&b).write_all(&said(answer::PONG, &[0, 0, 0, 1])).unwrap();
            (&b).write_all(&[0x80, 1, 0xff, 0xff]).unwrap();
            dribble(&b, &[0]);
        });
        let outcome =
            send(&mut main, blocks, &inventory(), &mut here, &limits, &progress, Wants::default());
        drop(main);
        outcome
    });
    let Outcome::Stayed(Error::Io(error)) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    // One that has all memory, and wants it again.
    let answers = [vec![late()], handed_over()].concat();
    let (outcome, _) = answered(&answers, true, |socket, _| {
        socket.write_all(&said(answer::RUNNING, &[])).unwrap();
        let mut input = socket.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || io::copy(&mut input, &mut io::sink()));
            dribble(socket, &said(answer::REQUEST, &[0; 9]));
        });
    });
    assert!(matches!(outcome, Outcome::Lost(_)), "{outcome:?}");
}

#[test]
fn nobody_waits_for_a_reason_for_ever() {
    let (a, b) = UnixStream::pair().unwrap();
    b.shutdown(Shutdown::Read).unwrap();
    let mut here = Fake::new();
    let (blocks, limits, progress) = (here.blocks(), Arc::default(), Arc::default());
    let began = Instant::now();
    let wants = Wants::default();
    let outcome = send(channel(a), blocks, &inventory(), &mut here, &limits, &progress, wants);
    assert!(matches!(outcome, Outcome::Stayed(Error::Io(_))), "{outcome:?}");
    assert!(began.elapsed() < Duration::from_secs(60));
    drop(b);
}
