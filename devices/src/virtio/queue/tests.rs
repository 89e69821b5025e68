use super::*;
use crate::virtio::testing::{Driver, INDIRECT, NEXT, RAM, WRITE, put_descriptor};
use std::sync::atomic::Ordering;

const ALL: u64 = feature::INDIRECT_DESC | feature::EVENT_IDX;
const PACKED: u64 = feature::RING_PACKED;

fn read_all(chain: &Chain) -> Vec<u8> {
    let mut data = vec![0; chain.readable_len() as usize];
    chain.reader().read_exact(&mut data).unwrap();
    data
}

#[test]
fn a_chain_goes_there_and_back() {
    there_and_back(0);
    there_and_back(PACKED);
}

fn there_and_back(features: u64) {
    let mut driver = Driver::new(8, features);
    let mut queue = driver.queue();
    assert!(queue.pop().unwrap().is_none());
    let id = driver.add(&[b"head", b"er"], &[3, 5]);
    let chain = queue.pop().unwrap().unwrap();
    assert!(queue.pop().unwrap().is_none());
    assert_eq!(chain.id(), id);
    assert_eq!(read_all(&chain), b"header");
    assert_eq!((chain.readable().len(), chain.writable().len()), (2, 2));
    assert_eq!(chain.writable_len(), 8);
    let mut writer = chain.writer();
    writer.write_all(b"abcde").unwrap();
    assert_eq!(writer.write_all(b"more"), Err(Short));
    assert_eq!((writer.written(), writer.remaining()), (5, 3));
    let written = writer.written();
    assert_eq!(driver.used(), None);
    queue.push(chain, written).unwrap();
    assert!(queue.needs_interrupt().unwrap());
    assert!(!queue.needs_interrupt().unwrap());
    let used = driver.used().unwrap();
    assert_eq!((used.id, used.written, &*used.data), (id, 5, &b"abcde"[..]));
    assert_eq!(queue.in_flight(), 0);
}

#[test]
fn the_ring_wraps_and_chains_come_back_in_any_order() {
    around(4, ALL, 70_000);
    around(4, ALL | PACKED, 1000);
    // Of any size: chains begin and end anywhere.
    around(5, ALL | PACKED, 1000);
    around(7, PACKED, 1000);
}

fn around(size: u16, features: u64, rounds: u32) {
    let mut driver = Driver::new(size, features);
    let mut queue = driver.queue();
    for round in 0..rounds {
        let first = driver.add(&[&round.to_le_bytes()], &[]);
        let second = driver.add(&[b"x"], &[1]);
        let a = queue.pop().unwrap().unwrap();
        let b = queue.pop().unwrap().unwrap();
        assert_eq!(read_all(&a), round.to_le_bytes());
        queue.push(b, 0).unwrap();
        queue.push(a, 0).unwrap();
        assert_eq!(driver.used().unwrap().id, second);
        assert_eq!(driver.used().unwrap().id, first);
    }
}

#[test]
fn readers_and_writers_cross_segments() {
    let mut driver = Driver::new(16, 0);
    driver.add(&[b"ab", b"cdef", b"g"], &[1, 2, 4]);
    let mut queue = driver.queue();
    let chain = queue.pop().unwrap().unwrap();
    let mut reader = chain.reader();
    assert_eq!(reader.le16(), Ok(0x6261));
    let mut part = reader.split_to(3).unwrap();
    assert_eq!(part.array(), Ok(*b"cde"));
    assert_eq!(part.u8(), Err(Short));
    assert_eq!(reader.segments().map(|s| s.len).collect::<Vec<_>>(), [1, 1]);
    reader.skip(1);
    assert_eq!((reader.remaining(), reader.u8()), (1, Ok(b'g')));
    assert!(reader.split_to(1).is_err());
    let mut writer = chain.writer();
    let mut first = writer.split_to(6).unwrap();
    assert_eq!(writer.write(b"sXYZ"), 1);
    assert_eq!(first.write(b"123456789"), 6);
    assert_eq!((first.written(), writer.written()), (6, 1));
    queue.push(chain, 7).unwrap();
    assert_eq!(driver.used().unwrap().data, b"123456s");
}

#[test]
fn interrupts_are_suppressed_as_the_driver_wishes() {
    for features in [0, feature::EVENT_IDX, PACKED, PACKED | feature::EVENT_IDX] {
        let mut driver = Driver::new(8, features);
        let mut queue = driver.queue();
        let mut one = |driver: &mut Driver, wanted: bool| {
            driver.want_interrupt(wanted);
            driver.add(&[b"x"], &[]);
            let chain = queue.pop().unwrap().unwrap();
            queue.push(chain, 0).unwrap();
            driver.used().unwrap();
            queue.needs_interrupt().unwrap()
        };
        // The first one is sent in doubt with event indices.
        one(&mut driver, true);
        // More than one lap.
        for _ in 0..10 {
            assert!(!one(&mut driver, false));
            assert!(one(&mut driver, true));
            assert!(one(&mut driver, true));
            assert!(!one(&mut driver, false));
        }
    }
}

#[test]
fn kicks_are_asked_for() {
    for features in [0, feature::EVENT_IDX, PACKED, PACKED | feature::EVENT_IDX] {
        let mut driver = Driver::new(8, features);
        let mut queue = driver.queue();
        queue.disable_notification().unwrap();
        driver.add(&[b"x"], &[]);
        queue.pop().unwrap().unwrap();
        driver.add(&[b"x"], &[]);
        assert!(queue.enable_notification().unwrap(), "one is there");
        queue.pop().unwrap().unwrap();
        assert!(!queue.enable_notification().unwrap());
        driver.add(&[b"x"], &[]);
        assert!(driver.wants_kick());
        queue.disable_notification().unwrap();
        driver.add(&[b"x"], &[]);
        assert!(!driver.wants_kick());
    }
}

#[test]
fn an_indirect_table_may_follow_direct_descriptors() {
    let mut driver = Driver::new(4, ALL);
    let (a, b, c) = (driver.place(b"one"), driver.place(b"two"), driver.room(9));
    let table = driver.room(32);
    put_descriptor(&driver.memory, table, b, 3, NEXT, 1);
    put_descriptor(&driver.memory, table + 16, c, 9, WRITE, 77);
    driver.descriptor(0, a, 3, NEXT, 2);
    driver.descriptor(2, table, 32, INDIRECT, 0);
    driver.offer(0);
    let mut queue = driver.queue();
    let chain = queue.pop().unwrap().unwrap();
    assert_eq!(read_all(&chain), b"onetwo");
    assert_eq!(chain.writable_len(), 9);
}

#[test]
fn a_position_carries_pending_chains() {
    pending_chains(ALL, 8);
    pending_chains(ALL | PACKED, 5);
}

fn pending_chains(features: u64, size: u16) {
    let mut driver = Driver::new(size, features);
    // Not from the beginning of a lap.
    let mut start = Position::default();
    for _ in 0..3 {
        driver.add(&[b"x"], &[]);
        let mut queue = driver.queue_at(start);
        let chain = queue.pop().unwrap().unwrap();
        queue.push(chain, 0).unwrap();
        driver.used().unwrap();
        start = queue.position();
    }
    let mut queue = driver.queue_at(start);
    let ids = [driver.add(&[b"a"], &[]), driver.add(&[b"b"], &[4]), driver.add(&[b"c"], &[])];
    let chains: Vec<_> = (0..3).map(|_| queue.pop().unwrap().unwrap()).collect();
    let [a, b, c] = <[Chain; 3]>::try_from(chains).unwrap();
    queue.push(b, 2).unwrap();
    queue.put_back(a);
    assert_eq!(queue.in_flight(), 1);
    queue.put_back(c);
    assert_eq!(queue.in_flight(), 0);
    let position = queue.position();
    position.check(size, features & PACKED != 0).unwrap();
    drop(queue);
    let mut queue = driver.queue_at(position.clone());
    assert_eq!(queue.position(), position);
    let a = queue.pop().unwrap().unwrap();
    assert_eq!((a.id(), read_all(&a)), (ids[0], b"a".to_vec()));
    let c = queue.pop().unwrap().unwrap();
    assert_eq!(c.id(), ids[2]);
    assert!(queue.pop().unwrap().is_none());
    queue.push(a, 0).unwrap();
    queue.push(c, 0).unwrap();
    let back: Vec<_> = (0..3).map(|_| driver.used().unwrap().id).collect();
    assert_eq!(back, [ids[1], ids[0], ids[2]]);
    assert_eq!(queue.position().pending, []);
}

#[test]
fn positions_that_cannot_be_are_refused() {
    let pending = Pending { id: 1, slots: 1, readable: 1, segments: vec![(0x1000, 4)] };
    let good = Position {
        next_avail: 3,
        next_used: 2,
        pending: vec![pending.clone()],
        ..Position::default()
    };
    good.check(4, false).unwrap();
    let wrong = [
        Position { next_avail: 4, ..good.clone() },
        Position { next_used: 4, ..good.clone() },
        Position { pending: vec![], ..good.clone() },
        Position { pending: vec![Pending { id: 4, ..pending.clone() }], ..good.clone() },
        Position { pending: vec![Pending { slots: 0, ..pending.clone() }], ..good.clone() },
        Position { pending: vec![Pending { readable: 2, ..pending.clone() }], ..good.clone() },
        Position { pending: vec![Pending { segments: vec![], ..pending.clone() }], ..good.clone() },
    ];
    for position in wrong {
        assert!(position.check(4, false).is_err(), "{position:?}");
    }
    // What only guest memory tells is found when the queue goes on.
    let outside = Pending { segments: vec![(RAM - 1, 4)], ..pending };
    let driver = Driver::new(4, 0);
    let mut queue = driver.queue_at(Position { pending: vec![outside], ..good });
    assert_eq!(queue.pop().unwrap_err(), Broken::Memory { address: RAM - 1, len: 4 });
}

/// What a driver does wrong, and what is said about it.
fn broken_by(features: u64, wrong: impl FnOnce(&mut Driver)) -> Broken {
    let mut driver = Driver::new(4, features);
    let mut queue = driver.queue();
    // A good chain first, which can still be completed afterwards.
    driver.add(&[b"good"], &[1]);
    let good = queue.pop().unwrap().unwrap();
    wrong(&mut driver);
    let why = queue.pop().unwrap_err();
    assert!(driver.signals.needs_reset.load(Ordering::SeqCst));
    assert_eq!(*driver.signals.reason.lock(), why.to_string());
    // Latched, even if the driver repents.
    driver.set_avail(1);
    assert_eq!(queue.pop().unwrap_err(), why);
    assert_eq!(queue.enable_notification(), Err(why));
    assert_eq!(queue.broken(), Some(why));
    queue.push(good, 1).unwrap();
    assert_eq!(driver.used().unwrap().written, 1);
    why
}

#[test]
fn a_hostile_driver_breaks_its_queue_and_nothing_else() {
    let index = broken_by(0, |driver| driver.set_avail(6));
    assert_eq!(index, Broken::Index { available: 6, taken: 1 });
    let head = broken_by(0, |driver| driver.offer(4));
    assert_eq!(head, Broken::Descriptor { index: 4, size: 4 });

    let one = |address, len, flags, next| {
        broken_by(0, move |driver| {
            driver.descriptor(0, address, len, flags, next);
            driver.offer(0);
        })
    };
    assert_eq!(one(0x1000, 4, NEXT, 0), Broken::Loop);
    assert_eq!(one(0x1000, 4, NEXT, 4), Broken::Descriptor { index: 4, size: 4 });
    assert_eq!(one(0x1000, 0, 0, 0), Broken::Empty);
    assert_eq!(one(RAM - 2, 3, 0, 0), Broken::Memory { address: RAM - 2, len: 3 });
    assert_eq!(one(RAM, 1, 0, 0), Broken::Memory { address: RAM, len: 1 });
    assert_eq!(one(u64::MAX, 2, WRITE, 0), Broken::Memory { address: u64::MAX, len: 2 });
    assert_eq!(one(0, u32::MAX, 0, 0), Broken::Memory { address: 0, len: u32::MAX });
    assert_eq!(one(0x1000, 16, INDIRECT, 0), Broken::Indirect);
}

#[test]
fn a_buffer_offered_too_often_is_found() {
    let mut driver = Driver::new(4, 0);
    let mut queue = driver.queue();
    driver.descriptor(0, 0x1000, 4, 0, 0);
    let mut taken = Vec::new();
    for _ in 0..4 {
        driver.offer(0);
        taken.push(queue.pop().unwrap().unwrap());
    }
    driver.offer(0);
    assert_eq!(queue.pop().unwrap_err(), Broken::Overrun);
    for chain in taken {
        queue.push(chain, 0).unwrap();
    }
}

#[test]
fn writable_before_readable_is_refused() {
    let order = broken_by(0, |driver| {
        driver.descriptor(0, 0x1000, 4, WRITE | NEXT, 1);
        driver.descriptor(1, 0x1000, 4, 0, 0);
        driver.offer(0);
    });
    assert_eq!(order, Broken::Order);
}

#[test]
fn indirect_tables_are_checked() {
    let table = |address: u64, len: u32, flags: u16, inner: (u16, u16)| {
        broken_by(ALL, move |driver| {
            put_descriptor(&driver.memory, 0x2000, 0x1000, 4, inner.0, inner.1);
            driver.descriptor(0, address, len, INDIRECT | flags, 1);
            driver.offer(0);
        })
    };
    assert_eq!(table(0x2000, 0, 0, (0, 0)), Broken::Indirect);
    assert_eq!(table(0x2000, 17, 0, (0, 0)), Broken::Indirect);
    assert_eq!(table(0x2000, 16, NEXT, (0, 0)), Broken::Indirect);
    assert_eq!(table(0x2000, 16, 0, (INDIRECT, 0)), Broken::Indirect);
    assert_eq!(table(0x2000, 16, 0, (NEXT, 0)), Broken::Loop);
    assert_eq!(table(0x2000, 16, 0, (NEXT, 1)), Broken::Descriptor { index: 1, size: 1 });
    assert_eq!(table(RAM - 16, 32, 0, (0, 0)), Broken::Memory { address: RAM - 16, len: 32 });
}

#[test]
fn long_chains_are_bounded() {
    let chain = |count: u32, len: u32| {
        broken_by(ALL, move |driver| {
            for i in 0..count {
                let at = 0x20_0000 + u64::from(i) * 16;
                put_descriptor(&driver.memory, at, 0, len, NEXT, i as u16 + 1);
            }
            driver.descriptor(0, 0x20_0000, count * 16, INDIRECT, 0);
            driver.offer(0);
        })
    };
    assert_eq!(chain(1100, 1), Broken::Segments);
    assert_eq!(chain(300, RAM as u32), Broken::Length);
}

#[test]
fn rings_that_cannot_be() {
    let driver = Driver::new(4, 0);
    let good = driver.layout;
    let wrong = [
        (Layout { size: 0, ..good }, Broken::Size(0)),
        (Layout { size: 6, ..good }, Broken::Size(6)),
        (Layout { desc: good.desc + 8, ..good }, Broken::Ring(good.desc + 8)),
        (Layout { driver: RAM - 8, ..good }, Broken::Ring(RAM - 8)),
        (Layout { device: u64::MAX - 3, ..good }, Broken::Ring(u64::MAX - 3)),
    ];
    for (layout, why) in wrong {
        let mut queue = Queue::new(driver.memory.clone(), layout, 0, Position::default(), None);
        assert_eq!(queue.pop().unwrap_err(), why);
        assert_eq!(queue.disable_notification(), Err(why));
    }
}

#[test]
fn packed_positions_are_checked() {
    let pending = Pending { id: 9, slots: 2, readable: 1, segments: vec![(0, 1), (9, 1)] };
    // From the last slot over the end of the lap.
    let good = Position {
        next_avail: 1,
        next_used: 4,
        avail_flipped: true,
        pending: vec![pending],
        ..Position::default()
    };
    good.check(5, true).unwrap();
    let wrong = [
        Position { next_avail: 5, ..good.clone() },
        Position { next_used: 5, ..good.clone() },
        Position { avail_flipped: false, ..good.clone() },
        Position { used_flipped: true, ..good.clone() },
        Position { pending: vec![], ..good.clone() },
        Position { next_avail: 4, next_used: 1, pending: vec![], ..good.clone() },
    ];
    for position in wrong {
        assert!(position.check(5, true).is_err(), "{position:?}");
    }
}

#[test]
fn packed_chains_in_tables() {
    let mut driver = Driver::new(4, ALL | PACKED);
    let (a, b) = (driver.place(b"one"), driver.room(9));
    let table = driver.room(32);
    // The flags of a table say only what is writable; nothing is linked.
    put_descriptor(&driver.memory, table, a, 3, 0, 0);
    put_descriptor(&driver.memory, table + 16, b, 9, 0, WRITE);
    driver.put_packed(table, 32, 77, INDIRECT);
    let mut queue = driver.queue();
    let chain = queue.pop().unwrap().unwrap();
    assert_eq!((chain.id(), read_all(&chain), chain.writable_len()), (77, b"one".to_vec(), 9));
    assert_eq!(queue.in_flight(), 1);
}

#[test]
fn several_packed_chains_are_shown_at_once() {
    let mut driver = Driver::new(4, PACKED);
    let mut queue = driver.queue();
    let ids = [driver.add(&[], &[1]), driver.add(&[], &[1]), driver.add(&[], &[1])];
    for _ in ids {
        let chain = queue.pop().unwrap().unwrap();
        queue.add(chain, 1).unwrap();
        assert_eq!(driver.used(), None);
    }
    queue.publish().unwrap();
    assert_eq!(ids.map(|_| driver.used().unwrap().id), ids);
}

#[test]
fn a_hostile_driver_of_a_packed_ring() {
    let broken = |wrong: &dyn Fn(&mut Driver)| {
        let mut driver = Driver::new(4, ALL | PACKED);
        let mut queue = driver.queue();
        driver.add(&[b"good"], &[1]);
        let good = queue.pop().unwrap().unwrap();
        wrong(&mut driver);
        let why = queue.pop().unwrap_err();
        assert_eq!(queue.pop().unwrap_err(), why);
        assert!(driver.signals.needs_reset.load(Ordering::SeqCst));
        queue.push(good, 1).unwrap();
        assert_eq!(driver.used().unwrap().written, 1);
        why
    };
    let chain = broken(&|driver| (0..3).for_each(|_| driver.put_packed(0x1000, 1, 0, NEXT)));
    assert_eq!(chain, Broken::Loop);
    let empty = broken(&|driver| driver.put_packed(0x1000, 0, 0, 0));
    assert_eq!(empty, Broken::Empty);
    let outside = broken(&|driver| driver.put_packed(RAM - 1, 2, 0, WRITE));
    assert_eq!(outside, Broken::Memory { address: RAM - 1, len: 2 });
    let nested = broken(&|driver| {
        put_descriptor(&driver.memory, 0x2000, 0x1000, 4, 0, INDIRECT);
        driver.put_packed(0x2000, 16, 0, INDIRECT);
    });
    assert_eq!(nested, Broken::Indirect);
    let linked = broken(&|driver| driver.put_packed(0x2000, 16, 0, INDIRECT | NEXT));
    assert_eq!(linked, Broken::Indirect);
    let late = broken(&|driver| {
        driver.put_packed(0x2000, 16, 0, NEXT);
        driver.put_packed(0x2000, 16, 0, INDIRECT);
    });
    assert_eq!(late, Broken::Indirect);
    let order = broken(&|driver| {
        driver.put_packed(0x2000, 16, 0, WRITE | NEXT);
        driver.put_packed(0x2000, 16, 0, 0);
    });
    assert_eq!(order, Broken::Order);
    let long = broken(&|driver| driver.put_packed(0x10_0000, 16 * 1100, 0, INDIRECT));
    assert_eq!(long, Broken::Empty);
}
