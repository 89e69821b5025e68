//! Mode pages: MODE SENSE and MODE SELECT (SPC-4, 6.11 and 7.5; SBC-3, 6.5; MMC-6, 7).
//!
//! Pure; any thread, no lock. A guest's parameter list is checked as a whole before anything of it
//! is taken; only the write cache can be switched.

use super::bytes::{self, Page, be16_len, byte_len};
use super::cdb::Kind;
use super::inquiry::Identity;
use super::sense::Sense;

const ERROR_RECOVERY: u8 = 0x01;
const GEOMETRY: u8 = 0x04;
const CACHING: u8 = 0x08;
const CAPABILITIES: u8 = 0x2a;
const ALL: u8 = 0x3f;

/// The bit of the caching page that switches the write cache on.
const WCE: u8 = 0x04;

/// What mode pages show besides the identity.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    pub(super) write_cache: bool,
    pub(super) read_only: bool,
    pub(super) locked: bool,
    /// The medium's size in blocks, if there is one.
    pub(super) blocks: Option<u64>,
}

/// The request of MODE SENSE.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) short: bool,
    pub(super) no_blocks: bool,
    pub(super) control: u8,
    pub(super) page: u8,
    pub(super) subpage: u8,
}

/// The answer to MODE SENSE.
pub(super) fn sense(unit: &Identity, shown: Shown, wanted: Wanted) -> Result<Vec<u8>, Sense> {
    if wanted.control == 3 {
        return Err(Sense::SAVING);
    }
    if !matches!(wanted.subpage, 0 | 0xff) {
        return Err(Sense::INVALID_FIELD);
    }
    let pages: Vec<u8> = match wanted.page {
        ALL => [ERROR_RECOVERY, GEOMETRY, CACHING, CAPABILITIES]
            .into_iter()
            .filter_map(|code| page(unit, shown, code, wanted.control))
            .flatten()
            .collect(),
        code => page(unit, shown, code, wanted.control).ok_or(Sense::INVALID_FIELD)?,
    };
    let disk = unit.kind == Kind::Disk;
    let blocks = shown.blocks.filter(|_| disk && !wanted.no_blocks).map(|count| {
        // The number fills 24 bits; all ones or zero if there are more.
        let count = u32::try_from(count).unwrap_or(0);
        let count = if count > 0xff_ffff { 0 } else { count };
        Page::new(8).be32(0, count).be32(4, unit.block & 0xff_ffff).done()
    });
    let blocks = blocks.unwrap_or_default();
    let specific = match (disk, shown.read_only) {
        (false, _) => 0,
        // DPO and FUA are understood.
        (true, false) => 0x10,
        (true, true) => 0x90,
    };
    let length = blocks.len().saturating_add(pages.len());
    let head = if wanted.short {
        let head = Page::new(4).byte(0, byte_len(length.saturating_add(3)));
        head.byte(2, specific).byte(3, byte_len(blocks.len()))
    } else {
        let head = Page::new(8).be16(0, be16_len(length.saturating_add(6)));
        head.byte(3, specific).be16(6, be16_len(blocks.len()))
    };
    Ok([head.done(), blocks, pages].concat())
}

/// One page, with the values of `control`: 0 current, 1 a mask of what can be changed, 2 default.
fn page(unit: &Identity, shown: Shown, code: u8, control: u8) -> Option<Vec<u8>> {
    let changeable = control == 1;
    let page = |len: u8| Page::new(usize::from(len).saturating_add(2)).byte(0, code).byte(1, len);
    let page = match (code, unit.kind) {
        (ERROR_RECOVERY, Kind::Disk) if changeable => page(10),
        // Automatic reallocation of blocks that cannot be written.
        (ERROR_RECOVERY, Kind::Disk) => page(10).byte(2, 0x80),
        (ERROR_RECOVERY, Kind::Cd) if changeable => page(10),
        (ERROR_RECOVERY, Kind::Cd) => page(10).byte(3, 0x20),
        (GEOMETRY, Kind::Disk) if changeable => page(22),
        (GEOMETRY, Kind::Disk) => geometry(page(22), shown.blocks.unwrap_or(0), unit.rotation),
        (CACHING, _) => {
            let on = changeable && unit.kind == Kind::Disk
                || control == 0 && shown.write_cache
                || control == 2 && unit.kind == Kind::Disk;
            page(18).byte(2, if on { WCE } else { 0 })
        }
        (CAPABILITIES, Kind::Cd) if changeable => page(20),
        (CAPABILITIES, Kind::Cd) => page(20)
            // Reads CD-R, CD-RW and DVD-ROM.
            .byte(2, 0x3b)
            // Plays audio, composite and multi-session discs.
            .byte(4, 0x71)
            .byte(5, 0x60)
            // A tray that can be locked and opened.
            .byte(6, 0x29 | if shown.locked { 0x02 } else { 0 })
            // 50 times the speed of audio, 2 volume levels, 2 MiB of buffer.
            .be16(8, 50 * 176)
            .be16(10, 2)
            .be16(12, 2048)
            .be16(14, 16 * 176)
            .be16(18, 16 * 176)
            .be16(20, 16 * 176),
        _ => return None,
    };
    Some(page.done())
}

/// The geometry that a disk of this size might have: 16 heads of 63 sectors.
fn geometry(page: Page, blocks: u64, rotation: u16) -> Page {
    let cylinders = blocks.checked_div(16 * 63).unwrap_or(0).clamp(1, 0xff_ffff);
    let cylinders = u32::try_from(cylinders).unwrap_or(1);
    // Three bytes of cylinders, then one of heads.
    page.be32(2, cylinders << 8 | 16).be16(20, if rotation > 1 { rotation } else { 5400 })
}

/// What a parameter list of MODE SELECT asks for: whether the write cache is to be on, if it says
/// so.
pub(super) fn select(
    unit: &Identity,
    shown: Shown,
    short: bool,
    list: &[u8],
) -> Result<Option<bool>, Sense> {
    if list.is_empty() {
        return Ok(None);
    }
    let head = if short { 4 } else { 8 };
    if list.len() < head {
        return Err(Sense::LIST_LENGTH);
    }
    let blocks = if short { usize::from(bytes::byte(list, 3)) } else { bytes::length(list, 6, 2) };
    if !matches!(blocks, 0 | 8) {
        return Err(Sense::INVALID_PARAMETER);
    }
    let mut rest = list.get(head.saturating_add(blocks)..).ok_or(Sense::LIST_LENGTH)?;
    let mut write_cache = None;
    while let [first, len, ..] = rest {
        // A long page would have a subpage, of which there is none.
        if first & 0x40 != 0 {
            return Err(Sense::INVALID_PARAMETER);
        }
        let whole = usize::from(*len).saturating_add(2);
        let given = rest.get(..whole).ok_or(Sense::LIST_LENGTH)?;
        let code = first & 0x3f;
        let current = page(unit, shown, code, 0).ok_or(Sense::INVALID_PARAMETER)?;
        let mask = page(unit, shown, code, 1).ok_or(Sense::INVALID_PARAMETER)?;
        if given.len() != current.len() {
            return Err(Sense::INVALID_PARAMETER);
        }
        let pairs = given.iter().zip(&current).zip(&mask).skip(2);
        if pairs.into_iter().any(|((given, current), mask)| (given ^ current) & !mask != 0) {
            return Err(Sense::INVALID_PARAMETER);
        }
        if code == CACHING && unit.kind == Kind::Disk {
            write_cache = Some(bytes::byte(given, 2) & WCE != 0);
        }
        rest = rest.get(whole..).unwrap_or_default();
    }
    if rest.is_empty() { Ok(write_cache) } else { Err(Sense::LIST_LENGTH) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::tests::{cd_identity, disk_identity};
    use proptest::prelude::*;

    const SHOWN: Shown =
        Shown { write_cache: true, read_only: false, locked: false, blocks: Some(1000) };
    const WANTED: Wanted =
        Wanted { short: true, no_blocks: false, control: 0, page: ALL, subpage: 0 };

    #[test]
    fn sense_of_all_pages() {
        let data = sense(&disk_identity(), SHOWN, WANTED).unwrap();
        assert_eq!(usize::from(data[0]) + 1, data.len());
        assert_eq!((data[2], data[3]), (0x10, 8));
        assert_eq!(data[4..12], [0, 0, 3, 0xe8, 0, 0, 2, 0]);
        let cd = sense(&cd_identity(), SHOWN, Wanted { short: false, ..WANTED }).unwrap();
        assert_eq!(usize::from(cd[1]) + 2, cd.len());
        assert_eq!(cd[7], 0);
    }

    #[test]
    fn the_write_cache_can_be_switched() {
        let disk = disk_identity();
        let caching = Wanted { page: CACHING, no_blocks: true, ..WANTED };
        assert_eq!(sense(&disk, SHOWN, caching).unwrap()[4 + 2], WCE);
        let mask = sense(&disk, SHOWN, Wanted { control: 1, ..caching }).unwrap();
        assert_eq!(mask[4 + 2], WCE);
        let mut list = sense(&disk, SHOWN, caching).unwrap();
        list[0] = 0;
        list[6] = 0;
        assert_eq!(select(&disk, SHOWN, true, &list), Ok(Some(false)));
        list[7] = 1;
        assert_eq!(select(&disk, SHOWN, true, &list), Err(Sense::INVALID_PARAMETER));
        assert_eq!(select(&disk, SHOWN, true, &list[..9]), Err(Sense::LIST_LENGTH));
        assert_eq!(select(&cd_identity(), SHOWN, true, &[]), Ok(None));
    }

    #[test]
    fn what_is_refused() {
        let disk = disk_identity();
        let error = |wanted| sense(&disk, SHOWN, wanted).unwrap_err();
        assert_eq!(error(Wanted { control: 3, ..WANTED }), Sense::SAVING);
        assert_eq!(error(Wanted { page: CAPABILITIES, ..WANTED }), Sense::INVALID_FIELD);
        assert_eq!(error(Wanted { subpage: 1, ..WANTED }), Sense::INVALID_FIELD);
    }

    proptest! {
        #[test]
        fn lists_of_any_bytes(list in prop::collection::vec(any::<u8>(), 0..64), short: bool) {
            let _ = select(&disk_identity(), SHOWN, short, &list);
            let _ = select(&cd_identity(), SHOWN, short, &list);
        }
    }
}
