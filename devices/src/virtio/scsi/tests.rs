//! The adapter with a disk and a CD drive, through the driver's side of its queues.

use std::sync::atomic::{AtomicI32, Ordering};

use block::{Drive, Node, OnError, Policy, Spec};
use resources::iol::{IoBuf, Thread};
use resources::request::Request;

use super::*;
use crate::scsi::{Adapter, Identity, Kind as UnitKind, Place, ScsiDrive, Sense};
use crate::testing::Requested;
use crate::virtio::blk::tests::{Faulty, SIZE};
use crate::virtio::testing::{Machine, Used};

mod tasks;

const DISK: Place = Place { target: 0, lun: 0 };
const CD: Place = Place { target: 1, lun: 2 };

struct Rig {
    machine: Machine,
    bus: Arc<ScsiBus>,
    events: Arc<Events>,
    sizes: Arc<Sizes>,
    disk: Arc<ScsiDrive>,
    error: Arc<AtomicI32>,
    requests: Arc<Requested>,
    on: Handle,
    _thread: Thread,
}

fn identity(kind: UnitKind) -> Identity {
    let cd = kind == UnitKind::Cd;
    Identity {
        kind,
        vendor: "QEMU".to_owned(),
        product: "disk".to_owned(),
        version: "1".to_owned(),
        serial: None,
        device_id: "d".to_owned(),
        wwn: 0,
        removable: cd,
        block: if cd { 2048 } else { 512 },
        physical: 2048,
        min_io: 0,
        opt_io: 0,
        discard: if cd { 0 } else { 512 },
        rotation: 0,
    }
}

impl Rig {
    fn new() -> Rig {
        let (thread, on) = Thread::spawn("io-test").unwrap();
        let requests = Arc::new(Requested::default());
        let settings = Settings { queues: 2, max_sectors: 0xffff, cmd_per_lun: 128 };
        let device = Scsi::new("scsi".to_owned(), settings, on.clone(), requests.clone());
        let (bus, events, sizes) =
            (device.bus.clone(), device.events.clone(), device.sizes.clone());
        let error = Arc::new(AtomicI32::new(0));
        let disk = Rig::drive("hd", UnitKind::Disk, &on, &error);
        disk.plug(&bus, DISK, false).unwrap();
        Rig::drive("cd", UnitKind::Cd, &on, &error).plug(&bus, CD, false).unwrap();
        let mut machine = Machine::new(Box::new(device));
        machine.ready(FEATURES);
        Rig { machine, bus, events, sizes, disk, error, requests, on, _thread: thread }
    }

    fn drive(id: &str, kind: UnitKind, on: &Handle, error: &Arc<AtomicI32>) -> Arc<ScsiDrive> {
        let policy = Policy { read: OnError::Report, write: OnError::Enospc };
        let drive = Drive::new(id, on.clone(), policy, |_| {});
        let (data, error) = (IoBuf::zeroed(SIZE as usize), error.clone());
        let make = move |_: &_| {
            Rc::new(Faulty { data: data.clone(), error: error.clone() }) as Rc<dyn Node>
        };
        drive.insert(Spec::made(make)).unwrap();
        ScsiDrive::new(format!("/machine/{id}"), identity(kind), Some(drive))
    }

    fn header(&self, place: Place, cdb: &[u8]) -> Vec<u8> {
        let [high, low] = place.lun.to_be_bytes();
        let mut head = vec![1, place.target, high | 0x40, low, 0, 0, 0, 0];
        head.extend(7_u64.to_le_bytes());
        head.extend([0; 3]);
        head.extend(cdb);
        head.resize(19 + 32, 0);
        head
    }

    /// Response, status, sense key and code, residual, and the data.
    fn result(used: Used) -> (u8, u8, (u8, u8), u32, Vec<u8>) {
        let data = used.data;
        assert!(data.len() >= 108, "{data:?}");
        let residual = u32::from_le_bytes(data[4..8].try_into().unwrap());
        (data[11], data[10], (data[14] & 0xf, data[24]), residual, data[108..].to_vec())
    }

    fn send(
        &mut self,
        place: Place,
        cdb: &[u8],
        out: &[u8],
        room: u32,
    ) -> (u8, u8, (u8, u8), u32, Vec<u8>) {
        let head = self.header(place, cdb);
        let readable: &[&[u8]] = if out.is_empty() { &[&head] } else { &[&head, out] };
        let room: &[u32] = if room == 0 { &[108] } else { &[108, room] };
        Rig::result(self.machine.request(2, readable, room))
    }

    /// The attention of power-on is taken.
    fn awake() -> Rig {
        let mut rig = Rig::new();
        for place in [DISK, CD] {
            assert_eq!(rig.send(place, &[0; 6], &[], 0).2, (6, 0x29));
        }
        rig
    }

    fn manage(&mut self, subtype: u32, place: Place, tag: u64) -> u8 {
        let mut request = 0_u32.to_le_bytes().to_vec();
        request.extend(subtype.to_le_bytes());
        request.extend([1, place.target, 0x40, place.lun as u8, 0, 0, 0, 0]);
        request.extend(tag.to_le_bytes());
        self.machine.request(0, &[&request], &[1]).data[0]
    }
}

#[test]
fn what_is_written_is_read() {
    let mut rig = Rig::awake();
    let data: Vec<u8> = (0..4096_u32).map(|i| (i / 5) as u8).collect();
    let write = [0x2a, 0, 0, 0, 0, 3, 0, 0, 8, 0];
    assert_eq!(rig.send(DISK, &write, &data, 0), (0, 0, (0, 0), 0, vec![]));
    let mut read = write;
    read[0] = 0x28;
    let (response, status, _, residual, got) = rig.send(DISK, &read, &[], 4096);
    assert_eq!((response, status, residual), (0, 0, 0));
    assert!(got == data);
    // With more room than blocks, and with less.
    assert_eq!(rig.send(DISK, &read, &[], 5000).3, 904);
    assert_eq!(rig.send(DISK, &read, &[], 4000).0, 1);
    // VERIFY compares.
    let verify = [0x2f, 2, 0, 0, 0, 3, 0, 0, 8, 0];
    assert_eq!(rig.send(DISK, &verify, &data, 0).1, 0);
    assert_eq!(rig.send(DISK, &verify, &[1; 4096], 0).2, (0xe, 0x1d));
    // WRITE SAME of bytes, then of zeros; SYNCHRONIZE CACHE.
    let same = [0x41, 0, 0, 0, 0, 3, 0, 0, 8, 0];
    assert_eq!(rig.send(DISK, &same, &[9; 512], 0).1, 0);
    assert!(rig.send(DISK, &read, &[], 4096).4 == [9; 4096]);
    assert_eq!(rig.send(DISK, &same, &[0; 512], 0).1, 0);
    assert!(rig.send(DISK, &read, &[], 4096).4 == [0; 4096]);
    assert_eq!(rig.send(DISK, &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[], 0).1, 0);
}

#[test]
fn units_are_found_and_those_that_are_not_there_are_not() {
    let mut rig = Rig::awake();
    let (.., luns) = rig.send(CD, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], &[], 64);
    assert_eq!(luns[..4], [0, 0, 0, 16]);
    assert_eq!(luns[17], 2);
    let inquiry = [0x12, 0, 0, 0, 36, 0];
    assert_eq!(rig.send(CD, &inquiry, &[], 36).4[..2], [5, 0x80]);
    let nobody = Place { target: 1, lun: 0 };
    assert_eq!(rig.send(nobody, &inquiry, &[], 36).4[0], 0x7f);
    assert_eq!(rig.send(nobody, &[0; 6], &[], 0).2, (5, 0x25));
    assert_eq!(rig.send(Place { target: 9, lun: 0 }, &inquiry, &[], 36).0, 3);
}

#[test]
fn errors_of_the_host_go_by_the_policy() {
    let mut rig = Rig::awake();
    rig.error.store(5, Ordering::SeqCst);
    assert_eq!(rig.send(DISK, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[], 512).2, (3, 0x11));
    // No room: the command waits until the machine goes on.
    rig.error.store(28, Ordering::SeqCst);
    let head = rig.header(DISK, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    let id = rig.machine.drivers[2].send(&[&head, &[7; 512]], &[108]);
    rig.on.call(|_| ()).unwrap();
    rig.machine.transport.stop();
    assert!(rig.machine.drivers[2].used().is_none());
    rig.error.store(0, Ordering::SeqCst);
    rig.machine.transport.start();
    let used = rig.machine.wait_used(2);
    assert_eq!((used.id, Rig::result(used).1), (id, 0));
}

#[test]
fn a_guest_moves_the_tray() {
    let mut rig = Rig::awake();
    assert_eq!(rig.send(CD, &[0x1b, 0, 0, 0, 2, 0], &[], 0).1, 0);
    assert_eq!(rig.requests.take(), [Request::TrayMoved]);
    assert_eq!(rig.bus.take_trays().into_iter().collect::<Vec<_>>(), [("cd".to_owned(), true)]);
    assert_eq!(rig.send(CD, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[], 8).2, (2, 0x3a));
    assert!(rig.bus.unit(CD).unwrap().drive().unwrap().tray().unwrap().open);
}

#[test]
fn tasks_are_managed() {
    let mut rig = Rig::awake();
    assert_eq!(rig.manage(0, DISK, 7), 0);
    assert_eq!(rig.manage(6, DISK, 7), 0);
    assert_eq!(rig.manage(5, Place { target: 0, lun: 9 }, 0), 12);
    assert_eq!(rig.manage(5, Place { target: 9, lun: 0 }, 0), 3);
    assert_eq!(rig.manage(99, DISK, 0), 11);
    // A reset is told.
    assert_eq!(rig.manage(5, DISK, 0), 0);
    assert_eq!(rig.send(DISK, &[0; 6], &[], 0).2, (6, 0x29));
    assert_eq!(rig.send(DISK, &[0; 6], &[], 0).1, 0);
    let query = [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0];
    assert_eq!(rig.machine.request(0, &[&query], &[5]).data, [0; 5]);
}

#[test]
fn units_come_and_go_and_the_driver_is_told() {
    let mut rig = Rig::awake();
    for _ in 0..8 {
        rig.machine.drivers[1].send(&[], &[16]);
    }
    let place = Place { target: 5, lun: 1 };
    let error = Arc::new(AtomicI32::new(0));
    let new = Rig::drive("new", UnitKind::Disk, &rig.on, &error);
    new.plug(&rig.bus, place, false).unwrap();
    let event = rig.machine.wait_used(1).data;
    assert_eq!(event, [1, 0, 0, 0, 1, 5, 0x40, 1, 0, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(rig.send(place, &[0; 6], &[], 0).2, (6, 0x29));
    // A size that changes is an event and an attention.
    rig.disk.drive().unwrap().model().unwrap().resized();
    assert_eq!(rig.machine.wait_used(1).data[12..14], [0x2a, 9]);
    assert_eq!(rig.send(DISK, &[0; 6], &[], 0).2, (6, 0x2a));
    let choose = |target, lun| rig.bus.choose(0, target, lun).map_err(|e| e.to_string());
    assert_eq!(choose(None, None), Ok(Place { target: 1, lun: 0 }));
    assert_eq!(choose(Some(0), None), Ok(Place { target: 0, lun: 1 }));
    assert_eq!(choose(Some(0), Some(0)), Err("lun already used by '/machine/hd'".to_owned()));
    assert_eq!(choose(Some(256), None), Err("bad scsi device id: 256".to_owned()));
    assert!(rig.bus.choose(1, None, None).is_err());
}

#[test]
fn sizes_and_state_move() {
    let mut rig = Rig::awake();
    assert_eq!(rig.machine.config::<4>(20), [96, 0, 0, 0]);
    rig.machine.transport.write_config(20, &18_u32.to_le_bytes());
    rig.machine.transport.write_config(24, &0_u32.to_le_bytes());
    assert_eq!(rig.sizes.get(), (32, 18));
    rig.events.came(DISK);
    let settings = Settings { queues: 2, max_sectors: 0xffff, cmd_per_lun: 128 };
    let other = Scsi::new("scsi".to_owned(), settings, rig.on.clone(), rig.requests.clone());
    let (events, sizes) = (other.events.clone(), other.sizes.clone());
    rig.machine = rig.machine.move_to(Box::new(other));
    assert_eq!(sizes.get(), (32, 18));
    assert!(events.any());
}

#[test]
fn hostile_requests() {
    // Each of these ends the queue, and the driver knows.
    let requests: [(usize, &[u8], u32); 5] =
        [(2, &[1; 10], 108), (2, &[1; 60], 107), (0, &[9, 9, 9, 9], 8), (0, &[1], 8), (1, &[], 8)];
    for (queue, readable, room) in requests {
        let mut rig = Rig::awake();
        if queue == 1 {
            rig.events.came(DISK);
        }
        let readable: &[&[u8]] = if readable.is_empty() { &[] } else { &[readable] };
        rig.machine.drivers[queue].send(readable, &[room]);
        rig.machine.wait_needs_reset();
    }
    let mut rig = Rig::awake();
    // No room for the answer; an address that cannot be.
    assert_eq!(rig.send(DISK, &[0x12, 0, 0, 0, 36, 0], &[], 20).0, 1);
    let mut head = rig.header(DISK, &[0; 6]);
    head[0] = 0xc1;
    assert_eq!(Rig::result(rig.machine.request(2, &[&head], &[108])).0, 3);
    assert_eq!(rig.send(DISK, &[0xff; 32], &[], 0).2, (5, Sense::INVALID_OPCODE.code));
}
