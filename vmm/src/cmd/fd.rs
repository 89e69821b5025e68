//! Descriptors that clients hand over: named ones, and sets.
//!
//! Main thread. A client can hand over as many as the process may have open.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use qmp::QmpError;
use qmp::monitors::MonitorId;

use crate::vm::Vm;

/// The descriptors that clients have given a name, each monitor its own. They stay when the client
/// leaves.
#[derive(Debug, Default)]
pub struct NamedFds(BTreeMap<(MonitorId, String), OwnedFd>);

impl NamedFds {
    /// Keeps a descriptor under a name; one that had it before is closed.
    pub fn put(&mut self, monitor: MonitorId, name: String, fd: OwnedFd) {
        self.0.insert((monitor, name), fd);
    }

    /// Takes a descriptor out.
    pub fn take(&mut self, monitor: MonitorId, name: &str) -> Option<OwnedFd> {
        self.0.remove(&(monitor, name.to_owned()))
    }

    /// The monitor is no more.
    pub fn forget(&mut self, monitor: MonitorId) {
        self.0.retain(|(of, _), _| *of != monitor);
    }
}

impl Vm {
    /// Takes out the descriptor that the client who asks has named so, for a command that uses it.
    ///
    /// # Errors
    /// `File descriptor named 'NAME' has not been found`.
    pub fn take_named_fd(&mut self, name: &str) -> Result<OwnedFd, QmpError> {
        let monitor = self.context.monitor;
        monitor.and_then(|monitor| self.named_fds.take(monitor, name)).ok_or_else(|| {
            QmpError::generic(format!("File descriptor named '{name}' has not been found"))
        })
    }
}
