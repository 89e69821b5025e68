//! Tasks that are managed while they wait, and while the host is at them.

use std::io;

use block::node::{Extent, Op};
use block::throttle::Given;
use block::{Info, Zero};
use resources::clock::Clock;
use resources::iol::Notify;

use super::*;

const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];

impl Rig {
    /// Sends a command with tag 7; it is under way when this returns.
    fn begin(&mut self, place: Place, cdb: &[u8], out: &[u8]) -> u16 {
        let head = self.header(place, cdb);
        let driver = &mut self.machine.drivers[2];
        let id = match out {
            [] => driver.send(&[&head], &[108, 512]),
            out => driver.send(&[&head, out], &[108]),
        };
        while self.manage(6, place, 7) == 0 {}
        id
    }
}

#[test]
fn what_waits_is_ended() {
    let mut rig = Rig::awake();
    let drive = rig.disk.drive().unwrap().clone();
    // The clock stands: after the first command the next one waits for ever.
    drive.set_clock(Clock::new());
    drive.set_limits(Given { iops: [1, 0, 0], ..Given::default() }.limits().unwrap());
    assert_eq!(rig.send(DISK, &READ, &[], 512).1, 0);
    for (subtype, response) in [(0, 2), (1, 2), (3, 2), (5, 4), (4, 4)] {
        let id = rig.begin(DISK, &READ, &[]);
        assert_eq!(rig.manage(0, DISK, 8), 0);
        assert_eq!((rig.manage(6, DISK, 7), rig.manage(7, DISK, 0)), (10, 10), "another one");
        assert_eq!(rig.manage(subtype, DISK, 7), 0);
        let used = rig.machine.wait_used(2);
        let (ended, result) = (used.id, Rig::result(used));
        assert_eq!((ended, result.0, result.1, result.3), (id, response, 0, 512), "{subtype}");
        assert_eq!(rig.manage(6, DISK, 7), 0);
        let attention = if response == 4 { (6, 0x29) } else { (0, 0) };
        assert_eq!(rig.send(DISK, &[0; 6], &[], 0).2, attention);
    }
    drive.set_limits(Given::default().limits().unwrap());
    assert_eq!(rig.send(DISK, &READ, &[], 512).1, 0);
}

/// A disk that is read when it is told to be, and that there is no room to write to.
struct Slow(Notify);

impl Node for Slow {
    fn info(&self) -> Info {
        Info { size: SIZE, align: 1, sectors: None, discards: false, read_only: false }
    }
    fn read(&self, _: u64, buf: IoBuf) -> Op<'_> {
        Box::pin(async move {
            self.0.notified().await;
            buf.fill(9);
            Ok(())
        })
    }
    fn write(&self, _: u64, _: IoBuf, _: bool) -> Op<'_> {
        Box::pin(async move {
            self.0.notified().await;
            Err(io::ErrorKind::StorageFull.into())
        })
    }
    fn zero(&self, _: u64, _: u64, _: Zero) -> Op<'_> {
        self.flush()
    }
    fn discard(&self, _: u64, _: u64) -> Op<'_> {
        self.flush()
    }
    fn flush(&self) -> Op<'_> {
        Box::pin(async { Ok(()) })
    }
    fn map(&self, _: u64, len: u64) -> Op<'_, Extent> {
        Box::pin(async move { Ok(Extent { len, state: block::State::Data, offset: None }) })
    }
}

const SLOW: Place = Place { target: 3, lun: 0 };

impl Rig {
    /// One with a [`Slow`] disk, and what lets a request of that go on.
    fn slow() -> (Rig, Notify) {
        let mut rig = Rig::awake();
        let gate = Notify::new();
        let of_disk = gate.clone();
        let policy = Policy { read: OnError::Stop, write: OnError::Stop };
        let drive = Drive::new("slow", rig.on.clone(), policy, |_| {});
        let make = move |_: &_| Rc::new(Slow(of_disk.clone())) as Rc<dyn Node>;
        drive.insert(Spec::made(make)).unwrap();
        let unit = ScsiDrive::new("slow".to_owned(), identity(UnitKind::Disk), Some(drive));
        unit.plug(&rig.bus, SLOW, false).unwrap();
        assert_eq!(rig.send(SLOW, &[0; 6], &[], 0).2, (6, 0x29));
        (rig, gate)
    }

    /// Asks for the end of the task with tag 7 of the slow disk, which cannot end yet.
    fn abort(&mut self) {
        let mut abort = [0_u8; 24];
        abort[8..12].copy_from_slice(&[1, SLOW.target, 0x40, 0]);
        abort[16] = 7;
        self.machine.drivers[0].send(&[&abort], &[1]);
        self.on.call(|_| ()).unwrap();
        assert!(self.machine.drivers[2].used().is_none());
        assert!(self.machine.drivers[0].used().is_none());
    }
}

#[test]
fn what_the_host_is_at_is_waited_for() {
    let (mut rig, gate) = Rig::slow();
    let id = rig.begin(SLOW, &READ, &[]);
    rig.abort();
    gate.notify();
    let used = rig.machine.wait_used(2);
    assert_eq!(used.id, id);
    assert_eq!(Rig::result(used), (0, 0, (0, 0), 0, vec![9; 512]));
    assert_eq!(rig.machine.wait_used(0).data, [0]);
}

#[test]
fn what_was_to_be_ended_is_not_tried_again() {
    let (mut rig, gate) = Rig::slow();
    let mut write = READ;
    write[0] = 0x2a;
    let id = rig.begin(SLOW, &write, &[7; 512]);
    rig.abort();
    // It fails, and such errors stop the machine.
    gate.notify();
    let used = rig.machine.wait_used(2);
    assert_eq!((used.id, Rig::result(used).0), (id, 2));
    assert_eq!(rig.machine.wait_used(0).data, [0]);
}
