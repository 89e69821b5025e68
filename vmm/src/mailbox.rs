//! The machine's mailbox: what devices, vCPUs and signals ask of the main thread.
//!
//! Any thread puts in, the main thread takes out. One lock, a leaf but for the kicks and the
//! wake-up of the main loop made under it. A request that ends the guest's present life closes
//! the vCPUs' gate before it is put in, so that no instruction follows the one that asked, and
//! the gate cannot be opened while such a request waits. Requests are deduplicated: a guest that
//! asks in a loop costs nothing.

use std::sync::Arc;

use block::Failure;
use block::qcow2::Corruption;
use parking_lot::Mutex;
use qmp::ShutdownCause;
use resources::iol::Notify;
use resources::request::{Mailbox as Post, Request, WakeReason};

use crate::cpu::run_page::Kick;
use crate::cpu::thread::Gate;
use crate::cpu::throttle::Throttle;

/// What waits for the main thread. Each kind at most once, the latest value.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Mail {
    /// End the process with this status, at once.
    pub exit: Option<u8>,
    /// The user asks the process to end.
    pub quit: Option<ShutdownCause>,
    /// The signal that asks the process to end.
    pub signal: Option<i32>,
    /// Suspend to RAM.
    pub suspend: bool,
    /// SUSPEND_DISK before the shutdown.
    pub suspend_disk: bool,
    /// Power off.
    pub shutdown: Option<ShutdownCause>,
    /// Reset.
    pub reset: Option<ShutdownCause>,
    /// The user presses the power button.
    pub powerdown: bool,
    /// The user presses the sleep button.
    pub sleep_button: bool,
    /// Leave S3.
    pub wakeup: Option<WakeReason>,
    /// The guest has let devices go.
    pub eject: bool,
    /// A vCPU cannot go on.
    pub internal_error: bool,
    /// The guest's kernel panicked.
    pub panicked: bool,
    /// It has a second kernel to deal with that.
    pub crash_loaded: bool,
    /// A watchdog ran out.
    pub watchdog: bool,
    /// The guest set its clock.
    pub rtc_change: Option<i64>,
    /// The guest changed what a network card receives.
    pub rx_filter_changed: bool,
    /// The guest opened or closed virtio serial ports.
    pub port_changed: bool,
    /// The guest opened or closed trays.
    pub tray_moved: bool,
    /// The guest's balloon changed: the bytes that it leaves.
    pub balloon_change: Option<u64>,
    /// Requests of disks that failed, oldest first.
    pub disk_failures: Vec<Failure>,
    /// Damage that was found in images: the drive, and what it is.
    pub corruptions: Vec<(String, Corruption)>,
    /// Jobs of drives have news.
    pub jobs: bool,
    /// A dump that was written beside the main thread has ended.
    pub dump_ended: bool,
    /// The thread of a migration asks for something.
    pub migration: bool,
}

/// Failed requests that wait to be told at most: a broken disk fails them faster than they are
/// told, and their number means nothing then.
const MAX_FAILURES: usize = 256;

impl Mail {
    /// An image was found to be damaged. An image tells it once; of too many the last are not told.
    pub fn image_corrupted(&mut self, drive: &str, damage: &Corruption) {
        if self.corruptions.len() < MAX_FAILURES {
            self.corruptions.push((drive.to_owned(), damage.clone()));
        }
    }

    /// A request of a disk has failed. Of too many the last ones are not told, but that the machine
    /// has to stop.
    pub fn disk_failed(&mut self, failure: Failure) {
        let stops = failure.action == block::Action::Stop;
        let told = stops && self.disk_failures.iter().any(|other| other.action == failure.action);
        if self.disk_failures.len() < MAX_FAILURES || stops && !told {
            self.disk_failures.push(failure);
        }
    }

    /// Whether vCPUs must stay out of the guest until this is dealt with.
    fn holds(&self) -> bool {
        self.exit.is_some()
            || self.suspend
            || self.shutdown.is_some()
            || self.reset.is_some()
            || self.internal_error
            || self.panicked
            || self.watchdog
    }
}

/// The mailbox.
pub struct Mailbox {
    mail: Mutex<Mail>,
    gate: Arc<Gate>,
    throttle: Arc<Throttle>,
    kicks: Mutex<Vec<Arc<Kick>>>,
    notify: Notify,
}

impl Mailbox {
    /// An empty mailbox that wakes the main loop through `notify`.
    pub fn new(notify: Notify) -> Arc<Mailbox> {
        Arc::new(Mailbox {
            mail: Mutex::default(),
            gate: Arc::default(),
            throttle: Arc::default(),
            kicks: Mutex::default(),
            notify,
        })
    }

    /// The gate of the vCPUs.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// What slows the vCPUs down.
    pub fn throttle(&self) -> &Arc<Throttle> {
        &self.throttle
    }

    /// Takes so many percent of their time from the vCPUs; 0: none.
    pub fn set_throttle(&self, percent: u8) {
        if self.throttle.set(percent) {
            self.kicks.lock().iter().for_each(|kick| kick.kick());
        }
    }

    /// Has `kick` used when the gate closes.
    pub fn add_kick(&self, kick: Arc<Kick>) {
        self.kicks.lock().push(kick);
    }

    /// Closes the gate and brings all vCPUs out of the guest. They may take a moment to come.
    pub fn close_gate(&self) {
        self.gate.close();
        self.kicks.lock().iter().for_each(|kick| kick.kick());
    }

    /// Opens the gate, unless a request waits that must come first; then the main loop will get
    /// to it, and whether the gate opens after it is for that request to say. Returns whether the
    /// gate was closed and is open now: then the vCPUs must be woken.
    pub fn open_gate(&self) -> bool {
        let mail = self.mail.lock();
        !mail.holds() && self.gate.open()
    }

    /// Takes everything out.
    pub fn take(&self) -> Mail {
        std::mem::take(&mut *self.mail.lock())
    }

    /// Whether the process is to end.
    pub fn wants_end(&self) -> bool {
        let mail = self.mail.lock();
        mail.exit.is_some() || mail.quit.is_some() || mail.signal.is_some()
    }

    /// Takes out that a thread asks for something.
    pub fn take_migration(&self) -> bool {
        std::mem::take(&mut self.mail.lock().migration)
    }

    /// Has the main loop look here once more.
    pub fn wake(&self) {
        self.notify.notify();
    }

    /// The guest's life has ended, and with it what it asked for and nobody has seen: a second
    /// vCPU may have asked for the same reset while the first one's request was dealt with. That
    /// it panicked, or has set its clock, stays worth telling.
    pub fn end_life(&self) {
        let mut mail = self.mail.lock();
        mail.shutdown.take_if(|reason| by_guest(*reason));
        mail.reset.take_if(|reason| by_guest(*reason));
        (mail.suspend, mail.suspend_disk, mail.wakeup) = (false, false, None);
        (mail.internal_error, mail.watchdog) = (false, false);
    }

    /// A vCPU cannot go on.
    pub fn internal_error(&self) {
        self.ask(|mail| mail.internal_error = true);
    }

    /// Puts something in.
    pub fn ask(&self, change: impl FnOnce(&mut Mail)) {
        let mut mail = self.mail.lock();
        let before = mail.clone();
        change(&mut mail);
        if mail.holds() {
            self.close_gate();
        }
        let news = *mail != before;
        drop(mail);
        if news {
            self.notify.notify();
        }
    }
}

impl Post for Mailbox {
    fn request(&self, request: Request) {
        self.ask(|mail| match request {
            Request::Reset => mail.reset = Some(ShutdownCause::GuestReset),
            Request::Shutdown => mail.shutdown = Some(ShutdownCause::GuestShutdown),
            Request::Suspend => mail.suspend = true,
            Request::SuspendDisk => {
                mail.suspend_disk = true;
                mail.shutdown = Some(ShutdownCause::GuestShutdown);
            }
            Request::Wakeup(reason) => mail.wakeup = Some(reason),
            Request::Eject => mail.eject = true,
            Request::Exit(status) => mail.exit = Some(status),
            Request::Panicked => mail.panicked = true,
            Request::CrashLoaded => mail.crash_loaded = true,
            Request::Watchdog => mail.watchdog = true,
            Request::RtcChange(offset) => mail.rtc_change = Some(offset),
            Request::RxFilterChanged => mail.rx_filter_changed = true,
            Request::PortChanged => mail.port_changed = true,
            Request::TrayMoved => mail.tray_moved = true,
            Request::BalloonChange(actual) => mail.balloon_change = Some(actual),
        });
    }
}

/// Whether the guest is the cause.
pub fn by_guest(reason: ShutdownCause) -> bool {
    use ShutdownCause::{GuestPanic, GuestReset, GuestShutdown};
    matches!(reason, GuestShutdown | GuestReset | GuestPanic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_ends_the_guests_life_keeps_the_gate_closed_until_taken() {
        let mailbox = Mailbox::new(Notify::new());
        mailbox.open_gate();
        assert!(mailbox.gate.is_open());
        mailbox.request(Request::RtcChange(5));
        mailbox.request(Request::RtcChange(6));
        assert!(mailbox.gate.is_open());
        mailbox.request(Request::Reset);
        assert!(!mailbox.gate.is_open());
        mailbox.open_gate();
        assert!(!mailbox.gate.is_open());
        let mail = mailbox.take();
        let reset = Some(ShutdownCause::GuestReset);
        assert_eq!(mail, Mail { reset, rtc_change: Some(6), ..Mail::default() });
        mailbox.open_gate();
        assert!(mailbox.gate.is_open());
        assert_eq!(mailbox.take(), Mail::default());
    }

    #[test]
    fn a_life_takes_its_unseen_requests_with_it_but_not_those_of_others() {
        let mailbox = Mailbox::new(Notify::new());
        let requests = [
            Request::Reset,
            Request::SuspendDisk,
            Request::Suspend,
            Request::Wakeup(WakeReason::Rtc),
        ];
        requests.into_iter().for_each(|request| mailbox.request(request));
        mailbox.internal_error();
        mailbox.request(Request::Watchdog);
        mailbox.request(Request::Panicked);
        mailbox.ask(|mail| mail.signal = Some(15));
        mailbox.end_life();
        let left = Mail { panicked: true, signal: Some(15), ..Mail::default() };
        assert_eq!(mailbox.take(), left);
        mailbox.ask(|mail| mail.reset = Some(ShutdownCause::HostQmpSystemReset));
        mailbox.end_life();
        assert!(mailbox.take().reset.is_some());
    }
}
