//! Standard input and output.
//!
//! A terminal is shared with the shell that started us, so its settings are
//! kept and put back when the chardev is closed, and by [`restore_terminal`]
//! on the ways out that close nothing.
//!
//! Opened by the main thread, served on the chardev's loop; the settings are behind a leaf mutex.
//! Who types may send anything.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios,
    isatty, tcgetattr, tcsetattr,
};

use super::port::{Port, Sink};
use super::stream::{self, FdSink};
use super::{CharError, Size, winsize};

/// Options of the stdio back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stdio {
    /// Whether the terminal's interrupt keys (Ctrl-C) send signals, rather than
    /// being input.
    pub signal: bool,
}

impl Default for Stdio {
    fn default() -> Stdio {
        Stdio { signal: true }
    }
}

/// How things were before, while a chardev uses standard input and output.
struct Saved {
    /// Settings of the terminal that is standard input: theirs and ours.
    terminal: Option<(Termios, Termios)>,
    /// Flags of standard input and output that were changed.
    flags: [Option<OFlags>; 2],
}

static SAVED: Mutex<Option<Saved>> = Mutex::new(None);

fn standard() -> [BorrowedFd<'static>; 2] {
    [rustix::stdio::stdin(), rustix::stdio::stdout()]
}

impl Stdio {
    pub(super) fn open(self, port: &Arc<Port>) -> Result<(), CharError> {
        let failed = |error| CharError::open("Could not open standard input and output", error);
        let (input, output) = {
            let mut saved = SAVED.lock();
            if saved.is_some() {
                return Err(CharError::Open(
                    "stdio is in use by another character device".to_owned(),
                ));
            }
            // In place at once, so that whatever fails below is undone.
            let state = saved.insert(Saved { terminal: None, flags: [None; 2] });
            match self.take_over(state) {
                Ok(fds) => fds,
                Err(error) => {
                    put_back(&mut saved);
                    return Err(failed(error));
                }
            }
        };
        port.opened(Box::new(StdioSink(FdSink(output.clone()))));
        winsize::follow(port);
        port.spawn(move |local, port| async move {
            let Ok(output) = local.watch(output) else { return };
            if let Ok(input) = local.watch(input) {
                let keep = async || std::future::pending().await;
                let end = stream::pump(&local, &port, &input, &output, stream::read, keep).await;
                tracing::debug!(?end, "standard input ended");
            }
            port.input_ended();
            match stream::send(&port, &output).await {}
        });
        Ok(())
    }

    /// Sets the terminal for our use and returns non-blocking descriptors.
    fn take_over(&self, saved: &mut Saved) -> io::Result<(Arc<OwnedFd>, Arc<OwnedFd>)> {
        let [stdin, stdout] = standard();
        if isatty(stdin) {
            let theirs = tcgetattr(stdin)?;
            let ours = settings(&theirs, self.signal);
            saved.terminal = Some((theirs, ours.clone()));
            tcsetattr(stdin, OptionalActions::Now, &ours)?;
        }
        let [in_flags, out_flags] = &mut saved.flags;
        Ok((nonblocking(stdin, in_flags)?, nonblocking(stdout, out_flags)?))
    }
}

/// A non-blocking descriptor for the same file. For a terminal it is one of our
/// own, as standard error and the shell usually share the flags of `fd`; where
/// that cannot be had, `saved` gets the flags that were changed.
fn nonblocking(fd: BorrowedFd<'_>, saved: &mut Option<OFlags>) -> io::Result<Arc<OwnedFd>> {
    if isatty(fd)
        && let Ok(path) = rustix::termios::ttyname(fd, Vec::new())
        && let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC
        && let Ok(own) = rustix::fs::open(path, flags, Mode::empty())
    {
        return Ok(Arc::new(own));
    }
    let flags = fcntl_getfl(fd)?;
    if !flags.contains(OFlags::NONBLOCK) {
        fcntl_setfl(fd, flags | OFlags::NONBLOCK)?;
        *saved = Some(flags);
    }
    Ok(Arc::new(fcntl_dupfd_cloexec(fd, 3)?))
}

/// Terminal settings that pass on every key as it is typed and unchanged.
/// Output keeps its newline translation: other parts print there too.
fn settings(theirs: &Termios, signal: bool) -> Termios {
    let mut ours = theirs.clone();
    ours.input_modes.remove(
        InputModes::IGNBRK
            | InputModes::BRKINT
            | InputModes::PARMRK
            | InputModes::ISTRIP
            | InputModes::INLCR
            | InputModes::IGNCR
            | InputModes::ICRNL
            | InputModes::IXON,
    );
    ours.output_modes |= OutputModes::OPOST;
    ours.local_modes
        .remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::IEXTEN);
    ours.local_modes.set(LocalModes::ISIG, signal && theirs.local_modes.contains(LocalModes::ISIG));
    ours.control_modes.remove(ControlModes::CSIZE | ControlModes::PARENB);
    ours.control_modes |= ControlModes::CS8;
    ours.special_codes[SpecialCodeIndex::VMIN] = 1;
    ours.special_codes[SpecialCodeIndex::VTIME] = 0;
    ours
}

fn put_back(saved: &mut Option<Saved>) {
    let Some(state) = saved.take() else { return };
    let fds = standard();
    if let Some((theirs, _)) = &state.terminal {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, theirs);
    }
    for (fd, flags) in fds.into_iter().zip(state.flags) {
        if let Some(flags) = flags {
            let _ = fcntl_setfl(fd, flags);
        }
    }
}

/// Puts standard input and output back as they were before a stdio chardev took
/// them, if one has. May be called at any time and more than once: at the end
/// of main, in a panic hook, in a signal handler.
pub fn restore_terminal() {
    // Never waits: where it is called from may have interrupted the holder.
    if let Some(mut saved) = SAVED.try_lock() {
        put_back(&mut saved);
    }
}

/// Sets the terminal for our use again after the shell had it: to be called
/// when the process goes on after having been stopped (`SIGCONT`).
pub fn resume_terminal() {
    if let Some(saved) = SAVED.try_lock()
        && let Some(Saved { terminal: Some((_, ours)), .. }) = &*saved
    {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, ours);
    }
}

/// Output to standard output, which is given back when this goes.
struct StdioSink(FdSink);

impl Sink for StdioSink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(data)
    }

    fn fd(&self) -> Option<Arc<OwnedFd>> {
        self.0.fd()
    }

    fn size(&self) -> Option<Size> {
        self.0.size()
    }
}

impl Drop for StdioSink {
    fn drop(&mut self) {
        put_back(&mut SAVED.lock());
    }
}
