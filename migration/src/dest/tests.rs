//! Streams by hand: sources that do what none of ours does.

use std::io::Read;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};

use resources::ram::{PAGE, Ram, RamBackend, RamBlock, RamConfig};

use super::*;
use crate::blocks::Chunk;
use crate::link::Stored;
use crate::needs::Announcement;
use crate::postcopy::missing::Missing;
use crate::stream::Writer;
use crate::testing::{channel, inventory, skips_postcopy};

/// A page follows, with the name of its block.
const PAGE_OF: u64 = 8;
const END_OF_PART: u64 = 0x10;

/// A disk that notes whether what was written is durable.
struct Disk(Arc<AtomicBool>);

impl Sink for Disk {
    fn name(&self) -> &str {
        "d"
    }
    fn size(&self) -> u64 {
        1 << 20
    }
    fn write(&mut self, _: &Chunk<'_>) -> std::io::Result<()> {
        Ok(())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.0.store(true, SeqCst);
        Ok(())
    }
}

#[derive(Default)]
struct There {
    begun: bool,
    taken: bool,
    durable: Arc<AtomicBool>,
    /// A page that loading waits for.
    touches: Option<Arc<RamBlock>>,
}

impl Target for There {
    fn begun(&mut self) {
        self.begun = true;
    }
    fn disks(&mut self) -> Result<Vec<Box<dyn Sink>>, String> {
        Ok(vec![Box::new(Disk(self.durable.clone()))])
    }
    fn load(&mut self, _: Vec<Section>) -> Result<(), String> {
        if let Some(ram) = &self.touches {
            ram.read(PAGE, &mut [0]);
        }
        Ok(())
    }
    fn take(&mut self) -> Result<(), String> {
        self.taken = true;
        Ok(())
    }
}

fn memory() -> (Vec<Block>, Arc<RamBlock>) {
    let ram = RamBlock::anonymous(4 * PAGE).unwrap();
    (0..4).for_each(|page| ram.write(page * PAGE, b"here"));
    (vec![Block { name: "ram".to_owned(), ram: ram.clone() }], ram)
}

/// How far a stream by hand goes.
struct Hand<W> {
    to: Writer<W>,
}

impl<W: Write> Hand<W> {
    fn begin(to: W, answers: bool, needs: &Needs) -> Hand<W> {
        let mut to = Writer::new(to);
        to.begin("pc").unwrap();
        if answers {
            to.command(command::OPEN_RETURN_PATH, &[]).unwrap();
        }
        let mut hand = Hand { to };
        hand.inventory(needs);
        hand
    }

    fn inventory(&mut self, needs: &Needs) {
        let disks = [("d".to_owned(), 1 << 20)].into();
        let bytes = Inventory { disks, ..inventory() }.to_bytes(needs).unwrap();
        self.full(inventory::NAME, &bytes);
    }

    fn full(&mut self, name: &str, bytes: &[u8]) {
        self.to.section(kind::FULL, 1, name, 1).unwrap();
        self.to.blob(bytes).unwrap();
        self.to.footer(1).unwrap();
        self.to.flush().unwrap();
    }

    /// The list of memory.
    fn memory(&mut self) {
        self.to.section(kind::START, 2, ram::NAME, ram::VERSION).unwrap();
        ram::Sender::new(memory().0).start(&mut self.to).unwrap();
        self.to.footer(2).unwrap();
        self.to.flush().unwrap();
    }

    fn page(&mut self) {
        self.to.u64(PAGE | PAGE_OF).unwrap();
        self.to.name("ram").unwrap();
        self.to.bytes(&[7; PAGE as usize]).unwrap();
        self.to.u64(END_OF_PART).unwrap();
    }

    /// All memory comes late.
    fn missing(&mut self) {
        self.to.section(kind::FULL, 3, crate::postcopy::NAME, crate::postcopy::VERSION).unwrap();
        Missing::of_small(&[15], 4 * PAGE, PAGE).write(&mut self.to).unwrap();
        self.to.footer(3).unwrap();
        self.to.flush().unwrap();
    }

    fn end(&mut self) {
        self.full("cpu", &Blob::new(1, &7u32).unwrap().to_bytes().unwrap());
        self.to.u8(kind::EOF).unwrap();
        self.to.u8(kind::DESCRIPTION).unwrap();
        self.to.blob(b"{}").unwrap();
        self.to.flush().unwrap();
    }
}

type Receiving = JoinHandle<(Result<(), Error>, There)>;

fn here() -> Inventory {
    Inventory { disks: [("d".to_owned(), 1 << 20)].into(), ..inventory() }
}

/// A destination that receives what a hand sends.
fn receiving(needs: &Needs, mut there: There) -> (UnixStream, Hand<UnixStream>, Receiving) {
    let (blocks, ram) = memory();
    if there.touches.is_some() {
        there.touches = Some(ram);
    }
    receiving_into(blocks, needs, there)
}

fn receiving_into(
    blocks: Vec<Block>,
    needs: &Needs,
    mut there: There,
) -> (UnixStream, Hand<UnixStream>, Receiving) {
    let (a, b) = UnixStream::pair().unwrap();
    let receiver = thread::spawn(move || {
        let received = receive(channel(b), blocks, &here(), &mut there);
        (received, there)
    });
    let hand = Hand::begin(a.try_clone().unwrap(), true, needs);
    (a, hand, receiver)
}

fn hear(from: &mut UnixStream, number: u16) -> Vec<u8> {
    let mut head = [0; 4];
    from.read_exact(&mut head).unwrap();
    let [a, b, c, d] = head;
    let mut data = vec![0; u16::from_be_bytes([c, d]).into()];
    from.read_exact(&mut data).unwrap();
    let text = String::from_utf8_lossy(&data).into_owned();
    assert_eq!(u16::from_be_bytes([a, b]), number, "{text}");
    data
}

fn refusal(receiver: Receiving) -> String {
    let (received, there) = receiver.join().unwrap();
    assert!(!there.taken);
    received.unwrap_err().to_string()
}

/// A stream that goes one way, as one in a snapshot of a disk.
fn stored(build: impl FnOnce(&mut Hand<Vec<u8>>), answers: bool) -> (String, There, Arc<RamBlock>) {
    let mut hand = Hand::begin(Vec::new(), answers, &Needs::default());
    build(&mut hand);
    hand.to.flush().unwrap();
    let bytes = std::mem::take(hand.to.channel());
    let ((blocks, ram), mut there) = (memory(), There::default());
    let received = receive(Stored(&bytes[..]), blocks, &here(), &mut there);
    (received.unwrap_err().to_string(), there, ram)
}

fn unchanged(ram: &RamBlock) -> bool {
    (0..4).all(|page| {
        let mut bytes = [0; 4];
        ram.read(page * PAGE, &mut bytes);
        &bytes == b"here"
    })
}

#[test]
fn memory_changes_only_after_it_was_told_that_it_does() {
    let (error, there, ram) = stored(
        |hand| {
            hand.to.section(kind::START, 2, ram::NAME, ram::VERSION).unwrap();
            hand.to.u64(4 * PAGE + 4).unwrap();
            hand.to.name("ram").unwrap();
            hand.to.u64(4 * PAGE).unwrap();
            hand.page();
        },
        false,
    );
    assert_eq!(error, "pages come with the list of memory");
    assert!(!there.begun && unchanged(&ram));
    let (error, there, ram) = stored(
        |hand| {
            hand.to.section(kind::START, 2, ram::NAME, ram::VERSION).unwrap();
            hand.page();
        },
        false,
    );
    assert_eq!(error, "the section of memory does not start with its list");
    assert!(!there.begun && unchanged(&ram));
}

#[test]
fn what_goes_one_way_is_not_answered() {
    let (error, there, ram) =
        stored(|hand| hand.to.command(command::POSTCOPY_ADVISE, &[]).unwrap(), true);
    assert_eq!(error, "the source wants answers, which cannot go this way");
    assert!(!there.begun && unchanged(&ram));
}

#[test]
fn disks_are_durable_before_the_guest_stops() {
    let (mut from, mut hand, receiver) = receiving(&Needs::default(), There::default());
    hand.to.section(kind::START, 5, blocks::NAME, blocks::VERSION).unwrap();
    let mut sender = blocks::Sender::new(Vec::new(), false);
    sender.end_part(&mut hand.to).unwrap();
    hand.to.footer(5).unwrap();
    hand.to.command(command::PING, &[0, 0, 0, 1]).unwrap();
    hear(&mut from, answer::PONG);
    from.shutdown(Shutdown::Both).unwrap();
    let (received, there) = receiver.join().unwrap();
    received.unwrap_err();
    assert!(there.durable.load(SeqCst));
}

#[test]
fn a_source_that_never_says_go_is_given_up() {
    let (mut from, mut hand, receiver) = receiving(&Needs::default(), There::default());
    hand.memory();
    hand.end();
    hear(&mut from, answer::LOADED);
    hand.to.command(command::TAKE, &[]).unwrap();
    hear(&mut from, answer::READY);
    let (received, there) = receiver.join().unwrap();
    assert_eq!(received.unwrap_err().to_string(), "the other side of the migration took too long");
    assert!(there.taken);
}

#[test]
fn memory_that_comes_late_comes_in_no_other_way() {
    if skips_postcopy() {
        return;
    }
    let early: [fn(&mut Hand<UnixStream>); 2] = [Hand::memory, |_| {}];
    for memory in early {
        let (mut from, mut hand, receiver) = receiving(&Needs::default(), There::default());
        hand.to.command(command::POSTCOPY_ADVISE, &[]).unwrap();
        hear(&mut from, answer::LATE);
        memory(&mut hand);
        hand.missing();
        hand.to.u8(kind::PART).unwrap();
        hand.to.u32(2).unwrap();
        hand.page();
        hand.to.flush().unwrap();
        assert_eq!(refusal(receiver), "memory comes that was to come late");
    }
    // Nor is it tried with memory that is there, or by others than this thread.
    let (_from, mut hand, receiver) = receiving(&Needs::default(), There::default());
    hand.memory();
    hand.to.command(command::POSTCOPY_ADVISE, &[]).unwrap();
    assert_eq!(refusal(receiver), "post-copy cannot be agreed on here");
    let (mut from, mut hand, receiver) = receiving(&Needs::default(), There::default());
    hand.to.command(command::POSTCOPY_ADVISE, &[]).unwrap();
    hear(&mut from, answer::LATE);
    let channels = Some(Announcement::new(1).unwrap());
    hand.inventory(&Needs { channels, ..Needs::default() });
    assert_eq!(refusal(receiver), "the inventory comes twice");
}

#[test]
fn who_waits_for_a_page_that_does_not_come_goes_on() {
    if skips_postcopy() {
        return;
    }
    let touches = Some(memory().1);
    let there = There { touches, ..There::default() };
    let (mut from, mut hand, receiver) = receiving(&Needs::default(), there);
    hand.to.command(command::POSTCOPY_ADVISE, &[]).unwrap();
    hear(&mut from, answer::LATE);
    hand.memory();
    hand.missing();
    hand.end();
    assert_eq!(hear(&mut from, answer::REQUEST)[1..], PAGE.to_be_bytes());
    // Others come instead, for ever.
    for step in 0_u64.. {
        hand.to.u8(kind::LATE).unwrap();
        hand.to.u8(0).unwrap();
        hand.to.u64([0, 2, 3][step as usize % 3] * PAGE).unwrap();
        hand.to.u8(crate::postcopy::form::ZERO).unwrap();
        if hand.to.flush().is_err() || receiver.is_finished() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(refusal(receiver), "the other side of the migration took too long");
}

#[test]
fn a_page_that_was_made_up_meanwhile_is_not_taken_for_the_one_that_comes() {
    if skips_postcopy() {
        return;
    }
    let backend = RamBackend::Memfd(None);
    let config = RamConfig { size: 4 * PAGE, backend, share: true, ..RamConfig::default() };
    let ram = Ram::new(&config).unwrap().ranges()[0].block.clone();
    let blocks = vec![Block { name: "ram".to_owned(), ram: ram.clone() }];
    let (mut from, mut hand, receiver) =
        receiving_into(blocks, &Needs::default(), There::default());
    hand.to.command(command::POSTCOPY_ADVISE, &[]).unwrap();
    hear(&mut from, answer::LATE);
    hand.memory();
    hand.missing();
    hand.end();
    hear(&mut from, answer::LOADED);
    // By the file it can be written, for which nobody waits.
    let file = ram.region().file_offset().unwrap().file();
    rustix::io::pwrite(file, b"made up", PAGE).unwrap();
    for page in [2, 1] {
        hand.to.u8(kind::LATE).unwrap();
        hand.to.u8(0).unwrap();
        hand.to.u64(page * PAGE).unwrap();
        hand.to.u8(crate::postcopy::form::BYTES).unwrap();
        hand.to.bytes(&[7; PAGE as usize]).unwrap();
    }
    hand.to.flush().unwrap();
    assert_eq!(refusal(receiver), "memory 'ram' holds a page that has not come yet");
}
