//! Named pipes: `PATH.in` and `PATH.out`, or `PATH` for both directions.
//!
//! Opened by the main thread, served on the chardev's loop. Both ends of each are held open, so
//! nobody has to be there for it to open, and other programs may come and go. They can send
//! anything, or leave what is sent to them unread: then output waits.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

use super::port::Port;
use super::stream::{self, FdSink};
use super::{CharError, open_path};

/// Options of the pipe back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipe {
    /// The name of the pipes, without `.in` and `.out`.
    pub path: PathBuf,
}

impl Pipe {
    pub(super) fn open(self, port: &Arc<Port>) -> Result<(), CharError> {
        let open = |path: &Path| open_path(port, path, OFlags::RDWR);
        let part = |ending: &str| {
            let mut path = self.path.clone().into_os_string();
            path.push(ending);
            open(Path::new(&path))
        };
        let (input, output) = match (part(".in"), part(".out")) {
            (Ok(input), Ok(output)) => (input, output),
            _ => {
                let both = open(&self.path).map_err(|e| CharError::Create(e.to_string()))?;
                (both.clone(), both)
            }
        };
        port.opened(Box::new(FdSink(output.clone())));
        port.spawn(move |local, port| async move {
            let shared = Arc::ptr_eq(&input, &output);
            let Ok(input) = local.watch(input) else { return };
            let output = if shared { None } else { local.watch(output).ok() };
            let keep = async || std::future::pending().await;
            let to = output.as_ref().unwrap_or(&input);
            let end = stream::pump(&local, &port, &input, to, stream::read, keep).await;
            tracing::debug!(label = port.label, ?end, "input of the pipe chardev ended");
            port.input_ended();
            match stream::send(&port, to).await {}
        });
        Ok(())
    }
}
