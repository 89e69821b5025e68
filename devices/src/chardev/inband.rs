//! Input that has commands and marks between its data.
//!
//! On the chardev's loop, no lock. A hostile peer can send commands without end: they are dropped,
//! one read of them at a time, so that the rest of the loop has its turn in between.

use std::io;

/// What a byte of the input is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    Data,
    /// A part of a command or a mark.
    Command,
    /// The last byte of what means a break.
    Break,
}

/// Tells data from commands, one byte after the other.
pub(super) trait Inband {
    /// What the next byte of the input is.
    fn next(&mut self, byte: u8) -> Meaning;

    /// Moves the data bytes of `buf` to its front and returns how many there are; calls `on_break`
    /// for each break.
    fn strip(&mut self, buf: &mut [u8], mut on_break: impl FnMut()) -> usize {
        let mut kept = 0usize;
        for at in 0..buf.len() {
            let Some(byte) = buf.get(at).copied() else { break };
            match self.next(byte) {
                Meaning::Data => {
                    if let Some(to) = buf.get_mut(kept) {
                        *to = byte;
                    }
                    kept = kept.saturating_add(1);
                }
                Meaning::Command => {}
                Meaning::Break => on_break(),
            }
        }
        kept
    }
}

/// Reads by `read`, and strips what came, if there is something to strip it by. Where nothing is
/// left there is nothing to read now, which is not the end.
pub(super) fn read(
    inband: Option<&mut impl Inband>,
    buf: &mut [u8],
    on_break: impl FnMut(),
    read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    let count = read(buf)?;
    let Some(inband) = inband else { return Ok(count) };
    match inband.strip(buf.get_mut(..count).unwrap_or_default(), on_break) {
        0 if count > 0 => Err(io::ErrorKind::WouldBlock.into()),
        kept => Ok(kept),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Zeros are commands, and ones breaks.
    struct Numbers;

    impl Inband for Numbers {
        fn next(&mut self, byte: u8) -> Meaning {
            match byte {
                0 => Meaning::Command,
                1 => Meaning::Break,
                _ => Meaning::Data,
            }
        }
    }

    #[test]
    fn nothing_but_commands_is_neither_read_on_nor_the_end() {
        let (mut buf, mut breaks) = ([9; 4], 0);
        let mut give = |input: &[u8]| {
            let given = |buf: &mut [u8]| {
                buf[..input.len()].copy_from_slice(input);
                Ok(input.len())
            };
            let done = read(Some(&mut Numbers), &mut buf, || breaks += 1, given);
            done.map(|kept| buf[..kept].to_vec()).map_err(|error| error.kind())
        };
        assert_eq!(give(&[0, 0, 1]), Err(io::ErrorKind::WouldBlock));
        assert_eq!(give(&[0, 5, 0, 6]), Ok(vec![5, 6]));
        assert_eq!(give(&[]), Ok(vec![]));
        assert_eq!(breaks, 1);
        let whole = read(None::<&mut Numbers>, &mut buf, || (), |_| Ok(3));
        assert_eq!(whole.unwrap(), 3);
    }
}
