//! Drives that another process has for a while: the guest is there, or on its way.
//!
//! While a drive is inactive its graph is open to be looked at only: nothing can be written, no
//! file is locked, and what is cached is given up, since the other process changes what is below.
//!
//! Main thread: both ways wait for the graph's loop.

use std::io;
use std::os::fd::AsFd;

use super::{Drive, refused_key, unlock};
use crate::open::{OpenError, Spec, open};
use crate::{chain, lock};

impl Drive {
    /// Has media opened as inactive from now on, until [`activate`](Self::activate): for a drive
    /// without a medium.
    pub fn begin_inactive(&self) {
        self.state.lock().inactive = true;
    }

    /// Whether another process may have the medium.
    pub fn is_inactive(&self) -> bool {
        self.state.lock().inactive
    }

    /// Makes everything durable and lets go of the medium. Nothing may be under way but what ends
    /// by itself: what has come before is done, what comes later is refused.
    ///
    /// # Errors
    /// What was written could not be made durable: the drive is as before, if it can be.
    pub fn deactivate(&self) -> Result<(), OpenError> {
        let Some(spec) = self.spec().filter(|_| !self.is_inactive()) else { return Ok(()) };
        self.state.lock().inactive = true;
        let spec = self.as_opened(&spec);
        let read_only = self.read_only();
        self.on_loop(move |local, disk| async move {
            let _held = disk.drain_after_all().await;
            let node = disk.node();
            let durable = async {
                if !read_only {
                    node.flush().await?;
                }
                node.close().await
            };
            durable.await.map_err(|error| not_durable(&error))?;
            for file in chain::files(node) {
                lock::unlock(file.fd().as_fd());
            }
            match open(&local, &spec).await {
                Ok(node) => disk.replace(node),
                Err(error) => {
                    tracing::debug!("an inactive disk is not shown: {error}");
                    disk.retire();
                }
            }
            Ok(())
        })?
    }

    /// Takes the medium back, or for the first time.
    ///
    /// # Errors
    /// Another process has it, or it cannot be opened; the drive stays inactive.
    pub fn activate(&self) -> Result<(), OpenError> {
        if !std::mem::replace(&mut self.state.lock().inactive, false) {
            return Ok(());
        }
        let Some(spec) = self.spec() else { return Ok(()) };
        let spec = self.as_opened(&spec);
        let key = self.state.lock().key.clone();
        let done = self.on_loop(move |local, disk| async move {
            let _held = disk.drain().await;
            // Closed before it is opened: it may hold a descriptor that is handed over once.
            if let Err(error) = disk.node().close().await {
                tracing::debug!("an inactive disk was not closed well: {error}");
            }
            let node = open(&local, &spec).await?;
            if let Some(key) = key {
                unlock(&node, &key, chain::DEPTH).map_err(|_| refused_key())?;
            }
            disk.replace(node);
            Ok(())
        });
        let done = done.and_then(|done| done);
        if done.is_err() {
            self.state.lock().inactive = true;
        }
        done
    }

    /// What is really opened for `spec`.
    pub(super) fn as_opened(&self, spec: &Spec) -> Spec {
        let state = self.state.lock();
        let on_corruption = state.on_corruption.clone();
        // Without a device it keeps nobody from writing.
        let share_writes = state.models.is_empty() || state.shares;
        let spec = Spec { on_corruption, share_writes, ..spec.clone() };
        match state.inactive {
            true => Spec { read_only: true, no_locking: true, ..spec },
            false => spec,
        }
    }
}

fn not_durable(error: &io::Error) -> OpenError {
    OpenError(format!("what was written could not be made durable: {error}"))
}
