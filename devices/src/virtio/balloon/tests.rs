use super::shared::PAGE;
use super::*;
use crate::testing::Requested;
use crate::virtio::feature;
use crate::virtio::testing::{Machine, RAM, common};
use resources::iol::Thread;
use resources::request::{Request, Requests};
use vm_memory::bitmap::Bitmap;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

const ALL: u64 = bit::STATS | bit::DEFLATE_ON_OOM | bit::HINT | bit::POISON | bit::REPORTING;

struct Rig {
    machine: Machine,
    balloon: Arc<Balloon>,
    requests: Arc<Requested>,
    on: Handle,
    _thread: Thread,
}

fn device(on: &Handle, requests: Requests) -> Box<VirtioBalloon> {
    let config = resources::ram::RamConfig { size: RAM, ..Default::default() };
    let ram = resources::ram::Ram::new(&config).unwrap();
    let balloon = Balloon::new(ram.memory(), requests);
    let slot = Arc::new(Slot::default());
    assert!(slot.claim(&balloon));
    Box::new(VirtioBalloon { balloon, offered: ALL, on: on.clone(), slot, running: None })
}

impl Rig {
    fn new() -> Rig {
        let (thread, on) = Thread::spawn("test").unwrap();
        let requests = Arc::new(Requested::default());
        let device = device(&on, requests.clone());
        let balloon = device.balloon.clone();
        Rig { machine: Machine::new(device), balloon, requests, on, _thread: thread }
    }

    fn fill(&self, page: u64) {
        let memory = &self.machine.drivers[0].memory;
        memory.write_slice(&[0xee; PAGE as usize], GuestAddress(page * PAGE)).unwrap();
    }

    fn byte(&self, page: u64) -> u8 {
        let memory = &self.machine.drivers[0].memory;
        memory.read_obj(GuestAddress(page * PAGE + 77)).unwrap()
    }

    fn live(&mut self, name: &str) -> Value {
        self.machine.transport.device().live_value(name).unwrap()
    }

    fn poll(&mut self, seconds: i64) -> Result<(), String> {
        let device = self.machine.transport.device_mut();
        device.set_live("guest-stats-polling-interval", &Value::Int(seconds))
    }
}

fn numbers(pages: &[u32]) -> Vec<u8> {
    pages.iter().flat_map(|page| page.to_le_bytes()).collect()
}

#[test]
fn queues_are_numbered_by_what_was_accepted() {
    use Role::{Deflate, Hint, Inflate, Reporting, Stats};
    assert_eq!(roles(0), [Inflate, Deflate]);
    assert_eq!(roles(ALL), [Inflate, Deflate, Stats, Hint, Reporting]);
    assert_eq!(roles(bit::REPORTING | bit::STATS), [Inflate, Deflate, Stats, Reporting]);
}

#[test]
fn pages_go_back_to_the_host_and_count_as_written() {
    let mut rig = Rig::new();
    rig.machine.ready(ALL);
    (0x900..0x910).for_each(|page| rig.fill(page));
    let memory = rig.machine.drivers[0].memory.clone();
    let region = memory.find_region(GuestAddress(0)).unwrap();
    region.get_mmap().bitmap().reset();
    // Not in order, twice, and where no RAM is.
    let pages = numbers(&[0x905, 0x903, 0x904, 0x903, 0x90a, 0xffff_ffff, (RAM / PAGE) as u32]);
    rig.machine.request(0, &[&pages], &[]);
    let gone: Vec<u64> = (0x900..0x910).filter(|page| rig.byte(*page) == 0).collect();
    assert_eq!(gone, [0x903, 0x904, 0x905, 0x90a]);
    let dirty: Vec<u64> =
        (0x900..0x910).filter(|page| region.bitmap().dirty_at((page * PAGE) as usize)).collect();
    assert_eq!(dirty, gone);
    // Out again: nothing to be done, and it can be used.
    rig.machine.request(1, &[&numbers(&[0x903])], &[]);
    rig.fill(0x903);
    assert_eq!(rig.byte(0x903), 0xee);
    // A piece of a number, and none.
    rig.machine.request(0, &[&[3]], &[]);
    rig.machine.request(0, &[], &[4]);
}

#[test]
fn the_driver_is_told_a_target_and_tells_how_far_it_is() {
    let mut rig = Rig::new();
    rig.machine.ready(0);
    rig.balloon.set_target(RAM - 100 * PAGE);
    assert_eq!(*rig.machine.wires.sent.lock(), [0]);
    assert_eq!(u32::from_le_bytes(rig.machine.config(0)), 100);
    rig.machine.transport.write_config(4, &60_u32.to_le_bytes());
    assert_eq!(rig.balloon.actual(), RAM - 60 * PAGE);
    rig.machine.transport.write_config(4, &60_u32.to_le_bytes());
    assert_eq!(rig.requests.take(), [Request::BalloonChange(RAM - 60 * PAGE)]);
    // What cannot be is told as nothing.
    rig.machine.transport.write_config(4, &[0xff; 4]);
    assert_eq!(rig.balloon.actual(), 0);
    // More than there is means all; the guest's word is its own.
    rig.balloon.set_target(u64::MAX);
    assert_eq!(u32::from_le_bytes(rig.machine.config(0)), 0);
    rig.machine.transport.reset();
    assert_eq!(rig.balloon.actual(), RAM);
}

#[test]
fn writes_of_other_sizes_and_places_change_nothing() {
    let mut rig = Rig::new();
    rig.machine.ready(ALL);
    for offset in 0..20 {
        for len in [1, 2, 3, 5, 8, 16] {
            rig.machine.transport.write_config(offset, &vec![0xff; len]);
        }
    }
    rig.machine.transport.write_config(0, &[0xff; 4]);
    rig.machine.transport.write_config(8, &[0xff; 4]);
    assert_eq!(rig.machine.config(0), [0_u8; 8]);
    assert_eq!(rig.machine.config(8), [1, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn statistics_are_asked_for_and_told() {
    let mut rig = Rig::new();
    rig.machine.ready(ALL);
    let Value::Struct(none) = rig.live("guest-stats") else { unreachable!() };
    assert_eq!(none[0], ("last-update", Value::Uint(0)));
    let told = |tag: u16, value: u64| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat();
    let first = [told(4, 1000), told(99, 5), told(5, 2000)].concat();
    rig.machine.drivers[2].send(&[&first], &[]);
    // Nobody asks: the device keeps the buffer, also while it moves.
    let device = device(&rig.on, rig.requests.clone());
    rig.balloon = device.balloon.clone();
    rig.machine = rig.machine.move_to(device);
    assert!(rig.machine.drivers[2].used().is_none());
    assert!(rig.poll(-1).is_err());
    assert!(rig.poll(1 << 40).is_err());
    rig.poll(3600).unwrap();
    rig.machine.wait_used(2);
    rig.machine.drivers[2].send(&[&told(4, 3000)], &[]);
    let stat = |rig: &mut Rig, name: &str| {
        let Value::Struct(all) = rig.live("guest-stats") else { unreachable!() };
        let Value::Struct(stats) = &all[1].1 else { unreachable!() };
        stats.iter().find(|stat| stat.0 == name).unwrap().1.clone()
    };
    let wires = rig.machine.wires.clone();
    wires.wait(|| (stat(&mut rig, "stat-free-memory") == Value::Int(3000)).then_some(()));
    assert_eq!(stat(&mut rig, "stat-total-memory"), Value::Int(-1));
    assert_eq!(rig.live("guest-stats-polling-interval"), Value::Int(3600));
    // A new interval is a new question only if the old one had passed.
    rig.poll(0).unwrap();
    rig.poll(7).unwrap();
    rig.machine.wait_used(2);
}

#[test]
fn free_pages_are_given_back_unless_they_must_hold_something() {
    let mut rig = Rig::new();
    rig.machine.ready(ALL);
    // The buffers are of the driver's choosing: whole pages of RAM.
    let report = |rig: &mut Rig| {
        let driver = &mut rig.machine.drivers[4];
        let at = driver.room(2 * PAGE as u32).next_multiple_of(PAGE);
        driver.memory.write_slice(&[0xee; PAGE as usize], GuestAddress(at)).unwrap();
        driver.send_raw(at, PAGE as u32);
        rig.machine.wait_used(4);
        rig.byte(at / PAGE)
    };
    assert_eq!(report(&mut rig), 0);
    rig.machine.transport.write_config(12, &[0xaa; 4]);
    assert_eq!(report(&mut rig), 0xee);
}

#[test]
fn pages_are_named_that_need_not_be_moved() {
    let mut rig = Rig::new();
    rig.balloon.begin_hints();
    assert_eq!(rig.machine.config(8), 1_u32.to_le_bytes(), "without a driver");
    rig.machine.ready(ALL | feature::RING_PACKED);
    let name = |rig: &mut Rig| {
        let driver = &mut rig.machine.drivers[3];
        let at = driver.room(2 * PAGE as u32).next_multiple_of(PAGE);
        driver.send_raw(at, PAGE as u32);
        rig.machine.wait_used(3);
        (at, PAGE)
    };
    // Nobody has asked.
    assert_eq!(rig.machine.request(3, &[&[1, 0, 0, 0]], &[]).written, 0);
    name(&mut rig);
    assert!(rig.balloon.take_hints().is_empty());
    rig.machine.wires.sent.lock().clear();
    rig.balloon.begin_hints();
    assert_eq!(*rig.machine.wires.sent.lock(), [0]);
    let id = rig.machine.config::<4>(8);
    assert!(u32::from_le_bytes(id) > 1);
    rig.machine.request(3, &[&id], &[]);
    let first = name(&mut rig);
    assert_eq!(rig.balloon.take_hints(), [first]);
    let second = name(&mut rig);
    assert_eq!(rig.balloon.end_hints(false), [second]);
    assert_eq!(rig.machine.config(8), [0; 4]);
    name(&mut rig);
    assert!(rig.balloon.end_hints(true).is_empty());
    assert_eq!(rig.machine.config(8), [1, 0, 0, 0]);
    // A driver that cannot is not asked.
    rig.machine.transport.reset();
    rig.machine.ready(ALL & !bit::HINT);
    rig.balloon.begin_hints();
    assert_eq!(rig.machine.config(8), [1, 0, 0, 0]);
}

#[test]
fn the_place_is_for_one_and_free_when_it_has_gone() {
    let slot = Slot::default();
    let memory = crate::virtio::testing::memory();
    let new = || Balloon::new(&memory, Arc::new(resources::request::Nobody));
    let (first, second) = (new(), new());
    assert!(slot.claim(&first));
    assert!(!slot.claim(&second));
    slot.release(&second);
    assert!(slot.get().is_some());
    slot.release(&first);
    assert!(slot.get().is_none() && slot.claim(&second));
    drop(second);
    assert!(slot.claim(&first));
}

#[test]
fn a_broken_queue_leaves_the_others_alive() {
    let mut rig = Rig::new();
    rig.machine.ready(ALL);
    rig.machine.drivers[0].offer(0x7777);
    rig.machine.drivers[0].kick();
    rig.machine.wait_needs_reset();
    rig.machine.request(1, &[b"1234"], &[]);
    rig.machine.write(common::STATUS, 1, 0);
    rig.machine.ready(ALL);
    rig.machine.request(0, &[&numbers(&[0x900])], &[]);
}
