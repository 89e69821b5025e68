//! The drives of a machine: what `-drive`, drive_add and blockdev-add make.
//!
//! Main thread. Options are the user's or a client's; images come from anybody. Opening an image,
//! giving one up and flushing wait for the loop that serves it.

use std::sync::Arc;

use block::{Cache, Drive, Failure, HostFile, IoStatus, OnError, OpenOptions, Policy, Source};
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

/// What images begin with that are not raw.
const MAGICS: [(usize, &[u8], &str); 7] = [
    (0, b"QFI\xfb", "qcow2"),
    (0, b"QED\0", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"conectix", "vpc"),
    (0, b"vhdxfile", "vhdx"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
];

/// Options on their way to whoever wants them: what is left at the end is a mistake.
struct Options(Vec<(String, String)>);

impl Options {
    /// The value of a key, which is used up; the last one counts.
    fn take(&mut self, key: &str) -> Option<String> {
        let mut value = None;
        self.0.retain_mut(|(name, text)| {
            let found = name == key;
            if found {
                value = Some(std::mem::take(text));
            }
            !found
        });
        value
    }

    fn switch(&mut self, key: &str) -> Result<Option<bool>, DriveError> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some("on") => Ok(Some(true)),
            Some("off") => Ok(Some(false)),
            Some(_) => wrong(format!("Parameter '{key}' expects 'on' or 'off'")),
        }
    }

    fn number(&mut self, key: &str) -> Result<Option<u64>, DriveError> {
        let Some(text) = self.take(key) else { return Ok(None) };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => wrong(format!("Parameter '{key}' expects a number")),
        }
    }
}

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
        let all = pairs.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let mut options = Options(all);
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
        let place = match options.number("index")? {
            Some(index) => Some(index),
            None => options.number("unit")?,
        };
        options.number("bus")?;
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
            options.0.push(("read-only".to_owned(), "on".to_owned()));
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
        self.open(id, Options(options), home)
    }

    fn open(&mut self, id: &str, mut options: Options, home: &Home<'_>) -> Result<(), DriveError> {
        let policy = Policy {
            read: on_error(options.take("rerror"), "read", OnError::Report)?,
            write: on_error(options.take("werror"), "write", OnError::Enospc)?,
        };
        let serial = options.take("serial");
        let file = options.take("file");
        let name = file.clone().unwrap_or_else(|| id.to_owned());
        let image = Image::parse(file, &mut options)?;
        let failed = |why: String| DriveError(format!("could not open disk image {name}: {why}"));
        let source = image.map(|image| image.open()).transpose().map_err(&failed)?;
        if let Some((key, _)) = options.0.first() {
            let text = match key.strip_prefix("file.") {
                Some(key) => format!("Block protocol 'file' doesn't support the option '{key}'"),
                None => format!(
                    "Block format 'raw' used by device '{id}' doesn't support the option '{key}'"
                ),
            };
            return Err(failed(text));
        }
        let mailbox = home.mailbox.clone();
        let report = move |failure: Failure| mailbox.ask(|mail| mail.disk_failed(failure));
        let drive = Drive::new(id, home.io.clone(), policy, report);
        if let Some(serial) = serial {
            drive.set_serial(&serial);
        }
        if let Some(source) = source {
            drive.insert(source).map_err(|error| failed(error.to_string()))?;
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

/// An image to be opened.
struct Image {
    name: String,
    format: Option<String>,
    open: OpenOptions,
    offset: u64,
    size: Option<u64>,
}

impl Image {
    /// What the options ask for; `None` for an empty drive.
    fn parse(file: Option<String>, options: &mut Options) -> Result<Option<Image>, DriveError> {
        let cache = cache(options)?;
        if let Some(aio) = options.take("aio")
            && !matches!(aio.as_str(), "threads" | "native" | "io_uring")
        {
            return wrong("invalid aio option");
        }
        let discard = match options.take("discard").as_deref() {
            None | Some("ignore" | "off") => false,
            Some("unmap" | "on") => true,
            Some(_) => return wrong("invalid discard option"),
        };
        let old_name = options.switch("readonly")?;
        let read_only = options.switch("read-only")?.or(old_name).unwrap_or(false);
        for (key, what) in [("snapshot", "a temporary overlay"), ("copy-on-read", "copy-on-read")] {
            if options.switch(key)? == Some(true) {
                return wrong(format!("{key}=on: {what} is not supported"));
            }
        }
        for key in THROTTLES {
            if options.number(key)?.is_some_and(|limit| limit > 0) {
                return wrong(format!("{key}: limits are not supported"));
            }
        }
        let format = match options.take("format") {
            Some(format) => match format.as_str() {
                "raw" | "host_device" => Some(format),
                _ => return wrong(format!("'{format}' invalid format")),
            },
            None => match options.take("driver") {
                None => None,
                Some(driver) if matches!(driver.as_str(), "raw" | "host_device") => Some(driver),
                Some(driver) => return wrong(format!("Invalid driver: '{driver}'")),
            },
        };
        let filename = options.take("file.filename");
        let driver = options.take("file.driver");
        let locking = options.take("file.locking").as_deref() != Some("off");
        options.take("file.aio");
        let (offset, size) = (options.number("offset")?.unwrap_or(0), options.number("size")?);
        let name = match (file, filename) {
            (Some(_), Some(_)) => {
                return wrong("Can't specify 'file' and 'filename' options at the same time");
            }
            (Some(file), None) => local_name(file)?,
            (None, Some(name)) => name,
            (None, None) => return Ok(None),
        };
        let device = match driver.as_deref() {
            None | Some("file") => format.as_deref() == Some("host_device"),
            Some("host_device") => true,
            Some(other) => return wrong(format!("Unknown driver '{other}'")),
        };
        let open = OpenOptions { read_only, cache, discard, device, locking };
        Ok(Some(Image { name, format, open, offset, size }))
    }

    fn open(self) -> Result<Source, String> {
        let file = HostFile::open(&self.name, self.open).map_err(|error| error.to_string())?;
        if self.format.is_none() {
            let head = file
                .head(2048)
                .map_err(|e| format!("Could not read image for determining its format: {e}"))?;
            let is = |at: usize, magic: &[u8]| {
                head.get(at..).is_some_and(|rest| rest.starts_with(magic))
            };
            if let Some((.., format)) = MAGICS.iter().find(|(at, magic, _)| is(*at, magic)) {
                return Err(format!(
                    "the image is in format '{format}', which is not supported (format=raw takes \
                     it as it is)"
                ));
            }
        }
        if self.format.as_deref() == Some("host_device") {
            return Ok(Source::File(file));
        }
        let (offset, size) = (self.offset, self.size);
        Ok(Source::Raw { file: Box::new(Source::File(file)), offset, size })
    }
}

/// The path that a name means, which may say its protocol.
fn local_name(name: String) -> Result<String, DriveError> {
    let protocol = name.split('/').next().and_then(|first| first.split_once(':'));
    match protocol {
        None => Ok(name),
        Some(("file" | "host_device", _)) => {
            Ok(name.split_once(':').map(|(_, path)| path.to_owned()).unwrap_or_default())
        }
        Some(_) => wrong(format!("could not open disk image {name}: Unknown protocol")),
    }
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
        if let Some(on) = options.switch(key)? {
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
