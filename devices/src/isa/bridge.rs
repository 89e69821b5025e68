//! The bridge behind which the ISA bus hangs. It has no registers: it is there so that the bus has
//! its place in the tree of devices.
//!
//! Main thread; nothing in it can be reached from outside but an empty saved state.

use std::sync::Arc;

use resources::class::Class;
use resources::device::{At, Device, DeviceCell};
use resources::state::{Blob, StateError};
use serde::{Deserialize, Serialize};

use crate::class::Ctx;

/// The device.
pub struct Bridge;

impl Bridge {
    /// What it is among the devices of a machine.
    pub const CLASS: Class<Ctx> = Class::part("isabus-bridge", "System", "ISA bus");

    /// A bridge.
    pub fn new(name: &str) -> Arc<DeviceCell<Bridge>> {
        DeviceCell::new(name, Bridge)
    }
}

#[derive(Serialize, Deserialize)]
struct Empty {}

impl Device for Bridge {
    fn read(&mut self, _: At, _: &mut [u8]) {}

    fn write(&mut self, _: At, _: &[u8]) {}

    fn reset(&mut self) {}

    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &Empty {})
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        blob.parse::<Empty>(1, &[]).map(drop)
    }
}
