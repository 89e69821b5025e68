//! What is done about requests of a device that fail, and what is remembered of them.
//!
//! Any thread; the drive's leaf mutex.

use std::io;

use super::Drive;

/// What is done about a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The guest sees the error.
    Report,
    /// The guest sees success.
    Ignore,
    /// The machine stops; the request is tried again when it goes on.
    Stop,
    /// As `Stop` when there is no room left on the host, otherwise as `Report`.
    Enospc,
}

impl OnError {
    /// What is done about this one.
    pub(crate) fn action(self, error: &io::Error) -> Action {
        match self {
            OnError::Report => Action::Report,
            OnError::Ignore => Action::Ignore,
            OnError::Stop => Action::Stop,
            OnError::Enospc if is_no_space(error) => Action::Stop,
            OnError::Enospc => Action::Report,
        }
    }
}

/// There is no room left on the host.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOSPC) || error.kind() == io::ErrorKind::StorageFull
}

/// What happens with failed requests of a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// With reads; never [`OnError::Enospc`].
    pub read: OnError,
    /// With everything else.
    pub write: OnError,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { read: OnError::Report, write: OnError::Enospc }
    }
}

/// What a device has to do with a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Tell the guest.
    Report,
    /// Tell the guest that it succeeded.
    Ignore,
    /// Keep it until the machine goes on.
    Stop,
}

/// A request that failed, as it is told to the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The drive.
    pub drive: String,
    /// It did not read.
    pub write: bool,
    /// What the device does.
    pub action: Action,
    /// There was no room left on the host.
    pub no_space: bool,
}

/// Whether a drive has had an error that stopped the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IoStatus {
    /// No.
    #[default]
    Ok,
    /// There was no room left on the host.
    NoSpace,
    /// Another error.
    Failed,
}

impl Drive {
    /// What happens with failed requests.
    pub fn policy(&self) -> Policy {
        self.state.lock().policy
    }

    /// Changes what happens with failed requests.
    pub fn set_policy(&self, policy: Policy) {
        self.state.lock().policy = policy;
    }

    /// A request of its device has failed: says what is to be done, and tells the user.
    pub fn failed(&self, write: bool, error: &io::Error) -> Action {
        let (policy, no_space) = (self.policy(), is_no_space(error));
        let action = if write { policy.write } else { policy.read }.action(error);
        (self.report)(Failure { drive: self.id.clone(), write, action, no_space });
        action
    }

    /// The device is of a kind whose errors are told in query-block.
    pub fn enable_io_status(&self) {
        self.state.lock().io_status.get_or_insert_default();
    }

    /// Whether an error has stopped the machine; `None` when errors cannot.
    pub fn io_status(&self) -> Option<IoStatus> {
        let state = self.state.lock();
        let stops = state.policy.read == OnError::Stop
            || matches!(state.policy.write, OnError::Stop | OnError::Enospc);
        state.io_status.filter(|_| stops)
    }

    /// An error has stopped the machine; the first one stays.
    pub fn set_io_status(&self, status: IoStatus) {
        if let Some(now @ IoStatus::Ok) = &mut self.state.lock().io_status {
            *now = status;
        }
    }

    /// The machine goes on: its job's errors are forgotten too.
    pub fn reset_io_status(&self) {
        if let Some(now) = &mut self.state.lock().io_status {
            *now = IoStatus::Ok;
        }
        if let Some(job) = self.job() {
            job.reset_io_status();
        }
    }
}
