//! Commands that run, stop, reset and end the machine.
//!
//! Main thread. What must come after the reply is put into the mailbox.

use qmp::{
    Cont, Handle, QmpError, Quit, RunState, ShutdownCause, Stop, SystemPowerdown, SystemReset,
    SystemWakeup, XPulseSaveRestore, XSystemSleep,
};
use resources::request::WakeReason;

use crate::vm::Vm;

impl Handle<Quit> for Vm {
    fn handle(&mut self, _: Quit) -> Result<(), QmpError> {
        self.quit();
        Ok(())
    }
}

impl Handle<Stop> for Vm {
    fn handle(&mut self, _: Stop) -> Result<(), QmpError> {
        self.latest_dump.refuse_active()?;
        self.stop_moving();
        self.pause();
        Ok(())
    }
}

impl Handle<Cont> for Vm {
    fn handle(&mut self, _: Cont) -> Result<(), QmpError> {
        self.latest_dump.refuse_active()?;
        match self.state() {
            RunState::InternalError | RunState::Shutdown => {
                return Err(QmpError::generic("Resetting the Virtual Machine is required"));
            }
            RunState::Suspended => {}
            RunState::FinishMigrate => {
                return Err(QmpError::generic("Migration is not finalized yet"));
            }
            RunState::Inmigrate => {
                if let Some(incoming) = self.awaited() {
                    incoming.set_run(true);
                }
            }
            _ => {
                // After a migration another process may have them.
                self.drives.activate().map_err(|error| QmpError::generic(error.to_string()))?;
                self.drives.reset_io_status();
                if let Some(error) = self.lacks_key() {
                    return Err(error);
                }
                self.board.fill().map_err(|error| QmpError::generic(error.to_string()))?;
                self.start();
            }
        }
        Ok(())
    }
}

impl Handle<SystemReset> for Vm {
    fn handle(&mut self, _: SystemReset) -> Result<(), QmpError> {
        self.mailbox().ask(|mail| mail.reset = Some(ShutdownCause::HostQmpSystemReset));
        Ok(())
    }
}

impl Handle<SystemPowerdown> for Vm {
    fn handle(&mut self, _: SystemPowerdown) -> Result<(), QmpError> {
        self.mailbox().ask(|mail| mail.powerdown = true);
        Ok(())
    }
}

impl Handle<SystemWakeup> for Vm {
    fn handle(&mut self, _: SystemWakeup) -> Result<(), QmpError> {
        self.mailbox().ask(|mail| mail.wakeup = Some(WakeReason::Other));
        Ok(())
    }
}

impl Handle<XSystemSleep> for Vm {
    fn handle(&mut self, _: XSystemSleep) -> Result<(), QmpError> {
        self.mailbox().ask(|mail| mail.sleep_button = true);
        Ok(())
    }
}

impl Handle<XPulseSaveRestore> for Vm {
    fn handle(&mut self, _: XPulseSaveRestore) -> Result<(), QmpError> {
        self.pulse().map_err(|error| QmpError::generic(error.to_string()))
    }
}
