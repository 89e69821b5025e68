//! Commands that say what is done when the machine is to be reset, goes off, or is in trouble.
//!
//! Main thread.

use qmp::{
    Handle, QmpError, RebootAction, SetAction, ShutdownAction, WatchdogAction, WatchdogSetAction,
};

use crate::vm::{Policy, Vm};

impl Policy {
    /// Decides what a `set-action` decides.
    pub fn set(&mut self, actions: &SetAction) {
        if let Some(action) = actions.reboot {
            self.no_reboot = action == RebootAction::Shutdown;
        }
        if let Some(action) = actions.shutdown {
            self.no_shutdown = action == ShutdownAction::Pause;
        }
        self.panic = actions.panic.unwrap_or(self.panic);
        self.watchdog = actions.watchdog.unwrap_or(self.watchdog);
    }
}

/// The action of a watchdog that has this name.
pub fn watchdog_action(name: &str) -> Option<WatchdogAction> {
    WatchdogAction::ALL.iter().find(|action| action.as_str() == name).copied()
}

impl Handle<WatchdogSetAction> for Vm {
    fn handle(&mut self, command: WatchdogSetAction) -> Result<(), QmpError> {
        self.policy.watchdog = command.action;
        Ok(())
    }
}

impl Handle<SetAction> for Vm {
    fn handle(&mut self, command: SetAction) -> Result<(), QmpError> {
        self.policy.set(&command);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use qmp::PanicAction;
    use serde_json::json;

    use super::*;
    use crate::cmd::testing::{self, ask};

    #[test]
    fn actions_are_set_one_by_one() {
        let mut vm = testing::fake();
        let actions = json!({"reboot": "shutdown", "shutdown": "pause", "panic": "exit-failure"});
        assert_eq!(ask(&mut vm, "set-action", actions), Ok(json!({})));
        assert!(vm.policy.no_reboot && vm.policy.no_shutdown);
        assert_eq!(vm.policy.panic, PanicAction::ExitFailure);
        assert_eq!(vm.policy.watchdog, WatchdogAction::Reset);
        let actions = json!({"reboot": "reset", "shutdown": "poweroff", "watchdog": "inject-nmi"});
        assert_eq!(ask(&mut vm, "set-action", actions), Ok(json!({})));
        assert!(!vm.policy.no_reboot && !vm.policy.no_shutdown);
        assert_eq!(vm.policy.panic, PanicAction::ExitFailure);
        assert_eq!(vm.policy.watchdog, WatchdogAction::InjectNmi);
        assert_eq!(ask(&mut vm, "watchdog-set-action", json!({"action": "none"})), Ok(json!({})));
        assert_eq!(vm.policy.watchdog, WatchdogAction::None);
        assert_eq!(watchdog_action("poweroff"), Some(WatchdogAction::Poweroff));
        assert_eq!(watchdog_action("powerof"), None);
        testing::refuses(
            &mut vm,
            "watchdog-set-action",
            &[(json!({}), "Parameter 'action' is missing")],
        );
    }
}
