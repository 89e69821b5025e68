use super::*;
use crate::device::{Device, DeviceCell, read_bytes};
use crate::hv::fake::{Call, Fake};
use crate::state::{Blob, StateError};
use proptest::prelude::*;

/// Reads as its own number plus the offset; remembers writes.
struct Probe {
    id: u8,
    writes: Vec<(At, Vec<u8>)>,
}

impl Device for Probe {
    fn read(&mut self, at: At, data: &mut [u8]) {
        read_bytes(at, data, |offset| self.id.wrapping_add(offset as u8));
    }
    fn write(&mut self, at: At, data: &[u8]) {
        self.writes.push((at, data.to_vec()));
    }
    fn reset(&mut self) {}
    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &())
    }
    fn load(&mut self, _: &Blob) -> Result<(), StateError> {
        Ok(())
    }
}

fn probe(id: u8) -> Arc<DeviceCell<Probe>> {
    DeviceCell::new(&format!("probe{id}"), Probe { id, writes: Vec::new() })
}

fn slot(id: u32, guest: u64, size: u64, offset: u64) -> Call {
    Call::Slot { id, guest, size, offset, readonly: false, log: false }
}

fn ranges(space: &Space) -> Vec<(u64, u64, String)> {
    space.view().ranges().collect()
}

#[test]
fn a_window_over_ram_splits_its_slot_and_gives_it_back() {
    let hv = Fake::new();
    let space = Space::new(SpaceKind::Memory, hv.clone());
    let ram = RamBlock::anonymous(0x10_0000).unwrap();
    space.map(Mapping::ram(0, ram)).unwrap();
    assert_eq!(hv.take_calls(), [slot(0, 0, 0x10_0000, 0)]);
    let window = space.map(Mapping::device(0xa0000, 0x20000, probe(1), 0)).unwrap();
    assert_eq!(
        hv.take_calls(),
        [slot(0, 0, 0, 0), slot(0, 0, 0xa0000, 0), slot(1, 0xc0000, 0x40000, 0xc0000)]
    );
    let mut byte = [0];
    space.read(0xa0005, &mut byte);
    assert_eq!(byte, [6]);
    space.unmap(window).unwrap();
    assert_eq!(
        hv.take_calls(),
        [slot(0, 0, 0, 0), slot(1, 0xc0000, 0, 0xc0000), slot(0, 0, 0x10_0000, 0)]
    );
}

#[test]
fn an_access_is_split_where_mappings_meet_and_misses_read_as_ones() {
    let space = Space::new(SpaceKind::Ports, Fake::new());
    let (a, b) = (probe(0x10), probe(0x20));
    space.map(Mapping::device(0x100, 2, a.clone(), 3)).unwrap();
    space.map(Mapping::device(0x102, 1, b, 0)).unwrap();
    let mut data = [0; 6];
    space.read(0xff, &mut data);
    assert_eq!(data, [0xff, 0x10, 0x11, 0x20, 0xff, 0xff]);
    assert_eq!(space.misses(), 2);
    space.write(0x101, &[1, 2, 3, 4]);
    let at = At { region: 3, offset: 1 };
    assert_eq!(a.lock().writes, [(at, vec![1])]);
    // The end of the space is an end, not a wrap.
    let mut data = [0; 4];
    space.read(0xfffe, &mut data);
    assert_eq!(data, [0xff; 4]);
}

#[test]
fn the_higher_priority_then_the_later_mapping_wins() {
    let space = Space::new(SpaceKind::Ports, Fake::new());
    space.map(Mapping::device(0, 0x10, probe(1), 0)).unwrap();
    let low = Mapping { priority: 0, ..Mapping::device(0, 0x20, probe(2), 0) };
    space.map(low).unwrap();
    let id = space.map(Mapping::device(4, 4, probe(3), 0)).unwrap();
    let name = |n: u8| format!("probe{n}");
    assert_eq!(
        ranges(&space),
        [(0, 3, name(1)), (4, 7, name(3)), (8, 15, name(1)), (16, 31, name(2))]
    );
    space.place(id, 0x1e, true).unwrap();
    assert_eq!(ranges(&space), [(0, 15, name(1)), (16, 0x1d, name(2)), (0x1e, 0x21, name(3))]);
    space.place(id, 0x1e, false).unwrap();
    assert_eq!(ranges(&space), [(0, 15, name(1)), (16, 31, name(2))]);
    assert!(space.place(id, 0xffff, true).is_err());
}

#[test]
fn doorbells_follow_their_mapping_and_hide_with_it() {
    let hv = Fake::new();
    let space = Space::new(SpaceKind::Memory, hv.clone());
    let fd = Arc::new(EventFd::new(0).unwrap());
    let bell = Bell { offset: 0x10, width: 2, value: Some(1), fd };
    let mapping = Mapping { bells: vec![bell], ..Mapping::device(0x1000, 0x100, probe(1), 0) };
    let id = space.map(mapping).unwrap();
    let at = |address| Doorbell { space: SpaceKind::Memory, address, width: 2, value: Some(1) };
    assert_eq!(hv.take_calls(), [Call::Doorbell(at(0x1010), true)]);
    space.place(id, 0x2000, true).unwrap();
    assert_eq!(
        hv.take_calls(),
        [Call::Doorbell(at(0x1010), false), Call::Doorbell(at(0x2010), true)]
    );
    let cover = Mapping { priority: 2, ..Mapping::device(0x2000, 0x1000, probe(2), 0) };
    space.map(cover).unwrap();
    assert_eq!(hv.take_calls(), [Call::Doorbell(at(0x2010), false)]);
}

#[test]
fn what_was_written_is_known_also_of_a_slot_that_goes() {
    use vm_memory::bitmap::Bitmap;
    let hv = Fake::new();
    let space = Space::new(SpaceKind::Memory, hv.clone());
    let ram = RamBlock::anonymous(0x10_0000).unwrap();
    let id = space.map(Mapping::ram(0x10_0000, ram.clone())).unwrap();
    space.log_dirty(true).unwrap();
    hv.dirty(0, 5);
    space.harvest_dirty().unwrap();
    let bitmap = ram.region().bitmap();
    assert!(bitmap.dirty_at(5 * 4096) && !bitmap.dirty_at(7 * 4096));
    // A vCPU may write until the slot is gone: all its pages may have been written.
    space.unmap(id).unwrap();
    assert!((0..256).all(|page| bitmap.dirty_at(page * 4096)));
}

#[test]
fn what_is_written_is_logged_while_changes_are_made_together() {
    let hv = Fake::new();
    let space = Space::new(SpaceKind::Memory, hv.clone());
    let ram = RamBlock::anonymous(0x10_0000).unwrap();
    space.map(Mapping::ram(0, ram)).unwrap();
    let window = Mapping { enabled: false, ..Mapping::device(0xa0000, 0x60000, probe(1), 0) };
    let window = space.map(window).unwrap();
    hv.take_calls();
    let logged = |size, log| Call::Slot { id: 0, guest: 0, size, offset: 0, readonly: false, log };
    let change = |on: bool| {
        space.place(window, 0xa0000, on).unwrap();
        space.log_dirty(on).unwrap();
        hv.take_calls()
    };
    assert_eq!(space.together(|| change(true)).unwrap(), [logged(0x10_0000, true)]);
    assert_eq!(hv.take_calls(), [logged(0, true), logged(0xa0000, true)]);
    let calls = space.together(|| change(false)).unwrap();
    assert_eq!(calls, [Call::TakeDirty(0), logged(0xa0000, false)]);
    assert_eq!(hv.take_calls(), [logged(0, false), logged(0x10_0000, false)]);
}

#[test]
fn memory_is_watched_by_the_pages_of_its_slots() {
    let hv = Fake::new();
    let space = Space::new(SpaceKind::Memory, hv.clone());
    let [ram, other] = [(); 2].map(|()| RamBlock::anonymous(0x10_0000).unwrap());
    space.map(Mapping::ram(0, ram.clone())).unwrap();
    space.map(Mapping::ram(0x10_0000, other.clone())).unwrap();
    space.map(Mapping::device(0xa0000, 0x20000, probe(1), 0)).unwrap();
    space.watch(&ram, 0, 0x10_0000).unwrap();
    space.log_dirty(true).unwrap();
    hv.take_calls();
    let id = |guest| {
        let slots = &space.writer.lock().slots;
        slots.iter().find(|slot| slot.guest == guest).unwrap().id
    };
    let (low, high, next) = (id(0), id(0xc0000), id(0x10_0000));
    space.watch(&ram, 0x8_0000, u64::MAX).unwrap();
    assert_eq!(hv.take_calls(), [Call::Watch(low, 0x80..0xa0), Call::Watch(high, 0..0x40)]);
    space.watch(&ram, 0xc1000, 0x2000).unwrap();
    space.watch(&other, 0, 0x1000).unwrap();
    assert_eq!(hv.take_calls(), [Call::Watch(high, 1..3), Call::Watch(next, 0..1)]);
    hv.refuse(|call| matches!(call, Call::Watch(..)));
    space.watch(&ram, 0, 0x1000).unwrap_err();
}

#[test]
fn neighbours_of_one_priority_are_one_slot_and_changes_together_one_change() {
    let hv = Fake::new();
    let space = Space::new(SpaceKind::Memory, hv.clone());
    let ram = RamBlock::anonymous(0x10_0000).unwrap();
    let part = |start: u64, size, priority| Mapping {
        base: start,
        size,
        priority,
        target: Target::Ram { block: ram.clone(), offset: start, readonly: false },
        ..Mapping::ram(0, ram.clone())
    };
    let ids = space.together(|| {
        space.map(part(0, 0x8000, 0)).unwrap();
        [0x8000, 0xa000, 0xc000].map(|start| space.map(part(start, 0x2000, 2)).unwrap())
    });
    assert_eq!(hv.take_calls(), [slot(0, 0, 0x8000, 0), slot(1, 0x8000, 0x6000, 0x8000)]);
    space.place(ids.unwrap()[1], 0xa000, false).unwrap();
    let apart = [slot(1, 0x8000, 0x2000, 0x8000), slot(2, 0xc000, 0x2000, 0xc000)];
    assert_eq!(hv.take_calls(), [[slot(1, 0x8000, 0, 0x8000)].as_slice(), &apart].concat());
    // What is refused shows when it is published.
    hv.refuse(|call| matches!(call, Call::Slot { guest: 0x10_0000, .. }));
    let map = || space.map(Mapping { base: 0x10_0000, ..part(0, 0x1000, 0) });
    assert!(matches!(space.together(map), Err(SpaceError::Hypervisor(_))));
}

#[test]
fn rom_takes_no_writes_and_a_dead_device_reads_as_ones() {
    let space = Space::new(SpaceKind::Memory, Fake::new());
    let block = RamBlock::anonymous(4096).unwrap();
    block.write(0, &[7]);
    let target = Target::Ram { block, offset: 0, readonly: true };
    space.map(Mapping { target, ..Mapping::device(0, 4096, probe(0), 0) }).unwrap();
    space.write(0, &[8]);
    let mut byte = [0];
    space.read(0, &mut byte);
    assert_eq!(byte, [7]);
    let device = probe(9);
    space.map(Mapping::device(0, 1, device.clone(), 0)).unwrap();
    device.mark_dead();
    space.read(0, &mut byte);
    assert_eq!(byte, [0xff]);
}

proptest! {
    /// The painted view against the definition: the topmost enabled mapping at each address.
    #[test]
    fn painting_matches_its_definition(
        maps in prop::collection::vec((0u64..40, 1u64..20, -2i8..3, any::<bool>()), 0..12),
        moves in prop::collection::vec((0usize..12, 0u64..40, any::<bool>()), 0..6),
    ) {
        let space = Space::new(SpaceKind::Ports, Fake::new());
        let mut model = Vec::new();
        for (n, (base, size, priority, enabled)) in maps.into_iter().enumerate() {
            let mapping = Mapping::device(base, size, probe(n as u8), 0);
            let id = space.map(Mapping { priority, enabled, ..mapping }).unwrap();
            model.push((id, n, base, size, priority, enabled));
        }
        for (n, base, enabled) in moves {
            if let Some(entry) = model.get_mut(n) {
                space.place(entry.0, base, enabled).unwrap();
                (entry.2, entry.5) = (base, enabled);
            }
        }
        for address in 0..64u64 {
            let expected = model
                .iter()
                .filter(|(.., base, size, _, enabled)| *enabled && *base <= address && address < base + size)
                .max_by_key(|(_, n, _, _, priority, _)| (*priority, *n))
                .map(|(_, n, base, ..)| (*n as u8).wrapping_add((address - base) as u8));
            let mut byte = [0];
            space.read(address, &mut byte);
            prop_assert_eq!(byte[0], expected.unwrap_or(0xff));
        }
    }
}

/// What the hypervisor has, by the calls it took.
#[derive(Default)]
struct Had {
    slots: std::collections::BTreeMap<u32, (u64, u64, bool)>,
    bells: Vec<u64>,
}

impl Had {
    fn follow(&mut self, calls: Vec<Call>, refused: impl Fn(&Call) -> bool) {
        for call in calls.into_iter().filter(|call| !refused(call)) {
            match call {
                Call::Slot { id, size: 0, .. } => assert!(self.slots.remove(&id).is_some()),
                Call::Slot { id, guest, size, log, .. } => {
                    let overlaps = |(other, (base, len, _)): (&u32, &(u64, u64, bool))| {
                        *other != id && guest < base + len && *base < guest + size
                    };
                    assert!(!self.slots.iter().any(overlaps), "{guest:#x} overlaps");
                    let old = self.slots.insert(id, (guest, size, log));
                    assert!(
                        old.is_none_or(|old| (old.0, old.1) == (guest, size)),
                        "slot {id} moved"
                    );
                }
                Call::Doorbell(at, true) => self.bells.push(at.address),
                Call::Doorbell(at, false) => {
                    let place = self.bells.iter().position(|address| *address == at.address);
                    self.bells.swap_remove(place.expect("was bound"));
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_refused_step_is_done_with_the_next_change() {
    // Each kind of step refused in turn while a window with a doorbell comes and goes.
    let steps: [fn(&Call) -> bool; 5] = [
        |call| matches!(call, Call::Slot { size: 0, .. }),
        |call| matches!(call, Call::Slot { size: 1.., .. }),
        |call| matches!(call, Call::Doorbell(_, true)),
        |call| matches!(call, Call::Doorbell(_, false)),
        |call| matches!(call, Call::TakeDirty(_)),
    ];
    for (index, refused) in steps.into_iter().enumerate() {
        let hv = Fake::new();
        let space = Space::new(SpaceKind::Memory, hv.clone());
        let mut had = Had::default();
        space.map(Mapping::ram(0, RamBlock::anonymous(0x10_0000).unwrap())).unwrap();
        let fd = Arc::new(EventFd::new(libc::EFD_NONBLOCK).unwrap());
        let bells = vec![Bell { offset: 0x10, width: 2, value: None, fd }];
        let window =
            Mapping { bells, enabled: false, ..Mapping::device(0xa0000, 0x20000, probe(1), 0) };
        let window = space.map(window).unwrap();
        space.log_dirty(index == 4).unwrap();
        had.follow(hv.take_calls(), |_| false);
        for enabled in [true, false] {
            hv.refuse(refused);
            let done = space.place(window, 0xa0000, enabled);
            had.follow(hv.take_calls(), refused);
            hv.refuse(|_| false);
            space.log_dirty(index == 4).unwrap();
            had.follow(hv.take_calls(), |_| false);
            let slots: Vec<_> = had.slots.values().map(|slot| (slot.0, slot.1)).collect();
            let split = [(0, 0xa0000), (0xc0000, 0x40000)];
            assert_eq!(slots, if enabled { &split[..] } else { &[(0, 0x10_0000)] }, "{index}");
            assert_eq!(had.bells, if enabled { &[0xa0010][..] } else { &[] }, "{index}");
            // Slots change both times, a doorbell once; no log is taken of a slot that goes.
            assert!(done.is_err() || index >= 2, "{index}");
        }
        hv.refuse(refused);
        let fd = Arc::new(EventFd::new(libc::EFD_NONBLOCK).unwrap());
        let bells = vec![Bell { offset: 0x10, width: 2, value: None, fd }];
        let other = Mapping { bells, ..Mapping::device(0x80000, 0x1000, probe(2), 0) };
        let before = ranges(&space);
        if space.map(other).is_err() {
            assert_eq!(ranges(&space), before, "what could not be mapped is not there");
        }
    }
}
