//! What others have asked the machine for, through its mailbox, in the order that clients know.
//!
//! Main thread. Guests ask for resets and shutdowns; images tell of their damage.

use block::qcow2::Corruption;
use block::{Action, Failure};
use qmp::WatchdogAction;
use qmp::{BlockErrorAction, Event, GuestPanicAction, IoOperationType, RunState, ShutdownCause};
use resources::request::WakeReason;

use super::Vm;
use crate::cli::log::tell;
use crate::mailbox::{Mail, by_guest};

impl Vm {
    /// Deals with what the mailbox holds, in the order that clients know, and lets the guest go
    /// on if it may.
    pub fn service(&mut self) {
        self.process();
        // A request may have closed the gate that turned out to change nothing.
        self.activate();
    }

    pub(super) fn process(&mut self) {
        if self.has_snapshot_running() {
            return self.process_beside_snapshot();
        }
        let mut mail = self.mailbox.take();
        if mail == Mail::default() || self.exit.is_some() {
            return;
        }
        if let Some(status) = mail.exit {
            return self.end(status);
        }
        if mail.eject {
            self.take_ejected();
        }
        if mail.jobs {
            self.tell_jobs();
        }
        if mail.dump_ended {
            self.dump_ended();
        }
        if let Some(offset) = mail.rtc_change {
            self.context.raise(Event::RtcChange { offset });
        }
        if mail.port_changed {
            self.ports_changed();
        }
        if mail.tray_moved {
            self.trays_moved();
        }
        if let Some(actual) = mail.balloon_change {
            let actual = i64::try_from(actual).unwrap_or(i64::MAX);
            self.context.raise(Event::BalloonChange { actual });
        }
        if mail.watchdog {
            self.watchdog_ran_out(&mut mail);
            if self.exit.is_some() {
                return;
            }
        }
        if mail.rx_filter_changed {
            self.tell_rx_filters();
        }
        if mail.suspend && self.is_running() {
            self.park();
            self.board.sleep();
            self.set_state(RunState::Suspended);
            self.context.raise(Event::Suspend);
        }
        self.service_shutdown(&mail);
        if self.exit.is_some() {
            return;
        }
        if let Some(reason) = mail.reset {
            self.service_reset(reason);
        }
        if let Some(reason) = mail.wakeup {
            self.wake_up(reason);
        }
        if mail.powerdown {
            self.context.raise(Event::Powerdown);
            if !self.wake_up(WakeReason::PowerButton) {
                self.board.power_button();
            }
        }
        if mail.sleep_button && !self.wake_up(WakeReason::SleepButton) {
            self.board.sleep_button();
        }
        if mail.watchdog && self.policy.watchdog == WatchdogAction::Pause {
            self.stop(RunState::Watchdog);
        }
        if mail.crash_loaded {
            self.context.raise(Event::GuestCrashloaded { action: GuestPanicAction::Run });
        }
        if mail.panicked {
            self.panicked();
        }
        if mail.internal_error {
            self.stop(RunState::InternalError);
        }
        for (drive, damage) in &mail.corruptions {
            self.image_corrupted(drive, damage);
        }
        self.disks_failed(&mail.disk_failures);
        if mail.migration {
            self.serve_migration();
        }
    }

    /// While a snapshot is taken or gone back to all waits but what its thread asks for; that the
    /// process is to end it is told.
    fn process_beside_snapshot(&mut self) {
        if self.mailbox.wants_end() {
            self.cancel_snapshot();
        }
        if self.mailbox.take_migration() {
            self.serve_migration();
        }
    }

    /// Tells of damage in an image of a drive. An image that only shows through another one has no
    /// name.
    fn image_corrupted(&mut self, drive: &str, damage: &Corruption) {
        let number = |value: Option<u64>| value.map_or(0, |value| value as i64);
        let top = self.drives.find(drive).and_then(|drive| drive.describe());
        let is_top = top.is_none_or(|image| image.filename == damage.image);
        self.context.raise(Event::BlockImageCorrupted {
            device: if is_top { drive.to_owned() } else { String::new() },
            msg: damage.message.clone(),
            offset: number(damage.offset),
            size: number(damage.size),
        });
    }

    /// Tells of requests of disks that failed, and stops if one of them is to wait.
    fn disks_failed(&mut self, failures: &[Failure]) {
        for Failure { drive, write, action, .. } in failures {
            let operation = if *write { IoOperationType::Write } else { IoOperationType::Read };
            let action = match action {
                Action::Report => BlockErrorAction::Report,
                Action::Ignore => BlockErrorAction::Ignore,
                Action::Stop => BlockErrorAction::Stop,
            };
            self.context.raise(Event::BlockIoError { device: drive.clone(), operation, action });
        }
        if failures.iter().any(|failure| failure.action == Action::Stop) {
            self.stop(RunState::IoError);
            let stops = failures.iter().filter(|failure| failure.action == Action::Stop);
            stops.for_each(|failure| self.drives.stopped_by(failure));
        }
    }

    fn service_shutdown(&mut self, mail: &Mail) {
        if mail.suspend_disk {
            self.context.raise(Event::SuspendDisk);
        }
        if let Some(signal) = mail.signal {
            tell(format_args!("terminating on signal {signal}"));
        }
        let quit = mail.signal.map(|_| ShutdownCause::HostSignal).or(mail.quit);
        self.policy.no_shutdown &= quit.is_none();
        let reset = mail.reset.filter(|_| self.policy.no_reboot);
        let Some(reason) = mail.shutdown.or(quit).or(reset) else { return };
        self.context.raise(Event::Shutdown { guest: by_guest(reason), reason });
        if self.policy.no_shutdown {
            self.stop(RunState::Shutdown);
        } else {
            self.end(0);
        }
    }

    fn service_reset(&mut self, reason: ShutdownCause) {
        // A machine that is being filled has nothing to reset.
        if self.policy.no_reboot || self.state == RunState::Inmigrate {
            return;
        }
        if let Err(error) = self.reset() {
            tell(format_args!("reset: {error}"));
            return self.fail();
        }
        (self.migration.memory_left, self.migration.half_loaded) = (false, false);
        self.context.raise(Event::Reset { guest: by_guest(reason), reason });
        match self.state {
            RunState::InternalError | RunState::Shutdown => self.set_state(RunState::Paused),
            // A machine that sleeps was not stopped by its user: switched on anew, it runs.
            RunState::Suspended => {
                self.set_state(RunState::Running);
                self.context.raise(Event::Wakeup);
            }
            _ => {}
        }
    }

    /// Wakes the guest, if it sleeps and wants to be woken for this reason; returns whether it
    /// did sleep and does no more.
    fn wake_up(&mut self, reason: WakeReason) -> bool {
        if self.state != RunState::Suspended || !self.board.wakes_by(reason) {
            return false;
        }
        let done = match self.board.waking_entry() {
            Some(entry) => self.reset_to(|board| {
                board.place_functions();
                Ok(Some(entry))
            }),
            None => self.reset(),
        };
        if let Err(error) = done {
            tell(format_args!("wake-up: {error}"));
            self.fail();
            return true;
        }
        self.board.wake(reason);
        self.set_state(RunState::Running);
        self.context.raise(Event::Wakeup);
        true
    }

    pub(crate) fn end(&mut self, status: u8) {
        self.deactivate();
        self.end_jobs();
        self.open_trays();
        self.exit.get_or_insert(status);
    }
}
