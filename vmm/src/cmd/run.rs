//! Commands that run, stop, reset and end the machine.
//!
//! Main thread. What must come after the reply is put into the mailbox.

use qmp::{
    Cont, Handle, QmpError, Quit, RunState, ShutdownCause, Stop, SystemPowerdown, SystemReset,
    SystemWakeup, XPulseSaveRestore, XSystemSleep,
};
use resources::request::WakeReason;

use crate::vm::Vm;

impl Vm {
    /// Refuses what would be lost: the guest's state was saved, and it may go on elsewhere.
    fn refuse_handing_over(&self) -> Result<(), QmpError> {
        match self.state() {
            RunState::FinishMigrate => Err(QmpError::generic("Migration is not finalized yet")),
            _ => Ok(()),
        }
    }
}

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
        // A migration may have stopped it meanwhile.
        self.stop_moving();
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
            RunState::Postmigrate if self.migration.memory_left => {
                return Err(QmpError::generic(
                    "Resetting the Virtual Machine is required: it left without all of its memory",
                ));
            }
            RunState::Suspended => {}
            RunState::FinishMigrate => self.refuse_handing_over()?,
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
        self.refuse_handing_over()?;
        self.mailbox().ask(|mail| mail.reset = Some(ShutdownCause::HostQmpSystemReset));
        Ok(())
    }
}

impl Handle<SystemPowerdown> for Vm {
    fn handle(&mut self, _: SystemPowerdown) -> Result<(), QmpError> {
        self.refuse_handing_over()?;
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cmd::testing::{ask, fake};
    use crate::mailbox::Mail;

    #[test]
    fn a_guest_that_is_handed_over_is_not_reset_where_that_would_be_lost() {
        let mut vm = fake();
        vm.stop_in(RunState::FinishMigrate);
        for command in ["cont", "system_reset", "system_powerdown"] {
            let error = ask(&mut vm, command, json!({})).unwrap_err();
            assert_eq!(error.desc, "Migration is not finalized yet", "{command}");
        }
        assert_eq!(vm.mailbox().take(), Mail::default());
        vm.set_state(RunState::Postmigrate);
        assert_eq!(ask(&mut vm, "system_reset", json!({})), Ok(json!({})));
        assert!(vm.mailbox().take().reset.is_some());
    }
}
