//! A ring buffer: the latest output, to be read later.
//!
//! Any thread, a leaf mutex. A guest that sends without end overwrites its own oldest bytes; memory
//! grows with what is written, up to the size that was asked for.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::port::{Port, Sink};
use super::{CharError, Extra};

/// The largest ring buffer in bytes.
const LARGEST: u64 = 1 << 30;

/// Options of the ringbuf back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ringbuf {
    /// Size in bytes, a power of two.
    pub size: u64,
    /// It was asked for as `memory`.
    pub memory: bool,
}

impl Default for Ringbuf {
    fn default() -> Ringbuf {
        Ringbuf { size: 65536, memory: false }
    }
}

impl Ringbuf {
    pub(super) fn kind(&self) -> &'static str {
        if self.memory { "memory" } else { "ringbuf" }
    }

    pub(super) fn open(self, port: &Arc<Port>) -> Result<(), CharError> {
        if !self.size.is_power_of_two() {
            let text = "size of ringbuf chardev must be power of two";
            return Err(CharError::Open(text.to_owned()));
        }
        let size = usize::try_from(self.size).ok().filter(|_| self.size <= LARGEST);
        let Some(size) = size else {
            let text = format!("size of ringbuf chardev must not exceed {LARGEST}");
            return Err(CharError::Open(text));
        };
        let ring = Arc::new(Ring { size, bytes: Mutex::default() });
        let _ = port.extra.set(Extra::Ring(ring.clone()));
        port.opened(Box::new(RingSink(ring)));
        Ok(())
    }
}

/// The memory of a ring buffer.
pub struct Ring {
    size: usize,
    bytes: Mutex<VecDeque<u8>>,
}

impl Ring {
    /// Adds bytes; the oldest go when it is full.
    pub fn write(&self, data: &[u8]) {
        let mut bytes = self.bytes.lock();
        let data = data.get(data.len().saturating_sub(self.size)..).unwrap_or_default();
        let over = bytes.len().saturating_add(data.len()).saturating_sub(self.size);
        let over = over.min(bytes.len());
        bytes.drain(..over);
        bytes.extend(data);
    }

    /// Takes out the oldest bytes, `most` at most.
    pub fn read(&self, most: usize) -> Vec<u8> {
        let mut bytes = self.bytes.lock();
        let count = most.min(bytes.len());
        bytes.drain(..count).collect()
    }
}

struct RingSink(Arc<Ring>);

impl Sink for RingSink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(data);
        Ok(data.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_bytes_go_first() {
        let ring = Ring { size: 8, bytes: Mutex::default() };
        ring.write(b"abcdef");
        assert_eq!(ring.read(2), b"ab");
        ring.write(b"ghij");
        assert_eq!(ring.read(100), b"cdefghij");
        ring.write(b"0123456789abcdef-");
        assert_eq!(ring.read(7), b"9abcdef");
        assert_eq!(ring.read(7), b"-");
        assert_eq!(ring.read(7), b"");
    }
}
