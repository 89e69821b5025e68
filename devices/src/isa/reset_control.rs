//! The reset control register of PC chipsets, also the ACPI reset register.
//!
//! Region 0: 1 byte, port 0xcf9. Bit 1 chooses a hard reset and is kept; writing bit 2 resets.
//! The ACPI reset value is [`RESET_VALUE`].
//!
//! Runs on vCPU threads under the device's mutex. A hostile guest can ask for resets.

use std::sync::Arc;

use resources::class::Class;
use resources::device::{At, Device, DeviceCell};
use resources::request::{Request, Requests};
use resources::state::{Blob, StateError};

use crate::class::Ctx;

/// Port of region 0.
pub const PORT: u64 = 0xcf9;

/// What to write for a hard reset.
pub const RESET_VALUE: u8 = HARD | NOW;

const HARD: u8 = 0x02;
const NOW: u8 = 0x04;

/// The device.
pub struct ResetControl {
    requests: Requests,
    regs: state::Registers,
}

impl ResetControl {
    /// What it is among the devices of a machine.
    pub const CLASS: Class<Ctx> = Class::part("reset-control", "ISA", "Reset port of the chipset");

    /// The register.
    pub fn new(name: &str, requests: Requests) -> Arc<DeviceCell<ResetControl>> {
        DeviceCell::new(name, ResetControl { requests, regs: state::Registers::default() })
    }
}

impl Device for ResetControl {
    fn read(&mut self, _: At, data: &mut [u8]) {
        if let Some(byte) = data.first_mut() {
            *byte = self.regs.control;
        }
    }

    fn write(&mut self, _: At, data: &[u8]) {
        let Some(value) = data.first() else { return };
        self.regs.control = value & HARD;
        if value & NOW != 0 {
            self.requests.request(Request::Reset);
        }
    }

    fn reset(&mut self) {
        self.regs = state::Registers::default();
    }

    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &self.regs)
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        let regs: state::Registers = blob.parse(1, &[])?;
        self.regs.control = regs.control & HARD;
        Ok(())
    }
}

mod state {
    use serde::{Deserialize, Serialize};

    #[derive(Default, Serialize, Deserialize)]
    #[serde(default)]
    pub(super) struct Registers {
        pub(super) control: u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Requested, inb, outb};

    #[test]
    fn resets_when_told_and_keeps_the_kind() {
        let requests = Arc::new(Requested::default());
        let cell = ResetControl::new("reset", requests.clone());
        let mut register = cell.lock();
        outb(&mut *register, 0, HARD);
        assert_eq!(requests.take(), []);
        assert_eq!(inb(&mut *register, 0), HARD);
        outb(&mut *register, 0, RESET_VALUE);
        assert_eq!(requests.take(), [Request::Reset]);
        assert_eq!(inb(&mut *register, 0), HARD);
    }
}
