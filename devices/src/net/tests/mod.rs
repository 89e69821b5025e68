mod hub;
mod tap;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use resources::iol::{Either, Local, Loop, race};

use super::testing::{Far, pair};
use super::{
    Cable, Caps, Mac, NetError, Netdev, Network, Nic, NicSpec, Offloads, Segment, Sent, Setup, lane,
};

/// A NIC that counts what it is told.
#[derive(Default)]
pub(super) struct Told {
    ups: AtomicU32,
    downs: AtomicU32,
}

impl Nic for Told {
    fn link_changed(&self, up: bool) {
        if up { &self.ups } else { &self.downs }.fetch_add(1, Ordering::Relaxed);
    }
}

impl Told {
    fn get(&self) -> (u32, u32) {
        (self.ups.load(Ordering::Relaxed), self.downs.load(Ordering::Relaxed))
    }
}

pub(super) fn plug(network: &Arc<Network>, netdev: Option<Arc<Netdev>>) -> (Cable, Arc<Told>) {
    let told = Arc::new(Told::default());
    let spec = NicSpec { id: None, model: "test-nic", mac: None, netdev, front: told.clone() };
    (network.plug(spec).unwrap(), told)
}

const FRAME: &[u8] = b"dstdstsrcsrcty and a payload";

fn run<T>(test: impl AsyncFnOnce(Local) -> T) -> T {
    let mut the_loop = Loop::new("test").unwrap();
    let local = the_loop.local().clone();
    the_loop.run(test(local))
}

fn rig(caps: Caps) -> (Arc<Network>, Cable, Arc<Told>, Far) {
    let network = Network::new();
    let (netdev, far) = pair("net0", 2, caps);
    network.add(netdev.clone()).unwrap();
    let (cable, told) = plug(&network, Some(netdev));
    (network, cable, told, far)
}

#[test]
fn frames_go_both_ways_and_wait_while_nobody_takes_them() {
    let (_network, cable, _told, far) = rig(Caps::default());
    assert!(far.send(0, FRAME) && far.send(1, b"to the other queue"));
    run(async |local| {
        let port = cable.open(0, &local).unwrap();
        let mut buf = vec![0; super::MAX_FRAME];
        let len = port.recv(&mut buf).await;
        assert_eq!(&buf[..len], FRAME);
        assert_eq!(port.send(&[FRAME[..5].into(), FRAME[5..].into()]), Sent::Taken);
        assert_eq!(far.recv(0).unwrap(), FRAME);
        // Dropped in the middle of a wait: nothing is lost.
        let never = race(port.recv(&mut buf), local.yield_now()).await;
        assert_eq!(never, Either::Right(()));
        drop(port);
        assert!(far.send(0, FRAME));
        assert_eq!(cable.open(0, &local).unwrap().recv(&mut buf).await, FRAME.len());
    });
}

#[test]
fn a_full_back_end_makes_the_nic_wait() {
    let (_network, cable, _told, far) = rig(Caps::default());
    run(async |local| {
        let port = cable.open(0, &local).unwrap();
        for _ in 0..lane::FRAMES {
            assert_eq!(port.send(&[FRAME.into()]), Sent::Taken);
        }
        assert_eq!(port.send(&[FRAME.into()]), Sent::Full);
        let taker = {
            let (far, on) = (far.clone(), local.clone());
            local.spawn(async move {
                on.yield_now().await;
                while far.recv(0).is_some() {}
            })
        };
        port.sendable().await;
        assert_eq!(port.send(&[FRAME.into()]), Sent::Taken);
        drop(taker);
    });
}

#[test]
fn impossible_frames_are_lost() {
    let (_network, cable, _told, far) = rig(Caps { header: true, ..Caps::default() });
    cable.configure(Setup { header: true, ..Setup::default() }).unwrap();
    run(async |local| {
        let port = cable.open(0, &local).unwrap();
        let mut buf = vec![0; super::MAX_FRAME];
        let huge = vec![0; super::MAX_FRAME + 1];
        for frame in [&[][..], &[0; 25], &huge] {
            assert_eq!(port.send(&[frame.into()]), Sent::Taken);
            assert!(far.recv(0).is_none());
        }
        assert!(far.send(0, &[1; 25]) && far.send(0, &[2; 26]));
        assert_eq!(port.recv(&mut buf).await, 26);
        assert_eq!(port.send(&[Segment::from(&[3; 26][..])]), Sent::Taken);
        assert_eq!(far.recv(0).unwrap(), [3; 26]);
    });
}

#[test]
fn a_link_that_is_down_loses_frames_and_the_nic_is_told() {
    let (network, cable, told, far) = rig(Caps::default());
    let nic = cable.nic().name().to_owned();
    assert_eq!(nic, "test-nic.0");
    run(async |local| {
        let port = cable.open(0, &local).unwrap();
        let mut buf = vec![0; super::MAX_FRAME];
        for (name, back) in [("net0", "net0"), (&*nic, "net0")] {
            network.set_link(name, false).unwrap();
            assert!(!cable.link_up());
            assert_eq!(port.send(&[FRAME.into()]), Sent::Taken);
            assert!(far.recv(0).is_none());
            assert!(far.send(0, FRAME));
            assert_eq!(port.try_recv(&mut buf), None);
            network.set_link(back, true).unwrap();
            assert_eq!(port.try_recv(&mut buf), None);
            assert!(cable.link_up() && far.send(0, FRAME));
            assert_eq!(port.try_recv(&mut buf), Some(FRAME.len()));
        }
        assert_eq!(told.get(), (2, 2));
        assert_eq!(network.set_link("none", true), Err(NetError::NotFound("none".to_owned())));
    });
}

#[test]
fn a_netdev_that_is_removed_leaves_a_nic_with_nobody() {
    let (network, cable, told, far) = rig(Caps::default());
    run(async |local| {
        let port = cable.open(0, &local).unwrap();
        let mut buf = vec![0; super::MAX_FRAME];
        let remover = {
            let (network, on) = (network.clone(), local.clone());
            local.spawn(async move {
                on.yield_now().await;
                network.remove("net0").unwrap();
            })
        };
        let end = race(port.recv(&mut buf), remover).await;
        assert_eq!(end, Either::Right(()));
        assert!(network.find("net0").is_none() && !cable.link_up());
        assert_eq!(told.get(), (0, 1));
        assert!(far.send(0, FRAME));
        assert_eq!((port.try_recv(&mut buf), port.send(&[FRAME.into()])), (None, Sent::Taken));
        assert!(cable.open(1, &local).unwrap().try_recv(&mut buf).is_none());
        assert!(far.recv(0).is_none());
    });
    assert_eq!(network.remove("net0"), Err(NetError::NotFound("net0".to_owned())));
}

#[test]
fn a_nic_without_a_netdev_talks_to_nobody() {
    let network = Network::new();
    let (cable, _told) = plug(&network, None);
    assert!(cable.link_up() && cable.queues().is_none());
    run(async |local| {
        let port = cable.open(0, &local).unwrap();
        assert_eq!(port.send(&[FRAME.into()]), Sent::Taken);
        assert_eq!(port.try_recv(&mut [0; 64]), None);
    });
}

#[test]
fn one_nic_a_netdev_names_and_addresses() {
    let (network, cable, _told, _far) = rig(Caps::default());
    let netdev = network.find("net0").unwrap();
    let spec = NicSpec {
        id: Some("n1"),
        model: "test-nic",
        mac: None,
        netdev: Some(netdev.clone()),
        front: Arc::new(Told::default()),
    };
    assert_eq!(network.plug(spec).err(), Some(NetError::InUse("net0".to_owned())));
    let (second, _) = plug(&network, None);
    assert_eq!(cable.nic().mac().to_string(), "52:54:00:12:34:56");
    assert_eq!(second.nic().mac(), Mac([0x52, 0x54, 0, 0x12, 0x34, 0x57]));
    assert_eq!(second.nic().name(), "test-nic.1");
    assert_eq!(network.nics().len(), 2);
    drop(cable);
    assert!(!netdev.is_used() && network.nics().len() == 1);
    assert_eq!(network.add(netdev), Err(NetError::Duplicate("net0".to_owned())));
}

#[test]
fn only_what_is_offered_can_be_agreed_on() {
    let caps = Caps { header: true, offloads: Offloads::CSUM | Offloads::TSO4 };
    let (_network, cable, _told, far) = rig(caps);
    let setup = Setup { header: true, offloads: Offloads::CSUM, queues: 2 };
    cable.configure(setup).unwrap();
    assert_eq!(far.setup(), setup);
    for wrong in [
        Setup { offloads: Offloads::UFO, ..setup },
        Setup { header: false, ..setup },
        Setup { queues: 3, ..setup },
        Setup { queues: 0, ..setup },
    ] {
        assert!(cable.configure(wrong).is_err(), "{wrong:?}");
    }
    assert_eq!(far.setup(), setup);
}
