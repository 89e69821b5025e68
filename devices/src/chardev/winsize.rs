//! The sizes of terminals, and that one has changed.
//!
//! Any thread; a leaf mutex around who follows the terminal of the process. Who sits at a terminal
//! may give it any size.

use std::os::fd::AsFd;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::termios::tcgetwinsize;

use super::CharEvent;
use super::port::Port;

/// Characters that a terminal shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// In a line.
    pub cols: u16,
    /// Lines.
    pub rows: u16,
}

/// The size of a terminal; `None` for what is none, or does not know.
pub(super) fn of(fd: impl AsFd) -> Option<Size> {
    let size = tcgetwinsize(fd).ok()?;
    let size = Size { cols: size.ws_col, rows: size.ws_row };
    (size.cols != 0 && size.rows != 0).then_some(size)
}

/// Those who use the terminal that the process was started at.
static FOLLOWERS: Mutex<Vec<Weak<Port>>> = Mutex::new(Vec::new());

/// The front end of this port is told when the process's terminal has another size.
pub(super) fn follow(port: &Arc<Port>) {
    let mut followers = FOLLOWERS.lock();
    followers.retain(|port| port.strong_count() > 0);
    followers.push(Arc::downgrade(port));
}

/// To be called when the size of the process's terminal may have changed (`SIGWINCH`).
pub fn terminal_resized() {
    let followers: Vec<_> = FOLLOWERS.lock().iter().filter_map(Weak::upgrade).collect();
    for port in followers {
        let on = port.on.clone();
        on.post(move |_| port.deliver_event(CharEvent::Resized));
    }
}
