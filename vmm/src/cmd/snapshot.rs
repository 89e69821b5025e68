//! Snapshots of drives, and several actions that are done all or not at all.
//!
//! Main thread; each action waits for the loop of its drive's graph, and nothing begins on any
//! drive until all are done. Names are a client's.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use block::Drive;
use block::image::Snapshot;
use block::job::{Job, NewFile};
use block::snapshot::{Overlay, create_internal, delete_internal};
use qmp::{
    BlockdevSnapshot, BlockdevSnapshotDeleteInternalSync, BlockdevSnapshotInternal,
    BlockdevSnapshotInternalSync, BlockdevSnapshotSync, Handle, NewImageMode, QmpError,
    SnapshotInfo, Transaction, TransactionAction,
};
use resources::iol::Remote;

use super::block::int;
use super::job::known_format;
use crate::vm::Vm;

impl Handle<Transaction> for Vm {
    fn handle(&mut self, Transaction { actions }: Transaction) -> Result<(), QmpError> {
        self.all_or_none(actions)
    }
}

impl Handle<BlockdevSnapshotSync> for Vm {
    fn handle(&mut self, BlockdevSnapshotSync(it): BlockdevSnapshotSync) -> Result<(), QmpError> {
        self.all_or_none(vec![TransactionAction::BlockdevSnapshotSync(it)])
    }
}

impl Handle<BlockdevSnapshotInternalSync> for Vm {
    fn handle(&mut self, command: BlockdevSnapshotInternalSync) -> Result<(), QmpError> {
        self.all_or_none(vec![TransactionAction::BlockdevSnapshotInternalSync(command.0)])
    }
}

impl Handle<BlockdevSnapshotDeleteInternalSync> for Vm {
    fn handle(
        &mut self,
        command: BlockdevSnapshotDeleteInternalSync,
    ) -> Result<SnapshotInfo, QmpError> {
        let BlockdevSnapshotDeleteInternalSync { device, id, name } = command;
        let drive = self.drive(&device)?;
        if id.is_none() && name.is_none() {
            return Err(QmpError::generic("Name or id must be provided"));
        }
        if !drive.has_medium() {
            return Err(QmpError::generic("Failed to get a snapshot list: No medium found"));
        }
        let deleted = drive.on_loop(move |_, disk| async move {
            delete_internal(&disk, &device, id.as_deref(), name.as_deref()).await
        });
        let deleted = deleted.and_then(|deleted| deleted).map_err(refused)?;
        Ok(told(&deleted))
    }
}

fn refused(error: block::OpenError) -> QmpError {
    QmpError::generic(error.to_string())
}

/// A snapshot as clients are told of it.
pub fn told(snapshot: &Snapshot) -> SnapshotInfo {
    SnapshotInfo {
        vm_clock_nsec: int(snapshot.vm_clock % 1_000_000_000),
        name: snapshot.name.clone(),
        date_sec: snapshot.date.0.into(),
        date_nsec: snapshot.date.1.into(),
        vm_clock_sec: int(snapshot.vm_clock / 1_000_000_000),
        id: snapshot.id.clone(),
        vm_state_size: int(snapshot.vm_state_size),
    }
}

/// An action that has been prepared.
enum Prepared {
    /// A new image, to be put on top.
    Overlay(Arc<Drive>, Arc<Remote<Overlay>>),
    /// A snapshot that is taken.
    Internal(Arc<Drive>, Snapshot),
    /// A job that runs.
    Backup(Arc<Drive>, Option<Arc<Job>>),
}

impl Vm {
    /// Does all of the actions or, if one cannot be done, none.
    fn all_or_none(&mut self, actions: Vec<TransactionAction>) -> Result<(), QmpError> {
        // Nothing begins on any drive: what is prepared is of one moment.
        let held: Vec<_> = self.drives.iter().filter_map(|drive| drive.hold()).collect();
        let mut done = Vec::new();
        for action in actions {
            match self.prepare(action, &done) {
                Ok(prepared) => done.push(prepared),
                Err(error) => {
                    // A job that ends waits for its requests.
                    drop(held);
                    done.into_iter().for_each(|prepared| self.undo(prepared));
                    self.tell_jobs();
                    return Err(error);
                }
            }
        }
        for prepared in done {
            let Prepared::Overlay(drive, overlay) = prepared else { continue };
            let committed = drive.on_loop(move |local, disk| async move {
                match overlay.get(&local) {
                    Some(overlay) => Some(overlay.commit(&disk).await),
                    None => None,
                }
            });
            if let Ok(Some(spec)) = committed {
                drive.set_spec(spec);
            }
        }
        drop(held);
        Ok(())
    }

    fn prepare(
        &mut self,
        action: TransactionAction,
        done: &[Prepared],
    ) -> Result<Prepared, QmpError> {
        match action {
            TransactionAction::BlockdevSnapshotSync(action) => self.prepare_overlay(action, done),
            TransactionAction::BlockdevSnapshotInternalSync(action) => {
                self.prepare_internal(action)
            }
            TransactionAction::DriveBackup(backup) => {
                let drive = self.drive(&backup.device)?;
                self.start_backup(backup)?;
                let job = drive.job();
                Ok(Prepared::Backup(drive, job))
            }
            TransactionAction::Abort(_) => {
                Err(QmpError::generic("Transaction aborted using Abort action"))
            }
        }
    }

    fn prepare_overlay(
        &mut self,
        action: BlockdevSnapshot,
        done: &[Prepared],
    ) -> Result<Prepared, QmpError> {
        let BlockdevSnapshot { device, snapshot_file: filename, format, mode } = action;
        let refuse = |text: String| Err(QmpError::generic(text));
        let format = format.unwrap_or_else(|| "qcow2".to_owned());
        if !known_format(&format) {
            return refuse(format!("Invalid block format '{format}'"));
        }
        let drive = self.drive(&device)?;
        if !drive.has_medium() {
            return refuse(format!("Device '{device}' has no medium"));
        }
        if drive.in_use() {
            return refuse(format!("Device '{device}' is in use"));
        }
        // A second one on the same drive stands on the first.
        let before = done.iter().rev().find_map(|prepared| match prepared {
            Prepared::Overlay(other, overlay) if Arc::ptr_eq(other, &drive) => {
                Some(overlay.clone())
            }
            _ => None,
        });
        let existing = mode == Some(NewImageMode::Existing);
        let file = NewFile { filename, format: Some(format), existing };
        let spec = drive.spec().map(|spec| (*spec).clone()).unwrap_or_default();
        let prepared = drive.on_loop(move |local, disk| async move {
            let before = before.as_ref().and_then(|overlay| overlay.get(&local));
            let before = before.as_deref();
            let overlay = Overlay::prepare(&local, &disk, &spec, &file, before).await?;
            Ok(Arc::new(local.keep(Rc::new(overlay))))
        });
        let overlay = prepared.and_then(|prepared| prepared).map_err(refused)?;
        Ok(Prepared::Overlay(drive, overlay))
    }

    fn prepare_internal(&mut self, action: BlockdevSnapshotInternal) -> Result<Prepared, QmpError> {
        let BlockdevSnapshotInternal { device, name } = action;
        let refuse = |text: String| Err(QmpError::generic(text));
        let drive = self.drive(&device)?;
        if !drive.has_medium() {
            return refuse(format!("Device '{device}' has no medium"));
        }
        if drive.read_only() {
            return refuse(format!("Device '{device}' is read only"));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wanted = Snapshot {
            id: String::new(),
            name,
            vm_state_size: 0,
            date: (u32::try_from(now.as_secs()).unwrap_or(u32::MAX), now.subsec_micros() * 1000),
            vm_clock: self.board.clock.now(),
            disk_size: 0,
        };
        let taken = drive
            .on_loop(move |_, disk| async move { create_internal(&disk, &device, wanted).await });
        let taken = taken.and_then(|taken| taken).map_err(refused)?;
        Ok(Prepared::Internal(drive, taken))
    }

    fn undo(&mut self, prepared: Prepared) {
        match prepared {
            Prepared::Overlay(drive, overlay) => {
                let _ = drive.on_loop(move |local, _| async move {
                    if let Some(overlay) = overlay.get(&local) {
                        overlay.release().await;
                    }
                });
            }
            Prepared::Internal(drive, Snapshot { id, name, .. }) => {
                let device = drive.id().to_owned();
                let (of, by) = (device.clone(), id.clone());
                let deleted = drive.on_loop(move |_, disk| async move {
                    delete_internal(&disk, &of, Some(&by), None).await
                });
                if let Err(error) = deleted.and_then(|deleted| deleted) {
                    tracing::error!(
                        "Failed to delete snapshot with id '{id}' and name '{name}' on device \
                         '{device}' in abort: {error}"
                    );
                }
            }
            Prepared::Backup(drive, job) => {
                let same = |now: &Arc<Job>| job.as_ref().is_some_and(|job| Arc::ptr_eq(job, now));
                if drive.job().as_ref().is_some_and(same) {
                    drive.end_job();
                }
            }
        }
    }
}
