//! ACPI: the fixed hardware of a PC and the tables that describe the machine to the guest.

pub mod pm;
pub mod tables;
