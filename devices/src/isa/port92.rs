//! System control port A: fast A20 gate and fast reset.
//!
//! Region 0: 1 byte, port 0x92. Bit 0: a rising edge resets the machine; bit 1: the A20 gate.
//! KVM has no A20 gate, so the bit is kept but address line 20 is always on.
//!
//! Runs on vCPU threads under the device's mutex. A hostile guest can ask for resets.

use std::sync::Arc;

use resources::class::Class;
use resources::device::{At, Device, DeviceCell};
use resources::request::{Request, Requests};
use resources::state::{Blob, StateError};

use crate::class::Ctx;

/// Port of region 0.
pub const PORT: u64 = 0x92;

const RESET: u8 = 0x01;
const A20: u8 = 0x02;

/// The device.
pub struct Port92 {
    requests: Requests,
    regs: state::Registers,
}

impl Port92 {
    /// What it is among the devices of a machine.
    pub const CLASS: Class<Ctx> = Class::part("port92", "ISA", "System control port");

    /// The port, with A20 on.
    pub fn new(name: &str, requests: Requests) -> Arc<DeviceCell<Port92>> {
        DeviceCell::new(name, Port92 { requests, regs: state::Registers { control: A20 } })
    }
}

impl Device for Port92 {
    fn read(&mut self, _: At, data: &mut [u8]) {
        if let Some(byte) = data.first_mut() {
            *byte = self.regs.control;
        }
    }

    fn write(&mut self, _: At, data: &[u8]) {
        let Some(value) = data.first() else { return };
        let before = std::mem::replace(&mut self.regs.control, *value);
        if value & !before & RESET != 0 {
            self.requests.request(Request::Reset);
        }
    }

    fn reset(&mut self) {
        self.regs.control = A20;
    }

    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &self.regs)
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        self.regs = blob.parse(1, &[])?;
        Ok(())
    }
}

mod state {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    pub(super) struct Registers {
        pub(super) control: u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Requested, inb, outb};

    #[test]
    fn only_a_rising_edge_resets() {
        let requests = Arc::new(Requested::default());
        let cell = Port92::new("port92", requests.clone());
        let mut port = cell.lock();
        assert_eq!(inb(&mut *port, 0), A20);
        outb(&mut *port, 0, 0);
        assert_eq!(requests.take(), []);
        outb(&mut *port, 0, A20 | RESET);
        outb(&mut *port, 0, A20 | RESET);
        assert_eq!(requests.take(), [Request::Reset]);
        assert_eq!(inb(&mut *port, 0), A20 | RESET);
    }
}
