//! Moving the guest to another process, and taking one over.
//!
//! A thread, `migrate`, does the work of either side with the crate [`migration`]; one named
//! `snapshot` that of a machine which is saved into an image. It never has the [`Vm`]: what concerns the machine it asks of the main thread by an [`Ask`], and waits. The main
//! thread never waits for it; while a guest moves, every command is answered as ever.
//!
//! What a client can reach: the commands of `cmd/migrate.rs`. What a peer can reach: the stream,
//! which the crate checks, and in it the state of devices, which every device checks.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use block::Drive;
use migration::dest::Section;
use migration::inventory::Inventory;
use migration::ram::Block;
use migration::source::Outcome;
use migration::status::{Limits, Progress};
use migration::stream::Error;
use qmp::{MigrationCapability, QmpError, RunState};
use resources::props::Value;
use serde::{Deserialize, Serialize};

use crate::cpu::processors::Processors;
use crate::machine::bus::Plugged;
use crate::mailbox::Mailbox;
use crate::vm::{Vm, VmError, vcpu_path};

mod disks;
mod incoming;
mod outgoing;
mod parameters;
pub(crate) mod snapshots;
mod ways;

use disks::Copies;
use incoming::Incoming;
use parameters::Parameters;

/// The part of the saved state that is of the machine as a whole.
const GLOBAL: &str = "/machine/global";

/// What the thread asks of the main thread; each has its way back.
enum Ask {
    /// Stop the guest and save all.
    SwitchOver(Sender<Result<Vec<Section>, String>>),
    /// Let go of the disks.
    Release(Sender<Result<(), String>>),
    /// Take them back, or for the first time.
    Take(Sender<Result<(), String>>),
    /// The guest was moved, or was not.
    Sent(Outcome),
    /// What machine is this, with what memory?
    Describe(Sender<(Vec<Block>, Inventory)>),
    /// Which disks are to be filled? They are taken.
    Disks(Sender<Result<Vec<Arc<Drive>>, String>>),
    /// Forget everything and take over the state.
    Replace(Vec<Section>, Sender<Result<(), String>>),
    /// A snapshot was taken or gone back to, or was not.
    SnapshotEnded(snapshots::Done),
    /// Take over the state.
    Load(Vec<Section>, Sender<Result<(), String>>),
    /// The guest is here, or is not; and whether some of its memory comes late.
    Received(Result<bool, Error>),
    /// Memory that came late is here, or will not be.
    Filled(Result<(), Error>),
}

/// How the thread reaches the main thread.
#[derive(Clone)]
struct Main {
    asks: Sender<Ask>,
    mailbox: Arc<Mailbox>,
}

impl Main {
    fn tell(&self, ask: Ask) {
        // Without a machine there is nobody to be told.
        let _ = self.asks.send(ask);
        self.mailbox.ask(|mail| mail.migration = true);
    }

    fn ask<T>(&self, ask: impl FnOnce(Sender<T>) -> Ask) -> Result<T, String> {
        let (reply, answer) = channel();
        self.tell(ask(reply));
        answer.recv().map_err(|_| "the machine has ended".to_owned())
    }

    fn order<T>(&self, ask: impl FnOnce(Sender<Result<T, String>>) -> Ask) -> Result<T, String> {
        self.ask(ask)?
    }
}

/// What there is of migration in a machine.
pub struct Migration {
    /// What migrations may use.
    pub limits: Arc<Limits>,
    /// What else clients have set.
    pub parameters: Parameters,
    capabilities: Vec<MigrationCapability>,
    progress: Option<Arc<Progress>>,
    asks: (Sender<Ask>, Receiver<Ask>),
    /// The run state before the guest was stopped to be moved.
    before: Option<RunState>,
    /// The contents of disks that move too.
    copies: Option<Copies>,
    /// What was sent first: nothing else can be.
    announced: Inventory,
    /// The images of the disks then.
    images: Vec<(String, String)>,
    incoming: Option<Incoming>,
    /// The guest has left with a part of its memory, or may have: with the rest it must not run
    /// here before it is reset.
    pub memory_left: bool,
    /// The state of another machine was loaded half-way: what there is now is not worth keeping.
    pub half_loaded: bool,
    /// The guest came before its memory, some of which is still to come.
    filling: Option<bool>,
}

impl Default for Migration {
    fn default() -> Migration {
        Migration {
            limits: Arc::default(),
            parameters: Parameters::default(),
            capabilities: Vec::new(),
            progress: None,
            asks: channel(),
            before: None,
            copies: None,
            announced: Inventory::default(),
            images: Vec::new(),
            incoming: None,
            memory_left: false,
            half_loaded: false,
            filling: None,
        }
    }
}

/// The saved state of the machine as a whole.
#[derive(Serialize, Deserialize)]
struct Global {
    /// Virtual time in nanoseconds.
    clock: u64,
    /// The guest was running.
    running: bool,
    /// The run state, where it is one that the guest takes along.
    #[serde(default)]
    state: Option<String>,
}

/// States that say why a guest does not run, which the user of the destination must know too.
const TAKEN_ALONG: [RunState; 5] = [
    RunState::InternalError,
    RunState::Shutdown,
    RunState::IoError,
    RunState::Watchdog,
    RunState::GuestPanicked,
];

impl Global {
    /// Of a guest that was in this state before it was stopped to be moved.
    fn of(clock: u64, before: RunState) -> Global {
        let state = TAKEN_ALONG.contains(&before).then(|| before.as_str().to_owned());
        Global { clock, running: before == RunState::Running, state }
    }

    /// The state that the guest takes along.
    fn state(&self) -> Option<RunState> {
        let wanted = self.state.as_deref()?;
        TAKEN_ALONG.into_iter().find(|state| state.as_str() == wanted)
    }
}

impl Migration {
    /// The latest outgoing migration.
    pub fn progress(&self) -> Option<&Arc<Progress>> {
        self.progress.as_ref()
    }

    /// Whether memory of a guest that came before it is still to come; `None` if none did.
    pub fn filling(&self) -> Option<bool> {
        self.filling
    }

    /// Whether a guest is moving away.
    pub fn is_leaving(&self) -> bool {
        self.progress.as_ref().is_some_and(|progress| progress.phase().is_running())
    }

    /// Whether a capability is on.
    pub fn has(&self, capability: MigrationCapability) -> bool {
        self.capabilities.contains(&capability)
    }

    /// Turns a capability on or off.
    pub fn set(&mut self, capability: MigrationCapability, on: bool) {
        self.capabilities.retain(|other| *other != capability);
        if on {
            self.capabilities.push(capability);
        }
    }

    /// Refuses what changes the machine while it is on its way.
    ///
    /// # Errors
    /// It is.
    pub fn refuse_moving(&self, what: &str) -> Result<(), QmpError> {
        match self.is_leaving() {
            true => Err(QmpError::generic(format!("{what} not allowed while migrating"))),
            false => Ok(()),
        }
    }
}

/// The drives that can be written to.
fn writable<'a>(
    drives: impl IntoIterator<Item = &'a Arc<Drive>>,
) -> impl Iterator<Item = &'a Arc<Drive>> {
    drives.into_iter().filter(|drive| drive.has_medium() && !drive.read_only())
}

impl Vm {
    fn main(&self) -> Main {
        Main { asks: self.migration.asks.0.clone(), mailbox: self.mailbox().clone() }
    }

    /// The memory that moves, by the names that it has in streams.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let ranges = self.board.ram.iter().flat_map(|ram| ram.ranges());
        let names = ["pc.ram", "pc.ram.above-4g"];
        let ram = names.into_iter().zip(ranges).map(|(name, range)| (name, range.block.clone()));
        let roms = self.board.roms.iter().map(|(name, block)| (*name, block.clone()));
        ram.chain(roms).map(|(name, ram)| Block { name: name.to_owned(), ram }).collect()
    }

    /// What the other side must have too.
    pub(crate) fn inventory(&self) -> Inventory {
        let devices = self.board.devices.iter();
        let devices = devices.map(|it| (it.name().to_owned(), described(it)));
        let vcpus = self.vcpus.iter().map(|it| (vcpu_path(it.index()), "cpu".to_owned()));
        let global = std::iter::once((GLOBAL.to_owned(), "machine".to_owned()));
        Inventory {
            machine: self.board.machine.to_owned(),
            cpu: self.board.cpu_model.clone(),
            cpuid: self.processors.as_ref().map(Processors::leaves).unwrap_or_default(),
            parts: global.chain(vcpus).chain(devices).collect(),
            ..Inventory::default()
        }
    }

    /// Does what the thread asks for.
    pub(crate) fn serve_migration(&mut self) {
        while let Ok(ask) = self.migration.asks.1.try_recv() {
            // Who does not wait any more has ended.
            match ask {
                Ask::SwitchOver(reply) => {
                    let _ = reply.send(self.switch_over());
                }
                Ask::Release(reply) => {
                    let _ = reply.send(self.let_go().map_err(|it| it.to_string()));
                }
                Ask::Take(reply) => {
                    let _ = reply.send(self.drives.take_over().map_err(|it| it.to_string()));
                }
                Ask::Sent(outcome) => self.sent(outcome),
                Ask::Describe(reply) => {
                    let here = Inventory { disks: self.disk_sizes(), ..self.inventory() };
                    let _ = reply.send((self.blocks(), here));
                }
                Ask::Disks(reply) => {
                    let _ = reply.send(self.disks_to_fill());
                }
                Ask::Load(sections, reply) => {
                    let _ = reply.send(self.load_moved(sections).map_err(|it| it.to_string()));
                }
                Ask::Replace(sections, reply) => {
                    let _ = reply.send(self.replace_state(sections).map_err(refused));
                }
                Ask::SnapshotEnded(done) => self.snapshot_ended(done),
                Ask::Received(result) => self.received(result),
                Ask::Filled(result) => self.filled(result),
            }
            if self.exit_status().is_some() {
                return;
            }
        }
    }
}

/// What a guest must find at the destination: what its device is, and where.
fn described(device: &Plugged) -> String {
    let class = device.class.name;
    let place = device.props.iter().find(|(name, _)| *name == "addr");
    match place.and_then(|(_, value)| value) {
        Some(address) => format!("{class} at {} of {}", shown(address), device.bus),
        None => class.to_owned(),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        other => format!("{other:?}"),
    }
}

fn refused(error: VmError) -> String {
    error.to_string()
}
