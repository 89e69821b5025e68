//! Frames are made field by field here and checked by a checksum of its own, as a receiver does.

use super::super::header::NEEDS_CSUM;
use super::*;
use proptest::prelude::*;

/// The sum as RFC 1071 says it, word by word.
fn plain_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn be(bytes: &[u8], at: usize) -> usize {
    usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1])
}

/// The bytes over which the transport checksum must come out as all ones.
fn with_pseudo_header(frame: &[u8], network: usize, transport: usize, protocol: u8) -> Vec<u8> {
    let addresses = if frame[network] >> 4 == 4 { 12..20 } else { 8..40 };
    let mut bytes = frame[network..][addresses].to_vec();
    bytes.extend(((frame.len() - transport) as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes.extend(&frame[transport..]);
    bytes
}

struct Packet {
    bytes: Vec<u8>,
    header: Header,
    network: usize,
    transport: usize,
}

/// A frame of `payload` bytes with all its headers, as a guest hands it over.
fn packet(kind: Gso, ipv6: bool, vlans: usize, options: usize, payload: usize, mss: u16) -> Packet {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for _ in 0..vlans {
        bytes.extend([0x81, 0, 0, 5]);
    }
    let protocol = if kind == Gso::Udp { 17 } else { 6 };
    let network = bytes.len() + 2;
    if ipv6 {
        bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0xde, 0xad]);
        bytes.extend([if options > 0 { 60 } else { protocol }, 64]);
        bytes.extend((0..32).map(|n| n * 7));
        for n in 1..=options {
            bytes.extend([if n < options { 60 } else { protocol }, 0, 1, 4, 0, 0, 0, 0]);
        }
    } else {
        bytes.extend([8, 0, 0x45 + options as u8, 0, 0xde, 0xad, 0xff, 0xff, 0x40, 0]);
        bytes.extend([64, protocol, 0xba, 0xd0, 10, 0, 2, 15, 10, 0, 2, 2]);
        bytes.extend(vec![1; options * 4]);
    }
    let transport = bytes.len();
    if kind == Gso::Udp {
        bytes.extend([0x12, 0x34, 0, 53, 0xde, 0xad, 0x55, 0x55]);
    } else {
        bytes.extend([0x12, 0x34, 0, 80, 0xff, 0xff, 0xff, 0, 1, 2, 3, 4]);
        bytes.extend([0x80, 0x80 | 0x10 | 8 | 1, 1, 0, 0x55, 0x55, 0, 0]);
        bytes.extend([1; 12]);
    }
    bytes.extend((0..payload).map(|n| (n % 251) as u8));
    let gso_type = match kind {
        Gso::None => 0,
        Gso::Tcp4 => 1,
        Gso::Tcp6 => 4,
        Gso::Udp => 5,
    };
    let header = Header {
        flags: NEEDS_CSUM,
        gso_type,
        gso_size: mss,
        csum_start: transport as u16,
        csum_offset: if kind == Gso::Udp { 6 } else { 16 },
        ..Header::default()
    };
    Packet { bytes, header, network, transport }
}

/// Cuts it and checks each segment; returns how many there are.
fn check(packet: Packet) -> usize {
    let Packet { bytes, header, network, transport } = packet;
    let udp = header.gso_type == 5;
    let headers = transport + if udp { 8 } else { 32 };
    let mut segmenter = Segmenter::new(bytes.clone(), &header).unwrap();
    let (mut out, mut count, mut payload) = (Vec::new(), 0, Vec::new());
    while segmenter.next_into(&mut out) {
        let last = headers + payload.len() + (out.len() - headers) == bytes.len();
        assert!(out.len() - headers <= header.gso_size.into());
        assert_eq!(out[..network], bytes[..network]);
        if bytes[network] >> 4 == 4 {
            assert_eq!(be(&out, network + 2), out.len() - network);
            assert_eq!(be(&out, network + 4), (0xffff + count) % 0x10000);
            assert_eq!(plain_sum(&out[network..transport]), 0xffff);
        } else {
            assert_eq!(be(&out, network + 4), out.len() - network - 40);
        }
        let summed = with_pseudo_header(&out, network, transport, if udp { 17 } else { 6 });
        assert_eq!(plain_sum(&summed), 0xffff);
        if udp {
            assert_eq!(be(&out, transport + 4), out.len() - transport);
        } else {
            let sequence = u32::from_be_bytes(*out[transport + 4..].first_chunk().unwrap());
            assert_eq!(sequence, 0xffff_ff00u32.wrapping_add(payload.len() as u32));
            let expected = 0x10 | if count == 0 { 0x80 } else { 0 } | if last { 9 } else { 0 };
            assert_eq!(out[transport + 13], expected);
        }
        payload.extend_from_slice(&out[headers..]);
        count += 1;
    }
    assert_eq!(payload, bytes[headers..]);
    assert!(!segmenter.next_into(&mut out));
    count
}

#[test]
fn segments_of_every_kind() {
    assert_eq!(check(packet(Gso::Tcp4, false, 0, 0, 4000, 1448)), 3);
    assert_eq!(check(packet(Gso::Tcp4, false, 2, 3, 4000, 1000)), 4);
    assert_eq!(check(packet(Gso::Tcp6, true, 0, 0, 65000, 1428)), 46);
    assert_eq!(check(packet(Gso::Tcp6, true, 1, 2, 10, 1)), 10);
    assert_eq!(check(packet(Gso::Udp, false, 0, 0, 3001, 1000)), 4);
    assert_eq!(check(packet(Gso::Udp, true, 0, 1, 3001, 1000)), 4);
}

#[test]
fn one_segment_or_no_payload_is_still_a_frame() {
    assert_eq!(check(packet(Gso::Tcp4, false, 0, 0, 100, 1448)), 1);
    assert_eq!(check(packet(Gso::Tcp6, true, 0, 0, 0, 1448)), 1);
}

#[test]
fn what_is_not_as_it_says_is_refused() {
    let refused = |change: fn(&mut Packet)| {
        let mut packet = packet(Gso::Tcp4, false, 0, 0, 4000, 1000);
        change(&mut packet);
        Segmenter::new(packet.bytes, &packet.header).err()
    };
    assert_eq!(refused(|_| ()), None);
    for change in [
        |p: &mut Packet| p.header.gso_size = 0,
        |p: &mut Packet| p.header.flags = 0,
        |p: &mut Packet| p.header.gso_type = 4,
        |p: &mut Packet| p.header.gso_type = 5,
        |p: &mut Packet| p.header.csum_start = 33,
        |p: &mut Packet| p.bytes[12] = 0x81,
        |p: &mut Packet| p.bytes[14] = 0x65,
        |p: &mut Packet| p.bytes[14] = 0x44,
        |p: &mut Packet| p.bytes[23] = 17,
        |p: &mut Packet| p.bytes[20] = 0x20,
        |p: &mut Packet| p.bytes[34 + 12] = 0x40,
        |p: &mut Packet| p.bytes.truncate(34 + 31),
        |p: &mut Packet| p.bytes.truncate(20),
        |p: &mut Packet| p.bytes.clear(),
    ] {
        assert_eq!(refused(change), Some(BadFrame::Segments));
    }
    assert_eq!(refused(|p| p.header.gso_type = 3), Some(BadFrame::NotNegotiated));
    // Headers without end.
    let long = |options| {
        let packet = packet(Gso::Tcp6, true, 0, options, 4000, 1);
        Segmenter::new(packet.bytes, &packet.header).err()
    };
    assert_eq!((long(21), long(22)), (None, Some(BadFrame::Segments)));
}

#[test]
fn a_checksum_is_completed() {
    let Packet { mut bytes, header, network, transport } = packet(Gso::Udp, false, 0, 0, 101, 1000);
    // The guest leaves the sum of the pseudo header in the field.
    bytes[transport + 6..transport + 8].fill(0);
    let pseudo = with_pseudo_header(&bytes, network, transport, 17);
    let pseudo = plain_sum(&pseudo[..pseudo.len() - (bytes.len() - transport)]);
    bytes[transport + 6..transport + 8].copy_from_slice(&pseudo.to_be_bytes());
    complete_checksum(&mut bytes, header.csum_start, header.csum_offset).unwrap();
    assert_eq!(plain_sum(&with_pseudo_header(&bytes, network, transport, 17)), 0xffff);
    let end = bytes.len() as u16;
    for (start, offset) in [(end, 0), (end - 1, 0), (end + 1, 0), (34, end), (0, u16::MAX)] {
        assert_eq!(complete_checksum(&mut bytes, start, offset), Err(BadFrame::Checksum));
    }
}

#[test]
fn a_checksum_of_zero_is_written_as_ones() {
    let mut bytes = [0xff, 0xff, 0, 0];
    complete_checksum(&mut bytes, 0, 2).unwrap();
    assert_eq!(bytes, [0xff, 0xff, 0xff, 0xff]);
}

#[test]
fn replies_of_dhcp_are_known() {
    let mut bytes = packet(Gso::Udp, false, 0, 0, 300, 1000).bytes;
    assert!(!is_dhcp_reply(&bytes));
    bytes[34..36].copy_from_slice(&67u16.to_be_bytes());
    assert!(is_dhcp_reply(&bytes));
    bytes[23] = 6;
    assert!(!is_dhcp_reply(&bytes) && !is_dhcp_reply(&bytes[..30]));
}

proptest! {
    #[test]
    fn the_sum_is_that_of_rfc_1071(bytes: Vec<u8>) {
        prop_assert_eq!(folded(sum(&bytes)), plain_sum(&bytes));
    }

    #[test]
    fn any_size_is_cut_right(payload in 0usize..9000, mss in 1u16..3000, ipv6: bool, udp: bool) {
        let kind = match (udp, ipv6) {
            (true, _) => Gso::Udp,
            (false, true) => Gso::Tcp6,
            (false, false) => Gso::Tcp4,
        };
        let count = check(packet(kind, ipv6, 0, 0, payload, mss));
        prop_assert_eq!(count, payload.div_ceil(mss.into()).max(1));
    }

    #[test]
    fn no_frame_is_too_odd(
        flips in prop::collection::vec((0usize..90, any::<u8>()), 0..6),
        cut in 0usize..200,
        start: u16,
        kind in 0u8..6,
    ) {
        let mut packet = packet(Gso::Tcp4, false, 1, 0, 120, 50);
        for (at, value) in flips {
            packet.bytes[at] = value;
        }
        packet.bytes.truncate(cut);
        packet.header.gso_type = kind;
        if start & 1 == 0 {
            packet.header.csum_start = start >> 1;
        }
        let _ = complete_checksum(&mut packet.bytes.clone(), packet.header.csum_start, start);
        if let Ok(mut segmenter) = Segmenter::new(packet.bytes, &packet.header) {
            let (mut out, mut count) = (Vec::new(), 0);
            while segmenter.next_into(&mut out) {
                count += 1;
            }
            prop_assert!((1..=200).contains(&count));
        }
    }
}
