//! The drives of a machine: what `-drive`, drive_add and blockdev-add make.
//!
//! Main thread. Options are the user's or a client's; images come from anybody. Opening an image,
//! giving one up and flushing wait for the loop that serves it.

use std::sync::Arc;

use block::options::OptionError;
use block::{Cache, Drive, Failure, IoStatus, OnError, Options, Policy, Spec};
use resources::iol::Handle;
use resources::value::check_identifier;

use crate::cli::keyval::Pairs;
use crate::mailbox::Mailbox;

/// All drives, in the order in which they were made.
#[derive(Default)]
pub struct Drives {
    all: Vec<Arc<Drive>>,
}

/// Why there is no such drive. The texts are those that clients know.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DriveError(pub String);

impl From<OptionError> for DriveError {
    fn from(error: OptionError) -> DriveError {
        DriveError(error.0)
    }
}

fn wrong<T>(text: impl Into<String>) -> Result<T, DriveError> {
    Err(DriveError(text.into()))
}

/// What drives stand on.
pub struct Home<'a> {
    /// The loop that serves drives without a device.
    pub io: Handle,
    /// Who is told of failed requests.
    pub mailbox: &'a Arc<Mailbox>,
}

/// Keys of `-drive` that limit how much is done, which nothing does yet.
const THROTTLES: [&str; 13] = [
    "bps",
    "bps_rd",
    "bps_wr",
    "iops",
    "iops_rd",
    "iops_wr",
    "bps_max",
    "bps_rd_max",
    "bps_wr_max",
    "iops_max",
    "iops_rd_max",
    "iops_wr_max",
    "iops_size",
];

impl Drives {
    /// The drive of this name.
    pub fn find(&self, id: &str) -> Option<&Arc<Drive>> {
        self.all.iter().find(|drive| drive.id() == id)
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Drive>> {
        self.all.iter()
    }

    /// Makes what `-drive` asks for; returns the device that it wants too, for `if=virtio`.
    ///
    /// # Errors
    /// An option is wrong, or the image cannot be opened.
    pub fn add_option(
        &mut self,
        pairs: &Pairs,
        home: &Home<'_>,
    ) -> Result<Option<Pairs>, DriveError> {
        let mut options: Options = pairs.iter().collect();
        let interface = options.take("if").unwrap_or_else(|| "ide".to_owned());
        match interface.as_str() {
            "none" | "virtio" => {}
            "ide" | "scsi" | "floppy" | "pflash" | "mtd" | "sd" | "xen" => {
                return wrong(format!(
                    "if={interface}: the machine has no such disks, use if=virtio, or if=none \
                     with a -device"
                ));
            }
            other => return wrong(format!("unsupported bus type '{other}'")),
        }
        let place = match options.take_number("index")? {
            Some(index) => Some(index),
            None => options.take_number("unit")?,
        };
        options.take_number("bus")?;
        let read_only = match options.take("media").as_deref() {
            None | Some("disk") => false,
            Some("cdrom") => true,
            Some(other) => return wrong(format!("'{other}' invalid media")),
        };
        let id = match options.take("id") {
            Some(id) => {
                check_identifier("id", &id).map_err(|error| DriveError(error.to_string()))?;
                id
            }
            None => match place {
                Some(place) => format!("{interface}{place}"),
                None => (0..)
                    .map(|number| format!("{interface}{number}"))
                    .find(|id| self.find(id).is_none())
                    .unwrap_or_default(),
            },
        };
        if self.find(&id).is_some() {
            return wrong(format!("Duplicate ID '{id}' for drive"));
        }
        let addr = options.take("addr");
        if addr.is_some() && interface != "virtio" {
            return wrong("addr is not supported by this bus type");
        }
        if read_only {
            options.set("read-only", "on");
        }
        self.open(&id, options, home)?;
        Ok((interface == "virtio").then(|| {
            let mut device: Pairs =
                [("driver", "virtio-blk-pci"), ("drive", &id)].into_iter().collect();
            if let Some(addr) = addr {
                device.push("addr", addr);
            }
            device
        }))
    }

    /// Makes a drive from options as `-drive` has them, with dotted keys for what is below it.
    ///
    /// # Errors
    /// An option is wrong, the id is taken, or the image cannot be opened.
    pub fn add(
        &mut self,
        id: &str,
        options: Vec<(String, String)>,
        home: &Home<'_>,
    ) -> Result<(), DriveError> {
        check_identifier("id", id).map_err(|error| DriveError(error.to_string()))?;
        if self.find(id).is_some() {
            return wrong(format!("Duplicate ID '{id}' for drive"));
        }
        self.open(id, options.into_iter().collect(), home)
    }

    fn open(&mut self, id: &str, mut options: Options, home: &Home<'_>) -> Result<(), DriveError> {
        let policy = Policy {
            read: on_error(options.take("rerror"), "read", OnError::Report)?,
            write: on_error(options.take("werror"), "write", OnError::Enospc)?,
        };
        let serial = options.take("serial");
        let file = options.get("file").or(options.get("file.filename"));
        let name = file.unwrap_or(id).to_owned();
        let spec = spec(id, options)?;
        let mailbox = home.mailbox.clone();
        let report = move |failure: Failure| mailbox.ask(|mail| mail.disk_failed(failure));
        let drive = Drive::new(id, home.io.clone(), policy, report);
        if let Some(serial) = serial {
            drive.set_serial(&serial);
        }
        if let Some(spec) = spec {
            let opened = drive.insert(spec);
            opened.map_err(|why| DriveError(format!("could not open disk image {name}: {why}")))?;
        }
        self.all.push(drive);
        Ok(())
    }

    /// Takes a drive away, even if a device has it, which is then without a disk.
    ///
    /// # Errors
    /// There is none, or a job has it.
    pub fn remove(&mut self, id: &str) -> Result<(), DriveError> {
        let Some(at) = self.all.iter().position(|drive| drive.id() == id) else {
            return wrong(format!("Device '{id}' not found"));
        };
        if self.all.get(at).is_some_and(|drive| drive.in_use()) {
            return wrong(format!("Device '{id}' is in use"));
        }
        let drive = self.all.remove(at);
        drive.set_policy(Policy { read: OnError::Report, write: OnError::Report });
        drive.remove();
        Ok(())
    }

    /// Makes everything durable that was written. A disk that fails is named in the log.
    pub fn flush(&self) {
        for drive in &self.all {
            if let Err(error) = drive.flush() {
                tracing::error!("drive '{}' could not be flushed: {error}", drive.id());
            }
        }
    }

    /// An error has stopped the machine.
    pub fn stopped_by(&self, failure: &Failure) {
        if let Some(drive) = self.find(&failure.drive) {
            let status = if failure.no_space { IoStatus::NoSpace } else { IoStatus::Failed };
            drive.set_io_status(status);
        }
    }

    /// The machine goes on.
    pub fn reset_io_status(&self) {
        self.all.iter().for_each(|drive| drive.reset_io_status());
    }

    /// Closes all images.
    pub fn close(&mut self) {
        self.all.drain(..).for_each(|drive| drive.remove());
    }
}

/// The graph that options of `-drive` ask for; `None` for an empty drive.
fn spec(id: &str, mut options: Options) -> Result<Option<Spec>, DriveError> {
    let cache = cache(&mut options)?;
    let threads = match options.take("aio").as_deref() {
        None | Some("native" | "io_uring") => false,
        Some("threads") => true,
        Some(_) => return wrong("invalid aio option"),
    };
    let discard = match options.take("discard").as_deref() {
        None | Some("ignore" | "off") => false,
        Some("unmap" | "on") => true,
        Some(_) => return wrong("invalid discard option"),
    };
    let old_name = options.take_switch("readonly")?;
    let read_only = options.take_switch("read-only")?.or(old_name).unwrap_or(false);
    let snapshot = options.take_switch("snapshot")?.unwrap_or(false);
    if options.take_switch("copy-on-read")? == Some(true) {
        return wrong("copy-on-read=on: copy-on-read is not supported");
    }
    for key in THROTTLES {
        if options.take_number(key)?.is_some_and(|limit| limit > 0) {
            return wrong(format!("{key}: limits are not supported"));
        }
    }
    if let Some(format) = options.take("format") {
        if block::format::named(&format).is_none() && block::protocol::named(&format).is_none() {
            return wrong(format!("'{format}' invalid format"));
        }
        if options.get("driver").is_none() {
            options.set("driver", &format);
        }
    }
    let filename = options.take("file");
    if filename.is_none() && options.is_empty() {
        return Ok(None);
    }
    let device = id.to_owned();
    let flags = Spec { read_only, cache, discard, threads, snapshot, ..Spec::default() };
    Ok(Some(Spec { filename, options, device, ..flags }))
}

fn cache(options: &mut Options) -> Result<Cache, DriveError> {
    let mut cache = match options.take("cache") {
        None => Cache::default(),
        Some(name) => Cache::named(&name).ok_or(DriveError("invalid cache option".to_owned()))?,
    };
    for (key, value) in [
        ("cache.writeback", &mut cache.writeback),
        ("cache.direct", &mut cache.direct),
        ("cache.no-flush", &mut cache.no_flush),
    ] {
        if let Some(on) = options.take_switch(key)? {
            *value = on;
        }
    }
    Ok(cache)
}

fn on_error(word: Option<String>, which: &str, default: OnError) -> Result<OnError, DriveError> {
    match word.as_deref() {
        None => Ok(default),
        Some("report") => Ok(OnError::Report),
        Some("ignore") => Ok(OnError::Ignore),
        Some("stop") => Ok(OnError::Stop),
        Some("enospc") if which == "write" => Ok(OnError::Enospc),
        Some(word) => wrong(format!("'{word}' invalid {which} error action")),
    }
}

#[cfg(test)]
mod tests;
