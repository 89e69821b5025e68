//! Both sides against each other, with memory that really lacks pages. On a host that does not let
//! this process handle page faults only the refusal is seen.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use resources::ram::{PAGE, Ram, RamBackend, RamBlock, RamConfig};
use resources::state::Blob;

use crate::channel::{Canceller, Channel};
use crate::dest::{Section, Target, receive};
use crate::ram::{Block, Free, Hinting};
use crate::source::{Machine, Outcome, Wants, send};
use crate::status::{Limits, Phase, Progress};
use crate::stream::Error;
use crate::testing::{self, Cut, inventory, skips_postcopy};

const PAGES: u64 = 512;

fn memory(backend: RamBackend, share: bool) -> Vec<Block> {
    let config = RamConfig { size: PAGES * PAGE, backend, share, ..RamConfig::default() };
    let ram = Ram::new(&config).unwrap().ranges()[0].block.clone();
    let block = |name: &str, ram| Block { name: name.to_owned(), ram };
    vec![block("pc.ram", ram), block("pc.rom", RamBlock::anonymous(4 * PAGE).unwrap())]
}

fn contents(blocks: &[Block]) -> Vec<u8> {
    blocks.iter().flat_map(|block| testing::contents(&block.ram)).collect()
}

/// A guest that writes its memory faster than any link.
struct Here {
    blocks: Vec<Block>,
    running: Arc<AtomicBool>,
    guest: Option<JoinHandle<()>>,
    /// What is in memory when the guest stops.
    snapshot: Arc<Mutex<Vec<u8>>>,
    released: bool,
}

impl Here {
    fn start(blocks: Vec<Block>, snapshot: &Arc<Mutex<Vec<u8>>>) -> Here {
        (0..PAGES / 2).for_each(|page| blocks[0].ram.write(page * 2 * PAGE, &page.to_be_bytes()));
        blocks[1].ram.write(PAGE, b"rom");
        let running = Arc::new(AtomicBool::new(true));
        let (ram, on) = (blocks[0].ram.clone(), running.clone());
        let guest = thread::spawn(move || {
            let mut count = 1_u64;
            while on.load(SeqCst) {
                // A quarter is never written, another is zero.
                ram.write((count * 7 % PAGES / 2) * PAGE + 100, &count.to_be_bytes());
                count += 1;
            }
        });
        let (guest, snapshot) = (Some(guest), snapshot.clone());
        Here { blocks, running, guest, snapshot, released: false }
    }

    fn stop(&mut self) {
        self.running.store(false, SeqCst);
        if let Some(guest) = self.guest.take() {
            guest.join().unwrap();
        }
    }
}

impl Machine for Here {
    fn hints(&mut self, ask: Hinting) -> Vec<Free> {
        assert_ne!(ask, Hinting::Begin, "the destination may ask for any page later");
        Vec::new()
    }
    fn switch_over(&mut self) -> Result<Vec<Section>, String> {
        self.stop();
        *self.snapshot.lock() = contents(&self.blocks);
        Ok(vec![Section { name: "cpu".to_owned(), blob: Blob::new(1, &7u32).unwrap() }])
    }
    fn release(&mut self) -> Result<(), String> {
        self.released = true;
        Ok(())
    }
}

/// A machine that touches memory from the moment its devices are loaded.
struct There {
    ram: Arc<RamBlock>,
    snapshot: Arc<Mutex<Vec<u8>>>,
    guests: Vec<JoinHandle<()>>,
    touches: bool,
    early: bool,
}

impl There {
    fn check(ram: &RamBlock, snapshot: &[u8], page: u64) {
        let mut bytes = vec![0; PAGE as usize];
        ram.read(page * PAGE, &mut bytes);
        assert!(bytes == snapshot[(page * PAGE) as usize..][..PAGE as usize], "page {page}");
    }
}

impl Target for There {
    fn load(&mut self, _: Vec<Section>) -> Result<(), String> {
        if self.touches {
            for page in [3, 100, PAGES - 1] {
                There::check(&self.ram, &self.snapshot.lock(), page);
            }
        }
        Ok(())
    }
    fn take(&mut self) -> Result<(), String> {
        if self.touches {
            There::check(&self.ram, &self.snapshot.lock(), 5);
        }
        Ok(())
    }
    fn early(&mut self) {
        self.early = true;
        for vcpu in 0..if self.touches { 3_u64 } else { 0 } {
            let (ram, snapshot) = (self.ram.clone(), self.snapshot.clone());
            self.guests.push(thread::spawn(move || {
                let snapshot = snapshot.lock().clone();
                for step in 0..PAGES {
                    // Each a third, in no order.
                    let page = (step * 211 + vcpu * 97) % PAGES;
                    if page % 3 == vcpu {
                        There::check(&ram, &snapshot, page);
                        ram.write(page * PAGE + 8, &[vcpu as u8 + 1; 8]);
                    }
                }
            }));
        }
    }
}

struct Ended {
    outcome: Outcome,
    received: Result<(), Error>,
    here: Here,
    there: There,
    blocks: Vec<Block>,
    progress: Arc<Progress>,
    written: (usize, usize),
    /// After which silence each side would give up in the end.
    patience: [Option<Duration>; 2],
}

/// Moves a guest that would never fit, each side killed when it has written so many bytes.
fn run(blocks: Vec<Block>, touches: bool, limits: (usize, usize)) -> Ended {
    let snapshot: Arc<Mutex<Vec<u8>>> = Arc::default();
    let mut here = Here::start(memory(RamBackend::Anonymous, false), &snapshot);
    let (a, b) = UnixStream::pair().unwrap();
    let (mut a, mut b) = (Cut::new(a, limits.0), Cut::new(b, limits.1));
    let ram = blocks[0].ram.clone();
    let mut there = There { ram, snapshot, guests: Vec::new(), touches, early: false };
    let into = blocks.clone();
    let receiver = thread::spawn(move || {
        let received = receive(&mut b, into, &inventory(), &mut there);
        // Who has failed closes the connection.
        (received, there, (b.left, b.patience))
    });
    let (progress, allowed) = (Arc::new(Progress::default()), Arc::new(Limits::default()));
    allowed.set_downtime(Duration::ZERO);
    progress.go_early();
    let wants = Wants { postcopy: true, ..Wants::default() };
    let all = here.blocks.clone();
    let outcome = send(&mut a, all, &inventory(), &mut here, &allowed, &progress, wants);
    let (left, patience) = (a.left, a.patience);
    drop(a);
    here.stop();
    let (received, there, (there_left, there_patience)) = receiver.join().unwrap();
    let written = (limits.0 - left, limits.1 - there_left);
    let patience = [patience, there_patience];
    Ended { outcome, received, here, there, blocks, progress, written, patience }
}

const ALL: (usize, usize) = (usize::MAX, usize::MAX);

#[test]
fn a_guest_goes_before_its_memory_which_follows() {
    if skips_postcopy() {
        return;
    }
    let mut kinds = vec![
        (RamBackend::Anonymous, false),
        (RamBackend::Anonymous, true),
        (RamBackend::Memfd(None), true),
        (RamBackend::Memfd(None), false),
    ];
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    match free.map(|free| free.trim().parse().unwrap_or(0)) {
        Ok(3_u64..) => {
            kinds.push((RamBackend::Memfd(Some(2 << 20)), true));
            kinds.push((RamBackend::Memfd(Some(2 << 20)), false));
        }
        _ => eprintln!("skipped: the host has no huge pages"),
    }
    for (backend, share) in kinds {
        let blocks = memory(backend, share);
        // What was there before does not show through.
        (0..PAGES).for_each(|page| blocks[0].ram.write(page * PAGE + 200, b"before"));
        let mut ended = run(blocks, true, ALL);
        assert!(matches!(ended.outcome, Outcome::Moved), "{:?}", ended.outcome);
        ended.received.unwrap();
        assert!(ended.there.early && ended.here.released);
        assert_eq!(ended.patience, [Some(Duration::MAX); 2]);
        ended.there.guests.drain(..).for_each(|guest| guest.join().unwrap());
        let mut wanted = ended.there.snapshot.lock().clone();
        for page in 0..PAGES {
            wanted[(page * PAGE) as usize + 8..][..8].fill((page % 3) as u8 + 1);
        }
        assert!(contents(&ended.blocks) == wanted);
        let figures = ended.progress.figures();
        assert_eq!(figures.remaining, 0);
        assert_eq!(ended.progress.phase(), Phase::Postcopy);
    }
}

#[test]
fn whoever_is_killed_nobody_runs_twice_and_loss_is_told() {
    if skips_postcopy() {
        return;
    }
    let run = |limits| run(memory(RamBackend::Anonymous, false), false, limits);
    let whole = run(ALL).written;
    let far = (1..16).map(|part| whole.0 / 16 * part).chain(whole.0 - 60..whole.0);
    let cuts = (far.map(|cut| (cut, usize::MAX))).chain((0..=whole.1).map(|cut| (usize::MAX, cut)));
    let (mut stayed, mut lost, mut perhaps) = (0, 0, 0);
    for cut in cuts {
        let ended = run(cut);
        let (early, here) = (ended.there.early, ended.received.is_ok());
        let given = ended.progress.phase() == Phase::Committed;
        match ended.outcome {
            Outcome::Moved => assert!(here && early, "{cut:?}"),
            Outcome::Stayed(_) => {
                stayed += 1;
                assert!(!here && !early, "{cut:?}");
            }
            // The last answer may be lost when all is there.
            Outcome::Lost(_) => {
                lost += 1;
                assert!(early, "{cut:?}");
            }
            // It has not said that it runs the guest, which it may do: the disks are its own.
            Outcome::PerhapsLost(_) => {
                perhaps += 1;
                assert!(given && ended.here.released, "{cut:?}");
            }
            Outcome::Unsure(error) => panic!("{cut:?}: {error}"),
        }
    }
    assert!(stayed > 10 && lost > 0 && perhaps > 0, "{stayed} {lost} {perhaps}");
}

#[test]
fn what_cannot_come_late_is_refused_while_the_guest_runs() {
    let mut blocks = memory(RamBackend::Anonymous, false);
    let path = std::env::temp_dir().join(format!("vmm-postcopy-{}", std::process::id()));
    let size = super::MOST_AT_ONCE + PAGE;
    let backend = RamBackend::File(path.clone());
    let config = RamConfig { size, backend, ..RamConfig::default() };
    blocks[1].ram = Ram::new(&config).unwrap().ranges()[0].block.clone();
    let snapshot = Arc::default();
    let ended = run(blocks, false, ALL);
    std::fs::remove_file(path).unwrap();
    let Outcome::Stayed(Error::Refused(text)) = &ended.outcome else {
        panic!("{:?}", ended.outcome)
    };
    assert!(text.starts_with("post-copy is not possible: "), "{text}");
    assert!(ended.there.snapshot.lock().is_empty() && ended.received.is_err());
    // Nor can it over what goes one way.
    let mut here = Here::start(memory(RamBackend::Anonymous, false), &snapshot);
    let file = rustix::fs::memfd_create("stream", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let link = Channel::new(file, &Canceller::new().unwrap()).unwrap();
    let wants = Wants { postcopy: true, ..Wants::default() };
    let blocks = here.blocks.clone();
    let (limits, progress) = (Arc::default(), Arc::default());
    let outcome = send(link, blocks, &inventory(), &mut here, &limits, &progress, wants);
    assert!(matches!(&outcome, Outcome::Stayed(Error::Here(_))), "{outcome:?}");
    here.stop();
}
