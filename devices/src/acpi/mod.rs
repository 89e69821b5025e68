//! ACPI: the fixed hardware of a PC and the tables that describe the machine to the guest.
//!
//! The registers ([`pm`], [`gpe`], [`cpu`]) face the guest on vCPU threads; the tables ([`tables`]) are made
//! by the main thread at each reset.

pub mod cpu;
pub mod cpu_aml;
pub mod gpe;
pub mod pci_aml;
pub mod pci_hotplug;
pub mod pm;
pub mod tables;
pub mod vmgenid;
