//! Jobs over images in memory, whose requests take their time, beside a guest that writes.

use std::rc::Rc;
use std::sync::Arc;

use proptest::prelude::*;
use resources::iol::{FileIo, IoBuf, Local, Loop, Task};

use super::*;
use crate::Disk;
use crate::image::{BackingFile, Image};
use crate::mem::Mem;
use crate::node::{Node, Zero};

const SIZE: u64 = 300_000;

fn run<F: Future>(task: impl FnOnce(Local) -> F) -> F::Output {
    let mut the_loop = Loop::with_file_io("test", FileIo::Auto).unwrap();
    let local = the_loop.local().clone();
    the_loop.run(task(local))
}

fn disk_of(node: Rc<dyn Node>) -> Rc<Disk> {
    Disk::new(node, Arc::default())
}

fn start() -> Start {
    Start { device: "d".into(), speed: 0, tell: Box::new(|| {}) }
}

async fn all(node: &dyn Node) -> Vec<u8> {
    let buf = IoBuf::zeroed(node.info().size as usize);
    node.read(0, buf.clone()).await.unwrap();
    buf.to_vec()
}

/// What a guest does.
#[derive(Debug, Clone)]
enum Step {
    Write(u64, usize, u8),
    Zero(u64, u64),
    Discard(u64, u64),
    Wait(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let range = || (0..SIZE, 1u64..40_000);
    prop_oneof![
        4 => (range(), 1u8..).prop_map(|((at, len), byte)| {
            Step::Write(at, len.min(SIZE - at) as usize, byte)
        }),
        1 => range().prop_map(|(at, len)| Step::Zero(at, len.min(SIZE - at))),
        1 => range().prop_map(|(at, len)| Step::Discard(at, len.min(SIZE - at))),
        3 => any::<u8>().prop_map(Step::Wait),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 0..60)
}

/// A guest that does this, one after another.
fn guest(local: &Local, disk: &Rc<Disk>, steps: Vec<Step>) -> Task<()> {
    let (here, disk) = (local.clone(), disk.clone());
    local.spawn(async move {
        for step in steps {
            match step {
                Step::Write(at, len, byte) => {
                    let buf = IoBuf::zeroed(len);
                    buf.fill(byte);
                    disk.write(at, buf, false).await.unwrap();
                }
                Step::Zero(at, len) => disk.zero(at, len, Zero::Keep).await.unwrap(),
                Step::Discard(at, len) => disk.discard(at, len).await.unwrap(),
                Step::Wait(turns) => {
                    for _ in 0..turns {
                        here.yield_now().await;
                    }
                }
            }
        }
    })
}

/// Writes parts of an image, some of them all zeros.
async fn scatter(node: &dyn Node, seed: u64) {
    let mut random = seed;
    for round in 0..20u8 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        let at = (random >> 33) % node.info().size;
        let len = ((random >> 20) % 9000).min(node.info().size - at);
        let buf = IoBuf::zeroed(len as usize);
        buf.fill((seed as u8).wrapping_add(round) * u8::from(round % 5 > 0));
        node.write(at, buf, false).await.unwrap();
    }
}

/// A chain of three, the lowest one shorter, the topmost one first.
async fn chain(seed: u64) -> [Rc<Mem>; 3] {
    chain_sized(seed, SIZE, SIZE - 70_000).await
}

/// One in which those below have these sizes.
async fn chain_sized(seed: u64, mid: u64, base: u64) -> [Rc<Mem>; 3] {
    let base = Mem::new(base, None);
    scatter(&*base, seed).await;
    let mid = Mem::new(mid, Some(base.clone()));
    scatter(&*mid, seed + 1).await;
    let top = Mem::new(SIZE, Some(mid.clone()));
    scatter(&*top, seed + 2).await;
    [top, mid, base]
}

async fn until(local: &Local, mut done: impl FnMut() -> bool) {
    while !done() {
        local.yield_now().await;
    }
}

async fn ended(local: &Local, job: &Job) -> (Info, bool, Option<String>, bool) {
    until(local, || job.has_ended()).await;
    let last = job.take_events().pop();
    let Some(Event::Ended { info, cancelled, error, pivoted }) = last else {
        panic!("no end: {last:?}")
    };
    (info, cancelled, error, pivoted)
}

/// As [`Job::complete`], from the loop itself.
fn complete(job: &Job) {
    job.shared.steer(|state| {
        assert!(state.ready);
        state.completing = true;
    });
}

fn mirror(target: &Rc<Mem>, sync: Sync) -> MirrorOptions {
    MirrorOptions {
        kind: Kind::Mirror,
        target: target.clone(),
        sync,
        target_is_zero: true,
        granularity: 512,
        buf_size: 65536,
        errors: Errors::default(),
        attach_backing: None,
    }
}

/// What is below may end anywhere: the lower one before the upper one, and after it.
fn sizes() -> impl Strategy<Value = (u64, u64)> {
    let size = || prop_oneof![Just(SIZE), Just(SIZE - 70_000), Just(SIZE - 160_000)];
    (size(), size())
}

fn cases() -> ProptestConfig {
    ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_mirror_takes_the_place_of_its_source(
        before in steps(), after in steps(), seed in 0u64..1000, fresh: bool,
    ) {
        run(|local| async move {
            let [top, mid, base] = chain(seed).await;
            let disk = disk_of(top.clone());
            let target = if fresh { Mem::new(SIZE, None) } else { Mem::filled(SIZE, 0xaa) };
            let options = MirrorOptions { target_is_zero: fresh, ..mirror(&target, Sync::Full) };
            let job = Mirror::start(&local, disk.clone(), options, start()).await;
            guest(&local, &disk, before.clone()).await;
            until(&local, || job.shared.state.lock().ready).await;
            let late = guest(&local, &disk, after.clone());
            complete(&job);
            let (info, cancelled, error, pivoted) = ended(&local, &job).await;
            assert_eq!((info.offset, cancelled, error, pivoted), (SIZE, false, None, true));
            late.await;
            let twin = chain(seed).await;
            let other = disk_of(twin[0].clone());
            guest(&local, &other, before).await;
            guest(&local, &other, after).await;
            assert!(all(&*target).await == all(&*twin[0]).await);
            // The old images are closed and were not written to since.
            assert!(top.closed.get() && mid.closed.get() && base.closed.get());
            assert!(crate::chain::same(&disk.node(), &(target.clone() as Rc<dyn Node>)));
        });
    }

    #[test]
    fn a_mirror_that_is_let_go_is_what_the_disk_was(
        before in steps(), seed in 0u64..1000, full: bool,
    ) {
        run(|local| async move {
            let [top, mid, _] = chain(seed).await;
            let disk = disk_of(top.clone());
            let backing = (!full).then(|| mid.clone() as Rc<dyn Node>);
            let target = Mem::new(SIZE, backing);
            let sync = if full { Sync::Full } else { Sync::Top };
            let job = Mirror::start(&local, disk.clone(), mirror(&target, sync), start()).await;
            guest(&local, &disk, before).await;
            until(&local, || job.shared.state.lock().ready).await;
            job.cancel(false).unwrap();
            let (info, cancelled, error, pivoted) = ended(&local, &job).await;
            assert_eq!((info.offset, cancelled, error, pivoted), (SIZE, false, None, false));
            assert!(target.closed.get() && !mid.closed.get());
            assert!(all(&*target).await == all(&*top).await);
        });
    }

    #[test]
    fn a_commit_of_the_topmost_image_leaves_its_base(
        before in steps(), after in steps(), seed in 0u64..1000,
    ) {
        run(|local| async move {
            let [top, mid, base] = chain(seed).await;
            base.resize(SIZE).await.unwrap();
            let disk = disk_of(top.clone());
            let options = MirrorOptions { kind: Kind::Commit, ..mirror(&base, Sync::Top) };
            let job = Mirror::start(&local, disk.clone(), options, start()).await;
            guest(&local, &disk, before).await;
            until(&local, || job.shared.state.lock().ready).await;
            let guest = guest(&local, &disk, after);
            guest.await;
            let seen = all(&*top).await;
            complete(&job);
            let (_, _, error, pivoted) = ended(&local, &job).await;
            assert_eq!((error, pivoted), (None, true));
            assert!(top.closed.get() && mid.closed.get() && !base.closed.get());
            assert!(all(&*disk.node()).await == seen);
        });
    }

    #[test]
    fn a_backup_is_the_disk_at_its_beginning(
        before in steps(), during in steps(), seed in 0u64..1000, full: bool,
    ) {
        run(|local| async move {
            let [top, mid, _] = chain(seed).await;
            let disk = disk_of(top.clone());
            let early = guest(&local, &disk, before);
            let backing = (!full).then(|| mid.clone() as Rc<dyn Node>);
            let target = Mem::new(SIZE, backing);
            let sync = if full { Sync::Full } else { Sync::Top };
            early.await;
            let then = all(&*top).await;
            let options = BackupOptions { target: target.clone(), sync, errors: Errors::default() };
            let job = options.start(&local, disk.clone(), start()).await;
            guest(&local, &disk, during).await;
            let (info, cancelled, error, _) = ended(&local, &job).await;
            assert_eq!((cancelled, error), (false, None));
            assert!(if full { info.offset == SIZE } else { info.offset <= SIZE });
            assert!(all(&*target).await == then);
        });
    }

    #[test]
    fn a_backup_of_what_is_overwritten(during in steps(), seed in 0u64..1000) {
        run(|local| async move {
            let [top, ..] = chain(seed).await;
            let disk = disk_of(top.clone());
            let then = all(&*top).await;
            let target = Mem::new(SIZE, Some(top.clone()));
            let options =
                BackupOptions { target: target.clone(), sync: Sync::None, errors: Errors::default() };
            let job = options.start(&local, disk.clone(), start()).await;
            guest(&local, &disk, during).await;
            assert!(all(&*target).await == then);
            job.cancel(false).unwrap();
            assert!(ended(&local, &job).await.1);
            assert!(!top.closed.get());
        });
    }

    #[test]
    fn a_stream_changes_nothing_that_is_seen(
        during in steps(), seed in 0u64..1000, to_base: bool, sizes in sizes(),
    ) {
        run(|local| async move {
            let [top, mid, base] = chain_sized(seed, sizes.0, sizes.1).await;
            let twin = chain_sized(seed, sizes.0, sizes.1).await;
            let (disk, other) = (disk_of(top.clone()), disk_of(twin[0].clone()));
            let options = StreamOptions {
                base: to_base.then(|| base.clone() as Rc<dyn Node>),
                backing_file: None,
                on_error: OnError::Report,
            };
            let job = options.start(&local, disk.clone(), start()).await;
            guest(&local, &disk, during.clone()).await;
            let (info, cancelled, error, _) = ended(&local, &job).await;
            assert_eq!((info.offset, cancelled, error), (SIZE, false, None));
            guest(&local, &other, during).await;
            assert!(mid.closed.get() && base.closed.get() != to_base);
            assert_eq!(top.image().unwrap().backing().is_some(), to_base);
            assert!(all(&*top).await == all(&*twin[0]).await);
        });
    }

    #[test]
    fn a_commit_changes_nothing_that_is_seen(
        during in steps(), seed in 0u64..1000, sizes in sizes(),
    ) {
        run(|local| async move {
            let [top, mid, base] = chain_sized(seed, sizes.0, sizes.1).await;
            let twin = chain_sized(seed, sizes.0, sizes.1).await;
            let (disk, other) = (disk_of(top.clone()), disk_of(twin[0].clone()));
            let options = CommitOptions {
                overlay: top.clone(),
                top: mid.clone(),
                base: base.clone(),
                backing_file: BackingFile { name: "base".into(), format: None },
                overlay_read_only: false,
                base_read_only: true,
            };
            let job = options.start(&local, disk.clone(), start()).await;
            guest(&local, &disk, during.clone()).await;
            let (info, cancelled, error, _) = ended(&local, &job).await;
            assert_eq!((info.offset, cancelled, error), (sizes.0, false, None));
            guest(&local, &other, during).await;
            assert!(mid.closed.get() && base.read_only.get() && !base.closed.get());
            assert!(all(&*top).await == all(&*twin[0]).await);
        });
    }

    #[test]
    fn copy_on_read_changes_nothing_that_is_seen(
        during in steps(), reads in prop::collection::vec((0..SIZE, 1u64..40_000), 1..20),
    ) {
        run(|local| async move {
            let [top, ..] = chain(7).await;
            let twin = chain(7).await;
            let (disk, other) = (disk_of(top.clone()), disk_of(twin[0].clone()));
            disk.set_copy_on_read(true).await;
            let guest_here = guest(&local, &disk, during.clone());
            for (at, len) in reads {
                let len = len.min(SIZE - at) as usize;
                disk.read(at, IoBuf::zeroed(len)).await.unwrap();
                let extent = top.map(at, len as u64).await.unwrap();
                assert_ne!(extent.state, crate::State::Absent);
            }
            guest_here.await;
            disk.set_copy_on_read(false).await;
            guest(&local, &other, during).await;
            assert!(all(&*top).await == all(&*twin[0]).await);
        });
    }
}

fn slow(speed: u64) -> Start {
    Start { speed, ..start() }
}

fn events(job: &Job) -> Vec<Event> {
    job.take_events()
}

fn error(write: bool, action: Action) -> Event {
    Event::Error { write, action }
}

fn backup(target: &Rc<Mem>, source: OnError, on_target: OnError) -> BackupOptions {
    let errors = Errors { source, target: on_target };
    BackupOptions { target: target.clone(), sync: Sync::Full, errors }
}

/// A backup has several requests under way: a source of which each read takes a while is read through in far less than their sum.
#[test]
fn requests_are_under_way_together() {
    const READ: std::time::Duration = std::time::Duration::from_millis(20);
    run(|local| async move {
        let slow = |image: Rc<Mem>| Rc::new(Slow { image, local: local.clone(), time: READ });
        let source = Mem::filled(2 << 20, 1);
        let disk = disk_of(slow(source));
        let target = Mem::new(2 << 20, None);
        let begun = std::time::Instant::now();
        let options = backup(&target, OnError::Report, OnError::Report);
        let job = options.start(&local, disk.clone(), start()).await;
        until(&local, || job.has_ended()).await;
        assert!(all(&*target).await == vec![1; 2 << 20]);
        // One by one it is 32 times.
        assert!(begun.elapsed() < 16 * READ, "{:?}", begun.elapsed());
    });
}

/// An image that is slow to read.
struct Slow {
    image: Rc<Mem>,
    local: Local,
    time: std::time::Duration,
}

impl Node for Slow {
    fn info(&self) -> crate::node::Info {
        self.image.info()
    }

    fn read(&self, offset: u64, buf: IoBuf) -> crate::node::Op<'_> {
        Box::pin(async move {
            self.local.sleep(self.time).await;
            self.image.read(offset, buf).await
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, durable: bool) -> crate::node::Op<'_> {
        self.image.write(offset, buf, durable)
    }

    fn zero(&self, offset: u64, len: u64, how: Zero) -> crate::node::Op<'_> {
        self.image.zero(offset, len, how)
    }

    fn discard(&self, offset: u64, len: u64) -> crate::node::Op<'_> {
        self.image.discard(offset, len)
    }

    fn flush(&self) -> crate::node::Op<'_> {
        self.image.flush()
    }

    fn map(&self, offset: u64, len: u64) -> crate::node::Op<'_, crate::node::Extent> {
        self.image.map(offset, len)
    }
}

#[test]
fn errors_go_by_the_policy() {
    run(|local| async move {
        let (source, target) = (Mem::filled(SIZE, 1), Mem::new(SIZE, None));
        let disk = disk_of(source.clone());
        // Reported: the end.
        source.fail(false, 70_000, libc::EIO, 1);
        let job = backup(&target, OnError::Report, OnError::Report)
            .start(&local, disk.clone(), start())
            .await;
        until(&local, || job.has_ended()).await;
        let told = events(&job);
        assert_eq!(told[0], error(false, Action::Report));
        let Event::Ended { info, cancelled, error: text, .. } = &told[1] else { panic!() };
        assert!(!cancelled && info.offset <= SIZE - 65536, "{info:?}");
        assert_eq!(text.as_deref(), Some("Input/output error"));
        // Stops at a full target, goes on when told to, ignores what comes then.
        target.fail(true, 70_000, libc::ENOSPC, 2);
        source.fail(false, 200_000, libc::EIO, 3);
        let job = backup(&target, OnError::Ignore, OnError::Enospc)
            .start(&local, disk.clone(), start())
            .await;
        until(&local, || !job.info().busy).await;
        let info = job.info();
        assert_eq!((info.paused, info.io_status), (true, IoStatus::NoSpace));
        let mut told = events(&job);
        assert!(told.contains(&error(true, Action::Stop)));
        assert_eq!(job.cancel(false), Err(Refused::Paused));
        job.reset_io_status();
        assert_eq!((job.info().io_status, job.info().paused), (IoStatus::Ok, true));
        job.resume();
        until(&local, || job.info().paused).await;
        job.resume();
        let (info, _, text, _) = {
            until(&local, || job.has_ended()).await;
            told.extend(events(&job));
            let Some(Event::Ended { info, cancelled, error: text, pivoted }) = told.pop() else {
                panic!()
            };
            let count = |event| told.iter().filter(|one| **one == event).count();
            let stops = count(error(true, Action::Stop));
            assert_eq!((stops, count(error(false, Action::Ignore)), told.len()), (2, 3, 5));
            (info, cancelled, text, pivoted)
        };
        assert_eq!((info.offset, text), (SIZE, None));
        // What fails before a write of the guest fails that write and nothing else.
        let options =
            BackupOptions { sync: Sync::None, ..backup(&target, OnError::Report, OnError::Report) };
        let job = options.start(&local, disk.clone(), start()).await;
        target.fail(true, 0, libc::ENOSPC, 1);
        let write = disk.write(0, IoBuf::copy_of(b"x"), false).await;
        assert_eq!(write.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        disk.write(0, IoBuf::copy_of(b"x"), false).await.unwrap();
        assert_eq!(job.info().offset, 65536);
        job.cancel(false).unwrap();
        until(&local, || job.has_ended()).await;
    });
}

#[test]
fn a_mirror_with_errors_is_in_step_again_later() {
    run(|local| async move {
        let (source, target) = (Mem::filled(SIZE, 1), Mem::new(SIZE, None));
        let disk = disk_of(source.clone());
        let errors = Errors { source: OnError::Stop, target: OnError::Ignore };
        let options = MirrorOptions { errors, ..mirror(&target, Sync::Full) };
        target.fail(true, 0, libc::EIO, 2);
        source.fail(false, 100_000, libc::EIO, 1);
        let job = Mirror::start(&local, disk.clone(), options, start()).await;
        until(&local, || job.info().paused && !job.info().busy).await;
        assert_eq!(job.info().io_status, IoStatus::Failed);
        assert!(job.bitmap().unwrap().1 > 0 && job.bitmap().unwrap().0 == 512);
        job.resume();
        until(&local, || job.shared.state.lock().ready).await;
        let ready = |events: &[Event]| {
            events.iter().filter(|event| matches!(event, Event::Ready(_))).count()
        };
        assert_eq!(ready(&events(&job)), 1);
        target.fail(true, 5000, libc::EIO, 1);
        disk.write(5000, IoBuf::copy_of(b"x"), false).await.unwrap();
        until(&local, || job.take_events().contains(&error(true, Action::Ignore))).await;
        until(&local, || job.shared.state.lock().ready).await;
        complete(&job);
        assert!(ended(&local, &job).await.3);
        assert_eq!(all(&*disk.node()).await[4999..5002], [1, b'x', 1]);
    });
}

#[test]
fn a_stream_ignores_what_it_cannot_read_and_says_so() {
    run(|local| async move {
        let below = Mem::filled(3 << 20, 5);
        let top = Mem::new(3 << 20, Some(below.clone()));
        let disk = disk_of(top.clone());
        below.fail(false, 600_000, libc::EIO, 1);
        let options = StreamOptions { base: None, backing_file: None, on_error: OnError::Ignore };
        let job = options.start(&local, disk.clone(), start()).await;
        let (info, cancelled, text, _) = ended(&local, &job).await;
        assert_eq!((info.offset, info.len, cancelled), (3 << 20, 3 << 20, false));
        assert_eq!(text.as_deref(), Some("Input/output error"));
        assert!(chain_of(&top).backing().is_some());
        // Once more, and all is well.
        let options = StreamOptions { base: None, backing_file: None, on_error: OnError::Report };
        let job = options.start(&local, disk.clone(), start()).await;
        assert_eq!(ended(&local, &job).await.2, None);
        assert!(chain_of(&top).backing().is_none() && below.closed.get());
        assert!(all(&*top).await.iter().all(|byte| *byte == 5));
        // Nothing to do.
        let options = StreamOptions { base: None, backing_file: None, on_error: OnError::Report };
        let job = options.start(&local, disk.clone(), start()).await;
        assert!(job.has_ended());
        assert_eq!((job.info().len, job.info().offset), (0, 0));
    });
}

fn chain_of(mem: &Rc<Mem>) -> &dyn crate::Image {
    mem.image().unwrap()
}

#[test]
fn jobs_keep_their_pace_and_pause() {
    run(|local| async move {
        let (source, target) = (Mem::filled(4 << 20, 1), Mem::new(4 << 20, None));
        let disk = disk_of(source.clone());
        let began = std::time::Instant::now();
        // One cluster fits a slice, the second does not.
        let job = backup(&target, OnError::Report, OnError::Report)
            .start(&local, disk.clone(), slow(65536 * 10))
            .await;
        until(&local, || job.info().offset >= 3 * 65536).await;
        assert!(began.elapsed() >= std::time::Duration::from_millis(190));
        until(&local, || !job.info().busy).await;
        job.pause();
        local.sleep(std::time::Duration::from_millis(150)).await;
        let (one, before) = (job.info(), disk.info().size);
        local.sleep(std::time::Duration::from_millis(150)).await;
        assert_eq!((job.info(), disk.info().size), (one.clone(), before));
        assert!(one.paused && !one.busy);
        job.resume();
        job.set_speed(0);
        until(&local, || job.has_ended()).await;
        assert_eq!((job.info().offset, job.info().speed), (4 << 20, 0));
        // One that sleeps ends at once.
        let job = backup(&target, OnError::Report, OnError::Report)
            .start(&local, disk.clone(), slow(1))
            .await;
        until(&local, || job.info().offset > 0).await;
        job.cancel(false).unwrap();
        assert!(ended(&local, &job).await.1);
    });
}

/// Who holds the disk has the same image from the first step to the last.
#[test]
fn a_mirror_does_not_pivot_while_the_disk_is_held() {
    run(|local| async move {
        let (top, target) = (Mem::filled(SIZE, 1), Mem::new(SIZE, None));
        let disk = disk_of(top.clone());
        let options = mirror(&target, Sync::Full);
        let job = Mirror::start(&local, disk.clone(), options, start()).await;
        until(&local, || job.shared.state.lock().ready).await;
        let held = disk.hold().await;
        complete(&job);
        for _ in 0..500 {
            local.yield_now().await;
        }
        let now: Rc<dyn Node> = top;
        assert!(crate::chain::same(&disk.node(), &now) && !job.has_ended());
        // Its holder drains it as he likes.
        drop(disk.drain().await);
        assert!(crate::chain::same(&disk.node(), &now));
        drop(held);
        assert!(ended(&local, &job).await.3);
    });
}

#[test]
fn an_image_that_cannot_name_its_backing_file_keeps_it() {
    run(|local| async move {
        let below = Mem::filled(SIZE, 5);
        let mut top = Rc::into_inner(Mem::new(SIZE, Some(below.clone()))).unwrap();
        top.renames = false;
        let top = Rc::new(top);
        let options = StreamOptions { base: None, backing_file: None, on_error: OnError::Report };
        let job = options.start(&local, disk_of(top.clone()), start()).await;
        let (info, _, text, _) = ended(&local, &job).await;
        assert_eq!((info.offset, text.as_deref()), (SIZE, Some("Operation not supported")));
        assert!(chain_of(&top).backing().is_some() && !below.closed.get());
    });
}

#[test]
fn a_loop_that_ends_ends_its_jobs() {
    let job = run(|local| async move {
        let disk = disk_of(Mem::filled(SIZE, 1));
        let target = Mem::new(SIZE, None);
        backup(&target, OnError::Report, OnError::Report).start(&local, disk, slow(1)).await
    });
    job.end();
    assert!(job.has_ended());
    let empty = run(|local| async move {
        let disk = disk_of(Mem::new(0, None));
        let target = Mem::new(0, None);
        let job = Mirror::start(&local, disk, mirror(&target, Sync::Full), start()).await;
        let end = ended(&local, &job).await;
        (end.1, end.2, end.3)
    });
    assert_eq!(empty, (false, None, false));
}

/// Several requests are under way at once, all have ended when it is done, and an error is told.
#[test]
fn a_commit_at_once_keeps_requests_under_way() {
    run(|_| async {
        let base = Mem::new(8 << 20, None);
        let top = Mem::filled(8 << 20, 7);
        top.set_backing(Some(base.clone()));
        base.read_only.set(true);
        commit_top(&disk_of(top.clone())).await.unwrap();
        assert!(all(&*base).await.iter().all(|byte| *byte == 7));
        assert!(base.read_only.get() && top.most_waiting.get() > 2);
        top.write(0, IoBuf::zeroed(4096), false).await.unwrap();
        base.fail(true, 3 << 20, libc::EIO, 1);
        let error = commit_top(&disk_of(top.clone())).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        assert_eq!(all(&*top).await[4096], 7);
        commit_top(&disk_of(top.clone())).await.unwrap();
        assert!(all(&*base).await == all(&*top).await);
    });
}
