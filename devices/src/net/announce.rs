//! The frames by which switches learn where a guest has come to: reverse ARP requests (RFC 903),
//! which nobody answers and every switch looks at.
//!
//! On the loop of the NIC's first queue; no lock. The address is the guest's.

use std::time::Duration;

use resources::iol::Local;

/// An Ethernet frame without its checksum is at least so long.
const LEN: usize = 60;
/// Before each frame: the first ones may meet a switch that does not listen yet.
const AFTER: [u64; 5] = [0, 50, 150, 250, 350];

/// The frame of a card with this address.
fn frame(mac: [u8; 6]) -> [u8; LEN] {
    // To all, of type RARP; Ethernet and IPv4 addresses, a reverse request.
    const TYPE: [u8; 10] = [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3];
    let parts: [&[u8]; 6] = [&[0xff; 6], &mac, &TYPE, &mac, &[0; 4], &mac];
    let mut frame = [0; LEN];
    for (to, from) in frame.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    frame
}

/// Has them sent, without a header, by whatever way there is when each is due. One that finds none is
/// lost: others follow.
pub async fn announce(mac: [u8; 6], local: Local, mut send: impl FnMut(&[u8])) {
    for after in AFTER {
        local.sleep(Duration::from_millis(after)).await;
        send(&frame(mac));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_is_a_reverse_request_for_oneself() {
        let mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
        let frame = frame(mac);
        assert_eq!(frame[..6], [0xff; 6]);
        assert_eq!(frame[6..12], mac);
        // RFC 903: hardware, protocol, their lengths, operation 3.
        assert_eq!(frame[12..22], [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
        assert_eq!((&frame[22..28], &frame[28..32]), (&mac[..], &[0; 4][..]));
        assert_eq!((&frame[32..38], &frame[38..]), (&mac[..], &[0; 22][..]));
    }
}
