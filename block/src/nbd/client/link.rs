//! The connection of a client, which is lost and made anew.
//!
//! On the client's loop, no lock. A server that accepts connections and loses each of them at once
//! costs one attempt in a second, and what waits for it as long as `reconnect-delay`.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use resources::iol::{Either, race};

use super::connection::Connection;
use super::{Client, PAUSE, connect};
use crate::nbd::wire::flag;

/// Where a client stands with its server.
pub(super) enum Link {
    Up(Rc<Connection>),
    /// Lost then, and being made anew.
    Down(Instant),
    Closed,
}

impl Client {
    /// Makes the connection anew when it is lost, for as long as the client lives.
    pub(super) fn watch(&self, connection: Rc<Connection>) {
        let (me, local) = (self.me.clone(), self.local.clone());
        let task = async move {
            let mut connection = connection;
            let mut brief = 0u32;
            loop {
                let began = Instant::now();
                connection.until_lost().await;
                drop(connection);
                match me.upgrade() {
                    Some(client) if client.goes_down() => {}
                    _ => return,
                }
                // What is lost at once each time is not made anew at once each time.
                brief = if began.elapsed() < PAUSE.0 { brief.saturating_add(1) } else { 0 };
                if brief > 1 {
                    local.sleep(PAUSE.0).await;
                }
                let mut pause = PAUSE.0;
                connection = loop {
                    let Some(client) = me.upgrade() else { return };
                    match client.again().await {
                        Ok(connection) => break connection,
                        Err(error) => tracing::debug!("{}: {error}", client.target),
                    }
                    drop(client);
                    local.sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                };
            }
        };
        self.local.spawn(task).detach();
    }

    /// The connection is lost; false when nobody wants another one.
    fn goes_down(&self) -> bool {
        let mut link = self.link.borrow_mut();
        let open = matches!(*link, Link::Up(_));
        if open {
            tracing::warn!("{}: the connection is lost", self.target);
            *link = Link::Down(Instant::now());
        }
        open
    }

    /// Connects once more, to the same disk.
    async fn again(&self) -> io::Result<Rc<Connection>> {
        let connection = connect(&self.local, &self.target, &self.options).await?;
        let facts = &connection.facts;
        if facts.size != self.size.get() || facts.has(flag::READ_ONLY) && !self.read_only.get() {
            connection.leave().await;
            return Err(io::Error::other("the export is not what it was before"));
        }
        if matches!(*self.link.borrow(), Link::Closed) {
            connection.leave().await;
            return Err(io::ErrorKind::NotConnected.into());
        }
        *self.link.borrow_mut() = Link::Up(connection.clone());
        self.given_up.set(false);
        self.waiters.wake();
        Ok(connection)
    }

    /// The connection, when there is one, which is waited for until `reconnect-delay` after
    /// `lost`; without that, after the connection was lost.
    pub(super) async fn connection(&self, lost: Option<Instant>) -> io::Result<Rc<Connection>> {
        let gone = || io::Error::from_raw_os_error(libc::EIO);
        let now = || match &*self.link.borrow() {
            Link::Up(connection) if !connection.is_lost() => Some(Ok(connection.clone())),
            Link::Closed => Some(Err(gone())),
            _ if self.given_up.get() => Some(Err(gone())),
            _ => None,
        };
        if let Some(connection) = now() {
            return connection;
        }
        let since = match (lost, &*self.link.borrow()) {
            (Some(lost), _) => lost,
            (None, Link::Down(since)) => *since,
            _ => Instant::now(),
        };
        let end = since.checked_add(self.options.reconnect_delay).ok_or_else(gone)?;
        if end <= Instant::now() {
            return Err(gone());
        }
        let back = self.waiters.until(|| now().is_some());
        match race(back, self.local.sleep_until(end)).await {
            Either::Left(()) => now().unwrap_or_else(|| Err(gone())),
            Either::Right(()) => Err(gone()),
        }
    }

    /// Somebody cannot wait any longer for a server that has not answered, or has not been there,
    /// for so long.
    pub(super) fn give_up(&self, silence: Duration) {
        match &*self.link.borrow() {
            Link::Up(connection) if connection.is_silent(silence) => connection.fail(),
            Link::Down(since) if since.elapsed() >= silence => {}
            _ => return,
        }
        if !self.given_up.replace(true) {
            tracing::warn!("{}: the server does not answer and is not waited for", self.target);
        }
        self.waiters.wake();
    }
}
