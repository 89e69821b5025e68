//! Signals that end the process in an orderly way (SIGINT, SIGTERM, SIGHUP), SIGCONT, after which
//! the terminal must be set up again, and SIGWINCH, after which it has another size.
//!
//! The handler only stores the number and writes to an eventfd; a task of the I/O thread turns that
//! into a request in the mailbox. While the main loop does not run yet, for a chardev may wait for
//! its first client, nobody would look there: then the task puts the terminal right and has the
//! signal end the process as it does by default. (SIGPIPE is ignored from the start by the Rust
//! runtime.)
#![expect(unsafe_code, reason = "actions of signals have no safe wrapper")]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};

use resources::iol::Handle;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::register_signal_handler;

use crate::mailbox::Mailbox;

static LAST: AtomicI32 = AtomicI32::new(0);
static CONTINUED: AtomicBool = AtomicBool::new(false);
static RESIZED: AtomicBool = AtomicBool::new(false);
static MAIN_LOOP_RUNS: AtomicBool = AtomicBool::new(false);
static WAKE: OnceLock<EventFd> = OnceLock::new();

extern "C" fn arrived(number: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    match number {
        libc::SIGCONT => CONTINUED.store(true, Ordering::Relaxed),
        libc::SIGWINCH => RESIZED.store(true, Ordering::Relaxed),
        _ => LAST.store(number, Ordering::Relaxed),
    }
    if let Some(wake) = WAKE.get() {
        // write(2) may be called in a signal handler; a full counter is as good.
        let _ = wake.write(1);
    }
}

/// From now on signals are requests to the main loop.
pub fn main_loop_runs() {
    MAIN_LOOP_RUNS.store(true, Ordering::SeqCst);
}

/// Ends the process, as SIGTERM does, if it still waits for what a start takes; `false` if the main
/// loop runs, which is then to be asked.
pub fn end_start() -> bool {
    let starting = !MAIN_LOOP_RUNS.load(Ordering::SeqCst);
    if starting {
        end_by(libc::SIGTERM);
    }
    starting
}

/// Ends the process by the signal's default action.
fn end_by(number: i32) {
    devices::chardev::stdio::restore_terminal();
    // SAFETY: the default action replaces a handler of our own, and no memory is involved.
    unsafe {
        libc::signal(number, libc::SIG_DFL);
        libc::kill(libc::getpid(), number);
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
            if CONTINUED.swap(false, Ordering::Relaxed) {
                devices::chardev::stdio::resume_terminal();
                // It is told nothing while it is stopped.
                RESIZED.store(true, Ordering::Relaxed);
            }
            if RESIZED.swap(false, Ordering::Relaxed) {
                devices::chardev::terminal_resized();
            }
            match LAST.load(Ordering::Relaxed) {
                0 => {}
                number if !MAIN_LOOP_RUNS.load(Ordering::SeqCst) => end_by(number),
                number => mailbox.ask(|mail| mail.signal = Some(number)),
            }
        }
    });
    let numbers = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGCONT, libc::SIGWINCH];
    for number in numbers {
        register_signal_handler(number, arrived)
            .map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
    }
    restart(libc::SIGWINCH)
}

/// Has system calls go on that a signal interrupts: none is to fail because a window was resized.
fn restart(number: i32) -> io::Result<()> {
    // SAFETY: zeros are a valid `sigaction`, and each call only reads or writes the one it is given.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(number, std::ptr::null(), &mut action) == 0 && {
            action.sa_flags |= libc::SA_RESTART;
            libc::sigaction(number, &action, std::ptr::null_mut()) == 0
        }
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}
