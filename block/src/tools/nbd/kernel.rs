//! `-c` and `-d`: the image as a block device of this machine, by the kernel's own NBD client.
//!
//! The kernel is given one end of a socket pair whose other end the server serves; negotiation is
//! done here, and for simple replies, since the kernel knows no others. A thread lends itself to
//! the device for as long as that is connected (`NBD_DO_IT`, from <linux/nbd.h>). No lock. Who may
//! open the device may read and write the image.
#![expect(unsafe_code, reason = "the ioctls of the NBD device have no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use resources::iol::{Either, Local, Notify, race};
use rustix::ioctl::{IntegerSetter, Opcode, ioctl, opcode};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::nbd::client;
use crate::nbd::server::Server;
use crate::nbd::wire::flag;
use crate::tools::console::{Console, Fail};
use crate::tools::signals;

const SET_SOCK: Opcode = opcode::none(0xab, 0);
const SET_BLOCK_SIZE: Opcode = opcode::none(0xab, 1);
const DO_IT: Opcode = opcode::none(0xab, 3);
const CLEAR_SOCK: Opcode = opcode::none(0xab, 4);
const CLEAR_QUEUE: Opcode = opcode::none(0xab, 5);
const SET_BLOCKS: Opcode = opcode::none(0xab, 7);
const DISCONNECT: Opcode = opcode::none(0xab, 8);
const SET_FLAGS: Opcode = opcode::none(0xab, 10);

/// Between two looks at whether the kernel has begun.
const GLANCE: Duration = Duration::from_millis(5);

/// Bytes of a sector of the device.
const SECTOR: u64 = 512;

/// Opens a device.
///
/// # Errors
/// It is none, or cannot be opened; the text begins with `what`.
pub(super) fn open(device: &str, what: &str) -> Result<File, Fail> {
    let refuse = |why: &str| Fail::Told(format!("{what} {device}: {why}"));
    let file = File::options().read(true).write(true).open(device);
    let file = file.map_err(|error| refuse(&crate::errno_text(&error)))?;
    match file.metadata() {
        Ok(facts) if facts.file_type().is_block_device() => Ok(file),
        Ok(_) => Err(refuse("it is not a device of the kernel's NBD client")),
        Err(error) => Err(refuse(&crate::errno_text(&error))),
    }
}

/// Ends what a device is.
///
/// # Errors
/// It is none, or is not one of NBD.
pub(super) fn disconnect(console: &Console, device: &str) -> Result<(), Fail> {
    let file = open(device, "Cannot open")?;
    end(&file).map_err(|error| {
        Fail::Told(format!("Cannot disconnect {device}: {}", crate::errno_text(&error)))
    })?;
    console.line(format_args!("{device} disconnected"));
    Ok(())
}

/// A device that shows an export.
pub(super) struct Device {
    file: Arc<File>,
    ended: Notify,
}

impl Device {
    /// Makes a device show an export of a server, which serves it on this loop.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn connect(
        local: &Local,
        server: &Server,
        export: &str,
        name: &str,
    ) -> Result<Device, Fail> {
        let file = Arc::new(open(name, "Failed to open")?);
        let failed = |what: &str, error: io::Error| {
            Fail::Told(format!("{name}: {what}: {}", crate::errno_text(&error)))
        };
        let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = pair.map_err(|error| failed("no socket", error.into()))?;
        server.serve(local, theirs, Arc::new(|| {}));
        let ours = Arc::new(ours);
        let facts = client::negotiate(local, &ours, export).await;
        let facts = facts.map_err(|error| Fail::Told(error.to_string()))?;
        let set = |what: &str, done: io::Result<()>| done.map_err(|error| failed(what, error));
        let number = std::os::fd::AsRawFd::as_raw_fd(&*ours);
        set("Failed to set NBD socket", tell::<SET_SOCK>(&file, number as usize))?;
        let configured = async {
            let blocks = usize::try_from(facts.size / SECTOR).unwrap_or(usize::MAX);
            set("Failed setting NBD block size", tell::<SET_BLOCK_SIZE>(&file, SECTOR as usize))?;
            set("Failed setting size (in blocks)", tell::<SET_BLOCKS>(&file, blocks))?;
            let flags = facts.flags & KERNEL_FLAGS;
            set("Failed setting flags", tell::<SET_FLAGS>(&file, flags.into()))
        };
        if let Err(fail) = configured.await {
            let _ = tell::<CLEAR_SOCK>(&file, 0);
            return Err(fail);
        }
        let ended = Notify::new();
        let (lent, tell_end) = (file.clone(), ended.clone());
        let thread = std::thread::Builder::new().name("kernel".to_owned());
        let serving = thread.spawn(move || {
            // The socket stays open for as long as the kernel uses it.
            let _socket = ours;
            if let Err(error) = tell::<DO_IT>(&lent, 0) {
                tracing::warn!("NBD_DO_IT: {error}");
            }
            let _ = tell::<CLEAR_QUEUE>(&lent, 0);
            let _ = tell::<CLEAR_SOCK>(&lent, 0);
            tell_end.notify();
        });
        serving.map_err(|error| failed("no thread", error))?;
        let device = Device { file, ended };
        let begins = async {
            if device.shows(local, name, facts.size / SECTOR).await {
                // The kernel looks for partitions when it is opened: none could be read before.
                let name = name.to_owned();
                let _ = local.pool(move || drop(File::open(name))).await;
            }
        };
        let told_to_end = async {
            while signals::check().is_ok() {
                local.sleep(GLANCE).await;
            }
        };
        race(begins, told_to_end).await;
        Ok(device)
    }

    /// Waits until it has so many sectors, unless it has ended before or nobody can tell.
    async fn shows(&self, local: &Local, name: &str, sectors: u64) -> bool {
        let name = Path::new(name).canonicalize().ok();
        let Some(name) = name.as_deref().and_then(Path::file_name) else { return false };
        let place = Path::new("/sys/block").join(name);
        if !place.exists() {
            return false;
        }
        let size = || std::fs::read_to_string(place.join("size")).ok()?.trim().parse().ok();
        while !place.join("pid").exists() || size() != Some(sectors) {
            if let Either::Left(()) = race(self.ended(), local.sleep(GLANCE)).await {
                self.ended.notify();
                return false;
            }
        }
        true
    }

    /// Waits until it shows nothing any more.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Has it show nothing any more.
    pub(super) fn end(&self) {
        // Fails when it has ended already.
        let _ = end(&self.file);
    }
}

/// What the kernel's client understands of what an export can do.
const KERNEL_FLAGS: u16 = flag::HAS_FLAGS
    | flag::READ_ONLY
    | flag::SEND_FLUSH
    | flag::SEND_FUA
    | flag::SEND_TRIM
    | flag::SEND_WRITE_ZEROES;

fn end(file: &File) -> io::Result<()> {
    tell::<CLEAR_QUEUE>(file, 0)?;
    tell::<DISCONNECT>(file, 0)?;
    tell::<CLEAR_SOCK>(file, 0)
}

fn tell<const REQUEST: Opcode>(file: &File, value: usize) -> io::Result<()> {
    // SAFETY: the requests of this module take a number, and a device that is not of NBD refuses
    // them as unknown: 0xab is the type of NBD alone.
    unsafe { Ok(ioctl(file.as_fd(), IntegerSetter::<REQUEST>::new_usize(value))?) }
}
