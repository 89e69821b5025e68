//! INQUIRY: who a unit is, and its vital product data (SPC-4, 6.4 and 7.8; SBC-3, 6.6).
//!
//! Pure; any thread, no lock. The texts are the user's and are cut to their fields; nothing else
//! comes from outside.

use super::bytes::{Page, be16_len, byte_len};
use super::cdb::Kind;
use super::sense::Sense;

/// Who a unit says it is, fixed when it is made.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its kind.
    pub kind: Kind,
    /// The vendor, up to 8 characters.
    pub vendor: String,
    /// The product, up to 16 characters.
    pub product: String,
    /// The version, up to 4 characters.
    pub version: String,
    /// The serial number, up to 36 characters.
    pub serial: Option<String>,
    /// The name by which it is told from others; the serial number or the drive's name.
    pub device_id: String,
    /// A worldwide name; 0 for none.
    pub wwn: u64,
    /// Whether its medium can be taken out.
    pub removable: bool,
    /// Bytes in a logical block, a power of two.
    pub block: u32,
    /// Bytes in a physical block, a power of two and no less.
    pub physical: u32,
    /// The smallest piece that should be moved at once, in bytes; 0 for unknown.
    pub min_io: u32,
    /// The best piece to be moved at once, in bytes; 0 for unknown.
    pub opt_io: u32,
    /// The granularity of UNMAP in bytes; 0 if there is none.
    pub discard: u32,
    /// The speed of rotation: 0 not told, 1 nothing rotates, otherwise turns a minute.
    pub rotation: u16,
}

/// The most bytes that one READ or WRITE moves, as the limits tell.
pub const MAX_TRANSFER: u32 = 1 << 30;
/// The most descriptors of one UNMAP.
pub(super) const MAX_UNMAP: usize = 255;

impl Identity {
    /// The peripheral device type.
    fn device_type(&self) -> u8 {
        match self.kind {
            Kind::Disk => 0x00,
            Kind::Cd => 0x05,
        }
    }

    /// The standard data of 36 bytes, with the versions of the standards behind.
    pub fn standard(&self) -> Vec<u8> {
        Page::new(74)
            .byte(0, self.device_type())
            .byte(1, if self.removable { 0x80 } else { 0 })
            // SPC-3, the format of SPC, hierarchical LUNs.
            .byte(2, 5)
            .byte(3, 0x12)
            .byte(4, 69)
            // Commands are queued.
            .byte(7, 0x02)
            .text(8, 8, &self.vendor)
            .text(16, 16, &self.product)
            .text(32, 4, &self.version)
            // SAM-5, SPC-3 and the standard of its kind.
            .be16(58, 0x00a0)
            .be16(60, 0x0300)
            .be16(62, if self.kind == Kind::Disk { 0x04c0 } else { 0x0460 })
            .done()
    }

    /// A page of vital product data.
    ///
    /// # Errors
    /// There is no such page.
    pub fn page(&self, page: u8) -> Result<Vec<u8>, Sense> {
        let pages = self.pages();
        if !pages.contains(&page) {
            return Err(Sense::INVALID_FIELD);
        }
        let body = match page {
            0x00 => pages,
            0x80 => self.serial.clone().unwrap_or_default().into_bytes(),
            0x83 => self.designators(),
            0xb0 => self.limits(),
            0xb1 => Page::new(60).be16(0, self.rotation).done(),
            // UNMAP and both WRITE SAME give blocks back; thin.
            _ => Page::new(4).byte(1, 0xe0).byte(2, 2).done(),
        };
        let head = Page::new(4).byte(0, self.device_type()).byte(1, page);
        Ok([head.be16(2, be16_len(body.len())).done(), body].concat())
    }

    /// The pages there are, in order.
    fn pages(&self) -> Vec<u8> {
        let mut pages = vec![0x00];
        if self.serial.is_some() {
            pages.push(0x80);
        }
        pages.push(0x83);
        if self.kind == Kind::Disk {
            pages.extend([0xb0, 0xb1]);
            if self.discard != 0 {
                pages.push(0xb2);
            }
        }
        pages
    }

    /// The ways to tell this unit from others.
    fn designators(&self) -> Vec<u8> {
        let mut all = Vec::new();
        // ASCII, vendor specific. One byte holds its length.
        let id: Vec<u8> = self.device_id.bytes().take(251).collect();
        if !id.is_empty() {
            all.extend([2, 0, 0, byte_len(id.len())]);
            all.extend(id);
        }
        if self.wwn != 0 {
            // Binary, NAA.
            all.extend([1, 3, 0, 8]);
            all.extend(self.wwn.to_be_bytes());
        }
        all
    }

    /// Block limits, in logical blocks. The unit that a limit rounds down to is at least one.
    fn limits(&self) -> Vec<u8> {
        let blocks = |bytes: u32| bytes.checked_div(self.block).unwrap_or(0);
        let max = blocks(MAX_TRANSFER).max(1);
        let page = Page::new(60)
            .byte(0, 1)
            .be16(2, u16::try_from(blocks(self.min_io)).unwrap_or(u16::MAX))
            .be32(4, max)
            .be32(8, blocks(self.opt_io));
        if self.discard == 0 {
            return page.done();
        }
        page.be32(16, max)
            .be32(20, u32::try_from(MAX_UNMAP).unwrap_or(u32::MAX))
            .be32(24, blocks(self.discard).max(1))
            // The alignment is valid and zero.
            .be32(28, 0x8000_0000)
            .be64(32, u64::from(max))
            .done()
    }

    /// The logarithm of the physical blocks' size in logical ones.
    pub(super) fn physical_exponent(&self) -> u8 {
        let ratio = self.physical.max(self.block).checked_div(self.block).unwrap_or(1).max(1);
        u8::try_from(ratio.ilog2()).unwrap_or(0) & 0xf
    }
}

/// What INQUIRY answers for a unit that a target does not have.
pub fn absent() -> Vec<u8> {
    Page::new(36).byte(0, 0x7f).byte(2, 5).byte(3, 0x12).byte(4, 31).done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::tests::disk_identity;

    #[test]
    fn standard_data() {
        let data = disk_identity().standard();
        assert_eq!((data[0], data[1], data[4], data.len()), (0, 0, 69, 74));
        assert_eq!(&data[8..36], b"QEMU    QEMU HARDDISK   2.5+");
        let cd = Identity { kind: Kind::Cd, removable: true, ..disk_identity() }.standard();
        assert_eq!((cd[0], cd[1]), (5, 0x80));
    }

    #[test]
    fn pages() {
        let mut unit = disk_identity();
        unit.discard = 0;
        unit.serial = None;
        assert_eq!(unit.page(0).unwrap(), [0, 0, 0, 4, 0, 0x83, 0xb0, 0xb1]);
        assert_eq!(unit.page(0x80), Err(Sense::INVALID_FIELD));
        unit.serial = Some("abc".to_owned());
        unit.discard = 4096;
        assert_eq!(unit.page(0).unwrap()[4..], [0, 0x80, 0x83, 0xb0, 0xb1, 0xb2]);
        assert_eq!(unit.page(0x80).unwrap(), *b"\0\x80\0\x03abc");
        unit.wwn = 0x5000_1234_0000_5678;
        unit.device_id = "d".to_owned();
        let designators = unit.page(0x83).unwrap();
        assert_eq!(designators[4..9], [2, 0, 0, 1, b'd']);
        assert_eq!(designators[9..13], [1, 3, 0, 8]);
        let limits = unit.page(0xb0).unwrap();
        assert_eq!(limits.len(), 64);
        assert_eq!(limits[4 + 24..4 + 28], [0, 0, 0, 8]);
        assert_eq!(unit.page(0xb2).unwrap(), [0, 0xb2, 0, 4, 0, 0xe0, 2, 0]);
    }

    #[test]
    fn long_texts_are_cut() {
        let unit = Identity {
            product: "a product of much too long a name".to_owned(),
            device_id: "x".repeat(1000),
            ..disk_identity()
        };
        assert_eq!(&unit.standard()[16..36], b"a product of muc2.5+");
        assert_eq!(unit.page(0x83).unwrap().len(), 4 + 4 + 251);
    }
}
