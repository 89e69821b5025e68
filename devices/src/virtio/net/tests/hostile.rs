//! Drivers that do what none should.

use super::super::header::NEEDS_CSUM;
use super::*;
use proptest::prelude::*;

impl Rig {
    fn needs_reset(&self) -> String {
        self.signals.wait(|| self.signals.needs_reset.load(Ordering::SeqCst).then_some(()));
        self.signals.reason.lock().clone()
    }
}

#[test]
fn chains_that_are_no_requests() {
    let cases = [
        (1, &[0; 11][..], 0, "a frame has no header"),
        (0, &[], 11, "a receive buffer is too small"),
        (0, b"readable", 0, "a receive buffer is too small"),
        (2, &[0, 0, 1], 0, "no room for the answer"),
    ];
    for (queue, data, room, why) in cases {
        let mut rig = Rig::started(PLAIN, &[], Features::empty());
        let readable = if data.is_empty() { &[][..] } else { &[data] };
        let writable = if room == 0 { &[][..] } else { &[room] };
        rig.drivers[queue].send(readable, writable);
        assert!(rig.far.send(0, &frame(OWN, 60)));
        let said = rig.needs_reset();
        assert!(said.contains(why), "{said}");
        // It can be stopped, reset and used again.
        rig.device.stop();
        rig.device.reset();
    }
}

#[test]
fn one_broken_queue_leaves_the_others() {
    let mut rig = Rig::started(PLAIN, &[], Features::empty());
    rig.drivers[2].send(&[&[0, 0, 1]], &[]);
    rig.needs_reset();
    rig.send(plain(), &frame(OTHER, 60));
    assert_eq!(rig.far_recv(), frame(OTHER, 60));
    assert_eq!(rig.device.stop().len(), 3);
}

#[test]
fn headers_that_lie() {
    let mut rig = Rig::started(PLAIN, &[], Features::HOST_USO);
    let lies = [
        Header { flags: NEEDS_CSUM, csum_start: 60, csum_offset: 0, ..plain() },
        Header { flags: NEEDS_CSUM, csum_start: 0, csum_offset: u16::MAX, ..plain() },
        Header { gso_type: 1, gso_size: 0, flags: NEEDS_CSUM, csum_start: 34, ..plain() },
        Header { gso_type: 4, gso_size: 1, flags: NEEDS_CSUM, csum_start: 34, ..plain() },
        Header { gso_type: 3, gso_size: 1000, flags: NEEDS_CSUM, csum_start: 34, ..plain() },
        Header { gso_type: 5, gso_size: 1000, flags: NEEDS_CSUM, csum_start: 34, ..plain() },
        Header { gso_type: 0x7f, ..plain() },
    ];
    for header in lies {
        rig.send(header, &frame(OTHER, 60));
        rig.tx().wait_used();
    }
    assert!(rig.far.recv(0).is_none());
    rig.send(plain(), &frame(OTHER, 60));
    assert_eq!(rig.far_recv(), frame(OTHER, 60));
    assert!(!rig.signals.needs_reset.load(Ordering::SeqCst));
}

#[test]
fn a_command_of_any_length_is_answered() {
    let mut rig = Rig::started(PLAIN, &[], Features::empty());
    let huge = vec![1; 500_000];
    for length in [2, 3, 70_000, 500_000] {
        let control = &mut rig.drivers[2];
        control.send(&[&[1, 0], &huge[2..length.max(3)]], &[1]);
        assert_eq!(control.wait_used().data, [control::ERROR]);
    }
    rig.settle();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_sent_or_commanded(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 12..200), 1..8),
        commands in prop::collection::vec(prop::collection::vec(any::<u8>(), 3..24), 1..8),
        header: bool,
    ) {
        let caps = if header { TAP } else { PLAIN };
        let mut rig = Rig::started(caps, &[("mq", "on")], Features::empty());
        for frame in &frames {
            rig.tx().send(&[frame], &[]);
            rig.tx().wait_used();
        }
        for command in &commands {
            let mut command = command.clone();
            command[0] %= 7;
            command[1] %= 3;
            rig.command(&command);
        }
        prop_assert_eq!(rig.device.stop().len(), 5);
        let blob = rig.device.save().unwrap();
        rig.device.reset();
        rig.device.load(&blob).unwrap();
        prop_assert_eq!(rig.device.save().unwrap(), blob);
    }
}
