//! A frame on its way out whose back end did not take it at once.
//!
//! It is copied out of the guest's memory, so that the guest has its buffers back, completed or
//! cut into segments if the back end wants that, and kept until the back end has taken it all: at
//! most one for each transmit queue. It is part of the saved state, so that nothing is lost.
//!
//! The loop of the queue; no lock. The bytes are the guest's, or come from a saved state.

use resources::state::{StateError, invalid};
use serde::{Deserialize, Serialize};

use super::features::Features;
use super::header::{BadFrame, Gso, HEADER_LEN, Header};
use super::offload::{ETHERNET, Segmenter, complete_checksum};
use crate::net;

/// The longest frame that is taken from a guest, without its header.
pub const MAX_FRAME: usize = net::MAX_FRAME.saturating_sub(HEADER_LEN);

/// What a back end does itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Takes {
    /// Frames come with a header.
    pub header: bool,
    /// Of `HOST_TSO4`, `HOST_TSO6`, `HOST_USO` those that it does, beside the checksum, which
    /// goes with the header.
    pub segments: Features,
}

impl Takes {
    /// Whether it does what a header asks for, so that the frame can go as it is.
    ///
    /// # Errors
    /// When the guest asks for what was not negotiated.
    pub fn as_it_is(&self, header: &Header, negotiated: Features) -> Result<bool, BadFrame> {
        if header.needs_csum() && !negotiated.contains(Features::CSUM) {
            return Err(BadFrame::NotNegotiated);
        }
        let needed = match header.gso()? {
            Gso::None => Features::empty(),
            Gso::Tcp4 => Features::HOST_TSO4,
            Gso::Tcp6 => Features::HOST_TSO6,
            Gso::Udp => Features::HOST_USO,
        };
        if !negotiated.contains(needed) {
            return Err(BadFrame::NotNegotiated);
        }
        let plain = needed.is_empty() && !header.needs_csum();
        Ok(plain || self.header && self.segments.contains(needed))
    }
}

/// See the module's description.
#[derive(Debug)]
pub struct Outgoing {
    /// What the guest handed over.
    header: Header,
    frame: Vec<u8>,
    /// What is sent next.
    now: (Header, Vec<u8>),
    /// What comes after it.
    rest: Option<Segmenter>,
    /// How many segments were sent.
    sent: u32,
}

/// The saved state of an [`Outgoing`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutgoingState {
    #[serde(with = "resources::state::bytes")]
    header: Vec<u8>,
    #[serde(with = "resources::state::bytes")]
    frame: Vec<u8>,
    sent: u32,
}

impl OutgoingState {
    /// Checks a state that comes from outside; whether the frame makes sense shows later.
    ///
    /// # Errors
    /// When it is of an impossible size.
    pub fn check(&self) -> Result<(), StateError> {
        if self.header.len() != HEADER_LEN || !(ETHERNET..=MAX_FRAME).contains(&self.frame.len()) {
            return Err(invalid(format!("a frame to be sent of {} bytes", self.frame.len())));
        }
        Ok(())
    }
}

impl Outgoing {
    /// Takes a frame, without its header, as the guest handed it over.
    ///
    /// # Errors
    /// When it asks for something impossible.
    pub fn new(
        header: Header,
        mut frame: Vec<u8>,
        takes: Takes,
        negotiated: Features,
    ) -> Result<Outgoing, BadFrame> {
        if !(ETHERNET..=MAX_FRAME).contains(&frame.len()) {
            return Err(BadFrame::Length);
        }
        let as_it_is = takes.as_it_is(&header, negotiated)?;
        let (mut rest, mut now) = (None, Vec::new());
        if as_it_is {
            now.clone_from(&frame);
        } else if header.gso()? == Gso::None {
            complete_checksum(&mut frame, header.csum_start, header.csum_offset)?;
            now.clone_from(&frame);
        } else {
            let mut segmenter = Segmenter::new(frame.clone(), &header)?;
            segmenter.next_into(&mut now);
            rest = Some(segmenter);
        }
        let front = if as_it_is { header } else { Header::default() };
        Ok(Outgoing { header, frame, now: (front, now), rest, sent: 0 })
    }

    /// What is to be sent next, and the header for it.
    pub fn now(&self) -> (&Header, &[u8]) {
        (&self.now.0, &self.now.1)
    }

    /// That was sent; `false` if it was the last.
    pub fn advance(&mut self) -> bool {
        self.sent = self.sent.saturating_add(1);
        self.rest.as_mut().is_some_and(|rest| rest.next_into(&mut self.now.1))
    }

    /// Its saved state.
    pub fn save(&self) -> OutgoingState {
        OutgoingState {
            header: self.header.to_bytes().to_vec(),
            frame: self.frame.clone(),
            sent: self.sent,
        }
    }

    /// A saved frame; `None` if all of it was sent.
    ///
    /// # Errors
    /// When no guest could have handed it over.
    pub fn load(
        state: OutgoingState,
        takes: Takes,
        negotiated: Features,
    ) -> Result<Option<Outgoing>, StateError> {
        let header: [u8; HEADER_LEN] = state
            .header
            .try_into()
            .map_err(|_| invalid("the header of a frame has no 12 bytes"))?;
        let header = Header::parse(&header);
        let mut frame = Outgoing::new(header, state.frame, takes, negotiated)
            .map_err(|error| invalid(format!("a frame to be sent {error}")))?;
        for _ in 0..state.sent {
            if !frame.advance() {
                return Ok(None);
            }
        }
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::net::header::NEEDS_CSUM;

    const ALL: Features = Features::all();

    fn tcp(payload: usize) -> (Header, Vec<u8>) {
        let mut frame = vec![2; 12];
        frame.extend([8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0; 12]);
        frame.extend([0x50, 0x10, 0, 0, 0, 0, 0, 0]);
        frame.extend((0..payload).map(|n| n as u8));
        let header = Header {
            flags: NEEDS_CSUM,
            gso_type: 1,
            gso_size: 100,
            csum_start: 34,
            csum_offset: 16,
            ..Header::default()
        };
        (header, frame)
    }

    fn all_of(mut frame: Outgoing) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            all.push(frame.now().1.to_vec());
            if !frame.advance() {
                return all;
            }
        }
    }

    #[test]
    fn a_back_end_that_segments_gets_it_as_it_is() {
        let (header, frame) = tcp(250);
        let takes = Takes { header: true, segments: Features::HOST_TSO4 };
        let out = Outgoing::new(header, frame.clone(), takes, ALL).unwrap();
        assert_eq!(out.now(), (&header, &frame[..]));
        assert_eq!(all_of(out).len(), 1);
    }

    #[test]
    fn any_other_gets_segments_without_a_header() {
        let (header, frame) = tcp(250);
        for takes in [Takes::default(), Takes { header: true, segments: Features::HOST_TSO6 }] {
            let out = Outgoing::new(header, frame.clone(), takes, ALL).unwrap();
            assert_eq!(*out.now().0, Header::default());
            let lengths: Vec<_> = all_of(out).iter().map(Vec::len).collect();
            assert_eq!(lengths, [154, 154, 104]);
        }
    }

    #[test]
    fn a_frame_half_sent_goes_on_after_load() {
        let (header, frame) = tcp(250);
        let make = || Outgoing::new(header, frame.clone(), Takes::default(), ALL).unwrap();
        let all = all_of(make());
        let mut out = make();
        for sent in 0..=3 {
            let loaded = Outgoing::load(out.save(), Takes::default(), ALL).unwrap();
            assert_eq!(loaded.map(all_of).unwrap_or_default(), all[sent..]);
            out.advance();
        }
    }

    #[test]
    fn what_was_not_negotiated_is_refused() {
        let (header, frame) = tcp(250);
        let make = |header, frame: &[u8], negotiated| {
            Outgoing::new(header, frame.to_vec(), Takes::default(), negotiated).err()
        };
        let refused = Some(BadFrame::NotNegotiated);
        assert_eq!(make(header, &frame, Features::CSUM), refused);
        assert_eq!(make(header, &frame, Features::HOST_TSO4), refused);
        let plain = Header { gso_type: 0, ..header };
        assert_eq!(make(plain, &frame, Features::CSUM), None);
        assert_eq!(make(plain, &frame, Features::empty()), refused);
        assert_eq!(make(plain, &frame[..13], ALL), Some(BadFrame::Length));
        assert_eq!(make(plain, &vec![0; MAX_FRAME + 1], ALL), Some(BadFrame::Length));
        assert_eq!(make(plain, &frame[..40], ALL), Some(BadFrame::Checksum));
    }
}
