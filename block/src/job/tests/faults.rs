//! Jobs that meet errors, keep their pace, pause, wait for others, and end before their time.

use super::*;

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
