//! The virtual machine: its run state, and what starts, stops, resets, saves and loads it.
//!
//! A [`Vm`] belongs to the main thread, but for its first reset, which a pool thread makes while
//! the main thread greets clients; it is behind no lock and in no `Arc`. It waits for vCPU
//! threads and I/O threads and nobody waits for it: what others want of it they put into its
//! [`Mailbox`].
//!
//! The order of things, which devices rely on ([`resources::device::Device`]):
//! - stop: gate closed, vCPUs parked with their accesses complete, clock stopped, devices stopped
//!   (last plugged first), state set, STOP;
//! - start: state set, RESUME, devices started, clock started, vCPUs told of the pause, gate
//!   opened;
//! - sleep (S3): gate closed, vCPUs parked, state set, SUSPEND; clock and devices go on;
//! - wake-up: stopped as above but without events, devices and vCPUs reset, RAM as it is, the boot
//!   processor where the guest wants to wake up, state set, WAKEUP; then started as above;
//! - reset: stopped as above but without events, devices reset in plug order, vCPUs reset, the
//!   kernel loaded anew, RESET; then started without events if the guest ran.

use std::sync::Arc;

use qmp::monitors::{Context, Ticket};
use qmp::{Event, PanicAction, RunState, ShutdownCause, WatchdogAction};
use resources::fdset::FdSets;
use resources::state::{Blob, StateError, invalid};

use crate::boot::Contents;
use crate::chardevs::Chardevs;
use crate::cli::log::tell;
use crate::cmd::dump::Latest as LatestDump;
use crate::cmd::fd::NamedFds;
use crate::cmd::nbd::NbdServer;
use crate::cpu::processors::Processors;
use crate::cpu::setup::{self, Entry};
use crate::cpu::thread::{Gone, Vcpu, VcpuHandle};
use crate::drives::Drives;
use crate::machine::Board;
use crate::mailbox::Mailbox;
use crate::migrate::Migration;
use crate::migrate::snapshots::Running as RunningSnapshot;
use crate::nets::Nets;
use crate::objects::Objects;
use crate::plug::Means;
use crate::runstate;

mod alarm;
mod fuzz;
mod service;
#[cfg(test)]
mod tests;

pub(crate) use fuzz::machine as fuzz_machine;
pub use fuzz::{fuzz, fuzz_seed};

/// What the user decided about the machine's life, and its names.
#[derive(Debug, Clone)]
pub struct Policy {
    /// A reset request ends the process (`-no-reboot`).
    pub no_reboot: bool,
    /// A shutdown request stops the machine instead of ending the process (`-no-shutdown`).
    pub no_shutdown: bool,
    /// What is done when the guest reports a panic (`-action panic=`).
    pub panic: PanicAction,
    /// What is done when a watchdog runs out (`-watchdog-action`).
    pub watchdog: WatchdogAction,
    /// The guest's name (`-name`).
    pub name: Option<String>,
    /// The machine's UUID (`-uuid`).
    pub uuid: uuid::Uuid,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            no_reboot: false,
            no_shutdown: false,
            panic: PanicAction::Pause,
            watchdog: WatchdogAction::Reset,
            name: None,
            uuid: uuid::Uuid::nil(),
        }
    }
}

/// A machine.
pub struct Vm {
    /// Everything the guest sees but its processors.
    pub board: Board,
    /// The processors, in index order; none without an accelerator that runs them.
    pub vcpus: Vec<VcpuHandle>,
    /// What more of them are made of.
    pub processors: Option<Processors>,
    /// What the user decided.
    pub policy: Policy,
    /// Events on their way to the clients.
    pub context: Context,
    /// Descriptors that clients have handed over under a name.
    pub named_fds: NamedFds,
    /// The character devices.
    pub chardevs: Chardevs,
    /// The drives.
    pub drives: Drives,
    /// The NBD server, while there is one.
    pub nbd: Option<NbdServer>,
    /// The network: what NICs are plugged into.
    pub nets: Nets,
    /// Descriptors that are opened by a file name.
    pub fdsets: FdSets,
    /// How human monitors showed memory and numbers last.
    pub last_format: crate::hmp::LastFormat,
    /// Moving the guest.
    pub migration: Migration,
    /// A snapshot that is being taken, or gone back to.
    pub(crate) snapshot: Option<RunningSnapshot>,
    /// Answers to human monitors that have waited for them.
    pub(crate) answers: Vec<(Ticket, String)>,
    /// The latest dump of the guest.
    pub latest_dump: LatestDump,
    /// What devices are made with.
    pub means: Means,
    /// What users made for devices to use.
    pub objects: Objects,
    mailbox: Arc<Mailbox>,
    state: RunState,
    /// Whether the parts (vCPUs, clock, devices) run: in state `running`, and in `suspended` all but
    /// the vCPUs, but for moments.
    active: bool,
    exit: Option<u8>,
}

/// Why a machine could not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// A vCPU's thread has ended.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// State could not be saved or loaded; names whose.
    #[error("{0}: {1}")]
    State(String, #[source] StateError),
    /// Saved state that does not fit this machine.
    #[error("saved state {0}")]
    Sections(String),
    /// A vCPU could not be given its start state.
    #[error("vCPU {0}: {1}")]
    Setup(usize, String),
    /// Kernel, initrd or firmware could not be loaded.
    #[error(transparent)]
    Boot(#[from] crate::boot::Error),
}

/// The saved state of one part of the machine.
#[derive(Debug, Clone)]
pub struct Section {
    /// Its stable path.
    pub path: String,
    /// The state.
    pub blob: Blob,
}

impl Vm {
    /// A machine that has not been reset yet, in state `prelaunch`.
    pub fn new(board: Board, vcpus: Vec<VcpuHandle>, mailbox: Arc<Mailbox>, policy: Policy) -> Vm {
        Vm {
            board,
            vcpus,
            processors: None,
            policy,
            context: Context::default(),
            named_fds: NamedFds::default(),
            chardevs: Chardevs::default(),
            drives: Drives::default(),
            nbd: None,
            nets: Nets::default(),
            latest_dump: LatestDump::default(),
            migration: Migration::default(),
            snapshot: None,
            answers: Vec::new(),
            fdsets: FdSets::global().clone(),
            last_format: crate::hmp::LastFormat::default(),
            means: Means::default(),
            objects: Objects::default(),
            mailbox,
            state: RunState::Prelaunch,
            active: false,
            exit: None,
        }
    }

    /// The run state.
    pub fn state(&self) -> RunState {
        self.state
    }

    /// Whether the guest runs.
    pub fn is_running(&self) -> bool {
        self.state == RunState::Running
    }

    /// Whether the parts run.
    pub(crate) fn is_active(&self) -> bool {
        self.active
    }

    /// The status the process is to end with, once it is to end.
    pub fn exit_status(&self) -> Option<u8> {
        self.exit
    }

    /// The mailbox.
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// The only writer of the run state. A transition that is not in the table is a mistake of
    /// this program: it is reported and not made.
    pub(crate) fn set_state(&mut self, to: RunState) {
        if runstate::allowed(self.state, to) {
            tracing::debug!("runstate {:?} -> {to:?}", self.state);
            self.state = to;
            self.fdsets.set_running(self.is_running());
        } else {
            tracing::error!("invalid runstate transition: {:?} -> {to:?}", self.state);
            debug_assert!(false, "invalid runstate transition: {:?} -> {to:?}", self.state);
        }
    }

    /// The vCPU with this index.
    pub fn vcpu(&self, index: usize) -> Option<&VcpuHandle> {
        self.vcpus.iter().find(|vcpu| vcpu.index() == index)
    }

    /// Runs `work` on every vCPU's thread at once and waits for all, also when one is gone.
    pub(crate) fn on_all_vcpus<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Vcpu) -> T + Clone + Send + 'static,
    ) -> Result<Vec<T>, Gone> {
        let started: Vec<_> =
            (self.vcpus.iter()).map(|vcpu| (vcpu.index(), vcpu.start_call(work.clone()))).collect();
        let done: Vec<_> = (started.into_iter())
            .map(|(index, reply)| reply?.recv().map_err(|_| Gone(index)))
            .collect();
        done.into_iter().collect()
    }

    /// Brings the vCPUs out of the guest, and keeps them out.
    fn park(&mut self) {
        self.mailbox.close_gate();
        // Once a vCPU runs a closure it is out of the guest and stays out.
        if let Err(error) = self.on_all_vcpus(|_| ()) {
            tracing::error!("{error}");
        }
    }

    /// Stops the parts; the state stays.
    fn deactivate(&mut self) {
        if !std::mem::take(&mut self.active) {
            return;
        }
        self.park();
        self.board.clock.stop();
        // Devices stop when their requests have ended.
        let _hurry: Vec<_> = self.drives.iter().map(|drive| drive.hurry()).collect();
        self.board.devices.iter().rev().for_each(|device| device.lock().stop());
    }

    /// Starts the parts, if the state is `running`; but for the vCPUs also if it is `suspended`,
    /// so that the clock may wake the guest.
    fn activate(&mut self) {
        let asleep = self.state == RunState::Suspended;
        let rests = self.exit.is_some() || self.has_snapshot_running();
        if !(self.is_running() || asleep) || rests {
            return;
        }
        if let Err(error) = self.board.fill() {
            tell(format_args!("{error}"));
            return self.fail();
        }
        if !std::mem::replace(&mut self.active, true) {
            self.board.devices.iter().for_each(|device| device.lock().start());
            self.board.clock.start();
            // The guest's watchdogs are to forgive the pause. A guest without a KVM clock cannot
            // be told: that is the error of this call. A thread that is gone was reported.
            let _ = self.on_all_vcpus(|vcpu| {
                let _ = vcpu.fd.kvmclock_ctrl();
            });
        }
        if !asleep && self.mailbox.open_gate() {
            self.vcpus.iter().for_each(VcpuHandle::wake);
        }
    }

    /// Runs the guest, if it does not run.
    pub fn start(&mut self) {
        if !self.is_running() {
            self.set_state(RunState::Running);
            self.drives.reset_io_status();
            self.context.raise(Event::Resume);
            self.activate();
        }
    }

    /// The machine was switched on: runs the guest if it is to `run`. A disk without its key could
    /// only fail: clients give it, and let the machine run.
    pub(crate) fn start_at_once(&mut self, run: bool) {
        if run && self.lacks_key().is_none() {
            self.start();
        }
    }

    /// Stops the guest in the given state, if it runs.
    pub fn stop(&mut self, state: RunState) {
        if self.is_running() {
            self.deactivate();
            self.drives.flush();
        }
        self.stop_unflushed(state);
    }

    /// The same, but for what was written to the disks, which is not made durable.
    pub(crate) fn stop_unflushed(&mut self, state: RunState) {
        if self.is_running() {
            self.deactivate();
            self.set_state(state);
            self.context.raise(Event::Stop);
        }
    }

    /// Pauses the guest, if it runs.
    pub fn pause(&mut self) {
        if self.is_running() {
            self.settle();
        }
        if self.exit.is_none() {
            self.stop(RunState::Paused);
        }
    }

    /// Stops the parts and deals with what the guest asked for until then: a guest that has just
    /// switched itself off is not paused but off. The state stays, unless that changes it.
    pub(crate) fn settle(&mut self) {
        self.deactivate();
        self.process();
        self.deactivate();
    }

    /// As [`stop`](Self::stop), from whatever state.
    pub(crate) fn stop_in(&mut self, state: RunState) {
        if self.is_running() { self.stop(state) } else { self.set_state(state) }
    }

    /// The machine is in no state to go on before it is reset.
    pub(crate) fn fail(&mut self) {
        self.deactivate();
        if self.is_running() {
            self.stop(RunState::InternalError);
        } else {
            self.set_state(RunState::InternalError);
        }
    }

    /// The process is to end when the present request is answered.
    pub fn quit(&mut self) {
        self.mailbox.ask(|mail| mail.quit = Some(ShutdownCause::HostQmpQuit));
    }

    /// Puts every device and vCPU into its power-on state and loads the kernel anew. The guest
    /// does not run afterwards; the run state stays.
    ///
    /// # Errors
    /// When what is to be booted cannot be loaded, or KVM refuses a register.
    pub fn reset(&mut self) -> Result<(), VmError> {
        self.reset_to(|board| Ok(board.load()?))
    }

    /// Puts every device and vCPU into its power-on state, and then the boot processor where
    /// `entry` says. RAM is as `entry` leaves it.
    fn reset_to(
        &mut self,
        entry: impl FnOnce(&mut Board) -> Result<Option<Entry>, VmError>,
    ) -> Result<(), VmError> {
        self.deactivate();
        self.mailbox.end_life();
        self.complete_removals();
        self.reset_parts()?;
        let entry = entry(&mut self.board)?;
        if let (Some(bsp), Some(entry)) = (self.vcpus.first(), entry) {
            let memory = self.board.guest_memory();
            bsp.call(move |vcpu| setup::enter(&vcpu.fd, &entry, &memory))?
                .map_err(|error| VmError::Setup(0, error.to_string()))?;
        }
        Ok(())
    }

    /// Devices and vCPUs to power-on state; RAM stays.
    fn reset_parts(&mut self) -> Result<(), VmError> {
        self.board.devices.iter().for_each(|device| device.lock().reset());
        let done = self.on_all_vcpus(|vcpu| (vcpu.index, vcpu.reset()))?;
        for (index, done) in done {
            done.map_err(|error| VmError::Setup(index, error.to_string()))?;
        }
        Ok(())
    }

    /// The state of every part; the guest must not run.
    ///
    /// # Errors
    /// When a part cannot be saved, or guest RAM lacks what could not be loaded.
    pub fn save(&mut self) -> Result<Vec<Section>, VmError> {
        self.board.fill()?;
        let mut sections = Vec::new();
        let saved = self.on_all_vcpus(|vcpu| {
            let state = vcpu.save().map_err(|error| invalid(error.to_string()));
            (vcpu.index, state.and_then(|state| Blob::new(1, &state)))
        })?;
        for (index, blob) in saved {
            let path = vcpu_path(index);
            let blob = blob.map_err(|error| VmError::State(path.clone(), error))?;
            sections.push(Section { path, blob });
        }
        for device in &self.board.devices {
            let path = device.name().to_owned();
            let blob = device.lock().save();
            let blob = blob.map_err(|error| VmError::State(path.clone(), error))?;
            sections.push(Section { path, blob });
        }
        Ok(sections)
    }

    /// Takes over the state of every part; the guest must not run. Sections must be exactly those
    /// of this machine: that is checked before anything is changed.
    ///
    /// # Errors
    /// When sections are missing, unknown or double, or a part refuses its own. The machine must
    /// then not run without a reset.
    pub fn load(&mut self, sections: &[Section]) -> Result<(), VmError> {
        let find = |path: &str| {
            let mut found = sections.iter().filter(|section| section.path == path);
            match (found.next(), found.next()) {
                (Some(section), None) => Ok(section.blob.clone()),
                (None, _) => Err(VmError::Sections(format!("lacks '{path}'"))),
                (Some(_), Some(_)) => Err(VmError::Sections(format!("has '{path}' twice"))),
            }
        };
        let devices: Vec<_> = (self.board.devices.iter())
            .map(|device| Ok((device.device.clone(), find(device.name())?)))
            .collect::<Result<_, VmError>>()?;
        let vcpus: Vec<_> = (self.vcpus.iter())
            .map(|vcpu| Ok((vcpu, find(&vcpu_path(vcpu.index()))?)))
            .collect::<Result<_, VmError>>()?;
        if sections.len() != devices.len() + vcpus.len() {
            let known = |path: &str| {
                devices.iter().any(|(device, _)| device.name() == path)
                    || vcpus.iter().any(|(vcpu, _)| vcpu_path(vcpu.index()) == path)
            };
            let unknown = sections.iter().find(|section| !known(&section.path));
            let path = unknown.map_or("", |section| &section.path);
            return Err(VmError::Sections(format!("has '{path}', which this machine has not")));
        }
        for (device, blob) in devices {
            let done = device.lock().load(&blob);
            done.map_err(|error| VmError::State(device.name().to_owned(), error))?;
        }
        for (vcpu, blob) in vcpus {
            let done = vcpu.call(move |vcpu| {
                let state = blob.parse(1, &[])?;
                vcpu.load(&state).map_err(|error| invalid(error.to_string()))
            })?;
            done.map_err(|error| VmError::State(vcpu_path(vcpu.index()), error))?;
        }
        // What is in RAM came with the state.
        self.board.contents = Contents::default();
        self.board.loaded();
        Ok(())
    }

    /// Stop, save all, reset, load all, go on: proves on a live guest that nothing it depends on
    /// is missing from the saved state. The state makes the trip through its encoded form.
    ///
    /// # Errors
    /// When a part cannot be saved, and the machine goes on as before; or when one cannot be
    /// loaded, and the machine is then in state `internal-error`.
    pub fn pulse(&mut self) -> Result<(), VmError> {
        self.deactivate();
        let done = match self.save_recoded() {
            Ok(sections) => self.restore(&sections).inspect_err(|_| {
                self.migration.half_loaded = true;
                self.fail();
            }),
            Err(error) => Err(error),
        };
        self.activate();
        done
    }

    fn save_recoded(&mut self) -> Result<Vec<Section>, VmError> {
        let recode = |section: Section| {
            let bytes = section.blob.to_bytes();
            let blob = bytes.and_then(|bytes| Blob::from_bytes(&bytes));
            let blob = blob.map_err(|error| VmError::State(section.path.clone(), error))?;
            Ok(Section { path: section.path, blob })
        };
        self.save()?.into_iter().map(recode).collect()
    }

    /// Forgets everything, then takes it over from `sections`; the guest must not run.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub(crate) fn restore(&mut self, sections: &[Section]) -> Result<(), VmError> {
        let now = self.board.clock.now();
        self.board.clock.set(0);
        let done = self.reset_parts();
        self.board.clock.set(now);
        done.and_then(|()| self.load(sections))
    }
}

/// The name of a processor's section.
pub(crate) fn vcpu_path(index: usize) -> String {
    format!("/machine/cpu[{index}]")
}
