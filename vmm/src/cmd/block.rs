//! Drives: listing, counters, making them and changing their size.
//!
//! Main thread; changing a size waits for the loop that serves the disk. Names and values are a
//! client's.

use block::{Description, Drive, IoStatus, Kind};
use qmp::{
    BlockDeviceInfo, BlockDeviceIoStatus, BlockDeviceStats, BlockInfo, BlockResize, BlockStats,
    BlockdevAdd, BlockdevAioOptions, BlockdevDiscardOptions, BlockdevOnError, BlockdevOptions,
    BlockdevOptionsDriver, BlockdevRef, Handle, ImageInfo, QmpError, QueryBlock, QueryBlockstats,
};

use crate::drives::{DriveError, Home};
use crate::vm::Vm;

impl Handle<QueryBlock> for Vm {
    fn handle(&mut self, _: QueryBlock) -> Result<Vec<BlockInfo>, QmpError> {
        Ok(self.drives.iter().map(|drive| info(drive)).collect())
    }
}

impl Handle<QueryBlockstats> for Vm {
    fn handle(&mut self, _: QueryBlockstats) -> Result<Vec<BlockStats>, QmpError> {
        Ok(self.drives.iter().map(|drive| stats(drive)).collect())
    }
}

impl Handle<BlockResize> for Vm {
    fn handle(&mut self, BlockResize { device, size }: BlockResize) -> Result<(), QmpError> {
        let Some(drive) = self.drives.find(&device) else {
            return Err(QmpError::device_not_found(&device));
        };
        let refuse = |text: String| Err(QmpError::generic(text));
        let Ok(size) = u64::try_from(size) else {
            return refuse("Parameter 'size' expects a >0 size".to_owned());
        };
        if !drive.has_medium() {
            return refuse(format!("Device '{device}' has no medium"));
        }
        if drive.read_only() {
            return refuse(format!("Device '{device}' is read only"));
        }
        if drive.in_use() {
            return refuse(format!("Device '{device}' is in use"));
        }
        drive.resize(size).map_err(|error| {
            QmpError::generic(match error.kind() {
                std::io::ErrorKind::Unsupported => {
                    "this feature or command is not currently supported".to_owned()
                }
                _ => format!("Could not resize: {}", block::errno_text(&error)),
            })
        })
    }
}

impl Handle<BlockdevAdd> for Vm {
    fn handle(&mut self, BlockdevAdd { options }: BlockdevAdd) -> Result<(), QmpError> {
        let refuse = |text: String| Err(QmpError::generic(text));
        let Some(id) = options.id.clone() else {
            return refuse("Block device needs an ID".to_owned());
        };
        let direct = options.cache.as_ref().and_then(|cache| cache.direct);
        if options.aio == Some(BlockdevAioOptions::Native) && direct.is_none() {
            return refuse("aio=native requires cache.direct=true".to_owned());
        }
        if options.rerror == Some(BlockdevOnError::Enospc) {
            return refuse("'enospc' invalid read error action".to_owned());
        }
        let mut given = common(&options);
        let cannot =
            |why: &str| QmpError::generic(format!("could not open disk image {id}: {why}"));
        match options.driver {
            BlockdevOptionsDriver::Raw(raw) => match *raw.file {
                BlockdevRef::Reference(name) => given.push(("file".to_owned(), name)),
                BlockdevRef::Definition(file) => match file.driver {
                    BlockdevOptionsDriver::File(file) => {
                        given.push(("file.filename".to_owned(), file.filename));
                    }
                    _ => return Err(cannot("the driver below 'raw' is not supported")),
                },
            },
            BlockdevOptionsDriver::File(_) => {
                return Err(cannot("Must specify either driver or file"));
            }
            _ => return Err(cannot("the driver is not supported")),
        }
        given.push(("driver".to_owned(), "raw".to_owned()));
        self.add_drive(&id, given)
    }
}

impl Vm {
    /// Makes a drive from options as `-drive` has them.
    ///
    /// # Errors
    /// An option is wrong, the id is taken, or the image cannot be opened.
    pub fn add_drive(&mut self, id: &str, given: Vec<(String, String)>) -> Result<(), QmpError> {
        let io = self.chardevs.io().map_err(|error| QmpError::generic(error.to_string()))?;
        let mailbox = self.mailbox().clone();
        Ok(self.drives.add(id, given, &Home { io, mailbox: &mailbox })?)
    }
}

impl From<DriveError> for QmpError {
    fn from(error: DriveError) -> QmpError {
        QmpError::generic(error.to_string())
    }
}

/// What all drivers take, as options.
fn common(options: &BlockdevOptions) -> Vec<(String, String)> {
    let switch = |on: bool| if on { "on" } else { "off" };
    let cache = options.cache.as_ref();
    let all = [
        ("read-only", options.read_only.map(switch)),
        ("cache.writeback", cache.and_then(|cache| cache.writeback).map(switch)),
        ("cache.direct", cache.and_then(|cache| cache.direct).map(switch)),
        ("cache.no-flush", cache.and_then(|cache| cache.no_flush).map(switch)),
        ("discard", options.discard.map(BlockdevDiscardOptions::as_str)),
        ("rerror", options.rerror.map(BlockdevOnError::as_str)),
        ("werror", options.werror.map(BlockdevOnError::as_str)),
    ];
    all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned()))).collect()
}

/// The figure as JSON has it.
fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// What query-block tells of a drive.
pub fn info(drive: &Drive) -> BlockInfo {
    let tray = drive.tray();
    BlockInfo {
        io_status: drive.io_status().map(|status| match status {
            IoStatus::Ok => BlockDeviceIoStatus::Ok,
            IoStatus::NoSpace => BlockDeviceIoStatus::Nospace,
            IoStatus::Failed => BlockDeviceIoStatus::Failed,
        }),
        device: drive.id().to_owned(),
        locked: tray.is_some_and(|tray| tray.locked),
        removable: tray.is_some(),
        inserted: drive.describe().map(|medium| inserted(drive, medium)),
        tray_open: tray.map(|tray| tray.open),
        dirty_bitmaps: None,
        r#type: "unknown".to_owned(),
    }
}

fn inserted(drive: &Drive, medium: Description) -> BlockDeviceInfo {
    let (file, format) = (medium.filename.clone(), medium.driver.to_owned());
    let image = ImageInfo {
        backing_image: None,
        compressed: None,
        backing_filename_format: None,
        snapshots: None,
        virtual_size: int(drive.size()),
        filename: file.clone(),
        cluster_size: None,
        format: format.clone(),
        actual_size: medium.allocated.map(int),
        format_specific: None,
        full_backing_filename: None,
        encrypted: None,
        backing_filename: None,
        dirty_flag: medium.has_file.then_some(false),
    };
    BlockDeviceInfo {
        iops_rd: 0,
        image,
        iops_wr: 0,
        ro: drive.read_only(),
        iops_size: None,
        backing_file_depth: 0,
        bps_wr_max: None,
        drv: format,
        iops_rd_max: None,
        bps_max: None,
        iops: 0,
        bps_wr: 0,
        bps_rd_max: None,
        backing_file: None,
        encrypted: false,
        bps: 0,
        bps_rd: 0,
        iops_max: None,
        file,
        encryption_key_missing: false,
        iops_wr_max: None,
    }
}

/// What query-blockstats tells of a drive.
pub fn stats(drive: &Drive) -> BlockStats {
    let all = drive.stats();
    let (read, write, flush) =
        (all.figures(Kind::Read), all.figures(Kind::Write), all.figures(Kind::Flush));
    let highest = int(all.highest_offset());
    let parent = drive.describe().filter(|medium| medium.has_file).map(|medium| {
        let wr_highest_offset = int(medium.highest_offset);
        let stats = BlockDeviceStats { wr_highest_offset, ..zeros() };
        Box::new(BlockStats { device: None, parent: None, stats })
    });
    let stats = BlockDeviceStats {
        flush_total_time_ns: int(flush.nanoseconds),
        wr_highest_offset: highest,
        wr_total_time_ns: int(write.nanoseconds),
        wr_bytes: int(write.bytes),
        rd_total_time_ns: int(read.nanoseconds),
        flush_operations: int(flush.operations),
        wr_operations: int(write.operations),
        rd_bytes: int(read.bytes),
        rd_operations: int(read.operations),
    };
    BlockStats { device: Some(drive.id().to_owned()), parent, stats }
}

fn zeros() -> BlockDeviceStats {
    BlockDeviceStats {
        flush_total_time_ns: 0,
        wr_highest_offset: 0,
        wr_total_time_ns: 0,
        wr_bytes: 0,
        rd_total_time_ns: 0,
        flush_operations: 0,
        wr_operations: 0,
        rd_bytes: 0,
        rd_operations: 0,
    }
}
