//! All clients of the machine protocol, and the order of what they are told.
//!
//! Runs on the main thread without locks; hostile clients reach it through
//! [`crate::session`].
//!
//! The order, which clients rely on:
//! - an event that a handler raises is sent before the handler's reply: `stop`
//!   gives STOP, then its return;
//! - what a handler only asks for comes after the reply, because the main loop
//!   does it after [`Monitors::serve_one`]: `quit` gives its return, then
//!   SHUTDOWN. That is why requests are served one at a time: the second of two
//!   requests in one write must see what the first asked for;
//! - an event goes to every session that has finished negotiating, the most
//!   recently made monitor first;
//! - events with a rate limit are limited once for all sessions;
//! - a request whose answer takes long is answered later ([`Context::later`]), and one that cannot
//!   be carried out yet waits ([`Host::must_wait`]): nothing else of that client is looked at before,
//!   but events go on, and so do all other clients.
//!
//! The main loop, each time it wakes:
//! 1. for each monitor whose socket has input while it [`Monitors::wants_input`]:
//!    read at most a few KiB and [`Monitors::feed`] them;
//! 2. while [`Monitors::serve_one`] says that a request was run: do what was
//!    asked for, then [`Monitors::deliver`];
//! 3. [`Monitors::deliver`] what devices raised;
//! 4. for each monitor: send [`Monitors::output`] as far as the socket takes it,
//!    and tell by [`Monitors::sent`]; close those that are overrun;
//! 5. sleep until [`Monitors::deadline`] at most.

use crate::event::{Raised, Throttle};
use crate::session::{Request, Session};
use crate::{Commands, Event, QmpError, VersionInfo, dispatch};
use serde_json::Value;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Names a monitor: the thing made by `-qmp`, which outlives its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MonitorId(u64);

impl MonitorId {
    /// One that no other monitor of the process has, of whatever kind.
    pub fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Names an answer that is given later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

impl Ticket {
    /// One that names no other answer of the process.
    pub fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What is driven: carries out every command, and keeps a [`Context`].
pub trait Host: Commands {
    /// Where handlers raise events and learn who asks.
    fn context(&mut self) -> &mut Context;

    /// Whether a request cannot be carried out yet. It is asked again each time that its client is
    /// served.
    fn must_wait(&self, request: &Request) -> bool {
        let _ = request;
        false
    }
}

/// What handlers need besides their arguments. The host owns one.
#[derive(Debug, Default)]
pub struct Context {
    /// Events raised and not yet delivered, oldest first.
    pub events: Vec<Raised>,
    /// Who asks, while a request is run.
    pub monitor: Option<MonitorId>,
    /// The descriptor that waits in that monitor's mailbox, while a request is
    /// run. A handler that takes it owns it.
    pub fd: Option<OwnedFd>,
    /// The request that is run is answered later, by [`Monitors::answer`], not with what its
    /// handler returns.
    pub later: Option<Ticket>,
}

impl Context {
    /// Raises an event, which happens now.
    pub fn raise(&mut self, event: Event) {
        self.events.push(Raised::now(event));
    }
}

/// Every monitor and its session, if a client is connected.
#[derive(Debug, Default)]
pub struct Monitors {
    /// In the order in which they were made.
    all: Vec<Monitor>,
    throttle: Throttle,
}

#[derive(Debug)]
struct Monitor {
    id: MonitorId,
    pretty: bool,
    session: Option<Session>,
}

impl Monitors {
    /// No monitor.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a monitor, without a client.
    pub fn add(&mut self, pretty: bool) -> MonitorId {
        let id = MonitorId::unique();
        self.all.push(Monitor { id, pretty, session: None });
        id
    }

    /// Ends a monitor.
    pub fn remove(&mut self, id: MonitorId) {
        self.all.retain(|monitor| monitor.id != id);
    }

    /// A client has connected, in place of any before: it is greeted.
    pub fn connect(&mut self, id: MonitorId, version: &VersionInfo) {
        if let Some(monitor) = self.monitor(id) {
            monitor.session = Some(Session::new(version, monitor.pretty));
        }
    }

    /// The client has gone; what it had not sent whole is dropped.
    pub fn disconnect(&mut self, id: MonitorId) {
        if let Some(monitor) = self.monitor(id) {
            monitor.session = None;
        }
    }

    fn monitor(&mut self, id: MonitorId) -> Option<&mut Monitor> {
        self.all.iter_mut().find(|monitor| monitor.id == id)
    }

    /// The session of a monitor whose client is connected.
    pub fn session(&mut self, id: MonitorId) -> Option<&mut Session> {
        self.monitor(id)?.session.as_mut()
    }

    /// [`Session::wants_input`]; `false` without a client.
    pub fn wants_input(&mut self, id: MonitorId) -> bool {
        self.session(id).is_some_and(|session| session.wants_input())
    }

    /// [`Session::feed`], with the descriptor that came along.
    pub fn feed(&mut self, id: MonitorId, bytes: &[u8], fd: Option<OwnedFd>) {
        if let Some(session) = self.session(id) {
            if let Some(fd) = fd {
                session.push_fd(fd);
            }
            session.feed(bytes);
        }
    }

    /// [`Session::output`]; empty without a client.
    pub fn output(&mut self, id: MonitorId) -> &[u8] {
        self.session(id).map(|session| session.output()).unwrap_or_default()
    }

    /// [`Session::sent`].
    pub fn sent(&mut self, id: MonitorId, count: usize) {
        if let Some(session) = self.session(id) {
            session.sent(count);
        }
    }

    /// Runs the monitor's next request, if one is whole and its client reads.
    /// `true`: it did, and there may be another.
    pub fn serve_one<H: Host>(&mut self, id: MonitorId, host: &mut H, now: Instant) -> bool {
        let Some(session) = self.session(id) else { return false };
        let Some(request) = session.next_request() else { return false };
        if host.must_wait(&request) {
            session.park(request);
            return false;
        }

        let context = host.context();
        context.monitor = Some(id);
        context.fd = session.take_fd();
        let result = dispatch(host, &request.name, request.arguments);
        let context = host.context();
        context.monitor = None;
        let later = context.later.take();
        let fd = context.fd.take();

        self.deliver(host, now);
        if let Some(session) = self.session(id) {
            if let Some(fd) = fd {
                session.untake_fd(fd);
            }
            match later {
                Some(ticket) if result.is_ok() => session.await_answer(ticket, request.id),
                _ => session.reply(request.id, result),
            }
        }
        true
    }

    /// Answers a request that was to be answered later. `false`: no client waits for it.
    pub fn answer(&mut self, ticket: Ticket, result: Result<Value, QmpError>) -> bool {
        let mut sessions = self.all.iter_mut().filter_map(|monitor| monitor.session.as_mut());
        let Some(session) = sessions.find(|session| session.awaits() == Some(ticket)) else {
            return false;
        };
        session.answer(result);
        true
    }

    /// Sends the events that the host has raised, and those whose rate limit has
    /// run out.
    pub fn deliver<H: Host>(&mut self, host: &mut H, now: Instant) {
        for raised in std::mem::take(&mut host.context().events) {
            if let Some(raised) = self.throttle.offer(raised, now) {
                self.broadcast(&raised);
            }
        }
        for raised in self.throttle.due(now) {
            self.broadcast(&raised);
        }
    }

    fn broadcast(&mut self, raised: &Raised) {
        for monitor in self.all.iter_mut().rev() {
            if let Some(session) = &mut monitor.session {
                session.event(raised);
            }
        }
    }

    /// When [`Self::deliver`] has something to do even if nothing is raised.
    pub fn deadline(&self) -> Option<Instant> {
        self.throttle.deadline()
    }
}

#[cfg(test)]
mod tests;
