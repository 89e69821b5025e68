//! A parallel port of the host (`/dev/parport0`): output goes to the printer there.
//!
//! Opened by the main thread, written by whoever writes to the chardev. A printer that is not ready
//! holds output up: then it waits.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::OFlags;

use super::port::{Port, Sink};
use super::{CharError, ioctls, open_path, stream};

/// Options of the parallel back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parallel {
    /// The device.
    pub device: PathBuf,
}

impl Parallel {
    pub(super) fn open(self, port: &Arc<Port>) -> Result<(), CharError> {
        let fd = open_path(port, &self.device, OFlags::RDWR)?;
        ioctls::claim(&fd).map_err(|error| {
            CharError::create(format!("cannot claim '{}'", self.device.display()), error)
        })?;
        port.opened(Box::new(ParallelSink(fd.clone())));
        port.spawn(move |local, port| async move {
            if let Ok(output) = local.watch(fd) {
                match stream::send(&port, &output).await {}
            }
        });
        Ok(())
    }
}

struct ParallelSink(Arc<OwnedFd>);

impl Sink for ParallelSink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.0, data)?)
    }

    fn fd(&self) -> Option<Arc<OwnedFd>> {
        Some(self.0.clone())
    }
}

impl Drop for ParallelSink {
    fn drop(&mut self) {
        let _ = ioctls::release(&self.0);
    }
}
