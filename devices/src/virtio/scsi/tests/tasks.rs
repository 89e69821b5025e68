//! Tasks that are managed while they wait, and while the host is at them.

use block::node::{Extent, Op};
use block::throttle::Given;
use block::{Info, Zero};
use resources::clock::Clock;
use resources::iol::Notify;

use super::*;

const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];

impl Rig {
    /// Sends a read with tag 7; it is under way when this returns.
    fn begin_read(&mut self, place: Place) -> u16 {
        let head = self.header(place, &READ);
        let id = self.machine.drivers[2].send(&[&head], &[108, 512]);
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
        let id = rig.begin_read(DISK);
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

/// A disk that is read when it is told to be.
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
        self.flush()
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

#[test]
fn what_the_host_is_at_is_waited_for() {
    let mut rig = Rig::awake();
    let gate = Notify::new();
    let of_disk = gate.clone();
    let drive = Drive::new("slow", rig.on.clone(), Policy::default(), |_| {});
    let make = move |_: &_| Rc::new(Slow(of_disk.clone())) as Rc<dyn Node>;
    drive.insert(Spec::made(make)).unwrap();
    let place = Place { target: 3, lun: 0 };
    let unit = ScsiDrive::new("slow".to_owned(), identity(UnitKind::Disk), Some(drive));
    unit.plug(&rig.bus, place, false).unwrap();
    assert_eq!(rig.send(place, &[0; 6], &[], 0).2, (6, 0x29));
    let id = rig.begin_read(place);
    let mut abort = [0_u8; 24];
    abort[8..12].copy_from_slice(&[1, place.target, 0x40, 0]);
    abort[16] = 7;
    rig.machine.drivers[0].send(&[&abort], &[1]);
    rig.on.call(|_| ()).unwrap();
    assert!(rig.machine.drivers[2].used().is_none());
    assert!(rig.machine.drivers[0].used().is_none());
    gate.notify();
    let used = rig.machine.wait_used(2);
    assert_eq!(used.id, id);
    assert_eq!(Rig::result(used), (0, 0, (0, 0), 0, vec![9; 512]));
    assert_eq!(rig.machine.wait_used(0).data, [0]);
}
