//! Descriptors that clients hand over: named ones, and sets.
//!
//! Main thread. A client can hand over as many as the process may have open.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use qmp::monitors::MonitorId;
use qmp::{
    AddFd, AddfdInfo, Closefd, FdsetFdInfo, FdsetInfo, Getfd, Handle, QmpError, QueryFdsets,
    RemoveFd,
};
use resources::fdset::SetInfo;

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
    /// The descriptor that came with the request that is carried out.
    fn passed_fd(&mut self) -> Result<OwnedFd, QmpError> {
        let none = || QmpError::generic("No file descriptor supplied via SCM_RIGHTS");
        let fd = self.context.fd.take().ok_or_else(none)?;
        // Whoever uses it says what it is to be; until then it is as any other file.
        let _ = rustix::io::ioctl_fionbio(&fd, false);
        Ok(fd)
    }

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

impl Handle<Getfd> for Vm {
    fn handle(&mut self, Getfd { fdname }: Getfd) -> Result<(), QmpError> {
        let fd = self.passed_fd()?;
        if fdname.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(QmpError::expects("fdname", "a name not starting with a digit"));
        }
        if let Some(monitor) = self.context.monitor {
            self.named_fds.put(monitor, fdname, fd);
        }
        Ok(())
    }
}

impl Handle<Closefd> for Vm {
    fn handle(&mut self, Closefd { fdname }: Closefd) -> Result<(), QmpError> {
        let monitor = self.context.monitor;
        match monitor.and_then(|monitor| self.named_fds.take(monitor, &fdname)) {
            Some(_) => Ok(()),
            None => Err(not_found(&fdname)),
        }
    }
}

impl Handle<AddFd> for Vm {
    fn handle(&mut self, AddFd { fdset_id, opaque }: AddFd) -> Result<AddfdInfo, QmpError> {
        let fd = self.passed_fd()?;
        if fdset_id.is_some_and(|id| id < 0) {
            return Err(QmpError::expects("fdset-id", "a non-negative value"));
        }
        let (fdset_id, fd) = self.fdsets.add(fdset_id, fd, opaque);
        Ok(AddfdInfo { fd: fd.into(), fdset_id })
    }
}

impl Handle<RemoveFd> for Vm {
    fn handle(&mut self, RemoveFd { fd, fdset_id }: RemoveFd) -> Result<(), QmpError> {
        match fd {
            _ if self.fdsets.remove(fdset_id, fd) => Ok(()),
            Some(fd) => Err(not_found(&format!("fdset-id:{fdset_id}, fd:{fd}"))),
            None => Err(not_found(&format!("fdset-id:{fdset_id}"))),
        }
    }
}

impl Handle<QueryFdsets> for Vm {
    fn handle(&mut self, _: QueryFdsets) -> Result<Vec<FdsetInfo>, QmpError> {
        let fd = |(fd, opaque): (_, _)| FdsetFdInfo { fd: i64::from(fd), opaque };
        let set = |set: SetInfo| FdsetInfo {
            fds: set.fds.into_iter().map(fd).collect(),
            fdset_id: set.id,
        };
        Ok(self.fdsets.list().into_iter().map(set).collect())
    }
}

fn not_found(name: &str) -> QmpError {
    QmpError::generic(format!("File descriptor named '{name}' not found"))
}

#[cfg(test)]
mod tests;
