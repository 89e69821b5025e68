//! What is done when the guest is in trouble: when a watchdog ran out, and when it reported that it
//! panicked.
//!
//! Main thread. A guest can have either happen as often as it runs; each costs one event, of which
//! those of watchdogs are limited in rate.

use qmp::{Event, GuestPanicAction, PanicAction, RunState, ShutdownCause, WatchdogAction};

use super::Vm;
use crate::cli::log::tell;
use crate::mailbox::Mail;

impl Vm {
    /// A watchdog ran out: tells clients and begins what is to be done. What another request
    /// does too is put into `mail`, which is being dealt with; to pause is left to the caller.
    pub(super) fn watchdog_ran_out(&mut self, mail: &mut Mail) {
        let action = self.policy.watchdog;
        self.context.raise(Event::Watchdog { action });
        match action {
            WatchdogAction::Reset => mail.reset = Some(ShutdownCause::GuestReset),
            WatchdogAction::Shutdown => mail.powerdown = true,
            WatchdogAction::Poweroff => self.end(0),
            WatchdogAction::Debug => tell("watchdog: timer fired"),
            WatchdogAction::InjectNmi => {
                if let Err(error) = self.inject_nmi() {
                    tell(format_args!("watchdog: {}", error.desc));
                }
            }
            WatchdogAction::Pause | WatchdogAction::None => {}
        }
    }

    /// The guest reported that it panicked.
    pub(super) fn panicked(&mut self) {
        let (action, status) = match self.policy.panic {
            PanicAction::Pause => (GuestPanicAction::Pause, 0),
            PanicAction::None => (GuestPanicAction::Run, 0),
            _ if self.policy.no_shutdown => (GuestPanicAction::Pause, 0),
            PanicAction::Shutdown => (GuestPanicAction::Poweroff, 0),
            PanicAction::ExitFailure => (GuestPanicAction::Poweroff, 1),
        };
        self.context.raise(Event::GuestPanicked { action });
        if action != GuestPanicAction::Run {
            self.stop(RunState::GuestPanicked);
        }
        if action == GuestPanicAction::Poweroff {
            let reason = ShutdownCause::GuestPanic;
            self.context.raise(Event::Shutdown { guest: true, reason });
            self.end(status);
        }
    }
}

#[cfg(test)]
mod tests {
    use qmp::WatchdogAction;
    use resources::request::{Mailbox as _, Request};

    use super::*;
    use crate::cmd::testing::{events, fake};

    /// What becomes of a running machine with this policy after a request.
    fn after(
        request: Request,
        policy: impl FnOnce(&mut Vm),
    ) -> (Vec<String>, RunState, Option<u8>) {
        let mut vm = fake();
        policy(&mut vm);
        vm.start();
        events(&mut vm);
        vm.mailbox().request(request);
        assert!(!vm.mailbox().gate().is_open(), "not an instruction more");
        vm.service();
        assert_eq!(vm.mailbox().gate().is_open(), vm.is_running() && vm.exit_status().is_none());
        (events(&mut vm), vm.state(), vm.exit_status())
    }

    #[test]
    fn a_watchdog_does_what_it_is_told() {
        let after = |action| after(Request::Watchdog, |vm| vm.policy.watchdog = action);
        let running = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            (names, RunState::Running, None)
        };
        assert_eq!(after(WatchdogAction::Reset), running(&["WATCHDOG", "RESET"]));
        assert_eq!(after(WatchdogAction::Shutdown), running(&["WATCHDOG", "POWERDOWN"]));
        for action in [WatchdogAction::Debug, WatchdogAction::None, WatchdogAction::InjectNmi] {
            assert_eq!(after(action), running(&["WATCHDOG"]), "{action:?}");
        }
        let (events, state, exit) = after(WatchdogAction::Pause);
        assert_eq!(
            (events, state, exit),
            (vec!["WATCHDOG".into(), "STOP".into()], RunState::Watchdog, None)
        );
        let (events, _, exit) = after(WatchdogAction::Poweroff);
        assert_eq!((events, exit), (vec!["WATCHDOG".into()], Some(0)));
    }

    #[test]
    fn a_watchdog_resets_only_where_resets_are_allowed() {
        let (events, _, exit) = after(Request::Watchdog, |vm| vm.policy.no_reboot = true);
        assert_eq!((events, exit), (vec!["WATCHDOG".into(), "SHUTDOWN".into()], Some(0)));
    }

    #[test]
    fn a_panic_does_what_is_decided() {
        let after = |action| after(Request::Panicked, |vm| vm.policy.panic = action);
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let stopped = RunState::GuestPanicked;
        assert_eq!(after(PanicAction::Pause), (names(&["GUEST_PANICKED", "STOP"]), stopped, None));
        assert_eq!(after(PanicAction::None), (names(&["GUEST_PANICKED"]), RunState::Running, None));
        let off = names(&["GUEST_PANICKED", "STOP", "SHUTDOWN"]);
        assert_eq!(after(PanicAction::Shutdown), (off.clone(), stopped, Some(0)));
        assert_eq!(after(PanicAction::ExitFailure), (off, stopped, Some(1)));
    }

    #[test]
    fn a_machine_that_is_not_to_go_off_pauses_at_a_panic() {
        let (events, state, exit) = after(Request::Panicked, |vm| {
            (vm.policy.panic, vm.policy.no_shutdown) = (PanicAction::Shutdown, true);
        });
        let stopped = (RunState::GuestPanicked, None);
        assert_eq!(
            (events, (state, exit)),
            (vec!["GUEST_PANICKED".into(), "STOP".into()], stopped)
        );
    }

    #[test]
    fn after_a_panic_the_machine_may_go_on_or_start_anew() {
        let mut vm = fake();
        vm.start();
        vm.mailbox().request(Request::CrashLoaded);
        vm.service();
        vm.mailbox().request(Request::Panicked);
        vm.service();
        vm.mailbox().ask(|mail| mail.reset = Some(ShutdownCause::HostQmpSystemReset));
        vm.service();
        assert_eq!(vm.state(), RunState::GuestPanicked);
        vm.start();
        let expected = ["RESUME", "GUEST_CRASHLOADED", "GUEST_PANICKED", "STOP", "RESET", "RESUME"];
        assert_eq!(events(&mut vm), expected);
    }
}
