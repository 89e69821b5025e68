//! Character devices: byte streams between a front end (a serial port, a
//! monitor) and something on the host (a terminal, a socket, a file).
//!
//! | piece | file |
//! |---|---|
//! | the side a front end sees: [`Chardev`], [`CharFrontend`] | here |
//! | the side a back end sees: connected or not, input, back-pressure | `port.rs` |
//! | reading and writing a descriptor for a port | `stream.rs` |
//! | input with commands between its data | `inband.rs` |
//! | the back ends, one file each | `null.rs` `file.rs` `pipe.rs` `stdio.rs` `console.rs` `pty.rs` `tty.rs` `parallel.rs` `socket.rs` `udp.rs` `ring.rs` `mouse.rs` `vc.rs` |
//! | sizes of terminals | `winsize.rs` |
//! | addresses: listening, connecting, names | `address.rs` |
//! | one back end shared by up to four front ends | `mux.rs` |
//! | device strings and `-chardev` options | `parse.rs` |
//!
//! A new back end is one file with its options and an `open`, one variant of
//! [`Backend`], and one row in `parse.rs`. What it can do besides moving bytes
//! is a variant of `Extra`.
//!
//! Thread: a chardev lives on one I/O loop; its front end is called on that
//! thread. `write` works from any thread and never blocks. Lock: each port has
//! two leaf mutexes (front end, output), neither held while a front end runs;
//! which port a chardev has is behind one more, which only a change takes alone.
//! A peer can send any bytes at any speed, stop reading, or vanish: it is read
//! only while the front end has room, what it does not take makes `write`
//! return less, and nothing is stored here on its behalf.

mod address;
mod console;
mod file;
mod inband;
mod ioctls;
mod line;
mod mouse;
mod mux;
mod null;
mod parallel;
mod parse;
mod pipe;
mod port;
mod pty;
mod ring;
mod socket;
pub mod stdio;
mod stream;
mod telnet;
#[cfg(test)]
mod tests;
mod tty;
mod udp;
mod vc;
mod winsize;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;
use resources::{fdset, iol};
use rustix::fs::{Mode, OFlags};

pub use address::{Address, Given, Inet};
pub use console::Console;
pub use file::File;
pub use line::{Control, Line, ModemLines, Parity};
pub use mouse::{Mouse, MouseMove, Msmouse};
pub use mux::{ESCAPE, Mux};
pub use null::Null;
pub use parallel::Parallel;
pub use parse::{Device, Options, backends, parse_device, parse_options};
pub use pipe::Pipe;
pub use port::Patience;
pub use pty::Pty;
pub use ring::{Ring, Ringbuf};
pub use socket::Socket;
pub use stdio::Stdio;
pub use tty::Tty;
pub use udp::Udp;
pub use vc::{Screen, Vc};
pub use winsize::{Size, terminal_resized};

use port::Port;
use socket::Clients;

/// Something that happened to a chardev, other than input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CharEvent {
    /// A peer is connected; also told to a front end attached while one is.
    Opened,
    /// The peer is gone. What is written from now on is discarded.
    Closed,
    /// The peer sent a break.
    Break,
    /// The peer is a terminal that has another [`Chardev::size`] now.
    Resized,
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
    /// A serial line of the host.
    Serial(Tty),
    /// A parallel port of the host.
    Parallel(Parallel),
    /// One or two named pipes.
    Pipe(Pipe),
    /// A Unix or TCP socket, listening or connecting.
    Socket(Socket),
    /// UDP: each write is a datagram.
    Udp(Udp),
    /// A new pseudo-terminal.
    Pty(Pty),
    /// Another chardev, by its id, which it shares between several front ends.
    /// Not opened here: see [`Mux`].
    Mux(String),
    /// The host's mouse, as a serial mouse.
    Msmouse(Msmouse),
    /// Standard input and output, a terminal perhaps.
    Stdio(Stdio),
    /// Standard output only.
    Console(Console),
    /// A text screen.
    Vc(Vc),
    /// The latest output, kept in memory.
    Ringbuf(Ringbuf),
}

impl Backend {
    /// The word for this kind in options and in QMP.
    pub fn kind(&self) -> &'static str {
        match self {
            Backend::Null(_) => "null",
            Backend::File(_) => "file",
            Backend::Serial(_) => "serial",
            Backend::Parallel(_) => "parallel",
            Backend::Pipe(_) => "pipe",
            Backend::Socket(_) => "socket",
            Backend::Udp(_) => "udp",
            Backend::Pty(_) => "pty",
            Backend::Mux(_) => "mux",
            Backend::Msmouse(_) => "msmouse",
            Backend::Stdio(_) => "stdio",
            Backend::Console(_) => "console",
            Backend::Vc(_) => "vc",
            Backend::Ringbuf(ring) => ring.kind(),
        }
    }

    fn open(self, port: &Arc<Port>, patience: Patience) -> Result<(), CharError> {
        // Those with an address have more to say.
        port.set_filename(self.kind().to_owned());
        let _ = port.kind.set(self.kind());
        match self {
            Backend::Null(options) => options.open(port),
            Backend::File(options) => options.open(port),
            Backend::Serial(options) => options.open(port),
            Backend::Parallel(options) => options.open(port),
            Backend::Pipe(options) => options.open(port),
            Backend::Socket(options) => options.open(port, patience),
            Backend::Udp(options) => options.open(port, patience),
            Backend::Pty(options) => options.open(port),
            Backend::Mux(_) => Err(CharError::Create("it shares another chardev".to_owned())),
            Backend::Msmouse(options) => options.open(port),
            Backend::Stdio(options) => options.open(port),
            Backend::Console(options) => options.open(port),
            Backend::Vc(options) => options.open(port),
            Backend::Ringbuf(options) => options.open(port),
        }
    }
}

/// What a kind of back end can do besides moving bytes.
enum Extra {
    Ring(Arc<Ring>),
    Clients(Arc<Clients>),
    Mouse(Arc<Mouse>),
    Screen(Arc<Screen>),
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
    /// The host refused what the back end needs, of a kind for which QMP knows no reason but
    /// `Failed to create chardev`.
    #[error("{0}")]
    Create(String),
}

impl CharError {
    fn open(what: impl std::fmt::Display, error: impl Into<io::Error>) -> CharError {
        CharError::Open(format!("{what}: {}", reason(&error.into())))
    }

    fn create(what: impl std::fmt::Display, error: impl Into<io::Error>) -> CharError {
        CharError::Create(format!("{what}: {}", reason(&error.into())))
    }
}

/// Opens a file or device without waiting for a peer, which a FIFO would do.
/// One of a set of descriptors is in use until the chardev is closed.
fn open_path(port: &Port, path: &Path, flags: OFlags) -> Result<Arc<OwnedFd>, CharError> {
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match fdset::open(path, flags, Mode::from_raw_mode(0o666)) {
        Ok(file) => {
            let (fd, lease) = file.into_parts();
            port.leases.lock().extend(lease);
            Ok(Arc::new(fd))
        }
        Err(error) => Err(CharError::open(format!("Could not open '{}'", path.display()), error)),
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
    label: String,
    on: iol::Handle,
    /// Another one after [`change`](Self::change).
    port: RwLock<Arc<Port>>,
}

impl Chardev {
    /// Opens a back end on the loop `on`, while nothing runs yet: a socket that
    /// is to wait for its first client blocks the calling thread until one
    /// comes, and so does one that connects.
    ///
    /// # Errors
    /// [`CharError::Open`] with the text management software expects, such as
    /// `Could not open '/x': No such file or directory`.
    pub fn open(
        label: &str,
        backend: Backend,
        on: &iol::Handle,
    ) -> Result<Arc<Chardev>, CharError> {
        Chardev::open_with(label, backend, on, Patience::Endless)
    }

    /// As [`open`](Self::open), blocking no longer than `patience` allows.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(
        label: &str,
        backend: Backend,
        on: &iol::Handle,
        patience: Patience,
    ) -> Result<Arc<Chardev>, CharError> {
        let port = Port::new(label, on);
        backend.open(&port, patience)?;
        Ok(Chardev::of(port))
    }

    fn of(port: Arc<Port>) -> Arc<Chardev> {
        let (label, on) = (port.label.clone(), port.on.clone());
        Arc::new(Chardev { label, on, port: RwLock::new(port) })
    }

    fn port(&self) -> Arc<Port> {
        self.port.read().clone()
    }

    /// Connects it to something else. The front end, if there is one, stays,
    /// and is told that the old peer is gone and when the new one is there.
    ///
    /// # Errors
    /// As [`open`](Self::open); everything then stays as it was.
    pub fn change(&self, backend: Backend, patience: Patience) -> Result<(), CharError> {
        let new = Port::new(&self.label, &self.on);
        backend.open(&new, patience)?;
        let old = std::mem::replace(&mut *self.port.write(), new.clone());
        new.adopt(&old);
        old.close();
        Ok(())
    }

    /// Writes to the peer without blocking, from any thread; returns how many
    /// bytes were taken. When that is not all, the front end's `writable` is
    /// called once there is room. Without a peer everything is taken, and
    /// discarded.
    pub fn write(&self, data: &[u8]) -> usize {
        self.port.read().write(data)
    }

    /// As [`write`](Self::write), for a front end that cannot keep what is not
    /// taken: up to 64 KiB are kept for it. Returns how many bytes were taken
    /// or kept; the rest is lost.
    pub fn push(&self, data: &[u8]) -> usize {
        self.port.read().push(data)
    }

    /// Waits for what [`push`](Self::push) kept to be on its way, until
    /// `deadline` at most. Works on any thread, also when the loop does not run.
    pub fn flush(&self, deadline: Instant) {
        self.port().flush(deadline);
    }

    /// Sets the parameters of the line, sends a break or moves the modem's
    /// lines; without such a line nothing happens.
    pub fn control(&self, control: Control) {
        self.port().control(control);
    }

    /// The state of the modem's lines, if there are some.
    pub fn modem_lines(&self) -> Option<ModemLines> {
        self.port().modem_lines()
    }

    /// The size of the terminal it is connected to, if it is one.
    pub fn size(&self) -> Option<Size> {
        self.port().size()
    }

    /// The memory of a ring buffer.
    pub fn ring(&self) -> Option<Arc<Ring>> {
        match self.port.read().extra.get()? {
            Extra::Ring(ring) => Some(ring.clone()),
            _ => None,
        }
    }

    /// The way to move a serial mouse.
    pub fn mouse(&self) -> Option<Arc<Mouse>> {
        match self.port.read().extra.get()? {
            Extra::Mouse(mouse) => Some(mouse.clone()),
            _ => None,
        }
    }

    /// What a text screen shows.
    pub fn screen(&self) -> Option<Arc<Screen>> {
        match self.port.read().extra.get()? {
            Extra::Screen(screen) => Some(screen.clone()),
            _ => None,
        }
    }

    /// Gives a listening socket a client that is connected already. False, and
    /// the descriptor is closed, if this is none, it has a client, or `fd` is
    /// no socket.
    pub fn add_client(&self, fd: OwnedFd) -> bool {
        match self.port.read().extra.get() {
            Some(Extra::Clients(clients)) => clients.offer(fd),
            _ => false,
        }
    }

    /// Makes `frontend` the one user of this chardev. If a peer is connected,
    /// it is told so.
    ///
    /// # Errors
    /// [`CharError::InUse`].
    pub fn attach(&self, frontend: Arc<dyn CharFrontend>) -> Result<(), CharError> {
        self.port().attach(frontend)
    }

    /// Takes the front end off. A call into it under way on the loop's thread
    /// may still be finishing. Input waits for the next front end.
    pub fn detach(&self) {
        self.port().detach();
    }

    /// Whether there is a front end.
    pub fn is_used(&self) -> bool {
        self.port().is_attached()
    }

    /// Has the front end told of a break, as if the peer had sent one.
    pub fn send_break(&self) {
        let port = self.port();
        self.on.post(move |_| port.deliver_event(CharEvent::Break));
    }

    /// Cuts the connection to the peer there is now, if it is a socket's; the
    /// chardev stays for the next one.
    pub fn hang_up(&self) {
        self.port().hang_up();
    }

    /// The front end has room for input again. Any thread.
    pub fn accept_input(&self) {
        self.port.read().input.notify();
    }

    /// The loop it lives on.
    pub fn home(&self) -> iol::Handle {
        self.on.clone()
    }

    /// The name it was opened with.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The word for the kind of its back end.
    pub fn kind(&self) -> &'static str {
        self.port.read().kind.get().copied().unwrap_or("mux")
    }

    /// What it is connected to, as query-chardev tells: `pty:/dev/pts/3`,
    /// `unix:/run/x,server`.
    pub fn filename(&self) -> String {
        self.port.read().filename.lock().clone()
    }

    /// Ends it: what `write` took is on its way to the peer, the terminal is
    /// put right, the peer sees the end, and the front end is let go of without
    /// further calls. Files and sockets made on the file system stay. What is
    /// written later is discarded.
    pub fn close(&self) {
        self.port().close();
    }
}

impl Drop for Chardev {
    fn drop(&mut self) {
        self.close();
    }
}
