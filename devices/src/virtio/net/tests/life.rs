//! Stop and start, reset, save and load, unplug.

use super::super::control::OK;
use super::super::header::NEEDS_CSUM;
use super::*;

#[test]
fn nothing_is_lost_while_the_machine_stands() {
    let mut rig = Rig::started(PLAIN, &[], Features::empty());
    let (mut sent, mut received) = (0, 0);
    for _ in 0..20 {
        for _ in 0..3 {
            rig.send(plain(), &frame(OTHER, 60 + sent));
            sent += 1;
            assert!(rig.far.send(0, &frame(OWN, 60 + received)));
            rig.rx().send(&[], &[1600]);
            received += 1;
        }
        let ports = rig.device.stop();
        assert_eq!(ports.len(), 3);
        rig.restart(ports);
    }
    for n in 0..sent {
        assert_eq!(rig.far_recv().len(), 60 + n);
    }
    for n in 0..received {
        assert_eq!(rig.receive().1.len(), 60 + n);
    }
}

#[test]
fn frames_in_hand_are_saved() {
    let mut rig = Rig::started(PLAIN, &[], Features::empty());
    // One that found too few buffers, one that the back end takes no more of.
    rig.rx().send(&[], &[16]);
    assert!(rig.far.send(0, &frame(OWN, 100)));
    while rig.far.sent(0).unwrap().has_room() {
        rig.send(plain(), &frame(OTHER, 60));
        rig.tx().wait_used();
    }
    rig.send(plain(), &frame(OTHER, 99));
    rig.tx().wait_used();
    rig.settle();
    let ports = rig.device.stop();
    let blob = rig.device.save().unwrap();
    rig.device.reset();
    assert_ne!(rig.device.save().unwrap(), blob);
    rig.device.load(&blob).unwrap();
    assert_eq!(rig.device.save().unwrap(), blob);
    rig.restart(ports);
    rig.rx().send(&[], &[1600]);
    let used = [rig.rx().wait_used(), rig.rx().wait_used()];
    assert_eq!(used.map(|used| used.written), [16, 96]);
    let mut last = 0;
    rig.signals.wait(|| {
        last = rig.far.recv(0).map_or(last, |frame| frame.len());
        (last == 99).then_some(())
    });
}

#[test]
fn what_a_driver_has_set_is_saved() {
    let mut rig = Rig::started(TAP, &[("mq", "on")], Features::empty());
    assert_eq!(rig.command(&[0, 0, 0]), OK);
    assert_eq!(rig.command(&[2, 0, 77, 0]), OK);
    assert_eq!(rig.command(&[1, 1, 2, 3, 4, 5, 6, 7]), OK);
    assert_eq!(rig.command(&[4, 0, 2, 0]), OK);
    assert_eq!(rig.command(&[5, 0, 2, 0, 0, 0, 0, 0, 0, 0]), OK);
    let ports = rig.device.stop();
    let blob = rig.device.save().unwrap();
    let setup = rig.far.setup();
    rig.device.reset();
    rig.device.load(&blob).unwrap();
    rig.restart(ports);
    assert_eq!(rig.config()[..6], [2, 3, 4, 5, 6, 7]);
    // Commands are obeyed after the queues were started.
    assert_eq!(rig.command(&[2, 1, 78, 0]), OK);
    assert_eq!(rig.far.setup(), setup);
    let filter = rig.network.nics()[0].front().unwrap().rx_filter().unwrap();
    assert!(!filter.promisc && filter.passes_vlan(77) && !filter.passes_vlan(78));
}

#[test]
fn a_guest_that_was_moved_announces_itself() {
    let mut rig = Rig::started(PLAIN, &[], Features::empty());
    assert_eq!(rig.command(&[3, 0]), control::ERROR);
    let ports = rig.device.stop();
    let blob = rig.device.save().unwrap();
    rig.device.load(&blob).unwrap();
    rig.restart(ports);
    for round in 0..ANNOUNCEMENTS {
        let signals = rig.signals.clone();
        let told = || signals.config.load(Ordering::SeqCst) > round.into();
        signals.wait(|| (told() && rig.config()[6] == 3).then_some(()));
        assert_eq!(rig.command(&[3, 0]), OK);
        assert_eq!(rig.config()[6], 1);
    }
    assert_eq!(rig.command(&[3, 0]), control::ERROR);
}

#[test]
fn states_that_cannot_be_are_refused() {
    let mut rig = Rig::new(TAP, &[]);
    let good = rig.device.card.with(|state| state.clone());
    let mut refused = |change: &dyn Fn(&mut State)| {
        let mut state = good.clone();
        change(&mut state);
        rig.device.load(&Blob::new(VERSION, &state).unwrap()).is_err()
    };
    assert!(!refused(&|_| ()));
    assert!(refused(&|state| state.pairs = 0));
    assert!(refused(&|state| state.pairs = 2));
    assert!(refused(&|state| state.filter.vlans = vec![1]));
    assert!(refused(&|state| state.filter.unicast = vec![[2; 6]; 65]));
    assert!(refused(&|state| state.waiting = vec![Default::default(); 2]));
    assert!(refused(&|state| {
        let received = vec![0; MAX_FRAME + HEADER_LEN + 1];
        state.waiting = vec![card::Waiting { received, outgoing: None }];
    }));
}

#[test]
fn a_saved_frame_that_makes_no_sense_is_lost() {
    let mut rig = Rig::started(PLAIN, &[], Features::empty());
    while rig.far.sent(0).unwrap().has_room() {
        rig.send(plain(), &frame(OTHER, 60));
        rig.tx().wait_used();
    }
    let header = Header { flags: NEEDS_CSUM, csum_start: 50, csum_offset: 6, ..plain() };
    rig.send(header, &frame(OTHER, 99));
    rig.tx().wait_used();
    let ports = rig.device.stop();
    rig.device.card.with(|state| state.waiting[0].received = vec![1; 5]);
    let blob = rig.device.save().unwrap();
    rig.device.load(&blob).unwrap();
    rig.restart(ports);
    rig.rx().send(&[], &[1600]);
    rig.settle();
    rig.device.stop();
}

#[test]
fn reset_forgets_and_is_idempotent() {
    let mut rig = Rig::started(TAP, &[("mq", "on")], Features::empty());
    let fresh = Rig::new(TAP, &[("mq", "on")]).device.save().unwrap();
    assert_eq!(rig.command(&[4, 0, 2, 0]), OK);
    assert_eq!(rig.command(&[0, 2, 1]), OK);
    rig.device.stop();
    for _ in 0..2 {
        rig.device.reset();
        assert_eq!(rig.device.save().unwrap(), fresh);
    }
}

#[test]
fn an_unplugged_card_leaves_the_network() {
    let mut rig = Rig::started(PLAIN, &[], Features::empty());
    rig.device.stop();
    rig.device.reset();
    rig.device.unplug();
    assert!(rig.network.nics().is_empty());
    assert!(!rig.network.find("net0").unwrap().is_used());
    assert_eq!(rig.config()[6], 0);
}

#[test]
fn a_back_end_that_goes_leaves_the_card() {
    let mut rig = Rig::started(PLAIN, &[], Features::empty());
    rig.network.remove("net0").unwrap();
    assert_eq!(rig.config()[6], 0);
    rig.send(plain(), &frame(OTHER, 60));
    rig.tx().wait_used();
    let ports = rig.device.stop();
    rig.restart(ports);
    rig.send(plain(), &frame(OTHER, 60));
    rig.tx().wait_used();
    rig.device.stop();
}

#[test]
fn properties() {
    let offered =
        |caps, given| Features::from_bits_retain(Rig::new(caps, given).device.offered.bits());
    let all = offered(TAP, &[]);
    let not_given = Features::MQ | Features::MTU | Features::SPEED_DUPLEX;
    assert_eq!(all, Features::all() - not_given);
    for (given, speed) in [
        (&[("speed", "10000"), ("duplex", "full")][..], [0x10, 0x27, 0, 0, 1]),
        (&[("duplex", "half")], [0xff, 0xff, 0xff, 0xff, 0]),
    ] {
        assert_eq!(offered(TAP, given), all | Features::SPEED_DUPLEX);
        let mut told = [0xee; 5];
        Rig::new(TAP, given).device.read_config(12, &mut told);
        assert_eq!(told, speed);
    }
    assert_eq!(offered(PLAIN, &[]), all - Features::GUEST_OFFLOADS - Features::CTRL_GUEST_OFFLOADS);
    let host = Features::HOST_TSO4 | Features::HOST_TSO6 | Features::HOST_ECN | Features::HOST_USO;
    assert_eq!(offered(TAP, &[("gso", "off")]), all - host);
    assert_eq!(offered(TAP, &[("csum", "off")]), all - host - Features::CSUM);
    assert_eq!(offered(TAP, &[("mq", "on")]), all | Features::MQ);
    let mut rig = Rig::new(TAP, &[("host_mtu", "9000"), ("rx_queue_size", "1024")]);
    assert_eq!(rig.config()[10..], 9000u16.to_le_bytes());
    assert_eq!(rig.device.spec().queues, [1024, 256, 64]);
    for (name, value, why) in [
        ("host_mtu", "67", "Invalid host_mtu (= 67), must be at least 68."),
        (
            "rx_queue_size",
            "300",
            "Invalid rx_queue_size (= 300), must be a power of 2 between 256 and 1024.",
        ),
    ] {
        let given = [(name, value)];
        let props = Props::parse("x", PROPS.iter(), &Overrides::default(), given).unwrap();
        assert_eq!(Settings::new(&props).err().unwrap().to_string(), why);
    }
}
