//! Configuration space: bytes, and masks that say which of their bits a guest can change.
//!
//! That is all it takes: a base address register whose low bits cannot be written tells its size
//! by itself, and a saved state is the bytes, checked through the same masks.
//!
//! No thread and no lock of its own: it is a part of a function. A hostile guest changes bits in
//! the masks; a hostile saved state is refused if it differs in any other.

use resources::state::{StateError, invalid};

/// Bytes of a function's configuration space.
pub(super) const SIZE: usize = 256;

/// Offsets and bits of the standard registers (PCI 3.0, chapter 6).
pub mod reg {
    #![allow(missing_docs, reason = "the specification's names")]
    pub const VENDOR: usize = 0x00;
    pub const DEVICE: usize = 0x02;
    pub const COMMAND: usize = 0x04;
    pub const STATUS: usize = 0x06;
    pub const REVISION: usize = 0x08;
    /// Programming interface; sub-class and class follow.
    pub const INTERFACE: usize = 0x09;
    pub const CLASS: usize = 0x0a;
    pub const CACHE_LINE: usize = 0x0c;
    pub const LATENCY: usize = 0x0d;
    pub const HEADER_TYPE: usize = 0x0e;
    pub const BAR0: usize = 0x10;
    pub const SUBSYSTEM_VENDOR: usize = 0x2c;
    pub const SUBSYSTEM: usize = 0x2e;
    pub const CAPABILITIES: usize = 0x34;
    pub const INTERRUPT_LINE: usize = 0x3c;
    pub const INTERRUPT_PIN: usize = 0x3d;

    pub const COMMAND_IO: u16 = 1 << 0;
    pub const COMMAND_MEMORY: u16 = 1 << 1;
    pub const COMMAND_MASTER: u16 = 1 << 2;
    pub const COMMAND_PARITY: u16 = 1 << 6;
    pub const COMMAND_SERR: u16 = 1 << 8;
    pub const COMMAND_INTX_OFF: u16 = 1 << 10;
    pub const STATUS_INTX: u16 = 1 << 3;
    pub const STATUS_CAPABILITIES: u16 = 1 << 4;
    /// The error bits, which a guest clears by writing ones.
    pub const STATUS_ERRORS: u16 = 0xf900;
    /// In the header type: functions other than 0 may be there.
    pub const MULTIFUNCTION: u8 = 0x80;

    /// Header type 1, of bridges: see PCI-to-PCI Bridge specification 1.2, chapter 3.
    pub mod bridge {
        pub const PRIMARY: usize = 0x18;
        pub const SECONDARY: usize = 0x19;
        pub const SUBORDINATE: usize = 0x1a;
        pub const SECONDARY_LATENCY: usize = 0x1b;
        pub const IO_BASE: usize = 0x1c;
        pub const IO_LIMIT: usize = 0x1d;
        pub const SECONDARY_STATUS: usize = 0x1e;
        pub const MEMORY_BASE: usize = 0x20;
        pub const MEMORY_LIMIT: usize = 0x22;
        pub const PREFETCH_BASE: usize = 0x24;
        pub const PREFETCH_LIMIT: usize = 0x26;
        pub const PREFETCH_BASE_UPPER: usize = 0x28;
        pub const PREFETCH_LIMIT_UPPER: usize = 0x2c;
        pub const IO_BASE_UPPER: usize = 0x30;
        pub const IO_LIMIT_UPPER: usize = 0x32;
        pub const CONTROL: usize = 0x3e;
    }
}

/// Where the first capability goes.
const FIRST_CAPABILITY: usize = 0x40;

/// A function's configuration space.
#[derive(Clone)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    /// The bytes after power-on.
    power_on: [u8; SIZE],
    /// Bits that a guest writes.
    writable: [u8; SIZE],
    /// Bits that a guest clears by writing ones.
    clearable: [u8; SIZE],
    /// Where the next capability goes, and where its offset is to be written.
    next: usize,
    link: usize,
}

impl Default for ConfigSpace {
    fn default() -> Self {
        ConfigSpace {
            bytes: [0; SIZE],
            power_on: [0; SIZE],
            writable: [0; SIZE],
            clearable: [0; SIZE],
            next: FIRST_CAPABILITY,
            link: reg::CAPABILITIES,
        }
    }
}

impl ConfigSpace {
    /// The bytes from `at` on; ones past the end.
    pub fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut value = [0xff; N];
        self.read(at, &mut value);
        value
    }

    /// A byte.
    pub fn u8(&self, at: usize) -> u8 {
        u8::from_le_bytes(self.get(at))
    }

    /// A 16-bit register.
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.get(at))
    }

    /// A 32-bit register.
    pub fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.get(at))
    }

    /// Sets bytes, whatever the masks say; those past the end are dropped.
    pub fn set(&mut self, at: usize, value: &[u8]) {
        put(&mut self.bytes, at, value);
    }

    /// Sets bytes now and after every reset.
    pub fn set_power_on(&mut self, at: usize, value: &[u8]) {
        put(&mut self.bytes, at, value);
        put(&mut self.power_on, at, value);
    }

    /// Says which bits a guest can write.
    pub fn set_writable(&mut self, at: usize, mask: &[u8]) {
        put(&mut self.writable, at, mask);
    }

    /// Says which bits a guest clears by writing ones.
    pub fn set_clearable(&mut self, at: usize, mask: &[u8]) {
        put(&mut self.clearable, at, mask);
    }

    /// Sets or clears bits of a 16-bit register, whatever the masks say.
    pub fn set_bits(&mut self, at: usize, bits: u16, on: bool) {
        let old = self.u16(at);
        let new = if on { old | bits } else { old & !bits };
        self.set(at, &new.to_le_bytes());
    }

    /// Adds a capability: its id, what comes after the link byte, and which bits of that a guest
    /// writes. Returns its offset; `None` if there is no room.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Option<usize> {
        let at = self.next;
        let end = at.checked_add(2)?.checked_add(body.len())?.checked_next_multiple_of(4)?;
        if end > SIZE {
            return None;
        }
        self.set_power_on(self.link, &[u8::try_from(at).ok()?]);
        self.set_power_on(at, &[id, 0]);
        let body_at = at.checked_add(2)?;
        self.set_power_on(body_at, body);
        self.set_writable(body_at, writable);
        let status = self.u16(reg::STATUS) | reg::STATUS_CAPABILITIES;
        self.set_power_on(reg::STATUS, &status.to_le_bytes());
        self.link = at.checked_add(1)?;
        self.next = end;
        Some(at)
    }

    /// A guest read; ones past the end.
    pub fn read(&self, at: usize, data: &mut [u8]) {
        let bytes = self.bytes.get(at..).unwrap_or_default();
        data.iter_mut().zip(bytes).for_each(|(byte, here)| *byte = *here);
    }

    /// A guest write, through the masks.
    pub fn write(&mut self, at: usize, data: &[u8]) {
        let here = self.bytes.get_mut(at..).unwrap_or_default();
        let masks = self.writable.iter().zip(&self.clearable).skip(at);
        for ((byte, (writable, clearable)), value) in here.iter_mut().zip(masks).zip(data) {
            *byte = (*byte & !writable | value & writable) & !(value & clearable);
        }
    }

    /// Back to what the bytes were after power-on.
    pub fn reset(&mut self) {
        self.bytes = self.power_on;
    }

    /// The bytes, to be saved.
    pub fn bytes(&self) -> &[u8; SIZE] {
        &self.bytes
    }

    /// Takes over saved bytes.
    ///
    /// # Errors
    /// When there are not 256 of them, or one differs in a bit that no guest can change.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        let bytes: &[u8; SIZE] =
            bytes.try_into().map_err(|_| invalid("configuration space is not 256 bytes"))?;
        let masks = self.writable.iter().zip(&self.clearable);
        for (at, ((old, new), (writable, clearable))) in
            self.power_on.iter().zip(bytes).zip(masks).enumerate()
        {
            if (old ^ new) & !(writable | clearable) != 0 {
                let what = format!("configuration register {at:#x} cannot be {new:#x}");
                return Err(invalid(what));
            }
        }
        self.bytes = *bytes;
        Ok(())
    }
}

fn put(bytes: &mut [u8; SIZE], at: usize, value: &[u8]) {
    let bytes = bytes.get_mut(at..).unwrap_or_default();
    bytes.iter_mut().zip(value).for_each(|(byte, value)| *byte = *value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn masks_decide_what_a_write_changes() {
        let mut config = ConfigSpace::default();
        config.set_power_on(0x40, &[0x11, 0x80]);
        config.set_writable(0x40, &[0xf0]);
        config.set_clearable(0x41, &[0xc0]);
        config.write(0x40, &[0xff, 0x40]);
        assert_eq!(config.get(0x40), [0xf1, 0x80]);
        config.write(0x3f, &[0xff, 0x00, 0x80]);
        assert_eq!(config.get(0x3f), [0, 0x01, 0x00]);
        config.reset();
        assert_eq!(config.get(0x40), [0x11, 0x80]);
    }

    #[test]
    fn accesses_past_the_end_do_nothing() {
        let mut config = ConfigSpace::default();
        config.set_writable(0xfe, &[0xff, 0xff]);
        config.write(0xfe, &[1, 2, 3, 4]);
        config.write(0x1000, &[1]);
        assert_eq!(config.u32(0xfe), 0xffff_0201);
        assert_eq!(config.u8(0x1000), 0xff);
    }

    #[test]
    fn capabilities_form_a_list() {
        let mut config = ConfigSpace::default();
        assert_eq!(config.add_capability(0x11, &[1; 10], &[]), Some(0x40));
        assert_eq!(config.add_capability(0x09, &[2; 3], &[]), Some(0x4c));
        assert_eq!(config.u8(reg::CAPABILITIES), 0x40);
        assert_eq!(config.get(0x40), [0x11, 0x4c, 1]);
        assert_eq!(config.get(0x4c), [0x09, 0, 2]);
        assert_eq!(config.u16(reg::STATUS), reg::STATUS_CAPABILITIES);
        assert_eq!(config.add_capability(0x09, &[0; 0xb0], &[]), None);
        config.reset();
        assert_eq!(config.u8(0x41), 0x4c);
    }

    proptest! {
        #[test]
        fn what_a_guest_can_reach_loads_and_nothing_else(
            writable in prop::collection::vec(any::<u8>(), SIZE),
            clearable in prop::collection::vec(any::<u8>(), SIZE),
            writes in prop::collection::vec((0usize..SIZE, any::<[u8; 4]>()), 0..40),
            bit in 0usize..SIZE * 8,
        ) {
            let mut config = ConfigSpace::default();
            config.set_writable(0, &writable);
            config.set_clearable(0, &clearable);
            let fresh = config.clone();
            writes.iter().for_each(|(at, data)| config.write(*at, data));
            let mut other = fresh.clone();
            prop_assert!(other.load(config.bytes()).is_ok());
            prop_assert_eq!(other.bytes(), config.bytes());
            let (at, bit) = (bit / 8, 1 << (bit % 8));
            let mut bytes = *config.bytes();
            bytes[at] ^= bit;
            prop_assert_eq!(other.load(&bytes).is_ok(), (writable[at] | clearable[at]) & bit != 0);
            prop_assert!(other.load(&bytes[1..]).is_err());
        }
    }
}
