//! A guest is taken over.
//!
//! The thread that listens and reads, and what the main thread does for it. The machine was built
//! and reset, and has never run.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use migration::blocks::Sink;
use migration::channel::Canceller;
use migration::dest::{self, Section, Target};
use migration::multifd::Door;
use migration::road::Gate;
use migration::stream::Error;
use qmp::RunState;
use rustix::process::{Signal, getpid, kill_process};

use super::disks::sinks;
use super::{Ask, GLOBAL, Global, Main};
use crate::boot::Contents;
use crate::cli::log::tell;

use crate::vm::{Section as Saved, Vm, VmError};

/// So long a process whose guest is lost has to end by itself: a thread of it may wait for memory
/// that never comes.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// So long a thread may take to end that is told to.
const GOODBYE: Duration = Duration::from_secs(2);

/// A machine that waits for its guest.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    /// It is to run when it is here, if it ran.
    pub(super) run: bool,
    /// Who listens, or reads.
    listening: Option<Listening>,
    /// The guest ran where it comes from.
    ran: bool,
    /// The run state that it takes along.
    state: Option<RunState>,
}

/// The thread that listens, or reads. Dropped it is ended, and with it what it has made: the file
/// of a socket, a command.
#[derive(Debug)]
struct Listening {
    /// None: nobody ends it.
    canceller: Option<Canceller>,
    ended: Receiver<()>,
}

impl Listening {
    /// The guest is here: the thread ends with the source, or with this process.
    fn leave_alone(mut self) {
        self.canceller = None;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(canceller) = &self.canceller {
            canceller.cancel();
            let _ = self.ended.recv_timeout(GOODBYE);
        }
    }
}

/// The machine, as the thread sees it.
struct Here {
    main: Main,
    /// Where more can come in.
    gate: Option<Gate>,
    /// The guest runs, and some of its memory comes late.
    early: bool,
}

impl Target for Here {
    fn disks(&mut self) -> Result<Vec<Box<dyn Sink>>, String> {
        self.main.order(Ask::Disks).map(|drives| sinks(&drives))
    }

    fn load(&mut self, sections: Vec<Section>) -> Result<(), String> {
        self.main.order(|reply| Ask::Load(sections, reply))
    }

    fn take(&mut self) -> Result<(), String> {
        self.main.order(Ask::Take)
    }

    fn early(&mut self) {
        self.early = true;
        self.main.tell(Ask::Received(Ok(true)));
    }

    fn door(&mut self) -> Option<Box<dyn Door>> {
        Some(Box::new(self.gate.take()?))
    }
}

impl Vm {
    /// Waits for a guest from now on, which is to run here if `run`.
    pub(crate) fn await_guest(&mut self, run: bool) {
        self.set_state(RunState::Inmigrate);
        // What is in memory is the guest's: nothing of what this machine would boot goes there.
        self.board.contents = Contents::default();
        self.migration.incoming = Some(Incoming { run, ..Incoming::default() });
    }

    /// The user lets the guest go on, or not, when it is here. `None` if it is not awaited.
    pub(crate) fn awaited(&mut self) -> Option<&mut Incoming> {
        self.migration.incoming.as_mut()
    }

    /// Takes a guest that comes in by `gate`, on a thread, until that is cancelled.
    pub(crate) fn receive_over(&mut self, gate: Gate, canceller: Canceller) {
        let (end, ended) = channel();
        if let Some(incoming) = &mut self.migration.incoming {
            incoming.listening = Some(Listening { canceller: Some(canceller), ended });
        }
        let main = self.main();
        let thread = std::thread::Builder::new().name("migrate".to_owned());
        let on_failure = main.clone();
        let spawned = thread.spawn(move || {
            take_over(&main, gate);
            drop(end);
        });
        if let Err(error) = spawned {
            on_failure.tell(Ask::Received(Err(Error::Io(error))));
        }
    }

    /// Takes over the state of every part.
    pub(super) fn load_moved(&mut self, sections: Vec<Section>) -> Result<(), VmError> {
        let (global, parts) = unpack(sections)?;
        self.board.clock.set(global.clock);
        self.load(&parts)?;
        if let Some(incoming) = &mut self.migration.incoming {
            incoming.ran = global.running;
            incoming.state = global.state();
        }
        Ok(())
    }

    /// The guest is here, or never will be; whether some of its memory is still to come.
    pub(super) fn received(&mut self, result: Result<bool, Error>) {
        let late = match result {
            Ok(late) => late,
            Err(error) => {
                tell(format_args!("load of migration failed: {error}"));
                return self.end(1);
            }
        };
        let mut incoming = self.migration.incoming.take().unwrap_or_default();
        incoming.listening.take().into_iter().for_each(Listening::leave_alone);
        self.migration.filling = late.then_some(true);
        match incoming.run && incoming.ran {
            true => self.start(),
            false => self.set_state(incoming.state.unwrap_or(RunState::Paused)),
        }
    }

    /// All of the memory of the guest that runs here is here, or what is missing never will be:
    /// then the guest is lost, and nothing may go on with the memory that there is.
    pub(super) fn filled(&mut self, result: Result<(), Error>) {
        self.migration.filling = Some(false);
        if let Err(error) = result {
            tell(format_args!("the guest is lost: post-copy failed: {error}"));
            self.end(1);
        }
    }
}

/// The thread.
fn take_over(main: &Main, mut gate: Gate) {
    let mut link = match gate.first() {
        Ok(link) => link,
        Err(error) => return main.tell(Ask::Received(Err(Error::Here(error.0)))),
    };
    let Ok((blocks, inventory)) = main.ask(Ask::Describe) else { return };
    let mut here = Here { main: main.clone(), gate: Some(gate), early: false };
    let done = dest::receive(&mut link, blocks, &inventory, &mut here);
    match here.early {
        true => fill_up(main, done),
        false => main.tell(Ask::Received(done.map(|()| false))),
    }
    // As long as the source wants to hear whether the guest is here, it is told by this
    // connection: it ends with the source, or with this process.
    let mut rest = [0; 64];
    while matches!(link.read(&mut rest), Ok(1..)) {}
}

/// The memory of a guest that runs here is all here, or never will be.
fn fill_up(main: &Main, done: Result<(), Error>) {
    let lost = done.is_err();
    main.tell(Ask::Filled(done));
    if lost {
        std::thread::sleep(LAST_WORDS);
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

/// The state of the machine as a whole, and of its parts.
pub(super) fn unpack(sections: Vec<Section>) -> Result<(Global, Vec<Saved>), VmError> {
    let all = sections.into_iter().map(|Section { name, blob }| Saved { path: name, blob });
    let (global, parts): (Vec<_>, Vec<_>) = all.partition(|section| section.path == GLOBAL);
    let Some(global) = global.first() else {
        return Err(VmError::Sections(format!("lacks '{GLOBAL}'")));
    };
    let parsed = global.blob.parse(1, &[]);
    let global = parsed.map_err(|error| VmError::State(GLOBAL.to_owned(), error))?;
    Ok((global, parts))
}

impl Incoming {
    /// Says whether the guest is to run when it is here.
    pub(crate) fn set_run(&mut self, run: bool) {
        self.run = run;
    }

    /// Whether nobody listens yet (`-incoming defer`).
    pub(crate) fn is_deferred(&self) -> bool {
        self.listening.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Instant;

    use migration::channel::Listener;
    use migration::uri::Uri;

    use super::*;
    use crate::cmd::testing::fake;

    #[test]
    fn a_machine_to_which_nobody_can_come_ends() {
        let mut vm = fake();
        vm.await_guest(true);
        let canceller = Canceller::new().unwrap();
        canceller.cancel();
        let uri = Uri::incoming("exec:true").unwrap();
        let none = |_: &str| Err(migration::Error("there is none".to_owned()));
        let gate = Gate::new(Listener::start(&uri, none).unwrap(), &canceller, None);
        vm.receive_over(gate, canceller);
        let until = Instant::now() + Duration::from_secs(10);
        while vm.exit_status().is_none() && Instant::now() < until {
            vm.service();
            std::thread::yield_now();
        }
        assert_eq!(vm.exit_status(), Some(1));
    }

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("vmm-{name}-{}", std::process::id()))
    }

    #[test]
    fn what_waits_for_a_guest_goes_with_its_machine() {
        let socket = scratch("awaits");
        let mut vm = fake();
        vm.await_guest(true);
        vm.receive_from(&format!("unix:{}", socket.display())).unwrap();
        assert!(socket.exists());
        drop(vm);
        assert!(!socket.exists());

        let file = scratch("awaits-pid");
        let mut vm = fake();
        vm.await_guest(true);
        let command = format!("exec:echo $$ >{0}.new; mv {0}.new {0}; sleep 100", file.display());
        vm.receive_from(&command).unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while !file.exists() && Instant::now() < until {
            std::thread::yield_now();
        }
        let pid = std::fs::read_to_string(&file).unwrap();
        let process = PathBuf::from(format!("/proc/{}", pid.trim()));
        assert!(process.exists());
        drop(vm);
        assert!(!process.exists());
        std::fs::remove_file(file).unwrap();
    }
}
