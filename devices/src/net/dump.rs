//! A record of the frames on a hub, as libpcap writes them.
//!
//! Written by the hub's task; the main thread makes and ends it. Lock: a leaf mutex around the
//! file, held over a write. Frames are recorded as they are, to the length that was asked for. A
//! full disk ends the record, and the user is told.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use resources::clock::Clock;
use resources::fdset;
use rustix::fs::{Mode, OFlags};

use super::options::{Keys, OpenError};

/// How much is kept of a frame, unless it is said.
const LEN: u64 = 65536;

/// The layout of frames: Ethernet.
const LINK_ETHERNET: u32 = 1;

/// Virtual time, once the machine has it.
pub type LateClock = Arc<OnceLock<Arc<Clock>>>;

/// Options of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DumpOptions {
    /// The file.
    pub file: Option<String>,
    /// How many bytes of each frame are kept.
    pub len: Option<u64>,
}

impl DumpOptions {
    pub(super) fn parse(keys: &mut Keys<'_>) -> Result<DumpOptions, OpenError> {
        Ok(DumpOptions { file: keys.owned("file"), len: keys.size("len")? })
    }
}

/// A record that is being written.
pub struct Dump {
    name: String,
    path: String,
    len: u32,
    /// `None` once it has ended.
    file: Mutex<Option<(OwnedFd, Option<fdset::Lease>)>>,
    clock: LateClock,
    /// When it began, in seconds of the calendar.
    start: u64,
}

impl Dump {
    /// Begins a record of hub `hub`.
    pub(super) fn open(
        options: &DumpOptions,
        name: &str,
        hub: i32,
        clock: LateClock,
    ) -> Result<Dump, OpenError> {
        let path = options.file.clone().unwrap_or_else(|| format!("qemu-vlan{hub}.pcap"));
        let failed =
            |error: io::Error| OpenError::Failed(format!("-net dump: can't open {path}: {error}"));
        let len = u32::try_from(options.len.unwrap_or(LEN)).unwrap_or(u32::MAX);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = fdset::open(&path, flags, Mode::from_raw_mode(0o644)).map_err(failed)?;
        let (fd, lease) = file.into_parts();
        let mut header = Vec::new();
        // Magic, version 2.4, no time zone, no accuracy, length, layout.
        for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, len, LINK_ETHERNET] {
            header.extend(u32::to_ne_bytes(word));
        }
        write_all(&fd, &header).map_err(failed)?;
        let start = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let file = Mutex::new(Some((fd, lease)));
        Ok(Dump { name: name.to_owned(), path, len, file, clock, start })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it tells of itself.
    pub fn info(&self) -> String {
        format!("dump to {} (len={})", self.path, self.len)
    }

    /// Records a frame.
    pub(super) fn write(&self, frame: &[u8]) {
        let mut file = self.file.lock();
        let Some((fd, _)) = &*file else { return };
        let micros = self.clock.get().map_or(0, |clock| clock.now() / 1000);
        let seconds = self.start.wrapping_add(micros / 1_000_000);
        let kept = frame.get(..usize::try_from(self.len).unwrap_or(usize::MAX)).unwrap_or(frame);
        let mut record = Vec::with_capacity(kept.len().saturating_add(16));
        // The format has 32 bits for each.
        for word in [seconds, micros % 1_000_000, to_u64(kept.len()), to_u64(frame.len())] {
            record.extend(u32::try_from(word & 0xffff_ffff).unwrap_or_default().to_ne_bytes());
        }
        record.extend_from_slice(kept);
        if let Err(error) = write_all(fd, &record) {
            tracing::error!("-net dump write error - stop dump: {}: {error}", self.path);
            *file = None;
        }
    }
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn write_all(fd: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    struct Fd<'a>(&'a OwnedFd);
    impl Write for Fd<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(rustix::io::write(self.0, bytes)?)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    Fd(fd).write_all(bytes)
}
