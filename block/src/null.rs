//! A disk that forgets what is written: for tests and measurements.
//!
//! On its loop, no lock.

use std::io;
use std::time::Duration;

use resources::iol::{IoBuf, Local};

use crate::node::{Extent, Info, Node, Op, State, Zero};

/// So many bytes of nothing. What is read is zero.
pub struct Null {
    size: u64,
    driver: &'static str,
    /// It may be told that there is nothing but zeros.
    zeroes: bool,
    latency: Option<(Local, Duration)>,
}

impl Null {
    /// So many bytes.
    pub fn new(size: u64) -> Null {
        Null { size, driver: "null-co", zeroes: true, latency: None }
    }

    /// As the drivers null-co and null-aio are opened: each request takes `latency` nanoseconds.
    pub fn with(
        local: &Local,
        driver: &'static str,
        size: u64,
        zeroes: bool,
        latency: u64,
    ) -> Null {
        let latency = (latency > 0).then(|| (local.clone(), Duration::from_nanos(latency)));
        Null { size, driver, zeroes, latency }
    }

    async fn within(&self, offset: u64, len: u64) -> io::Result<()> {
        if let Some((local, latency)) = &self.latency {
            local.sleep(*latency).await;
        }
        match offset.checked_add(len) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl Node for Null {
    fn info(&self) -> Info {
        Info { size: self.size, align: 1, sectors: None, discards: true, read_only: false }
    }

    fn read(&self, offset: u64, buf: IoBuf) -> Op<'_> {
        Box::pin(async move {
            self.within(offset, buf.len() as u64).await?;
            buf.fill(0);
            Ok(())
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, _: bool) -> Op<'_> {
        Box::pin(async move { self.within(offset, buf.len() as u64).await })
    }

    fn zero(&self, offset: u64, len: u64, _: Zero) -> Op<'_> {
        Box::pin(async move { self.within(offset, len).await })
    }

    fn discard(&self, offset: u64, len: u64) -> Op<'_> {
        Box::pin(async move { self.within(offset, len).await })
    }

    fn flush(&self) -> Op<'_> {
        Box::pin(async { self.within(0, 0).await })
    }

    fn map(&self, offset: u64, len: u64) -> Op<'_, Extent> {
        Box::pin(async move {
            let len = len.min(self.size.saturating_sub(offset));
            let state = if self.zeroes { State::Zero } else { State::Data };
            Ok(Extent { len, state, offset: None })
        })
    }

    fn driver(&self) -> &'static str {
        self.driver
    }

    fn filename(&self) -> Option<String> {
        Some(format!("{}://", self.driver))
    }
}
