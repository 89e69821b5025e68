//! The back end that is connected to nothing.
//!
//! No thread, no lock, no peer.

use std::io;
use std::sync::Arc;

use super::CharError;
use super::port::{Port, Sink};

/// Options of the null back end: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Null;

impl Null {
    pub(super) fn open(self, port: &Arc<Port>) -> Result<(), CharError> {
        port.opened(Box::new(self));
        Ok(())
    }
}

impl Sink for Null {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(data.len())
    }
}
