//! Checksums and segmentation in software, for back ends that take plain frames only.
//!
//! A guest that was offered checksum and segmentation offload hands over frames without their
//! checksum and up to 64 KiB long. A tap takes these as they are; for any other back end the
//! device completes them here. [`Segmenter`] makes one frame at a time, so that a back end that
//! takes no more can be waited for.
//!
//! Pure functions, whichever thread calls them. Headers and frames are the guest's: offsets and
//! lengths are checked, a contradiction is a [`BadFrame`], and no frame becomes more than one
//! segment for each byte of its payload, none of them kept, each with 256 bytes of headers at most.

use super::header::{BadFrame, Gso, Header};

/// The size of an Ethernet header.
pub const ETHERNET: usize = 14;

/// The longest headers of a frame that is cut, all together: each segment has them. Those of
/// Ethernet with two tags, IPv4 and TCP, with as many options as they take, are 142 bytes; those of
/// IPv6 can be longer without end, but no system cuts such.
const MAX_HEADERS: usize = 256;

const TYPE_IPV4: u16 = 0x800;
const TYPE_IPV6: u16 = 0x86dd;
const TYPES_VLAN: [u16; 2] = [0x8100, 0x88a8];

const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
/// Extension headers of IPv6 that change nothing above them: hop-by-hop and destination options.
const OPTIONS: [u8; 2] = [0, 60];

const TCP_FIN: u8 = 1;
const TCP_PSH: u8 = 8;
const TCP_CWR: u8 = 0x80;

/// Writes the checksum of everything from `start` to `start + offset`, where the sum of a pseudo
/// header is already.
///
/// # Errors
/// When these do not lie in the frame.
pub fn complete_checksum(frame: &mut [u8], start: u16, offset: u16) -> Result<(), BadFrame> {
    let summed = frame.get_mut(usize::from(start)..).ok_or(BadFrame::Checksum)?;
    let sum = checksum(sum(summed));
    put16(summed, usize::from(offset), sum).ok_or(BadFrame::Checksum)
}

/// Whether a frame is a reply of a DHCP server over IPv4. Clients of DHCP that read raw frames
/// take one without a checksum for damaged, so that it is completed for them.
pub fn is_dhcp_reply(frame: &[u8]) -> bool {
    const SERVER: u16 = 67;
    get16(frame, 12) == Some(TYPE_IPV4)
        && frame.get(ETHERNET) == Some(&0x45)
        && frame.get(23) == Some(&PROTOCOL_UDP)
        && get16(frame, 34) == Some(SERVER)
}

/// The ones' complement sum of 16-bit words, not folded. An odd last byte counts as if a zero
/// followed it.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    // 2^32 words of 32 bits do not overflow; no frame is that long.
    words
        .iter()
        .chain([&last])
        .fold(0u64, |sum, word| sum.wrapping_add(u32::from_be_bytes(*word).into()))
}

/// Folds a sum and complements it; a zero is written as the other zero, which UDP wants and TCP
/// does not mind.
fn checksum(sum: u64) -> u16 {
    match folded(sum) {
        0xffff => 0xffff,
        sum => !sum,
    }
}

fn folded(mut sum: u64) -> u16 {
    while let Some(high @ 1..) = sum.checked_shr(16) {
        sum = (sum & 0xffff).wrapping_add(high);
    }
    u16::try_from(sum).unwrap_or(0)
}

fn get16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn put16(bytes: &mut [u8], at: usize, value: u16) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = value.to_be_bytes();
    Some(())
}

/// Cuts a frame into segments.
#[derive(Debug)]
pub struct Segmenter {
    frame: Vec<u8>,
    kind: Gso,
    /// Whether the network header is that of IPv4, not of IPv6.
    ipv4: bool,
    /// Where the network header begins.
    network: usize,
    /// Where the transport header begins.
    transport: usize,
    /// Where the payload begins.
    payload: usize,
    /// How much payload a segment gets; not 0.
    size: usize,
    /// Where the next segment's payload begins.
    at: usize,
    /// How many segments were made.
    made: u16,
    /// The next one is the last.
    done: bool,
}

impl Segmenter {
    /// Takes a frame to be cut as its header says.
    ///
    /// # Errors
    /// When the frame is not what the header says.
    pub fn new(frame: Vec<u8>, header: &Header) -> Result<Segmenter, BadFrame> {
        let kind = header.gso()?;
        if kind == Gso::None || header.gso_size == 0 || !header.needs_csum() {
            return Err(BadFrame::Segments);
        }
        let network = network_header(&frame).ok_or(BadFrame::Segments)?;
        let transport = usize::from(header.csum_start);
        let (ipv4, payload) =
            payload(&frame, kind, network, transport).ok_or(BadFrame::Segments)?;
        if payload > MAX_HEADERS {
            return Err(BadFrame::Segments);
        }
        Ok(Segmenter {
            frame,
            kind,
            ipv4,
            network,
            transport,
            payload,
            size: header.gso_size.into(),
            at: payload,
            made: 0,
            done: false,
        })
    }

    /// Puts the next segment into `out`, in place of what was there; `false` after the last.
    pub fn next_into(&mut self, out: &mut Vec<u8>) -> bool {
        out.clear();
        !self.done && self.make(out).is_some()
    }

    /// `None` cannot come: [`Segmenter::new`] has seen the headers in the frame.
    fn make(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let end = self.at.saturating_add(self.size).min(self.frame.len());
        let (first, last) = (self.made == 0, end == self.frame.len());
        out.extend_from_slice(self.frame.get(..self.payload)?);
        out.extend_from_slice(self.frame.get(self.at..end)?);
        let length = out.len().checked_sub(self.transport)?;
        let ip = out.get_mut(self.network..)?;
        if self.ipv4 {
            put16(ip, 2, u16::try_from(ip.len()).ok()?)?;
            put16(ip, 4, get16(ip, 4)?.wrapping_add(self.made))?;
            put16(ip, 10, 0)?;
            let header = ip.get(..self.transport.checked_sub(self.network)?)?;
            put16(ip, 10, !folded(sum(header)))?;
        } else {
            put16(ip, 4, u16::try_from(ip.len().checked_sub(40)?).ok()?)?;
        }
        let addresses = if self.ipv4 { ip.get(12..20)? } else { ip.get(8..40)? };
        let mut pseudo = sum(addresses).wrapping_add(u64::try_from(length).ok()?);
        let header = out.get_mut(self.transport..)?;
        let field = if self.kind == Gso::Udp {
            pseudo = pseudo.wrapping_add(PROTOCOL_UDP.into());
            put16(header, 4, u16::try_from(length).ok()?)?;
            6
        } else {
            pseudo = pseudo.wrapping_add(PROTOCOL_TCP.into());
            let sequence: &mut [u8; 4] = header.get_mut(4..)?.first_chunk_mut()?;
            let before = u32::try_from(self.at.checked_sub(self.payload)?).ok()?;
            *sequence = u32::from_be_bytes(*sequence).wrapping_add(before).to_be_bytes();
            let flags = header.get_mut(13)?;
            if !first {
                *flags &= !TCP_CWR;
            }
            if !last {
                *flags &= !(TCP_FIN | TCP_PSH);
            }
            16
        };
        put16(header, field, 0)?;
        put16(header, field, checksum(pseudo.wrapping_add(sum(header))))?;
        self.at = end;
        self.made = self.made.wrapping_add(1);
        self.done = last;
        Some(())
    }
}

/// Where the network header of a frame begins, behind up to two VLAN tags.
fn network_header(frame: &[u8]) -> Option<usize> {
    (0..3usize)
        .map(|tags| ETHERNET.saturating_add(tags.saturating_mul(4)))
        .find(|at| get16(frame, at.saturating_sub(2)).is_some_and(|t| !TYPES_VLAN.contains(&t)))
}

/// Whether a frame is IPv4, and where its payload begins, if it is of the kind that it is said to
/// be and its transport header begins at `transport`.
fn payload(frame: &[u8], kind: Gso, network: usize, transport: usize) -> Option<(bool, usize)> {
    let protocol = if kind == Gso::Udp { PROTOCOL_UDP } else { PROTOCOL_TCP };
    let ip = frame.get(network..)?;
    let ipv4 = match get16(frame, network.checked_sub(2)?)? {
        TYPE_IPV4 if kind != Gso::Tcp6 => {
            let &[version, ..] = ip.first_chunk::<20>()?;
            let length = usize::from(version & 15).checked_mul(4)?;
            // A fragment cannot be cut: only its first one would have a transport header.
            let whole = get16(ip, 6)? & 0x3fff == 0;
            let fits = length >= 20 && network.checked_add(length)? == transport;
            (version >> 4 == 4 && *ip.get(9)? == protocol && fits && whole).then_some(true)?
        }
        TYPE_IPV6 if kind != Gso::Tcp4 => {
            let &[version, ..] = ip.first_chunk::<40>()?;
            let (mut next, mut at) = (*ip.get(6)?, network.checked_add(40)?);
            // Each header is at least 8 bytes: this ends.
            while OPTIONS.contains(&next) && at < transport {
                let length = usize::from(*frame.get(at.checked_add(1)?)?);
                next = *frame.get(at)?;
                at = at.checked_add(length.checked_add(1)?.checked_mul(8)?)?;
            }
            (version >> 4 == 6 && next == protocol && at == transport).then_some(false)?
        }
        _ => return None,
    };
    let header = frame.get(transport..)?;
    let length = match kind {
        Gso::Udp => 8,
        _ => {
            let length = usize::from(*header.get(12)? >> 4).checked_mul(4)?;
            (length >= 20).then_some(length)?
        }
    };
    header.get(..length)?;
    Some((ipv4, transport.checked_add(length)?))
}

#[cfg(test)]
mod tests;
