use super::*;
use crate::virtio::testing::Driver;

/// Needs no vhost: how this host's files say that they are none.
#[test]
fn what_is_no_vhost_device_is_refused() {
    let missing = Vhost::open("/dev/no-such-vhost").err().unwrap();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    assert!(Vhost::open("/dev/null").is_err());
}

#[test]
fn only_an_idle_queue_can_be_lent() {
    let mut driver = Driver::new(8, 0);
    let mut queue = driver.queue();
    assert_eq!(queue.idle_at(), Some(0));
    driver.send(&[b"one"], &[4]);
    driver.send(&[b"two"], &[4]);
    let chain = queue.pop().unwrap().unwrap();
    assert_eq!(queue.idle_at(), None);
    queue.push(chain, 0).unwrap();
    assert_eq!(queue.idle_at(), Some(1));
    // The kernel served the other one, and the queue goes on behind it.
    queue.set_position(2);
    assert!(queue.pop().unwrap().is_none());
    driver.send(&[b"three"], &[4]);
    assert_eq!(queue.pop().unwrap().unwrap().reader().array::<5>(), Ok(*b"three"));

    let packed = Driver::new(8, feature::RING_PACKED);
    assert_eq!(packed.queue().idle_at(), None);
}
