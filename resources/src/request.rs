//! What the guest may ask of the machine as a whole.
//!
//! Runs on any thread, takes no lock of its own. A hostile guest can ask as often as it likes:
//! the mailbox deduplicates, so it costs one pending request of each kind and no memory.

use std::sync::Arc;

/// A request raised by a device on behalf of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Request {
    /// Reset the whole machine (keyboard controller, port 92, port CF9, ACPI reset register,
    /// triple fault).
    Reset,
    /// Power off (ACPI S5).
    Shutdown,
    /// Suspend to RAM (ACPI S3).
    Suspend,
    /// Suspend to disk (ACPI S4): an event, then a power-off.
    SuspendDisk,
    /// Leave S3 because of the named wake source.
    Wakeup(WakeReason),
    /// The guest has let devices go, which are to be taken away.
    Eject,
    /// End the process with this exit status (`isa-debug-exit`).
    Exit(u8),
    /// The guest reported that its kernel panicked.
    Panicked,
    /// The guest reported that its kernel panicked and that it starts another to save what is in
    /// memory: nothing to be done.
    CrashLoaded,
    /// A watchdog ran out.
    Watchdog,
    /// The guest set its real-time clock: the new offset from the reference clock in seconds.
    RtcChange(i64),
    /// The guest changed what a network card receives.
    RxFilterChanged,
    /// A program of the guest opened or closed a virtio serial port.
    PortChanged,
    /// The guest opened or closed the tray of a drive.
    TrayMoved,
    /// The guest's balloon grew or shrank: the bytes of memory that it leaves the guest.
    BalloonChange(u64),
}

/// Why a suspended guest woke up; recorded in the ACPI PM1 status register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WakeReason {
    /// `system_wakeup`, keyboard, mouse or serial input.
    Other,
    /// The RTC alarm.
    Rtc,
    /// The ACPI PM timer.
    PmTimer,
    /// The power button.
    PowerButton,
    /// The sleep button.
    SleepButton,
}

/// Where devices put their requests: the machine's mailbox.
///
/// For requests that end the guest's present life (reset, shutdown, suspend, exit), and those that
/// may (a panic, a watchdog), an implementation must stop vCPUs from entering the guest again *before* it returns, so that the
/// instruction after the one that asked is not executed.
pub trait Mailbox: Send + Sync {
    /// Hands in a request; never blocks.
    fn request(&self, request: Request);
}

/// A shared handle on the machine's mailbox.
pub type Requests = Arc<dyn Mailbox>;

/// A mailbox that drops everything, for tests and for devices used alone.
#[derive(Debug, Default)]
pub struct Nobody;

impl Mailbox for Nobody {
    fn request(&self, _: Request) {}
}
