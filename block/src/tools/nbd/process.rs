//! Serving in the background: the tool starts itself once more and waits until that serves.
//!
//! A process with threads is not copied; the second one is a new program, which tells by its
//! standard output that it has begun and leaves the terminal then. Main thread, no lock. Nobody
//! outside reaches this.

use std::io::Read;
use std::process::{Command, Stdio};

use crate::tools::console::Fail;

/// Set in the environment of the one in the background.
const MARK: &str = "VMM_NBD_IN_BACKGROUND";
/// What it says when it serves.
const READY: u8 = b'1';

/// Whether this is the one in the background.
pub(super) fn in_background() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Starts the one in the background; done when it serves, or has failed and said why.
pub(super) fn fork(words: &[String]) -> Result<(), Fail> {
    let refuse = |error: std::io::Error| Fail::Told(format!("cannot go on alone: {error}"));
    let mut child = Command::new(std::env::current_exe().map_err(refuse)?)
        .args(words)
        .env(MARK, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(refuse)?;
    let mut said = [0];
    let ready = child.stdout.take().is_some_and(|mut out| out.read_exact(&mut said).is_ok());
    if ready && said == [READY] {
        return Ok(());
    }
    let status = child.wait().map_err(refuse)?;
    Err(Fail::Code(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// It serves: tells so, and lets go of the terminal and of where it was started.
pub(super) fn ready() {
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir("/");
    let _ = rustix::io::write(rustix::stdio::stdout(), &[READY]);
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    if let Ok(null) = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty()) {
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}
