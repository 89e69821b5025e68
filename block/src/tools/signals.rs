//! Being told to stop, and being asked how far it is.
//!
//! The handlers only store numbers, which the tool's own loops look at between two requests: an
//! image is never left with half a request. A second SIGINT or SIGTERM ends the process at once.
//! Any thread, no lock.
#![expect(unsafe_code, reason = "a signal's default action has no safe wrapper")]

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use vmm_sys_util::signal::register_signal_handler;

use super::console::Fail;

static STOP: AtomicI32 = AtomicI32::new(0);
static ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn arrived(number: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    if number == libc::SIGUSR1 {
        ASKED.store(true, Ordering::Relaxed);
        return;
    }
    STOP.store(number, Ordering::Relaxed);
    // SAFETY: signal(2) may be called in a handler; the default action replaces ours, and no
    // memory is involved.
    unsafe {
        libc::signal(number, libc::SIG_DFL);
    }
}

/// From now on signals are noted.
pub fn watch() {
    for number in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1] {
        // Without a handler the default action ends the tool, which is no worse.
        let _ = register_signal_handler(number, arrived);
    }
}

/// Fails once the tool has been told to stop.
///
/// # Errors
/// [`Fail::Interrupted`].
pub fn check() -> Result<(), Fail> {
    match STOP.load(Ordering::Relaxed) {
        0 => Ok(()),
        number => Err(Fail::Interrupted(number)),
    }
}

/// Whether somebody asked how far it is since the last call.
pub(crate) fn asked() -> bool {
    ASKED.swap(false, Ordering::Relaxed)
}
