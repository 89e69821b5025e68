//! Fields of commands and of the pages that answer them, big-endian as everything in SCSI.
//!
//! Pure; any thread, no lock. Offsets past the end read as zero and write nothing, so that a short
//! command can reach no panic.

/// The big-endian number in `len` bytes from `at`; what lies past the end counts as zero.
pub(super) fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    (0..len.min(8)).fold(0, |value, index| {
        let byte = bytes.get(at.saturating_add(index)).copied().unwrap_or(0);
        value << 8 | u64::from(byte)
    })
}

/// One byte; past the end zero.
pub(super) fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

/// The big-endian number in two bytes from `at`.
pub(super) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([byte(bytes, at), byte(bytes, at.saturating_add(1))])
}

/// The length in the field of `len` bytes, up to 4, from `at`.
pub(super) fn length(bytes: &[u8], at: usize, len: usize) -> usize {
    usize::try_from(number(bytes, at, len.min(4))).unwrap_or(usize::MAX)
}

/// A page under construction, of a fixed length and zero to begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page(Vec<u8>);

impl Page {
    /// A page of `len` zeros.
    pub(super) fn new(len: usize) -> Page {
        Page(vec![0; len])
    }

    /// One byte.
    pub(super) fn byte(mut self, at: usize, value: u8) -> Page {
        if let Some(byte) = self.0.get_mut(at) {
            *byte = value;
        }
        self
    }

    /// Two bytes.
    pub(super) fn be16(self, at: usize, value: u16) -> Page {
        self.bytes(at, &value.to_be_bytes())
    }

    /// Four bytes.
    pub(super) fn be32(self, at: usize, value: u32) -> Page {
        self.bytes(at, &value.to_be_bytes())
    }

    /// Eight bytes.
    pub(super) fn be64(self, at: usize, value: u64) -> Page {
        self.bytes(at, &value.to_be_bytes())
    }

    /// Text in a field of `len` bytes, cut or padded by spaces.
    pub(super) fn text(mut self, at: usize, len: usize, text: &str) -> Page {
        let padded = text.bytes().chain(std::iter::repeat(b' '));
        for (byte, value) in self.0.iter_mut().skip(at).take(len).zip(padded) {
            *byte = value;
        }
        self
    }

    /// Several bytes.
    pub(super) fn bytes(mut self, at: usize, values: &[u8]) -> Page {
        for (byte, value) in self.0.iter_mut().skip(at).zip(values) {
            *byte = *value;
        }
        self
    }

    /// What was built.
    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// A length as the 32-bit field it goes into.
pub(super) fn be32_len(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// A length as the 16-bit field it goes into.
pub(super) fn be16_len(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

/// A length as the 8-bit field it goes into.
pub(super) fn byte_len(len: usize) -> u8 {
    u8::try_from(len).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_end_where_the_bytes_end() {
        assert_eq!(number(&[0, 0x12, 0x34], 1, 2), 0x1234);
        assert_eq!(number(&[0x12], 0, 2), 0x1200);
        assert_eq!(number(&[], 9, 8), 0);
        let page = Page::new(6).byte(0, 1).be32(4, 0x0102_0304).byte(9, 9).text(1, 3, "a");
        assert_eq!(page.done(), [1, b'a', b' ', b' ', 1, 2]);
    }
}
