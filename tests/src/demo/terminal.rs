//! The user's terminal as the guest's console, when the guest is in a nested host.
//!
//! A reader thread takes the keys; the calling thread watches for the end. The terminal is put
//! back when this is left.

use std::io::{Read, Write, stdin, stdout};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::rig::Result;
use crate::rig::console::Transcript;

const CTRL_A: u8 = 1;

/// The terminal without line editing, echo and signals, until this is dropped.
struct Raw(Termios);

impl Raw {
    fn new() -> Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.0);
    }
}

/// What the keys typed so far ask for.
#[derive(Default)]
struct Keys {
    escaped: bool,
}

impl Keys {
    /// The bytes `typed` sends to the guest, and whether Ctrl-a x ended the session. Ctrl-a twice
    /// sends one.
    fn take(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut sent = Vec::new();
        for &key in typed {
            match (std::mem::take(&mut self.escaped), key) {
                (true, b'x') => return (sent, true),
                (false, CTRL_A) => self.escaped = true,
                _ => sent.push(key),
            }
        }
        (sent, false)
    }
}

/// Connects the terminal to `stream` until Ctrl-a x (true) or until `ended` says so (false).
pub(super) fn bridge(stream: UnixStream, mut ended: impl FnMut() -> Result<bool>) -> Result<bool> {
    let raw = Raw::new()?;
    Transcript::tee(stream.try_clone()?, stdout());
    let left = Arc::new(AtomicBool::new(false));
    thread::spawn({
        let left = Arc::clone(&left);
        move || {
            let mut keys = Keys::default();
            let mut buffer = [0; 256];
            while let Ok(count @ 1..) = stdin().read(&mut buffer) {
                let (sent, leave) = keys.take(&buffer[..count]);
                if leave || (&stream).write_all(&sent).is_err() {
                    break;
                }
            }
            left.store(true, Ordering::Relaxed);
        }
    });
    loop {
        let over = ended()?;
        if over || left.load(Ordering::Relaxed) {
            drop(raw);
            println!();
            return Ok(!over);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Keys;

    #[test]
    fn ctrl_a_is_an_escape() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(b"ls\x01"), (b"ls".to_vec(), false));
        assert_eq!(keys.take(b"\x01x"), (b"\x01x".to_vec(), false));
        assert_eq!(keys.take(b"a\x01xb"), (b"a".to_vec(), true));
    }
}
