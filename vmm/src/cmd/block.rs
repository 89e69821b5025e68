//! Drives: listing, counters and changing their size.
//!
//! Main thread; changing a size waits for the loop that serves the disk. Names and values are a
//! client's.

use block::throttle::Limit;
use block::{Description, Drive, Fact, Facts, IoStatus, Kind, Limits, Snapshot};
use qmp::{
    BlockDeviceInfo, BlockDeviceIoStatus, BlockDeviceStats, BlockDirtyInfo, BlockInfo, BlockResize,
    BlockStats, Handle, ImageInfo, ImageInfoSpecific, ImageInfoSpecificQCow2, QmpError, QueryBlock,
    QueryBlockstats, SnapshotInfo,
};

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

/// The dirty bitmap of its job, if that has one.
fn bitmaps(drive: &Drive) -> Option<Vec<BlockDirtyInfo>> {
    let (granularity, count) = drive.job()?.bitmap()?;
    let count = int(count.saturating_mul(granularity) / 512);
    Some(vec![BlockDirtyInfo { granularity: int(granularity), count }])
}

/// The figure as JSON has it.
pub fn int(value: u64) -> i64 {
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
        inserted: drive.describe().map(|medium| inserted(drive, &medium)),
        tray_open: tray.map(|tray| tray.open),
        dirty_bitmaps: bitmaps(drive),
        r#type: "unknown".to_owned(),
    }
}

fn inserted(drive: &Drive, medium: &Description) -> BlockDeviceInfo {
    let limits = drive.limits();
    let average = |limit: fn(Limits) -> Limit| limit(limits).average as i64;
    let burst = |limit: fn(Limits) -> Limit| {
        let burst = limit(limits).burst;
        (limits.any() && burst != 0.0).then_some(burst as i64)
    };
    let size = limits.operation_size;
    BlockDeviceInfo {
        iops_rd: average(|all| all.operations.read),
        image: image_info(medium),
        iops_wr: average(|all| all.operations.write),
        ro: drive.read_only(),
        iops_size: (limits.any() && size != 0).then(|| int(size)),
        backing_file_depth: int(medium.depth()),
        bps_wr_max: burst(|all| all.bytes.write),
        drv: medium.driver.to_owned(),
        iops_rd_max: burst(|all| all.operations.read),
        bps_max: burst(|all| all.bytes.total),
        iops: average(|all| all.operations.total),
        bps_wr: average(|all| all.bytes.write),
        bps_rd_max: burst(|all| all.bytes.read),
        backing_file: medium.backing_file.as_ref().map(|backing| backing.name.clone()),
        encrypted: medium.is_encrypted(),
        bps: average(|all| all.bytes.total),
        bps_rd: average(|all| all.bytes.read),
        iops_max: burst(|all| all.operations.total),
        file: medium.filename.clone(),
        encryption_key_missing: medium.keyless().is_some(),
        iops_wr_max: burst(|all| all.operations.write),
    }
}

/// What is told about an image and those that show through it.
pub fn image_info(image: &Description) -> ImageInfo {
    let backing = image.backing_file.as_ref();
    let full = backing.map(|named| block::name::combine(&image.filename, &named.name));
    let below = image.backing.as_deref();
    let encrypted = image.is_encrypted() || below.is_some_and(Description::is_encrypted);
    let facts = image.facts.as_ref();
    let snapshots: Vec<_> = image.snapshots.iter().map(snapshot_info).collect();
    ImageInfo {
        backing_image: below.map(|below| Box::new(image_info(below))),
        compressed: None,
        backing_filename_format: backing.and_then(|named| named.format.clone()),
        snapshots: (!snapshots.is_empty()).then_some(snapshots),
        virtual_size: int(image.size),
        filename: image.filename.clone(),
        cluster_size: facts.and_then(|facts| facts.cluster_size).map(int),
        format: image.driver.to_owned(),
        actual_size: image.allocated.map(int),
        format_specific: facts.filter(|_| image.driver == "qcow2").map(specific),
        full_backing_filename: full.filter(|full| backing.is_some_and(|it| it.name != *full)),
        encrypted: encrypted.then_some(true),
        backing_filename: backing.map(|named| named.name.clone()),
        // Never true, even of an image that is: clients know it so.
        dirty_flag: image.has_file.then_some(false),
    }
}

fn specific(facts: &Facts) -> ImageInfoSpecific {
    let fact = |key: &str| facts.specific.iter().find(|(name, _)| *name == key).map(|(_, it)| it);
    let compat = match fact("compat") {
        Some(Fact::Text(text)) => text.clone(),
        _ => String::new(),
    };
    let lazy_refcounts = match fact("lazy-refcounts") {
        Some(Fact::Flag(lazy)) => Some(*lazy),
        _ => None,
    };
    ImageInfoSpecific::Qcow2(ImageInfoSpecificQCow2 { compat, lazy_refcounts })
}

fn snapshot_info(snapshot: &Snapshot) -> SnapshotInfo {
    const SECOND: u64 = 1_000_000_000;
    SnapshotInfo {
        vm_clock_nsec: int(snapshot.vm_clock % SECOND),
        name: snapshot.name.clone(),
        date_sec: i64::from(snapshot.date.0),
        date_nsec: i64::from(snapshot.date.1),
        vm_clock_sec: int(snapshot.vm_clock / SECOND),
        id: snapshot.id.clone(),
        vm_state_size: int(snapshot.vm_state_size),
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
