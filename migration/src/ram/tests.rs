#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use proptest::prelude::*;

fn block(name: &str, pages: u64) -> Block {
    Block { name: name.to_owned(), ram: RamBlock::anonymous(pages * PAGE).unwrap() }
}

fn two() -> Vec<Block> {
    vec![block("pc.ram", 70), block("pc.ram.high", 3)]
}

fn send_all(sender: &mut Sender, to: &mut Writer<Vec<u8>>) -> Tally {
    let mut all = Tally::default();
    while let Some(sent) = sender.send(to).unwrap() {
        all.add(sent);
    }
    sender.end_part(to).unwrap();
    all
}

fn take(to: &mut Writer<Vec<u8>>) -> Vec<u8> {
    to.flush().unwrap();
    std::mem::take(to.channel())
}

#[test]
fn memory_arrives_and_what_is_written_later_too() {
    let (here, there) = (two(), two());
    here[0].ram.write(69 * PAGE, b"last");
    here[1].ram.write(0, b"high");
    there[0].ram.write(5 * PAGE, b"old");
    let mut to = Writer::new(Vec::new());
    let mut sender = Sender::new(here.clone());
    assert_eq!((sender.dirty(), sender.total()), (73, 73 * PAGE));
    sender.collect();
    sender.start(&mut to).unwrap();
    let sent = send_all(&mut sender, &mut to);
    assert_eq!((sent, sender.dirty()), (Tally { zero: 71, normal: 2 }, 0));
    here[0].ram.write(64 * PAGE - 1, b"xy");
    assert_eq!((sender.collect(), sender.dirty()), (2, 2));
    assert_eq!(send_all(&mut sender, &mut to), Tally { zero: 0, normal: 2 });
    let bytes = take(&mut to);
    let mut receiver = Receiver::new(there.clone());
    let mut from = Reader::new(&bytes[..]);
    (0..3).for_each(|_| receiver.part(&mut from).unwrap());
    for (here, there) in here.iter().zip(&there) {
        let (mut a, mut b) =
            (vec![0; here.ram.size() as usize], vec![1; there.ram.size() as usize]);
        here.ram.read(0, &mut a);
        there.ram.read(0, &mut b);
        assert!(a == b, "{}", here.name);
    }
}

#[test]
fn memory_is_watched_before_it_is_read_and_again_after_each_collection() {
    let here = vec![block("a", 2 * CHUNK + 1), block("b", 1)];
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let mut sender = Sender::new(here.clone());
    let (log, blocks) = (seen.clone(), here.clone());
    sender.watch_by(Box::new(move |ram, offset, _| {
        let index = blocks.iter().position(|block| std::ptr::eq(&*block.ram, ram)).unwrap();
        log.lock().push((index, offset / PAGE));
        // It is read afterwards.
        ram.write(offset, b"watched");
        Ok(())
    }));
    let mut to = Writer::new(Vec::new());
    sender.start(&mut to).unwrap();
    send_all(&mut sender, &mut to);
    let chunks = [(0, 0), (0, CHUNK), (0, 2 * CHUNK), (1, 0)];
    assert_eq!(std::mem::take(&mut *seen.lock()), chunks);
    let text = take(&mut to);
    assert_eq!(text.windows(7).filter(|text| text == b"watched").count(), 4);
    assert_eq!(sender.collect(), 4);
    here[0].ram.write(5 * PAGE, b"x");
    sender.collect();
    send_all(&mut sender, &mut to);
    assert_eq!(std::mem::take(&mut *seen.lock()), chunks);
    sender.watch_by(Box::new(|_, _, _| Err("gone".to_owned())));
    here[1].ram.write(0, b"x");
    sender.collect();
    assert!(matches!(sender.send(&mut to), Err(Error::Here(text)) if text == "gone"));
}

#[test]
fn differences_arrive_and_are_short() {
    let (here, there) = (block("ram", 4), block("ram", 4));
    let mut to = Writer::new(Vec::new());
    let mut sender = Sender::new(vec![here.clone()]);
    sender.send_deltas(xbzrle::Sender::new(1 << 16).unwrap());
    sender.collect();
    sender.start(&mut to).unwrap();
    let mut parts = 2;
    send_all(&mut sender, &mut to);
    let mut long = 0;
    for round in 1..6u8 {
        here.ram.write(PAGE + 100 * u64::from(round), &[round; 10]);
        here.ram.write(2 * PAGE, &[round % 2; 4]);
        sender.collect();
        let before = to.written();
        send_all(&mut sender, &mut to);
        parts += 1;
        long += usize::from(to.written() - before > PAGE);
    }
    // Once each page is sent whole, so that it is known; then what has changed.
    assert_eq!(long, 1);
    assert!(sender.deltas().unwrap().stats().pages > 4);
    let bytes = take(&mut to);
    let mut receiver = Receiver::new(vec![there.clone()]);
    let mut from = Reader::new(&bytes[..]);
    (0..parts).for_each(|_| receiver.part(&mut from).unwrap());
    let (mut a, mut b) = (vec![0; 4 << 12], vec![1; 4 << 12]);
    here.ram.read(0, &mut a);
    there.ram.read(0, &mut b);
    assert!(a == b);
}

#[test]
fn other_memory_is_refused_with_its_name() {
    let refuse = |here: Vec<Block>, there: Vec<Block>| {
        let mut to = Writer::new(Vec::new());
        let mut sender = Sender::new(here);
        sender.start(&mut to).unwrap();
        let bytes = take(&mut to);
        Receiver::new(there).part(&mut Reader::new(&bytes[..])).unwrap_err().to_string()
    };
    let error = refuse(vec![block("a", 2)], vec![block("a", 1)]);
    assert_eq!(error, "Length mismatch: a: 2000 in != 1000");
    let error = refuse(vec![block("a", 1)], vec![block("b", 1)]);
    assert_eq!(error, "Unknown ramblock \"a\", cannot accept migration");
    let error = refuse(vec![block("a", 1)], vec![block("a", 1), block("b", 1)]);
    assert_eq!(error, "memory 'b' of this machine is not in the stream");
    let error = refuse(vec![block("a", 1), block("a", 1)], vec![block("a", 1)]);
    assert_eq!(error, "memory 'a' is listed twice");
}

#[test]
fn records_that_fit_nowhere_are_refused() {
    let list = || {
        let mut to = Writer::new(Vec::new());
        Sender::new(vec![block("a", 1)]).start(&mut to).unwrap();
        to
    };
    let refuse = |mut to: Writer<Vec<u8>>| {
        to.flush().unwrap();
        let bytes = take(&mut to);
        let mut receiver = Receiver::new(vec![block("a", 1)]);
        let mut from = Reader::new(&bytes[..]);
        let first = receiver.part(&mut from);
        first.and_then(|()| receiver.part(&mut from)).unwrap_err().to_string()
    };
    let mut to = list();
    to.u64(PAGE | 0x08).unwrap();
    to.name("a").unwrap();
    assert_eq!(refuse(to), "a page at 0x1000 is past the end of 'a'");
    let mut to = list();
    to.u64(0x08 | 0x20).unwrap();
    assert_eq!(refuse(to), "Ack, bad migration stream!");
    let mut to = list();
    to.u64(0x08).unwrap();
    to.name("b").unwrap();
    assert_eq!(refuse(to), "Can't find block b!");
    let mut to = list();
    to.u64(0x80).unwrap();
    assert_eq!(refuse(to), "Unknown combination of migration flags: 0x80");
    let mut to = Writer::new(Vec::new());
    to.u64(0x08).unwrap();
    assert_eq!(refuse(to), "pages come before the list of memory");
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let mut to = Writer::new(Vec::new());
        Sender::new(vec![block("a", 1)]).start(&mut to).unwrap();
        to.bytes(&bytes).unwrap();
        let bytes = take(&mut to);
        let mut receiver = Receiver::new(vec![block("a", 1)]);
        let mut from = Reader::new(&bytes[..]);
        receiver.part(&mut from).unwrap();
        while receiver.part(&mut from).is_ok() {}
    }
}
