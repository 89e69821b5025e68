//! PCI (PCI Local Bus specification 3.0): configuration space, base address registers, interrupts,
//! buses and bridges, and the chipset functions of machine `pc`.
//!
//! A [`Function`] is what the guest sees at one address of a [`Bus`]. It owns the configuration
//! bytes, decides where the base address registers are mapped, keeps the MSI-X table and drives
//! the interrupt pin; the [`PciDevice`] behind it answers accesses to its own registers only.
//! [`plug()`] makes one from a device's properties.
//!
//! Register accesses come on vCPU threads under the function's mutex; finding a function by its
//! address takes no lock ([`host::Ports`]). Interrupts are signalled by any thread through
//! [`Interrupt`], without the function's mutex. Lock order: function, decoder, address space or
//! route table; the shared interrupt links are a leaf.
//!
//! A hostile guest reaches every configuration register and every mapped register with any size
//! and value. It can move its devices' registers anywhere, also over each other, below RAM and the
//! board's own; that costs one painting of the address space each time and nothing accumulates.

/// Makes a type the device behind a function that has no registers and no state but those of its
/// configuration space, which the function keeps.
macro_rules! config_only {
    ($type:ty) => {
        impl resources::device::Device for $type {
            fn read(&mut self, _: resources::device::At, _: &mut [u8]) {}

            fn write(&mut self, _: resources::device::At, _: &[u8]) {}

            fn reset(&mut self) {}

            fn save(&self) -> Result<resources::state::Blob, resources::state::StateError> {
                resources::state::Blob::new(1, &resources::state::Empty {})
            }

            fn load(
                &mut self,
                blob: &resources::state::Blob,
            ) -> Result<(), resources::state::StateError> {
                blob.parse::<resources::state::Empty>(1, &[]).map(drop)
            }
        }
    };
}

mod bar;
pub mod bridge;
mod bus;
mod config;
mod function;
pub mod host;
pub mod i440fx;
pub mod i6300esb;
pub mod inspect;
mod interrupt;
mod msi;
mod msix;
pub mod piix;
mod plug;
pub mod setup;
#[cfg(test)]
mod tests;

pub use bar::{Bar, BarKind, Windows};
pub use bus::{Address, Bus, Links, Pin};
pub use config::{ConfigSpace, reg};
pub use function::{CONFIG, Function, PciDevice};
pub use interrupt::Interrupt;
pub use plug::{Capability, Identity, Interrupts, PROPS, Parts, Site, Spec, plug};

/// Intel's number among vendors.
pub const INTEL: u16 = 0x8086;
