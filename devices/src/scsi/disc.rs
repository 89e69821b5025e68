//! What a CD or DVD drive tells of itself and its disc (MMC-6, 6).
//!
//! A disc has one session with one data track. Pure; any thread, no lock. Track numbers and
//! formats are the guest's.

use super::bytes::{Page, be16_len, be32_len, byte_len};
use super::sense::Sense;

/// The number by which the lead-out track goes.
const LEAD_OUT: u8 = 0xaa;
/// More blocks than a CD of 80 minutes has: the disc is a DVD.
const CD_BLOCKS: u32 = 80 * 60 * 75;
const PROFILE_DVD_ROM: u16 = 0x10;
const PROFILE_CD_ROM: u16 = 0x08;

/// Four bytes of an address: a block, or minutes, seconds and frames with the lead-in of two
/// seconds.
fn address(block: u32, msf: bool) -> [u8; 4] {
    if !msf {
        return block.to_be_bytes();
    }
    let frames = block.saturating_add(150);
    let part = |value: u32| u8::try_from(value).unwrap_or(u8::MAX);
    let [minutes, seconds] = [frames / (75 * 60), (frames / 75) % 60];
    [0, part(minutes), part(seconds), part(frames % 75)]
}

/// READ TOC. `track`: the first that is of interest.
pub(super) fn toc(blocks: u32, msf: bool, format: u8, track: u8) -> Result<Vec<u8>, Sense> {
    let (first, last, body) = match format {
        0 => {
            if track > 1 && track != LEAD_OUT {
                return Err(Sense::INVALID_FIELD);
            }
            let entry = |number, block| {
                let [a, b, c, d] = address(block, msf);
                // A data track.
                [0, 0x14, number, 0, a, b, c, d]
            };
            let lead_out = entry(LEAD_OUT, blocks);
            let body = if track == LEAD_OUT {
                lead_out.to_vec()
            } else {
                [entry(1, 0), lead_out].concat()
            };
            (1, 1, body)
        }
        // The sessions: one, with track 1 at block 0.
        1 => (1, 1, vec![0, 0x14, 1, 0, 0, 0, 0, 0]),
        2 => {
            let entry = |point, [_, m, s, f]: [u8; 4]| [1, 0x14, 0, point, 0, 0, 0, 0, m, s, f];
            let body = [
                entry(0xa0, [0, 1, 0, 0]),
                entry(0xa1, [0, 1, 0, 0]),
                entry(0xa2, address(blocks, true)),
                entry(1, address(0, true)),
            ];
            (1, 1, body.concat())
        }
        _ => return Err(Sense::INVALID_FIELD),
    };
    let head = Page::new(4).be16(0, be16_len(body.len().saturating_add(2)));
    Ok([head.byte(2, first).byte(3, last).done(), body].concat())
}

/// GET CONFIGURATION: the features from number `first` on; `only` 1: those that are current, 2:
/// the one of that number.
pub(super) fn configuration(blocks: Option<u32>, only: u8, first: u16) -> Result<Vec<u8>, Sense> {
    let profile = match blocks {
        None | Some(0) => 0,
        Some(..=CD_BLOCKS) => PROFILE_CD_ROM,
        Some(_) => PROFILE_DVD_ROM,
    };
    let descriptor = |of| {
        let [high, low] = u16::to_be_bytes(of);
        [high, low, u8::from(of == profile), 0]
    };
    let is = |of: u16| u8::from(profile == of);
    let features: [(u16, u8, Vec<u8>); 5] = [
        // The profiles; core, over SCSI; a removable medium in a tray that locks and ejects.
        (0x00, 0x03, [descriptor(PROFILE_DVD_ROM), descriptor(PROFILE_CD_ROM)].concat()),
        (0x01, 0x0b, vec![0, 0, 0, 1, 1, 0, 0, 0]),
        (0x03, 0x0b, vec![0x39, 0, 0, 0]),
        (0x1e, 0x08 | is(PROFILE_CD_ROM), vec![0, 0, 0, 0]),
        (0x1f, 0x08 | is(PROFILE_DVD_ROM), vec![0, 0, 0, 0]),
    ];
    if only == 3 {
        return Err(Sense::INVALID_FIELD);
    }
    let body: Vec<u8> = (features.iter())
        .filter(|(number, flags, _)| match only {
            0 => *number >= first,
            1 => *number >= first && flags & 1 != 0,
            _ => *number == first,
        })
        .flat_map(|(number, flags, data)| {
            let head = Page::new(4).be16(0, *number).byte(2, *flags);
            [head.byte(3, byte_len(data.len())).done(), data.clone()].concat()
        })
        .collect();
    let head = Page::new(8).be32(0, be32_len(body.len().saturating_add(4)));
    Ok([head.be16(6, profile).done(), body].concat())
}

/// READ DISC INFORMATION: a complete disc of one session and one track.
pub(super) fn information() -> Vec<u8> {
    Page::new(34)
        .be16(0, 32)
        .byte(2, 0x0e)
        .byte(3, 1)
        .byte(4, 1)
        .byte(5, 1)
        .byte(6, 1)
        .byte(7, 0x20)
        .done()
}

/// READ DVD STRUCTURE.
pub(super) fn dvd_structure(blocks: u32, layer: u8, format: u8) -> Result<Vec<u8>, Sense> {
    let page = |len: usize| Page::new(len).be16(0, be16_len(len.saturating_sub(2)));
    if format != 0xff && blocks <= CD_BLOCKS {
        return Err(Sense::INCOMPATIBLE_FORMAT);
    }
    Ok(match format {
        // Physical: DVD-ROM, 120 mm, one layer, from 30000h on.
        0x00 if layer == 0 => page(2052)
            .byte(4, 1)
            .byte(5, 0x0f)
            .byte(6, 1)
            .be32(8, 0x3_0000)
            .be32(12, blocks.saturating_sub(1).saturating_add(0x3_0000))
            .done(),
        // Copyright: none. Manufacturer: nothing told.
        0x01 => page(8).done(),
        0x04 => page(2052).done(),
        // The structures that can be read: these.
        0xff => page(16)
            .bytes(4, &[0x00, 0x40, 0x08, 0x04])
            .bytes(8, &[0x01, 0x40, 0x00, 0x08])
            .bytes(12, &[0x04, 0x40, 0x08, 0x04])
            .done(),
        _ => return Err(Sense::INVALID_FIELD),
    })
}

/// GET EVENT STATUS NOTIFICATION for a bit map of classes. `event`: what has happened to the
/// medium; `present` and `open`: how it stands.
pub(super) fn event_status(classes: u8, event: u8, present: bool, open: bool) -> Vec<u8> {
    // Of all classes there is the one of media, number 4.
    const MEDIA: u8 = 4;
    if classes & 1 << MEDIA == 0 {
        return vec![0, 2, 0x80, 1 << MEDIA];
    }
    let status = u8::from(present) << 1 | u8::from(open);
    vec![0, 6, MEDIA, 1 << MEDIA, event & 0xf, status, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_contents() {
        let data = toc(1000, false, 0, 0).unwrap();
        assert_eq!(data[..4], [0, 18, 1, 1]);
        assert_eq!(data[4..12], [0, 0x14, 1, 0, 0, 0, 0, 0]);
        assert_eq!(data[12..20], [0, 0x14, 0xaa, 0, 0, 0, 3, 0xe8]);
        let msf = toc(75 * 60 - 150, true, 0, 0xaa).unwrap();
        assert_eq!(msf[..], [0, 10, 1, 1, 0, 0x14, 0xaa, 0, 0, 1, 0, 0]);
        assert_eq!(toc(1000, false, 1, 0).unwrap().len(), 12);
        assert_eq!(toc(1000, false, 2, 0).unwrap().len(), 4 + 4 * 11);
        assert_eq!(toc(1000, false, 0, 5), Err(Sense::INVALID_FIELD));
        assert_eq!(toc(1000, false, 5, 0), Err(Sense::INVALID_FIELD));
    }

    #[test]
    fn the_profile_follows_the_disc() {
        let of = |blocks| configuration(blocks, 0, 0).unwrap();
        assert_eq!(of(None)[6..8], [0, 0]);
        assert_eq!(of(Some(1000))[6..8], [0, 8]);
        assert_eq!(of(Some(1 << 20))[6..8], [0, 0x10]);
        let all = of(Some(1000));
        assert_eq!(u32::from_be_bytes(all[..4].try_into().unwrap()) as usize, all.len() - 4);
        let one = configuration(Some(1000), 2, 3).unwrap();
        assert_eq!(one[8..12], [0, 3, 0x0b, 4]);
    }

    #[test]
    fn events_of_the_medium() {
        assert_eq!(event_status(0x10, 2, true, false), [0, 6, 4, 0x10, 2, 2, 0, 0]);
        assert_eq!(event_status(0x02, 2, true, false), [0, 2, 0x80, 0x10]);
    }
}
