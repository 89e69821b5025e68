use super::*;
use crate::virtio::testing::{Machine, common};
use crate::virtio::worker::Running;
use resources::iol::{Handle, Thread};

const EXTRA: u64 = 1 << 5;

/// Gives back what it is sent, on two queues; its configuration is eight bytes.
struct Echo {
    on: Handle,
    running: Vec<Running>,
    config: [u8; 8],
    accepted: u64,
    irq: Option<ConfigIrq>,
}

impl Echo {
    fn new(on: &Handle) -> Box<Echo> {
        Box::new(Echo {
            on: on.clone(),
            running: Vec::new(),
            config: *b"settings",
            accepted: 0,
            irq: None,
        })
    }
}

impl VirtioDevice for Echo {
    fn spec(&self) -> Spec {
        Spec { id: 63, features: EXTRA, queues: vec![64, 16], config_len: 8, pci_class: 0xff00 }
    }
    fn read_config(&mut self, offset: u32, data: &mut [u8]) {
        let offset = offset as usize;
        data.copy_from_slice(&self.config[offset..offset + data.len()]);
    }
    fn write_config(&mut self, offset: u32, data: &[u8]) {
        let offset = offset as usize;
        self.config[offset..offset + data.len()].copy_from_slice(data);
        if let Some(irq) = &self.irq {
            irq.changed();
        }
    }
    fn accepted(&mut self, features: u64) {
        self.accepted = features;
    }
    fn start(&mut self, run: Activation) -> Result<(), String> {
        assert!(self.running.is_empty());
        assert_eq!(run.features, self.accepted);
        self.irq = Some(run.config);
        let serve = |port| {
            Running::each(&self.on, port, |chain| {
                let mut data = vec![0; chain.readable_len() as usize];
                let mut writer = chain.writer();
                chain.reader().read(&mut data);
                Ok(writer.write(&data) as u32)
            })
        };
        self.running = run.ports.into_iter().map(serve).collect();
        Ok(())
    }
    fn stop(&mut self) -> Vec<Port> {
        Running::stop_all(self.running.drain(..))
    }
    fn reset(&mut self) {
        assert!(self.running.is_empty());
        self.config = *b"settings";
    }
    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &self.config)
    }
    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        self.config = blob.parse(1, &[])?;
        Ok(())
    }
}

fn echo() -> (Thread, Handle, Machine) {
    let (thread, handle) = Thread::spawn("test").unwrap();
    let machine = Machine::new(Echo::new(&handle));
    (thread, handle, machine)
}

const RINGS: u64 = feature::VERSION_1 | feature::INDIRECT_DESC | feature::EVENT_IDX;

#[test]
fn a_driver_sets_the_device_up_and_uses_it() {
    let (_thread, _, mut machine) = echo();
    assert_eq!(machine.offered(), RINGS | EXTRA | feature::RING_PACKED);
    assert_eq!(machine.read(common::QUEUES, 2), 2);
    machine.write(common::QUEUE, 2, 1);
    assert_eq!(machine.read(common::SIZE, 2), 16);
    machine.ready(EXTRA);
    assert_eq!(machine.request(0, &[b"first"], &[9]).data, b"first");
    assert_eq!(machine.request(1, &[b"second"], &[9]).data, b"second");
    machine.wires.wait_sent(&[1, 2]);
    // All registers at once, as if by one wide access.
    let mut all = [0xff; 64];
    machine.transport.read_common(0, &mut all);
    assert_eq!((all[20], &all[22..24], &all[28..30]), (0xf, &[1, 0][..], &[1, 0][..]));
}

#[test]
fn features_must_be_agreed_on() {
    let (_thread, _, mut machine) = echo();
    assert!(!machine.negotiate(0), "not a driver of virtio 1");
    assert!(!machine.negotiate(feature::VERSION_1 | 1), "not offered");
    machine.write(common::STATUS, 1, 0xf);
    assert_eq!(machine.read(common::STATUS, 1), 3, "neither agreed nor ready");
    assert!(machine.negotiate(feature::VERSION_1));
    machine.write(common::DRIVER_FEATURES, 4, 0xffff_ffff);
    assert_eq!(machine.read(common::DRIVER_FEATURES, 4), 1, "it is too late");
}

#[test]
fn it_can_be_reset_at_any_time() {
    let (_thread, _, mut machine) = echo();
    for _ in 0..20 {
        machine.ready(0);
        for _ in 0..5 {
            machine.drivers[0].send(&[b"lost, perhaps"], &[20]);
        }
        machine.write(common::STATUS, 1, 0);
        assert_eq!(machine.read(common::STATUS, 1), 0);
        assert_eq!(machine.read(common::ENABLE, 2), 0);
        assert_eq!(machine.read(common::VECTOR, 2), u64::from(NO_VECTOR));
    }
    machine.ready(0);
    assert_eq!(machine.request(0, &[b"again"], &[9]).data, b"again");
}

#[test]
fn the_pin_says_what_messages_do_not() {
    let (_thread, _, mut machine) = echo();
    machine.wires.pin_only.store(true, Ordering::SeqCst);
    machine.ready(0);
    machine.request(0, &[b"x"], &[9]);
    let wires = machine.wires.clone();
    wires.wait(|| wires.pin.load(Ordering::SeqCst).then_some(()));
    assert_eq!(machine.transport.lines().take_isr(), ISR_QUEUE);
    assert!(!wires.pin.load(Ordering::SeqCst));
    machine.transport.write_config(0, b"x");
    assert!(wires.pin.load(Ordering::SeqCst));
    assert_eq!(machine.transport.lines().take_isr(), ISR_CONFIG | ISR_QUEUE);
    assert_eq!(machine.transport.lines().take_isr(), 0);
}

#[test]
fn configuration_of_every_size_and_place() {
    let (_thread, _, mut machine) = echo();
    machine.ready(0);
    let generation = machine.read(common::GENERATION, 1);
    machine.transport.write_config(3, b"!!");
    assert_eq!(machine.read(common::GENERATION, 1), generation + 1);
    assert_eq!(*machine.wires.sent.lock(), [0]);
    assert_eq!(machine.config(0), *b"set!!ngs");
    assert_eq!(machine.config(6), [b'g', b's', 0xff, 0xff]);
    for offset in [0, 1, 7, 8, 9, 0xfff, u64::MAX] {
        for len in [0, 1, 2, 3, 4, 8, 64] {
            let mut data = vec![0xaa; len];
            machine.transport.read_config(offset, &mut data);
            machine.transport.write_config(offset, &data);
            machine.transport.read_common(offset, &mut data);
        }
    }
    assert_ne!(machine.config::<8>(0), *b"settings");
}

#[test]
fn registers_of_every_size_and_value_never_hurt() {
    let (_thread, _, mut machine) = echo();
    machine.ready(0);
    for len in [1, 2, 3, 4, 5, 8] {
        for offset in 0..70 {
            for value in [0, 1, 0x8000, 0xffff_ffff, u64::MAX] {
                // Not the status: that would reset it.
                if offset != common::STATUS {
                    machine.write(offset, len, value);
                }
            }
        }
    }
    machine.write(common::STATUS, 1, 0);
    machine.ready(0);
    assert_eq!(machine.request(0, &[b"alive"], &[9]).data, b"alive");
}

#[test]
fn a_ring_moved_while_running_breaks_the_device_until_it_is_reset() {
    let (_thread, _, mut machine) = echo();
    machine.ready(0);
    machine.write(common::QUEUE, 2, 0);
    machine.write(common::DESC, 8, 0x9000);
    assert_eq!(machine.read(common::STATUS, 1), 0x4f);
    assert_eq!(*machine.wires.sent.lock(), [0]);
    assert_eq!(machine.transport.lines().errors(), 1);
    machine.ready(0);
    assert_eq!(machine.read(common::STATUS, 1), 0xf);
    assert_eq!(machine.request(0, &[b"again"], &[9]).data, b"again");
}

#[test]
fn a_bad_chain_stops_one_queue_only_and_says_so_once() {
    let (_thread, _, mut machine) = echo();
    machine.ready(0);
    machine.drivers[0].offer(99);
    machine.drivers[0].kick();
    machine.wait_needs_reset();
    assert_eq!(machine.request(1, &[b"alive"], &[9]).data, b"alive");
    machine.wires.wait_sent(&[0, 2]);
    // Also one that is saved like that.
    let (_thread, handle) = Thread::spawn("other").unwrap();
    let mut machine = machine.move_to(Echo::new(&handle));
    assert_eq!(machine.read(common::STATUS, 1), 0x4f);
    assert_eq!(machine.request(1, &[b"still"], &[9]).data, b"still");
}

#[test]
fn it_moves_while_it_is_used() {
    moves(RINGS);
    moves(RINGS | feature::RING_PACKED);
}

fn moves(features: u64) {
    let (_thread, handle, mut machine) = echo();
    machine.ready(features);
    for round in 0..10_u8 {
        for _ in 0..3 {
            machine.drivers[0].send(&[&[round]], &[4]);
        }
        machine.drivers[1].send(&[b"other"], &[9]);
        machine = machine.move_to(Echo::new(&handle));
        for _ in 0..3 {
            assert_eq!(machine.wait_used(0).data, [round]);
        }
        assert_eq!(machine.wait_used(1).data, b"other");
    }
}

#[test]
fn a_change_while_stopped_is_told_afterwards() {
    let (_thread, _, mut machine) = echo();
    machine.ready(0);
    machine.transport.stop();
    machine.transport.write_config(0, b"S");
    assert!(machine.wires.sent.lock().is_empty());
    machine.transport.start();
    assert_eq!(*machine.wires.sent.lock(), [0]);
}

#[test]
fn a_change_is_told_once_in_the_moment_of_a_start() {
    let (_thread, _, mut machine) = echo();
    machine.ready(0);
    let (lines, wires) = (machine.transport.lines().clone(), machine.wires.clone());
    let turn = std::sync::atomic::AtomicUsize::new(0);
    let wait_for = |wanted| {
        for tries in 0.. {
            match turn.load(Ordering::SeqCst) {
                reached if reached >= wanted => return,
                _ if tries < 1000 => std::hint::spin_loop(),
                _ => std::thread::yield_now(),
            }
        }
    };
    const ROUNDS: usize = 3000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                wait_for(2 * round + 1);
                lines.config_interrupt();
                turn.store(2 * round + 2, Ordering::SeqCst);
            }
        });
        for round in 0..ROUNDS {
            lines.running.store(false, Ordering::SeqCst);
            turn.store(2 * round + 1, Ordering::SeqCst);
            // As the machine starts.
            (0..round % 40).for_each(|_| std::hint::spin_loop());
            lines.running.store(true, Ordering::SeqCst);
            lines.tell_pending();
            wait_for(2 * round + 2);
            assert_eq!(std::mem::take(&mut *wires.sent.lock()), [0], "round {round}");
        }
    });
}

/// Wires that look, when a descriptor is asked for, whether a change of vectors would be heeded.
#[derive(Default)]
struct Looking(std::sync::OnceLock<std::sync::Weak<Lines>>);

impl Wires for Looking {
    fn messages_on(&self) -> bool {
        true
    }
    fn messages(&self) -> u16 {
        1
    }
    fn send(&self, _: u16) {}
    fn fd(&self, _: u16) -> Option<EventFd> {
        let lines = self.0.get()?.upgrade()?;
        assert!(lines.lent.load(Ordering::SeqCst));
        EventFd::new(EFD_NONBLOCK).ok()
    }
    fn set_pin(&self, _: bool) {}
}

#[test]
fn a_change_of_vectors_is_heeded_from_before_the_vector_is_looked_at() {
    let wires = Arc::new(Looking::default());
    let lines = Arc::new(Lines::new("test", wires.clone(), 1));
    wires.0.set(Arc::downgrade(&lines)).unwrap();
    assert!(lines.queue_fd(0).is_some());
}

#[test]
fn a_driver_that_is_ready_while_stopped_is_served_afterwards() {
    let (_thread, handle) = Thread::spawn("test").unwrap();
    let mut machine = Machine::stopped(Echo::new(&handle));
    machine.ready(0);
    machine.drivers[0].send(&[b"early"], &[9]);
    machine.transport.start();
    assert_eq!(machine.wait_used(0).data, b"early");
}

#[test]
fn wrong_states_are_refused() {
    let (_thread, handle, mut machine) = echo();
    machine.ready(EXTRA);
    machine.transport.stop();
    let good = machine.transport.save().unwrap();
    let check = |change: &dyn Fn(&mut state::State)| {
        let mut state: state::State = good.parse(1, &[]).unwrap();
        change(&mut state);
        let mut other = Machine::stopped(Echo::new(&handle));
        other.transport.load(&Blob::new(1, &state).unwrap())
    };
    assert!(check(&|_| ()).is_ok());
    let wrong: [&dyn Fn(&mut state::State); 9] = [
        &|state| state.status = 0xff,
        &|state| state.status = 7,
        &|state| state.driver_features |= 1 << 40,
        &|state| state.driver_features &= !feature::VERSION_1,
        &|state| state.queues.truncate(1),
        &|state| state.queues[1].layout.size = 32,
        &|state| state.queues[0].layout.size = 0,
        &|state| state.queues[0].position.next_avail = 3,
        &|state| state.device = None,
    ];
    for (number, change) in wrong.iter().enumerate() {
        assert!(check(change).is_err(), "{number}");
    }
}
