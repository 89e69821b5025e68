//! The control queue, and what clients see of the filter.

use super::super::control::{ERROR, OK};
use super::super::filter::Filter;
use super::*;
use crate::net::{Client, Nic};

const MQ: &[(&str, &str)] = &[("mq", "on")];

impl Rig {
    fn nic(&self) -> Arc<dyn Nic> {
        match self.network.client("n") {
            Some(Client::Nic(nic)) => nic.front().unwrap().clone(),
            _ => panic!("no card"),
        }
    }

    fn filter(&self) -> Filter {
        self.nic().rx_filter().unwrap()
    }
}

#[test]
fn modes_tables_and_vlans() {
    let mut rig = Rig::started(PLAIN, &[], Features::empty());
    assert_eq!(rig.command(&[0, 5, 1]), OK);
    assert_eq!(rig.command(&[0, 6, 1]), ERROR);
    let tables = [1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 7, 0, 0, 0, 0];
    assert_eq!(rig.command(&tables), OK);
    assert_eq!(rig.command(&tables[..15]), ERROR);
    assert_eq!(rig.command(&[2, 0, 5, 0]), OK);
    assert_eq!(rig.command(&[2, 0, 0, 0x10]), ERROR);
    let filter = rig.filter();
    assert!(filter.nobcast && filter.passes_vlan(5) && !filter.passes_vlan(6));
    assert_eq!(filter.unicast, [[2, 0, 0, 0, 0, 7]]);
}

#[test]
fn a_change_is_told_once_until_somebody_asks() {
    let mut rig = Rig::started(PLAIN, &[], Features::empty());
    assert_eq!(rig.nic().take_filter_change(), None);
    for _ in 0..2 {
        rig.command(&[0, 1, 1]);
        rig.command(&[2, 1, 5, 0]);
        assert_eq!(rig.requests.take(), [Request::RxFilterChanged]);
        assert_eq!(rig.nic().take_filter_change().as_deref(), Some("/machine/n"));
        assert_eq!(rig.nic().take_filter_change(), None);
        rig.filter();
    }
}

#[test]
fn another_address() {
    let mut rig = Rig::started(PLAIN, &[], Features::empty());
    assert_eq!(rig.config()[..6], OWN);
    assert_eq!(rig.command(&[1, 1, 2, 3, 4, 5, 6, 7]), OK);
    assert_eq!(rig.config()[..6], [2, 3, 4, 5, 6, 7]);
    assert_eq!(rig.network.nics()[0].mac().to_string(), "02:03:04:05:06:07");
    rig.device.stop();
    rig.device.reset();
    assert_eq!(rig.config()[..6], OWN);
    assert_eq!(rig.network.nics()[0].mac(), Mac(OWN));
}

#[test]
fn several_pairs_of_queues() {
    let mut rig = Rig::started(TAP, MQ, Features::empty());
    assert_eq!((rig.drivers.len(), rig.config()[8]), (5, 2));
    rig.drivers[2].send(&[], &[1600]);
    let with_header = [&[0; 12][..], &frame(OWN, 60)].concat();
    assert!(rig.far.send(1, &with_header));
    rig.settle();
    assert!(rig.drivers[2].used().is_none(), "one pair is used at first");
    assert_eq!(rig.command(&[4, 0, 2, 0]), OK);
    assert_eq!(rig.far.setup().queues, 2);
    assert_eq!(rig.drivers[2].wait_used().written, 72);
    rig.drivers[3].send(&[&with_header], &[]);
    rig.drivers[3].wait_used();
    assert_eq!(rig.far.recv(1).unwrap(), with_header);
    for pairs in [0, 3] {
        assert_eq!(rig.command(&[4, 0, pairs, 0]), ERROR);
    }
    assert_eq!(rig.command(&[4, 0, 1, 0]), OK);
    assert_eq!(rig.far.setup().queues, 1);
}

#[test]
fn a_driver_of_one_pair_has_its_control_queue_next_to_it() {
    let mut rig = Rig::started(TAP, MQ, Features::MQ);
    rig.drivers.truncate(3);
    assert_eq!(rig.command(&[0, 1, 1]), OK);
    assert_eq!(rig.command(&[4, 0, 1, 0]), ERROR);
}

#[test]
fn offloads_while_it_runs() {
    let mut rig = Rig::started(TAP, &[], Features::GUEST_USO6);
    rig.settle();
    let before = rig.far.setup().offloads;
    assert_eq!(rig.command(&[5, 0, 2, 0, 0, 0, 0, 0, 0, 0]), OK);
    assert_eq!(rig.far.setup().offloads, Offloads::CSUM);
    assert_eq!(rig.command(&[5, 0, 0, 0, 0, 0, 0, 0, 0, 0]), OK);
    assert_eq!(rig.far.setup().offloads, Offloads::empty());
    // Not negotiated, and not an offload.
    for bits in [1u64 << 55, 1, 1 << 63] {
        let command = [&[5, 0][..], &bits.to_le_bytes()].concat();
        assert_eq!(rig.command(&command), ERROR);
    }
    let all = rig.features & Features::GUEST_OFFLOADS;
    let command = [&[5, 0][..], &all.bits().to_le_bytes()].concat();
    assert_eq!(rig.command(&command), OK);
    assert_eq!(rig.far.setup().offloads, before);
}

#[test]
fn what_was_not_negotiated_is_refused() {
    let without = Features::CTRL_RX | Features::CTRL_VLAN | Features::CTRL_MAC_ADDR;
    let mut rig = Rig::started(PLAIN, &[], without);
    for command in [&[0, 0, 1][..], &[0, 3, 1], &[2, 0, 5, 0], &[1, 1, 2, 3, 4, 5, 6, 7], &[3, 0]] {
        assert_eq!(rig.command(command), ERROR, "{command:?}");
    }
    assert_eq!(rig.filter(), Filter::new(OWN));
}

#[test]
fn frames_pass_while_commands_change_the_queues() {
    let mut rig = Rig::started(TAP, MQ, Features::empty());
    let with_header = [&[0; 12][..], &frame(OTHER, 60)].concat();
    for round in 0..40u8 {
        for _ in 0..5 {
            rig.tx().send(&[&with_header], &[]);
            rig.rx().send(&[], &[1600]);
            assert!(rig.far.send(0, &with_header));
        }
        assert_eq!(rig.command(&[4, 0, round % 2 + 1, 0]), OK);
        for _ in 0..5 {
            rig.tx().wait_used();
            rig.rx().wait_used();
            assert_eq!(rig.far_recv(), with_header);
        }
    }
}
