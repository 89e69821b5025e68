//! Output to a file, and input from another one if wanted.
//!
//! Opened by the main thread, written by whoever writes to the chardev, read on its loop. Regular
//! files cannot be waited for and block on a slow disk. What is in the input file is bytes to a
//! front end.

use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::OFlags;

use super::port::Port;
use super::stream::{self, FdSink};
use super::{CharError, open_path};

/// Options of the file back end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// The file that takes the output; made if need be.
    pub path: PathBuf,
    /// Keep what is in the file and write after it.
    pub append: bool,
    /// A file to read input from, until its end.
    pub input: Option<PathBuf>,
}

impl File {
    pub(super) fn open(self, port: &Arc<Port>) -> Result<(), CharError> {
        let how = if self.append { OFlags::APPEND } else { OFlags::TRUNC };
        let output = open_path(port, &self.path, OFlags::WRONLY | OFlags::CREATE | how)?;
        let input = self.input.map(|path| open_path(port, &path, OFlags::RDONLY)).transpose()?;
        port.opened(Box::new(FdSink(output.clone())));
        port.spawn(move |local, port| async move {
            let Ok(output) = local.watch(output) else { return };
            let Some(input) = input.and_then(|input| local.watch(input).ok()) else {
                match stream::send(&port, &output).await {}
            };
            let keep = async || std::future::pending().await;
            let end = stream::pump(&local, &port, &input, &output, stream::read, keep).await;
            tracing::debug!(label = port.label, ?end, "input of the file chardev ended");
            drop(input);
            match stream::send(&port, &output).await {}
        });
        Ok(())
    }
}
