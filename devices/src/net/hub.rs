//! Hubs inside the process: what comes in at one port goes out at all others.
//!
//! A port is a netdev for a NIC, or leads to another netdev, or to a record. One task for each hub,
//! on the devices' loop, moves the frames; the main thread adds ports. Lock: one around a hub's
//! list of ports, held for a moment. A frame waits at its port while no other port has room: so
//! nothing is lost while the machine is stopped. A port that has none while another one has loses
//! the frame, as at a switch: a NIC that takes nothing does not hold up the others.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;

use parking_lot::Mutex;
use resources::iol::{Handle, Local, Notify, race};

use super::backend::{Backend, Endpoint};
use super::dump::Dump;
use super::frame::MAX_FRAME;
use super::lane::{Lane, LaneEnd};
use super::network::{NetError, Netdev, Network};
use super::port::{Port, Sent};

/// Something that a hub waits for.
type Wait<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// How many frames of one port are moved before the others have their turn.
const BATCH: usize = 64;

/// The hubs of a machine, by number.
#[derive(Clone, Default)]
pub struct Hubs(Arc<Mutex<Vec<Arc<Hub>>>>);

/// A hub.
struct Hub {
    id: i32,
    ports: Mutex<Vec<Arc<HubPort>>>,
    changed: Notify,
}

/// What is at a port.
#[derive(Clone)]
enum Member {
    /// A netdev that a NIC is plugged into.
    Nic(Weak<Netdev>),
    /// Another netdev.
    Netdev(Arc<Netdev>),
    /// A record.
    Dump(Arc<Dump>),
}

/// A port of a hub.
struct HubPort {
    name: String,
    /// Frames of whoever is plugged in.
    from: Lane,
    /// Frames for it.
    to: Lane,
    plugged: AtomicBool,
    gone: Notify,
    member: Mutex<Option<Member>>,
}

impl HubPort {
    fn record(&self) -> Option<Arc<Dump>> {
        match &*self.member.lock() {
            Some(Member::Dump(dump)) => Some(dump.clone()),
            _ => None,
        }
    }
}

impl Hubs {
    /// The hub of a number, which is made if there is none.
    fn hub(&self, id: i32, on: &Handle) -> Arc<Hub> {
        let mut hubs = self.0.lock();
        if let Some(hub) = hubs.iter().find(|hub| hub.id == id) {
            return hub.clone();
        }
        let hub = Arc::new(Hub { id, ports: Mutex::default(), changed: Notify::new() });
        hubs.push(hub.clone());
        let weak = Arc::downgrade(&hub);
        let changed = hub.changed.clone();
        on.spawn(move |local| serve(local, weak, changed));
        hub
    }

    /// Adds a port for a NIC; its name, if it is given none, is `hubNportM`.
    pub(super) fn port(&self, id: i32, name: Option<&str>, on: &Handle) -> (String, HubEnd) {
        let hub = self.hub(id, on);
        let port = hub.add(name);
        (port.name.clone(), HubEnd { hub, port })
    }

    /// Leads a new port to a netdev, on the loop `on`.
    ///
    /// # Errors
    /// The netdev is in use.
    pub fn join(
        &self,
        id: i32,
        network: &Arc<Network>,
        netdev: &Arc<Netdev>,
        on: &Handle,
    ) -> Result<(), NetError> {
        let cable = network.attach(netdev)?;
        let hub = self.hub(id, on);
        let port = hub.add(None);
        *port.member.lock() = Some(Member::Netdev(netdev.clone()));
        port.plug();
        hub.changed.notify();
        on.spawn(move |local| async move {
            match cable.open(0, &local) {
                Ok(end) => {
                    let moved = race(receive(&local, &end, &port), send(&local, &end, &port));
                    race(moved, port.gone.notified()).await;
                }
                Err(error) => tracing::error!("{}: {error}", port.name),
            }
        });
        Ok(())
    }

    /// Adds a port that records.
    pub(super) fn record(&self, id: i32, dump: Arc<Dump>, on: &Handle) {
        let hub = self.hub(id, on);
        let port = hub.add(None);
        *port.member.lock() = Some(Member::Dump(dump));
        port.plug();
        hub.changed.notify();
    }

    /// Takes the port off that leads to this netdev or recorder; false if there is none.
    pub fn leave(&self, id: i32, name: &str) -> bool {
        let hub = self.0.lock().iter().find(|hub| hub.id == id).cloned();
        let Some(hub) = hub else { return false };
        let is = |port: &Arc<HubPort>| match &*port.member.lock() {
            Some(Member::Netdev(netdev)) => netdev.id() == name,
            Some(Member::Dump(dump)) => dump.name() == name,
            _ => false,
        };
        let port = {
            let mut ports = hub.ports.lock();
            let Some(at) = ports.iter().position(is) else { return false };
            ports.remove(at)
        };
        port.end();
        hub.changed.notify();
        true
    }

    /// The hubs, newest first: their numbers, and who is at their ports.
    pub fn list(&self) -> Vec<(i32, Vec<HubMember>)> {
        let hubs = self.0.lock().clone();
        let member = |port: &Arc<HubPort>| match port.member.lock().clone() {
            Some(Member::Nic(netdev)) => match netdev.upgrade().filter(|netdev| netdev.is_used()) {
                Some(netdev) => HubMember::Nic(netdev),
                None => HubMember::Nobody(port.name.clone()),
            },
            Some(Member::Netdev(netdev)) => HubMember::Netdev(netdev),
            Some(Member::Dump(dump)) => {
                HubMember::Dump { name: dump.name().to_owned(), info: dump.info() }
            }
            None => HubMember::Nobody(port.name.clone()),
        };
        let all = |hub: &Arc<Hub>| {
            let ports = hub.ports.lock().clone();
            (hub.id, ports.iter().rev().map(member).collect())
        };
        hubs.iter().rev().map(all).collect()
    }
}

/// Who is at a port of a hub.
pub enum HubMember {
    /// The NIC that is plugged into this netdev, which is the port.
    Nic(Arc<Netdev>),
    /// A back end.
    Netdev(Arc<Netdev>),
    /// A record.
    Dump {
        /// Its name.
        name: String,
        /// What it tells of itself.
        info: String,
    },
    /// Nobody; the port's name.
    Nobody(String),
}

impl Hub {
    fn add(&self, name: Option<&str>) -> Arc<HubPort> {
        let mut ports = self.ports.lock();
        let mut names = (0u32..).map(|number| format!("hub{}port{number}", self.id));
        let free = |name: &String| ports.iter().all(|port| port.name != *name);
        let name = match name {
            Some(name) => name.to_owned(),
            None => names.find(free).unwrap_or_default(),
        };
        let port = Arc::new(HubPort {
            name,
            from: Lane::new(),
            to: Lane::new(),
            plugged: AtomicBool::new(false),
            gone: Notify::new(),
            member: Mutex::default(),
        });
        ports.push(port.clone());
        port
    }

    fn remove(&self, port: &Arc<HubPort>) {
        self.ports.lock().retain(|other| !Arc::ptr_eq(other, port));
        port.end();
        self.changed.notify();
    }
}

impl HubPort {
    fn plug(&self) {
        self.from.clear();
        self.to.clear();
        self.plugged.store(true, Ordering::Release);
    }

    fn end(&self) {
        self.plugged.store(false, Ordering::Release);
        self.from.close();
        self.to.close();
        self.gone.notify();
    }

    fn takes_part(&self) -> bool {
        self.plugged.load(Ordering::Acquire)
    }
}

/// Moves what a netdev gives to its port.
async fn receive(local: &Local, end: &Port, port: &HubPort) {
    let mut buf = vec![0; MAX_FRAME];
    loop {
        let len = end.recv(&mut buf).await;
        let frame = buf.get(..len).unwrap_or_default();
        while !port.from.put(|| frame.to_vec()) {
            port.from.drained().await;
        }
        if port.from.len().is_multiple_of(BATCH) {
            local.yield_now().await;
        }
    }
}

/// Moves what comes out of a port to its netdev.
async fn send(local: &Local, end: &Port, port: &HubPort) {
    loop {
        let frame = port.to.next().await;
        while end.send(&[frame.as_slice().into()]) == Sent::Full {
            end.sendable().await;
        }
        if port.to.len().is_multiple_of(BATCH) {
            local.yield_now().await;
        }
    }
}

/// Moves the frames of a hub as long as it exists.
async fn serve(local: Local, hub: Weak<Hub>, changed: Notify) {
    loop {
        let Some(ports) = hub.upgrade().map(|hub| hub.ports.lock().clone()) else { return };
        let (moved, waits) = pass(&ports);
        if moved {
            local.yield_now().await;
            continue;
        }
        let mut waits: Vec<Wait<'_>> = waits;
        let any = std::future::poll_fn(|cx| {
            let ready = waits.iter_mut().any(|wait| wait.as_mut().poll(cx).is_ready());
            if ready { Poll::Ready(()) } else { Poll::Pending }
        });
        race(pin!(any), changed.notified()).await;
    }
}

/// Moves what can be moved; if nothing can, returns what to wait for.
fn pass(ports: &[Arc<HubPort>]) -> (bool, Vec<Wait<'_>>) {
    let mut moved = false;
    let mut waits: Vec<Wait<'_>> = Vec::new();
    let mut blocked = false;
    for port in ports {
        let others: Vec<_> = (ports.iter())
            .filter(|other| !Arc::ptr_eq(other, port) && other.takes_part())
            .map(|other| (other, other.record()))
            .collect();
        // A record has always room, and is no reason to lose what others have none for.
        let listeners = || others.iter().filter(|(_, record)| record.is_none());
        for _ in 0..BATCH {
            if port.from.is_empty() {
                waits.push(Box::pin(port.from.filled()));
                break;
            }
            if listeners().next().is_some() && !listeners().any(|(other, _)| other.to.has_room()) {
                blocked = true;
                break;
            }
            let Some(frame) = port.from.take() else { break };
            moved = true;
            for (other, record) in &others {
                match record {
                    Some(dump) => dump.write(&frame),
                    None => {
                        other.to.put(|| frame.clone());
                    }
                }
            }
        }
    }
    if blocked {
        let full = ports.iter().filter(|port| port.takes_part() && !port.to.has_room());
        waits.extend(full.map(|port| Box::pin(port.to.drained()) as Wait<'_>));
    }
    (moved, waits)
}

/// A port of a hub as a netdev.
pub(super) struct HubEnd {
    hub: Arc<Hub>,
    port: Arc<HubPort>,
}

impl HubEnd {
    /// What says so once the netdev is made.
    pub(super) fn naming(&self) -> impl FnOnce(&Arc<Netdev>) + use<> {
        let port = self.port.clone();
        move |netdev| *port.member.lock() = Some(Member::Nic(Arc::downgrade(netdev)))
    }
}

impl Backend for HubEnd {
    fn open(&self, _: u16, _: &Local) -> io::Result<Box<dyn Endpoint>> {
        let (send, recv) = (self.port.from.clone(), self.port.to.clone());
        Ok(Box::new(LaneEnd { send, recv }))
    }

    fn plugged(&self) {
        self.port.plug();
        self.hub.changed.notify();
    }

    fn unplugged(&self) {
        self.port.plugged.store(false, Ordering::Release);
        self.port.to.clear();
        self.hub.changed.notify();
    }

    fn info(&self, _: u16) -> String {
        String::new()
    }

    fn close(&self) {
        self.hub.remove(&self.port);
    }
}

impl Drop for HubEnd {
    fn drop(&mut self) {
        self.close();
    }
}
