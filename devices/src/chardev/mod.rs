//! Character devices: byte streams between a front end (a serial port, a
//! monitor) and something on the host (a terminal, a socket, a file).
//!
//! | piece | file |
//! |---|---|
//! | the side a front end sees: [`Chardev`], [`CharFrontend`] | here |
//! | the side a back end sees: connected or not, input, back-pressure | `port.rs` |
//! | reading and writing a descriptor for a port | `stream.rs` |
//! | the back ends, one file each | `null.rs` `file.rs` `stdio.rs` `pty.rs` `socket.rs` |
//! | one back end shared by up to four front ends | `mux.rs` |
//! | device strings and `-chardev` options | `parse.rs` |
//!
//! A new back end is one file with its options and an `open`, one variant of
//! [`Backend`], and one row in `parse.rs`.
//!
//! Thread: a chardev lives on one I/O loop; its front end is called on that
//! thread. `write` works from any thread and never blocks. Lock: each port has
//! two leaf mutexes (front end, output), neither held while a front end runs.
//! A peer can send any bytes at any speed, stop reading, or vanish: it is read
//! only while the front end has room, what it does not take makes `write`
//! return less, and nothing is stored here on its behalf.

mod file;
mod mux;
mod null;
mod parse;
mod port;
mod pty;
mod socket;
pub mod stdio;
mod stream;
mod telnet;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use resources::iol;

pub use file::File;
pub use mux::{ESCAPE, Mux};
pub use null::Null;
pub use parse::{Device, Options, parse_device, parse_options};
pub use pty::Pty;
pub use socket::{Address, Inet, Socket};
pub use stdio::Stdio;

use port::Port;

/// Something that happened to a chardev, other than input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CharEvent {
    /// A peer is connected; also told to a front end attached while one is.
    Opened,
    /// The peer is gone. What is written from now on is discarded.
    Closed,
    /// The peer sent a break.
    Break,
    /// On a shared chardev: what is typed comes here from now on.
    MuxIn,
    /// On a shared chardev: what is typed goes to another front end from now on.
    MuxOut,
}

/// The one front end of a chardev.
///
/// Called on the thread of the loop the chardev lives on, with no lock of the
/// chardev held, so each method may write to the chardev. None may block.
pub trait CharFrontend: Send + Sync {
    /// How many bytes of input there is room for. When it was 0 and there is
    /// room again, call [`Chardev::accept_input`].
    fn can_receive(&self) -> usize;

    /// Takes input, never more than the last `can_receive` said. (The room may
    /// have shrunk since, by something another thread did: excess is dropped.)
    fn receive(&self, data: &[u8]);

    /// The peer came, went, or sent a break.
    fn event(&self, event: CharEvent) {
        let _ = event;
    }

    /// Whether what was received is still to be answered. A peer that has ended what it sends
    /// but may still read is kept until it is not; then call [`Chardev::accept_input`].
    fn owes_output(&self) -> bool {
        false
    }

    /// There is room for output again after a [`Chardev::write`] that took less
    /// than it was given. May also come without need.
    fn writable(&self) {}

    /// The peer passed a descriptor (`SCM_RIGHTS`; Unix sockets only). It comes
    /// before the bytes it was sent with.
    fn receive_fd(&self, fd: OwnedFd) {
        drop(fd);
    }
}

/// What a chardev is connected to, with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Nothing: output is discarded, there is no input.
    Null(Null),
    /// A file takes the output.
    File(File),
    /// Standard input and output, a terminal perhaps.
    Stdio(Stdio),
    /// A new pseudo-terminal.
    Pty(Pty),
    /// A Unix or TCP socket, listening or connecting.
    Socket(Socket),
}

impl Backend {
    /// The word for this kind in options and in QMP.
    pub fn kind(&self) -> &'static str {
        match self {
            Backend::Null(_) => "null",
            Backend::File(_) => "file",
            Backend::Stdio(_) => "stdio",
            Backend::Pty(_) => "pty",
            Backend::Socket(_) => "socket",
        }
    }

    fn open(self, port: &Arc<Port>) -> Result<(), CharError> {
        match self {
            Backend::Null(options) => options.open(port),
            Backend::File(options) => options.open(port),
            Backend::Stdio(options) => options.open(port),
            Backend::Pty(options) => options.open(port),
            Backend::Socket(options) => options.open(port),
        }
    }
}

/// Why a chardev cannot be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum CharError {
    /// It has a front end already.
    #[error("chardev '{0}' is already in use")]
    InUse(String),
    /// A device string or an option is wrong.
    #[error("{0}")]
    Option(String),
    /// The host refused what the back end needs.
    #[error("{0}")]
    Open(String),
}

impl CharError {
    fn open(what: impl std::fmt::Display, error: impl Into<io::Error>) -> CharError {
        CharError::Open(format!("{what}: {}", reason(&error.into())))
    }
}

/// The system's words for an error, without the number std adds.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// A character device, seen from its front end. Dropping it closes it.
pub struct Chardev {
    port: Arc<Port>,
}

impl Chardev {
    /// Opens a back end on the loop `on`. A socket that is to wait for its
    /// first client blocks the calling thread until one comes.
    ///
    /// # Errors
    /// [`CharError::Open`] with the text management software expects, such as
    /// `Could not open '/x': No such file or directory`.
    pub fn open(
        label: &str,
        backend: Backend,
        on: &iol::Handle,
    ) -> Result<Arc<Chardev>, CharError> {
        let chardev = Arc::new(Chardev { port: Port::new(label, on) });
        backend.open(&chardev.port)?;
        Ok(chardev)
    }

    /// Writes to the peer without blocking, from any thread; returns how many
    /// bytes were taken. When that is not all, the front end's `writable` is
    /// called once there is room. Without a peer everything is taken, and
    /// discarded.
    pub fn write(&self, data: &[u8]) -> usize {
        self.port.write(data)
    }

    /// Makes `frontend` the one user of this chardev. If a peer is connected,
    /// it is told so.
    ///
    /// # Errors
    /// [`CharError::InUse`].
    pub fn attach(&self, frontend: Arc<dyn CharFrontend>) -> Result<(), CharError> {
        self.port.attach(frontend)
    }

    /// Takes the front end off. A call into it under way on the loop's thread
    /// may still be finishing. Input waits for the next front end.
    pub fn detach(&self) {
        self.port.detach();
    }

    /// Whether there is a front end.
    pub fn is_used(&self) -> bool {
        self.port.is_attached()
    }

    /// Cuts the connection to the peer there is now, if it is a socket's; the
    /// chardev stays for the next one.
    pub fn hang_up(&self) {
        self.port.hang_up();
    }

    /// The front end has room for input again. Any thread.
    pub fn accept_input(&self) {
        self.port.input.notify();
    }

    /// The name it was opened with.
    pub fn label(&self) -> &str {
        &self.port.label
    }

    /// What it is connected to, as query-chardev tells: `pty:/dev/pts/3`,
    /// `unix:/run/x,server`.
    pub fn filename(&self) -> String {
        self.port.filename.lock().clone()
    }

    /// Ends it: what `write` took is on its way to the peer, the terminal is
    /// put right, the peer sees the end, and the front end is let go of without
    /// further calls. Files and sockets made on the file system stay. What is
    /// written later is discarded.
    pub fn close(&self) {
        self.port.close();
    }
}

impl Drop for Chardev {
    fn drop(&mut self) {
        self.close();
    }
}
