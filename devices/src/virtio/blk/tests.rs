//! Disks through the driver's side of their queues.

use std::io;
use std::sync::atomic::{AtomicI32, Ordering};

use block::node::{Extent, Node, Op};
use block::{Failure, Info, IoStatus, OnError, Policy, Spec, Zero};
use resources::iol::{IoBuf, Thread};
use resources::props::Overrides;

use super::*;
use crate::virtio::testing::{Machine, Used};

pub(crate) const SIZE: u64 = 1 << 20;

/// A disk in memory that fails as it is told.
pub(crate) struct Faulty {
    pub(crate) data: IoBuf,
    /// The error of the next requests.
    pub(crate) error: Arc<AtomicI32>,
}

impl Faulty {
    fn check(&self) -> io::Result<()> {
        match self.error.load(Ordering::SeqCst) {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

impl Node for Faulty {
    fn info(&self) -> Info {
        Info { size: SIZE, align: 1, sectors: None, discards: true, read_only: false }
    }

    fn read(&self, offset: u64, buf: IoBuf) -> Op<'_> {
        Box::pin(async move {
            self.check()?;
            buf.copy_from_buf(&self.data.skip(offset as usize));
            Ok(())
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, _: bool) -> Op<'_> {
        Box::pin(async move {
            self.check()?;
            self.data.skip(offset as usize).copy_from_buf(&buf);
            Ok(())
        })
    }

    fn zero(&self, offset: u64, len: u64, _: Zero) -> Op<'_> {
        Box::pin(async move {
            self.check()?;
            self.data.skip(offset as usize).slice(0..len as usize).fill(0);
            Ok(())
        })
    }

    fn discard(&self, offset: u64, len: u64) -> Op<'_> {
        self.zero(offset, len, Zero::MayUnmap)
    }

    fn flush(&self) -> Op<'_> {
        Box::pin(async { self.check() })
    }

    fn map(&self, _: u64, len: u64) -> Op<'_, Extent> {
        Box::pin(async move { Ok(Extent { len, state: block::State::Data, offset: None }) })
    }
}

struct Rig {
    machine: Machine,
    drive: Arc<Drive>,
    error: Arc<AtomicI32>,
    failures: Arc<Mutex<Vec<Failure>>>,
    on: Handle,
    _thread: Thread,
}

fn settings(drive: &Drive, given: &[(&str, &str)]) -> Result<Settings, String> {
    let given = given.iter().copied();
    let mut props = Props::parse("virtio-blk-pci", PROPS.iter(), &Overrides::default(), given)
        .map_err(|error| error.to_string())?;
    Settings::new(&mut props, drive).map_err(|error| error.to_string())
}

impl Rig {
    fn new(given: &[(&str, &str)]) -> Rig {
        let (thread, on) = Thread::spawn("test").unwrap();
        let error = Arc::new(AtomicI32::new(0));
        let failures: Arc<Mutex<Vec<Failure>>> = Arc::default();
        let told = failures.clone();
        let drive = Drive::new("d", on.clone(), Policy::default(), move |f| told.lock().push(f));
        let (data, fail) = (IoBuf::zeroed(SIZE as usize), error.clone());
        let make = move |_: &_| {
            std::rc::Rc::new(Faulty { data: data.clone(), error: fail.clone() })
                as std::rc::Rc<dyn Node>
        };
        drive.insert(Spec::made(make)).unwrap();
        let settings = settings(&drive, given).unwrap();
        let device = Blk::on(settings, drive.clone(), &on, None).unwrap();
        let machine = Machine::new(Box::new(device));
        Rig { machine, drive, error, failures, on, _thread: thread }
    }

    fn ready() -> Rig {
        let mut rig = Rig::new(&[("serial", "a serial number that is too long")]);
        let features = rig.machine.offered();
        rig.machine.ready(features);
        rig
    }

    /// Status, and what was written before it.
    fn request(&mut self, kind: u32, sector: u64, out: &[u8], room: u32) -> (u8, Vec<u8>) {
        let header = header(kind, sector);
        let room: &[u32] = if room == 0 { &[1] } else { &[room, 1] };
        let readable: &[&[u8]] = if out.is_empty() { &[&header] } else { &[&header, out] };
        status(self.machine.request(0, readable, room))
    }

    fn figures(&self, kind: block::Kind) -> (u64, u64) {
        let figures = self.drive.stats().figures(kind);
        (figures.operations, figures.bytes)
    }
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    let mut all = kind.to_le_bytes().to_vec();
    all.extend([0; 4]);
    all.extend(sector.to_le_bytes());
    all
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut all = sector.to_le_bytes().to_vec();
    all.extend(sectors.to_le_bytes());
    all.extend(flags.to_le_bytes());
    all
}

fn status(used: Used) -> (u8, Vec<u8>) {
    let mut data = used.data;
    (data.pop().unwrap_or(0xff), data)
}

#[test]
fn what_is_written_is_read() {
    let mut rig = Rig::ready();
    let data: Vec<u8> = (0..4096u32).map(|i| (i / 7) as u8).collect();
    assert_eq!(rig.request(1, 8, &data, 0).0, 0);
    assert_eq!(rig.request(4, 0, &[], 0).0, 0);
    assert_eq!(rig.request(0, 8, &[], 4096), (0, data.clone()));
    assert_eq!(rig.request(0, 9, &[], 512), (0, data[512..1024].to_vec()));
    assert_eq!(rig.request(8, 0, &[], 20), (0, b"a serial number that".to_vec()));
    assert_eq!(rig.request(8, 0, &[], 8).0, 0);
    // Zeros, and a discard.
    assert_eq!(rig.request(13, 0, &range(8, 1, 1), 0).0, 0);
    assert_eq!(rig.request(11, 0, &range(10, 1, 0), 0).0, 0);
    let read = rig.request(0, 8, &[], 2048).1;
    assert!(read[..512].iter().all(|byte| *byte == 0));
    assert_eq!(read[512..1024], data[512..1024]);
    assert_eq!(rig.figures(block::Kind::Read), (3, 4096 + 512 + 2048));
    assert_eq!(rig.figures(block::Kind::Write), (3, 4096 + 512 + 512));
    assert_eq!(rig.figures(block::Kind::Flush).0, 1);
    assert_eq!(rig.drive.stats().highest_offset(), 4096 + 4096 - 512);
    assert!(rig.failures.lock().is_empty());
}

#[test]
fn requests_that_cannot_be_are_refused() {
    let mut rig = Rig::ready();
    // Errors of the host stop the machine; these are none.
    rig.drive.set_policy(Policy { read: OnError::Stop, write: OnError::Stop });
    // Kinds and flags there are not.
    assert_eq!(rig.request(99, 0, &[], 0).0, 2);
    assert_eq!(rig.request(13, 0, &range(0, 1, 2), 0).0, 2);
    assert_eq!(rig.request(11, 0, &range(0, 1, 1), 0).0, 2);
    assert_eq!(rig.request(11, 0, &[0; 15], 0).0, 2);
    // Ranges there are not.
    let sectors = SIZE / 512;
    for (kind, sector, out, room) in [
        (0, sectors, vec![], 512),
        (0, u64::MAX, vec![], 512),
        (0, u64::MAX / 512, vec![], 1024),
        (0, 0, vec![], 511),
        (1, sectors - 1, vec![0; 1024], 0),
        (13, 0, range(sectors, 1, 0), 0),
        (13, 0, range(0, u32::MAX, 0), 0),
        (11, 0, range(u64::MAX, 1, 0), 0),
    ] {
        assert_eq!(rig.request(kind, sector, &out, room).0, 1, "{kind} {sector}");
    }
    assert!(rig.failures.lock().is_empty());
    assert_eq!(rig.request(0, 0, &[], 512).0, 0);
    // No header, and no room for a status, break the queue.
    let used = rig.machine.request(0, &[&[0; 15]], &[1]);
    assert_eq!(used.written, 0);
    rig.machine.wait_needs_reset();
}

#[test]
fn errors_go_by_the_policy() {
    let mut rig = Rig::ready();
    rig.error.store(libc_errno::EIO, Ordering::SeqCst);
    assert_eq!(rig.request(0, 0, &[], 512).0, 1);
    assert_eq!(rig.request(4, 0, &[], 0).0, 1);
    rig.drive.set_policy(Policy { read: OnError::Ignore, write: OnError::Enospc });
    assert_eq!(rig.request(0, 0, &[], 512).0, 0);
    // No room on the host: the request waits, over stops and a move to another process.
    rig.error.store(libc_errno::ENOSPC, Ordering::SeqCst);
    let header = header(1, 2);
    let id = rig.machine.drivers[0].send(&[&header, &[7; 512]], &[1]);
    let told = |rig: &Rig| rig.failures.lock().len();
    while told(&rig) < 4 {
        std::thread::yield_now();
    }
    let before = rig.figures(block::Kind::Write);
    let last = rig.failures.lock()[3].clone();
    assert_eq!((last.action, last.no_space), (block::Action::Stop, true));
    rig.machine.transport.stop();
    rig.drive.set_io_status(IoStatus::NoSpace);
    assert_eq!(rig.drive.io_status(), Some(IoStatus::NoSpace));
    rig.machine.transport.start();
    while told(&rig) < 5 {
        std::thread::yield_now();
    }
    rig.machine.transport.stop();
    rig.error.store(0, Ordering::SeqCst);
    rig.machine.transport.start();
    let used = rig.machine.wait_used(0);
    assert_eq!((used.id, status(used).0), (id, 0));
    assert_eq!(rig.figures(block::Kind::Write).0, before.0 + 1);
    assert_eq!(rig.request(0, 2, &[], 512), (0, vec![7; 512]));
}

mod libc_errno {
    pub(super) const EIO: i32 = 5;
    pub(super) const ENOSPC: i32 = 28;
}

#[test]
fn many_requests_of_many_queues_survive_a_stop() {
    let mut rig = Rig::new(&[("num-queues", "3"), ("queue-size", "64")]);
    let features = rig.machine.offered();
    assert_ne!(features & feature::MQ, 0);
    rig.machine.ready(features);
    assert_eq!(rig.machine.config::<2>(34), [3, 0]);
    for round in 0..20u64 {
        for queue in 0..3u64 {
            let sector = round * 30 + queue * 10;
            for i in 0..10 {
                let header = header(1, sector + i);
                let data = [(sector + i) as u8; 512];
                rig.machine.drivers[queue as usize].send(&[&header, &data], &[1]);
            }
            rig.machine.drivers[queue as usize].kick();
        }
        if round % 5 == 0 {
            rig.machine.transport.stop();
            rig.machine.transport.start();
        }
        for queue in 0..3 {
            for _ in 0..10 {
                assert_eq!(status(rig.machine.wait_used(queue)).0, 0);
            }
        }
    }
    for sector in 0..600 {
        assert_eq!(rig.request(0, sector, &[], 512).1, vec![sector as u8; 512]);
    }
}

#[test]
fn the_configuration_tells_the_disk() {
    let mut rig = Rig::new(&[
        ("logical_block_size", "1024"),
        ("physical_block_size", "4096"),
        ("min_io_size", "8192"),
        ("opt_io_size", "65536"),
        ("queue-size", "128"),
    ]);
    let features = rig.machine.offered();
    rig.machine.ready(features);
    assert_eq!(rig.machine.config::<8>(0), (SIZE / 512).to_le_bytes());
    assert_eq!(rig.machine.config::<4>(12), 126u32.to_le_bytes());
    assert_eq!(rig.machine.config::<4>(20), 1024u32.to_le_bytes());
    assert_eq!(rig.machine.config::<8>(24), [2, 0, 8, 0, 64, 0, 0, 0]);
    assert_eq!(rig.machine.config::<1>(32), [1]);
    assert_eq!(rig.machine.config::<4>(44), 2u32.to_le_bytes());
    // Half a block.
    assert_eq!(rig.request(0, 1, &[], 1024).0, 1);
    assert_eq!(rig.request(0, 2, &[], 512).0, 1);
    assert_eq!(rig.request(0, 2, &[], 1024).0, 0);
}

#[test]
fn the_write_cache_is_the_drivers_to_switch() {
    let mut rig = Rig::ready();
    assert!(rig.drive.write_cache());
    let switch = |rig: &mut Rig, on: u8| rig.machine.transport.device_mut().write_config(32, &[on]);
    switch(&mut rig, 0);
    assert!(!rig.drive.write_cache());
    assert_eq!(rig.machine.config::<1>(32), [0]);
    rig.machine.transport.reset();
    assert!(rig.drive.write_cache());
    // A driver that does not flush.
    let features = rig.machine.offered() & !(feature::FLUSH | feature::CONFIG_WCE);
    rig.machine.ready(features);
    assert!(!rig.drive.write_cache());
    let mut fixed = Rig::new(&[("config-wce", "off"), ("write-cache", "off")]);
    assert_eq!(fixed.machine.offered() & feature::CONFIG_WCE, 0);
    switch(&mut fixed, 1);
    assert!(!fixed.drive.write_cache());
}

#[test]
fn properties_are_checked() {
    let rig = Rig::new(&[]);
    for (name, value, why) in [
        ("logical_block_size", "513", "a power of two"),
        ("logical_block_size", "1024", "> physical_block_size"),
        ("min_io_size", "100", "a multiple"),
        ("queue-size", "100", "a power of two"),
        ("rerror", "enospc", "'enospc' invalid read error action"),
        ("num-queues", "0", "num-queues"),
    ] {
        let mut given = vec![(name, value)];
        if value == "1024" {
            given.push(("physical_block_size", "512"));
        }
        let error = settings(&rig.drive, &given).unwrap_err();
        assert!(error.contains(why), "{name}={value}: {error}");
    }
    let set = settings(&rig.drive, &[("rerror", "stop")]).unwrap();
    let policy = Policy { read: OnError::Stop, write: OnError::Enospc };
    assert_eq!(set.policy, Some(policy));
}

#[test]
fn the_drive_comes_back_when_the_disk_goes() {
    let rig = Rig::new(&[]);
    let set = settings(&rig.drive, &[]).unwrap();
    assert!(rig.drive.is_attached());
    assert!(Blk::on(set.clone(), rig.drive.clone(), &rig.on, None).is_err());
    let Rig { mut machine, drive, on, .. } = rig;
    machine.transport.device_mut().unplug();
    assert!(!drive.is_attached());
    let mut other = Blk::on(set, drive.clone(), &on, None).unwrap();
    let saved = other.save().unwrap();
    other.load(&saved).unwrap();
    assert_eq!(other.save().unwrap(), saved);
}

#[test]
fn two_disks_are_one_if_both_share_it() {
    let (_thread, on) = Thread::spawn("test").unwrap();
    let drive = Drive::with("d", on.clone(), Spec::null(1 << 20)).unwrap();
    let shared = settings(&drive, &[("share-rw", "on")]).unwrap();
    let alone = settings(&drive, &[]).unwrap();
    let _one = Blk::on(shared.clone(), drive.clone(), &on, None).unwrap();
    assert!(Blk::on(alone, drive.clone(), &on, None).is_err());
    let mut two = Blk::on(shared, drive.clone(), &on, None).unwrap();
    two.unplug();
    assert!(drive.is_shared());
}

#[test]
fn a_resized_disk_says_so() {
    let (_thread, on) = Thread::spawn("test").unwrap();
    let file = vmm_sys_util::tempfile::TempFile::new().unwrap();
    file.as_file().set_len(4096).unwrap();
    let spec = Spec::file(file.as_path().to_str().unwrap(), Some("raw"));
    let drive = Drive::with("d", on.clone(), spec).unwrap();
    let set = settings(&drive, &[]).unwrap();
    let mut machine = Machine::new(Box::new(Blk::on(set, drive.clone(), &on, None).unwrap()));
    let features = machine.offered();
    machine.ready(features);
    let generation = machine.read(0x15, 1);
    drive.resize(8192).unwrap();
    assert_eq!(machine.config::<8>(0), 16u64.to_le_bytes());
    assert_ne!(machine.read(0x15, 1), generation);
}
