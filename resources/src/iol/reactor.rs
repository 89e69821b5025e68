//! Readiness of file descriptors, by epoll.
//!
//! Level-triggered: a wait for readiness looks at the descriptor's state, not
//! at changes since. The interest of a watch is kept in epoll after its waiter
//! was woken, and taken out only when readiness is reported that nobody waits
//! for. So a task that reads until it would block and waits again costs no
//! `epoll_ctl`, while one that stops reading is reported once and no more.
//!
//! On the loop's thread, no lock. Peers can make descriptors ready as often as they like: each turn
//! handles at most [`EVENTS`] of them.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

/// What to wait for on a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Input, end of file, or an error to be read.
    Read,
    /// Room for output, or an error to be met when writing.
    Write,
    /// The peer has stopped sending, or is gone; there may be input left of it.
    Hangup,
}

/// Events handled per turn of the loop.
const EVENTS: usize = 64;

/// Tokens from here on belong to the loop itself; slots of watches are below.
const INTERNAL: u64 = 1 << 63;

pub(super) struct Reactor {
    epoll: Epoll,
    slots: RefCell<Slots>,
}

#[derive(Default)]
struct Slots {
    sources: Vec<Option<Rc<Source>>>,
    free: Vec<usize>,
    /// Slots freed since the last wait. An event already fetched may still name
    /// them, so they are used again only after the next one.
    freed: Vec<usize>,
}

struct Source {
    fd: RawFd,
    slot: u64,
    /// What epoll is asked to report; `None`: not in epoll.
    armed: Cell<Option<EventSet>>,
    sides: [Side; 3],
}

/// The events of each [`Direction`], in the order of `Source::sides`.
const INTERESTS: [EventSet; 3] = [EventSet::IN, EventSet::OUT, EventSet::READ_HANG_UP];

/// One direction of a watch.
#[derive(Default)]
struct Side {
    waiter: RefCell<Option<Waker>>,
    fired: Cell<bool>,
}

impl Side {
    fn waits(&self) -> bool {
        self.waiter.borrow().is_some()
    }

    fn fire(&self) {
        if let Some(waker) = self.waiter.take() {
            self.fired.set(true);
            waker.wake();
        }
    }
}

impl Reactor {
    pub(super) fn new(wake: &EventFd) -> io::Result<Reactor> {
        let reactor = Reactor { epoll: Epoll::new()?, slots: RefCell::default() };
        reactor.add_internal(wake)?;
        Ok(reactor)
    }

    /// Adds a descriptor that only ends the wait, at each rise of its readiness.
    pub(super) fn add_internal(&self, fd: &impl AsRawFd) -> io::Result<()> {
        let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, INTERNAL);
        self.epoll.ctl(ControlOperation::Add, fd.as_raw_fd(), event)
    }

    /// Fetches what is ready, waiting for something if `block`, and wakes tasks.
    pub(super) fn wait(&self, block: bool) {
        {
            let slots = &mut *self.slots.borrow_mut();
            slots.free.append(&mut slots.freed);
        }
        let mut events = [EpollEvent::default(); EVENTS];
        let count = match self.epoll.wait(if block { -1 } else { 0 }, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => {
                // Only a bad argument could do this. Do not spin on it.
                tracing::error!("epoll_wait: {error}");
                std::thread::sleep(std::time::Duration::from_millis(10));
                0
            }
        };
        for event in events.iter().take(count) {
            if event.data() & INTERNAL == 0 {
                self.ready(event.data(), event.event_set());
            }
        }
    }

    fn ready(&self, slot: u64, events: EventSet) {
        let source = {
            let slots = self.slots.borrow();
            usize::try_from(slot).ok().and_then(|s| slots.sources.get(s)?.clone())
        };
        let Some(source) = source else { return };
        let both = events.intersects(EventSet::ERROR | EventSet::HANG_UP);
        let mut unwanted = EventSet::empty();
        for (side, interest) in source.sides.iter().zip(INTERESTS) {
            if events.contains(interest) && !side.waits() {
                unwanted |= interest;
            }
            if events.contains(interest) || both {
                side.fire();
            }
        }
        let armed = source.armed.get().unwrap_or(EventSet::empty());
        if both {
            // Reported even when not asked for: out of epoll until the next wait.
            self.set(&source, None);
        } else if !unwanted.is_empty() {
            self.set(&source, Some(armed - unwanted).filter(|left| !left.is_empty()));
        }
    }

    /// Makes epoll watch for `want`; `None` takes the descriptor out. False
    /// when epoll refuses.
    fn set(&self, source: &Source, want: Option<EventSet>) -> bool {
        let (operation, events) = match (source.armed.get(), want) {
            (have, want) if have == want => return true,
            (None, Some(events)) => (ControlOperation::Add, events),
            (Some(_), Some(events)) => (ControlOperation::Modify, events),
            (_, None) => (ControlOperation::Delete, EventSet::empty()),
        };
        let done = self.epoll.ctl(operation, source.fd, EpollEvent::new(events, source.slot));
        source.armed.set(want.filter(|_| done.is_ok()));
        done.is_ok()
    }

    fn add(&self, fd: RawFd) -> Rc<Source> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.free.pop().unwrap_or_else(|| {
            slots.sources.push(None);
            slots.sources.len() - 1
        });
        let source = Rc::new(Source {
            fd,
            slot: slot as u64,
            armed: Cell::new(None),
            sides: Default::default(),
        });
        slots.sources[slot] = Some(source.clone());
        source
    }

    fn remove(&self, source: &Source) {
        self.set(source, None);
        let mut slots = self.slots.borrow_mut();
        let slot = source.slot as usize;
        slots.sources[slot] = None;
        slots.freed.push(slot);
    }
}

/// A descriptor whose readiness a task can wait for.
///
/// One task may wait per [`Direction`]; a second one takes the first one's
/// place. A descriptor is watched once at a time: tasks share the watch. Dropping a wait is harmless, dropping the watch drops `T`. To keep
/// using a descriptor afterwards, watch an `Rc` or `Arc` of it.
pub struct Watch<T: AsRawFd> {
    io: T,
    reactor: Rc<Reactor>,
    source: Rc<Source>,
}

impl<T: AsRawFd> Watch<T> {
    pub(super) fn new(reactor: Rc<Reactor>, io: T) -> io::Result<Watch<T>> {
        let fd = io.as_raw_fd();
        if fd < 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let source = reactor.add(fd);
        Ok(Watch { io, reactor, source })
    }

    /// The watched object.
    pub fn get(&self) -> &T {
        &self.io
    }

    /// Completes when reading would not block.
    pub async fn readable(&self) {
        self.ready(Direction::Read).await;
    }

    /// Completes when writing would not block.
    pub async fn writable(&self) {
        self.ready(Direction::Write).await;
    }

    /// Completes when the peer has stopped sending or is gone; input it sent
    /// before may be left to read.
    pub async fn hung_up(&self) {
        self.ready(Direction::Hangup).await;
    }

    /// Completes when `direction` would not block. Like every readiness it is
    /// a hint: the operation may still report that it would block.
    pub fn ready(&self, direction: Direction) -> impl Future<Output = ()> + '_ {
        Ready { reactor: &self.reactor, source: &self.source, direction }
    }

    /// Tries `operation` until it does something else than report
    /// [`io::ErrorKind::WouldBlock`], waiting for readiness in between. Does not
    /// yield when the first try succeeds: a task that may find more to do
    /// forever should yield by itself.
    ///
    /// # Errors
    /// Those of `operation`.
    pub async fn io<R>(
        &self,
        direction: Direction,
        mut operation: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            match operation(&self.io) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => return result,
            }
            self.ready(direction).await;
        }
    }
}

impl Watch<EventFd> {
    /// Waits until the eventfd is signalled; returns its count and clears it.
    ///
    /// # Errors
    /// When the descriptor is not a readable, non-blocking eventfd.
    pub async fn count(&self) -> io::Result<u64> {
        self.io(Direction::Read, EventFd::read).await
    }
}

impl<T: AsRawFd> Drop for Watch<T> {
    fn drop(&mut self) {
        // Before the descriptor closes: epoll would go on reporting it if the
        // same open file is held by someone else, another process perhaps.
        self.reactor.remove(&self.source);
    }
}

struct Ready<'a> {
    reactor: &'a Reactor,
    source: &'a Source,
    direction: Direction,
}

impl Ready<'_> {
    fn side(&self) -> (&Side, EventSet) {
        let index = self.direction as usize;
        (&self.source.sides[index], INTERESTS[index])
    }
}

impl Future for Ready<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (side, interest) = self.side();
        if side.fired.take() {
            return Poll::Ready(());
        }
        let armed = self.source.armed.get().unwrap_or(EventSet::empty());
        if !self.reactor.set(self.source, Some(armed | interest)) {
            // A regular file, which never makes one wait, or the kernel is out
            // of memory for watches: ready with the next turn of the loop.
            side.fired.set(true);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        *side.waiter.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Ready<'_> {
    fn drop(&mut self) {
        let (side, _) = self.side();
        side.waiter.take();
        side.fired.set(false);
    }
}
