//! Inside a nested host: the QMP socket of the VM, handed out over a virtio-serial port.
//!
//! Two threads copy, one per direction; each client of the port gets a connection of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use crate::rig::Result;
use crate::rig::qmp::connect;

/// How long the VM may take to open its socket.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is printed whenever a client may come. One that comes sooner after the last is taken for
/// the same: the port does not tell.
pub const WAITS: &str = "RELAY-WAITS";

/// Connects each client of `port` to the unix socket, until nobody listens there any more.
pub fn relay(port: &Path, socket: &Path) -> Result {
    let port = File::options().read(true).write(true).open(port)?;
    // The first connection also waits for the VM to come up.
    drop(connect(socket, PATIENCE)?);
    loop {
        println!("{WAITS}");
        while hung_up(&port)? {
            thread::sleep(Duration::from_millis(20));
        }
        let Ok(stream) = UnixStream::connect(socket) else { return Ok(()) };
        thread::scope(|scope| {
            scope.spawn(|| {
                // An end of either side ends both directions.
                let _ = copy(&port, &stream);
                let _ = stream.shutdown(Shutdown::Both);
            });
            let _ = copy(&stream, &port);
            let _ = stream.shutdown(Shutdown::Both);
        });
    }
}

/// Whether no client is connected to the port.
fn hung_up(port: &File) -> Result<bool> {
    let mut fds = [PollFd::new(port, PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now))?;
    Ok(fds[0].revents().contains(PollFlags::HUP))
}

fn copy(mut from: impl Read, mut to: impl Write) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count])?,
        }
    }
}
