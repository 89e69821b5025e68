//! Signals that end the process in an orderly way: SIGINT, SIGTERM and SIGHUP.
//!
//! The handler only stores the number and writes to an eventfd; a thread of its own turns that
//! into a request in the mailbox. (SIGPIPE is ignored from the start by the Rust runtime.)

use std::io;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};

use resources::iol::Handle;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::register_signal_handler;

use crate::mailbox::Mailbox;

static LAST: AtomicI32 = AtomicI32::new(0);
static WAKE: OnceLock<EventFd> = OnceLock::new();

extern "C" fn arrived(number: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    LAST.store(number, Ordering::Relaxed);
    if let Some(wake) = WAKE.get() {
        // write(2) may be called in a signal handler; a full counter is as good.
        let _ = wake.write(1);
    }
}

/// Has signals put into the mailbox, by a task on the loop `on`.
///
/// # Errors
/// When the host refuses a descriptor or the handlers.
pub fn watch(mailbox: &Arc<Mailbox>, on: &Handle) -> io::Result<()> {
    let wake = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
    let mine = wake.try_clone()?;
    let _ = WAKE.set(wake);
    let mailbox = mailbox.clone();
    on.spawn(move |local| async move {
        let Ok(watch) = local.watch(mine) else { return };
        while watch.count().await.is_ok() {
            let number = LAST.load(Ordering::Relaxed);
            mailbox.ask(|mail| mail.signal = Some(number));
        }
    });
    for number in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        register_signal_handler(number, arrived)
            .map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
    }
    Ok(())
}
