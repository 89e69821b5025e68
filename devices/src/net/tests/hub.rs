//! Hubs between NICs, netdevs and a record.

use std::process::Command;
use std::sync::OnceLock;

use resources::clock::Clock;
use vmm_sys_util::tempdir::TempDir;

use super::super::testing::pair;
use super::super::{DumpOptions, Hubs, LateClock, MAX_FRAME, Network, Sent, port_for_nic};
use super::{Caps, FRAME, lane, plug, run};

#[test]
fn what_comes_in_at_one_port_goes_out_at_the_others() {
    run(async |local| {
        let (network, hubs, on) = (Network::new(), Hubs::default(), local.handle());
        let (netdev, far) = pair("b0", 1, Caps::default());
        network.add(netdev.clone()).unwrap();
        hubs.join(3, &network, &netdev, &on).unwrap();
        assert!(hubs.join(3, &network, &netdev, &on).is_err());
        let (one, two) = (port_for_nic(3, &hubs, &on), port_for_nic(3, &hubs, &on));
        assert_eq!((one.id(), two.id()), ("hub3port1", "hub3port2"));
        let (one, _) = plug(&network, Some(one));
        let (two, _) = plug(&network, Some(two));
        let (first, second) = (one.open(0, &local).unwrap(), two.open(0, &local).unwrap());
        let mut buf = vec![0; MAX_FRAME];
        assert_eq!(first.send(&[FRAME.into()]), Sent::Taken);
        assert_eq!(second.recv(&mut buf).await, FRAME.len());
        assert_eq!(far.sent(0).unwrap().next().await, FRAME);
        assert!(far.send(0, b"a frame from afar"));
        assert_eq!(first.recv(&mut buf).await, 17);
        assert_eq!(second.recv(&mut buf).await, 17);
        assert_eq!(first.try_recv(&mut buf), None);
        // A NIC that takes nothing does not hold up another one.
        for _ in 0..3 * lane::FRAMES {
            while !far.send(0, FRAME) {
                local.yield_now().await;
            }
            assert_eq!(second.recv(&mut buf).await, FRAME.len());
        }
        assert!(hubs.leave(3, "b0") && !hubs.leave(3, "b0"));
        assert_eq!(second.send(&[FRAME.into()]), Sent::Taken);
        assert_eq!(first.recv(&mut buf).await, FRAME.len());
        assert!(far.recv(0).is_none());
    });
}

#[test]
fn nothing_is_lost_while_nobody_takes_frames() {
    run(async |local| {
        let (network, hubs, on) = (Network::new(), Hubs::default(), local.handle());
        let (netdev, far) = pair("b0", 1, Caps::default());
        network.add(netdev.clone()).unwrap();
        hubs.join(0, &network, &netdev, &on).unwrap();
        let (cable, _) = plug(&network, Some(port_for_nic(0, &hubs, &on)));
        let mut sent = 0_u32;
        let mut idle = 0;
        while idle < 100 {
            if far.send(0, &[FRAME, &sent.to_be_bytes()].concat()) {
                (sent, idle) = (sent + 1, 0);
            } else {
                idle += 1;
                local.yield_now().await;
            }
        }
        assert!(sent as usize >= 2 * lane::FRAMES, "{sent}");
        let port = cable.open(0, &local).unwrap();
        let mut buf = vec![0; MAX_FRAME];
        for number in 0..sent {
            let len = port.recv(&mut buf).await;
            assert_eq!(buf[..len], [FRAME, &number.to_be_bytes()].concat());
        }
    });
}

#[test]
fn a_record_is_what_tcpdump_reads() {
    let dir = TempDir::new().unwrap();
    let path = dir.as_path().join("r.pcap");
    run(async |local| {
        let (network, hubs, on) = (Network::new(), Hubs::default(), local.handle());
        let clock: LateClock = std::sync::Arc::new(OnceLock::new());
        let _ = clock.set(Clock::stepped());
        let options = DumpOptions { file: Some(path.display().to_string()), len: Some(20) };
        options.open(("dump.0", 0), &clock, &hubs, &on).unwrap();
        let (cable, _) = plug(&network, Some(port_for_nic(0, &hubs, &on)));
        let port = cable.open(0, &local).unwrap();
        for _ in 0..3 {
            assert_eq!(port.send(&[FRAME.into()]), Sent::Taken);
        }
        let size = || std::fs::metadata(&path).unwrap().len();
        while size() < 24 + 3 * 36 {
            local.yield_now().await;
        }
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes[..8], [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0]);
        assert_eq!(bytes[16..24], [20, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(bytes[32..40], [20, 0, 0, 0, FRAME.len() as u8, 0, 0, 0]);
        assert_eq!(bytes[40..60], FRAME[..20]);
        let nowhere = DumpOptions { file: Some("/nowhere/x".to_owned()), len: None };
        let error = nowhere.open(("dump.1", 0), &clock, &hubs, &on).unwrap_err();
        assert!(error.to_string().starts_with("-net dump: can't open /nowhere/x: "), "{error}");
    });
    match Command::new("tcpdump").args(["-r"]).arg(&path).args(["-e", "-n"]).output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && text.matches("length 28").count() == 3, "{text}");
        }
        Err(error) => resources::testing::skipped(format_args!("tcpdump: {error}")),
    }
}
