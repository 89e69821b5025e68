//! Frames in both directions.

use super::super::header::NEEDS_CSUM;
use super::*;
use crate::net::MAX_FRAME;

/// A TCP segment of this much payload, as a guest hands it over to be cut.
fn tcp(payload: usize) -> (Header, Vec<u8>) {
    let mut frame = frame(OTHER, 0)[..12].to_vec();
    frame.extend([8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0; 12]);
    frame.extend([0x50, 0x10, 0, 0, 0, 0, 0, 0]);
    frame.extend((0..payload).map(|n| n as u8));
    let header = Header {
        flags: NEEDS_CSUM,
        gso_type: 1,
        gso_size: 1000,
        csum_start: 34,
        csum_offset: 16,
        ..plain()
    };
    (header, frame)
}

#[test]
fn plain_frames_go_both_ways() {
    let mut rig = Rig::started(PLAIN, &[], Features::empty());
    rig.send(plain(), &frame(OTHER, 60));
    assert_eq!(rig.far_recv(), frame(OTHER, 60));
    assert_eq!(rig.tx().wait_used().written, 0);
    rig.rx().send(&[], &[1600]);
    assert!(rig.far.send(0, &frame(OWN, 100)));
    let (header, data) = rig.receive();
    assert_eq!((header, data), (Header { num_buffers: 1, ..plain() }, frame(OWN, 100)));
}

#[test]
fn a_tap_gets_frames_as_they_are_and_may_leave_things_out() {
    let mut rig = Rig::started(TAP, &[], Features::empty());
    let (header, long) = tcp(5000);
    rig.send(header, &long);
    let sent = rig.signals.wait(|| rig.far.recv(0));
    assert_eq!(sent, [&header.to_bytes()[..], &long].concat());
    let setup = rig.far.setup();
    assert!(setup.header && setup.queues == 1);
    assert_eq!(setup.offloads, Offloads::all() - Offloads::UFO);
    rig.rx().send(&[], &[65562]);
    assert!(rig.far.send(0, &sent));
    assert_eq!(rig.receive(), (Header { num_buffers: 1, ..header }, long));
}

#[test]
fn other_back_ends_get_segments() {
    let mut rig = Rig::started(PLAIN, &[], Features::empty());
    let (header, long) = tcp(2500);
    rig.send(header, &long);
    let lengths: Vec<_> = (0..3).map(|_| rig.far_recv().len()).collect();
    assert_eq!(lengths, [1054, 1054, 554]);
    rig.tx().wait_used();
    // A checksum alone.
    rig.send(Header { gso_type: 0, ..header }, &long[..1000]);
    assert_ne!(rig.far_recv()[50..52], [0, 0]);
}

#[test]
fn only_what_a_driver_takes_reaches_it() {
    let mut rig = Rig::started(TAP, &[], Features::GUEST_CSUM);
    assert_eq!(rig.far.setup().offloads, Offloads::empty());
    let (header, long) = tcp(500);
    rig.rx().add(&[], &[2000]);
    rig.rx().send(&[], &[2000]);
    // A long segment is lost; a missing checksum is completed.
    assert!(rig.far.send(0, &[&header.to_bytes()[..], &long].concat()));
    let partial = Header { gso_type: 0, gso_size: 0, ..header };
    assert!(rig.far.send(0, &[&partial.to_bytes()[..], &long].concat()));
    let (header, data) = rig.receive();
    assert_eq!(header, Header { num_buffers: 1, ..plain() });
    assert_ne!(data[50..52], [0, 0]);
}

#[test]
fn a_frame_is_spread_over_buffers() {
    let mut rig = Rig::started(PLAIN, &[], Features::empty());
    let data = frame(OWN, 1000);
    for _ in 0..4 {
        rig.rx().send(&[], &[300]);
    }
    assert!(rig.far.send(0, &data));
    let used: Vec<_> = (0..4).map(|_| rig.rx().wait_used()).collect();
    assert_eq!(used.iter().map(|used| used.written).collect::<Vec<_>>(), [300, 300, 300, 112]);
    let all: Vec<_> = used.into_iter().flat_map(|used| used.data).collect();
    assert_eq!(Header::parse(all.first_chunk().unwrap()).num_buffers, 4);
    assert_eq!(all[HEADER_LEN..], data);
}

#[test]
fn without_merging_a_frame_has_one_buffer_or_is_lost() {
    let mut rig = Rig::started(PLAIN, &[], Features::MRG_RXBUF);
    rig.rx().send(&[], &[300]);
    assert!(rig.far.send(0, &frame(OWN, 1000)) && rig.far.send(0, &frame(OWN, 200)));
    assert_eq!(rig.receive().1, frame(OWN, 200));
}

#[test]
fn what_all_buffers_cannot_hold_is_lost() {
    let mut rig = Rig::started(PLAIN, &[], Features::empty());
    for _ in 0..256 {
        rig.rx().add(&[], &[16]);
    }
    rig.rx().kick();
    assert!(rig.far.send(0, &frame(OWN, 9000)) && rig.far.send(0, &frame(OWN, 20)));
    let first = rig.rx().wait_used();
    assert_eq!(Header::parse(first.data.first_chunk().unwrap()).num_buffers, 2);
    assert_eq!(rig.rx().wait_used().written, 16);
}

#[test]
fn a_guest_without_buffers_keeps_frames_waiting() {
    let mut rig = Rig::started(PLAIN, &[], Features::empty());
    let mut sent = 0;
    while rig.far.send(0, &frame(OWN, 60 + sent)) {
        sent += 1;
        assert!(sent < 10_000);
    }
    for n in 0..sent {
        rig.rx().send(&[], &[1600]);
        assert_eq!(rig.receive().1.len(), 60 + n);
    }
}

#[test]
fn a_full_back_end_keeps_the_ring_waiting() {
    let mut rig = Rig::started(PLAIN, &[], Features::empty());
    let (header, long) = tcp(60_000);
    // Each is 60 segments; the lane takes 512.
    for _ in 0..12 {
        rig.send(header, &long);
    }
    for n in 0..12 * 60 {
        let sent = rig.far_recv();
        let sequence = u32::from_be_bytes(*sent[38..].first_chunk().unwrap());
        assert_eq!(sequence, n % 60 * 1000);
    }
    for _ in 0..12 {
        rig.tx().wait_used();
    }
}

#[test]
fn many_frames_one_interrupt() {
    let mut rig = Rig::started(PLAIN, &[], Features::empty());
    let count = 50;
    for _ in 0..count {
        rig.rx().add(&[], &[1600]);
    }
    let ports = rig.device.stop();
    for _ in 0..count {
        assert!(rig.far.send(0, &frame(OWN, 60)));
    }
    rig.signals.take();
    rig.restart(ports);
    for _ in 0..count {
        rig.rx().wait_used();
    }
    assert_eq!(rig.signals.take(), 1);
}

#[test]
fn the_filter_is_asked() {
    let mut rig = Rig::started(PLAIN, &[], Features::empty());
    assert_eq!(rig.command(&[0, 0, 0]), control::OK);
    rig.rx().send(&[], &[1600]);
    assert!(rig.far.send(0, &frame(OTHER, 60)) && rig.far.send(0, &frame(OWN, 61)));
    assert_eq!(rig.receive().1, frame(OWN, 61));
}

#[test]
fn a_link_that_is_down() {
    let mut rig = Rig::started(PLAIN, &[], Features::empty());
    assert_eq!(rig.config()[6], 1);
    rig.network.set_link("net0", false).unwrap();
    assert_eq!(rig.signals.config.load(Ordering::SeqCst), 1);
    assert_eq!(rig.config()[6], 0);
    rig.send(plain(), &frame(OTHER, 60));
    rig.tx().wait_used();
    assert!(rig.far.recv(0).is_none());
    rig.network.set_link("n", true).unwrap();
    assert_eq!((rig.signals.config.load(Ordering::SeqCst), rig.config()[6]), (2, 1));
    rig.network.set_link("n", true).unwrap();
    assert_eq!(rig.signals.config.load(Ordering::SeqCst), 2);
}

#[test]
fn the_longest_frame_passes_and_a_longer_one_does_not() {
    let mut rig = Rig::started(TAP, &[], Features::empty());
    let longest = MAX_FRAME - HEADER_LEN;
    for length in [longest + 1, 13, longest] {
        rig.send(plain(), &frame(OTHER, 70_000)[..length]);
        rig.tx().wait_used();
    }
    assert_eq!(rig.far_recv().len(), MAX_FRAME);
    assert!(rig.far.recv(0).is_none());
}
