//! Dumps of the guest as a core file.
//!
//! Main thread, or, for a dump that is to detach, a thread of its own; the guest stands still in
//! either case. The file is a client's: a pipe that nobody reads is given up after
//! [`PATIENCE`](crate::dump::output::PATIENCE) seconds.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use qmp::{
    DumpGuestMemory, DumpGuestMemoryCapability, DumpGuestMemoryFormat, DumpQueryResult, DumpStatus,
    Event, Handle, QmpError, QueryDump, QueryDumpGuestMemoryCapability, RunState,
};
use resources::fdset::File;
use rustix::fs::Mode;

use super::memory::io_error;
use crate::dump::output::Output;
use crate::dump::{Dump, Refused, Wanted};
use crate::vm::Vm;

/// The latest dump.
#[derive(Debug)]
pub struct Latest {
    status: DumpStatus,
    total: u64,
    written: Arc<AtomicU64>,
    /// Writes it, if it is detached.
    thread: Option<JoinHandle<io::Result<()>>>,
    /// The guest ran before.
    ran: bool,
}

impl Default for Latest {
    fn default() -> Latest {
        let (written, thread) = (Arc::default(), None);
        Latest { status: DumpStatus::None, total: 0, written, thread, ran: false }
    }
}

impl Latest {
    /// Refuses what cannot be done while a dump is written.
    ///
    /// # Errors
    /// While one is.
    pub fn refuse_active(&self) -> Result<(), QmpError> {
        match &self.thread {
            Some(_) => Err(QmpError::generic("There is a dump in process, please wait.")),
            None => Ok(()),
        }
    }

    fn result(&self) -> DumpQueryResult {
        DumpQueryResult {
            completed: self.written.load(Ordering::Relaxed).cast_signed(),
            status: self.status,
            total: self.total.cast_signed(),
        }
    }

    fn ended(&mut self, done: &io::Result<()>) {
        self.status = if done.is_ok() { DumpStatus::Completed } else { DumpStatus::Failed };
    }
}

impl Handle<DumpGuestMemory> for Vm {
    fn handle(&mut self, args: DumpGuestMemory) -> Result<(), QmpError> {
        self.latest_dump.refuse_active()?;
        self.migration.refuse_moving("dump-guest-memory")?;
        if self.state() == RunState::Inmigrate {
            return Err(QmpError::generic("Dump not allowed during incoming migration."));
        }
        let range = match (args.begin, args.length) {
            (Some(_), None) => return Err(QmpError::missing("length")),
            (None, Some(_)) => return Err(QmpError::missing("begin")),
            (begin, length) => begin.zip(length),
        };
        if let Some(format) = args.format.filter(|f| *f != DumpGuestMemoryFormat::Elf) {
            let text = format!("{} is not available now", format.as_str());
            return Err(QmpError::generic(text));
        }
        let file = self.dump_file(&args.protocol)?;
        let ran = self.is_running();
        self.stop(RunState::SaveVm);
        let started = self.start_dump(file, args.paging, range, args.detach == Some(true), ran);
        if ran && self.latest_dump.thread.is_none() {
            self.start();
        }
        started
    }
}

impl Vm {
    fn dump_file(&mut self, protocol: &str) -> Result<File, QmpError> {
        if let Some(name) = protocol.strip_prefix("fd:") {
            let fd: OwnedFd = self.take_named_fd(name)?;
            return Ok(std::fs::File::from(fd).into());
        }
        match protocol.strip_prefix("file:") {
            Some(path) => self.create(path, Mode::RUSR),
            None => Err(QmpError::invalid("protocol")),
        }
    }

    /// Lays out the dump and writes it, or has it written.
    fn start_dump(
        &mut self,
        file: File,
        paging: bool,
        range: Option<(i64, i64)>,
        detach: bool,
        ran: bool,
    ) -> Result<(), QmpError> {
        let range = match range {
            None => None,
            Some((begin, length)) => {
                let begin = u64::try_from(begin).map_err(|_| QmpError::invalid("begin"))?;
                let length = u64::try_from(length).ok().filter(|length| *length > 0);
                Some((begin, length.ok_or_else(|| QmpError::invalid("length"))?))
            }
        };
        self.fill()?;
        let vcpus = self.all_registers()?;
        let wanted = Wanted { paging, range };
        let dump = Dump::new(&self.board.memory, &vcpus, wanted).map_err(|refused| {
            QmpError::generic(match refused {
                Refused::NothingThere => "Invalid parameter 'begin'",
                Refused::NoProcessor => "this feature or command is not currently supported",
            })
        })?;
        let output = Output::new(file).map_err(|error| io_error(&error))?;
        let written: Arc<AtomicU64> = Arc::default();
        self.latest_dump = Latest {
            status: DumpStatus::Active,
            total: dump.size(),
            written: written.clone(),
            thread: None,
            ran,
        };
        let write =
            move || dump.write(output, |count| _ = written.fetch_add(count, Ordering::Relaxed));
        if !detach {
            let done = write();
            self.latest_dump.ended(&done);
            return done.map_err(|error| io_error(&error));
        }
        let mailbox = self.mailbox().clone();
        let thread = std::thread::Builder::new().name("dump".to_owned()).spawn(move || {
            let done = write();
            mailbox.ask(|mail| mail.dump_ended = true);
            done
        });
        self.latest_dump.thread = Some(thread.map_err(|error| {
            self.latest_dump.status = DumpStatus::Failed;
            QmpError::generic(format!("cannot start a thread: {error}"))
        })?);
        Ok(())
    }

    /// A detached dump has ended: clients are told, and the guest goes on.
    pub(crate) fn dump_ended(&mut self) {
        let Some(thread) = self.latest_dump.thread.take() else { return };
        let done = thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")));
        self.latest_dump.ended(&done);
        let error = done.err().map(|error| io_error(&error).desc);
        self.context.raise(Event::DumpCompleted { result: self.latest_dump.result(), error });
        if self.latest_dump.ran && self.state() == RunState::SaveVm {
            self.start();
        }
    }
}

impl Handle<QueryDump> for Vm {
    fn handle(&mut self, _: QueryDump) -> Result<DumpQueryResult, QmpError> {
        Ok(self.latest_dump.result())
    }
}

impl Handle<QueryDumpGuestMemoryCapability> for Vm {
    fn handle(
        &mut self,
        _: QueryDumpGuestMemoryCapability,
    ) -> Result<DumpGuestMemoryCapability, QmpError> {
        Ok(DumpGuestMemoryCapability { formats: vec![DumpGuestMemoryFormat::Elf] })
    }
}

#[cfg(test)]
mod tests;
