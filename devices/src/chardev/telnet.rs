//! The telnet protocol (RFC 854), as much as a terminal session needs: offer
//! character mode and an 8-bit path, and take commands out of the input.
//!
//! On the chardev's loop, no lock. A hostile peer can send any commands: they are dropped without
//! being kept, and breaks are passed on.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::inband::{Inband, Meaning};
use super::port::Sink;

const IAC: u8 = 0xff;
const DO: u8 = 0xfd;
const WILL: u8 = 0xfb;
const BREAK: u8 = 0xf3;
/// Start and end of a subnegotiation.
const SB: u8 = 0xfa;
const SE: u8 = 0xf0;

/// Sent when a client connects: will echo, will suppress go-ahead, will and
/// do binary.
pub(super) const GREETING: [u8; 12] = [IAC, WILL, 1, IAC, WILL, 3, IAC, WILL, 0, IAC, DO, 0];

/// Where in a command the input is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Data,
    /// After IAC.
    Command,
    /// After IAC and a verb that names an option.
    Option,
    /// Within a subnegotiation.
    Sub,
    /// Within a subnegotiation, after IAC.
    SubCommand,
}

/// Takes commands out of the input of one connection.
#[derive(Default)]
pub(super) struct Filter(State);

impl Inband for Filter {
    fn next(&mut self, byte: u8) -> Meaning {
        let (state, meaning) = match (self.0, byte) {
            (State::Data, IAC) => (State::Command, Meaning::Command),
            (State::Data, _) => (State::Data, Meaning::Data),
            (State::Command, IAC) => (State::Data, Meaning::Data),
            (State::Command, 0xfb..=0xfe) => (State::Option, Meaning::Command),
            (State::Command, SB) => (State::Sub, Meaning::Command),
            (State::Command, BREAK) => (State::Data, Meaning::Break),
            (State::Command | State::Option, _) => (State::Data, Meaning::Command),
            (State::Sub, IAC) => (State::SubCommand, Meaning::Command),
            (State::SubCommand, SE) => (State::Data, Meaning::Command),
            (State::Sub | State::SubCommand, _) => (State::Sub, Meaning::Command),
        };
        self.0 = state;
        meaning
    }
}

/// Output to a telnet client: each IAC in the data is sent twice.
pub(super) struct TelnetSink<S> {
    to: S,
    /// The first of the two is sent.
    half: bool,
}

impl<S: Sink> TelnetSink<S> {
    pub(super) fn new(to: S) -> TelnetSink<S> {
        TelnetSink { to, half: false }
    }
}

impl<S: Sink> Sink for TelnetSink<S> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.half {
            self.to.write(&[IAC])?;
            self.half = false;
            // The byte it stands for was not reported as written. Something else may have come in
            // its place.
            if data.first() == Some(&IAC) {
                return Ok(1);
            }
        }
        match data.iter().position(|byte| *byte == IAC) {
            Some(0) if self.to.write(&[IAC, IAC])? > 1 => Ok(1),
            Some(0) => {
                self.half = true;
                self.write(data)
            }
            Some(plain) => self.to.write(data.get(..plain).unwrap_or_default()),
            None => self.to.write(data),
        }
    }

    fn finish(&mut self) {
        self.to.finish();
    }

    fn hang_up(&mut self) {
        self.to.hang_up();
    }

    fn fd(&self) -> Option<Arc<OwnedFd>> {
        self.to.fd()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn strip(input: &[u8], chunk: usize) -> (Vec<u8>, usize) {
        let (mut filter, mut breaks, mut out) = (Filter::default(), 0, Vec::new());
        for part in input.chunks(chunk) {
            let mut buf = part.to_vec();
            let kept = filter.strip(&mut buf, || breaks += 1);
            out.extend_from_slice(&buf[..kept]);
        }
        (out, breaks)
    }

    #[test]
    fn commands_are_taken_out_however_they_are_cut() {
        let mut input = b"a".to_vec();
        input.extend([IAC, DO, 1, IAC, IAC, IAC, BREAK, IAC, 0xf1]);
        input.extend(b"b");
        input.extend([IAC, SB, 31, 0, 80, IAC, IAC, 24, IAC, SE]);
        input.extend(b"c");
        for chunk in 1..=input.len() {
            assert_eq!(strip(&input, chunk), (b"a\xffbc".to_vec(), 1));
        }
    }

    /// Takes `step` bytes at a time, and nothing every other time.
    struct Slow {
        got: Vec<u8>,
        step: usize,
        full: bool,
    }

    impl Sink for Slow {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.full = !self.full;
            if self.full {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let n = self.step.min(data.len());
            self.got.extend_from_slice(&data[..n]);
            Ok(n)
        }
    }

    #[test]
    fn other_output_in_place_of_a_byte_half_sent_goes_out() {
        let mut sink = TelnetSink::new(Slow { got: Vec::new(), step: 1, full: true });
        assert!(sink.write(&[IAC]).is_err(), "one of two was sent");
        sink.to.step = 9;
        sink.to.full = true;
        // The slow one takes nothing every other time.
        assert!(sink.write(b"other").is_err());
        assert_eq!(sink.write(b"other").unwrap(), 5);
        assert_eq!(sink.to.got, [&[IAC, IAC][..], b"other"].concat());
    }

    proptest! {
        #[test]
        fn output_comes_back_whole(
            data in proptest::collection::vec(prop_oneof![Just(IAC), any::<u8>()], 0..200),
            step in 1usize..20,
        ) {
            let mut sink = TelnetSink::new(Slow { got: Vec::new(), step, full: false });
            let mut rest = &data[..];
            while !rest.is_empty() {
                match sink.write(rest) {
                    Ok(n) => rest = &rest[n..],
                    Err(e) => prop_assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
                }
            }
            prop_assert_eq!(strip(&sink.to.got, 7), (data, 0));
        }

        #[test]
        fn any_input_is_survived(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(strip(&data, 13).0.len() <= data.len());
        }
    }
}
