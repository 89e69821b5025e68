//! Jobs on drives, snapshots of one of them, and what `commit` does at once.

use std::sync::Arc;

use block::drive::Drive;
use qmp::{
    BlockJobCancel, BlockJobComplete, BlockJobPause, BlockJobResume, BlockJobSetSpeed, BlockStream,
    BlockdevSnapshot, BlockdevSnapshotDeleteInternalSync, BlockdevSnapshotInternal,
    BlockdevSnapshotInternalSync, BlockdevSnapshotSync, DriveBackup, DriveBackupCommand,
    DriveMirror, Handle, MirrorSyncMode, NewImageMode, QmpError, QueryBlockJobs,
};

use crate::hmp::Call;
use crate::hmp::parse::{Args, Kind, Param, arg, flag, opt};
use crate::hmp::table::{Row, bare, row};
use crate::vm::Vm;

/// The name of a drive.
const DEVICE: Param = arg("device", Kind::Block).words(ids);

pub(super) const ROWS: &[Row] = &[
    row(
        &["block_stream"],
        &[DEVICE, opt("speed", Kind::Size), opt("base", Kind::Word)],
        "device [speed [base]]",
        "copy from backing files into the topmost image",
        |call, args| {
            let (device, base) = (device(args), given(args, "base"));
            call.vm.handle(BlockStream {
                device,
                base,
                speed: args.opt_number("speed"),
                on_error: None,
            })
        },
    ),
    row(
        &["block_job_set_speed"],
        &[DEVICE, arg("speed", Kind::Size)],
        "device speed",
        "limit how fast a drive's job is",
        |call, args| {
            let speed = args.number("speed");
            call.vm.handle(BlockJobSetSpeed { device: device(args), speed })
        },
    ),
    row(
        &["block_job_cancel"],
        &[flag("force", b'f'), DEVICE],
        "[-f] device",
        "end a drive's job (-f: even if it is paused)",
        |call, args| {
            let force = Some(args.is_on("force"));
            call.vm.handle(BlockJobCancel { device: device(args), force })
        },
    ),
    row(&["block_job_pause"], &[DEVICE], "device", "pause a drive's job", |call, args| {
        call.vm.handle(BlockJobPause { device: device(args) })
    }),
    row(&["block_job_resume"], &[DEVICE], "device", "let a paused job go on", |call, args| {
        call.vm.handle(BlockJobResume { device: device(args) })
    }),
    row(
        &["block_job_complete"],
        &[DEVICE],
        "device",
        "have a mirror take the place of its drive",
        |call, args| call.vm.handle(BlockJobComplete { device: device(args) }),
    ),
    row(
        &["drive_mirror"],
        COPY,
        COPY_SHOWN,
        "copy a drive and stay in step (-n: it exists)",
        |call, args| {
            call.vm.handle(DriveMirror {
                device: device(args),
                target: args.text("target").to_owned(),
                format: given(args, "format"),
                sync: sync(args),
                mode: Some(mode(args)),
                speed: None,
                granularity: None,
                buf_size: None,
                on_source_error: None,
                on_target_error: None,
            })
        },
    ),
    row(
        &["drive_backup"],
        COPY,
        COPY_SHOWN,
        "copy a drive as it is now (-n: it exists)",
        |call, args| {
            call.vm.handle(DriveBackupCommand(DriveBackup {
                device: device(args),
                target: args.text("target").to_owned(),
                format: given(args, "format"),
                sync: sync(args),
                mode: Some(mode(args)),
                speed: None,
                on_source_error: None,
                on_target_error: None,
            }))
        },
    ),
    row(
        &["snapshot_blkdev"],
        &[REUSE, DEVICE, opt("snapshot-file", Kind::File), opt("format", Kind::Word)],
        "[-n] device [new-image-file] [format]",
        "put a new image on top (-n: it exists)",
        |call, args| {
            let Some(file) = args.opt_text("snapshot-file") else {
                return Err(QmpError::missing("snapshot-file"));
            };
            call.vm.handle(BlockdevSnapshotSync(BlockdevSnapshot {
                device: device(args),
                snapshot_file: file.to_owned(),
                format: given(args, "format"),
                mode: Some(mode(args)),
            }))
        },
    ),
    row(
        &["snapshot_blkdev_internal"],
        &[DEVICE, arg("name", Kind::Word)],
        "device name",
        "take a snapshot inside the image of a drive",
        |call, args| {
            call.vm.handle(BlockdevSnapshotInternalSync(BlockdevSnapshotInternal {
                device: device(args),
                name: args.text("name").to_owned(),
            }))
        },
    ),
    row(
        &["snapshot_delete_blkdev_internal"],
        &[DEVICE, arg("name", Kind::Word), opt("id", Kind::Word)],
        "device name [id]",
        "delete a snapshot inside the image of a drive",
        |call, args| {
            let deleted = call.vm.handle(BlockdevSnapshotDeleteInternalSync {
                device: device(args),
                id: given(args, "id"),
                name: Some(args.text("name").to_owned()),
            });
            deleted.map(drop)
        },
    ),
    row(
        &["commit"],
        &[DEVICE],
        "device|all",
        "write what the topmost image has into the one below it",
        commit,
    ),
];

pub(super) const INFO: &[Row] = &[bare(&["block-jobs"], "show the jobs of drives", |call, _| {
    let jobs = call.vm.handle(QueryBlockJobs {})?;
    if jobs.is_empty() {
        call.print("No active jobs\n");
    }
    for job in jobs {
        let what = match job.r#type.as_str() {
            "stream" => format!("Streaming device {}", job.device),
            other => format!("Type {other}, device {}", job.device),
        };
        call.line(format_args!(
            "{what}: Completed {} of {} bytes, speed limit {} bytes/s",
            job.offset, job.len, job.speed
        ));
    }
    Ok(())
})];

const REUSE: Param = flag("reuse", b'n');
const FULL: Param = flag("full", b'f');
/// What commands that copy a drive take.
const COPY: &[Param] = &[REUSE, FULL, DEVICE, arg("target", Kind::File), opt("format", Kind::Word)];
const COPY_SHOWN: &str = "[-n] [-f] device target [format]";

fn device(args: &Args) -> String {
    args.text("device").to_owned()
}

/// A word that may be left out.
fn given(args: &Args, name: &str) -> Option<String> {
    args.opt_text(name).map(str::to_owned)
}

fn mode(args: &Args) -> NewImageMode {
    if args.is_on("reuse") { NewImageMode::Existing } else { NewImageMode::AbsolutePaths }
}

fn sync(args: &Args) -> MirrorSyncMode {
    if args.is_on("full") { MirrorSyncMode::Full } else { MirrorSyncMode::Top }
}

fn ids(vm: &Vm) -> Vec<String> {
    vm.drives.iter().map(|drive| drive.id().to_owned()).collect()
}

fn commit(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let wanted = args.text("device");
    let drives: Vec<_> = match call.vm.drives.find(wanted) {
        Some(drive) => vec![drive.clone()],
        None if wanted == "all" => {
            let has_backing =
                |drive: &&Arc<Drive>| drive.describe().is_some_and(|told| told.backing.is_some());
            call.vm.drives.iter().filter(has_backing).cloned().collect()
        }
        None => return Err(QmpError::generic(format!("Device '{wanted}' not found"))),
    };
    for drive in drives {
        let failed =
            |why: &str| Err(QmpError::generic(format!("'commit' error for '{wanted}': {why}")));
        if drive.in_use() {
            return failed("Device or resource busy");
        }
        if !drive.has_medium() {
            return failed("No medium found");
        }
        let done = drive.on_loop(|_, disk| async move { block::job::commit_top(&disk).await });
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::Unsupported => {
                return failed("Operation not supported");
            }
            Ok(Err(error)) => return failed(&block::errno_text(&error)),
            Err(error) => return failed(&error.to_string()),
        }
    }
    Ok(())
}
