//! Real TAP interfaces in a network namespace of their own.

use std::io::Write;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;

use resources::iol::Loop;
use resources::testing::skipped;
use rustix::thread::UnshareFlags;
use vmm_sys_util::tempdir::TempDir;

use super::super::tun;
use super::super::{
    Cable, Hubs, MAX_FRAME, Means, Network, OpenError, Options, Sent, Setup, parse_netdev,
};
use super::{plug, run};

/// Runs `test` on a thread that is alone on its network; not at all where that is forbidden.
fn alone(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        // SAFETY: only of descriptors must a thread not have its own table.
        #[expect(unsafe_code, reason = "the wrapper is for all kinds of namespaces")]
        let own = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) };
        if let Err(error) = own {
            return skipped(format_args!("a network namespace of one's own: {error}"));
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn open(text: &str, fds: &mut Vec<OwnedFd>) -> Result<(Arc<Network>, Cable), String> {
    let pairs: Vec<_> = text.split(',').map(|pair| pair.split_once('=').unwrap()).collect();
    let (id, options) = parse_netdev(&pairs).map_err(|error| error.to_string())?;
    let mut take =
        |name: &str| fds.pop().ok_or_else(|| OpenError::Host(format!("no descriptor {name}")));
    let the_loop = Loop::new("test").unwrap();
    let (on, hubs) = (the_loop.handle(), Hubs::default());
    let means = Means { on: &on, hubs: &hubs, take_fd: &mut take, chardevs: None };
    let netdev = options.open(&id, false, means).map_err(|error| error.to_string())?;
    let network = Network::new();
    network.add(netdev.clone()).unwrap();
    let (cable, _) = plug(&network, Some(netdev));
    Ok((network, cable))
}

fn info(cable: &Cable, queue: u16) -> String {
    cable.netdev().unwrap().backend().info(queue)
}

/// An Ethernet broadcast with a UDP datagram from 10.1.0.2 to 10.1.0.1.
fn datagram(port: u16, payload: &[u8]) -> Vec<u8> {
    let total = 28 + payload.len() as u16;
    let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0, 10, 1, 0, 2, 10, 1, 0, 1];
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 2, 8, 0]);
    frame.extend(ip);
    frame.extend(1000_u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend((8 + payload.len() as u16).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

#[test]
fn frames_reach_the_hosts_network_and_come_back() {
    alone(|| {
        let netdev = "id=n,type=tap,ifname=vt0,script=no,downscript=no";
        let (network, cable) = open(netdev, &mut Vec::new()).unwrap();
        assert_eq!(info(&cable, 0), "ifname=vt0,script=no,downscript=no");
        ip("addr add 10.1.0.1/24 dev vt0");
        ip("link set vt0 up");
        let socket = UdpSocket::bind("10.1.0.1:0").unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        let port_number = socket.local_addr().unwrap().port();
        assert!(cable.caps().header);
        for header in [false, true] {
            cable.configure(Setup { header, ..Setup::default() }).unwrap();
            run(async |local| {
                let port = cable.open(0, &local).unwrap();
                let mut frame = datagram(port_number, b"from the guest");
                if header {
                    frame.splice(0..0, [0; 12]);
                }
                let (head, rest) = frame.split_at(17);
                assert_eq!(port.send(&[head.into(), rest.into()]), Sent::Taken);
                let mut buf = [0; 100];
                let len = socket.recv(&mut buf).unwrap();
                assert_eq!(&buf[..len], b"from the guest");
                socket.set_broadcast(true).unwrap();
                socket.send_to(b"to the guest", "10.1.0.255:9").unwrap();
                let mut buf = vec![0; MAX_FRAME];
                loop {
                    let len = port.recv(&mut buf).await;
                    if buf[..len].ends_with(b"to the guest") {
                        assert_eq!(len, 12 + 14 + 28 + if header { 12 } else { 0 });
                        break;
                    }
                }
            });
        }
        network.remove("n").unwrap();
        assert!(
            !Command::new("ip").args(["link", "show", "vt0"]).output().unwrap().status.success()
        );
    });
}

#[test]
fn an_interface_that_goes_away_is_silence() {
    alone(|| {
        let netdev = "id=n,type=tap,script=no,downscript=no";
        let (_network, cable) = open(netdev, &mut Vec::new()).unwrap();
        assert_eq!(info(&cable, 0), "ifname=tap0,script=no,downscript=no");
        run(async |local| {
            let port = cable.open(0, &local).unwrap();
            ip("link del tap0");
            let mut buf = vec![0; MAX_FRAME];
            port.receivable().await;
            assert_eq!(port.try_recv(&mut buf), None);
            assert_eq!(port.send(&[datagram(1, b"").as_slice().into()]), Sent::Taken);
        });
    });
}

#[test]
fn several_queues_of_one_interface() {
    alone(|| {
        let netdev = "id=n,type=tap,queues=3,vnet_hdr=off,script=no,downscript=no";
        let (_network, cable) = open(netdev, &mut Vec::new()).unwrap();
        assert_eq!((cable.queues(), cable.caps().header), (Some(3), false));
        for queues in [3, 2, 3, 1] {
            cable.configure(Setup { queues, ..Setup::default() }).unwrap();
        }
        assert!(cable.configure(Setup { queues: 4, ..Setup::default() }).is_err());
        run(async |local| {
            let ports: Vec<_> = (0..3).map(|queue| cable.open(queue, &local).unwrap()).collect();
            assert_eq!(ports[2].send(&[datagram(1, b"x").as_slice().into()]), Sent::Taken);
            assert!(cable.open(3, &local).is_err());
        });
    });
}

#[test]
fn scripts_are_run_and_heeded() {
    alone(|| {
        let dir = TempDir::new().unwrap();
        let log = dir.as_path().join("log");
        let script = |name: &str, end: &str| {
            let path = dir.as_path().join(name);
            let mut file = std::fs::File::create(&path).unwrap();
            writeln!(file, "#!/bin/sh\necho {name} $1 >> {}\n{end}", log.display()).unwrap();
            file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
            path.display().to_string()
        };
        let (up, down, fails) = (script("up", ""), script("down", ""), script("fails", "exit 3"));
        let netdev = format!("id=n,type=tap,ifname=vt1,script={up},downscript={down}");
        let (network, cable) = open(&netdev, &mut Vec::new()).unwrap();
        drop(cable);
        network.remove("n").unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "up vt1\ndown vt1\n");
        let error = open(&format!("id=n,type=tap,script={fails}"), &mut Vec::new()).unwrap_err();
        assert_eq!(error, format!("network script {fails} failed with exit status: 3"));
        let error = open("id=n,type=tap,script=/nowhere/up", &mut Vec::new()).unwrap_err();
        assert!(error.starts_with("could not launch network script /nowhere/up: "), "{error}");
    });
}

/// A program that makes an interface and passes it on, as the helper of a bridge does.
const HELPER: &str = r#"
import array, fcntl, socket, struct, sys
tun = open("/dev/net/tun", "r+b", buffering=0)
fcntl.ioctl(tun, 0x400454ca, struct.pack("16sH22s", b"vt2", 0x5002, b""))
socket.socket(fileno=0).sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [tun.fileno()]))])
open(sys.argv[1], "w").write(" ".join(sys.argv[2:]))
"#;

#[test]
fn a_helper_makes_the_interface() {
    alone(|| {
        let dir = TempDir::new().unwrap();
        let path = |name: &str| dir.as_path().join(name).display().to_string();
        std::fs::write(path("helper.py"), HELPER).unwrap();
        let helper = format!("python3 {} {}", path("helper.py"), path("arguments"));
        let netdev = format!("id=n,type=bridge,br=br7,helper={helper}");
        // Its value has no comma, but an equals sign would do no harm.
        let (_network, cable) = open(&netdev, &mut Vec::new()).unwrap();
        assert_eq!(info(&cable, 0), format!("helper={helper},br=br7"));
        assert!(cable.caps().header);
        let arguments = std::fs::read_to_string(path("arguments")).unwrap();
        assert_eq!(arguments, "--use-vnet --fd=0 --br=br7");
        let error = open("id=n,type=bridge,helper=/bin/false", &mut Vec::new()).unwrap_err();
        assert_eq!(error, "failed to launch bridge helper: /bin/false: exit status: 1");
        let error = open("id=n,type=bridge,helper=/bin/true", &mut Vec::new()).unwrap_err();
        assert_eq!(error, "failed to launch bridge helper: /bin/true: exit status: 0");
        let error = open("id=n,type=tap,helper=/nowhere/h", &mut Vec::new()).unwrap_err();
        assert!(error.starts_with("failed to launch bridge helper: /nowhere/h: "), "{error}");
    });
}

#[test]
fn a_descriptor_that_was_passed() {
    alone(|| {
        let make = || {
            let pairs = [("id", "n"), ("type", "tap"), ("script", "no"), ("downscript", "no")];
            let (_, options) = parse_netdev(&pairs).unwrap();
            let Options::Tap(_) = &options else { unreachable!() };
            let flags = rustix::fs::OFlags::RDWR;
            let fd = rustix::fs::open("/dev/net/tun", flags, rustix::fs::Mode::empty()).unwrap();
            let kind = super::super::tun::Flags::TAP | super::super::tun::Flags::NO_PACKET_INFO;
            super::super::tun::attach(&fd, "vt3", kind).unwrap();
            fd
        };
        let fd = make();
        let number = fd.as_raw_fd();
        let (_network, cable) = open("id=n,type=tap,fd=x", &mut vec![fd]).unwrap();
        assert_eq!(info(&cable, 0), format!("fd={number}"));
        assert!(!cable.caps().header);
        let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let error = open("id=n,type=tap,fd=x", &mut vec![null]).unwrap_err();
        assert!(error.starts_with("tap descriptor: ") || error.starts_with("TUNGETIFF"), "{error}");
        assert_eq!(open("id=n,type=tap,fd=x", &mut Vec::new()).unwrap_err(), "no descriptor x");
    });
}

#[test]
fn descriptors_for_all_queues_that_were_passed() {
    alone(|| {
        let make = |more: tun::Flags| {
            let flags = rustix::fs::OFlags::RDWR;
            let fd = rustix::fs::open("/dev/net/tun", flags, rustix::fs::Mode::empty()).unwrap();
            let kind = tun::Flags::TAP | tun::Flags::NO_PACKET_INFO | tun::Flags::MULTI_QUEUE;
            tun::attach(&fd, "vt4", kind | more).unwrap();
            fd
        };
        let mut fds: Vec<OwnedFd> = (0..3).map(|_| make(tun::Flags::VNET_HDR)).collect();
        let infos: Vec<_> = fds.iter().rev().map(|fd| format!("fd={}", fd.as_raw_fd())).collect();
        let (_network, cable) = open("id=n,type=tap,fds=a:b:c", &mut fds).unwrap();
        assert_eq!((cable.queues(), cable.caps().header), (Some(3), true));
        assert_eq!((0..3).map(|queue| info(&cable, queue)).collect::<Vec<_>>(), infos);
        for queues in [2, 3] {
            cable.configure(Setup { header: true, queues, ..Setup::default() }).unwrap();
        }
        run(async |local| {
            assert!(cable.open(2, &local).is_ok() && cable.open(3, &local).is_err());
        });
        drop(cable);
        // Those of two interfaces, or of fewer than were named.
        let mut fds = vec![make(tun::Flags::VNET_HDR)];
        let error = open("id=n,type=tap,fds=a:b", &mut fds).unwrap_err();
        assert_eq!(error, "no descriptor b");
        let error = open("id=n,type=tap,fds=a:b,vhost=on,vhostfds=c", &mut fds).unwrap_err();
        let counts = "The number of fds passed does not match the number of vhostfds passed";
        assert_eq!(error, counts);
        assert_eq!(
            open("id=n,type=tap,vhost=on,vhostfds=c", &mut fds).unwrap_err(),
            "vhostfds= is invalid if fds= wasn't specified"
        );
        // What is no vhost device.
        let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let error = open("id=n,type=tap,vhost=on,vhostfd=v,script=no", &mut vec![null]);
        assert!(error.unwrap_err().starts_with("vhost-net requested but"));
    });
}

#[test]
fn what_does_not_go_together() {
    let refused = |text: &str| open(text, &mut Vec::new()).unwrap_err();
    let with_fd = "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, fds=, and \
                   vhostfds= are invalid with fd=";
    for other in ["ifname=x", "script=no", "vnet_hdr=on", "queues=1", "fds=1:2", "vhostfds=1"] {
        assert_eq!(refused(&format!("id=n,type=tap,fd=3,{other}")), with_fd);
    }
    let with_fds = "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, and vhostfd= are \
                    invalid with fds=";
    assert_eq!(refused("id=n,type=tap,fds=3:4,vhostfd=5"), with_fds);
    let with_helper = "ifname=, script=, downscript=, vnet_hdr=, queues=, and vhostfds= are \
                       invalid with helper=";
    assert_eq!(refused("id=n,type=tap,helper=x,queues=2"), with_helper);
    assert_eq!(refused("id=n,type=tap,vhost=off,vhostfd=5"), "vhostfd= is not valid without vhost");
    assert!(refused("id=n,type=tap,vhostforce=on").starts_with("vhost-net requested but"));
    assert_eq!(
        refused("id=n,type=tap,sndbuf=x"),
        "Parameter 'sndbuf' expects a size value representible as a non-negative int64"
    );
    assert_eq!(refused("id=n,type=tap,vhost=1"), "Parameter 'vhost' expects on|yes|y|off|no|n");
    assert_eq!(refused("id=n,type=tap,queues=x"), "Parameter 'queues' expects a uint64 value");
    assert_eq!(refused("id=n,type=tap,queue=2"), "Invalid parameter 'queue'");
    assert_eq!(refused("id=n,type=foo"), "Invalid parameter 'foo'");
    assert_eq!(refused("type=tap"), "Parameter 'id' is missing");
    assert_eq!(refused("id=n"), "Parameter 'type' is missing");
    assert_eq!(refused("id=1,type=tap"), "Parameter 'id' expects an identifier");
    for kind in ["none", "vde,port=5", "netmap,ifname=x"] {
        let error = refused(&format!("id=n,type={kind}"));
        assert_eq!(error, "Parameter 'type' expects a netdev backend type");
    }
    assert_eq!(refused("id=n,type=netmap"), "Parameter 'ifname' is missing");
}
