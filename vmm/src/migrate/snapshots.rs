//! The machine in a snapshot of its disks: savevm, loadvm, delvm.
//!
//! The state of the machine is the stream of a migration to a file. It stands in the image of the
//! first disk that can be written to; at the same point of time a snapshot is taken of each such
//! disk, and the first one's keeps the state. The guest stands still meanwhile.
//!
//! Main thread, with what takes long on a thread of its own ([`work`]). While that runs clients may
//! ask for whatever changes nothing, and end the machine; all else that they or the guest want waits.
//! Names are a client's.

use std::io;
use std::thread::JoinHandle;

use block::drive::Hurry;
use migration::dest::Section;
use qmp::monitors::Ticket;
use qmp::session::Request;
use qmp::{QmpError, RunState};

use super::incoming::unpack;
use super::{Ask, Main};
use crate::cli::log::tell;
use crate::hmp;
use crate::vm::{Vm, VmError};

mod disks;
mod work;

pub(crate) use disks::Disk;
pub(super) use work::Done;
use work::{Cancel, Loading, Saving};

fn refuse<T>(text: impl Into<String>) -> Result<T, QmpError> {
    Err(QmpError::generic(text))
}

/// A code as clients know it, negative.
fn code(error: &io::Error) -> i32 {
    -error.raw_os_error().unwrap_or(match error.kind() {
        io::ErrorKind::NotFound => libc::ENOENT,
        io::ErrorKind::Unsupported => libc::ENOTSUP,
        _ => libc::EIO,
    })
}

/// A snapshot that is being taken, or gone back to.
pub(crate) struct Running {
    what: What,
    origin: Origin,
    cancel: Cancel,
    /// Somebody waits for it to end.
    hurry: Vec<Hurry>,
    thread: JoinHandle<()>,
}

/// What is being done.
enum What {
    Save,
    Load {
        /// The run state that came with the machine's.
        state: Option<RunState>,
    },
}

/// Who wants it.
pub(crate) enum Origin {
    /// A client, who waits for an answer.
    Client(Ticket),
    /// Who started the process; the guest is to run if it is there and `run`.
    Start {
        /// See above.
        run: bool,
    },
}

/// How the names of QMP commands begin that change nothing, or end everything.
const ANYTIME: [&str; 5] = ["query-", "qom-list", "qom-get", "device-list-properties", "quit"];

impl Vm {
    /// The disks that can be written to and whose format has snapshots.
    pub(crate) fn snapshot_disks(&self) -> Vec<Disk> {
        disks::capable(&self.drives.all())
    }

    /// Deletes a snapshot from all disks; says of each of them why it was not.
    pub(crate) fn delete_snapshot(&mut self, tag: &str) -> Result<(), QmpError> {
        disks::delete_all(&self.drives.all(), tag)
    }

    /// Whether a snapshot is being taken, or gone back to.
    pub(crate) fn has_snapshot_running(&self) -> bool {
        self.snapshot.is_some()
    }

    /// Whether a request has to wait for a snapshot.
    pub(crate) fn request_must_wait(&self, request: &Request) -> bool {
        let name = request.name.as_str();
        if !self.has_snapshot_running() || ANYTIME.iter().any(|begin| name.starts_with(begin)) {
            return false;
        }
        let line = request.arguments.get("command-line").and_then(|line| line.as_str());
        match line {
            Some(line) if name == "human-monitor-command" => self.line_must_wait(line),
            _ => qmp::COMMANDS.iter().any(|known| known.name == name),
        }
    }

    /// Whether a line at a human monitor has to wait for a snapshot.
    pub(crate) fn line_must_wait(&self, line: &str) -> bool {
        self.has_snapshot_running() && !hmp::is_anytime(line)
    }

    /// Stops the guest in this state, if it runs; `Err` when that has ended the machine.
    fn halt(&mut self, state: RunState) -> Result<(), QmpError> {
        self.settle();
        if self.exit_status().is_some() {
            return refuse("the machine ends");
        }
        self.stop_unflushed(state);
        Ok(())
    }

    /// Begins to take a snapshot of the machine and its disks, in place of the one that has this
    /// name or identity. The guest goes on afterwards if it ran. The client is answered then, with
    /// what cannot be saved, in words that clients know: everything is as before in that case,
    /// unless it is the snapshot which was to be replaced that cannot be deleted.
    ///
    /// # Errors
    /// What is known to be in the way at once.
    pub(crate) fn save_snapshot(&mut self, tag: Option<&str>) -> Result<(), QmpError> {
        self.check_storable()?;
        self.check_whole()?;
        if disks::all_capable(&self.drives.all())?.is_empty() {
            return refuse("No block device can accept snapshots");
        }
        self.settle_awake();
        self.halt(RunState::SaveVm)?;
        let begun = self.begin_save(tag);
        if begun.is_err() {
            self.saved();
        }
        begun
    }

    fn begin_save(&mut self, tag: Option<&str>) -> Result<(), QmpError> {
        let before = match self.state() {
            RunState::SaveVm => RunState::Running,
            other => other,
        };
        let failed =
            |why| QmpError::generic(format!("Error {} while writing VM: {why}", -libc::EINVAL));
        let saving = Saving {
            sections: self.save_moving(before).map_err(failed)?,
            drives: self.drives.all(),
            blocks: self.blocks(),
            inventory: self.inventory(),
            tag: tag.map(str::to_owned),
            clock: self.board.clock.now(),
        };
        let origin = Origin::Client(Ticket::unique());
        self.spawn_snapshot(What::Save, origin, |_, cancel| Done::with(saving.run(cancel)))
    }

    /// Begins to make the machine and its disks what they were at a snapshot. The guest goes on from
    /// there afterwards if it ran now. The client is answered then, with why that could not be, in
    /// words that clients know: unless the machine was changed already it goes on as before in that
    /// case; otherwise its state is `internal-error`, and its disks are as before if it was not they
    /// that failed.
    ///
    /// # Errors
    /// What is known to be in the way at once.
    pub(crate) fn load_snapshot(&mut self, tag: &str) -> Result<(), QmpError> {
        self.load_for(Origin::Client(Ticket::unique()), tag)
    }

    /// The same for who starts the process: the guest is to run afterwards if `run`, unless what it
    /// was to be cannot be had.
    pub(crate) fn load_at_start(&mut self, tag: &str, run: bool) {
        if let Err(error) = self.load_for(Origin::Start { run }, tag) {
            tell(format_args!("{}", error.desc));
        }
    }

    fn load_for(&mut self, origin: Origin, tag: &str) -> Result<(), QmpError> {
        self.check_storable()?;
        disks::plan(&self.drives.all(), tag)?;
        self.halt(RunState::RestoreVm)?;
        let begun = self.begin_load(origin, tag);
        if begun.is_err() && self.state() == RunState::RestoreVm {
            self.start();
        }
        begun
    }

    fn begin_load(&mut self, origin: Origin, tag: &str) -> Result<(), QmpError> {
        let loading = Loading {
            plan: disks::plan(&self.drives.all(), tag)?,
            drives: self.drives.all(),
            blocks: self.blocks(),
            inventory: self.inventory(),
        };
        let what = What::Load { state: None };
        self.spawn_snapshot(what, origin, |main, cancel| loading.run(main, cancel))
    }

    /// Forgets what the machine is and takes over the state of every part.
    pub(super) fn replace_state(&mut self, sections: Vec<Section>) -> Result<(), VmError> {
        let (global, parts) = unpack(sections)?;
        if let Some(Running { what: What::Load { state }, .. }) = &mut self.snapshot {
            *state = global.state();
        }
        self.mailbox().end_life();
        self.board.clock.set(global.clock);
        self.restore(&parts)
    }

    /// Does the work on the thread. Who is to be answered later is noted.
    fn spawn_snapshot(
        &mut self,
        what: What,
        origin: Origin,
        work: impl FnOnce(&Main, &Cancel) -> Done + Send + 'static,
    ) -> Result<(), QmpError> {
        let (main, cancel) = (self.main(), Cancel::default());
        let told = cancel.clone();
        let thread = std::thread::Builder::new().name("snapshot".to_owned());
        let thread = thread.spawn(move || {
            let done = work(&main, &told);
            main.tell(Ask::SnapshotEnded(done));
        });
        let thread = thread.map_err(|error| QmpError::generic(error.to_string()))?;
        if let Origin::Client(ticket) = origin {
            self.context.later = Some(ticket);
        }
        self.snapshot = Some(Running { what, origin, cancel, hurry: Vec::new(), thread });
        Ok(())
    }

    /// The thread has done its work.
    pub(super) fn snapshot_ended(&mut self, done: Done) {
        let Some(Running { what, origin, thread, .. }) = self.snapshot.take() else { return };
        // It has said its last word.
        let _ = thread.join();
        for drive in &done.resized {
            drive.models().iter().for_each(|model| model.resized());
        }
        match what {
            What::Save => self.saved(),
            What::Load { state } => self.loaded(state, &done),
        }
        match origin {
            Origin::Client(ticket) => self.answer(ticket, done.result),
            Origin::Start { run } => match done.result {
                Ok(()) => self.start_at_once(run && self.state() == RunState::Prelaunch),
                Err(error) => tell(format_args!("{}", error.desc)),
            },
        }
        // Much may have waited for this.
        self.mailbox().wake();
    }

    /// The guest goes on, if it was stopped to be saved.
    fn saved(&mut self) {
        if self.state() == RunState::SaveVm {
            self.start();
        }
    }

    /// The machine is what it was at a snapshot, where it was in this run state if that is one that
    /// it takes along; or it is not.
    fn loaded(&mut self, state: Option<RunState>, done: &Done) {
        if done.changed {
            self.migration.half_loaded = done.result.is_err();
        }
        match (&done.result, self.state()) {
            (Err(_), _) if done.changed => self.fail(),
            (Ok(()), _) if state.is_some() => {
                // Whatever had stopped it is over.
                self.set_state(RunState::Paused);
                state.into_iter().for_each(|state| self.set_state(state));
            }
            (_, RunState::RestoreVm) => self.start(),
            (Err(_), _) | (Ok(()), RunState::Prelaunch) => {}
            (Ok(()), _) => self.set_state(RunState::Paused),
        }
    }

    fn answer(&mut self, ticket: Ticket, result: Result<(), QmpError>) {
        let text = result.map_or_else(|error| format!("{}\n", error.desc), |()| String::new());
        self.answers.push((ticket, text));
    }

    /// The machine is to end, which it does when the thread has ended: that gives up what it can.
    pub(crate) fn cancel_snapshot(&mut self) {
        let Some(running) = &mut self.snapshot else { return };
        running.cancel.set();
        // Servers that do not answer are left.
        if running.hurry.is_empty() {
            running.hurry = self.drives.iter().filter_map(|drive| drive.hurry()).collect();
        }
    }
}

#[cfg(test)]
mod tests;
