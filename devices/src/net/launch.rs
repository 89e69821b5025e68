//! Programs of the host that bring interfaces up and down, and make them for those who may not.
//!
//! Main thread, which waits for them: a script as long as it runs, a helper no longer than
//! [`HELPER_TIME`]. Which program is run is the user's word, or a client's.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::options::OpenError;

/// Where the helper is, unless it is said.
pub(super) const HELPER: &str = "/usr/libexec/qemu-bridge-helper";

/// How long a helper may take.
const HELPER_TIME: Duration = Duration::from_secs(30);

/// Runs a script with the name of an interface as its one argument.
pub(super) fn script(path: &str, interface: &str) -> Result<(), OpenError> {
    match Command::new(path).arg(interface).stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            let failed = format!("network script {path} failed with {status}");
            Err(OpenError::Failed(failed))
        }
        Err(error) => {
            Err(OpenError::Failed(format!("could not launch network script {path}: {error}")))
        }
    }
}

/// Has a helper make an interface on a bridge; returns its descriptor. A helper with a space in its
/// name is a command line for the shell.
pub(super) fn helper(command: &str, bridge: Option<&str>) -> Result<OwnedFd, OpenError> {
    let failed = |why: &str| OpenError::Failed(format!("failed to launch bridge helper: {why}"));
    let (ours, theirs) = UnixStream::pair().map_err(|error| failed(&error.to_string()))?;
    // The socket is its standard input: nothing else of ours reaches it.
    let bridge = bridge.map(|name| format!("--br={name}"));
    let mut run = if command.contains([' ', '\t']) {
        let mut run = Command::new("/bin/sh");
        let whole = match bridge.filter(|_| !command.contains("--br=")) {
            Some(bridge) => format!("{command} --use-vnet --fd=0 {bridge}"),
            None => format!("{command} --use-vnet --fd=0"),
        };
        run.arg("-c").arg(whole);
        run
    } else {
        let mut run = Command::new(command);
        run.args(["--use-vnet", "--fd=0"]).args(bridge);
        run
    };
    let mut child = run
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .map_err(|error| failed(&format!("{command}: {error}")))?;
    // The command holds the other end of the socket.
    drop(run);
    let fd = ours.set_read_timeout(Some(HELPER_TIME)).and_then(|()| receive(&ours));
    if fd.is_err() {
        let _ = child.kill();
    }
    let status = child.wait();
    match (fd, status) {
        (Ok(Some(fd)), Ok(status)) if status.success() => Ok(fd),
        (Ok(_), Ok(status)) => Err(failed(&format!("{command}: {status}"))),
        (Err(error), _) | (_, Err(error)) => Err(failed(&format!("{command}: {error}"))),
    }
}

/// The descriptor that comes over a socket; `None` if the other end closes without sending one.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    let mut fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok(fds.next().and_then(|mut fds| fds.next()))
}
