//! The host bridge's side of the machine: configuration mechanism #1 (PCI 3.0, section 3.2.2.3.2).
//!
//! Ports 0xcf8 to 0xcff. A 32-bit access at 0xcf8 sets or reads the address; ports 0xcfc to 0xcff
//! are the four bytes of the register there. Port 0xcf9 by itself is the chipset's reset control.
//!
//! Runs on vCPU threads. Finding the function takes no lock; the address is an atomic under the
//! mutex of [`Host`], which is never held together with a function's. A hostile guest reaches
//! every register of every function, with accesses of 1 to 4 bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use resources::class::Class;
use resources::device::{At, Device, DeviceCell, DeviceRef, Router, put_value, value_of};
use resources::state::{Blob, StateError, invalid};
use serde::{Deserialize, Serialize};

use super::bus::{Address, Bus};
use super::function::CONFIG;
use crate::class::Ctx;

/// The first port.
pub const PORT: u64 = 0xcf8;
/// How many ports there are.
pub const PORTS: u64 = 8;
/// The port of the reset control among them.
const RESET: u64 = 1;
/// The first data port among them.
const DATA: u64 = 4;

/// The bits of the address that are kept: switched on, bus, device, function, register.
const KEPT: u32 = 0x80ff_fffc;
const ON: u32 = 1 << 31;

/// The address register, as a device of its own.
pub struct Host {
    address: Arc<AtomicU32>,
}

/// Where the configuration ports lead.
pub struct Ports {
    address: Arc<AtomicU32>,
    host: DeviceRef,
    bus: Arc<Bus>,
    reset: DeviceRef,
}

#[derive(Serialize, Deserialize)]
struct State {
    address: u32,
}

impl Host {
    /// What it is among the devices of a machine.
    pub const CLASS: Class<Ctx> = Class::part("i440FX-pcihost", "System", "PCI host bridge");

    /// The register, and the router for the ports to the functions on `bus` and behind.
    /// `reset` is the chipset's reset control.
    pub fn new(
        name: &str,
        bus: &Arc<Bus>,
        reset: DeviceRef,
    ) -> (Arc<DeviceCell<Host>>, Arc<dyn Router>) {
        let address = Arc::<AtomicU32>::default();
        let host = DeviceCell::new(name, Host { address: address.clone() });
        let ports = Ports { address, host: host.clone(), bus: bus.clone(), reset };
        (host, Arc::new(ports))
    }
}

impl Device for Host {
    fn read(&mut self, _: At, data: &mut [u8]) {
        if data.len() == 4 {
            put_value(data, self.address.load(Ordering::Relaxed).into());
        }
    }

    fn write(&mut self, _: At, data: &[u8]) {
        // Other widths are no business of this register's.
        if data.len() == 4 {
            let value = u32::try_from(value_of(data)).unwrap_or(0);
            self.address.store(value & KEPT, Ordering::Relaxed);
        }
    }

    fn reset(&mut self) {
        self.address.store(0, Ordering::Relaxed);
    }

    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &State { address: self.address.load(Ordering::Relaxed) })
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        let State { address } = blob.parse(1, &[])?;
        if address & !KEPT != 0 {
            return Err(invalid("reserved bits in the PCI configuration address"));
        }
        self.address.store(address, Ordering::Relaxed);
        Ok(())
    }
}

impl Router for Ports {
    fn route(&self, offset: u64) -> Option<(DeviceRef, At)> {
        match offset {
            0 => Some((self.host.clone(), At { region: 0, offset: 0 })),
            RESET => Some((self.reset.clone(), At { region: 0, offset: 0 })),
            2..DATA => None,
            _ => {
                let address = self.address.load(Ordering::Relaxed);
                let [register, devfn, number, _] = address.to_le_bytes();
                let bus = (address & ON != 0).then(|| self.bus.find(number)).flatten()?;
                let device = bus.function(Address::from_devfn(devfn))?;
                let offset = u64::from(register) | offset & 3;
                Some((device, At { region: CONFIG, offset }))
            }
        }
    }
}
