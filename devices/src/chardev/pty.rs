//! A new pseudo-terminal, for a terminal program to open its other side.
//!
//! Opened by the main thread, served on the chardev's loop. Whoever opens the other side may send
//! anything and go away at any time.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use resources::iol::{Local, race};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::CharError;
use super::port::Port;
use super::stream::{self, FdSink};

/// How often to look for someone on the other side where the kernel does not
/// tell of the opening.
const LOOK: Duration = Duration::from_secs(1);

/// Options of the pty back end: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pty;

impl Pty {
    pub(super) fn open(self, port: &Arc<Port>) -> Result<(), CharError> {
        let (master, path) = make()
            .map_err(|error| CharError::create("Failed to create a pseudo-terminal", error))?;
        port.set_filename(format!("pty:{}", path.display()));
        port.spawn(move |local, port| serve(local, port, Arc::new(master), path));
        Ok(())
    }
}

/// A pseudo-terminal in raw mode that nobody has open on the other side.
fn make() -> io::Result<(OwnedFd, PathBuf)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let path = rustix::pty::ptsname(&master, Vec::new())?;
    // Opening and closing it once also makes the kernel report a hang-up until
    // someone opens it.
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    let mut settings = tcgetattr(&slave)?;
    settings.make_raw();
    tcsetattr(&slave, OptionalActions::Now, &settings)?;
    rustix::io::ioctl_fionbio(&master, true)?;
    Ok((master, PathBuf::from(path.to_string_lossy().into_owned())))
}

async fn serve(local: Local, port: Arc<Port>, master: Arc<OwnedFd>, path: PathBuf) {
    let opening = watch_opening(&path).and_then(|fd| local.watch(fd)).ok();
    let Ok(stream) = local.watch(master.clone()) else { return };
    loop {
        while hung_up(&master) {
            match &opening {
                Some(opening) => {
                    race(opening.readable(), local.sleep(LOOK)).await;
                    // Of no interest but for having come.
                    let _ = rustix::io::read(opening.get(), &mut [0; 256]);
                }
                None => local.sleep(LOOK).await,
            }
        }
        port.opened(Box::new(FdSink(master.clone())));
        // One who comes again finds what was left unread; nobody is kept waiting.
        let keep = async || std::future::pending().await;
        let end = stream::pump(&local, &port, &stream, &stream, stream::read, keep).await;
        tracing::debug!(label = port.label, ?end, "pseudo-terminal closed");
        port.closed();
    }
}

fn hung_up(master: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(master, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let polled = poll(&mut fds, Some(&now));
    let [fd] = fds;
    polled.is_ok() && fd.revents().contains(PollFlags::HUP)
}

/// A descriptor that becomes readable when someone opens `path`.
fn watch_opening(path: &PathBuf) -> io::Result<OwnedFd> {
    let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    inotify::add_watch(&fd, path, inotify::WatchFlags::OPEN)?;
    Ok(fd)
}
