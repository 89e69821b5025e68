use super::*;
use crate::virtio::feature;
use crate::virtio::testing::Driver;
use resources::iol::Thread;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn echo(chain: &Chain) -> Result<u32, Broken> {
    let mut data = vec![0; chain.readable_len() as usize];
    let mut reader = chain.reader();
    reader.read_exact(&mut data).map_err(|_| Broken::Request("short"))?;
    if data == b"nonsense" {
        return Err(Broken::Request("nonsense"));
    }
    let mut writer = chain.writer();
    writer.write(&data);
    Ok(writer.written())
}

#[test]
fn requests_are_served_when_kicked_across_stops() {
    let packed = feature::RING_PACKED;
    for features in [0, feature::EVENT_IDX, packed, packed | feature::EVENT_IDX] {
        let (_thread, handle) = Thread::spawn("test").unwrap();
        let mut driver = Driver::new(4, features);
        let mut running = Running::each(&handle, driver.port(), echo);
        for round in 0..200_u32 {
            driver.want_interrupt(true);
            let id = driver.send(&[&round.to_le_bytes()], &[16]);
            let used = driver.wait_used();
            assert_eq!((used.id, &*used.data), (id, &round.to_le_bytes()[..]));
            if round % 50 == 7 {
                let mut ports = running.stop();
                assert_eq!(ports.len(), 1);
                let position = ports.pop().unwrap().queue.position();
                // What comes while it is stopped is found when it goes on.
                driver.send(&[b"meanwhile"], &[16]);
                running = Running::each(&handle, driver.port_at(position), echo);
                assert_eq!(driver.wait_used().data, b"meanwhile");
            }
        }
    }
}

#[test]
fn a_nonsensical_request_breaks_the_queue_and_it_can_still_be_stopped() {
    let (_thread, handle) = Thread::spawn("test").unwrap();
    let mut driver = Driver::new(4, 0);
    let running = Running::each(&handle, driver.port(), echo);
    driver.send(&[b"nonsense"], &[16]);
    let signals = driver.signals.clone();
    signals.wait(|| signals.needs_reset.load(Ordering::SeqCst).then_some(()));
    assert_eq!(*signals.reason.lock(), "nonsense");
    let ports = running.stop();
    assert_eq!(ports[0].queue.broken(), Some(Broken::Request("nonsense")));
}

#[test]
fn stopping_waits_for_what_is_under_way_and_keeps_what_is_put_back() {
    let (_thread, handle) = Thread::spawn("test").unwrap();
    let mut driver = Driver::new(8, 0);
    let ids = [driver.add(&[b"slow"], &[1]), driver.add(&[b"kept"], &[1])];
    let running = Running::start(&handle, vec![driver.port()], |workers| async move {
        let worker = workers[0].clone();
        let slow = worker.next().await.unwrap();
        let kept = worker.next().await.unwrap();
        let local = worker.local().clone();
        let other = worker.clone();
        local
            .clone()
            .spawn(async move {
                other.stopped().await;
                local.sleep(Duration::from_millis(20)).await;
                other.done(slow, 0);
            })
            .detach();
        assert!(worker.next().await.is_none());
        worker.put_back(kept);
    });
    let ports = running.stop();
    assert_eq!(driver.used().unwrap().id, ids[0]);
    let position = ports[0].queue.position();
    assert_eq!(position.pending.len(), 1);
    let running = Running::each(&handle, driver.port_at(position), echo);
    assert_eq!(driver.wait_used().id, ids[1]);
    running.stop();
}

#[test]
fn much_work_for_one_chain_lets_the_loop_turn() {
    let (_thread, handle) = Thread::spawn("test").unwrap();
    let mut driver = Driver::new(4, 0);
    driver.add(&[b"much"], &[]);
    let running = Running::start(&handle, vec![driver.port()], |workers| async move {
        let worker = &workers[0];
        let turns = Rc::new(Cell::new(0));
        let (counted, local) = (turns.clone(), worker.local().clone());
        let counter = worker.local().spawn(async move {
            loop {
                counted.set(counted.get() + 1);
                local.yield_now().await;
            }
        });
        let chain = worker.next().await.unwrap();
        for _ in 0..10 * TURN {
            worker.piece_done().await;
        }
        assert!((9..=11).contains(&turns.get()), "{}", turns.get());
        drop(counter);
        worker.done(chain, 0);
    });
    driver.wait_used();
    running.stop();
}
