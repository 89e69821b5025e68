//! The MSI-X capability: a table of messages and their pending bits in a region of their own
//! (PCI 3.0, section 6.8.2).
//!
//! A part of a function, under its mutex. A hostile guest writes the table as it likes; a message
//! that KVM does not take is reported and the vector stays silent.

use std::sync::Arc;

use resources::irq::MsiMessage;
use resources::state::{StateError, invalid};

use super::bar::{Bar, BarKind};
use super::config::ConfigSpace;
use super::interrupt::Interrupt;

/// The capability's id.
const ID: u8 = 0x11;
/// Message control: function mask, enable.
const FUNCTION_MASK: u16 = 1 << 14;
const ENABLE: u16 = 1 << 15;
/// Bytes of a table entry: address, data, control.
const ENTRY: usize = 16;
/// In an entry's control: masked.
const MASKED: u8 = 1;
/// The most vectors of one function.
pub(super) const MAX_VECTORS: u16 = 2048;

/// A function's MSI-X.
pub(super) struct Msix {
    /// Where the capability is.
    at: usize,
    /// The region that table and pending bits are in.
    pub(super) bar: u8,
    table: Vec<u8>,
    /// Where in the region the pending bits are.
    pending: u64,
    interrupt: Arc<Interrupt>,
    /// What the vectors were last told to send.
    sent: Vec<Option<MsiMessage>>,
}

impl Msix {
    /// The region that `vectors` need: table, then pending bits, as QEMU lays them out.
    pub(super) fn bar(index: u8, vectors: u16) -> (Bar, u64) {
        let table = u64::from(vectors).saturating_mul(16);
        let bits = u64::from(vectors).div_ceil(64).saturating_mul(8);
        let pending = table.max(0x800);
        let size = pending.saturating_add(bits).next_power_of_two().max(0x1000);
        (Bar::new(index, BarKind::Memory32, size), pending)
    }

    /// Adds the capability; `None` without room for it.
    pub(super) fn new(
        config: &mut ConfigSpace,
        (bar, vectors): (u8, u16),
        interrupt: &Arc<Interrupt>,
    ) -> Option<Msix> {
        let (_, pending) = Msix::bar(bar, vectors);
        let control = vectors.checked_sub(1).filter(|last| *last < MAX_VECTORS)?;
        let mut body = control.to_le_bytes().to_vec();
        body.extend(u32::from(bar).to_le_bytes());
        body.extend((u32::try_from(pending).ok()? | u32::from(bar)).to_le_bytes());
        let writable = (ENABLE | FUNCTION_MASK).to_le_bytes();
        let at = config.add_capability(ID, &body, &writable)?;
        let mut msix = Msix {
            at,
            bar,
            table: Vec::new(),
            pending,
            interrupt: interrupt.clone(),
            sent: vec![None; vectors.into()],
        };
        msix.clear();
        Some(msix)
    }

    /// The table as after power-on: everything masked.
    fn clear(&mut self) {
        let entry = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, MASKED, 0, 0, 0];
        self.table = entry.repeat(self.sent.len());
    }

    fn control(&self, config: &ConfigSpace) -> u16 {
        config.u16(self.at.saturating_add(2))
    }

    /// Whether the guest has switched it on.
    pub(super) fn enabled(&self, config: &ConfigSpace) -> bool {
        self.control(config) & ENABLE != 0
    }

    /// Lets the vectors follow the registers.
    pub(super) fn update(&mut self, config: &ConfigSpace) {
        let on = self.control(config) & (ENABLE | FUNCTION_MASK) == ENABLE;
        let mut changes = Vec::new();
        for ((vector, entry), sent) in
            (0u16..).zip(self.table.chunks_exact(ENTRY)).zip(&mut self.sent)
        {
            let wanted = message(entry).filter(|_| on);
            if wanted != *sent {
                *sent = wanted;
                changes.push((vector, wanted));
            }
        }
        self.interrupt.set_messages(&changes);
    }

    /// A guest read in the region.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        for (offset, byte) in (offset..).zip(data.iter_mut()) {
            let index = usize::try_from(offset).unwrap_or(usize::MAX);
            if let Some(value) = self.table.get(index) {
                *byte = *value;
            }
        }
        if let Some(bits) = offset.checked_sub(self.pending) {
            let first = u16::try_from((bits / 8).saturating_mul(64)).unwrap_or(u16::MAX);
            let word = self.pending_word(first).to_le_bytes();
            let from = usize::try_from(bits % 8).unwrap_or(0);
            let word = word.get(from..).unwrap_or_default();
            data.iter_mut().zip(word).for_each(|(byte, value)| *byte = *value);
        }
    }

    /// The pending bits of 64 vectors. One that is not masked has been sent.
    fn pending_word(&self, first: u16) -> u64 {
        let masked = self.sent.iter().skip(first.into()).take(64).rev();
        let masked = masked.fold(0, |bits, sent| bits << 1 | u64::from(sent.is_none()));
        self.interrupt.pending(first, masked)
    }

    /// A guest write in the region.
    pub(super) fn write(&mut self, config: &ConfigSpace, offset: u64, data: &[u8]) {
        for (offset, value) in (offset..).zip(data) {
            let index = usize::try_from(offset).unwrap_or(usize::MAX);
            // Of an entry's control only the mask can be written.
            let mask = match index % ENTRY {
                12 => MASKED,
                13..=15 => 0,
                _ => 0xff,
            };
            if let Some(byte) = self.table.get_mut(index) {
                *byte = value & mask;
            }
        }
        self.update(config);
    }

    /// As after power-on; the registers are already.
    pub(super) fn reset(&mut self, config: &ConfigSpace) {
        self.clear();
        self.update(config);
        self.interrupt.clear_pending();
    }

    /// The table and the pending bits, to be saved.
    pub(super) fn save(&self) -> (Vec<u8>, Vec<u64>) {
        let words = (0..self.sent.len()).step_by(64);
        let words = words.map(|first| self.pending_word(u16::try_from(first).unwrap_or(u16::MAX)));
        (self.table.clone(), words.collect())
    }

    /// Takes over a saved table; the registers are loaded already.
    pub(super) fn load(
        &mut self,
        config: &ConfigSpace,
        table: &[u8],
        pending: &[u64],
    ) -> Result<(), StateError> {
        if table.len() != self.table.len() || pending.len() != self.sent.len().div_ceil(64) {
            return Err(invalid("MSI-X table of another size"));
        }
        if table.chunks_exact(4).skip(3).step_by(4).any(|word| !matches!(word, [0 | 1, 0, 0, 0])) {
            return Err(invalid("reserved bits in an MSI-X entry"));
        }
        self.table = table.to_vec();
        let words = (0u16..).step_by(64).zip(pending);
        for (first, word) in words {
            let bits = (0..64).filter(|bit| word >> bit & 1 != 0);
            bits.for_each(|bit| self.interrupt.set_pending(first.saturating_add(bit)));
        }
        self.update(config);
        Ok(())
    }
}

/// The message of a table entry that is not masked.
fn message(entry: &[u8]) -> Option<MsiMessage> {
    match entry {
        [a0, a1, a2, a3, a4, a5, a6, a7, d0, d1, d2, d3, control, ..] if control & MASKED == 0 => {
            Some(MsiMessage {
                address: u64::from_le_bytes([*a0, *a1, *a2, *a3, *a4, *a5, *a6, *a7]),
                data: u32::from_le_bytes([*d0, *d1, *d2, *d3]),
            })
        }
        _ => None,
    }
}
