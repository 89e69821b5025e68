//! The header in front of every frame in a virtio-net queue.
//!
//! `struct virtio_net_hdr` of virtio 1.x, section 5.1.6: 12 bytes, little-endian, the same with
//! and without mergeable buffers. A tap set to this size takes and gives it as it is.
//!
//! Pure functions. On the way out the bytes are the guest's: what it may not ask for is an error,
//! and every offset is checked where it is used, in [`super::offload`].

/// The header's size in bytes.
pub const HEADER_LEN: usize = 12;

/// `flags`: the checksum at `csum_start` + `csum_offset` is to be completed.
pub const NEEDS_CSUM: u8 = 1;
/// `flags`: the device has checked the frame's checksum.
pub const DATA_VALID: u8 = 2;

/// `gso_type`: the ECN bit, beside a TCP type.
pub const GSO_ECN: u8 = 0x80;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;

/// What a frame is to be cut into, or was put together from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gso {
    /// Nothing: it is one frame.
    None,
    /// TCP segments over IPv4.
    Tcp4,
    /// TCP segments over IPv6.
    Tcp6,
    /// UDP datagrams over IPv4 or IPv6 (`USO`).
    Udp,
}

/// The header with its fields told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// [`NEEDS_CSUM`], [`DATA_VALID`].
    pub flags: u8,
    /// The type of segmentation; see [`Header::gso`].
    pub gso_type: u8,
    /// How long the headers are that each segment gets: a hint.
    pub hdr_len: u16,
    /// How much payload each segment gets.
    pub gso_size: u16,
    /// Where the bytes to be summed begin.
    pub csum_start: u16,
    /// Where, counted from there, the sum goes.
    pub csum_offset: u16,
    /// Towards the guest: over how many buffers the frame is spread.
    pub num_buffers: u16,
}

/// A frame that its sender describes wrongly. It is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// The header has a type or flag that was not negotiated.
    #[error("asks for an offload that was not negotiated")]
    NotNegotiated,
    /// The offsets of the checksum do not lie in the frame.
    #[error("has its checksum outside of the frame")]
    Checksum,
    /// It is not the kind of packet that it is said to be.
    #[error("cannot be cut into segments of the kind it asks for")]
    Segments,
    /// It is shorter than an Ethernet header, or longer than any frame.
    #[error("has no valid length")]
    Length,
}

impl Header {
    /// Reads it.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Header {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1, n0, n1] = *bytes;
        Header {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            csum_start: u16::from_le_bytes([s0, s1]),
            csum_offset: u16::from_le_bytes([o0, o1]),
            num_buffers: u16::from_le_bytes([n0, n1]),
        }
    }

    /// Its bytes.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [h0, h1] = self.hdr_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.csum_start.to_le_bytes();
        let [o0, o1] = self.csum_offset.to_le_bytes();
        let [n0, n1] = self.num_buffers.to_le_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1, n0, n1]
    }

    /// Whether the sender left the checksum to be completed.
    pub fn needs_csum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }

    /// The type of segmentation. Fragments of UDP (`UFO`) are never offered, hence refused.
    ///
    /// # Errors
    /// [`BadFrame::NotNegotiated`] for a type that is not known.
    pub fn gso(&self) -> Result<Gso, BadFrame> {
        match self.gso_type & !GSO_ECN {
            GSO_NONE => Ok(Gso::None),
            GSO_TCPV4 => Ok(Gso::Tcp4),
            GSO_TCPV6 => Ok(Gso::Tcp6),
            GSO_UDP_L4 => Ok(Gso::Udp),
            _ => Err(BadFrame::NotNegotiated),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_and_fields_are_the_same(bytes: [u8; HEADER_LEN]) {
            prop_assert_eq!(Header::parse(&bytes).to_bytes(), bytes);
        }
    }

    #[test]
    fn types() {
        let gso = |gso_type| Header { gso_type, ..Header::default() }.gso();
        assert_eq!(gso(0), Ok(Gso::None));
        assert_eq!(gso(1), Ok(Gso::Tcp4));
        assert_eq!(gso(0x81), Ok(Gso::Tcp4));
        assert_eq!(gso(0x84), Ok(Gso::Tcp6));
        assert_eq!(gso(5), Ok(Gso::Udp));
        for unknown in [2, 3, 6, 0x7f] {
            assert_eq!(gso(unknown), Err(BadFrame::NotNegotiated));
        }
    }
}
