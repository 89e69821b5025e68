//! The server: exports by name, and the clients that use them.
//!
//! A client is accepted and negotiates on the loop that listens; then its connection moves to the
//! loop of the disk it has chosen, and again when that disk moves. Fixed newstyle negotiation with
//! structured replies; where there is TLS, nothing but that is answered without it.
//!
//! Any thread adds and removes exports and ends clients, which is done by shutting their sockets
//! down: whatever their tasks wait for then ends. A leaf mutex around the tables. A client that
//! lies, stalls or vanishes holds its own connection, [`IN_FLIGHT`] requests and [`IN_MEMORY`]
//! bytes; how many may be there is the server's limit.

mod handshake;
mod status;
mod transmit;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use resources::iol::{Direction, Either, Local, Notify, Remote, race};
use resources::tls;
use rustix::net::{SocketFlags, accept_with, sockopt};

use super::stream;
use super::wire::flag;
use crate::disk::Disk;
use handshake::Chosen;
pub use status::Bitmap;

/// Requests of one client that are under way at once.
pub const IN_FLIGHT: usize = 16;
/// Bytes of payload of one client that are in memory at once; a single request may have so many.
pub const IN_MEMORY: usize = 32 << 20;
/// How long negotiation may take.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// How long nobody is accepted when the process is out of descriptors.
const RECOVER: Duration = Duration::from_millis(100);

/// Finds a disk and its loop; `None` when there is none any more.
pub type Place = dyn Fn() -> Option<Arc<Remote<Disk>>> + Send + Sync;
/// Finds a dirty bitmap on the loop of its disk.
pub type FindBitmap = dyn Fn(&Local) -> Option<Rc<dyn Bitmap>> + Send + Sync;

/// A disk that clients can use by a name.
pub struct Export {
    name: String,
    description: Option<String>,
    place: Box<Place>,
    size: AtomicU64,
    writable: bool,
    multi_conn: bool,
    resizable: bool,
    allocation_depth: bool,
    bitmaps: Vec<(String, Box<FindBitmap>)>,
}

impl Export {
    /// An export of `size` bytes that nobody can write. `place` finds the disk.
    pub fn new(
        name: &str,
        size: u64,
        place: impl Fn() -> Option<Arc<Remote<Disk>>> + Send + Sync + 'static,
    ) -> Export {
        Export {
            name: name.to_owned(),
            description: None,
            place: Box::new(place),
            size: AtomicU64::new(size),
            writable: false,
            multi_conn: false,
            resizable: false,
            allocation_depth: false,
            bitmaps: Vec::new(),
        }
    }

    /// Lets clients write.
    #[must_use]
    pub fn writable(mut self, writable: bool) -> Export {
        self.writable = writable;
        self
    }

    /// Tells clients that they may use several connections: their flushes are common.
    #[must_use]
    pub fn multi_conn(mut self, multi_conn: bool) -> Export {
        self.multi_conn = multi_conn;
        self
    }

    /// Lets clients that may write change the size.
    #[must_use]
    pub fn resizable(mut self, resizable: bool) -> Export {
        self.resizable = resizable;
        self
    }

    /// Offers the context `qemu:allocation-depth`.
    #[must_use]
    pub fn allocation_depth(mut self, offered: bool) -> Export {
        self.allocation_depth = offered;
        self
    }

    /// A text for people.
    #[must_use]
    pub fn description(mut self, text: Option<String>) -> Export {
        self.description = text;
        self
    }

    /// Offers a dirty bitmap as the context `qemu:dirty-bitmap:NAME`.
    #[must_use]
    pub fn bitmap(
        mut self,
        name: &str,
        find: impl Fn(&Local) -> Option<Rc<dyn Bitmap>> + Send + Sync + 'static,
    ) -> Export {
        self.bitmaps.push((name.to_owned(), Box::new(find)));
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> u64 {
        self.size.load(Relaxed)
    }

    /// The transmission flags.
    fn flags(&self, structured: bool) -> u16 {
        let mut flags = flag::HAS_FLAGS
            | flag::SEND_FLUSH
            | flag::SEND_FUA
            | flag::SEND_TRIM
            | flag::SEND_WRITE_ZEROES
            | flag::SEND_CACHE
            | flag::SEND_FAST_ZERO;
        let more = [
            (!self.writable, flag::READ_ONLY),
            (structured, flag::SEND_DF),
            (self.multi_conn, flag::CAN_MULTI_CONN),
            (self.resizable && self.writable, flag::SEND_RESIZE),
        ];
        more.into_iter().filter(|(is, _)| *is).for_each(|(_, flag)| flags |= flag);
        flags
    }
}

/// A server. Clones are the same one.
#[derive(Clone)]
pub struct Server(Arc<Shared>);

struct Shared {
    exports: Mutex<BTreeMap<String, Arc<Export>>>,
    clients: Mutex<Clients>,
    most: usize,
    tls: Option<tls::Server>,
    /// A client has gone, or the server is to end.
    changed: Notify,
}

#[derive(Default)]
struct Clients {
    next: u64,
    stopped: bool,
    /// Sockets, with the export they use once they do.
    all: BTreeMap<u64, (Arc<OwnedFd>, Option<Arc<Export>>)>,
    /// Those that got through negotiation, since the beginning.
    served: u64,
}

/// There is an export of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is an export '{0}' already")]
pub struct Exists(pub String);

impl Server {
    /// A server without exports that takes so many clients at once; others wait.
    pub fn new(most: usize) -> Server {
        Server::with_tls(most, None)
    }

    /// As [`new`](Self::new); with `tls` for clients who speak that, and show what it wants.
    pub fn with_tls(most: usize, tls: Option<tls::Server>) -> Server {
        Server(Arc::new(Shared {
            exports: Mutex::default(),
            clients: Mutex::default(),
            most,
            tls,
            changed: Notify::new(),
        }))
    }

    /// Offers an export.
    ///
    /// # Errors
    /// When there is one of that name.
    pub fn add(&self, export: Export) -> Result<(), Exists> {
        let mut exports = self.0.exports.lock();
        if exports.contains_key(&export.name) {
            return Err(Exists(export.name));
        }
        exports.insert(export.name.clone(), Arc::new(export));
        Ok(())
    }

    /// Whether there is an export of that name.
    pub fn has(&self, name: &str) -> bool {
        self.0.exports.lock().contains_key(name)
    }

    /// Takes an export away and ends its clients. False if there is none.
    pub fn remove(&self, name: &str) -> bool {
        let Some(export) = self.0.exports.lock().remove(name) else { return false };
        let clients = self.0.clients.lock();
        let uses = |used: &Option<Arc<Export>>| {
            used.as_ref().is_some_and(|used| Arc::ptr_eq(used, &export))
        };
        clients.all.values().filter(|(_, used)| uses(used)).for_each(|(fd, _)| stream::cut(fd));
        true
    }

    /// Takes all exports away, ends all clients and accepts no more.
    pub fn stop(&self) {
        self.0.exports.lock().clear();
        {
            let mut clients = self.0.clients.lock();
            clients.stopped = true;
            clients.all.values().for_each(|(fd, _)| stream::cut(fd));
        }
        self.0.changed.notify();
    }

    /// How many clients are there, and how many have been that got through negotiation.
    pub fn clients(&self) -> (usize, u64) {
        let clients = self.0.clients.lock();
        (clients.all.len(), clients.served)
    }

    /// Accepts clients until [`stop`](Self::stop). `gone` is called, on any thread, whenever a
    /// client has gone. At most one task may listen.
    ///
    /// # Errors
    /// When the socket cannot be listened to.
    pub async fn listen(
        &self,
        local: &Local,
        listener: OwnedFd,
        gone: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&listener, true)?;
        let listener = local.watch(listener)?;
        let gone: Arc<dyn Fn() + Send + Sync> = Arc::new(gone);
        loop {
            let (full, stopped) = {
                let clients = self.0.clients.lock();
                (clients.all.len() >= self.0.most, clients.stopped)
            };
            if stopped {
                return Ok(());
            }
            if full {
                self.0.changed.notified().await;
                continue;
            }
            let accept = listener.io(Direction::Read, |listener| {
                Ok(accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)
            });
            match race(self.0.changed.notified(), accept).await {
                Either::Left(()) => {}
                Either::Right(Ok(socket)) => self.serve(local, socket, gone.clone()),
                Either::Right(Err(error)) => {
                    tracing::debug!("an NBD client could not be accepted: {error}");
                    local.sleep(RECOVER).await;
                }
            }
        }
    }

    /// Serves a client that has connected, by tasks of its own.
    pub fn serve(&self, local: &Local, socket: OwnedFd, gone: Arc<dyn Fn() + Send + Sync>) {
        // Fails, rightly, on what is not TCP.
        let _ = sockopt::set_tcp_nodelay(&socket, true);
        let _ = sockopt::set_socket_keepalive(&socket, true);
        stream::widen(&socket);
        let fd = Arc::new(socket);
        let id = {
            let mut clients = self.0.clients.lock();
            if clients.stopped {
                return;
            }
            clients.next += 1;
            let id = clients.next;
            clients.all.insert(id, (fd.clone(), None));
            id
        };
        let client = Client { server: self.clone(), id, fd, gone };
        let task = client.begin(local.clone());
        local.spawn(task).detach();
    }
}

/// A client; it is gone when this is dropped.
struct Client {
    server: Server,
    id: u64,
    fd: Arc<OwnedFd>,
    gone: Arc<dyn Fn() + Send + Sync>,
}

impl Client {
    async fn begin(mut self, local: Local) {
        let chosen = {
            let negotiation = handshake::negotiate(&local, &self.server, self.fd.clone());
            match race(negotiation, local.sleep(HANDSHAKE)).await {
                Either::Left(Ok(chosen)) => chosen,
                Either::Left(Err(error)) => {
                    tracing::debug!("negotiation with an NBD client ended: {error}");
                    None
                }
                Either::Right(()) => None,
            }
        };
        let Some((chosen, ahead, within)) = chosen else { return };
        // The socket that was accepted stays in the table: cutting that ends everything.
        self.fd = within.unwrap_or(self.fd.clone());
        {
            let mut clients = self.server.0.clients.lock();
            clients.served += 1;
            if let Some((_, used)) = clients.all.get_mut(&self.id) {
                *used = Some(chosen.export.clone());
            }
        }
        // It may have been removed before the client was known as its user.
        let exports = self.server.0.exports.lock();
        let there = exports.get(chosen.export.name());
        let there = there.is_some_and(|export| Arc::ptr_eq(export, &chosen.export));
        drop(exports);
        if there {
            self.go_on(chosen, ahead);
        }
    }

    /// Serves requests on the loop where the disk is now; `ahead` was read already.
    fn go_on(self, chosen: Chosen, ahead: Vec<u8>) {
        let Some(disk) = (chosen.export.place)() else { return };
        disk.handle().clone().spawn(move |local| async move {
            match transmit::serve(&local, self.fd.clone(), &chosen, &ahead).await {
                Ok(Some(ahead)) => self.go_on(chosen, ahead),
                Ok(None) => {}
                Err(error) => tracing::debug!("an NBD client has gone: {error}"),
            }
        });
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        stream::cut(&self.fd);
        self.server.0.clients.lock().all.remove(&self.id);
        self.server.0.changed.notify();
        (self.gone)();
    }
}
