//! Moving bytes between a descriptor and a port, without blocking or spinning.
//!
//! On the chardev's loop, no lock of its own. A peer gets one read of [`CHUNK`] bytes at most
//! before the rest of the loop has a turn.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use resources::iol::{Either, Local, Watch, race};

use super::port::{Port, Sink, Taker};
use super::{Size, winsize};

/// A watched descriptor. Shared, for the sink of the port has it as well.
pub(super) type Stream = Watch<Arc<OwnedFd>>;

/// Input taken from a peer at a time, before the rest of the loop has a turn.
const CHUNK: usize = 4096;

/// Output by `write(2)`: files, pipes, terminals.
pub(super) struct FdSink(pub(super) Arc<OwnedFd>);

impl Sink for FdSink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.0, data)?)
    }

    fn fd(&self) -> Option<Arc<OwnedFd>> {
        Some(self.0.clone())
    }

    fn size(&self) -> Option<Size> {
        winsize::of(&self.0)
    }
}

/// Input by `read(2)`.
pub(super) fn read(fd: &OwnedFd, buf: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::read(fd, buf)?)
}

/// Delivers what `read` finds on `input` for as long as the front end takes it,
/// and tells it when `output`, once full, has room. Returns at the end of the
/// input: `Ok` or the error met.
///
/// A peer that has hung up while the front end has no room for what it left is
/// kept until there is room, or until `give_up` completes.
pub(super) async fn pump(
    local: &Local,
    port: &Port,
    input: &Stream,
    output: &Stream,
    read: impl FnMut(&OwnedFd, &mut [u8]) -> io::Result<usize>,
    give_up: impl AsyncFn(),
) -> io::Result<()> {
    match race(receive(local, port, input, read, give_up), send(port, output)).await {
        Either::Left(result) => result,
        Either::Right(never) => match never {},
    }
}

async fn receive(
    local: &Local,
    port: &Port,
    input: &Stream,
    mut read: impl FnMut(&OwnedFd, &mut [u8]) -> io::Result<usize>,
    give_up: impl AsyncFn(),
) -> io::Result<()> {
    loop {
        let taker = port.taker();
        let room = taker.room.min(CHUNK);
        if room == 0 {
            let abandoned = async {
                input.hung_up().await;
                give_up().await;
            };
            if !port.wait_for_room(abandoned).await {
                return Ok(());
            }
            continue;
        }
        // Nothing is awaited between the question for room and the delivery.
        match deliver(&taker, input.get(), room, &mut read) {
            Ok(0) => return answered(local, port, give_up).await,
            Ok(_) => local.yield_now().await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => input.readable().await,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads up to `room` bytes and delivers them; gives their number. The buffer is here, so that a
/// peer that is waited for takes none.
fn deliver(
    taker: &Taker,
    fd: &OwnedFd,
    room: usize,
    read: &mut impl FnMut(&OwnedFd, &mut [u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut buf = [0; CHUNK];
    let chunk = buf.get_mut(..room).unwrap_or_default();
    let count = read(fd, chunk)?;
    taker.deliver(chunk.get(..count).unwrap_or_default());
    Ok(count)
}

/// Waits at the end of the input until the front end has answered it: the peer may have closed
/// but one direction. One that is gone takes no output, which counts as answered. One that does
/// not read has a second when another wants its place.
async fn answered(local: &Local, port: &Port, give_up: impl AsyncFn()) -> io::Result<()> {
    while port.owes_output() {
        let abandoned = async {
            give_up().await;
            local.sleep(Duration::from_secs(1)).await;
        };
        if !port.wait_for_room(abandoned).await {
            break;
        }
    }
    Ok(())
}

/// Calls the front end whenever output that was full has room.
pub(super) async fn send(port: &Port, output: &Stream) -> std::convert::Infallible {
    loop {
        port.blocked.notified().await;
        output.writable().await;
        port.drained();
    }
}
