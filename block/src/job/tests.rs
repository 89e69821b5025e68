//! Jobs over images in memory, whose requests take their time, beside a guest that writes.

mod faults;

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
