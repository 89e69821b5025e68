use super::log::Log;
use super::*;
use crate::virtio::testing::Driver;
use vm_memory::GuestMemoryBackend;
use vm_memory::bitmap::Bitmap;
use vm_memory::{GuestAddress, GuestMemoryRegion, MmapRegion};

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

#[test]
fn what_the_kernel_notes_is_marked_in_ram() {
    let ranges = [(GuestAddress(0), 0x10_0000), (GuestAddress(1 << 32), 0x10_0000)];
    let memory = GuestMemory::from_ranges(&ranges).unwrap();
    let log = Log::new(&memory).unwrap();
    let dirty = |address: u64| {
        let (region, offset) = memory.to_region_addr(GuestAddress(address)).unwrap();
        region.bitmap().dirty_at(offset.0 as usize)
    };
    // Pages in both pieces of RAM, the last one of all, and one in the hole between them.
    for page in [3, 64, (1 << 20) + 7, (1 << 20) + 0xff, 0x1000] {
        log.note(page);
    }
    log.harvest(&memory);
    for page in [3, 64, (1 << 20) + 7, (1 << 20) + 0xff] {
        assert!(dirty(page * 0x1000), "page {page:#x}");
    }
    assert!(!dirty(0x2000) && !dirty(0x4000) && !dirty(1 << 32));
    // They are told once.
    memory.iter().for_each(|region| MmapRegion::bitmap(region).reset());
    log.harvest(&memory);
    assert!(!dirty(0x3000));
    log.note(3);
    log.clear();
    log.harvest(&memory);
    assert!(!dirty(0x3000));
}
