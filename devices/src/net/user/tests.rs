//! The stack, with a guest that is this test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use resources::iol::{Handle, Thread};
use resources::testing::skipped;

use super::*;

const LONG: Duration = Duration::from_secs(20);

const GUEST: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

fn open(user: &User, on: &Handle) -> Option<Stack> {
    match user.open(on, None) {
        Ok(stack) => Some(stack),
        Err(OpenError::Host(text)) if text.contains("not installed") => {
            skipped(text);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn checksum(data: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| (*low).into());
    let sum: u32 = data.chunks(2).map(word).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes()
}

/// A guest at 10.0.2.15 that speaks just enough.
struct Guest<'a>(&'a Shared);

impl Guest<'_> {
    fn send(&self, to: [u8; 6], kind: u16, payload: &[u8]) {
        let mut frame = Vec::from(to);
        frame.extend(GUEST);
        frame.extend(kind.to_be_bytes());
        frame.extend(payload);
        assert!(self.0.from_guest.put(|| frame));
    }

    /// The first frame that is `wanted`; who asks for the guest's address is answered.
    fn until<T>(&self, wanted: impl Fn(&[u8]) -> Option<T>) -> T {
        let end = Instant::now() + LONG;
        while Instant::now() < end {
            let Some(frame) = self.0.to_guest.take() else {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            };
            if let Some(found) = wanted(&frame) {
                return found;
            }
            if frame[12..14] == [8, 6] && frame[21] == 1 && frame[38..42] == [10, 0, 2, 15] {
                self.arp(2, frame[22..28].try_into().unwrap(), &frame[28..32]);
            }
        }
        panic!("the frame never came");
    }

    fn arp(&self, operation: u8, mac: [u8; 6], target: &[u8]) {
        let mut arp = vec![0, 1, 8, 0, 6, 4, 0, operation];
        arp.extend(GUEST);
        arp.extend([10, 0, 2, 15]);
        arp.extend(if operation == 1 { [0; 6] } else { mac });
        arp.extend(target);
        self.send(if operation == 1 { [0xff; 6] } else { mac }, 0x806, &arp);
    }

    /// The address of the host's card.
    fn host(&self) -> [u8; 6] {
        self.arp(1, [0; 6], &[10, 0, 2, 2]);
        self.until(|frame| {
            let reply = frame[12..14] == [8, 6] && frame[21] == 2;
            reply.then(|| frame[22..28].try_into().unwrap())
        })
    }

    fn udp(&self, mac: [u8; 6], from: [u8; 4], to: [u8; 4], ports: (u16, u16), payload: &[u8]) {
        let mut udp = Vec::from(ports.0.to_be_bytes());
        udp.extend(ports.1.to_be_bytes());
        udp.extend((8 + payload.len() as u16).to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(payload);
        let total = (20 + udp.len()) as u16;
        let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0];
        ip.extend(from);
        ip.extend(to);
        ip[2..4].copy_from_slice(&total.to_be_bytes());
        let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip.extend(udp);
        self.send(mac, 0x800, &ip);
    }

    /// A segment from port 1000 of the guest to 10.0.2.100:1234.
    fn tcp(&self, mac: [u8; 6], (seq, ack): (u32, u32), flags: u8, payload: &[u8]) {
        let (from, to) = ([10, 0, 2, 15], [10, 0, 2, 100]);
        let mut tcp = vec![3, 232, 4, 210];
        tcp.extend(seq.to_be_bytes());
        tcp.extend(ack.to_be_bytes());
        tcp.extend([0x50, flags, 0x40, 0, 0, 0, 0, 0]);
        tcp.extend(payload);
        let length = (tcp.len() as u16).to_be_bytes();
        let pseudo = [&from[..], &to, &[0, 6], &length, &tcp].concat();
        let sum = checksum(&pseudo);
        tcp[16..18].copy_from_slice(&sum);
        let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, 6, 0, 0];
        ip.extend(from);
        ip.extend(to);
        ip[2..4].copy_from_slice(&(20 + tcp.len() as u16).to_be_bytes());
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum);
        ip.extend(tcp);
        self.send(mac, 0x800, &ip);
    }

    /// What the next segment with data holds, which begins at `from`; it is acknowledged.
    fn until_data(&self, mac: [u8; 6], from: u32) -> (u32, Vec<u8>) {
        loop {
            let (seq, data) = self.segment(0x10);
            if seq == from && !data.is_empty() {
                let next = seq + data.len() as u32;
                self.tcp(mac, (101, next), 0x10, &[]);
                return (next, data);
            }
        }
    }

    /// The next segment from there with all of these flags: its number, and what it holds.
    fn segment(&self, flags: u8) -> (u32, Vec<u8>) {
        self.until(|frame| {
            if frame[12..14] != [8, 0] || frame[23] != 6 || frame[34..36] != [4, 210] {
                return None;
            }
            let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
            let tcp = &frame[34..14 + total];
            let data = &tcp[usize::from(tcp[12] >> 4) * 4..];
            let seq = u32::from_be_bytes(tcp[4..8].try_into().unwrap());
            (tcp[13] & flags == flags).then(|| (seq, data.to_vec()))
        })
    }

    /// The payload of a datagram to `port`.
    fn datagram(&self, port: u16) -> Vec<u8> {
        self.until(|frame| {
            let is =
                frame[12..14] == [8, 0] && frame[23] == 17 && frame[36..38] == port.to_be_bytes();
            is.then(|| frame[42..].to_vec())
        })
    }
}

#[test]
fn a_guest_reaches_the_host_and_is_reached() {
    let (_thread, on) = Thread::spawn("net-test").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let user = User { hostfwd: vec![format!("tcp:127.0.0.1:{free}-:22")], ..User::default() };
    let Some(stack) = open(&user, &on) else { return };
    assert_eq!(stack.info(0), "net=10.0.2.0,restrict=off");
    let guest = Guest(&stack.shared);
    let mac = guest.host();

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let port = socket.local_addr().unwrap().port();
    guest.udp(mac, [10, 0, 2, 15], [10, 0, 2, 2], (1000, port), b"ask");
    let mut buf = [0; 100];
    let (len, from) = socket.recv_from(&mut buf).unwrap();
    assert_eq!(&buf[..len], b"ask");
    socket.send_to(b"answer", from).unwrap();
    assert_eq!(guest.datagram(1000), b"answer");

    // A connection of the host's knocks at the guest's port.
    let mut stream = TcpStream::connect(("127.0.0.1", free)).unwrap();
    let is_syn = |frame: &[u8]| {
        let tcp = frame[12..14] == [8, 0] && frame[23] == 6 && frame[36..38] == [0, 22];
        (tcp && frame[47] & 0x12 == 2).then_some(())
    };
    guest.until(is_syn);
    let forwards = stack.forwards().unwrap();
    assert!(forwards.connections().contains("TCP[HOST_FORWARD]"), "{}", forwards.connections());
    assert_eq!(forwards.remove(&format!("tcp:127.0.0.1:{free}")), Some(true));
    assert_eq!(forwards.remove(&format!("tcp:127.0.0.1:{free}")), Some(false));
    assert_eq!(forwards.remove("nonsense"), None);
    assert_eq!(forwards.add("nonsense").unwrap_err(), "invalid host forwarding rule 'nonsense'");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let rule = format!("tcp:127.0.0.1:{}-:22", taken.local_addr().unwrap().port());
    let error = forwards.add(&rule).unwrap_err();
    assert_eq!(error, format!("could not set up host forwarding rule '{rule}'"));

    // Closing frees the ports and ends the connections.
    stack.close();
    stream.set_read_timeout(Some(LONG)).unwrap();
    assert!(matches!(stream.read(&mut buf), Ok(0) | Err(_)));
    TcpListener::bind(("127.0.0.1", free)).unwrap();
    assert!(forwards.add(&format!("tcp:127.0.0.1:{free}-:22")).is_err());
}

#[test]
fn an_address_inside_leads_to_a_chardev() {
    let (_thread, on) = Thread::spawn("net-test").unwrap();
    let dir = vmm_sys_util::tempdir::TempDir::new().unwrap();
    let path = dir.as_path().join("peer");
    let device = format!("unix:{},server,nowait", path.display());
    let user = User {
        guestfwd: vec![format!("tcp:10.0.2.100:1234-{device}")],
        restrict: Some(true),
        ..User::default()
    };
    let Some(stack) = open(&user, &on) else { return };
    let mut peer = UnixStream::connect(&path).unwrap();
    peer.set_read_timeout(Some(LONG)).unwrap();
    // It waits until the guest is there.
    peer.write_all(b"welcome").unwrap();
    let guest = Guest(&stack.shared);
    let mac = guest.host();
    guest.tcp(mac, (100, 0), 2, &[]);
    let (seq, _) = guest.segment(0x12);
    guest.tcp(mac, (101, seq + 1), 0x10, &[]);
    let (seq, data) = guest.until_data(mac, seq + 1);
    assert_eq!(data, b"welcome");
    guest.tcp(mac, (101, seq), 0x18, b"to the host");
    let mut data = [0; 11];
    peer.read_exact(&mut data).unwrap();
    assert_eq!(&data, b"to the host");
    peer.write_all(b"to the guest").unwrap();
    assert_eq!(guest.until_data(mac, seq).1, b"to the guest");
    stack.close();
    assert_eq!(peer.read(&mut data).unwrap(), 0);
}

#[test]
fn what_a_guest_sends_waits_for_the_peer_of_a_chardev() {
    let (_thread, on) = Thread::spawn("net-test").unwrap();
    let dir = vmm_sys_util::tempdir::TempDir::new().unwrap();
    let path = dir.as_path().join("peer");
    let device = format!("unix:{},server,nowait", path.display());
    let changed = Notify::new();
    let place = (Ipv4Addr::new(10, 0, 2, 100), 1234, device.as_str());
    let outlet = Outlet::open(place, &on, None, &changed).map_err(|e| e.to_string()).unwrap();
    let mut peer = UnixStream::connect(&path).unwrap();
    peer.set_read_timeout(Some(LONG)).unwrap();
    // The connection is there once something comes of it.
    peer.write_all(b"!").unwrap();
    let end = Instant::now() + LONG;
    while !outlet.has_input() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!((outlet.receive(0), outlet.receive(10)), (Vec::new(), b"!".to_vec()));
    let mut sent = 0_u32;
    while !outlet.is_full() {
        let piece: Vec<u8> = (sent..sent + 500).flat_map(u32::to_be_bytes).collect();
        outlet.send(&piece);
        sent += 500;
    }
    for number in 0..sent {
        let mut bytes = [0; 4];
        peer.read_exact(&mut bytes).unwrap();
        assert_eq!(u32::from_be_bytes(bytes), number);
    }
    assert!(!outlet.is_full());
}

#[test]
fn addresses_are_given_by_dhcp() {
    let (_thread, on) = Thread::spawn("net-test").unwrap();
    let user = User {
        net: Some("192.168.9.0/24".to_owned()),
        dhcpstart: Some("192.168.9.77".to_owned()),
        dns: Some("192.168.9.5".to_owned()),
        hostname: Some("guest".to_owned()),
        dnssearch: vec!["example.org".to_owned()],
        restrict: Some(true),
        ..User::default()
    };
    let Some(stack) = open(&user, &on) else { return };
    assert_eq!(stack.info(0), "net=192.168.9.0,restrict=on");
    let mut discover = vec![1, 1, 6, 0, 1, 2, 3, 4];
    discover.resize(28, 0);
    discover.extend(GUEST);
    discover.resize(236, 0);
    discover.extend([99, 130, 83, 99, 53, 1, 1, 255]);
    discover.resize(300, 0);
    let guest = Guest(&stack.shared);
    guest.udp([0xff; 6], [0; 4], [255; 4], (68, 67), &discover);
    let offer = guest.datagram(68);
    assert_eq!((offer[0], &offer[16..20]), (2, &[192, 168, 9, 77][..]));
    let has = |option: &[u8]| offer.windows(option.len()).any(|window| window == option);
    assert!(has(&[53, 1, 2]), "an offer");
    assert!(has(&[1, 4, 255, 255, 255, 0]), "the mask");
    assert!(has(b"\x0c\x05guest"), "the name");
    // A restricted guest is told of no way out.
    assert!(!has(&[6, 4, 192, 168, 9, 5]) && !has(&[3, 4, 192, 168, 9, 2]));
}

#[test]
fn a_guest_that_takes_nothing_leaves_frames_with_the_stack() {
    let (_thread, on) = Thread::spawn("net-test").unwrap();
    let Some(stack) = open(&User::default(), &on) else { return };
    let guest = Guest(&stack.shared);
    // Each question has an answer: answers stop when half of the lane is full.
    for _ in 0..super::super::lane::FRAMES * 4 {
        let end = Instant::now() + LONG;
        while !stack.shared.from_guest.has_room() && Instant::now() < end {
            if stack.shared.to_guest.len() > super::super::lane::FRAMES / 2 {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if !stack.shared.from_guest.has_room() {
            break;
        }
        guest.arp(1, [0; 6], &[10, 0, 2, 2]);
    }
    assert!(!stack.shared.from_guest.has_room());
    assert!(stack.shared.to_guest.has_room());
    let asked = stack.shared.from_guest.len() + stack.shared.to_guest.len();
    let mut answers = 0;
    while answers < asked {
        guest.until(|_| Some(()));
        answers += 1;
    }
}

#[test]
fn what_cannot_be() {
    let (_thread, on) = Thread::spawn("net-test").unwrap();
    let refused = |user: User| user.open(&on, None).err().map(|error| error.to_string()).unwrap();
    let with = |change: fn(&mut User)| {
        let mut user = User::default();
        change(&mut user);
        user
    };
    type Change = fn(&mut User);
    let cases: [(Change, &str); 6] = [
        (|user| user.net = Some("x".to_owned()), "invalid net= 'x'"),
        (|user| user.host = Some("10.0.3.2".to_owned()), "invalid host= '10.0.3.2'"),
        (
            |user| user.dns = Some("10.0.2.2".to_owned()),
            "host=, dns= and dhcpstart= are not all different",
        ),
        (
            |user| user.guestfwd = vec!["tcp:10.0.2.9".to_owned()],
            "invalid guest forwarding rule 'tcp:10.0.2.9'",
        ),
        (|user| user.tftp = Some("\0".to_owned()), "tftp= has a zero byte"),
        (|user| user.hostname = Some("x".repeat(33)), "hostname= is longer than 32 bytes"),
    ];
    for (change, text) in cases {
        assert_eq!(refused(with(change)), text);
    }
    if !std::path::Path::new(SMBD).exists() {
        let text = refused(with(|user| user.smb = Some("/tmp".to_owned())));
        assert_eq!(text, format!("could not find '{SMBD}', please install it (package samba)"));
    }
    if open(&User::default(), &on).is_some() {
        let text = refused(with(|user| user.hostfwd = vec!["x".to_owned()]));
        assert_eq!(text, "invalid host forwarding rule 'x'");
        for (device, why) in [
            ("none", "it cannot be that"),
            ("mon:null", "it cannot be that"),
            ("chardev:c", "there is no such chardev"),
            ("tcp:no", "guestfwd= tcp:no: "),
        ] {
            let guestfwd = vec![format!("tcp:10.0.2.9:80-{device}")];
            let text = refused(User { guestfwd, ..User::default() });
            let begin = format!("could not open guest forwarding device '{device}': {why}");
            assert!(text.starts_with(&begin), "{text}");
        }
        let text = refused(with(|user| user.guestfwd = vec!["tcp:10.9.9.9:80-null".to_owned()]));
        assert_eq!(text, "conflicting/invalid guest forwarding to 10.9.9.9:80");
    }
}

/// A router is there, which says what the network is.
#[test]
fn there_is_a_router_of_version_6() {
    let (_thread, on) = Thread::spawn("net-test").unwrap();
    let user = User { ipv6_net: Some("fd00:7::/64".to_owned()), ..User::default() };
    let Some(stack) = open(&user, &on) else { return };
    let guest = Guest(&stack.shared);
    // A router solicitation to all routers: its checksum is over the pseudo-header, too.
    let mut source = [0; 16];
    (source[0], source[1], source[15]) = (0xfe, 0x80, 9);
    let mut all_routers = [0; 16];
    (all_routers[0], all_routers[1], all_routers[15]) = (0xff, 2, 2);
    let mut icmp = vec![133, 0, 0, 0, 0, 0, 0, 0, 1, 1];
    icmp.extend(GUEST);
    let length = icmp.len() as u8;
    let sum: u32 = [&source[..], &all_routers, &[0, length, 0, 58], &icmp]
        .concat()
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0, 0, length, 58, 255];
    packet.extend(source);
    packet.extend(all_routers);
    packet.extend(icmp);
    guest.send([0x33, 0x33, 0, 0, 0, 2], 0x86dd, &packet);
    let told = guest.until(|frame| {
        let advertises = frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && frame[54] == 134;
        advertises.then(|| frame[54..].to_vec())
    });
    let prefix = [0xfd, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(told.windows(16).any(|part| part == prefix), "{told:x?}");
}

#[test]
fn addresses_of_version_6_are_checked() {
    let refused = |user: User| user.plan().err().unwrap().to_string();
    let text = |text: &str| Some(text.to_owned());
    assert!(User::default().plan().unwrap().config.ipv6.is_none());
    let on = User { ipv6: Some(true), ..User::default() }.plan().unwrap().config.ipv6.unwrap();
    assert_eq!((on.prefix.to_string(), on.host.to_string()), ("fec0::".into(), "fec0::2".into()));
    let six = User { ipv6_net: text("fec0::1/64"), ..User::default() };
    assert_eq!(refused(six), "invalid ipv6-net= 'fec0::1/64'");
    let six = User { ipv6_host: text("fec1::2"), ..User::default() };
    assert_eq!(refused(six), "invalid ipv6-host= 'fec1::2'");
    let six = User { ipv6: Some(false), ipv6_dns: text("fec0::9"), ..User::default() };
    assert_eq!(refused(six), "addresses of IPv6, which is switched off");
    let none = User { ipv4: Some(false), ..User::default() };
    assert_eq!(refused(none), "IPv4 and IPv6 are both switched off");
}
