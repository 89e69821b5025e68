//! The task that serves a card while a driver uses it: its queues, and the commands among them.
//!
//! Each receive and transmit queue has a task of its own. A command that changes how the back end
//! is used halts them, changes it, and lets them go on; what they had in hand stays in their
//! [`Receive`] and [`Transmit`].
//!
//! The loop of the device; no lock but the card's. A guest can send commands without end: one at
//! a time is obeyed, and the loop turns between them.

use std::cell::RefCell;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use resources::guest_error;
use resources::iol::{Either, Notify, Task, race};

use super::card::{ANNOUNCEMENTS, Card, Waiting};
use super::control::{Command, ERROR, MAX_COMMAND, OK};
use super::features::Features;
use super::filter::Mode;
use super::lent::Lent;
use super::outgoing::{Outgoing, Takes};
use super::receive::Receive;
use super::transmit::Transmit;
use crate::net::{
    Cable, Caps, Kernel, LinkWatch, Mac, Offloads, Port, Segment, Sent, Setup, announce,
};
use crate::virtio::{Broken, Chain, ConfigIrq, Worker};

/// What serving takes.
pub(super) struct Serve {
    pub(super) card: Arc<Card>,
    pub(super) cable: Arc<Cable>,
    /// What the driver accepted, of effect.
    pub(super) features: Features,
    /// How many pairs of queues there can be.
    pub(super) pairs: u16,
    /// To tell the driver that it cannot be served as the user wants.
    pub(super) config: ConfigIrq,
}

/// The queues of a pair, as far as the driver enabled them.
#[derive(Default)]
struct Pair {
    receive: Option<Receive>,
    transmit: Option<Transmit>,
}

/// A task that serves a queue, and what ends it.
struct Serving<T> {
    halt: Notify,
    task: Task<T>,
}

/// The queues of a pair while they are served.
enum Served {
    /// Here.
    Tasks(Option<Serving<Receive>>, Option<Serving<Transmit>>),
    /// By the kernel.
    Lent(Box<Pair>, Lent),
}

/// The way of frames that are the card's own, past the queues of the first pair.
#[derive(Default)]
enum Outlet {
    #[default]
    None,
    Port(Weak<Port>),
    Kernel(Kernel),
}

impl Outlet {
    /// Sends a frame without a header; whether it is on its way.
    fn send(&self, frame: &[u8]) -> bool {
        match self {
            Outlet::None => false,
            Outlet::Port(port) => port.upgrade().is_some_and(|port| {
                let header = vec![0; port.header()];
                port.send(&[Segment::from(&*header), frame.into()]) == Sent::Taken
            }),
            Outlet::Kernel(kernel) => kernel.send(frame),
        }
    }
}

impl<T> Serving<T> {
    async fn end(self) -> T {
        self.halt.notify();
        self.task.await
    }
}

/// Why queues are halted.
enum Halt {
    /// The device stops.
    Stop,
    /// The link has changed: another may have to serve them.
    Link,
    /// For a command that changes how the back end is used.
    Change(Chain, Change),
}

/// What is to be done after a command.
enum Outcome {
    Answer(u8),
    /// Another use of the back end has to be tried first.
    Try(Change),
}

/// What the guest wants to be otherwise.
#[derive(Clone, Copy)]
struct Change {
    pairs: u16,
    offloads: Option<u64>,
}

impl Serve {
    /// Serves the queues until the device stops.
    pub(super) async fn run(self, workers: Vec<Rc<Worker>>) {
        let Some(first) = workers.first().cloned() else { return };
        let waiting = self.card.with(|state| std::mem::take(&mut state.waiting));
        if let Err(error) = self.configure(self.wanted()) {
            tracing::error!("{}: {error}", self.cable.nic().name());
        }
        let mut pairs = self.pairs_of(&workers, waiting);
        let control = workers.iter().find(|worker| worker.index() == self.control_index()).cloned();
        self.card.announce(self.card.with(|state| state.announcements));
        let link = self.cable.watch_link();
        let control = control.filter(|_| self.features.contains(Features::CTRL_VQ));
        let outlet = Rc::new(RefCell::new(Outlet::None));
        // Goes on over what halts the queues, until it is dropped.
        let _telling = self.card.came().then(|| first.local().spawn(self.tell(&first, &outlet)));
        loop {
            let idle = pairs.split_off(pairs.len().min(self.wanted().pairs.into()));
            let serving = self.start(&first, pairs, &outlet);
            let why = self.until(&first, control.as_deref(), &link).await;
            pairs = halt(serving).await;
            pairs.extend(idle);
            match (why, &control) {
                (Halt::Change(chain, change), Some(control)) => {
                    let answer = self.change(change);
                    finish(control, chain, answer);
                }
                (Halt::Link, _) => {}
                _ => break,
            }
        }
        let waiting = pairs.into_iter().map(|pair| Waiting {
            received: pair.receive.map(Receive::finish).unwrap_or_default(),
            outgoing: pair.transmit.and_then(Transmit::finish),
        });
        let waiting = waiting.collect();
        self.card.with(|state| state.waiting = waiting);
    }

    /// Obeys commands until queues have to be halted.
    async fn until(&self, first: &Worker, control: Option<&Worker>, link: &LinkWatch) -> Halt {
        let stop = async {
            match control {
                Some(control) => self.obey(control).await,
                None => {
                    first.stopped().await;
                    None
                }
            }
        };
        let changed = async {
            // Ports see to the link themselves.
            match self.cable.vhost() {
                Some(_) => link.changed().await,
                None => std::future::pending().await,
            }
        };
        match race(stop, changed).await {
            Either::Left(Some((chain, change))) => Halt::Change(chain, change),
            Either::Left(None) => Halt::Stop,
            Either::Right(()) => Halt::Link,
        }
    }

    /// The number of the control queue.
    fn control_index(&self) -> u16 {
        let pairs = if self.features.contains(Features::MQ) { self.pairs } else { 1 };
        pairs.saturating_mul(2)
    }

    /// How the state says that the back end is used.
    fn wanted(&self) -> Change {
        self.card.with(|state| Change { pairs: state.pairs, offloads: state.offloads })
    }

    /// The features in force: of the offloads towards the guest those that it has on.
    fn in_force(&self, change: Change) -> Features {
        let on = change.offloads.map_or(Features::all(), Features::from_bits_truncate);
        self.features.difference(Features::GUEST_OFFLOADS.difference(on)).effective()
    }

    fn configure(&self, change: Change) -> io::Result<()> {
        let Caps { header, offloads } = self.cable.caps();
        let features = self.in_force(change);
        let offloads = if header { offloads & offloads_of(features) } else { Offloads::empty() };
        let queues = change.pairs.clamp(1, self.cable.queues().unwrap_or(self.pairs).max(1));
        self.cable.configure(Setup { header, offloads, queues })
    }

    /// Tries what the guest wants; the answer to its command. No queue is served meanwhile.
    fn change(&self, change: Change) -> u8 {
        if let Err(error) = self.configure(change) {
            tracing::warn!("{}: {error}", self.cable.nic().name());
            return ERROR;
        }
        self.card.with(|state| (state.pairs, state.offloads) = (change.pairs, change.offloads));
        OK
    }

    /// The queues with what waits for them, not served yet.
    fn pairs_of(&self, workers: &[Rc<Worker>], waiting: Vec<Waiting>) -> Vec<Pair> {
        let mut waiting = waiting.into_iter();
        let count = self.control_index().checked_div(2).unwrap_or(0);
        let find = |index: u16| workers.iter().find(|worker| worker.index() == index).cloned();
        let pair = |number: u16| {
            let Waiting { received, outgoing } = waiting.next().unwrap_or_default();
            let index = number.saturating_mul(2);
            let takes = self.takes();
            let outgoing = outgoing.and_then(|state| {
                // What it asks for was checked when it was taken, under other features perhaps.
                Outgoing::load(state, takes, Features::all()).ok().flatten()
            });
            Pair {
                receive: find(index).map(|worker| {
                    let (buffer, length) = Receive::buffer(&received);
                    Receive {
                        card: self.card.clone(),
                        worker,
                        port: None,
                        features: self.features,
                        header: takes.header,
                        buffer,
                        length,
                        held: Vec::new(),
                        filled: Vec::new(),
                    }
                }),
                transmit: find(index.saturating_add(1)).map(|worker| Transmit {
                    worker,
                    port: None,
                    features: self.features,
                    takes,
                    outgoing,
                    sent: Vec::new(),
                }),
            }
        };
        (0..count).map(pair).collect()
    }

    fn takes(&self) -> Takes {
        let Caps { header, offloads } = self.cable.caps();
        let mut segments = Features::empty();
        segments.set(Features::HOST_TSO4, offloads.contains(Offloads::TSO4));
        segments.set(Features::HOST_TSO6, offloads.contains(Offloads::TSO6));
        segments.set(Features::HOST_USO, offloads.contains(Offloads::USO4 | Offloads::USO6));
        Takes { header, segments }
    }

    /// Tells the network where the guest has come to.
    fn tell(
        &self,
        worker: &Worker,
        outlet: &Rc<RefCell<Outlet>>,
    ) -> impl Future<Output = ()> + use<> {
        let (card, outlet) = (self.card.clone(), outlet.clone());
        let mac = card.with(|state| state.filter.mac);
        announce(mac, worker.local().clone(), move |frame| {
            if outlet.borrow().send(frame) {
                card.is_known();
            }
        })
    }

    /// Has queues served. Both directions of a pair share a port of the back end.
    fn start(&self, worker: &Worker, pairs: Vec<Pair>, outlet: &RefCell<Outlet>) -> Vec<Served> {
        let local = worker.local();
        let features = self.in_force(self.wanted());
        let mut served = Vec::new();
        for (number, pair) in (0u16..).zip(pairs) {
            if let Some(lent) = self.lend(number, &pair) {
                if number == 0 {
                    *outlet.borrow_mut() = Outlet::Kernel(lent.kernel().clone());
                }
                served.push(Served::Lent(Box::new(pair), lent));
                continue;
            }
            let Pair { receive, transmit } = pair;
            let port = match self.cable.open(number, local) {
                Ok(port) => Some(Rc::new(port)),
                Err(error) => {
                    tracing::error!("{}: {error}", self.cable.nic().name());
                    None
                }
            };
            if number == 0 {
                let port = port.as_ref().map_or(Outlet::None, |it| Outlet::Port(Rc::downgrade(it)));
                *outlet.borrow_mut() = port;
            }
            let receive = receive.map(|mut receive| {
                (receive.port, receive.features) = (port.clone(), features);
                let halt = Notify::new();
                let asked = halt.clone();
                let task = local.spawn(async move {
                    receive.run(&asked).await;
                    receive
                });
                Serving { halt, task }
            });
            let transmit = transmit.map(|mut transmit| {
                transmit.port = port;
                let halt = Notify::new();
                let asked = halt.clone();
                let task = local.spawn(async move {
                    transmit.run(&asked).await;
                    transmit
                });
                Serving { halt, task }
            });
            served.push(Served::Tasks(receive, transmit));
        }
        served
    }

    /// Has the kernel serve a pair, if it can and is to. What is in hand has to go first: then the
    /// pair is served here, until something halts it.
    fn lend(&self, number: u16, pair: &Pair) -> Option<Lent> {
        let kernel = self.cable.kernel(number)?;
        let Pair { receive: Some(receive), transmit: Some(transmit) } = pair else { return None };
        if receive.length != 0 || transmit.outgoing.is_some() {
            return None;
        }
        let forced = kernel.forced;
        match Lent::new(kernel, &receive.worker, &transmit.worker, &self.config) {
            Ok(lent) => Some(lent),
            Err(error) if forced => {
                self.config.needs_reset(&format_args!("vhost-net: {error}"));
                None
            }
            Err(error) => {
                let name = self.cable.nic().name();
                tracing::warn!("{name}: vhost-net: {error}; frames are moved in user space");
                None
            }
        }
    }

    /// Obeys commands until the device stops, or one needs the queues to be halted.
    async fn obey(&self, control: &Worker) -> Option<(Chain, Change)> {
        loop {
            let chain = control.next().await?;
            let mut command = vec![0; MAX_COMMAND.min(length(chain.readable_len()))];
            let read = chain.reader().read(&mut command);
            command.truncate(read);
            if chain.writable_len() == 0 {
                control.fail(chain, Broken::Request("a command has no room for the answer"));
                continue;
            }
            let outcome = match Command::parse(&command) {
                Some(command) => self.command(command, control),
                None => Outcome::Answer(ERROR),
            };
            match outcome {
                Outcome::Answer(answer) => {
                    if answer != OK {
                        let name = self.cable.nic().name();
                        guest_error!(name, "refused the command {:x?}", command.get(..2));
                    }
                    finish(control, chain, answer);
                }
                Outcome::Try(change) => return Some((chain, change)),
            }
        }
    }

    fn command(&self, command: Command<'_>, control: &Worker) -> Outcome {
        let now = self.wanted();
        let needs = match command {
            Command::Mode(Mode::Promisc | Mode::AllMulti, _) => Features::CTRL_RX,
            Command::Tables(..) => Features::CTRL_RX,
            Command::Mode(..) => Features::CTRL_RX_EXTRA,
            Command::Address(_) => Features::CTRL_MAC_ADDR,
            Command::Vlan(..) => Features::CTRL_VLAN,
            Command::Announced => Features::GUEST_ANNOUNCE,
            Command::Pairs(_) => Features::MQ,
            Command::Offloads(_) => Features::CTRL_GUEST_OFFLOADS,
        };
        if !self.features.contains(needs) {
            return Outcome::Answer(ERROR);
        }
        match command {
            Command::Mode(mode, on) => {
                self.card.change_filter(|filter| filter.set_mode(mode, on));
            }
            Command::Tables(unicast, multicast) => self.card.change_filter(|filter| {
                filter.set_tables(unicast.iter().copied(), multicast.iter().copied());
            }),
            Command::Address(mac) => {
                self.cable.nic().set_mac(Mac(mac));
                self.card.change_filter(|filter| filter.mac = mac);
            }
            Command::Vlan(vlan, pass) => {
                let mut known = false;
                self.card.change_filter(|filter| known = filter.set_vlan(vlan, pass));
                return Outcome::Answer(if known { OK } else { ERROR });
            }
            Command::Announced => return Outcome::Answer(self.announced(control)),
            Command::Pairs(pairs) => {
                if !(1..=self.pairs).contains(&pairs) {
                    return Outcome::Answer(ERROR);
                }
                return Outcome::Try(Change { pairs, ..now });
            }
            Command::Offloads(bits) => {
                let may = self.features & Features::GUEST_OFFLOADS;
                if !Features::from_bits(bits).is_some_and(|bits| may.contains(bits)) {
                    return Outcome::Answer(ERROR);
                }
                return Outcome::Try(Change { offloads: Some(bits), ..now });
            }
        }
        Outcome::Answer(OK)
    }

    /// The driver has announced its addresses; asks again after a while, as frames can be lost.
    fn announced(&self, control: &Worker) -> u8 {
        let left = self.card.with(|state| {
            let asked = state.announcements;
            state.announcements = 0;
            asked
        });
        let Some(left) = left.checked_sub(1) else { return ERROR };
        if left > 0 {
            let round = u64::from(ANNOUNCEMENTS.saturating_sub(left)).saturating_sub(1);
            let after = Duration::from_millis(round.saturating_mul(100).saturating_add(50));
            let (card, local) = (self.card.clone(), control.local().clone());
            let sleep = local.sleep(after);
            let later = local.spawn(async move {
                sleep.await;
                card.announce(left);
            });
            later.detach();
        }
        OK
    }
}

/// Ends the tasks; the back end is not used any more.
async fn halt(served: Vec<Served>) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for served in served {
        let (receive, transmit) = match served {
            Served::Lent(pair, lent) => {
                drop(lent);
                pairs.push(*pair);
                continue;
            }
            Served::Tasks(receive, transmit) => (receive, transmit),
        };
        let mut pair = Pair::default();
        if let Some(receive) = receive {
            pair.receive = Some(Receive { port: None, ..receive.end().await });
        }
        if let Some(transmit) = transmit {
            pair.transmit = Some(Transmit { port: None, ..transmit.end().await });
        }
        pairs.push(pair);
    }
    pairs
}

/// Answers a command.
fn finish(control: &Worker, chain: Chain, answer: u8) {
    let mut writer = chain.writer();
    writer.write(&[answer]);
    let written = writer.written();
    control.done(chain, written);
}

fn length(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The offloads that a driver takes.
fn offloads_of(features: Features) -> Offloads {
    [
        (Features::GUEST_CSUM, Offloads::CSUM),
        (Features::GUEST_TSO4, Offloads::TSO4),
        (Features::GUEST_TSO6, Offloads::TSO6),
        (Features::GUEST_ECN, Offloads::ECN),
        (Features::GUEST_USO4, Offloads::USO4),
        (Features::GUEST_USO6, Offloads::USO6),
    ]
    .into_iter()
    .filter(|(feature, _)| features.contains(*feature))
    .map(|(_, offload)| offload)
    .collect()
}
