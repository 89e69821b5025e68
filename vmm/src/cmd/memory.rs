//! Commands that write guest memory, or the state of everything else, to files.
//!
//! Main thread, which the file holds up as long as it takes. Sizes are a client's: whatever they
//! are, memory is copied a little at a time, and where nothing is a file has a hole.

use std::io;

use qmp::{
    CurrentMachineParams, Handle, MemoryInfo, Memsave, Pmemsave, QmpError, QueryCurrentMachine,
    QueryMemorySizeSummary, RunState, XenSaveDevicesState, XenSetGlobalDirtyLog,
};
use resources::fdset::File;
use resources::space::Space;
use rustix::fs::{Mode, OFlags};

use crate::cpu::paging::Paging;
use crate::dump::output::Output;
use crate::vm::{Section, Vm};

/// Virtual memory is translated and written in chunks of this size; the first one that is not
/// wholly there ends it.
const CHUNK: usize = 1024;

/// Physical memory is copied in chunks of this size.
const PHYSICAL_CHUNK: u64 = 64 << 10;

/// What the stream of devices' state begins with: "QEVM", and the version of its form.
const STREAM: [u32; 2] = [0x5145_564d, 3];
const STREAM_FULL: u8 = 4;
const STREAM_END: u8 = 0;

pub(super) fn io_error(error: &io::Error) -> QmpError {
    tracing::debug!("writing failed: {error}");
    QmpError::generic("An IO error has occurred")
}

impl Vm {
    /// Opens a file to be written from its beginning, by the name a client gave.
    pub(super) fn create(&self, path: &str, mode: Mode) -> Result<File, QmpError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        self.fdsets.open(path, flags, mode).map_err(|error| QmpError::could_not_open(path, &error))
    }

    /// Has guest RAM hold what is to be booted, before anyone looks.
    ///
    /// # Errors
    /// When an image cannot be read.
    pub fn fill(&mut self) -> Result<(), QmpError> {
        self.board.fill().map_err(|error| QmpError::generic(error.to_string()))
    }

    /// A file that is readable and writable as far as the user's mask allows.
    fn create_output(&self, path: &str) -> Result<Output, QmpError> {
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
        Output::new(self.create(path, mode)?).map_err(|error| io_error(&error))
    }
}

fn size(size: i64) -> Result<u64, QmpError> {
    u64::try_from(size).map_err(|_| QmpError::invalid("size"))
}

impl Handle<Memsave> for Vm {
    fn handle(&mut self, args: Memsave) -> Result<(), QmpError> {
        let size = size(args.size)?;
        let registers = self.registers(args.cpu_index.or(args.cpu).unwrap_or(0))?;
        self.fill()?;
        let mut to = self.create_output(&args.filename)?;
        let (memory, paging) = (&self.board.memory, Paging::of(&registers.sregs));
        let address = args.val.cast_unsigned();
        let saved = match paging.is_on() {
            true => save_virtual(memory, &paging, (address, size), &mut to),
            false => save_physical(memory, (address, size), &mut to).map_err(|e| io_error(&e)),
        };
        // What came before an error is in the file.
        saved.and(to.finish().map_err(|error| io_error(&error)))
    }
}

impl Handle<Pmemsave> for Vm {
    fn handle(&mut self, args: Pmemsave) -> Result<(), QmpError> {
        let range = (args.val.cast_unsigned(), size(args.size)?);
        self.fill()?;
        let mut to = self.create_output(&args.filename)?;
        let saved = save_physical(&self.board.memory, range, &mut to);
        saved.and(to.finish()).map_err(|error| io_error(&error))
    }
}

fn save_virtual(
    memory: &Space,
    paging: &Paging,
    (mut address, mut size): (u64, u64),
    to: &mut Output,
) -> Result<(), QmpError> {
    let mut buffer = [0; CHUNK];
    while size > 0 {
        let len = size.min(CHUNK as u64);
        let chunk = buffer.get_mut(..len as usize).unwrap_or_default();
        if !paging.read(memory, address, chunk) {
            return Err(QmpError::generic(format!("Invalid addr {address:#018x}specified")));
        }
        to.write(chunk).map_err(|error| io_error(&error))?;
        (address, size) = (address.wrapping_add(len), size - len);
    }
    Ok(())
}

/// Where nothing is there are zeros.
fn save_physical(
    memory: &Space,
    (mut address, mut size): (u64, u64),
    to: &mut Output,
) -> io::Result<()> {
    let mut buffer = vec![0; PHYSICAL_CHUNK as usize];
    while size > 0 {
        let gap = memory.gap(address).min(size);
        let len = if gap > 0 { gap } else { size.min(PHYSICAL_CHUNK) };
        if gap > 0 {
            to.zeros(gap)?;
        } else {
            let chunk = buffer.get_mut(..len as usize).unwrap_or_default();
            memory.inspect(address, chunk);
            to.write(chunk)?;
        }
        size -= len;
        match address.checked_add(len) {
            Some(next) => address = next,
            None => return to.zeros(size),
        }
    }
    Ok(())
}

impl Handle<XenSaveDevicesState> for Vm {
    fn handle(&mut self, args: XenSaveDevicesState) -> Result<(), QmpError> {
        let ran = self.is_running();
        self.stop(RunState::SaveVm);
        let saved = self.save_devices(&args.filename);
        if ran {
            self.start();
        }
        saved
    }
}

impl Vm {
    fn save_devices(&mut self, path: &str) -> Result<(), QmpError> {
        let mut to = self.create_output(path)?;
        let sections = self.save().map_err(|error| QmpError::generic(error.to_string()))?;
        stream(&sections, &mut to).and_then(|()| to.finish()).map_err(|error| io_error(&error))
    }
}

/// The sections in the outer form that saved machines have: each with a number, its name, an
/// instance, a version, and its blob, which says itself where it ends.
fn stream(sections: &[Section], to: &mut Output) -> io::Result<()> {
    let mut bytes = Vec::new();
    STREAM.iter().for_each(|word| bytes.extend(word.to_be_bytes()));
    for (id, section) in (0u32..).zip(sections) {
        let name = section.path.as_bytes();
        let name_len = u8::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        let blob = section.blob.to_bytes().map_err(io::Error::other)?;
        bytes.push(STREAM_FULL);
        bytes.extend(id.to_be_bytes());
        bytes.push(name_len);
        bytes.extend(name);
        bytes.extend(0u32.to_be_bytes());
        bytes.extend(u32::from(section.blob.version()).to_be_bytes());
        bytes.extend(blob);
        to.write(&bytes)?;
        bytes.clear();
    }
    to.write(&[STREAM_END])
}

impl Handle<XenSetGlobalDirtyLog> for Vm {
    fn handle(&mut self, _: XenSetGlobalDirtyLog) -> Result<(), QmpError> {
        Ok(())
    }
}

impl Handle<QueryMemorySizeSummary> for Vm {
    fn handle(&mut self, _: QueryMemorySizeSummary) -> Result<MemoryInfo, QmpError> {
        let base_memory = self.board.ram.as_ref().map_or(0, |ram| ram.size());
        Ok(MemoryInfo { base_memory, plugged_memory: Some(0) })
    }
}

impl Handle<QueryCurrentMachine> for Vm {
    fn handle(&mut self, _: QueryCurrentMachine) -> Result<CurrentMachineParams, QmpError> {
        Ok(CurrentMachineParams { wakeup_suspend_support: self.board.pm.is_some() })
    }
}

#[cfg(test)]
mod tests;
