use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::tempfile::TempFile;

use super::*;

/// Far beyond what any test takes: reaching it is a failure.
const LONG: Duration = Duration::from_secs(20);

fn run<F: Future>(test: impl FnOnce(Local) -> F) -> F::Output {
    let mut the_loop = Loop::new("test").unwrap();
    let local = the_loop.local().clone();
    the_loop.run(async {
        match race(test(local.clone()), local.sleep(LONG)).await {
            Either::Left(out) => out,
            Either::Right(()) => panic!("the test hangs"),
        }
    })
}

fn pair() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    (a, b)
}

#[test]
fn runs_the_root_and_keeps_tasks_between_runs() {
    let mut the_loop = Loop::new("test").unwrap();
    let seen = Rc::new(Cell::new(0));
    let go = Notify::new();
    let (s, g) = (seen.clone(), go.clone());
    let task = the_loop.local().spawn(async move {
        g.notified().await;
        s.set(7);
        "done"
    });
    let local = the_loop.local().clone();
    assert_eq!(the_loop.run(async { 5 }), 5);
    the_loop.run(local.yield_now());
    assert_eq!(seen.get(), 0);
    go.notify();
    assert_eq!(the_loop.run(task), "done");
    assert_eq!(seen.get(), 7);
}

#[test]
fn dropping_a_task_drops_its_future_and_detaching_does_not() {
    run(|local| async move {
        let held = Rc::new(());
        let task = {
            let held = held.clone();
            local.spawn(async move {
                std::future::pending::<()>().await;
                drop(held);
            })
        };
        local.yield_now().await;
        assert_eq!(Rc::strong_count(&held), 2);
        drop(task);
        assert_eq!(Rc::strong_count(&held), 1);

        let ran = Notify::new();
        let r = ran.clone();
        local.spawn(async move { r.notify() }).detach();
        ran.notified().await;
    });
}

#[test]
fn a_task_may_cancel_itself_and_spawn_others() {
    run(|local| async move {
        let own: Rc<RefCell<Option<Task<()>>>> = Rc::default();
        let held = Rc::new(());
        let task = {
            let (own, held, local) = (own.clone(), held.clone(), local.clone());
            local.clone().spawn(async move {
                local.spawn(async {}).detach();
                own.borrow_mut().take();
                std::future::pending::<()>().await;
                drop(held);
            })
        };
        *own.borrow_mut() = Some(task);
        while Rc::strong_count(&held) > 1 {
            local.yield_now().await;
        }
        assert!(own.borrow().is_none());
    });
}

#[test]
fn dropping_the_loop_drops_tasks_and_posted_closures() {
    let the_loop = Loop::new("test").unwrap();
    let held = Arc::new(());
    let h = held.clone();
    the_loop.handle().post(move |_| drop(h));
    let (h, local) = (held.clone(), the_loop.local().clone());
    the_loop
        .local()
        .spawn(async move {
            std::future::pending::<()>().await;
            drop((h, local));
        })
        .detach();
    let handle = the_loop.handle();
    drop(the_loop);
    assert_eq!(Arc::strong_count(&held), 1);
    let h = held.clone();
    handle.post(move |_| drop(h));
    assert_eq!(Arc::strong_count(&held), 1);
    assert_eq!(handle.call(|_| 1), None);
}

#[test]
fn posts_run_in_order_on_the_loops_thread() {
    let (thread, handle) = Thread::spawn("io-test").unwrap();
    let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
    for i in 0..1000 {
        let order = order.clone();
        handle.post(move |_| order.lock().push(i));
    }
    let name = handle.call(|_| std::thread::current().name().map(str::to_owned));
    assert_eq!(name.unwrap().as_deref(), Some("io-test"));
    assert_eq!(*order.lock(), (0..1000).collect::<Vec<_>>());
    drop(thread);
    assert_eq!(handle.call(|_| ()), None);
}

#[test]
fn a_waker_works_from_another_thread() {
    run(|_| async {
        for _ in 0..50 {
            let flag = Notify::new();
            let raise = flag.clone();
            let thread = std::thread::spawn(move || raise.notify());
            flag.notified().await;
            thread.join().unwrap();
        }
    });
}

#[test]
fn notify_is_kept_and_counts_once() {
    run(|local| async move {
        let flag = Notify::new();
        flag.notify();
        flag.notify();
        flag.notified().await;
        let again = race(flag.notified(), local.yield_now()).await;
        assert_eq!(again, Either::Right(()));
    });
}

#[test]
fn sleeps_end_in_order_and_never_early() {
    run(|local| async move {
        let start = Instant::now();
        let order = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = [30u64, 10, 20, 10]
            .into_iter()
            .map(|ms| {
                let (l, order) = (local.clone(), order.clone());
                local.spawn(async move {
                    l.sleep_until(start + Duration::from_millis(ms)).await;
                    assert!(start.elapsed() >= Duration::from_millis(ms));
                    order.borrow_mut().push(ms);
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
        assert_eq!(*order.borrow(), [10, 10, 20, 30]);
        local.sleep_until(start).await;
        local.sleep(Duration::ZERO).await;
        let never = race(local.sleep(Duration::MAX), local.yield_now()).await;
        assert_eq!(never, Either::Right(()));
    });
}

#[test]
fn a_sleep_after_an_idle_timer_still_fires() {
    run(|local| async move {
        for _ in 0..5 {
            // Leaves the timerfd armed for a deadline nobody has any more.
            let short = Duration::from_millis(2);
            let kept = race(local.yield_now(), local.sleep(short)).await;
            assert_eq!(kept, Either::Left(()));
            let (flag, raise) = (Notify::new(), Notify::new());
            let (f, r) = (flag.clone(), raise.clone());
            let thread = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(4));
                f.notify();
                drop(r);
            });
            flag.notified().await;
            thread.join().unwrap();
            local.sleep(short).await;
        }
    });
}

#[test]
fn readiness_is_level_triggered() {
    run(|local| async move {
        let (a, mut b) = pair();
        let a = local.watch(a).unwrap();
        b.write_all(b"xy").unwrap();
        let mut byte = [0];
        for expect in b"xy" {
            a.readable().await;
            (&mut a.get()).read_exact(&mut byte).unwrap();
            assert_eq!(byte[0], *expect);
        }
        let idle = race(a.readable(), local.sleep(Duration::from_millis(5))).await;
        assert_eq!(idle, Either::Right(()));
        // The wait that was dropped took nothing along.
        b.write_all(b"z").unwrap();
        a.readable().await;
        a.writable().await;
        drop(b);
        a.readable().await;
        assert_eq!((&mut a.get()).read(&mut byte).unwrap(), 1);
        a.readable().await;
        assert_eq!((&mut a.get()).read(&mut byte).unwrap(), 0);
    });
}

#[test]
fn readiness_nobody_waits_for_does_not_spin() {
    run(|local| async move {
        let (a, mut b) = pair();
        let a = Rc::new(local.watch(a).unwrap());
        b.write_all(b"x").unwrap();
        a.readable().await;
        drop(b);
        // Readable and hung up, with no waiter: at most one turn may notice.
        let turns = Rc::new(Cell::new(0u64));
        let sleep = local.sleep(Duration::from_millis(20));
        let mut sleep = std::pin::pin!(sleep);
        let t = turns.clone();
        // Each turn that wakes nothing is not seen by a task, so count by CPU time.
        let before = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        std::future::poll_fn(|cx| {
            t.set(t.get() + 1);
            sleep.as_mut().poll(cx)
        })
        .await;
        let after = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let spent = (after.tv_sec - before.tv_sec) * 1_000_000_000 + after.tv_nsec - before.tv_nsec;
        assert!(spent < 10_000_000, "{spent} ns of CPU in a 20 ms sleep");
        assert!(turns.get() <= 3);
        a.readable().await;
    });
}

#[test]
fn hangup_is_told_beside_unread_input() {
    run(|local| async move {
        for half in [false, true] {
            let (a, mut b) = pair();
            let a = local.watch(a).unwrap();
            b.write_all(b"x").unwrap();
            let yet = race(a.hung_up(), local.sleep(Duration::from_millis(2))).await;
            assert_eq!(yet, Either::Right(()));
            if half {
                b.shutdown(std::net::Shutdown::Write).unwrap();
            } else {
                drop(b);
            }
            a.hung_up().await;
            a.readable().await;
            let mut buf = [0; 2];
            assert_eq!((&mut a.get()).read(&mut buf).unwrap(), 1);
        }
    });
}

#[test]
fn both_directions_wait_on_one_watch() {
    run(|local| async move {
        let (a, b) = pair();
        let a = Rc::new(local.watch(a).unwrap());
        let b = Rc::new(local.watch(b).unwrap());
        const TOTAL: usize = 4 << 20;
        let send = |to: Rc<Watch<UnixStream>>| async move {
            let chunk = [7u8; 10_000];
            let mut left = TOTAL;
            while left > 0 {
                let n = left.min(chunk.len());
                left -= to.io(Direction::Write, |mut s| s.write(&chunk[..n])).await.unwrap();
            }
        };
        let receive = |from: Rc<Watch<UnixStream>>| async move {
            let mut buf = [0u8; 7_000];
            let mut got = 0;
            while got < TOTAL {
                got += from.io(Direction::Read, |mut s| s.read(&mut buf)).await.unwrap();
            }
            got
        };
        let tasks = [local.spawn(send(a.clone())), local.spawn(send(b.clone()))];
        let received = [local.spawn(receive(a)), local.spawn(receive(b))];
        for task in tasks {
            task.await;
        }
        for task in received {
            assert_eq!(task.await, TOTAL);
        }
    });
}

#[test]
fn a_regular_file_is_always_ready() {
    run(|local| async move {
        let file = TempFile::new().unwrap().into_file();
        let file = local.watch(file).unwrap();
        file.readable().await;
        file.writable().await;
    });
}

#[test]
fn eventfd_counts() {
    run(|local| async move {
        let fd = EventFd::new(EFD_NONBLOCK).unwrap();
        let other = fd.try_clone().unwrap();
        let fd = local.watch(fd).unwrap();
        other.write(2).unwrap();
        other.write(3).unwrap();
        assert_eq!(fd.count().await.unwrap(), 5);
        let thread = std::thread::spawn(move || other.write(1).unwrap());
        assert_eq!(fd.count().await.unwrap(), 1);
        thread.join().unwrap();
    });
}

#[test]
fn pool_runs_blocking_work_and_survives_a_panic() {
    run(|local| async move {
        let work: Vec<_> = (0..20u32)
            .map(|i| {
                let l = local.clone();
                local.spawn(async move { l.pool(move || i * 2).await.unwrap() })
            })
            .collect();
        for (i, task) in work.into_iter().enumerate() {
            assert_eq!(task.await, i as u32 * 2);
        }
        local.pool(|| panic!("meant to")).await.unwrap_err();
        assert_eq!(local.pool(|| 3).await.unwrap(), 3);
    });
}

fn file_io(choice: FileIo) {
    let mut the_loop = Loop::with_file_io("test", choice).unwrap();
    let local = the_loop.local().clone();
    let temp = TempFile::new().unwrap();
    let fd = Arc::new(OwnedFd::from(temp.as_file().try_clone().unwrap()));
    the_loop.run(async {
        // More than the ring takes at once.
        let writes: Vec<_> = (0..400u64)
            .map(|i| {
                let (l, fd) = (local.clone(), fd.clone());
                local.spawn(async move { l.write_at(&fd, vec![i as u8; 512], i * 512).await })
            })
            .collect();
        for write in writes {
            let (result, buf) = write.await;
            assert_eq!((result.unwrap(), buf.len()), (512, 512));
        }
        local.fdatasync(&fd).await.unwrap();
        for i in [0u64, 1, 257, 399] {
            let (result, buf) = local.read_at(&fd, vec![0; 512], i * 512).await;
            assert_eq!(result.unwrap(), 512);
            assert_eq!(buf, vec![i as u8; 512]);
        }
        let (result, buf) = local.read_at(&fd, vec![1; 1024], 399 * 512).await;
        assert_eq!((result.unwrap(), buf.len()), (512, 1024));
        let (result, _) = local.read_at(&fd, vec![0; 16], 1 << 40).await;
        assert_eq!(result.unwrap(), 0);

        // Dropped before it is done: it completes all the same.
        {
            let write = std::pin::pin!(local.write_at(&fd, vec![0xee; 512], 1 << 20));
            let mut write = Some(write);
            std::future::poll_fn(|cx| {
                let _ = write.as_mut().unwrap().as_mut().poll(cx);
                Poll::Ready(())
            })
            .await;
            write = None;
            let _ = write;
        }
        loop {
            let (result, buf) = local.read_at(&fd, vec![0; 512], 1 << 20).await;
            if result.unwrap() == 512 && buf == vec![0xee; 512] {
                break;
            }
            local.sleep(Duration::from_millis(1)).await;
        }

        let (one, _other) = io::pipe().unwrap();
        let one = Arc::new(OwnedFd::from(one));
        let (result, _) = local.write_at(&one, vec![0; 1], 0).await;
        result.unwrap_err();
        local.fdatasync(&one).await.unwrap_err();
    });
}

#[test]
fn a_remote_value_stays_on_its_loop() {
    let (_thread, handle) = Thread::spawn("io-test").unwrap();
    let other = Loop::new("test").unwrap();
    let (sent, dropped) = std::sync::mpsc::channel();
    struct Value(u32, std::sync::mpsc::Sender<bool>);
    impl Drop for Value {
        fn drop(&mut self) {
            let _ = self.1.send(std::thread::current().name() == Some("io-test"));
        }
    }
    let remote = handle.call(move |local| local.keep(Rc::new(Value(7, sent)))).unwrap();
    assert!(remote.get(other.local()).is_none());
    let remote = Arc::new(remote);
    let seen = remote.clone();
    let value =
        remote.handle().call_async(move |local| async move { seen.get(&local).map(|v| v.0) });
    assert_eq!(value, Some(Some(7)));
    drop(remote);
    assert!(dropped.recv_timeout(LONG).unwrap());
}

/// The same over buffers of several pieces, more of them at once than the ring takes.
fn buffers(file_io: FileIo) {
    let mut the_loop = Loop::with_file_io("test", file_io).unwrap();
    let local = the_loop.local().clone();
    the_loop.run(async move {
        let fd = Arc::new(OwnedFd::from(TempFile::new().unwrap().into_file()));
        let writes: Vec<_> = (0..600u64)
            .map(|i| {
                let (local, fd) = (local.clone(), fd.clone());
                local.clone().spawn(async move {
                    let byte = [i as u8];
                    let buf = IoBuf::concat(&[IoBuf::copy_of(&byte), IoBuf::copy_of(b"-")]);
                    assert_eq!(local.writev_at(&fd, buf, i * 2, i == 7).await.unwrap(), 2);
                })
            })
            .collect();
        for write in writes {
            write.await;
        }
        let buf = IoBuf::concat(&[IoBuf::zeroed(600), IoBuf::zeroed(1000)]);
        assert_eq!(local.readv_at(&fd, buf.clone(), 0).await.unwrap(), 1200);
        let read = buf.to_vec();
        assert!((0..600).all(|i| read[2 * i..2 * i + 2] == [i as u8, b'-']));
        assert_eq!(local.readv_at(&fd, IoBuf::empty(), 0).await.unwrap(), 0);

        let page = IoBuf::zeroed(4096);
        let none = FallocateFlags::empty();
        local.fallocate(&fd, none, 0, 1 << 20).await.unwrap();
        page.fill(1);
        local.writev_at(&fd, page.clone(), 4096, false).await.unwrap();
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        local.fallocate(&fd, punch, 4096, 4096).await.unwrap();
        assert_eq!(local.readv_at(&fd, page.clone(), 4096).await.unwrap(), 4096);
        assert!(page.is_zero());
        local.fallocate(&fd, none, 0, 0).await.unwrap_err();
        local.readv_at(&fd, page, u64::MAX).await.unwrap_err();
    });
}

#[test]
fn buffers_by_the_ring_where_there_is_one() {
    buffers(FileIo::Auto);
}

#[test]
fn buffers_by_the_pool() {
    buffers(FileIo::Pool);
}

#[test]
fn file_io_by_the_ring_where_there_is_one() {
    file_io(FileIo::Auto);
}

#[test]
fn file_io_by_the_pool() {
    file_io(FileIo::Pool);
}

#[test]
fn dropping_the_loop_waits_for_the_ring() {
    let temp = TempFile::new().unwrap();
    let fd = Arc::new(OwnedFd::from(temp.as_file().try_clone().unwrap()));
    for _ in 0..20 {
        let mut the_loop = Loop::new("test").unwrap();
        let local = the_loop.local().clone();
        let f = fd.clone();
        let l = local.clone();
        local
            .spawn(async move {
                let _ = l.write_at(&f, vec![1; 1 << 20], 0).await;
            })
            .detach();
        the_loop.run(local.yield_now());
        drop(the_loop);
    }
    // Every reference the ring or the pool held is given back in the end.
    let end = Instant::now() + LONG;
    while Arc::strong_count(&fd) > 1 {
        assert!(Instant::now() < end);
        std::thread::yield_now();
    }
}

/// Not a check: the figures, with `cargo test -- --nocapture figures`.
#[test]
fn figures() {
    const ROUNDS: u32 = 2_000;
    let (_thread, handle) = Thread::spawn("io-test").unwrap();
    let start = Instant::now();
    for _ in 0..ROUNDS {
        handle.call(|_| ());
    }
    println!("post to a sleeping loop and back: {:?}", start.elapsed() / ROUNDS);
    let start = Instant::now();
    for _ in 0..ROUNDS * 10 {
        handle.post(|_| ());
    }
    println!("post to a busy loop: {:?}", start.elapsed() / (ROUNDS * 10));
    run(|local| async move {
        let fd = Arc::new(OwnedFd::from(TempFile::new().unwrap().into_file()));
        local.write_at(&fd, vec![1; 4096], 0).await.0.unwrap();
        let ring = local.inner().files.opened().is_some();
        let (start, mut buf) = (Instant::now(), vec![0; 4096]);
        for _ in 0..ROUNDS {
            let (read, back) = local.read_at(&fd, buf, 0).await;
            assert_eq!(read.unwrap(), 4096);
            buf = back;
        }
        println!("4 KiB cached read (ring: {ring}): {:?}", start.elapsed() / ROUNDS);
        let (ping, pong) = (Notify::new(), Notify::new());
        let (i, o) = (ping.clone(), pong.clone());
        let _task = local.spawn(async move {
            loop {
                i.notified().await;
                o.notify();
            }
        });
        let start = Instant::now();
        for _ in 0..ROUNDS {
            ping.notify();
            pong.notified().await;
        }
        println!("two tasks of a loop, there and back: {:?}", start.elapsed() / ROUNDS);
        let (a, b) = pair();
        let (a, b) = (local.watch(a).unwrap(), local.watch(b).unwrap());
        let _task = local.spawn(async move {
            let mut byte = [0];
            while b.io(Direction::Read, |mut s| s.read(&mut byte)).await.unwrap() == 1 {
                (&mut b.get()).write_all(&byte).unwrap();
            }
        });
        let start = Instant::now();
        for _ in 0..ROUNDS {
            (&mut a.get()).write_all(b"x").unwrap();
            let mut byte = [0];
            a.io(Direction::Read, |mut s| s.read(&mut byte)).await.unwrap();
        }
        println!("over a socket pair, there and back: {:?}", start.elapsed() / ROUNDS);
    });
}
