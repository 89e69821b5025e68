//! The algorithm against a model of a guest and of a link, in a time of their own: it passes as
//! bytes go over the link, and with it the guest writes. So every rate can be tried, a minute takes
//! a moment, and all figures are exact.

use std::io::{self, ErrorKind, Read, Write};

use parking_lot::Mutex;
use resources::ram::RamBlock;
use resources::state::Blob;

use super::*;
use crate::dest::{Target, receive};
use crate::link::Stored;
use crate::testing::{contents, inventory};

/// Pages of the guest, and how many of them it writes over and over.
const PAGES: u64 = 1024;
const HOT: u64 = 512;
/// Pages a second that go over the link.
const LINK: u64 = 1024;
/// A migration that takes so long does not end.
const NEVER: Duration = Duration::from_secs(60);

/// What is tried.
#[derive(Clone, Copy)]
struct Try {
    /// Pages a second that the guest writes if nobody slows it down.
    rate: f64,
    /// One after the other, not here and there.
    in_order: bool,
    wants: Wants,
    /// Bytes a second that the user allows; 0: any.
    limit: u64,
    cancel_at: Duration,
    /// What was sent is looked at.
    keep: bool,
}

impl Try {
    fn new(rate: f64, converge: bool) -> Try {
        let wants = Wants { converge, ..Wants::default() };
        Try { rate, in_order: false, wants, limit: 0, cancel_at: NEVER, keep: false }
    }
}

struct World {
    this: Try,
    ram: Arc<RamBlock>,
    base: Instant,
    now: Duration,
    /// Parts of a page that were not written yet.
    due: f64,
    /// Pages written since the last harvest.
    log: Vec<bool>,
    count: u64,
    random: u64,
    running: bool,
    throttle: u8,
    throttles: Vec<u8>,
    limiter: Limiter,
    progress: Arc<Progress>,
    stream: Vec<u8>,
}

impl World {
    /// The guest writes a page, which only its log knows.
    fn write_page(&mut self) {
        self.count += 1;
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let page = if self.this.in_order { self.count } else { self.random } % HOT;
        self.log[page as usize] = true;
        let marked = self.ram.region().bitmap().get_and_reset();
        self.ram.write(page * PAGE + self.count % 500 * 8, &self.count.to_be_bytes());
        self.ram.region().bitmap().reset();
        self.ram.mark_dirty(0, &marked);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        if self.running {
            let share = f64::from(100 - self.throttle) / 100.0;
            self.due += self.this.rate * share * time.as_secs_f64();
            while self.due >= 1.0 {
                self.due -= 1.0;
                self.write_page();
            }
        }
        if self.now >= self.this.cancel_at {
            self.progress.cancel();
        }
    }
}

/// Both the machine and the link to the other one.
#[derive(Clone)]
struct Model(Arc<Mutex<World>>);

impl Machine for Model {
    fn harvest(&mut self) -> Result<(), String> {
        let world = &mut *self.0.lock();
        for (page, written) in world.log.iter_mut().enumerate() {
            if std::mem::take(written) {
                world.ram.mark_dirty(page as u64 * PAGE, &[1]);
            }
        }
        Ok(())
    }
    fn throttle(&mut self, percent: u8) {
        let world = &mut *self.0.lock();
        if world.throttle != percent {
            world.throttles.push(percent);
        }
        world.throttle = percent;
    }
    fn now(&self) -> Instant {
        let world = self.0.lock();
        world.base + world.now
    }
    fn switch_over(&mut self) -> Result<Vec<Section>, String> {
        self.0.lock().running = false;
        Ok(vec![Section { name: "cpu".to_owned(), blob: Blob::new(1, &7u32).unwrap() }])
    }
    fn release(&mut self) -> Result<(), String> {
        Ok(())
    }
}

impl Read for Model {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::Unsupported.into())
    }
}

impl Write for Model {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let world = &mut *self.0.lock();
        let bytes = &bytes[..bytes.len().min(4096)];
        let rate = match world.limiter.rate() {
            0 => LINK * PAGE,
            limit => limit.min(LINK * PAGE),
        };
        if world.this.keep {
            world.stream.extend_from_slice(bytes);
        }
        world.pass(Duration::from_secs_f64(bytes.len() as f64 / rate as f64));
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Link for Model {
    fn two_way(&self) -> bool {
        false
    }
    fn set_limiter(&mut self, limiter: &Limiter) {
        self.0.lock().limiter = limiter.clone();
    }
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How it went.
struct Went {
    outcome: Outcome,
    figures: crate::status::Figures,
    /// How long the guest was on its way.
    took: Duration,
    /// How it was slowed down, step by step.
    throttles: Vec<u8>,
    runs: bool,
    ram: Arc<RamBlock>,
    stream: Vec<u8>,
}

impl Went {
    fn moved(&self) -> bool {
        matches!(self.outcome, Outcome::Moved)
    }
}

fn blocks(ram: &Arc<RamBlock>) -> Vec<Block> {
    vec![Block { name: "ram".to_owned(), ram: ram.clone() }]
}

fn go(this: Try) -> Went {
    let ram = RamBlock::anonymous(PAGES * PAGE).unwrap();
    (0..PAGES).for_each(|page| ram.write(page * PAGE, &[page as u8 | 1; 64]));
    let limits = Arc::new(Limits::default());
    limits.set_bandwidth(this.limit);
    let progress = Arc::new(Progress::default());
    let world = World {
        this,
        ram: ram.clone(),
        base: Instant::now(),
        now: Duration::ZERO,
        due: 0.0,
        log: vec![false; PAGES as usize],
        count: 0,
        random: 0x9E37_79B9_7F4A_7C15,
        running: true,
        throttle: 0,
        throttles: Vec::new(),
        limiter: Limiter::default(),
        progress: progress.clone(),
        stream: Vec::new(),
    };
    let mut model = Model(Arc::new(Mutex::new(world)));
    let link = model.clone();
    let outcome =
        send(link, blocks(&ram), &inventory(), &mut model, &limits, &progress, this.wants);
    let mut world = model.0.lock();
    assert_eq!(world.throttle, 0, "the guest is slow for ever");
    Went {
        outcome,
        figures: progress.figures(),
        took: world.now,
        throttles: std::mem::take(&mut world.throttles),
        runs: world.running,
        ram,
        stream: std::mem::take(&mut world.stream),
    }
}

#[derive(Default)]
struct Taker(u32);

impl Target for Taker {
    fn load(&mut self, sections: Vec<Section>) -> Result<(), String> {
        self.0 = sections[0].blob.parse(1, &[]).map_err(|error| error.to_string())?;
        Ok(())
    }
    fn take(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// What arrives is what the guest had when it stopped.
fn expect_whole(went: &Went) {
    let ram = RamBlock::anonymous(PAGES * PAGE).unwrap();
    let mut taker = Taker::default();
    let stream = io::Cursor::new(went.stream.clone());
    receive(Stored(stream), blocks(&ram), &inventory(), &mut taker).unwrap();
    assert!(contents(&went.ram) == contents(&ram) && taker.0 == 7);
}

fn close(what: &str, found: f64, wanted: f64, tolerance: f64) {
    assert!((found - wanted).abs() <= tolerance, "{what}: {found}, not {wanted}");
}

#[test]
fn a_guest_slower_than_the_link_moves_with_all_it_has_written() {
    for deltas in [false, true] {
        for rate in [0.0, 10.0, 100.0, 300.0, 500.0, 800.0, 950.0] {
            let mut this = Try { keep: true, ..Try::new(rate, false) };
            this.wants.deltas = deltas;
            let went = go(this);
            assert!(went.moved(), "{rate}: {:?}", went.outcome);
            assert!(went.took < Duration::from_secs(30), "{rate}: {:?}", went.took);
            expect_whole(&went);
            // A cache larger than memory is of no use, and is not told to be there.
            let cache = went.figures.deltas.map(|deltas| deltas.cache_size);
            assert_eq!(cache, deltas.then_some(PAGES * PAGE));
            // 30 ms for pages, and what the state of the machine takes.
            assert!(went.figures.downtime <= 32, "{rate}: {:?}", went.figures);
        }
    }
}

#[test]
fn a_guest_faster_than_the_link_never_moves_unless_it_is_slowed_down() {
    for rate in [1500.0, 3000.0, 10_000.0, 50_000.0] {
        let went = go(Try::new(rate, false));
        assert!(matches!(went.outcome, Outcome::Stayed(Error::Cancelled)), "{:?}", went.outcome);
        assert!(went.runs && went.took >= NEVER && went.throttles.is_empty());

        let went = go(Try { keep: true, ..Try::new(rate, true) });
        assert!(went.moved(), "{rate}: {:?}, {:?}", went.outcome, went.throttles);
        let steps = [20, 30, 40, 50, 60, 70, 80, 90, 99];
        let (last, steps_taken) = went.throttles.split_last().unwrap();
        assert!(*last == 0 && steps.starts_with(steps_taken), "{:?}", went.throttles);
        // It writes less than the link carries in the end, and not much less than it has to.
        let least = *steps_taken.last().unwrap();
        assert!(rate * f64::from(100 - least) / 100.0 < LINK as f64, "{rate}: {least}");
        let before = steps_taken.len().checked_sub(3).map_or(0, |at| steps_taken[at]);
        assert!(rate * f64::from(100 - before) / 100.0 > LINK as f64 / 2.0, "{rate}: {before}");
        expect_whole(&went);
    }
}

#[test]
fn a_guest_that_is_slow_enough_is_left_alone() {
    for rate in [0.0, 100.0, 400.0] {
        let went = go(Try::new(rate, true));
        assert!(went.moved() && went.throttles.is_empty(), "{rate}: {:?}", went.throttles);
    }
}

#[test]
fn whenever_it_is_cancelled_the_guest_runs_here_or_is_there() {
    let whole = go(Try::new(4000.0, true));
    assert!(whole.moved() && whole.took > Duration::from_secs(5), "{:?}", whole.took);
    for step in 0..50 {
        let went = go(Try { cancel_at: whole.took * step / 50, ..Try::new(4000.0, true) });
        // Until the last step it is not given away.
        assert!(matches!(went.outcome, Outcome::Stayed(Error::Cancelled)), "{:?}", went.outcome);
        assert!(went.runs, "{step}");
    }
    let mut moved = 0;
    for ms in 0..40 {
        let cancel_at = whole.took - Duration::from_millis(ms);
        let went = go(Try { cancel_at, keep: true, ..Try::new(4000.0, true) });
        match went.outcome {
            Outcome::Moved => {
                moved += 1;
                expect_whole(&went);
            }
            // The main thread lets it go on, if it was stopped.
            Outcome::Stayed(Error::Cancelled) => {}
            other => panic!("{ms}: {other:?}"),
        }
    }
    assert!(moved < 40);
}

#[test]
fn the_figures_are_those_of_the_guest_and_the_link() {
    for (limit, carried) in [(0, LINK), (LINK / 4 * PAGE, LINK / 4)] {
        let rate = carried as f64 / 4.0;
        let went = go(Try { in_order: true, limit, ..Try::new(rate, false) });
        assert!(went.moved());
        let figures = went.figures;
        let mbps = (carried * PAGE * 8) as f64 / 1e6;
        close("pages a second", figures.dirty_rate as f64, rate, rate * 0.05);
        close("Mbit a second", figures.mbps, mbps, mbps * 0.02);
        // All pages, a quarter of them again, a quarter of those...
        let pages = figures.normal as f64;
        close("pages", pages, PAGES as f64 * 4.0 / 3.0, PAGES as f64 * 0.04);
        let bytes = pages * PAGE as f64;
        close("bytes", figures.transferred as f64, bytes, bytes * 0.01);
        let seconds = PAGES as f64 / carried as f64 * 4.0 / 3.0;
        close("seconds", went.took.as_secs_f64(), seconds, seconds * 0.05);
        // The guest stands still at the speed of the link, whatever the limit.
        let still = figures.expected_downtime as f64 * carried as f64 / LINK as f64;
        close("downtime", figures.downtime as f64, still, 3.0);
        assert_eq!(figures.total, PAGES * PAGE);
    }
}
