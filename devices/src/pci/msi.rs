//! The MSI capability: up to 32 messages that differ in the low bits of their data, with 64-bit
//! address and a mask bit for each (PCI 3.0, section 6.8.1).
//!
//! A part of a function, under its mutex. A hostile guest writes its registers as it likes; a
//! message that KVM does not take is reported and the vector stays silent.

use std::sync::Arc;

use resources::irq::MsiMessage;

use super::config::ConfigSpace;
use super::interrupt::Interrupt;

/// The capability's id.
const ID: u8 = 0x05;
/// Message control.
const ENABLE: u16 = 1 << 0;
const GRANTED: u16 = 7 << 4;
const WIDE: u16 = 1 << 7;
const MASKING: u16 = 1 << 8;
/// Registers, from the capability on.
const CONTROL: usize = 2;
const ADDRESS: usize = 4;
const DATA: usize = 12;
const MASK: usize = 16;
const PENDING: usize = 20;
/// The most messages of one function.
pub(super) const MAX_VECTORS: u16 = 32;

/// A function's MSI.
pub(super) struct Msi {
    at: usize,
    interrupt: Arc<Interrupt>,
    sent: Vec<Option<MsiMessage>>,
}

impl Msi {
    /// Adds the capability for a power of two of `vectors`; `None` if that is not so, or without
    /// room.
    pub(super) fn new(
        config: &mut ConfigSpace,
        vectors: u16,
        interrupt: &Arc<Interrupt>,
    ) -> Option<Msi> {
        if !vectors.is_power_of_two() || vectors > MAX_VECTORS {
            return None;
        }
        let offered = u16::try_from(vectors.trailing_zeros()).ok()? << 1;
        let mut body = (offered | WIDE | MASKING).to_le_bytes().to_vec();
        body.extend([0; 20]);
        let mut writable = (ENABLE | GRANTED).to_le_bytes().to_vec();
        writable.extend([0xfc, 0xff, 0xff, 0xff]);
        writable.extend([0xff; 4]);
        writable.extend([0xff, 0xff, 0, 0]);
        let masks = 1u64.checked_shl(vectors.into())?.checked_sub(1)?;
        writable.extend(u32::try_from(masks).ok()?.to_le_bytes());
        let at = config.add_capability(ID, &body, &writable)?;
        Some(Msi { at, interrupt: interrupt.clone(), sent: vec![None; vectors.into()] })
    }

    fn register(&self, offset: usize) -> usize {
        self.at.saturating_add(offset)
    }

    /// Whether the guest has switched it on.
    pub(super) fn enabled(&self, config: &ConfigSpace) -> bool {
        config.u16(self.register(CONTROL)) & ENABLE != 0
    }

    /// How many of the messages the guest lets the function use.
    pub(super) fn granted(&self, config: &ConfigSpace) -> u32 {
        let log = u32::from((config.u16(self.register(CONTROL)) & GRANTED) >> 4);
        let most = u32::try_from(self.sent.len()).unwrap_or(1);
        1u32.checked_shl(log).unwrap_or(most).min(most)
    }

    /// Lets the vectors follow the registers.
    pub(super) fn update(&mut self, config: &ConfigSpace) {
        let on = self.enabled(config);
        let granted = self.granted(config);
        let address = u64::from_le_bytes(config.get(self.register(ADDRESS)));
        let data = u32::from(config.u16(self.register(DATA)));
        let masks = config.u32(self.register(MASK));
        let mut changes = Vec::new();
        for (vector, sent) in (0u16..).zip(&mut self.sent) {
            let number = u32::from(vector);
            let masked = masks.checked_shr(number).unwrap_or(1) & 1 != 0;
            let data = data & !granted.saturating_sub(1) | number;
            let wanted = Some(MsiMessage { address, data });
            let wanted = wanted.filter(|_| on && number < granted && !masked);
            if wanted != *sent {
                *sent = wanted;
                changes.push((vector, wanted));
            }
        }
        self.interrupt.set_messages(&changes);
    }

    /// The pending bits' register, and what a read of it finds.
    pub(super) fn pending(&self) -> (usize, u32) {
        let masked = self.sent.iter().rev();
        let masked = masked.fold(0, |bits, sent| bits << 1 | u64::from(sent.is_none()));
        let bits = self.interrupt.pending(0, masked);
        (self.register(PENDING), u32::try_from(bits).unwrap_or(0))
    }

    /// As after power-on; the registers are already.
    pub(super) fn reset(&mut self, config: &ConfigSpace) {
        self.update(config);
        self.interrupt.clear_pending();
    }

    /// Takes over the pending bits; the registers are loaded already.
    pub(super) fn load(&mut self, config: &ConfigSpace, pending: u32) {
        let bits = (0..32).filter(|bit| pending >> bit & 1 != 0);
        bits.for_each(|bit| self.interrupt.set_pending(bit));
        self.update(config);
    }
}
