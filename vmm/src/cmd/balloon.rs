//! Commands about the memory that the guest gives back.
//!
//! Main thread. A size is a client's: what is more than the guest has means all of it.

use std::sync::Arc;

use devices::virtio::balloon;
use qmp::{Balloon, BalloonInfo, ErrorClass, Handle, QmpError, QueryBalloon};

use crate::vm::Vm;

impl Vm {
    fn balloon(&self) -> Result<Arc<balloon::Balloon>, QmpError> {
        let none = "No balloon device has been activated";
        let absent = || QmpError::new(ErrorClass::DeviceNotActive, none.to_owned());
        self.board.balloon.get().ok_or_else(absent)
    }
}

impl Handle<QueryBalloon> for Vm {
    fn handle(&mut self, _: QueryBalloon) -> Result<BalloonInfo, QmpError> {
        let actual = i64::try_from(self.balloon()?.actual()).unwrap_or(i64::MAX);
        Ok(BalloonInfo { actual })
    }
}

impl Handle<Balloon> for Vm {
    fn handle(&mut self, command: Balloon) -> Result<(), QmpError> {
        let bytes = u64::try_from(command.value).ok().filter(|bytes| *bytes > 0);
        let bytes = bytes.ok_or_else(|| QmpError::expects("target", "a size"))?;
        self.balloon()?.set_target(bytes);
        Ok(())
    }
}
