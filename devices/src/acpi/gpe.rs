//! General purpose events (ACPI specification 6.5, section 4.8.4.1): how parts of the machine have
//! the guest's ACPI method `\_GPE._Exx` run.
//!
//! Sixteen events: two bytes of status (write one to clear), then two of enable. The block is
//! region [`super::pm::GPE`] of the power management device, which also saves it.
//!
//! Raised from any thread, also with a device locked: the lock here comes after a device's and
//! before a wire's. A hostile guest can toggle one line.

use std::sync::Arc;

use parking_lot::Mutex;
use resources::irq::Irq;

/// A device came to a PCI bus, or is to leave one: `_E01`.
pub const PCI_HOTPLUG: u8 = 1;
/// A processor came: `_E02`.
pub const CPU_HOTPLUG: u8 = 2;
/// The machine's generation id has changed: `_E05`.
pub const GENERATION_ID: u8 = 5;

/// The events, shared by the device that shows their registers and those that raise them.
pub struct Gpe {
    inner: Mutex<Inner>,
}

struct Inner {
    registers: Registers,
    /// ACPI has the hardware (SCI_EN): otherwise events are kept but interrupt nobody.
    acpi_mode: bool,
    /// A line of its own to the system control interrupt.
    sci: Irq,
}

/// What the guest sees of the events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Registers {
    pub(super) status: u16,
    pub(super) enable: u16,
}

impl Inner {
    fn level(&self) -> bool {
        self.acpi_mode && self.registers.status & self.registers.enable != 0
    }
}

impl Gpe {
    /// No event, none enabled. `sci`: a line to the system control interrupt.
    pub fn new(sci: Irq) -> Arc<Gpe> {
        let inner = Inner { registers: Registers::default(), acpi_mode: false, sci };
        Arc::new(Gpe { inner: Mutex::new(inner) })
    }

    /// Raises an event, 0 to 15; others do nothing. It is kept until the guest clears it.
    pub fn raise(&self, event: u8) {
        self.change(|inner| {
            inner.registers.status |= 1u16.checked_shl(event.into()).unwrap_or(0);
        });
    }

    /// Whether the guest has an event raised and enabled.
    pub fn is_pending(&self) -> bool {
        let registers = self.registers();
        registers.status & registers.enable != 0
    }

    pub(super) fn set_acpi_mode(&self, on: bool) {
        self.change(|inner| inner.acpi_mode = on);
    }

    pub(super) fn read(&self, offset: u64) -> u8 {
        let Registers { status, enable } = self.registers();
        let [s0, s1] = status.to_le_bytes();
        let [e0, e1] = enable.to_le_bytes();
        match offset {
            0 => s0,
            1 => s1,
            2 => e0,
            3 => e1,
            _ => 0xff,
        }
    }

    pub(super) fn write(&self, offset: u64, value: u8) {
        let word = |low: bool| if low { u16::from(value) } else { u16::from(value) << 8 };
        self.change(|Inner { registers, .. }| match offset {
            0 | 1 => registers.status &= !word(offset == 0),
            2 => registers.enable = registers.enable & 0xff00 | word(true),
            3 => registers.enable = registers.enable & 0x00ff | word(false),
            _ => {}
        });
    }

    pub(super) fn registers(&self) -> Registers {
        self.inner.lock().registers
    }

    pub(super) fn reset(&self) {
        self.change(|inner| inner.registers = Registers::default());
    }

    /// Takes over saved registers, without an edge of the line.
    pub(super) fn load(&self, registers: Registers, acpi_mode: bool) {
        let mut inner = self.inner.lock();
        (inner.registers, inner.acpi_mode) = (registers, acpi_mode);
        inner.sci.import(inner.level());
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.inner.lock();
        change(&mut inner);
        inner.sci.set(inner.level());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::line;

    #[test]
    fn an_event_interrupts_while_enabled_in_acpi_mode() {
        let (sci, fake) = line(9);
        let gpe = Gpe::new(sci);
        gpe.raise(9);
        gpe.write(3, 2);
        assert!(!fake.line(9) && gpe.is_pending());
        gpe.set_acpi_mode(true);
        assert!(fake.line(9));
        assert_eq!([0, 1, 2, 3, 4].map(|offset| gpe.read(offset)), [0, 2, 0, 2, 0xff]);
        gpe.write(0, 0xff);
        assert!(fake.line(9));
        gpe.write(1, 2);
        assert!(!fake.line(9) && !gpe.is_pending());
        gpe.raise(77);
        assert_eq!(gpe.registers(), Registers { status: 0, enable: 0x200 });
    }

    #[test]
    fn loading_makes_no_edge() {
        let (sci, fake) = line(9);
        let gpe = Gpe::new(sci);
        gpe.load(Registers { status: 2, enable: 2 }, true);
        assert!(!fake.line(9));
        gpe.raise(1);
        gpe.write(0, 2);
        gpe.raise(1);
        assert!(fake.line(9));
        gpe.reset();
        assert!(!fake.line(9) && !gpe.is_pending());
    }
}
