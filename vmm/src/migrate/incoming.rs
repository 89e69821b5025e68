//! A guest is taken over.
//!
//! The thread that listens and reads, and what the main thread does for it. The machine was built
//! and reset, and has never run.

use std::time::Duration;

use migration::blocks::Sink;
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

/// A machine that waits for its guest.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    /// It is to run when it is here, if it ran.
    pub(super) run: bool,
    /// Somebody listens, or reads.
    started: bool,
    /// The guest ran where it comes from.
    ran: bool,
    /// The run state that it takes along.
    state: Option<RunState>,
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

    /// Takes a guest that comes in by `gate`, on a thread.
    pub(crate) fn receive_over(&mut self, mut gate: Gate) {
        if let Some(incoming) = &mut self.migration.incoming {
            incoming.started = true;
        }
        let main = self.main();
        let thread = std::thread::Builder::new().name("migrate".to_owned());
        let on_failure = main.clone();
        let spawned = thread.spawn(move || {
            let link = match gate.first() {
                Ok(link) => link,
                Err(error) => {
                    tell(format_args!("{error}"));
                    return;
                }
            };
            let Ok((blocks, inventory)) = main.ask(Ask::Describe) else { return };
            let mut link = link;
            let mut here = Here { main: main.clone(), gate: Some(gate), early: false };
            let done = dest::receive(&mut link, blocks, &inventory, &mut here);
            match here.early {
                true => fill_up(&main, done),
                false => main.tell(Ask::Received(done.map(|()| false))),
            }
            // As long as the source wants to hear whether the guest is here, it is told by this
            // connection: it ends with the source, or with this process.
            let mut rest = [0; 64];
            while matches!(link.read(&mut rest), Ok(1..)) {}
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
        let incoming = self.migration.incoming.take().unwrap_or_default();
        self.migration.filling = matches!(result, Ok(true)).then_some(true);
        match result {
            Ok(_) if incoming.run && incoming.ran => self.start(),
            Ok(_) => self.set_state(incoming.state.unwrap_or(RunState::Paused)),
            Err(error) => {
                tell(format_args!("load of migration failed: {error}"));
                self.end(1);
            }
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
        !self.started
    }
}
