//! Jobs on drives: starting and steering them, and telling what happens to them.
//!
//! Main thread; starting, completing and ending a job wait for the loop of its drive's graph.
//! Names and values are a client's. What is wrong is told in the order that clients know.

use std::sync::Arc;

use block::job::{
    CompleteError, Errors, Event as JobEvent, Info, Job, Kind, MirrorRequest, NewFile, Refused,
    Request, Start, Started, Sync, start_backup, start_commit, start_mirror, start_stream,
};
use block::{Drive, IoStatus, OnError};
use qmp::{
    BlockCommit, BlockDeviceIoStatus, BlockErrorAction, BlockJobCancel, BlockJobComplete,
    BlockJobInfo, BlockJobPause, BlockJobResume, BlockJobSetSpeed, BlockJobType, BlockStream,
    BlockdevOnError, DriveBackup, DriveBackupCommand, DriveMirror, ErrorClass, Event, Handle,
    IoOperationType, MirrorSyncMode, NewImageMode, QmpError, QueryBlockJobs,
};

use super::block::int;
use crate::vm::Vm;

/// Bytes of a mirror under way when a client does not say.
const BUF_SIZE: u64 = 10 << 20;
/// More is not asked for in earnest.
const MAX_BUF_SIZE: u64 = 256 << 20;

impl Handle<QueryBlockJobs> for Vm {
    fn handle(&mut self, _: QueryBlockJobs) -> Result<Vec<BlockJobInfo>, QmpError> {
        Ok(self.drives.iter().filter_map(|drive| drive.job()).map(|job| info(&job)).collect())
    }
}

impl Handle<BlockStream> for Vm {
    fn handle(&mut self, stream: BlockStream) -> Result<(), QmpError> {
        let BlockStream { device, base, speed, on_error } = stream;
        let drive = self.drive(&device)?;
        let on_error = on_error.map_or(OnError::Report, policy);
        let checked = checked(&drive, on_error, "on-error", speed);
        let request = |checked| self.request(&drive, checked, speed);
        if !drive.has_medium() {
            if let Some(base) = base {
                return Err(QmpError::generic(format!("Base '{base}' not found")));
            }
            checked.map_err(QmpError::generic)?;
            let start = request(Ok(())).start;
            drive.set_job(Started { job: Job::nothing(Kind::Stream, start), pivot: None });
        } else {
            let request = request(checked);
            let started = drive.start_job(move |local, disk| async move {
                start_stream(&local, disk, request, base, on_error).await
            });
            started.map_err(|error| QmpError::generic(error.to_string()))?;
        }
        // One that had nothing to do has ended, and clients hear of that first.
        if drive.job().is_some_and(|job| job.info().len == 0) {
            self.tell_jobs();
        }
        Ok(())
    }
}

impl Handle<BlockCommit> for Vm {
    fn handle(&mut self, commit: BlockCommit) -> Result<(), QmpError> {
        let BlockCommit { device, base, top, speed } = commit;
        let drive = self.drive(&device)?;
        if !drive.has_medium() {
            return Err(QmpError::generic(format!("Top image file {top} not found")));
        }
        let checked = checked(&drive, OnError::Report, "", speed);
        let request = self.request(&drive, checked, speed);
        self.start_job(&drive, move |local, disk| async move {
            start_commit(&local, disk, request, &top, base).await
        })
    }
}

impl Handle<DriveBackupCommand> for Vm {
    fn handle(&mut self, DriveBackupCommand(backup): DriveBackupCommand) -> Result<(), QmpError> {
        self.start_backup(backup)
    }
}

impl Handle<DriveMirror> for Vm {
    fn handle(&mut self, mirror: DriveMirror) -> Result<(), QmpError> {
        let granularity = mirror.granularity.unwrap_or(0);
        let fits = (512..=64 << 20).contains(&granularity) && granularity.is_power_of_two();
        if granularity != 0 && !fits {
            return Err(QmpError::invalid(&mirror.device));
        }
        let drive = self.drive(&mirror.device)?;
        let target = target(&drive, mirror.target, mirror.format, mirror.mode)?;
        let errors = errors(mirror.on_source_error, mirror.on_target_error);
        let checked = checked(&drive, errors.source, "on-source-error", mirror.speed);
        let request = self.request(&drive, checked, mirror.speed);
        let buf_size = mirror.buf_size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        let mirror = MirrorRequest {
            target,
            sync: sync(mirror.sync),
            granularity: granularity.into(),
            buf_size: if buf_size == 0 { BUF_SIZE } else { buf_size.min(MAX_BUF_SIZE) },
            errors,
        };
        self.start_job(&drive, move |local, disk| async move {
            start_mirror(&local, disk, request, mirror).await
        })
    }
}

impl Handle<BlockJobSetSpeed> for Vm {
    fn handle(&mut self, set: BlockJobSetSpeed) -> Result<(), QmpError> {
        let job = self.job(&set.device)?;
        let speed = u64::try_from(set.speed).map_err(|_| QmpError::invalid("speed"))?;
        job.set_speed(speed);
        Ok(())
    }
}

impl Handle<BlockJobCancel> for Vm {
    fn handle(&mut self, BlockJobCancel { device, force }: BlockJobCancel) -> Result<(), QmpError> {
        let paused = |_: Refused| {
            let text = format!("The block job for device '{device}' is currently paused");
            QmpError::generic(text)
        };
        self.job(&device)?.cancel(force.unwrap_or(false)).map_err(paused)
    }
}

impl Handle<BlockJobPause> for Vm {
    fn handle(&mut self, BlockJobPause { device }: BlockJobPause) -> Result<(), QmpError> {
        self.job(&device)?.pause();
        Ok(())
    }
}

impl Handle<BlockJobResume> for Vm {
    fn handle(&mut self, BlockJobResume { device }: BlockJobResume) -> Result<(), QmpError> {
        self.job(&device)?.resume();
        Ok(())
    }
}

impl Handle<BlockJobComplete> for Vm {
    fn handle(&mut self, BlockJobComplete { device }: BlockJobComplete) -> Result<(), QmpError> {
        self.job(&device)?.complete().map_err(|error| {
            QmpError::generic(match error {
                CompleteError::Refused(_) => {
                    format!("The active block job for device '{device}' cannot be completed")
                }
                CompleteError::Backing(_) => error.to_string(),
            })
        })
    }
}

impl Vm {
    /// The drive of this name.
    pub(super) fn drive(&self, device: &str) -> Result<Arc<Drive>, QmpError> {
        let found = self.drives.find(device).cloned();
        found.ok_or_else(|| QmpError::device_not_found(device))
    }

    fn job(&self, device: &str) -> Result<Arc<Job>, QmpError> {
        let job = self.drives.find(device).and_then(|drive| drive.job());
        job.filter(|job| !job.has_ended()).ok_or_else(|| {
            let text = format!("No active block job on device '{device}'");
            QmpError::new(ErrorClass::DeviceNotActive, text)
        })
    }

    fn request(&self, drive: &Drive, checked: Result<(), String>, speed: Option<i64>) -> Request {
        let mailbox = self.mailbox().clone();
        let start = Start {
            device: drive.id().to_owned(),
            speed: speed.and_then(|speed| u64::try_from(speed).ok()).unwrap_or(0),
            tell: Box::new(move || mailbox.ask(|mail| mail.jobs = true)),
        };
        let spec = drive.spec().map(|spec| (*spec).clone()).unwrap_or_default();
        Request { spec, checked, start }
    }

    fn start_job<F: Future<Output = Result<Started, block::OpenError>> + 'static>(
        &mut self,
        drive: &Drive,
        work: impl FnOnce(resources::iol::Local, std::rc::Rc<block::Disk>) -> F + Send + 'static,
    ) -> Result<(), QmpError> {
        drive.start_job(work).map_err(|error| QmpError::generic(error.to_string()))
    }

    /// Starts to copy a drive as it is.
    ///
    /// # Errors
    /// As drive-backup.
    pub(super) fn start_backup(&mut self, backup: DriveBackup) -> Result<(), QmpError> {
        let drive = self.drive(&backup.device)?;
        let target = target(&drive, backup.target, backup.format, backup.mode)?;
        let errors = errors(backup.on_source_error, backup.on_target_error);
        let checked = checked(&drive, errors.source, "on-source-error", backup.speed);
        let request = self.request(&drive, checked, backup.speed);
        let sync = sync(backup.sync);
        self.start_job(&drive, move |local, disk| async move {
            start_backup(&local, disk, request, target, sync, errors).await
        })
    }

    /// Raises the events of jobs.
    pub fn tell_jobs(&mut self) {
        let mut all = Vec::new();
        for drive in self.drives.iter() {
            let events = drive.job_events();
            all.extend(events.into_iter().map(|event| raised(drive.id(), event)));
        }
        all.into_iter().for_each(|event| self.context.raise(event));
    }

    /// Ends all jobs, before the process does.
    pub fn end_jobs(&mut self) {
        self.drives.iter().for_each(|drive| drive.end_job());
        self.tell_jobs();
    }
}

/// The target of a copy.
fn target(
    drive: &Drive,
    filename: String,
    format: Option<String>,
    mode: Option<NewImageMode>,
) -> Result<NewFile, QmpError> {
    let device = drive.id();
    if !drive.has_medium() {
        return Err(QmpError::generic(format!("Device '{device}' has no medium")));
    }
    if let Some(format) = &format
        && !known_format(format)
    {
        return Err(QmpError::generic(format!("Invalid block format '{format}'")));
    }
    if drive.in_use() {
        return Err(QmpError::generic(format!("Device '{device}' is in use")));
    }
    Ok(NewFile { filename, format, existing: mode == Some(NewImageMode::Existing) })
}

/// Whether there is a driver of this name that images can be in.
pub(super) fn known_format(format: &str) -> bool {
    block::format::named(format).is_some() || block::protocol::named(format).is_some()
}

/// What is wrong with a job that is known before its images are looked at.
fn checked(drive: &Drive, on_error: OnError, name: &str, speed: Option<i64>) -> Result<(), String> {
    if matches!(on_error, OnError::Stop | OnError::Enospc) && drive.io_status().is_none() {
        return Err(format!("Invalid parameter '{name}'"));
    }
    if drive.in_use() || drive.is_inactive() {
        return Err(format!("Device '{}' is in use", drive.id()));
    }
    if speed.is_some_and(|speed| speed < 0) {
        return Err("Invalid parameter 'speed'".to_owned());
    }
    Ok(())
}

fn errors(source: Option<BlockdevOnError>, target: Option<BlockdevOnError>) -> Errors {
    let of = |given: Option<BlockdevOnError>| given.map_or(OnError::Report, policy);
    Errors { source: of(source), target: of(target) }
}

fn policy(word: BlockdevOnError) -> OnError {
    match word {
        BlockdevOnError::Report => OnError::Report,
        BlockdevOnError::Ignore => OnError::Ignore,
        BlockdevOnError::Enospc => OnError::Enospc,
        BlockdevOnError::Stop => OnError::Stop,
    }
}

fn sync(word: MirrorSyncMode) -> Sync {
    match word {
        MirrorSyncMode::Top => Sync::Top,
        MirrorSyncMode::Full => Sync::Full,
        MirrorSyncMode::None => Sync::None,
    }
}

fn kind(kind: Kind) -> BlockJobType {
    match kind {
        Kind::Commit => BlockJobType::Commit,
        Kind::Stream => BlockJobType::Stream,
        Kind::Mirror => BlockJobType::Mirror,
        Kind::Backup => BlockJobType::Backup,
    }
}

fn info(job: &Job) -> BlockJobInfo {
    let info = job.info();
    BlockJobInfo {
        io_status: match info.io_status {
            IoStatus::Ok => BlockDeviceIoStatus::Ok,
            IoStatus::NoSpace => BlockDeviceIoStatus::Nospace,
            IoStatus::Failed => BlockDeviceIoStatus::Failed,
        },
        device: job.device().to_owned(),
        busy: info.busy,
        len: int(info.len),
        offset: int(info.offset),
        paused: info.paused,
        speed: int(info.speed),
        r#type: kind(info.kind).as_str().to_owned(),
    }
}

fn raised(device: &str, event: JobEvent) -> Event {
    let device = device.to_owned();
    let figures = |info: &Info| (int(info.len), int(info.offset), int(info.speed), kind(info.kind));
    match event {
        JobEvent::Error { write, action } => Event::BlockJobError {
            device,
            operation: if write { IoOperationType::Write } else { IoOperationType::Read },
            action: match action {
                block::Action::Report => BlockErrorAction::Report,
                block::Action::Ignore => BlockErrorAction::Ignore,
                block::Action::Stop => BlockErrorAction::Stop,
            },
        },
        JobEvent::Ready(info) => {
            let (len, offset, speed, r#type) = figures(&info);
            Event::BlockJobReady { device, len, offset, speed, r#type }
        }
        JobEvent::Ended { info, cancelled: true, .. } => {
            let (len, offset, speed, r#type) = figures(&info);
            Event::BlockJobCancelled { device, len, offset, speed, r#type }
        }
        JobEvent::Ended { info, cancelled: false, error, .. } => {
            let (len, offset, speed, r#type) = figures(&info);
            Event::BlockJobCompleted { device, len, offset, speed, r#type, error }
        }
    }
}
