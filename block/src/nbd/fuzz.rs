//! A hostile client and a hostile server, for fuzzing.
//!
//! Each says the bytes and then no more, and takes whatever is said to it. Nothing may panic, hang
//! or take memory without bound. Runs a loop of its own; no lock.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use resources::iol::{IoBuf, Local, Loop, Notify};
use rustix::net::{AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType};

use super::client::{Options, open_socket};
use super::server::{Export, Server};
use super::stream::{self, Reader};
use crate::disk::Disk;
use crate::memory::Memory;
use crate::node::{Node, Zero};

/// Bytes of the export.
const SIZE: usize = 64 << 10;
/// What is said at most, so that it fits into a socket.
const MOST: usize = 64 << 10;

/// A server hears `data` from its client.
pub fn client(data: &[u8]) {
    let Ok(mut the_loop) = Loop::new("fuzz") else { return };
    let local = the_loop.local().clone();
    the_loop.run(async {
        let Some(theirs) = says(&local, data) else { return };
        let server = Server::new(1);
        let disk = Disk::alone(Memory::new(vec![0; SIZE], SIZE as u64));
        let place = Arc::new(local.keep(disk));
        let export = Export::new("", SIZE as u64, move || Some(place.clone()));
        if server.add(export.writable(true).resizable(true)).is_err() {
            return;
        }
        let gone = Notify::new();
        let tell = gone.clone();
        server.serve(&local, theirs, Arc::new(move || tell.notify()));
        gone.notified().await;
    });
}

/// A client hears `data` from its server.
pub fn server(data: &[u8]) {
    let Ok(mut the_loop) = Loop::new("fuzz") else { return };
    let local = the_loop.local().clone();
    the_loop.run(async {
        let Some(theirs) = says(&local, data) else { return };
        let Ok(client) = open_socket(&local, theirs, "", Options::default()).await else { return };
        let buf = IoBuf::zeroed(1024);
        let _ = client.read(512, buf.clone()).await;
        let _ = client.map(0, SIZE as u64).await;
        let _ = client.write(1, buf, true).await;
        let _ = client.zero(0, 4096, Zero::Keep).await;
        let _ = client.discard(0, 4096).await;
        let _ = client.flush().await;
        let _ = client.close().await;
    });
}

/// The other end of a socket at whose end somebody says `data`.
fn says(local: &Local, data: &[u8]) -> Option<OwnedFd> {
    let pair = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    );
    let (ours, theirs) = pair.ok()?;
    let data = data.get(..data.len().min(MOST))?;
    rustix::net::send(&ours, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).ok()?;
    rustix::net::shutdown(&ours, Shutdown::Write).ok()?;
    let socket = stream::watch(local, Arc::new(ours)).ok()?;
    let takes = async move {
        let mut reader = Reader::new(Rc::clone(&socket));
        let _ = reader.skip(u64::MAX).await;
    };
    local.spawn(takes).detach();
    Some(theirs)
}
