//! The card behind its transport, from one machine to another.

use std::time::{Duration, Instant};

use super::*;
use crate::virtio::testing::Machine;

#[test]
fn a_card_moves_with_its_driver() {
    let (from, to) = (card(PLAIN, &[]), card(PLAIN, &[]));
    let mut machine = Machine::new(Box::new(from.device));
    let offered = machine.offered();
    machine.ready(offered & !crate::virtio::feature::RING_PACKED);
    let promisc_off = machine.request(2, &[&[0, 0], &[0]], &[1]);
    assert_eq!(promisc_off.data, [control::OK]);
    machine.request(1, &[&[0; 12], &frame(OTHER, 60)], &[]);
    assert_eq!(from.far.recv(0).unwrap(), frame(OTHER, 60));
    // Buffers for two frames are there, one frame comes before and one after.
    machine.drivers[0].send(&[], &[1600]);
    machine.drivers[0].send(&[], &[1600]);
    assert!(from.far.send(0, &frame(OWN, 61)));
    assert_eq!(machine.wait_used(0).written, 73);
    let mut machine = machine.move_to(Box::new(to.device));
    // The guest is asked to announce its addresses at their new place.
    let wires = machine.wires.clone();
    wires.wait(|| wires.sent.lock().contains(&0).then_some(()));
    assert_eq!(machine.config::<2>(6), [3, 0]);
    assert_eq!(machine.request(2, &[&[3, 0]], &[1]).data, [control::OK]);
    assert!(to.far.send(0, &frame(OTHER, 62)) && to.far.send(0, &frame(OWN, 63)));
    assert_eq!(machine.wait_used(0).written, 75);
    machine.request(1, &[&[0; 12], &frame(OTHER, 64)], &[]);
    // Switches are told too, whatever the driver can.
    let (mut told, mut sent) = (false, false);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !(told && sent) {
        assert!(Instant::now() < deadline, "told: {told}, sent: {sent}");
        match to.far.recv(0) {
            Some(frame) if frame[12..14] == [0x80, 0x35] => told = true,
            Some(other) => sent = other == frame(OTHER, 64),
            None => std::thread::yield_now(),
        }
    }
}

#[test]
fn the_network_is_told_whatever_the_driver_changes_meanwhile() {
    let (from, to) = (card(TAP, &[]), card(TAP, &[]));
    let mut machine = Machine::new(Box::new(from.device));
    let offered = machine.offered();
    machine.ready(offered & !crate::virtio::feature::RING_PACKED);
    let mut machine = machine.move_to(Box::new(to.device));
    // No offloads towards the guest, any more: this halts the queues.
    let halting = machine.request(2, &[&[5, 0], &[0; 8]], &[1]);
    assert_eq!(halting.data, [control::OK]);
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut told = 0;
    while told < 5 {
        assert!(Instant::now() < deadline, "told: {told}");
        match to.far.recv(0) {
            Some(frame) => told += usize::from(frame[24..26] == [0x80, 0x35]),
            None => std::thread::yield_now(),
        }
    }
}

#[test]
fn a_link_that_goes_while_nobody_drives_is_seen_later() {
    let card = card(PLAIN, &[]);
    let mut machine = Machine::new(Box::new(card.device));
    card.network.set_link("n", false).unwrap();
    let offered = machine.offered();
    machine.ready(offered & !crate::virtio::feature::RING_PACKED);
    assert_eq!(machine.config::<2>(6), [0, 0]);
    assert!(machine.wires.sent.lock().is_empty());
    card.network.set_link("n", true).unwrap();
    machine.wires.wait_sent(&[0]);
    assert_eq!(machine.config::<2>(6), [1, 0]);
}

#[test]
fn a_link_that_is_down_moves() {
    let (from, to) = (card(PLAIN, &[]), card(PLAIN, &[]));
    let mut machine = Machine::new(Box::new(from.device));
    let offered = machine.offered();
    machine.ready(offered & !crate::virtio::feature::RING_PACKED);
    from.network.set_link("net0", false).unwrap();
    machine.wires.wait_sent(&[0]);
    let mut machine = machine.move_to(Box::new(to.device));
    assert_eq!(machine.config::<2>(6)[0] & 1, 0);
    assert!(!to.network.nics()[0].link_up());
    to.network.set_link("net0", true).unwrap();
    assert_eq!(machine.config::<2>(6)[0] & 1, 1);
}
